package wal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrOwned is returned for a shard that a live ingester owns.
	ErrOwned = errors.New("the shard has an owner")
	// ErrFenced is returned to a former owner: another has taken the shard over, and nothing that the
	// former one does about it counts any more.
	ErrFenced = errors.New("fenced: another ingester has taken the shard over")
)

// Range is a batch: all records of a shard from First to Last.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Bytes int64  `json:"bytes"` // memory that the batch takes, so that a successor can make room first
}

// Position is how far a shard is, and whose it is. The bucket holds one for each shard, and every change of
// it is a compare-and-set.
type Position struct {
	Owner  string `json:"owner,omitempty"`  // empty: free
	Landed uint64 `json:"landed"`           // all records up to this sequence are in ClickHouse
	Intent *Range `json:"intent,omitempty"` // the batch that may be there, or not, or in part
}

// Lease is the right to insert the records of one shard. It ends when another ingester claims the shard:
// from then on all its methods return ErrFenced.
//
// What makes inserting exactly once is the order of calls: Intend a range, insert exactly that range with
// its Token, then Land it. Whoever claims the shard after a crash finds the intent in Position, and repeats
// that very insert before anything else; ClickHouse drops it if it had landed.
type Lease struct {
	wal   *WAL
	shard int

	mu       sync.Mutex
	position Position
	revision uint64 // of position in the bucket
}

// Position reads a shard's position. A shard that nobody ever owned is at zero.
func (w *WAL) Position(ctx context.Context, shard int) (Position, error) {
	p, _, err := w.position(ctx, shard)
	return p, err
}

func (w *WAL) position(ctx context.Context, shard int) (p Position, revision uint64, err error) {
	entry, err := w.kv.Get(ctx, shardKey(shard))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Position{}, 0, nil
	}
	if err != nil {
		return p, 0, fmt.Errorf("position of shard %d: %w", shard, explain(err))
	}
	if err := json.Unmarshal(entry.Value(), &p); err != nil {
		return p, 0, fmt.Errorf("position of shard %d: key %s of bucket %s: %w", shard, shardKey(shard), Bucket, err)
	}
	return p, entry.Revision(), nil
}

// Claim makes owner the owner of a shard that is free, or whose owner is not live any more. Otherwise it
// returns ErrOwned, also where another ingester was quicker.
func (w *WAL) Claim(ctx context.Context, shard int, owner string, live func(owner string) bool) (*Lease, error) {
	p, revision, err := w.position(ctx, shard)
	if err != nil {
		return nil, err
	}
	if p.Owner != "" && p.Owner != owner && live(p.Owner) {
		return nil, ErrOwned
	}
	l := &Lease{wal: w, shard: shard, position: p, revision: revision}
	p.Owner = owner
	if err := l.set(ctx, p); errors.Is(err, ErrFenced) {
		return nil, ErrOwned
	} else if err != nil {
		return nil, err
	}
	return l, nil
}

// Position is the shard's position, as this lease has left it.
func (l *Lease) Position() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.position
}

// Token is what an insert of the range carries, so that ClickHouse drops a second one. It is the same for
// all owners.
func (l *Lease) Token(r Range) string {
	return fmt.Sprintf("logthra-%d-%d-%d", l.shard, r.First, r.Last)
}

// Intend records the range that is going to be inserted.
func (l *Lease) Intend(ctx context.Context, r Range) error {
	p := l.Position()
	p.Intent = &r
	return l.set(ctx, p)
}

// Land acknowledges all records up to the sequence: they are in ClickHouse.
func (l *Lease) Land(ctx context.Context, last uint64) error {
	p := l.Position()
	p.Landed, p.Intent = last, nil
	return l.set(ctx, p)
}

// Check returns ErrFenced if the shard was taken over. It is for a caller that waits; every write of the lease
// finds that out by itself.
func (l *Lease) Check(ctx context.Context) error {
	now, err := l.wal.Position(ctx, l.shard)
	if err == nil && now.Owner != l.Position().Owner {
		return ErrFenced
	}
	return nil
}

// Release gives the shard back, so that another ingester can claim it at once.
func (l *Lease) Release(ctx context.Context) error {
	p := l.Position()
	p.Owner = ""
	return l.set(ctx, p)
}

// set writes the position if it is still as this lease left it. A write whose answer was lost is recognized
// by what it wrote.
func (l *Lease) set(ctx context.Context, p Position) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	value, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("position of shard %d: %w", l.shard, err)
	}
	revision, err := l.wal.kv.Update(ctx, shardKey(l.shard), value, l.revision)
	if wrongLastSequence(err) {
		entry, getErr := l.wal.kv.Get(ctx, shardKey(l.shard))
		if getErr != nil {
			return fmt.Errorf("position of shard %d: %w", l.shard, explain(getErr))
		}
		if entry.Revision() <= l.revision || string(entry.Value()) != string(value) {
			return ErrFenced
		}
		revision, err = entry.Revision(), nil
	}
	if err != nil {
		return fmt.Errorf("position of shard %d: %w", l.shard, explain(err))
	}
	l.position, l.revision = p, revision
	return nil
}

func shardKey(shard int) string { return "shard." + strconv.Itoa(shard) }
