package store

import (
	"io"
	"net/http" //nolint:depguard // ClickHouse lays answers out as tables over HTTP alone
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/logs"
)

// documented are the lines that the documentation of SQL shows: tenant, labels, time, line, and metadata or nothing. Each stream is
// pushed by itself, so that it has a sequence of its own.
var documented = [][]string{
	{"demo", `{"app":"shop","env":"prod","host":"node-1","level":"info"}`},
	{"2026-11-27 14:00:10", "order paid order=901 took=110ms"},
	{"2026-11-27 14:02:00", "order paid order=902 took=95ms"},
	{"2026-11-28 14:00:00", "order paid order=1001 took=120ms", "trace_id", "a1f0"},
	{"2026-11-28 14:01:30", "order paid order=1003 took=90ms"},
	{"2026-11-28 14:07:00", "order paid order=1005 took=75ms"},
	{"demo", `{"app":"shop","env":"prod","host":"node-2","level":"error"}`},
	{"2026-11-28 14:01:10.5", "payment failed order=1002 took=2200ms", "trace_id", "b7c2", "region", "eu"},
	{"2026-11-28 14:02:40", "payment failed order=1004 took=3100ms", "trace_id", "c93d"},
	{"demo", `{"app":"web","env":"prod","host":"node-1","level":"info"}`},
	{"2026-11-27 14:01:00", `{"path":"/cart","status":200,"ms":15}`},
	{"2026-11-28 14:00:05", `{"path":"/cart","status":200,"ms":12}`},
	{"2026-11-28 14:00:20", `{"path":"/orders/1001","status":200,"ms":148}`, "trace_id", "a1f0"},
	{"2026-11-28 14:02:15", `{"path":"/cart","status":200,"ms":9}`},
	{"demo", `{"app":"web","env":"prod","host":"node-2","level":"error"}`},
	{"2026-11-27 14:03:00", `{"path":"/orders/903","status":500,"ms":1900}`},
	{"2026-11-28 14:01:10", `{"path":"/orders/1002","status":500,"ms":2210}`, "trace_id", "b7c2"},
	{"2026-11-28 14:02:40", `{"path":"/orders/1004","status":503,"ms":3120}`, "trace_id", "c93d"},
	{"demo", `{"app":"cron","env":"dev","host":"node-3","level":"warn"}`},
	{"2026-11-28 14:07:30", "disk 91% full"},
	{"acme", `{"app":"api"}`},
	{"2026-11-28 14:00:30", "GET /v1/items 200"},
	{"2026-11-28 14:03:00", "GET /v1/items 200"},
}

// documentedBatch has a record for each stream, from sequence 101 on.
func documentedBatch(t *testing.T) *Batch {
	t.Helper()
	var b Batch
	var r logs.Batch
	sequence, tenant := uint64(100), ""
	push := func() {
		if r.Len() > 0 {
			addCopy(&b, sequence, tenant, &r)
		}
		r.Reset()
		sequence++
	}
	for _, line := range documented {
		at, err := time.Parse(time.DateTime, line[0])
		if err != nil {
			push()
			tenant = line[0]
			r.AddStream(line[1])
			continue
		}
		r.Lines = append(r.Lines, line[1]...)
		r.EndEntry(at.UnixNano(), true)
		for i := 2; i < len(line); i += 2 {
			r.AddMetadata([]byte(line[i]), []byte(line[i+1]))
		}
	}
	push()
	return &b
}

// Each statement of the documentation of SQL answers what stands beneath it, or nothing.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	s, server := migrated(t)
	insert(t, s, documentedBatch(t), "documented")
	ask := func(sql string) string {
		t.Helper()
		values := url.Values{"default_format": {"PrettyCompactMonoBlock"}, "output_format_pretty_row_numbers": {"0"}, "output_format_pretty_color": {"0"}}
		var out []byte
		status := ""
		if err := ride(t, func() error {
			response, err := http.Post("http://"+server.HTTPAddr()+"/?"+values.Encode(), "text/plain", strings.NewReader(strings.ReplaceAll(sql, "logs.", s.database+".")))
			if err != nil {
				return err
			}
			defer func() { _ = response.Body.Close() }()
			status = response.Status
			out, err = io.ReadAll(response.Body)
			return err
		}); err != nil || status != "200 OK" {
			t.Errorf("%s\n%s, %v", sql, status, err)
		}
		return string(out)
	}
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```\n(?:\n```text\n(.*?)```\n)?").FindAllStringSubmatch(string(text), -1)
	if all := strings.Count(string(text), "```sql"); all != len(blocks) || all < 25 {
		t.Errorf("there are %d statements in the documentation, of which %d are run", all, len(blocks))
	}
	for _, block := range blocks {
		if got := ask(block[1]); got != block[2] {
			t.Errorf("%s\ngot\n%s\nwant\n%s", block[1], got, block[2])
		}
	}
	exports := regexp.MustCompile(`(?s)curl [^\n]+ -d "(SELECT [^"]+ FORMAT Parquet)"`).FindAllStringSubmatch(string(text), -1)
	for _, export := range exports {
		if got := ask(export[1]); !strings.HasPrefix(got, "PAR1") || !strings.HasSuffix(got, "PAR1") {
			t.Errorf("%s\nis not a Parquet file: %.100s", export[1], got)
		}
	}
	if len(exports) != 1 {
		t.Errorf("there are %d Parquet files in the documentation", len(exports))
	}
}
