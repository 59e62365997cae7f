package pipeline

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/casteloig/logthra/shared/logs"
)

func TestLabelsReset(t *testing.T) {
	for _, c := range []struct {
		stream, metadata, want string
	}{
		{"", "", ""},
		{"app=x env=", "m=1 n=", `app="x" m~"1"`},
		{"app=x", "7=q a-b=0 a.b=1 a_b=2 app=3 app_extracted=4 é=5 éé=6", `app="x" _~"5" _7~"q" __~"6" a_b~"0" app_extracted~"3"`},
		{"", "__error__=1 __error_details__=2 detected_level=info", `__error___extracted~"1" __error_details___extracted~"2" detected_level~"info"`},
		{"detected_level=warn", "detected_level=info", `detected_level="warn" detected_level_extracted~"info"`},
	} {
		var l Labels
		l.Set(Parsed, "old", "1")
		l.Reset(labelsOf(c.stream), labelsOf(c.metadata))
		if got := show(&l); got != c.want {
			t.Errorf("%s / %s\n got %s\nwant %s", c.stream, c.metadata, got, c.want)
		}
	}
}

func TestLabels(t *testing.T) {
	var l Labels
	l.Reset(labelsOf("app=x env=prod"), labelsOf("app=y m=1"))
	for name, want := range map[string]string{"app": "x true", "app_extracted": "y true", "m": "1 true", "nope": " false", ErrorLabel: " false", DetailsLabel: " false", LevelLabel: " false"} {
		value, ok := l.Get(name)
		if got := fmt.Sprint(value, " ", ok); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	l.Set(Parsed, "env", "dev")
	l.Set(Parsed, "empty", "")
	l.Delete("m")
	l.Delete("nope")
	l.Set(Metadata, ErrorLabel, "SomeErr")
	l.Set(Metadata, DetailsLabel, "why")
	if got, want := show(&l), `app="x" app_extracted~"y" __error__:"SomeErr" empty:"" env:"dev"`; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if name, details := l.Err(); name != "SomeErr" || details != "why" {
		t.Error(name, details)
	}
	all := labelsOf("__error__=SomeErr __error_details__=why app=x app_extracted=y empty= env=dev")
	if got := l.Append([]logs.Label{{Name: "first"}}); !reflect.DeepEqual(got[1:], all) || got[0].Name != "first" {
		t.Errorf("got %v", got)
	}
	for _, c := range []struct {
		names   []string
		without bool
		want    string
	}{
		{nil, false, ""},
		{[]string{"env", "app", "env", "empty", "nope", "m"}, false, "app=x env=dev"},
		{[]string{ErrorLabel}, false, "__error__=SomeErr"},
		{nil, true, "__error__=SomeErr __error_details__=why app=x app_extracted=y env=dev"},
		{[]string{"env", "nope", DetailsLabel}, true, "__error__=SomeErr app=x app_extracted=y"},
	} {
		if got, want := l.Group(nil, c.names, c.without), labelsOf(c.want); !reflect.DeepEqual(got, want) {
			t.Errorf("%q %t\n got %v\nwant %v", c.names, c.without, got, want)
		}
	}
	l.Delete(ErrorLabel)
	if name, details := l.Err(); name+details != "" {
		t.Error("the error stays:", name, details)
	}
	l.Set(Stream, "m", "2")
	if value, ok := l.Get("m"); value != "2" || !ok {
		t.Error("a label that was taken away can't be set again")
	}
}

// TestLabelsStayGood checks that what Append returns is not changed by the entries that follow.
func TestLabelsStayGood(t *testing.T) {
	p := newPipeline(t, "| json | label_format c=`{{.a}}!`")
	var l Labels
	line := []byte(`{"a":"1\u0041","b":{"x":"2"},"app":"3"}`)
	l.Reset(labelsOf("app=x"), labelsOf("app=y"))
	p.Process(0, line, &l)
	got := l.Append(nil)
	want := fmt.Sprint(got)
	copy(line, bytesOf('#', len(line)))
	l.Reset(labelsOf("app=x"), labelsOf("app=z"))
	p.Process(0, []byte(`{"q":"\u0042\u0042","r":{"s":"9"},"app":"8"}`), &l)
	if fmt.Sprint(got) != want || want != `[{a 1A} {app x} {app_extracted y} {b_x 2} {c 1A!}]` {
		t.Errorf("got %v, before %s", got, want)
	}
}

func bytesOf(c byte, n int) []byte { return []byte(strings.Repeat(string(c), n)) }

// TestManyLabels has more labels than are looked through one by one.
func TestManyLabels(t *testing.T) {
	const n = 10 * indexFrom
	var line strings.Builder
	line.WriteString(`{"app":"no"`)
	for range 2 {
		for i := range n {
			fmt.Fprintf(&line, `,"l%d":"%d"`, i, i)
		}
	}
	line.WriteString("}")
	p := newPipeline(t, `| json | l5="5" | drop l7 | label_format l8=l9 | keep app, l5, l6, l7, l8, l9, app_extracted`)
	var l Labels
	for range 3 {
		l.Reset(labelsOf("app=x"), nil)
		if _, keep := p.Process(0, []byte(line.String()), &l); !keep {
			t.Fatal("dropped")
		}
		if got, want := show(&l), `app="x" app_extracted:"no" l5:"5" l6:"6" l8:"9"`; got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
		l.Reset(labelsOf("app=y"), nil)
		if got, want := show(&l), `app="y"`; got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
}

func TestLevel(t *testing.T) {
	for _, c := range []struct{ stream, metadata, line, want string }{
		{"", "", "", "unknown"},
		{"level=INFO", "level=error", "level=debug", "info"},
		{"", "severity=Warning", "level=debug", "warn"},
		{"", "LEVEL=trace lvl=error", "", "trace"},
		{"lvl=fatal", "level=error", "", "fatal"},
		{"loglevel=error severity=info", "", "", "info"},
		{"level= lvl=crit", "", "", "critical"},
		{"level=loud", "", "level=debug", "unknown"},
		{"level=informational!", "", "", "unknown"},
		{"levels=info", "log.level=info", "nothing", "unknown"},
		{"", "severity_text=NOTICE", "", "info"},
		{"", "", "level=info msg=error", "info"},
		{"", "", `{"level":"ERROR","x":1}`, "error"},
		{"", "", `{"log_level" : 'warn'}`, "warn"},
		{"", "", `{\"Severity\":\"Critical\"}`, "critical"},
		{"", "", `lvl:dbg`, "debug"},
		{"", "", "level=\tinfo", "info"},
		{"", "", "level=\vinfo", "info"}, // as a word that stands alone
		{"", "", "xlevel=dbg", "unknown"},
		{"", "", "_level=dbg", "unknown"},
		{"", "", "level=dbgx level=inf", "info"},
		{"", "", "level=level=wrn", "warn"},
		{"", "", "level= =wrn", "unknown"},
		{"", "", "level='\"wrn", "unknown"},
		{"", "", "level=emergency.", "fatal"},
		{"", "", "an ERROR and a warning", "error"},
		{"", "", "warning: no errors", "warn"},
		{"", "", "[INFO] fine", "info"},
		{"", "", "panic in info", "fatal"},
		{"", "", "\xffdebug\xff", "debug"},
		{"", "", "error_count=0 infos", "unknown"},
		{"", "", "a stack trace", "trace"},
		{"", "", "err", "error"},
		{"", "", "\u212aritical critical", "critical"},
	} {
		var l Labels
		l.Reset(labelsOf(c.stream), labelsOf(c.metadata))
		if got := DetectLevel(&l, []byte(c.line)); got != c.want {
			t.Errorf("%s / %s / %q: got %s, want %s", c.stream, c.metadata, c.line, got, c.want)
		}
	}
}

func TestLevelLabel(t *testing.T) {
	checkStages(t, []stageCase{
		{stages: `| detected_level="error"`, line: "an error", want: `detected_level~"error"`},
		{stages: `| detected_level="error"`, line: "fine", want: "dropped"},
		{stages: "| line_format `fine` | detected_level=`error`", line: "an error", want: `"fine" detected_level~"error"`},
		{stages: "| label_format level=`info` | detected_level=`error`", line: "x", stream: "level=err", want: `detected_level~"error" level:"info"`},
		{stages: "| label_format detected_level=`q`", line: "an error", want: `detected_level:"q"`},
		{stages: "| label_format l=detected_level", line: "an error", want: `l:"error"`},
		{stages: "| line_format `{{.detected_level}}`", line: "an error", want: `"error" detected_level~"error"`},
		{stages: "| line_format `{{.}}`", line: "an error", want: `"map[]"`},
		{stages: "| json | detected_level=`info` | line_format `{{.detected_level_extracted}}`", line: `{"detected_level":"x","level":"info"}`, want: `"x" detected_level~"info" detected_level_extracted:"x" level:"info"`},
		{stages: "| drop detected_level", line: "an error", want: ``},
		{stages: "| keep detected_level", line: "an error", want: `detected_level~"error"`},
		{stages: "| json | keep level", line: `{"level":"info"}`, want: `level:"info"`},
		{stages: "| detected_level=`warn`", line: "an error", metadata: "detected_level=warn", want: `detected_level~"warn"`},
		{stages: `|= "error"`, line: "an error", want: ``},
	})
	var l Labels
	l.Reset(labelsOf("app=x"), nil)
	l.SetLevel(nil)
	l.SetLevel([]byte("an error"))
	if got := l.Group(nil, []string{"app", LevelLabel}, false); fmt.Sprint(got) != "[{app x} {detected_level unknown}]" {
		t.Error(got)
	}
	l.Reset(labelsOf("app=x"), nil)
	l.SetLevel([]byte("an error"))
	if got := l.Group(nil, []string{LevelLabel}, true); fmt.Sprint(got) != "[{app x}]" {
		t.Error(got)
	}
	if got := l.Group(nil, nil, true); fmt.Sprint(got) != "[{app x} {detected_level error}]" {
		t.Error(got)
	}
}

func TestNeedsLevel(t *testing.T) {
	for stages, want := range map[string]bool{
		`|= "x" | json | level="x"`:                         false,
		`| detected_level="x"`:                              true,
		`| a="x" or (b>1 and detected_level!="x")`:          true,
		"| line_format `{{.detected_level}}`":               true,
		"| line_format `{{.a}}`":                            false,
		"| line_format `{{ $.detected_level | upper }}`":    true,
		"| label_format a=detected_level":                   true,
		"| label_format detected_level=a":                   false,
		"| label_format b=`{{if .detected_level}}x{{end}}`": true,
		"| drop detected_level":                             true,
		"| keep a, detected_level=`x`":                      true,
	} {
		if got := NeedsLevel(stagesOf(t, stages)); got != want {
			t.Errorf("%s: %t", stages, got)
		}
	}
}

func TestUnwrapNames(t *testing.T) {
	u := unwrapOf(t, `sum_over_time({app="x"} | unwrap bytes(a) | b="x" or ip=ip("1.1.1.1") | c > 1s, d < 1KB, a > 5 [1m])`)
	if got := fmt.Sprint(UnwrapNames(u)); got != "[a b ip c d]" {
		t.Error(got)
	}
}
