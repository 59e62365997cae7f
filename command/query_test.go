package command

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casteloig/logthra/command/answer"
)

// foreign answers log queries as the documentation of Loki's API has it, from entries in memory. What it answers first, among entries of
// the same time, is another thing each time.
type foreign struct {
	*httptest.Server

	mu       sync.Mutex // guards the others
	entries  []answer.Entry
	answer   func(http.ResponseWriter, *http.Request) bool // before all else; true: that was it
	requests []*http.Request
}

// with changes how it answers.
func (f *foreign) with(answer func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func newForeign(t *testing.T, entries ...answer.Entry) *foreign {
	f := &foreign{entries: entries}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *foreign) asked() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

func (f *foreign) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r)
	first := f.answer
	f.mu.Unlock()
	if first != nil && first(w, r) {
		return
	}
	p := r.URL.Query()
	start, _ := strconv.ParseInt(p.Get("start"), 10, 64)
	end, _ := strconv.ParseInt(p.Get("end"), 10, 64)
	limit, _ := strconv.Atoi(p.Get("limit"))
	found := slices.DeleteFunc(slices.Clone(f.entries), func(e answer.Entry) bool { return e.Time < start || e.Time >= end })
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	slices.SortStableFunc(found, func(a, b answer.Entry) int {
		if p.Get("direction") == "forward" {
			return cmp.Compare(a.Time, b.Time)
		}
		return cmp.Compare(b.Time, a.Time)
	})
	writeStreams(w, found[:min(limit, len(found))])
}

// writeStreams answers with entries, by stream.
func writeStreams(w io.Writer, entries []answer.Entry) {
	type stream struct {
		Stream answer.Labels `json:"stream"`
		Values [][]any       `json:"values"`
	}
	streams := []*stream{}
	for _, e := range entries {
		at := slices.IndexFunc(streams, func(s *stream) bool { return s.Stream.String() == e.Stream.String() })
		if at < 0 {
			at = len(streams)
			streams = append(streams, &stream{Stream: e.Stream})
		}
		more := map[string]answer.Labels{}
		if e.Metadata != nil {
			more["structuredMetadata"] = e.Metadata
		}
		if e.Parsed != nil {
			more["parsed"] = e.Parsed
		}
		streams[at].Values = append(streams[at].Values, []any{strconv.FormatInt(e.Time, 10), e.Line, more})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{
		"resultType": "streams", "encodingFlags": []string{"categorize-labels"}, "result": streams,
		"stats": map[string]any{"summary": map[string]any{"execTime": 0.5, "queueTime": 0.25, "totalLinesProcessed": 1000, "totalBytesProcessed": 2048}},
	}})
}

func labelsOf(pairs ...string) (labels answer.Labels) {
	text := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		text[pairs[i]] = pairs[i+1]
	}
	encoded, _ := json.Marshal(text)
	_ = json.Unmarshal(encoded, &labels)
	return labels
}

// noon is the time of the entries of these tests.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)

const aroundNoon = "--from=2026-11-22T11:00:00Z --to=2026-11-22T13:00:00Z"

// ask runs query against a server.
func ask(t *testing.T, f *foreign, flags string, query ...string) (code int, stdout, stderr string) {
	t.Helper()
	return run(t, "", slices.Concat([]string{"query", "--url", f.URL}, strings.Fields(flags), query)...)
}

func TestQueryFormats(t *testing.T) {
	t.Setenv("TZ", "Europe/Berlin")
	f := newForeign(t,
		answer.Entry{Time: noon.UnixNano(), Line: "order 4711 paid", Stream: labelsOf("app", "shop", "env", "prod"), Metadata: labelsOf("detected_level", "info", "trace_id", "7"), Parsed: labelsOf("order", "4711")},
		answer.Entry{Time: noon.UnixNano() + 2e9, Line: "timeout <é>\n\tat pay.go:7", Stream: labelsOf("app", "pay", "env", "prod"), Metadata: labelsOf("detected_level", "error")},
		answer.Entry{Time: noon.UnixNano() + 1e9, Line: "\x1b[32mgreen\x1b[0m\x1b[2Jnot cleared", Stream: labelsOf("app", "a long name", "env", "prod"), Metadata: labelsOf("detected_level", "debug")},
	)
	for flags, want := range map[string]string{
		"--limit 2": "2026-11-22T13:00:02.123+01:00 app=pay            timeout <é>\n\tat pay.go:7\n" +
			"2026-11-22T13:00:01.123+01:00 app=\"a long name\"  green\\x1b[2Jnot cleared\n",
		"--forward": "2026-11-22T13:00:00.123+01:00 app=shop           order 4711 paid\n" +
			"2026-11-22T13:00:01.123+01:00 app=\"a long name\"  green\\x1b[2Jnot cleared\n" +
			"2026-11-22T13:00:02.123+01:00 app=pay            timeout <é>\n\tat pay.go:7\n",
		"--forward --limit 1": "2026-11-22T13:00:00.123+01:00  order 4711 paid\n",
		"--forward --limit 2 --color always": "\x1b[2m2026-11-22T13:00:00.123+01:00\x1b[0m \x1b[36mapp=shop\x1b[0m           order 4711 paid\n" +
			"\x1b[2m2026-11-22T13:00:01.123+01:00\x1b[0m \x1b[36mapp=\"a long name\"\x1b[0m  \x1b[2m\x1b[32mgreen\x1b[0m\\x1b[2Jnot cleared\x1b[0m\n",
		"--forward --labels all --limit 1": "2026-11-22T13:00:00.123+01:00 {app=\"shop\", env=\"prod\", detected_level=\"info\", trace_id=\"7\", order=\"4711\"}  order 4711 paid\n",
		"--forward --labels none":          "2026-11-22T13:00:00.123+01:00  order 4711 paid\n2026-11-22T13:00:01.123+01:00  green\\x1b[2Jnot cleared\n2026-11-22T13:00:02.123+01:00  timeout <é>\n\tat pay.go:7\n",
		"-o raw":                           "timeout <é>\n\tat pay.go:7\n\x1b[32mgreen\x1b[0m\x1b[2Jnot cleared\norder 4711 paid\n",
		"-o json --limit 1":                `{"timestamp":"2026-11-22T12:00:02.123456789Z","labels":{"app":"pay","env":"prod"},"metadata":{"detected_level":"error"},"line":"timeout <é>\n\tat pay.go:7"}` + "\n",
		"-o table": "" +
			"TIME                           app            LINE\n" +
			"2026-11-22T13:00:02.123+01:00  pay            timeout <é>\\n\tat pay.go:7\n" +
			"2026-11-22T13:00:01.123+01:00  \"a long name\"  green\\x1b[2Jnot cleared\n" +
			"2026-11-22T13:00:00.123+01:00  shop           order 4711 paid\n",
	} {
		code, stdout, stderr := ask(t, f, aroundNoon+" "+flags, "{}")
		if code != 0 || stdout != want || stderr != "" {
			t.Errorf("%s: exit code %d, %s\ngot  %q\nwant %q", flags, code, stderr, stdout, want)
		}
	}
	if code, stdout, stderr := ask(t, f, "--to=2026-11-22T11:00:00Z", "{}"); code != 0 || stdout != "" || stderr != "" {
		t.Errorf("nothing is found: %d, %q, %q", code, stdout, stderr)
	}
	code, _, stderr := ask(t, f, aroundNoon+" --stats", "{}")
	if code != 0 || !strings.HasPrefix(stderr, "found 3 in ") || !strings.HasSuffix(stderr, "; the gateway took 500ms, 250ms of them waiting, and read 1,000 lines, 2.0 KiB\n") {
		t.Errorf("%d, %q", code, stderr)
	}
}

// What is asked is what the flags say.
func TestQueryRequests(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	f.with(func(w http.ResponseWriter, _ *http.Request) bool {
		fmt.Fprint(w, `{"data":{"resultType":"vector","result":[]}}`)
		return true
	})
	for _, c := range []struct {
		flags, path string
		want        url.Values
	}{
		{aroundNoon + " --limit 7", "/loki/api/v1/query_range", url.Values{"start": {"1795345200000000000"}, "end": {"1795352400000000000"}, "limit": {"7"}, "direction": {"backward"}, "step": {"120"}, "query": {"{}"}}},
		{aroundNoon + " --forward --limit all --step 1d", "/loki/api/v1/query_range", url.Values{"start": {"1795345200000000000"}, "end": {"1795352400000000000"}, "limit": {"500"}, "direction": {"forward"}, "step": {"86400"}, "query": {"{}"}}},
		{"--since 3d --to 2026-11-22", "/loki/api/v1/query_range", url.Values{"start": {"1795046400000000000"}, "end": {"1795305600000000000"}, "limit": {"100"}, "direction": {"backward"}, "step": {"7200"}, "query": {"{}"}}},
		{aroundNoon + " --instant", "/loki/api/v1/query", url.Values{"time": {"1795352400000000000"}, "query": {"{}"}}},
		{"--at 2026-11-22", "/loki/api/v1/query", url.Values{"time": {"1795305600000000000"}, "query": {"{}"}}},
	} {
		if code, _, stderr := ask(t, f, c.flags, "{}"); code != 0 || stderr != "" {
			t.Errorf("%s: %d, %s", c.flags, code, stderr)
		}
		asked := f.asked()
		last := asked[len(asked)-1]
		if last.URL.Path != c.path || last.URL.Query().Encode() != c.want.Encode() {
			t.Errorf("%s: asked %s %s\nwant %s %s", c.flags, last.URL.Path, last.URL.Query().Encode(), c.path, c.want.Encode())
		}
		if last.Header.Get("X-Scope-OrgID") != "default" || last.Header.Get("X-Loki-Response-Encoding-Flags") != "categorize-labels" {
			t.Errorf("asked with %v", last.Header)
		}
	}
	for flags, want := range map[string][2]string{
		"--tenant acme":             {"acme", ""},
		"--token secret":            {"", "Bearer secret"},
		"--token secret --tenant a": {"a", "Bearer secret"},
	} {
		ask(t, f, flags, "{}")
		asked := f.asked()
		if header := asked[len(asked)-1].Header; header.Get("X-Scope-OrgID") != want[0] || header.Get("Authorization") != want[1] {
			t.Errorf("%s: asked with %v", flags, header)
		}
	}
}

// However many entries have the same time, each is there once, and in the order of time.
func TestQueryPages(t *testing.T) {
	t.Parallel()
	var entries []answer.Entry
	add := func(n int, at int64, line string) {
		for i := range n {
			stream := labelsOf("app", "api", "pod", strconv.Itoa(i%7))
			entries = append(entries, answer.Entry{Time: noon.UnixNano() + at, Line: fmt.Sprintf(line, i), Stream: stream, Metadata: labelsOf("n", strconv.Itoa(i%3))})
		}
	}
	for i := range 700 {
		add(1, int64(i), "one %d at a time")
	}
	add(3000, 1000, "%d of many at a time")
	add(40, 1000, "the same%.0d")
	add(499, 1001, "%d to the end of a page")
	add(1200, 1002, "the same again%.0d")
	for i := range 10_000 {
		add(1, int64(2000+i/3), "three %d at a time")
	}
	add(3, 6000, "long "+strings.Repeat("x", 1<<20)+" %d")
	f := newForeign(t, entries...)
	want := map[string]int{}
	for _, e := range entries {
		want[fmt.Sprint(e.Time, e.Line, e.Stream, e.Metadata)]++
	}
	for _, c := range []struct {
		flags string
		want  int
	}{
		{"--limit all", len(entries)},
		{"--limit all --forward", len(entries)},
		{"--limit 0", len(entries)},
		{"--limit 4500", 4500},
		{"--limit 4500 --forward", 4500},
		{"--limit 1", 1},
	} {
		t.Run(c.flags, func(t *testing.T) {
			code, stdout, stderr := ask(t, f, aroundNoon+" -o json "+c.flags, "{}")
			if code != 0 || stderr != "" {
				t.Fatalf("exit code %d, %s", code, stderr)
			}
			left, last, n := map[string]int{}, "", 0
			for line := range strings.Lines(stdout) {
				var got struct {
					Timestamp        time.Time
					Line             string
					Labels, Metadata answer.Labels
				}
				must(t, json.Unmarshal([]byte(line), &got))
				key := fmt.Sprint(got.Timestamp.UnixNano(), got.Line, got.Labels, got.Metadata)
				if left[key]++; left[key] > want[key] {
					t.Fatalf("there are more than %d of %.200s", want[key], key)
				}
				at := got.Timestamp.Format("15:04:05.000000000")
				if n++; n > 1 && (strings.Contains(c.flags, "forward") && at < last || !strings.Contains(c.flags, "forward") && at > last) {
					t.Fatalf("%s comes after %s", at, last)
				}
				last = at
			}
			if n != c.want {
				t.Errorf("%d lines, want %d", n, c.want)
			}
		})
	}
	for _, r := range f.asked() {
		if limit, _ := strconv.Atoi(r.URL.Query().Get("limit")); limit > 5000 {
			t.Errorf("asked for %d at a time", limit)
		}
	}
}

// A gateway may answer with fewer entries than others. Where more of them have the same time, it is said what can be done.
func TestQueryFewAtOnce(t *testing.T) {
	t.Parallel()
	var entries []answer.Entry
	for i := range 6000 {
		entries = append(entries, answer.Entry{Time: noon.UnixNano() + int64(i/90), Line: strconv.Itoa(i)})
	}
	f := newForeign(t, entries...)
	bound := func(most int) {
		f.with(func(w http.ResponseWriter, r *http.Request) bool {
			limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
			if limit > most {
				http.Error(w, fmt.Sprintf("max entries limit per query exceeded, limit > max_entries_limit_per_query (%d > %d)", limit, most), http.StatusBadRequest)
			}
			return limit > most
		})
	}
	for _, most := range []int{100, 501, 5000} {
		bound(most)
		code, stdout, stderr := ask(t, f, aroundNoon+" --limit all -o raw", "{}")
		if code != 0 || stderr != "" || strings.Count(stdout, "\n") != 6000 {
			t.Errorf("%d at most: exit code %d, %d lines, %s", most, code, strings.Count(stdout, "\n"), stderr)
		}
	}
	bound(90)
	code, stdout, stderr := ask(t, f, aroundNoon+" --limit all --forward -o raw", "{}")
	wantFailure(t, code, exitFailure, stderr, "90 lines or more have the time 2026-11-22T12:00:00.123456789Z", "no more than 90", "--query-max-entries")
	if n := strings.Count(stdout, "\n"); n != 90 {
		t.Errorf("%d lines", n)
	}
}

func TestQuerySeries(t *testing.T) {
	t.Setenv("TZ", "UTC")
	const matrix = `{"status":"success","warnings":["one ingester did not answer"],"data":{"resultType":"matrix","result":[
		{"metric":{"app":"shop","env":"prod"},"values":[[1795345200,"1"],[1795347000,"4.5"],[1795348800,"9"],[1795350600,"2"],[1795352400,"0"]]},
		{"metric":{"app":"pay","env":"prod"},"values":[[1795348800,"1234567"],[1795350600,"NaN"],[1795352400,"1234567"]]}]}}`
	const vector = `{"data":{"resultType":"vector","result":[{"metric":{"app":"shop"},"value":[1795345200,"1.5"]},{"metric":{"app":"pay","env":"prod"},"value":[1795345200,"20"]},{"metric":{"app":"new"},"value":[1795345200,"NaN"]}]}}`
	const scalar = `{"data":{"resultType":"scalar","result":[1795345200,"3"]}}`
	f := newForeign(t)
	answers := func(text string) {
		f.with(func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprint(w, text)
			return true
		})
	}
	for _, c := range []struct{ name, answer, flags, want string }{
		{"chart", matrix, "--step 30m", "app=pay     █ █  min 1234567  max 1234567  last 1234567\napp=shop  ▂▅█▃▁  min       0  max       9  last       0\n"},
		{"limit", matrix, "--step 30m --limit 1", "app=pay env=prod    █ █  min 1234567  max 1234567  last 1234567\n"},
		{"colors", matrix, "--step 30m --limit 1 --color always", "\x1b[36mapp=pay env=prod\x1b[0m    █ █  \x1b[2mmin\x1b[0m 1234567  \x1b[2mmax\x1b[0m 1234567  \x1b[2mlast\x1b[0m 1234567\n"},
		{"raw matrix", matrix, "-o raw --limit 1", "2026-11-22T11:00:00.000000000Z\t1\t{app=\"shop\", env=\"prod\"}\n2026-11-22T11:30:00.000000000Z\t4.5\t{app=\"shop\", env=\"prod\"}\n" +
			"2026-11-22T12:00:00.000000000Z\t9\t{app=\"shop\", env=\"prod\"}\n2026-11-22T12:30:00.000000000Z\t2\t{app=\"shop\", env=\"prod\"}\n2026-11-22T13:00:00.000000000Z\t0\t{app=\"shop\", env=\"prod\"}\n"},
		{"table of a matrix", matrix, "-o table --limit 1", "" +
			"app  env   TIME                        VALUE\npay  prod  2026-11-22T12:00:00.000Z  1234567\npay  prod  2026-11-22T12:30:00.000Z        -\npay  prod  2026-11-22T13:00:00.000Z  1234567\n"},
		{"vector", vector, "--instant", "app   env   VALUE\npay   prod     20\nshop          1.5\nnew             -\n"},
		{"raw vector", vector, "--instant -o raw", "1.5\t{app=\"shop\"}\n20\t{app=\"pay\", env=\"prod\"}\nNaN\t{app=\"new\"}\n"},
		{"JSON", vector, "--instant -o json", `{"timestamp":"2026-11-22T11:00:00.000000000Z","labels":{"app":"shop"},"value":1.5}` + "\n" +
			`{"timestamp":"2026-11-22T11:00:00.000000000Z","labels":{"app":"pay","env":"prod"},"value":20}` + "\n" + `{"timestamp":"2026-11-22T11:00:00.000000000Z","labels":{"app":"new"},"value":"NaN"}` + "\n"},
		{"scalar", scalar, "--instant", "VALUE\n    3\n"},
		{"raw scalar", scalar, "--instant -o raw", "3\n"},
		{"nothing", `{"data":{"resultType":"matrix","result":[]}}`, "", ""},
	} {
		answers(c.answer)
		code, stdout, stderr := ask(t, f, aroundNoon+" "+c.flags, "rate({}[5m])")
		warning := ""
		if c.answer == matrix {
			warning = "logthra: warning: one ingester did not answer\n"
		}
		if code != 0 || stdout != c.want || stderr != warning {
			t.Errorf("%s: exit code %d, %s\ngot\n%s\nwant\n%s", c.name, code, stderr, stdout, c.want)
		}
	}
	answers(vector)
	if _, stdout, _ := ask(t, f, "--instant", "sort(rate({}[5m]))"); !strings.HasPrefix(stdout, "app   env   VALUE\nshop") {
		t.Errorf("what was sorted is sorted again:\n%s", stdout)
	}
}

func TestQueryErrors(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	for _, c := range []struct {
		name, query string
		status      int
		body, want  string
	}{
		{
			"parse error", `{app="x"} |= err`, 400, "parse error at line 1, col 14: syntax error: unexpected IDENTIFIER, expecting STRING\n",
			"logthra: query: parse error at line 1, col 14: syntax error: unexpected IDENTIFIER, expecting STRING\n  {app=\"x\"} |= err\n               ^\n",
		},
		{
			"on another line", "{app=\"é\"}\n\t|= err", 400, "parse error at line 2, col 5: no",
			"logthra: query: parse error at line 2, col 5: no\n  \t|= err\n  \t   ^\n",
		},
		{"at the end", `{app="é`, 400, "parse error at line 1, col 8: no end", "logthra: query: parse error at line 1, col 8: no end\n  {app=\"é\n         ^\n"},
		{"nowhere", `{}`, 400, "parse error at line 7, col 8: no", "logthra: query: parse error at line 7, col 8: no\n"},
		{"JSON", `{}`, 401, `{"error":"no credential"}`, "logthra: query: 401 Unauthorized: no credential\n"},
		{"JSON of Loki", `{}`, 400, `{"code":400,"status":"error","message":"max entries limit"}`, "logthra: query: max entries limit\n"},
		{"nothing", `{}`, 503, "", "logthra: query: 503 Service Unavailable\n"},
		{"not Loki", `{}`, 200, "<html>", "logthra: query: the answer is not of Loki's form, at byte 0: invalid character '<' looking for beginning of value\n"},
		{"cut off", `{}`, 200, `{"data":{"resultType":"streams","result":[`, "logthra: query: the answer is not of Loki's form, at byte 42: unexpected EOF\n"},
	} {
		f.with(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
			return true
		})
		code, stdout, stderr := ask(t, f, "", c.query)
		if code != exitFailure || stdout != "" || stderr != c.want {
			t.Errorf("%s: exit code %d, stdout %q\ngot  %q\nwant %q", c.name, code, stdout, stderr, c.want)
		}
	}
	f.with(func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	})
	code, _, stderr := ask(t, f, "--timeout 100ms", "{}")
	wantFailure(t, code, exitFailure, stderr, "query: no answer within 100ms (--timeout) from "+f.URL)
	for _, c := range []struct {
		args string
		code int
		want []string
	}{
		{"query", exitUsage, []string{"<query>"}},
		{"query --limit some {}", exitUsage, []string{"--limit", `"some" is neither a number of lines nor all`}},
		{"query --since 1h --from 2h {}", exitUsage, []string{"--since", "--from"}},
		{"query --since soon {}", exitUsage, []string{"--since", `"soon"`, "3d"}},
		{"query --from 1h --to 2h {}", exitUsage, []string{"--from", "--to"}},
		{"query --from 2126-11-22 {}", exitFailure, []string{"--from", "2126-11-22", "yet to come"}},
		{"query -o csv {}", exitUsage, []string{"--output", "csv"}},
		{"query --color red {}", exitUsage, []string{"--color", "red"}},
		{"query --url 127.0.0.1:1 {}", exitFailure, []string{"query: no answer from http://127.0.0.1:1", "connection refused"}},
		{"query --ca-file /nonsense {}", exitFailure, []string{"--ca-file", "/nonsense"}},
		{"tail --limit 5001 {}", exitUsage, []string{"--limit", "5000"}},
		{"tail --delay 1500ms {}", exitUsage, []string{"--delay", "5s"}},
		{"tail --url 127.0.0.1:1 {}", exitFailure, []string{"tail: no answer from http://127.0.0.1:1", "connection refused"}},
		{"labels --url 127.0.0.1:1", exitFailure, []string{"labels: no answer from http://127.0.0.1:1"}},
		{"series --url 127.0.0.1:1", exitFailure, []string{"series: no answer from http://127.0.0.1:1"}},
	} {
		code, stdout, stderr := run(t, "", strings.Fields(c.args)...)
		wantFailure(t, code, c.code, stderr, c.want...)
		if stdout != "" {
			t.Errorf("%s: stdout has %q", c.args, stdout)
		}
	}
}

// ^C ends the request at once, and with it what the gateway does.
func TestQueryInterrupted(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	asked, canceled := make(chan struct{}), make(chan struct{})
	f.with(func(_ http.ResponseWriter, r *http.Request) bool {
		close(asked)
		<-r.Context().Done()
		close(canceled)
		return true
	})
	l := begin(t, nil, "query", "--url", f.URL, "{}")
	<-asked
	l.signal(syscall.SIGINT)
	<-canceled
	if code := l.wait(); code != exitFailure || l.stdout.String() != "" || l.stderr.String() != "" {
		t.Errorf("exit code %d, %q, %q", code, l.stdout, l.stderr)
	}
}

// Who reads the first lines gets them before the rest is there, and ends the tool quietly by reading no more.
func TestQueryPipe(t *testing.T) {
	t.Parallel()
	var entries []answer.Entry
	for i := range 3 * firstPage {
		entries = append(entries, answer.Entry{Time: noon.UnixNano() + int64(i), Line: fmt.Sprintf("line %d", i)})
	}
	f, goOn := newForeign(t, entries...), make(chan struct{})
	f.with(func(http.ResponseWriter, *http.Request) bool {
		if len(f.asked()) > 1 {
			<-goOn
		}
		return false
	})
	cmd := exec.Command(os.Args[0], "query", "--url", f.URL, "--forward", "--limit", "all", "--from", "2026-11-22", "--to", "2026-11-23", "-o", "raw", "{}")
	cmd.Env = append(os.Environ(), commandEnv+"=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	for i := range firstPage {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("line %d", i) {
			t.Fatalf("line %d is %q", i, lines.Text())
		}
	}
	must(t, stdout.Close())
	close(goOn)
	_ = cmd.Wait()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGPIPE || stderr.String() != "" {
		t.Errorf("%s: %s", cmd.ProcessState, stderr.String())
	}
}

// On a terminal there are colors, unless they are not wanted, a chart is as wide as it, and remarks are made.
func TestQueryTerminal(t *testing.T) {
	t.Setenv("TZ", "UTC")
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	stream := labelsOf("app", "shop")
	f := newForeign(t,
		answer.Entry{Time: noon.UnixNano(), Line: "it works", Stream: stream},
		answer.Entry{Time: noon.UnixNano() + 1, Line: "it fails", Stream: stream, Metadata: labelsOf("detected_level", "error")})
	for _, c := range []struct{ flags, noColor, want string }{
		{"--forward", "", "common labels: {app=\"shop\"}\r\n\x1b[2m2026-11-22T12:00:00.123Z\x1b[0m  it works\r\n\x1b[2m2026-11-22T12:00:00.123Z\x1b[0m  \x1b[31mit fails\x1b[0m\r\n"},
		{"--forward", "1", "common labels: {app=\"shop\"}\r\n2026-11-22T12:00:00.123Z  it works\r\n2026-11-22T12:00:00.123Z  it fails\r\n"},
		{"--forward --color always", "1", "common labels: {app=\"shop\"}\r\n\x1b[2m2026-11-22T12:00:00.123Z\x1b[0m  it works\r\n\x1b[2m2026-11-22T12:00:00.123Z\x1b[0m  \x1b[31mit fails\x1b[0m\r\n"},
		{"--limit 1 -o raw", "", "it fails\r\nthese are the newest 1; there may be more (--limit)\r\n"},
		{"--limit 1 -o raw --forward", "", "it works\r\nthese are the oldest 1; there may be more (--limit)\r\n"},
		{"--to 2026-11-22T11:30:00Z", "", "no lines from 2026-11-22T11:00:00Z to 2026-11-22T11:30:00Z\r\n"},
	} {
		t.Setenv("NO_COLOR", c.noColor)
		if got := onTerminal(t, 40, slices.Concat([]string{"query", "--url", f.URL}, strings.Fields(aroundNoon+" "+c.flags), []string{"{}"})...); got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", c.flags, got, c.want)
		}
	}
	f.with(func(w http.ResponseWriter, _ *http.Request) bool {
		fmt.Fprint(w, `{"data":{"resultType":"matrix","result":[`)
		for i, app := range []string{"payment-provider-adapter", "shop"} {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, `{"metric":{"app":%q,"env":"prod"},"values":[`, app)
			for j := range 60 {
				if j > 0 {
					fmt.Fprint(w, ",")
				}
				fmt.Fprintf(w, `[%d,"%d"]`, 1795345200+j*120, j*(i+1))
			}
			fmt.Fprint(w, `]}`)
		}
		fmt.Fprint(w, `]}}`)
		return true
	})
	for width, want := range map[uint16]string{
		130: "common labels: {env=\"prod\"}\r\n" +
			"app=shop                      ▁▁▁▁▁▂▂▂▂▂▂▂▂▃▃▃▃▃▃▃▃▃▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇█████   min 0  max 118  last 118\r\n" +
			"app=payment-provider-adapter  ▁▁▁▁▁▂▂▂▂▂▂▂▂▃▃▃▃▃▃▃▃▃▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇█████   min 0  max  59  last  59\r\n" +
			strings.Repeat(" ", 30) + "11:00                                                   13:00\r\n",
		20: "common labels: {env=\"prod\"}\r\napp=shop  ▂▃▄▅▆▆▇█  min 0  max 118  last 118\r\napp=pay…  ▂▃▄▅▆▆▇█  min 0  max  59  last  59\r\n",
		60: "common labels: {env=\"prod\"}\r\napp=shop          ▁▂▂▃▃▄▄▅▅▆▆▆▇▇██  min 0  max 118  last 118\r\napp=payment-pro…  ▁▂▂▃▃▄▄▅▅▆▆▆▇▇██  min 0  max  59  last  59\r\n                  11:00      13:00\r\n",
	} {
		got := onTerminal(t, width, append([]string{"query", "--color=never", "--url", f.URL}, append(strings.Fields(aroundNoon), "{}")...)...)
		if got != want {
			t.Errorf("%d columns:\ngot\n%s\nwant\n%s", width, got, want)
		}
	}
}

// onTerminal runs the command on a terminal of a width and returns what that shows.
func onTerminal(t *testing.T, width uint16, args ...string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	must(t, err)
	defer master.Close()
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	must(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: width}))
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer slave.Close()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), commandEnv+"=1")
	cmd.Stdout, cmd.Stderr = slave, slave
	must(t, cmd.Start())
	must(t, slave.Close())
	shown, _ := io.ReadAll(master) // ends with an error when nobody has the terminal open
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %v: %s", args, err, shown)
	}
	return string(shown)
}
