package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/gateway/decode/jsontext"
	"github.com/casteloig/logthra/shared/logs"
)

type row = decodetest.Row

const (
	testNow   = decodetest.Now
	unlabeled = decode.Unlabeled
)

var (
	testLimits  = decodetest.Limits
	testMapping = Mapping{Message: DefaultMessage, Time: DefaultTime}
)

func entry(labels string, ts int64, line string, metadata []string) row {
	return row{Labels: labels, Time: ts, Line: line, Metadata: metadata}
}

// parse is what becomes of one document.
func parse(t testing.TB, document string, m Mapping) (row, error) {
	t.Helper()
	var b logs.Batch
	var p Parser
	if err := p.Append(&b, []byte(document), &m, testNow, testLimits); err != nil {
		if !reflect.DeepEqual(b, logs.Batch{}) {
			t.Fatalf("%s: refused, but the batch is %+v", document, b)
		}
		return row{}, err
	}
	rows := decodetest.Rows(t, &b)
	if len(rows) != 1 {
		t.Fatalf("%s: %d entries", document, len(rows))
	}
	return rows[0], nil
}

func TestAppend(t *testing.T) {
	for name, c := range map[string]struct {
		document string
		want     row
	}{
		"a document": {
			`{"@timestamp":"2024-01-01T10:00:00.5Z","message":"hello","n":1,"ok":true}`,
			entry(unlabeled, 1704103200500000000, "hello", []string{"n=1", "ok=true"}),
		},
		"nothing": {" {} \n", entry(unlabeled, testNow, "{}", nil)},
		"no message": {
			"\ufeff\r\n {\"time\" : 1700000000.25, \"level\":\"WARN\", \"service.name\":\"api\", \"a\":{\"b\":1}} \n",
			entry(`{"level":"warn","service_name":"api"}`, 1700000000250000000, `{"time" : 1700000000.25, "level":"WARN", "service.name":"api", "a":{"b":1}}`, nil),
		},
		"nested": {
			`{"message":"m","a":{"b":{"c":"d"},"e":[1, {"f":2}],"g":null,"h":{}},"i.j":-1.50e2,"k":"","l":[]}`,
			entry(unlabeled, testNow, "m", []string{`a.b.c=d`, `a.e=[1, {"f":2}]`, `i.j=-1.50e2`, `k=`, `l=[]`}),
		},
		"paths of labels": {
			`{"message":"m","service":{"name":"api"},"k8s.namespace.name":"shop","cloud":{"region":"eu"}}`,
			entry(`{"cloud_region":"eu","k8s_namespace_name":"shop","service_name":"api"}`, testNow, "m", nil),
		},
		"values of labels": {
			`{"message":"m","service.name":7,"k8s.namespace.name":"","cloud.region":["eu"]}`,
			entry(`{"service_name":"7"}`, testNow, "m", []string{`cloud.region=["eu"]`, "k8s.namespace.name="}),
		},
		"a label given twice": {
			`{"message":"m","service.name":"a","service":{"name":"b"}}`,
			entry(`{"service_name":"a"}`, testNow, "m", []string{"service.name=b"}),
		},
		"escapes": {
			`{"mess\u0061ge":"a\n\"b\"\ud83d\ude00","k\ty":"v\\","service.n\u0061me":"\u0061pi"}`,
			entry(`{"service_name":"api"}`, testNow, "a\n\"b\"😀", []string{"k\ty=v\\"}),
		},
		"bytes that are not UTF-8": {"{\"message\":\"\xff\",\"k\":\"\x00\xfe\"}", entry(unlabeled, testNow, "\xff", []string{"k=\x00\xfe"})},
		"the order of messages": {
			`{"log":{"offset":3},"body":"c","msg":"b","message":{"x":1},"_msg":"d"}`,
			entry(unlabeled, testNow, "b", []string{"_msg=d", "body=c", "log.offset=3", "message.x=1"}),
		},
		"a message that is a number":  {`{"message":12.0,"body":"x"}`, entry(unlabeled, testNow, "12.0", []string{"body=x"})},
		"a message that is a boolean": {`{"message":false}`, entry(unlabeled, testNow, "false", nil)},
		"a message that is null":      {`{"message":null,"msg":"x"}`, entry(unlabeled, testNow, "x", nil)},
		"a message that is an array":  {`{"message":["x"]}`, entry(unlabeled, testNow, `{"message":["x"]}`, nil)},
		"an empty message":            {`{"message":"","msg":"x"}`, entry(unlabeled, testNow, "", []string{"msg=x"})},
		"messages given twice":        {`{"message":"a","message":"b"}`, entry(unlabeled, testNow, "a", []string{"message=b"})},
		"the order of times": {
			`{"message":"m","ts":"x","time":3.5,"timestamp":[2],"_time":{"a":"b"},"@timestamp":""}`,
			entry(unlabeled, 3.5e9, "m", []string{"@timestamp=", "_time.a=b", "timestamp=[2]", "ts=x"}),
		},
		"a level":                {`{"message":"m","level":"info"}`, entry(`{"level":"info"}`, testNow, "m", nil)},
		"a level by other words": {`{"message":"m","level":"Warning"}`, entry(`{"level":"warn"}`, testNow, "m", []string{"level=Warning"})},
		"a level of pino":        {`{"msg":"m","level":50}`, entry(`{"level":"error"}`, testNow, "m", []string{"level=50"})},
		"pino's as a string":     {`{"msg":"m","level":"50"}`, entry(unlabeled, testNow, "m", []string{"level=50"})},
		"no level of pino":       {`{"msg":"m","level":3,"severity":30}`, entry(unlabeled, testNow, "m", []string{"level=3", "severity=30"})},
		"a nested level":         {`{"message":"m","log":{"level":"debug"}}`, entry(`{"level":"debug"}`, testNow, "m", nil)},
		"the order of levels": {
			`{"message":"m","lvl":"debug","severity":"error","level":"loud"}`,
			entry(`{"level":"error"}`, testNow, "m", []string{"level=loud", "lvl=debug"}),
		},
		"a message that is the level": {`{"log":{"x":1},"body":"warn","level":"warn"}`, entry(`{"level":"warn"}`, testNow, "warn", []string{"log.x=1"})},
		"names without end": {
			`{"message":"m","` + strings.Repeat("x", 200) + `":{"` + strings.Repeat("y", 100) + `":{"z":1},"a":{"b":{}}}}`,
			entry(unlabeled, testNow, "m", []string{strings.Repeat("x", 200) + "." + strings.Repeat("y", 100) + `={"z":1}`}),
		},
		"as deep as can be": {
			strings.Repeat(`{"a":`, jsontext.MaxDepth-1) + `{"b":1}` + strings.Repeat("}", jsontext.MaxDepth-1),
			entry(unlabeled, testNow, strings.Repeat(`{"a":`, jsontext.MaxDepth-1)+`{"b":1}`+strings.Repeat("}", jsontext.MaxDepth-1), nil),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(t, c.document, testMapping)
			decodetest.Must(t, err)
			decodetest.SameRows(t, []row{got}, []row{c.want})
		})
	}
}

func TestMapping(t *testing.T) {
	const document = `{"a":{"b":"x"},"c-d":"2","level":"INFO","severity":"warn","when":5,"service.name":"api","message":"m"}`
	for name, c := range map[string]struct {
		m    Mapping
		want row
	}{
		"nothing": {Mapping{}, entry(`{"level":"info","service_name":"api"}`, testNow, document, nil)},
		"message and time": {
			Mapping{Message: []string{"b", "a.b"}, Time: []string{"when"}},
			entry(`{"level":"info","service_name":"api"}`, 5e9, "x", []string{"c-d=2", "level=INFO", "message=m", "severity=warn"}),
		},
		"streams": {
			Mapping{Message: DefaultMessage, Streams: []string{"a.b", "when", "level", "no"}},
			entry(`{"a_b":"x","level":"info","service_name":"api","when":"5"}`, testNow, "m", []string{"c-d=2", "level=INFO", "severity=warn"}),
		},
		"labels go first": {
			Mapping{Message: DefaultMessage, Streams: []string{"severity"}, Labels: []logs.Label{{Name: "service_name", Value: "s"}, {Name: "level", Value: "l"}, {Name: "e"}, {Name: "severity", Value: "v"}}},
			entry(`{"level":"l","service_name":"s","severity":"v"}`, testNow, "m", []string{"a.b=x", "c-d=2", "level=INFO", "service.name=api", "severity=warn", "when=5"}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(t, document, c.m)
			decodetest.Must(t, err)
			decodetest.SameRows(t, []row{got}, []row{c.want})
		})
	}
}

func TestErrors(t *testing.T) {
	many := func(n int) string {
		doc := []byte(`{"message":"m"`)
		for i := range n {
			doc = fmt.Appendf(doc, `,"f%d":1`, i)
		}
		return string(append(doc, '}'))
	}
	labels := make([]logs.Label, decode.MaxLabels)
	for i := range labels {
		labels[i] = logs.Label{Name: fmt.Sprint("l", i), Value: "x"}
	}
	long := strings.Repeat("x", testLimits.MaxLineBytes+1)
	for name, c := range map[string]struct {
		document string
		m        Mapping
		want     string
	}{
		"no object":         {`["a"]`, testMapping, "want an object, got array"},
		"nothing":           {"", testMapping, "offset 0: want an object, got the end"},
		"bad syntax":        {`{"a":1,}`, testMapping, `offset 7: want a key, got "}"`},
		"a bad value":       {`{"a":{"b":01}}`, testMapping, `offset 11: want ',' or '}', got "1"`},
		"two documents":     {`{"a":1}{"a":1}`, testMapping, `offset 7: want the end of the document, got "{"`},
		"cut short":         {`{"message":"a`, testMapping, "offset 13: the string that begins at offset 11 has no end"},
		"too deep":          {strings.Repeat(`{"a":`, jsontext.MaxDepth+1), testMapping, "offset 320: nested deeper than 64"},
		"an array too deep": {`{"a":` + strings.Repeat("[", jsontext.MaxDepth+1), testMapping, "offset 69: nested deeper than 64"},
		"a bad time":        {`{"message":"m","time":"noon"}`, testMapping, `time: timestamp "noon" is neither unix time nor RFC 3339 nor a date`},
		"a boolean time":    {`{"message":"m","a":{"b":true}}`, Mapping{Time: []string{"a.b"}}, `a.b: timestamp "true" is neither unix time nor RFC 3339 nor a date`},
		"a long message":    {`{"message":"` + long + `"}`, testMapping, "message: line of 262145 bytes is longer than 262144 (--max-line-bytes)"},
		"a long document":   {`{"k":"` + long + `"}`, testMapping, "line of 262153 bytes is longer than 262144 (--max-line-bytes)"},
		"a bad label":       {"{\"service.name\":\"\xff\"}", testMapping, `the value of label "service_name" is not valid UTF-8: "\xff"`},
		"many labels":       {`{"service.name":"a"}`, Mapping{Labels: labels}, "a stream has at most 1024 labels"},
		"many fields":       {many(decode.MaxMetadataNames), testMapping, "the document has more than 10000 fields"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, c.document, c.m)
			decodetest.WantError(t, err, c.want)
		})
	}
	if _, err := parse(t, many(decode.MaxMetadataNames-1), testMapping); err != nil {
		t.Error(err)
	}
}

// Documents after one another: runs of the same labels are one stream, and what is refused leaves nothing.
func TestRuns(t *testing.T) {
	var b logs.Batch
	var p Parser
	for _, document := range []string{
		`{"message":"1","level":"info","time":1700000000.5}`,
		`{"message":"no","level":"error","new":1,"time":"x"}`,
		`{"level":"info","message":"2","k":"v","time":1700000001.5}`,
		`{"message":"3","level":"error","k":"w","time":1700000002.5}`,
		`{"message":"no`,
	} {
		err := p.Append(&b, []byte(document), &testMapping, testNow, testLimits)
		if bad := strings.Contains(document, `"no`); bad != (err != nil) {
			t.Fatalf("%s: %v", document, err)
		}
	}
	decodetest.SameRows(t, decodetest.Rows(t, &b), []row{
		entry(`{"level":"info"}`, 1700000000500000000, "1", nil),
		entry(`{"level":"info"}`, 1700000001500000000, "2", []string{"k=v"}),
		entry(`{"level":"error"}`, 1700000002500000000, "3", []string{"k=w"}),
	})
	if len(b.Streams) != 2 || len(b.Metadata) != 1 || b.Coarse || b.Stamped {
		t.Errorf("%+v", b)
	}
}

func TestCoarse(t *testing.T) {
	for document, want := range map[string][2]bool{
		`{}`:                             {true, true},
		`{"time":1.5}`:                   {false, false},
		`{"time":1700000000}`:            {true, false},
		`{"time":"2024-01-01 10:00:00"}`: {true, false},
	} {
		var b logs.Batch
		var p Parser
		decodetest.Must(t, p.Append(&b, []byte(document), &testMapping, testNow, testLimits))
		if got := [2]bool{b.Coarse, b.Stamped}; got != want {
			t.Errorf("%s: coarse and stamped are %v, want %v", document, got, want)
		}
	}
}

// The names of a batch are bounded, and a document too many takes no place from the next.
func TestNames(t *testing.T) {
	var b logs.Batch
	var p Parser
	refused := 0
	add := func(document string) {
		t.Helper()
		before := len(b.Metadata)
		if err := p.Append(&b, []byte(document), &testMapping, testNow, testLimits); err != nil {
			decodetest.WantError(t, err, decode.ErrTooManyNames.Error())
			if refused++; len(b.Metadata) != before {
				t.Fatalf("%s: %d names, and %d before", document, len(b.Metadata), before)
			}
		}
	}
	for range 2 {
		refused = 0
		for i := range decode.MaxMetadataNames/2 - 1 {
			add(fmt.Sprintf(`{"message":"","a%d":1,"b%d":1,"a%d":2}`, i, i, i))
		}
		if add(`{"message":"","c":1,"d":1,"e":1,"a0":1}`); refused != 1 {
			t.Fatalf("%d refused", refused)
		}
		if add(`{"message":"","c":1,"d":1,"a0":1,"c":2}`); refused != 1 {
			t.Fatalf("%d refused", refused)
		}
		if add(`{"message":"","e":1}`); refused != 2 {
			t.Fatalf("%d refused", refused)
		}
		if add(`{"message":"","a1":1}`); refused != 2 || len(b.Metadata) != decode.MaxMetadataNames {
			t.Fatalf("%d refused, %d names", refused, len(b.Metadata))
		}
		decodetest.Rows(t, &b)
		b.Reset()
		p.Reset()
	}
}

// The document's buffer is used again: no batch, and nothing that is kept, may depend on it.
func TestBatchOwnsItsBytes(t *testing.T) {
	var p Parser
	for range 3 {
		var b logs.Batch
		document := []byte(`{"message":"m","service.name":"api","host":{"name":"h"}}`)
		decodetest.Must(t, p.Append(&b, document, &testMapping, testNow, testLimits))
		clear(document)
		p.Reset()
		decodetest.SameRows(t, decodetest.Rows(t, &b), []row{entry(`{"service_name":"api"}`, testNow, "m", []string{"host.name=h"})})
	}
}

// What a document costs is bounded by its size.
func TestMemory(t *testing.T) {
	const size = 4 << 20
	path := strings.Repeat("p", 250)
	for name, document := range map[string]string{
		"fields":        `{"a":{` + strings.Repeat(`"a":1,`, size/6) + `"a":1}}`,
		"empty objects": `{"` + path + `":{` + strings.Repeat(`"a":{},`, size/7) + `"a":{}}}`,
		"nested names":  `{"` + path + `":{` + strings.Repeat(`"a":[],`, decode.MaxMetadataNames-2) + `"a":[]},"b":"` + strings.Repeat("x", size) + `"}`,
		"a long line":   `{"message":"` + strings.Repeat("x", size) + `"}`,
		"an array":      `{"message":"","a":[` + strings.Repeat("[],", size/3) + `[]]}`,
	} {
		t.Run(name, func(t *testing.T) {
			factor := decodetest.MemoryFactor(len(document), func(b *logs.Batch) error {
				return new(Parser).Append(b, []byte(document), &testMapping, testNow, decode.Limits{MaxLineBytes: 2 * size})
			})
			// The document itself is one part, its copy in the batch another.
			if factor > 8 {
				t.Errorf("%.1f bytes for each byte", factor)
			}
		})
	}
}

// flat are the fields of a value, as Append's documentation has it, by way of the standard library.
func flat(path string, value any, to map[string]int) {
	switch value := value.(type) {
	case nil:
	case map[string]any:
		for name, inner := range value {
			if path != "" {
				name = path + "." + name
			}
			flat(name, inner, to)
		}
	default:
		to[path]++
	}
}

func FuzzAppend(f *testing.F) {
	for _, document := range []string{
		`{"@timestamp":"2024-01-01T10:00:00.5Z","message":"hello","log":{"level":"warn"},"a":[1],"b":{"c":null}}`,
		`{"level":30,"time":1700000000123,"msg":"x","service":{"name":"y"}}`, filebeat, "{}", `{"":{"":""}}`, `{"msg":""`, "\xff",
	} {
		f.Add([]byte(document))
	}
	first := []byte(`{"message":"before","level":"info","k":"v"}`)
	f.Fuzz(func(t *testing.T, document []byte) {
		var b, before logs.Batch
		var p Parser
		decodetest.Must(t, p.Append(&before, first, &testMapping, testNow, testLimits))
		decodetest.Must(t, p.Append(&b, first, &testMapping, testNow, testLimits))
		err := p.Append(&b, document, &testMapping, testNow, testLimits)
		rows := decodetest.Rows(t, &b)
		if err != nil {
			if !reflect.DeepEqual(b, before) {
				t.Fatalf("%v, but the batch is %+v", err, b)
			}
			return
		}
		if len(rows) != 2 {
			t.Fatalf("%d entries", len(rows))
		}
		// All fields are somewhere: in the line, the labels, or metadata.
		var object map[string]any
		if !utf8.Valid(document) || bytes.Contains(document, []byte(`""`)) || json.Unmarshal(document, &object) != nil || bytes.ContainsRune(document, '\\') || strings.Contains(string(document), rows[1].Line) && rows[1].Line != "" && rows[1].Line[0] == '{' {
			return
		}
		fields := map[string]int{}
		flat("", object, fields)
		lost := 0
		for name := range fields {
			if !slices.ContainsFunc(rows[1].Metadata, func(m string) bool { return strings.HasPrefix(m, name+"=") }) {
				lost++
			}
		}
		var labels map[string]string
		decodetest.Must(t, json.Unmarshal([]byte(rows[1].Labels), &labels))
		if lost > 2+len(labels) {
			t.Fatalf("%d of the fields %v are neither in %v nor in %v", lost, fields, rows[1].Metadata, labels)
		}
	})
}

// A field that may be the timestamp, and is something else, is no reason to refuse a line; @timestamp is.
func TestGuess(t *testing.T) {
	m := Mapping{Message: DefaultMessage, Time: DefaultTime, Guess: true}
	for doc, want := range map[string]decodetest.Row{
		`{"msg":"a","time":"10:11","ts":"2025-10-01T08:00:00.5Z"}`: {Time: 1759305600500000000, Metadata: []string{"time=10:11"}},
		`{"msg":"a","timestamp":"soon"}`:                           {Time: decodetest.Now, Metadata: []string{"timestamp=soon"}},
	} {
		want.Labels, want.Line = unlabeled, "a"
		var b logs.Batch
		decodetest.Must(t, new(Parser).Append(&b, []byte(doc), &m, decodetest.Now, decodetest.Limits))
		decodetest.SameRows(t, decodetest.Rows(t, &b), []decodetest.Row{want})
	}
	err := new(Parser).Append(new(logs.Batch), []byte(`{"msg":"a","@timestamp":"soon"}`), &m, decodetest.Now, decodetest.Limits)
	decodetest.WantError(t, err, `@timestamp: timestamp "soon" is neither unix time nor RFC 3339 nor a date`)
}
