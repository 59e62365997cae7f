package logs

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// fill writes three streams with what an entry can have.
func fill(b *Batch) {
	b.AddStream(`{"app":"api"}`)
	b.Lines = append(b.Lines, "one"...)
	b.EndEntry(1, true)
	b.AddMetadata([]byte("k"), []byte("v1"))
	b.AddMetadata([]byte("k"), []byte(""))
	b.EndEntry(2, true) // an empty line
	b.AddMetadata([]byte("k2"), []byte("x"))
	b.AddStream(`{"app":"none"}`)
	b.AddStream(`{"app":"db"}`)
	b.Lines = append(b.Lines, "th"...)
	b.Lines = append(b.Lines, "ree"...)
	b.EndEntry(3, true)
	b.AddMetadata([]byte("k"), []byte("v3"))
}

func checkFilled(t *testing.T, b *Batch) {
	t.Helper()
	for _, c := range []struct{ got, want any }{
		{b.Streams, []Stream{{`{"app":"api"}`, 2}, {`{"app":"none"}`, 0}, {`{"app":"db"}`, 1}}},
		{b.Timestamps, []int64{1, 2, 3}},
		{b.Lengths, []uint32{3, 0, 5}},
		{string(b.Lines), "onethree"},
		{b.Metadata, []Column{
			{Name: "k", Entries: []uint32{0, 0, 2}, Lengths: []uint32{2, 0, 2}, Values: []byte("v1v3")},
			{Name: "k2", Entries: []uint32{1}, Lengths: []uint32{1}, Values: []byte("x")},
		}},
		{b.Len(), 3},
		{b.Pending(), 0},
		{b.Coarse, false},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("\n got %v\nwant %v", c.got, c.want)
		}
	}
}

func TestBatch(t *testing.T) {
	var b Batch
	if b.Len() != 0 || b.Pending() != 0 {
		t.Error("the zero value is not empty")
	}
	fill(&b)
	checkFilled(t, &b)
	b.Lines = append(b.Lines, "half"...)
	if b.Pending() != 4 {
		t.Errorf("%d bytes pending", b.Pending())
	}
}

func TestBatchReset(t *testing.T) {
	var b Batch
	for range 3 {
		fill(&b)
		checkFilled(t, &b)
		b.EndEntry(1e9, true) // coarse
		b.AddMetadata([]byte("k3"), []byte("x"))
		b.Lines = append(b.Lines, "an entry that never ended"...)
		b.Reset()
		if b.Len() != 0 || b.Pending() != 0 || b.Coarse || len(b.Streams)+len(b.Lines)+len(b.Lengths)+len(b.Metadata) != 0 {
			t.Fatalf("not empty: %+v", b)
		}
	}
}

func TestBatchCoarse(t *testing.T) {
	for _, c := range []struct {
		ts   int64
		own  bool
		want bool
	}{
		{1, true, false},
		{-1, true, false},
		{1_700_000_000_000_000_001, true, false},
		{1_700_000_000_001_000_000, true, false},
		{1_700_000_000_000_000_001, false, true},
		{1_700_000_000_000_000_000, true, true},
		{-1_000_000_000, true, true},
		{0, true, true},
	} {
		var b Batch
		b.AddStream(`{"a":"b"}`)
		b.EndEntry(c.ts, c.own)
		b.EndEntry(1, true) // one coarse entry is enough
		if b.Coarse != c.want {
			t.Errorf("%d, %v: %v", c.ts, c.own, b.Coarse)
		}
	}
}

func TestBatchDoesNotAllocateOnceGrown(t *testing.T) {
	var b Batch
	got := testing.AllocsPerRun(10, func() {
		b.Reset()
		b.AddStream(`{"a":"b"}`)
		for range 1000 {
			b.Lines = append(b.Lines, "a line"...)
			b.EndEntry(1, true)
		}
	})
	if got > 0 {
		t.Errorf("%.0f allocations", got)
	}
}

func TestBatchManyMetadataNames(t *testing.T) {
	var b Batch
	b.AddStream(`{"a":"b"}`)
	for i := range 1000 {
		b.EndEntry(1, true)
		b.AddMetadata(fmt.Appendf(nil, "n%d", i%100), []byte("v"))
	}
	if len(b.Metadata) != 100 {
		t.Fatalf("%d names", len(b.Metadata))
	}
	for i, c := range b.Metadata {
		if c.Name != fmt.Sprintf("n%d", i) || len(c.Entries) != 10 || c.Entries[9] != uint32(900+i) {
			t.Errorf("%d: %s, %v", i, c.Name, c.Entries)
		}
	}
}

// one is an entry, before it is put in a batch.
type one struct {
	labels, line string
	at           int64
	metadata     [][2]string
}

func build(entries []one) *Batch {
	b := new(Batch)
	for i, e := range entries {
		if i == 0 || e.labels != entries[i-1].labels {
			b.AddStream(e.labels)
		}
		b.Lines = append(b.Lines, e.line...)
		b.EndEntry(e.at, true)
		for _, m := range e.metadata {
			b.AddMetadata([]byte(m[0]), []byte(m[1]))
		}
	}
	return b
}

// rows takes a batch apart again.
func rows(b *Batch) []one {
	var out []one
	from, entry := 0, 0
	for _, s := range b.Streams {
		for range s.Entries {
			to := from + int(b.Lengths[entry])
			out = append(out, one{s.Labels, string(b.Lines[from:to]), b.Timestamps[entry], nil})
			from = to
			entry++
		}
	}
	for _, c := range b.Metadata {
		from = 0
		for i, entry := range c.Entries {
			to := from + int(c.Lengths[i])
			out[entry].metadata = append(out[entry].metadata, [2]string{c.Name, string(c.Values[from:to])})
			from = to
		}
	}
	for _, e := range out {
		slices.SortStableFunc(e.metadata, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	}
	return out
}

func TestBatchDrop(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var all, kept []one
		var drop []uint32
		for i := range rnd.IntN(12) {
			e := one{labels: fmt.Sprintf(`{"app":"%d"}`, rnd.IntN(3)), line: strings.Repeat("x", rnd.IntN(4)), at: int64(i)}
			for name := range 3 {
				for range rnd.IntN(3) {
					e.metadata = append(e.metadata, [2]string{fmt.Sprint(name), fmt.Sprint(i, rnd.IntN(100))})
				}
			}
			all = append(all, e)
			if rnd.IntN(3) == 0 {
				drop = append(drop, uint32(i))
			} else {
				kept = append(kept, e)
			}
		}
		b := build(all)
		b.Drop(drop)
		more := one{labels: `{"app":"new"}`, line: "more", at: 99, metadata: [][2]string{{"0", "a"}, {"7", "b"}}}
		kept = append(kept, more) // what follows finds the batch as it must be
		b.AddStream(more.labels)
		b.Lines = append(b.Lines, more.line...)
		b.EndEntry(more.at, true)
		for _, m := range more.metadata {
			b.AddMetadata([]byte(m[0]), []byte(m[1]))
		}
		if got := rows(b); !reflect.DeepEqual(got, kept) {
			t.Fatalf("dropped %v of\n%v\n got %v\nwant %v", drop, all, got, kept)
		}
	}
}

func TestBatchAddMetadataTo(t *testing.T) {
	b := build([]one{
		{`{"a":"b"}`, "x", 1, [][2]string{{"k", "v1"}}},
		{`{"a":"b"}`, "y", 2, nil},
		{`{"a":"b"}`, "z", 3, [][2]string{{"k", "v3"}}},
	})
	b.AddMetadataTo(1, "k", []byte("second"))
	b.AddMetadataTo(0, "k", []byte("+"))
	b.AddMetadataTo(2, "new", []byte("n"))
	want := []one{
		{`{"a":"b"}`, "x", 1, [][2]string{{"k", "v1"}, {"k", "+"}}},
		{`{"a":"b"}`, "y", 2, [][2]string{{"k", "second"}}},
		{`{"a":"b"}`, "z", 3, [][2]string{{"k", "v3"}, {"new", "n"}}},
	}
	if got := rows(b); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
}

func TestMetadataOf(t *testing.T) {
	b := build([]one{
		{`{"a":"b"}`, "x", 1, [][2]string{{"k", "v1"}, {"b", ""}}},
		{`{"a":"b"}`, "y", 2, nil},
		{`{"a":"c"}`, "z", 3, [][2]string{{"k", "v3"}, {"k", "second"}, {"a", "w"}}},
	})
	want := [][]Label{pairs("b", "", "k", "v1"), nil, pairs("a", "w", "k", "v3")}
	if got := MetadataOf(b.Metadata, b.Len()); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
	if b.Metadata[0].Name != "k" {
		t.Error("the columns are in another order now")
	}
}
