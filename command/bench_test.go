package command

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/casteloig/logthra/command/bench"
)

// Every protocol lands as many rows as lines were pushed, with the labels of its streams.
func TestBench(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "100ms")
	for _, protocol := range bench.Protocols() {
		for _, encoding := range bench.Encodings {
			if encoding != "none" && protocol != "loki-json" && protocol != "elastic" {
				continue
			}
			t.Run(protocol+" "+encoding, func(t *testing.T) {
				code, stdout, stderr := run(t, "", "bench", "--data-dir", l.dir, "--json", "--protocol", protocol, "--encoding", encoding,
					"--lines", "1003", "--lines-per-push", "50", "--streams", "7", "--streams-per-push", "3", "--tenants", "2", "--connections", "3", "--pid", "here="+strconv.Itoa(os.Getpid()))
				var r bench.Report
				if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil {
					t.Fatalf("exit code %d, %v: %s%s", code, err, stdout, stderr)
				}
				if r.Lines != 1003 || r.Pushes != 21 || r.Retries != 0 || r.LineBytes < 50*1003 || r.Landed < r.Answered || r.Settled < r.Landed ||
					r.Latency.P50 <= 0 || r.Latency.Max < r.Latency.P99 || len(r.Processes) < 1 || r.Processes[0].RSSBytes == 0 || r.Processes[0].Name != "here" {
					t.Errorf("the report is %+v", r)
				}
				got, err := sqlQuery(l.at["clickhouse-http"], fmt.Sprintf(`SELECT concat(toString(count()), ' ', toString(uniqExact(tenant_id)), ' ', toString(uniqExact(stream_id)), ' ', toString(uniqExact(timestamp)))
					FROM logs.log WHERE position(stream, '"%s"') > 0`, r.Run))
				if err != nil || strings.TrimSpace(got) != "1003 2 14 1003" {
					t.Errorf("rows, tenants, streams and times are %s, %v", got, err)
				}
			})
		}
	}
}

func TestBenchOfFilesAtARate(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "100ms")
	path := filepath.Join(t.TempDir(), "a.log")
	if err := os.WriteFile(path, []byte("first line\r\n\nsecond line\nthird"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := run(t, "", "bench", "--data-dir", l.dir, "--lines", "60", "--lines-per-push", "10", "--rate", "100", "--ahead", "1", path)
	for _, want := range []string{"pushed", "60 lines", "answered", "in ClickHouse", "merged", "p99"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if after, ok := strings.CutPrefix(stdout[strings.Index(stdout, "answered"):], "answered"); !ok || !strings.HasPrefix(strings.TrimSpace(after), "after 5") {
		t.Errorf("at 100 lines a second the sixth push of 10 is sent after half a second:\n%s", stdout)
	}
	if got, err := sqlQuery(l.at["clickhouse-http"], "SELECT arrayStringConcat(arraySort(groupUniqArray(msg)), ',') FROM logs.log"); err != nil || strings.TrimSpace(got) != "first line,second line,third" {
		t.Errorf("the lines are %s", got)
	}
}

func TestBenchErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.log")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--lines", "0"}, "--lines: 0 is less than 1"},
		{[]string{"--rate=-1"}, "--rate: -1 is less than 0"},
		{[]string{"--connections", "0"}, "--connections: 0"},
		{[]string{"--tenant", "a b"}, `--tenant: "a b"`},
		{[]string{"--protocol", "smoke-signals"}, "--protocol"},
		{[]string{"--encoding", "gzip"}, "--encoding: loki has an encoding of its own"},
		{[]string{"--pid", "x=y"}, `--pid: "x=y" is not PID or NAME=PID`},
		{[]string{"--pid", "999999999"}, "no such process"},
		{[]string{"--url", "ftp://x"}, "--url"},
		{[]string{filepath.Join(dir, "none.log")}, "none.log"},
		{[]string{empty}, "there is no line in it"},
		{[]string{"--url", "http://127.0.0.1:1", "--clickhouse-dsn", "clickhouse://127.0.0.1:1"}, "--clickhouse-dsn"},
	} {
		code, stdout, stderr := run(t, "", append([]string{"bench", "--data-dir", dir, "--lines", "10"}, c.args...)...)
		if code == 0 || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d, %s%s", c.args, code, stdout, stderr)
		}
	}
}
