package wal

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// DeadLetterState is how full the stream of dead letters is.
type DeadLetterState struct {
	Messages uint64 // letters, and tombstones of those that were dropped
	Last     uint64 // sequence of the newest that there ever was
	Bytes    uint64
	MaxBytes uint64
}

// DeadLetterState looks at the stream of dead letters. It costs one request.
func (w *WAL) DeadLetterState(ctx context.Context) (DeadLetterState, error) {
	info, err := w.letters.Info(ctx)
	if err != nil {
		return DeadLetterState{}, fmt.Errorf("state of %s: %w", DeadLetterStream, explain(err))
	}
	return DeadLetterState{
		Messages: info.State.Msgs, Last: info.State.LastSeq,
		Bytes: info.State.Bytes, MaxBytes: uint64(max(info.Config.MaxBytes, 0)),
	}, nil
}

// CountTombstones counts the tombstones among the sequences first..last of the stream of dead letters. It reads the headers
// of all letters: ask for it when the state has changed only. After an error, as that ctx has ended, tombstones are those
// before next, from where the count can go on; else next is last+1.
func (w *WAL) CountTombstones(ctx context.Context, first, last uint64) (tombstones, next uint64, err error) {
	s := scan{wal: w, stream: w.letters, headersOnly: true, next: first, last: last}
	err = s.run(ctx, func(m *jetstream.RawStreamMsg) bool {
		if m.Header.Get(headerDropped) != "" {
			tombstones++
		}
		return true
	})
	if err != nil {
		return tombstones, s.next, fmt.Errorf("reading %s: %w", DeadLetterStream, explain(err))
	}
	return tombstones, last + 1, nil
}
