package command

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/term"

	"github.com/casteloig/logthra/command/answer"
	"github.com/casteloig/logthra/command/terminal"
	"github.com/casteloig/logthra/shared/config"
)

// longestMessage is the most bytes of a message of a tail.
const longestMessage = 64 << 20

// reading is how a tool asks for what was pushed.
type reading struct {
	config.Data   `embed:""`
	config.Client `embed:""`
	URL           string        `name:"url" placeholder:"URL" help:"The gateway, or anything that answers Loki's queries; without one, the Logthra that runs on the data directory, or http://127.0.0.1:3100."`
	Tenant        string        `placeholder:"NAME" help:"Tenant whose lines are looked at; without one, the token's, or else default."`
	Timeout       time.Duration `default:"2m" placeholder:"DURATION" help:"How long an answer may take; 0 is as long as the gateway lets it."`
}

// open returns what asks.
func (r *reading) open() (*reader, error) {
	at := r.URL
	if at == "" {
		addresses, err := readAddresses(r.DataDir)
		if err != nil {
			return nil, err
		}
		at = cmp.Or(addresses["http"], "127.0.0.1:3100")
	}
	client, err := r.Client.Client()
	if err != nil {
		return nil, err
	}
	return &reader{reading: r, url: strings.TrimRight(withScheme(at), "/"), client: client}, nil
}

// reader asks a gateway.
type reader struct {
	*reading

	url    string
	client *http.Client
}

// request is one to Loki's API.
func (r *reader) request(ctx context.Context, path string, parameters url.Values) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/loki/api/v1/"+path+"?"+parameters.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	r.Authorize(request)
	switch {
	case r.Tenant != "":
		request.Header.Set("X-Scope-OrgID", r.Tenant)
	case r.Token == "":
		request.Header.Set("X-Scope-OrgID", "default")
	}
	request.Header.Set("X-Loki-Response-Encoding-Flags", "categorize-labels") // metadata and what was parsed apart from the stream's labels
	return request, nil
}

// get asks, and reads the answer while it arrives.
func (r *reader) get(ctx context.Context, path string, parameters url.Values, read func(io.Reader) error) error {
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	request, err := r.request(ctx, path, parameters)
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return r.unanswered(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return refusal(response)
	}
	if err := read(response.Body); err != nil {
		return r.unanswered(ctx, err)
	}
	return nil
}

// unanswered is the error of a request to which there was no answer, or the beginning of one.
func (r *reader) unanswered(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s (--timeout) from %s", short(r.Timeout), r.url)
	}
	if urlError := (*url.Error)(nil); errors.As(err, &urlError) {
		return fmt.Errorf("no answer from %s: %w", r.url, urlError.Err)
	}
	return err
}

// dial opens a WebSocket.
func (r *reader) dial(ctx context.Context, path string, parameters url.Values) (*websocket.Conn, error) {
	request, err := r.request(ctx, path, parameters)
	if err != nil {
		return nil, err
	}
	conn, response, err := websocket.Dial(ctx, request.URL.String(), &websocket.DialOptions{HTTPClient: r.client, HTTPHeader: request.Header}) //nolint:bodyclose // there is no need to
	switch {
	case err == nil:
		conn.SetReadLimit(longestMessage)
		return conn, nil
	case response != nil:
		return nil, refusal(response)
	}
	return nil, r.unanswered(ctx, err)
}

// refusalError is an answer that says no.
type refusalError struct {
	status int
	reason string
}

func (e *refusalError) Error() string { return e.reason }

// again tells whether the same may be answered later.
func (e *refusalError) again() bool { return e.status == http.StatusTooManyRequests || e.status >= 500 }

// refusal is the error of an answer, with the reason as the server has it: as text or as JSON.
func refusal(response *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10)) // the status says enough
	reason := string(bytes.TrimSpace(body))
	var answer struct{ Error, Message string }
	if json.Unmarshal(body, &answer) == nil {
		reason = cmp.Or(answer.Error, answer.Message, reason)
	}
	if response.StatusCode != http.StatusBadRequest || reason == "" {
		reason = strings.TrimSuffix(response.Status+": "+reason, ": ")
	}
	return &refusalError{response.StatusCode, reason}
}

// mostOfRefusal is how many entries a gateway answers with at most, as it says when it is asked for more.
var mostOfRefusal = regexp.MustCompile(`limit > max_entries_limit\S* \(\d+ > (\d+)\)`)

// mostEntries tells whether an error is that more entries were asked for than a gateway answers with, and how many those are.
func mostEntries(err error) (most int, ok bool) {
	refused := (*refusalError)(nil)
	if !errors.As(err, &refused) {
		return 0, false
	}
	number := mostOfRefusal.FindStringSubmatch(refused.reason)
	if number == nil {
		return 0, false
	}
	most, err = strconv.Atoi(number[1])
	return most, err == nil && most > 0
}

// placeOfError is where a query is at fault, as the server says it.
var placeOfError = regexp.MustCompile(`at line (\d+), col (\d+)`)

// marked adds the place to the error of a query: the line of the query, and a mark below the column.
func marked(query string, err error) error {
	place := placeOfError.FindStringSubmatch(err.Error())
	if place == nil {
		return err
	}
	row, _ := strconv.Atoi(place[1])
	column, _ := strconv.Atoi(place[2])
	rows := strings.Split(query, "\n")
	if row < 1 || row > len(rows) || column < 1 {
		return err
	}
	line := []rune(rows[row-1])
	before := line[:min(column-1, len(line))]
	for i, r := range before { // as wide as what stands above
		if r != '\t' {
			before[i] = ' '
		}
	}
	return fmt.Errorf("%w\n  %s\n  %s^", err, rows[row-1], string(before))
}

// warn shows what the server says about an answer.
func warn(warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintln(os.Stderr, "logthra: warning:", warning)
	}
}

// notes is where remarks go that nobody needs who does not sit in front of it.
func notes() io.Writer {
	if term.IsTerminal(int(os.Stderr.Fd())) {
		return os.Stderr
	}
	return io.Discard
}

// span is the time of the lines that a tool looks at.
type span struct {
	Since ago  `placeholder:"DURATION" help:"How far back to look, as 30m, 2h or 3d: from --to, or now. Without it and --from, an hour."`
	From  when `placeholder:"TIME" help:"Only lines of this time or later: a duration ago (2h, 3d), RFC 3339 (2026-11-22T10:00:00Z), or a date (midnight, UTC)."`
	To    when `placeholder:"TIME" help:"Only lines before this time; written as --from is. Without it, now."`
}

// Validate is called by the command line's parser.
func (s *span) Validate() error {
	if s.Since > 0 && !s.From.IsZero() {
		return errors.New("--since and --from both say where to begin: one of them is enough")
	}
	return (&period{From: s.From, To: s.To}).Validate()
}

// bounds are the times of the span, if it is now.
func (s *span) bounds(now time.Time) (from, to time.Time) {
	to = now
	if !s.To.IsZero() {
		to = s.To.Time
	}
	from = s.From.Time
	if from.IsZero() {
		from = to.Add(-cmp.Or(time.Duration(s.Since), time.Hour))
	}
	return from, to
}

// parameters are those of a request for the span.
func (s *span) parameters() url.Values {
	from, to := s.bounds(time.Now())
	return url.Values{"start": {nanoseconds(from.UnixNano())}, "end": {nanoseconds(to.UnixNano())}}
}

func nanoseconds(ns int64) string { return strconv.FormatInt(ns, 10) }

// ago is a duration as people say it, with days.
type ago time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *ago) UnmarshalText(text []byte) error {
	d, err := parseAgo(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%q is no duration: 90s, 30m, 2h or 3d is one", text)
	}
	*a = ago(d)
	return nil
}

// showing is how lines are shown.
type showing struct {
	Labels terminal.Shown `default:"differ" enum:"differ,all,none" placeholder:"WHICH" help:"Labels beside the lines: differ, those of the streams that are not the same in all lines; all, with metadata and what was parsed; or none."`
	Color  string         `default:"auto" enum:"auto,always,never" placeholder:"WHEN" help:"Colors, by the level of a line: auto (on a terminal, unless NO_COLOR is set), always or never."`
}

// lines returns what writes lines.
func (s *showing) lines(to io.Writer, format terminal.Format) *terminal.Lines {
	return &terminal.Lines{Out: to, Format: format, Labels: s.Labels, Color: terminal.Colored(os.Stdout, s.Color), Notes: notes()}
}

// gather keeps entries.
func gather(entries *[]answer.Entry) func(answer.Entry) error {
	return func(e answer.Entry) error {
		*entries = append(*entries, e)
		return nil
	}
}
