package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Reconcile asks the table which rows of the batch it holds, and marks them, so that Insert leaves them out. It
// returns how many rows are missing, which Insert will insert; rows that SkipBefore marked are neither asked
// for nor missing. The marks of an earlier Reconcile are replaced. After an error only some rows may be marked:
// repeat it before an insert.
func (s *Store) Reconcile(ctx context.Context, b *Batch) (missing int, err error) {
	b.unmark()
	asked := b.Rows() - b.marked
	if asked == 0 {
		return 0, nil
	}
	if err := s.markHeld(ctx, b); err != nil {
		return 0, fmt.Errorf("ClickHouse: looking for %d rows: %w", asked, plain(err))
	}
	missing = b.Rows() - b.marked
	if missing == asked {
		return missing, nil
	}
	if err := s.addStreams(ctx, b); err != nil {
		return 0, fmt.Errorf("ClickHouse: adding the streams of %d rows: %w", asked-missing, plain(err))
	}
	return missing, nil
}

// markHeld marks the rows that the table holds. It asks for the rows themselves, not for a summary of them:
// ClickHouse streams them from the granules that times and sequences leave over, and keeps nothing. Of a cluster each shard
// is asked: another one than the batch's may hold rows that were replayed, or sent before a shard was added.
func (s *Store) markHeld(ctx context.Context, b *Batch) error {
	return s.each(ctx, func(conn driver.Conn) error {
		if err := s.fetched(ctx, conn); err != nil {
			return err
		}
		return s.markHeldOn(ctx, conn, b)
	})
}

// markHeldOn marks the rows that one server holds.
func (s *Store) markHeldOn(ctx context.Context, conn driver.Conn, b *Batch) error {
	earliest, latest := b.period()
	rows, err := conn.Query(wholeAnswer(ctx), "SELECT wal_seq, wal_index FROM "+s.rows()+" WHERE wal_shard = ? AND wal_seq BETWEEN ? AND ? AND timestamp BETWEEN "+
		"fromUnixTimestamp64Nano(toInt64(?), 'UTC') AND fromUnixTimestamp64Nano(toInt64(?), 'UTC')",
		b.Shard, b.records[0].sequence, b.records[len(b.records)-1].sequence, earliest, latest)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var sequence uint64
	var index uint32
	for rows.Next() {
		if err := rows.Scan(&sequence, &index); err != nil {
			return err
		}
		if row, ok := b.find(sequence, index); ok {
			b.mark(row, held)
		}
	}
	return rows.Err()
}

// addStreams adds the streams of the rows that the table holds to the table of streams. Its view is fed by
// inserts alone, and one that ended between the table and the view left rows whose streams nothing else adds.
func (s *Store) addStreams(ctx context.Context, b *Batch) error {
	type seen struct{ first, last int64 }
	spans, row := make(map[int32]*seen), 0
	for _, run := range b.runs {
		for range run.rows {
			if b.has(row, held) {
				timestamp, of := b.timestamps[row], spans[run.stream]
				if of == nil {
					of = &seen{timestamp, timestamp}
					spans[run.stream] = of
				}
				of.first, of.last = min(of.first, timestamp), max(of.last, timestamp)
			}
			row++
		}
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0}))
	return s.onTarget(ctx, b, func(conn *server) error {
		insert, err := conn.PrepareBatch(ctx, "INSERT INTO "+s.streams()+" (tenant_id, stream_id, stream, first_seen, last_seen)") //nolint:clickhouselint // see Insert
		if err != nil {
			return err
		}
		defer func() { _ = insert.Abort() }()
		for at, span := range spans {
			of := &b.streams[at]
			if err := insert.Append(of.tenant, of.id, of.labels, time.Unix(0, span.first), time.Unix(0, span.last)); err != nil {
				return fmt.Errorf("%w: %w", errSchema, err)
			}
		}
		return insert.Send()
	})
}

// wholeAnswer makes a query answer in full or fail, whatever the profile of the user says: not from a cache, and
// not cut off at a limit. A setting that has its value already is none that a read-only user would be changing.
func wholeAnswer(ctx context.Context) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"use_query_cache": 0, "limit": 0, "offset": 0,
		"timeout_overflow_mode": "throw", "read_overflow_mode": "throw", "result_overflow_mode": "throw", "group_by_overflow_mode": "throw",
	}))
}
