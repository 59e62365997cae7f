package engine

import (
	"context"
	"sync"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

// hubs are the tenants that tails follow. However many tails a tenant has, its records are read and decoded once.
type hubs struct {
	mu  sync.Mutex
	all map[string]*hub
}

// hub reads what one tenant pushes, for all tails of it.
type hub struct {
	users int // guarded by hubs.mu

	mu    sync.Mutex // guards what follows; held while reading begins or ends
	tail  *wal.Tail
	tails map[*tail]bool
	stop  context.CancelFunc
	done  chan struct{}
}

// join makes a tail get all records of the tenant that the WAL confirms from now on, until what it returns is called.
func (s *hubs) join(ctx context.Context, w *wal.WAL, tenant string, t *tail) (leave func(), err error) {
	s.mu.Lock()
	h := s.all[tenant]
	if h == nil {
		if s.all == nil {
			s.all = map[string]*hub{}
		}
		h = &hub{tails: map[*tail]bool{}}
		s.all[tenant] = h
	}
	h.users++
	s.mu.Unlock()
	leave = func() {
		h.remove(t)
		s.mu.Lock()
		h.users--
		isLast := h.users == 0
		if isLast {
			delete(s.all, tenant)
		}
		s.mu.Unlock()
		if isLast {
			h.end()
		}
	}
	if err := h.add(ctx, w, tenant, t); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// add adds a tail. With the first one reading begins.
func (h *hub) add(ctx context.Context, w *wal.WAL, tenant string, t *tail) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tail == nil {
		reading, err := w.Tail(ctx, tenant)
		if err != nil {
			return err
		}
		ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
		h.tail, h.done = reading, make(chan struct{})
		go h.run(ctx)
	}
	h.tails[t] = true
	return nil
}

func (h *hub) remove(t *tail) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tails, t)
}

// end ends reading; nobody uses the hub any more.
func (h *hub) end() {
	h.mu.Lock()
	reading := h.tail
	h.mu.Unlock()
	if reading == nil {
		return
	}
	h.stop()
	<-h.done
	reading.Close()
}

// run gives all tails each record until ctx ends.
func (h *hub) run(ctx context.Context) {
	defer close(h.done)
	for {
		select {
		case record := <-h.tail.Records():
			p := newPushed(&record)
			if p == nil {
				continue
			}
			h.mu.Lock()
			for t := range h.tails {
				t.offer(p)
			}
			h.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// pushed is a record that tails look at. It does not change.
type pushed struct {
	logs.Batch

	shard    uint16
	sequence uint64
	streams  [][]logs.Label // of each stream, the labels
	metadata [][]logs.Label // of each entry; nil: none has any
	size     int            // bytes of memory, about
}

// pushedBytes is about what an entry of a record takes beside its line.
const pushedBytes = 40

// newPushed decodes a record; nil: it can't be.
func newPushed(record *wal.Record) *pushed {
	p := &pushed{shard: uint16(record.Shard), sequence: record.Sequence}
	raw, err := record.Decode(&p.Batch, nil)
	if err != nil {
		return nil
	}
	p.size = len(raw) + pushedBytes*p.Len()
	p.streams = make([][]logs.Label, len(p.Streams))
	for i := range p.Streams {
		if p.streams[i], err = logs.ParseLabels(p.Streams[i].Labels); err != nil {
			return nil
		}
	}
	if len(p.Metadata) > 0 {
		p.metadata = logs.MetadataOf(p.Metadata, p.Len())
	}
	return p
}
