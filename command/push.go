package command

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	lokipush "github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/snappy"
	"golang.org/x/term"

	"github.com/casteloig/logthra/shared/config"
	"github.com/casteloig/logthra/shared/logs"
)

// A push of the tool has at most so many lines and, unless a single line is longer, bytes. What is gathered is
// pushed after pushEvery in any case, so that a pipe that is followed does not wait for it to fill.
const (
	pushLines = 2000
	pushBytes = 1 << 20
	pushEvery = time.Second
)

// longestLine is the most bytes of a line that are read, far above what a gateway can be told to take.
const longestLine = 64 << 20

// attemptTimeout bounds one attempt to push. A gateway answers within its --push-timeout.
const attemptTimeout = 30 * time.Second

// Waits between attempts where a gateway says neither how long to wait nor that there is no use.
const (
	pushFirstWait   = 200 * time.Millisecond
	pushLongestWait = 5 * time.Second
)

// progressEvery is how often the progress line is drawn.
const progressEvery = 200 * time.Millisecond

type pushCommand struct {
	config.Data   `embed:""`
	config.Client `embed:""`
	Files         []string          `arg:"" optional:"" name:"file" help:"Files to push, line by line; none, or -, is standard input."`
	URL           string            `name:"url" placeholder:"URL" help:"The gateway, or anything that takes Loki's push; without one, the Logthra that runs on the data directory, or http://127.0.0.1:3100."`
	Tenant        string            `placeholder:"NAME" help:"Tenant that the lines belong to; without one, the token's, or else default."`
	Label         map[string]string `placeholder:"K=V" mapsep:"none" help:"Label of the lines, job=logthra-push without one; those of a file have its path as filename, too. Can be repeated."`
	GiveUp        time.Duration     `default:"1m" placeholder:"DURATION" help:"How long a push is tried again while the gateway is away or full."`
}

// Validate is called by the command line's parser.
func (c *pushCommand) Validate() error {
	for name := range c.Label {
		if !logs.ValidLabelName(name) {
			return fmt.Errorf("--label: the name %q does not match [a-zA-Z_][a-zA-Z0-9_]*", name)
		}
	}
	return nil
}

// pusher is one run of the tool.
type pusher struct {
	command *pushCommand
	env     *environment
	url     string
	client  *http.Client
	run     string // random, begins the idempotency keys of this run
	pushes  int
	labels  string
	entries []lokipush.Entry
	bytes   int
	buffer  []byte

	from     string // file of the lines
	fromLine int    // number of the first line of the push

	lines, lineBytes int64
	began, drawn     time.Time
	draws            bool
}

// Run pushes.
func (c *pushCommand) Run(env *environment) error {
	p := &pusher{command: c, env: env, run: rand.Text(), began: time.Now(), draws: term.IsTerminal(int(os.Stderr.Fd()))}
	if err := p.resolve(); err != nil {
		return err
	}
	files := c.Files
	if len(files) == 0 {
		files = []string{"-"}
	}
	err := p.files(files)
	p.clear()
	took := time.Since(p.began)
	fmt.Fprintf(os.Stderr, "pushed %s lines, %s, in %s: %s lines/s, %s/s\n",
		humanize.Comma(p.lines), humanize.IBytes(uint64(p.lineBytes)), short(took),
		humanize.Comma(int64(float64(p.lines)/took.Seconds())), humanize.IBytes(uint64(float64(p.lineBytes)/took.Seconds())))
	return err
}

// resolve finds the gateway: the URL that was given, the one that runs on the data directory, or the default.
func (p *pusher) resolve() error {
	at := p.command.URL
	if at == "" {
		addresses, err := readAddresses(p.command.DataDir)
		if err != nil {
			return err
		}
		at = cmp.Or(addresses["http"], "127.0.0.1:3100")
	}
	p.url = strings.TrimRight(withScheme(at), "/")
	var err error
	p.client, err = p.command.Client.Client()
	return err
}

// withScheme is a URL that may have been given as host:port.
func withScheme(address string) string {
	if strings.Contains(address, "://") {
		return address
	}
	return "http://" + address
}

func (p *pusher) files(files []string) error {
	for _, name := range files {
		if name == "-" {
			if err := p.pushFile(os.Stdin, "standard input", ""); err != nil {
				return err
			}
			continue
		}
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		err = p.pushFile(file, name, name)
		_ = file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// pushFile pushes the lines of one file. A line is what stands before a line feed, byte by byte, and what stands
// after the last one, if anything. When the process is told to end, it pushes what has been gathered.
func (p *pusher) pushFile(file io.Reader, name, filename string) error {
	p.from, p.fromLine, p.labels = name, 1, p.labelsOf(filename)
	done := make(chan struct{})
	defer close(done)
	blocks := readBlocks(file, done)
	ticker := time.NewTicker(pushEvery)
	defer ticker.Stop()
	var rest []byte // the line whose end is yet to come
	for {
		select {
		case b := <-blocks:
			data := append(rest, b.data...)
			for {
				line, more, ended := bytes.Cut(data, []byte{'\n'})
				if !ended {
					break
				}
				if err := p.add(line); err != nil {
					return err
				}
				data = more
			}
			if len(data) > longestLine {
				return fmt.Errorf("%s, line %d: longer than %s, so it is no line of a log", name, p.fromLine+len(p.entries), humanize.IBytes(longestLine))
			}
			rest = append(rest[:0], data...)
			switch {
			case b.err == nil:
				continue
			case !errors.Is(b.err, io.EOF):
				return errors.Join(p.flush(), b.err)
			case len(rest) > 0:
				if err := p.add(rest); err != nil {
					return err
				}
			}
			return p.flush()
		case <-ticker.C:
			if err := p.flush(); err != nil {
				return err
			}
		case <-p.env.ctx.Done():
			if err := p.flush(); err != nil {
				return err
			}
			return fmt.Errorf("%s: interrupted after line %d, which was pushed", name, p.fromLine-1)
		}
	}
}

// block is what one read returned.
type block struct {
	data []byte
	err  error
}

// readBlocks reads until the file ends or done is closed. A read that waits for input then goes on waiting, as
// nothing can end it but the input, or the process.
func readBlocks(file io.Reader, done <-chan struct{}) <-chan block {
	blocks := make(chan block)
	go func() {
		for {
			data := make([]byte, 256<<10)
			n, err := file.Read(data)
			select {
			case blocks <- block{data[:n], err}:
			case <-done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return blocks
}

// add gathers a line, and pushes before that what has been gathered if there is no room for it.
func (p *pusher) add(line []byte) error {
	if len(p.entries) == pushLines || len(p.entries) > 0 && p.bytes+len(line) > pushBytes {
		if err := p.flush(); err != nil {
			return err
		}
	}
	p.entries = append(p.entries, lokipush.Entry{Timestamp: time.Now(), Line: string(line)})
	p.bytes += len(line)
	return nil
}

// labelsOf are the labels of a file's lines, as Loki writes them.
func (p *pusher) labelsOf(filename string) string {
	labels := maps.Clone(p.command.Label)
	if len(labels) == 0 {
		labels = map[string]string{"job": "logthra-push"}
	}
	if _, given := labels["filename"]; !given && filename != "" {
		labels["filename"] = strings.ToValidUTF8(filename, "\uFFFD")
	}
	pairs := make([]string, 0, len(labels))
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, name+"="+strconv.Quote(labels[name]))
	}
	return "{" + strings.Join(pairs, ", ") + "}"
}

// flush pushes what was gathered, as often as it takes.
func (p *pusher) flush() error {
	if len(p.entries) == 0 {
		return nil
	}
	request := lokipush.PushRequest{Streams: []lokipush.Stream{{Labels: p.labels, Entries: p.entries}}}
	raw, err := request.Marshal()
	if err != nil {
		return fmt.Errorf("%s: %w", p.where(), err)
	}
	p.buffer = snappy.Encode(p.buffer[:cap(p.buffer)], raw)
	p.pushes++
	key := fmt.Sprintf("%s-%d", p.run, p.pushes)
	deadline := time.Now().Add(p.command.GiveUp)
	for wait := pushFirstWait; ; wait = min(2*wait, pushLongestWait) {
		after, err := p.post(key)
		if err == nil {
			break
		}
		left := time.Until(deadline)
		switch {
		case errors.As(err, new(*refusedError)):
			return err
		case p.env.ctx.Err() != nil:
			return fmt.Errorf("%s: interrupted: %w", p.where(), err)
		case left <= 0:
			return fmt.Errorf("%s: given up after %s (--give-up): %w", p.where(), short(p.command.GiveUp), err)
		}
		p.draw(fmt.Sprintf("   waiting: %v", err))
		select {
		case <-time.After(min(max(wait, after), left)):
		case <-p.env.ctx.Done():
		}
	}
	p.lines += int64(len(p.entries))
	p.lineBytes += int64(p.bytes)
	p.fromLine += len(p.entries)
	p.entries, p.bytes = p.entries[:0], 0
	p.draw("")
	return nil
}

// where names the lines of the push.
func (p *pusher) where() string {
	if len(p.entries) == 1 {
		return fmt.Sprintf("%s, line %d", p.from, p.fromLine)
	}
	return fmt.Sprintf("%s, lines %d to %d", p.from, p.fromLine, p.fromLine+len(p.entries)-1)
}

// refusedError is a push that there is no use in trying again.
type refusedError struct{ where, reason string }

func (e *refusedError) Error() string { return e.where + ": " + e.reason }

// refused is the error of an answer that is not 2xx. Logthra's says which entry is at fault.
func (p *pusher) refused(response *http.Response, body []byte) error {
	where, reason := p.where(), string(bytes.TrimSpace(body))
	var answer struct{ Error, Where string }
	if json.Unmarshal(body, &answer) == nil && answer.Error != "" {
		reason = strings.TrimPrefix(answer.Error, answer.Where+": ")
		var entry int
		if _, err := fmt.Sscanf(answer.Where, "streams[0].entries[%d]", &entry); err == nil {
			where = fmt.Sprintf("%s, line %d", p.from, p.fromLine+entry)
		}
	}
	reason = response.Status + ": " + reason
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500 {
		return errors.New(reason)
	}
	return &refusedError{where, reason}
}

// post pushes once. Where that fails it returns how long the gateway asks to wait.
func (p *pusher) post(key string) (after time.Duration, err error) {
	// An attempt is not broken off when the process is told to end: its answer says what was pushed.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.env.ctx), attemptTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/loki/api/v1/push", bytes.NewReader(p.buffer))
	if err != nil {
		return 0, &refusedError{"--url", err.Error()}
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	p.command.Authorize(request)
	switch {
	case p.command.Tenant != "":
		request.Header.Set("X-Scope-OrgID", p.command.Tenant)
	case p.command.Token == "":
		request.Header.Set("X-Scope-OrgID", "default")
	}
	request.Header.Set("Idempotency-Key", key)
	response, err := p.client.Do(request)
	if urlError := (*url.Error)(nil); errors.As(err, &urlError) {
		return 0, fmt.Errorf("no answer from %s: %w", p.url, urlError.Err)
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return 0, fmt.Errorf("no answer from %s: %w", p.url, err)
	}
	if response.StatusCode/100 == 2 {
		return 0, nil
	}
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return time.Duration(seconds) * time.Second, p.refused(response, text)
}

// draw shows how far the run is, on a terminal.
func (p *pusher) draw(more string) {
	if !p.draws || more == "" && time.Since(p.drawn) < progressEvery {
		return
	}
	p.drawn = time.Now()
	rate := float64(p.lines) / time.Since(p.began).Seconds()
	fmt.Fprintf(os.Stderr, "\r\x1b[K%s lines  %s  %s lines/s%s", humanize.Comma(p.lines), humanize.IBytes(uint64(p.lineBytes)), humanize.Comma(int64(rate)), more)
}

// clear takes the progress away.
func (p *pusher) clear() {
	if p.draws && !p.drawn.IsZero() {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}
