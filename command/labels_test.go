package command

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestLabels(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	const streams = `[{"app":"shop","pod":"b"},{"pod":"a","app":"shop"},{"app":"pay \"x\""}]`
	for _, c := range []struct {
		data       string
		args       []string
		path, want string
	}{
		{`["app","env"]`, []string{"labels"}, "/loki/api/v1/labels?end=1795352400000000000&start=1795345200000000000", "app\nenv\n"},
		{`["app","env"]`, []string{"labels", "--json"}, "/loki/api/v1/labels?end=1795352400000000000&start=1795345200000000000", "[\n  \"app\",\n  \"env\"\n]\n"},
		{`null`, []string{"labels", "--json"}, "/loki/api/v1/labels?end=1795352400000000000&start=1795345200000000000", "[]\n"},
		{`["prod"]`, []string{"labels", "env", "--match", `{app="a"}`}, "/loki/api/v1/label/env/values?end=1795352400000000000&query=%7Bapp%3D%22a%22%7D&start=1795345200000000000", "prod\n"},
		{`[]`, []string{"labels", "a/b"}, "/loki/api/v1/label/a%2Fb/values?end=1795352400000000000&start=1795345200000000000", ""},
		{streams, []string{"series"}, "/loki/api/v1/series?end=1795352400000000000&start=1795345200000000000", "{app=\"pay \\\"x\\\"\"}\n{app=\"shop\", pod=\"a\"}\n{app=\"shop\", pod=\"b\"}\n"},
		{
			streams, []string{"series", "{a=~\"b\"}", "{c=\"d\"}", "--cardinality"}, "/loki/api/v1/series?end=1795352400000000000&match%5B%5D=%7Ba%3D~%22b%22%7D&match%5B%5D=%7Bc%3D%22d%22%7D&start=1795345200000000000",
			"LABEL  VALUES  STREAMS\napp    2       3\npod    2       2\n",
		},
		{`[{"app":"shop"}]`, []string{"series", "--json"}, "/loki/api/v1/series?end=1795352400000000000&start=1795345200000000000", "[\n  {\n    \"app\": \"shop\"\n  }\n]\n"},
		{`[{"app":"shop"}]`, []string{"series", "--json", "--cardinality"}, "/loki/api/v1/series?end=1795352400000000000&start=1795345200000000000", "[\n  {\n    \"label\": \"app\",\n    \"values\": 1,\n    \"streams\": 1\n  }\n]\n"},
		{`[]`, []string{"series"}, "/loki/api/v1/series?end=1795352400000000000&start=1795345200000000000", ""},
	} {
		f.with(func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprintf(w, `{"status":"success","data":%s}`, c.data)
			return true
		})
		code, stdout, stderr := run(t, "", append(c.args, append(strings.Fields(aroundNoon), "--url", f.URL)...)...)
		if code != 0 || stdout != c.want || stderr != "" {
			t.Errorf("%q: exit code %d, %s\ngot\n%s\nwant\n%s", c.args, code, stderr, stdout, c.want)
		}
		asked := f.asked()
		if got := asked[len(asked)-1].RequestURI; got != c.path {
			t.Errorf("%q: asked %s\nwant %s", c.args, got, c.path)
		}
	}
	f.with(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "parse error at line 1, col 2: no", http.StatusBadRequest)
		return true
	})
	code, _, stderr := run(t, "", "labels", "--url", f.URL, "--match", "{=}")
	if want := "logthra: labels: parse error at line 1, col 2: no\n  {=}\n   ^\n"; code != exitFailure || stderr != want {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	code, _, stderr = run(t, "", "series", "--url", f.URL, "{=}")
	if want := "logthra: series: parse error at line 1, col 2: no\n  {=}\n   ^\n"; code != exitFailure || stderr != want {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
