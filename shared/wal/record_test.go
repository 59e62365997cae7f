package wal

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
)

var update = flag.Bool("update", false, "write the golden files that are missing; those that exist are never changed")

// entry is an entry of a batch, for tests to write down.
type entry struct {
	ts       int64
	line     string
	metadata []string // name, value, …
}

func batchOf(streams map[string][]entry, order ...string) *logs.Batch {
	b := new(logs.Batch)
	for _, labels := range order {
		b.AddStream(labels)
		for _, e := range streams[labels] {
			b.Lines = append(b.Lines, e.line...)
			b.EndEntry(e.ts, true)
			for i := 0; i < len(e.metadata); i += 2 {
				b.AddMetadata([]byte(e.metadata[i]), []byte(e.metadata[i+1]))
			}
		}
	}
	return b
}

// golden are batches whose records are kept as files, by the name of the file.
var golden = map[string]*logs.Batch{
	"one-line": batchOf(map[string][]entry{
		`{"app":"api"}`: {{ts: 1700000000123456789, line: "hello"}},
	}, `{"app":"api"}`),
	"streams-and-metadata": batchOf(map[string][]entry{
		`{"app":"api","level":"info"}`: {
			{ts: 1700000000000000001, line: "starting up", metadata: []string{"trace_id", "0af7", "pod", "api-1"}},
			{ts: -1, line: ""},
			{ts: 1700000000000000000, line: "out of order", metadata: []string{"pod", "api-2"}},
		},
		`{"app":"db"}`: {{ts: 4102444800000000000, line: "a line\nof two", metadata: []string{"pod", "db-1", "pod", "again"}}},
	}, `{"app":"api","level":"info"}`, `{"app":"db"}`),
	"any-bytes": batchOf(map[string][]entry{
		`{"a":"\u0000\"\\ü"}`: {{ts: logs.MinTime, line: "\x00\xff\xfe\r"}, {ts: logs.MaxTime, line: string(bytes.Repeat([]byte{'x'}, 300))}},
	}, `{"a":"\u0000\"\\ü"}`),
}

// Records that were written once have to be readable for ever, and what is written must not change without
// a new version.
func TestGoldenRecords(t *testing.T) {
	for name, batch := range golden {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "record-v1-"+name+".bin")
			raw := appendRecord(nil, batch)
			if _, err := os.Stat(path); *update && err != nil {
				if err := os.WriteFile(path, s2.Encode(nil, raw), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			packed, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			kept, err := s2.Decode(nil, packed)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(kept, raw) {
				t.Errorf("the record is written differently now:\n%q\nwas\n%q", raw, kept)
			}
			var read logs.Batch
			if err := parseRecord(&read, kept); err != nil {
				t.Fatal(err)
			}
			requireEqual(t, &read, batch)
		})
	}
}

// The hand-written encoder and parser agree with the generated code, on anything.
func TestRecordAgreesWithProtobuf(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		batch := randomBatch(random)
		raw := appendRecord(nil, batch)
		var message logthrav1.Record
		if err := proto.Unmarshal(raw, &message); err != nil {
			t.Fatal(err)
		}
		if len(message.ProtoReflect().GetUnknown()) > 0 {
			t.Fatal("the record has fields that the contract lacks")
		}
		if again, err := (proto.MarshalOptions{Deterministic: true}).Marshal(&message); err != nil || !bytes.Equal(withoutEmpty(raw), again) {
			t.Fatalf("protobuf writes it differently: %v\n%q\n%q", err, raw, again)
		}
		var read logs.Batch
		if err := parseRecord(&read, raw); err != nil {
			t.Fatal(err)
		}
		requireEqual(t, &read, batch)
	}
}

// withoutEmpty drops fields of no bytes, which protobuf leaves out, from a record and its metadata.
func withoutEmpty(raw []byte) (out []byte) {
	_ = fields(raw, func(field protowire.Number, value []byte) error {
		if field == fieldMetadata {
			value = withoutEmpty(value)
		}
		if len(value) > 0 || field == fieldStreamLabels || field == fieldMetadata {
			out = protowire.AppendTag(out, field, protowire.BytesType)
			out = protowire.AppendBytes(out, value)
		}
		return nil
	})
	return out
}

func randomBatch(random *rand.Rand) *logs.Batch {
	b := new(logs.Batch)
	for range 1 + random.IntN(5) {
		b.AddStream(fmt.Sprintf(`{"app":"%d"}`, random.IntN(3)))
		for range random.IntN(40) {
			for range random.IntN(200) {
				b.Lines = append(b.Lines, byte(random.Uint32()))
			}
			b.EndEntry(random.Int64N(logs.MaxTime), true)
			for range random.IntN(3) {
				b.AddMetadata([]byte{byte('a' + random.IntN(4))}, bytes.Repeat([]byte{'v'}, random.IntN(4)))
			}
		}
	}
	return b
}

// requireEqual compares what of a batch a record holds.
func requireEqual(t *testing.T, got, want *logs.Batch) {
	t.Helper()
	if !slices.Equal(got.Streams, want.Streams) || !slices.Equal(got.Timestamps, want.Timestamps) ||
		!slices.Equal(got.Lengths, want.Lengths) || !bytes.Equal(got.Lines, want.Lines) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	if len(got.Metadata) != len(want.Metadata) {
		t.Fatalf("got %d metadata columns, want %d", len(got.Metadata), len(want.Metadata))
	}
	for i, c := range got.Metadata {
		w := want.Metadata[i]
		if c.Name != w.Name || !slices.Equal(c.Entries, w.Entries) || !slices.Equal(c.Lengths, w.Lengths) || !bytes.Equal(c.Values, w.Values) {
			t.Fatalf("metadata %d: got %+v, want %+v", i, c, w)
		}
	}
}

func TestParseRecordRefuses(t *testing.T) {
	good := func() *logthrav1.Record {
		return &logthrav1.Record{
			StreamLabels: []string{"{}"}, StreamEntries: []uint32{2}, Timestamps: []int64{1, 2},
			LineLengths: []uint32{1, 2}, Lines: []byte("abb"),
			Metadata: []*logthrav1.MetadataColumn{{Name: []byte("n"), Entries: []uint32{0, 1}, ValueLengths: []uint32{1, 1}, Values: []byte("vw")}},
		}
	}
	for name, spoil := range map[string]func(*logthrav1.Record){
		"a count too few":               func(r *logthrav1.Record) { r.StreamEntries = nil },
		"a count too many":              func(r *logthrav1.Record) { r.StreamEntries = []uint32{1, 1} },
		"a count too high":              func(r *logthrav1.Record) { r.StreamEntries[0] = 3 },
		"a count beyond reason":         func(r *logthrav1.Record) { r.StreamEntries[0] = 1 << 31 },
		"a timestamp too few":           func(r *logthrav1.Record) { r.Timestamps = r.Timestamps[1:] },
		"a timestamp out of range":      func(r *logthrav1.Record) { r.Timestamps[0] = logs.MinTime - 1 },
		"a length too few":              func(r *logthrav1.Record) { r.LineLengths = r.LineLengths[1:] },
		"lengths beyond the lines":      func(r *logthrav1.Record) { r.LineLengths[0] = 1 << 31 },
		"lines beyond the lengths":      func(r *logthrav1.Record) { r.Lines = append(r.Lines, 'c') },
		"metadata of no entry":          func(r *logthrav1.Record) { r.Metadata[0].Entries[1] = 2 },
		"metadata not ascending":        func(r *logthrav1.Record) { r.Metadata[0].Entries = []uint32{1, 0} },
		"metadata lengths too few":      func(r *logthrav1.Record) { r.Metadata[0].ValueLengths = []uint32{2} },
		"metadata values beyond length": func(r *logthrav1.Record) { r.Metadata[0].Values = []byte("v") },
	} {
		t.Run(name, func(t *testing.T) {
			record := good()
			spoil(record)
			raw, err := proto.Marshal(record)
			if err != nil {
				t.Fatal(err)
			}
			if err := parseRecord(new(logs.Batch), raw); err == nil {
				t.Error("it was taken")
			}
		})
	}
	raw, err := proto.Marshal(good())
	if err != nil {
		t.Fatal(err)
	}
	var b logs.Batch
	if err := parseRecord(&b, raw); err != nil {
		t.Fatal("the good one:", err)
	}
	// Fields of a later program are passed over.
	raw = protowire.AppendTag(raw, 99, protowire.VarintType)
	raw = protowire.AppendVarint(raw, 7)
	if err := parseRecord(&b, raw); err != nil || b.Len() != 2 {
		t.Error("a record with an unknown field:", err)
	}
	for cut := range raw {
		var b logs.Batch
		if err := parseRecord(&b, raw[:cut]); err == nil && b.Len() == 2 && len(b.Metadata) == 1 && cut < len(raw)-3 {
			t.Errorf("cut to %d of %d bytes it was taken whole", cut, len(raw))
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, batch := range golden {
		f.Add(appendRecord(nil, batch))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b logs.Batch
		if parseRecord(&b, raw) != nil {
			return
		}
		var again logs.Batch
		if err := parseRecord(&again, appendRecord(nil, &b)); err != nil {
			t.Fatal("what was read can't be written and read again:", err)
		}
		requireEqual(t, &again, &b)
	})
}

// lines2000 is a batch as shippers send it: 2,000 lines of about 150 bytes in four streams.
func lines2000() *logs.Batch {
	random := rand.New(rand.NewPCG(3, 4))
	b := new(logs.Batch)
	for s := range 4 {
		b.AddStream(fmt.Sprintf(`{"app":"api-%d","env":"prod","level":"info"}`, s))
		for i := range 500 {
			b.Lines = fmt.Appendf(b.Lines, `level=info ts=2026-01-02T03:04:05.%09dZ caller=handler.go:%d msg="request served" method=GET path=/api/v1/items/%d status=200 duration=%dus id=%016x`,
				i, random.IntN(500), random.IntN(100000), random.IntN(90000), random.Uint64())
			b.EndEntry(1767323045000000000+int64(i)*1000003, true)
		}
	}
	return b
}

func BenchmarkRecord(b *testing.B) {
	batch := lines2000()
	raw := appendRecord(nil, batch)
	packed := s2.Encode(nil, raw)
	perLine := func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(batch.Lines)))
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch.Len()), "ns/line")
	}
	b.Run("encode", func(b *testing.B) {
		buffer, out := make([]byte, 0, len(raw)), make([]byte, s2.MaxEncodedLen(len(raw)))
		for b.Loop() {
			buffer = appendRecord(buffer[:0], batch)
			s2.Encode(out, buffer)
		}
		perLine(b)
	})
	b.Run("decode", func(b *testing.B) {
		var read logs.Batch
		scratch := make([]byte, len(raw))
		for b.Loop() {
			data, err := s2.Decode(scratch, packed)
			if err != nil {
				b.Fatal(err)
			}
			if err := parseRecord(&read, data); err != nil {
				b.Fatal(err)
			}
		}
		perLine(b)
	})
}

// What a record costs in allocations does not grow with its lines.
func TestAllocationsOfARecord(t *testing.T) {
	batch := lines2000()
	packed := s2.Encode(nil, appendRecord(nil, batch))
	record := Record{header: nats.Header{headerVersion: {version1}, headerEncoding: {encodingS2}}, data: packed}
	var read logs.Batch
	var scratch []byte
	for name, do := range map[string]func() error{
		"encode": func() error {
			_, err := Encode(batch)
			return err
		},
		"decode": func() (err error) {
			scratch, err = record.Decode(&read, scratch)
			return err
		},
	} {
		if got := testing.AllocsPerRun(20, func() {
			if err := do(); err != nil {
				t.Fatal(err)
			}
		}); got > 20 {
			t.Errorf("%s: %.0f allocations for %d lines", name, got, batch.Len())
		}
	}
}
