package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// entering lets queries of tenants wait, in this order, and tells of each when it is its turn.
type entering struct {
	t     *testing.T
	queue *queue
	most  int // of one tenant

	begun   chan string
	leaving map[string]chan struct{}
	wait    sync.WaitGroup
}

func newEntering(t *testing.T, most, perTenant, length int) *entering {
	e := &entering{t: t, queue: newQueue(most, length), most: perTenant, begun: make(chan string, 1000), leaving: map[string]chan struct{}{}}
	t.Cleanup(func() {
		for _, leave := range e.leaving {
			close(leave)
		}
		e.wait.Wait()
		if running, waiting := e.queue.state(); running != 0 || waiting != 0 || len(e.queue.tenants) != 0 || len(e.queue.turns) != 0 {
			t.Errorf("at the end %d run and %d wait, of %d tenants", running, waiting, len(e.queue.tenants))
		}
	})
	return e
}

// enter has a query enter, and returns when it runs or waits. Its name begins with its tenant.
func (e *entering) enter(ctx context.Context, names ...string) {
	for _, name := range names {
		running, waiting := e.queue.state()
		leave := make(chan struct{})
		e.leaving[name] = leave
		tenant, _, _ := strings.Cut(name, "-")
		e.wait.Go(func() {
			done, err := e.queue.enter(ctx, tenant, e.most)
			if err != nil {
				e.begun <- fmt.Sprintf("%s: %v", name, err)
				return
			}
			e.begun <- name
			<-leave
			done()
		})
		e.until(func() bool {
			r, w := e.queue.state()
			return r+w == running+waiting+1
		})
	}
}

func (e *entering) leave(name string) {
	close(e.leaving[name])
	delete(e.leaving, name)
}

func (e *entering) until(condition func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatal("it takes too long")
		}
	}
}

// wantBegun fails the test unless these queries begin, in this order.
func (e *entering) wantBegun(names ...string) {
	e.t.Helper()
	for _, name := range names {
		select {
		case got := <-e.begun:
			if got != name {
				e.t.Fatalf("%s is next, want %s", got, name)
			}
		case <-time.After(time.Minute):
			e.t.Fatalf("%s does not begin", name)
		}
	}
}

func TestQueueTurns(t *testing.T) {
	e := newEntering(t, 1, 1, 100)
	e.enter(t.Context(), "a-1", "a-2", "a-3", "b-1", "b-2", "c-1")
	order := []string{"a-1", "a-2", "b-1", "c-1", "a-3", "b-2"}
	for _, name := range order {
		e.wantBegun(name)
		e.leave(name)
	}
}

func TestQueueBoundOfATenant(t *testing.T) {
	e := newEntering(t, 3, 2, 100)
	e.enter(t.Context(), "a-1", "a-2", "a-3", "a-4")
	e.wantBegun("a-1", "a-2")
	e.enter(t.Context(), "b-1") // there is room that a may not take
	e.wantBegun("b-1")
	e.enter(t.Context(), "b-2")
	e.leave("b-1")
	e.wantBegun("b-2")
	e.leave("a-2")
	e.wantBegun("a-3")
}

func TestQueueFull(t *testing.T) {
	e := newEntering(t, 1, 1, 2)
	e.enter(t.Context(), "a-1", "a-2", "a-3")
	if _, err := e.queue.enter(t.Context(), "a", 1); !errors.Is(err, errQueued) {
		t.Errorf("the third that waits gets %v", err)
	}
	e.enter(t.Context(), "b-1") // one tenant does not fill another's
	e.queue.mu.Lock()
	e.queue.waiting += maxWaiting
	e.queue.mu.Unlock()
	if _, err := e.queue.enter(t.Context(), "c", 1); !errors.Is(err, errQueued) {
		t.Errorf("one too many of all gets %v", err)
	}
	e.queue.mu.Lock()
	e.queue.waiting -= maxWaiting
	e.queue.mu.Unlock()
}

func TestQueueGivesUp(t *testing.T) {
	e := newEntering(t, 1, 1, 100)
	e.enter(t.Context(), "a-1")
	e.wantBegun("a-1")
	ctx, cancel := context.WithCancel(t.Context())
	e.enter(ctx, "b-1")
	e.enter(t.Context(), "b-2", "c-1")
	cancel()
	e.wantBegun("b-1: context canceled")
	e.leave("a-1")
	e.wantBegun("b-2")
	e.leave("b-2")
	e.wantBegun("c-1")
}

// Whoever gives up at the moment of its turn takes nobody else's.
func TestQueueRace(t *testing.T) {
	q := newQueue(3, 1000)
	var wait sync.WaitGroup
	for i := range 2000 {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%20)*50*time.Microsecond)
			defer cancel()
			leave, err := q.enter(ctx, string(rune('a'+i%7)), 2)
			if err != nil {
				return
			}
			running, _ := q.state()
			if running > 3 {
				t.Errorf("%d run", running)
			}
			leave()
		})
	}
	wait.Wait()
	if running, waiting := q.state(); running != 0 || waiting != 0 || len(q.tenants) != 0 || len(q.turns) != 0 {
		t.Errorf("at the end %d run and %d wait, of %d tenants", running, waiting, len(q.tenants))
	}
	if slices.Contains(q.turns, nil) {
		t.Error("there is a turn of nobody")
	}
}
