package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/ingester"
)

// audited runs an audit with --json and returns its exit code and report.
func audited(t *testing.T, args ...string) (code int, report ingester.AuditReport) {
	t.Helper()
	code, stdout, stderr := run(t, "", append([]string{"audit", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v: %q, %q", err, stdout, stderr)
	}
	if report.Balanced != (code == 0) || stderr != "" {
		t.Errorf("exit code %d, stderr %q: %+v", code, stderr, report)
	}
	return code, report
}

func TestAuditCommand(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "1h")
	data := []string{"--data-dir", l.dir}
	audit := func(args ...string) (code int, stdout string) {
		t.Helper()
		code, stdout, stderr := run(t, "", slices.Concat([]string{"audit"}, data, args)...)
		if stderr != "" {
			t.Errorf("stderr has %q", stderr)
		}
		return code, stdout
	}
	if code, stdout := audit(); code != 0 || !strings.Contains(stdout, "nothing to audit") {
		t.Errorf("of nothing: %d, %s", code, stdout)
	}
	for tenant, text := range map[string]string{"acme": "one\ntwo\nthree\n", "other": "four\n"} {
		if code, _, stderr := run(t, text, slices.Concat([]string{"push", "--tenant", tenant}, data)...); code != 0 {
			t.Fatal(stderr)
		}
	}
	if _, report := audited(t, data...); !report.Balanced || report.Total != (ingester.Books{Records: 2, Entries: 4, Unflushed: 4}) {
		t.Errorf("before they land: %+v", report.Total)
	}
	flush(t, l.at["ingester"])
	if code, stdout := audit(); code != 0 || !strings.Contains(lastLine(stdout), "balanced: every entry") {
		t.Errorf("after they landed: %d, %s", code, stdout)
	}
	_, report := audited(t, data...)
	if report.Total != (ingester.Books{Records: 2, Entries: 4, Rows: 4}) || len(report.Shards) != 4 {
		t.Errorf("after they landed: %+v", report)
	}
	// The engines by their addresses, from elsewhere.
	if _, report := audited(t, "--data-dir", t.TempDir(), "--nats-url", "nats://"+l.at["nats"], "--clickhouse-dsn", "clickhouse://"+l.at["clickhouse"]+"/logs"); report.Total.Rows != 4 {
		t.Errorf("by the addresses: %+v", report)
	}
	mustQuery(t, l.at["clickhouse-http"], "DELETE FROM logs.log WHERE tenant_id = 'acme' AND msg = 'two'")
	if code, report := audited(t, slices.Concat(data, []string{"--tenant", "acme", "--from", "1h", "--to", "0s"})...); code != exitFailure ||
		report.Total != (ingester.Books{Records: 1, Entries: 3, Rows: 2, Missing: 1}) {
		t.Errorf("with a line gone: %d, %+v", code, report)
	}
	code, stdout := audit("--tenant", "acme")
	for _, part := range []string{"acme\n", "NOT balanced: 1 entry is missing.", "`logthra replay --tenant acme`"} {
		if code != exitFailure || !strings.Contains(stdout, part) {
			t.Errorf("with a line gone, %d, lacks %q: %s", code, part, stdout)
		}
	}
	if code, report := audited(t, slices.Concat(data, []string{"--tenant", "other"})...); code != 0 {
		t.Errorf("the tenant that lost nothing: %+v", report)
	}
	if code, report := audited(t, slices.Concat(data, []string{"--to", "1h ago"})...); code != 0 {
		t.Errorf("the time before: %+v", report)
	}
	wantQuiet(t, l.logthra)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func TestToolErrors(t *testing.T) {
	t.Parallel()
	nowhere := "--data-dir " + t.TempDir()
	for name, c := range map[string]struct {
		args string
		code int
		want []string
	}{
		"no engines":            {"audit " + nowhere, exitFailure, []string{"no Logthra runs", "--data-dir", "--nats-url", "--clickhouse-dsn"}},
		"no ClickHouse":         {"audit --nats-url nats://127.0.0.1:1 " + nowhere, exitFailure, []string{"--clickhouse-dsn"}},
		"NATS is away":          {"audit --nats-url nats://u:secret@127.0.0.1:1 --clickhouse-dsn clickhouse://127.0.0.1:1", exitFailure, []string{"127.0.0.1:1", "--nats-url"}},
		"NATS URL":              {"audit --nats-url nats://u:secret@h:port --clickhouse-dsn clickhouse://127.0.0.1:1", exitFailure, []string{"nats://user:password@host:4222"}},
		"DSN":                   {"audit --nats-url nats://127.0.0.1:1 --clickhouse-dsn clickhouse://u:secret@h:port/logs", exitFailure, []string{"--clickhouse-dsn"}},
		"from":                  {"audit --from soon", exitUsage, []string{"--from", `"soon"`, "RFC 3339", "2h"}},
		"to":                    {"audit --to 2026-13-01", exitUsage, []string{"--to", `"2026-13-01"`}},
		"from after to":         {"audit --from 1h --to 2h", exitUsage, []string{"--from", "is not before --to"}},
		"id":                    {"deadletter show 12", exitUsage, []string{`"12"`, "<shard>.<sequence>"}},
		"id, not a number":      {"deadletter retry 1.x", exitUsage, []string{`"1.x"`, "<shard>.<sequence>"}},
		"id, shard too high":    {"deadletter drop 70000.1", exitUsage, []string{`"70000.1"`}},
		"no ids":                {"deadletter retry", exitUsage, []string{"--all"}},
		"no ids to drop":        {"deadletter drop", exitUsage, []string{"--all"}},
		"ids and all":           {"deadletter retry 1.2 --all", exitUsage, []string{"--all"}},
		"ids and a tenant":      {"deadletter drop 1.2 --tenant acme", exitUsage, []string{"--tenant"}},
		"no such thing to do":   {"deadletter nonsense", exitUsage, []string{"nonsense"}},
		"letters, NATS is away": {"deadletter list --nats-url nats://127.0.0.1:1", exitFailure, []string{"127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run(t, "", strings.Fields(c.args)...)
			wantFailure(t, code, c.code, stderr, c.want...)
			if stdout != "" {
				t.Errorf("stdout has %q", stdout)
			}
			if strings.Contains(stderr, "secret") {
				t.Error("the password is told")
			}
		})
	}
}

func TestPrintAudit(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	report := ingester.AuditReport{
		Time: at, Balanced: true, Total: ingester.Books{Records: 1301, Entries: 2600000, Rows: 2599000, Unflushed: 900, DeadLettered: 60, Expired: 40},
		Shards: []ingester.ShardAudit{
			{Shard: 0, Since: at.Add(-time.Hour), Books: ingester.Books{Records: 1300, Entries: 2599000, Rows: 2598000, Unflushed: 900, DeadLettered: 60, Expired: 40}, Complete: true},
			{Shard: 1, Since: at, Books: ingester.Books{Records: 1, Entries: 1000, Rows: 1000}, Complete: true},
			{Shard: 2, Complete: true},
		},
	}
	var out bytes.Buffer
	if err := printAudit(&out, report); err != nil {
		t.Fatal(err)
	}
	const want = `
   SHARD   RECORDS     ENTRIES        ROWS   MISSING   SURPLUS   DEAD-LETTERED   EXPIRED   UNFLUSHED
       0     1,300   2,599,000   2,598,000         0         0              60        40         900
       1         1       1,000       1,000         0         0               0         0           0
       2         0           0           0         0         0               0         0           0
     all     1,301   2,600,000   2,599,000         0         0              60        40         900

balanced: every entry is in the table once, or accounted for. The WAL's oldest record is of 2026-11-22T09:00:00Z.
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}

	report.Balanced, report.Tenant, report.From = false, "acme", at.Add(-3*time.Hour)
	report.Shards = report.Shards[1:]
	report.Total = ingester.Books{Records: 30, Entries: 30, Rows: 7, Missing: 25, Surplus: 2}
	report.Shards[0].Complete = false
	report.Shards[0].Discrepancies = []ingester.Discrepancy{{Sequence: 9, Rows: 2, Surplus: 2}}
	report.Shards[0].Discrepant = 1
	for n := range uint64(25) {
		report.Shards[1].Discrepancies = append(report.Shards[1].Discrepancies, ingester.Discrepancy{Sequence: 100 + n, Tenant: "acme", Time: at, Entries: 1, Missing: 1})
	}
	report.Shards[1].Discrepant = 1025
	out.Reset()
	if err := printAudit(&out, report); err != nil {
		t.Fatal(err)
	}
	wantLine := func(n int, want string) {
		t.Helper()
		lines := strings.Split(out.String(), "\n")
		if n < 0 {
			n += len(lines)
		}
		if lines[n] != want {
			t.Errorf("line %d is %q\nwant %q", n, lines[n], want)
		}
	}
	wantLine(5, "   SHARD   SEQUENCE                  TAKEN   ENTRIES   ROWS   MISSING   SURPLUS   TENANT")
	wantLine(6, "       1          9                      -         0      2         0         2   - (the WAL has no such record)")
	wantLine(7, "       2        100   2026-11-22T10:00:00Z         1      0         1         0   acme")
	wantLine(26, "and 1,006 more; --json lists more of them")
	wantLine(-4, "shard 1: what the WAL took before 2026-11-22T10:00:00Z was trimmed and can't be audited.")
	wantLine(-3, "NOT balanced: 25 entries are missing, 2 rows are surplus.")
	if !strings.Contains(lastLine(out.String()), "`logthra replay --tenant acme --from 2026-11-22T07:00:00Z`") {
		t.Error(lastLine(out.String()))
	}
	for n, want := range map[uint64]string{1: "1 entry is", 2: "2 entries are", 1000: "1,000 entries are"} {
		if got := fmt.Sprint(found(n, "entry", "entries")); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}
