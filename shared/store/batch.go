package store

import (
	"cmp"
	"slices"

	"github.com/casteloig/logthra/shared/logs"
)

// Batch is what one insert carries: the entries of some records of one shard, in their order. It keeps the records as
// they are in the WAL, compressed, and decodes them again for their lines, which take several times that room. The zero value is
// an empty batch. It is not safe for concurrent use.
type Batch struct {
	Shard  uint16 // of the WAL
	Target uint32 // the shard of the cluster that the rows go to, 0: that of Store.Target

	records    []record
	streams    []stream // each once
	known      map[streamKey]int32
	runs       []run
	timestamps []int64
	metadata   bool // a row has some
	lineBytes  int
	size       int    // bytes of memory
	width      int    // bytes of the rows, decoded
	marks      []mark // of the first rows; those beyond have none
	marked     int    // rows that have a mark
}

// Source is a record of the WAL that can be decoded, as often as it takes: a *wal.Record.
type Source interface {
	// Decode reads the record into a batch, which points into scratch; scratch is returned, grown if it was too small.
	Decode(into *logs.Batch, scratch []byte) ([]byte, error)
	// Size is the number of bytes that the record takes.
	Size() int
}

// record is the rows that came from one record of the WAL.
type record struct {
	Source

	sequence uint64
	first    int // index of the first row
	rows     int
}

type streamKey struct{ tenant, labels string }

type stream struct {
	streamKey

	id uint64
}

// run is rows of one record that follow one another and are of one stream, by their indexes in the batch.
type run struct{ record, stream, rows int32 }

// mark says why a row is not to be inserted. The zero value: it is.
type mark uint8

const (
	held    mark = 1 << iota // the table holds it
	expired                  // retention has removed it, or would at once
)

// recordBytes is what a record takes beside its own bytes, and entryBytes and runBytes what an entry and a run do. insertBytes is what
// an entry becomes in an insert beside its line, and pairBytes a value of metadata beside its bytes.
const (
	recordBytes = 256
	entryBytes  = 8
	runBytes    = 16
	insertBytes = 44
	pairBytes   = 16
)

// Rows is the number of rows, those that are marked included.
func (b *Batch) Rows() int { return len(b.timestamps) }

// LineBytes is the number of bytes of all lines.
func (b *Batch) LineBytes() int { return b.lineBytes }

// Size is about how many bytes of memory the batch takes.
func (b *Batch) Size() int { return b.size }

// Width is about how many bytes the rows are in an insert.
func (b *Batch) Width() int { return b.width }

// SizeOf is by how many bytes a record makes a batch grow. r is what it decodes to.
func SizeOf(r *logs.Batch, s Source) int {
	return s.Size() + recordBytes + entryBytes*r.Len() + runBytes*len(r.Streams)
}

// widthOf is Width of a record.
func widthOf(r *logs.Batch) int {
	width := insertBytes*r.Len() + len(r.Lines)
	for i := range r.Metadata {
		width += (pairBytes+len(r.Metadata[i].Name))*len(r.Metadata[i].Entries) + len(r.Metadata[i].Values)
	}
	return width
}

// Reset empties the batch and keeps its memory for the next one.
func (b *Batch) Reset() {
	clear(b.records)
	clear(b.streams)
	clear(b.known)
	*b = Batch{
		Shard: b.Shard, records: b.records[:0], streams: b.streams[:0], known: b.known, runs: b.runs[:0],
		timestamps: b.timestamps[:0], marks: b.marks[:0],
	}
}

// Add appends the entries of a record; sequences ascend. r is what source decodes to, of which only labels are kept.
func (b *Batch) Add(sequence uint64, tenant string, r *logs.Batch, source Source) {
	b.records = append(b.records, record{source, sequence, b.Rows(), r.Len()})
	for _, s := range r.Streams {
		b.runs = append(b.runs, run{int32(len(b.records) - 1), b.stream(tenant, s.Labels), int32(s.Entries)})
	}
	b.timestamps = append(b.timestamps, r.Timestamps...)
	b.metadata = b.metadata || len(r.Metadata) > 0
	b.lineBytes += len(r.Lines)
	b.size += SizeOf(r, source)
	b.width += widthOf(r)
}

// stream is the index of a stream.
func (b *Batch) stream(tenant, labels string) int32 {
	key := streamKey{tenant, labels}
	at, ok := b.known[key]
	if !ok {
		if b.known == nil {
			b.known = map[streamKey]int32{}
		}
		at = int32(len(b.streams))
		b.streams = append(b.streams, stream{key, logs.StreamID(tenant, labels)})
		b.known[key] = at
	}
	return at
}

// span is rows of one run that follow one another and are to be inserted.
type span struct {
	record *record
	stream int32
	row    int // index of the first
	rows   int
}

// spans yields all rows that have no mark.
func (b *Batch) spans(yield func(span) bool) {
	row := 0
	for _, r := range b.runs {
		s := span{record: &b.records[r.record], stream: r.stream, row: row}
		for end := row + int(r.rows); row < end; {
			if b.marked == 0 {
				row = end
			} else if !b.has(row, held|expired) {
				row++
				if row < end {
					continue
				}
			}
			if s.rows = row - s.row; s.rows > 0 && !yield(s) {
				return
			}
			for row < end && b.has(row, held|expired) {
				row++
			}
			s.row = row
		}
	}
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

// period returns the earliest and the latest timestamp of the rows that have no mark; there must be one.
func (b *Batch) period() (earliest, latest int64) {
	earliest, latest = logs.MaxTime, logs.MinTime
	for s := range b.spans {
		for _, timestamp := range b.timestamps[s.row : s.row+s.rows] {
			earliest, latest = min(earliest, timestamp), max(latest, timestamp)
		}
	}
	return earliest, latest
}
