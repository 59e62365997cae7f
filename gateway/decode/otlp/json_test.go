package otlp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

// jsonRecord is a request of one record with members.
func jsonRecord(members string) string {
	return `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{` + members + `}]}]}]}`
}

func TestJSON(t *testing.T) {
	for _, c := range []struct {
		name string
		in   string
		want row
	}{
		{"all there is, as an exporter writes it", `{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"api"}}]},
			"scopeLogs":[{"scope":{"name":"my.library","version":"1.0.0","attributes":[{"key":"my.scope.attribute","value":{"stringValue":"some scope attribute"}}]},
			"logRecords":[{"timeUnixNano":"1544712660300000000","observedTimeUnixNano":"1544712660300000000","severityNumber":13,"severityText":"Warn",
			"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","body":{"stringValue":"Example"},"attributes":[
			{"key":"string.attribute","value":{"stringValue":"some string"}},{"key":"boolean.attribute","value":{"boolValue":true}},
			{"key":"int.attribute","value":{"intValue":"10"}},{"key":"double.attribute","value":{"doubleValue":637.704}},
			{"key":"array.attribute","value":{"arrayValue":{"values":[{"stringValue":"many"},{"stringValue":"values"}]}}},
			{"key":"map.attribute","value":{"kvlistValue":{"values":[{"key":"some.map.key","value":{"stringValue":"some value"}}]}}}]}]}]}]}`,
			row{Labels: apiWarn, Time: 1544712660300000000, Line: "Example", Metadata: []string{
				`array.attribute=["many","values"]`, "boolean.attribute=true", "double.attribute=637.704", "int.attribute=10",
				"map.attribute.some.map.key=some value", "my.scope.attribute=some scope attribute", "scope_name=my.library", "scope_version=1.0.0",
				"severity_number=13", "severity_text=Warn", "span_id=eee19b7ec3c1b174", "string.attribute=some string", "trace_id=5b8efff798038103d269b633813fc60c",
			}}},
		{"what depends on the rest comes first", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"value":{"intValue":1},"key":"a"},
			{"value":{"kvlistValue":{"values":[{"value":{"kvlistValue":{"values":[{"value":{"boolValue":true},"key":"d"}]}},"key":"c"}]}},"key":"b"}],
			"body":{"kvlistValue":{"values":[{"value":{"arrayValue":{"values":[{}]}},"key":"k"}]}},"timeUnixNano":1}],"scope":{"version":"2","name":"lib"}}],
			"resource":{"attributes":[{"value":{"stringValue":"api"},"key":"service.name"}]}}]}`,
			row{Labels: api, Time: 1, Line: `{"k":[null]}`, Metadata: []string{"a=1", "b.c.d=true", "scope_name=lib", "scope_version=2"}}},
		{"null is as good as none", `{"resourceLogs":null,"resourceLogs":[{"resource":null,"scopeLogs":null},{"resource":{"attributes":null},"scopeLogs":[{"scope":null,"logRecords":null},
			{"scope":{"name":null,"attributes":null},"logRecords":[{"timeUnixNano":1,"observedTimeUnixNano":null,"severityNumber":null,"severityText":null,"body":null,
			"attributes":[{"key":"a","value":null},{"key":null,"value":{"stringValue":null}},{"key":"b","value":{"kvlistValue":{"values":null}}},{"key":"c","value":{"arrayValue":{}}},
			{"key":"d","value":{"intValue":null,"stringValue":"x","boolValue":null}}],
			"flags":null,"droppedAttributesCount":null,"traceId":null,"spanId":null,"eventName":null}]}]}]}`,
			row{Labels: decode.Unlabeled, Time: 1, Metadata: []string{"c=[]", "d=x"}}},
		{"unknown members", "\ufeff \n" + `{"x":[{}],"resourceLogs":[{"y":{"z":[[]]},"scopeLogs":[{"logRecords":[{"timeUnixNano":1,"time_unix_nano":5,"body":{"x":1,"stringValue":"a","y":[]},
			"attributes":[{"x":1,"key":"k","y":2,"value":{"arrayValue":{"x":1,"values":[],"y":1}},"z":{}}]}]}]}]}` + "\n",
			row{Labels: decode.Unlabeled, Time: 1, Line: "a", Metadata: []string{"k=[]"}}},
		{"the last body counts", jsonRecord(`"timeUnixNano":1,"body":{"stringValue":"xxx"},"body":{"stringValue":"y"}`), row{Labels: decode.Unlabeled, Time: 1, Line: "y"}},
		{"a name of a severity", jsonRecord(`"timeUnixNano":1,"severityNumber":"SEVERITY_NUMBER_FATAL4"`),
			row{Labels: `{"level":"fatal"}`, Time: 1, Metadata: []string{"severity_number=24"}}},
		{"a severity in quotes", jsonRecord(`"timeUnixNano":1,"severityNumber":"9"`), row{Labels: `{"level":"info"}`, Time: 1, Metadata: []string{"severity_number=9"}}},
		{"no severity", jsonRecord(`"timeUnixNano":1,"severityNumber":"SEVERITY_NUMBER_UNSPECIFIED"`), row{Labels: decode.Unlabeled, Time: 1}},
		{"ids", jsonRecord(`"timeUnixNano":1,"traceId":"aBc","spanId":"00000000000"`), row{Labels: decode.Unlabeled, Time: 1, Metadata: []string{"trace_id=abc"}}},
		{"numbers as strings", jsonRecord(`"timeUnixNano":"1","attributes":[{"key":"a","value":{"doubleValue":"-1.5e3"}},{"key":"b","value":{"doubleValue":"Infinity"}},
			{"key":"c","value":{"doubleValue":7}},{"key":"d","value":{"doubleValue":-0.0}}]`),
			row{Labels: decode.Unlabeled, Time: 1, Metadata: []string{"a=-1500", "b=Infinity", "c=7", "d=-0"}}},
		{"base64 in another alphabet", jsonRecord(`"timeUnixNano":1,"body":{"bytesValue":"YT8_"},"attributes":[{"key":"a","value":{"bytesValue":"_-8="}},{"key":"b","value":{"bytesValue":"/+8"}}]`),
			row{Labels: decode.Unlabeled, Time: 1, Line: "a??", Metadata: []string{"a=/+8=", "b=/+8="}}},
		{"escapes in names", jsonRecord(`"\u0074imeUnixNano":1,"attributes":[{"k\u0065y":"\u0061\"","value":{"kvlistValue":{"values":[{"key":"\n","value":{"stringValue":"\t"}}]}}}]`),
			row{Labels: decode.Unlabeled, Time: 1, Metadata: []string{"a\".\n=\t"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b logs.Batch
			_, err := JSON(&b, []byte(c.in), testNow, testLimits)
			decodetest.Must(t, err)
			decodetest.SameRows(t, decodetest.Rows(t, &b), []row{c.want})
		})
	}
}

func TestJSONRefuses(t *testing.T) {
	const record = `resourceLogs[0].scopeLogs[0].logRecords[0]`
	body := func(value string) string { return jsonRecord(`"body":` + value) }
	for _, c := range []struct{ in, want string }{
		{``, `offset 0: want an object, got the end`},
		{`[]`, `want an object, got array`},
		{`{}x`, `offset 2: want the end of the document, got "x"`},
		{`{"resourceLogs":{}}`, `want an array, got object`},
		{`{"resourceLogs":[{}`, `offset 19: want ',' or ']', got the end`},
		{`{"resourceLogs":[{},1]}`, `resourceLogs[1]: want an object, got number`},
		{`{"resourceLogs":[{"resource":[]}]}`, `resourceLogs[0].resource: want an object, got array`},
		{`{"resourceLogs":[{"resource":{"attributes":{}}}]}`, `resourceLogs[0].resource: want an array, got object`},
		{`{"resourceLogs":[{},{"scopeLogs":[{"scope":5}]}]}`, `resourceLogs[1].scopeLogs[0].scope: want an object, got number`},
		{`{"resourceLogs":[{},{"scopeLogs":[{},{"logRecords":[{},"x"]}]}]}`, `resourceLogs[1].scopeLogs[1].logRecords[1]: want an object, got string`},
		{`{"resourceLogs":[{"scopeLogs":[],"scopeLogs":[]}]}`, `resourceLogs[0]: scopeLogs is given twice`},
		{`{"resourceLogs":[{"scopeLogs":[{"logRecords":[],"logRecords":[]}]}]}`, `resourceLogs[0].scopeLogs[0]: logRecords is given twice`},
		{jsonRecord(`"timeUnixNano":-1`), record + `.timeUnixNano: want an integer of 64 bits without a sign, got "-1"`},
		{jsonRecord(`"timeUnixNano":"x"`), record + `.timeUnixNano: want an integer of 64 bits without a sign, got "x"`},
		{jsonRecord(`"timeUnixNano":1.5`), record + `.timeUnixNano: want an integer of 64 bits without a sign, got "1.5"`},
		{jsonRecord(`"timeUnixNano":{}`), record + `.timeUnixNano: want a number, got object`},
		{jsonRecord(`"observedTimeUnixNano":18446744073709551616`), record + `.observedTimeUnixNano: want an integer of 64 bits without a sign, got "18446744073709551616"`},
		{jsonRecord(`"severityNumber":2147483648`), record + `.severityNumber: want an integer of 32 bits, got "2147483648"`},
		{jsonRecord(`"severityNumber":"SEVERITY_NUMBER_LOUD"`), record + `.severityNumber: unknown severity "SEVERITY_NUMBER_LOUD"`},
		{jsonRecord(`"severityNumber":"SEVERITY_NUMBER_"`), record + `.severityNumber: unknown severity "SEVERITY_NUMBER_"`},
		{jsonRecord(`"severityNumber":"WARN"`), record + `.severityNumber: want an integer of 32 bits, got "WARN"`},
		{jsonRecord(`"severityText":1`), record + `.severityText: want a string, got number`},
		{jsonRecord(`"flags":4294967296`), record + `.flags: want an integer of 32 bits without a sign, got "4294967296"`},
		{jsonRecord(`"droppedAttributesCount":true`), record + `.droppedAttributesCount: want a number, got boolean`},
		{jsonRecord(`"traceId":"xyz"`), record + `.traceId: want hexadecimal digits, got "xyz"`},
		{jsonRecord(`"spanId":5`), record + `.spanId: want a string, got number`},
		{jsonRecord(`"eventName":[]`), record + `.eventName: want a string, got array`},
		{jsonRecord(`"attributes":{}`), record + `.attributes: want an array, got object`},
		{jsonRecord(`"attributes":[null]`), record + `.attributes: want an object, got null`},
		{jsonRecord(`"attributes":[{"key":1}]`), record + `.attributes: want a string, got number`},
		{jsonRecord(`"attributes":[{"key":"a","value":1}]`), record + `.attributes: want an object, got number`},
		{jsonRecord(`"attributes":[{"value":1,"key":"a"}]`), record + `.attributes: want an object, got number`},
		{body(`"text"`), record + `.body: want an object, got string`},
		{body(`{"stringValue":1}`), record + `.body: want a string, got number`},
		{body(`{"stringValue":"a","intValue":1}`), record + `.body: a value is given twice`},
		{body(`{"boolValue":"true"}`), record + `.body: want a boolean, got string`},
		{body(`{"intValue":1.5}`), record + `.body: want an integer of 64 bits, got "1.5"`},
		{body(`{"doubleValue":"0x10"}`), record + `.body: want a number, got "0x10"`},
		{body(`{"doubleValue":"1e999"}`), record + `.body: want a number, got "1e999"`},
		{body(`{"doubleValue":"inf"}`), record + `.body: want a number, got "inf"`},
		{body(`{"bytesValue":"*"}`), record + `.body: want base64, got "*"`},
		{body(`{"arrayValue":[]}`), record + `.body: want an object, got array`},
		{body(`{"arrayValue":{"values":[1]}}`), record + `.body: want an object, got number`},
		{body(`{"kvlistValue":{"values":[],"values":[]}}`), record + `.body: values are given twice`},
		{jsonRecord(`"x":tru`), `offset 54: want true, got "}"`},
		{jsonRecord(`"body":{"stringValue":"a}`), `offset 79: the string that begins at offset 69 has no end`},
	} {
		t.Run(c.want, func(t *testing.T) {
			_, err := JSON(new(logs.Batch), []byte(c.in), testNow, testLimits)
			decodetest.WantError(t, err, c.want)
		})
	}
}

// Values and unknown members may nest as deep as a push is long.
func TestJSONDepthBomb(t *testing.T) {
	const n = 100_000
	value := strings.Repeat(`{"arrayValue":{"values":[`, n) + strings.Repeat(`]}}`, n)
	list := strings.Repeat(`[`, n) + strings.Repeat(`]`, n)
	for _, c := range []struct {
		name, in          string
		rejected, entries int
	}{
		{"a body", jsonRecord(`"body":` + value), 1, 0},
		{"an attribute", jsonRecord(`"attributes":[{"key":"a","value":` + value + `}]`), 1, 0},
		{"an attribute before its key", jsonRecord(`"attributes":[{"value":` + value + `,"key":"a"}]`), 1, 0},
		{"an unknown member", jsonRecord(`"x":` + list), 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b logs.Batch
			left, err := JSON(&b, []byte(c.in), testNow, testLimits)
			decodetest.Must(t, err)
			if left.Rejected != c.rejected || b.Len() != c.entries {
				t.Errorf("%+v, %d entries", left, b.Len())
			}
		})
	}
	_, err := JSON(new(logs.Batch), []byte(strings.Repeat("[", n)), testNow, testLimits)
	decodetest.WantError(t, err, "want an object, got array")
	_, err = JSON(new(logs.Batch), []byte(`{"x":`+strings.Repeat("[", n)), testNow, testLimits)
	decodetest.WantError(t, err, fmt.Sprintf("offset %d: want a value, got the end", n+5))
}

// A document that is cut short is refused.
func TestJSONTruncated(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 18))
	for range 5 {
		body := bytes.TrimSpace(jsonWriter{rnd}.request(request(random{rnd}.full(), random{rnd}.full())))
		for n := range body {
			if _, err := JSON(new(logs.Batch), body[:n:n], testNow, testLimits); err == nil {
				t.Fatalf("%d of %d bytes were taken: %s", n, len(body), body[:n])
			}
		}
	}
}

func FuzzJSON(f *testing.F) {
	rnd := rand.New(rand.NewPCG(19, 20))
	for range 20 {
		f.Add(jsonWriter{rnd}.request(random{rnd}.request()))
	}
	f.Add([]byte(jsonRecord(`"body":{"arrayValue":{"values":[{"intValue":"-1"},null,{}]}}`)))
	f.Add([]byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"SEVERITY_NUMBER_INFO2"}],"scope":{}}],"resource":{}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) { consistent(t, JSON, body) })
}
