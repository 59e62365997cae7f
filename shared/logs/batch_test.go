package logs

import (
	"fmt"
	"reflect"
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
