package wal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrTrimmed is returned where records that were asked for are not in the WAL any more. Those have landed.
var ErrTrimmed = errors.New("records have landed and were trimmed meanwhile")

// answerTimeout is how long an answer of NATS is waited for where it is soon asked again: a server that is restarted forgets the question.
const answerTimeout = 2 * time.Second

// Extent is the sequences of the records that a shard holds. Of one that holds none, last is first-1. Records before first have
// landed, or never were in this WAL.
func (w *WAL) Extent(ctx context.Context, shard int) (first, last uint64, err error) {
	stream, err := w.info(ctx, shard)
	if err != nil {
		return 0, 0, err
	}
	return max(stream.State.FirstSeq, 1), stream.State.LastSeq, nil
}

// Between yields the records of a tenant with after < sequence <= last, in order, and an error where it can't yield all of them:
// ErrTrimmed if some have been trimmed. The WAL has to have confirmed the last one: a server that lags behind is waited for.
func (w *WAL) Between(ctx context.Context, shard int, after, last uint64, tenant string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := w.between(ctx, shard, after, last, tenant, func(r Record) bool { return yield(r, nil) }); err != nil {
			yield(Record{}, fmt.Errorf("reading %s from %d to %d: %w", StreamName(shard), after+1, last, explain(err)))
		}
	}
}

func (w *WAL) between(ctx context.Context, shard int, after, last uint64, tenant string, yield func(Record) bool) error {
	if err := checkTenant(tenant); err != nil {
		return err
	}
	stream, err := w.shard(shard)
	if err != nil {
		return err
	}
	// Without this the end could not be told from a server that does not know of the last records yet.
	asking, cancel := context.WithTimeout(ctx, answerTimeout)
	newest, err := stream.GetLastMsgForSubject(asking, subject(tenant, shard))
	cancel()
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), err == nil && newest.Sequence <= after:
		return w.stillHolds(ctx, shard, after)
	case err != nil:
		return err
	}
	reader, err := w.read(ctx, shard, after+1, tenant)
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		select {
		case record, ok := <-reader.Records():
			if !ok {
				return reader.Err()
			}
			if record.Sequence <= last && !yield(record) {
				return nil
			}
			if record.Sequence >= min(last, newest.Sequence) {
				return w.stillHolds(ctx, shard, after)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stillHolds returns ErrTrimmed if not all records after a sequence are there any more.
func (w *WAL) stillHolds(ctx context.Context, shard int, after uint64) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	first, _, err := w.Extent(ctx, shard)
	if err == nil && first > after+1 {
		return ErrTrimmed
	}
	return err
}
