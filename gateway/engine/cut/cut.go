// Package cut finds out, for a query, what of the WAL is in ClickHouse by now and what is not yet, so that each line is counted once: from
// the table up to the cut, from the WAL beyond it.
package cut

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

// Request is which entries a query is about.
type Request struct {
	Tenant     string
	Matchers   []logql.Matcher
	Start, End int64    // unix nanoseconds: Start <= time < End
	OmitLines  bool     // lines are not looked at; lengths are given all the same
	Contains   []string // lines without one of these are not wanted; such may come all the same
	MaxBytes   int64    // most memory of the entries; 0: 1 GiB

	// Limit is how many entries are enough: the newest, or the oldest with Forward, of those that Contains leaves. Where there are
	// more, the Cut may hold for a part of the time only; see there. 0: all are wanted.
	Limit   int
	Forward bool
}

// Entry is one that is not in ClickHouse yet, or was not when the cut was made.
type Entry struct {
	Labels    string // canonical JSON of the stream
	Timestamp int64
	Line      []byte       // nil with OmitLines
	Length    int          // bytes of the line
	Metadata  []logs.Label // sorted by name, each name once
	Shard     uint16
	Sequence  uint64
	Index     uint32
}

// Cut is what is known at one moment. It does not change.
type Cut struct {
	// Landed has one element a shard of the WAL: rows of it with a higher sequence are to be left out, since they are in Entries.
	// Rows of shards beyond it are taken as they are.
	Landed []uint64
	// Entries are in no order.
	Entries  []Entry
	Warnings []string // of what is missing, if anything is
	// Start and End are for which times the Cut holds: Start <= time < End. They are those of the Request, unless that has a Limit and
	// there are more entries. Then the Cut holds for as much of the near end as has at least Limit entries; for the rest of the time
	// another Cut can be made.
	Start, End int64
}

// TooLargeError is returned where the entries take more memory than they may.
type TooLargeError struct{ Limit int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the query selects more than %d bytes of entries that are not in ClickHouse yet; narrow its time range, or select fewer streams", e.Limit)
}

// Cutter makes cuts. It is safe for concurrent use.
type Cutter struct {
	wal     *wal.WAL
	owners  *wal.Owners
	peers   peers
	metrics *metrics
	log     *slog.Logger
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// New returns a Cutter, which is a prometheus.Collector of its metrics. Close it.
func New(ctx context.Context, w *wal.WAL, log *slog.Logger) (*Cutter, error) {
	owners, err := w.WatchOwners(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cutter{wal: w, owners: owners, peers: peers{owners: owners, all: map[string]*peer{}}, metrics: newMetrics(), log: log}
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.done.Go(func() { c.peers.sweep(ctx) })
	return c, nil
}

// Close ends what the Cutter runs.
func (c *Cutter) Close() {
	c.cancel()
	c.done.Wait()
	c.owners.Close()
	c.peers.close()
}

// Cut makes one: all records that the WAL has confirmed by now count. What can't be had is named in its Warnings. The error is a
// *TooLargeError, that of a matcher that can't be compiled, or that of ctx.
func (c *Cutter) Cut(ctx context.Context, r Request) (*Cut, error) {
	began := time.Now()
	q, err := newQuestion(r)
	if err != nil {
		return nil, err
	}
	parts := make([]part, c.wal.Shards())
	if err := c.look(ctx, parts); err != nil {
		return nil, err
	}
	group, asking := errgroup.WithContext(ctx)
	for owner, of := range c.byOwner(parts) {
		group.Go(func() error { return c.answer(asking, q, owner, of) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	made := assemble(q, parts)
	c.metrics.made(made, time.Since(began))
	return made, nil
}

// assemble makes the cut of its parts.
func assemble(q *question, parts []part) *Cut {
	c := &Cut{Landed: make([]uint64, len(parts)), Start: q.Start, End: q.End}
	entries := 0
	for i := range parts {
		p := &parts[i]
		c.Landed[i] = p.landed
		if p.missing != "" {
			c.Warnings = append(c.Warnings, p.missing)
		}
		for _, r := range p.answers {
			entries += len(r.GetIndexes())
			switch end := r.GetEnd(); {
			case !end.GetHasBound():
			case q.Forward:
				c.End = min(c.End, end.GetBound())
			default:
				c.Start = max(c.Start, end.GetBound())
			}
		}
	}
	if entries == 0 {
		return c
	}
	c.Entries = make([]Entry, entries)
	labels, to := map[string]string{}, c.Entries
	for i := range parts {
		for _, r := range parts[i].answers {
			fill(to[:len(r.GetIndexes())], r, labels)
			to = to[len(r.GetIndexes()):]
		}
	}
	if c.Start != q.Start || c.End != q.End {
		c.Entries = slices.DeleteFunc(c.Entries, func(e Entry) bool { return e.Timestamp < c.Start || e.Timestamp >= c.End })
	}
	return c
}
