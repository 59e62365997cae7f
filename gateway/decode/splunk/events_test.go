package splunk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

var testLimits = decodetest.Limits

func decodePush(b *logs.Batch, body string) error {
	return Events(b, []byte(body), Defaults{}, testNow, testLimits)
}

// wantError checks a refusal, and what the answer to it would be.
func wantError(t *testing.T, err error, code, event int, want string) {
	t.Helper()
	decodetest.WantError(t, err, want)
	bad, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("a %T, want an *Error", err)
	}
	if bad.Code != code || bad.Event != event || bad.Text != Text(code) {
		t.Errorf("code %d, event %d, %q; want code %d, event %d\nof %s", bad.Code, bad.Event, bad.Text, code, event, want)
	}
}

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       []row
	}{
		{"a string", `{"event":"hello world"}`, []row{{Labels: unlabeled, Time: testNow, Line: "hello world"}}},
		{
			"everything",
			`{"time":1760000000.5,"host":"web-1","source":"api","sourcetype":"access","index":"main","event":"GET / 200",` +
				`"fields":{"region":"eu","service.name":"shop","tries":3,"ok":true,"none":null,"roles":["a","b"],"empty":""}}`,
			[]row{{
				Labels: `{"host":"web-1","index":"main","service_name":"shop","source":"api","sourcetype":"access"}`, Time: 1760000000500000000, Line: "GET / 200",
				Metadata: []string{"empty=", "ok=true", "region=eu", `roles=["a","b"]`, "tries=3"},
			}},
		},
		{
			"keys in any order, with escapes",
			` { "fields" : { "service.n\u0061me" : "sh\u006fp" , "\u0061" : [ "\u0062" , { } ] , "k" : "\"" } , "ev\u0065nt" : "a\n\"b\"" , "host" : "w\u00e9b" } `,
			[]row{{Labels: `{"host":"wéb","service_name":"shop"}`, Time: testNow, Line: "a\n\"b\"", Metadata: []string{`a=[ "\u0062" , { } ]`, `k="`}}},
		},
		{
			"events that are no strings",
			`{"event": {"a": [1, "\u00e9"] } }{"event":17}` + "\n" + `{"event":false}{"event":[]}` + "\r\n\r\n" + `{"event":{}}`,
			[]row{
				{Labels: unlabeled, Time: testNow, Line: `{"a": [1, "\u00e9"] }`}, {Labels: unlabeled, Time: testNow, Line: "17"},
				{Labels: unlabeled, Time: testNow, Line: "false"}, {Labels: unlabeled, Time: testNow, Line: "[]"}, {Labels: unlabeled, Time: testNow, Line: "{}"},
			},
		},
		{
			"an array",
			" [ {\"event\":\"a\",\"time\":1760000000} ,\n{\"event\":\"b\",\"time\":\"1760000001.25\"}]\n",
			[]row{{Labels: unlabeled, Time: 1760000000e9, Line: "a"}, {Labels: unlabeled, Time: 1760000001250000000, Line: "b"}},
		},
		{
			"times",
			`{"event":"a","time":1760000000123}{"event":"b","time":"2025-10-09T08:53:20.5Z"}{"event":"c","time":null}{"event":"d","time":""}{"event":"e","time":-0.5}`,
			[]row{
				{Labels: unlabeled, Time: 1760000000123e6, Line: "a"}, {Labels: unlabeled, Time: 1760000000500e6, Line: "b"},
				{Labels: unlabeled, Time: testNow, Line: "c"}, {Labels: unlabeled, Time: testNow, Line: "d"}, {Labels: unlabeled, Time: -5e8, Line: "e"},
			},
		},
		{
			"levels",
			`{"event":{"message":"a","severity":"WARNING"}}{"event":{"severity":"info","level":"error"}}{"event":{"level":"odd","lvl":"debug"}}` +
				`{"event":{"level":"error"},"fields":{"severity":"info","other":"warn"}}{"event":{"a":{"level":"error"},"level":7}}` +
				`{"event":"b","fields":{"otel.log.severity.text":"Warn","level":"odd"}}{"event":"level"}`,
			[]row{
				{Labels: `{"level":"warn"}`, Time: testNow, Line: `{"message":"a","severity":"WARNING"}`},
				{Labels: `{"level":"error"}`, Time: testNow, Line: `{"severity":"info","level":"error"}`},
				{Labels: `{"level":"debug"}`, Time: testNow, Line: `{"level":"odd","lvl":"debug"}`},
				{Labels: `{"level":"info"}`, Time: testNow, Line: `{"level":"error"}`, Metadata: []string{"other=warn"}},
				{Labels: unlabeled, Time: testNow, Line: `{"a":{"level":"error"},"level":7}`},
				{Labels: `{"level":"warn"}`, Time: testNow, Line: "b", Metadata: []string{"level=odd", "otel.log.severity.text=Warn"}},
				{Labels: unlabeled, Time: testNow, Line: "level"},
			},
		},
		{
			"fields that could be labels",
			`{"event":"a","fields":{"service.name":"a","service.name":"b","cloud.region":["eu"],"k8s.namespace.name":"","container.name":7,"host":"x","service_name":"y"}}`,
			[]row{{
				Labels: `{"container_name":"7","service_name":"a"}`, Time: testNow, Line: "a",
				Metadata: []string{`cloud.region=["eu"]`, "host=x", "k8s.namespace.name=", "service.name=b", "service_name=y"},
			}},
		},
		{
			"keys that Splunk does not know",
			`{"time_ms":5,"event":"a","attributes":{"a":{"b":"c","d":[1,{}]},"e":null,"f":{}},"x":null,"tag\u0073":["t"],"fields":{"k":"v"}}`,
			[]row{{Labels: unlabeled, Time: testNow, Line: "a", Metadata: []string{"attributes.a.b=c", "attributes.a.d=[1,{}]", "k=v", `tags=["t"]`, "time_ms=5"}}},
		},
		{
			"null is not there",
			`{"event":"a","host":null,"source":"","fields":null,"time":null}`,
			[]row{{Labels: unlabeled, Time: testNow, Line: "a"}},
		},
		{"byte order mark", "\ufeff{\"event\":\"a\"}", []row{{Labels: unlabeled, Time: testNow, Line: "a"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b logs.Batch
			decodetest.Must(t, decodePush(&b, c.body))
			decodetest.SameRows(t, decodetest.Rows(t, &b), c.want)
		})
	}
}

// What clients send.
func TestClients(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       []row
	}{
		{
			// The package for Node.js: a time of milliseconds as a string, nothing between the events, and the
			// metadata before the time.
			"splunk-logging 0.11.1",
			`{"time":"1795478531.209","event":{"message":"one","severity":"info"}}{"time":"1795478531.210","event":{"message":{"temperature":"70F","n":[1,2]},"severity":"error"}}` +
				`{"host":"farm.local","source":"coop","sourcetype":"httpevent","index":"main","time":"1426279439.000","event":{"message":"böb \"q\"","severity":"warn"}}` +
				`{"time":"1795478531.211","event":"[info] formatted"}`,
			[]row{
				{Labels: `{"level":"info"}`, Time: 1795478531209e6, Line: `{"message":"one","severity":"info"}`},
				{Labels: `{"level":"error"}`, Time: 1795478531210e6, Line: `{"message":{"temperature":"70F","n":[1,2]},"severity":"error"}`},
				{Labels: `{"host":"farm.local","index":"main","level":"warn","source":"coop","sourcetype":"httpevent"}`, Time: 1426279439e9, Line: `{"message":"böb \"q\"","severity":"warn"}`},
				{Labels: unlabeled, Time: 1795478531211e6, Line: "[info] formatted"},
			},
		},
		{
			"the log driver of Docker",
			`{"event":{"line":"ready","source":"stdout","tag":"0a1b2c3d4e5f"},"time":"1760000000.123456","host":"node-3"}` +
				`{"event":{"line":{"msg":"tea"},"source":"stderr","tag":"0a1b2c3d4e5f"},"time":"1760000000.123457","host":"node-3"}`,
			[]row{
				{Labels: `{"host":"node-3"}`, Time: 1760000000123456000, Line: `{"line":"ready","source":"stdout","tag":"0a1b2c3d4e5f"}`},
				{Labels: `{"host":"node-3"}`, Time: 1760000000123457000, Line: `{"line":{"msg":"tea"},"source":"stderr","tag":"0a1b2c3d4e5f"}`},
			},
		},
		{
			"the exporter of the OpenTelemetry Collector",
			`{"time":1760000000.123456789,"host":"node-3","source":"otel","sourcetype":"otel","index":"main","event":"ready",` +
				`"fields":{"k8s.namespace.name":"shop","k8s.pod.name":"shop-6d9f8-x2x4z","otel.log.severity.number":9,"otel.log.severity.text":"INFO","service.name":"shop"}}` + "\r\n\r\n",
			[]row{{
				Labels: `{"host":"node-3","index":"main","k8s_namespace_name":"shop","level":"info","service_name":"shop","source":"otel","sourcetype":"otel"}`, Time: testNow, Line: "ready",
				Metadata: []string{"k8s.pod.name=shop-6d9f8-x2x4z", "otel.log.severity.number=9", "otel.log.severity.text=INFO"},
			}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b logs.Batch
			decodetest.Must(t, decodePush(&b, c.body))
			decodetest.SameRows(t, decodetest.Rows(t, &b), c.want)
			if b.Stamped {
				t.Error("stamped")
			}
		})
	}
}

func TestEventsDefaults(t *testing.T) {
	d := Defaults{Host: "h", Source: "s", SourceType: "st", Time: []byte("1760000000.5")}
	var b logs.Batch
	decodetest.Must(t, Events(&b, []byte(`{"event":"a"}{"event":"b","source":"own","host":null,"sourcetype":"","index":"i","time":1}{"event":"c","time":""}`), d, testNow, testLimits))
	decodetest.SameRows(t, decodetest.Rows(t, &b), []row{
		{Labels: `{"host":"h","source":"s","sourcetype":"st"}`, Time: 1760000000500e6, Line: "a"},
		{Labels: `{"host":"h","index":"i","source":"own","sourcetype":"st"}`, Time: 1e9, Line: "b"},
		{Labels: `{"host":"h","source":"s","sourcetype":"st"}`, Time: 1760000000500e6, Line: "c"},
	})
	if b.Stamped {
		t.Error("stamped, with a time of the client's")
	}
	err := Events(&b, []byte(`{"event":"a"}`), Defaults{Time: []byte("late")}, testNow, testLimits)
	wantError(t, err, InvalidFormat, NoEvent, `time: timestamp "late" is neither unix time nor RFC 3339 nor a date`)
	err = Events(&b, []byte(`{"event":"a"}`), Defaults{Host: "\xff"}, testNow, testLimits)
	wantError(t, err, InvalidFormat, 0, `events[0]: the value of label "host" is not valid UTF-8: "\xff"`)
}

func TestEventsInStreams(t *testing.T) {
	var b logs.Batch
	decodetest.Must(t, decodePush(&b, `{"event":"a","host":"h","source":"s"}{"source":"s","event":"b","host":"h"}{"event":"c"}{"event":"d"}{"event":"e","host":"h","source":"s"}`))
	want := []logs.Stream{{Labels: `{"host":"h","source":"s"}`, Entries: 2}, {Labels: unlabeled, Entries: 2}, {Labels: `{"host":"h","source":"s"}`, Entries: 1}}
	if !slices.Equal(b.Streams, want) {
		t.Errorf("%v", b.Streams)
	}
}

func TestEventsRefuses(t *testing.T) {
	const good = `{"event":"a"}`
	for _, c := range []struct {
		body        string
		code, event int
		want        string
	}{
		{"", NoData, NoEvent, "there is no event in the push"},
		{" \n", NoData, NoEvent, "there is no event in the push"},
		{"[]", NoData, NoEvent, "there is no event in the push"},

		{"{}", EventRequired, 0, "events[0].event: an event needs one"},
		{good + `{"event":null}`, EventRequired, 1, "events[1].event: an event needs one"},
		{"[" + good + `,{"message":"x"}]`, EventRequired, 1, "events[1].event: an event needs one"},
		{good + good + `{"event":""}`, EventBlank, 2, "events[2].event: an empty string"},

		{"hello", InvalidFormat, 0, `offset 0: want an object, got "h"`},
		{good + "\x00", InvalidFormat, 1, `offset 13: want an object, got "\x00"`},
		{good + `"x"`, InvalidFormat, 1, "events[1]: want an object, got string"},
		{good + "[]", InvalidFormat, 1, "events[1]: want an object, got array"},
		{good + "," + good, InvalidFormat, 1, `offset 13: want an object, got ","`},
		{"[" + good + "]" + good, InvalidFormat, 1, `offset 15: want the end of the document, got "{"`},
		{good + `{"event":"a"`, InvalidFormat, 1, `offset 25: want ',' or '}', got the end`},
		{"[" + good, InvalidFormat, 1, `offset 14: want ',' or ']', got the end`},
		{`{"event":{"a":}}`, InvalidFormat, 0, `offset 14: want a value, got "}"`},
		{`{"event":"a","fields":}`, InvalidFormat, 0, `offset 22: want a value, got "}"`},
		{`{"event":"a","fields":{"k":x}}`, InvalidFormat, 0, `offset 27: want a value, got "x"`},
		{`{"event":"a","event":"b"}`, InvalidFormat, 0, `events[0]: "event" is given twice`},
		{`{"fields":{},"event":"a","fields":{}}`, InvalidFormat, 0, `events[0]: "fields" is given twice`},
		{`{"event":"a","host":7}`, InvalidFormat, 0, "events[0].host: want a string, got number"},
		{`{"event":"a","index":["i"]}`, InvalidFormat, 0, "events[0].index: want a string, got array"},
		{`{"event":"a","source":"` + "\xff" + `"}`, InvalidFormat, 0, `events[0]: the value of label "source" is not valid UTF-8: "\xff"`},
		{good + `{"event":"a","time":"soon"}`, InvalidFormat, 1, `events[1].time: timestamp "soon" is neither unix time nor RFC 3339 nor a date`},
		{`{"event":"a","time":true}`, InvalidFormat, 0, "events[0].time: want a number or a string, got boolean"},
		{`{"event":"a","time":1e30}`, InvalidFormat, 0, `events[0].time: timestamp "1e30" is outside of 1900-01-01 to 2262-04-11`},

		{good + `{"event":"a","fields":["x"]}`, BadFields, 1, "events[1].fields: want an object"},
		{`{"event":"a","fields":{"k\t":{}}}`, BadFields, 0, `events[0].fields["k\t"]: an object can't be nested here`},
	} {
		var b logs.Batch
		wantError(t, decodePush(&b, c.body), c.code, c.event, c.want)
	}
}

func TestEventsLimits(t *testing.T) {
	for _, event := range []string{`"12345678"`, `"\u0031\u003234567\t"`, `[ 12345 ]`} {
		body := `{"event":"x"}{"event":` + event + `}`
		size := len(body)
		line := len(event)
		if event[0] == '"' {
			line = 8
		}
		limits := decode.Limits{MaxLineBytes: line, MaxPushBytes: size}
		decodetest.Must(t, Events(new(logs.Batch), []byte(body), Defaults{}, testNow, limits))
		err := Events(new(logs.Batch), []byte(body+" "), Defaults{}, testNow, limits)
		if large, ok := errors.AsType[*decode.TooLargeError](err); !ok || large.Limit != size {
			t.Errorf("%v", err)
		}
		limits.MaxLineBytes--
		err = Events(new(logs.Batch), []byte(body), Defaults{}, testNow, limits)
		wantError(t, err, InvalidFormat, 1, fmt.Sprintf("events[1].event: line of %d bytes is longer than %d (--max-line-bytes)", line, line-1))
	}

	for _, form := range []string{`{"event":"a","fields":{"n%d":1,"same":2}}`, `{"event":"a","n%d":1,"same":2}`, `{"event":"a","o":{"n%d":1},"same":2}`} {
		var names strings.Builder
		for i := range decode.MaxMetadataNames - 1 {
			fmt.Fprintf(&names, form, i)
		}
		decodetest.Must(t, decodePush(new(logs.Batch), names.String()))
		err := decodePush(new(logs.Batch), names.String()+`{"event":"a","more":1}`)
		wantError(t, err, InvalidFormat, decode.MaxMetadataNames-1, "events[9999]: the push has more than 10000 different metadata names")
	}

	// A path that is too long to be repeated ends in an object as it came.
	var b logs.Batch
	long := strings.Repeat("p", decode.MaxPath)
	decodetest.Must(t, decodePush(&b, `{"event":"a","`+long+`":{"a":{"b":1}},"`+long[1:]+`":{"a":{"b":1}}}`))
	decodetest.SameRows(t, decodetest.Rows(t, &b), []row{{
		Labels: unlabeled, Time: testNow, Line: "a",
		Metadata: []string{long[1:] + `.a={"b":1}`, long + `={"a":{"b":1}}`},
	}})
	deep := strings.Repeat(`{"a":`, jsontext.MaxDepth)
	err := decodePush(&b, `{"event":"a","o":`+deep+`{}`)
	wantError(t, err, InvalidFormat, 0, fmt.Sprintf("offset %d: nested deeper than 64", len(`{"event":"a","o":`+deep)))
}

// What is kept from one push to the next must not show in it, whether the push was taken or not.
func TestEventsAfterError(t *testing.T) {
	for _, bad := range []string{
		`{"host":"x","index":"\u0061","fields":{"service.name":"x","level":"info","k":1}}`, `{"event":"a\n`, `{"event":{"level":"info"},"host":"x","x":{"y":"\u0061"}}{"time":1,`,
	} {
		if err := Events(new(logs.Batch), []byte(bad), Defaults{Host: "x", Time: []byte("1")}, testNow, testLimits); err == nil {
			t.Fatal("no error")
		}
		var b logs.Batch
		decodetest.Must(t, decodePush(&b, `{"\u0065vent":"\u0062"}`))
		decodetest.SameRows(t, decodetest.Rows(t, &b), []row{{Labels: unlabeled, Time: testNow, Line: "b"}})
	}
}

// A push that is cut short is never taken for a whole one, unless it ends between two events.
func TestEventsTruncated(t *testing.T) {
	first := ` { "time" : "1.5" , "x" : { "y" : [ true ] } , "event" : "a\n\u00e9" , "host" : "h" , "fields" : { "k" : "v" , "service.name" : null } }`
	whole := first + "\r\n" + ` { "event" : { "level" : "info" } , "fields" : { "a" : [ -1.5e+3 ] } }`
	var b logs.Batch
	decodetest.Must(t, decodePush(&b, whole))
	for n := range len(whole) {
		b.Reset()
		err := decodePush(&b, whole[:n])
		if strings.TrimSpace(whole[:n]) == strings.TrimSpace(first) {
			decodetest.Must(t, err)
		} else if _, ok := errors.AsType[*Error](err); !ok {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestEventsGarbled(t *testing.T) {
	whole := `[{"time":1.5,"event":"a\u00e9","host":"h","fields":{"k":["v"],"level":"warn"}},{"x":{"y":1},"event":{"level":"info"}}]`
	for i := range len(whole) {
		for c := range 256 {
			body := []byte(whole)
			body[i] = byte(c)
			var b logs.Batch
			if err := Events(&b, body, Defaults{}, testNow, testLimits); err == nil {
				decodetest.Rows(t, &b)
			} else if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("%q: a %T", body, err)
			}
		}
	}
}

func TestMemory(t *testing.T) {
	const n = 1 << 20
	var names, paths strings.Builder
	for i := range n / 10 {
		fmt.Fprintf(&names, `"%x":0,`, i)
		fmt.Fprintf(&paths, `,"%x":0`, i)
	}
	limits := decode.Limits{MaxLineBytes: n, MaxPushBytes: 4 * n}
	events := func(body string) (int, func(*logs.Batch) error) {
		return len(body), func(b *logs.Batch) error { return Events(b, []byte(body), Defaults{}, testNow, limits) }
	}
	raw := func(body string) (int, func(*logs.Batch) error) {
		return len(body), func(b *logs.Batch) error { return Raw(b, []byte(body), Defaults{}, testNow, limits) }
	}
	for name, push := range map[string]func() (int, func(*logs.Batch) error){
		"tiny events": func() (int, func(*logs.Batch) error) { return events(strings.Repeat(`{"event":1}`, n/11)) },
		"tiny streams": func() (int, func(*logs.Batch) error) {
			return events(strings.Repeat(`{"event":1,"host":"a"}{"event":1}`, n/33))
		},
		"tiny fields": func() (int, func(*logs.Batch) error) {
			return events(`{"event":1,"fields":{` + strings.Repeat(`"":0,`, n/5) + `"":0}}`)
		},
		"many names": func() (int, func(*logs.Batch) error) {
			return events(`{"event":1,"fields":{` + names.String() + `"":0}}`)
		},
		"many names in paths": func() (int, func(*logs.Batch) error) {
			return events(`{"event":1,"` + strings.Repeat("p", decode.MaxPath-1) + `":{"x":0` + paths.String() + `}}`)
		},
		"long paths": func() (int, func(*logs.Batch) error) {
			return events(`{"event":1,"` + strings.Repeat("p", n) + `":{"x":0` + paths.String() + `}}`)
		},
		"labels given often": func() (int, func(*logs.Batch) error) {
			return events(`{"event":1,"fields":{` + strings.Repeat(`"service.name":"x",`, n/19) + `"":0}}`)
		},
		"long label": func() (int, func(*logs.Batch) error) {
			return events(`{"event":1,"host":"` + strings.Repeat("x", n) + `"}`)
		},
		"escapes": func() (int, func(*logs.Batch) error) {
			return events(`{"event":1,"x":"` + strings.Repeat(`\n`, n/2) + `"}`)
		},
		"open brackets": func() (int, func(*logs.Batch) error) { return events(strings.Repeat(`[`, n)) },
		"tiny lines":    func() (int, func(*logs.Batch) error) { return raw(strings.Repeat("a\n", n/2)) },
		"empty lines":   func() (int, func(*logs.Batch) error) { return raw(strings.Repeat("\n", n)) },
	} {
		got := decodetest.MemoryFactor(push())
		t.Logf("%s: %.1f bytes a byte", name, got)
		// Columns grow by copying, so that what was allocated in all is some times what is in use at the end.
		if got > 30 {
			t.Errorf("%s: %.1f bytes allocated for each of the push", name, got)
		}
	}
}

// reference reads the lines of a push by way of encoding/json.
func reference(t *testing.T, body []byte) (lines []string, valid bool) {
	t.Helper()
	type event struct {
		Event json.RawMessage `json:"event"`
	}
	var events []event
	if text := bytes.TrimLeft(body, " \t\r\n"); len(text) > 0 && text[0] == '[' {
		if json.Unmarshal(text, &events) != nil {
			return nil, false
		}
	} else {
		d := json.NewDecoder(bytes.NewReader(body))
		for {
			var one event
			if err := d.Decode(&one); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, false
			}
			events = append(events, one)
		}
	}
	for _, e := range events {
		line := string(e.Event)
		if e.Event[0] == '"' {
			decodetest.Must(t, json.Unmarshal(e.Event, &line))
		}
		lines = append(lines, line)
	}
	return lines, true
}

func FuzzEvents(f *testing.F) {
	for _, body := range []string{
		`{"time":"1.5","event":"a\n\u00e9","host":"h","fields":{"k":"v","service.name":"s","a":[1]}}` + "\n" + `{"event":{"level":"info"},"x":{"y":null,"z":"\"","w":{}}}`,
		`[{"event":1},{"event":[2]}]`, "\ufeff{\"event\":true}", `{"event":"a"}` + "\x00", `{"EVENT":"a"}`,
	} {
		f.Add([]byte(body))
	}
	limits := decode.Limits{MaxLineBytes: 1 << 10, MaxPushBytes: 1 << 20}
	f.Fuzz(func(t *testing.T, body []byte) {
		var b logs.Batch
		if err := Events(&b, body, Defaults{}, testNow, limits); err != nil {
			if bad, ok := errors.AsType[*Error](err); !ok || bad.Text == "" {
				t.Fatalf("%q: a %T: %v", body, err, err)
			}
			return
		}
		got := decodetest.Rows(t, &b)
		// encoding/json does not tell one case from the other in a key, and changes what is not UTF-8.
		if !utf8.Valid(body) || bytes.Count(bytes.ToLower(body), []byte("event")) != len(got) || bytes.Contains(body, []byte("\ufeff")) || bytes.ContainsRune(body, 'ſ') {
			return
		}
		want, valid := reference(t, body)
		if !valid {
			if !slices.ContainsFunc(body, func(c byte) bool { return c < 0x20 }) {
				t.Fatalf("%q was taken, but is not JSON", body)
			}
			return
		}
		if len(got) != len(want) {
			t.Fatalf("%q: %d entries, want %d", body, len(got), len(want))
		}
		for i := range got {
			if got[i].Line != want[i] {
				t.Fatalf("%q: line %d is %q, want %q", body, i, got[i].Line, want[i])
			}
		}
	})
}
