package e2e

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	pulseEvery = 200 * time.Millisecond
	// pulseSlow is a third of the owner timeout: a NATS that takes so long to write a message down can't take heartbeats
	// in time either.
	pulseSlow = ownerTimeout / 3
)

// pulse writes to NATS all the time. Where nothing is done to NATS and it takes long nevertheless, because the disk of a
// machine that is shared takes its time, that counts as done to it: what is measured meanwhile says nothing of takeovers.
type pulse struct {
	calm *calm
	note func(format string, args ...any)

	mu      sync.Mutex // guards what follows
	slow    int
	longest time.Duration
}

// watch writes until ctx ends.
func (p *pulse) watch(ctx context.Context, js jetstream.JetStream) {
	for ctx.Err() == nil {
		bucket, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "pulse", Storage: jetstream.FileStorage})
		if err != nil {
			time.Sleep(pulseEvery) // NATS is away
			continue
		}
		p.beat(ctx, bucket)
	}
}

// beat writes until ctx ends, or a write fails.
func (p *pulse) beat(ctx context.Context, bucket jetstream.KeyValue) {
	for ctx.Err() == nil {
		began := time.Now()
		var mu sync.Mutex
		var over func()
		alarm := time.AfterFunc(pulseSlow, func() {
			mu.Lock()
			defer mu.Unlock()
			if p.calm.undisturbed(began, time.Now(), natsName) {
				over = p.calm.disturbSince(began, natsName)
			}
		})
		_, err := bucket.Put(ctx, "pulse", []byte(began.Format(time.RFC3339Nano)))
		alarm.Stop()
		mu.Lock()
		if over != nil {
			over()
			p.count(time.Since(began))
		}
		mu.Unlock()
		if err != nil {
			return
		}
		time.Sleep(pulseEvery)
	}
}

// count notes a write that took long.
func (p *pulse) count(took time.Duration) {
	p.note("nothing was done to NATS, and it took %.2fs to write a message down", took.Seconds())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow++
	p.longest = max(p.longest, took)
}
