package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/casteloig/logthra/command/answer"
	"github.com/casteloig/logthra/command/terminal"
)

// Waits between attempts to connect again.
const (
	tailFirstWait   = 200 * time.Millisecond
	tailLongestWait = 5 * time.Second
)

// A connection that is silent is asked for a sign of life after tailPing, and is dead without one after tailPong.
const (
	tailPing = 15 * time.Second
	tailPong = 10 * time.Second
)

// After a connection was lost, lines are asked for that are tailOverlap older than the newest one that was shown, at most tailMissed of them:
// lines of several streams do not come in order. Those that were shown are remembered, tailRemembered at most, and not shown again.
const (
	tailOverlap    = 10 * time.Second
	tailMissed     = 5000
	tailRemembered = 20_000
)

type tailCommand struct {
	showing `embed:""`
	Query   string          `arg:"" help:"LogQL: a selector and filters, as {app=\"api\"} |= \"error\"."`
	Since   ago             `default:"1h" placeholder:"DURATION" help:"How old the lines may be that come first, as 30m, 2h or 3d."`
	Limit   int             `default:"10" placeholder:"N" help:"Most lines that come first, of those that are there already: the newest."`
	Delay   time.Duration   `default:"0s" placeholder:"DURATION" help:"How long lines are held back so that late ones come in order, 5s at most."`
	Output  terminal.Format `short:"o" default:"text" enum:"text,raw,json" placeholder:"FORMAT" help:"text, for people; raw, nothing but the lines; or json, an object a line."`

	reading `embed:"" group:"Gateway:"`
}

// Validate is called by the command line's parser.
func (c *tailCommand) Validate() error {
	if c.Limit < 0 || c.Limit > tailMissed {
		return fmt.Errorf("--limit: 0 to %d is needed", tailMissed)
	}
	if c.Delay < 0 || c.Delay > 5*time.Second || c.Delay%time.Second != 0 {
		return errors.New("--delay: 0s, 1s, 2s, 3s, 4s or 5s is needed")
	}
	return nil
}

// tailing is one run of the tool.
type tailing struct {
	*tailCommand

	reader *reader
	lines  *terminal.Lines
	shown  recent
}

// Run follows until ^C.
func (c *tailCommand) Run(env *environment) error {
	r, err := c.open()
	if err != nil {
		return err
	}
	t := &tailing{tailCommand: c, reader: r, lines: c.lines(os.Stdout, c.Output)}
	if err := t.run(env.ctx); err != nil && env.ctx.Err() == nil {
		return fmt.Errorf("tail: %w", marked(c.Query, err))
	}
	return nil
}

// run follows, over as many connections as it takes, until ctx ends or there is no use in going on.
func (t *tailing) run(ctx context.Context) error {
	start, limit := time.Now().Add(-time.Duration(t.Since)).UnixNano(), t.Limit
	if limit == 0 {
		start, limit = time.Now().UnixNano(), 1
	}
	began, missed := false, tailMissed
	for wait := tailFirstWait; ; wait = min(2*wait, tailLongestWait) {
		from, most, known := start, limit, map[entryAt]int(nil)
		if t.shown.newest > 0 {
			from, most = t.shown.since(), missed
			known = t.shown.from(from)
		}
		connected, err := t.follow(ctx, from, most, known)
		if ctx.Err() != nil {
			return err
		}
		if fewer, ok := mostEntries(err); began && ok && fewer < missed {
			missed = fewer
			continue
		}
		if refused := (*refusalError)(nil); !began && !connected || errors.As(err, &refused) && !refused.again() {
			return err
		}
		if connected {
			began, wait = true, tailFirstWait
			fmt.Fprintln(os.Stderr, "logthra: tail: the connection is lost, and made again:", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// errSilent ends a connection that gives no sign of life.
var errSilent = fmt.Errorf("no sign of life within %s", tailPong)

// follow shows what one connection brings until it ends, for which there is always an error. It is connected once the gateway has sent
// something. What is known is not shown.
func (t *tailing) follow(ctx context.Context, start int64, limit int, known map[entryAt]int) (connected bool, err error) {
	conn, err := t.connect(ctx, start, limit)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var pings sync.WaitGroup
	defer pings.Wait()
	defer func() { _ = conn.CloseNow() }()
	defer cancel(nil)
	pings.Go(func() {
		if ping(ctx, conn) != nil {
			cancel(errSilent)
		}
	})
	for {
		_, message, err := conn.Reader(ctx)
		if err == nil {
			connected = true
			err = t.show(message, known)
		}
		if err == nil {
			continue
		}
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("the gateway hung up")
		}
		if closed := (websocket.CloseError{}); errors.As(err, &closed) {
			err = fmt.Errorf("the gateway closed the connection: %s", cmp.Or(closed.Reason, closed.Code.String()))
		}
		return connected, err
	}
}

func (t *tailing) connect(ctx context.Context, start int64, limit int) (*websocket.Conn, error) {
	if t.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.Timeout)
		defer cancel()
	}
	return t.reader.dial(ctx, "tail", url.Values{
		"query": {t.Query}, "start": {nanoseconds(start)}, "limit": {strconv.Itoa(limit)},
		"delay_for": {strconv.Itoa(int(t.Delay / time.Second))},
	})
}

// ping asks for signs of life until there is none, or ctx ends.
func ping(ctx context.Context, conn *websocket.Conn) error {
	ticker := time.NewTicker(tailPing)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		within, cancel := context.WithTimeout(ctx, tailPong)
		err := conn.Ping(within)
		cancel()
		if err != nil {
			return err
		}
	}
}

// show shows the entries of a message.
func (t *tailing) show(message io.Reader, known map[entryAt]int) error {
	var entries []answer.Entry
	dropped, err := answer.ReadTail(message, gather(&entries))
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, message); err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e answer.Entry) bool {
		at := entryAt{e.Time, e.ID()}
		if known[at] > 0 {
			known[at]--
			return true
		}
		t.shown.add(at)
		return false
	})
	byTime(entries, true)
	if err := t.lines.Write(entries); err != nil {
		return err
	}
	if len(dropped) > 0 {
		fmt.Fprintf(os.Stderr, "logthra: tail: %d lines were left out, as they came faster than they were read; the first is of %s\n", len(dropped), dropped[0].Labels)
	}
	return nil
}

// entryAt is an entry, by its time and the rest of it.
type entryAt struct {
	time int64
	id   answer.ID
}

// recent knows what was shown last.
type recent struct {
	newest    int64     // time of the newest entry that was shown; 0: none was
	entries   []entryAt // in the order in which they were shown
	forgotten int64     // time of the newest entry that is not among them any more
}

func (r *recent) add(e entryAt) {
	r.newest = max(r.newest, e.time)
	if len(r.entries) == tailRemembered {
		half := len(r.entries) / 2
		for _, old := range r.entries[:half] {
			r.forgotten = max(r.forgotten, old.time)
		}
		r.entries = append(r.entries[:0], r.entries[half:]...)
	}
	r.entries = append(r.entries, e)
}

// since is the time from which on all that was shown is known.
func (r *recent) since() int64 { return max(r.newest-int64(tailOverlap), r.forgotten+1) }

// from counts the entries that were shown, from a time on.
func (r *recent) from(since int64) map[entryAt]int {
	known := map[entryAt]int{}
	for _, e := range r.entries {
		if e.time >= since {
			known[e]++
		}
	}
	return known
}
