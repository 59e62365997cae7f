package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/casteloig/logthra/ingester"
	"github.com/casteloig/logthra/shared/wal"
)

func TestReplayUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		code  int
		parts []string
	}{
		"--tenant a.b":          {exitUsage, []string{"--tenant", `"a.b"`, "[A-Za-z0-9_-]{1,64}"}},
		"--rate=-1":             {exitUsage, []string{"--rate", "0 or more"}},
		"--from 1h --to 2h":     {exitUsage, []string{"--from", "is not before --to"}},
		"--from yesterday":      {exitUsage, []string{"--from", "yesterday", "2h, 3d"}},
		"--shard one":           {exitUsage, []string{"--shard", "one"}},
		"--data-dir /nonsense":  {exitFailure, []string{"/nonsense", "--data-dir", "--nats-url", "--clickhouse-dsn"}},
		"--nats-url 10.0.0.1:x": {exitFailure, []string{"--data-dir", "--clickhouse-dsn"}},
	} {
		code, stdout, stderr := run(t, "", append([]string{"replay"}, strings.Fields(args)...)...)
		wantFailure(t, code, want.code, stderr, want.parts...)
		if stdout != "" {
			t.Errorf("%s: printed %q", args, stdout)
		}
	}
}

// What is asked for in the same words is the same replay.
func TestReplayRequest(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                                "",
		"--dry-run --rate 5 --shard 1":    "",
		"--tenant acme":                   "--tenant acme",
		"--to 1h --tenant acme --from 2h": "--tenant acme --from 2h --to 1h",
		"--from 2026-11-22":               "--from 2026-11-22",
	} {
		var flags cli
		parser, err := newParser(&flags, "test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(append([]string{"replay"}, strings.Fields(args)...)); err != nil {
			t.Fatal(err)
		}
		if got := flags.Replay.request(); got != want {
			t.Errorf("%q is the request %q, want %q", args, got, want)
		}
	}
}

func TestPrintReplay(t *testing.T) {
	t.Parallel()
	report := replayReport{Finished: true, took: 83 * time.Second, Shards: []ingester.ReplayedShard{
		{Shard: 0, Records: 12, Rows: 1234567, Missing: 1234000, Inserted: 1234000, Present: 560, Expired: 7},
		{Shard: 13, Records: 3, Rows: 5, Missing: 1, Inserted: 1, Present: 4, DeadLetters: 1, Undecodable: 1, Trimmed: 1234, Resumed: time.Unix(1700000000, 0)},
	}}
	var out bytes.Buffer
	if err := printReplay(&out, report); err != nil {
		t.Fatal(err)
	}
	const want = `
   SHARD   RECORDS        ROWS    INSERTED   ALREADY THERE   EXPIRED   DEAD LETTERS
       0        12   1,234,567   1,234,000             560         7              0
      13         3           5           1               4         0              1
     all        15   1,234,572   1,234,001             564         7              1

shard 13: 1 records can't be decoded by this version, and were left out.
shard 13: the WAL deleted 1,234 records before they could be looked at (--replay-window or --wal-max-bytes is used up).
went on with the replay that began at 2023-11-14T22:13:20Z; what that had done is not in the numbers.
inserted 1,234,001 rows in 1m23s; ` + "`logthra audit`" + ` shows whether all is there, once.
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}

	report.Tenant, report.DryRun, report.Shards = "acme", true, report.Shards[1:]
	report.Shards[0].Inserted = 0
	out.Reset()
	if err := printReplay(&out, report); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"MISSING", "deleted up to 1,234", "\nmissing: 1 row, which a replay inserts.\n"} {
		if !strings.Contains(out.String(), part) || strings.Contains(out.String(), " all ") {
			t.Errorf("%s\nlacks %q, or has a sum of one", out.String(), part)
		}
	}
	for want, c := range map[string]struct {
		report replayReport
		all    ingester.ReplayedShard
	}{
		"unfinished: inserted 5 rows in 2s.":                               {replayReport{took: 2 * time.Second}, ingester.ReplayedShard{Records: 1, Inserted: 5, Missing: 5}},
		"nothing is missing.":                                              {replayReport{Finished: true}, ingester.ReplayedShard{Records: 1, Present: 5}},
		"nothing to replay: the WAL holds no such record that has landed.": {replayReport{Finished: true, DryRun: true}, ingester.ReplayedShard{}},
	} {
		if got := replayVerdict(c.report, c.all); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestExplainReplay(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	end()
	unfinished := fmt.Errorf("shard 0: no route: %w", ingester.ErrUnfinished)
	for name, c := range map[string]struct {
		err  error
		ctx  context.Context
		want string
	}{
		"another":     {fmt.Errorf("shard 2: %w", &wal.OtherReplayError{Shard: 2, Position: wal.ReplayPosition{Request: "--from 2h", Started: time.Now().Add(-3 * time.Hour)}}), t.Context(), "shard 2: a replay that began 3h ago is unfinished, `logthra replay --from 2h`: run that again to finish it, or abandon it with --restart"},
		"all":         {&wal.OtherReplayError{Position: wal.ReplayPosition{Started: time.Now()}}, t.Context(), "`logthra replay`:"},
		"partial":     {&ingester.PartialError{From: time.Unix(1, 0), Since: map[int]time.Time{1: {}}}, t.Context(), "since 1970-01-01T00:00:01Z: shard 1 holds nothing; --partial replays what it holds"},
		"interrupted": {unfinished, ended, "interrupted; the same command goes on from there"},
		"too early":   {context.Canceled, ended, "interrupted"},
		"failed":      {unfinished, t.Context(), unfinished.Error()},
	} {
		if got := explainReplay(c.ctx, c.err); got == nil || !strings.HasSuffix(got.Error(), c.want) && !strings.Contains(got.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, got, c.want)
		}
	}
	if err := explainReplay(ended, nil); err != nil || errors.Is(unfinished, context.Canceled) {
		t.Errorf("done before it was interrupted: %v", err)
	}
}

// withoutProgress is what a replay says but for how far it is, which it tells when it takes long.
func withoutProgress(stderr string) string {
	var rest strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.Contains(line, "msg=replaying ") {
			rest.WriteString(line)
		}
	}
	return rest.String()
}

// Replays by hand beside a Logthra that goes on taking pushes and landing them: of all that was lost, with all that
// may happen to the process on the way.
func TestReplay(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "50ms")
	replay := func(args ...string) []string { return append([]string{"replay", "--data-dir", l.dir}, args...) }
	count := func() string {
		return strings.TrimSpace(mustQuery(t, l.at["clickhouse-http"], "SELECT count() FROM logs.log"))
	}
	// A slow one inserts the rows of a shard, and then waits for a minute or more.
	slow := func() *logthra {
		t.Helper()
		before := count()
		slow := begin(t, nil, replay("--from", "1h", "--rate", "1")...)
		slow.eventually("it has inserted something", func() bool { return count() != before })
		return slow
	}
	lose := func() { mustQuery(t, l.at["clickhouse-http"], "TRUNCATE TABLE logs.log") }

	var texts []string
	for push := range 40 {
		values := ""
		for line := range 10 {
			texts = append(texts, fmt.Sprintf("line %d of push %d", line, push))
			values += fmt.Sprintf(`,["","%s"]`, texts[len(texts)-1])
		}
		if err := pushJSON(l.at["http"], "lost", fmt.Sprint(push), `{"streams":[{"stream":{"app":"lost"},"values":[`+values[1:]+`]}]}`); err != nil {
			t.Fatal(err)
		}
	}
	want := linesOf(texts...)
	flush(t, l.at["ingester"])
	wantOnce(t, landed(t, l.at["clickhouse-http"], "1"), want)

	lose()
	code, stdout, stderr := run(t, "", replay("--dry-run")...)
	if code != 0 || stderr != "" || !strings.Contains(stdout, "MISSING") || !strings.Contains(stdout, "\nmissing: 400 rows") || count() != "0" {
		t.Errorf("a dry run: %d %s %s", code, stdout, stderr)
	}

	interrupted := slow()
	code, stdout, stderr = run(t, "", replay()...)
	wantFailure(t, code, exitFailure, stderr, "shard", "is running elsewhere")
	if stdout != "" {
		t.Errorf("a second one: %s", stdout)
	}
	interrupted.signal(syscall.SIGINT)
	if code := interrupted.wait(); code != exitFailure || !strings.Contains(interrupted.stdout.String(), "unfinished: inserted") ||
		!strings.Contains(interrupted.stderr.String(), "logthra: interrupted; the same command goes on from there") {
		t.Errorf("^C: %d", code)
	}
	code, _, stderr = run(t, "", replay("--tenant", "lost")...)
	wantFailure(t, code, exitFailure, stderr, "shard", "`logthra replay --from 1h`", "--restart")
	slow().kill()

	load := startLoad(t, l.at["http"])
	load.more(20)
	code, stdout, stderr = run(t, "", replay("--from", "1h", "--json")...)
	var report replayReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 || withoutProgress(stderr) != "" || !report.Finished || len(report.Shards) != 4 || report.Shards[3].Resumed.IsZero() {
		t.Errorf("going on: %d %s %s", code, stdout, stderr)
	}
	load.more(20)
	lose()
	load.more(20)
	code, stdout, stderr = run(t, "", replay()...)
	if code != 0 || withoutProgress(stderr) != "" || !strings.Contains(stdout, "\ninserted ") {
		t.Errorf("beside the load: %d %s %s", code, stdout, stderr)
	}
	load.more(20)
	for line, n := range load.stop() {
		want[line] += n
	}
	if failed := load.failed.Load(); failed > 0 {
		t.Errorf("%d pushes were refused", failed)
	}
	flush(t, l.at["ingester"])
	if code, stdout, stderr = run(t, "", replay()...); code != 0 || withoutProgress(stderr) != "" { // what was inserted before the loss and landed after the replay began
		t.Errorf("the last one: %d %s %s", code, stdout, stderr)
	}
	wantOnce(t, landed(t, l.at["clickhouse-http"], "1"), want)
	if code, stdout, _ := run(t, "", "audit", "--data-dir", l.dir); code != 0 {
		t.Errorf("audited: %s", stdout)
	}
	wantQuiet(t, l.logthra)
}
