package loki

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/shared/logs"
)

func TestParseLabels(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string // name, value, ...
	}{
		{`{app="x"}`, []string{"app", "x"}},
		{`{app="x", env="y"}`, []string{"app", "x", "env", "y"}},
		{`{b="1",a="2"}`, []string{"b", "1", "a", "2"}},
		{`{_a1_B="x",}`, []string{"_a1_B", "x"}},
		{" \t\r\n{ \n a \t = \r 'x' , \n } \n", []string{"a", "x"}},
		{`{a=""}`, []string{"a", ""}},
		{`{a="1",a="2"}`, []string{"a", "1", "a", "2"}},
		{`{"foo"="bar"}`, []string{"foo", "bar"}},
		{`{'foo' = "bar", ` + "`baz`" + `="1"}`, []string{"foo", "bar", "baz", "1"}},
		{`{"f\x6fo"="bar"}`, []string{"foo", "bar"}},
		{`{sum="keyword",by="another"}`, []string{"sum", "keyword", "by", "another"}},
		// What stands in quotes is not syntax.
		{`{a="{}=,'` + "`" + `#"}`, []string{"a", "{}=,'`#"}},
		{`{a='"'}`, []string{"a", `"`}},
		// Escapes are Go's.
		{`{a="\a\b\f\n\r\t\v\\\""}`, []string{"a", "\a\b\f\n\r\t\v\\\""}},
		{`{a='\''}`, []string{"a", "'"}},
		{`{a="\101\x41\u0041\U00000041\u00e9\U0001F600"}`, []string{"a", "AAAAé😀"}},
		{`{a="é\n😀"}`, []string{"a", "é\n😀"}},
		{`{a="\xff\377"}`, []string{"a", "\xff\xff"}},
		{"{a=\"\xff\\n\xfe\"}", []string{"a", "\xff\n\xfe"}},
		{"{a=\"\x00\"}", []string{"a", "\x00"}},
		// Backticks have none.
		{"{a=`\\n\"'`}", []string{"a", `\n"'`}},
		{"{a=`1\n2\r`}", []string{"a", "1\n2\r"}},
	} {
		labels, err := ParseLabels(c.in)
		var got []string
		for _, l := range labels {
			got = append(got, l.Name, l.Value)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s\n got %q, %v\nwant %q", c.in, got, err, c.want)
		}
	}
}

func TestParseLabelsRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`app`, `offset 0: want '{', got "a"`},
		{`app{a="b"}`, `offset 0: want '{', got "a"`},
		{`é`, `offset 0: want '{', got "é"`},
		{`{`, `offset 1: want a label name, got the end`},
		{`{app`, `offset 4: want '=', got the end`},
		{`{app=`, `offset 5: want a quoted string, got the end`},
		{`{app="`, `offset 5: the string has no end`},
		{`{app="x`, `offset 5: the string has no end`},
		{`{app="x\`, `offset 7: bad escape "\\"`},
		{`{app="\n`, `offset 5: the string has no end`},
		{`{app="x"`, `offset 8: want ',' or '}', got the end`},
		{`{app="x",`, `offset 9: want a label name, got the end`},
		{`{app="x"}}`, `offset 9: want nothing after '}', got "}"`},
		{`{app="x"} {`, `offset 10: want nothing after '}', got "{"`},
		{`{,}`, `offset 1: want a label name, got ","`},
		{`{app="x",,}`, `offset 9: want a label name, got ","`},
		{`{app="x" env="y"}`, `offset 9: want ',' or '}', got "e"`},
		{`{app="x";env="y"}`, `offset 8: want ',' or '}', got ";"`},
		{`{app}`, `offset 4: want '=', got "}"`},
		{`{"app"}`, `offset 6: want '=', got "}"`},
		{`{app=x}`, `offset 5: want a quoted string, got "x"`},
		{`{app=1}`, `offset 5: want a quoted string, got "1"`},
		{`{app!="x"}`, `offset 4: want '=', got "!"`},
		{`{app=~"x"}`, `offset 4: want '=', got "=~"`},
		{`{app!~"x"}`, `offset 4: want '=', got "!"`},
		{`{app=="x"}`, `offset 5: want a quoted string, got "="`},
		{`{1app="x"}`, `offset 1: want a label name, got "1"`},
		{`{a.b="x"}`, `offset 2: want '=', got "."`},
		{`{a:b="x"}`, `offset 2: want '=', got ":"`},
		{`{é="x"}`, `offset 1: want a label name, got "é"`},
		{`{"a.b"="x"}`, `offset 1: label name "a.b" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{`{""="x"}`, `offset 1: label name "" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{"{a=\"x\ny\"}", `offset 5: a new line in a quoted string`},
		{"{a=\"\\t\ny\"}", `offset 6: a new line in a quoted string`},
		{`{a="\q"}`, `offset 4: bad escape "\\q"`},
		{`{a="\'"}`, `offset 4: bad escape "\\'"`},
		{`{a='\"'}`, `offset 4: bad escape "\\\""`},
		{`{a="\x4"}`, `offset 4: bad escape "\\x"`},
		{`{a="\400"}`, `offset 4: bad escape "\\4"`},
		{`{a="\18"}`, `offset 4: bad escape "\\1"`},
		{`{a="\ud800"}`, `offset 4: bad escape "\\u"`},
		{`{a="\U00110000"}`, `offset 4: bad escape "\\U"`},
		{"{a=`x}", `offset 3: the string has no end`},
		{"{a=\"b\"} # comment", `offset 8: want nothing after '}', got "#"`},
	} {
		got, err := ParseLabels(c.in)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s\n got %v, %v\nwant %s", c.in, got, err, c.want)
		}
	}
	for _, none := range []string{``, ` `, `{}`, ` { } `} {
		if _, err := ParseLabels(none); !errors.Is(err, logs.ErrNoLabels) {
			t.Errorf("%q: %v", none, err)
		}
	}
}

func TestParseLabelsIsBounded(t *testing.T) {
	var s strings.Builder
	for i := range decode.MaxLabels {
		fmt.Fprintf(&s, `,l%d="x"`, i)
	}
	if got, err := ParseLabels("{" + s.String()[1:] + "}"); err != nil || len(got) != decode.MaxLabels {
		t.Errorf("%d labels, %v", len(got), err)
	}
	if _, err := ParseLabels("{" + s.String()[1:] + `,more="x"}`); !errors.Is(err, decode.ErrTooManyLabels) {
		t.Errorf("%v", err)
	}
}

// FuzzParseLabels checks that labels which are read can be written and read again.
func FuzzParseLabels(f *testing.F) {
	for _, s := range []string{
		`{app="x", env="y"}`, `{a="1",}`, `{}`, ``, `{"foo"='bar'}`, "{a=`x`}", `{a="\u00e9\x41\101\U0001F600\""}`,
		`{a=~"x"}`, `{a!="x"}`, "{ a =\n'x' }", `{a="\`, "{a=\"\xff\"}", `x{a="b"}`, `{a="b"}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		labels, err := ParseLabels(s)
		if err != nil {
			return
		}
		again := "{"
		for _, l := range labels {
			if !logs.ValidLabelName(l.Name) {
				t.Fatalf("label name %q", l.Name)
			}
			again += fmt.Sprintf("%s=%q,", l.Name, l.Value)
		}
		got, err := ParseLabels(again + "}")
		if err != nil || !slices.Equal(got, labels) {
			t.Fatalf("%q\n got %q, %v\nwant %q", again, got, err, labels)
		}
	})
}
