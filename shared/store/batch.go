package store

import (
	"cmp"
	"slices"

	"github.com/casteloig/logthra/shared/logs"
)

// Batch is what one insert carries: the entries of some records of one shard, in their order, as columns.
// Values that many rows share are runs. The zero value is an empty batch. It is not safe for concurrent use.
type Batch struct {
	Shard  uint16 // of the WAL
	Target uint32 // the shard of the cluster that the rows go to, 0: that of Store.Target

	records    []record
	streams    []stream
	timestamps []int64
	lengths    []uint32
	lines      []byte
	metadata   []metadata // rows that have some, ascending
	pairs      []pair
	values     []byte // names and values of pairs, back to back
	counts     []int32
	marks      []mark // of the first rows; those beyond have none
	marked     int    // rows that have a mark
}

// record is a run of rows that came from one record of the WAL.
type record struct {
	sequence uint64
	first    int // index of the first row
	rows     int
}

// stream is a run of rows of one stream.
type stream struct {
	tenant, labels string
	id             uint64
	rows           int
}

// mark says why a row is not to be inserted. The zero value: it is.
type mark uint8

const (
	held    mark = 1 << iota // the table holds it
	expired                  // retention has removed it, or would at once
)

// metadata is one row's: pairs[from:to].
type metadata struct {
	row      int
	from, to int
}

// pair is one name and value: values[nameFrom:nameTo] and values[from:to].
type pair struct{ nameFrom, nameTo, from, to uint32 }

// Bytes that a row takes beside its line, and a stream or record beside its rows.
const (
	rowBytes  = 8 + 4
	runBytes  = 64
	pairBytes = 16
)

// Rows is the number of rows, those that are marked included.
func (b *Batch) Rows() int { return len(b.timestamps) }

// LineBytes is the number of bytes of all lines.
func (b *Batch) LineBytes() int { return len(b.lines) }

// Size is about how many bytes of memory the batch takes.
func (b *Batch) Size() int {
	return rowBytes*len(b.timestamps) + len(b.lines) + runBytes*(len(b.records)+len(b.streams)) +
		pairBytes*(len(b.pairs)+len(b.metadata)) + len(b.values)
}

// SizeOf is by how many bytes a decoded record would make a batch grow.
func SizeOf(r *logs.Batch) int {
	size := rowBytes*r.Len() + len(r.Lines) + runBytes*(1+len(r.Streams))
	for i := range r.Metadata {
		size += (2*pairBytes+len(r.Metadata[i].Name))*len(r.Metadata[i].Entries) + len(r.Metadata[i].Values)
	}
	return size
}

// Reset empties the batch and keeps its memory for the next one.
func (b *Batch) Reset() {
	clear(b.streams)
	*b = Batch{
		Shard: b.Shard, records: b.records[:0], streams: b.streams[:0], timestamps: b.timestamps[:0],
		lengths: b.lengths[:0], lines: b.lines[:0], metadata: b.metadata[:0], pairs: b.pairs[:0],
		values: b.values[:0], counts: b.counts[:0], marks: b.marks[:0],
	}
}

// Add appends the entries of a record; sequences ascend. It copies what it keeps of r, but for the labels.
func (b *Batch) Add(sequence uint64, tenant string, r *logs.Batch) {
	first := b.Rows()
	b.records = append(b.records, record{sequence, first, r.Len()})
	for _, s := range r.Streams {
		b.streams = append(b.streams, stream{tenant, s.Labels, logs.StreamID(tenant, s.Labels), s.Entries})
	}
	b.timestamps = append(b.timestamps, r.Timestamps...)
	b.lengths = append(b.lengths, r.Lengths...)
	b.lines = append(b.lines, r.Lines...)
	if len(r.Metadata) > 0 {
		b.addMetadata(first, r)
	}
}

// addMetadata turns a record's metadata, a column a name, into pairs row by row, in one pass over the values
// for counting and one for placing them.
func (b *Batch) addMetadata(first int, r *logs.Batch) {
	counts := append(b.counts[:0], make([]int32, r.Len())...)
	total := 0
	for i := range r.Metadata {
		for _, e := range r.Metadata[i].Entries {
			counts[e]++
		}
		total += len(r.Metadata[i].Entries)
	}
	at := len(b.pairs)
	for e, n := range counts {
		if n > 0 {
			b.metadata = append(b.metadata, metadata{first + e, at, at + int(n)})
		}
		counts[e] = int32(at)
		at += int(n)
	}
	b.pairs = append(b.pairs, make([]pair, total)...)
	for i := range r.Metadata {
		c := &r.Metadata[i]
		nameFrom := uint32(len(b.values))
		b.values = append(b.values, c.Name...)
		from := uint32(len(b.values))
		nameTo := from
		b.values = append(b.values, c.Values...)
		for j, e := range c.Entries {
			to := from + c.Lengths[j]
			b.pairs[counts[e]] = pair{nameFrom, nameTo, from, to}
			counts[e]++
			from = to
		}
	}
	b.counts = counts
}

// SkipBefore marks the rows whose timestamp is before t, in unix nanoseconds, as not to be inserted: retention
// has removed them, or would at once. It returns how many rows it marked that no earlier call had. The marks
// last until Reset.
func (b *Batch) SkipBefore(t int64) int {
	n := 0
	for row, timestamp := range b.timestamps {
		if timestamp < t && b.mark(row, expired) {
			n++
		}
	}
	return n
}

// mark marks a row and reports whether it did not have that mark yet.
func (b *Batch) mark(row int, m mark) bool {
	if len(b.marks) <= row {
		b.marks = append(b.marks, make([]mark, b.Rows()-len(b.marks))...)
	}
	if b.marks[row]&m != 0 {
		return false
	}
	if b.marks[row] == 0 {
		b.marked++
	}
	b.marks[row] |= m
	return true
}

// unmark takes off the marks of Reconcile.
func (b *Batch) unmark() {
	b.marked = 0
	for row := range b.marks {
		b.marks[row] &^= held
		if b.marks[row] != 0 {
			b.marked++
		}
	}
	if b.marked == 0 {
		b.marks = b.marks[:0]
	}
}

// has reports whether a row has one of these marks.
func (b *Batch) has(row int, m mark) bool { return row < len(b.marks) && b.marks[row]&m != 0 }

// find returns the row that is entry index of a record, or false when the batch has none such.
func (b *Batch) find(sequence uint64, index uint32) (int, bool) {
	i, ok := slices.BinarySearchFunc(b.records, sequence, func(r record, sequence uint64) int {
		return cmp.Compare(r.sequence, sequence)
	})
	if !ok || uint64(index) >= uint64(b.records[i].rows) {
		return 0, false
	}
	return b.records[i].first + int(index), true
}

// span returns the earliest and the latest timestamp of the rows that have no mark; there must be one.
func (b *Batch) span() (earliest, latest int64) {
	earliest, latest = logs.MaxTime, logs.MinTime
	for row, timestamp := range b.timestamps {
		if !b.has(row, held|expired) {
			earliest, latest = min(earliest, timestamp), max(latest, timestamp)
		}
	}
	return earliest, latest
}
