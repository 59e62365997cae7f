package ingester

import (
	"context"
	"errors"
	"fmt"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// RetryDeadLetter inserts what the table lacks of a dead letter's record, as the rows that the record would have
// become in the first place, and then removes the letter. It returns how many rows it inserted; entries that
// retention would remove at once are not inserted.
//
// After an error the letter is still there, whatever has landed of it, and can be retried. An error that
// errors.AsType finds a *wal.UndecodableError in, or that store.Classify calls a bad batch, is the letter's own
// fault; any other would meet the next letter as well.
//
// It may be repeated, by whomever, until it returns nil: the table is asked first what it holds, and for what may still
// be on its way the token is that of this letter. Another letter of the same record, put aside later, has another.
func RetryDeadLetter(ctx context.Context, w *wal.WAL, s *store.Store, d wal.DeadLetter) (inserted int, err error) {
	var decoded logs.Batch
	if _, err := d.Decode(&decoded, nil); err != nil {
		return 0, err
	}
	if d.Shard < 0 || d.Sequence == 0 {
		return 0, &wal.UndecodableError{Reason: errors.New("it does not say where in the WAL it stood")}
	}
	position, err := w.Position(ctx, d.Shard)
	if err != nil {
		return 0, err
	}
	if position.Landed < d.Sequence { // who put it aside may have died before that was known, and begin again with it
		return 0, fmt.Errorf("shard %d has not got past record %d yet: is an ingester running?", d.Shard, d.Sequence)
	}
	batch := store.Batch{Shard: uint16(d.Shard)}
	batch.Add(d.Sequence, d.Tenant, &decoded, &d.Record)
	retention, err := s.Retention(ctx)
	if err != nil {
		return 0, err
	}
	if retention > 0 {
		batch.SkipBefore(expiryHorizon(retention))
	}
	if inserted, err = s.Reconcile(ctx, &batch); err != nil {
		return 0, err
	}
	token := fmt.Sprintf("logthra-deadletter-%d-%d-%d", d.Shard, d.Sequence, d.At.UnixNano())
	if err := s.Insert(ctx, &batch, token); err != nil {
		return 0, err
	}
	// With the letter the last copy may go. ClickHouse says yes also to an insert that it has seen before, whose rows
	// somebody may have deleted since.
	missing, err := s.Reconcile(ctx, &batch)
	if err != nil {
		return 0, err
	}
	if missing > 0 {
		return 0, fmt.Errorf("ClickHouse confirmed the insert, and still lacks %d rows of it", missing)
	}
	if err := w.RemoveDeadLetter(ctx, d); err != nil && !errors.Is(err, wal.ErrNotFound) { // by another retry
		return 0, err
	}
	return inserted, nil
}
