package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"github.com/casteloig/logthra/ingester"
	"github.com/casteloig/logthra/shared/wal"
)

// Batches of a replay are those that an ingester makes by default.
const (
	replayRows  = 500_000
	replayBytes = 64 << 20
)

// replayPatience is how long a replay waits for an engine that is away.
const replayPatience = 10 * time.Minute

// replayTimeout is after how long without a sign of life an unfinished replay counts as dead.
const replayTimeout = 10 * time.Second

// replayLogEvery is how often a replay without a terminal logs how far it is.
const replayLogEvery = 10 * time.Second

type replayCommand struct {
	engines `embed:""`
	Tenant  string `placeholder:"NAME" help:"Only what this tenant pushed."`
	From    asked  `placeholder:"TIME" help:"Only what the WAL took at this time or later: a duration ago (2h, 3d), RFC 3339 (2026-11-22T10:00:00Z), or a date (midnight, UTC). Without it, all that the WAL holds."`
	To      asked  `placeholder:"TIME" help:"Only what the WAL took before this time; written as --from is."`
	Shard   []int  `placeholder:"N" help:"Only this shard. Can be repeated."`
	DryRun  bool   `help:"Only look: say what is missing, and insert nothing."`
	Partial bool   `help:"Go on where the WAL does not hold all any more that it took since --from."`
	Restart bool   `help:"Abandon a replay that was left unfinished, and begin anew."`
	Rate    int    `default:"100000" placeholder:"N" help:"Most rows inserted a second, on average, so that live ingest is not held up; 0 is no limit."`
	JSON    bool   `name:"json" help:"Print the result as JSON."`
}

// asked is a time of a command line, and how it was asked for: "2h" is another time whenever it is read.
type asked struct {
	when
	text string
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *asked) UnmarshalText(text []byte) error {
	a.text = strings.TrimSpace(string(text))
	return a.when.UnmarshalText(text)
}

// Validate is called by the command line's parser.
func (c *replayCommand) Validate() error {
	if c.Tenant != "" && !wal.ValidTenant(c.Tenant) {
		return fmt.Errorf("--tenant: %q does not match %s", c.Tenant, wal.TenantPattern)
	}
	if c.Rate < 0 {
		return errors.New("--rate: 0 or more is needed")
	}
	return (&period{From: c.From.when, To: c.To.when}).Validate()
}

// request is what is to be replayed, as flags. The same request again goes on with an unfinished replay.
func (c *replayCommand) request() string {
	var flags []string
	for _, flag := range [][2]string{{"--tenant", c.Tenant}, {"--from", c.From.text}, {"--to", c.To.text}} {
		if flag[1] != "" {
			flags = append(flags, flag[0]+" "+flag[1])
		}
	}
	return strings.Join(flags, " ")
}

// Run replays.
func (c *replayCommand) Run(env *environment) error {
	w, s, done, err := c.open(env)
	if err != nil {
		return err
	}
	defer done()
	slices.Sort(c.Shard)
	bar := &replayBar{began: time.Now(), log: env.log, draws: term.IsTerminal(int(os.Stderr.Fd()))}
	log := env.log
	if bar.draws { // and says what the log would
		log = slog.New(slog.DiscardHandler)
	}
	bar.replay = ingester.NewReplay(ingester.ReplayConfig{
		Tenant: c.Tenant, Shards: slices.Compact(c.Shard), From: c.From.Time, To: c.To.Time, Request: c.request(),
		Partial: c.Partial, Restart: c.Restart, DryRun: c.DryRun,
		Rate: c.Rate, FlushRows: replayRows, FlushBytes: replayBytes, Patience: replayPatience, Timeout: replayTimeout,
	}, w, s, log)
	stop := bar.start()
	err = bar.replay.Run(env.ctx)
	stop()
	report := replayReport{DryRun: c.DryRun, Finished: err == nil || errors.Is(err, ingester.ErrTrimmed), Tenant: c.Tenant, took: time.Since(bar.began)}
	report.Shards, _ = bar.replay.Progress()
	var printErr error
	switch {
	case c.JSON && len(report.Shards) > 0:
		printErr = printJSON(os.Stdout, report)
	case len(report.Shards) > 0:
		printErr = printReplay(os.Stdout, report)
	}
	return errors.Join(explainReplay(env.ctx, err), printErr)
}

// explainReplay adds what to do to the error of a replay.
func explainReplay(ctx context.Context, err error) error {
	if other, ok := errors.AsType[*wal.OtherReplayError](err); ok {
		return fmt.Errorf("shard %d: a replay that began %s ago is unfinished, `%s`: run that again to finish it, or abandon it with --restart",
			other.Shard, short(time.Since(other.Position.Started)), strings.TrimSpace("logthra replay "+other.Position.Request))
	}
	if _, ok := errors.AsType[*ingester.PartialError](err); ok {
		return fmt.Errorf("%w; --partial replays what it holds", err)
	}
	switch {
	case errors.Is(err, ingester.ErrUnfinished) && ctx.Err() != nil:
		return errors.New("interrupted; the same command goes on from there")
	case err != nil && ctx.Err() != nil:
		return errors.New("interrupted")
	}
	return err
}

// replayReport is the outcome of a replay.
type replayReport struct {
	Finished bool                     `json:"finished"`
	DryRun   bool                     `json:"dry_run"`
	Tenant   string                   `json:"tenant,omitempty"`
	Shards   []ingester.ReplayedShard `json:"shards"`
	took     time.Duration
}

// printReplay writes the outcome for people.
func printReplay(to io.Writer, report replayReport) error {
	out := tabwriter.NewWriter(to, 0, 0, 3, ' ', tabwriter.AlignRight)
	inserted := "INSERTED"
	if report.DryRun {
		inserted = "MISSING"
	}
	_, _ = fmt.Fprintf(out, "SHARD\tRECORDS\tROWS\t%s\tALREADY THERE\tEXPIRED\tDEAD LETTERS\t\n", inserted)
	line := func(name string, s ingester.ReplayedShard) {
		inserted := s.Inserted
		if report.DryRun {
			inserted = s.Missing
		}
		printCounts(out, name, s.Records, s.Rows, inserted, s.Present, s.Expired, s.DeadLetters)
	}
	for _, s := range report.Shards {
		line(fmt.Sprint(s.Shard), s)
	}
	all := ingester.ReplayTotal(report.Shards)
	if len(report.Shards) > 1 {
		line("all", all)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(to)
	var resumed []time.Time
	for _, s := range report.Shards {
		if s.Undecodable > 0 {
			_, _ = fmt.Fprintf(to, "shard %d: %s records can't be decoded by this version, and were left out.\n", s.Shard, humanize.Comma(int64(s.Undecodable)))
		}
		if s.Trimmed > 0 {
			most := ""
			if report.Tenant != "" {
				most = "up to "
			}
			_, _ = fmt.Fprintf(to, "shard %d: the WAL deleted %s%s records before they could be looked at (--replay-window or --wal-max-bytes is used up).\n", s.Shard, most, humanize.Comma(int64(s.Trimmed)))
		}
		if !s.Resumed.IsZero() {
			resumed = append(resumed, s.Resumed)
		}
	}
	if len(resumed) > 0 {
		_, _ = fmt.Fprintf(to, "went on with the replay that began at %s; what that had done is not in the numbers.\n", stamp(slices.MinFunc(resumed, time.Time.Compare)))
	}
	_, err := fmt.Fprintln(to, replayVerdict(report, all))
	return err
}

// replayVerdict is the last line.
func replayVerdict(report replayReport, all ingester.ReplayedShard) string {
	rows := func(n uint64) string {
		if n == 1 {
			return "1 row"
		}
		return humanize.Comma(int64(n)) + " rows"
	}
	switch {
	case !report.Finished:
		return fmt.Sprintf("unfinished: inserted %s in %s.", rows(all.Inserted), short(report.took))
	case report.DryRun && all.Missing > 0:
		return fmt.Sprintf("missing: %s, which a replay inserts.", rows(all.Missing))
	case all.Records == 0:
		return "nothing to replay: the WAL holds no such record that has landed."
	case all.Missing == 0:
		return "nothing is missing."
	}
	return fmt.Sprintf("inserted %s in %s; `logthra audit` shows whether all is there, once.", rows(all.Inserted), short(report.took))
}

// replayBar shows how far a replay is on standard error: a line that is drawn again and again on a terminal, or else
// a line of the log now and then.
type replayBar struct {
	replay *ingester.Replay
	log    *slog.Logger
	draws  bool
	began  time.Time

	part float64   // of the records that is done, 0 to 1
	at   time.Time // when it became that
}

// start begins to show it. The function that it returns ends that.
func (b *replayBar) start() (stop func()) {
	every, show := replayLogEvery, b.write
	if b.draws {
		every, show = progressEvery, b.draw
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				show()
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
		if b.draws {
			fmt.Fprint(os.Stderr, "\r\x1b[K")
		}
	}
}

// look returns the numbers so far, the rows that are looked at in a second, and how long the rest will take, 0 where that
// can't be told. It counts to where the last batch was done.
func (b *replayBar) look(shards []ingester.ReplayedShard) (all ingester.ReplayedShard, rate float64, left time.Duration) {
	var records, done uint64
	for _, s := range shards {
		if s.First <= s.Last {
			records += s.Last + 1 - s.First
			done += s.Done + 1 - s.First
		}
	}
	if part := float64(done) / float64(max(records, 1)); part != b.part {
		b.part, b.at = part, time.Now()
	}
	all = ingester.ReplayTotal(shards)
	if b.part > 0 {
		took := b.at.Sub(b.began)
		rate = float64(all.Rows) / took.Seconds()
		left = max(time.Duration(float64(took)/b.part*(1-b.part))-time.Since(b.at), 0)
	}
	return all, rate, left
}

// write logs how far it is.
func (b *replayBar) write() {
	shards, _ := b.replay.Progress()
	if len(shards) == 0 {
		return
	}
	all, rate, left := b.look(shards)
	b.log.Info("replaying", "done", fmt.Sprintf("%.0f%%", 100*b.part), "rows", all.Rows, "inserted", all.Inserted,
		"rows_per_second", int(rate), "left", left.Round(time.Second))
}

// draw draws the line, no wider than the terminal.
func (b *replayBar) draw() {
	const cells = 20
	shards, text := b.replay.Progress()
	if len(shards) > 0 {
		all, rate, left := b.look(shards)
		full := int(b.part * cells)
		line := fmt.Sprintf("[%s%s] %3.0f%%  %s rows  %s inserted  %s rows/s", strings.Repeat("#", full), strings.Repeat(".", cells-full),
			100*b.part, humanize.Comma(int64(all.Rows)), humanize.Comma(int64(all.Inserted)), humanize.Comma(int64(rate)))
		if left > 0 {
			line += "  " + short(left) + " left"
		}
		text = strings.TrimSpace(line + "  " + text)
	}
	runes := []rune(text)
	if width, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil && width > 0 && len(runes) >= width {
		runes = runes[:width-1]
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K"+string(runes))
}
