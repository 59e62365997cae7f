package store

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/casteloig/logthra/shared/logs"
)

// Batch is what one insert carries: the entries of some records of one shard, in their order. It keeps the records as
// they are in the WAL, compressed, and decodes them whenever their rows are needed: lines take several times that room. The
// zero value is an empty batch. It is not safe for concurrent use.
type Batch struct {
	Shard  uint16 // of the WAL
	Target uint32 // the shard of the cluster that the rows go to, 0: that of Store.Target

	records          []record
	rows             int
	lineBytes        int
	size             int    // bytes of memory
	width            int    // bytes of the rows, decoded
	earliest, latest int64  // timestamps
	marks            []mark // of the first rows; those beyond have none
	marked           int    // rows that have a mark
}

// Source is a record of the WAL that can be decoded, as often as it takes: a *wal.Record.
type Source interface {
	// Decode reads the record into a batch, which points into scratch; scratch is returned, grown if it was too small.
	Decode(into *logs.Batch, scratch []byte) ([]byte, error)
	// Size is the number of bytes that the record takes.
	Size() int
}

// record is a run of rows that came from one record of the WAL.
type record struct {
	Source

	sequence uint64
	tenant   string
	first    int // index of the first row
	rows     int
}

// mark says why a row is not to be inserted. The zero value: it is.
type mark uint8

const (
	held    mark = 1 << iota // the table holds it
	expired                  // retention has removed it, or would at once
)

// recordBytes is what a record takes beside its own bytes, entryBytes what an entry becomes beside its line, and pairBytes
// a value of metadata beside its bytes.
const (
	recordBytes = 256
	entryBytes  = 40
	pairBytes   = 16
)

// Rows is the number of rows, those that are marked included.
func (b *Batch) Rows() int { return b.rows }

// LineBytes is the number of bytes of all lines.
func (b *Batch) LineBytes() int { return b.lineBytes }

// Size is about how many bytes of memory the batch takes.
func (b *Batch) Size() int { return b.size }

// Width is about how many bytes the rows are in an insert.
func (b *Batch) Width() int { return b.width }

// SizeOf is by how many bytes a record makes a batch grow.
func SizeOf(s Source) int { return s.Size() + recordBytes }

// widthOf is Width of a record.
func widthOf(r *logs.Batch) int {
	width := entryBytes*r.Len() + len(r.Lines)
	for i := range r.Metadata {
		width += (pairBytes+len(r.Metadata[i].Name))*len(r.Metadata[i].Entries) + len(r.Metadata[i].Values)
	}
	return width
}

// Reset empties the batch and keeps its memory for the next one.
func (b *Batch) Reset() {
	clear(b.records)
	*b = Batch{Shard: b.Shard, records: b.records[:0], marks: b.marks[:0]}
}

// Add appends the entries of a record; sequences ascend. r is what source decodes to, and is not kept.
func (b *Batch) Add(sequence uint64, tenant string, r *logs.Batch, source Source) {
	if len(b.records) == 0 {
		b.earliest, b.latest = logs.MaxTime, logs.MinTime
	}
	b.records = append(b.records, record{source, sequence, tenant, b.rows, r.Len()})
	b.rows += r.Len()
	b.lineBytes += len(r.Lines)
	b.size += SizeOf(source)
	b.width += widthOf(r)
	for _, timestamp := range r.Timestamps {
		b.earliest, b.latest = min(b.earliest, timestamp), max(b.latest, timestamp)
	}
}

// decoder decodes the records of a batch, one after the other.
type decoder struct {
	logs.Batch // the record; good until the next one

	scratch []byte // what it points into
}

// maxPooled is the largest scratch, in bytes, that is kept for the next batch.
const maxPooled = 4 << 20

var decoders = sync.Pool{New: func() any { return new(decoder) }}

func (d *decoder) release() {
	d.Reset()
	if cap(d.scratch) > maxPooled {
		d.scratch = nil
	}
	decoders.Put(d)
}

// decode decodes a record. One without rows may be one that can't be decoded: it is a dead letter.
func (d *decoder) decode(r *record) (err error) {
	if r.rows == 0 {
		d.Reset()
		return nil
	}
	if d.scratch, err = r.Decode(&d.Batch, d.scratch); err != nil {
		return fmt.Errorf("record %d, which could be decoded before: %w", r.sequence, err)
	}
	if d.Len() != r.rows {
		return fmt.Errorf("record %d has %d entries, and had %d before", r.sequence, d.Len(), r.rows)
	}
	return nil
}

// each decodes all records and calls do with each.
func (b *Batch) each(do func(r *record, decoded *logs.Batch)) error {
	d := decoders.Get().(*decoder)
	defer d.release()
	for i := range b.records {
		if err := d.decode(&b.records[i]); err != nil {
			return err
		}
		do(&b.records[i], &d.Batch)
	}
	return nil
}

// SkipBefore marks the rows whose timestamp is before t, in unix nanoseconds, as not to be inserted: retention
// has removed them, or would at once. It returns how many rows it marked that no earlier call had. The marks
// last until Reset.
func (b *Batch) SkipBefore(t int64) (n int, err error) {
	if b.earliest >= t {
		return 0, nil
	}
	err = b.each(func(r *record, decoded *logs.Batch) {
		for i, timestamp := range decoded.Timestamps {
			if timestamp < t && b.mark(r.first+i, expired) {
				n++
			}
		}
	})
	return n, err
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
