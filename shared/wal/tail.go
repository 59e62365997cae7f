package wal

import (
	"context"
	"sync"
	"time"
)

// How a Tail looks for shards that were added, and how long it waits before it reads on where reading failed.
const (
	tailLook  = time.Second
	tailPause = 250 * time.Millisecond
)

// Tail reads what a tenant pushes, over all shards.
type Tail struct {
	wal     *WAL
	tenant  string
	records chan Record
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// Tail returns a Tail of all records of the tenant that the WAL confirms from now on, also in shards that are yet to be added. Close
// it. A restart of NATS delays it.
func (w *WAL) Tail(ctx context.Context, tenant string) (*Tail, error) {
	if err := checkTenant(tenant); err != nil {
		return nil, err
	}
	shards := w.Shards()
	next := make([]uint64, shards)
	for shard := range shards {
		_, last, err := w.Extent(ctx, shard)
		if err != nil {
			return nil, err
		}
		next[shard] = last + 1
	}
	t := &Tail{wal: w, tenant: tenant, records: make(chan Record)}
	ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for shard, from := range next {
		t.done.Go(func() { t.follow(ctx, shard, from) })
	}
	t.done.Go(func() {
		ticker := time.NewTicker(tailLook)
		defer ticker.Stop()
		for {
			for ; shards < w.Shards(); shards++ { // what they hold has all come since
				shard := shards
				t.done.Go(func() { t.follow(ctx, shard, 1) })
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return t, nil
}

// Records gives the records: those of a shard in order. It is never closed.
func (t *Tail) Records() <-chan Record { return t.records }

// Close ends reading.
func (t *Tail) Close() {
	t.cancel()
	t.done.Wait()
}

// follow reads a shard until ctx ends.
func (t *Tail) follow(ctx context.Context, shard int, next uint64) {
	for ctx.Err() == nil {
		if reader, err := t.wal.read(ctx, shard, next, t.tenant); err == nil {
			next = t.pass(ctx, reader, next)
			reader.Close()
		}
		select {
		case <-time.After(tailPause):
		case <-ctx.Done():
		}
	}
}

// pass passes records on until there are no more, or ctx ends, and returns where to go on.
func (t *Tail) pass(ctx context.Context, reader *Reader, next uint64) uint64 {
	for {
		select {
		case record, ok := <-reader.Records():
			if !ok {
				return next
			}
			select {
			case t.records <- record:
				next = record.Sequence + 1
			case <-ctx.Done():
				return next
			}
		case <-ctx.Done():
			return next
		}
	}
}
