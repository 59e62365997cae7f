package query

import (
	"context"
	"slices"
	"sync"
)

// maxWaiting is how many queries may wait, of all tenants together.
const maxWaiting = 10_000

// queue lets so many queries run at a time. The others wait: tenants take turns, and of each tenant the first to come is the first to run.
type queue struct {
	most, length int // that run, of all tenants; that wait, of one

	mu      sync.Mutex
	running int
	waiting int
	tenants map[string]*line // those that have queries
	turns   []*line          // those that have waiting ones; the next is first
}

// line is the queries of one tenant.
type line struct {
	name    string
	running int
	most    int // may run at a time
	waiting []chan struct{}
}

func newQueue(most, length int) *queue {
	return &queue{most: most, length: length, tenants: map[string]*line{}}
}

// enter returns when it is the query's turn. Of its tenant no more than most run at a time. Call leave at the query's end.
func (q *queue) enter(ctx context.Context, tenant string, most int) (leave func(), err error) {
	q.mu.Lock()
	l := q.tenants[tenant]
	if l == nil {
		l = &line{name: tenant}
		q.tenants[tenant] = l
	}
	l.most = most
	if len(l.waiting) >= q.length || q.waiting >= maxWaiting {
		q.forget(l)
		q.mu.Unlock()
		return nil, errQueued
	}
	turn := make(chan struct{})
	l.waiting = append(l.waiting, turn)
	if q.waiting++; len(l.waiting) == 1 {
		q.turns = append(q.turns, l)
	}
	q.next()
	q.mu.Unlock()

	leave = func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.running--
		l.running--
		q.next()
		q.forget(l)
	}
	select {
	case <-turn:
		return leave, nil
	case <-ctx.Done():
		if !q.giveUp(l, turn) {
			leave()
		}
		return nil, ctx.Err()
	}
}

// next begins as many queries as may run. It needs the lock.
func (q *queue) next() {
	for i := 0; i < len(q.turns) && q.running < q.most; {
		l := q.turns[i]
		if l.running >= l.most {
			i++
			continue
		}
		close(l.waiting[0])
		l.waiting = l.waiting[1:]
		l.running++
		q.running++
		q.waiting--
		q.turns = slices.Delete(q.turns, i, i+1)
		if len(l.waiting) > 0 {
			q.turns = append(q.turns, l)
		}
	}
}

// giveUp takes a query out that waits. It returns false if it waits no more.
func (q *queue) giveUp(l *line, turn chan struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(l.waiting, turn)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	if q.waiting--; len(l.waiting) == 0 {
		q.turns = slices.DeleteFunc(q.turns, func(other *line) bool { return other == l })
	}
	q.forget(l)
	return true
}

// forget lets go of a tenant that has no queries. It needs the lock.
func (q *queue) forget(l *line) {
	if l.running == 0 && len(l.waiting) == 0 {
		delete(q.tenants, l.name)
	}
}

// state is how many queries run, and how many wait.
func (q *queue) state() (running, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running, q.waiting
}
