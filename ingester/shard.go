package ingester

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// Backoff of what is tried again: from the first wait to the longest, each with jitter.
const (
	firstWait   = 250 * time.Millisecond
	longestWait = 10 * time.Second
)

// remindAfter is how often a failure that goes on is logged again.
const remindAfter = time.Minute

// trimEvery is how often an idle shard is trimmed.
const trimEvery = time.Minute

// shard is the life of one shard in the hands of its owner, a state machine:
//
//	recover → gather → intend → insert → acknowledge → gather …
//
// Each state is a method that returns the next; nil ends. A shard that is stopped flushes what it has
// gathered and releases its lease; one that runs out of time releases it with the intent in place, for the
// next owner to repeat; one that finds itself fenced drops everything.
type shard struct {
	in     *Ingester
	number int
	lease  *wal.Lease
	log    *slog.Logger

	reader  *wal.Reader
	decoded logs.Batch // of the record that was read last
	scratch []byte     // what decoded points into
	pending *wal.Record
	batch   store.Batch
	span    wal.Range // of the batch; Last is 0 while it is empty
	next    uint64    // sequence from which on nothing has been read
	began   time.Time // when the first record of the batch came
	held    int64     // bytes of the budget

	stopOnce sync.Once
	stopping chan struct{}
	poke     chan struct{} // flushTo has changed

	mu        sync.Mutex
	flushTo   uint64 // up to here nothing waits for a batch to fill
	gathered  int    // rows of the batch
	landed    uint64
	changed   chan struct{} // closed when landed changes, or the shard ends
	ended     bool
	doing     string
	failure   error
	reminded  time.Time // when failure was logged last
	lastFlush flush
}

// flush is one insert that was confirmed.
type flush struct {
	at          time.Time
	rows, bytes int
	took        time.Duration
}

// state is a step in the life of a shard. It returns the next, or nil at the end.
type state func(context.Context) state

func newShard(in *Ingester, number int, lease *wal.Lease) *shard {
	landed := lease.Position().Landed
	return &shard{
		in: in, number: number, lease: lease, log: in.log.With("shard", number),
		batch: store.Batch{Shard: uint16(number)}, next: landed + 1, landed: landed,
		stopping: make(chan struct{}), poke: make(chan struct{}, 1), changed: make(chan struct{}),
	}
}

// run lives the life of the shard. ctx ends it at once; stop ends it in good order.
func (s *shard) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // bounded by ctx, which run ends
		select {
		case <-s.stopping:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(s.in.cfg.DrainTimeout):
			cancel()
		case <-ctx.Done():
		}
	}()
	s.in.metrics.owned.Inc()
	defer s.in.metrics.owned.Dec()
	s.log.Debug("shard claimed", "landed", s.landed)
	for next := s.recover; next != nil; {
		next = next(ctx)
	}
	if s.reader != nil {
		s.reader.Close()
	}
	s.in.budget.Release(s.held)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	close(s.changed)
}

// recover repeats the insert that a former owner intended, whose end nobody knows.
func (s *shard) recover(ctx context.Context) state {
	intent := s.lease.Position().Intent
	if intent == nil {
		return s.gather
	}
	s.log.Info("repeating the insert that the former owner had begun", "first", intent.First, "last", intent.Last)
	s.set("recovering")
	s.held = min(intent.Bytes, s.in.cfg.BufferBytes)
	if err := s.in.budget.Acquire(ctx, s.held); err != nil {
		s.held = 0
		return s.release
	}
	s.next, s.began = intent.First, time.Now()
	for s.span.Last < intent.Last {
		record, ok := s.read(ctx, nil)
		if !ok {
			return s.release
		}
		if record.Sequence > intent.Last { // the end of the range is gone from the WAL
			s.log.Error("the WAL lacks records that a former owner meant to insert", "first", intent.First, "last", intent.Last)
			s.reader.Close()
			s.reader, s.next = nil, record.Sequence
			break
		}
		if !s.decode(ctx, &record) {
			return s.release
		}
		s.add(&record, nil)
	}
	s.span = *intent
	if s.batch.Rows() == 0 {
		return s.acknowledge
	}
	return s.insert
}

// gather fills the batch until it is full, or due, or a flush is asked for.
func (s *shard) gather(ctx context.Context) state {
	s.set("gathering")
	wake := time.NewTimer(trimEvery)
	defer wake.Stop()
	if s.pending != nil { // there was no room for it in the last batch
		if !s.makeRoom(ctx) {
			return s.release
		}
		s.add(s.pending, wake)
		s.pending = nil
	}
	for {
		if s.isFull() || s.span.Last > 0 && s.isFlushDue() {
			return s.intend
		}
		if s.isStopping() {
			if s.span.Last > 0 {
				return s.intend
			}
			return s.release
		}
		record, ok := s.read(ctx, wake.C)
		if ctx.Err() != nil {
			return s.release
		}
		if !ok {
			if s.span.Last == 0 {
				s.trim(ctx)
				wake.Reset(trimEvery)
			}
			continue
		}
		if !s.decode(ctx, &record) {
			return s.release
		}
		if !s.hold(store.SizeOf(&s.decoded)) {
			s.pending = &record
			if s.span.Last > 0 {
				return s.intend
			}
			return s.gather
		}
		s.add(&record, wake)
	}
}

// read returns the next record, or false when it is woken up, asked to look at something, or ctx has ended.
func (s *shard) read(ctx context.Context, wake <-chan time.Time) (wal.Record, bool) {
	for attempt := 0; ; attempt++ {
		if s.reader == nil {
			reader, err := s.in.wal.Read(ctx, s.number, s.next)
			if err != nil {
				s.failed("read the WAL", err)
				if !s.wait(ctx, attempt) {
					return wal.Record{}, false
				}
				continue
			}
			s.reader = reader
		}
		var stopping, poke <-chan struct{}
		if wake != nil {
			stopping, poke = s.stopping, s.poke
		}
		select {
		case record, ok := <-s.reader.Records():
			if ok {
				s.next = record.Sequence + 1
				return record, true
			}
			s.failed("read the WAL", s.reader.Err())
			s.reader.Close()
			s.reader = nil
			if !s.wait(ctx, attempt) {
				return wal.Record{}, false
			}
		case <-wake:
			return wal.Record{}, false
		case <-stopping:
			return wal.Record{}, false
		case <-poke:
			return wal.Record{}, false
		case <-ctx.Done():
			return wal.Record{}, false
		}
	}
}

// decode decodes the record. One that can't be decoded becomes a dead letter, and counts as one of no
// entries. It returns false if ctx ended first.
func (s *shard) decode(ctx context.Context, record *wal.Record) bool {
	var err error
	if s.scratch, err = record.Decode(&s.decoded, s.scratch); err == nil {
		return true
	}
	s.decoded.Reset()
	return s.persist(ctx, "put a dead letter aside", func() error {
		if putErr := s.in.wal.DeadLetter(ctx, *record, err); putErr != nil {
			return putErr
		}
		s.in.metrics.deadLetters.Inc()
		s.log.Error("a record can't be decoded and is a dead letter now", "sequence", record.Sequence, "tenant", record.Tenant, "error", err)
		return nil
	})
}

// hold takes n bytes of the budget, if they are to be had at once. A record that is larger than the whole budget
// has to come alone, through makeRoom.
func (s *shard) hold(n int) bool {
	if !s.in.budget.TryAcquire(int64(n)) {
		return false
	}
	s.held += int64(n)
	return true
}

// makeRoom waits until the budget has room for the pending record. The batch is empty then, so that nobody
// waits for what this shard holds.
func (s *shard) makeRoom(ctx context.Context) bool {
	want := min(int64(store.SizeOf(&s.decoded)), s.in.cfg.BufferBytes)
	if s.in.budget.Acquire(ctx, want) != nil {
		return false
	}
	s.held += want
	return true
}

// add appends the decoded record to the batch. With the first one the flush interval begins, and wake is set
// to its end.
func (s *shard) add(record *wal.Record, wake *time.Timer) {
	if s.span.Last == 0 {
		s.span.First, s.began = record.Sequence, time.Now()
		if wake != nil {
			wake.Reset(s.in.cfg.FlushInterval)
		}
	}
	s.span.Last = record.Sequence
	s.batch.Add(record.Sequence, record.Tenant, &s.decoded)
	s.mu.Lock()
	s.gathered = s.batch.Rows()
	s.mu.Unlock()
}

func (s *shard) isFull() bool {
	return s.batch.Rows() >= s.in.cfg.FlushRows || s.batch.Size() >= s.in.cfg.FlushBytes
}

// isFlushDue tells whether the batch is as old as it may get, or what was asked to be flushed is in it.
func (s *shard) isFlushDue() bool {
	s.mu.Lock()
	asked := s.flushTo > s.landed && s.span.Last >= s.flushTo
	s.mu.Unlock()
	return asked || time.Since(s.began) >= s.in.cfg.FlushInterval
}

// intend records what is going to be inserted.
func (s *shard) intend(ctx context.Context) state {
	s.span.Bytes = int64(s.batch.Size())
	if s.batch.Rows() == 0 { // dead letters only
		return s.acknowledge
	}
	if !s.persist(ctx, "record the intent", func() error { return s.lease.Intend(ctx, s.span) }) {
		return s.release
	}
	return s.insert
}

// insert inserts the batch, as often as it takes. The token makes many attempts one insert.
func (s *shard) insert(ctx context.Context) state {
	s.set("inserting")
	began := time.Now()
	token := s.lease.Token(s.span)
	ok := s.persist(ctx, "insert", func() error {
		err := s.in.store.Insert(ctx, &s.batch, token)
		if err != nil && ctx.Err() == nil {
			s.in.metrics.retries.Inc()
			return errors.Join(err, s.lease.Check(ctx))
		}
		return err
	})
	if !ok {
		return s.release
	}
	took := time.Since(began)
	s.mu.Lock()
	s.lastFlush = flush{at: time.Now(), rows: s.batch.Rows(), bytes: s.batch.LineBytes(), took: took}
	s.mu.Unlock()
	s.in.metrics.flushed(s.batch.Rows(), s.batch.LineBytes(), took)
	s.log.Debug("batch landed", "first", s.span.First, "last", s.span.Last, "rows", s.batch.Rows(), "took", took)
	return s.acknowledge
}

// acknowledge tells the WAL that the batch is in ClickHouse.
func (s *shard) acknowledge(ctx context.Context) state {
	if !s.persist(ctx, "acknowledge", func() error { return s.lease.Land(ctx, s.span.Last) }) {
		return s.release
	}
	s.mu.Lock()
	s.landed, s.gathered = s.span.Last, 0
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.batch.Reset()
	s.span = wal.Range{}
	s.in.budget.Release(s.held)
	s.held = 0
	s.trim(ctx)
	return s.gather
}

// release hands the shard back. It is the last state, with whatever is left undone.
func (s *shard) release(ctx context.Context) state {
	if errors.Is(s.error(), wal.ErrFenced) {
		s.log.Warn("another ingester has taken this shard over; what was gathered is dropped here and landed there")
		return nil
	}
	if s.span.Last > 0 {
		s.log.Warn("handing the shard back before its batch landed; the next owner will land it", "first", s.span.First, "last", s.span.Last)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wal.DefaultTimeout)
	defer cancel()
	if err := s.lease.Release(ctx); err != nil {
		s.log.Warn("the shard could not be handed back; it is taken over when this ingester is gone", "error", err)
	}
	return nil
}

// persist does something until it succeeds. It returns false if the shard is fenced or ctx ended.
func (s *shard) persist(ctx context.Context, step string, do func() error) bool {
	for attempt := 0; ; attempt++ {
		err := do()
		if err == nil {
			s.recovered()
			return true
		}
		if ctx.Err() != nil && !errors.Is(err, wal.ErrFenced) {
			return false
		}
		s.failed(step, err)
		if errors.Is(err, wal.ErrFenced) || !s.wait(ctx, attempt) {
			return false
		}
	}
}

// wait waits before the next attempt, and returns false if ctx ended.
func (s *shard) wait(ctx context.Context, attempt int) bool {
	wait := min(firstWait<<min(attempt, 10), longestWait)
	select {
	case <-time.After(wait/2 + rand.N(wait/2)):
		return true
	case <-ctx.Done():
		return false
	}
}

// trim deletes what may go from the WAL. It is tried again with the next batch.
func (s *shard) trim(ctx context.Context) {
	if err := s.in.wal.Trim(ctx, s.number, s.lease.Position().Landed, s.in.cfg.ReplayWindow); err != nil && ctx.Err() == nil {
		s.log.Warn("trimming the WAL failed; it is tried again", "error", err)
	}
}

// stop asks the shard to flush what it has gathered and to end.
func (s *shard) stop() { s.stopOnce.Do(func() { close(s.stopping) }) }

func (s *shard) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// flush asks the shard to land all records up to the sequence without waiting for more.
func (s *shard) flush(to uint64) {
	s.mu.Lock()
	s.flushTo = max(s.flushTo, to)
	s.mu.Unlock()
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// awaitLanded returns once all records up to the sequence have landed.
func (s *shard) awaitLanded(ctx context.Context, to uint64) error {
	for {
		s.mu.Lock()
		landed, ended, changed := s.landed, s.ended, s.changed
		s.mu.Unlock()
		switch {
		case landed >= to:
			return nil
		case ended:
			return errors.New("the shard was handed back")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.error())
		}
	}
}

// set says what the shard is doing, from here on without a failure.
func (s *shard) set(doing string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doing, s.failure = doing, nil
}

// failed keeps why something is being tried again, and logs it: at once, and then now and again.
func (s *shard) failed(step string, err error) {
	s.mu.Lock()
	first := s.failure == nil
	s.failure = err
	remind := first || time.Since(s.reminded) >= remindAfter
	if remind {
		s.reminded = time.Now()
	}
	s.mu.Unlock()
	if remind && !errors.Is(err, wal.ErrFenced) {
		s.log.Warn("a step failed; it is tried again until it succeeds", "step", step, "error", err)
	}
}

// recovered says that what failed before has succeeded.
func (s *shard) recovered() {
	s.mu.Lock()
	failed := s.failure != nil
	s.failure = nil
	s.mu.Unlock()
	if failed {
		s.log.Info("the step that failed has succeeded")
	}
}

func (s *shard) error() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}
