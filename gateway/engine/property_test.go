package engine

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/gateway/logql/logqltest"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
)

var (
	propertyQueries = flag.Int("engine.queries", 2000, "how many random queries are asked of both executors; a tenth of them with -short")
	propertySeed    = flag.Uint64("engine.seed", 0, "seed of the random queries; 0: another one each time")
)

// propertyVocabulary is of the words that the lines of propertyLines are made of. Numbers are multiples of a quarter, so that sums are exact
// in any order.
func propertyVocabulary() *logqltest.Vocabulary {
	return &logqltest.Vocabulary{
		Labels: map[string][]string{"app": {"api", "web"}, "env": {"prod", "dev"}, "level": {"error", "info", ""}},
		Words:  []string{"error", "GET", "took", "é", `"status":5`, "status=", "x", "level"},
		Texts: map[string][]string{
			"level": {"info", "error", ""}, "method": {"GET", "POST"}, "trace_id": {"abcdef", "123456"}, "path": {"/a", "/b/c"}, "status": {"200", "500"},
			"__error__": {"", "JSONParserErr"}, "detected_level": {"info", "error", "unknown"},
		},
		Numbers:   map[string][]float64{"status": {200, 404, 500}, "load": {0.5, 1.25, -3}, "app": {1}},
		Durations: map[string][]time.Duration{"took": {time.Millisecond, 250 * time.Millisecond, 2 * time.Second}},
		Sizes:     map[string][]uint64{"size": {0, 512, 20_000}},
		Addresses: map[string][]string{"remote": {"10.0.0.1", "10.0.0.0/8"}},
		Paths:     map[string]string{"method": "request.method", "status": "status", "path": "path"},
		Regexps:   []string{`(?P<method>[A-Z]+) (?P<path>\S+)`, `status=(?P<status>\d+)`},
		Patterns:  []string{`<method> <path> <_>`, `<_> took <took>`},
		Templates: []string{`{{.level}} {{.method}}`, `{{ .status }}`, `{{__line__}}`, `x`, `{"status":{{.status}}}`},
		Ranges:    []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, 90 * time.Second, time.Hour},
		Offsets:   []time.Duration{10 * time.Second, time.Minute, -30 * time.Second},
		Quantiles: []float64{0, 0.5, 0.9, 1},
		Scalars:   []float64{0, 1, 2, 0.5, -1},
	}
}

// propertyLines makes lines of many shapes: JSON, good and bad, logfmt, plain, not UTF-8, with metadata and without.
func propertyLines(r *rand.Rand, n int) []line {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	start := time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC).UnixNano() // midnight is in it
	lines := make([]line, n)
	for i := range lines {
		l := &lines[i]
		l.labels = fmt.Sprintf(`app=%q,env=%q`, pick("api", "web"), pick("prod", "dev"))
		if r.IntN(3) == 0 {
			l.labels += fmt.Sprintf(`,level=%q`, pick("error", "info", "warn"))
		}
		l.time = start + r.Int64N(int64(time.Hour))
		if r.IntN(4) == 0 {
			l.time = l.time / 1e10 * 1e10 // at a border of ranges and steps
		}
		status := pick("200", "404", "500", `"500"`, `"x"`, "5e2", "500.0", "-0", "null", "true", `""`, "[500]", `{"code":500}`)
		if r.IntN(2) == 0 {
			status = pick("200", "500")
		}
		level, method, path := pick("info", "error", "WARN", "debug"), pick("GET", "POST"), pick("/a", "/b/c", "é", "")
		load := pick("0.5", "1.25", "-3", "7", "1e3", "many")
		switch r.IntN(9) {
		case 0, 1, 2:
			l.text = fmt.Sprintf(`{"level":%q,"status":%s,"method":%q,"path":%q,"load":%s,"trace_id":%q,"took":"250ms","size":"20kB","remote":"10.0.0.1"}`,
				level, status, method, path, strings.Replace(load, "many", `"many"`, 1), pick("abcdef", "123456", ""))
		case 3:
			l.text = pick(
				`{"status":500,"status":200}`, `{"status":null,"status":500}`, `{"sta":{"tus":1},"status":"500"}`, `{"trace":{"id":"abcdef"}}`, `{"trace-id":"abcdef","trace_id":"123456"}`,
				`{"st\u0061tus":500}`, `{"level":"err\u006fr"}`, `{"path":"\/a"}`, `{"path":"a\\b"}`, "{\"status\":\t500 }", `{"status": 500 , "load":0}`, `{"request":{"method":"GET"},"status":500}`,
				`{"status":500`, `{"status":500}x`, `[{"status":500}]`, `"status"`, "\xef\xbb\xbf{\"status\":500}", "{\"status\":500,\"path\":\"\xff\"}", `{"":{"status":500}}`, `{" status ":500,"level":"info"}`, `{"status":12345678901234567890}`,
				`{"load":0.1}`, `{"load":123456789.123456}`, `{"load":1234567890123456}`, `{}`, ``, `{"a":"\"status\":500","status":200}`, `{"__error__":"mine"}`, `{"app":"web","env":1}`,
				strings.Repeat(`{"a":`, 200)+"1"+strings.Repeat("}", 200))
		case 4, 5:
			l.text = fmt.Sprintf(`level=%s status=%s method=%s path=%q load=%s took=2s size=512B remote=10.0.0.1 msg="hello status=500 é"`, level, strings.Trim(status, `"`), method, path, load)
		case 6:
			l.text = method + " " + path + " " + pick("took 250ms", "status=500", "10.0.0.1", "ERROR", "\x1b[31merror\x1b[0m", "line\nbreak error", "x")
		case 7:
			l.text = pick("\xff\xfe error", "é error", "error", "an ERROR: x", "level", "Kelvin \u212a k", "GET \xff took 1s", "")
		case 8:
			l.text = fmt.Sprintf(`{"_entry":%q,"method":%q}`, "status="+status, method)
		}
		for r.IntN(4) == 0 && len(l.metadata) < 3 {
			name := pick("trace_id", "trace.id", "status", "level", "load", "detected_level", "é", "1st", "app", "method")
			value := pick("abcdef", "123456", "500", "error", "info", "1.25", "x\"y", "é\\", "GET")
			if !slices.ContainsFunc(l.metadata, func(m logs.Label) bool { return m.Name == name }) {
				l.metadata = append(l.metadata, logs.Label{Name: name, Value: value})
			}
		}
	}
	return lines
}

// TestClickHouseChangesNoAnswer asks random queries twice: of the engine, which has ClickHouse do what it can, and of the pipeline and package
// series alone, which all entries are sent through.
func TestClickHouseChangesNoAnswer(t *testing.T) {
	seed := *propertySeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-engine.seed %d", seed)
	f := start(t)
	random := rand.New(rand.NewPCG(seed, 1))
	lines := propertyLines(random, 1200)
	for i := 0; i < len(lines); i += 50 {
		f.push(t, "acme", lines[i:min(i+50, len(lines))]...)
		if i == len(lines)/2 {
			f.landAll(t)
		}
		if i == len(lines)*3/4 {
			f.land(t, 0)
		}
	}
	f.push(t, "other", propertyLines(random, 50)...)
	everything, err := f.cfg.Cut.Cut(t.Context(), cut.Request{
		Tenant: "acme", Matchers: []logql.Matcher{{Name: "app", Op: logql.Regexp, Value: ".+"}}, Start: logs.MinTime, End: logs.MaxTime, MaxBytes: 1 << 30,
	})
	must(t, err)
	if n := len(everything.Entries); n == 0 || n >= len(lines) {
		t.Fatalf("%d of %d lines are not in ClickHouse", n, len(lines))
	}
	reference := referenceOf(t, f, lines)

	f.asked = func(s *statement) {
		if s.parameters["p0_string"] != "acme" || !strings.Contains(s.sql(), "WHERE tenant_id = {p0_string:String}") || strings.Count(s.sql(), " FROM ") != 1 {
			t.Errorf("a statement is not of one tenant: %s %q", s.sql(), s.parameters)
		}
	}
	count := *propertyQueries
	if testing.Short() {
		count /= 10
	}
	words := propertyVocabulary()
	queries := make(chan int)
	t.Run("queries", func(t *testing.T) {
		for worker := range 2 {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for i := range queries {
					r := rand.New(rand.NewPCG(seed, uint64(i)+2))
					if err := f.compare(t.Context(), reference, words, r); err != nil {
						t.Errorf("query %d: %v", i, err)
					}
					if t.Failed() {
						break
					}
				}
				for range queries { // the others are not asked
				}
			})
		}
		go func() {
			defer close(queries)
			for i := range count {
				if i > 0 && i%5000 == 0 {
					t.Logf("%d queries", i)
				}
				queries <- i
			}
		}()
	})
}

// reference executes queries on entries in memory.
type reference struct {
	entries []cut.Entry
	streams map[uint64]*stream
}

// referenceOf has all lines, at the positions that they have in the WAL.
func referenceOf(t *testing.T, f *fixture, lines []line) *reference {
	t.Helper()
	all := &reference{streams: map[uint64]*stream{}}
	for shard := range shards {
		last, err := f.wal.Last(t.Context(), shard)
		must(t, err)
		for record, err := range f.wal.Records(t.Context(), shard, 1, last, "acme") {
			must(t, err)
			var b logs.Batch
			_, err = record.Decode(&b, nil)
			must(t, err)
			all.add(t, record.Sequence, shard, &b)
		}
	}
	if len(all.entries) != len(lines) {
		t.Fatalf("%d of %d lines are in the WAL", len(all.entries), len(lines))
	}
	return all
}

func (a *reference) add(t *testing.T, sequence uint64, shard int, b *logs.Batch) {
	t.Helper()
	entry, offset := 0, 0
	metadata := make([][]logs.Label, b.Len())
	for _, c := range b.Metadata {
		at := 0
		for i, e := range c.Entries {
			metadata[e] = append(metadata[e], logs.Label{Name: c.Name, Value: string(c.Values[at : at+int(c.Lengths[i])])})
			at += int(c.Lengths[i])
		}
	}
	for _, s := range b.Streams {
		for range s.Entries {
			n := int(b.Lengths[entry])
			slices.SortFunc(metadata[entry], func(x, y logs.Label) int { return strings.Compare(x.Name, y.Name) })
			e := cut.Entry{
				Labels: s.Labels, Timestamp: b.Timestamps[entry], Line: slices.Clone(b.Lines[offset : offset+n]), Length: n, Metadata: metadata[entry],
				Shard: uint16(shard), Sequence: sequence, Index: uint32(entry),
			}
			must(t, see(a.streams, "acme", &e))
			a.entries = append(a.entries, e)
			entry, offset = entry+1, offset+n
		}
	}
}

// each calls do for the entries that matchers hold for, at start <= time < end.
func (a *reference) each(matchers []logql.Matcher, start, end int64, do func(*cut.Entry, *stream) error) error {
	selector, err := pipeline.NewSelector(matchers)
	if err != nil {
		return err
	}
	for i := range a.entries {
		e := &a.entries[i]
		of := a.streams[logs.StreamID("acme", e.Labels)]
		if e.Timestamp < start || e.Timestamp >= end || !selector.Matches(of.labels) {
			continue
		}
		if err := do(e, of); err != nil {
			return err
		}
	}
	return nil
}

func (a *reference) logs(q Query, expr *logql.LogExpr) ([]Entry, error) {
	l := &logQuery{q: q, expr: expr, last: map[string]int64{}, top: top{forward: q.Forward, limit: math.MaxInt}}
	l.q.Limits = q.Limits.withDefaults()
	var err error
	if l.lines, err = newLiner(expr.Stages, q.WithLevel, &l.answer.Stats); err != nil {
		return nil, err
	}
	err = a.each(expr.Matchers, q.Start, q.End, func(e *cut.Entry, of *stream) error {
		_, err := l.offer(positionOf(e), of, e.Line, e.Metadata)
		return err
	})
	all := l.top.take()
	return all[:min(len(all), q.Limit)], err
}

func (a *reference) metric(q Query, expr logql.Expr) (*series.Value, error) {
	grid := series.Grid{Start: q.Start, End: q.End, Step: q.Step}
	return series.Evaluate(expr, grid, q.Limits.MaxSeries, func(agg *logql.RangeAgg) ([]series.Series, error) {
		window := series.WindowOf(agg, grid)
		after, to := window.Span()
		r := &rangeQuery{q: q, agg: agg, window: window, stats: new(Stats), sums: series.NewAccumulator(agg, window, q.Limits.MaxSeries, 1<<30)}
		var err error
		if r.lines, err = newLiner(agg.Log.Stages, namesLevel(expr), r.stats); err != nil {
			return nil, err
		}
		if agg.Unwrap != nil {
			if r.unwrap, err = pipeline.NewUnwrap(agg.Unwrap); err != nil {
				return nil, err
			}
		}
		err = a.each(agg.Log.Matchers, after+1, to+1, func(e *cut.Entry, of *stream) error { return r.sample(positionOf(e), of, e.Line, e.Length, e.Metadata) })
		return r.sums.Series(), err
	})
}

// compare asks one random query of both.
func (f *fixture) compare(ctx context.Context, a *reference, words *logqltest.Vocabulary, r *rand.Rand) error {
	start := time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC).UnixNano()
	q := Query{
		Tenant: "acme", Limits: Limits{MaxSeries: 1_000_000}, Start: start + r.Int64N(360)*1e10, Limit: 1 + r.IntN(200), Forward: r.IntN(2) == 0, WithLevel: r.IntN(4) == 0,
	}
	q.End = q.Start + r.Int64N(200)*1e10
	if r.IntN(2) == 0 {
		expr := words.Log(r)
		want, wantErr := a.logs(q, expr)
		got, gotErr := ride(func() (*Logs, error) { return f.Logs(ctx, q, expr) })
		if wantErr != nil || gotErr != nil {
			return onlyOne(expr, q, wantErr, gotErr)
		}
		if want, got := fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got.Entries); want != got {
			return fmt.Errorf("%s\n%+v\n--- reference\n%s\n--- engine\n%s", expr, q, strings.ReplaceAll(want, "} {", "}\n{"), strings.ReplaceAll(got, "} {", "}\n{"))
		}
		return nil
	}
	expr := words.Metric(r)
	if q.Step = (1 + r.Int64N(60)) * 5e9; r.IntN(4) == 0 {
		q.Step, q.End = 0, q.Start
	}
	want, wantErr := a.metric(q, expr)
	got, gotErr := ride(func() (*Metric, error) { return f.Metric(ctx, q, expr) })
	if wantErr != nil || gotErr != nil {
		return onlyOne(expr, q, wantErr, gotErr)
	}
	if want.IsScalar != got.IsScalar || !slices.EqualFunc(want.Series, got.Series, isSameSeries) {
		return fmt.Errorf("%s\n%+v\n--- reference\n%v\n--- engine\n%v", expr, q, want.Series, got.Series)
	}
	return nil
}

// ride asks again while ClickHouse is away: it may die of what it is asked, and is soon back.
func ride[T any](ask func() (T, error)) (T, error) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		answer, err := ask()
		away := err != nil && strings.HasPrefix(err.Error(), "ClickHouse: ") && store.Classify(err) == store.Transient
		if !away || time.Now().After(deadline) {
			return answer, err
		}
	}
}

// onlyOne is an error where only one of both had one.
func onlyOne(expr logql.Expr, q Query, want, got error) error {
	if (want == nil) == (got == nil) {
		return nil
	}
	return fmt.Errorf("%s\n%+v\nreference: %w\nengine: %w", expr, q, want, got)
}

// isSameSeries allows for the order in which fractions were added.
func isSameSeries(a, b series.Series) bool {
	return slices.Equal(a.Labels, b.Labels) && slices.EqualFunc(a.Points, b.Points, func(a, b series.Point) bool {
		return a.Index == b.Index && (a.Value == b.Value || math.IsNaN(a.Value) && math.IsNaN(b.Value) || math.Abs(a.Value-b.Value) <= 1e-9*max(1, math.Abs(a.Value)))
	})
}
