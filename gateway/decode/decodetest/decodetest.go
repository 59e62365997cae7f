// Package decodetest holds what the tests of all decoders share.
package decodetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/shared/logs"
)

// Now is the time at which the tests decode, in unix nanoseconds.
const Now = int64(1_760_000_000_123_456_789)

// Limits are those of a gateway that is not told otherwise.
var Limits = decode.Limits{MaxLineBytes: 256 << 10, MaxPushBytes: 16 << 20}

// Row is an entry of a batch, put together again.
type Row struct {
	Labels   string
	Time     int64
	Line     string
	Metadata []string // name=value, sorted
}

// Rows checks that a batch is consistent and takes it apart.
func Rows(t testing.TB, b *logs.Batch) []Row {
	t.Helper()
	if err := consistent(b); err != nil {
		t.Fatal(err)
	}
	out := make([]Row, 0, b.Len())
	from := 0
	for _, s := range b.Streams {
		for range s.Entries {
			i := len(out)
			to := from + int(b.Lengths[i])
			out = append(out, Row{Labels: s.Labels, Time: b.Timestamps[i], Line: string(b.Lines[from:to])})
			from = to
		}
	}
	for _, c := range b.Metadata {
		from = 0
		for i, entry := range c.Entries {
			to := from + int(c.Lengths[i])
			out[entry].Metadata = append(out[entry].Metadata, c.Name+"="+string(c.Values[from:to]))
			from = to
		}
	}
	for i := range out {
		slices.Sort(out[i].Metadata)
	}
	return out
}

// consistent tells what does not add up in a batch.
func consistent(b *logs.Batch) error {
	if len(b.Lengths) != b.Len() {
		return fmt.Errorf("%d lengths for %d timestamps", len(b.Lengths), b.Len())
	}
	sum := 0
	for _, n := range b.Lengths {
		sum += int(n)
	}
	if sum != len(b.Lines) {
		return fmt.Errorf("lengths sum to %d, lines are %d bytes", sum, len(b.Lines))
	}
	sum = 0
	for _, s := range b.Streams {
		if s.Entries < 1 || s.Labels == "" {
			return fmt.Errorf("stream %q with %d entries", s.Labels, s.Entries)
		}
		sum += s.Entries
	}
	if sum != b.Len() {
		return fmt.Errorf("streams have %d entries, the batch %d", sum, b.Len())
	}
	names := map[string]bool{}
	for _, c := range b.Metadata {
		if names[c.Name] {
			return fmt.Errorf("two columns of metadata %q", c.Name)
		}
		names[c.Name] = true
		if len(c.Entries) != len(c.Lengths) || !slices.IsSorted(c.Entries) {
			return fmt.Errorf("metadata %q: entries %v, lengths %v", c.Name, c.Entries, c.Lengths)
		}
		if n := len(c.Entries); n == 0 || int(c.Entries[n-1]) >= b.Len() {
			return fmt.Errorf("metadata %q: entries %v of %d", c.Name, c.Entries, b.Len())
		}
		sum = 0
		for _, n := range c.Lengths {
			sum += int(n)
		}
		if sum != len(c.Values) {
			return fmt.Errorf("metadata %q: lengths sum to %d, values are %d bytes", c.Name, sum, len(c.Values))
		}
	}
	for _, ts := range b.Timestamps {
		if err := logs.CheckTime(ts); err != nil {
			return err
		}
	}
	return nil
}

// SameRows fails t unless the rows are as they should be.
func SameRows(t testing.TB, got, want []Row) {
	t.Helper()
	equal := func(a, b Row) bool {
		return a.Labels == b.Labels && a.Time == b.Time && a.Line == b.Line && slices.Equal(a.Metadata, b.Metadata)
	}
	for i := range min(len(got), len(want)) {
		if !equal(got[i], want[i]) {
			t.Fatalf("entry %d\n got %#v\nwant %#v", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("got %d entries, want %d", len(got), len(want))
	}
}

// WantError checks the text of a refusal, and that it is the client's to mend.
func WantError(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Fatalf("\n got %v\nwant %s", err, want)
	}
	if _, ok := errors.AsType[*decode.Error](err); !ok {
		t.Fatalf("a %T, want a *decode.Error", err)
	}
}

// Must fails t on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Writers of protobuf's wire format, for what no generated code would ever write.

// Message is a message of fields.
func Message(fields ...[]byte) []byte { return slices.Concat(fields...) }

// Field is a field that holds a message, or bytes.
func Field(field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), value)
}

// Text is a field that holds a string.
func Text(field protowire.Number, value string) []byte { return Field(field, []byte(value)) }

// Number is a field that holds an integer.
func Number(field protowire.Number, value int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), uint64(value))
}

// Unknown is one field of every wire type, with numbers that no push has.
var Unknown = Message(Number(99, 1), Text(98, "x"), protowire.AppendFixed32(protowire.AppendTag(nil, 97, protowire.Fixed32Type), 7),
	protowire.AppendFixed64(protowire.AppendTag(nil, 96, protowire.Fixed64Type), 7),
	protowire.AppendGroup(protowire.AppendTag(nil, 95, protowire.StartGroupType), 95, Number(1, 1)))

// MemoryFactor is how many bytes are allocated for each byte of a push of a size, whether it is taken or not.
func MemoryFactor(size int, decode func(*logs.Batch) error) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_ = decode(new(logs.Batch))
	runtime.ReadMemStats(&after)
	return float64(after.TotalAlloc-before.TotalAlloc) / float64(size)
}

// Stream and Entry are a push, before it is written in one protocol or another.
type Stream struct {
	Labels  []logs.Label
	Entries []Entry
}

// Entry is one line of a Stream.
type Entry struct {
	Time     time.Time
	Line     string
	Metadata []logs.Label
}

// BenchLines is how many lines BenchPush has.
const BenchLines = 2000

// BenchPush is lines of about 150 bytes in 10 streams, the same at every run. Half are logfmt and half are JSON,
// which in a JSON push is full of escapes; some have metadata.
func BenchPush() []Stream {
	rnd := rand.New(rand.NewPCG(9, 10))
	words := strings.Fields("request served from cache upstream connection reset by peer retrying user session token expired queue flushed shard")
	ts := time.Date(2025, 10, 1, 8, 0, 0, 0, time.UTC)
	var streams []Stream
	for i := range 10 {
		s := Stream{Labels: []logs.Label{
			{Name: "app", Value: "checkout"}, {Name: "env", Value: "production"}, {Name: "level", Value: "info"},
			{Name: "pod", Value: fmt.Sprintf("checkout-7d9f8b6c5-%05d", i*7919)},
		}}
		for j := range BenchLines / 10 {
			ts = ts.Add(time.Duration(rnd.IntN(5_000_000)))
			var msg []string
			for range 7 {
				msg = append(msg, words[rnd.IntN(len(words))])
			}
			text := strings.Join(msg, " ")
			line := fmt.Sprintf("ts=%s level=info caller=handler.go:%d msg=%q trace=%016x dur=%dms", ts.Format(time.RFC3339Nano), rnd.IntN(900), text, rnd.Uint64(), rnd.IntN(1000))
			if j%2 == 0 {
				line = fmt.Sprintf(`{"ts":"%s","level":"info","msg":"%s","trace":"%016x","dur":%d}`, ts.Format(time.RFC3339Nano), text, rnd.Uint64(), rnd.IntN(1000))
			}
			e := Entry{Time: ts, Line: line}
			if j%10 == 0 {
				e.Metadata = []logs.Label{{Name: "trace_id", Value: fmt.Sprintf("%016x", rnd.Uint64())}}
			}
			s.Entries = append(s.Entries, e)
		}
		streams = append(streams, s)
	}
	return streams
}

// Benchmark decodes BenchPush, of a size in bytes, until the time is up, with one batch as a gateway would keep it.
func Benchmark(b *testing.B, size int, decode func(*logs.Batch) error) {
	b.Helper()
	var batch logs.Batch
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for b.Loop() {
		batch.Reset()
		if err := decode(&batch); err != nil {
			b.Fatal(err)
		}
	}
	if batch.Len() != BenchLines {
		b.Fatalf("%d lines", batch.Len())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/BenchLines, "ns/line")
}

// WantFewAllocations checks that allocations are those of a push, never those of a line of BenchPush.
func WantFewAllocations(t *testing.T, decode func(*logs.Batch) error) {
	t.Helper()
	var b logs.Batch
	got := testing.AllocsPerRun(20, func() {
		b.Reset()
		Must(t, decode(&b))
	})
	if got > 100 {
		t.Errorf("%.0f allocations for %d lines", got, BenchLines)
	}
}
