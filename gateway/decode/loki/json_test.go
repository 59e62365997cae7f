package loki

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/gateway/decode/jsontext"
	"github.com/casteloig/logthra/shared/logs"
)

// values is a push of one stream, {app="api"}, with the given values.
func values(s string) string { return `{"streams":[{"stream":{"app":"api"},"values":[` + s + `]}]}` }

const api = `{"app":"api"}`

func TestJSON(t *testing.T) {
	for _, c := range []struct {
		name   string
		in     string
		want   []row
		coarse bool
	}{
		{
			name: "example of the first prototype",
			in:   `{"streams":[{"stream":{"level":"info","app":"test-app"},"values":[["2024-01-01","starting up"],["2024-01-01","ready"]]}]}`,
			want: []row{
				{Labels: `{"app":"test-app","level":"info"}`, Time: newYear, Line: "starting up"},
				{Labels: `{"app":"test-app","level":"info"}`, Time: newYear, Line: "ready"},
			},
			coarse: true,
		},
		{
			name:   "example of Loki's HTTP API",
			in:     `{"streams": [{ "stream": { "foo": "bar2" }, "values": [ [ "1570818238000000000", "fizzbuzz" ] ] }]}`,
			want:   []row{{Labels: `{"foo":"bar2"}`, Time: 1570818238000000000, Line: "fizzbuzz"}},
			coarse: true,
		},
		{
			name: "shape of Loki's HTTP API, over several lines",
			in: `{
  "streams": [
    {
      "stream": {
        "label": "value"
      },
      "values": [
          [ "1570818238000000001", "one" ],
          [ "1570818238000000002", "two" ]
      ]
    }
  ]
}
`,
			want: []row{
				{Labels: `{"label":"value"}`, Time: 1570818238000000001, Line: "one"},
				{Labels: `{"label":"value"}`, Time: 1570818238000000002, Line: "two"},
			},
		},
		{
			name: "structured metadata of Loki's HTTP API",
			in:   values(`["1570818238000000001", "a", {"trace_id": "0242ac120002", "user_id": "superUser123"}], ["1570818238000000002","b",{}],["1570818238000000003","c",{"user_id":""}]`),
			want: []row{
				{Labels: api, Time: 1570818238000000001, Line: "a", Metadata: []string{"trace_id=0242ac120002", "user_id=superUser123"}},
				{Labels: api, Time: 1570818238000000002, Line: "b"},
				{Labels: api, Time: 1570818238000000003, Line: "c", Metadata: []string{"user_id="}},
			},
		},
		{
			name: "a metadata name twice in an entry",
			in:   values(`["1","a",{"k":"1","k":"2"}]`),
			want: []row{{Labels: api, Time: 1, Line: "a", Metadata: []string{"k=1", "k=2"}}},
		},
		{
			name: "escapes and bytes in metadata",
			in:   values(`["1","a",{"\u006b\"":"\n\t` + "\xff\x00" + `","b":"x\\"}]`),
			want: []row{{Labels: api, Time: 1, Line: "a", Metadata: []string{"b=x\\", "k\"=\n\t\xff\x00"}}},
		},
		{
			name: "timestamps in their forms",
			in: values(`["1700000000000000001","ns"],[1700000000000000002,"integer"],[-1,"before 1970"],["-1","too"],["2024-01-01T00:00:00.5Z","RFC 3339"],` +
				`["2024-01-01T02:00:00.000000001+02:00","zone"],["2024-01-01T02:00:00.000000001\u002b02:00","escaped"],[ 12 ,"space"]`),
			want: []row{
				{Labels: api, Time: 1700000000000000001, Line: "ns"},
				{Labels: api, Time: 1700000000000000002, Line: "integer"},
				{Labels: api, Time: -1, Line: "before 1970"},
				{Labels: api, Time: -1, Line: "too"},
				{Labels: api, Time: newYear + 5e8, Line: "RFC 3339"},
				{Labels: api, Time: newYear + 1, Line: "zone"},
				{Labels: api, Time: newYear + 1, Line: "escaped"},
				{Labels: api, Time: 12, Line: "space"},
			},
		},
		{
			name: "no timestamp",
			in:   values(`["1","a"],["","b"],[null,"c"],["2","d"]`),
			want: []row{
				{Labels: api, Time: 1, Line: "a"},
				{Labels: api, Time: testNow, Line: "b"},
				{Labels: api, Time: testNow, Line: "c"},
				{Labels: api, Time: 2, Line: "d"},
			},
			coarse: true,
		},
		{
			name: "escapes in lines",
			in: values(`["1","\"\\\/\b\f\n\r\t"],["1","\u0041\u00e9\u20AC\uD83D\ude00\u0000"],["1","{\"level\":\"info\",\"msg\":\"0123456789\\n\"}"],` +
				`["1","ends in \\"],["1","\\\\"],["1","01234567\n"],["1","0123456\n89abcdef\n"]`),
			want: []row{
				{Labels: api, Time: 1, Line: "\"\\/\b\f\n\r\t"},
				{Labels: api, Time: 1, Line: "Aé€😀\x00"},
				{Labels: api, Time: 1, Line: `{"level":"info","msg":"0123456789\n"}`},
				{Labels: api, Time: 1, Line: `ends in \`},
				{Labels: api, Time: 1, Line: `\\`},
				{Labels: api, Time: 1, Line: "01234567\n"},
				{Labels: api, Time: 1, Line: "0123456\n89abcdef\n"},
			},
		},
		{
			name: "halves of surrogate pairs",
			in:   values(`["1","\ud800"],["1","\udc00x"],["1","\ud800\ud83d\ude00"],["1","\ud800\u0041"],["1","\ud800\n"],["1","\udc00\ud800"]`),
			want: []row{
				{Labels: api, Time: 1, Line: "\ufffd"},
				{Labels: api, Time: 1, Line: "\ufffdx"},
				{Labels: api, Time: 1, Line: "\ufffd😀"},
				{Labels: api, Time: 1, Line: "\ufffdA"},
				{Labels: api, Time: 1, Line: "\ufffd\n"},
				{Labels: api, Time: 1, Line: "\ufffd\ufffd"},
			},
		},
		{
			name: "bytes that JSON does not have",
			in:   values("[\"1\",\"\xff\xfe\x80\"],[\"1\",\"\xff\\n\xfe\"],[\"1\",\"tab\tnew line\nNUL\x00\"],[\"1\",\"\x00\\\\\x01\"]"),
			want: []row{
				{Labels: api, Time: 1, Line: "\xff\xfe\x80"},
				{Labels: api, Time: 1, Line: "\xff\n\xfe"},
				{Labels: api, Time: 1, Line: "tab\tnew line\nNUL\x00"},
				{Labels: api, Time: 1, Line: "\x00\\\x01"},
			},
		},
		{name: "an empty line", in: values(`["1",""]`), want: []row{{Labels: api, Time: 1}}},
		{
			name: "values before labels, and unknown keys",
			in: `{"a":{"b":[1,-0.5e+3,true,false,null,"x\"",{}]},"streams":[
				{"x":[[],{"y":{}}],"values":[["1","a"],["2","b",{"k":"v"}]],"z":0,"stream":{"b":"2","a":"1"}},
				{"\u0073tream":{"c":"3"},"val\u0075es":[["3","c"]]}],"z":-1}`,
			want: []row{
				{Labels: `{"a":"1","b":"2"}`, Time: 1, Line: "a"},
				{Labels: `{"a":"1","b":"2"}`, Time: 2, Line: "b", Metadata: []string{"k=v"}},
				{Labels: `{"c":"3"}`, Time: 3, Line: "c"},
			},
		},
		{
			name: "labels are canonical",
			in: `{"streams":[{"stream":{"z":"\u00e9\"\\","a":"","B":"\ud800"},"values":[["1","x"]]},
				{"stream":{ "B" : "\ufffd", "z" : "é\"\\" },"values":[["2","y"]]}]}`,
			want: []row{
				{Labels: `{"B":"` + "\ufffd" + `","z":"é\"\\"}`, Time: 1, Line: "x"},
				{Labels: `{"B":"` + "\ufffd" + `","z":"é\"\\"}`, Time: 2, Line: "y"},
			},
		},
		{
			name: "a stream twice, and streams without entries",
			in: `{"streams":[{"stream":{"a":"1"},"values":[["1","x"]]},{"stream":{"a":"2"},"values":[]},{"stream":{"a":"3"}},
				{"stream":{"a":"4"},"values":null},{"stream":{"a":"1"},"values":[["2","y"]]}]}`,
			want: []row{{Labels: `{"a":"1"}`, Time: 1, Line: "x"}, {Labels: `{"a":"1"}`, Time: 2, Line: "y"}},
		},
		{name: "no streams", in: `{"streams":[]}`},
		{name: "a byte order mark", in: "\ufeff" + values(`["1","a"]`), want: []row{{Labels: api, Time: 1, Line: "a"}}},
		{name: "white space around", in: " \r\n\t" + values("\n[\t\"1\"\r, \"a\"\n]\n") + " \n", want: []row{{Labels: api, Time: 1, Line: "a"}}},
		{
			name: "nesting as deep as it may be",
			in:   `{"x":` + strings.Repeat("[", jsontext.MaxDepth) + strings.Repeat("]", jsontext.MaxDepth) + `,"streams":[]}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b logs.Batch
			body := []byte(c.in)
			if err := JSON(&b, body, testNow, testLimits); err != nil {
				t.Fatal(err)
			}
			if string(body) != c.in {
				t.Error("the body was written to")
			}
			clear(body) // the batch must not depend on it
			decodetest.SameRows(t, decodetest.Rows(t, &b), c.want)
			if b.Coarse != c.coarse {
				t.Errorf("Coarse is %v", b.Coarse)
			}
		})
	}
}

func TestJSONRefuses(t *testing.T) {
	deep := `{"x":` + strings.Repeat("[", jsontext.MaxDepth+1)
	for _, c := range []struct{ in, want string }{
		// The document.
		{``, `offset 0: want an object, got the end`},
		{` `, `offset 1: want an object, got the end`},
		{"\ufeff", `offset 3: want an object, got the end`},
		{`[]`, `want an object, got array`},
		{`null`, `want an object, got null`},
		{`"x"`, `want an object, got string`},
		{`7`, `want an object, got number`},
		{`x`, `offset 0: want an object, got "x"`},
		{"\x00", `offset 0: want an object, got "\x00"`},
		{`{}`, `"streams" is missing`},
		{`{"Streams":[]}`, `"streams" is missing`},
		{`{"streams":[],"streams":[]}`, `"streams" is given twice`},
		{`{"streams":[]}x`, `offset 14: want the end of the document, got "x"`},
		{`{"streams":[]} {}`, `offset 15: want the end of the document, got "{"`},
		{`{"streams":[]}` + "\x00", `offset 14: want the end of the document, got "\x00"`},
		{`{"streams":{}}`, `streams: want an array, got object`},
		{`{"streams":null}`, `streams: want an array, got null`},
		{`{"streams":x}`, `offset 11: want an array, got "x"`},
		{`{"streams"}`, `offset 10: want ':', got "}"`},
		{`{streams:[]}`, `offset 1: want a key or '}', got "s"`},
		{`{"streams":[],}`, `offset 14: want a key, got "}"`},
		{`{"streams":[] "x":1}`, `offset 14: want ',' or '}', got "\""`},
		{`{,"streams":[]}`, `offset 1: want a key or '}', got ","`},
		{`{"streams":[`, `offset 12: want an object, got the end`},
		{`{"streams":[{`, `offset 13: want a key or '}', got the end`},
		{`{"stre`, `offset 6: the string that begins at offset 1 has no end`},
		{`{"x":"\`, `offset 7: the string that begins at offset 5 has no end`},
		{`{"x":"\"`, `offset 8: the string that begins at offset 5 has no end`},

		// Values of unknown keys.
		{`{"x":tru}`, `offset 8: want true, got "}"`},
		{`{"x":nul`, `offset 8: want null, got the end`},
		{`{"x":falsy}`, `offset 9: want false, got "y"`},
		{`{"x":01}`, `offset 6: want ',' or '}', got "1"`},
		{`{"x":-}`, `offset 6: want a digit, got "}"`},
		{`{"x":1.}`, `offset 7: want a digit, got "}"`},
		{`{"x":1e+}`, `offset 8: want a digit, got "}"`},
		{`{"x":+1}`, `offset 5: want a value, got "+"`},
		{`{"x":}`, `offset 5: want a value, got "}"`},
		{`{"x":[1,]}`, `offset 8: want a value, got "]"`},
		{`{"x":[1 2]}`, `offset 8: want ',' or ']', got "2"`},
		{`{"x":"\q"}`, `offset 6: bad escape "\\q"`},
		{`{"x":"\u12g4"}`, `offset 6: bad escape "\\u12g4"`},
		{`{"x":"é` + "\xff" + `\u1"}`, `offset 9: bad escape "\\u1\"}"`},
		{deep, `offset 69: nested deeper than 64`},
		{strings.ReplaceAll(deep, "[", `{"a":`), `offset 325: nested deeper than 64`},
		{`{"streams":[{"x":` + strings.Repeat("[", 1_000_000), `offset 81: nested deeper than 64`},

		// Streams.
		{`{"streams":[1]}`, `streams[0]: want an object, got number`},
		{`{"streams":[{"stream":{"a":"b"}},[]]}`, `streams[1]: want an object, got array`},
		{`{"streams":[{}]}`, `streams[0].stream: a stream needs at least one label`},
		{`{"streams":[{"stream":{}}]}`, `streams[0].stream: a stream needs at least one label`},
		{`{"streams":[{"values":[["1","a"]]}]}`, `streams[0].stream: a stream needs at least one label`},
		{`{"streams":[{"stream":{"a":""},"values":[]}]}`, `streams[0].stream: a stream needs at least one label`},
		{`{"streams":[{"stream":null}]}`, `streams[0].stream: want an object, got null`},
		{`{"streams":[{"stream":"{a=\"b\"}"}]}`, `streams[0].stream: want an object, got string`},
		{`{"streams":[{"stream":{"a":1}}]}`, `streams[0].stream["a"]: want a string, got number`},
		{`{"streams":[{"stream":{"a":"1","a":"1"}}]}`, `streams[0].stream: label "a" is given twice`},
		{`{"streams":[{"stream":{"a.b":"1"}}]}`, `streams[0].stream: label name "a.b" does not match [a-zA-Z_][a-zA-Z0-9_]*`},
		{`{"streams":[{"stream":{"a":"` + "\xff" + `"}}]}`, `streams[0].stream: the value of label "a" is not valid UTF-8: "\xff"`},
		{`{"streams":[{"stream":{"a":"b"},"stream":{"a":"b"}}]}`, `streams[0]: "stream" is given twice`},
		{`{"streams":[{"values":[],"stream":{"a":"b"},"values":[]}]}`, `streams[0]: "values" is given twice`},
		{`{"streams":[{"stream":{"a":"b"},"values":{}}]}`, `streams[0].values: want an array, got object`},
		{`{"streams":[{"stream":{"a":"b"},"values":nil}]}`, `offset 42: want null, got "i"`},
		{`{"streams":[{"stream":{"a":"b"} "values":[]}]}`, `offset 32: want ',' or '}', got "\""`},
		{`{"streams":[{"stream":{"a" "b"}}]}`, `offset 27: want ':', got "\""`},

		// Values.
		{values(`1`), `streams[0].values[0]: want an array, got number`},
		{values(`["1","a"],{"ts":1}`), `streams[0].values[1]: want an array, got object`},
		{values(`["1","a"],`), `offset 56: want an array, got "]"`},
		{values(`["1","a"]["1","a"]`), `offset 55: want ',' or ']', got "["`},
		{values(`[]`), `streams[0].values[0]: want 2 or 3 elements, got 0`},
		{values(`["1"]`), `streams[0].values[0]: want 2 or 3 elements, got 1`},
		{values(`["1","a",{},1]`), `streams[0].values[0]: want 2 or 3 elements, got more`},
		{values(`["1" "a"]`), `offset 51: want ',' or ']', got "\""`},
		{values(`["1",]`), `offset 51: want a string, got "]"`},
		{values(`["1","a",]`), `offset 55: want an object, got "]"`},
		{values(`["1","a";{}]`), `offset 54: want ',' or ']', got ";"`},
		{values(`["1","a",{};`), `offset 57: want ',' or ']', got ";"`},
		{values(`[true,"a"]`), `streams[0].values[0][0]: want a string or an integer, got boolean`},
		{values(`[{},"a"]`), `streams[0].values[0][0]: want a string or an integer, got object`},
		{values(`[1.5,"a"]`), `streams[0].values[0][0]: want a string or an integer, got 1.5`},
		{values(`[1e18,"a"]`), `streams[0].values[0][0]: want a string or an integer, got 1e18`},
		{values(`[-,"a"]`), `offset 48: want a digit, got ","`},
		{values(`[nope,"a"]`), `offset 48: want null, got "o"`},
		{values(`["yesterday","a"]`), `streams[0].values[0][0]: timestamp "yesterday" is neither unix nanoseconds nor RFC 3339 nor a date`},
		{values(`[" ","a"]`), `streams[0].values[0][0]: timestamp " " is neither unix nanoseconds nor RFC 3339 nor a date`},
		{values(`["9223372036854775808","a"]`), `streams[0].values[0][0]: timestamp "9223372036854775808" is outside of 1900-01-01 to 2262-04-11`},
		{values(`[9223372036854775808,"a"]`), `streams[0].values[0][0]: timestamp "9223372036854775808" is outside of 1900-01-01 to 2262-04-11`},
		{values(`["1899-12-31","a"]`), `streams[0].values[0][0]: timestamp "1899-12-31" is outside of 1900-01-01 to 2262-04-11`},
		{values(`["1",7]`), `streams[0].values[0][1]: want a string, got number`},
		{values(`["1",null]`), `streams[0].values[0][1]: want a string, got null`},
		{values(`["1",{"a":1}]`), `streams[0].values[0][1]: want a string, got object`},
		{values(`["1","a\x"]`), `offset 53: bad escape "\\x"`},
		{values(`["1","a",null]`), `streams[0].values[0][2]: want an object, got null`},
		{values(`["1","a","b"]`), `streams[0].values[0][2]: want an object, got string`},
		{values(`["1","a",{"k":1}]`), `streams[0].values[0][2]["k"]: want a string, got number`},
		{values(`["1","a",{"k":{}}]`), `streams[0].values[0][2]["k"]: want a string, got object`},
		{values(`["1","a",{"k"}]`), `offset 59: want ':', got "}"`},
		{
			`{"streams":[{"stream":{"a":"b"}},{"stream":{"a":"b"},"values":[]},{"stream":{"a":"b"}},{"stream":{"a":"b"},"values":[` +
				strings.Repeat(`["1","x"],`, 12) + `["1",5]]}]}`,
			`streams[3].values[12][1]: want a string, got number`,
		},
	} {
		name := c.in
		t.Run(name[:min(len(name), 60)], func(t *testing.T) {
			var b logs.Batch
			decodetest.WantError(t, JSON(&b, []byte(c.in), testNow, testLimits), c.want)
		})
	}
}

func TestJSONLimits(t *testing.T) {
	limits := decode.Limits{MaxLineBytes: 8, MaxPushBytes: 200}
	line := func(in string) error { return JSON(new(logs.Batch), []byte(in), testNow, limits) }

	for _, fits := range []string{`12345678`, `1234567\n`, `\u00e9\ud83d\ude00\n\n`, ``} {
		if err := line(values(`["1","` + fits + `"]`)); err != nil {
			t.Errorf("%s: %v", fits, err)
		}
	}
	var refused *decode.Error
	for _, long := range []string{`123456789`, `12345678\n`, `\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9`} {
		err := line(values(`["1","a"],["1","` + long + `"]`))
		if !errors.As(err, &refused) || refused.Where != "streams[0].values[1]" || refused.Labels != api {
			t.Errorf("%s: %+v", long, err)
		}
	}
	decodetest.WantError(t, line(values(`["1","123456789"]`)), `streams[0].values[0]: line of 9 bytes is longer than 8 (--max-line-bytes)`)
	decodetest.WantError(t, line(values(`["1","\u00e9\u00e9\u00e9\u00e9\u00e9"]`)), `streams[0].values[0]: line of 10 bytes is longer than 8 (--max-line-bytes)`)

	body := values(`["1","a"]`)
	body += strings.Repeat(" ", 200-len(body))
	if err := line(body); err != nil {
		t.Error(err)
	}
	var large *decode.TooLargeError
	if err := line(body + " "); !errors.As(err, &large) || large.Limit != 200 {
		t.Errorf("%v", err)
	}

	var names strings.Builder
	for i := range decode.MaxMetadataNames {
		fmt.Fprintf(&names, `["1","",{"n%d":"","n%d":""}],`, i, i/2)
	}
	ok := strings.TrimSuffix(names.String(), ",")
	if err := JSON(new(logs.Batch), []byte(values(ok)), testNow, testLimits); err != nil {
		t.Error(err)
	}
	err := JSON(new(logs.Batch), []byte(values(ok+`,["1","",{"n1":"","more":""}]`)), testNow, testLimits)
	decodetest.WantError(t, err, `streams[0].values[10000][2]: the push has more than 10000 different metadata names`)

	var many strings.Builder
	for i := range decode.MaxLabels {
		fmt.Fprintf(&many, `,"l%d":"x"`, i)
	}
	stream := func(labels string) []byte { return []byte(`{"streams":[{"stream":{` + labels + `}}]}`) }
	if err := JSON(new(logs.Batch), stream(many.String()[1:]), testNow, testLimits); err != nil {
		t.Error(err)
	}
	err = JSON(new(logs.Batch), stream(many.String()[1:]+`,"more":""`), testNow, testLimits)
	decodetest.WantError(t, err, `streams[0].stream: a stream has at most 1024 labels`)
}

// A document that is cut short is never taken for a whole one.
func TestJSONTruncated(t *testing.T) {
	whole := "\ufeff" + ` { "x" : [ -1.5e+3 , true , false , null , { "y" : "\u00e9" } ] , "streams" : [ { "stream" : { "app" : "a\n" , "b" : "c" } , ` +
		`"values" : [ [ "1" , "one\ttwo\ud83d\ude00" , { "k" : "v\"" } ] , [ 2 , "x" ] , [ null , "" ] ] } , { "values" : [ [ "2024-01-01" , "y" ] ] , "stream" : { "a" : "b" } } ] }`
	var b logs.Batch
	if err := JSON(&b, []byte(whole), testNow, testLimits); err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		b.Reset()
		err := JSON(&b, bytes.Clone([]byte(whole[:n])), testNow, testLimits)
		var refused *decode.Error
		if !errors.As(err, &refused) || !strings.HasPrefix(refused.Where, "offset ") {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// A byte that is changed must never bring the decoder down or make a batch that does not add up.
func TestJSONGarbled(t *testing.T) {
	whole := []byte(`{"x":[1e5,true,null],"streams":[{"values":[["1","o\n\u00e9",{"k":"v"}],[2,"x"]],"stream":{"a":"b"}}]}`)
	for i := range whole {
		for c := range 256 {
			body := bytes.Clone(whole)
			body[i] = byte(c)
			var b logs.Batch
			if err := JSON(&b, body, testNow, testLimits); err == nil {
				decodetest.Rows(t, &b)
			}
		}
	}
}

func TestJSONManyStreams(t *testing.T) {
	const n = 10_000
	body := []byte(`{"streams":[`)
	var want []row
	for i := range n {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"stream":{"pod":"p%d","app":"api"},"values":[["%d","line %d"]]}`, i, i+1, i)
		want = append(want, row{Labels: fmt.Sprintf(`{"app":"api","pod":"p%d"}`, i), Time: int64(i + 1), Line: fmt.Sprintf("line %d", i)})
	}
	body = append(body, "]}"...)
	var b logs.Batch
	for range 2 { // the second time many labels come from the cache
		b.Reset()
		if err := JSON(&b, body, testNow, testLimits); err != nil {
			t.Fatal(err)
		}
		decodetest.SameRows(t, decodetest.Rows(t, &b), want)
	}
}

// A push that was refused must leave nothing behind in what is kept for the next one.
func TestJSONAfterError(t *testing.T) {
	var b logs.Batch
	for _, bad := range []string{
		`{"streams":[{"stream":{"app":"other"},"values":[["1","a",{"\u006b":1}]]}]}`,
		`{"streams":[{"stream":{"app":"\u006fther"},"values":[["\u0031","a\n`,
	} {
		b.Reset()
		if err := JSON(&b, []byte(bad), testNow, testLimits); err == nil {
			t.Fatal("no error")
		}
		b.Reset()
		if err := JSON(&b, []byte(values(`["\u0032","b\t"]`)), testNow, testLimits); err != nil {
			t.Fatal(err)
		}
		decodetest.SameRows(t, decodetest.Rows(t, &b), []row{{Labels: api, Time: 2, Line: "b\t"}})
		b.Reset()
		decodetest.WantError(t, JSON(&b, []byte(`x`), testNow, testLimits), `offset 0: want an object, got "x"`)
	}
}

// reference reads a push by way of encoding/json: not fast, but somebody else's.
func reference(t testing.TB, body []byte) []row {
	t.Helper()
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	var streams []map[string]json.RawMessage
	decodetest.Must(t, json.Unmarshal(doc["streams"], &streams))
	var out []row
	for _, s := range streams {
		labels := map[string]string{}
		decodetest.Must(t, json.Unmarshal(s["stream"], &labels))
		var canonical []logs.Label
		for name, value := range labels {
			canonical = append(canonical, logs.Label{Name: name, Value: value})
		}
		text, err := logs.Canonical(canonical)
		decodetest.Must(t, err)
		if s["values"] == nil {
			continue
		}
		var values [][]json.RawMessage
		decodetest.Must(t, json.Unmarshal(s["values"], &values))
		for _, v := range values {
			r := row{Labels: text}
			var ts any
			d := json.NewDecoder(bytes.NewReader(v[0]))
			d.UseNumber()
			decodetest.Must(t, d.Decode(&ts))
			if ts == nil || ts == "" {
				r.Time = testNow
			} else {
				r.Time, err = logs.ParseTime(fmt.Append(nil, ts))
				decodetest.Must(t, err)
			}
			decodetest.Must(t, json.Unmarshal(v[1], &r.Line))
			if len(v) > 2 {
				metadata := map[string]string{}
				decodetest.Must(t, json.Unmarshal(v[2], &metadata))
				for name, value := range metadata {
					r.Metadata = append(r.Metadata, name+"="+value)
				}
				slices.Sort(r.Metadata)
			}
			out = append(out, r)
		}
	}
	return out
}

func TestJSONAgainstEncodingJSON(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		doc := randomJSON(rnd)
		var b logs.Batch
		if err := JSON(&b, doc, testNow, testLimits); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		decodetest.SameRows(t, decodetest.Rows(t, &b), reference(t, doc))
	}
}

// randomJSON is a valid push; keys come in random order, among unknown ones, with random white space.
func randomJSON(rnd *rand.Rand) []byte {
	w := jsonWriter{Rand: rnd}
	var streams []string
	for range rnd.IntN(4) {
		labels := []string{w.text(`app`) + w.space() + ":" + w.space() + w.text("x"+w.chars(5))}
		for i := range rnd.IntN(3) {
			labels = append(labels, w.text(fmt.Sprint("l", i))+":"+w.text(w.chars(10)))
		}
		var values []string
		for range rnd.IntN(6) {
			value := []string{w.time(), w.text(w.chars(80))}
			if rnd.IntN(3) == 0 {
				var metadata []string
				for i := range rnd.IntN(4) {
					metadata = append(metadata, w.text(fmt.Sprint("m", i, w.chars(3)))+":"+w.text(w.chars(20)))
				}
				value = append(value, w.group("{", metadata, "}"))
			}
			values = append(values, w.group("[", value, "]"))
		}
		members := []string{w.text("stream") + ":" + w.group("{", labels, "}")}
		if len(values) > 0 || rnd.IntN(2) == 0 {
			members = append(members, w.text("values")+":"+w.group("[", values, "]"))
		}
		if rnd.IntN(2) == 0 {
			members = append(members, w.text("other")+":"+w.any(4))
		}
		streams = append(streams, w.object(members))
	}
	members := []string{`"streams":` + w.group("[", streams, "]")}
	if rnd.IntN(2) == 0 {
		members = append(members, w.text("unknown")+w.space()+":"+w.any(4))
	}
	return []byte(w.space() + w.object(members) + w.space())
}

type jsonWriter struct{ *rand.Rand }

func (w jsonWriter) space() string { return " \t\r\n "[w.IntN(3):][:w.IntN(3)] }

func (w jsonWriter) object(members []string) string {
	w.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return w.group("{", members, "}")
}

func (w jsonWriter) group(open string, parts []string, end string) string {
	return open + w.space() + strings.Join(parts, w.space()+","+w.space()) + w.space() + end
}

func (w jsonWriter) chars(most int) string {
	var s strings.Builder
	for range w.IntN(most) {
		switch w.IntN(8) {
		case 0:
			s.WriteByte(`"\/`[w.IntN(3)])
		case 1:
			s.WriteRune(rune(w.IntN(0x20)))
		case 2:
			r := rune(w.IntN(utf8.MaxRune + 1))
			if !utf8.ValidRune(r) {
				r = '€'
			}
			s.WriteRune(r)
		default:
			s.WriteByte(byte(' ' + w.IntN(0x5f)))
		}
	}
	return s.String()
}

// text writes a JSON string and escapes some characters that need not be, in one way of several.
func (w jsonWriter) text(s string) string {
	out := []byte{'"'}
	for _, r := range s {
		switch short := strings.IndexRune("\"\\/\b\f\n\r\t", r); {
		case short >= 0 && (r < 0x20 || r == '"' || r == '\\' || w.IntN(2) == 0) && w.IntN(4) > 0:
			out = append(out, '\\', `"\/bfnrt`[short])
		case r < 0x20 || r == '"' || r == '\\' || w.IntN(20) == 0:
			format := []string{`\u%04x`, `\u%04X`}[w.IntN(2)]
			if r > 0xffff {
				out = fmt.Appendf(out, format+format, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
			} else {
				out = fmt.Appendf(out, format, r)
			}
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return string(append(out, '"'))
}

func (w jsonWriter) time() string {
	ns := w.Int64N(4e18) - 2e18
	switch w.IntN(6) {
	case 0:
		return strconv.FormatInt(ns, 10)
	case 1:
		return `""`
	case 2:
		return "null"
	case 3:
		return w.text(fmt.Sprintf("20%02d-%02d-%02d", w.IntN(100), 1+w.IntN(12), 1+w.IntN(28)))
	case 4:
		return w.text(fmt.Sprintf("20%02d-12-31T%02d:00:00.%dZ", w.IntN(100), w.IntN(24), w.IntN(1e9)))
	default:
		return w.text(strconv.FormatInt(ns, 10))
	}
}

func (w jsonWriter) any(depth int) string {
	kind := w.IntN(7)
	if depth == 0 {
		kind = w.IntN(5)
	}
	switch kind {
	case 0:
		return w.text(w.chars(20))
	case 1:
		return []string{"0", "-0", "12", "-3.25", "1e5", "2E-7", "6.02e+23"}[w.IntN(7)]
	case 2:
		return "true"
	case 3:
		return "false"
	case 4:
		return "null"
	case 5:
		return w.group("[", []string{w.any(depth - 1), w.any(depth - 1)}[:w.IntN(3)], "]")
	default:
		return w.group("{", []string{w.text("a") + ":" + w.any(depth-1), w.text(w.chars(5)) + ":" + w.any(depth-1)}[:w.IntN(3)], "}")
	}
}

func FuzzJSON(f *testing.F) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 10 {
		f.Add(randomJSON(rnd))
	}
	for _, s := range []string{
		`{"streams":[{"stream":{"level":"info","app":"test-app"},"values":[["2024-01-01","starting up"],["2024-01-01","ready"]]}]}`,
		`{"streams":[{"values":[["","\ud800\udc00\n",{"k":"v"}],[1,""],[null,"x"]],"stream":{"a":"b"}}]}`,
		"\ufeff{\"streams\":[]}", `{"x":[[[1.5e-3,true,false,null]]],"streams":[]}`, `{}`, ``, "{\"a\":\"\xff\x00\"}",
		`{"streams":[{"stream":{"a":"b"},"values":[["1","a"],["2","b",{}],["3"],[]]}]}`,
		`{"streams":[{"labels":"{a=\"b\"}","entries":[{"ts":"2024-01-01","line":"x","structuredMetadata":{"k":"v"}},{}]}]}`,
	} {
		f.Add([]byte(s))
	}
	limits := decode.Limits{MaxLineBytes: 1 << 10, MaxPushBytes: 1 << 20}
	f.Fuzz(func(t *testing.T, body []byte) {
		var b logs.Batch
		err := JSON(&b, body, testNow, limits)
		plain := bytes.TrimPrefix(body, []byte("\ufeff"))
		strict := json.Valid(plain)
		if err != nil {
			var refused *decode.Error
			if errors.As(err, &refused) && strings.HasPrefix(refused.Where, "offset ") && strict && !strings.HasPrefix(refused.Reason, "nested") {
				t.Fatalf("%v, but it is JSON: %q", err, body)
			}
			return
		}
		got := decodetest.Rows(t, &b)
		if !strict {
			if !slices.ContainsFunc(plain, func(c byte) bool { return c < 0x20 }) {
				t.Fatalf("taken, but it is not JSON: %q", body)
			}
			return
		}
		// The reference knows the form of today only, and keys may be escaped.
		if !utf8.Valid(plain) || bytes.Contains(plain, []byte("labels")) || bytes.Contains(plain, []byte("entries")) || bytes.Contains(plain, []byte(`\u00`)) {
			return
		}
		want := reference(t, plain)
		for i := range want {
			// A map keeps but the last of values with the same name.
			want[i].Metadata = nil
			got[i].Metadata = nil
		}
		if len(want) != len(got) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\n got %#v\nwant %#v", body, got, want)
		}
	})
}
