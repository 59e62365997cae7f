package command

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/casteloig/logthra/command/answer"
	"github.com/casteloig/logthra/command/terminal"
)

// chartPoints is how many points a series has unless --step says otherwise, or nearly so many.
const chartPoints = 60

type queryCommand struct {
	span    `embed:""`
	showing `embed:""`
	Query   string          `arg:"" help:"LogQL: a selector and filters, as {app=\"api\"} |= \"error\"; or a metric query, as sum by (level) (rate({app=\"api\"}[5m]))."`
	Limit   limit           `default:"100" placeholder:"N" help:"Most lines, or series; all, or 0, is all of them."`
	Forward bool            `help:"The oldest lines first."`
	Output  terminal.Format `short:"o" default:"text" enum:"text,raw,json,table" placeholder:"FORMAT" help:"text, for people: lines, or a chart; raw, nothing but the lines; json, an object a line; or table."`
	Step    ago             `placeholder:"DURATION" help:"Time between the points of a metric query, as 1m; without it, a sixtieth of the time, or a little more."`
	Instant bool            `help:"The values of a metric query at one time: --at, or --to, or now."`
	At      when            `placeholder:"TIME" help:"The time for --instant, which it implies; written as --from is."`
	Stats   bool            `help:"Say what the query took."`

	reading `embed:"" group:"Gateway:"`
}

// Validate is called by the command line's parser.
func (c *queryCommand) Validate() error { return c.span.Validate() }

// limit is a number of lines. Zero is all.
type limit int

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *limit) UnmarshalText(text []byte) error {
	if string(text) == "all" {
		*l = 0
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 {
		return fmt.Errorf("%q is neither a number of lines nor all", text)
	}
	*l = limit(n)
	return nil
}

// question is one run of the tool.
type question struct {
	*queryCommand

	reader   *reader
	from, to time.Time
	step     time.Duration
	notes    io.Writer
	kind     answer.Kind
	series   []answer.Series
	found    int // lines or series
	stats    answer.Stats
	began    time.Time
}

// Run asks.
func (c *queryCommand) Run(env *environment) error {
	r, err := c.open()
	if err != nil {
		return err
	}
	q := &question{queryCommand: c, reader: r, notes: notes(), began: time.Now()}
	q.from, q.to = c.bounds(q.began)
	if !q.from.Before(q.to) {
		return fmt.Errorf("--from: %s is yet to come", q.from.Format(time.RFC3339))
	}
	err = q.ask(env.ctx)
	if env.ctx.Err() != nil {
		return errReported // who says ^C knows
	}
	if err != nil {
		return fmt.Errorf("query: %w", marked(c.Query, err))
	}
	if c.Stats {
		q.printStats()
	}
	return nil
}

func (q *question) ask(ctx context.Context) error {
	if q.Instant || !q.At.IsZero() {
		return q.instant(ctx)
	}
	return q.pages(ctx)
}

// instant asks for the values at one time.
func (q *question) instant(ctx context.Context) error {
	at := q.to
	if !q.At.IsZero() {
		at = q.At.Time
	}
	if _, err := q.page(ctx, "query", url.Values{"time": {nanoseconds(at.UnixNano())}}); err != nil {
		return err
	}
	return q.writeSeries()
}

// pages asks for entries until there are enough. The answer to a metric query is a single page.
func (q *question) pages(ctx context.Context) error {
	lines := q.lines(os.Stdout, q.Output)
	p := newPaging(q.from.UnixNano(), q.to.UnixNano(), int(q.Limit), q.Forward)
	q.step = q.stepOf()
	for more := true; more; {
		parameters := p.parameters()
		parameters.Set("step", strconv.FormatFloat(q.step.Seconds(), 'f', -1, 64))
		entries, err := q.page(ctx, "query_range", parameters)
		if most, ok := mostEntries(err); ok {
			if p.smaller(most) {
				continue
			}
			if p.again > 0 {
				return fmt.Errorf("%d lines or more have the time %s, and the gateway answers with no more than %d; narrow the query, or raise the gateway's --query-max-entries",
					p.again, time.Unix(0, p.edge).UTC().Format(time.RFC3339Nano), most)
			}
		}
		if err != nil {
			return err
		}
		if q.kind != answer.Streams {
			return q.writeSeries()
		}
		entries, more = p.take(entries)
		if err := lines.Write(entries); err != nil {
			return err
		}
		q.found += len(entries)
	}
	q.remark()
	return nil
}

// remark says how much was found, if somebody sits there: that it is nothing, or that it may not be all.
func (q *question) remark() {
	which := "newest"
	if q.Forward {
		which = "oldest"
	}
	switch {
	case q.found == 0:
		fmt.Fprintf(q.notes, "no lines from %s to %s\n", q.from.Format(time.RFC3339), q.to.Format(time.RFC3339))
	case q.found == int(q.Limit):
		fmt.Fprintf(q.notes, "these are the %s %d; there may be more (--limit)\n", which, q.found)
	}
}

// printStats says what the query took.
func (q *question) printStats() {
	fmt.Fprintf(os.Stderr, "found %s in %s; the gateway took %s, %s of them waiting, and read %s lines, %s\n",
		humanize.Comma(int64(q.found)), short(time.Since(q.began)), short(seconds(q.stats.Exec)), short(seconds(q.stats.Queue)),
		humanize.Comma(q.stats.Lines), humanize.IBytes(uint64(max(q.stats.Bytes, 0))))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// page asks for one page. Series are kept.
func (q *question) page(ctx context.Context, path string, parameters url.Values) ([]answer.Entry, error) {
	parameters.Set("query", q.Query)
	var entries []answer.Entry
	var summary answer.Summary
	err := q.reader.get(ctx, path, parameters, func(body io.Reader) (err error) {
		summary, err = answer.Read(body, answer.Visitor{Entry: gather(&entries), Series: func(s answer.Series) error {
			q.series = append(q.series, s)
			return nil
		}})
		return err
	})
	if err != nil {
		return nil, err
	}
	warn(summary.Warnings)
	q.kind = summary.Kind
	q.stats.Exec += summary.Stats.Exec
	q.stats.Queue += summary.Stats.Queue
	q.stats.Lines += summary.Stats.Lines
	q.stats.Bytes += summary.Stats.Bytes
	return entries, nil
}

// steps are those that a clock has.
var steps = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

// stepOf is the time between points: as asked for, or the least of a clock that makes no more than chartPoints.
func (q *question) stepOf() time.Duration {
	if q.Step > 0 {
		return time.Duration(q.Step)
	}
	least := q.to.Sub(q.from) / chartPoints
	for _, step := range steps {
		if step >= least {
			return step
		}
	}
	const day = 24 * time.Hour
	return least.Truncate(day) + day
}

// writeSeries writes what a metric query has found: for people those with the greatest last values first.
func (q *question) writeSeries() error {
	all := len(q.series)
	if (q.Output == terminal.Text || q.Output == terminal.Table) && !strings.HasPrefix(strings.TrimSpace(q.Query), "sort") {
		terminal.Sort(q.series)
	}
	if q.Limit > 0 {
		q.series = q.series[:min(all, int(q.Limit))]
	}
	q.found = len(q.series)
	w := terminal.Series{
		Out: os.Stdout, Format: q.Output, Kind: q.kind, Color: terminal.Colored(os.Stdout, q.Color), Notes: q.notes,
		Width: terminal.Width(os.Stdout), Start: q.from.UnixNano(), End: q.to.UnixNano(), Step: int64(q.step),
	}
	if err := w.Write(q.series); err != nil {
		return err
	}
	switch {
	case all == 0:
		fmt.Fprintf(q.notes, "no values from %s to %s\n", q.from.Format(time.RFC3339), q.to.Format(time.RFC3339))
	case q.found < all:
		fmt.Fprintf(q.notes, "%d of %d series: --limit all shows all\n", q.found, all)
	}
	return nil
}
