package logql

import (
	"reflect"
	"strings"
	"testing"
)

func TestParsePattern(t *testing.T) {
	text := func(s string) PatternPart { return PatternPart{Literal: s} }
	capture := func(s string) PatternPart { return PatternPart{Capture: s, IsCapture: true} }
	for _, test := range []struct {
		pattern string
		want    []PatternPart
	}{
		{"", nil},
		{"text", []PatternPart{text("text")}},
		{"<a>", []PatternPart{capture("a")}},
		{"<_>", []PatternPart{capture("_")}},
		{"<ip> - <_> [<_>]", []PatternPart{capture("ip"), text(" - "), capture("_"), text(" ["), capture("_"), text("]")}},
		{"<a b> <c>", []PatternPart{text("<a b> "), capture("c")}},
		{"<<a>>", []PatternPart{text("<"), capture("a"), text(">")}},
		{"<1a><>< <é> <", []PatternPart{text("<1a><>< <é> <")}},
		{"é<_a1>é", []PatternPart{text("é"), capture("_a1"), text("é")}},
	} {
		got, err := ParsePattern(test.pattern)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: %+v, %v; want %+v", test.pattern, got, err, test.want)
		}
	}
}

func TestParsePatternRefuses(t *testing.T) {
	long := strings.Repeat("x", 200)
	for pattern, want := range map[string]string{
		"<a><b>":            "found consecutive capture '<a><b>': there has to be text between two",
		"x<_><_>":           "found consecutive capture '<_><_>': there has to be text between two",
		"<a> <b><a>":        "found consecutive capture '<b><a>': there has to be text between two",
		"<a> <a>":           "duplicate capture name (a)",
		"<" + long + "><b>": "found consecutive capture '<" + long[:100] + "…><b>': there has to be text between two",
		"<a> <b><c> <d>":    "found consecutive capture '<b><c>': there has to be text between two",
	} {
		if _, err := ParsePattern(pattern); err == nil || err.Error() != want {
			t.Errorf("%q: %v; want %s", pattern, err, want)
		}
	}
}
