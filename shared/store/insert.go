package store

import (
	"context"
	"fmt"
	"math"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// oneBlock is more rows than any batch has.
const oneBlock = math.MaxUint32

// insertSettings are those of every insert. A batch may have any number of days, so partitions.
//
// It stays one block in ClickHouse, whatever its size and whatever the user's profile says, and so one part a
// partition: of what an insert brings to a partition all is there or nothing, and the part's deduplication id
// follows from token and partition alone. Of several blocks each would have its number in the id. A block is full at either
// minimum, so that of bytes is off. The maximum counts only where a profile sets use_strict_insert_block_limits, which not every
// ClickHouse knows, so that it can't be switched off here.
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
	settings := insertSettings(token)
	if err := s.clusterSettings(ctx, settings); err != nil {
		return err
	}
	err := s.onTarget(ctx, b, func(to *server) error {
		e := newEncoder(b)
		defer e.release()
		return to.insert(ctx, e, e.query(s.rows(), settingsOf(settings)))
	})
	if err != nil {
		return fmt.Errorf("ClickHouse: inserting %d rows: %w", rows, plain(err))
	}
	return nil
}
