package loki

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/snappy"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

// Writers of the wire format, for what Loki's own types would never write.
var (
	msg = decodetest.Message
	sub = decodetest.Field
	str = decodetest.Text
	num = decodetest.Number
)

func stamp(seconds, nanos int64) []byte { return sub(entryTime, msg(num(1, seconds), num(2, nanos))) }

func entry(fields ...[]byte) []byte { return sub(streamEntries, msg(fields...)) }

func stream(fields ...[]byte) []byte { return sub(pushStreams, msg(fields...)) }

var appAPI = str(streamLabels, `{app="api"}`)

func decodeProto(b *logs.Batch, raw []byte) error {
	return Protobuf(b, snappy.Encode(nil, raw), testNow, testLimits)
}

func TestProtobuf(t *testing.T) {
	unknown := decodetest.Unknown
	for _, c := range []struct {
		name   string
		in     []byte
		want   []row
		coarse bool
	}{
		{name: "empty", in: nil},
		{
			name: "fields in order",
			in:   stream(appAPI, entry(stamp(1, 5), str(entryLine, "a")), entry(stamp(2, 5), str(entryLine, "b"))),
			want: []row{{Labels: api, Time: 1e9 + 5, Line: "a"}, {Labels: api, Time: 2e9 + 5, Line: "b"}},
		},
		{
			name: "fields in any order, among unknown ones",
			in: msg(unknown, stream(unknown,
				entry(unknown, sub(entryMetadata, msg(str(2, "v"), unknown, str(1, "k"))), unknown, str(entryLine, "a"),
					sub(entryMetadata, msg(str(1, "k2"))), sub(entryTime, msg(unknown, num(2, 5), num(1, 1))), sub(4, str(1, "parsed"))),
				entry(str(entryLine, "b"), stamp(2, 5)), appAPI, num(3, 12345)), str(2, "loki")),
			want: []row{{Labels: api, Time: 1e9 + 5, Line: "a", Metadata: []string{"k2=", "k=v"}}, {Labels: api, Time: 2e9 + 5, Line: "b"}},
		},
		{
			name: "the last of repeated fields counts, timestamps are merged",
			in:   stream(str(streamLabels, `{a="b"}`), entry(str(entryLine, "x"), stamp(1, 5), str(entryLine, "y"), sub(entryTime, num(1, 2))), appAPI),
			want: []row{{Labels: api, Time: 2e9 + 5, Line: "y"}},
		},
		{
			name:   "no timestamp",
			in:     stream(appAPI, entry(str(entryLine, "a")), entry(stamp(1, 5), str(entryLine, "b")), entry()),
			want:   []row{{Labels: api, Time: testNow, Line: "a"}, {Labels: api, Time: 1e9 + 5, Line: "b"}, {Labels: api, Time: testNow}},
			coarse: true,
		},
		{
			name:   "a timestamp of nothing but zeros",
			in:     stream(appAPI, entry(sub(entryTime, nil), str(entryLine, "a"))),
			want:   []row{{Labels: api, Time: 0, Line: "a"}},
			coarse: true,
		},
		{
			name: "the first and the last time there is",
			in: stream(appAPI, entry(stamp(-2208988800, 1)), entry(stamp(9223372036, 854775807)),
				entry(stamp(-1, 999999999))),
			want: []row{{Labels: api, Time: logs.MinTime + 1}, {Labels: api, Time: logs.MaxTime}, {Labels: api, Time: -1}},
		},
		{
			name: "bytes that are not UTF-8",
			in:   stream(appAPI, entry(stamp(1, 5), str(entryLine, "\xff\x00\xfe"), sub(entryMetadata, msg(str(1, "\xff"), str(2, "\x00\xfe"))))),
			want: []row{{Labels: api, Time: 1e9 + 5, Line: "\xff\x00\xfe", Metadata: []string{"\xff=\x00\xfe"}}},
		},
		{
			name: "a stream twice, and streams without entries",
			in: msg(stream(appAPI, entry(stamp(1, 5))), stream(str(streamLabels, `{a="b"}`)), stream(str(streamLabels, `{a="c"}`), entry(stamp(2, 5))),
				stream(appAPI, entry(stamp(3, 5)))),
			want: []row{{Labels: api, Time: 1e9 + 5}, {Labels: `{"a":"c"}`, Time: 2e9 + 5}, {Labels: api, Time: 3e9 + 5}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b logs.Batch
			if err := decodeProto(&b, c.in); err != nil {
				t.Fatal(err)
			}
			decodetest.SameRows(t, decodetest.Rows(t, &b), c.want)
			if b.Coarse != c.coarse {
				t.Errorf("Coarse is %v", b.Coarse)
			}
		})
	}
}

func TestProtobufRefuses(t *testing.T) {
	open := []byte{0xff} // a varint without end
	for _, c := range []struct {
		in   []byte
		want string
	}{
		{open, `malformed protobuf: unexpected EOF`},
		{[]byte{0}, `malformed protobuf: invalid field number`},
		{num(1, 1), `streams[0]: malformed protobuf: field 1 has wire type 0, not 2`},
		{[]byte{0x0a, 5, 1}, `streams[0]: malformed protobuf: unexpected EOF`},
		{msg(stream(appAPI), []byte{0x12}), `malformed protobuf: unexpected EOF`},
		{[]byte{0x0c}, `streams[0]: malformed protobuf: field 1 has wire type 4, not 2`},
		{[]byte{0x14}, `malformed protobuf: mismatching end group marker`},
		{stream(), `streams[0].labels: a stream needs at least one label`},
		{msg(stream(appAPI), stream(str(1, `{}`))), `streams[1].labels: a stream needs at least one label`},
		{stream(entry(stamp(1, 1))), `streams[0].labels: a stream needs at least one label`},
		{stream(str(1, `{app=""}`)), `streams[0].labels: a stream needs at least one label`},
		{stream(str(1, `{app="x"`)), `streams[0].labels: offset 8: want ',' or '}', got the end`},
		{stream(str(1, `{app=~"x"}`)), `streams[0].labels: offset 4: want '=', got "=~"`},
		{stream(str(1, `{a="1",a="1"}`)), `streams[0].labels: label "a" is given twice`},
		{stream(str(1, "{a=\"\xff\"}")), `streams[0].labels: the value of label "a" is not valid UTF-8: "\xff"`},
		{stream(num(1, 1)), `streams[0].labels: malformed protobuf: field 1 has wire type 0, not 2`},
		{stream(open), `streams[0]: malformed protobuf: unexpected EOF`},
		{stream(appAPI, num(2, 1)), `streams[0].entries[0]: malformed protobuf: field 2 has wire type 0, not 2`},
		{stream(appAPI, []byte{0x18}), `streams[0]: malformed protobuf: unexpected EOF`},
		{stream(appAPI, entry(stamp(1, 1)), entry(open)), `streams[0].entries[1]: malformed protobuf: unexpected EOF`},
		{stream(appAPI, entry([]byte{0x28})), `streams[0].entries[0]: malformed protobuf: unexpected EOF`},
		{stream(appAPI, entry(num(1, 1))), `streams[0].entries[0].timestamp: malformed protobuf: field 1 has wire type 0, not 2`},
		{stream(appAPI, entry(sub(1, str(1, "x")))), `streams[0].entries[0].timestamp: malformed protobuf: field 1 has wire type 2, not 0`},
		{stream(appAPI, entry(sub(1, []byte{0x08}))), `streams[0].entries[0].timestamp: malformed protobuf: unexpected EOF`},
		{stream(appAPI, entry(sub(1, open))), `streams[0].entries[0].timestamp: malformed protobuf: unexpected EOF`},
		{stream(appAPI, entry(num(2, 1))), `streams[0].entries[0].line: malformed protobuf: field 2 has wire type 0, not 2`},
		{stream(appAPI, entry(num(3, 1))), `streams[0].entries[0].structuredMetadata: malformed protobuf: field 3 has wire type 0, not 2`},
		{stream(appAPI, entry(sub(3, num(1, 1)))), `streams[0].entries[0].structuredMetadata: malformed protobuf: field 1 has wire type 0, not 2`},
		{stream(appAPI, entry(sub(3, open))), `streams[0].entries[0].structuredMetadata: malformed protobuf: unexpected EOF`},
		{stream(appAPI, entry(stamp(0, -1))), `streams[0].entries[0].timestamp: nanos -1 are outside of 0 to 999999999`},
		{stream(appAPI, entry(stamp(0, 1e9))), `streams[0].entries[0].timestamp: nanos 1000000000 are outside of 0 to 999999999`},
		{stream(appAPI, entry(stamp(0, 1<<32))), `streams[0].entries[0].timestamp: nanos 4294967296 are outside of 0 to 999999999`},
		{stream(appAPI, entry(stamp(-2208988801, 999999999))), `streams[0].entries[0].timestamp: timestamp of -2208988801 s and 999999999 ns after 1970 is outside of 1900-01-01 to 2262-04-11`},
		{stream(appAPI, entry(stamp(9223372036, 854775808))), `streams[0].entries[0].timestamp: timestamp of 9223372036 s and 854775808 ns after 1970 is outside of 1900-01-01 to 2262-04-11`},
		{stream(appAPI, entry(stamp(math.MaxInt64, 0))), `streams[0].entries[0].timestamp: timestamp of 9223372036854775807 s and 0 ns after 1970 is outside of 1900-01-01 to 2262-04-11`},
		{stream(appAPI, entry(stamp(1, 1)), entry(stamp(math.MinInt64, 0))), `streams[0].entries[1].timestamp: timestamp of -9223372036854775808 s and 0 ns after 1970 is outside of 1900-01-01 to 2262-04-11`},
	} {
		t.Run(c.want, func(t *testing.T) {
			var b logs.Batch
			decodetest.WantError(t, decodeProto(&b, c.in), c.want)
		})
	}
}

func TestProtobufSnappy(t *testing.T) {
	var b logs.Batch
	header := func(claim uint64, rest ...byte) []byte { return append(binary.AppendUvarint(nil, claim), rest...) }
	for _, c := range []struct {
		in   []byte
		want string
	}{
		{nil, `the push is not a valid snappy block`},
		{[]byte{0x80}, `the push is not a valid snappy block`},
		{[]byte(`{"streams":[]}`), `the push is not a valid snappy block`},
		{header(5, 0, 1), `the push is not a valid snappy block`},
		{header(maxBytes, 0, 1), `the push is not a valid snappy block: 6 bytes can't hold 16777216`},
		{header(0, 0, 1), `the push is not a valid snappy block`},
	} {
		decodetest.WantError(t, Protobuf(&b, c.in, testNow, testLimits), c.want)
	}
	for _, claim := range []uint64{maxBytes + 1, math.MaxUint32} {
		var large *decode.TooLargeError
		if err := Protobuf(&b, header(claim, 0, 1), testNow, testLimits); !errors.As(err, &large) || large.Limit != maxBytes {
			t.Errorf("a claim of %d: %v", claim, err)
		}
	}
	// The densest there is must still be taken.
	line := strings.Repeat("a", 200_000)
	body := snappy.Encode(nil, stream(appAPI, entry(stamp(1, 5), str(entryLine, line))))
	if ratio := float64(len(line)) / float64(len(body)); ratio < maxSnappyRatio-3 {
		t.Errorf("ratio of %f proves little", ratio)
	}
	decodetest.Must(t, Protobuf(&b, body, testNow, testLimits))
	decodetest.SameRows(t, decodetest.Rows(t, &b), []row{{Labels: api, Time: 1e9 + 5, Line: line}})
}

func TestProtobufLimits(t *testing.T) {
	push := func(limits decode.Limits, raw []byte) error {
		return Protobuf(new(logs.Batch), snappy.Encode(nil, raw), testNow, limits)
	}
	two := msg(stream(appAPI, entry(stamp(1, 5))), stream(str(1, `{b="2",a="1"}`), entry(stamp(1, 5)), entry(str(entryLine, "123456789"))))
	decodetest.Must(t, push(decode.Limits{MaxLineBytes: 9, MaxPushBytes: len(two)}, two))
	err := push(decode.Limits{MaxLineBytes: 8, MaxPushBytes: len(two)}, two)
	decodetest.WantError(t, err, `streams[1].entries[1]: line of 9 bytes is longer than 8 (--max-line-bytes)`)
	var refused *decode.Error
	if !errors.As(err, &refused) || refused.Labels != `{"a":"1","b":"2"}` {
		t.Errorf("%+v", err)
	}
	var large *decode.TooLargeError
	if err := push(decode.Limits{MaxLineBytes: 9, MaxPushBytes: len(two) - 1}, two); !errors.As(err, &large) {
		t.Errorf("%v", err)
	}

	fields := [][]byte{appAPI}
	for i := range decode.MaxMetadataNames {
		fields = append(fields, entry(stamp(1, 5), sub(3, str(1, fmt.Sprint("n", i)))))
	}
	decodetest.Must(t, push(testLimits, stream(fields...)))
	fields = append(fields, entry(stamp(1, 5), sub(3, str(1, "n0")), sub(3, str(1, "more"))))
	decodetest.WantError(t, push(testLimits, stream(fields...)), `streams[0].entries[10000].structuredMetadata: the push has more than 10000 different metadata names`)
}

// randomPush is a push as a client of Loki's own types would send it.
func randomPush(rnd *rand.Rand) push.PushRequest {
	w := jsonWriter{Rand: rnd}
	var req push.PushRequest
	for range rnd.IntN(5) {
		labels := fmt.Sprintf("{app=%q", "x"+w.chars(5))
		for i := range rnd.IntN(4) {
			labels += fmt.Sprintf(", l%d=%q", i, w.chars(10))
		}
		s := push.Stream{Labels: labels + "}", Hash: rnd.Uint64()}
		for range rnd.IntN(8) {
			e := push.Entry{Timestamp: time.Unix(rnd.Int64N(8e9)-2e9, rnd.Int64N(1e9)), Line: w.chars(80)}
			if rnd.IntN(4) == 0 {
				e.Timestamp = time.Unix(rnd.Int64N(5)-2, 0)
			}
			if rnd.IntN(4) == 0 {
				e.Line += "\xff\x00" + w.chars(5)
			}
			for i := range rnd.IntN(4) {
				e.StructuredMetadata = append(e.StructuredMetadata, push.LabelAdapter{Name: fmt.Sprint("m", i), Value: w.chars(20)})
			}
			if rnd.IntN(8) == 0 {
				e.Parsed = push.LabelsAdapter{{Name: "parsed", Value: "is not ours"}}
			}
			s.Entries = append(s.Entries, e)
		}
		req.Streams = append(req.Streams, s)
	}
	return req
}

func TestProtobufAgainstLoki(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		req := randomPush(rnd)
		raw, err := req.Marshal()
		decodetest.Must(t, err)
		var want []row
		for _, s := range req.Streams {
			labels, err := ParseLabels(s.Labels)
			decodetest.Must(t, err)
			canonical, err := logs.Canonical(labels)
			decodetest.Must(t, err)
			for _, e := range s.Entries {
				r := row{Labels: canonical, Time: e.Timestamp.UnixNano(), Line: e.Line}
				for _, m := range e.StructuredMetadata {
					r.Metadata = append(r.Metadata, m.Name+"="+m.Value)
				}
				slices.Sort(r.Metadata)
				want = append(want, r)
			}
		}
		var b logs.Batch
		decodetest.Must(t, decodeProto(&b, raw))
		decodetest.SameRows(t, decodetest.Rows(t, &b), want)
	}
}

func TestProtobufManyStreams(t *testing.T) {
	const n = 10_000
	var raw []byte
	var want []row
	for i := range n {
		raw = append(raw, stream(str(1, fmt.Sprintf(`{pod="p%d",app="api"}`, i)), entry(stamp(int64(i), 5), str(2, fmt.Sprint("line ", i))))...)
		want = append(want, row{Labels: fmt.Sprintf(`{"app":"api","pod":"p%d"}`, i), Time: int64(i)*1e9 + 5, Line: fmt.Sprint("line ", i)})
	}
	var b logs.Batch
	for range 2 {
		b.Reset()
		decodetest.Must(t, decodeProto(&b, raw))
		decodetest.SameRows(t, decodetest.Rows(t, &b), want)
	}
}

// A message that is cut short is refused, unless it was cut between two streams, where protobuf has no end
// mark: then what is there is whole streams.
func TestProtobufTruncated(t *testing.T) {
	first := stream(appAPI, entry(stamp(1, 5), str(2, "one"), sub(3, msg(str(1, "k"), str(2, "v")))), entry(stamp(2, 5), str(2, "two")), num(3, 7))
	raw := msg(first, stream(entry(stamp(3, 5), str(2, "three")), appAPI))
	for n := range raw {
		var b logs.Batch
		err := decodeProto(&b, raw[:n:n])
		if whole := n == 0 || n == len(first); whole != (err == nil) {
			t.Fatalf("%d of %d bytes: %v", n, len(raw), err)
		}
	}
	body := snappy.Encode(nil, raw)
	for n := range body {
		if err := Protobuf(new(logs.Batch), body[:n:n], testNow, testLimits); err == nil {
			t.Fatalf("%d of %d bytes of the snappy block were taken", n, len(body))
		}
	}
}

// The decompressed push is kept for the next one: no batch may depend on it.
func TestProtobufBatchOwnsItsBytes(t *testing.T) {
	var a, b logs.Batch
	decodetest.Must(t, decodeProto(&a, stream(appAPI, entry(stamp(1, 5), str(2, "first"), sub(3, msg(str(1, "k"), str(2, "v")))))))
	decodetest.Must(t, decodeProto(&b, stream(str(1, `{x="yyy"}`), entry(stamp(9, 9), str(2, "XXXXX"), sub(3, msg(str(1, "Y"), str(2, "Z")))))))
	decodetest.SameRows(t, decodetest.Rows(t, &a), []row{{Labels: api, Time: 1e9 + 5, Line: "first", Metadata: []string{"k=v"}}})
}

func FuzzProtobuf(f *testing.F) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 10 {
		req := randomPush(rnd)
		raw, err := req.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add(stream(entry(str(2, "b"), stamp(2, 5), sub(3, msg(str(1, "k"), str(2, "v")))), appAPI, num(9, 1)))
	f.Add(stream(appAPI, entry(stamp(math.MaxInt64, -1))))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{0x0b, 0x0c})
	limits := decode.Limits{MaxLineBytes: 1 << 10, MaxPushBytes: 1 << 20}
	f.Fuzz(func(t *testing.T, raw []byte) {
		// Once as it is, which most often is not a snappy block, and once as the message in one.
		var b logs.Batch
		if err := Protobuf(&b, raw, testNow, limits); err == nil {
			decodetest.Rows(t, &b)
		}
		b.Reset()
		err := Protobuf(&b, snappy.Encode(nil, raw), testNow, limits)
		if err != nil {
			return
		}
		got := decodetest.Rows(t, &b)
		var req push.PushRequest
		if req.Unmarshal(raw) != nil {
			return // gogo refuses a few things that are valid, such as some groups
		}
		i := 0
		for _, s := range req.Streams {
			for _, e := range s.Entries {
				if i == len(got) || got[i].Line != e.Line {
					t.Fatalf("entry %d: got %q, Loki has %q", i, got[min(i, len(got)-1)].Line, e.Line)
				}
				i++
			}
		}
		if i != len(got) {
			t.Fatalf("got %d entries, Loki has %d", len(got), i)
		}
	})
}
