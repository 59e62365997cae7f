package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// stagesOf are the stages of a query as it is written behind its selector.
func stagesOf(t testing.TB, stages string) []logql.Stage {
	t.Helper()
	expr, err := logql.Parse(`{app="x"} ` + stages)
	if err != nil {
		t.Fatalf("%s: %v", stages, err)
	}
	return expr.(*logql.LogExpr).Stages
}

func newPipeline(t testing.TB, stages string) *Pipeline {
	t.Helper()
	p, err := New(stagesOf(t, stages))
	if err != nil {
		t.Fatalf("%s: %v", stages, err)
	}
	return p
}

// labelsOf reads name=value pairs with spaces between them.
func labelsOf(pairs string) []logs.Label {
	var labels []logs.Label
	for pair := range strings.FieldsSeq(pairs) {
		name, value, _ := strings.Cut(pair, "=")
		labels = append(labels, logs.Label{Name: name, Value: value})
	}
	return labels
}

// show writes labels by kind: of the stream with =, of metadata with ~, of the line with a colon. Of an error it leaves the details out.
func show(l *Labels) string {
	var parts []string
	for kind, sign := range []string{"=", "~", ":"} {
		for _, label := range l.AppendKind(nil, Kind(kind)) {
			if label.Name != DetailsLabel {
				parts = append(parts, fmt.Sprintf("%s%s%q", label.Name, sign, label.Value))
			}
		}
	}
	return strings.Join(parts, " ")
}

// stageCase is a line with its labels, and what stages make of it: "dropped", or its labels, and before them the line if it changed.
type stageCase struct {
	stages, line string
	want         string
	stream       string // as for labelsOf
	metadata     string
}

func checkStages(t *testing.T, cases []stageCase) {
	t.Helper()
	var labels Labels
	for _, c := range cases {
		p := newPipeline(t, c.stages)
		for range 2 { // what is left of an entry must not show in the next
			labels.Reset(labelsOf(c.stream), labelsOf(c.metadata))
			out, keep := p.Process(1_700_000_000_123_456_789, []byte(c.line), &labels)
			got := "dropped"
			if keep {
				got = show(&labels)
				if string(out) != c.line {
					got = strings.TrimSpace(fmt.Sprintf("%q %s", out, got))
				}
			}
			if got != c.want {
				t.Errorf("%s on %q\n got %s\nwant %s", c.stages, c.line, got, c.want)
			}
		}
	}
}

func TestLineFilters(t *testing.T) {
	const kept, dropped = "", "dropped"
	var cases []stageCase
	add := func(stages string, lines ...string) {
		want := kept
		for _, line := range lines {
			if line == "-" {
				want = dropped
				continue
			}
			cases = append(cases, stageCase{stages: stages, line: line, want: want})
		}
	}
	// Lines that are kept, and behind "-" those that are not.
	add(`|= "ab"`, "ab", "xaby", "-", "", "a b", "AB")
	add(`!= "ab"`, "", "AB", "-", "xab")
	add("|= ``", "", "x")
	add("!= ``", "-", "", "x")
	add(`|= "a" or "b"`, "a", "b", "-", "c")
	add(`!= "a" or "b"`, "c", "-", "a", "b", "ab")
	add(`|= "a" |= "b"`, "ab", "-", "a", "b")
	add("|~ `a.c`", "abc", "xabcx", "a\xffc", "-", "ac", "a\nc")
	add("!~ `a.c`", "ac", "-", "abc")
	add("|~ `^b`", "b", "-", "ab", "a\nb")
	add("|~ `error|warn`", "an error", "warn", "-", "err", "ERROR")
	add("|~ `.*error.*`", "x error y", "\nerror\n", "-", "err")
	add("|~ `err(or)?s?`", "err", "errors", "-", "er")
	add("|~ `(?i)error`", "ERROR", "eRRor", "-", "erro")
	add("|~ `(?i)disk`", "DISK", "di\u017fk", "dis\u212a", "-", "dist")
	add("|~ `(?i)a.*b`", "A-B", "-", "b a")
	add("|~ `x{2,3}y`", "xxy", "-", "xy")
	add("|~ `\\d+ms`", "took 12ms", "-", "took ms")
	add("|~ `a` or `b`", "a", "b", "-", "c")
	add("!~ `a` or `b`", "c", "-", "a", "b")
	add("|~ ``", "", "x")
	add("!~ ``", "-", "", "x")
	add("|~ `a|`", "", "x")
	add("|~ `[a-c]1`", "a1", "c1", "-", "d1")
	add("|~ `\ufffd`", "\ufffd", "\xff", "-", "x")
	add(`|> "<_>foo<_>"`, "xfoox", "afoobfoo", "-", "foo", "foox", "xfoo", "", "foofoo")
	add(`|> "foo<_>"`, "foobar", "xfoobar", "foofoo", "-", "foo", "xfoo")
	add(`|> "<_>foo"`, "xfoo", "-", "foo", "foofoo", "xfoox", "afoobfoo")
	add(`|> "foo"`, "foo", "xfoo", "-", "foofoo", "foo ", "")
	add(`|> "<_>"`, "x", "-", "")
	add("|> ``", "", "-", "x")
	add(`|> "f<_>o"`, "fxo", "-", "fo", "foo", "foofoo")
	add(`|> "a<_>b<_>c"`, "a1b2c", "xa1b2c", "-", "a1c2b", "ab2c")
	add(`!> "<_>foo<_>"`, "bar", "", "-", "xfoox")
	add(`|> "<_>a<_>" or "<_>b<_>"`, "xax", "xbx", "-", "xcx")
	add(`!> "<_>a<_>" or "<_>b<_>"`, "xcx", "-", "xax", "xbx")
	add(`|= ip("1.1.1.1")`, "1.1.1.1", "x 1.1.1.1:80", "[1.1.1.1]", "a1.1.1.1b", "1.1.1.1,2.2.2.2", "ip=1.1.1.1;", "1.1.1.1-", "1.1.1.1/24", "2001:db8::1 1.1.1.1", "12:34:56 1.1.1.1",
		"-", "1.1.1.11", "11.1.1.1", "1.1.1.1.1", "01.1.1.1", "1.1.1", "x 1.1.1.1.", "::ffff:1.1.1.1", "")
	add(`!= ip("1.1.1.1")`, "x", "", "1.1.1.2", "-", "1.1.1.1")
	add(`|= ip("1.1.1.0/24")`, "1.1.1.0", "1.1.1.255", "-", "1.1.2.0", "1.1.0.255")
	add(`|= ip("1.1.1.77/24")`, "1.1.1.5", "-", "1.1.2.1")
	add(`|= ip("0.0.0.0/0")`, "9.9.9.9", "-", "2001:db8::1")
	add(`|= ip("1.1.1.0-1.1.1.9")`, "1.1.1.0", "1.1.1.9", "-", "1.1.1.10")
	add(`|= ip("2001:db8::1")`, "2001:db8::1", "[2001:db8::1]:80", "2001:DB8:0:0::1", "2001:db8::1%eth0", "x=2001:db8::1,", "2001:0db8:0000:0000:0000:0000:0000:0001",
		"-", "2001:db8::12", "2001:db8::1:", "x 2001:db8::1.", "1.1.1.1")
	add(`|= ip("2001:db8::/33")`, "2001:db8:7fff::1", "-", "2001:db8:8000::1")
	add(`|= ip("2001:db8::1-2001:db8::5")`, "2001:db8::3", "-", "2001:db8::6", "2001:db9::1")
	add(`|= "a" or ip("1.1.1.1")`, "a", "1.1.1.1", "-", "b")
	checkStages(t, cases)
}

func TestJSON(t *testing.T) {
	const broken = `app="x" meta~"m" __error__:"JSONParserErr"`
	deep := strings.Repeat(`{"":`, MaxJSONDepth-1) + `{"a":1}` + strings.Repeat("}", MaxJSONDepth-1)
	var cases []stageCase
	for _, c := range [][2]string{
		{`{"a":1,"b":"x"}`, `a:"1" b:"x"`},
		{"\t{ \"a\" :\n1 , \"b\"\r: true } \n", `a:"1" b:"true"`},
		{`{}`, ``},
		{`{"a":null,"b":false,"c":[1,{"x":2}],"d":{"e":{"f":"g"},"h":{}},"n":-1.50e+3}`, `b:"false" d_e_f:"g" n:"-1.50e+3"`},
		{`{"a":"x","a":"y"}`, `a:"x"`},
		{`{"a":null,"a":"y"}`, `a:"y"`},
		{`{"a":{"b":1},"a_b":2}`, `a_b:"1"`},
		{`{"a":"","b":{"c":""}}`, `a:"" b_c:""`},
		{`{"":1,"b":{"":2,"c":3}," d ":4,"e f":5,"é":6,"7x":8,"g":{"7":9},"":{"":{"h":10}}}`, `_:"6" _7x:"8" _d_:"4" b:"2" b_c:"3" e_f:"5" g_7:"9" h:"10"`},
		{`{"a.b-c":1,"\u0061d":2,"q\"":3,"\ud83d\ude00":4}`, `_:"4" a_b_c:"1" ad:"2" q_:"3"`},
		{"{\"\xff\":1}", `_:"1"`},
		{`{"app":"json","app_extracted":"z","meta":1}`, `app_extracted:"json" meta_extracted:"1"`},
		{`{"__error__":"x","__error_details__":"y","detected_level":"z"}`, `__error___extracted:"x" __error_details___extracted:"y" detected_level_extracted:"z"`},
		{`{"a":"\u00e9\n\"\\\/\b\f\r\t"}`, `a:"é\n\"\\/\b\f\r\t"`},
		{`{"a":"\ud83d\ude00","b":"\ud800","c":"\ud800x","d":"\udc00\ud800","e":"\ud800\u0041"}`, `a:"😀" b:"�" c:"�x" d:"��" e:"�A"`},
		{"{\"a\":\"x\xff\xfe\",\"b\":\"\xe2\x82\"}", `a:"x��" b:"��"`},
		{`{"a":0,"b":-0,"c":1E5,"d":123456789012345678901234567890}`, `a:"0" b:"-0" c:"1E5" d:"123456789012345678901234567890"`},
		{`{"a":[],"b":[[]],"c":[{}]}`, ``},
		{"{\"a\":\"\x7f\"}", `a:"\x7f"`},
		{`{"` + strings.Repeat("n", maxJSONName) + `":1,"` + strings.Repeat("n", maxJSONName+1) + `":2,"a":{"` + strings.Repeat("m", maxJSONName-1) + `":3,"b":4}}`, `a_b:"4" ` + strings.Repeat("n", maxJSONName) + `:"1"`},
		{deep, `a:"1"`},
	} {
		want := `app="x" meta~"m" ` + c[1]
		cases = append(cases, stageCase{stages: "| json", line: c[0], want: strings.TrimSpace(want), stream: "app=x", metadata: "meta=m"})
	}
	for _, line := range []string{
		"", " ", "x", "null", `"x"`, "5", "[1]", "{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{a:1}`, `{'a':1}`, `{"a":1}x`, `{"a":1}{}`, `{"a":1}]`,
		`{"b":2,"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":-}`, `{"a":1e}`, `{"a":1e+}`, `{"a":0x1}`, `{"a":NaN}`, `{"a":tru}`, `{"a":truex}`, `{"a":nul`, `{"a":True}`,
		"{\"a\":\"x\ty\"}", "{\"a\":\"\n\"}", "{\"a\":\"\x00\"}", "{\"a\x01\":1}", `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"`, `{"a":"\`, `{"a":"\"}`,
		`{"a":[1,]}`, `{"a":[1 2]}`, `{"a":[1}`, `{"a":[}`, `{"a":{"b":1,}}`, `{"a":{"b"}}`, `{"a":[{"b" 1}]}`, `{"a":1 "b":2}`, "\ufeff{}", "\v{}", "{\"a\":1}\x00", "{/**/}",
		`{"ok":1,"a":` + deep + "}", `{"ok":1,"a":` + strings.Repeat("[", MaxJSONDepth) + strings.Repeat("]", MaxJSONDepth) + "}",
	} {
		cases = append(cases, stageCase{stages: "| json", line: line, want: broken, stream: "app=x", metadata: "meta=m"})
	}
	cases = append(cases,
		stageCase{stages: `| json | json`, line: `{"a":1`, want: `__error__:"JSONParserErr"`},
		stageCase{stages: `| logfmt | json`, line: `a=1`, want: `__error__:"JSONParserErr" a:"1"`},
	)
	checkStages(t, cases)
}

func TestJSONExpressions(t *testing.T) {
	const line = `{"a":"q","b":{"c":1, "d":[5,{"k": 1},[7,[8]]],"c d":null,"é\n":{"x":[]}},"t":true,"a":"second"}`
	checkStages(t, []stageCase{
		{stages: `| json x="a", y="b.c", z="b.d[0]", w="b[\"c d\"]", v="nope", u="t"`, line: line, want: `u:"true" v:"" w:"" x:"q" y:"1" z:"5"`},
		{stages: `| json x="b.d[1]", y="b.d[1].k", z="b.d[2][1][0]"`, line: line, want: `x:"{\"k\": 1}" y:"1" z:"8"`},
		{stages: `| json x="b.d[9]", y="b.d.k", z="a.b", w="a[0]", v="b[0]"`, line: line, want: `v:"" w:"" x:"" y:"" z:""`},
		{stages: "| json x=`b[\"é\\n\"].x`, y=`[\"b\"].c`", line: line, want: `x:"[]" y:"1"`},
		{stages: `| json a, b="a", c="a"`, line: `{"a":1}`, want: `a:"1" b:"1" c:"1"`},
		{stages: `| json x="[0]", y="[1].a"`, line: `[7,{"a":8}]`, want: `x:"7" y:"8"`},
		{stages: `| json app="a", meta="a"`, line: `{"a":1}`, stream: "app=x", metadata: "meta=m", want: `app="x" meta~"m" app_extracted:"1" meta_extracted:"1"`},
		{stages: `| json x="a"`, line: ` {"a":"\u00e9\ud800"} `, want: `x:"é�"`},
		{stages: `| json x="a"`, line: "{\"a\":[\"\\u0041\xff\"]}", want: `x:"[\"\\u0041�\"]"`},
		{stages: `| json x="a"`, line: `{"a":"q"`, want: `__error__:"JSONParserErr"`},
		{stages: `| json x="a"`, line: `{"a":"q"}x`, want: `__error__:"JSONParserErr"`},
		{stages: `| json x="a"`, line: `5`, want: `__error__:"JSONParserErr"`},
		{stages: `| json x="a"`, line: ``, want: `__error__:"JSONParserErr"`},
		{stages: `| json | json a="b"`, line: `{"a":1,"b":2}`, want: `a:"2" b:"2"`},
	})
}

func TestParseJSONPath(t *testing.T) {
	for path, want := range map[string]string{
		`a`:                       `[{a 0 false}]`,
		`a.b_1[0]["c.d"].e`:       `[{a 0 false} {b_1 0 false} { 0 true} {c.d 0 false} {e 0 false}]`,
		`["a"]["b"]`:              `[{a 0 false} {b 0 false}]`,
		`[12][3]`:                 `[{ 12 true} { 3 true}]`,
		`["q\"\u00e9"]`:           `[{q"é 0 false}]`,
		``:                        `cannot parse expression []: want a name, got ""`,
		`a..b`:                    `cannot parse expression [a..b]: want a name, got ".b"`,
		`a.`:                      `cannot parse expression [a.]: want a name, got ""`,
		`.a`:                      `cannot parse expression [.a]: want a name, got ".a"`,
		`a-b`:                     `cannot parse expression [a-b]: unexpected char -`,
		`aé`:                      `cannot parse expression [aé]: unexpected char é`,
		`1a`:                      `cannot parse expression [1a]: want a name, got "1a"`,
		`a[-1]`:                   `cannot parse expression [a[-1]]: want an index or a quoted name behind "["`,
		`a[1`:                     `cannot parse expression [a[1]: want "]"`,
		`a["b`:                    `cannot parse expression [a["b]: a quoted name has no end, or a bad escape`,
		`a["b"`:                   `cannot parse expression [a["b"]: want "]"`,
		`a[99999999999999999999]`: `cannot parse expression [a[99999999999999999999]]: strconv.Atoi: parsing "99999999999999999999": value out of range`,
	} {
		steps, err := ParseJSONPath(path)
		got := fmt.Sprint(steps)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", path, got, want)
		}
	}
}

func TestLogfmt(t *testing.T) {
	const broken = `__error__:"LogfmtParserErr"`
	var cases []stageCase
	// The line, what it is, and what it is with --strict if that differs.
	for _, c := range [][]string{
		{`a=1 b="x y" c= d e="q\"u\n\u00e9" =v f=g"h i="unt`, `a:"1" b:"x y" e:"q\"u\né"`, broken + ` a:"1" b:"x y" e:"q\"u\né"`},
		{`a=1 a=2`, `a:"1"`},
		{`a="1"b=2`, `a:"1" b:"2"`},
		{`a = 1`, ``, broken},
		{``, ``},
		{"  \t", ``},
		{`a b="" c=`, ``},
		{`"q"=1 x=2`, `x:"2"`, broken},
		{`"a b"=2 c=3`, `c:"3"`, broken},
		{`a="x`, ``, broken},
		{`a="x\`, ``, broken},
		{`a="x" =b c=d`, `a:"x" c:"d"`, broken + ` a:"x"`},
		{`a=x"y z"w c=d`, `c:"d"`, broken},
		{`a="\q"b=2 c=d`, `b:"2" c:"d"`, broken},
		{`a="\u12g4" c=d`, `c:"d"`, broken},
		{`a=b=c d=e`, `d:"e"`, broken},
		{`a="b"=c d=e`, `a:"b" d:"e"`, broken + ` a:"b"`},
		{`a="x"y z=1`, `a:"x" z:"1"`},
		{`a= "x" b=1`, `b:"1"`, broken},
		{"a=\"x\ty\\t\n\" b=c\nd=e\x01f=g", `a:"x\ty\t\n" b:"c" d:"e" f:"g"`},
		{`a.b-c=1 7x=2 é=3 app=9`, `_:"3" _7x:"2" a_b_c:"1" app:"9"`},
		{`a='x y' b=\n c="a\\b\/\'"`, `a:"'x" b:"\\n" c:"a\\b/'"`},
		{`a="""`, ``, broken},
		{`{"a":1}`, ``, broken},
		{`ts=1 caller=x.go:1 msg="a=b c" dur=1.5s`, `caller:"x.go:1" dur:"1.5s" msg:"a=b c" ts:"1"`},
		{`foo bar=1 baz`, `bar:"1"`},
		{`a="\ud83d\ude00\ud800"`, `a:"😀�"`},
		{"a=\xff", `a:"\xff"`},
	} {
		cases = append(cases, stageCase{stages: "| logfmt", line: c[0], want: c[1]},
			stageCase{stages: "| logfmt --strict", line: c[0], want: c[len(c)-1]})
	}
	checkStages(t, append(cases,
		stageCase{stages: "| logfmt --keep-empty", line: `a= b c="" d=1`, want: `a:"" b:"" c:"" d:"1"`},
		stageCase{stages: "| logfmt --strict --keep-empty", line: `a= b c="" d=1`, want: `a:"" b:"" c:"" d:"1"`},
		stageCase{stages: "| logfmt", line: `app=1 meta=2 meta_extracted=3`, stream: "app=x", metadata: "meta=m", want: `app="x" meta~"m" app_extracted:"1" meta_extracted:"2"`},
		stageCase{stages: `| logfmt x="a", b, w="nope"`, line: `a=1 b="q" c=5 a=2`, want: `b:"q" w:"" x:"1"`},
		stageCase{stages: `| logfmt x="a", b, w="nope"`, line: ``, want: `b:"" w:"" x:""`},
		stageCase{stages: `| logfmt x="a"`, line: `x=5 a="unterminated`, want: `x:""`},
		stageCase{stages: `| logfmt x="c_d"`, line: `c.d=1`, want: `x:"1"`},
		stageCase{stages: `| logfmt --strict x="a"`, line: `a=1 ="q`, want: `__error__:"LogfmtParserErr" x:"1"`},
		stageCase{stages: `| logfmt app="a"`, line: `a=1`, stream: "app=x", want: `app="x" app_extracted:"1"`},
		stageCase{stages: `| json | logfmt`, line: `a=1`, want: `__error__:"JSONParserErr" a:"1"`},
		stageCase{stages: `| logfmt | logfmt b="a"`, line: `a=1 b=2`, want: `a:"1" b:"1"`},
	))
}

func TestRegexpPatternUnpack(t *testing.T) {
	const access = `| pattern "<ip> - <user> [<_>] <rest>"`
	checkStages(t, []stageCase{
		{stages: "| regexp `(?P<a>\\d+) (?P<b>\\w*)`", line: `x 12 ab`, want: `a:"12" b:"ab"`},
		{stages: "| regexp `(?P<a>\\d+) (?P<b>\\w*)`", line: `12 `, want: `a:"12" b:""`},
		{stages: "| regexp `(?P<a>\\d+) (?P<b>\\w*)`", line: `x`, want: ``},
		{stages: "| regexp `(?P<app>\\d+)|(?P<b>\\w+)`", line: `ab`, stream: "app=x", want: `app="x" app_extracted:"" b:"ab"`},
		{stages: "| regexp `took (?P<a>[^ ]+)`", line: `it took 5ms`, want: `a:"5ms"`},
		{stages: "| regexp `took (?P<a>[^ ]+)`", line: `it took`, want: ``},
		{stages: "| regexp `(?P<a>a.*)`", line: "a\nb", want: `a:"a"`},
		{stages: `| regexp "(?P<meta>x)"`, line: "x", metadata: "meta=m", want: `meta~"m" meta_extracted:"x"`},

		{stages: access, line: `1.2.3.4 - bob [x] y z`, want: `ip:"1.2.3.4" rest:"y z" user:"bob"`},
		{stages: access, line: `1.2.3.4 - bob`, want: `ip:"1.2.3.4" user:"bob"`},
		{stages: access, line: `1.2.3.4`, want: `ip:"1.2.3.4"`},
		{stages: access, line: ` - bob [x] `, want: `ip:"" rest:"" user:"bob"`},
		{stages: access, line: ``, want: ``},
		{stages: `| pattern "foo <a> bar"`, line: `foo x bar tail`, want: `a:"x"`},
		{stages: `| pattern "foo <a> bar"`, line: `foo bar`, want: `a:"bar"`},
		{stages: `| pattern "foo <a> bar"`, line: `xfoo y bar`, want: ``},
		{stages: `| pattern "foo <a>"`, line: `fo`, want: ``},
		{stages: `| pattern "<a> end"`, line: `x end, end`, want: `a:"x"`},
		{stages: `| pattern "<_>lvl=<level>"`, line: `x lvl=`, want: `level:""`},
		{stages: `| pattern "<a>,<b>,<_>"`, line: `1,`, want: `a:"1" b:""`},
		{stages: `| pattern "<app>:<meta>:<meta_extracted>"`, line: `1:2:3`, stream: "app=x", metadata: "meta=m", want: `app="x" meta~"m" app_extracted:"1" meta_extracted:"2"`},

		{stages: `| unpack`, line: `{"_entry":"the \"line\"","a":"1","b":2,"c":null,"d":{"e":"f"},"e":["g"]}`, want: `"the \"line\"" a:"1"`},
		{stages: `| unpack`, line: `{"a":"1"}`, want: ``},
		{stages: `| unpack`, line: `{"_entry":5,"a":"1"}`, want: ``},
		{stages: `| unpack`, line: ``, want: ``},
		{stages: `| unpack`, line: `{}`, want: ``},
		{stages: `| unpack`, line: ` {"_entry":"","a b":"v","7":"q","a_b":"w"} `, want: `"" _7:"q" a_b:"v"`},
		{stages: `| unpack`, line: `{"app":"z","meta":"k","_entry":"l"}`, stream: "app=x", metadata: "meta=m", want: `"l" app="x" meta~"m" app_extracted:"z" meta_extracted:"k"`},
		{stages: `| unpack`, line: `not`, want: `__error__:"JSONParserErr"`},
		{stages: `| unpack`, line: `["_entry"]`, want: `__error__:"JSONParserErr"`},
		{stages: `| unpack`, line: `{"_entry":"l","a":"1"`, want: `__error__:"JSONParserErr"`},
		{stages: `| unpack`, line: `{"_entry":"l","a":"1"}x`, want: `__error__:"JSONParserErr"`},
		{stages: `| unpack`, line: `{"_entry":"l","a":[}`, want: `__error__:"JSONParserErr"`},
		{stages: `| unpack | json`, line: `{"_entry":"{\"a\":3,\"b\":4}","a":"1"}`, want: `"{\"a\":3,\"b\":4}" a:"1" b:"4"`},
		{stages: `| json | json a="b"`, line: `{"a":1,"b":2}`, want: `a:"2" b:"2"`},

		// What an earlier stage made counts, and labels are those of the line for all that.
		{stages: "| logfmt | regexp `(?P<b>.)$`", line: `a=2 b=33`, want: `a:"2" b:"33"`},
		{stages: `| label_format app="t", foo="u" | logfmt`, line: `app=2 foo=3`, stream: "app=x", want: `app:"t" app_extracted:"2" foo:"u"`},
		{stages: `| drop app | logfmt`, line: `app=2`, stream: "app=x", want: `app_extracted:"2"`},
		{stages: `| drop meta | logfmt`, line: `meta=2`, metadata: "meta=m", want: `meta:"2"`},
	})
}

func TestLabelFilters(t *testing.T) {
	const (
		line    = `{"a":"1","s":"10KB","d":"5m","x":"foo","ip":"10.1.2.3:80","e":""}`
		dropped = "dropped"
		all     = `app="api" a:"1" d:"5m" e:"" ip:"10.1.2.3:80" s:"10KB" x:"foo"`
		failed  = `app="api" __error__:"LabelFilterErr" a:"1" d:"5m" e:"" ip:"10.1.2.3:80" s:"10KB" x:"foo"`
	)
	var cases []stageCase
	for want, filters := range map[string][]string{
		all: {
			`a>0`, `a==1`, `a=1`, `a!=2`, `a>=1`, `a<=1`, `a<2`, `s>9KB`, `s=10KB`, `s<10KiB`, `d>4m`, `d=300s`, `d<=1h`, `ip=ip("10.0.0.0/8")`, `x!=ip("10.0.0.0/8")`,
			`a>0 or x>1`, `nope=""`, `nope=~".*"`, `nope!~".+"`, `e=""`, `a=~"1|2"`, `a=~"^1$"`, `x=~"fo."`, `x=~"f.*"`, `x=~"f.+"`, `x!~"fo"`, `x!~"foo.+"`, `x=~"(?i)FOO"`, `a="1" and x="foo"`,
			`a="1", x="foo"`, `a="1" x="foo"`, `a="9" or x="foo"`, `x="foo" or x>1`, `app="api"`, `a=~".+"`, `__error__=""`, `d>1h or a=1`,
		},
		failed: {
			`x>1`, `e>1`, `e==0`, `x>1KB`, `s>1`, `d>1`, `x>1m`, `e>1m`, `e>1KB`, `app>1`, `x>1 or a>5`, `a>5 or x>1`, `(a>5 and x>1) or x>2`, `a>0 and (x>1 or a>5)`,
			`x>1 | __error__="LabelFilterErr"`, `x>1 | __error__!=""`, `x>1 | a="1"`, `x>1 | x>2`, `x>1 | s>1`, `x>1 | ip=ip("1.1.1.1")`, `x>1 | nope=ip("1.1.1.1")`,
			`x>1 and a=1`, `(a>5 and x>1) or ip=ip("1.1.1.1")`,
		},
		dropped: {
			`a>1`, `a!=1`, `nope>1`, `nope!=1`, `nope==0`, `nope>1m`, `nope>1KB`, `nope=ip("10.0.0.0/8")`, `nope!=ip("10.0.0.0/8")`, `x=ip("10.0.0.0/8")`, `ip!=ip("10.0.0.0/8")`,
			`x>1 and a>5`, `a>5 and x>1`, `x>1 | a>5`, `x>1 | nope>1`, `x>1 | a="2"`, `x>1 | __error__=""`, `nope!=""`, `nope=~".+"`, `x=~"fo"`, `x=~"foo.+"`, `a!~"1|2"`, `a="1" and x="bar"`, `a="2" or x="bar"`,
			`(a>5 and x>1) or a>7`, `app!="api"`,
		},
	} {
		for _, filter := range filters {
			cases = append(cases, stageCase{stages: "| json | " + filter, line: line, stream: "app=api", want: want})
		}
	}
	for _, c := range [][3]string{
		{"a>1", "Inf", "kept"}, {"a>1", "1e3", "kept"}, {"a>1", "NaN", dropped}, {"a!=1", "NaN", "kept"}, {"a>1", "0x10", "failed"}, {"a>1", " 5", "failed"},
		{"a>1s", "1.5h", "kept"}, {"a>1s", "0", dropped}, {"a>1s", "-5s", dropped}, {"a>1s", "5", "failed"}, {"a>1s", "1d", "failed"},
		{"a>1KB", "5000", "kept"}, {"a>1KB", "5 kb", "kept"}, {"a>1KB", "1,001KB", "kept"}, {"a>1KB", "5k", "kept"}, {"a>1KB", "1.5KiB", "kept"}, {"a>1KB", "-5KB", "failed"}, {"a>1KB", "5 parsecs", "failed"},
	} {
		want := map[string]string{dropped: dropped, "kept": fmt.Sprintf("a:%q", c[1]), "failed": fmt.Sprintf(`__error__:"LabelFilterErr" a:%q`, c[1])}[c[2]]
		cases = append(cases, stageCase{stages: "| json | " + c[0], line: fmt.Sprintf(`{"a":%q}`, c[1]), want: want})
	}
	checkStages(t, append(cases,
		stageCase{stages: `| json | a>1`, line: `no`, want: dropped},
		stageCase{stages: `| json | a>1`, line: `no`, stream: "a=q", want: `a="q" __error__:"JSONParserErr"`},
		stageCase{stages: `| json | a=ip("1.1.1.1")`, line: `no`, want: `__error__:"JSONParserErr"`},
		stageCase{stages: `| json | __error_details__=~".*offset 0"`, line: `no`, want: `__error__:"JSONParserErr"`},
		stageCase{stages: `| meta="m" | app="x"`, line: `no`, stream: "app=x", metadata: "meta=m", want: `app="x" meta~"m"`},
	))
}

func TestDropKeep(t *testing.T) {
	const line = `{"a":"1","b":"2"}`
	var cases []stageCase
	for _, c := range [][3]string{
		{`drop a`, line, `app="x" meta~"m" b:"2"`},
		{`drop a="1"`, line, `app="x" meta~"m" b:"2"`},
		{`drop a="2"`, line, `app="x" meta~"m" a:"1" b:"2"`},
		{`drop a=~"1|2", b!="2"`, line, `app="x" meta~"m" b:"2"`},
		{`drop nope, nope=""`, line, `app="x" meta~"m" a:"1" b:"2"`},
		{`drop app, meta`, line, `a:"1" b:"2"`},
		{`drop app | app=""`, line, `meta~"m" a:"1" b:"2"`},
		{`drop app | app="x"`, line, `dropped`},
		{`drop app | label_format app="z"`, line, `meta~"m" a:"1" app:"z" b:"2"`},
		{`drop __error__`, `x`, `app="x" meta~"m"`},
		{`drop __error__="JSONParserErr"`, `x`, `app="x" meta~"m"`},
		{`drop __error__="other"`, `x`, `app="x" meta~"m" __error__:"JSONParserErr"`},
		{`drop __error_details__ | __error_details__=""`, `x`, `app="x" meta~"m" __error__:"JSONParserErr"`},
		{`drop __error__ | __error_details__=""`, `x`, `app="x" meta~"m"`},
		{`keep a`, line, `a:"1"`},
		{`keep a="1", app`, line, `app="x" a:"1"`},
		{`keep a="2"`, line, ``},
		{`keep a="2", a`, line, `a:"1"`},
		{`keep a=~".*", meta`, line, `meta~"m" a:"1"`},
		{`keep nope`, `x`, `__error__:"JSONParserErr"`},
		{`keep a | b="2"`, line, `dropped`},
	} {
		cases = append(cases, stageCase{stages: "| json | " + c[0], line: c[1], want: c[2], stream: "app=x", metadata: "meta=m"})
	}
	checkStages(t, cases)
}

func TestDecolorize(t *testing.T) {
	var cases []stageCase
	for line, want := range map[string]string{
		"\x1b[31mred\x1b[0m plain \x1b[1;38;5;196mg\x1b[K": "red plain g",
		"\x1b[m":          "",
		"\u009b31mx":      "x",
		"\x1b]0;title\ax": "x",
		"\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\": "link",
		"\x1b[2J\x1b[10;5Hx \x1b(B":                "x ",
		"\x1b[?25lx\x1b[>4;2my":                    "xy",
		"\x1b7a\x1b8\xff":                          "a\xff",
	} {
		cases = append(cases, stageCase{stages: "| decolorize", line: line, want: fmt.Sprintf("%q", want)})
	}
	checkStages(t, append(cases, stageCase{stages: "| decolorize", line: "[31mno", want: ""}, stageCase{stages: "| decolorize", line: "\x1b[31", want: ""}))
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		stage logql.Stage
		want  string
	}{
		{&logql.LineFilter{Op: logql.LineMatches, Alternatives: []logql.LinePattern{{Value: "a("}}}, "missing closing )"},
		{&logql.LineFilter{Op: logql.LinePatternIs, Alternatives: []logql.LinePattern{{Value: "<a>x"}}}, "named captures are not allowed: found '<a>'"},
		{&logql.LineFilter{Op: logql.LinePatternIs, Alternatives: []logql.LinePattern{{Value: "<_><_>"}}}, "there has to be text between"},
		{&logql.LineFilter{Alternatives: []logql.LinePattern{{IP: true, Value: "1.1.1.9-1.1.1.1"}}}, `ip: invalid pattern: "1.1.1.9-1.1.1.1"`},
		{&logql.LineFilter{Alternatives: []logql.LinePattern{{IP: true, Value: "1.1.1.1-::1"}}}, `ip: invalid pattern: "1.1.1.1-::1"`},
		{&logql.LineFilter{Alternatives: []logql.LinePattern{{IP: true, Value: "1.1.1.1/33"}}}, `ip: invalid pattern: "1.1.1.1/33"`},
		{&logql.LineFilter{Alternatives: []logql.LinePattern{{IP: true}}}, `ip: invalid pattern: ""`},
		{&logql.JSON{Labels: []logql.Extraction{{Label: "a", Expression: "a-b"}}}, "cannot parse expression [a-b]: unexpected char -"},
		{&logql.RegexpParser{Expression: `(\d+)`}, "at least one named capture must be supplied"},
		{&logql.RegexpParser{Expression: `(?P<a>x`}, "missing closing )"},
		{&logql.PatternParser{Pattern: `<_> x`}, "at least one capture is required"},
		{&logql.PatternParser{Pattern: `<a><b>`}, "there has to be text between"},
		{&logql.LabelFilter{Predicate: &logql.StringPredicate{Matcher: logql.Matcher{Name: "a", Op: logql.Regexp, Value: "a)(b"}}}, "unexpected )"},
		{&logql.LabelFilter{Predicate: &logql.Or{Left: &logql.IPPredicate{Name: "a", Value: "nope"}, Right: &logql.NumberPredicate{Name: "b"}}}, `ip: invalid pattern: "nope"`},
		{&logql.LineFormat{Template: "{{.a"}, "invalid line template: "},
		{&logql.LineFormat{Template: "{{nofunc .a}}"}, `function "nofunc" not defined`},
		{&logql.LabelFormat{Labels: []logql.LabelFormatting{{Label: "a", IsTemplate: true, Template: "{{"}}}, "invalid template for label 'a'"},
		{&logql.LabelFormat{Labels: []logql.LabelFormatting{{Label: ErrorLabel, Source: "a"}}}, "__error__ cannot be formatted"},
		{&logql.LabelFormat{Labels: []logql.LabelFormatting{{Label: "a", Source: "b"}, {Label: "a", Source: "c"}}}, "multiple label name 'a' not allowed in a single format operation"},
		{&logql.Drop{Labels: []logql.LabelMatch{{Name: "a", Matcher: &logql.Matcher{Name: "a", Op: logql.Regexp, Value: "("}}}}, "missing closing )"},
		{&logql.Keep{Labels: []logql.LabelMatch{{Name: "a", Matcher: &logql.Matcher{Name: "a", Op: logql.NotRegexp, Value: "["}}}}, "missing closing ]"},
	} {
		_, err := New([]logql.Stage{c.stage})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "stage '") {
			t.Errorf("%s\n got %v\nwant %s", c.stage, err, c.want)
		}
	}
}

func TestSelector(t *testing.T) {
	labels := labelsOf("app=api env=prod zone=eu-1")
	for matchers, want := range map[string]bool{
		`app="api"`: true, `app="web"`: false, `app!="web"`: true, `app=~"api|web"`: true, `app=~"ap"`: false, `app=~"a.*"`: true, `app=~"api.+"`: false,
		`app!~"w.*"`: true, `zone=~"eu-[0-9]"`: true, `zone=~".+-1"`: true, `app=~"(?i)API"`: true, `app="api",env=~"dev"`: false, `app="api",nope=""`: true, `app="api",nope!=""`: false,
		`app="api",nope=~".*"`: true, `app="api",nope=~".+"`: false, `app="api",nope!~".+"`: true, `app=~"^api$"`: true,
	} {
		expr, err := logql.Parse(`{env="prod",` + matchers + "}")
		if err != nil {
			t.Fatal(matchers, err)
		}
		s, err := NewSelector(expr.(*logql.LogExpr).Matchers)
		if err != nil {
			t.Fatal(matchers, err)
		}
		if got := s.Matches(labels); got != want {
			t.Errorf("{%s}: got %t", matchers, got)
		}
	}
	if _, err := NewSelector([]logql.Matcher{{Name: "a", Op: logql.Regexp, Value: "("}}); err == nil {
		t.Error("a broken expression is taken")
	}
}

func unwrapOf(t *testing.T, query string) *logql.Unwrap {
	t.Helper()
	expr, err := logql.Parse(query)
	if err != nil {
		t.Fatal(query, err)
	}
	return expr.(*logql.RangeAgg).Unwrap
}

func TestUnwrap(t *testing.T) {
	const line = `{"a":"1.5","d":"1m30s","s":"2KB","x":"foo","e":"","n":"NaN"}`
	for _, c := range [][2]string{
		{`a`, `1.5 app="x" meta~"7" d:"1m30s" e:"" n:"NaN" s:"2KB" x:"foo"`},
		{`duration(d)`, `90 app="x" meta~"7" a:"1.5" e:"" n:"NaN" s:"2KB" x:"foo"`},
		{`duration_seconds(d)`, `90 app="x" meta~"7" a:"1.5" e:"" n:"NaN" s:"2KB" x:"foo"`},
		{`bytes(s)`, `2000 app="x" meta~"7" a:"1.5" d:"1m30s" e:"" n:"NaN" x:"foo"`},
		{`meta`, `7 app="x" a:"1.5" d:"1m30s" e:"" n:"NaN" s:"2KB" x:"foo"`},
		{`n`, `NaN app="x" meta~"7" a:"1.5" d:"1m30s" e:"" s:"2KB" x:"foo"`},
		{`x`, `0 app="x" meta~"7" __error__:"SampleExtractionErr" a:"1.5" d:"1m30s" e:"" n:"NaN" s:"2KB" x:"foo"`},
		{`duration(a)`, `0 app="x" meta~"7" __error__:"SampleExtractionErr" a:"1.5" d:"1m30s" e:"" n:"NaN" s:"2KB" x:"foo"`},
		{`bytes(x)`, `0 app="x" meta~"7" __error__:"SampleExtractionErr" a:"1.5" d:"1m30s" e:"" n:"NaN" s:"2KB" x:"foo"`},
		{`nope`, `none`},
		{`e`, `none`},
		{`duration(e)`, `none`},
		{`a | a > 1`, `1.5 app="x" meta~"7" d:"1m30s" e:"" n:"NaN" s:"2KB" x:"foo"`},
		{`a | a > 2`, `none`},
		{`a | x="bar"`, `none`},
		{`x | __error__=""`, `none`},
		{`x | x > 1`, `0 app="x" meta~"7" __error__:"SampleExtractionErr" a:"1.5" d:"1m30s" e:"" n:"NaN" s:"2KB" x:"foo"`},
	} {
		expr, err := logql.Parse(`sum_over_time({app="x"} | json | unwrap ` + c[0] + ` [1m])`)
		if err != nil {
			t.Fatal(c[0], err)
		}
		agg := expr.(*logql.RangeAgg)
		u, err := NewUnwrap(agg.Unwrap)
		if err != nil {
			t.Fatal(c[0], err)
		}
		p, err := New(agg.Log.Stages)
		if err != nil {
			t.Fatal(c[0], err)
		}
		var labels Labels
		labels.Reset(labelsOf("app=x"), labelsOf("meta=7"))
		got := "none"
		out, _ := p.Process(0, []byte(line), &labels)
		if value, keep := u.Sample(0, out, &labels); keep {
			got = fmt.Sprint(value) + " " + show(&labels)
		}
		if got != c[1] {
			t.Errorf("unwrap %s\n got %s\nwant %s", c[0], got, c[1])
		}
	}
	if _, err := NewUnwrap(&logql.Unwrap{Label: "a", Conversion: "miles"}); err == nil {
		t.Error("an unknown conversion is taken")
	}
}

func TestNeed(t *testing.T) {
	const line = `{"a":"1","b":{"c":"2","d":{"e":"3"}},"f":"4","app":"5"}`
	for _, c := range []struct {
		stages string
		need   []string
		line   string
		want   string
	}{
		{`| json`, nil, line, `app="x" a:"1" app_extracted:"5" b_c:"2" b_d_e:"3" f:"4"`},
		{`| json`, []string{}, line, `app="x"`},
		{`| json`, []string{"b_d_e", "nope"}, line, `app="x" b_d_e:"3"`},
		{`| json`, []string{"app_extracted"}, line, `app="x" app_extracted:"5"`},
		{`| json | a="1"`, []string{"f"}, line, `app="x" a:"1" f:"4"`},
		{`| json | line_format "{{.b_c}}"`, []string{}, line, `"2" app="x" b_c:"2"`},
		{`| json | label_format q="{{ . | len }}"`, []string{}, line, `app="x" a:"1" app_extracted:"5" b_c:"2" b_d_e:"3" f:"4" q:"6"`},
		{`| json | label_format q=f | drop a="1"`, []string{}, line, `app="x" q:"4"`},
		{`| json`, []string{}, `{"a":01}`, `app="x" __error__:"JSONParserErr"`},
		{`| json`, []string{}, `{"a":{"b":tru}}`, `app="x" __error__:"JSONParserErr"`},
		{`| json`, []string{"a", "c", "d", "e", "f", "g", "h", "i", "j", "b_c"}, line, `app="x" a:"1" b_c:"2" f:"4"`},
		{`| json`, []string{"_d"}, `{"é":{"":7},"é":1,"_":{"d":8}}`, `app="x"`},
		{`| json`, []string{"a"}, `{"a":{"":7,"b":8},"ab":{"c":1}}`, `app="x" a:"7"`},
		{`| json`, []string{"__d"}, `{"é":{"d":7},"g":1}`, `app="x" __d:"7"`},
		{`| logfmt`, []string{"b"}, `a=1 b=2 c.d=3`, `app="x" b:"2"`},
		{`| logfmt`, []string{"c_d"}, `a=1 b=2 c.d=3`, `app="x" c_d:"3"`},
		{`| logfmt --strict`, []string{}, `a=1 =b`, `app="x" __error__:"LogfmtParserErr"`},
	} {
		p := newPipeline(t, c.stages)
		p.Need(c.need)
		var labels Labels
		labels.Reset(labelsOf("app=x"), nil)
		out, _ := p.Process(0, []byte(c.line), &labels)
		got := show(&labels)
		if string(out) != c.line {
			got = fmt.Sprintf("%q %s", out, got)
		}
		if got != c.want {
			t.Errorf("%s, %q\n got %s\nwant %s", c.stages, c.need, got, c.want)
		}
	}
}
