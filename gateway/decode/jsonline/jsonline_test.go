package jsonline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/gateway/decode/document"
	"github.com/casteloig/logthra/shared/logs"
)

type row = decodetest.Row

const (
	testNow   = decodetest.Now
	unlabeled = decode.Unlabeled
)

var (
	testLimits  = decodetest.Limits
	testMapping = document.Mapping{Message: document.DefaultMessage, Time: document.DefaultTime}
)

func decodePush(b *logs.Batch, body string) error {
	return Decode(b, []byte(body), &testMapping, testNow, testLimits)
}

func TestMapping(t *testing.T) {
	for _, c := range []struct {
		msg, time, streams string
		want               document.Mapping
	}{
		{"", "", "", document.Mapping{Message: document.DefaultMessage, Time: document.DefaultTime, Guess: true}},
		{"log", "date", "stream", document.Mapping{Message: []string{"log"}, Time: []string{"date"}, Streams: []string{"stream"}}},
		{
			" log, message ,log", ",", "kubernetes.namespace_name,,kubernetes.container_name,",
			document.Mapping{Message: []string{"log", "message"}, Time: document.DefaultTime, Guess: true, Streams: []string{"kubernetes.namespace_name", "kubernetes.container_name"}},
		},
	} {
		got, err := Mapping(c.msg, c.time, c.streams)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q, %q, %q: %+v (%v)", c.msg, c.time, c.streams, got, err)
		}
	}
}

func TestMappingIsBounded(t *testing.T) {
	list := func(n int) string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprint("f", i))
		}
		return strings.Join(out, ",")
	}
	most := list(maxNames)
	m, err := Mapping(most, most, list(decode.MaxLabels)+", f0")
	if err != nil || len(m.Message) != maxNames || len(m.Time) != maxNames || len(m.Streams) != decode.MaxLabels {
		t.Errorf("%d, %d and %d fields (%v)", len(m.Message), len(m.Time), len(m.Streams), err)
	}
	_, err = Mapping(most+",more", "", "")
	decodetest.WantError(t, err, "_msg_field: more than 64 fields")
	_, err = Mapping("", most+",more", "")
	decodetest.WantError(t, err, "_time_field: more than 64 fields")
	_, err = Mapping("", "", list(1_000_000))
	decodetest.WantError(t, err, "_stream_fields: more than 1024 fields")
}

func TestDecode(t *testing.T) {
	a, b := row{Labels: unlabeled, Time: 1e9 + 5, Line: "a"}, row{Labels: `{"level":"warn"}`, Time: testNow, Line: "b", Metadata: []string{"n=1"}}
	const docA, docB = `{"time":1000000005e-9,"msg":"a"}`, `{"level":"warn","msg":"b","n":1}`
	for _, c := range []struct{ name, body string }{
		{"lines", docA + "\n" + docB + "\n"},
		{"no newline at the end", docA + "\n" + docB},
		{"CRLF", docA + "\r\n" + docB + "\r\n"},
		{"empty lines", "\n\r\n  \n" + docA + "\n\t\n\n " + docB + " \n\n"},
		{"byte order mark", "\ufeff" + docA + "\n" + docB},
		{"on one line", docA + docB + "\n"},
		{"array", "[" + docA + "," + docB + "]"},
		{"array over many lines", "\ufeff\n[\n " + docA + ",\r\n " + strings.ReplaceAll(docB, ",", ",\n") + "\n]\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var batch logs.Batch
			decodetest.Must(t, decodePush(&batch, c.body))
			decodetest.SameRows(t, decodetest.Rows(t, &batch), []row{a, b})
			if !batch.Stamped {
				t.Error("not stamped")
			}
		})
	}
	for _, body := range []string{"", "\n", " \r\n\n", "[]", " [ ] \n"} {
		var batch logs.Batch
		if err := decodePush(&batch, body); err != nil || batch.Len() != 0 {
			t.Errorf("%q: %d entries (%v)", body, batch.Len(), err)
		}
	}
}

// What shippers send, with the parameters that their users give.
func TestShippers(t *testing.T) {
	for _, c := range []struct {
		name, msg, time, streams, body string
		want                           []row
	}{
		{
			name: "curl", streams: "app",
			body: `{"app":"shop","msg":"order 17 is paid","level":"info","order":{"id":17,"items":["tea","milk"]}}` + "\n" +
				`{"app":"shop","msg":"order 18 is lost","level":"ERROR"}` + "\n",
			want: []row{
				{Labels: `{"app":"shop","level":"info"}`, Time: testNow, Line: "order 17 is paid", Metadata: []string{"order.id=17", `order.items=["tea","milk"]`}},
				{Labels: `{"app":"shop","level":"error"}`, Time: testNow, Line: "order 18 is lost", Metadata: []string{"level=ERROR"}},
			},
		},
		{
			name: "Fluent Bit, json_lines", msg: "log", time: "date", streams: "stream,kubernetes.namespace_name",
			body: `{"date":1760000000.123456,"stream":"stderr","logtag":"F","log":"panic: out of tea","kubernetes":{"pod_name":"shop-6d9f8-x2x4z","namespace_name":"shop","labels":{"app.kubernetes.io/name":"shop"}}}` + "\n" +
				`{"date":1760000001,"stream":"stdout","logtag":"F","log":"","kubernetes":{"pod_name":"shop-6d9f8-x2x4z","namespace_name":"shop"}}` + "\n",
			want: []row{
				{
					Labels: `{"kubernetes_namespace_name":"shop","stream":"stderr"}`, Time: 1760000000123456000, Line: "panic: out of tea",
					Metadata: []string{"kubernetes.labels.app.kubernetes.io/name=shop", "kubernetes.pod_name=shop-6d9f8-x2x4z", "logtag=F"},
				},
				{
					Labels: `{"kubernetes_namespace_name":"shop","stream":"stdout"}`, Time: 1760000001000000000,
					Metadata: []string{"kubernetes.pod_name=shop-6d9f8-x2x4z", "logtag=F"},
				},
			},
		},
		{
			name: "Fluent Bit, json_stream", msg: "log", time: "date",
			body: `{"date":"2025-10-09T08:53:20.123456Z","log":"}{ is no end"}{"date":"2025-10-09T08:53:21.5Z","log":"two"}`,
			want: []row{
				{Labels: unlabeled, Time: 1760000000123456000, Line: "}{ is no end"},
				{Labels: unlabeled, Time: 1760000001500000000, Line: "two"},
			},
		},
		{
			name: "Vector, newline_delimited", msg: "message", time: "timestamp", streams: "host,container_name",
			body: `{"container_name":"tea","file":"/var/log/tea.log","host":"node-3","message":"water is \"hot\"","offset":0,"source_type":"file","timestamp":"2025-10-09T08:53:20.123456789Z"}` + "\n" +
				`{"container_name":"tea","file":"/var/log/tea.log","host":"node-3","message":"ready","offset":19,"source_type":"file","timestamp":"2025-10-09T08:53:21.123456789Z"}`,
			want: []row{
				{
					Labels: `{"container_name":"tea","host":"node-3"}`, Time: testNow, Line: `water is "hot"`,
					Metadata: []string{"file=/var/log/tea.log", "offset=0", "source_type=file"},
				},
				{
					Labels: `{"container_name":"tea","host":"node-3"}`, Time: testNow + 1e9, Line: "ready",
					Metadata: []string{"file=/var/log/tea.log", "offset=19", "source_type=file"},
				},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Mapping(c.msg, c.time, c.streams)
			decodetest.Must(t, err)
			var b logs.Batch
			decodetest.Must(t, Decode(&b, []byte(c.body), &m, testNow, testLimits))
			decodetest.SameRows(t, decodetest.Rows(t, &b), c.want)
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	const good = `{"msg":"a"}`
	for _, c := range []struct{ body, want string }{
		{"x", `line 1: offset 0: want an object, got "x"`},
		{good + "\n\r\n" + `{"a":}`, `line 3: offset 5: want a value, got "}"`},
		{good + "\n" + `{"msg":"no end` + "\n" + good, `line 2: offset 14: the string that begins at offset 7 has no end`},
		{good + "\n[]", `line 2: want an object, got array`},
		{good + "\n" + good + ",", `line 2: offset 11: want the end of the document, got ","`},
		{good + " " + good, `line 1: offset 12: want the end of the document, got "{"`},
		{"{\n" + `"msg":"a"}`, `line 1: offset 1: want a key or '}', got the end`},
		{good + "\n" + `{"msg":"a","time":"late"}`, `line 2: time: timestamp "late" is neither unix time nor RFC 3339 nor a date`},
		{"\n" + good + `{"msg":"a","time":"late"}`, `line 2: object 2: time: timestamp "late" is neither unix time nor RFC 3339 nor a date`},
		{good + good + "\x00", `line 1: offset 22: want a value, got "\x00"`},
		{good + good + "5", `line 1: object 3: want an object, got number`},
		{good + good + `{"a":1`, `line 1: offset 28: want ',' or '}', got the end`},
		{"[", "offset 1: want a value, got the end"},
		{"[" + good + "," + `{"a":}]`, `offset 18: want a value, got "}"`},
		{"[" + good + ",7]", `[1]: want an object, got number`},
		{"[" + good + "," + `{"msg":"a","time":"late"}]`, `[1]: time: timestamp "late" is neither unix time nor RFC 3339 nor a date`},
		{"[" + good + "]\n" + good, `offset 14: want the end of the document, got "{"`},
		{good + "\n" + `{"service.name":"` + "\xff" + `"}`, `line 2: the value of label "service_name" is not valid UTF-8: "\xff"`},
	} {
		var b logs.Batch
		decodetest.WantError(t, decodePush(&b, c.body), c.want)
	}
}

func TestDecodeLimits(t *testing.T) {
	const body = `{"msg":"12345678"}` + "\n" + `{"msg":"x"}`
	m := testMapping
	decodetest.Must(t, Decode(new(logs.Batch), []byte(body), &m, testNow, decode.Limits{MaxLineBytes: 8, MaxPushBytes: len(body)}))
	err := Decode(new(logs.Batch), []byte("\n"+body), &m, testNow, decode.Limits{MaxLineBytes: 7, MaxPushBytes: 100})
	decodetest.WantError(t, err, "line 2: msg: line of 8 bytes is longer than 7 (--max-line-bytes)")
	err = Decode(new(logs.Batch), []byte(body), &m, testNow, decode.Limits{MaxLineBytes: 8, MaxPushBytes: len(body) - 1})
	if large, ok := errors.AsType[*decode.TooLargeError](err); !ok || large.Limit != len(body)-1 {
		t.Errorf("%v", err)
	}

	var names strings.Builder
	for i := range decode.MaxMetadataNames {
		fmt.Fprintf(&names, `{"msg":"","n%d":""}`+"\n", i)
	}
	decodetest.Must(t, decodePush(new(logs.Batch), names.String()))
	err = decodePush(new(logs.Batch), names.String()+`{"msg":"","more":""}`)
	decodetest.WantError(t, err, "line 10001: the push has more than 10000 different metadata names")
}

// What is kept from one push to the next must not show in it, whether the push was taken or not.
func TestDecodeAfterError(t *testing.T) {
	for _, bad := range []string{`{"service.name":"x","msg":"a` + "\n", `[{"service.name":"\u0061","msg":"\u0061"},{]`, `{"a":1}{"\u0061":1}{`} {
		if err := decodePush(new(logs.Batch), bad); err == nil {
			t.Fatal("no error")
		}
		var b logs.Batch
		decodetest.Must(t, decodePush(&b, `{"msg":"\u0062"}`))
		decodetest.SameRows(t, decodetest.Rows(t, &b), []row{{Labels: unlabeled, Time: testNow, Line: "b"}})
	}
}

func TestDecodeGarbled(t *testing.T) {
	for _, whole := range []string{
		"{\"msg\":\"o\\n\\u00e9\",\"a\":{\"b\":[1]}}\r\n\n{\"level\":\"info\"}{}",
		`[{"msg":"o","a":{"b":[1]}} , {"time":"2024-01-01"}]`,
	} {
		for i := range len(whole) {
			for c := range 256 {
				body := []byte(whole)
				body[i] = byte(c)
				var b logs.Batch
				if err := Decode(&b, body, &testMapping, testNow, testLimits); err == nil {
					decodetest.Rows(t, &b)
				}
			}
		}
	}
}

func TestMemory(t *testing.T) {
	const n = 1 << 20
	for name, body := range map[string]string{
		"tiny lines":     strings.Repeat("{}\n", n/3),
		"tiny objects":   strings.Repeat("{}", n/2),
		"tiny elements":  "[{}" + strings.Repeat(",{}", n/3) + "]",
		"empty lines":    strings.Repeat("\n", n),
		"one line":       `{"msg":"` + strings.Repeat("x", n) + `"}`,
		"escapes":        `{"msg":"` + strings.Repeat(`\n`, n/2) + `"}`,
		"open brackets":  strings.Repeat("[", n),
		"open objects":   strings.Repeat(`{"a":`, n/5),
		"refused late":   strings.Repeat("{}\n", n/3) + "x",
		"tiny metadata":  strings.Repeat(`{"msg":"","a":""}`+"\n", n/17),
		"one long value": `{"msg":"","a":"` + strings.Repeat("x", n) + `"}`,
	} {
		limits := decode.Limits{MaxLineBytes: n, MaxPushBytes: 2 * n}
		got := decodetest.MemoryFactor(len(body), func(b *logs.Batch) error { return Decode(b, []byte(body), &testMapping, testNow, limits) })
		t.Logf("%s: %.1f bytes a byte", name, got)
		// Columns grow by copying, so that what was allocated in all is some times what is in use at the end.
		if got > 40 {
			t.Errorf("%s: %.1f bytes allocated for each of the push", name, got)
		}
	}
}

// reference counts the documents of a push by way of encoding/json.
func reference(body []byte) (n int, err error) {
	if text := bytes.TrimLeft(body, " \t\r\n"); len(text) > 0 && text[0] == '[' {
		var all []map[string]json.RawMessage
		err := json.Unmarshal(text, &all)
		return len(all), err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	for {
		var one map[string]json.RawMessage
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
		n++
	}
}

func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		"{\"msg\":\"a\"}\r\n\n{\"msg\":\"b\",\"a\":{\"b\":[1,\"}{\"]}}\n", `{"msg":"a"}{"msg":"b"}`, `[{"time":1.5},{"level":"info"}]`, "\ufeff{}", "{}{}\x00", "[{}]x",
	} {
		f.Add([]byte(body))
	}
	limits := decode.Limits{MaxLineBytes: 1 << 10, MaxPushBytes: 1 << 20}
	f.Fuzz(func(t *testing.T, body []byte) {
		var b logs.Batch
		if err := Decode(&b, body, &testMapping, testNow, limits); err != nil {
			if _, ok := errors.AsType[*decode.Error](err); !ok {
				t.Fatalf("%q: a %T: %v", body, err, err)
			}
			return
		}
		decodetest.Rows(t, &b)
		if bytes.Contains(body, []byte("\ufeff")) {
			return
		}
		n, err := reference(body)
		// A string may have control characters as they are; only in an array is LF one of them, which else ends the line.
		isArray := bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte{'['})
		if err != nil && !slices.ContainsFunc(body, func(c byte) bool { return c < 0x20 && (c != '\n' || isArray) }) {
			t.Fatalf("%q was taken, but: %v", body, err)
		}
		if err == nil && n != b.Len() {
			t.Fatalf("%q: %d entries, want %d", body, b.Len(), n)
		}
	})
}
