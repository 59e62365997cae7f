package store

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/casteloig/logthra/shared/logs"
)

// An insert is sent in blocks of at most so many rows, or about so many bytes of lines, whichever is reached first, so
// that what is decoded of a batch at a time stays small beside it. ClickHouse joins them again.
const (
	blockRows  = 16 << 10
	blockBytes = 2 << 20
)

// block is some rows of a batch, in the form that ClickHouse's native protocol has for each column: what is filled in here
// is what goes over the wire. All columns have a value for each row; also an empty map of metadata is written out, which costs
// ClickHouse less than a default that it has to make.
// https://clickhouse.com/docs/native-protocol/columns
type block struct {
	rows      int
	tenants   dictionary
	ids       values
	times     values
	streams   dictionary
	lines     values
	shards    values
	sequences values
	indexes   values
	metadata  maps
	columns   proto.Input // all of them
}

func newBlock() *block {
	k := new(block)
	column := func(name, kind string, c *values) {
		c.rows, c.kind = &k.rows, proto.ColumnType(kind)
		k.columns = append(k.columns, proto.InputColumn{Name: name, Data: c})
	}
	k.tenants.init(proto.KeyUInt16)
	k.streams.init(proto.KeyUInt16)
	k.metadata.names.init(proto.KeyUInt32)
	k.columns = append(k.columns, proto.InputColumn{Name: "tenant_id", Data: &k.tenants})
	column("stream_id", "UInt64", &k.ids)
	column("timestamp", "DateTime64(9, 'UTC')", &k.times)
	k.columns = append(k.columns, proto.InputColumn{Name: "stream", Data: &k.streams})
	column("msg", "String", &k.lines)
	column("wal_shard", "UInt16", &k.shards)
	column("wal_seq", "UInt64", &k.sequences)
	column("wal_index", "UInt32", &k.indexes)
	k.columns = append(k.columns, proto.InputColumn{Name: "metadata", Data: &k.metadata})
	return k
}

// names are the columns, as a statement lists them.
func (k *block) names() string {
	names := make([]string, len(k.columns))
	for i, c := range k.columns {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

func (k *block) reset() {
	k.rows = 0
	for _, c := range []*values{&k.ids, &k.times, &k.lines, &k.shards, &k.sequences, &k.indexes} {
		c.data = c.data[:0]
	}
	k.tenants.reset()
	k.streams.reset()
	k.metadata.reset()
}

// values is a column whose values stand one after the other: numbers of a fixed width, or strings with their lengths.
type values struct {
	kind proto.ColumnType
	rows *int
	data []byte
}

// Type is for ch-go, as are the methods that follow.
func (c *values) Type() proto.ColumnType { return c.kind }

// Infer is told the type that the column has in the table.
func (c *values) Infer(is proto.ColumnType) error { return sameType(c, is) }

// Rows is how many values there are.
func (c *values) Rows() int { return *c.rows }

// EncodeColumn appends the values to a buffer, to be compressed there.
func (c *values) EncodeColumn(b *proto.Buffer) { b.PutRaw(c.data) }

// WriteColumn writes the values as they stand here.
func (c *values) WriteColumn(w *proto.Writer) { w.ChainWrite(c.data) }

// repeat16, repeat64 and the like append a value n times.
func (c *values) repeat16(value uint16, n int) {
	at := c.grow(2 * n)
	for ; at < len(c.data); at += 2 {
		binary.LittleEndian.PutUint16(c.data[at:], value)
	}
}

func (c *values) repeat64(value uint64, n int) {
	at := c.grow(8 * n)
	for ; at < len(c.data); at += 8 {
		binary.LittleEndian.PutUint64(c.data[at:], value)
	}
}

// count32 appends n values that begin with first and go up by one.
func (c *values) count32(first uint32, n int) {
	at := c.grow(4 * n)
	for ; at < len(c.data); at += 4 {
		binary.LittleEndian.PutUint32(c.data[at:], first)
		first++
	}
}

func (c *values) append64(values []int64) {
	at := c.grow(8 * len(values))
	for _, v := range values {
		binary.LittleEndian.PutUint64(c.data[at:], uint64(v))
		at += 8
	}
}

// appendString appends a string with its length before it.
func (c *values) appendString(value []byte) {
	c.data = append(binary.AppendUvarint(c.data, uint64(len(value))), value...)
}

// grow makes room for n more bytes, and returns where they begin.
func (c *values) grow(n int) int {
	at := len(c.data)
	c.data = slices.Grow(c.data, n)[:at+n]
	return at
}

// sameType returns an error where a column has another type in the table: ClickHouse would convert what it can, and cut off what
// does not fit.
func sameType(c proto.ColInput, is proto.ColumnType) error {
	if want := c.Type(); is != want {
		return fmt.Errorf("%w: a column is %s, not %s", errSchema, is, want)
	}
	return nil
}

// dictionary is a LowCardinality(String).
type dictionary struct {
	proto.ColLowCardinalityRaw

	words proto.ColStr
	known map[string]int
}

func (d *dictionary) init(key proto.CardinalityKey) {
	d.Index, d.Key, d.known = &d.words, key, map[string]int{}
}

func (d *dictionary) reset() {
	d.ColLowCardinalityRaw.Reset()
	clear(d.known)
}

// Infer is told the type that the column has in the table.
func (d *dictionary) Infer(is proto.ColumnType) error { return sameType(d, is) }

// key is the place of a word in the dictionary.
func (d *dictionary) key(word string) int {
	key, ok := d.known[word]
	if !ok {
		key = len(d.known)
		d.known[strings.Clone(word)] = key
		d.words.Append(word)
	}
	return key
}

// repeat appends a word n times, to a dictionary of at most 64 Ki words.
func (d *dictionary) repeat(word string, n int) {
	key := uint16(d.key(word))
	at := len(d.Keys16)
	d.Keys16 = slices.Grow(d.Keys16, n)[:at+n]
	for i := range n {
		d.Keys16[at+i] = key
	}
}

// maps is a Map(LowCardinality(String), String).
type maps struct {
	ends   proto.ColUInt64 // of each row, in pairs
	names  dictionary
	values values
	pairs  int // rows of values
}

func (m *maps) reset() {
	m.ends, m.values.data, m.pairs = m.ends[:0], m.values.data[:0], 0
	m.names.reset()
}

// Type is for ch-go, as are the methods that follow.
func (m *maps) Type() proto.ColumnType { return "Map(LowCardinality(String), String)" }

// Infer is told the type that the column has in the table.
func (m *maps) Infer(is proto.ColumnType) error { return sameType(m, is) }

// Rows is how many maps there are.
func (m *maps) Rows() int { return len(m.ends) }

// EncodeState appends what comes before the column.
func (m *maps) EncodeState(b *proto.Buffer) { m.names.EncodeState(b) }

// EncodeColumn appends the maps to a buffer, to be compressed there.
func (m *maps) EncodeColumn(b *proto.Buffer) {
	m.ends.EncodeColumn(b)
	m.names.EncodeColumn(b)
	m.values.EncodeColumn(b)
}

// WriteColumn writes the maps as they stand here.
func (m *maps) WriteColumn(w *proto.Writer) {
	m.ends.WriteColumn(w)
	m.names.WriteColumn(w)
	m.values.WriteColumn(w)
}

// empty appends n empty maps.
func (m *maps) empty(n int) {
	for range n {
		m.ends = append(m.ends, uint64(m.pairs))
	}
}

// encoder turns a batch into blocks, one after the other.
type encoder struct {
	block   *block
	batch   *Batch
	decoder decoder
	record  *record
	next    int // index of the record that comes after it

	row, line        int // of the record: the next row, where its line begins,
	stream, ofStream int // the index of its stream, and how many rows of that were passed

	// Of a record that has metadata, the pairs of its rows: those of row i end at ends[i], and begin where the row before ends.
	ends  []int32
	pairs []pair
	keys  []int32 // of the names in the block, by their columns in the record; -1: not there yet
}

// pair is one name and value of an entry: the index of the name's column in the record, and the value in there.
type pair struct{ column, from, to uint32 }

var encoders = sync.Pool{New: func() any { return &encoder{block: newBlock()} }}

func newEncoder(b *Batch) *encoder {
	e := encoders.Get().(*encoder)
	e.batch, e.record, e.next, e.row = b, nil, 0, 0
	e.block.reset() // an insert that broke off has left its last block
	return e
}

func (e *encoder) release() {
	e.decoder.Reset()
	e.batch, e.record = nil, nil
	if cap(e.decoder.scratch) <= maxPooled && cap(e.block.lines.data) <= 2*blockBytes {
		encoders.Put(e)
	}
}

// fill makes the block of the next rows that have no mark. It has none where there are none left.
func (e *encoder) fill() error {
	e.block.reset()
	for i := range e.keys {
		e.keys[i] = -1
	}
	for e.block.rows < blockRows && len(e.block.lines.data) < blockBytes {
		for e.record == nil || e.row == e.record.rows {
			if e.next == len(e.batch.records) {
				return nil
			}
			if err := e.open(); err != nil {
				return err
			}
		}
		for e.ofStream == e.decoder.Streams[e.stream].Entries {
			e.stream, e.ofStream = e.stream+1, 0
		}
		run := e.decoder.Streams[e.stream].Entries - e.ofStream
		if e.batch.marked == 0 {
			e.take(min(run, blockRows-e.block.rows))
			continue
		}
		from := e.record.first + e.row
		passed := 0
		for passed < run && e.batch.has(from+passed, held|expired) {
			passed++
		}
		e.pass(passed)
		free := passed
		for free < run && !e.batch.has(from+free, held|expired) {
			free++
		}
		e.take(min(free-passed, blockRows-e.block.rows))
	}
	return nil
}

// open goes to the next record.
func (e *encoder) open() error {
	e.record = &e.batch.records[e.next]
	e.next++
	e.row, e.line, e.stream, e.ofStream = 0, 0, 0, 0
	e.ends = e.ends[:0]
	if err := e.decoder.decode(e.record); err != nil {
		return err
	}
	if len(e.decoder.Metadata) > 0 {
		e.openMetadata()
	}
	return nil
}

// openMetadata turns a record's metadata, a column a name, into pairs row by row, in one pass for counting and one for
// placing them.
func (e *encoder) openMetadata() {
	columns := e.decoder.Metadata
	e.ends = append(e.ends, make([]int32, e.record.rows)...)
	total := 0
	for i := range columns {
		for _, entry := range columns[i].Entries {
			e.ends[entry]++
		}
		total += len(columns[i].Entries)
	}
	at := int32(0)
	for row, n := range e.ends { // where the row begins, for now; placing its pairs moves that to where it ends
		e.ends[row] = at
		at += n
	}
	e.pairs = slices.Grow(e.pairs[:0], total)[:total]
	e.keys = e.keys[:0]
	for i := range columns {
		from := uint32(0)
		for j, entry := range columns[i].Entries {
			to := from + columns[i].Lengths[j]
			e.pairs[e.ends[entry]] = pair{uint32(i), from, to}
			e.ends[entry]++
			from = to
		}
		e.keys = append(e.keys, -1)
	}
}

// pass leaves rows of the stream out.
func (e *encoder) pass(rows int) {
	for _, n := range e.decoder.Lengths[e.row : e.row+rows] {
		e.line += int(n)
	}
	e.row += rows
	e.ofStream += rows
}

// take appends rows of the stream to the block, until its lines are as long as they may get.
func (e *encoder) take(rows int) {
	if rows == 0 {
		return
	}
	k := e.block
	first := e.row
	for _, n := range e.decoder.Lengths[first : first+rows] {
		k.lines.appendString(e.decoder.Lines[e.line : e.line+int(n)])
		e.line += int(n)
		e.row++
		if len(k.lines.data) >= blockBytes {
			break
		}
	}
	rows = e.row - first
	e.ofStream += rows
	k.rows += rows
	labels := e.decoder.Streams[e.stream].Labels
	k.tenants.repeat(e.record.tenant, rows)
	k.ids.repeat64(logs.StreamID(e.record.tenant, labels), rows)
	k.times.append64(e.decoder.Timestamps[first:e.row])
	k.streams.repeat(labels, rows)
	k.shards.repeat16(e.batch.Shard, rows)
	k.sequences.repeat64(e.record.sequence, rows)
	k.indexes.count32(uint32(first), rows)
	if len(e.ends) == 0 {
		k.metadata.empty(rows)
		return
	}
	e.takeMetadata(first)
}

// takeMetadata appends the metadata of the rows from first on.
func (e *encoder) takeMetadata(first int) {
	m := &e.block.metadata
	from := int32(0)
	if first > 0 {
		from = e.ends[first-1]
	}
	for _, to := range e.ends[first:e.row] {
		for _, p := range e.pairs[from:to] {
			column := &e.decoder.Metadata[p.column]
			key := e.keys[p.column]
			if key < 0 {
				key = int32(m.names.key(column.Name))
				e.keys[p.column] = key
			}
			m.names.Keys32 = append(m.names.Keys32, uint32(key))
			m.values.appendString(column.Values[p.from:p.to])
			m.pairs++
		}
		m.ends = append(m.ends, uint64(m.pairs))
		from = to
	}
}
