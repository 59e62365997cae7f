package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

const testNow = decodetest.Now

var testLimits = decodetest.Limits

type row = decodetest.Row

// Parts of requests, as the generated code has them. logspb.LogsData is an ExportLogsServiceRequest on the wire.

func request(resources ...*logspb.ResourceLogs) *logspb.LogsData {
	return &logspb.LogsData{ResourceLogs: resources}
}

func resource(attributes []*commonpb.KeyValue, scopes ...*logspb.ScopeLogs) *logspb.ResourceLogs {
	return &logspb.ResourceLogs{Resource: &resourcepb.Resource{Attributes: attributes}, ScopeLogs: scopes}
}

func scope(records ...*logspb.LogRecord) *logspb.ScopeLogs {
	return &logspb.ScopeLogs{LogRecords: records}
}

// one is a request of one record of the service api.
func one(record *logspb.LogRecord) *logspb.LogsData {
	return request(resource(attributes("service.name", "api"), scope(record)))
}

// attributes are names and values in turn.
func attributes(pairs ...any) []*commonpb.KeyValue {
	var out []*commonpb.KeyValue
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, &commonpb.KeyValue{Key: pairs[i].(string), Value: anyOf(pairs[i+1])})
	}
	return out
}

// anyOf is an AnyValue: of nil none, of []any an array, of []*commonpb.KeyValue a map.
func anyOf(v any) *commonpb.AnyValue {
	switch v := v.(type) {
	case string:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}
	case bool:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: v}}
	case int:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: int64(v)}}
	case float64:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: v}}
	case []byte:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: v}}
	case []any:
		list := new(commonpb.ArrayValue)
		for _, e := range v {
			list.Values = append(list.Values, anyOf(e))
		}
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: list}}
	case []*commonpb.KeyValue:
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: v}}}
	}
	return new(commonpb.AnyValue)
}

// nested is an array in an array and so on, so many values in all.
func nested(depth int) *commonpb.AnyValue {
	v := anyOf("deep")
	for range depth - 1 {
		v = &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{v}}}}
	}
	return v
}

// nestedMap is nested with maps.
func nestedMap(depth int) *commonpb.AnyValue {
	v := anyOf("deep")
	for range depth - 1 {
		v = anyOf([]*commonpb.KeyValue{{Key: "k", Value: v}})
	}
	return v
}

func marshal(t testing.TB, req *logspb.LogsData) []byte {
	t.Helper()
	raw, err := proto.Marshal(req)
	decodetest.Must(t, err)
	return raw
}

// jsonWriter writes a request as OTLP/JSON. With a source of randomness it does so in one of the ways in which it can
// be done.
type jsonWriter struct{ rnd *rand.Rand }

func (w jsonWriter) chance(n int) bool { return w.rnd != nil && w.rnd.IntN(n) == 0 }

// object joins members, of which those without a text are left out.
func (w jsonWriter) object(members ...string) string {
	members = slices.DeleteFunc(members, func(m string) bool { return m == "" })
	if w.chance(4) {
		members = append(members, `"unknown":{"a":[1,{"b":null}],"c":"\"}"}`)
	}
	if w.rnd != nil {
		w.rnd.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	}
	space := ""
	if w.chance(4) {
		space = "\n\t "
	}
	return "{" + space + strings.Join(members, space+","+space) + space + "}"
}

func (w jsonWriter) quoted(s string) string {
	if w.chance(2) {
		var out strings.Builder
		out.WriteByte('"')
		for _, r := range s {
			if r < 0x10000 {
				fmt.Fprintf(&out, `\u%04X`, r)
			} else {
				out.WriteRune(r)
			}
		}
		return out.String() + `"`
	}
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (w jsonWriter) text(name, s string) string {
	switch {
	case s != "":
		return fmt.Sprintf("%q:%s", name, w.quoted(s))
	case w.chance(2):
		return fmt.Sprintf("%q:null", name)
	}
	return ""
}

func (w jsonWriter) integer(name string, n any) string {
	if w.chance(2) {
		return fmt.Sprintf(`%q:%d`, name, n)
	}
	return fmt.Sprintf(`%q:"%d"`, name, n)
}

func (w jsonWriter) id(name string, id []byte) string {
	text := hex.EncodeToString(id)
	if w.chance(2) {
		text = strings.ToUpper(text)
	}
	return w.text(name, text)
}

// list is a member that is an array.
func list[T any](w jsonWriter, name string, of []T, write func(T) string) string {
	if len(of) == 0 && w.chance(2) {
		return w.text(name, "")
	}
	var texts []string
	for _, e := range of {
		texts = append(texts, write(e))
	}
	return fmt.Sprintf("%q:[%s]", name, strings.Join(texts, ","))
}

func (w jsonWriter) pair(kv *commonpb.KeyValue) string {
	value := ""
	if kv.Value != nil {
		value = `"value":` + w.value(kv.Value)
	}
	return w.object(w.text("key", kv.Key), value)
}

func (w jsonWriter) value(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return w.object(`"stringValue":` + w.quoted(v.StringValue))
	case *commonpb.AnyValue_BoolValue:
		return w.object(fmt.Sprintf(`"boolValue":%t`, v.BoolValue), w.text("intValue", ""))
	case *commonpb.AnyValue_IntValue:
		return w.object(w.integer("intValue", v.IntValue))
	case *commonpb.AnyValue_DoubleValue:
		f := v.DoubleValue
		if math.IsNaN(f) || math.IsInf(f, 0) || w.chance(2) {
			return w.object(fmt.Sprintf(`"doubleValue":"%s"`, appendDouble(nil, f)))
		}
		return w.object(fmt.Sprintf(`"doubleValue":%g`, f))
	case *commonpb.AnyValue_BytesValue:
		encoding := base64.StdEncoding
		if w.chance(2) {
			encoding = base64.RawURLEncoding
		}
		return w.object(fmt.Sprintf(`"bytesValue":%q`, encoding.EncodeToString(v.BytesValue)))
	case *commonpb.AnyValue_ArrayValue:
		return w.object(`"arrayValue":` + w.object(list(w, "values", v.ArrayValue.Values, w.value)))
	case *commonpb.AnyValue_KvlistValue:
		return w.object(`"kvlistValue":` + w.object(list(w, "values", v.KvlistValue.Values, w.pair)))
	}
	return w.object()
}

func (w jsonWriter) record(r *logspb.LogRecord) string {
	body := ""
	if r.Body != nil {
		body = `"body":` + w.value(r.Body)
	}
	severity := fmt.Sprintf(`"severityNumber":%d`, r.SeverityNumber)
	if name, ok := logspb.SeverityNumber_name[int32(r.SeverityNumber)]; ok && w.chance(2) {
		severity = fmt.Sprintf(`"severityNumber":%q`, name)
	}
	return w.object(w.integer("timeUnixNano", r.TimeUnixNano), w.integer("observedTimeUnixNano", r.ObservedTimeUnixNano), severity,
		w.text("severityText", r.SeverityText), body, list(w, "attributes", r.Attributes, w.pair), w.integer("flags", r.Flags),
		w.integer("droppedAttributesCount", r.DroppedAttributesCount), w.id("traceId", r.TraceId), w.id("spanId", r.SpanId),
		w.text("eventName", r.EventName))
}

func (w jsonWriter) scope(s *logspb.ScopeLogs) string {
	head := ""
	if s.Scope != nil {
		head = `"scope":` + w.object(w.text("name", s.Scope.Name), w.text("version", s.Scope.Version), list(w, "attributes", s.Scope.Attributes, w.pair))
	}
	return w.object(head, list(w, "logRecords", s.LogRecords, w.record), w.text("schemaUrl", s.SchemaUrl))
}

func (w jsonWriter) resource(r *logspb.ResourceLogs) string {
	head := ""
	if r.Resource != nil {
		head = `"resource":` + w.object(list(w, "attributes", r.Resource.Attributes, w.pair))
	}
	return w.object(head, list(w, "scopeLogs", r.ScopeLogs, w.scope), w.text("schemaUrl", r.SchemaUrl))
}

func (w jsonWriter) request(req *logspb.LogsData) []byte {
	return []byte(w.object(list(w, "resourceLogs", req.ResourceLogs, w.resource)))
}

// format is one of the two in which a request comes.
type format struct {
	name   string
	decode func(*logs.Batch, []byte, int64, decode.Limits) (decode.Partial, error)
	write  func(testing.TB, *logspb.LogsData) []byte
}

var formats = []format{
	{"Protobuf", Protobuf, marshal},
	{"JSON", JSON, func(_ testing.TB, req *logspb.LogsData) []byte { return jsonWriter{}.request(req) }},
}

// inBoth runs a test with a request in both formats.
func inBoth(t *testing.T, req *logspb.LogsData, test func(t *testing.T, read func(*logs.Batch, decode.Limits) (decode.Partial, error))) {
	t.Helper()
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			body := f.write(t, req)
			test(t, func(b *logs.Batch, lim decode.Limits) (decode.Partial, error) { return f.decode(b, body, testNow, lim) })
		})
	}
}

const (
	api     = `{"service_name":"api"}`
	apiWarn = `{"level":"warn","service_name":"api"}`
)

func TestRows(t *testing.T) {
	for _, c := range []struct {
		name            string
		in              *logspb.LogsData
		want            []row
		coarse, stamped bool
	}{
		{name: "empty", in: request()},
		{name: "no records", in: request(resource(attributes("service.name", "api")), resource(nil, scope(), scope()))},
		{
			name: "all there is",
			in: request(&logspb.ResourceLogs{
				Resource: &resourcepb.Resource{
					Attributes:             attributes("service.name", "api", "host.name", "h1", "k8s.namespace.name", "shop", "process.pid", 17),
					DroppedAttributesCount: 3,
				},
				SchemaUrl: "https://opentelemetry.io/schemas/1.37.0",
				ScopeLogs: []*logspb.ScopeLogs{{
					Scope:     &commonpb.InstrumentationScope{Name: "net/http", Version: "1.2", Attributes: attributes("library.kind", "server"), DroppedAttributesCount: 5},
					SchemaUrl: "https://opentelemetry.io/schemas/1.36.0",
					LogRecords: []*logspb.LogRecord{{
						TimeUnixNano: 1_700_000_000_000_000_001, ObservedTimeUnixNano: 1_700_000_000_500_000_000,
						SeverityNumber: logspb.SeverityNumber_SEVERITY_NUMBER_WARN2, SeverityText: "WARNING", Body: anyOf("slow"),
						Attributes: attributes("http.route", "/cart", "host.name", "h2"), DroppedAttributesCount: 2, Flags: 1,
						TraceId: []byte("\x5b\x8e\xff\xf7\x98\x03\x81\x03\xd2\x69\xb6\x33\x81\x3f\xc6\x0c"), SpanId: []byte("\xee\xe1\x9b\x7e\xc3\xc1\xb1\x74"),
						EventName: "http.slow",
					}},
				}},
			}),
			want: []row{{
				Labels: `{"k8s_namespace_name":"shop","level":"warn","service_name":"api"}`, Time: 1_700_000_000_000_000_001, Line: "slow",
				Metadata: []string{
					"dropped_attributes_count=2", "event_name=http.slow", "flags=1", "host.name=h1", "host.name=h2", "http.route=/cart", "library.kind=server",
					"observed_timestamp=1700000000500000000", "process.pid=17", "scope_name=net/http", "scope_version=1.2", "severity_number=14",
					"severity_text=WARNING", "span_id=eee19b7ec3c1b174", "trace_id=5b8efff798038103d269b633813fc60c",
				},
			}},
		},
		{
			name: "times",
			in: request(resource(attributes("service.name", "api"), scope(
				&logspb.LogRecord{TimeUnixNano: 5, ObservedTimeUnixNano: 5},
				&logspb.LogRecord{ObservedTimeUnixNano: 7},
				&logspb.LogRecord{TimeUnixNano: math.MaxInt64, ObservedTimeUnixNano: math.MaxUint64},
			))),
			want: []row{
				{Labels: api, Time: 5}, {Labels: api, Time: 7},
				{Labels: api, Time: math.MaxInt64, Metadata: []string{"observed_timestamp=18446744073709551615"}},
			},
		},
		{
			name: "no time", in: one(&logspb.LogRecord{Body: anyOf("x")}), coarse: true, stamped: true,
			want: []row{{Labels: api, Time: testNow, Line: "x"}},
		},
		{
			name: "a whole second", in: one(&logspb.LogRecord{TimeUnixNano: 3e9}), coarse: true,
			want: []row{{Labels: api, Time: 3e9}},
		},
		{
			name: "nothing is known", in: request(&logspb.ResourceLogs{ScopeLogs: []*logspb.ScopeLogs{scope(&logspb.LogRecord{TimeUnixNano: 1})}}),
			want: []row{{Labels: decode.Unlabeled, Time: 1}},
		},
		{
			name: "nothing but a level", in: request(resource(nil, scope(&logspb.LogRecord{TimeUnixNano: 1, SeverityNumber: 24}))),
			want: []row{{Labels: `{"level":"fatal"}`, Time: 1, Metadata: []string{"severity_number=24"}}},
		},
		{
			name: "severities",
			in: request(resource(attributes("service.name", "api"), scope(
				&logspb.LogRecord{TimeUnixNano: 1, SeverityNumber: 13, SeverityText: "ERROR"},
				&logspb.LogRecord{TimeUnixNano: 1, SeverityText: "Warning"},
				&logspb.LogRecord{TimeUnixNano: 1, SeverityText: "odd"},
				&logspb.LogRecord{TimeUnixNano: 1, SeverityNumber: 25, SeverityText: "warn"},
				&logspb.LogRecord{TimeUnixNano: 1, SeverityNumber: -1},
			))),
			want: []row{
				{Labels: apiWarn, Time: 1, Metadata: []string{"severity_number=13", "severity_text=ERROR"}},
				{Labels: apiWarn, Time: 1, Metadata: []string{"severity_text=Warning"}},
				{Labels: api, Time: 1, Metadata: []string{"severity_text=odd"}},
				{Labels: apiWarn, Time: 1, Metadata: []string{"severity_number=25", "severity_text=warn"}},
				{Labels: api, Time: 1, Metadata: []string{"severity_number=-1"}},
			},
		},
		{
			name: "labels",
			in: request(resource(attributes(
				"service.name", "a\"b\n", "service.name", "second", "service.namespace", "", "k8s.pod.name", "p", "container.name", 5, "cloud.region", true,
				"k8s.job.name", 1.5, "k8s.cluster.name", []any{"x"}, "deployment", attributes("environment", "prod", "kind", "x"), "k8s.node.name", nil,
			), scope(&logspb.LogRecord{TimeUnixNano: 1}))),
			want: []row{{
				Labels: `{"cloud_region":"true","container_name":"5","deployment_environment":"prod","service_name":"a\"b\u000a"}`, Time: 1,
				Metadata: []string{`deployment.kind=x`, `k8s.cluster.name=["x"]`, `k8s.job.name=1.5`, "k8s.pod.name=p", "service.name=second", "service.namespace="},
			}},
		},
		{
			name: "ids",
			in: request(resource(attributes("service.name", "api"), scope(
				&logspb.LogRecord{TimeUnixNano: 1, TraceId: make([]byte, 16), SpanId: make([]byte, 8)},
				&logspb.LogRecord{TimeUnixNano: 1, TraceId: []byte{0xab}, SpanId: []byte("0123456789")},
			))),
			want: []row{{Labels: api, Time: 1}, {Labels: api, Time: 1, Metadata: []string{"span_id=30313233343536373839", "trace_id=ab"}}},
		},
		{
			name: "attributes",
			in: one(&logspb.LogRecord{TimeUnixNano: 1, Attributes: attributes(
				"s", "text\n\"\\", "empty", "", "i", math.MinInt64, "t", true, "f", false, "d", 0.1, "nan", math.NaN(), "b", []byte{0, 1, 0xff}, "none", nil,
				"list", []any{"a\"\x01\n\r\t\\", 1, 2.5, true, nil, []byte{0xff}, []any{}, attributes("k", "v", "n", nil), math.Inf(-1)},
				"map", attributes("a", "1", "b", attributes("c", 2, "d", []any{}), "e", attributes()), "s", "again", "", "no name",
			)}),
			want: []row{{Labels: api, Time: 1, Metadata: []string{
				"=no name", "b=AAH/", "d=0.1", "empty=", "f=false", "i=-9223372036854775808",
				`list=["a\"\u0001\n\r\t\\",1,2.5,true,null,"/w==",[],{"k":"v","n":null},"-Infinity"]`,
				"map.a=1", "map.b.c=2", "map.b.d=[]", "nan=NaN", "s=again", "s=text\n\"\\", "t=true",
			}}},
		},
		{
			name: "a map under a long name stays whole",
			in:   one(&logspb.LogRecord{TimeUnixNano: 1, Attributes: attributes(strings.Repeat("n", decode.MaxPath), attributes("a", 1), "m", attributes("k", 2))}),
			want: []row{{Labels: api, Time: 1, Metadata: []string{"m.k=2", strings.Repeat("n", decode.MaxPath) + `={"a":1}`}}},
		},
		{
			name: "bodies",
			in: request(resource(attributes("service.name", "api"), scope(
				&logspb.LogRecord{TimeUnixNano: 1}, &logspb.LogRecord{TimeUnixNano: 1, Body: anyOf(nil)}, &logspb.LogRecord{TimeUnixNano: 1, Body: anyOf("é\x00\n")},
				&logspb.LogRecord{TimeUnixNano: 1, Body: anyOf([]byte("\xff\x00raw"))}, &logspb.LogRecord{TimeUnixNano: 1, Body: anyOf(-5)},
				&logspb.LogRecord{TimeUnixNano: 1, Body: anyOf(true)}, &logspb.LogRecord{TimeUnixNano: 1, Body: anyOf(1e21)},
				&logspb.LogRecord{TimeUnixNano: 1, Body: anyOf(1_000_000.0)}, &logspb.LogRecord{TimeUnixNano: 1, Body: anyOf(math.Inf(1))},
				&logspb.LogRecord{TimeUnixNano: 1, Body: anyOf([]any{1, "x"})},
				&logspb.LogRecord{TimeUnixNano: 1, Body: anyOf(attributes("z", 1, "a", attributes("b", []any{nil}), "z", "\x7f"))},
			))),
			want: []row{
				{Labels: api, Time: 1}, {Labels: api, Time: 1}, {Labels: api, Time: 1, Line: "é\x00\n"}, {Labels: api, Time: 1, Line: "\xff\x00raw"},
				{Labels: api, Time: 1, Line: "-5"}, {Labels: api, Time: 1, Line: "true"}, {Labels: api, Time: 1, Line: "1e+21"},
				{Labels: api, Time: 1, Line: "1000000"}, {Labels: api, Time: 1, Line: "Infinity"}, {Labels: api, Time: 1, Line: `[1,"x"]`},
				{Labels: api, Time: 1, Line: "{\"z\":1,\"a\":{\"b\":[null]},\"z\":\"\x7f\"}"},
			},
		},
		{
			name: "as deep as it may be",
			in:   one(&logspb.LogRecord{TimeUnixNano: 1, Body: nested(maxDepth), Attributes: []*commonpb.KeyValue{{Key: "m", Value: nestedMap(maxDepth)}}}),
			want: []row{{
				Labels: api, Time: 1, Line: strings.Repeat("[", maxDepth-1) + `"deep"` + strings.Repeat("]", maxDepth-1),
				Metadata: []string{"m" + strings.Repeat(".k", maxDepth-1) + "=deep"},
			}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBoth(t, c.in, func(t *testing.T, read func(*logs.Batch, decode.Limits) (decode.Partial, error)) {
				var b logs.Batch
				left, err := read(&b, testLimits)
				decodetest.Must(t, err)
				if left != (decode.Partial{}) {
					t.Errorf("left out: %+v", left)
				}
				decodetest.SameRows(t, decodetest.Rows(t, &b), c.want)
				if b.Coarse != c.coarse || b.Stamped != c.stamped {
					t.Errorf("Coarse is %v, Stamped is %v", b.Coarse, b.Stamped)
				}
			})
		})
	}
}

func TestStreamsAreRuns(t *testing.T) {
	warn := func(n logspb.SeverityNumber) *logspb.LogRecord {
		return &logspb.LogRecord{TimeUnixNano: 1, SeverityNumber: n}
	}
	req := request(resource(attributes("service.name", "api"), scope(warn(13), warn(14)), scope(warn(15), warn(9))), resource(attributes("service.name", "api"), scope(warn(10))))
	inBoth(t, req, func(t *testing.T, read func(*logs.Batch, decode.Limits) (decode.Partial, error)) {
		var b logs.Batch
		_, err := read(&b, testLimits)
		decodetest.Must(t, err)
		want := []logs.Stream{{Labels: apiWarn, Entries: 3}, {Labels: `{"level":"info","service_name":"api"}`, Entries: 2}}
		if !slices.Equal(b.Streams, want) {
			t.Errorf("%+v", b.Streams)
		}
	})
}

func TestRejected(t *testing.T) {
	good := &logspb.LogRecord{TimeUnixNano: 1, Body: anyOf("good")}
	among := func(bad *logspb.LogRecord) *logspb.LogsData {
		return request(resource(nil), resource(attributes("service.name", "api"), scope(good), scope(good, bad, good, bad)))
	}
	goods := slices.Repeat([]row{{Labels: api, Time: 1, Line: "good"}}, 3)
	deepScope := scope(good, good)
	deepScope.Scope = &commonpb.InstrumentationScope{Attributes: []*commonpb.KeyValue{{Key: "deep", Value: nested(maxDepth + 1)}}}
	for _, c := range []struct {
		name string
		in   *logspb.LogsData
		left decode.Partial
		want []row
	}{
		{"a line too long", among(&logspb.LogRecord{TimeUnixNano: 1, Body: anyOf("123456789012345678901"), SeverityNumber: 1, Attributes: attributes("only", "here")}),
			decode.Partial{Rejected: 2, Reason: `resourceLogs[1].scopeLogs[1].logRecords[1]: line of 21 bytes is longer than 20 (--max-line-bytes)`}, goods},
		{"a line too long once it is JSON", among(&logspb.LogRecord{TimeUnixNano: 1, Body: anyOf([]any{"\x00\x00\x00"})}),
			decode.Partial{Rejected: 2, Reason: `resourceLogs[1].scopeLogs[1].logRecords[1]: line of 22 bytes is longer than 20 (--max-line-bytes)`}, goods},
		{"too late", among(&logspb.LogRecord{TimeUnixNano: math.MaxInt64 + 1}),
			decode.Partial{Rejected: 2, Reason: `resourceLogs[1].scopeLogs[1].logRecords[1]: timestamp 9223372036854775808 is after 2262-04-11`}, goods},
		{"observed too late", among(&logspb.LogRecord{ObservedTimeUnixNano: math.MaxUint64}),
			decode.Partial{Rejected: 2, Reason: `resourceLogs[1].scopeLogs[1].logRecords[1]: timestamp 18446744073709551615 is after 2262-04-11`}, goods},
		{"a body too deep", among(&logspb.LogRecord{TimeUnixNano: 1, Body: nested(maxDepth + 1)}),
			decode.Partial{Rejected: 2, Reason: `resourceLogs[1].scopeLogs[1].logRecords[1]: a value nests deeper than 32`}, goods},
		{"an array too deep", among(&logspb.LogRecord{TimeUnixNano: 1, Attributes: []*commonpb.KeyValue{{Key: "a", Value: nested(500)}}}),
			decode.Partial{Rejected: 2, Reason: `resourceLogs[1].scopeLogs[1].logRecords[1]: a value nests deeper than 32`}, goods},
		{"maps too deep", among(&logspb.LogRecord{TimeUnixNano: 1, Attributes: []*commonpb.KeyValue{{Key: "a", Value: nestedMap(maxDepth + 1)}}}),
			decode.Partial{Rejected: 2, Reason: `resourceLogs[1].scopeLogs[1].logRecords[1]: a value nests deeper than 32`}, goods},
		{"a map too deep under a long name", among(&logspb.LogRecord{TimeUnixNano: 1, Attributes: []*commonpb.KeyValue{{Key: strings.Repeat("n", decode.MaxPath), Value: nestedMap(maxDepth + 1)}}}),
			decode.Partial{Rejected: 2, Reason: `resourceLogs[1].scopeLogs[1].logRecords[1]: a value nests deeper than 32`}, goods},
		{"a scope too deep", request(resource(attributes("service.name", "api"), scope(good), deepScope, scope(good, good))),
			decode.Partial{Rejected: 2, Reason: `resourceLogs[0].scopeLogs[1].logRecords[0]: a value nests deeper than 32`}, goods},
		{"a resource too deep", request(resource([]*commonpb.KeyValue{{Key: "deep", Value: nested(maxDepth + 1)}}, scope(good)), resource(attributes("service.name", "api"), scope(good, good, good))),
			decode.Partial{Rejected: 1, Reason: `resourceLogs[0].scopeLogs[0].logRecords[0]: a value nests deeper than 32`}, goods},
		{"nothing but what is rejected", one(&logspb.LogRecord{TimeUnixNano: math.MaxUint64}),
			decode.Partial{Rejected: 1, Reason: `resourceLogs[0].scopeLogs[0].logRecords[0]: timestamp 18446744073709551615 is after 2262-04-11`}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBoth(t, c.in, func(t *testing.T, read func(*logs.Batch, decode.Limits) (decode.Partial, error)) {
				var b logs.Batch
				left, err := read(&b, decode.Limits{MaxLineBytes: 20, MaxPushBytes: 1 << 20})
				decodetest.Must(t, err)
				if left != c.left {
					t.Errorf("\n got %+v\nwant %+v", left, c.left)
				}
				decodetest.SameRows(t, decodetest.Rows(t, &b), c.want)
			})
		})
	}
}

func TestTooMuch(t *testing.T) {
	many := func(n int, name string) []*commonpb.KeyValue {
		var out []*commonpb.KeyValue
		for i := range n {
			out = append(out, attributes(fmt.Sprint(name, i), "")...)
		}
		return out
	}
	const half = decode.MaxMetadataNames / 2
	record := func(attributes []*commonpb.KeyValue) *logspb.LogRecord {
		return &logspb.LogRecord{TimeUnixNano: 1, Attributes: attributes}
	}
	for _, c := range []struct {
		name string
		in   *logspb.LogsData
		want string
	}{
		{"as many names as there may be", request(resource(many(half, "a"), scope(record(many(half, "b")), record(many(half, "b"))))), ""},
		{"a name too many", request(resource(many(half, "a"), scope(record(many(half, "b")), record(many(1, "c"))))),
			`resourceLogs[0].scopeLogs[0].logRecords[1]: the push has more than 10000 different metadata names`},
		{"too many attributes", one(record(slices.Repeat(attributes("a", ""), decode.MaxMetadataNames+1))),
			`resourceLogs[0].scopeLogs[0].logRecords[0]: the record has more than 10000 attributes`},
		{"a large resource", request(resource(attributes("a", strings.Repeat("x", 1<<20)), scope(slices.Repeat([]*logspb.LogRecord{record(nil)}, 100)...))),
			`resourceLogs[0].scopeLogs[0].logRecords[63]: the attributes of resources and scopes, repeated for each record, are more than 67108864 bytes`},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBoth(t, c.in, func(t *testing.T, read func(*logs.Batch, decode.Limits) (decode.Partial, error)) {
				_, err := read(new(logs.Batch), testLimits)
				if c.want == "" {
					decodetest.Must(t, err)
					return
				}
				decodetest.WantError(t, err, c.want)
			})
		})
	}
}

// random makes requests of all that there can be.
type random struct{ *rand.Rand }

func (r random) text(most int) string {
	const chars = "abcxyz.- \"\\/\n\t\x00\x01\x7féß€𝄞{}[]:,"
	var out strings.Builder
	all := []rune(chars)
	for range r.IntN(most + 1) {
		out.WriteRune(all[r.IntN(len(all))])
	}
	return out.String()
}

func (r random) bytes(most int) []byte {
	out := make([]byte, r.IntN(most+1))
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

func (r random) value(depth int) any {
	switch n := r.IntN(16); {
	case n < 6 || depth == 0 && n > 11:
		return r.text(20)
	case n < 8:
		return int(r.Int64() >> r.IntN(64))
	case n == 8:
		return r.IntN(2) == 0
	case n == 9:
		return math.Float64frombits(r.Uint64())
	case n == 10:
		return nil
	case n == 11:
		return r.bytes(9)
	case n < 14:
		list := []any{}
		for range r.IntN(4) {
			list = append(list, r.value(depth-1))
		}
		return list
	default:
		return r.attributes(3, depth-1)
	}
}

func (r random) attributes(most, depth int) []*commonpb.KeyValue {
	names := []string{"service.name", "deployment.environment", "k8s.pod.name", "http.route", "a", "b.c", "", "level", "trace_id"}
	var pairs []any
	for range r.IntN(most + 1) {
		pairs = append(pairs, names[r.IntN(len(names))]+strings.Repeat("x", r.IntN(3)/2), r.value(depth))
	}
	out := attributes(pairs...)
	for _, kv := range out {
		if r.IntN(10) == 0 {
			kv.Value = nil
		}
	}
	return out
}

func (r random) time() uint64 {
	switch r.IntN(8) {
	case 0:
		return 0
	case 1:
		return r.Uint64()
	}
	return uint64(testNow) + r.Uint64N(2e9)
}

func (r random) request() *logspb.LogsData {
	req := request()
	for range r.IntN(3) {
		rl := &logspb.ResourceLogs{SchemaUrl: r.text(3)}
		if r.IntN(8) > 0 {
			rl.Resource = &resourcepb.Resource{Attributes: r.attributes(5, 2)}
		}
		for range r.IntN(3) {
			sl := &logspb.ScopeLogs{SchemaUrl: r.text(3)}
			if r.IntN(2) > 0 {
				sl.Scope = &commonpb.InstrumentationScope{Name: r.text(5), Version: r.text(2), Attributes: r.attributes(2, 1)}
			}
			for range r.IntN(5) {
				record := &logspb.LogRecord{TimeUnixNano: r.time(), Attributes: r.attributes(6, 3)}
				if r.IntN(8) > 0 {
					record.Body = anyOf(r.value(4))
				}
				if r.IntN(2) > 0 {
					record.ObservedTimeUnixNano, record.SeverityNumber, record.SeverityText = r.time(), logspb.SeverityNumber(r.IntN(27)), []string{"", "Warn", "x"}[r.IntN(3)]
				}
				if r.IntN(2) > 0 {
					record.TraceId, record.SpanId, record.Flags, record.EventName = r.bytes(20), make([]byte, r.IntN(9)), r.Uint32()>>r.IntN(32), r.text(5)
					record.DroppedAttributesCount = r.Uint32() >> r.IntN(32)
				}
				if r.IntN(20) == 0 {
					record.Body = nested(maxDepth - 1 + r.IntN(4))
				}
				if r.IntN(20) == 0 {
					record.Attributes = append(record.Attributes, &commonpb.KeyValue{Key: "deep", Value: nestedMap(maxDepth - 1 + r.IntN(4))})
				}
				sl.LogRecords = append(sl.LogRecords, record)
			}
			rl.ScopeLogs = append(rl.ScopeLogs, sl)
		}
		req.ResourceLogs = append(req.ResourceLogs, rl)
	}
	return req
}

// full is a resource that has a scope that has a record that has attributes.
func (r random) full() *logspb.ResourceLogs {
	return resource(attributes("service.name", "api", "host.name", r.text(5)), scope(&logspb.LogRecord{
		TimeUnixNano: 1, Body: anyOf(attributes("k", []any{1, r.text(5)})), Attributes: attributes("m", attributes("a", 1.5), "b", []byte("x")), Flags: 1,
	}))
}

// However a request is written, its rows are the same.
func TestFormatsAgree(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	rejected := 0
	limits := decode.Limits{MaxLineBytes: 60, MaxPushBytes: 1 << 20}
	for range 2000 {
		req := random{rnd}.request()
		raw := marshal(t, req)
		var b logs.Batch
		want, err := Protobuf(&b, raw, testNow, limits)
		decodetest.Must(t, err)
		rows := decodetest.Rows(t, &b)
		rejected += want.Rejected
		check := func(got decode.Partial, err error, body []byte) {
			t.Helper()
			if err != nil || got != want {
				t.Fatalf("%+v, %v; want %+v, of %s", got, err, want, body)
			}
			decodetest.SameRows(t, decodetest.Rows(t, &b), rows)
			b.Reset()
		}
		b.Reset()
		for range 3 {
			body := jsonWriter{rnd}.request(req)
			got, err := JSON(&b, body, testNow, limits)
			check(got, err, body)
		}
		raw = shuffled(rnd, raw, "request")
		got, err := Protobuf(&b, raw, testNow, limits)
		check(got, err, raw)
	}
	if rejected == 0 {
		t.Error("no record was ever rejected, which proves little")
	}
}
