package terminal

import (
	"bytes"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/command/answer"
	"github.com/casteloig/logthra/shared/logs"
)

func labels(pairs ...string) (set answer.Labels) {
	for i := 0; i < len(pairs); i += 2 {
		set = append(set, logs.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return set
}

// What differs is learned as it comes: a column that was not there is added, and one that is too narrow widened.
func TestLinesLearn(t *testing.T) {
	t.Setenv("TZ", "UTC")
	pages := [][]answer.Entry{
		{{Line: "a", Stream: labels("app", "x", "env", "prod")}, {Line: "b", Stream: labels("app", "x", "env", "prod")}},
		{{Line: "c", Stream: labels("app", "x", "env", "test")}, {Line: "d", Stream: labels("app", "x", "env", "prod"), Parsed: labels("__error__", "JSONParserErr", "a", "b")}},
		nil,
		{{Line: "e", Stream: labels("app", "x", "env", "staging")}, {Line: "f", Stream: labels("app", "x")}, {Line: "g", Stream: labels("app", "x", "env", strings.Repeat("long", 10))}},
	}
	for _, c := range []struct {
		format Format
		want   string
	}{
		{Text, `
1970-01-01T00:00:00.000Z  a
1970-01-01T00:00:00.000Z  b
1970-01-01T00:00:00.000Z                         env=test  c
1970-01-01T00:00:00.000Z __error__=JSONParserErr env=prod  d
1970-01-01T00:00:00.000Z                         env=staging                           e
1970-01-01T00:00:00.000Z                                                               f
1970-01-01T00:00:00.000Z                         env=longlonglonglonglonglonglonglonglonglong  g
`},
		{Table, `
TIME                      LINE
1970-01-01T00:00:00.000Z  a
1970-01-01T00:00:00.000Z  b

TIME                      __error__      env   LINE
1970-01-01T00:00:00.000Z                 test  c
1970-01-01T00:00:00.000Z  JSONParserErr  prod  d
1970-01-01T00:00:00.000Z                 staging                           e
1970-01-01T00:00:00.000Z                                                   f
1970-01-01T00:00:00.000Z                 longlonglonglonglonglonglonglonglonglong  g
`},
	} {
		var out, notes bytes.Buffer
		l := Lines{Out: &out, Format: c.format, Labels: Differing, Notes: &notes}
		for _, page := range pages {
			if err := l.Write(page); err != nil {
				t.Fatal(err)
			}
		}
		if got := "\n" + out.String(); got != c.want {
			t.Errorf("%s: got %s\nwant %s", c.format, got, c.want)
		}
		if want := "common labels: {app=\"x\", env=\"prod\"}\n"; notes.String() != want {
			t.Errorf("noted %q, want %q", notes.String(), want)
		}
	}
}

func TestLinesColors(t *testing.T) {
	t.Setenv("TZ", "UTC")
	for _, c := range []struct {
		entry answer.Entry
		want  string
	}{
		{answer.Entry{Line: "x", Metadata: labels("detected_level", "critical")}, "\x1b[1;31mx\x1b[0m"},
		{answer.Entry{Line: "x", Metadata: labels("detected_level", "error")}, "\x1b[31mx\x1b[0m"},
		{answer.Entry{Line: "x", Metadata: labels("detected_level", "warn")}, "\x1b[33mx\x1b[0m"},
		{answer.Entry{Line: "x", Metadata: labels("detected_level", "info")}, "x"},
		{answer.Entry{Line: "x", Metadata: labels("detected_level", "debug")}, "\x1b[2mx\x1b[0m"},
		{answer.Entry{Line: "x", Metadata: labels("detected_level", "unknown"), Stream: labels("level", "ERROR")}, "\x1b[31mx\x1b[0m"},
		{answer.Entry{Line: "x", Parsed: labels("level", "Warning"), Stream: labels("level", "error")}, "\x1b[33mx\x1b[0m"},
		{answer.Entry{Line: "x\x1b[1mbold"}, "x\x1b[1mbold\x1b[0m"},
		{answer.Entry{Line: "x\n\n"}, "x"},
	} {
		var out strings.Builder
		l := Lines{Out: &out, Format: Text, Labels: None, Color: true, Notes: io.Discard}
		if err := l.Write([]answer.Entry{c.entry}); err != nil {
			t.Fatal(err)
		}
		if want := "\x1b[2m1970-01-01T00:00:00.000Z\x1b[0m  " + c.want + "\n"; out.String() != want {
			t.Errorf("%+v: got %q, want %q", c.entry, out.String(), want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for _, c := range []struct {
		text          string
		colors, lines bool
		want          string
	}{
		{"plain, tab\t, zwölf, 日本, 😀", false, false, "plain, tab\t, zwölf, 日本, 😀"},
		{"a\nb", false, false, `a\nb`},
		{"a\nb", false, true, "a\nb"},
		{"a\rb\x00\x7f\b", false, true, `a\x0db\x00\x7f\x08`},
		{"\x1b[1;31mred\x1b[m", true, false, "\x1b[1;31mred\x1b[m"},
		{"\x1b[1;31mred\x1b[m", false, false, "red"},
		{"\x1b[2J\x1b]0;title\a\x1b[31", true, false, `\x1b[2J\x1b]0;title\x07\x1b[31`},
		{"\u009b2J", true, false, `\x9b2J`},
		{"§\xc2", true, false, "§\xc2"},
		{"\x1b", true, false, `\x1b`},
	} {
		if got := string(appendPrintable(nil, c.text, c.colors, c.lines)); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\n\u009b")
	f.Fuzz(func(t *testing.T, text string) {
		if got := string(appendPrintable(nil, text, false, false)); strings.ContainsAny(got, "\x1b\n\r\u009b\x00") {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}

func TestCourse(t *testing.T) {
	points := func(values ...float64) (points []answer.Point) {
		for i, v := range values {
			points = append(points, answer.Point{Time: 1000 + int64(i)*10, Value: v})
		}
		return points
	}
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		points []answer.Point
		width  int
		want   string
	}{
		{points(0, 1, 2, 3, 4, 5, 6, 7), 8, "▁▂▃▄▅▆▇█"},
		{points(7, 7, 7), 3, "███"},
		{points(0, 0), 2, "▁▁"},
		{points(-7, 0, 7), 3, "▁▅█"},
		{points(-1, -2), 2, "▅▁"},
		{points(1, nan, 1), 3, "█ █"},
		{points(1, inf, 2), 3, "▁▁▁"},
		{points(), 3, "   "},
		{points(nan), 1, " "},
		{points(0, 9, 0, 0, 0, 0, 0, 9), 4, "█▁▁█"}, // a peak is not lost
		{points(1, 2, 3), 2, "▆█"},
		{[]answer.Point{{Time: 1013, Value: 1}, {Time: 1027, Value: 1}, {Time: 1100, Value: 1}, {Time: 1, Value: 1}}, 4, " █ █"}, // to the next step, and none outside
	} {
		g := grid{start: 1000, step: 10, points: max(c.width, len(c.points))}
		if got := g.course(c.points, c.width); got != c.want {
			t.Errorf("%v: got %q, want %q", c.points, got, c.want)
		}
	}
}

// Points may be at the times that were asked for, or at whole steps around them.
func TestGrid(t *testing.T) {
	for _, c := range []struct {
		first, last int64
		want        grid
	}{
		{1003, 1043, grid{1003, 10, 5}},
		{1023, 1033, grid{1003, 10, 5}},
		{1000, 1050, grid{1000, 10, 6}},
		{1010, 1040, grid{1000, 10, 5}},
		{1030, 1030, grid{1000, 10, 5}},
	} {
		s := Series{Start: 1003, End: 1043, Step: 10}
		series := []answer.Series{{Points: []answer.Point{{Time: c.first}, {Time: c.last}}}, {Points: []answer.Point{{Time: c.last}}}}
		if got := s.grid(series); got != c.want {
			t.Errorf("%d to %d: got %+v, want %+v", c.first, c.last, got, c.want)
		}
	}
}

func TestAxis(t *testing.T) {
	t.Setenv("TZ", "UTC")
	for _, c := range []struct {
		step  time.Duration
		width int
		want  string
	}{
		{time.Second, 20, "12:00:00    12:01:00"},
		{time.Minute, 20, "12:00          13:00"},
		{time.Minute, 11, "12:00 13:00"},
		{time.Minute, 10, ""},
		{time.Hour, 30, "11-22 12:00        11-25 00:00"},
	} {
		g := grid{start: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixNano(), step: int64(c.step), points: 61}
		if got := g.axis(c.width); got != c.want {
			t.Errorf("%s, %d columns: got %q, want %q", c.step, c.width, got, c.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 7: "7", -7: "-7", 1234567: "1234567", 1e15: "1e+15", 0.5: "0.5", 1.0 / 3: "0.3333", 12.3456: "12.35", 1234.56: "1234.6", 1e-7: "1e-07",
		123456.789: "123456.8", math.Inf(1): "+Inf", math.NaN(): "-",
	} {
		if got := number(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}

func TestSort(t *testing.T) {
	series := []answer.Series{
		{Labels: labels("n", "none")},
		{Labels: labels("n", "1"), Points: []answer.Point{{Value: 9}, {Value: 1}}},
		{Labels: labels("n", "3"), Points: []answer.Point{{Value: 3}}},
		{Labels: labels("n", "2"), Points: []answer.Point{{Value: 2}}},
	}
	Sort(series)
	var got []string
	for _, s := range series {
		got = append(got, s.Labels.Get("n"))
	}
	if strings.Join(got, " ") != "3 2 1 none" {
		t.Error(got)
	}
}

func BenchmarkLines(b *testing.B) {
	entries := make([]answer.Entry, 1000)
	for i := range entries {
		entries[i] = answer.Entry{
			Time: int64(i) * 1e6, Line: `10.0.0.1 - - "GET /orders/4711 HTTP/1.1" 200 1234 "-" "curl/8.0" 0.012`,
			Stream: labels("app", "api", "pod", string(rune('a'+i%7))), Metadata: labels("detected_level", "info"),
		}
	}
	for _, format := range []Format{Text, Raw, JSON, Table} {
		b.Run(string(format), func(b *testing.B) {
			l := Lines{Out: io.Discard, Format: format, Labels: Differing, Color: true, Notes: io.Discard}
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Write(entries); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
