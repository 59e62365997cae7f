package wal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
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

	Target uint32 `json:"target,omitempty"` // the shard of a ClickHouse cluster that it goes to; 0 without a cluster
}

// Position is how far a shard is, and whose it is. The bucket holds one for each shard, and every change of
// it is a compare-and-set.
type Position struct {
	Owner  string `json:"owner,omitempty"`  // empty: free
	Claim  string `json:"claim,omitempty"`  // of this ownership; no other, of the same owner either, has the same
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
	shard    int
	former   string
	position document[Position]
}

func (p Position) holder() string { return p.Claim }

// Position reads a shard's position. A shard that nobody ever owned is at zero.
func (w *WAL) Position(ctx context.Context, shard int) (Position, error) {
	l := w.lease(shard)
	err := l.position.load(ctx)
	return l.position.get(), err
}

// lease is one that has not claimed the shard yet.
func (w *WAL) lease(shard int) *Lease {
	return &Lease{shard: shard, position: document[Position]{
		kv: w.kv, key: shardPrefix + strconv.Itoa(shard), what: fmt.Sprintf("position of shard %d", shard),
		mine: rand.Text(), lost: ErrFenced,
	}}
}

// Claim makes owner the owner of a shard that is free, or whose owner is not live any more. Otherwise it
// returns ErrOwned, also where another ingester was quicker.
func (w *WAL) Claim(ctx context.Context, shard int, owner string, live func(owner string) bool) (*Lease, error) {
	l := w.lease(shard)
	if err := l.position.load(ctx); err != nil {
		return nil, err
	}
	l.former = l.Position().Owner
	if l.former != "" && l.former != owner && live(l.former) {
		return nil, ErrOwned
	}
	err := l.position.change(ctx, func(p *Position) { p.Owner, p.Claim = owner, l.position.mine })
	if errors.Is(err, ErrFenced) {
		return nil, ErrOwned
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Position is the shard's position, as this lease has left it.
func (l *Lease) Position() Position { return l.position.get() }

// Former is who owned the shard when it was claimed; empty where nobody did.
func (l *Lease) Former() string { return l.former }

// Token is what an insert of the range carries, so that ClickHouse drops a second one. It is the same for
// all owners.
func (l *Lease) Token(r Range) string {
	return fmt.Sprintf("logthra-%d-%d-%d", l.shard, r.First, r.Last)
}

// Intend records the range that is going to be inserted.
func (l *Lease) Intend(ctx context.Context, r Range) error {
	return l.position.change(ctx, func(p *Position) { p.Intent = &r })
}

// Land acknowledges all records up to the sequence: they are in ClickHouse.
func (l *Lease) Land(ctx context.Context, last uint64) error {
	return l.position.change(ctx, func(p *Position) { p.Landed, p.Intent = last, nil })
}

// Check returns ErrFenced if the shard was taken over. It is for a caller that waits; every write of the lease
// finds that out by itself.
func (l *Lease) Check(ctx context.Context) error {
	if err := l.position.check(ctx); errors.Is(err, ErrFenced) {
		return ErrFenced
	}
	return nil
}

// Release gives the shard back, so that another ingester can claim it at once.
func (l *Lease) Release(ctx context.Context) error {
	return l.position.change(ctx, func(p *Position) { p.Owner, p.Claim = "", "" })
}
