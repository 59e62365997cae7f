package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"github.com/casteloig/logthra/command/bench"
	"github.com/casteloig/logthra/shared/config"
)

type benchQueryCommand struct {
	config.Data   `embed:""`
	config.Client `embed:""`
	URL           string        `name:"url" placeholder:"URL" help:"The gateway, or anything that answers Loki's queries, with a path that comes before /loki, if any; without one, the Logthra that runs on the data directory, or http://127.0.0.1:3100."`
	Tenant        string        `placeholder:"NAME" help:"Tenant that the data set belongs to; without one, the token's, or else bench-query."`
	Prepare       bool          `help:"Push the data set first, and wait until it has landed and is merged."`
	Lines         int64         `default:"50000000" placeholder:"N" help:"Lines of the data set."`
	Streams       int           `default:"500" placeholder:"N" help:"Streams of the data set."`
	Span          time.Duration `default:"5h" placeholder:"DURATION" help:"How much time the data set covers."`
	End           when          `placeholder:"TIME" help:"When the data set ends: RFC 3339, or a duration ago; without it, now when it is pushed, and else where its newest line is."`
	Seed          uint64        `default:"1" placeholder:"N" help:"Equal seeds make equal data sets."`
	Queries       []string      `placeholder:"NAME,..." help:"Which queries are measured: of ${questions}; without it, all."`
	Runs          int           `default:"10" placeholder:"N" help:"Runs of each query, after a first that is shown by itself."`
	Turns         int           `default:"2" placeholder:"N" help:"Turns of pushing without queries and with them; 0 pushes nothing."`
	PushLines     int64         `default:"4000000" placeholder:"N" help:"Lines that a turn pushes."`
	Connections   int           `default:"8" placeholder:"N" help:"Connections that push, each of which waits for its answer before it pushes again."`
	ClickHouseDSN string        `name:"clickhouse-dsn" placeholder:"DSN" help:"The ClickHouse in which rows that were pushed are counted; without one, the embedded one of the Logthra that runs on the data directory."`
	Landing       time.Duration `default:"2m" placeholder:"DURATION" help:"How long rows may take after the last answer; more than --flush-interval of the ingesters."`
	JSON          bool          `name:"json" help:"As JSON."`
}

// What a push of the data set has: the ten apps.
const (
	dataSetPush    = 2000
	dataSetStreams = 10
)

// newestDays is how long ago the newest line of a data set may be that is looked for.
const newestDays = 30

// Validate is called by the command line's parser.
func (c *benchQueryCommand) Validate() error {
	for _, name := range c.Queries {
		if !slices.Contains(bench.QuestionNames(), name) {
			return fmt.Errorf("--queries: %q is none of %s", name, strings.Join(bench.QuestionNames(), ", "))
		}
	}
	switch {
	case c.Runs < 1:
		return fmt.Errorf("--runs: %d is less than 1", c.Runs)
	case c.Turns < 0:
		return fmt.Errorf("--turns: %d is less than 0", c.Turns)
	case c.PushLines < 1:
		return fmt.Errorf("--push-lines: %d is less than 1", c.PushLines)
	case c.Span < time.Second:
		return fmt.Errorf("--span: %s is less than 1s", c.Span)
	}
	cfg := c.config()
	return cfg.Validate()
}

// config is what pushes have in common.
func (c *benchQueryCommand) config() bench.Config {
	cfg := bench.Config{
		URL: c.URL, Protocol: "loki", Encoding: "none", Token: c.Token, Lines: c.Lines, LinesPerPush: dataSetPush,
		Streams: c.Streams, StreamsPerPush: dataSetStreams, Tenants: 1, Connections: c.Connections, Seed: c.Seed, Ahead: 512 << 20, Landing: c.Landing,
	}
	if c.Token == "" {
		cfg.Tenant = cmp.Or(c.Tenant, "bench-query")
	} else {
		cfg.Tenant = c.Tenant
	}
	return cfg
}

// Run measures.
func (c *benchQueryCommand) Run(env *environment) error {
	addresses, err := readAddresses(c.DataDir)
	if err != nil {
		return err
	}
	client, err := c.Client.Client()
	if err != nil {
		return err
	}
	pushes := c.config()
	pushes.URL = cmp.Or(pushes.URL, withScheme(cmp.Or(addresses["http"], "127.0.0.1:3100")))
	pushes.TLS = client.Transport.(*http.Transport).TLSClientConfig
	push := func(ctx context.Context, cfg bench.Config) (*bench.Report, error) {
		done, err := watchRows(env, c.ClickHouseDSN, c.URL, addresses, &cfg)
		if err != nil {
			return nil, err
		}
		defer done()
		return bench.Run(ctx, cfg)
	}
	cfg := bench.QueryConfig{
		URL: pushes.URL, Client: client, Token: c.Token, Tenant: pushes.Tenant, Runs: c.Runs, Turns: c.Turns,
		Push: func(ctx context.Context) (*bench.Report, error) {
			cfg := pushes
			cfg.Lines = c.PushLines
			return push(ctx, cfg)
		},
	}
	for _, q := range bench.Questions {
		if len(c.Queries) == 0 || slices.Contains(c.Queries, q.Name) {
			cfg.Questions = append(cfg.Questions, q)
		}
	}
	draws := term.IsTerminal(int(os.Stderr.Fd()))
	if draws {
		cfg.Progress = func(what string) { fmt.Fprintf(os.Stderr, "\r\x1b[K%s", what) }
		defer fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	if cfg.End, err = c.dataSet(env.ctx, &cfg, func(ctx context.Context, set *bench.DataSet) error {
		pushes := pushes
		pushes.DataSet = set
		if draws {
			pushes.Progress = drawBench
		}
		_, err := push(ctx, pushes)
		return err
	}); err != nil {
		return err
	}
	cfg.Begin = cfg.End.Add(-c.Span)
	report, err := bench.Query(env.ctx, cfg)
	if draws {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	if len(report.Questions) > 0 {
		show := printBenchQuery
		if c.JSON {
			show = func(to io.Writer, r *bench.QueryReport) error { return printJSON(to, r) }
		}
		if showErr := show(os.Stdout, report); err == nil {
			err = showErr
		}
	}
	return err
}

// dataSet tells when the data set ends, after it has been pushed, if it is to be.
func (c *benchQueryCommand) dataSet(ctx context.Context, cfg *bench.QueryConfig, push func(context.Context, *bench.DataSet) error) (end time.Time, err error) {
	if !c.Prepare && !c.End.IsZero() {
		return c.End.Time, nil
	}
	newest, err := cfg.Newest(ctx, newestDays)
	switch {
	case err != nil:
		return end, err
	case !c.Prepare && newest.IsZero():
		return end, fmt.Errorf("tenant %s has no data set that ends within the last %d days: --prepare pushes one, --end names its end", cfg.Tenant, newestDays)
	case !c.Prepare:
		return newest.Truncate(time.Second).Add(time.Second), nil
	case !newest.IsZero():
		return end, errors.New("there is a data set already: leave --prepare away, or name another --tenant")
	}
	end = c.End.Time
	if end.IsZero() {
		end = time.Now().UTC().Truncate(time.Second)
	}
	return end, push(ctx, &bench.DataSet{Begin: end.Add(-c.Span), Span: c.Span})
}

// printBenchQuery writes a report for people.
func printBenchQuery(to io.Writer, r *bench.QueryReport) error {
	out := tabwriter.NewWriter(to, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(out, "QUERY\tFIRST\tMIN\tMEDIAN\tMAX\tGOAL\t\tROWS\tBYTES\tANSWER")
	for _, q := range r.Questions {
		goal, met := exact(q.Goal), "kept"
		if q.Note != "" {
			goal += ", " + q.Note
		}
		if !q.Met() {
			met = "missed"
		}
		_, _ = fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", q.Name, exact(q.First), exact(q.Min), exact(q.Median), exact(q.Max), goal, met,
			humanize.Comma(q.Rows), humanize.IBytes(uint64(q.Bytes)), q.Answer)
	}
	if err := out.Flush(); err != nil || r.Pushed == nil {
		return err
	}
	rates := func(all []float64) string {
		var texts []string
		for _, rate := range all {
			texts = append(texts, humanize.Comma(int64(rate)))
		}
		return strings.Join(texts, " and ")
	}
	met := "kept"
	if r.Pushed.Ratio < bench.PushGoal {
		met = "missed"
	}
	_, err := fmt.Fprintf(to, "\npushed   %s lines/s alone, %s while %s queries were answered: %.0f %%; goal %.0f %%, %s\n",
		rates(r.Pushed.Alone), rates(r.Pushed.Asking), humanize.Comma(int64(r.Pushed.Questions)), 100*r.Pushed.Ratio, 100*bench.PushGoal, met)
	return err
}
