package engine

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// What a tail holds at most: bytes of records that are yet to go through its pipeline, bytes of entries that are yet to be sent, and
// entries of which it is known that they were dropped.
const (
	tailQueueBytes = 8 << 20
	tailSendBytes  = 8 << 20
	tailDropped    = 1000
)

// tailStreams is of how many streams a tail remembers whether it follows them.
const tailStreams = 100_000

// tailAhead is how far in the future an entry may be, by its own time, that was pushed before a tail began: clocks differ.
const tailAhead = time.Minute

// TailQuery is what to follow.
type TailQuery struct {
	Query // Start: entries from then on that are there already come first, the newest Limit of them

	Expr  *logql.LogExpr
	Delay time.Duration // how long entries are held back, so that late ones come in order

	// Turn returns when ClickHouse may be asked for what is there already, and what to call when it was. nil: at once.
	Turn func(context.Context) (done func(), err error)
}

// TailBatch is entries, in order of time, and of those that the reader was too slow for some labels and times.
type TailBatch struct {
	Entries []Entry
	Dropped []DroppedEntry
}

// DroppedEntry is an entry that was not sent. Where entries came faster than they could be looked at, it is one of a stream that is
// followed, whatever the pipeline would have made of it.
type DroppedEntry struct {
	Timestamp int64
	Labels    []logs.Label // of the stream
}

// Tail sends entries as they are pushed until ctx ends, which is no error, or send returns one. send is called by one goroutine; while it
// does not return, entries are gathered up to a bound and then dropped.
func (e *Engine) Tail(ctx context.Context, q TailQuery, send func(TailBatch) error) error {
	t, err := newTail(q)
	if err != nil {
		return err
	}
	err = e.tail(ctx, t, send)
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

func (e *Engine) tail(ctx context.Context, t *tail, send func(TailBatch) error) error {
	leave, err := e.hubs.join(ctx, e.cfg.WAL, t.query.Tenant, t)
	if err != nil {
		return err
	}
	var working sync.WaitGroup
	defer working.Wait()
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	working.Go(func() { t.work(ctx) })
	if err := e.sendHistory(ctx, t, send); err != nil {
		return err
	}
	return t.send(ctx, send)
}

// sendHistory sends what was there before.
func (e *Engine) sendHistory(ctx context.Context, t *tail, send func(TailBatch) error) error {
	q := t.query.Query
	q.End, q.Forward = time.Now().Add(tailAhead).UnixNano(), false
	if q.Start >= q.End || q.Limit < 1 {
		return nil
	}
	done := func() {}
	if t.query.Turn != nil {
		var err error
		if done, err = t.query.Turn(ctx); err != nil {
			return err
		}
	}
	history, err := e.Logs(ctx, q, t.query.Expr)
	done()
	if err != nil || len(history.Entries) == 0 {
		return err
	}
	slices.Reverse(history.Entries)
	t.seen = make(map[series.Position]bool, len(history.Entries))
	for i := range history.Entries {
		t.seen[history.Entries[i].position()] = true
	}
	return send(TailBatch{Entries: history.Entries})
}

// tail is one reader. Records come in from the hub, and entries of them go out to the reader. Between the two a goroutine runs the
// pipeline, so that while the reader is slow nothing is held but the entries that are for it.
type tail struct {
	query    TailQuery
	selector *pipeline.Selector
	lines    *liner
	lined    Stats                    // of lines
	seen     map[series.Position]bool // the entries of the history

	mu       sync.Mutex
	selected map[string]bool // streams, by their labels
	queue    []*pushed       // yet to go through the pipeline,
	queued   int             // of so many bytes
	ready    []readyEntry    // yet to be sent, as they came,
	held     int64           // of so many bytes
	dropped  []DroppedEntry

	isQueued chan struct{} // there is something in queue
	isReady  chan struct{} // there is something in ready or dropped
}

// readyEntry is an entry that is to be sent, and since when.
type readyEntry struct {
	Entry

	since time.Time
}

func newTail(q TailQuery) (*tail, error) {
	t := &tail{query: q, selected: map[string]bool{}, isQueued: make(chan struct{}, 1), isReady: make(chan struct{}, 1)}
	var err error
	if t.selector, err = pipeline.NewSelector(q.Expr.Matchers); err != nil {
		return nil, &Error{err.Error()}
	}
	t.lines, err = newLiner(q.Expr.Stages, q.WithLevel, &t.lined)
	return t, err
}

// signal wakes who waits for a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// offer gives the tail a record. It does not wait.
func (t *tail) offer(p *pushed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.wants(p) {
		return
	}
	if len(t.queue) == 0 || t.queued+p.size <= tailQueueBytes {
		t.queue, t.queued = append(t.queue, p), t.queued+p.size
		signal(t.isQueued)
		return
	}
	entry := 0
	for i, s := range p.Streams {
		if t.selects(p, i) {
			for _, at := range p.Timestamps[entry : entry+s.Entries] {
				t.drop(DroppedEntry{at, p.streams[i]})
			}
		}
		entry += s.Entries
	}
}

// wants tells whether a stream of the record is followed. It needs mu.
func (t *tail) wants(p *pushed) bool {
	for i := range p.Streams {
		if t.selects(p, i) {
			return true
		}
	}
	return false
}

// selects tells whether a stream of the record is followed. It needs mu.
func (t *tail) selects(p *pushed, stream int) bool {
	is, known := t.selected[p.Streams[stream].Labels]
	if !known {
		if len(t.selected) >= tailStreams {
			clear(t.selected)
		}
		is = t.selector.Matches(p.streams[stream])
		t.selected[p.Streams[stream].Labels] = is
	}
	return is
}

// drop notes that an entry is not sent. It needs mu.
func (t *tail) drop(entry DroppedEntry) {
	if len(t.dropped) < tailDropped {
		t.dropped = append(t.dropped, entry)
		signal(t.isReady)
	}
}

// work runs the pipeline until ctx ends.
func (t *tail) work(ctx context.Context) {
	for {
		select {
		case <-t.isQueued:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			t.mu.Lock()
			if len(t.queue) == 0 {
				t.queue = nil
				t.mu.Unlock()
				break
			}
			p := t.queue[0]
			t.queue[0], t.queue, t.queued = nil, t.queue[1:], t.queued-p.size
			t.mu.Unlock()
			t.process(p)
		}
	}
}

// process makes entries of a record.
func (t *tail) process(p *pushed) {
	entry, offset := 0, 0
	for i, s := range p.Streams {
		t.mu.Lock()
		isSelected := t.selects(p, i)
		t.mu.Unlock()
		for end := entry + s.Entries; entry < end; entry++ {
			line := p.Lines[offset : offset+int(p.Lengths[entry])]
			offset += len(line)
			if !isSelected {
				continue
			}
			var metadata []logs.Label
			if p.metadata != nil {
				metadata = p.metadata[entry]
			}
			line, keep := t.lines.process(p.Timestamps[entry], line, p.streams[i], metadata)
			if !keep {
				continue
			}
			labels := &t.lines.labels
			t.add(Entry{
				Timestamp: p.Timestamps[entry], Line: string(line), shard: p.shard, sequence: p.sequence, index: uint32(entry),
				Stream: labels.AppendKind(nil, pipeline.Stream), Metadata: labels.AppendKind(nil, pipeline.Metadata),
				Parsed: labels.AppendKind(nil, pipeline.Parsed),
			})
		}
	}
}

// add adds an entry that is to be sent, unless the reader is too slow.
func (t *tail) add(entry Entry) {
	size := entry.size()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ready) > 0 && t.held+size > tailSendBytes {
		t.drop(DroppedEntry{entry.Timestamp, entry.Stream})
		return
	}
	t.ready, t.held = append(t.ready, readyEntry{entry, time.Now()}), t.held+size
	signal(t.isReady)
}

// send sends what is ready until ctx ends or send returns an error.
func (t *tail) send(ctx context.Context, send func(TailBatch) error) error {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-t.isReady:
		case <-due.C:
		case <-ctx.Done():
			return nil
		}
		batch, next := t.take(time.Now())
		if next > 0 {
			due.Reset(next)
		}
		if len(batch.Entries)+len(batch.Dropped) > 0 {
			if err := send(batch); err != nil {
				return err
			}
		}
	}
}

// take takes what is to be sent now, and tells when to look again; 0: with the next entry. Entries that are not due yet go with those
// that are and come after them by their own time.
func (t *tail) take(now time.Time) (batch TailBatch, next time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	batch.Dropped, t.dropped = t.dropped, nil
	until := int64(math.MinInt64) // the time of the last entry that is due
	for _, e := range t.ready {
		wait := e.since.Add(t.query.Delay).Sub(now)
		if wait > 0 {
			next = wait
			break
		}
		until = max(until, e.Timestamp)
	}
	left := t.ready[:0]
	for _, e := range t.ready {
		switch {
		case e.Timestamp > until:
			left = append(left, e)
			continue
		case t.seen[e.position()]:
		default:
			batch.Entries = append(batch.Entries, e.Entry)
		}
		t.held -= e.size()
	}
	clear(t.ready[len(left):])
	t.ready = left
	slices.SortStableFunc(batch.Entries, func(a, b Entry) int { return a.position().Compare(b.position()) })
	return batch, next
}
