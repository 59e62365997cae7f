package otlp

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

// Writers of the wire format, for what generated code would never write.
var (
	msg = decodetest.Message
	sub = decodetest.Field
	str = decodetest.Text
	num = decodetest.Number
)

func fixed64(field protowire.Number, n uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(nil, field, protowire.Fixed64Type), n)
}

// message names the messages that are in the fields of another.
var message = map[string]map[protowire.Number]string{
	"request":      {requestResourceLogs: "resourceLogs"},
	"resourceLogs": {resourceLogsResource: "resource", resourceLogsScopes: "scopeLogs"},
	"scopeLogs":    {scopeLogsScope: "scope", scopeLogsRecords: "record"},
}

// shuffled is a message with unknown fields and its own in another order, but for those of the same number.
func shuffled(rnd *rand.Rand, data []byte, kind string) []byte {
	fields := map[protowire.Number][][]byte{}
	var order []protowire.Number
	for len(data) > 0 {
		number, wireType, n := protowire.ConsumeField(data)
		field := data[:n]
		if inner, ok := message[kind][number]; ok && wireType == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(field)
			value, _ := protowire.ConsumeBytes(field[tag:])
			field = sub(number, shuffled(rnd, value, inner))
		}
		fields[number] = append(fields[number], field)
		order = append(order, number)
		data = data[n:]
	}
	rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	out := bytes.Clone(decodetest.Unknown)
	for _, number := range order {
		out = append(out, fields[number][0]...)
		fields[number] = fields[number][1:]
	}
	return out
}

func inRecord(fields ...[]byte) []byte {
	return sub(requestResourceLogs, sub(resourceLogsScopes, sub(scopeLogsRecords, msg(fields...))))
}

func TestProtobufRepeatedFields(t *testing.T) {
	name := func(s string) []byte {
		return sub(resourceAttributes, msg(str(1, "service.name"), sub(2, str(valueString, s))))
	}
	for _, c := range []struct {
		name string
		in   []byte
		want row
	}{
		{"a resource", sub(requestResourceLogs, msg(sub(resourceLogsResource, name("x")), sub(resourceLogsScopes, sub(scopeLogsRecords, fixed64(recordTime, 1))), sub(resourceLogsResource, name("api")))),
			row{Labels: api, Time: 1}},
		{"a scope", sub(requestResourceLogs, sub(resourceLogsScopes, msg(sub(scopeLogsScope, str(scopeName, "x")), sub(scopeLogsRecords, fixed64(recordTime, 1)), sub(scopeLogsScope, msg(str(scopeName, "y"), str(scopeName, "z")))))),
			row{Labels: decode.Unlabeled, Time: 1, Metadata: []string{"scope_name=z"}}},
		{"those of a record", inRecord(fixed64(recordTime, 7), fixed64(recordTime, 1), str(recordText, "warn"), str(recordText, "error"), sub(recordBody, str(valueString, "x")), sub(recordBody, str(valueString, "y"))),
			row{Labels: `{"level":"error"}`, Time: 1, Line: "y", Metadata: []string{"severity_text=error"}}},
		{"those of a value", inRecord(fixed64(recordTime, 1), sub(recordBody, msg(num(valueInt, 5), decodetest.Unknown, num(valueBool, 7)))),
			row{Labels: decode.Unlabeled, Time: 1, Line: "true"}},
		{"numbers of more bits than they have", inRecord(fixed64(recordTime, 1), num(recordSeverity, 1<<32|9), num(recordDropped, 1<<33|2)),
			row{Labels: `{"level":"info"}`, Time: 1, Metadata: []string{"dropped_attributes_count=2", "severity_number=9"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b logs.Batch
			_, err := Protobuf(&b, c.in, testNow, testLimits)
			decodetest.Must(t, err)
			decodetest.SameRows(t, decodetest.Rows(t, &b), []row{c.want})
		})
	}
}

// Names, lines and values may be bytes of any kind, but labels can't.
func TestProtobufNotUTF8(t *testing.T) {
	in := func(name, value string) []byte {
		attribute := msg(str(1, name), sub(2, str(valueString, value)))
		return sub(requestResourceLogs, msg(sub(resourceLogsResource, sub(resourceAttributes, attribute)),
			sub(resourceLogsScopes, sub(scopeLogsRecords, msg(fixed64(recordTime, 1), sub(recordBody, str(valueString, "\xfe")))))))
	}
	var b logs.Batch
	left, err := Protobuf(&b, msg(in("service.name", "\xff"), in("x\xff", "\xff"), in("service.name", "\xff")), testNow, testLimits)
	decodetest.Must(t, err)
	decodetest.SameRows(t, decodetest.Rows(t, &b), []row{{Labels: decode.Unlabeled, Time: 1, Line: "\xfe", Metadata: []string{"x\xff=\xff"}}})
	want := decode.Partial{Rejected: 2, Reason: `resourceLogs[0].scopeLogs[0].logRecords[0]: the value of label "service_name" is not valid UTF-8: "\xff"`}
	if left != want {
		t.Errorf("%+v", left)
	}
}

func TestProtobufRefuses(t *testing.T) {
	open := []byte{0xff} // a varint without end
	huge := bytes.Repeat([]byte{0xff}, 11)
	inScope := func(fields ...[]byte) []byte {
		return msg(sub(requestResourceLogs, nil), sub(requestResourceLogs, msg(sub(resourceLogsScopes, nil), sub(resourceLogsScopes, msg(fields...)))))
	}
	const record = `resourceLogs[0].scopeLogs[0].logRecords[0]`
	for _, c := range []struct {
		in   []byte
		want string
	}{
		{open, `malformed protobuf: unexpected EOF`},
		{[]byte{0}, `malformed protobuf: invalid field number`},
		{msg(num(9, 0)[:1], huge), `malformed protobuf: variable length integer overflow`},
		{num(1, 1), `resourceLogs[0]: malformed protobuf: field 1 has wire type 0, not 2`},
		{msg([]byte{0x0a}, huge), `resourceLogs[0]: malformed protobuf: variable length integer overflow`},
		{[]byte{0x0a, 5, 1}, `resourceLogs[0]: malformed protobuf: unexpected EOF`},
		{msg(sub(1, nil), sub(1, open)), `resourceLogs[1]: malformed protobuf: unexpected EOF`},
		{sub(1, num(resourceLogsResource, 1)), `resourceLogs[0]: malformed protobuf: field 1 has wire type 0, not 2`},
		{sub(1, sub(resourceLogsResource, open)), `resourceLogs[0].resource: malformed protobuf: unexpected EOF`},
		{sub(1, sub(resourceLogsResource, sub(resourceAttributes, num(1, 1)))), `resourceLogs[0].resource: malformed protobuf: field 1 has wire type 0, not 2`},
		{sub(1, num(resourceLogsScopes, 1)), `resourceLogs[0].scopeLogs[0]: malformed protobuf: field 2 has wire type 0, not 2`},
		{inScope(open), `resourceLogs[1].scopeLogs[1]: malformed protobuf: unexpected EOF`},
		{inScope(sub(scopeLogsScope, num(scopeName, 1))), `resourceLogs[1].scopeLogs[1].scope: malformed protobuf: field 1 has wire type 0, not 2`},
		{inScope(sub(scopeLogsScope, num(scopeAttributes, 1))), `resourceLogs[1].scopeLogs[1].scope: malformed protobuf: field 3 has wire type 0, not 2`},
		{inScope(sub(scopeLogsRecords, nil), num(scopeLogsRecords, 1)), `resourceLogs[1].scopeLogs[1].logRecords[1]: malformed protobuf: field 2 has wire type 0, not 2`},
		{inRecord(open), record + `: malformed protobuf: unexpected EOF`},
		{inRecord(num(recordTime, 1)), record + `.timeUnixNano: malformed protobuf: field 1 has wire type 0, not 1`},
		{inRecord([]byte{recordTime<<3 | 1, 1, 2}), record + `.timeUnixNano: malformed protobuf: unexpected EOF`},
		{inRecord(num(recordObserved, 1)), record + `.observedTimeUnixNano: malformed protobuf: field 11 has wire type 0, not 1`},
		{inRecord(str(recordSeverity, "x")), record + `.severityNumber: malformed protobuf: field 2 has wire type 2, not 0`},
		{inRecord(num(recordText, 1)), record + `.severityText: malformed protobuf: field 3 has wire type 0, not 2`},
		{inRecord(num(recordBody, 1)), record + `.body: malformed protobuf: field 5 has wire type 0, not 2`},
		{inRecord(sub(recordBody, num(valueString, 1)), num(99, 1)), record + `.body: malformed protobuf: field 1 has wire type 0, not 2`},
		{inRecord(sub(recordBody, str(valueDouble, ""))), record + `.body: malformed protobuf: field 4 has wire type 2, not 1`},
		{inRecord(sub(recordBody, sub(valueArray, num(1, 1)))), record + `.body: malformed protobuf: field 1 has wire type 0, not 2`},
		{inRecord(sub(recordBody, sub(valueMap, sub(1, str(2, "\xff"))))), record + `.body: malformed protobuf: unexpected EOF`},
		{inRecord(num(recordAttributes, 1)), record + `.attributes: malformed protobuf: field 6 has wire type 0, not 2`},
		{inRecord(sub(recordAttributes, sub(2, sub(valueMap, open)))), record + `.attributes: malformed protobuf: unexpected EOF`},
		{inRecord(str(recordDropped, "")), record + `.droppedAttributesCount: malformed protobuf: field 7 has wire type 2, not 0`},
		{inRecord(num(recordFlags, 1)), record + `.flags: malformed protobuf: field 8 has wire type 0, not 5`},
		{inRecord([]byte{recordFlags<<3 | 5, 1}), record + `.flags: malformed protobuf: unexpected EOF`},
		{inRecord(num(recordTrace, 1)), record + `.traceId: malformed protobuf: field 9 has wire type 0, not 2`},
		{inRecord(num(recordSpan, 1)), record + `.spanId: malformed protobuf: field 10 has wire type 0, not 2`},
		{inRecord(num(recordEvent, 1)), record + `.eventName: malformed protobuf: field 12 has wire type 0, not 2`},
	} {
		t.Run(c.want, func(t *testing.T) {
			_, err := Protobuf(new(logs.Batch), c.in, testNow, testLimits)
			decodetest.WantError(t, err, c.want)
		})
	}
}

// A value in a value and so on, as deep as 1 MiB of it goes.
func TestProtobufDepthBomb(t *testing.T) {
	var lengths []byte // from the inside out, each reversed
	size := 0
	for size < 1<<20 {
		for _, field := range []protowire.Number{listValues, valueArray} {
			header := protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.BytesType), uint64(size))
			for _, c := range slices.Backward(header) {
				lengths = append(lengths, c)
			}
			size += len(header)
		}
	}
	bomb := make([]byte, 0, size)
	for _, c := range slices.Backward(lengths) {
		bomb = append(bomb, c)
	}
	for _, field := range []protowire.Number{recordBody, recordAttributes} {
		value := bomb
		if field == recordAttributes {
			value = sub(2, bomb)
		}
		var b logs.Batch
		left, err := Protobuf(&b, inRecord(sub(field, value)), testNow, testLimits)
		decodetest.Must(t, err)
		if left.Rejected != 1 || b.Len() != 0 || !strings.HasSuffix(left.Reason, "a value nests deeper than 32") {
			t.Errorf("%+v, %d entries", left, b.Len())
		}
	}
}

// A message that is cut short is refused, unless it was cut between two resources.
func TestProtobufTruncated(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 14))
	first := marshal(t, request(random{rnd}.full()))
	raw := append(slices.Clip(first), marshal(t, request(random{rnd}.full()))...)
	for n := range raw {
		var b logs.Batch
		_, err := Protobuf(&b, raw[:n:n], testNow, testLimits)
		if whole := n == 0 || n == len(first); whole != (err == nil) {
			t.Fatalf("%d of %d bytes: %v", n, len(raw), err)
		}
	}
}

func FuzzProtobuf(f *testing.F) {
	rnd := rand.New(rand.NewPCG(15, 16))
	for range 20 {
		f.Add(marshal(f, random{rnd}.request()))
	}
	f.Add(inRecord(sub(recordBody, sub(valueArray, msg(sub(1, num(valueInt, -1)), sub(1, nil))))))
	f.Add(inRecord(sub(recordAttributes, msg(str(1, "m"), sub(2, sub(valueMap, sub(1, msg(str(1, "k"), sub(2, num(valueBool, 1))))))))))
	f.Fuzz(func(t *testing.T, body []byte) { consistent(t, Protobuf, body) })
}

// consistent checks what must hold of any body.
func consistent(t *testing.T, read func(*logs.Batch, []byte, int64, decode.Limits) (decode.Partial, error), body []byte) {
	t.Helper()
	var b logs.Batch
	left, err := read(&b, body, testNow, decode.Limits{MaxLineBytes: 100, MaxPushBytes: 1 << 16})
	if err != nil {
		decodetest.WantError(t, err, err.Error())
		return
	}
	if (left.Rejected == 0) != (left.Reason == "") {
		t.Errorf("%+v", left)
	}
	for _, r := range decodetest.Rows(t, &b) {
		if len(r.Line) > 100 {
			t.Errorf("a line of %d bytes", len(r.Line))
		}
	}
}
