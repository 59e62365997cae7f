package logs

import (
	"slices"
	"testing"
)

func TestSelector(t *testing.T) {
	labels := pairs("app", "api", "env", "prod", "text", "two\nlines")
	for _, c := range []struct {
		name  string
		op    MatchOp
		value string
		want  bool
	}{
		{"app", MatchEqual, "api", true},
		{"app", MatchEqual, "ap", false},
		{"app", MatchNotEqual, "api", false},
		{"app", MatchNotEqual, "db", true},
		{"none", MatchEqual, "", true},
		{"none", MatchNotEqual, "", false},
		{"app", MatchNotEqual, "", true},
		{"none", MatchEqual, "x", false},
		{"app", MatchRegexp, "a", false},
		{"app", MatchRegexp, "a.*", true},
		{"app", MatchRegexp, "db|api", true},
		{"app", MatchRegexp, "db|ap", false},
		{"app", MatchRegexp, "API", false},
		{"app", MatchRegexp, "(?i)API", true},
		{"app", MatchNotRegexp, "db|api", false},
		{"app", MatchNotRegexp, "db|ap", true},
		{"none", MatchRegexp, ".*", true},
		{"none", MatchRegexp, ".+", false},
		{"none", MatchNotRegexp, ".+", true},
		{"text", MatchRegexp, "two.lines", true},
		{"text", MatchRegexp, "two", false},
	} {
		s, err := NewSelector([]Matcher{{c.name, c.op, c.value}})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Matches(labels); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	both, err := NewSelector([]Matcher{{"app", MatchEqual, "api"}, {"env", MatchEqual, "dev"}})
	if err != nil || both.Matches(labels) {
		t.Error("all matchers have to hold", err)
	}
	none, err := NewSelector(nil)
	if err != nil || !none.Matches(nil) {
		t.Error("without a matcher all match", err)
	}
	for _, bad := range []Matcher{{"a", MatchRegexp, "("}, {"a", MatchNotRegexp, "a{2000}"}, {"a", 4, "x"}} {
		if _, err := NewSelector([]Matcher{bad}); err == nil {
			t.Errorf("%+v is compiled", bad)
		}
	}
}

func TestParseLabels(t *testing.T) {
	for _, want := range [][]Label{
		pairs("app", "api"),
		pairs("a", "1", "b", "2", "c", "3"),
		pairs("a", `x":"y`, "b", `\`),
		pairs("a", "a,b", "b", "}", "c", "{"),
		pairs("a", "\x00\n\t\x7fé😀"),
	} {
		text, err := Canonical(slices.Clone(want))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseLabels(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s\n got %q, %v\nwant %q", text, got, err, want)
		}
	}
	for text, want := range map[string][]Label{
		`{}`:                   {},
		`{ "b": "2", "a":"1"}`: pairs("a", "1", "b", "2"),
		`{"b":"2","a":"1"}`:    pairs("a", "1", "b", "2"),
		`{"a":"\u00e9"}`:       pairs("a", "é"),
	} {
		if got, err := ParseLabels(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "{", "}", `{"a"}`, `{"a":1}`, `{"a":"b"`, `{"a":"b",}`, `{"a":"b"}x`, `{"a":"b"`, `["a"]`, `{"a":"\x"}`} {
		if got, err := ParseLabels(bad); err == nil {
			t.Errorf("%s: %q", bad, got)
		}
	}
}

// Whatever is taken for labels is read again from its canonical form.
func FuzzParseLabels(f *testing.F) {
	for _, text := range []string{`{"a":"b","c":"d"}`, `{"a":"\"\\\u000a"}`, `{}`, `{"a":"b",}`, `{"a":"b","a":"c"}`, "{\"a\":\"\n\"}", "{\"a\":\"\xff\"}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		want, err := ParseLabels(text)
		if err != nil {
			return
		}
		canonical, err := Canonical(slices.Clone(want))
		if err != nil {
			return
		}
		want = slices.DeleteFunc(want, func(l Label) bool { return l.Value == "" })
		if got, err := ParseLabels(canonical); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, and in canonical form %q\n got %q, %v\nwant %q", text, canonical, got, err, want)
		}
	})
}

func BenchmarkParseLabels(b *testing.B) {
	const text = `{"app":"api","cluster":"eu-1","container":"server","namespace":"prod","pod":"api-7f9c6d5b4-x2x8q"}`
	for b.Loop() {
		if _, err := ParseLabels(text); err != nil {
			b.Fatal(err)
		}
	}
}
