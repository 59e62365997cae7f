package command

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
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
	"github.com/casteloig/logthra/shared/store"
)

type benchCommand struct {
	Push  benchPushCommand  `cmd:"" default:"withargs" help:"Measure how fast lines are taken. The default."`
	Query benchQueryCommand `cmd:"" help:"Measure how fast queries are answered, and how much they hold up what is pushed."`
}

type benchPushCommand struct {
	config.Data   `embed:""`
	config.Client `embed:""`
	Files         []string      `arg:"" optional:"" name:"file" help:"Files whose lines are pushed, over and over; none: lines are made, from --seed."`
	URL           string        `name:"url" placeholder:"URL" help:"The gateway, or anything that takes Loki's push, with a path that comes before /loki, if any; without one, the Logthra that runs on the data directory, or http://127.0.0.1:3100."`
	Protocol      string        `default:"loki" enum:"${protocols}" placeholder:"NAME" help:"One of ${protocols}."`
	Encoding      string        `default:"none" enum:"${encodings}" placeholder:"NAME" help:"Content encoding of the bodies: one of ${encodings}."`
	Lines         int64         `default:"2000000" placeholder:"N" help:"Lines in all."`
	LinesPerPush  int           `default:"2000" placeholder:"N" help:"Lines of a push."`
	Streams       int           `default:"10" placeholder:"N" help:"Streams of each tenant."`
	PerPush       int           `name:"streams-per-push" default:"5" placeholder:"N" help:"Streams of a push, at most."`
	Tenants       int           `default:"1" placeholder:"N" help:"Tenants, which push in turns."`
	Tenant        string        `placeholder:"NAME" help:"Name of the tenant, or what the names of several begin with; without one, the token's, or else bench."`
	Connections   int           `default:"8" placeholder:"N" help:"Connections, each of which waits for its answer before it pushes again."`
	Rate          int           `default:"0" placeholder:"N" help:"Lines a second; 0 is as fast as they are answered."`
	Seed          uint64        `default:"1" placeholder:"N" help:"Equal seeds make equal lines."`
	LineBytes     int           `default:"0" placeholder:"N" help:"Bytes that a line which is made has at least."`
	Ahead         config.Bytes  `default:"512MiB" placeholder:"SIZE" help:"Pushes that are made before they are sent, at most: what is made later takes CPU while it is measured."`
	PID           []string      `name:"pid" placeholder:"[NAME=]PID" help:"A process on this machine whose CPU and memory are shown, with those that it has started. Can be repeated."`
	ClickHouseDSN string        `name:"clickhouse-dsn" placeholder:"DSN" help:"The ClickHouse in which the rows are counted; without one, the embedded one of the Logthra that runs on the data directory."`
	Landing       time.Duration `default:"2m" placeholder:"DURATION" help:"How long rows may take after the last answer; more than --flush-interval of the ingesters."`
	JSON          bool          `name:"json" help:"As JSON."`
}

// Validate is called by the command line's parser.
func (c *benchPushCommand) Validate() error {
	for _, text := range c.PID {
		if _, err := bench.ParseProcess(text); err != nil {
			return fmt.Errorf("--pid: %w", err)
		}
	}
	cfg := c.config()
	return cfg.Validate()
}

func (c *benchPushCommand) config() bench.Config {
	cfg := bench.Config{
		URL: c.URL, Protocol: c.Protocol, Encoding: c.Encoding, Token: c.Token,
		Lines: c.Lines, LinesPerPush: c.LinesPerPush, Streams: c.Streams, StreamsPerPush: c.PerPush, Tenants: c.Tenants, Tenant: c.Tenant,
		Connections: c.Connections, Rate: c.Rate, Files: c.Files, Seed: c.Seed, LineBytes: c.LineBytes, Ahead: int64(c.Ahead), Landing: c.Landing,
	}
	if c.Token == "" || c.Tenants > 1 {
		cfg.Tenant = cmp.Or(c.Tenant, "bench")
	}
	return cfg
}

// Run measures.
func (c *benchPushCommand) Run(env *environment) error {
	addresses, err := readAddresses(c.DataDir)
	if err != nil {
		return err
	}
	cfg := c.config()
	if cfg.URL == "" {
		name, otherwise := "http", "127.0.0.1:3100"
		if c.Protocol == "grpc" {
			name, otherwise = "grpc", "127.0.0.1:4317"
		}
		cfg.URL = withScheme(cmp.Or(addresses[name], otherwise))
	}
	client, err := c.Client.Client()
	if err != nil {
		return err
	}
	cfg.TLS = client.Transport.(*http.Transport).TLSClientConfig
	for _, text := range c.PID {
		process, err := bench.ParseProcess(text)
		if err != nil {
			return err
		}
		cfg.Processes = append(cfg.Processes, process)
	}
	done, err := watchRows(env, c.ClickHouseDSN, c.URL, addresses, &cfg)
	if err != nil {
		return err
	}
	defer done()
	draws := term.IsTerminal(int(os.Stderr.Fd()))
	if draws {
		cfg.Progress = drawBench
	}
	report, err := bench.Run(env.ctx, cfg)
	if draws {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	if report != nil && report.Lines > 0 {
		show := printBench
		if c.JSON {
			show = func(to io.Writer, r *bench.Report) error { return printJSON(to, r) }
		}
		if showErr := show(os.Stdout, report); err == nil {
			err = showErr
		}
	}
	return err
}

// watchRows makes a run wait for its rows, and for the merges of them, where the ClickHouse is known: the one that the DSN names, or else
// that of the Logthra with these addresses, if lines are pushed there. What it returns is called when the run is over.
func watchRows(env *environment, dsn, url string, addresses map[string]string, cfg *bench.Config) (done func(), err error) {
	// A peer has no rows there: what runs on the data directory is asked where it is that which is measured, or was named.
	if dsn == "" && (url == "" || slices.Contains([]string{addresses["http"], addresses["grpc"]}, strings.TrimPrefix(url, "http://"))) && addresses["clickhouse-http"] != "" {
		dsn = "clickhouse://" + local(addresses["clickhouse"]) + "/" + store.DefaultDatabase
	}
	if dsn == "" {
		return func() {}, nil
	}
	s, err := store.Open(store.Config{DSN: dsn, Connections: toolConnections}, env.log)
	if err != nil {
		return nil, err
	}
	done = func() { _ = s.Close() }
	if err := countRows(env.ctx, s, cfg); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// countRows makes a run wait for its rows in s, and for the merges of them.
func countRows(ctx context.Context, s *store.Store, cfg *bench.Config) error {
	query := func(ctx context.Context, sql string, args ...any) (n uint64, err error) {
		if err = s.Conn().QueryRow(ctx, sql, args...).Scan(&n); err != nil {
			err = fmt.Errorf("ClickHouse (--clickhouse-dsn): %w", err)
		}
		return n, err
	}
	all := "SELECT count() FROM " + s.Database() + ".log"
	before, err := query(ctx, all)
	if err != nil {
		return err
	}
	cfg.Rows = func(ctx context.Context, run string, want int64) (int64, error) {
		// How many rows there are in all ClickHouse knows without reading any; which of them are of this run it is only asked
		// when that may be all of them.
		if total, err := query(ctx, all); err != nil || total < before+uint64(want) {
			return int64(total - min(before, total)), err
		}
		own, err := query(ctx, all+" WHERE position(stream, ?) > 0", `"`+run+`"`)
		return int64(own), err
	}
	cfg.Merging = func(ctx context.Context) (bool, error) {
		merges, err := query(ctx, "SELECT count() FROM system.merges WHERE database = ?", s.Database())
		return merges > 0, err
	}
	return nil
}

// drawBench shows how far a run is, on a terminal.
func drawBench(p bench.Progress) {
	switch {
	case p.Preparing:
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s: %s pushes made", short(p.Elapsed), humanize.Comma(p.Pushes))
	case p.Answered:
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s: all %s lines answered, waiting for the rows and merges", short(p.Elapsed), humanize.Comma(p.Lines))
	default:
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s: %s lines, %s lines/s", short(p.Elapsed), humanize.Comma(p.Lines), humanize.Comma(int64(float64(p.Lines)/p.Elapsed.Seconds())))
	}
}

// printBench writes a report for people.
func printBench(to io.Writer, r *bench.Report) error {
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { _, _ = fmt.Fprintf(out, name+"\t"+format+"\n", args...) }
	row("pushed", "%s lines, %s, in %s pushes of %s by %s over %d connections", humanize.Comma(r.Lines), humanize.IBytes(uint64(r.LineBytes)),
		humanize.Comma(r.Pushes), humanize.IBytes(uint64(r.BodyBytes/r.Pushes)), r.Protocol, r.Connections)
	per := func(took time.Duration) string {
		return fmt.Sprintf("%s lines/s, %s/s, %s pushes/s", humanize.Comma(int64(float64(r.Lines)/took.Seconds())),
			humanize.IBytes(uint64(float64(r.LineBytes)/took.Seconds())), humanize.Comma(int64(math.Round(float64(r.Pushes)/took.Seconds()))))
	}
	row("answered", "after %s: %s", exact(r.Answered), per(r.Answered))
	if r.Landed > 0 {
		row("in ClickHouse", "after %s: %s", exact(r.Landed), per(r.Landed))
	}
	if r.Settled > 0 {
		row("merged", "after %s", exact(r.Settled))
	}
	row("latency", "p50 %s, p90 %s, p99 %s, max %s", exact(r.Latency.P50), exact(r.Latency.P90), exact(r.Latency.P99), exact(r.Latency.Max))
	if r.Retries > 0 {
		row("retries", "%s, the last for: %s", humanize.Comma(r.Retries), r.RetryReason)
	}
	if err := out.Flush(); err != nil || len(r.Processes) == 0 {
		return err
	}
	_, _ = fmt.Fprintln(to)
	table := tabwriter.NewWriter(to, 0, 0, 3, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(table, "PID\tCPU\tA LINE\tA PUSH\tMOST RSS\t   PROCESS")
	line := func(pid any, cpu float64, rss string, name string) {
		_, _ = fmt.Fprintf(table, "%v\t%.2fs\t%.2fµs\t%.0fµs\t%s\t   %s\n", pid, cpu, cpu*1e6/float64(r.Lines), cpu*1e6/float64(r.Pushes), rss, name)
	}
	total := 0.0
	for _, u := range r.Processes {
		total += u.CPUSeconds
		line(u.PID, u.CPUSeconds, humanize.IBytes(uint64(u.RSSBytes)), u.Name)
	}
	line("", total, "", "all")
	line("", r.ClientCPU, "", "this bench, while it pushed")
	return table.Flush()
}

// exact is a duration in three digits.
func exact(d time.Duration) string {
	for unit := time.Duration(10); unit < time.Minute; unit *= 10 {
		if d < 100*unit {
			return d.Round(unit / 10).String()
		}
	}
	return d.Round(time.Second / 10).String()
}
