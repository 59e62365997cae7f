package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// scope is one of the tenant of the tests, with the matchers of a selector; empty: all streams.
func scope(t testing.TB, selector string) Scope {
	t.Helper()
	s := Scope{Tenant: "acme", Start: second(0), End: second(3600)}
	if selector != "" {
		var err error
		s.Matchers, err = logql.ParseSelector(selector)
		must(t, err)
	}
	return s
}

// streams pushes lines of several streams: of two tenants, of which all but the last few have landed.
func pushStreams(t testing.TB) *fixture {
	t.Helper()
	f := start(t)
	f.push(t, "acme",
		line{`app="api",env="prod",pod="api-1"`, second(10), "one", nil},
		line{`app="api",env="dev",pod="api-2"`, second(20), "three", nil},
		line{`app="db",env="prod",shard="0",quote="a\"b\\c"`, second(30), "four and five", nil},
	)
	f.push(t, "other", line{`app="secret",hidden="yes"`, second(20), "not yours", nil})
	f.landAll(t)
	f.push(t, "acme",
		line{`app="api",env="prod",pod="api-1"`, second(40), "seven", nil},
		line{`app="web",env="prod",region="eu"`, second(50), "eleven", nil},
	)
	f.push(t, "other", line{`app="secret",fresh="yes"`, second(50), "not yours", nil})
	return f
}

func TestLabelsAndValues(t *testing.T) {
	f := pushStreams(t)
	for _, c := range []struct {
		name  string
		scope Scope
		label string // empty: the names of labels
		want  string
	}{
		{"all", scope(t, ""), "", "app env pod quote region shard"},
		{"of a selector", scope(t, `{app="api"}`), "", "app env pod"},
		{"of a selector that ClickHouse leaves to the engine", scope(t, `{app=~"a.*|w.*", env!~"dev|"}`), "", "app env pod region"},
		{"of a selector without what is fresh", scope(t, `{env="dev"}`), "", "app env pod"},
		{"of a label that is not there", scope(t, `{shard="", app!="web"}`), "", "app env pod"},
		{"until a time", Scope{Tenant: "acme", Start: second(0), End: second(30)}, "", "app env pod"},
		{"from a time", Scope{Tenant: "acme", Start: second(50), End: second(60)}, "", "app env region"},
		{"of another time", Scope{Tenant: "acme", Start: second(51), End: second(60)}, "", ""},
		{"of another tenant", Scope{Tenant: "other", Start: second(0), End: second(60)}, "", "app fresh hidden"},
		{"of no tenant", Scope{Tenant: "nobody", Start: second(0), End: second(60)}, "", ""},
		{"values", scope(t, ""), "app", "api db web"},
		{"values of a selector", scope(t, `{env="prod"}`), "pod", "api-1"},
		{"values of a selector of the same label", scope(t, `{app=~".+b"}`), "app", "db web"},
		{"values with escapes", scope(t, `{quote=~"a.*"}`), "quote", `a"b\c`},
		{"values of no label", scope(t, ""), "nothing", ""},
		{"values of another tenant", scope(t, ""), "hidden", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			var err error
			if c.label == "" {
				got, err = f.Labels(t.Context(), c.scope)
			} else {
				got, err = f.LabelValues(t.Context(), c.scope, c.label)
			}
			if err != nil || strings.Join(got, " ") != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestSeries(t *testing.T) {
	f := pushStreams(t)
	selector := func(text string) []logql.Matcher { return scope(t, text).Matchers }
	for _, c := range []struct {
		name      string
		selectors [][]logql.Matcher
		want      string
	}{
		{"all", [][]logql.Matcher{nil}, `{app="api", env="dev", pod="api-2"}
{app="api", env="prod", pod="api-1"}
{app="db", env="prod", quote="a\"b\\c", shard="0"}
{app="web", env="prod", region="eu"}`},
		{"of two that overlap", [][]logql.Matcher{selector(`{app="api",env="prod"}`), selector(`{env=~"prod",app!="db"}`)}, `{app="api", env="prod", pod="api-1"}
{app="web", env="prod", region="eu"}`},
		{"none", [][]logql.Matcher{selector(`{app="secret"}`)}, ``},
	} {
		found, err := f.Series(t.Context(), scope(t, ""), c.selectors)
		must(t, err)
		var got []string
		for _, labels := range found {
			got = append(got, selectorOf(labels))
		}
		if strings.Join(got, "\n") != c.want {
			t.Errorf("%s\n--- got\n%s\n--- want\n%s", c.name, strings.Join(got, "\n"), c.want)
		}
	}
}

func TestDetectedLabels(t *testing.T) {
	f := start(t)
	const uuid = "5d3f1f5e-5f3c-4ab0-8f6c-0d3e0b5a7a1"
	for i := range 3 {
		if i == 2 {
			f.landAll(t)
		}
		f.push(t, "acme", line{fmt.Sprintf(`app="api",id="%s%d",instance="%d",number="%d",ok="%d",some="%d"`, uuid, i, i, i*10, i%2, i), second(i), "", nil},
			line{`some="x"`, second(i), "", nil})
	}
	got, err := f.DetectedLabels(t.Context(), scope(t, ""))
	if want := []DetectedLabel{{"app", 1}, {"instance", 3}, {"ok", 2}, {"some", 4}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	got, err = f.DetectedLabels(t.Context(), scope(t, `{some=~"x|0"}`))
	if want := []DetectedLabel{{"app", 1}, {"instance", 1}, {"number", 1}, {"ok", 1}, {"some", 2}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestABadMatcherIsTheFaultOfTheQuery(t *testing.T) {
	f := start(t)
	s := scope(t, "")
	s.Matchers = []logql.Matcher{{Name: "app", Op: logql.Regexp, Value: "("}}
	if _, err := f.Labels(t.Context(), s); err == nil || !strings.Contains(err.Error(), "missing closing )") {
		t.Error(err)
	}
}

func TestNamesAreBounded(t *testing.T) {
	n := names{}
	var err error
	for i := 0; err == nil && i <= maxNames; i++ {
		err = n.add(fmt.Sprint(i))
	}
	if _, ok := errors.AsType[*Error](err); !ok || len(n) != maxNames+1 {
		t.Error(len(n), err)
	}
}

func TestAreIDs(t *testing.T) {
	for _, c := range []struct {
		values string
		want   bool
	}{
		{"1 2", true}, {"0 1", false}, {"0", false}, {"2", true}, {"1.5 -3e7", true}, {"1 a", false},
		{"5D3F1f5e-5f3c-4ab0-8f6c-0d3e0b5a7a11 7", true}, {"5d3f1f5e-5f3c-4ab0-8f6c_0d3e0b5a7a11", false}, {"5d3f1f5e-5f3c-4ab0-8f6c-0d3e0b5a7a1g", false},
	} {
		n := names{}
		for value := range strings.FieldsSeq(c.values) {
			must(t, n.add(value))
		}
		if n.areIDs() != c.want {
			t.Errorf("%q: %v", c.values, !c.want)
		}
	}
}

// BenchmarkLabels asks about some streams, and about a great many, most of them with a label value of their own.
func BenchmarkLabels(b *testing.B) {
	f := start(b)
	for _, of := range []struct {
		tenant  string
		streams int
	}{{"some", 500}, {"many", 100_000}} {
		for i := 0; i < of.streams; {
			var batch []line
			for ; len(batch) < 10_000 && i < of.streams; i++ {
				batch = append(batch, line{fmt.Sprintf(`app="app-%d",env="prod",pod="pod-%d"`, i%50, i), second(i % 3600), "x", nil})
			}
			f.push(b, of.tenant, batch...)
		}
		f.landAll(b)
		s := Scope{Tenant: of.tenant, Start: second(0), End: second(3600)}
		regexp := s
		regexp.Matchers = []logql.Matcher{{Name: "app", Op: logql.Regexp, Value: "app-1.*"}}
		for _, question := range []struct {
			name string
			ask  func() error
		}{
			{"labels", func() error { _, err := f.Labels(b.Context(), s); return err }},
			{"values", func() error { _, err := f.LabelValues(b.Context(), s, "app"); return err }},
			{"values of a regexp", func() error { _, err := f.LabelValues(b.Context(), regexp, "app"); return err }},
			{"detected", func() error { _, err := f.DetectedLabels(b.Context(), s); return err }},
			{"series", func() error { _, err := f.Series(b.Context(), s, [][]logql.Matcher{nil}); return err }},
			{"stats", func() error { _, err := f.IndexStats(b.Context(), s); return err }},
			{"volume", func() error {
				_, err := f.Volume(b.Context(), VolumeQuery{Scope: s, TargetLabels: []string{"app"}, Step: 60e9})
				return err
			}},
		} {
			b.Run(of.tenant+"/"+question.name, func(b *testing.B) {
				for b.Loop() {
					must(b, question.ask())
				}
			})
		}
	}
}

func TestCompareLabels(t *testing.T) {
	a, b := []logs.Label{{Name: "a", Value: "1"}}, []logs.Label{{Name: "a", Value: "1"}, {Name: "b", Value: "0"}}
	if compareLabels(a, b) >= 0 || compareLabels(b, a) <= 0 || compareLabels(a, a) != 0 {
		t.Error("fewer labels do not go first")
	}
}
