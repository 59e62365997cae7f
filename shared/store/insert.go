package store

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
	"unsafe"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// An insert is sent in blocks of at most so many rows or bytes of lines, whichever is reached first, so that
// what the driver holds stays small beside the batch. ClickHouse joins them again.
const (
	blockRows  = 64 << 10
	blockBytes = 8 << 20
)

// The columns of an insert, in the order in which block appends them. Metadata comes last, and is left out
// where no row has any: ClickHouse fills in an empty map for less than the driver takes to encode one.
const (
	insertColumns  = "tenant_id, stream_id, timestamp, stream, msg, wal_shard, wal_seq, wal_index"
	metadataColumn = ", metadata"
)

// oneBlock is more rows than any batch has.
const oneBlock = math.MaxUint32

// insertSettings are those of every insert. A batch may have any number of days, so partitions.
//
// It becomes one block in ClickHouse, whatever its size and whatever the user's profile says, and so one part a
// partition: of what an insert brings to a partition all is there or nothing, and the part's deduplication id
// follows from token and partition alone. Of several blocks each would have its number in the id, and a
// repetition that leaves rows out, since Reconcile found them, would be cut elsewhere: its first block would be
// taken for the first that landed, and dropped. A block is full at either minimum, so that of bytes is off. The
// maximum counts only where a profile sets use_strict_insert_block_limits, which not every ClickHouse knows, so
// that it can't be switched off here.
//
// The materialized view sees a repeated insert too, since the first one may have ended before it.
func insertSettings(token string) clickhouse.Settings {
	return clickhouse.Settings{
		"insert_deduplication_token":                         token,
		"insert_deduplicate":                                 1,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		"async_insert":                                       0,
		"min_insert_block_size_rows":                         oneBlock,
		"min_insert_block_size_bytes":                        0,
		"max_insert_block_size":                              oneBlock,
		"max_insert_threads":                                 1,
		"max_partitions_per_insert_block":                    0,
	}
}

// Insert inserts the rows of the batch that Reconcile and SkipBefore have not marked, and returns once ClickHouse
// has confirmed them; where none is left it does not ask. After an error all of them may be there, or those of
// some days, or none. Reconciled and repeated with the same token until it returns nil, the batch is there once.
func (s *Store) Insert(ctx context.Context, b *Batch, token string) error {
	rows := b.Rows() - b.marked
	if rows == 0 {
		return nil
	}
	columns := insertColumns
	if len(b.metadata) > 0 {
		columns += metadataColumn
	}
	settings := insertSettings(token)
	if err := s.clusterSettings(ctx, settings); err != nil {
		return err
	}
	err := s.onTarget(ctx, b, func(conn driver.Conn) error {
		return b.send(clickhouse.Context(ctx, clickhouse.WithSettings(settings)), conn, "INSERT INTO "+s.rows()+" ("+columns+")")
	})
	if err != nil {
		return fmt.Errorf("ClickHouse: inserting %d rows: %w", rows, plain(err))
	}
	return nil
}

// send inserts the rows that have no mark.
func (b *Batch) send(ctx context.Context, conn driver.Conn, statement string) error {
	insert, err := conn.PrepareBatch(ctx, statement) //nolint:clickhouselint // see Abort
	if err != nil {
		return err
	}
	// Not Close: that would end the insert in good order, and ClickHouse keep what it got of it.
	defer func() { _ = insert.Abort() }()
	block := blocks.Get().(*block)
	defer blocks.Put(block)
	defer block.release()
	cursor := cursor{batch: b}
	for cursor.row < b.Rows() {
		block.fill(&cursor)
		if err := block.append(insert, b); err != nil {
			return fmt.Errorf("encoding them: %w: %w", errSchema, err)
		}
		if err := insert.Flush(); err != nil {
			return err
		}
	}
	return insert.Send()
}

// cursor is a place in a batch: a row, and where that row is in the runs.
type cursor struct {
	batch            *Batch
	row, line        int // index of the row; where its line begins
	stream, ofStream int // index of the stream; rows of it that were passed
	record, ofRecord int // likewise
	metadata         int // index of the first metadata whose row is not passed
}

// block is a piece of a batch as slices that the driver takes whole. Lines are not copied here.
type block struct {
	first, end int // rows of the batch; those that are marked are left out
	tenants    []any
	streams    []any
	runs       []int // rows of each of the two above
	ids        []uint64
	timestamps []time.Time
	lines      []string
	shards     []uint16
	sequences  []uint64
	indexes    []uint32
	metadata   []metadata
}

var blocks = sync.Pool{New: func() any { return new(block) }}

// release lets go of what the block points to.
func (k *block) release() {
	clear(k.tenants[:cap(k.tenants)])
	clear(k.streams[:cap(k.streams)])
	clear(k.lines[:cap(k.lines)])
	k.metadata = nil
}

// fill takes the next rows of the batch that have no mark.
func (k *block) fill(c *cursor) {
	b := c.batch
	k.first = c.row
	k.tenants, k.streams, k.runs = k.tenants[:0], k.streams[:0], k.runs[:0]
	k.ids, k.timestamps, k.lines = k.ids[:0], k.timestamps[:0], k.lines[:0]
	k.shards, k.sequences, k.indexes = k.shards[:0], k.sequences[:0], k.indexes[:0]
	last := -1 // index of the stream that has the last run
	for size := 0; c.row < len(b.timestamps) && len(k.lines) < blockRows && size < blockBytes; c.row++ {
		for c.ofStream == b.streams[c.stream].rows {
			c.stream, c.ofStream = c.stream+1, 0
		}
		for c.ofRecord == b.records[c.record].rows {
			c.record, c.ofRecord = c.record+1, 0
		}
		line, index := c.line, c.ofRecord
		c.line += int(b.lengths[c.row])
		c.ofStream++
		c.ofRecord++
		if b.has(c.row, held|expired) {
			continue
		}
		stream := &b.streams[c.stream]
		if c.stream != last {
			k.tenants = append(k.tenants, stream.tenant)
			k.streams = append(k.streams, stream.labels)
			k.runs = append(k.runs, 0)
			last = c.stream
		}
		k.runs[len(k.runs)-1]++
		k.ids = append(k.ids, stream.id)
		k.timestamps = append(k.timestamps, time.Unix(0, b.timestamps[c.row]))
		k.lines = append(k.lines, unsafeString(b.lines[line:c.line]))
		k.shards = append(k.shards, b.Shard)
		k.sequences = append(k.sequences, b.records[c.record].sequence)
		k.indexes = append(k.indexes, uint32(index))
		size += c.line - line
	}
	k.end = c.row
	from := c.metadata
	for c.metadata < len(b.metadata) && b.metadata[c.metadata].row < c.row {
		c.metadata++
	}
	k.metadata = b.metadata[from:c.metadata]
}

// append gives the block to the driver, in the order of the columns of an insert.
func (k *block) append(insert driver.Batch, b *Batch) error {
	for i, values := range []any{nil, k.ids, k.timestamps, nil, k.lines, k.shards, k.sequences, k.indexes} {
		if values == nil {
			continue
		}
		if err := insert.Column(i).Append(values); err != nil {
			return err
		}
	}
	const tenantColumn, streamColumn, mapColumn = 0, 3, 8
	if err := appendRuns(insert.Column(tenantColumn), k.tenants, k.runs); err != nil {
		return err
	}
	if err := appendRuns(insert.Column(streamColumn), k.streams, k.runs); err != nil {
		return err
	}
	if len(b.metadata) == 0 {
		return nil
	}
	maps, next := insert.Column(mapColumn), k.metadata
	pairs := &pairs{batch: b}
	for row := k.first; row < k.end; row++ {
		pairs.at, pairs.to = 0, 0
		if len(next) > 0 && next[0].row == row {
			pairs.at, pairs.to = next[0].from, next[0].to
			next = next[1:]
		}
		if b.has(row, held|expired) {
			continue
		}
		if err := maps.AppendRow(pairs); err != nil {
			return err
		}
	}
	return nil
}

// appendRuns appends values to a column that the driver fills row by row.
func appendRuns(column driver.BatchColumn, values []any, runs []int) error {
	for i, value := range values {
		for range runs[i] {
			if err := column.AppendRow(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// pairs is one row's metadata as the driver takes a map that keeps its order, and its repeated names.
type pairs struct {
	batch  *Batch
	at, to int
}

var _ column.IterableOrderedMap = (*pairs)(nil)

// Put is for reading rows, which is not done with this type.
func (p *pairs) Put(any, any) {}

// Iterator begins before the first pair.
func (p *pairs) Iterator() column.MapIterator {
	p.at--
	return p
}

// Next goes to the next pair.
func (p *pairs) Next() bool {
	p.at++
	return p.at < p.to
}

// Key is the name.
func (p *pairs) Key() any {
	pair := p.batch.pairs[p.at]
	return unsafeString(p.batch.values[pair.nameFrom:pair.nameTo])
}

// Value is the value.
func (p *pairs) Value() any {
	pair := p.batch.pairs[p.at]
	return unsafeString(p.batch.values[pair.from:pair.to])
}

// unsafeString is b as a string, without a copy. The driver copies what it is given before the batch, which
// b is a part of, is used again.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
