package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

const v1 = "/loki/api/v1"

func label(name, value string) logs.Label { return logs.Label{Name: name, Value: value} }

func TestStreams(t *testing.T) {
	f := &fake{logs: engine.Logs{Entries: []engine.Entry{
		{Timestamp: 3, Line: "third \xff", Stream: []logs.Label{label("app", "b")}, Parsed: []logs.Label{label("a", "x"), label("z", `"`)}},
		{Timestamp: 2, Line: "second", Stream: []logs.Label{label("app", "a")}, Metadata: []logs.Label{label("trace", "1")}, Parsed: []logs.Label{label("code", "5")}},
		{Timestamp: 1, Line: "first", Stream: []logs.Label{label("app", "a")}},
		{Timestamp: 0, Line: "", Stream: []logs.Label{label("app", "a")}, Metadata: []logs.Label{label("trace", "1")}},
	}}}
	s := serve(t, f)
	path := with(v1+"/query_range", "query", `{app=~".+"}`)

	_, got := s.get(t, path)
	wantJSON(t, got, `{"status":"success","data":{"resultType":"streams","result":[`+
		`{"stream":{"a":"x","app":"b","z":"\""},"values":[["3","third `+"\ufffd"+`"]]},`+
		`{"stream":{"app":"a"},"values":[["1","first"]]},`+
		`{"stream":{"app":"a","code":"5","trace":"1"},"values":[["2","second"]]},`+
		`{"stream":{"app":"a","trace":"1"},"values":[["0",""]]}]}}`)
	if f.query.WithLevel {
		t.Error("the level is asked for")
	}

	_, got = s.get(t, path, "X-Loki-Response-Encoding-Flags", "foo, categorize-labels")
	wantJSON(t, got, `{"status":"success","data":{"resultType":"streams","result":[`+
		`{"stream":{"app":"a"},"values":[["2","second",{"structuredMetadata":{"trace":"1"},"parsed":{"code":"5"}}],["1","first",{}],`+
		`["0","",{"structuredMetadata":{"trace":"1"}}]]},`+
		`{"stream":{"app":"b"},"values":[["3","third `+"\ufffd"+`",{"parsed":{"a":"x","z":"\""}}]]}],"encodingFlags":["categorize-labels"]}}`)
	if !f.query.WithLevel {
		t.Error("the level is not asked for")
	}

	f.logs = engine.Logs{Warnings: []string{"an ingester is away", `"`}}
	_, got = s.get(t, path)
	wantJSON(t, got, `{"status":"success","warnings":["an ingester is away","\""],"data":{"resultType":"streams","result":[]}}`)
}

func TestLegacyQuery(t *testing.T) {
	f := &fake{logs: engine.Logs{Entries: []engine.Entry{
		{Timestamp: 1_700_000_000_123_456_789, Line: "a", Stream: []logs.Label{label("app", "a"), label("env", "x\"y")}},
		{Timestamp: 1_700_000_000_000_000_000, Line: "b", Stream: []logs.Label{label("app", "a"), label("env", "x\"y")}},
	}}}
	s := serve(t, f)
	_, got := s.get(t, with("/api/prom/query", "query", `{app="a"}`, "regexp", "a|b", "limit", "7"))
	wantJSON(t, got, `{"streams":[{"labels":"{app=\"a\", env=\"x\\\"y\"}","entries":[{"ts":"2023-11-14T22:13:20.123456789Z","line":"a"},`+
		`{"ts":"2023-11-14T22:13:20Z","line":"b"}]}]}`)
	if f.query.Limit != 7 || f.expr != `{app="a"} |~ "a|b"` {
		t.Errorf("asked is %s, %+v", f.expr, f.query)
	}
}

func metricOf(v series.Value) engine.Metric { return engine.Metric{Value: v} }

func TestMetrics(t *testing.T) {
	const start = int64(1_700_000_000e9)
	ranged := series.Grid{Start: start, End: start + 2e9, Step: 1e9}
	instant := series.Grid{Start: start + 123_456_789, End: start + 123_456_789}
	for _, c := range []struct {
		name, path string
		value      series.Value
		want       string
	}{
		{"matrix", v1 + "/query_range", series.Value{Grid: ranged, Series: []series.Series{
			{Labels: []logs.Label{label("app", "a")}, Points: []series.Point{{Index: 0, Value: 1}, {Index: 2, Value: 0.25}}},
			{Points: []series.Point{{Index: 1, Value: math.Inf(1)}, {Index: 2, Value: math.NaN()}}},
		}}, `{"resultType":"matrix","result":[{"metric":{"app":"a"},"values":[[1700000000,"1"],[1700000002,"0.25"]]},` +
			`{"metric":{},"values":[[1700000001,"+Inf"],[1700000002,"NaN"]]}]}`},
		{"vector", v1 + "/query", series.Value{Grid: instant, Series: []series.Series{
			{Labels: []logs.Label{label("app", "a")}, Points: []series.Point{{Value: 1e21}}},
			{Labels: []logs.Label{label("app", "b")}},
			{Labels: []logs.Label{label("app", "c")}, Points: []series.Point{{Value: -0.1}}},
		}}, `{"resultType":"vector","result":[{"metric":{"app":"a"},"value":[1700000000.123,"1000000000000000000000"]},` +
			`{"metric":{"app":"c"},"value":[1700000000.123,"-0.1"]}]}`},
		{"scalar", v1 + "/query", series.Value{Grid: instant, IsScalar: true, Series: []series.Series{{Points: []series.Point{{Value: 2}}}}},
			`{"resultType":"scalar","result":[1700000000.123,"2"]}`},
		{"scalar over a range", v1 + "/query_range", series.Value{Grid: ranged, IsScalar: true, Series: []series.Series{{Points: []series.Point{{Value: 2}, {Index: 1, Value: 2}}}}},
			`{"resultType":"matrix","result":[{"metric":{},"values":[[1700000000,"2"],[1700000001,"2"]]}]}`},
		{"no series", v1 + "/query", series.Value{Grid: instant}, `{"resultType":"vector","result":[]}`},
		{"no series over a range", v1 + "/query_range", series.Value{Grid: ranged}, `{"resultType":"matrix","result":[]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{metric: metricOf(c.value)}
			_, got := serve(t, f).get(t, with(c.path, "query", `rate({app="a"}[1m])`))
			wantJSON(t, got, `{"status":"success","data":`+c.want+`}`)
		})
	}
}

func TestStatistics(t *testing.T) {
	f := &fake{logs: engine.Logs{Stats: engine.Stats{Took: 500 * time.Millisecond, Rows: 900, Bytes: 1 << 20, Unflushed: 100, Lines: 40, Returned: 4}}}
	s := serve(t, f)
	_, got := s.get(t, with(v1+"/query_range", "query", `{app="a"}`))
	var answer struct {
		Data struct {
			Stats struct {
				Summary map[string]float64
				Querier struct {
					Store struct{ Chunk map[string]float64 }
				}
				Ingester struct{ TotalLinesSent float64 }
				Cache    map[string]map[string]float64
				Index    map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(got), &answer); err != nil {
		t.Fatal(err)
	}
	stats := answer.Data.Stats
	delete(stats.Summary, "queueTime") // it takes what it takes
	want := map[string]float64{
		"bytesProcessedPerSecond": 2 << 20, "linesProcessedPerSecond": 2000, "totalBytesProcessed": 1 << 20, "totalLinesProcessed": 1000, "execTime": 0.5,
		"subqueries": 0, "totalEntriesReturned": 4, "splits": 0, "shards": 0, "totalPostFilterLines": 40, "totalStructuredMetadataBytesProcessed": 0,
	}
	if !reflect.DeepEqual(stats.Summary, want) {
		t.Errorf("the summary is %v, want %v", stats.Summary, want)
	}
	if c := stats.Querier.Store.Chunk; c["decompressedBytes"] != 1<<20 || c["decompressedLines"] != 900 || stats.Ingester.TotalLinesSent != 100 {
		t.Errorf("the parts are %+v", stats)
	}
	if len(stats.Cache) != 8 || stats.Index == nil {
		t.Errorf("the parts are %+v", stats)
	}
	if got := testutil.ToFloat64(s.api.metrics.readBytes); got != 1<<20 {
		t.Errorf("%g bytes are counted", got)
	}
}

func TestMetadata(t *testing.T) {
	full := &fake{
		names:  []string{"app", `"`},
		series: [][]logs.Label{{label("app", "a"), label("env", "p")}, {label("app", "b")}},
		stats:  engine.IndexStats{Streams: 1, Chunks: 2, Bytes: 3, Entries: 4},
		volumes: []engine.Volume{
			{Labels: []logs.Label{label("app", "a")}, Points: []engine.VolumePoint{{Time: 1_700_000_000e9, Bytes: 1 << 60}, {Time: 1_700_000_060e9, Bytes: 2}}},
			{Labels: []logs.Label{label("app", "b")}},
		},
		labels: []engine.DetectedLabel{{Name: "app", Cardinality: 7}, {Name: "env", Cardinality: 1}},
		fields: []engine.DetectedField{
			{Label: "code", Type: "int", Cardinality: 3, Parsers: []string{"json", "logfmt"}, JSONPath: []string{"http", "code"}},
			{Label: "trace", Type: "string", Cardinality: 9},
		},
		patterns: []engine.Pattern{
			{Pattern: `GET <_> "200"`, Level: "info", Samples: []engine.PatternSample{{Time: 1_700_000_000, Count: 5}, {Time: 1_700_000_010, Count: 6}}},
			{Pattern: "POST <_>"},
		},
	}
	selector := `{app="a"}`
	for _, c := range []struct{ path, full, empty string }{
		{v1 + "/labels", `{"status":"success","data":["app","\""]}`, `{"status":"success","data":[]}`},
		{v1 + "/label", `{"status":"success","data":["app","\""]}`, `{"status":"success","data":[]}`},
		{"/api/prom/label", `{"status":"success","data":["app","\""]}`, `{"status":"success","data":[]}`},
		{v1 + "/label/app/values", `{"status":"success","data":["app","\""]}`, `{"status":"success","data":[]}`},
		{"/api/prom/label/app/values", `{"status":"success","data":["app","\""]}`, `{"status":"success","data":[]}`},
		{v1 + "/series", `{"status":"success","data":[{"app":"a","env":"p"},{"app":"b"}]}`, `{"status":"success","data":[]}`},
		{"/api/prom/series", `{"status":"success","data":[{"app":"a","env":"p"},{"app":"b"}]}`, `{"status":"success","data":[]}`},
		{v1 + "/index/stats", `{"streams":1,"chunks":2,"bytes":3,"entries":4}`, `{"streams":0,"chunks":0,"bytes":0,"entries":0}`},
		{v1 + "/index/volume", `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"app":"a"},"value":[1700000000,"1152921504606846976"]}]}}`,
			`{"status":"success","data":{"resultType":"vector","result":[]}}`},
		{v1 + "/index/volume_range", `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"app":"a"},"values":[[1700000000,"1152921504606846976"],[1700000060,"2"]]}]}}`,
			`{"status":"success","data":{"resultType":"matrix","result":[]}}`},
		{v1 + "/detected_labels", `{"detectedLabels":[{"label":"app","cardinality":7},{"label":"env","cardinality":1}]}`, `{"detectedLabels":[]}`},
		{v1 + "/detected_fields", `{"fields":[{"label":"code","type":"int","cardinality":3,"parsers":["json","logfmt"],"jsonPath":["http","code"]},` +
			`{"label":"trace","type":"string","cardinality":9,"parsers":null}],"limit":1000}`, `{"fields":[],"limit":1000}`},
		{v1 + "/detected_field/app/values", `{"values":["app","\""],"limit":1000}`, `{"values":[],"limit":1000}`},
		{v1 + "/patterns", `{"status":"success","data":[{"pattern":"GET <_> \"200\"","level":"info","samples":[[1700000000,5],[1700000010,6]]},{"pattern":"POST <_>","samples":[]}]}`,
			`{"status":"success","data":[]}`},
	} {
		t.Run(c.path, func(t *testing.T) {
			for _, e := range []struct {
				engine *fake
				want   string
			}{{full, c.full}, {new(fake), c.empty}} {
				s := serve(t, e.engine)
				status, got := s.get(t, with(c.path, "query", selector))
				if status != http.StatusOK {
					t.Fatalf("%d %s", status, got)
				}
				wantJSON(t, got, e.want)
				_, posted, header := s.do(t, http.MethodPost, c.path, url.Values{"query": {selector}}.Encode())
				wantJSON(t, posted, e.want)
				if kind := header.Get("Content-Type"); kind != "application/json; charset=UTF-8" {
					t.Errorf("it is %s", kind)
				}
			}
		})
	}
}

// What is asked for reaches the engine.
func TestAsked(t *testing.T) {
	f := new(fake)
	s := serve(t, f)
	s.limits.MaxBytes = 1 << 40
	limits := engine.Limits{Timeout: time.Minute, MaxSeries: 500, MaxBytes: 1 << 40, MaxMemory: 1 << 30}
	span := []string{"start", "1700000000", "end", "1700000600"}
	const start, end = int64(1_700_000_000e9), int64(1_700_000_600e9)
	get := func(path string, params ...string) {
		t.Helper()
		if status, body := s.get(t, with(path, append(params, span...)...)); status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, body)
		}
	}
	want := func(got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("asked is\n%+v, want\n%+v", got, want)
		}
	}

	get(v1+"/query_range", "query", `{app="a"} |= "x"`)
	want(f.query, engine.Query{Tenant: "acme", Limits: limits, Start: start, End: end, Limit: 100})
	want(f.expr, "{app=\"a\"} |= \"x\"")
	get(v1+"/query_range", "query", `{app="a"}`, "limit", "7", "direction", "FORWARD", "interval", "2s", "step", "1m")
	want(f.query, engine.Query{Tenant: "acme", Limits: limits, Start: start, End: end, Limit: 7, Forward: true, Interval: 2e9})
	get(v1+"/query_range", "query", `rate({app="a"}[1m])`)
	want(f.query, engine.Query{Tenant: "acme", Limits: limits, Start: start, End: end, Step: 2e9, Limit: 1})
	get(v1+"/query_range", "query", `rate({app="a"}[1m])`, "step", "100", "limit", "6000")
	want(f.query, engine.Query{Tenant: "acme", Limits: limits, Start: start, End: end, Step: 100e9, Limit: 1})
	get(v1+"/query_range", "query", `rate({app="a"}[1m])`, "step", "7m") // 1700000000 is 20 s after a multiple
	want(f.query, engine.Query{Tenant: "acme", Limits: limits, Start: start - 20e9, End: start + 820e9, Step: 420e9, Limit: 1})
	get(v1+"/query", "query", `vector(1)+vector(1)`, "time", "1700000000.5")
	want(f.query, engine.Query{Tenant: "acme", Limits: limits, Start: start + 5e8, End: start + 5e8, Limit: 1})

	scope := engine.Scope{Tenant: "acme", Limits: limits, Start: start, End: end}
	selected := scope
	selected.Matchers = []logql.Matcher{{Name: "app", Value: "a"}, {Name: "env", Op: logql.NotRegexp, Value: "x.*"}}
	get(v1 + "/labels")
	want(f.scope, scope)
	get(v1+"/labels", "query", ` { } `)
	want(len(f.scope.Matchers), 0)
	get(v1+"/label/app_1/values", "query", `{app="a", env!~"x.*"}`)
	want(f.scope, selected)
	want(f.name, "app_1")
	get(v1 + "/series")
	want(f.selectors, [][]logql.Matcher{nil})
	get(v1+"/series", "match[]", `{app="a", env!~"x.*"}`, "match[]", `{env="b"}`, "match", `{}`)
	want(len(f.selectors[2]), 0)
	want(f.selectors[:2], [][]logql.Matcher{selected.Matchers, {{Name: "env", Value: "b"}}})
	get(v1+"/index/volume", "query", `{app="a", env!~"x.*"}`)
	want(f.volume, engine.VolumeQuery{Scope: selected, Limit: 100})
	get(v1+"/index/volume_range", "query", `{app="a", env!~"x.*"}`, "targetLabels", "app,env", "aggregateBy", "labels", "limit", "5", "step", "1m")
	selected.Start, selected.End = start-20e9, end+40e9 // multiples of the step
	want(f.volume, engine.VolumeQuery{Scope: selected, Limit: 5, Step: 60e9, TargetLabels: []string{"app", "env"}, ByLabels: true})
	get(v1+"/detected_fields", "query", `{app="a"} | json`)
	want(f.query, engine.Query{Tenant: "acme", Limits: limits, Start: start, End: end, Limit: 100})
	get(v1+"/detected_field/a%2Fb/values", "query", `{app="a"}`, "line_limit", "9999", "limit", "3")
	want(f.query, engine.Query{Tenant: "acme", Limits: limits, Start: start, End: end, Limit: 5000})
	want(f.limit, 3)
	want(f.name, "a/b")
	s.limits.MaxEntries = 20
	get(v1+"/query_range", "query", `{app="a"}`)
	want(f.query.Limit, 20)
	s.limits.MaxEntries = 0
	get(v1+"/query_range", "query", `{app="a"}`, "limit", "1000000")
	want(f.query.Limit, 1000000)
	s.limits.MaxEntries = 5000
	get(v1+"/patterns", "query", `{app="a"}`, "step", "10s")
	want(f.query, engine.Query{Tenant: "acme", Limits: limits, Start: start, End: end, Step: 10e9})
}

// What can't be answered is refused in plain text that says why.
func TestRefused(t *testing.T) {
	s := serve(t, new(fake))
	s.limits.MaxRange = 24 * time.Hour
	const log, metric = `{app="a"}`, `rate({app="a"}[1m])`
	for _, c := range []struct {
		path   string
		params []string
		want   string // in the text
	}{
		{"/query_range", nil, "parse error"},
		{"/query_range", []string{"query", `{app="a"`}, "parse error at line 1, col 9"},
		{"/query_range", []string{"query", "{app=\"a\"}\n|= x"}, "parse error at line 2, col 4"},
		{"/query_range", []string{"query", `{}`}, "parse error"},
		{"/query_range", []string{"query", `{app=~".*"}`}, "at least one regexp or equality matcher that does not have an empty-compatible value"},
		{"/query_range", []string{"query", `foo({app="a"}[1m])`}, "parse error at line 1, col 1"},
		{"/query_range", []string{"query", strings.Repeat("(", 10_000)}, "parse error"},
		{"/query_range", []string{"query", "{app=\"\xff\"}"}, "parse error"},
		{"/query", []string{"query", log}, "log queries are not supported as an instant query type, please change your query to a range query type"},
		{"/query", []string{"query", metric, "time", "now"}, `time: cannot parse "now" to a valid timestamp`},
		{"/query", []string{"query", metric, "limit", "0"}, "limit must be a positive value"},
		{"/query", []string{"query", `rate({app="a"}[48h])`}, "the query time range exceeds the limit (query length: 48h0m0s, limit: 24h0m0s)"},
		{"/query_range", []string{"query", log, "start", "1700000001", "end", "1700000000"}, "end timestamp must not be before or equal to start time"},
		{"/query_range", []string{"query", log, "since", "25h"}, "the query time range exceeds the limit (query length: 25h0m0s, limit: 24h0m0s)"},
		{"/query_range", []string{"query", `sum(rate({app="a"}[2h] offset 1h)) / 2`, "since", "22h"}, "the query time range exceeds the limit (query length: 25h0m0s, limit: 24h0m0s)"},
		{"/query_range", []string{"query", log, "limit", "6000"}, "max entries limit per query exceeded, limit > max_entries_limit_per_query (6000 > 5000)"},
		{"/query_range", []string{"query", log, "limit", "-1"}, "limit must be a positive value"},
		{"/query_range", []string{"query", log, "limit", "many"}, `limit: "many" is not a whole number`},
		{"/query_range", []string{"query", log, "limit", "99999999999999999999"}, "is not a whole number"},
		{"/query_range", []string{"query", log, "direction", "up"}, "invalid direction 'up'"},
		{"/query_range", []string{"query", log, "interval", "-1"}, "interval must be >= 0"},
		{"/query_range", []string{"query", log, "step", "0"}, "zero or negative query resolution step widths are not accepted. Try a positive integer"},
		{"/query_range", []string{"query", metric, "step", "0"}, "zero or negative query resolution step widths are not accepted. Try a positive integer"},
		{"/query_range", []string{"query", metric, "step", "-1m"}, "zero or negative query resolution step widths are not accepted. Try a positive integer"},
		{"/query_range", []string{"query", metric, "step", "abc"}, `step: cannot parse "abc" to a valid duration`},
		{"/query_range", []string{"query", metric, "step", "10ms"}, "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter"},
		{"/query_range", []string{"query", metric, "start", "1700000000", "end", "1700011001", "step", "1"}, "exceeded maximum resolution of 11,000 points"},
		{"/labels", []string{"query", `{app="a"} |= "x"`}, "parse error"},
		{"/labels", []string{"since", "abc"}, `since: cannot parse "abc" to a valid duration`},
		{"/labels", []string{"start", "tomorrow"}, `start: cannot parse "tomorrow" to a valid timestamp`},
		{"/labels", []string{"since", "2d"}, "the query time range exceeds the limit"},
		{"/label/a%27%20OR%201=1--/values", nil, `label name "a' OR 1=1--" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{"/series", []string{"match[]", `{app="a"`}, "parse error"},
		{"/series", []string{"match[]", `{app="a"}`, "match[]", `{a.b="c"}`}, "parse error"},
		{"/index/stats", []string{"query", metric}, "parse error"},
		{"/index/stats", nil, "query: a selector of streams is needed here"},
		{"/index/volume_range", []string{"query", ""}, "query: a selector of streams is needed here"},
		{"/index/volume", []string{"query", log, "aggregateBy", "foo"}, `invalid aggregation option "foo"`},
		{"/index/volume", []string{"query", log, "targetLabels", "app,a'b"}, `targetLabels: "a'b" does not match`},
		{"/index/volume", []string{"query", log, "limit", "501"}, "limit: at most 500 series are possible"},
		{"/index/volume_range", []string{"query", log, "step", "1ms"}, "exceeded maximum resolution of 11,000 points"},
		{"/detected_fields", []string{"query", metric}, "a log query is needed here"},
		{"/detected_fields", nil, "parse error"},
		{"/detected_field/x/values", []string{"query", log, "limit", "0"}, "limit must be a positive value"},
		{"/patterns", []string{"query", `{app="a"`}, "parse error"},
		{"/tail", []string{"query", metric}, "a log query is needed here"},
		{"/tail", []string{"query", log, "delay_for", "6"}, "delay_for can't be greater than 5"},
		{"/tail", []string{"query", log, "delay_for", "soon"}, `delay_for: "soon" is not a whole number of seconds`},
		{"/tail", []string{"query", log, "limit", "6000"}, "max entries limit per query exceeded"},
	} {
		t.Run(c.path+strings.Join(c.params, ","), func(t *testing.T) {
			status, body, header := s.do(t, http.MethodGet, with(v1+c.path, c.params...), "")
			if status != http.StatusBadRequest || !strings.Contains(body, c.want) {
				t.Errorf("the answer is %d %q, want %q in it", status, body, c.want)
			}
			if kind := header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") {
				t.Errorf("it is %s", kind)
			}
		})
	}
	long := `{app="a"} |= "` + strings.Repeat("x", 1<<20) + `"`
	if status, body, _ := s.do(t, http.MethodPost, v1+"/query_range", url.Values{"query": {long}}.Encode()); status != http.StatusBadRequest || !strings.Contains(body, "too large") {
		t.Errorf("a query of a megabyte: %d %s", status, body)
	}
	if status, body, _ := s.do(t, http.MethodPost, v1+"/query_range", "query=%zz"); status != http.StatusBadRequest {
		t.Errorf("a form that is none: %d %s", status, body)
	}
}

func TestFormat(t *testing.T) {
	s := serve(t, nil) // without an engine, too
	if status, body := s.get(t, with(v1+"/format_query", "query", `{app=   "a"}`)); status != http.StatusOK || strings.TrimSpace(body) != `{"status":"success","data":"{app=\"a\"}"}` {
		t.Errorf("%d %s", status, body)
	}
	status, body, _ := s.do(t, http.MethodPost, v1+"/format_query", url.Values{"query": {`{app=`}}.Encode())
	if status != http.StatusBadRequest || !strings.HasPrefix(body, `{"status":"invalid-query","error":"parse error at line 1, col 6`) {
		t.Errorf("%d %s", status, body)
	}
}

func TestInfo(t *testing.T) {
	s := serve(t, new(fake))
	var build map[string]string
	if _, body := s.get(t, v1+"/status/buildinfo", "X-Scope-OrgID", ""); json.Unmarshal([]byte(body), &build) != nil || build["version"] != "1.2.3" || build["goVersion"] == "" {
		t.Errorf("the build is %s", body)
	}
	s.limits.MaxRange = 48 * time.Hour
	var drilldown struct {
		Limits  map[string]any
		Version string
		Pattern bool `json:"pattern_ingester_enabled"`
	}
	_, body := s.get(t, v1+"/drilldown-limits")
	if err := json.Unmarshal([]byte(body), &drilldown); err != nil {
		t.Fatal(err)
	}
	l := drilldown.Limits
	if l["max_query_series"] != 500.0 || l["max_entries_limit_per_query"] != 5000.0 || l["volume_enabled"] != true || l["query_timeout"] != "1m0s" || l["max_query_length"] != "48h0m0s" || !drilldown.Pattern {
		t.Errorf("the limits are %s", body)
	}
}

// Each fault has a status of its own.
func TestFaults(t *testing.T) {
	exception := &clickhouse.Exception{Code: 202, Name: "DB::Exception", Message: "Too many simultaneous queries"}
	for _, c := range []struct {
		err    error
		status int
		retry  string
	}{
		{&engine.Error{Reason: "too much"}, 400, ""},
		{fmt.Errorf("more: %w", &series.LimitError{Reason: "maximum of series (500) reached for a single query"}), 400, ""},
		{&series.Error{Reason: "found duplicate series for the match group"}, 400, ""},
		{fmt.Errorf("ClickHouse: %w", store.ErrReadsTooMuch), 400, ""},
		{fmt.Errorf("ClickHouse: %w", store.ErrMemoryExceeded), 400, ""},
		{fmt.Errorf("ClickHouse: %w", store.ErrTimeExceeded), 504, ""},
		{fmt.Errorf("ClickHouse: %w", exception), 503, "1"},
		{fmt.Errorf("ClickHouse: %w", io.EOF), 503, "1"},
		{wal.ErrUnavailable, 503, "1"},
		{context.DeadlineExceeded, 504, ""},
		{errors.New("a bug"), 500, ""},
		{errors.New(strings.Repeat("ä", 100) + "z"), 500, ""}, // 201 bytes
	} {
		s := serve(t, &fake{err: c.err})
		status, body, header := s.do(t, http.MethodGet, with(v1+"/query_range", "query", `{app="a"}`), "")
		if status != c.status || header.Get("Retry-After") != c.retry || strings.TrimSpace(body) != strings.Replace(c.err.Error(), "äz", "ä…", 1) {
			t.Errorf("%v: %d, Retry-After %q, %q", c.err, status, header.Get("Retry-After"), body)
		}
	}
}

func TestCallers(t *testing.T) {
	s := serve(t, new(fake))
	for who, want := range map[string]int{"acme": 200, "": 400, "nobody": 401, "stranger": 403} {
		status, _, header := s.do(t, http.MethodGet, v1+"/labels", "", "X-Scope-OrgID", who)
		if status != want || (header.Get("WWW-Authenticate") != "") != (want == 401) {
			t.Errorf("%q: %d %v", who, status, header)
		}
	}
}

func TestWithoutClickHouse(t *testing.T) {
	s := serve(t, nil)
	for _, path := range []string{with(v1+"/query_range", "query", `{app="a"}`), v1 + "/labels", with(v1+"/tail", "query", `{app="a"}`)} {
		if status, body := s.get(t, path); status != http.StatusNotImplemented || !strings.Contains(body, "--clickhouse-dsn") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

func TestTimeout(t *testing.T) {
	s := serve(t, &fake{block: make(chan struct{})})
	s.limits.Timeout = 50 * time.Millisecond
	if status, body := s.get(t, v1+"/labels"); status != http.StatusGatewayTimeout || !strings.Contains(body, "longer than 50ms (--query-timeout)") {
		t.Errorf("%d %s", status, body)
	}
}

// A query may take longer than the server gives a client to send its request.
func TestLongerThanRead(t *testing.T) {
	f := &fake{block: make(chan struct{})}
	s := serve(t, f, func(server *http.Server) { server.ReadTimeout = 50 * time.Millisecond })
	time.AfterFunc(200*time.Millisecond, func() { close(f.block) })
	if status, body := s.get(t, v1+"/labels"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
}

// A client that does not read its answer holds a place for as long as a query may take, and no longer.
func TestSlowClient(t *testing.T) {
	s := serve(t, &fake{logs: engine.Logs{Entries: entriesOf(5000, 10_000)}})
	s.limits.Timeout = 300 * time.Millisecond
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: acme\r\n\r\n", with(v1+"/query_range", "query", `{app="a"}`))
	eventually(t, func() bool { running, _ := s.api.queue.state(); return running == 1 })
	eventually(t, func() bool { running, _ := s.api.queue.state(); return running == 0 })
}

// Of one tenant's queries 3 run, 2 wait, and the sixth is refused; a query whose client goes makes room.
func TestTooMany(t *testing.T) {
	f := &fake{block: make(chan struct{})}
	s := serve(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 5 {
		wait.Go(func() {
			request, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.url+v1+"/labels", nil)
			request.Header.Set("X-Scope-OrgID", "acme")
			if response, err := http.DefaultClient.Do(request); err == nil {
				response.Body.Close()
			}
		})
	}
	eventually(t, func() bool { running, waiting := s.api.queue.state(); return running == 3 && waiting == 2 })
	status, body, header := s.do(t, http.MethodGet, v1+"/labels", "")
	if status != http.StatusTooManyRequests || body != "too many outstanding requests\n" || header.Get("Retry-After") != "1" {
		t.Errorf("%d %s %v", status, body, header)
	}
	cancel()
	wait.Wait()
	eventually(t, func() bool { running, waiting := s.api.queue.state(); return running+waiting == 0 })
	if got := testutil.ToFloat64(s.api.metrics.requests.WithLabelValues("labels", "499")); got != 5 {
		t.Errorf("%g clients are counted that went", got)
	}
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it takes too long")
		}
	}
}
