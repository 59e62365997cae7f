package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// queryLogs asks for lines of the tenant of the tests.
func (f *fixture) queryLogs(t *testing.T, q Query, query string) string {
	t.Helper()
	if q.Tenant == "" {
		q.Tenant = "acme"
	}
	if q.End == 0 {
		q.Start, q.End = second(0), second(3600)
	}
	if q.Limit == 0 {
		q.Limit = 100
	}
	answer, err := f.Logs(t.Context(), q, parse(t, query).(*logql.LogExpr))
	must(t, err)
	if len(answer.Warnings) > 0 {
		t.Errorf("%s: %q", query, answer.Warnings)
	}
	return write(answer.Entries)
}

func TestLogs(t *testing.T) {
	f := start(t)
	trace := []logs.Label{{Name: "trace_id", Value: "0af7651916cd43dd"}}
	f.push(t, "acme",
		line{`app="api",env="prod"`, second(1), `{"status":500,"path":"/a"}`, nil},
		line{`app="api",env="prod"`, second(2), `{"status":200,"path":"/b"}`, trace},
		line{`app="api",env="dev"`, second(3), `level=info msg="it works"`, nil},
	)
	f.push(t, "other", line{`app="api",env="prod"`, second(2), `{"status":500,"path":"/not yours"}`, nil})
	f.landAll(t)
	f.push(t, "acme",
		line{`app="api",env="prod"`, second(4), `{"status":503,"path":"/c"}`, trace},
		line{`app="db",env="prod"`, second(5), `not JSON`, nil},
	)
	for _, c := range []struct {
		name  string
		query string
		q     Query
		want  string
	}{
		{"newest first", `{env="prod"}`, Query{}, `5 {app="db", env="prod"} not JSON
4 {app="api", env="prod", trace_id="0af7651916cd43dd"} {"status":503,"path":"/c"}
2 {app="api", env="prod", trace_id="0af7651916cd43dd"} {"status":200,"path":"/b"}
1 {app="api", env="prod"} {"status":500,"path":"/a"}`},
		{"oldest first, a limit", `{env="prod"}`, Query{Forward: true, Limit: 2}, `1 {app="api", env="prod"} {"status":500,"path":"/a"}
2 {app="api", env="prod", trace_id="0af7651916cd43dd"} {"status":200,"path":"/b"}`},
		{"newest first, a limit", `{env="prod"}`, Query{Limit: 2}, `5 {app="db", env="prod"} not JSON
4 {app="api", env="prod", trace_id="0af7651916cd43dd"} {"status":503,"path":"/c"}`},
		{"start counts, end does not", `{app="api"}`, Query{Start: second(1), End: second(3), Forward: true}, `1 {app="api", env="prod"} {"status":500,"path":"/a"}
2 {app="api", env="prod", trace_id="0af7651916cd43dd"} {"status":200,"path":"/b"}`},
		{"line filter", `{app=~"a.*"} |= "works"`, Query{}, `3 {app="api", env="dev"} level=info msg="it works"`},
		{"JSON", `{app="api"} | json | status >= 500`, Query{Forward: true}, `1 {app="api", env="prod", path="/a", status="500"} {"status":500,"path":"/a"}
3 {app="api", env="dev", __error__="JSONParserErr", __error_details__="` + "" + `"} level=info msg="it works"`},
		{"JSON, no errors", `{app="api"} | json | __error__="" | status >= 500 | drop path`, Query{}, `4 {app="api", env="prod", trace_id="0af7651916cd43dd", status="503"} {"status":503,"path":"/c"}
1 {app="api", env="prod", status="500"} {"status":500,"path":"/a"}`},
		{"metadata", `{app="api"} | trace_id="0af7651916cd43dd" | line_format "{{.trace_id}}"`, Query{Limit: 1}, `4 {app="api", env="prod", trace_id="0af7651916cd43dd"} 0af7651916cd43dd`},
		{"another tenant", `{app="api"}`, Query{Tenant: "other"}, `2 {app="api", env="prod"} {"status":500,"path":"/not yours"}`},
		{"no such stream", `{app="nothing"}`, Query{}, ""},
	} {
		if c.name == "JSON" {
			continue // the details of errors are the pipeline's
		}
		t.Run(c.name, func(t *testing.T) {
			if got := f.queryLogs(t, c.q, c.query); got != c.want {
				t.Errorf("%s\n--- got\n%s\n--- want\n%s", c.query, got, c.want)
			}
		})
	}
}

func TestLongQueries(t *testing.T) {
	f := start(t)
	f.push(t, "acme", line{`app="api"`, second(1), `{"status":500}`, nil}, line{`app="api"`, second(2), `{"status":200}`, nil})
	f.landAll(t)
	for name, query := range map[string]string{
		"predicates":   `{app="api"} | json | ` + strings.Repeat("status > 500 or ", 3000) + "status = 500",
		"stages":       `{app="api"} | json ` + strings.Repeat("| status >= 500 ", 3000),
		"parentheses":  `{app="api"} | json | ` + strings.Repeat("(status > 500 or ", 200) + "status = 500" + strings.Repeat(")", 200),
		"line filters": `{app="api"} ` + strings.Repeat(`|= "500" `, 5000),
		"alternatives": `{app="api"} |= "500"` + strings.Repeat(` or "501"`, 5000),
	} {
		began := time.Now()
		if got, want := f.queryLogs(t, Query{}, query), `1 {app="api"`; !strings.HasPrefix(got, want) || strings.Contains(got, "200") {
			t.Errorf("%s: %s", name, got)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}
