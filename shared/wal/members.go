package wal

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const memberPrefix = "ingester."

// heartbeats is how many heartbeats a member sends in the time after which it counts as gone.
const heartbeats = 4

// forgotten is after how many times that time the key of a member that is gone is deleted.
const forgotten = 10

// Member is what an ingester tells the others of itself.
type Member struct {
	Started time.Time `json:"started"`
	GRPC    string    `json:"grpc"` // address of its IngesterService
	Beat    uint64    `json:"beat"` // how many heartbeats it has sent
}

// Membership is one ingester's place among the live ones. Who is live is told by the time since a member's
// last heartbeat arrived here, by this process's own clock: clocks of different machines are never compared.
type Membership struct {
	wal     *WAL
	id      string
	self    Member
	timeout time.Duration
	log     *slog.Logger

	mu        sync.Mutex
	seen      map[string]time.Time // when a member's last heartbeat arrived
	recovered time.Time            // when this process's own heartbeats last got through again

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// Join makes the ingester with this id a member, and keeps it one until Leave. A member that has not been
// heard of for the timeout counts as gone.
func (w *WAL) Join(ctx context.Context, id string, self Member, timeout time.Duration) (*Membership, error) {
	m := &Membership{
		wal: w, id: id, self: self, timeout: timeout, log: w.log,
		seen: map[string]time.Time{}, recovered: time.Now(),
	}
	if err := m.beat(ctx, DefaultTimeout); err != nil {
		return nil, err
	}
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	watcher, err := w.kv.Watch(ctx, memberPrefix+"*")
	if err != nil {
		m.cancel()
		return nil, fmt.Errorf("watching the ingesters: %w", explain(err))
	}
	for entry := range watcher.Updates() {
		if entry == nil { // all that was there before has been seen
			break
		}
		m.update(entry)
	}
	m.done.Go(func() { m.watch(ctx, watcher) })
	m.done.Go(func() { m.keepBeating(ctx) })
	return m, nil
}

// Leave tells the others that this ingester is gone.
func (m *Membership) Leave(ctx context.Context) error {
	m.cancel()
	m.done.Wait()
	return m.wal.kv.Purge(ctx, memberPrefix+m.id)
}

// Live are the ids of the live members, this one always among them, in order.
func (m *Membership) Live() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	live := []string{m.id}
	for id := range m.seen {
		if id != m.id && m.live(id) {
			live = append(live, id)
		}
	}
	slices.Sort(live)
	return live
}

// IsLive tells whether the ingester with this id is a live member.
func (m *Membership) IsLive(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return id == m.id || m.live(id)
}

// live needs mu. While this process heard nobody because it was cut off itself, nobody else was gone.
func (m *Membership) live(id string) bool {
	seen, ok := m.seen[id]
	if seen.Before(m.recovered) {
		seen = m.recovered
	}
	return ok && time.Since(seen) < m.timeout
}

func (m *Membership) watch(ctx context.Context, watcher jetstream.KeyWatcher) {
	defer func() { _ = watcher.Stop() }()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return
			}
			if entry != nil {
				m.update(entry)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (m *Membership) update(entry jetstream.KeyValueEntry) {
	id := strings.TrimPrefix(entry.Key(), memberPrefix)
	m.mu.Lock()
	defer m.mu.Unlock()
	if entry.Operation() == jetstream.KeyValuePut {
		m.seen[id] = time.Now()
	} else {
		delete(m.seen, id)
	}
}

func (m *Membership) keepBeating(ctx context.Context) {
	ticker := time.NewTicker(m.timeout / heartbeats)
	defer ticker.Stop()
	healthy := true
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := m.beat(ctx, m.timeout/heartbeats)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && healthy:
			m.log.Warn("this ingester's heartbeat does not get through; others may take its shards over", "error", err)
		case err == nil && !healthy:
			m.mu.Lock()
			m.recovered = time.Now()
			m.mu.Unlock()
		}
		healthy = err == nil
		m.forget(ctx)
	}
}

func (m *Membership) beat(ctx context.Context, timeout time.Duration) error {
	m.self.Beat++
	value, err := json.Marshal(m.self)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := m.wal.kv.Put(ctx, memberPrefix+m.id, value); err != nil {
		return fmt.Errorf("heartbeat: %w", explain(err))
	}
	return nil
}

// forget deletes the keys of members that have been gone for long.
func (m *Membership) forget(ctx context.Context) {
	var gone []string
	m.mu.Lock()
	for id, seen := range m.seen {
		if id != m.id && time.Since(seen) > forgotten*m.timeout {
			gone = append(gone, id)
		}
	}
	m.mu.Unlock()
	for _, id := range gone {
		if err := m.wal.kv.Purge(ctx, memberPrefix+id); err != nil {
			return // the next heartbeat tries again
		}
	}
}
