package query

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// What nobody should ask is answered with a reason, and the program goes on.
func TestBadInput(t *testing.T) {
	s := startLive(t)
	tenant := unique("bad-input")
	now := time.Now()
	s.push(t, tenant, entry{map[string]string{"app": "x"}, nil, now.UnixNano(), `{"a":1}`})
	nested := func(open, middle, end string, n int) string {
		return strings.Repeat(open, n) + middle + strings.Repeat(end, n)
	}
	for name, form := range map[string][]string{
		"a megabyte":                {"query", `{app="x"} |= "` + strings.Repeat("x", 1<<20) + `"`},
		"half a megabyte":           {"query", `{app="x"} |= "` + strings.Repeat("x", 1<<19) + `"`},
		"parentheses":               {"query", nested("(", `rate({app="x"}[1m])`, ")", 10_000)},
		"open parentheses":          {"query", strings.Repeat("(", 10_000)},
		"sums":                      {"query", nested("sum(", `rate({app="x"}[1m])`, ")", 10_000)},
		"conditions":                {"query", `{app="x"} | ` + nested("(", `a="b"`, ")", 10_000)},
		"millions of points":        {"query", `rate({app="x"}[1m])`, "start", "0", "step", "1"},
		"a step of a nanosecond":    {"query", `rate({app="x"}[1m])`, "step", "1ns"},
		"no matchers":               {"query", `{}`},
		"matchers that match all":   {"query", `{app=~".*"}`},
		"an unknown function":       {"query", `count_all_time({app="x"}[1m])`},
		"start after end":           {"query", `{app="x"}`, "start", fmt.Sprint(now.UnixNano()), "end", fmt.Sprint(now.UnixNano() - 1)},
		"a limit below 0":           {"query", `{app="x"}`, "limit", "-5"},
		"a limit that is too high":  {"query", `{app="x"}`, "limit", "2147483647"},
		"not UTF-8":                 {"query", "{app=\"\xff\xfe\"}"},
		"a label that is SQL":       {"query", `{app' OR 1=1 --="x"}`},
		"an expression of no size":  {"query", `{app=~"(a{1000}){1000}"}`},
		"no expression":             {"query", `{app="x"} |~ "("`},
		"a template that is none":   {"query", `{app="x"} | line_format "{{"`},
		"lines that are no JSON":    {"query", `sum_over_time({app="x"} | logfmt | unwrap duration(nope) | __error__!="" [1m`},
		"nothing":                   {"query", ""},
		"a range of 0":              {"query", `rate({app="x"}[0s])`},
		"a range beyond all":        {"query", `rate({app="x"}[99999999999y])`},
		"two time zones of nothing": {"query", `{app="x"}`, "start", "2026-13-45T99:99:99Z"},
	} {
		t.Run(name, func(t *testing.T) {
			values := url.Values{}
			for i := 0; i < len(form); i += 2 {
				values.Set(form[i], form[i+1])
			}
			began := time.Now()
			status, body, _ := s.do(t, http.MethodPost, v1+"/query_range", values.Encode(), "X-Scope-OrgID", tenant)
			if status != http.StatusBadRequest || len(body) < 10 || len(body) > 2000 {
				t.Errorf("%d %.300s", status, body)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	// What is odd, and no fault.
	for name, params := range map[string][]string{
		"values that are SQL": {"query", `{app="x' OR 1=1 --"} |= "'; DROP TABLE logs.log; --"`},
		"all of time":         {"query", `{app="nowhere"}`, "start", "0001-01-01T00:00:00Z", "end", "9999-12-31T23:59:59Z"},
		"a null byte":         {"query", "{app=\"nowhere\\x00\"} |= \"\\x00\""},
		"quotes":              {"query", "{app=~`[\"'\\\\\\\\]+`} |= `\\'\"`"},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := s.get(t, with(v1+"/query_range", params...), "X-Scope-OrgID", tenant)
			if status != http.StatusOK || !strings.Contains(body, `"result":[]`) {
				t.Errorf("%d %.300s", status, body)
			}
		})
	}
	for _, path := range []string{"/label/%27%3B%20DROP%20TABLE%20logs.log/values", "/label/a%00b/values", "/label/" + strings.Repeat("%C3%28", 100) + "/values"} {
		if status, body := s.get(t, v1+path, "X-Scope-OrgID", tenant); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := s.get(t, with(v1+"/query_range", "query", `{app="x"}`), "X-Scope-OrgID", tenant); status != http.StatusOK || !strings.Contains(body, `{\"a\":1}`) {
		t.Errorf("after all that: %d %s", status, body)
	}
}

// A line is found as soon as its push was answered, once, and after it was flushed still once.
func TestFresh(t *testing.T) {
	s := startLive(t)
	tenant := unique("fresh")
	const pushes = 20
	count := func() string {
		t.Helper()
		_, body := s.get(t, with(v1+"/query", "query", `sum(count_over_time({app="x"}[1h]))`), "X-Scope-OrgID", tenant)
		var a answered
		if err := json.Unmarshal([]byte(body), &a); err != nil || len(a.Data.Result) != 1 {
			t.Fatalf("%v: %s", err, body)
		}
		return fmt.Sprint(a.Data.Result[0].Value[1])
	}
	for i := range pushes {
		s.push(t, tenant, entry{map[string]string{"app": "x"}, nil, time.Now().UnixNano(), fmt.Sprint("line ", i)})
		if got := count(); got != fmt.Sprint(i+1) {
			t.Fatalf("after %d pushes %s lines are found", i+1, got)
		}
		if i == pushes/2 {
			flush(t)
			if got := count(); got != fmt.Sprint(i+1) {
				t.Fatalf("after the flush %s lines are found of %d", got, i+1)
			}
		}
	}
}

// What a query computes is bounded, and says so.
func TestLimitsOfQueries(t *testing.T) {
	s := startLive(t)
	tenant := unique("limits")
	var entries []entry
	for i := range 600 {
		entries = append(entries, entry{map[string]string{"app": "x", "n": fmt.Sprint(i)}, nil, time.Now().UnixNano(), "line"})
	}
	s.push(t, tenant, entries...)
	status, body := s.get(t, with(v1+"/query", "query", `count_over_time({app="x"}[1h])`), "X-Scope-OrgID", tenant)
	if status != http.StatusBadRequest || !strings.Contains(body, "maximum number of series (500) reached for a single query") {
		t.Errorf("600 series: %d %s", status, body)
	}
	status, body = s.get(t, with(v1+"/query", "query", `sum(count_over_time({app="x"} | json [1h])) by (a)`), "X-Scope-OrgID", tenant)
	if status != http.StatusBadRequest || !strings.Contains(body, "pipeline error: 'JSONParserErr' for series") {
		t.Errorf("lines that are no JSON: %d %s", status, body)
	}
}
