package logs

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// pairs makes labels of names and values in turn.
func pairs(text ...string) []Label {
	var labels []Label
	for i := 0; i < len(text); i += 2 {
		labels = append(labels, Label{Name: text[i], Value: text[i+1]})
	}
	return labels
}

func TestCanonical(t *testing.T) {
	for _, c := range []struct {
		in   []Label
		want string
	}{
		{pairs("app", "api"), `{"app":"api"}`},
		{pairs("b", "2", "a", "1", "B", "3", "_", "4"), `{"B":"3","_":"4","a":"1","b":"2"}`},
		{pairs("a", "1", "aa", "2", "a1", "3", "a_", "4"), `{"a":"1","a1":"3","a_":"4","aa":"2"}`},
		{pairs("__name__", "x", "a0", "y"), `{"__name__":"x","a0":"y"}`},
		{pairs("a", "", "b", "2", "c", ""), `{"b":"2"}`},
		{pairs("z", "1", "a", ""), `{"z":"1"}`},
		{pairs("a", `"\/`), `{"a":"\"\\/"}`},
		{pairs("a", "\x00\b\t\n\r\x1f\x7f"), `{"a":"\u0000\u0008\u0009\u000a\u000d\u001f` + "\x7f" + `"}`},
		{pairs("a", "é€😀\u2028<>&\ufffd"), `{"a":"é€😀` + "\u2028<>&\ufffd" + `"}`},
		{pairs("a", " "), `{"a":" "}`},
	} {
		got, err := Canonical(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q\n got %s, %v\nwant %s", c.in, got, err, c.want)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for _, c := range []struct {
		in   []Label
		want string
	}{
		{nil, "a stream needs at least one label"},
		{pairs("a", "", "b", ""), "a stream needs at least one label"},
		{pairs("", "x"), `label name "" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{pairs("a", "1", "0a", "x"), `label name "0a" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{pairs("a.b", "x"), `label name "a.b" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{pairs("a:b", "x"), `label name "a:b" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{pairs("é", "x"), `label name "é" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{pairs("a\"b", ""), `label name "a\"b" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{pairs("a\x00", "x"), `label name "a\x00" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{pairs(strings.Repeat("é", 100), "x"), `label name "` + strings.Repeat("é", 32) + `…" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{pairs("a", "1", "b", "2", "a", "1"), `label "a" is given twice`},
		{pairs("a", "", "a", "1"), `label "a" is given twice`},
		{pairs("a", "x\xffy"), `the value of label "a" is not valid UTF-8: "x\xffy"`},
		{pairs("a", "\xed\xa0\x80"), `the value of label "a" is not valid UTF-8: "\xed\xa0\x80"`},
	} {
		got, err := Canonical(c.in)
		if err == nil || err.Error() != c.want {
			t.Errorf("%q\n got %s, %v\nwant %s", c.in, got, err, c.want)
		}
	}
	if _, err := Canonical(nil); !errors.Is(err, ErrNoLabels) {
		t.Error(err)
	}
}

// The canonical form is the same for every order of the labels, and any JSON reader gets them back.
func TestCanonicalIsJSON(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		want := map[string]string{}
		for range 1 + rnd.IntN(8) {
			value := []rune{'x'}
			for range rnd.IntN(6) {
				value = append(value, []rune{0, '\n', '"', '\\', '/', 'a', 0x7f, 'é', '\u2028', '😀', '\ufffd'}[rnd.IntN(11)])
			}
			want[string(rune('a'+rnd.IntN(26)))+"_0"] = string(value)
		}
		var labels []Label
		for name, value := range want {
			labels = append(labels, Label{Name: name, Value: value})
		}
		first, err := Canonical(slices.Clone(labels))
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(labels)
		second, err := Canonical(labels)
		if err != nil || second != first {
			t.Fatalf("%s and %s, %v", first, second, err)
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(first), &got); err != nil || !maps.Equal(got, want) {
			t.Fatalf("%s: %v", first, err)
		}
	}
}

// A changed hash would make every stream a new one: these values are for ever.
func TestStreamID(t *testing.T) {
	for _, c := range []struct {
		tenant, labels string
		want           uint64
	}{
		{"acme", `{"app":"api"}`, 0xef50ab81f8723a3e},
		{"", "", 0xe934a84adb052768}, // XXH64 of one zero byte
	} {
		if got := StreamID(c.tenant, c.labels); got != c.want {
			t.Errorf("%s %s: %#x", c.tenant, c.labels, got)
		}
	}
	if StreamID("ab", "c") == StreamID("a", "bc") {
		t.Error("tenant and labels run into each other")
	}
}
