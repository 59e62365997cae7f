package store

import (
	"context"
	"fmt"
	"iter"
)

// Count is what the table holds of one record of the WAL.
type Count struct {
	Sequence  uint64
	Rows      uint64
	Entries   uint64 // different wal_index: less than Rows where a row is there twice
	LastIndex uint32 // the highest wal_index
}

// Counts yields, in order of sequence, the records of a shard with first <= wal_seq <= last of which the table
// holds rows; tenant "" means those of all tenants. ClickHouse does the counting, in memory that grows with the
// number of sequences: some 100 bytes each, so ask for some 100,000 at a time. An error is the last element. While
// the loop runs it holds a connection, and leaving it reads what is left of the answer.
func (s *Store) Counts(ctx context.Context, shard int, first, last uint64, tenant string) iter.Seq2[Count, error] {
	return func(yield func(Count, error) bool) {
		fail := func(err error) {
			yield(Count{}, fmt.Errorf("ClickHouse: counting the rows of shard %d, sequences %d to %d: %w", shard, first, last, plain(err)))
		}
		query, args := "SELECT wal_seq, count(), uniqExact(wal_index), max(wal_index) FROM "+s.database+".log WHERE wal_shard = ? AND wal_seq BETWEEN ? AND ?",
			[]any{shard, first, last}
		if tenant != "" {
			query, args = query+" AND tenant_id = ?", append(args, tenant)
		}
		if err := s.allFetched(ctx); err != nil {
			fail(err)
			return
		}
		rows, err := s.conn.Query(wholeAnswer(ctx), query+" GROUP BY wal_seq ORDER BY wal_seq", args...)
		if err != nil {
			fail(err)
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var c Count
			if err := rows.Scan(&c.Sequence, &c.Rows, &c.Entries, &c.LastIndex); err != nil {
				fail(err)
				return
			}
			if !yield(c, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			fail(err)
		}
	}
}
