package wal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ShardState is how full the stream of a shard is, and how much of it has not landed.
type ShardState struct {
	Shard    int
	Position Position
	Last     uint64 // sequence before that of the next record
	Bytes    uint64 // of all records that are kept
	MaxBytes uint64

	BacklogRecords  uint64
	BacklogBytes    uint64        // estimated by the mean size of the records that are kept
	OldestUnflushed time.Duration // age of the oldest record that has not landed; 0 if all have
}

// State looks at a shard.
func (w *WAL) State(ctx context.Context, shard int) (ShardState, error) {
	position, err := w.Position(ctx, shard)
	if err != nil {
		return ShardState{}, err
	}
	stream, err := w.info(ctx, shard)
	if err != nil {
		return ShardState{}, err
	}
	s := ShardState{
		Shard: shard, Position: position,
		Last: stream.State.LastSeq, Bytes: stream.State.Bytes, MaxBytes: uint64(max(stream.Config.MaxBytes, 0)),
	}
	first := max(position.Landed+1, stream.State.FirstSeq)
	if stream.State.Msgs == 0 || first > stream.State.LastSeq {
		return s, nil
	}
	s.BacklogRecords = stream.State.LastSeq - first + 1
	s.BacklogBytes = uint64(float64(stream.State.Bytes) / float64(stream.State.Msgs) * float64(s.BacklogRecords))
	oldest, err := w.state.Load().streams[shard].GetMsg(ctx, first)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound): // it landed and was trimmed in between
	case err != nil:
		return ShardState{}, fmt.Errorf("state of %s: record %d: %w", StreamName(shard), first, explain(err))
	default:
		s.OldestUnflushed = max(time.Since(oldest.Time), 0)
	}
	return s, nil
}

// Last is the sequence of the last record that a shard holds, 0 if it holds none.
func (w *WAL) Last(ctx context.Context, shard int) (uint64, error) {
	stream, err := w.info(ctx, shard)
	if err != nil || stream.State.Msgs == 0 {
		return 0, err
	}
	return stream.State.LastSeq, nil
}

// info asks the server about the stream of a shard.
func (w *WAL) info(ctx context.Context, shard int) (*jetstream.StreamInfo, error) {
	stream, err := w.shard(shard)
	if err != nil {
		return nil, err
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("state of %s: %w", StreamName(shard), explain(err))
	}
	return info, nil
}

// How full a shard may get of landed records: above trimAbove of what it may hold, records that have landed
// go before the replay window is over, oldest first, until it holds trimTo. Room for new records counts more
// than a long replay.
const (
	trimAbove = 0.8
	trimTo    = 0.7
)

// Trim deletes the records of a shard that have landed and are older than the window, or whose room is needed. A
// record after landed is never deleted, nor is one of the stream's duplicate window: JetStream recognizes a push that is
// repeated after a restart by what the stream still holds.
func (w *WAL) Trim(ctx context.Context, shard int, landed uint64, window time.Duration) error {
	stream, err := w.info(ctx, shard)
	if err != nil {
		return fmt.Errorf("trimming: %w", err)
	}
	state := stream.State
	recent := stream.TimeStamp.Add(-stream.Config.Duplicates) // by the clock that the records have their time from
	if state.Msgs == 0 || landed < state.FirstSeq || !state.FirstTime.Before(recent) {
		return nil
	}
	keep := state.FirstSeq // the first record that stays
	if full, most := float64(state.Bytes), float64(stream.Config.MaxBytes); most > 0 && full > trimAbove*most {
		keep += uint64((full - trimTo*most) / full * float64(state.Msgs))
	}
	if horizon := stream.TimeStamp.Add(-window); state.FirstTime.Before(horizon) {
		old, err := w.firstSince(ctx, shard, horizon)
		if err != nil {
			return fmt.Errorf("trimming: %w", err)
		}
		keep = max(keep, old)
	}
	if keep > state.FirstSeq {
		young, err := w.firstSince(ctx, shard, recent)
		if err != nil {
			return fmt.Errorf("trimming: %w", err)
		}
		keep = min(keep, young)
	}
	if keep = min(keep, landed+1); keep <= state.FirstSeq {
		return nil
	}
	if err := w.state.Load().streams[shard].Purge(ctx, jetstream.WithPurgeSequence(keep)); err != nil {
		return fmt.Errorf("trimming %s below %d: %w", StreamName(shard), keep, explain(err))
	}
	return nil
}
