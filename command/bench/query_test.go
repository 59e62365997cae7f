package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Equal seeds make equal data sets: as many lines of each stream, over all of the time, one of them with the needle.
func TestDataSet(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	cfg := Config{
		Lines: 10_050, LinesPerPush: 200, Streams: 40, StreamsPerPush: 10, Tenants: 1, Seed: 1,
		DataSet: &DataSet{Begin: begin, Span: 5 * time.Hour},
	}
	type line struct {
		labels string
		time   time.Time
		line   string
	}
	made := func(cfg Config) (all []line, bytes int) {
		d := &dataSet{DataSet: cfg.DataSet, cfg: cfg, run: "run", generator: newGenerator(cfg.Seed, 0)}
		for n, left := 0, int(cfg.Lines); left > 0; n++ {
			streams, size := d.streams(n, min(cfg.LinesPerPush, left))
			bytes += size
			for _, s := range streams {
				left -= len(s.entries)
				for _, e := range s.entries {
					all = append(all, line{fmt.Sprint(s.labels), e.time, e.line})
				}
			}
		}
		return all, bytes
	}
	all, bytes := made(cfg)
	if again, _ := made(cfg); !slices.Equal(all, again) || len(all) != 10_050 {
		t.Errorf("%d lines, that do not follow from the seed", len(all))
	}
	if mean := bytes / len(all); mean < 100 || mean > 150 {
		t.Errorf("a line has %d bytes on average", mean)
	}
	needles, times, streams, json := 0, map[time.Time]bool{}, map[string]int{}, 0
	first, last := all[0].time, all[0].time
	for _, l := range all {
		if strings.Contains(l.line, Needle) {
			needles++
		}
		if strings.Contains(l.labels, "app:"+JSONApp) && strings.HasPrefix(l.line, `{"time":"2026-01-02T`) && strings.Contains(l.line, `,"status":`) {
			json++
		}
		times[l.time] = true
		streams[l.labels]++
		if l.time.Before(first) {
			first = l.time
		}
		if l.time.After(last) {
			last = l.time
		}
	}
	if needles != 1 || len(times) != len(all) || json != 1005 {
		t.Errorf("%d needles, %d times, %d JSON lines of %s", needles, len(times), json, JSONApp)
	}
	if !first.Equal(begin) || last.Before(begin.Add(4*time.Hour+50*time.Minute)) || !last.Before(begin.Add(5*time.Hour)) {
		t.Errorf("the lines are from %s to %s", first, last)
	}
	for labels, n := range streams {
		if n < 240 || n > 260 || len(streams) != 40 {
			t.Errorf("%d streams; %s has %d lines", len(streams), labels, n)
		}
	}
}

// asked is what a server of Loki's API was asked.
type asked struct {
	path, tenant, token string
	values              url.Values
}

// newQueried returns a server that answers as Loki does, and what it was asked.
func newQueried(t *testing.T, answer func(asked) (status int, body string)) (*httptest.Server, func() []asked) {
	var mu sync.Mutex
	var all []asked
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := asked{r.URL.Path, r.Header.Get("X-Scope-OrgID"), r.Header.Get("Authorization"), r.URL.Query()}
		mu.Lock()
		all = append(all, a)
		mu.Unlock()
		status, body := answer(a)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s, func() []asked {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

const (
	streamsAnswer = `{"status":"success","data":{"resultType":"streams","result":[{"stream":{},"values":[["1785553200000000001","a"],["1","b"]]},{"stream":{},"values":[["2","c"]]}],
		"stats":{"summary":{"totalLinesProcessed":70,"totalBytesProcessed":9000}}}}`
	matrixAnswer = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"1"]]}],"stats":{"summary":{"totalLinesProcessed":5,"totalBytesProcessed":40}}}}`
	listAnswer   = `{"status":"success","data":["a","b"]}`
	seriesAnswer = `{"status":"success","data":[{"app":"a"}]}`
)

// likeLoki answers each question.
func likeLoki(a asked) (status int, body string) {
	switch {
	case strings.HasSuffix(a.path, "/series"):
		return http.StatusOK, seriesAnswer
	case !strings.HasSuffix(a.path, "/query_range"):
		return http.StatusOK, listAnswer
	case strings.HasPrefix(a.values.Get("query"), "sum"):
		return http.StatusOK, matrixAnswer
	}
	return http.StatusOK, streamsAnswer
}

func TestQuery(t *testing.T) {
	s, requests := newQueried(t, likeLoki)
	begin := time.Unix(1785535200, 0)
	var told atomic.Int64
	cfg := QueryConfig{
		URL: s.URL + "/sub/", Client: s.Client(), Tenant: "acme", Token: "secret", Begin: begin, End: begin.Add(5 * time.Hour), Questions: Questions, Runs: 4, Turns: 3,
		Progress: func(string) { told.Add(1) },
	}
	turn := 0
	cfg.Push = func(context.Context) (*Report, error) {
		turn++
		for before := len(requests()); turn%2 == 0 && len(requests()) < before+len(Questions); {
			time.Sleep(time.Millisecond) // while the questions are asked
		}
		return &Report{Lines: []int64{0, 100, 80, 300, 70, 200, 60}[turn], Answered: 2 * time.Second}, nil
	}
	report, err := Query(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, q := range report.Questions {
		if q.First <= 0 || q.Min <= 0 || q.Median < q.Min || q.Max < q.Median || q.Goal <= 0 {
			t.Errorf("%+v", q)
		}
		got = append(got, fmt.Sprintf("%s is %s: %d rows, %d bytes, %s", q.Name, q.Query, q.Rows, q.Bytes, q.Answer))
	}
	want := []string{
		`tail is query_range {app="orders"}: 70 rows, 9000 bytes, 3 lines of 2 streams`,
		`needle is query_range {env=~".+"} |= "needle-5f0c1e7a2b": 70 rows, 9000 bytes, 3 lines of 2 streams`,
		`count is query_range sum by (level) (count_over_time({env="prod"}[1m])): 5 rows, 40 bytes, 2 points of 1 series`,
		`json is query_range sum by (status) (rate({app="orders"} | json | status >= 500 [5m])): 5 rows, 40 bytes, 2 points of 1 series`,
		`labels is labels: 0 rows, 0 bytes, 2 values`,
		`values is label/host/values: 0 rows, 0 bytes, 2 values`,
		`series is series {env=~".+"}: 0 rows, 0 bytes, 1 value`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if p := report.Pushed; !slices.Equal(p.Alone, []float64{50, 100, 150}) || !slices.Equal(p.Asking, []float64{30, 35, 40}) || p.Ratio != 0.35 || p.Questions < 3*(len(Questions)-1) {
		t.Errorf("%+v", p)
	}
	all := requests()
	if len(all) < 5*len(Questions) || told.Load() != int64(5*len(Questions)+6) {
		t.Errorf("%d requests, told of %d", len(all), told.Load())
	}
	for _, a := range all {
		if !strings.HasPrefix(a.path, "/sub/loki/api/v1/") || a.tenant != "acme" || a.token != "Bearer secret" || a.values.Get("end") != "1785553200000000000" {
			t.Fatalf("%+v", a)
		}
	}
	if a := all[0].values; a.Get("limit") != "100" || a.Get("direction") != "backward" || a.Get("start") != "1785535200000000000" || a.Has("step") {
		t.Errorf("the tail was %v", a)
	}
	if a := all[10].values; a.Get("step") != "60" || a.Get("start") != "1785535260000000000" {
		t.Errorf("the count, of 300 points, was %v", a)
	}

	newest, err := cfg.Newest(t.Context(), 30)
	if want := time.Unix(1785553200, 1).UTC(); err != nil || newest != want {
		t.Errorf("the newest is of %s, %v", newest, err)
	}
}

func TestQueryErrors(t *testing.T) {
	for _, c := range []struct {
		status     int
		body, want string
	}{
		{http.StatusOK, `{"data":{"resultType":"streams","result":[]}}`, "tail: the answer to query_range has nothing in it: is the data set there (--prepare)?"},
		{http.StatusOK, `{"data":[]}`, "tail: the answer to query_range: json"},
		{http.StatusBadRequest, "parse error\n", "tail: 400 Bad Request: parse error"},
	} {
		s, _ := newQueried(t, func(asked) (int, string) { return c.status, c.body })
		cfg := QueryConfig{URL: s.URL, Client: s.Client(), Questions: Questions, Runs: 1}
		if _, err := Query(t.Context(), cfg); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, not %s", err, c.want)
		}
		if newest, err := cfg.Newest(t.Context(), 1); !newest.IsZero() || (err == nil) != (c.want == "" || strings.Contains(c.body, `[]}}`)) {
			t.Errorf("%s: the newest is of %s, %v", c.body, newest, err)
		}
	}
	var pushes, refused atomic.Int64
	s, _ := newQueried(t, func(a asked) (int, string) {
		if pushes.Load() == 2 {
			refused.Add(1)
			return http.StatusTooManyRequests, "too many"
		}
		return likeLoki(a)
	})
	cfg := QueryConfig{URL: s.URL, Client: s.Client(), Questions: Questions[:1], Runs: 1, Turns: 1}
	cfg.Push = func(context.Context) (*Report, error) { return nil, errors.New("refused") }
	if r, err := Query(t.Context(), cfg); err == nil || err.Error() != "refused" || len(r.Questions) != 1 || r.Pushed != nil {
		t.Errorf("%+v, %v", r, err)
	}
	cfg.Push = func(context.Context) (*Report, error) {
		for pushes.Add(1); pushes.Load() == 2 && refused.Load() == 0; {
			time.Sleep(time.Millisecond)
		}
		return &Report{Lines: 1, Answered: time.Second}, nil
	}
	if _, err := Query(t.Context(), cfg); err == nil || err.Error() != "tail, while lines were pushed: 429 Too Many Requests: too many" {
		t.Error(err)
	}
}
