package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/casteloig/logthra/shared/wal"
)

// walSlack is how many bytes more than it holds a shard may take while the WAL is filled.
const walSlack = 256 << 10

// undoFor is how long undoing a fault is tried. It takes that ClickHouse or NATS are there.
const undoFor = 3 * time.Minute

// stopWithin is how long a process may take to end after SIGTERM, on a busy machine.
const stopWithin = drainTimeout + 30*time.Second

// breaker applies events.
type breaker struct {
	cluster   *cluster
	js        jetstream.JetStream
	calm      *calm
	takeovers *takeovers
	note      func(format string, args ...any)

	mu       sync.Mutex // guards what follows
	done     map[fault]int
	missed   map[fault]int // events that could not be applied
	badStops int           // SIGTERMs that did not end well, or in time
	wokeLate int           // ingesters that woke up, and had lost shards
}

// run applies the events, each at its time, and returns when the last is undone. When ctx ends it begins no more.
func (b *breaker) run(ctx context.Context, events []event) {
	began := time.Now()
	var running sync.WaitGroup
	defer running.Wait()
	for _, e := range events {
		select {
		case <-time.After(e.At - time.Since(began)):
		case <-ctx.Done():
			return
		}
		running.Go(func() {
			b.note("%s", e)
			err := b.apply(context.WithoutCancel(ctx), e)
			b.mu.Lock()
			defer b.mu.Unlock()
			if err != nil {
				b.missed[e.Fault]++
				b.note("%s: %s", e, err)
				return
			}
			b.done[e.Fault]++
		})
	}
}

// apply applies an event, holds it and undoes it.
func (b *breaker) apply(ctx context.Context, e event) error {
	switch e.Fault {
	case kill, tinyMemory, terminate:
		return b.each(e, b.replace)
	case killLeader:
		return b.leader(ctx, e, b.replace)
	case freezeLeader:
		return b.leader(ctx, e, b.freeze)
	case stepDown:
		return b.stepDown(ctx, e)
	case restartAll:
		return b.restartAll(ctx, e)
	case killServer:
		over := b.calm.disturb(e.Targets[0])
		defer over()
		b.cluster.processes[e.Targets[0]].killChildren()
		time.Sleep(e.Hold)
		return nil
	case freeze:
		return b.each(e, b.freeze)
	case lateInsert, wakeInside, blindInsert:
		return b.inInsert(e)
	case cutLink:
		return b.link(e, cut)
	case cutInside:
		return b.link(e, cutAfter)
	case muteLink:
		return b.link(e, mute)
	case fillWAL:
		return b.fillWAL(ctx, e)
	case manyParts:
		return b.refuse(ctx, e,
			"ALTER TABLE logs.log MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1",
			"ALTER TABLE logs.log RESET SETTING parts_to_throw_insert, parts_to_delay_insert")
	case readOnly:
		return b.refuse(ctx, e,
			"ALTER TABLE logs.log MODIFY SETTING table_readonly = 1",
			"ALTER TABLE logs.log RESET SETTING table_readonly")
	case missingTable:
		return b.refuse(ctx, e, "DETACH TABLE logs.log", "ATTACH TABLE IF NOT EXISTS logs.log")
	}
	return fmt.Errorf("unknown fault %s", e.Fault)
}

// each does something to all targets at the same time.
func (b *breaker) each(e event, do func(e event, name string) error) error {
	errs := make([]error, len(e.Targets))
	var running sync.WaitGroup
	for i, name := range e.Targets {
		running.Go(func() { errs[i] = do(e, name) })
	}
	running.Wait()
	return errors.Join(errs...)
}

// replace ends a process and starts it again.
func (b *breaker) replace(e event, name string) error {
	p := b.cluster.processes[name]
	defer b.disturb(name)()
	p.replacing.Lock()
	err := b.replaceAlone(e, p)
	p.replacing.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoFor)
	defer cancel()
	_ = p.awaitReady(ctx) // what it waits for may be broken, too
	return nil
}

func (b *breaker) replaceAlone(e event, p *process) error {
	if e.Fault == terminate || e.Fault == restartAll {
		if code := p.terminate(stopWithin); code != 0 {
			b.mu.Lock()
			b.badStops++
			b.mu.Unlock()
			b.note("%s ended with exit code %d after SIGTERM", p.name, code)
		}
	} else {
		b.takeovers.gone(p.name, p.address("ingester"))
		p.kill()
	}
	if e.Fault == tinyMemory {
		if err := p.start("--clickhouse-memory", strconv.Itoa(e.Bytes)); err != nil {
			return err
		}
		time.Sleep(e.Hold)
		p.kill()
		return p.start()
	}
	time.Sleep(e.Hold)
	return p.start()
}

// freeze freezes a process for a while.
func (b *breaker) freeze(e event, name string) error {
	defer b.disturb(name)()
	b.sleep(b.cluster.processes[name], e.Hold)
	return nil
}

// sleep freezes a process and thaws it.
func (b *breaker) sleep(p *process, hold time.Duration) {
	id := b.takeovers.gone(p.name, p.address("ingester"))
	thaw := p.freeze()
	time.Sleep(hold)
	woke := thaw()
	if lost := b.takeovers.back(id); lost > 0 && woke {
		b.mu.Lock()
		b.wokeLate++
		b.mu.Unlock()
	}
}

// inInsert gets an ingester while it inserts.
func (b *breaker) inInsert(e event) error {
	name := e.Targets[0]
	p, l := b.cluster.processes[name], b.cluster.links[toClickHouse(name)]
	defer b.calm.disturb(name)()
	defer l.heal()
	if e.Fault == blindInsert {
		l.set(cut, 0)
	} else {
		l.set(stalled, e.Bytes)
	}
	time.Sleep(2 * flushInterval) // every shard of it has come to its insert by then
	if e.Fault == wakeInside {
		b.sleep(p, e.Hold)
		return nil
	}
	p.replacing.Lock()
	defer p.replacing.Unlock()
	b.takeovers.gone(name, p.address("ingester"))
	p.kill()
	time.Sleep(e.Hold)
	return p.start()
}

// link puts a link in a condition for a while.
func (b *breaker) link(e event, c condition) error {
	l := b.cluster.links[e.Targets[0]]
	defer b.calm.disturb(l.name)()
	l.set(c, e.Bytes)
	defer l.heal()
	time.Sleep(e.Hold)
	return nil
}

// refuse makes ClickHouse refuse inserts.
func (b *breaker) refuse(ctx context.Context, e event, do, undo string) error {
	if err := b.cluster.exec(ctx, do); err != nil {
		return errors.Join(err, b.undo(ctx, undo)) // it may have been done all the same
	}
	time.Sleep(e.Hold)
	return b.undo(ctx, undo)
}

func (b *breaker) undo(ctx context.Context, sql string) error {
	return until(ctx, undoFor, sql, func() error { return b.cluster.exec(ctx, sql) })
}

// fillWAL lets the shards hold little more than they do.
func (b *breaker) fillWAL(ctx context.Context, e event) error {
	err := b.limitWAL(ctx, func(info *jetstream.StreamInfo) int64 { return int64(info.State.Bytes) + walSlack })
	if err == nil {
		time.Sleep(e.Hold)
	}
	undone := until(ctx, undoFor, "restoring the limits of the WAL", func() error {
		return b.limitWAL(ctx, func(*jetstream.StreamInfo) int64 { return walMaxBytes / shards })
	})
	return errors.Join(err, undone)
}

func (b *breaker) limitWAL(ctx context.Context, limit func(*jetstream.StreamInfo) int64) error {
	ctx, cancel := context.WithTimeout(ctx, wal.DefaultTimeout)
	defer cancel()
	for shard := range shards {
		stream, err := b.js.Stream(ctx, wal.StreamName(shard))
		if err != nil {
			return err
		}
		config := stream.CachedInfo().Config
		config.MaxBytes = limit(stream.CachedInfo())
		if _, err := b.js.UpdateStream(ctx, config); err != nil {
			return err
		}
	}
	return nil
}

// until tries something until it succeeds, or has failed for too long.
func until(ctx context.Context, limit time.Duration, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
	}
}
