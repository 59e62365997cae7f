package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/casteloig/logthra/shared/wal"
)

// calm keeps when something was done to processes and links.
type calm struct {
	mu        sync.Mutex
	intervals map[string][]interval
}

// interval is some time; to is zero while it lasts.
type interval struct{ from, to time.Time }

// disturb says that something happens to what has the name from now on, until what it returns is called.
func (c *calm) disturb(name string) (over func()) { return c.disturbSince(time.Now(), name) }

// disturbSince is disturb for what began earlier.
func (c *calm) disturbSince(from time.Time, name string) (over func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.intervals == nil {
		c.intervals = map[string][]interval{}
	}
	index := len(c.intervals[name])
	c.intervals[name] = append(c.intervals[name], interval{from: from})
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.intervals[name][index].to = time.Now()
	}
}

// undisturbed tells whether nothing happened to any of the names in a time.
func (c *calm) undisturbed(from, to time.Time, names ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		for _, i := range c.intervals[name] {
			if i.from.Before(to) && (i.to.IsZero() || i.to.After(from)) {
				return false
			}
		}
	}
	return true
}

// hit tells whether something new happened to any of the names in a time.
func (c *calm) hit(from, to time.Time, names ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		for _, i := range c.intervals[name] {
			if i.from.After(from) && i.from.Before(to) {
				return true
			}
		}
	}
	return false
}

// takeovers measures how long a shard is without an owner that works: from the moment at which its owner was
// killed or frozen until the bucket names another.
type takeovers struct {
	calm *calm
	note func(format string, args ...any)

	mu        sync.Mutex // guards what follows
	owners    map[int]string
	ids       map[string]string  // ingester ids by the address of their service
	lost      map[int]*lostShard // by shard
	alone     []time.Duration    // how long it took, where nothing else was broken
	amid      []time.Duration    // where other ingesters were broken, too, but one was not
	disturbed int                // takeovers that say nothing
	taken     map[string]int     // shards taken over, by the id of the former owner
}

// lostShard is a shard whose owner has been killed or frozen.
type lostShard struct {
	shard    int
	ingester string // name of its process
	id       string
	at       time.Time
}

func newTakeovers(c *calm, note func(string, ...any)) *takeovers {
	return &takeovers{calm: c, note: note, owners: map[int]string{}, ids: map[string]string{}, lost: map[int]*lostShard{}, taken: map[string]int{}}
}

// watch follows the bucket until ctx ends. reconnected says that NATS may have been restarted, and with it have
// forgotten who watches; a watcher would find that out much later.
func (t *takeovers) watch(ctx context.Context, js jetstream.JetStream, reconnected <-chan struct{}) {
	for ctx.Err() == nil {
		if err := t.watchOnce(ctx, js, reconnected); err != nil {
			time.Sleep(50 * time.Millisecond) // NATS is away
		}
	}
}

func (t *takeovers) watchOnce(ctx context.Context, js jetstream.JetStream, reconnected <-chan struct{}) error {
	kv, err := js.KeyValue(ctx, wal.Bucket)
	if err != nil {
		return err
	}
	watcher, err := kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Stop() }()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return nil
			}
			if entry != nil && entry.Operation() == jetstream.KeyValuePut {
				t.update(entry.Key(), entry.Value())
			}
		case <-reconnected:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *takeovers) update(key string, value []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id, ok := strings.CutPrefix(key, "ingester."); ok {
		var member wal.Member
		if json.Unmarshal(value, &member) == nil {
			t.ids[member.GRPC] = id
		}
		return
	}
	number, isShard := strings.CutPrefix(key, "shard.")
	shard, err := strconv.Atoi(number)
	var position wal.Position
	if !isShard || err != nil || json.Unmarshal(value, &position) != nil {
		return
	}
	t.owners[shard] = position.Owner
	lost := t.lost[shard]
	if lost == nil || position.Owner == "" || position.Owner == lost.id {
		return
	}
	delete(t.lost, shard)
	t.taken[lost.id]++
	t.sample(lost, time.Now())
}

// sample needs mu.
func (t *takeovers) sample(lost *lostShard, now time.Time) {
	// Who takes the shard over must have been in a position to: it has to have heard the owner before, too.
	since := lost.at.Add(-ownerTimeout)
	others := slices.DeleteFunc(slices.Clone(ingesterNames), func(name string) bool { return name == lost.ingester })
	able := slices.DeleteFunc(slices.Clone(others), func(name string) bool { return !t.calm.undisturbed(since, now, name, toNATS(name)) })
	took, how := now.Sub(lost.at), ""
	switch calm := t.calm.undisturbed(since, now, natsName) && t.calm.undisturbed(since, lost.at, toNATS(lost.ingester)); {
	case calm && len(able) == len(others) && !t.calm.hit(lost.at, now, lost.ingester, toNATS(lost.ingester)): // it may be back by now
		t.alone = append(t.alone, took)
	case calm && len(able) > 0:
		t.amid = append(t.amid, took)
		how = ", while another ingester was broken, too"
	default:
		t.disturbed++
		how = ", while NATS or all other ingesters were broken, too"
	}
	t.note("shard %d of %s was taken over after %.2fs%s", lost.shard, lost.ingester, took.Seconds(), how)
}

// gone says that an ingester, which is reached at the address, is killed or frozen now. It returns its id, which
// is empty where it never was a member.
func (t *takeovers) gone(ingester, address string) (id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id = t.ids[address]
	if id == "" {
		return ""
	}
	for shard, owner := range t.owners {
		if owner == id && t.lost[shard] == nil {
			t.lost[shard] = &lostShard{shard, ingester, id, time.Now()}
		}
	}
	return id
}

// back says that an ingester that was frozen goes on, and returns how many of its shards have another owner now.
func (t *takeovers) back(id string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for shard, lost := range t.lost {
		if lost.id != id {
			continue
		}
		delete(t.lost, shard)
		if now := time.Now(); now.Sub(lost.at) > ownerTimeout { // it should have been taken over by now
			t.sample(lost, now)
		}
	}
	return t.taken[id]
}

// quantile of the samples, in order.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
