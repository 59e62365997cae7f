package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

func TestDetectedFields(t *testing.T) {
	f := start(t)
	trace := []logs.Label{{Name: "trace_id", Value: "0af7651916cd43dd"}, {Name: "sampled", Value: "true"}}
	f.push(t, "acme",
		line{`app="api",level="info"`, second(1), `{"status":200,"took":"12ms","user":{"name":"ann","1x":1.5},"list":[{"a":1}],"ok":true,"size":"1KB","level":"info"}`, trace},
		line{`app="api",level="info"`, second(2), `{"status":404,"took":"1m3s","user":{"name":"bob","1x":2},"ok":false,"size":"20 MiB","level":"warn","empty":""}`, nil},
	)
	f.landAll(t)
	f.push(t, "acme",
		line{`app="db"`, second(3), `level=error msg="no such table" rows=0 status=bad`, nil},
		line{`app="db"`, second(4), `plain text`, nil},
		line{`app="odd"`, second(5), `{"a":1} and more {}`, nil},
	)
	for _, c := range []struct {
		name, query string
		limit       int
		want        string
	}{
		{"JSON", `{app="api"}`, 0, `detected_level string 1
empty string 0 [json] .empty
level_extracted string 2 [json] .level
ok boolean 2 [json] .ok
sampled boolean 1
size bytes 2 [json] .size
status int 2 [json] .status
took duration 2 [json] .took
trace_id string 1
user_1x float 2 [json] .user.1x
user_name string 2 [json] .user.name`},
		{"logfmt", `{app="db"}`, 0, `detected_level string 2
level string 1 [logfmt]
msg string 1 [logfmt]
rows int 1 [logfmt]
status string 1 [logfmt]`},
		{"both", `{app=~"api|db"} |~ "status"`, 2, `detected_level string 2
empty string 0 [json] .empty
level string 1 [logfmt]
level_extracted string 1 [json] .level
msg string 1 [logfmt]
ok boolean 1 [json] .ok
rows int 1 [logfmt]
size bytes 1 [json] .size
status string 2 [json logfmt] .status
took duration 1 [json] .took
user_1x int 1 [json] .user.1x
user_name string 1 [json] .user.name`},
		{"neither", `{app="odd"}`, 0, `detected_level string 1`},
		{"what the query extracts", `{app="api"} | json status, who="user.name"`, 0, `detected_level string 1
sampled boolean 1
status int 2 [json] .status
trace_id string 1
who string 2 [json]`},
		{"what a pattern extracts", `{app="db"} | pattern "<first> <_>"`, 0, `detected_level string 2
first string 2 [pattern]`},
		{"what is left of it", `{app="api"} | json | keep took, trace_id`, 0, `took duration 2 [json] .took
trace_id string 1`},
		{"none", `{app="nothing"}`, 0, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := f.DetectedFields(t.Context(), Query{Tenant: "acme", Start: second(0), End: second(60), Limit: c.limit}, parse(t, c.query).(*logql.LogExpr))
			must(t, err)
			var got []string
			for _, of := range found {
				text := fmt.Sprint(of.Label, " ", of.Type, " ", of.Cardinality)
				if of.Parsers != nil {
					text += fmt.Sprint(" ", of.Parsers)
				}
				if of.JSONPath != nil {
					text += " ." + strings.Join(of.JSONPath, ".")
				}
				got = append(got, text)
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("--- got\n%s\n--- want\n%s", strings.Join(got, "\n"), c.want)
			}
		})
	}
	for _, c := range []struct {
		query, field string
		limit        int
		want         string
	}{
		{`{app="api"}`, "took", 10, "12ms 1m3s"},
		{`{app="api"}`, "took", 1, "1m3s"},
		{`{app=~"api|db"}`, "status", 10, "200 404 bad"},
		{`{app="api"}`, "trace_id", 10, "0af7651916cd43dd"},
		{`{app="api"} | json | status > 300`, "user_name", 10, "bob"},
		{`{app="api"}`, "nothing", 10, ""},
		{`{app="api"}`, "app", 10, ""},
	} {
		got, err := f.DetectedFieldValues(t.Context(), Query{Tenant: "acme", Start: second(0), End: second(60)}, parse(t, c.query).(*logql.LogExpr), c.field, c.limit)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s of %s: got %q, %v, want %q", c.field, c.query, got, err, c.want)
		}
	}
}

func TestKindOf(t *testing.T) {
	for _, c := range []struct{ values, want string }{
		{"1|-2|+3", "int"}, {"9223372036854775808", "float"}, {"1.5|-1e9", "float"}, {"1|2.5", "float"}, {"0x1f", "string"}, {"NaN", "string"}, {"Inf", "string"},
		{"true|false", "boolean"}, {"True", "string"}, {"true|1", "string"},
		{"5ms|1h2m|1.5s|-3µs", "duration"}, {"5m", "duration"}, {"5", "int"}, {"5 ms", "string"}, {"0|5ms", "string"},
		{"5B|1KB|1.5MiB|20 GB|1kb", "bytes"}, {"5M", "string"}, {"1..2KB", "string"}, {"KB", "string"},
		{"a|1", "string"}, {"-", "string"}, {".", "string"}, {"10.0.0.1", "string"}, {"2026-03-01", "string"},
	} {
		var k kinds
		for value := range strings.SplitSeq(c.values, "|") {
			k |= kindOf(value)
		}
		if k.String() != c.want {
			t.Errorf("%s: %s, not %s", c.values, k, c.want)
		}
	}
	if kinds(0).String() != "string" {
		t.Error("a field without values is no string")
	}
}

func TestJSONPath(t *testing.T) {
	for _, c := range []struct {
		line, label string
		want        []string
	}{
		{`{"a":1}`, "a", []string{"a"}},
		{`{"a":1}`, "a_extracted", []string{"a"}},
		{`{"a":{"b":{"c":null}},"a_b":1}`, "a_b", []string{"a_b"}},
		{`{"a":{"b":1},"a_b":1}`, "a_b", []string{"a", "b"}},
		{`{"a":{"b":{"c":null}}}`, "a_b_c", []string{"a", "b", "c"}},
		{`{"1.x":{"y z":"v"}}`, "_1_x_y_z", []string{"1.x", "y z"}},
		{`{"a":[{"b":1},[]],"b":{},"a_b":2}`, "a_b", []string{"a_b"}},
		{`{"a":[{"b":1}]}`, "a_b", nil},
		{`{"a":1}`, "b", nil},
		{`{"a":1,`, "b", nil},
		{`{"a":[1,`, "b", nil},
		{`{"a":`, "a", nil},
		{`[1]`, "a", nil},
		{`"a"`, "a", nil},
		{``, "a", nil},
	} {
		if got := jsonPath([]byte(c.line), c.label); !slices.Equal(got, c.want) {
			t.Errorf("%s of %s: got %q, want %q", c.label, c.line, got, c.want)
		}
	}
}

func FuzzJSONPath(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,{"c":2}]},"d":null}`), "a_b")
	f.Add([]byte(`{"a":1}`), "a")
	f.Fuzz(func(t *testing.T, line []byte, label string) {
		if path := jsonPath(line, label); path != nil && pathLabel(path) != strings.TrimSuffix(label, "_extracted") {
			t.Errorf("%q leads to %q, not %q", path, pathLabel(path), label)
		}
	})
}
