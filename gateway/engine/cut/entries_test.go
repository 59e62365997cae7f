package cut

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
)

func response() *logthrav1.UnflushedResponse {
	return &logthrav1.UnflushedResponse{
		Shard: 3, StreamLabels: []string{`{"a":"b"}`, `{"a":"c"}`}, RunStreams: []uint32{1, 0}, RunEntries: []uint32{1, 2}, RunSequences: []uint64{7, 8},
		Indexes: []uint32{4, 0, 2}, Timestamps: []int64{10, 20, 30}, LineLengths: []uint32{3, 0, 5}, Lines: []byte("onethree"),
		Metadata: []*logthrav1.MetadataColumn{
			{Name: []byte("z"), Entries: []uint32{0, 2, 2}, ValueLengths: []uint32{2, 1, 1}, Values: []byte("z0zy")},
			{Name: []byte("m"), Entries: []uint32{2}, ValueLengths: []uint32{2}, Values: []byte("m2")},
		},
	}
}

func TestFill(t *testing.T) {
	r := response()
	if err := check(r); err != nil {
		t.Fatal(err)
	}
	got := make([]Entry, 3)
	fill(got, r, map[string]string{})
	want := []Entry{
		{Labels: `{"a":"c"}`, Timestamp: 10, Line: []byte("one"), Length: 3, Metadata: []logs.Label{{Name: "z", Value: "z0"}}, Shard: 3, Sequence: 7, Index: 4},
		{Labels: `{"a":"b"}`, Timestamp: 20, Line: []byte{}, Shard: 3, Sequence: 8},
		{Labels: `{"a":"b"}`, Timestamp: 30, Line: []byte("three"), Length: 5, Metadata: []logs.Label{{Name: "m", Value: "m2"}, {Name: "z", Value: "z"}}, Shard: 3, Sequence: 8, Index: 2},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	if n := size(r); n != 3*entryBytes+8+4*pairBytes+6 {
		t.Errorf("%d bytes", n)
	}
	r.Lines, got = nil, make([]Entry, 3)
	fill(got, r, map[string]string{})
	for i, e := range got {
		if e.Line != nil || e.Length != want[i].Length {
			t.Errorf("without lines entry %d is %+v", i, e)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, spoil := range map[string]func(*logthrav1.UnflushedResponse){
		"an entry less":           func(r *logthrav1.UnflushedResponse) { r.Indexes = r.Indexes[:2] },
		"a time less":             func(r *logthrav1.UnflushedResponse) { r.Timestamps = r.Timestamps[:2] },
		"a length less":           func(r *logthrav1.UnflushedResponse) { r.LineLengths = r.LineLengths[:2] },
		"a longer line":           func(r *logthrav1.UnflushedResponse) { r.LineLengths[0]++ },
		"a longer run":            func(r *logthrav1.UnflushedResponse) { r.RunEntries[0]++ },
		"a run without a stream":  func(r *logthrav1.UnflushedResponse) { r.RunStreams = r.RunStreams[:1] },
		"a run without a record":  func(r *logthrav1.UnflushedResponse) { r.RunSequences = r.RunSequences[:1] },
		"a stream that is none":   func(r *logthrav1.UnflushedResponse) { r.RunStreams[1] = 2 },
		"a value less":            func(r *logthrav1.UnflushedResponse) { r.Metadata[0].ValueLengths = r.Metadata[0].ValueLengths[:2] },
		"a longer value":          func(r *logthrav1.UnflushedResponse) { r.Metadata[0].ValueLengths[0]++ },
		"metadata of no entry":    func(r *logthrav1.UnflushedResponse) { r.Metadata[1].Entries[0] = 3 },
		"entries without columns": func(r *logthrav1.UnflushedResponse) { *r = logthrav1.UnflushedResponse{Indexes: []uint32{1}} },
	} {
		r := response()
		spoil(r)
		if check(r) == nil {
			t.Errorf("%s is not noticed", name)
		}
	}
}

// What an ingester answers, whatever it is, is refused or read.
func FuzzResponse(f *testing.F) {
	for _, r := range []*logthrav1.UnflushedResponse{response(), {}, {End: &logthrav1.UnflushedEnd{Landed: 1}}} {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r logthrav1.UnflushedResponse
		if proto.Unmarshal(data, &r) != nil || check(&r) != nil {
			return
		}
		entries := make([]Entry, len(r.GetIndexes()))
		fill(entries, &r, map[string]string{})
		bytes := 0
		for _, e := range entries {
			bytes += len(e.Line)
		}
		if bytes != len(r.GetLines()) {
			t.Errorf("%d bytes of lines of %d", bytes, len(r.GetLines()))
		}
	})
}

func BenchmarkFill(b *testing.B) {
	const n = 10_000
	r := &logthrav1.UnflushedResponse{StreamLabels: []string{`{"a":"b"}`}}
	column := &logthrav1.MetadataColumn{Name: []byte("trace")}
	for i := range uint32(n) {
		if i%100 == 0 {
			r.RunStreams, r.RunEntries, r.RunSequences = append(r.RunStreams, 0), append(r.RunEntries, 100), append(r.RunSequences, uint64(i))
		}
		r.Indexes, r.Timestamps, r.LineLengths = append(r.Indexes, i%100), append(r.Timestamps, int64(i)), append(r.LineLengths, 100)
		r.Lines = append(r.Lines, make([]byte, 100)...)
		column.Entries, column.ValueLengths, column.Values = append(column.Entries, i), append(column.ValueLengths, 16), append(column.Values, make([]byte, 16)...)
	}
	for name, metadata := range map[string][]*logthrav1.MetadataColumn{"lines": nil, "metadata": {column}} {
		b.Run(name, func(b *testing.B) {
			r.Metadata = metadata
			entries := make([]Entry, n)
			for b.Loop() {
				if err := check(r); err != nil {
					b.Fatal(err)
				}
				fill(entries, r, map[string]string{})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
		})
	}
}
