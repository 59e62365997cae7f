package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/casteloig/logthra/shared/logs"
)

// An insert is one block of ClickHouse's native protocol: a column after the other, each with the values of all rows. The block
// is never there as a whole: columns are written as they are made, some values at a time, from what the batch has, and the lines
// from its records, which are decoded for it one by one. An empty map of metadata is written out, too, which costs ClickHouse less
// than a default that it has to make.
//
// It has to be one block: ClickHouse counts the blocks that it is sent into the deduplication ids of the parts that it makes of
// them, also where it joins them first. A repetition that leaves out what is there would be cut into blocks elsewhere, and
// so land twice what the first attempt has still on its way.
// https://clickhouse.com/docs/native-protocol/columns

// chunkBytes is about how many bytes of a column are made before they are written.
const chunkBytes = 256 << 10

// encoder writes a batch.
type encoder struct {
	batch   *Batch
	rows    int // that have no mark; 0 when they are written
	tenants words
	streams words
	abort   func() // closes the connection, so that ClickHouse does not take what it got for all
	err     error  // why it was closed

	chunk   []byte
	decoded logs.Batch
	scratch []byte // what decoded points into

	// The metadata of all rows, of which there is little in most batches.
	ends   []byte // of each row, in pairs
	names  words
	keys   []int32 // by pair, in names
	values []byte  // of each pair, with its length before it

	// The metadata of the record that is decoded: the pairs of row i end at rowEnds[i], and begin where those of the row before do.
	rowEnds  []int32
	pairs    []pair
	nameKeys []int32 // of its columns, in names; -1: not there yet
}

// pair is one name and value of an entry: the index of the name's column in the record, and the value in there.
type pair struct{ column, from, to uint32 }

// maxPooled is the largest buffer, in bytes, that is kept for the next batch.
const maxPooled = 4 << 20

var encoders = sync.Pool{New: func() any { return new(encoder) }}

func newEncoder(b *Batch) *encoder {
	e := encoders.Get().(*encoder)
	e.batch, e.rows, e.err, e.abort = b, b.Rows()-b.marked, nil, func() {}
	e.tenants.reset()
	e.streams.reset()
	for _, s := range b.streams {
		e.tenants.keys = append(e.tenants.keys, e.tenants.add(s.tenant))
		e.streams.keys = append(e.streams.keys, e.streams.add(s.labels))
	}
	e.names.reset()
	e.ends, e.keys, e.values = e.ends[:0], e.keys[:0], e.values[:0]
	return e
}

func (e *encoder) release() {
	e.decoded.Reset()
	e.batch = nil
	words := cap(e.tenants.list) + cap(e.streams.list) + cap(e.names.list)
	if cap(e.scratch)+cap(e.chunk)+cap(e.ends)+4*cap(e.keys)+cap(e.values)+wordBytes*words <= maxPooled {
		encoders.Put(e)
	}
}

// columns are those of the insert, in their order.
func (e *encoder) columns() proto.Input {
	b := e.batch
	numbers := func(width int, value func(s span, i int) uint64) func(func([]byte)) {
		return func(write func([]byte)) {
			e.each(write, func(s span) {
				for i := range s.rows {
					e.chunk = binary.LittleEndian.AppendUint64(e.chunk, value(s, i))[:len(e.chunk)+width]
				}
			})
		}
	}
	all := []column{
		{"tenant_id", "LowCardinality(String)", nil, func(write func([]byte)) { e.tenants.write(e, write) }},
		{"stream_id", "UInt64", nil, numbers(8, func(s span, _ int) uint64 { return b.streams[s.stream].id })},
		{"timestamp", "DateTime64(9, 'UTC')", nil, numbers(8, func(s span, i int) uint64 { return uint64(b.timestamps[s.row+i]) })},
		{"stream", "LowCardinality(String)", nil, func(write func([]byte)) { e.streams.write(e, write) }},
		{"msg", "String", nil, e.lines},
		{"wal_shard", "UInt16", nil, numbers(2, func(span, int) uint64 { return uint64(b.Shard) })},
		{"wal_seq", "UInt64", nil, numbers(8, func(s span, _ int) uint64 { return s.record.sequence })},
		{"wal_index", "UInt32", nil, numbers(4, func(s span, i int) uint64 { return uint64(s.row - s.record.first + i) })},
		{"metadata", "Map(LowCardinality(String), String)", nil, e.metadata},
	}
	input := make(proto.Input, len(all))
	for i := range all {
		all[i].encoder = e
		input[i] = proto.InputColumn{Name: all[i].name, Data: &all[i]}
	}
	return input
}

// next is called when a block was written, and ends the insert: in good order if all went well.
func (e *encoder) next() error {
	e.rows = 0
	if e.err != nil {
		return e.err
	}
	return io.EOF
}

// fail makes what was written so far worth nothing.
func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
		e.abort()
	}
}

// each makes the rows that have no mark, and writes them whenever there is a chunk of them.
func (e *encoder) each(write func([]byte), appendTo func(span)) {
	e.chunk = e.chunk[:0]
	for s := range e.batch.spans {
		for s.rows > 0 && e.err == nil {
			part := s
			part.rows = min(s.rows, 1+(chunkBytes-min(len(e.chunk), chunkBytes))/8)
			appendTo(part)
			e.flush(write, chunkBytes)
			s.row, s.rows = s.row+part.rows, s.rows-part.rows
		}
	}
	e.flush(write, 1)
}

// flush writes the chunk if it has so many bytes.
func (e *encoder) flush(write func([]byte), least int) {
	if len(e.chunk) >= least {
		write(e.chunk)
		e.chunk = e.chunk[:0]
	}
}

// lines writes the lines, and gathers the metadata.
func (e *encoder) lines(write func([]byte)) {
	e.chunk = e.chunk[:0]
	var of *record
	row, line := 0, 0 // of the record: the next row, and where its line begins
	for s := range e.batch.spans {
		if s.record != of {
			of, row, line = s.record, 0, 0
			if err := e.decode(of); err != nil {
				e.fail(err)
				return
			}
		}
		first := s.row - of.first
		for ; row < first; row++ {
			line += int(e.decoded.Lengths[row])
		}
		for _, n := range e.decoded.Lengths[first : first+s.rows] {
			e.chunk = append(binary.AppendUvarint(e.chunk, uint64(n)), e.decoded.Lines[line:line+int(n)]...)
			line += int(n)
			row++
			e.flush(write, chunkBytes)
		}
		if e.batch.metadata {
			e.gather(first, s.rows)
		}
		if e.err != nil {
			return
		}
	}
	e.flush(write, 1)
}

// decode decodes a record, again.
func (e *encoder) decode(r *record) (err error) {
	if e.scratch, err = r.Decode(&e.decoded, e.scratch); err != nil {
		return fmt.Errorf("record %d, which could be decoded before: %w", r.sequence, err)
	}
	if e.decoded.Len() != r.rows {
		return fmt.Errorf("record %d has %d entries, and had %d before", r.sequence, e.decoded.Len(), r.rows)
	}
	if e.rowEnds = e.rowEnds[:0]; len(e.decoded.Metadata) > 0 {
		e.pair()
	}
	return nil
}

// pair turns the record's metadata, a column a name, into pairs row by row, in one pass for counting and one for placing them.
func (e *encoder) pair() {
	columns := e.decoded.Metadata
	e.rowEnds = append(e.rowEnds, make([]int32, e.decoded.Len())...)
	total := 0
	for i := range columns {
		for _, entry := range columns[i].Entries {
			e.rowEnds[entry]++
		}
		total += len(columns[i].Entries)
	}
	at := int32(0)
	for row, n := range e.rowEnds { // where the row begins, for now; placing its pairs moves that to where it ends
		e.rowEnds[row] = at
		at += n
	}
	e.pairs, e.nameKeys = slices.Grow(e.pairs[:0], total)[:total], e.nameKeys[:0]
	for i := range columns {
		from := uint32(0)
		for j, entry := range columns[i].Entries {
			to := from + columns[i].Lengths[j]
			e.pairs[e.rowEnds[entry]] = pair{uint32(i), from, to}
			e.rowEnds[entry]++
			from = to
		}
		e.nameKeys = append(e.nameKeys, -1)
	}
}

// gather keeps the metadata of rows of the record.
func (e *encoder) gather(first, rows int) {
	if len(e.rowEnds) == 0 {
		for range rows {
			e.ends = binary.LittleEndian.AppendUint64(e.ends, uint64(len(e.keys)))
		}
		return
	}
	from := int32(0)
	if first > 0 {
		from = e.rowEnds[first-1]
	}
	for _, to := range e.rowEnds[first : first+rows] {
		for _, p := range e.pairs[from:to] {
			column := &e.decoded.Metadata[p.column]
			if e.nameKeys[p.column] < 0 {
				e.nameKeys[p.column] = e.names.add(column.Name)
			}
			e.keys = append(e.keys, e.nameKeys[p.column])
			e.values = append(binary.AppendUvarint(e.values, uint64(p.to-p.from)), column.Values[p.from:p.to]...)
		}
		e.ends = binary.LittleEndian.AppendUint64(e.ends, uint64(len(e.keys)))
		from = to
	}
}

// metadata writes the metadata that lines has gathered.
func (e *encoder) metadata(write func([]byte)) {
	if !e.batch.metadata {
		clear(e.chunk[:cap(e.chunk)])
		for left := 8 * e.rows; left > 0 && e.err == nil; { // where each row's pairs end
			e.chunk = e.chunk[:min(left, cap(e.chunk))]
			left -= len(e.chunk)
			write(e.chunk)
		}
		return
	}
	write(e.ends)
	if len(e.keys) == 0 {
		return
	}
	write(e.names.head(nil, len(e.keys)))
	e.chunk = e.chunk[:0]
	for _, key := range e.keys {
		e.chunk = binary.LittleEndian.AppendUint32(e.chunk, uint32(key))
		e.flush(write, chunkBytes)
	}
	e.flush(write, 1)
	write(e.values)
}

// wordBytes is about what a word takes beside its own bytes.
const wordBytes = 64

// words are the dictionary of a LowCardinality(String).
type words struct {
	list  []string
	known map[string]int32
	keys  []int32 // by stream of the batch
}

func (d *words) reset() {
	clear(d.list)
	clear(d.known)
	d.list, d.keys = d.list[:0], d.keys[:0]
}

// add returns the key of a word.
func (d *words) add(word string) int32 {
	key, ok := d.known[word]
	if !ok {
		if d.known == nil {
			d.known = map[string]int32{}
		}
		key = int32(len(d.list))
		d.list = append(d.list, word)
		d.known[word] = key
	}
	return key
}

// What begins the state and the column of a LowCardinality: its version; keys of 4 bytes, with a dictionary of their own.
// https://github.com/ClickHouse/ClickHouse/blob/master/src/DataTypes/Serializations/SerializationLowCardinality.cpp
const (
	dictionaryVersion = 1
	dictionaryKeys    = 2 | 1<<9 | 1<<10
)

// head appends what comes before the keys of so many rows: the words.
func (d *words) head(dst []byte, rows int) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, dictionaryKeys)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(d.list)))
	for _, word := range d.list {
		dst = append(binary.AppendUvarint(dst, uint64(len(word))), word...)
	}
	return binary.LittleEndian.AppendUint64(dst, uint64(rows))
}

// write writes a column whose values follow from the streams of the rows.
func (d *words) write(e *encoder, write func([]byte)) {
	write(d.head(nil, e.rows))
	e.each(write, func(s span) {
		key := uint32(d.keys[s.stream])
		for range s.rows {
			e.chunk = binary.LittleEndian.AppendUint32(e.chunk, key)
		}
	})
}

// column is one of an insert, as ch-go takes it.
type column struct {
	name    string
	kind    proto.ColumnType
	encoder *encoder
	values  func(write func([]byte))
}

// Type is that of the column.
func (c *column) Type() proto.ColumnType { return c.kind }

// Rows is how many values there are.
func (c *column) Rows() int { return c.encoder.rows }

// Infer is told the type that the column has in the table. ClickHouse would convert what it can, and cut off what does not fit.
func (c *column) Infer(is proto.ColumnType) error {
	if is != c.kind {
		return fmt.Errorf("%w: the column %s is %s, not %s", errSchema, c.name, is, c.kind)
	}
	return nil
}

// EncodeState appends what comes before a column that has a dictionary.
func (c *column) EncodeState(b *proto.Buffer) {
	if strings.Contains(string(c.kind), "LowCardinality") {
		b.PutInt64(dictionaryVersion)
	}
}

// EncodeColumn appends the values to a buffer, to be compressed there.
func (c *column) EncodeColumn(b *proto.Buffer) { c.values(b.PutRaw) }

// WriteColumn writes the values.
func (c *column) WriteColumn(w *proto.Writer) {
	c.values(func(chunk []byte) {
		if c.encoder.err != nil {
			return
		}
		w.ChainWrite(chunk)
		if _, err := w.Flush(); err != nil {
			c.encoder.fail(err)
		}
	})
}

// query is an insert of the batch into a table.
func (e *encoder) query(table string, settings []ch.Setting) ch.Query {
	columns := e.columns()
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return ch.Query{
		Body:  "INSERT INTO " + table + " (" + strings.Join(names, ", ") + ") VALUES",
		Input: columns, Settings: settings, OnInput: func(context.Context) error { return e.next() },
	}
}
