package native

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
)

const (
	testNow = decodetest.Now
	api     = `{"app":"api"}`
)

var testLimits = decodetest.Limits

type row = decodetest.Row

// Writers of the wire format, for what the generated code would never write.
var (
	msg = decodetest.Message
	sub = decodetest.Field
	str = decodetest.Text
	num = decodetest.Number
)

func named(name, value string) []byte { return msg(str(1, name), str(2, value)) }

func label(name, value string) []byte { return sub(streamLabels, named(name, value)) }

func meta(name, value string) []byte { return sub(entryMetadata, named(name, value)) }

func stamp(seconds, nanos int64) []byte { return sub(entryTime, msg(num(1, seconds), num(2, nanos))) }

func entry(fields ...[]byte) []byte { return sub(streamEntries, msg(fields...)) }

func stream(fields ...[]byte) []byte { return sub(pushStreams, msg(fields...)) }

var appAPI = label("app", "api")

func decodePush(b *logs.Batch, raw []byte) error { return Protobuf(b, raw, testNow, testLimits) }

func TestProtobuf(t *testing.T) {
	unknown := decodetest.Unknown
	for _, c := range []struct {
		name   string
		in     []byte
		want   []row
		coarse bool
	}{
		{
			name: "fields in order",
			in:   stream(appAPI, entry(stamp(1, 5), str(entryLine, "a")), entry(stamp(2, 5), str(entryLine, "b"))),
			want: []row{{Labels: api, Time: 1e9 + 5, Line: "a"}, {Labels: api, Time: 2e9 + 5, Line: "b"}},
		},
		{
			name: "fields in any order, among unknown ones",
			in: msg(unknown, stream(unknown, label("z", "1"),
				entry(unknown, sub(entryMetadata, msg(str(2, "v"), unknown, str(1, "k"))), unknown, str(entryLine, "a"),
					sub(entryMetadata, str(1, "k2")), sub(entryTime, msg(unknown, num(2, 5), num(1, 1)))),
				entry(str(entryLine, "b"), stamp(2, 5)), label("a", "2"), unknown), unknown),
			want: []row{
				{Labels: `{"a":"2","z":"1"}`, Time: 1e9 + 5, Line: "a", Metadata: []string{"k2=", "k=v"}},
				{Labels: `{"a":"2","z":"1"}`, Time: 2e9 + 5, Line: "b"},
			},
		},
		{
			name: "the last of what is repeated counts, timestamps are merged",
			in: stream(label("app", "\xff"), entry(str(entryLine, "x"), stamp(1, 5), meta("k", "1"), meta("j", "2"), str(entryLine, "y"),
				sub(entryTime, num(1, 2)), sub(entryMetadata, msg(str(1, "x"), str(1, "k"), str(2, "3"), str(2, "4")))), appAPI),
			want: []row{{Labels: api, Time: 2e9 + 5, Line: "y", Metadata: []string{"j=2", "k=4"}}},
		},
		{
			name: "labels without a value",
			in:   stream(label("a", ""), appAPI, label("gone", "x"), sub(streamLabels, str(1, "gone")), entry(stamp(1, 5))),
			want: []row{{Labels: api, Time: 1e9 + 5}},
		},
		{
			name: "metadata without a name or a value",
			in:   stream(appAPI, entry(stamp(1, 5), sub(entryMetadata, nil)), entry(stamp(2, 5), meta("", "v"), meta("n", ""))),
			want: []row{{Labels: api, Time: 1e9 + 5, Metadata: []string{"="}}, {Labels: api, Time: 2e9 + 5, Metadata: []string{"=v", "n="}}},
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
			in:   stream(appAPI, entry(stamp(-2208988800, 1)), entry(stamp(9223372036, 854775807)), entry(stamp(-1, 999999999))),
			want: []row{{Labels: api, Time: logs.MinTime + 1}, {Labels: api, Time: logs.MaxTime}, {Labels: api, Time: -1}},
		},
		{
			name: "nanoseconds are 32 bits, whatever is written",
			in:   stream(appAPI, entry(stamp(1, 1<<32|5))),
			want: []row{{Labels: api, Time: 1e9 + 5}},
		},
		{
			name: "lines that are not UTF-8",
			in:   stream(appAPI, entry(stamp(1, 5), str(entryLine, "\xff\x00\xfe"))),
			want: []row{{Labels: api, Time: 1e9 + 5, Line: "\xff\x00\xfe"}},
		},
		{name: "a stream without entries", in: stream(appAPI)},
		{
			name: "a stream twice, and streams without entries",
			in:   msg(stream(appAPI, entry(stamp(1, 5))), stream(label("a", "b")), stream(label("a", "c"), entry(stamp(2, 5))), stream(appAPI, entry(stamp(3, 5)))),
			want: []row{{Labels: api, Time: 1e9 + 5}, {Labels: `{"a":"c"}`, Time: 2e9 + 5}, {Labels: api, Time: 3e9 + 5}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b logs.Batch
			decodetest.Must(t, decodePush(&b, c.in))
			decodetest.SameRows(t, decodetest.Rows(t, &b), c.want)
			if b.Coarse != c.coarse {
				t.Errorf("Coarse is %v", b.Coarse)
			}
		})
	}
}

func TestProtobufRefuses(t *testing.T) {
	open := []byte{0xff} // a varint without end
	good := stream(appAPI, entry(stamp(1, 5)))
	for _, c := range []struct {
		in           []byte
		want, labels string
	}{
		{nil, `streams: at least one is needed`, ""},
		{num(9, 1), `streams: at least one is needed`, ""},
		{open, `malformed protobuf: unexpected EOF`, ""},
		{[]byte{0}, `malformed protobuf: invalid field number`, ""},
		{num(1<<29, 1), `malformed protobuf: invalid field number`, ""},
		{bytes.Repeat([]byte{0xff}, 11), `malformed protobuf: variable length integer overflow`, ""},
		{num(1, 1), `streams[0]: malformed protobuf: field 1 has wire type 0, not 2`, ""},
		{[]byte{0x0a, 5, 1}, `streams[0]: malformed protobuf: unexpected EOF`, ""},
		{[]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0}, `streams[0]: malformed protobuf: unexpected EOF`, ""},
		{msg(good, []byte{0x12}), `malformed protobuf: unexpected EOF`, ""},
		{[]byte{0x0c}, `streams[0]: malformed protobuf: field 1 has wire type 4, not 2`, ""},
		{[]byte{0x14}, `malformed protobuf: mismatching end group marker`, ""},
		{[]byte{0x13, 0x1c}, `malformed protobuf: mismatching end group marker`, ""},

		{stream(), `streams[0].labels: a stream needs at least one label`, ""},
		{msg(good, stream(entry(stamp(1, 1)))), `streams[1].labels: a stream needs at least one label`, ""},
		{stream(label("app", "")), `streams[0].labels: a stream needs at least one label`, ""},
		{stream(appAPI, label("app", "")), `streams[0].labels: a stream needs at least one label`, ""},
		{stream(sub(streamLabels, nil)), `streams[0].labels: label name "" does not match [a-zA-Z_][a-zA-Z0-9_]*`, ""},
		{stream(entry(num(1, 1)), label("a-b", "c")), `streams[0].labels: label name "a-b" does not match [a-zA-Z_][a-zA-Z0-9_]*`, ""},
		{stream(label("a\xff", "c")), `streams[0].labels: label name "a\xff" does not match [a-zA-Z_][a-zA-Z0-9_]*`, ""},
		{stream(label("a", "\xff")), `streams[0].labels: the value of label "a" is not valid UTF-8: "\xff"`, ""},
		{stream(num(1, 1)), `streams[0].labels: malformed protobuf: field 1 has wire type 0, not 2`, ""},
		{stream(sub(streamLabels, num(1, 1))), `streams[0].labels: malformed protobuf: field 1 has wire type 0, not 2`, ""},
		{stream(sub(streamLabels, num(2, 1))), `streams[0].labels: malformed protobuf: field 2 has wire type 0, not 2`, ""},
		{stream(sub(streamLabels, open)), `streams[0].labels: malformed protobuf: unexpected EOF`, ""},
		{stream(open), `streams[0]: malformed protobuf: unexpected EOF`, ""},
		{stream(appAPI, []byte{0x18}), `streams[0]: malformed protobuf: unexpected EOF`, ""},
		{stream(appAPI, entry(), num(2, 1)), `streams[0].entries[1]: malformed protobuf: field 2 has wire type 0, not 2`, ""},

		{msg(good, stream(appAPI, entry(stamp(1, 1)), entry(open))), `streams[1].entries[1]: malformed protobuf: unexpected EOF`, api},
		{stream(entry([]byte{0x28}), appAPI), `streams[0].entries[0]: malformed protobuf: unexpected EOF`, api},
		{stream(appAPI, entry(num(1, 1))), `streams[0].entries[0].timestamp: malformed protobuf: field 1 has wire type 0, not 2`, api},
		{stream(appAPI, entry(sub(1, str(1, "x")))), `streams[0].entries[0].timestamp: malformed protobuf: field 1 has wire type 2, not 0`, api},
		{stream(appAPI, entry(sub(1, []byte{0x08}))), `streams[0].entries[0].timestamp: malformed protobuf: unexpected EOF`, api},
		{stream(appAPI, entry(sub(1, open))), `streams[0].entries[0].timestamp: malformed protobuf: unexpected EOF`, api},
		{stream(appAPI, entry(num(2, 1))), `streams[0].entries[0].line: malformed protobuf: field 2 has wire type 0, not 2`, api},
		{stream(appAPI, entry(num(3, 1))), `streams[0].entries[0].metadata: malformed protobuf: field 3 has wire type 0, not 2`, api},
		{stream(appAPI, entry(sub(3, num(2, 1)))), `streams[0].entries[0].metadata: malformed protobuf: field 2 has wire type 0, not 2`, api},
		{stream(appAPI, entry(meta("k", "v"), meta("\xff", "v"))), `streams[0].entries[0].metadata: a name or a value is not valid UTF-8`, api},
		{stream(appAPI, entry(meta("k", "\xc0\x80"))), `streams[0].entries[0].metadata: a name or a value is not valid UTF-8`, api},

		{stream(appAPI, entry(stamp(0, -1))), `streams[0].entries[0]: nanos -1 are outside of 0 to 999999999`, api},
		{stream(appAPI, entry(stamp(0, 1e9))), `streams[0].entries[0]: nanos 1000000000 are outside of 0 to 999999999`, api},
		{stream(appAPI, entry(stamp(-2208988801, 999999999))), `streams[0].entries[0]: timestamp of -2208988801 s and 999999999 ns after 1970 is outside of 1900-01-01 to 2262-04-11`, api},
		{stream(appAPI, entry(stamp(9223372036, 854775808))), `streams[0].entries[0]: timestamp of 9223372036 s and 854775808 ns after 1970 is outside of 1900-01-01 to 2262-04-11`, api},
		{stream(appAPI, entry(stamp(1, 1)), entry(stamp(math.MinInt64, 0))), `streams[0].entries[1]: timestamp of -9223372036854775808 s and 0 ns after 1970 is outside of 1900-01-01 to 2262-04-11`, api},
	} {
		t.Run(c.want, func(t *testing.T) {
			err := decodePush(new(logs.Batch), c.in)
			decodetest.WantError(t, err, c.want)
			if bad, _ := errors.AsType[*decode.Error](err); bad.Labels != c.labels {
				t.Errorf("labels %q, not %q", bad.Labels, c.labels)
			}
		})
	}
}

func TestProtobufLimits(t *testing.T) {
	two := msg(stream(appAPI, entry(stamp(1, 5))), stream(label("b", "2"), label("a", "1"), entry(stamp(1, 5)), entry(str(entryLine, "123456789"))))
	push := func(line, size int) error {
		return Protobuf(new(logs.Batch), two, testNow, decode.Limits{MaxLineBytes: line, MaxPushBytes: size})
	}
	decodetest.Must(t, push(9, len(two)))
	decodetest.WantError(t, push(8, len(two)), `streams[1].entries[1]: line of 9 bytes is longer than 8 (--max-line-bytes)`)
	if large, ok := errors.AsType[*decode.TooLargeError](push(9, len(two)-1)); !ok || large.Limit != len(two)-1 {
		t.Error(large)
	}

	// As many labels as there may be, each given twice; and one more.
	var labels [][]byte
	for i := range 2 * decode.MaxLabels {
		labels = append(labels, label(fmt.Sprint("l", i%decode.MaxLabels), fmt.Sprint("v", i)))
	}
	var b logs.Batch
	decodetest.Must(t, decodePush(&b, stream(append(labels, entry())...)))
	if got := b.Streams[0].Labels; strings.Count(got, ":") != decode.MaxLabels || !strings.HasPrefix(got, `{"l0":"v1024","l1":"v1025",`) {
		t.Errorf("%.100s", got)
	}
	decodetest.WantError(t, decodePush(new(logs.Batch), stream(append(labels, label("more", "x"))...)), `streams[0].labels: a stream has at most 1024 labels`)

	// The same with metadata, in one entry and in many.
	var all, many [][]byte
	for i := range 2 * decode.MaxMetadataNames {
		one := meta(fmt.Sprint("n", i%decode.MaxMetadataNames), fmt.Sprint("v", i))
		all, many = append(all, one), append(many, entry(one))
	}
	many = append(many, appAPI)
	for _, fields := range [][][]byte{{appAPI, entry(all...)}, many} {
		decodetest.Must(t, decodePush(new(logs.Batch), stream(fields...)))
	}
	const tooMany = `: the push has more than 10000 different metadata names`
	decodetest.WantError(t, decodePush(new(logs.Batch), stream(appAPI, entry(append(all, meta("more", ""))...))), `streams[0].entries[0]`+tooMany)
	decodetest.WantError(t, decodePush(new(logs.Batch), stream(append(many, entry(meta("more", "")))...)), `streams[0].entries[20000]`+tooMany)
	for i := range 3 * decode.MaxMetadataNames {
		all = append(all, meta(fmt.Sprint("m", i), ""))
	}
	decodetest.WantError(t, decodePush(new(logs.Batch), stream(appAPI, entry(all...))), `streams[0].entries[0]`+tooMany)
}

// What a push takes in memory is bounded by its size, whatever it is full of. The race detector doubles it.
func TestMemory(t *testing.T) {
	const n, entries = 300_000, 7_000_000
	var names [][]byte
	for i := range n {
		names = append(names, meta(fmt.Sprintf("%x", i), ""))
	}
	many := msg(names...)
	limits := decode.Limits{MaxLineBytes: testLimits.MaxLineBytes, MaxPushBytes: math.MaxInt}
	for _, c := range []struct {
		name string
		raw  []byte
		most float64
	}{
		{"entries", stream(appAPI, bytes.Repeat([]byte{streamEntries<<3 | 2, 0}, entries)), 15},
		{"entries before their labels", stream(bytes.Repeat([]byte{streamEntries<<3 | 2, 0}, n), appAPI), 15},
		{"streams", bytes.Repeat(stream(label("a", "b"), entry()), n), 30},
		{"labels", stream(bytes.Repeat([]byte{streamLabels<<3 | 2, 0}, 7*n)), 4},
		{"labels with names", stream(bytes.Repeat(label("a", "b"), n)), 4},
		{"metadata of one entry", stream(appAPI, entry(bytes.Repeat([]byte{entryMetadata<<3 | 2, 0}, 7*n))), 5},
		{"metadata of many entries", stream(appAPI, bytes.Repeat(entry(sub(entryMetadata, nil)), n)), 30},
		{"names of one entry", stream(appAPI, entry(many)), 4},
	} {
		if got := decodetest.MemoryFactor(len(c.raw), func(b *logs.Batch) error { return Protobuf(b, c.raw, testNow, limits) }); got > c.most {
			t.Errorf("%s: %.1f bytes allocated for each of the push", c.name, got)
		} else {
			t.Logf("%s: %.1f bytes a byte", c.name, got)
		}
	}
}

// reference makes a batch of what the generated code reads.
func reference(b *logs.Batch, request *logthrav1.PushRequest) error {
	if len(request.GetStreams()) == 0 {
		return errors.New("streams: at least one is needed")
	}
	for i, s := range request.GetStreams() {
		var labels []logs.Label
		for name, value := range s.GetLabels() {
			labels = append(labels, logs.Label{Name: name, Value: value})
		}
		canonical, err := logs.Canonical(labels)
		if err != nil {
			return fmt.Errorf("streams[%d].labels: %w", i, err)
		}
		if len(s.GetEntries()) > 0 {
			b.AddStream(canonical)
		}
		for j, e := range s.GetEntries() {
			ts, own := testNow, e.GetTimestamp() != nil
			if own {
				if ts, err = logs.UnixNano(e.GetTimestamp().GetSeconds(), int64(e.GetTimestamp().GetNanos())); err != nil {
					return fmt.Errorf("streams[%d].entries[%d]: %w", i, j, err)
				}
			}
			if size := len(e.GetLine()); size > testLimits.MaxLineBytes {
				return fmt.Errorf("streams[%d].entries[%d]: %s", i, j, decode.LineTooLong(size, testLimits.MaxLineBytes))
			}
			b.Lines = append(b.Lines, e.GetLine()...)
			b.EndEntry(ts, own)
			for _, name := range slices.Sorted(maps.Keys(e.GetMetadata())) {
				b.AddMetadata([]byte(name), []byte(e.GetMetadata()[name]))
			}
		}
	}
	return nil
}

// sameBatch fails t unless two batches are equal, down to the order of their metadata.
func sameBatch(t testing.TB, got, want *logs.Batch) {
	t.Helper()
	decodetest.SameRows(t, decodetest.Rows(t, got), decodetest.Rows(t, want))
	if got.Coarse != want.Coarse || got.Stamped != want.Stamped || !slices.Equal(got.Streams, want.Streams) {
		t.Fatalf("\n got %v, %v, %v\nwant %v, %v, %v", got.Coarse, got.Stamped, got.Streams, want.Coarse, want.Stamped, want.Streams)
	}
	if !slices.EqualFunc(got.Metadata, want.Metadata, func(a, b logs.Column) bool { return a.Name == b.Name }) {
		t.Fatal("metadata in another order")
	}
}

// randomRequest is a push; one of bad values has something wrong with it.
func randomRequest(rnd *rand.Rand, bad int) *logthrav1.PushRequest {
	text := func(most int) string {
		const alphabet = "abcXYZ 019_\n\x00\"\\{}éλ漢😀"
		runes := []rune(alphabet)
		var s strings.Builder
		for range rnd.IntN(most + 1) {
			s.WriteRune(runes[rnd.IntN(len(runes))])
		}
		return s.String()
	}
	wrong := func() bool { return rnd.IntN(bad) == 0 }
	request := new(logthrav1.PushRequest)
	for range rnd.IntN(5) {
		s := &logthrav1.Stream{Labels: map[string]string{}}
		for i := range rnd.IntN(4) {
			s.Labels[fmt.Sprint("l", i)] = text(5)
		}
		if !wrong() {
			s.Labels["app"] = "x" + text(5)
		}
		if wrong() {
			s.Labels[text(3)] = text(3)
		}
		for range rnd.IntN(8) {
			e := &logthrav1.Entry{Line: []byte(text(80))}
			switch rnd.IntN(4) {
			case 0:
				e.Line = append(e.Line, 0xff, 0)
			case 1:
				e.Metadata = map[string]string{}
				for range rnd.IntN(30) {
					e.Metadata[text(3)] = text(20)
				}
			}
			if rnd.IntN(5) > 0 {
				e.Timestamp = &timestamppb.Timestamp{Seconds: rnd.Int64N(8e9) - 2e9, Nanos: rnd.Int32N(1e9)}
			}
			if wrong() {
				e.Timestamp = &timestamppb.Timestamp{Seconds: int64(rnd.Uint64()) >> rnd.IntN(64), Nanos: int32(rnd.Uint32()) >> rnd.IntN(32)}
			}
			if wrong() {
				e.Line = make([]byte, testLimits.MaxLineBytes+1)
			}
			s.Entries = append(s.Entries, e)
		}
		request.Streams = append(request.Streams, s)
	}
	return request
}

func TestAgainstGeneratedCode(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	refused := 0
	for range 3000 {
		request := randomRequest(rnd, 100)
		var got, want logs.Batch
		wantErr := reference(&want, request)
		for range 2 { // the generated code writes a map in another order each time
			raw, err := proto.Marshal(request)
			decodetest.Must(t, err)
			got.Reset()
			if err := decodePush(&got, raw); wantErr != nil {
				decodetest.WantError(t, err, wantErr.Error())
				refused++
				continue
			}
			sameBatch(t, &got, &want)
		}
	}
	if refused < 500 || refused > 5000 {
		t.Errorf("%d were refused", refused)
	}
}

// A message that is cut short is refused, unless it was cut between two streams, where protobuf has no end
// mark: then what is there is whole streams.
func TestTruncated(t *testing.T) {
	first := stream(appAPI, entry(stamp(1, 5), str(entryLine, "one"), meta("k", "v")), entry(stamp(2, 5), str(entryLine, "two")), num(3, 7))
	raw := msg(first, stream(entry(stamp(3, 5), str(entryLine, "three")), appAPI))
	for n := range raw {
		var b logs.Batch
		err := decodePush(&b, raw[:n:n])
		if whole := n == len(first); whole != (err == nil) {
			t.Fatalf("%d of %d bytes: %v", n, len(raw), err)
		}
	}
}

// The buffer of a push is used again for another: no batch, and nothing that is kept, may depend on it.
func TestBatchOwnsItsBytes(t *testing.T) {
	one := stream(appAPI, entry(stamp(1, 5), str(entryLine, "first"), meta("k", "v")))
	for range 3 {
		var b logs.Batch
		raw := slices.Clone(one)
		decodetest.Must(t, decodePush(&b, raw))
		clear(raw)
		decodetest.SameRows(t, decodetest.Rows(t, &b), []row{{Labels: api, Time: 1e9 + 5, Line: "first", Metadata: []string{"k=v"}}})
	}
}

func FuzzProtobuf(f *testing.F) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 10 {
		raw, err := proto.Marshal(randomRequest(rnd, math.MaxInt))
		decodetest.Must(f, err)
		f.Add(raw)
	}
	f.Add(stream(entry(str(entryLine, "b"), stamp(2, 5), meta("k", "v"), meta("j", ""), meta("k", "w")), appAPI, num(9, 1)))
	f.Add(msg(decodetest.Unknown, stream(decodetest.Unknown, appAPI, entry(decodetest.Unknown, sub(entryTime, decodetest.Unknown)))))
	f.Add(stream(appAPI, entry(stamp(math.MaxInt64, -1))))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{0x0b, 0x0c})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got, want logs.Batch
		err := decodePush(&got, raw)
		var request logthrav1.PushRequest
		wantErr := proto.Unmarshal(raw, &request)
		if wantErr == nil {
			wantErr = reference(&want, &request)
		}
		switch {
		case err == nil && wantErr == nil:
			sameBatch(t, &got, &want)
		case err == nil && !strings.Contains(wantErr.Error(), "UTF-8"): // of a value that another one replaced
			t.Fatalf("taken, but the generated code says %v", wantErr)
		case wantErr == nil && !strings.Contains(err.Error(), "has wire type"): // a field that the generated code does not know
			t.Fatalf("refused, but not by the generated code: %v", err)
		}
	})
}
