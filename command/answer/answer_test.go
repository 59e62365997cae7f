package answer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/casteloig/logthra/shared/logs"
)

// labels are of names and values, sorted by name.
func labels(pairs ...string) (set Labels) {
	for i := 0; i < len(pairs); i += 2 {
		set = append(set, logs.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return set
}

// collect reads all of an answer.
func collect(from io.Reader) (entries []Entry, series []Series, summary Summary, err error) {
	summary, err = Read(from, Visitor{
		Entry:  func(e Entry) error { entries = append(entries, e); return nil },
		Series: func(s Series) error { series = append(series, s); return nil },
	})
	return entries, series, summary, err
}

func TestReadStreams(t *testing.T) {
	const text = `{"status":"success","warnings":["shard 3 did not answer"],"data":{"resultType":"streams","encodingFlags":["categorize-labels"],"result":[
		{"stream":{"env":"prod","app":"api"},"values":[
			["1700000000000000001","one",{"structuredMetadata":{"trace_id":"7"},"parsed":{"b":"2","a":"1"}}],
			["1700000000000000000","zwölf\n<\"é\">",{}]]},
		{"stream":{},"values":[["2","",{"structuredMetadata":{},"new":1},"more"],["1","two only"]]},
		{"stream":{"app":"none"},"values":[]}],
		"stats":{"summary":{"bytesProcessedPerSecond":1,"execTime":0.25,"queueTime":0.5,"totalBytesProcessed":1234,"totalLinesProcessed":56,"totalEntriesReturned":4},"querier":{}}}}`
	want := []Entry{
		{Time: 1700000000000000001, Line: "one", Stream: labels("app", "api", "env", "prod"), Metadata: labels("trace_id", "7"), Parsed: labels("a", "1", "b", "2")},
		{Time: 1700000000000000000, Line: "zwölf\n<\"é\">", Stream: labels("app", "api", "env", "prod")},
		{Time: 2},
		{Time: 1, Line: "two only"},
	}
	for name, from := range map[string]io.Reader{"whole": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
		entries, series, summary, err := collect(from)
		if err != nil || !reflect.DeepEqual(entries, want) || series != nil {
			t.Errorf("%s: %+v, %v, %v", name, entries, series, err)
		}
		if want := (Summary{Streams, []string{"shard 3 did not answer"}, Stats{0.25, 0.5, 1234, 56, 4}}); !reflect.DeepEqual(summary, want) {
			t.Errorf("%s: got %+v, want %+v", name, summary, want)
		}
	}
}

func TestReadSeries(t *testing.T) {
	for _, c := range []struct {
		text string
		kind Kind
		want []Series
	}{
		{
			`{"data":{"resultType":"matrix","result":[{"metric":{"app":"api"},"values":[[1700000000,"1"],[1700000060.5,"2.5"]]},{"metric":{},"values":[]}]}}`, Matrix,
			[]Series{{labels("app", "api"), []Point{{1700000000e9, 1}, {1700000060500e6, 2.5}}}, {}},
		},
		{`{"data":{"resultType":"vector","result":[{"metric":{"app":"api"},"value":[1700000000.123,"+Inf"]}]}}`, Vector, []Series{{labels("app", "api"), []Point{{1700000000123e6, math.Inf(1)}}}}},
		{`{"data":{"resultType":"scalar","result":[1700000000,"3"]}}`, Scalar, []Series{{Points: []Point{{1700000000e9, 3}}}}},
		{`{"data":{"resultType":"vector","result":null}}`, Vector, nil},
		{`{"data":{"result":[],"resultType":"matrix"}}`, Matrix, nil},
		{`{"data":null}`, "", nil},
	} {
		entries, series, summary, err := collect(strings.NewReader(c.text))
		if err != nil || entries != nil || summary.Kind != c.kind || !reflect.DeepEqual(series, c.want) {
			t.Errorf("%s: %v, %v, %v, %v", c.text, entries, series, summary, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                                "at byte 0: unexpected EOF",
		`<html>`:                          "invalid character '<'",
		`[]`:                              "unexpected JSON: [ where { is expected",
		`{"data":{"result":7}}`:           "7 where [ is expected",
		`{"data":{"result":["x"]}}`:       "neither a stream nor a series",
		`{"data":{"result":[1,"x"]}}`:     `"x" is no number`,
		`{"data":{"result":[{"values":[]`: "values before their labels",
		`{"data":{"result":[{"stream":{}`: "unexpected EOF",
		`{"data":{"result":[{"stream":[]`: "cannot unmarshal array",
		`{"data":{"result":[{"stream":{},"values":[["1"]]}]}}`:        "no time and line",
		`{"data":{"result":[{"stream":{},"values":[["x","line"]]}]}}`: "no time and line",
		`{"data":{"result":[{"stream":{},"values":[[1,"line"]]}]}}`:   "cannot unmarshal number",
		`{"data":{"result":[{"metric":{},"values":[[1,"2",3]]}]}}`:    "3 behind a point",
		`{"data":{"result":[{"metric":{},"value":null}]}}`:            "no point",
	} {
		if _, _, _, err := collect(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "not of Loki's form") {
			t.Errorf("%s: %v lacks %q", text, err, want)
		}
	}
	stop := errors.New("enough")
	_, err := Read(strings.NewReader(`{"data":{"result":[{"stream":{},"values":[["1","a"],["2","b"]]}]}}`), Visitor{Entry: func(Entry) error { return stop }})
	if err != stop { //nolint:errorlint // as it is
		t.Errorf("got %v", err)
	}
	_, err = Read(iotest.ErrReader(stop), Visitor{})
	if err != stop { //nolint:errorlint // as it is
		t.Errorf("got %v", err)
	}
}

// endless is an answer with a line that does not end.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	if e.read == 0 {
		n = copy(p, `{"data":{"result":[{"stream":{},"values":[["1","`)
	}
	for i := n; i < len(p); i++ {
		p[i] = 'x'
	}
	e.read += len(p)
	return len(p), nil
}

func TestReadIsBounded(t *testing.T) {
	from := new(endless)
	_, _, _, err := collect(from)
	if !errors.Is(err, errTooLong) || from.read > 3*longestValue {
		t.Errorf("%v after %d bytes", err, from.read)
	}
}

// What is longer than the bound in all, but not in any part, is read.
func TestReadIsNotBoundedInAll(t *testing.T) {
	value := `["1","` + strings.Repeat("x", 1<<20) + `"]`
	parts := []io.Reader{strings.NewReader(`{"data":{"result":[{"stream":{},"values":[` + value)}
	const more = 2 * longestValue >> 20
	for range more {
		parts = append(parts, strings.NewReader(","+value))
	}
	parts = append(parts, strings.NewReader(`]}]}}`))
	entries := 0
	_, err := Read(io.MultiReader(parts...), Visitor{Entry: func(e Entry) error {
		entries++
		if len(e.Line) != 1<<20 {
			return fmt.Errorf("a line of %d bytes", len(e.Line))
		}
		return nil
	}})
	if err != nil || entries != more+1 {
		t.Errorf("%d entries, %v", entries, err)
	}
}

func TestReadTail(t *testing.T) {
	var entries []Entry
	dropped, err := ReadTail(strings.NewReader(`{"streams":[{"stream":{"app":"api"},"values":[["1","a"],["2","b",{"structuredMetadata":{"m":"1"}}]]}],
		"dropped_entries":[{"timestamp":"3","labels":{"app":"web"}}],"encodingFlags":["categorize-labels"]}`),
		func(e Entry) error { entries = append(entries, e); return nil })
	app := labels("app", "api")
	if want := []Entry{{Time: 1, Line: "a", Stream: app}, {Time: 2, Line: "b", Stream: app, Metadata: labels("m", "1")}}; err != nil || !reflect.DeepEqual(entries, want) {
		t.Errorf("%+v, %v", entries, err)
	}
	if want := []Dropped{{"3", labels("app", "web")}}; !reflect.DeepEqual(dropped, want) {
		t.Errorf("%+v", dropped)
	}
}

func TestReadData(t *testing.T) {
	names, warnings, err := ReadData[string](strings.NewReader(`{"status":"success","data":["app","env"],"warnings":["w"]}`))
	if err != nil || !reflect.DeepEqual(names, []string{"app", "env"}) || !reflect.DeepEqual(warnings, []string{"w"}) {
		t.Errorf("%q, %q, %v", names, warnings, err)
	}
	sets, _, err := ReadData[Labels](strings.NewReader(`{"data":[{"b":"2","a":"1"},{}]}`))
	if err != nil || !reflect.DeepEqual(sets, []Labels{labels("a", "1", "b", "2"), nil}) {
		t.Errorf("%v, %v", sets, err)
	}
}

func TestLabels(t *testing.T) {
	set := labels("app", `a"b<`, "env", "")
	text, err := json.Marshal(set)
	if err != nil || string(text) != `{"app":"a\"b\u003c","env":""}` {
		t.Errorf("%s, %v", text, err)
	}
	if got := set.String(); got != `{app="a\"b<", env=""}` {
		t.Error(got)
	}
	if Labels(nil).String() != "{}" || set.Get("app") != `a"b<` || set.Get("b") != "" || Labels(nil).Get("a") != "" {
		t.Error("labels are not found")
	}
}

func TestID(t *testing.T) {
	one := Entry{Time: 1, Line: "x", Stream: labels("a", "1")}
	same := one
	same.Time = 2
	if one.ID() != same.ID() {
		t.Error("the time is part of it")
	}
	for _, other := range []Entry{
		{Line: "y", Stream: one.Stream},
		{Line: "x", Stream: labels("a", "2")},
		{Line: "x", Metadata: one.Stream},
		{Line: "x", Parsed: one.Stream},
		{Line: "x", Stream: labels("a1", "")},
		{Line: "", Stream: labels("a", "1x")},
		{Line: "x"},
	} {
		if other.ID() == one.ID() {
			t.Errorf("%+v is the same as %+v", other, one)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"data":{"resultType":"streams","result":[{"stream":{"a":"b"},"values":[["1","x",{"parsed":{"p":"q"}}]]}]}}`))
	f.Add([]byte(`{"data":{"resultType":"matrix","result":[{"metric":{},"values":[[1.5,"NaN"]]}]},"warnings":["w"]}`))
	f.Add([]byte(`{"data":{"resultType":"scalar","result":[1,"2"]}}`))
	f.Add([]byte(`{"streams":[{"stream":{},"values":[["1","x"]]}],"dropped_entries":[{"timestamp":"1","labels":{}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _, _, _ = collect(strings.NewReader(string(text)))
		_, _ = ReadTail(strings.NewReader(string(text)), func(Entry) error { return nil })
		_, _, _ = ReadData[Labels](strings.NewReader(string(text)))
	})
}

func BenchmarkRead(b *testing.B) {
	var text strings.Builder
	text.WriteString(`{"status":"success","data":{"resultType":"streams","result":[{"stream":{"app":"api"},"values":[`)
	for i := range 1000 {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, `["17000000000000%05d","10.0.0.%d - - \"GET /orders/%d HTTP/1.1\" 200 1234 \"-\" \"curl/8.0\" 0.012",{"structuredMetadata":{"detected_level":"info"}}]`, i, i%256, i)
	}
	text.WriteString(`]}]}}`)
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(strings.NewReader(text.String()), Visitor{Entry: func(Entry) error { return nil }}); err != nil {
			b.Fatal(err)
		}
	}
}
