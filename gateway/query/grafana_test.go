package query

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// What Grafana's Loki data source, Explore and Logs Drilldown ask, as their sources have it, and what they read of the answers.

// grafanaLines pushes what the tests of this file ask for: a part is in ClickHouse, and the rest is not.
func grafanaLines(t *testing.T, s *server, tenant string, first time.Time) {
	t.Helper()
	shop := map[string]string{"app": "shop", "env": "prod", "service_name": "shop"}
	till := map[string]string{"app": "till", "env": "dev", "service_name": "till"}
	at := func(i int) int64 { return first.Add(time.Duration(i) * time.Second).UnixNano() }
	s.push(t, tenant,
		entry{shop, map[string]string{"trace_id": "a1"}, at(0), `{"level":"info","took":"20ms","order":4711}`},
		entry{shop, map[string]string{"trace_id": "a2"}, at(1), `{"level":"error","took":"1.5s","order":4712}`},
		entry{till, nil, at(2), `level=warn msg="paper is low" left=3`},
	)
	flush(t)
	s.push(t, tenant,
		entry{shop, map[string]string{"trace_id": "a3"}, at(3), `{"level":"info","took":"30ms","order":4713}`},
		entry{till, nil, at(4), `level=info msg="paper is back" left=500`},
		entry{shop, nil, at(5), "no JSON at all"},
	)
}

// answered is an answer of the query endpoints.
type answered struct {
	Status string
	Data   struct {
		ResultType    string
		EncodingFlags []string
		Result        []struct {
			Stream, Metric map[string]string
			Values         [][]any
			Value          []any
		}
		Stats struct {
			Summary struct{ ExecTime, TotalBytesProcessed, TotalLinesProcessed float64 }
		}
	}
}

func TestGrafana(t *testing.T) {
	s := startLive(t)
	tenant := unique("grafana")
	first := time.Now().Add(-10 * time.Minute).Truncate(time.Minute)
	grafanaLines(t, s, tenant, first)
	nanos := func(t time.Time) string { return fmt.Sprint(t.UnixNano()) }
	span := []string{"start", nanos(first.Add(-50 * time.Minute)), "end", nanos(first.Add(10 * time.Minute))}

	headers := []string{"X-Scope-OrgID", tenant, encodingHeader, categorizeLabels}
	get := func(t *testing.T, path string, to any, params ...string) {
		t.Helper()
		status, body := s.get(t, with(path, params...), headers...)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		if err := json.Unmarshal([]byte(body), to); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
	}
	query := func(t *testing.T, path, query string, params ...string) (a answered) {
		t.Helper()
		get(t, path, &a, append(append([]string{"query", query}, params...), span...)...)
		if a.Status != "success" {
			t.Errorf("the status is %s", a.Status)
		}
		return a
	}

	t.Run("save and test", func(t *testing.T) {
		var a answered
		get(t, v1+"/query", &a, "query", "vector(1)+vector(1)", "direction", "backward", "time", nanos(time.Now()))
		if a.Data.ResultType != "vector" || len(a.Data.Result) != 1 || a.Data.Result[0].Value[1] != "2" || len(a.Data.Result[0].Metric) != 0 {
			t.Errorf("the answer is %+v", a)
		}
	})
	t.Run("labels", func(t *testing.T) {
		for _, c := range []struct {
			path, query string
			want        []string
		}{
			{"/labels", "", []string{"app", "env", "service_name"}},
			{"/labels", `{app="shop"}`, []string{"app", "env", "service_name"}},
			{"/label/env/values", "", []string{"dev", "prod"}},
			{"/label/env/values", `{app="shop"}`, []string{"prod"}},
			{"/label/env/values", `{app="other"}`, []string{}},
		} {
			var a struct {
				Status string
				Data   []string
			}
			if get(t, v1+c.path, &a, append(span, "query", c.query)...); a.Status != "success" || !slices.Equal(a.Data, c.want) {
				t.Errorf("%s of %q: %+v", c.path, c.query, a)
			}
		}
	})
	t.Run("series", func(t *testing.T) {
		var a struct{ Data []map[string]string }
		get(t, v1+"/series", &a, append(span, "match[]", `{env="prod"}`)...)
		if want := []map[string]string{{"app": "shop", "env": "prod", "service_name": "shop"}}; !reflect.DeepEqual(a.Data, want) {
			t.Errorf("the series are %v", a.Data)
		}
	})
	t.Run("logs", func(t *testing.T) {
		a := query(t, v1+"/query_range", `{app="shop"}`, "direction", "backward", "limit", "1000", "step", "2s")
		if a.Data.ResultType != "streams" || !slices.Equal(a.Data.EncodingFlags, []string{"categorize-labels"}) || len(a.Data.Result) != 1 {
			t.Fatalf("the answer is %+v", a)
		}
		stream := a.Data.Result[0]
		if want := map[string]string{"app": "shop", "env": "prod", "service_name": "shop"}; !reflect.DeepEqual(stream.Stream, want) {
			t.Errorf("the stream is %v", stream.Stream)
		}
		want := [][]any{
			{nanos(first.Add(5 * time.Second)), "no JSON at all", map[string]any{"structuredMetadata": map[string]any{"detected_level": "unknown"}}},
			{nanos(first.Add(3 * time.Second)), `{"level":"info","took":"30ms","order":4713}`, map[string]any{"structuredMetadata": map[string]any{"detected_level": "info", "trace_id": "a3"}}},
			{nanos(first.Add(time.Second)), `{"level":"error","took":"1.5s","order":4712}`, map[string]any{"structuredMetadata": map[string]any{"detected_level": "error", "trace_id": "a2"}}},
			{nanos(first), `{"level":"info","took":"20ms","order":4711}`, map[string]any{"structuredMetadata": map[string]any{"detected_level": "info", "trace_id": "a1"}}},
		}
		if !reflect.DeepEqual(stream.Values, want) {
			t.Errorf("the lines are\n%v, want\n%v", stream.Values, want)
		}
		if stats := a.Data.Stats.Summary; stats.ExecTime <= 0 || stats.TotalLinesProcessed < 4 {
			t.Errorf("it took %+v", stats)
		}
	})
	t.Run("parsed", func(t *testing.T) {
		a := query(t, v1+"/query_range", `{app="shop"} | json | level="error"`, "direction", "backward", "limit", "10")
		third, _ := a.Data.Result[0].Values[0][2].(map[string]any)
		if want := map[string]any{"level": "error", "took": "1.5s", "order": "4712"}; len(a.Data.Result) != 1 || !reflect.DeepEqual(third["parsed"], want) {
			t.Errorf("the answer is %+v", a)
		}
	})
	t.Run("context of a line", func(t *testing.T) {
		a := query(t, v1+"/query_range", `{app="shop",env="prod",service_name="shop"}`, "direction", "forward", "limit", "2")
		if len(a.Data.Result) != 1 || len(a.Data.Result[0].Values) != 2 || a.Data.Result[0].Values[0][0] != nanos(first) {
			t.Errorf("the answer is %+v", a)
		}
	})
	t.Run("log volume", func(t *testing.T) {
		a := query(t, v1+"/query_range", `sum by (level, detected_level) (count_over_time({app="shop"} | drop __error__[1m]))`, "direction", "backward", "limit", "1000", "step", "1m0s")
		got := map[string]any{}
		for _, r := range a.Data.Result {
			for _, v := range r.Values {
				got[r.Metric["detected_level"]+fmt.Sprint(v[0].(float64)-float64(first.Unix()))] = v[1]
			}
		}
		// Of a minute, its first instant belongs to the minute before.
		if want := map[string]any{"info0": "1", "info60": "1", "error60": "1", "unknown60": "1"}; a.Data.ResultType != "matrix" || !reflect.DeepEqual(got, want) {
			t.Errorf("the volume is %v, want %v", got, want)
		}
	})
	t.Run("metric", func(t *testing.T) {
		a := query(t, v1+"/query_range", `sum by (app) (count_over_time({app=~".+"}[30m]))`, "direction", "backward", "step", "15m0s")
		last := map[string]any{}
		for _, r := range a.Data.Result {
			last[r.Metric["app"]] = r.Values[len(r.Values)-1][1]
		}
		if want := map[string]any{"shop": "4", "till": "2"}; !reflect.DeepEqual(last, want) {
			t.Errorf("the last points are %v", last)
		}
		instant := query(t, v1+"/query", `sum(count_over_time({app=~".+"}[1h]))`, "time", nanos(first.Add(time.Minute)))
		if r := instant.Data.Result; instant.Data.ResultType != "vector" || len(r) != 1 || r[0].Value[1] != "6" {
			t.Errorf("the instant is %+v", instant)
		}
	})
	t.Run("query size", func(t *testing.T) {
		var a map[string]float64
		get(t, v1+"/index/stats", &a, append(span, "query", `{app="till"}`)...)
		if a["streams"] != 1 || a["entries"] != 2 || a["bytes"] != 75 || a["chunks"] < 1 {
			t.Errorf("the statistics are %v", a)
		}
	})
	t.Run("drilldown", func(t *testing.T) {
		a := query(t, v1+"/index/volume", `{service_name=~".+"}`, "limit", "500", "targetLabels", "service_name")
		if r := a.Data.Result; a.Data.ResultType != "vector" || len(r) != 2 || r[0].Metric["service_name"] != "shop" {
			t.Errorf("the volumes are %+v", a)
		}
		var labels struct{ DetectedLabels []map[string]any }
		get(t, v1+"/detected_labels", &labels, append(span, "query", `{service_name="shop"}`)...)
		if len(labels.DetectedLabels) == 0 {
			t.Errorf("the labels are %v", labels)
		}
		var fields struct {
			Fields []struct {
				Label, Type string
				Cardinality int
				Parsers     []string
			}
			Limit int
		}
		get(t, v1+"/detected_fields", &fields, append(span, "query", `{service_name="shop"}`, "line_limit", "1000", "limit", "1000")...)
		found := map[string]string{}
		for _, f := range fields.Fields {
			found[f.Label] = f.Type + strings.Join(f.Parsers, "")
		}
		if found["took"] != "durationjson" || found["order"] != "intjson" || found["trace_id"] != "string" || fields.Limit != 1000 {
			t.Errorf("the fields are %v", found)
		}
		var values struct{ Values []string }
		get(t, v1+"/detected_field/level/values", &values, append(span, "query", `{service_name="till"}`)...)
		if slices.Sort(values.Values); !slices.Equal(values.Values, []string{"info", "warn"}) {
			t.Errorf("the values are %v", values)
		}
		var patterns struct {
			Status string
			Data   []struct {
				Pattern string
				Samples [][2]int64
			}
		}
		get(t, v1+"/patterns", &patterns, append(span, "query", `{service_name=~".+"}`, "step", "10s")...)
		if patterns.Status != "success" {
			t.Errorf("the patterns are %+v", patterns)
		}
		var limits struct{ Limits map[string]any }
		if get(t, v1+"/drilldown-limits", &limits); limits.Limits["volume_enabled"] != true {
			t.Errorf("the limits are %v", limits)
		}
	})
	t.Run("probes", func(t *testing.T) {
		// Of these Grafana wants to know whether there is a ruler: 404 says no.
		for _, path := range []string{v1 + "/rules", "/api/prom/rules", "/prometheus/api/v1/rules", v1 + "/rules/any/thing"} {
			if status, body := s.get(t, path, "X-Scope-OrgID", tenant); status != http.StatusNotFound {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
		var build map[string]string
		if get(t, v1+"/status/buildinfo", &build); build["version"] == "" {
			t.Errorf("the build is %v", build)
		}
	})
	t.Run("another tenant", func(t *testing.T) {
		for _, path := range []string{v1 + "/labels", with(v1+"/query_range", "query", `{app=~".+"}`), with(v1+"/index/stats", "query", `{app=~".+"}`)} {
			status, body := s.get(t, path, "X-Scope-OrgID", "grafana-2")
			if status != http.StatusOK || strings.Contains(body, "shop") || strings.Contains(body, `"streams":1`) {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
		if status, body := s.get(t, v1+"/labels", "X-Scope-OrgID", "grafana|grafana-2"); status != http.StatusBadRequest || !strings.Contains(body, "several tenants") {
			t.Errorf("two at once: %d %s", status, body)
		}
	})
}

// Live in Explore: Grafana opens a WebSocket, and shows each line that is pushed from then on.
func TestGrafanaLive(t *testing.T) {
	s := startLive(t)
	tenant := unique("grafana-live")
	const tails = 100
	shop := map[string]string{"app": "shop"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	read := make(chan string, tails)
	for range tails {
		conn, _, err := s.dial(t, with(v1+"/tail", "query", `{app="shop"} |= "order"`, "start", fmt.Sprint(time.Now().UnixNano())),
			"X-Scope-OrgID", tenant, encodingHeader, categorizeLabels)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, message, err := conn.Read(ctx)
			if err != nil {
				message = []byte(err.Error())
			}
			read <- string(message)
		}()
	}
	// A tail that begins to listen after the push reads it all the same: it is behind its start.
	at := time.Now().UnixNano()
	s.push(t, tenant, entry{shop, map[string]string{"trace_id": "x"}, at, "not wanted"}, entry{shop, map[string]string{"trace_id": "y"}, at, "an order, error"})
	want := fmt.Sprintf(`{"streams":[{"stream":{"app":"shop"},"values":[["%d","an order, error",{"structuredMetadata":{"detected_level":"error","trace_id":"y"}}]]}],`+
		`"encodingFlags":["categorize-labels"]}`, at)
	for range tails {
		if got := <-read; got != want {
			t.Fatalf("the message is\n%s, want\n%s", got, want)
		}
	}
}
