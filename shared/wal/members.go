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

// The timeout of a membership is the time within which another ingester owns the shards of one that was killed, frozen or
// cut off. In parts of it:
const (
	beatEvery  = 10   // a heartbeat comes every tenth
	deafAfter  = 0.3  // without its own heartbeat for so much a member is deaf: it can't tell who is gone
	listenAnew = 0.5  // deaf for so much, it watches the heartbeats anew
	missingAt  = 0.3  // without a heartbeat for so much a member may be gone
	goneAfter  = 0.75 // without a heartbeat for so much a member is gone: what is left is for claiming its shards
	forgotten  = 10   // of one that is gone for so much the key is deleted
	overdueAt  = 0.85 // gone for so much, its shards are for whoever is there,
	overdueTo  = 2    // which is looked after until then
	settled    = 1    // after so much a newcomer gets its share
)

// Member is what an ingester tells the others of itself.
type Member struct {
	Started time.Time `json:"started"`
	GRPC    string    `json:"grpc"` // address of its IngesterService
	Beat    uint64    `json:"beat"` // how many heartbeats it has sent
}

// Membership is one ingester's place among the live ones. Who is live is told by the time since a member's
// last heartbeat arrived here, by this process's own clock: clocks of different machines are never compared.
//
// A member hears its own heartbeats, too, the way that it hears those of the others. While it does not, because it was
// frozen, cut off, or NATS was away, it could not have heard the others either: that time is held against none of them.
type Membership struct {
	wal     *WAL
	id      string
	self    Member
	timeout time.Duration
	log     *slog.Logger

	mu   sync.Mutex
	seen map[string]heard
	echo time.Time // when this one's own last heartbeat arrived

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// heard is the last heartbeat of another.
type heard struct {
	at   time.Time // when it arrived; the time that this one was deaf does not count
	beat uint64
}

// Join makes the ingester with this id a member, and keeps it one until Leave. Once it is killed, frozen or cut off, it
// counts as gone after 3/4 of the timeout. Others that look every tenth of it who is live, and claim, thus own its shards
// before the timeout is over, and on a busy machine some heartbeats may come late without harm.
func (w *WAL) Join(ctx context.Context, id string, self Member, timeout time.Duration) (*Membership, error) {
	m := &Membership{
		wal: w, id: id, self: self, timeout: timeout, log: w.log,
		seen: map[string]heard{}, echo: time.Now(),
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
	m.done.Go(func() { m.listen(ctx, watcher) })
	m.done.Go(func() { m.keepBeating(ctx) })
	return m, nil
}

// Leave tells the others that this ingester is gone.
func (m *Membership) Leave(ctx context.Context) error {
	m.cancel()
	m.done.Wait()
	return m.wal.kv.Purge(ctx, memberPrefix+m.id)
}

// Sharing are the ids of the live members that share the shards, this one always among them, in order. A newcomer is
// among them after one timeout: the shards of one that was killed and started again at once are taken over by those
// that are there, and one that keeps dying as it starts keeps no shards from them.
func (m *Membership) Sharing() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	sharing := []string{m.id}
	for id, last := range m.seen {
		if id != m.id && last.beat > settled*beatEvery && m.silence(id) < m.part(goneAfter) {
			sharing = append(sharing, id)
		}
	}
	slices.Sort(sharing)
	return sharing
}

// IsLive tells whether the ingester with this id is a live member.
func (m *Membership) IsLive(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.seen[id]
	return id == m.id || ok && m.silence(id) < m.part(goneAfter)
}

// IsOverdue tells whether the ingester with this id is gone for so long that its shards should have been taken over. It
// then does not matter whose share they are.
func (m *Membership) IsOverdue(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.isOverdue(id)
}

// IsAnyOverdue tells whether that holds for any ingester.
func (m *Membership) IsAnyOverdue() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.seen {
		if m.isOverdue(id) {
			return true
		}
	}
	return false
}

// IsAnyMissing tells whether the heartbeats of an ingester that counts as live don't come.
func (m *Membership) IsAnyMissing() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.seen {
		if silence := m.silence(id); id != m.id && silence >= m.part(missingAt) && silence < m.part(goneAfter) {
			return true
		}
	}
	return false
}

// isOverdue needs mu.
func (m *Membership) isOverdue(id string) bool {
	_, ok := m.seen[id]
	silence := m.silence(id)
	return ok && id != m.id && silence >= m.part(overdueAt) && silence < m.part(overdueTo)
}

// silence is for how long a member could have been heard, and was not. It needs mu.
func (m *Membership) silence(id string) time.Duration {
	if time.Since(m.echo) > m.part(deafAfter) {
		return 0
	}
	return time.Since(m.seen[id].at)
}

func (m *Membership) part(of float64) time.Duration { return time.Duration(of * float64(m.timeout)) }

// listen hears the heartbeats. Where it is deaf for long it watches anew: after a restart of NATS the client would find out
// only after some 20 s that its watcher is gone.
func (m *Membership) listen(ctx context.Context, watcher jetstream.KeyWatcher) {
	look := time.NewTicker(m.timeout / beatEvery)
	defer look.Stop()
	began := time.Now()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if ok && entry != nil {
				m.update(entry)
			}
			if ok {
				continue
			}
			<-look.C // NATS closed it
		case <-look.C:
			m.mu.Lock()
			deaf := min(time.Since(m.echo), time.Since(began))
			m.mu.Unlock()
			if deaf < m.part(listenAnew) {
				continue
			}
		case <-ctx.Done():
			_ = watcher.Stop()
			return
		}
		again, err := m.wal.kv.Watch(ctx, memberPrefix+"*", jetstream.UpdatesOnly())
		if err == nil {
			_ = watcher.Stop()
			watcher, began = again, time.Now()
		}
	}
}

func (m *Membership) update(entry jetstream.KeyValueEntry) {
	id := strings.TrimPrefix(entry.Key(), memberPrefix)
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case entry.Operation() != jetstream.KeyValuePut:
		delete(m.seen, id)
	case id == m.id:
		if deaf := now.Sub(m.echo); deaf > m.part(deafAfter) {
			for other, last := range m.seen {
				if last.at = last.at.Add(deaf); last.at.After(now) { // it was heard since
					last.at = now
				}
				m.seen[other] = last
			}
		}
		m.echo = now
	default:
		var member Member
		_ = json.Unmarshal(entry.Value(), &member) // one that can't be read lives, too
		m.seen[id] = heard{now, member.Beat}
	}
}

func (m *Membership) keepBeating(ctx context.Context) {
	ticker := time.NewTicker(m.timeout / beatEvery)
	defer ticker.Stop()
	healthy := true
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := m.beat(ctx, m.part(deafAfter))
		if ctx.Err() != nil {
			return
		}
		if err != nil && healthy {
			m.log.Warn("this ingester's heartbeat does not get through; others may take its shards over", "error", err)
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

// forget deletes the keys of members that are gone for long.
func (m *Membership) forget(ctx context.Context) {
	var gone []string
	m.mu.Lock()
	for id := range m.seen {
		if m.silence(id) > forgotten*m.timeout {
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
