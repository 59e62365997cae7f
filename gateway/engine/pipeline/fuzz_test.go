package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// flatten is what jsonParser makes of a document, by encoding/json; ok is false where it is none. Of labels of one name the first counts.
func flatten(line []byte) (labels map[string]string, ok bool) {
	if !json.Valid(line) || !bytes.HasPrefix(bytes.TrimLeft(line, " \t\r\n"), []byte("{")) {
		return nil, false
	}
	labels = map[string]string{}
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var path []string // names of members around, and of the current one; "" of arrays
	var kinds []json.Delim
	isName := false
	for {
		token, err := d.Token()
		if err != nil {
			return labels, len(kinds) == 0
		}
		if delim, ok := token.(json.Delim); ok {
			switch delim {
			case '{', '[':
				if kinds = append(kinds, delim); len(kinds) > MaxJSONDepth {
					return nil, false
				}
				isName = delim == '{'
				path = append(path, "")
			default:
				kinds, path = kinds[:len(kinds)-1], path[:len(path)-1]
				isName = len(kinds) > 0 && kinds[len(kinds)-1] == '{'
			}
			continue
		}
		if isName {
			path[len(path)-1], isName = token.(string), false
			continue
		}
		isName = kinds[len(kinds)-1] == '{'
		if token == nil || slices.Contains(kinds, '[') {
			continue
		}
		var parts []string
		for _, name := range path {
			if name != "" {
				parts = append(parts, name)
			}
		}
		name := regexp.MustCompile(`(?s)[^a-zA-Z0-9_]`).ReplaceAllString(strings.Join(parts, "_"), "_")
		if len(name) > 0 && isDigit(name[0]) {
			name = "_" + name
		}
		if name == "" || len(name) > maxJSONName {
			continue
		}
		if isReserved(name) {
			name += extracted
		}
		if _, ok := labels[name]; !ok {
			labels[name] = fmt.Sprint(token)
		}
	}
}

func mapOf(l *Labels) map[string]string {
	all := map[string]string{}
	for _, label := range l.Append(nil) {
		all[label.Name] = label.Value
	}
	return all
}

func FuzzJSON(f *testing.F) {
	for _, line := range []string{
		`{"a":1,"b":{"c":"x\u00e9\ud800","d":[1,{"e":null}]},"f":true,"":{"":1},"a":2," 7é":-0.5e+1}`, `{"a":`, "{\"a\":\"\xff\"}", `{"__error__":1} `, `{"a":"\ud83d\ude00\ud83d"}`, "{\"\xff\":{}}",
		strings.Repeat(`{"a":`, 130) + "1" + strings.Repeat("}", 130), `{"a":[[]]}`, `{"a":"0123456789\"abcdef\\"}`,
	} {
		f.Add([]byte(line))
	}
	all, err := New([]logql.Stage{&logql.JSON{}})
	if err != nil {
		f.Fatal(err)
	}
	some, _ := New([]logql.Stage{&logql.JSON{}})
	some.Need([]string{"a", "b_c"})
	f.Fuzz(func(t *testing.T, line []byte) {
		want, ok := flatten(line)
		var l Labels
		l.Reset(nil, nil)
		if out, keep := all.Process(0, line, &l); !keep || !bytes.Equal(out, line) {
			t.Fatal("the line was changed or dropped")
		}
		name, details := l.Err()
		if (name == "") != ok {
			t.Fatalf("%q: %s %s", line, name, details)
		}
		if got := mapOf(&l); ok && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\n got %q\nwant %q", line, got, want)
		} else if !ok && len(got) != 2 {
			t.Fatalf("%q: labels of a broken line: %q", line, got)
		}
		l.Reset(nil, nil)
		some.Process(0, line, &l)
		if less, _ := l.Err(); less != name {
			t.Fatalf("%q: %q with all labels, %q with some", line, name, less)
		}
		for _, name := range []string{"a", "b_c"} {
			if got, _ := l.Get(name); got != want[name] {
				t.Fatalf("%q: %s is %q, not %q", line, name, got, want[name])
			}
		}
	})
}

func FuzzJSONPaths(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,{"c":"x"}]},"b":null}`), `a.b[1].c`)
	f.Add([]byte(`[{"a":"\u0061"}]`), `[0]["a"]`)
	f.Fuzz(func(t *testing.T, line []byte, path string) {
		steps, err := ParseJSONPath(path)
		if err != nil {
			return
		}
		p, err := New([]logql.Stage{&logql.JSON{Labels: []logql.Extraction{{Label: "x", Expression: path}}}})
		if err != nil {
			t.Fatal(err)
		}
		var l Labels
		l.Reset(nil, nil)
		p.Process(0, line, &l)
		got, _ := l.Get("x")
		name, _ := l.Err()

		value, ok := json.RawMessage(bytes.TrimSpace(line)), json.Valid(line)
		if !ok || value[0] != '{' && value[0] != '[' {
			if name != JSONParserErr || got != "" {
				t.Fatalf("%q: %q %q", line, name, got)
			}
			return
		}
		for _, step := range steps {
			value = member(value, step)
		}
		want := ""
		switch {
		case value == nil || string(value) == "null":
		case value[0] == '"':
			if err := json.Unmarshal(value, &want); err != nil {
				t.Fatal(err)
			}
		default:
			want = string([]rune(string(value)))
		}
		if name == "" && got != want {
			t.Fatalf("%q %s\n got %q\nwant %q", line, path, got, want)
		}
	})
}

// member is a step into a value, by encoding/json; nil if there is nothing.
func member(value json.RawMessage, step PathStep) json.RawMessage {
	d := json.NewDecoder(bytes.NewReader(value))
	opening, _ := d.Token()
	if step.IsIndex != (opening == json.Delim('[')) || !step.IsIndex && opening != json.Delim('{') {
		return nil
	}
	for i := 0; d.More(); i++ {
		isIt := step.IsIndex && i == step.Index
		if !step.IsIndex {
			name, _ := d.Token()
			isIt = name == step.Name
		}
		var inside json.RawMessage
		if d.Decode(&inside) != nil {
			return nil
		}
		if isIt {
			return inside
		}
	}
	return nil
}

func FuzzLogfmt(f *testing.F) {
	f.Add([]byte(`a=1 b="x\"y" c d= =e f="g`), "key", "a value \"q\"\n")
	f.Add([]byte(`a="\u12" "b"=c`), "k\xff", "\xff")
	lenient, err := New([]logql.Stage{&logql.Logfmt{KeepEmpty: true}})
	if err != nil {
		f.Fatal(err)
	}
	strict, _ := New([]logql.Stage{&logql.Logfmt{KeepEmpty: true, Strict: true}})
	f.Fuzz(func(t *testing.T, line []byte, key, value string) {
		var l Labels
		l.Reset(nil, nil)
		lenient.Process(0, line, &l)
		if name, _ := l.Err(); name != "" {
			t.Fatalf("%q: %s", line, name)
		}
		got := mapOf(&l)
		l.Reset(nil, nil)
		strict.Process(0, line, &l)
		name, _ := l.Err()
		some := mapOf(&l)
		delete(some, ErrorLabel)
		delete(some, DetailsLabel)
		for label, value := range some {
			if got[label] != value {
				t.Fatalf("%q: %s is %q, and %q if strict", line, label, got[label], value)
			}
		}
		if name == "" && len(some) != len(got) {
			t.Fatalf("%q: %q, and %q if strict", line, got, some)
		}

		// What is written as logfmt is read back.
		if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == '=' || r == '"' }) || !utf8.ValidString(value) {
			return
		}
		quoted, _ := json.Marshal(value)
		label := string(appendLabelName(nil, key, true))
		if isReserved(label) {
			label += extracted
		}
		l.Reset(nil, nil)
		strict.Process(0, fmt.Appendf(nil, "%s=%s", key, quoted), &l)
		if got, ok := l.Get(label); !ok || got != value {
			t.Fatalf("%s=%s: %q", key, quoted, got)
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("<ip> - <user> [<_>]", []byte("1.2.3.4 - bob [x] y"))
	f.Add("a<_>b", []byte("xaybb"))
	f.Fuzz(func(t *testing.T, pattern string, line []byte) {
		if m, err := newLinePattern(pattern); err == nil && m.matches(line) {
			// A pattern holds for what is cut to it.
			parts, _ := logql.ParsePattern(pattern)
			rest := string(line)
			for _, part := range parts {
				if _, behind, ok := strings.Cut(rest, part.Literal); !ok {
					t.Fatalf("%q does not have the texts of %q", line, pattern)
				} else if !part.IsCapture {
					rest = behind
				}
			}
		}
		p, err := New([]logql.Stage{&logql.PatternParser{Pattern: pattern}})
		if err != nil {
			return
		}
		var l Labels
		l.Reset(nil, nil)
		p.Process(0, line, &l)
		parts, _ := logql.ParsePattern(pattern)
		at := 0
		for i, part := range parts {
			if value, ok := l.Get(part.Capture); ok && part.IsCapture {
				n := bytes.Index(line[at:], []byte(value))
				if n < 0 || i+1 < len(parts) && strings.Contains(value, parts[i+1].Literal) {
					t.Fatalf("%q on %q: %s is %q", pattern, line, part.Capture, value)
				}
				at += n + len(value)
			}
		}
	})
}

// FuzzMatchers compares what is found without regular expressions with what they say.
func FuzzMatchers(f *testing.F) {
	for _, expression := range []string{`abc`, `a|b|cd`, `(?i)disk|x`, `(?i)Kelvin`, `.*a.*`, `a.*`, `a.+`, `.+`, `x?(ab|c)[d-f]`, `^a$`, `err(or)?s?`, `[^a]`, `a{2,3}`, "\ufffd", `(?s).a`, `(?-s:.)*`, `\x{212a}`, `a(?i)b`, `(a|)`, `()`} {
		f.Add(expression, []byte("xabcd"))
		f.Add(expression, []byte("\xffK\u212a ſ\n"))
	}
	f.Fuzz(func(t *testing.T, expression string, line []byte) {
		re, err := regexp.Compile(expression)
		if err != nil || len(expression) > 100 {
			return
		}
		m, err := newLineRegexp(expression)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := m.matches(line), re.Match(line); got != want {
			t.Fatalf("line %q, %q: %t", line, expression, got)
		}
		whole, err := regexp.Compile(`^(?s:` + expression + `)$`)
		if err != nil {
			return
		}
		s, err := newStringMatcher(logql.Regexp, expression)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := s.matches(string(line)), whole.MatchString(string(line)); got != want {
			t.Fatalf("label %q, %q: %t", line, expression, got)
		}
		if p, err := newRegexpParser(`(?P<whole>` + expression + `)`); err == nil {
			var l Labels
			p.process(&entry{line: line, labels: &l})
			got, ok := l.Get("whole")
			if want := re.Find(line); ok != (want != nil) || got != string(want) {
				t.Fatalf("parser %q, %q: %q", line, expression, got)
			}
		}
	})
}

// FuzzLevel compares the level of a line with what the expressions say that stand for it elsewhere.
func FuzzLevel(f *testing.F) {
	for _, line := range []string{`level=info`, `{"severity" : "ERROR"}`, `lvl=x level='warn' debug`, `an Error, panic`, "\xfflevel=\xff\u212a", `{\"level\":\"info\"}`, `log_level:inf loglevel=crit levelname=WRN`} {
		f.Add([]byte(line))
	}
	field := regexp.MustCompile(LevelExpression)
	words := map[string]string{}
	for _, w := range LevelWords {
		words[w.Word] = w.Level
	}
	var keywords []*regexp.Regexp
	for _, k := range LevelKeywords {
		keywords = append(keywords, regexp.MustCompile(k.Expression))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		lowered := make([]byte, len(line))
		for i, c := range line {
			lowered[i] = lower(c)
		}
		want := UnknownLevel
		if match := field.FindSubmatch(lowered); match != nil {
			want = words[string(match[1])]
		} else {
			for i, k := range keywords {
				if k.Match(lowered) {
					want = LevelKeywords[i].Level
					break
				}
			}
		}
		var l Labels
		if got := DetectLevel(&l, line); got != want {
			t.Fatalf("%q: got %s, want %s", line, got, want)
		}
	})
}

// FuzzDecolorize compares with an expression for the same.
func FuzzDecolorize(f *testing.F) {
	for _, line := range []string{"\x1b[31mred\x1b[0m", "\x1b]0;t\a\x1b]8;;x\x1b\\y\x1b]z", "\u009b1;2 m\x1b(B\x1b#8\x1bM\x1b", "\x1b[[\x1b]\x1b[31\x1b)]"} {
		f.Add([]byte(line))
	}
	ansi := regexp.MustCompile(`(?:\x1b\[|\x{9b})[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b(?:[ -/]+[0-~]|[0-Z\\^-~])`)
	f.Fuzz(func(t *testing.T, line []byte) {
		e := entry{line: line}
		(&decolorizer{}).process(&e)
		if want := ansi.ReplaceAll(line, nil); !bytes.Equal(e.line, want) {
			t.Fatalf("%q\n got %q\nwant %q", line, e.line, want)
		}
	})
}

// FuzzPipeline runs stages of all kinds on any line: whatever it is, what is needed does not depend on what else is, and nothing of an entry is left for the next.
func FuzzPipeline(f *testing.F) {
	pipelines := []string{
		`| json | a="1" | line_format "{{.b_c}} {{.a}}"`,
		`| logfmt | a!="" | drop b | label_format c=a`,
		`| unpack | json x="a.b[0]" | x=~".+"`,
		`| pattern "<a> <b> <_>" | b>1 or a=ip("1.1.1.0/24")`,
		`| logfmt --strict | json | b > 1KB`,
		`| decolorize | logfmt a, b="c" | keep a`,
		`| detected_level="error" | json`,
		`|= "a" | json | logfmt | d > 1s`,
	}
	for i, line := range []string{`{"a":"1","b":{"c":2}}`, `a=1 b=2 c`, `{"_entry":"{\"a\":{\"b\":[1]}}","q":"r"}`, `1.1.1.1 2 3`, `b=2KB ="`, "\x1b[31ma=1", `level=error`, `{"d":"2s","a":1}`} {
		f.Add(uint8(i), []byte(line), "a", "1")
	}
	f.Fuzz(func(t *testing.T, which uint8, line []byte, name, value string) {
		query := pipelines[int(which)%len(pipelines)]
		if !isLabelName(name) || isReserved(name) || value == "" {
			return
		}
		stream := []logs.Label{{Name: name, Value: value}}
		var l Labels
		run := func(need []string) (out string, keep bool, errorName string, labels map[string]string) {
			p := newPipeline(t, query)
			p.Need(need)
			for range 2 {
				l.Reset(stream, nil)
				o, k := p.Process(1, line, &l)
				all := mapOf(&l)
				if labels != nil && (k != keep || k && (string(o) != out || !reflect.DeepEqual(all, labels))) {
					t.Fatalf("%s on %q: %q, and then %q", query, line, labels, all)
				}
				out, keep, labels = string(o), k, all
			}
			errorName, _ = l.Err()
			return out, keep, errorName, labels
		}
		out, keep, failed, labels := run(nil)
		lessOut, lessKeep, lessFailed, less := run([]string{"a", name})
		if keep != lessKeep || keep && (out != lessOut || failed != lessFailed || labels["a"] != less["a"] || labels[name] != less[name]) {
			t.Fatalf("%s on %q: %t %q %q, with fewer labels %t %q %q", query, line, keep, out, labels, lessKeep, lessOut, less)
		}
	})
}
