package wal

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// PresenceSubject is where gateways tell each other that they live. A message is the id of one.
const PresenceSubject = "logthra.gateways"

// presenceEvery is how often a gateway tells that it lives. One that is not heard presenceMissed times is gone.
const (
	presenceEvery  = time.Second
	presenceMissed = 5
)

// Bounds of what a stranger who speaks on the subject can make a gateway remember.
const (
	maxGateways  = 1024
	maxGatewayID = 256 // bytes
)

// Presence counts the live gateways. It is plain messages, nothing is stored: a count that is wrong for some seconds
// costs precision, and nothing else.
//
// A gateway hears itself, too. While it does not, it could not have heard the others either, and forgets none of them.
type Presence struct {
	conn   *nats.Conn
	id     string
	every  time.Duration
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex
	seen map[string]time.Time // when each, this one too, was heard last
}

// Announce makes the gateway with this id known to the others until Close.
func (w *WAL) Announce(id string) (*Presence, error) { return w.announce(id, presenceEvery) }

func (w *WAL) announce(id string, every time.Duration) (*Presence, error) {
	p := &Presence{conn: w.nc, id: id, every: every, seen: map[string]time.Time{id: time.Now()}}
	sub, err := w.nc.Subscribe(PresenceSubject, func(m *nats.Msg) { p.hear(string(m.Data), time.Now()) })
	if err != nil {
		return nil, fmt.Errorf("listening for other gateways: %w", err)
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	p.done.Go(func() {
		defer func() { _ = sub.Unsubscribe() }()
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			_ = p.conn.Publish(PresenceSubject, []byte(p.id)) // fails while NATS is away; who does not hear that keeps its count
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return p, nil
}

// Live is how many gateways live, this one among them: a new one counts within a second, one that is gone for 5
// seconds more. While NATS is away the count stays.
func (p *Presence) Live() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen)
}

// Close ends it. The others count this gateway for 5 seconds more.
func (p *Presence) Close() {
	p.cancel()
	p.done.Wait()
}

// hear notes that a gateway lives, and with each of its own messages forgets those that were not heard for long.
func (p *Presence) hear(id string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.seen[id]; !known && (len(p.seen) >= maxGateways || len(id) > maxGatewayID) {
		return
	}
	if id == p.id {
		deaf := now.Sub(p.seen[id]) > p.every*presenceMissed/2
		for other, at := range p.seen {
			if deaf {
				p.seen[other] = now
			} else if now.Sub(at) > p.every*presenceMissed {
				delete(p.seen, other)
			}
		}
	}
	p.seen[id] = now
}
