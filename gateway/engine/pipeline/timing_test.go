package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// Lines of 130 bytes or so.
const (
	jsonLine   = `{"ts":"2025-10-01T08:15:42.123Z","level":"info","method":"GET","path":"/api/cart/items","status":503,"took":12.5,"user":"u-1849"}`
	logfmtLine = `ts=2025-10-01T08:15:42.123Z level=info method=GET path=/api/cart/items status=503 took=12.5ms user=u-1849 msg="request served now"`
	accessLine = `10.8.0.17 - - [01/Oct/2025:08:15:42 +0000] "GET /api/cart/items?page=3 HTTP/1.1" 503 1532 "-" "Mozilla/5.0 (X11; Linux)" 0.013`
)

var benchStream = labelsOf("app=checkout cluster=eu-1 env=prod namespace=shop pod=checkout-7d9f8b6c5-x2x4z")

func BenchmarkProcess(b *testing.B) {
	none, some := []string{}, []string{"method"}
	for _, c := range []struct {
		name, stages, line string
		need               []string
		meta               string
	}{
		{"json/all", `| json`, jsonLine, nil, ""},
		{"json/some", `| json`, jsonLine, some, ""},
		{"json/filter", `| json | status >= 500`, jsonLine, some, ""},
		{"json/metadata", `| json | status >= 500`, jsonLine, some, "trace_id=0123456789abcdef span.id=01234567"},
		{"json/expressions", `| json status="status", method="method"`, jsonLine, nil, ""},
		{"json/broken", `| json`, jsonLine[:len(jsonLine)-1], some, ""},
		{"logfmt/all", `| logfmt`, logfmtLine, nil, ""},
		{"logfmt/some", `| logfmt`, logfmtLine, some, ""},
		{"logfmt/filter", `| logfmt | status >= 500`, logfmtLine, some, ""},
		{"logfmt/expressions", `| logfmt status, method`, logfmtLine, nil, ""},
		{"pattern", `| pattern "<ip> - <user> [<_>] \"<method> <path> <_>\" <status> <size> <_>"`, accessLine, nil, ""},
		{"regexp", "| regexp `\"(?P<method>[A-Z]+) (?P<path>[^ ]+) [^\"]*\" (?P<status>[0-9]+)`", accessLine, nil, ""},
		{"line/contains", `|= "Mozilla" != "POST"`, accessLine, none, ""},
		{"line/alternation", "|~ `POST|PUT|Linux`", accessLine, none, ""},
		{"line/fold", "|~ `(?i)MOZILLA`", accessLine, none, ""},
		{"line/regexp", "|~ `\" 5[0-9]{2} `", accessLine, none, ""},
		{"line/pattern", `|> "<_>GET <_> HTTP<_>"`, accessLine, none, ""},
		{"line/ip", `|= ip("10.0.0.0/8")`, accessLine, none, ""},
		{"label/string", `| env="prod" | pod=~"checkout-.*" | namespace!~"dev|test"`, accessLine, none, ""},
		{"label/regexp", "| pod=~`.*-[a-z0-9]{5}`", accessLine, none, ""},
		{"label/level", `| detected_level="info"`, jsonLine, none, ""},
		{"label/levelword", `| detected_level="error"`, accessLine, none, ""},
		{"format/labels", `| line_format "{{.app}} {{.env}} {{.pod}}"`, accessLine, none, ""},
		{"format/functions", "| line_format `{{.app | upper}} {{__line__ | trunc 20}}`", accessLine, none, ""},
		{"decolorize", `| decolorize`, "\x1b[31mred\x1b[0m " + accessLine, none, ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := newPipeline(b, c.stages)
			p.Need(c.need)
			metadata, line := labelsOf(c.meta), []byte(c.line)
			var l Labels
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				l.Reset(benchStream, metadata)
				p.Process(1, line, &l)
			}
		})
	}
}

func BenchmarkLabels(b *testing.B) {
	p := newPipeline(b, `| json`)
	var l Labels
	l.Reset(benchStream, nil)
	p.Process(1, []byte(jsonLine), &l)
	var to []logs.Label
	b.Run("Append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			to = l.Append(to[:0])
		}
	})
	b.Run("Group/by", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			to = l.Group(to[:0], []string{"status", "app", "method"}, false)
		}
	})
	b.Run("Group/without", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			to = l.Group(to[:0], []string{"ts", "took"}, true)
		}
	})
}

func BenchmarkUnwrap(b *testing.B) {
	u, err := NewUnwrap(&logql.Unwrap{Label: "took"})
	if err != nil {
		b.Fatal(err)
	}
	p := newPipeline(b, `| json`)
	p.Need([]string{"took"})
	line := []byte(jsonLine)
	var l Labels
	b.ReportAllocs()
	for b.Loop() {
		l.Reset(benchStream, nil)
		out, _ := p.Process(1, line, &l)
		u.Sample(1, out, &l)
	}
}

// TestCommonPathDoesNotAllocate holds the common stages to it.
func TestCommonPathDoesNotAllocate(t *testing.T) {
	for _, stages := range []string{
		`| json | status >= 500`, `|= "GET" | json`, "|~ `(?i)get|post`", `| json status="status"`, `| logfmt | drop app`, `| pattern "<a>,<b>" | a!=""`, `|> "<_>GET<_>"`,
		`| label_format a=app, b="{{.env}}"`, `| line_format "{{.app}}"`, `| detected_level="info"`, `| keep app, status`, `| unpack`,
	} {
		p := newPipeline(t, stages)
		metadata := labelsOf("span.id=1 trace_id=2")
		line := []byte(jsonLine)
		var l Labels
		if n := testing.AllocsPerRun(100, func() {
			l.Reset(benchStream, metadata)
			p.Process(1, line, &l)
		}); n > 0 {
			t.Errorf("%s: %v allocations a line", stages, n)
		}
	}
}

// TestNastyLines runs stages on lines that would take for ever if time grew faster than they do.
func TestNastyLines(t *testing.T) {
	const n = 1 << 20
	repeat := func(s string) string { return strings.Repeat(s, n/len(s)) }
	var keys strings.Builder
	for i := 0; keys.Len() < n; i++ {
		fmt.Fprintf(&keys, `,"k%d":1`, i)
	}
	half := keys.String()[:n/2]
	lines := map[string]string{
		"nothing":       "",
		"a":             repeat("a"),
		"deep":          repeat(`{"a":`),
		"deep arrays":   repeat(`[`),
		"wide":          `{"a":1` + keys.String() + `}`,
		"nested wide":   `{"a":{"b":1` + keys.String() + `}}`,
		"long and wide": `{"` + strings.Repeat("n", n/2) + `":{"b":1` + half[:strings.LastIndex(half, ",")] + `}}`,
		"names":         "{" + strings.TrimSuffix(repeat(`"é":1,`), ",") + "}",
		"long name":     `{"` + repeat("é") + `":1}`,
		"long names":    strings.Repeat(`{"`+strings.Repeat("n", n/130)+`":`, 120) + "1" + strings.Repeat("}", 120),
		"escapes":       `{"a":"` + repeat(`\u00e9`) + `"}`,
		"backslashes":   `{"a":"` + repeat(`\\`) + `"}`,
		"numbers":       `{"a":[` + repeat("1,") + `1]}`,
		"pairs":         repeat("a=b "),
		"equal signs":   repeat("="),
		"quotes":        repeat(`a="`),
		"spaces":        repeat(" "),
		"level":         repeat("level = "),
		"level escapes": repeat(`level\"`),
		"colons":        repeat(":"),
		"addresses":     repeat("1.1.1.1.1 "),
		"addresses 6":   repeat("1:2:3:4:5:6:7:8:"),
		"dots":          repeat("1."),
		"escape":        repeat("\x1b["),
		"escape 2":      repeat("\x1b]0;"),
		"not UTF-8":     repeat("\xff"),
		"folded":        repeat("aA"),
	}
	for _, stages := range []string{
		`| json`, `| json a="b.c[3]", d="a"`, `| unpack`, `| logfmt`, `| logfmt a, b`, `| logfmt --strict`, "|~ `(a*)*b`", "|~ `(a|aa)+$`", "|~ `(?i)aaaaaaaab`", "|~ `(x+x+)+y`",
		"| regexp `(?P<a>(a*)*b)`", `| pattern "<a>a<b>=<c>ab"`, `|> "<_>a<_>a<_>a<_>ab"`, `|= ip("1.1.1.0/24")`, `|= ip("::/0")`, `| decolorize`, `| detected_level="info"`,
		`| label_format a="{{__line__}}" | a=~"(a*)*b"`, `| line_format "{{__line__ | upper}}"`,
	} {
		p := newPipeline(t, stages)
		for name, line := range lines {
			var l Labels
			start := time.Now()
			l.Reset(benchStream, nil)
			p.Process(1, []byte(line), &l)
			l.Append(nil)
			l.Group(nil, []string{"a"}, true)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s on %q took %s", stages, name, took)
			}
		}
	}
}
