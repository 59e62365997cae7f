package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLabelFormat(t *testing.T) {
	checkStages(t, []stageCase{
		{stages: `| label_format a="t"`, line: "x", want: `a:"t"`},
		{stages: `| label_format app="t"`, line: "x", stream: "app=x", want: `app:"t"`},
		{stages: `| label_format meta="t"`, line: "x", metadata: "meta=m", want: `meta:"t"`},
		{stages: `| label_format foo=app`, line: "x", stream: "app=x", want: `foo:"x"`},
		{stages: `| label_format app=meta`, line: "x", stream: "app=x", metadata: "meta=m", want: `app:"m"`},
		{stages: `| label_format foo=nope, app=nope`, line: "x", stream: "app=x", want: `app="x"`},
		{stages: `| label_format app=app`, line: "x", stream: "app=x", want: ``},
		{stages: `| label_format b=a, c=b`, line: "x", stream: "a=1 b=2", want: `c:"1"`},
		// Templates see the labels as they are when the first one is executed.
		{stages: `| label_format a="{{.b}}", b="{{.a}}"`, line: "x", stream: "a=1 b=2", want: `a:"2" b:"1"`},
		{stages: `| label_format a=b, c="{{.b}}", d=c`, line: "x", stream: "b=1", want: `a:"1" d:""`},
		{stages: `| label_format c="{{.b}}", d=c, e="{{.c}}"`, line: "x", stream: "b=1", want: `b="1" d:"1" e:""`},
		{stages: `| label_format c="{{.b}}", b2=b, e="{{ .b | upper }}"`, line: "x", stream: "b=q", want: `b2:"q" c:"q" e:"Q"`},
		{stages: `| label_format a="" | a=""`, line: "x", want: `a:""`},
		{stages: `| label_format a="{{.nope}}"`, line: "x", want: `a:""`},
		{stages: "| label_format a=`{{ __line__ }}`, b=`{{ __timestamp__ | unixEpoch }}`", line: "l", want: `a:"l" b:"1700000000"`},
		{stages: "| json | label_format x=__error__", line: "l", want: `__error__:"JSONParserErr"`},
		{stages: "| json | label_format x=`{{.__error__}}`", line: "l", want: `__error__:"JSONParserErr" x:"JSONParserErr"`},
		{stages: "| label_format x=`{{div 1 0}}`, y=`2`", line: "l", want: `__error__:"TemplateFormatErr" y:"2"`},
		{stages: "| logfmt | label_format a=`{{.b}}` | a=`2`", line: "a=1 b=2", want: `a:"2" b:"2"`},
	})
}

func TestLineFormat(t *testing.T) {
	checkStages(t, []stageCase{
		{stages: `| line_format "{{.app}}-{{.nope}}-{{.meta}}"`, line: "x", stream: "app=a", metadata: "meta=m", want: `"a--m" app="a" meta~"m"`},
		{stages: "| line_format ``", line: "x", want: `""`},
		{stages: "| line_format `a {{__line__}}` | line_format `b {{__line__}}`", line: "z", want: `"b a z"`},
		{stages: "| line_format `a {{.app}}` | line_format `b {{.app}}{{__line__}}`", line: "z", stream: "app=x", want: `"b xa x" app="x"`},
		{stages: "| line_format `a=5` | logfmt", line: "z", want: `"a=5" a:"5"`},
		{stages: "| json | line_format `{{.__error__}} {{.__error_details__}}`", line: "z", want: `"JSONParserErr no JSON object: want '{' at offset 0" __error__:"JSONParserErr"`},
		{stages: "| line_format `{{div 1 0}}` | line_format `{{__line__}}q`", line: "z", want: `"zq" __error__:"TemplateFormatErr"`},
		{stages: "| json | line_format `{{.}}`", line: "x", stream: "app=x", want: `"map[__error__:JSONParserErr __error_details__:no JSON object: want '{' at offset 0 app:x]" app="x" __error__:"JSONParserErr"`},
		{stages: "| logfmt | drop b | line_format `{{range $k, $v := .}}{{$k}}={{$v}};{{end}}`", line: "a=1 b=2", stream: "app=x", metadata: "m=1", want: `"a=1;app=x;m=1;" app="x" m~"1" a:"1"`},
		{stages: "| logfmt | line_format `{{define \"t\"}}[{{.a}}]{{end}}{{template \"t\" .}}{{$x := .a}}{{$x}}{{with .a}}{{.}}{{end}}{{$.a}}`", line: "a=1", want: `"[1]111" a:"1"`},
	})
}

// TestTemplateFunctions executes templates on the labels a=1, s=" Héllo ", q='[{"k":"v","n":1.5},{"k":"w"}]', and the line "x a".
func TestTemplateFunctions(t *testing.T) {
	const failed = "TemplateFormatErr"
	for _, c := range [][2]string{
		{`{{ToLower "AbÉ"}}{{ToUpper "abé"}}{{lower "AB"}}{{upper "ab"}}`, `abéABÉabAB`},
		{`{{title "hello wORLD it's"}}`, `Hello WORLD It'S`},
		{`{{Replace "aaa" "a" "b" 2}}|{{replace "l" "L" "hello"}}|{{replace "" "-" "ab"}}|{{Replace "aa" "a" "b" 0}}`, `bba|heLLo|-a-b-|aa`},
		{`{{Trim "xaxx" "x"}}|{{TrimLeft "xax" "x"}}|{{TrimRight "xax" "x"}}|{{TrimPrefix "xax" "x"}}|{{TrimSuffix "xax" "x"}}|{{TrimSpace " a "}}`, `a|ax|xa|ax|xa|a`},
		{`{{trim "  a "}}|{{trimAll "$" "$5$"}}|{{trimPrefix "-" "-h"}}|{{trimSuffix "-" "h-"}}|{{.s | trim}}`, `a|5|h|h|Héllo`},
		{`{{trunc 3 "hello"}}|{{trunc -2 "hello"}}|{{trunc 9 "hello"}}|{{trunc -9 "hello"}}|{{trunc 0 "hello"}}`, `hel|lo|hello|hello|`},
		{`{{substr 1 3 "hello"}}|{{substr -1 3 "hello"}}|{{substr 2 -1 "hello"}}|{{substr 2 99 "hello"}}|{{substr 5 9 "hello"}}`, `el|hel|llo|llo|`},
		{`{{substr 7 9 "hello"}}`, failed},
		{`{{substr 3 1 "hello"}}`, failed},
		{`{{substr -1 9 "hello"}}`, failed},
		{`[{{alignLeft 5 "hi"}}][{{alignLeft 2 "héllo"}}][{{alignRight 5 "hi"}}][{{alignRight 2 "hellé"}}][{{alignRight 3 "é"}}][{{alignLeft -1 "abc"}}][{{alignRight -1 "abc"}}][{{alignLeft 0 "a"}}]`, `[hi   ][hé][   hi][lé][  é][abc][abc][]`},
		{`[{{indent 2 "a\nb"}}][{{nindent 2 "a"}}][{{repeat 3 "ab"}}][{{repeat 0 "ab"}}][{{repeat 9999999999 ""}}]`, "[  a\n  b][\n  a][ababab][][]"},
		{`{{repeat -1 "ab"}}`, failed},
		{`{{indent -1 "ab"}}`, failed},
		{`{{contains "he" "hello"}} {{hasSuffix "he" "hello"}} {{hasPrefix "he" "hello"}} {{and 1 0}} {{eq "a" "a"}} {{or 0 "x"}} {{not true}} {{if gt 3 2}}y{{else}}n{{end}} {{ne "a" "b"}}`, `true false true 0 true x false y true`},
		{`{{default "-" ""}}{{default "-" "x"}}{{.nope | default "d"}}{{default 5 0}}{{default 5}}`, `-xd55`},
		{`{{count "a|b" "abab"}} {{__line__ | count "x"}} {{count "z" "a"}}`, `4 1 0`},
		{`{{count "(" "abab"}}`, failed},
		{`{{regexReplaceAll "(a*)bc" "aabc" "${1}z"}} {{regexReplaceAllLiteral "(a)" "aabc" "${1}"}}`, `aaz ${1}${1}bc`},
		{`{{regexReplaceAll "(" "abab" "x"}}`, failed},
		{`{{fromJson "{\"a\":55}"}} {{range $x := fromJson .q}}[{{$x.k}}{{$x.n}}]{{end}} {{(fromJson "{\"b\":12345678901}").b}} {{fromJson "nope"}} {{index (fromJson "[1,2]") 1}}`, `map[a:55] [v1.5][w<no value>] 1.2345678901e+10 <no value> 2`},
		{`{{add 3 2 5}} {{sub 5 2}} {{mul 5 2 3}} {{div 10 3}} {{mod 10 3}} {{add}}`, `10 3 30 3 1 0`},
		{`{{add "3" 2.7 "x"}} {{sub "5" .a}} {{div 7 2.9}} {{add "2.7" 1}} {{mul "0x10" 2}}`, `5 4 3 3 32`},
		{`{{div 1 0}}`, failed},
		{`{{mod 1 "0"}}`, failed},
		{`{{addf 3.5 2 5}} {{subf 5.5 2 1.5}} {{mulf 5.5 2 2.5}} {{divf 10 2 4}} {{addf "1.5" .a}}`, `10.5 2 27.5 1.25 2.5`},
		{`{{ceil 123.001}} {{floor 123.9}} {{round 123.555555 3}} {{round 123.88571428571 5 .2}} {{ceil "1.2"}} {{floor "x"}}`, `124 123 123.556 123.88572 2 0`},
		{`{{max 1 2 3}} {{min 3 1 2}} {{maxf 1 2.5 3}} {{minf 1.5 2 3}} {{max "5" 2}}`, `3 1 3 1.5 5`},
		{`{{int "3"}} {{int 3.9}} {{int "3.9"}} {{int "x"}} {{int "010"}} {{int true}} {{float64 "3.5"}} {{float64 3}} {{len "abc"}}`, `3 3 3 0 8 1 3.5 3 3`},
		{`{{bytes "2KB"}} {{bytes "1 MiB"}} {{bytes "5"}}`, `2000 1.048576e+06 5`},
		{`{{bytes "x"}}`, failed},
		{`{{duration "1m30s"}} {{duration_seconds "250ms"}}`, `90 0.25`},
		{`{{duration ""}}`, failed},
		{`{{__timestamp__}} {{__timestamp__ | unixEpoch}} {{__timestamp__ | unixEpochMillis}} {{__timestamp__ | unixEpochNanos}} {{__timestamp__ | date "2006-01-02T15:04:05.000Z07:00"}}`, `2023-11-14 22:13:20.123456789 +0000 UTC 1700000000 1700000000123 1700000000123456789 2023-11-14T22:13:20.123Z`},
		{`{{toDate "2006-01-02" "2021-11-02"}} {{toDate "2006-01-02" "junk"}}`, `2021-11-02 00:00:00 +0000 UTC 0001-01-01 00:00:00 +0000 UTC`},
		{`{{toDateInZone "2006-01-02 15:04" "Europe/Berlin" "2021-11-02 10:00"}} {{toDateInZone "2006-01-02" "Nope/Zone" "2021-11-02"}}`, `2021-11-02 10:00:00 +0100 CET 2021-11-02 00:00:00 +0000 UTC`},
		{`{{date "2006-01-02 15:04" (toDateInZone "2006-01-02 15:04" "Europe/Berlin" "2021-11-02 10:00")}} {{date "2006-01-02" 86400}}`, `2021-11-02 09:00 1970-01-02`},
		{`{{unixToTime "18000"}}|{{unixToTime "1679577215"}}|{{unixToTime "1679577215123"}}|{{unixToTime "1679577215123456"}}|{{unixToTime "1679577215123456789"}}`, `2019-04-14 00:00:00 +0000 UTC|2023-03-23 13:13:35 +0000 UTC|2023-03-23 13:13:35.123 +0000 UTC|2023-03-23 13:13:35.123456 +0000 UTC|2023-03-23 13:13:35.123456789 +0000 UTC`},
		{`{{unixToTime "x"}}`, failed},
		{`{{unixToTime "167957"}}`, failed},
		{`{{unixEpoch "x"}}`, failed},
		{`{{urlencode "a b/?&é"}} {{urldecode "a+b%2F"}} {{b64enc "hello"}} {{b64dec "aGVsbG8="}} {{b64dec "!!"}}`, `a+b%2F%3F%26%C3%A9 a b/ aGVsbG8= hello illegal base64 data at input byte 0`},
		{`{{urldecode "%zz"}}`, failed},
		{`{{printf "%5s|%-3d|%.2f|%q|%%|%[1]s" .a 3 1.5 "x"}}|{{printf "%*d" 4 7}}`, `    1|3  |1.50|"x"|%|1|   7`},
		{`{{print 1 2 "x"}} {{println "q"}} {{html "<a>"}} {{js "it's"}} {{urlquery "a b"}} {{slice "abc" 1 2}}`, "1 2x q\n &lt;a&gt; it\\'s a+b b"},
		{`{{.s | trim | upper | printf "%s!"}}`, `HÉLLO!`},
		{`{{index .a 5}}`, failed},
		{`{{.a.b}}`, failed},
		{`{{trimSuffix}}`, failed},
	} {
		p := newPipeline(t, "| line_format `"+c[0]+"`")
		var labels Labels
		labels.Reset(append(labelsOf(`a=1 q=[{"k":"v","n":1.5},{"k":"w"}]`), labelsOf("s=")...), nil)
		labels.Set(Parsed, "s", " Héllo ")
		out, _ := p.Process(1_700_000_000_123_456_789, []byte("x a"), &labels)
		got := string(out)
		if name, details := labels.Err(); name != "" {
			if got = name; c[1] != failed {
				got += ": " + details
			}
		}
		if got != c[1] {
			t.Errorf("%s\n got %s\nwant %s", c[0], got, c[1])
		}
	}
	for _, now := range []string{`{{now | unixEpoch}}`, `{{date "2006" "x"}}`} {
		p := newPipeline(t, "| line_format `"+now+"`")
		if out, _ := p.Process(0, nil, &Labels{}); len(out) < 4 {
			t.Errorf("%s: %q", now, out)
		}
	}
}

// TestTemplatesAreBounded executes templates that would take all memory, or never end.
func TestTemplatesAreBounded(t *testing.T) {
	doubled := `{{$x := "0123456789abcdef"}}`
	for range 60 {
		doubled += `{{$x = printf "%s%s" $x $x}}`
	}
	for _, template := range []string{
		`{{repeat 999999999999 "ab"}}`,
		`{{alignLeft 999999999 "ab"}}`,
		`{{alignRight 999999999 "ab"}}`,
		`{{indent 999999999 "ab"}}`,
		`{{nindent 1000000 "a\na\na"}}`,
		`{{indent 9999 (repeat 9999 "\n")}}`,
		`{{replace "a" (repeat 9999 "b") (repeat 9999 "a")}}`,
		`{{replace "" (repeat 9999 "b") (repeat 9999 "a")}}`,
		`{{regexReplaceAll "a" (repeat 9999 "a") (repeat 9999 "b")}}`,
		`{{regexReplaceAll "(a+)" (repeat 99999 "a") (repeat 9999 "$1")}}`,
		`{{regexReplaceAllLiteral "" (repeat 9999 "a") (repeat 9999 "b")}}`,
		`{{printf "%999999999d" 1}}`,
		`{{printf "%.999999d%.999999d" 1 2}}`,
		`{{printf "%*d" 99999999 1}}`,
		`{{printf "` + strings.Repeat(`%[1]s`, 2000) + `" (repeat 9999 "a")}}`,
		`{{$x := repeat 9999 "\\"}}` + strings.Repeat(`{{$x = js $x}}`, 60),
		doubled,
		strings.Repeat(`{{repeat 99999 "ab"}}`, 20),
		`{{range 1000000000000}}{{end}}`,
		`{{range 100000}}{{range 100000}}{{end}}{{end}}`,
		`{{if true}}{{with 1}}{{range 1000000000000}}{{continue}}{{end}}{{end}}{{end}}`,
		`{{range $x := fromJson (printf "[%s0]" (repeat 99999 "0,"))}}{{upper "x"}}{{end}}`,
		`{{define "a"}}{{template "a" .}}{{end}}{{template "a" .}}`,
		`{{define "a"}}{{template "a" .}}{{template "a" .}}{{end}}{{template "a" .}}`,
		`{{define "a"}}{{if gt . 0}}{{template "a" (sub . 1)}}{{template "a" (sub . 1)}}{{end}}{{end}}{{template "a" 60}}`,
		`{{range 9000}}{{count "(x+x+)+y" (repeat 9999 "x")}}{{end}}`,
	} {
		p := newPipeline(t, "| line_format `"+template+"`")
		start := time.Now()
		var labels Labels
		labels.Reset(nil, nil)
		p.Process(0, []byte("x"), &labels)
		name, details := labels.Err()
		if name != TemplateFormatErr || !strings.Contains(details, "the template ") {
			t.Errorf("%.80s: %q %.200s", template, name, details)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%.80s took %s", template, took)
		}
	}
	// What is large, but not too large, is written.
	p := newPipeline(t, "| line_format `"+fmt.Sprintf(`{{repeat %d "a"}}`, maxOutput)+"`")
	if out, _ := p.Process(0, nil, &Labels{}); len(out) != maxOutput {
		t.Errorf("%d bytes", len(out))
	}
	p = newPipeline(t, "| line_format `{{.a}}{{.a}}`")
	var labels Labels
	labels.Set(Parsed, "a", strings.Repeat("a", maxOutput/2+1))
	p.Process(0, nil, &labels)
	if name, _ := labels.Err(); name != TemplateFormatErr {
		t.Errorf("a line of more than %d bytes is made: %q", maxOutput, name)
	}
}
