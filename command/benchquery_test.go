package command

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/command/bench"
)

// A data set is pushed, found again and asked, alone and while others push.
func TestBenchQuery(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "100ms")
	common := []string{"bench", "query", "--data-dir", l.dir, "--lines", "12000", "--streams", "60", "--span", "10m", "--runs", "2", "--push-lines", "4000"}
	code, stdout, stderr := run(t, "", append(common, "--json", "--prepare", "--turns", "1")...)
	var r bench.QueryReport
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	want := []string{"100 lines of 6 streams", "1 line of 1 stream", "", "", "", "40 values", "60 values"}
	if len(r.Questions) != len(want) || r.End.Sub(r.Begin) != 10*time.Minute || r.Pushed == nil || len(r.Pushed.Alone) != 1 || len(r.Pushed.Asking) != 1 || r.Pushed.Ratio <= 0 {
		t.Fatalf("the report is %+v", r)
	}
	for i, q := range r.Questions {
		if q.Min <= 0 || q.Median < q.Min || q.Max < q.Median || q.First <= 0 || want[i] != "" && q.Answer != want[i] {
			t.Errorf("%+v", q)
		}
	}
	if rows := r.Questions[0].Rows; rows < 100 {
		t.Errorf("the tail read %d rows", rows)
	}

	code, stdout, stderr = run(t, "", append(common, "--queries", "needle,labels", "--turns", "0")...)
	if code != 0 || stderr != "" || !strings.Contains(stdout, "needle") || strings.Contains(stdout, "tail") || strings.Contains(stdout, "pushed") || !strings.Contains(stdout, "1 line of 1 stream") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := run(t, "", append(common, "--prepare")...); code == 0 || stdout != "" || !strings.Contains(stderr, "there is a data set already") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := run(t, "", append(common, "--tenant", "other")...); code == 0 || stdout != "" || !strings.Contains(stderr, "tenant other has no data set") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := run(t, "", append(common, "--end", "2026-01-01")...); code == 0 || stdout != "" || !strings.Contains(stderr, "tail: the answer to query_range has nothing in it") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

func TestBenchQueryErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--queries", "tail,head"}, `--queries: "head" is none of tail, needle, count, json, labels, values, series`},
		{[]string{"--runs", "0"}, "--runs: 0 is less than 1"},
		{[]string{"--turns=-1"}, "--turns: -1 is less than 0"},
		{[]string{"--push-lines", "0"}, "--push-lines: 0 is less than 1"},
		{[]string{"--span", "1ms"}, "--span: 1ms is less than 1s"},
		{[]string{"--lines", "0"}, "--lines: 0 is less than 1"},
		{[]string{"--tenant", "a b"}, `--tenant: "a b"`},
		{[]string{"--url", "http://127.0.0.1:1"}, "connection refused"},
	} {
		code, stdout, stderr := run(t, "", append([]string{"bench", "query", "--data-dir", t.TempDir()}, c.args...)...)
		if code == 0 || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d, %s%s", c.args, code, stdout, stderr)
		}
	}
}

func TestPrintBenchQuery(t *testing.T) {
	var out bytes.Buffer
	if err := printBenchQuery(&out, &bench.QueryReport{
		Questions: []*bench.Asked{
			{Name: "tail", Goal: 50 * time.Millisecond, First: time.Second, Min: 1234567, Median: 20 * time.Millisecond, Max: 300 * time.Millisecond, Rows: 1234567, Bytes: 5 << 20, Answer: "100 lines of 2 streams"},
			{Name: "needle", Goal: 1500 * time.Millisecond, Note: "150ms with an index", First: 2 * time.Second, Min: time.Second, Median: 1600 * time.Millisecond, Max: 2 * time.Second, Answer: "1 line of 1 stream"},
		},
		Pushed: &bench.Pushed{Alone: []float64{1_000_000, 1_100_000}, Asking: []float64{600_000, 700_000}, Ratio: 0.619, Questions: 1234},
	}); err != nil {
		t.Fatal(err)
	}
	const want = `
QUERY    FIRST   MIN      MEDIAN   MAX     GOAL                                 ROWS        BYTES     ANSWER
tail     1s      1.23ms   20ms     300ms   50ms                        kept     1,234,567   5.0 MiB   100 lines of 2 streams
needle   2s      1s       1.6s     2s      1.5s, 150ms with an index   missed   0           0 B       1 line of 1 stream

pushed   1,000,000 and 1,100,000 lines/s alone, 600,000 and 700,000 while 1,234 queries were answered: 62 %; goal 70 %, missed
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
