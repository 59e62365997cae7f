package wal

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const shardPrefix = "shard."

// Owners are watched anew where nothing was heard for so long, as ingesters beat more often: after a restart of NATS the
// client would find out only after some 20 s that its watcher is gone.
const (
	ownersSilence = 5 * time.Second
	ownersPause   = time.Second // before it is tried again
)

// Owners is what the bucket says of the shards and the ingesters, kept up by watching it. It may be late, by seconds where
// NATS is restarted: a position then is one that the shard had before, and an owner may be none any more.
type Owners struct {
	wal    *WAL
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu  sync.RWMutex
	now owners
}

// owners is what the bucket said.
type owners struct {
	positions map[int]Position
	members   map[string]Member
}

// WatchOwners returns once it knows all that the bucket says now. Close it.
func (w *WAL) WatchOwners(ctx context.Context) (*Owners, error) {
	o := &Owners{wal: w}
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o.cancel = cancel
	begin, stop := context.WithTimeout(ctx, DefaultTimeout)
	defer stop()
	watcher, err := o.watch(watching, begin)
	if err != nil {
		cancel()
		return nil, err
	}
	o.done.Go(func() { o.listen(watching, watcher) })
	return o, nil
}

// Position is that of a shard, and whether it has one.
func (o *Owners) Position(shard int) (Position, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	p, ok := o.now.positions[shard]
	return p, ok
}

// Member is an ingester that is live, or was until a short time ago.
func (o *Owners) Member(id string) (Member, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	m, ok := o.now.members[id]
	return m, ok
}

// Close ends watching.
func (o *Owners) Close() {
	o.cancel()
	o.done.Wait()
}

// watch begins to watch, until ctx ends, and takes over all that is there, unless begin ends before that.
func (o *Owners) watch(ctx, begin context.Context) (jetstream.KeyWatcher, error) {
	failed := func(err error) error { return fmt.Errorf("watching the owners of the shards: %w", explain(err)) }
	watcher, err := o.wal.kv.WatchFiltered(ctx, []string{shardPrefix + "*", memberPrefix + "*"})
	if err != nil {
		return nil, failed(err)
	}
	there := owners{map[int]Position{}, map[string]Member{}}
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return nil, failed(context.Canceled)
			}
			if entry != nil {
				there.update(entry)
				continue
			}
			o.mu.Lock()
			o.now = there
			o.mu.Unlock()
			return watcher, nil
		case <-begin.Done():
			_ = watcher.Stop()
			return nil, failed(begin.Err())
		}
	}
}

// listen keeps up with the bucket until ctx ends.
func (o *Owners) listen(ctx context.Context, watcher jetstream.KeyWatcher) {
	silence := time.NewTimer(ownersSilence)
	defer silence.Stop()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if ok {
				silence.Reset(ownersSilence)
				if entry != nil {
					o.mu.Lock()
					o.now.update(entry)
					o.mu.Unlock()
				}
				continue
			}
		case <-silence.C:
		case <-ctx.Done():
			_ = watcher.Stop()
			return
		}
		_ = watcher.Stop()
		if watcher = o.watchAgain(ctx); watcher == nil {
			return
		}
		silence.Reset(ownersSilence)
	}
}

// watchAgain watches anew; it returns nil if ctx ended.
func (o *Owners) watchAgain(ctx context.Context) jetstream.KeyWatcher {
	for {
		begin, stop := context.WithTimeout(ctx, DefaultTimeout)
		watcher, err := o.watch(ctx, begin)
		stop()
		if err == nil {
			return watcher
		}
		select {
		case <-time.After(ownersPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// update takes over what a key says now. What can't be read is as if it were not there.
func (o *owners) update(entry jetstream.KeyValueEntry) {
	isThere := entry.Operation() == jetstream.KeyValuePut
	if id, ok := strings.CutPrefix(entry.Key(), memberPrefix); ok {
		var member Member
		if isThere && json.Unmarshal(entry.Value(), &member) == nil {
			o.members[id] = member
		} else {
			delete(o.members, id)
		}
		return
	}
	number, _ := strings.CutPrefix(entry.Key(), shardPrefix)
	shard, err := strconv.Atoi(number)
	if err != nil {
		return
	}
	var position Position
	if isThere && json.Unmarshal(entry.Value(), &position) == nil {
		o.positions[shard] = position
	} else {
		delete(o.positions, shard)
	}
}
