package ingester

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// backoff is how long to wait before what failed is tried again: twice as long each time, with jitter.
type backoff struct{ first, longest time.Duration }

// What passes by itself is tried again soon. What an operator has to put right is looked at now and then.
var (
	soon   = backoff{250 * time.Millisecond, 10 * time.Second}
	slowly = backoff{5 * time.Second, time.Minute}
)

// remindAfter is how often a failure that goes on is logged again.
const remindAfter = time.Minute

// trimEvery is how often an idle shard is trimmed.
const trimEvery = time.Minute

// What an owner does with a shard, as a status and metrics name it.
const (
	stateRecovering = "recovering"
	stateGathering  = "gathering"
	stateInserting  = "inserting"
	stateRetrying   = "retrying" // a step that failed
)

// What a shard works with: of its lease, the WAL and ClickHouse what it uses of them. All of its effects go
// through these, so that a test can make each fail, before or after it was done.
type (
	lease interface {
		Position() wal.Position
		Token(r wal.Range) string
		Intend(ctx context.Context, r wal.Range) error
		Land(ctx context.Context, last uint64) error
		Check(ctx context.Context) error
		Release(ctx context.Context) error
	}
	journal interface {
		Last(ctx context.Context, shard int) (uint64, error)
		Read(ctx context.Context, shard int, from uint64) (*wal.Reader, error)
		DeadLetter(ctx context.Context, r wal.Record, reason error) error
		Trim(ctx context.Context, shard int, landed uint64, window time.Duration) error
	}
	table interface {
		Target(ctx context.Context, walShard int) (uint32, error)
		Insert(ctx context.Context, b *store.Batch, token string) error
		Reconcile(ctx context.Context, b *store.Batch) (missing int, err error)
	}
)

// shard is the life of one shard in the hands of its owner, a state machine:
//
//	look → recover → gather → intend → insert → acknowledge → gather …
//	                                     └─ bisect → gather …
//
// Each state is a method that returns the next; nil ends. A shard that is stopped flushes what it has
// gathered and releases its lease; one that runs out of time releases it with the intent in place, for the
// next owner to repeat; one that finds itself fenced drops everything.
type shard struct {
	in      *Ingester
	number  int
	lease   lease
	journal journal
	table   table
	log     *slog.Logger

	reader  *wal.Reader
	decoded logs.Batch // of the record that was read last
	scratch []byte     // what decoded points into
	pending *wal.Record
	batch   store.Batch
	span    wal.Range  // of the batch; Last is 0 while it is empty
	records int        // of the batch
	newest  wal.Record // of the batch
	unsure  bool       // ClickHouse may hold rows of the batch already: it is asked
	begun   bool       // the batch was inserted before, under its token, and nobody knows how that ended
	settled uint64     // the last record of the WAL when the shard was claimed
	next    uint64     // sequence from which on nothing has been read
	began   time.Time  // when the first record of the batch came
	held    int64      // bytes of the budget
	trimmed time.Time  // when the WAL was trimmed last

	links  []trace.Link      // of the batch, to the pushes that are traced
	labels map[string]string // of the streams in unlanded, each once

	// While a bad record is looked for:
	most    int    // records that a batch may have; 0: any number
	suspect uint64 // the last record of the batch that was refused

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
	failure   error     // of the step that is being tried again
	reminded  time.Time // when failure was logged last
	lastFlush flush
	unlanded  []unlanded    // what queries are told of; an element never changes
	readTo    uint64        // all records up to it have landed, or are in unlanded
	awaited   chan struct{} // closed when readTo or doing changes, or the shard ends; nil: nobody waits
}

// flush is one insert that was confirmed.
type flush struct {
	at          time.Time
	rows, bytes int
	took        time.Duration
}

// state is a step in the life of a shard. It returns the next, or nil at the end.
type state func(context.Context) state

func newShard(in *Ingester, number int, lease lease) *shard {
	landed := lease.Position().Landed
	return &shard{
		in: in, number: number, lease: lease, journal: in.wal, table: in.store, log: in.log.With("shard", number),
		batch: store.Batch{Shard: uint16(number)}, next: landed + 1, landed: landed, readTo: landed,
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
	for next := s.look; next != nil; {
		next = next(ctx)
	}
	s.stopReading()
	s.in.budget.Release(s.held)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	close(s.changed)
	s.wake()
}

// look finds out where the WAL of a former owner ends. Of those records ClickHouse may hold rows that the position does
// not tell of, as where that was lost, or an owner died while it looked for a bad record.
func (s *shard) look(ctx context.Context) state {
	s.set(stateRecovering)
	if s.persist(ctx, "look at the WAL", func() (err error) {
		s.settled, err = s.journal.Last(ctx, s.number)
		return err
	}) != nil {
		return s.release
	}
	return s.recover
}

// recover repeats the insert that a former owner intended, whose end nobody knows: the same rows with the same
// token. A ClickHouse that has them drops them by the token; one that has forgotten its tokens, as by a power cut,
// is asked for the rows themselves first.
func (s *shard) recover(ctx context.Context) state {
	intent := s.lease.Position().Intent
	if intent == nil {
		return s.gather
	}
	s.log.Info("repeating the insert that the former owner had begun", "first", intent.First, "last", intent.Last)
	s.held = min(intent.Bytes, s.in.cfg.BufferBytes)
	if err := s.in.budget.Acquire(ctx, s.held); err != nil {
		s.held = 0
		return s.release
	}
	s.next, s.began = intent.First, time.Now()
	for s.next <= min(intent.Last, s.settled) {
		record, ok := s.read(ctx, nil)
		if !ok {
			return s.release
		}
		if record.Sequence > intent.Last { // it is of the next batch, to be read again
			s.stopReading()
			s.next = record.Sequence
			break
		}
		if !s.decode(ctx, &record) {
			return s.release
		}
		s.note(&record)
		s.add(&record, nil)
	}
	if s.span.Last < intent.Last {
		s.log.Error("the WAL lacks records that a former owner meant to insert", "first", intent.First, "last", intent.Last)
	}
	s.span, s.unsure, s.begun = *intent, true, true
	s.batch.Target = intent.Target
	if s.batch.Rows() == 0 {
		return s.acknowledge
	}
	return s.insert
}

// gather fills the batch until it is full, or due, or a flush is asked for.
func (s *shard) gather(ctx context.Context) state {
	s.set(stateGathering)
	wake := time.NewTimer(s.in.cfg.OwnerTimeout)
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
				// Nothing that it writes would tell an idle owner that it is none any more, and it would go on counting the shard.
				if err := s.lease.Check(ctx); err != nil {
					s.failed("own the shard", err)
					return s.release
				}
				if time.Since(s.trimmed) >= trimEvery {
					s.trim(ctx)
				}
				wake.Reset(s.in.cfg.OwnerTimeout)
			}
			continue
		}
		if !s.decode(ctx, &record) {
			return s.release
		}
		s.note(&record)
		if !s.hold(s.sizeOf(&record)) {
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
			reader, err := s.journal.Read(ctx, s.number, s.next)
			if err != nil {
				s.failed("read the WAL", err)
				if !wait(ctx, soon, attempt) {
					return wal.Record{}, false
				}
				continue
			}
			s.reader = reader
			s.recovered()
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
			s.stopReading()
			if !wait(ctx, soon, attempt) {
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

// stopReading ends reading; it begins anew at next.
func (s *shard) stopReading() {
	if s.reader != nil {
		s.reader.Close()
		s.reader = nil
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
	return s.putAside(ctx, record, err)
}

// putAside makes the record a dead letter. It returns false if ctx ended first.
func (s *shard) putAside(ctx context.Context, record *wal.Record, reason error) bool {
	if s.persist(ctx, "put a dead letter aside", func() error { return s.journal.DeadLetter(ctx, *record, reason) }) != nil {
		return false
	}
	s.in.metrics.deadLetters.Inc()
	s.log.Error("a record is a dead letter now; logthra deadletter shows it", "sequence", record.Sequence, "tenant", record.Tenant, "error", reason)
	return true
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
	want := min(int64(s.sizeOf(s.pending)), s.in.cfg.BufferBytes)
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
	s.span.Last, s.newest = record.Sequence, *record
	s.records++
	s.batch.Add(record.Sequence, record.Tenant, &s.decoded, record)
	s.link(record)
	s.mu.Lock()
	s.gathered = s.batch.Rows()
	s.mu.Unlock()
}

func (s *shard) isFull() bool {
	if s.most > 0 && (s.records >= s.most || s.span.Last >= s.suspect) {
		return true
	}
	return s.batch.Rows() >= s.in.cfg.FlushRows || s.batch.Width() >= s.in.cfg.FlushBytes
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
	s.unsure = s.most > 0 || s.span.First <= s.settled // what a refused insert left behind, or a former owner, nobody knows
	if s.persist(ctx, "record the intent", func() (err error) {
		if s.span.Target, err = s.table.Target(ctx, s.number); err != nil {
			return err
		}
		return s.lease.Intend(ctx, s.span)
	}) != nil {
		return s.release
	}
	s.batch.Target = s.span.Target
	return s.insert
}

// insert inserts the batch, as often as it takes. The token makes many attempts one insert.
func (s *shard) insert(ctx context.Context) state {
	s.set(stateInserting)
	began := time.Now()
	token := s.lease.Token(s.span)
	ctx, endSpan := s.trace(ctx)
	err := s.persist(ctx, "insert", func() error {
		err := s.attempt(ctx, token)
		if err != nil && ctx.Err() == nil {
			s.in.metrics.failures.WithLabelValues(store.Classify(err).String()).Inc()
			return errors.Join(err, s.lease.Check(ctx))
		}
		return err
	})
	endSpan(err)
	switch {
	case errors.Is(err, wal.ErrFenced):
		return s.release
	case isRefused(err):
		return s.bisect(err)
	case err != nil:
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

// attempt tries once to insert what ClickHouse lacks of the batch. Where it may hold some of it the table is asked:
// the server may have lost its tokens since.
func (s *shard) attempt(ctx context.Context, token string) error {
	if err := s.lease.Check(ctx); err != nil { // one that was frozen for long would find out only after the insert
		return err
	}
	begun := s.begun
	if s.unsure {
		missing, err := s.table.Reconcile(ctx, &s.batch)
		if err != nil {
			return err
		}
		if there := s.batch.Rows() - missing; there > 0 {
			s.log.Info("the table holds rows of the batch already", "first", s.span.First, "last", s.span.Last, "there", there, "missing", missing)
		}
	}
	s.unsure, s.begun = true, true
	err := s.table.Insert(ctx, &s.batch, token)
	switch {
	case err == nil && begun:
		return s.confirm(ctx, token)
	case err == nil:
		return nil
	case store.Classify(err) != store.BadBatch:
		return err
	}
	// A view of somebody's that can't take a row fails the insert after the table has taken all of it.
	missing, reconcileErr := s.table.Reconcile(ctx, &s.batch)
	switch {
	case reconcileErr != nil:
		return reconcileErr
	case missing > 0:
		return &refusedError{err}
	}
	s.log.Warn("the batch has landed, although a view on the table refuses it", "first", s.span.First, "last", s.span.Last, "error", err)
	return nil
}

// furtherTokens is how many more tokens a repeated insert gets whose rows are not there.
const furtherTokens = 3

// confirm looks whether the rows of a repeated insert are there. ClickHouse writes a token down before it adds the
// rows: where it died in between, it takes the repetition for done, and the rows get a further token. By then
// nothing of the first insert is on its way any more.
func (s *shard) confirm(ctx context.Context, token string) error {
	for n := range furtherTokens + 1 {
		missing, err := s.table.Reconcile(ctx, &s.batch)
		if err != nil || missing == 0 {
			return err
		}
		if n == furtherTokens {
			s.log.Error("rows of the batch are not there after they were inserted; if retention has not removed them, logthra replay inserts them",
				"first", s.span.First, "last", s.span.Last, "missing", missing)
			break
		}
		s.log.Warn("ClickHouse knows the token of rows that it lacks; they get a further one", "first", s.span.First, "last", s.span.Last, "missing", missing)
		if err := s.table.Insert(ctx, &s.batch, fmt.Sprintf("%s-%d", token, n+2)); err != nil {
			return err
		}
	}
	return nil
}

// bisect looks for the record for which ClickHouse refuses the batch: it begins the batch again with half as
// many records, until a single one is refused. That one becomes a dead letter, and all others land.
func (s *shard) bisect(refused error) state {
	if s.records == 1 {
		return func(ctx context.Context) state {
			if !s.putAside(ctx, &s.newest, refused) {
				return s.release
			}
			return s.acknowledge
		}
	}
	s.log.Warn("ClickHouse refuses a batch for what is in it; looking for the record", "first", s.span.First, "last", s.span.Last, "records", s.records, "error", refused)
	s.most, s.suspect = s.records/2, max(s.suspect, s.span.Last)
	s.stopReading()
	s.next, s.pending = s.span.First, nil
	s.mu.Lock()
	s.unlanded, s.readTo = nil, s.landed
	s.mu.Unlock()
	s.clear()
	return s.gather
}

// clear makes the batch an empty one.
func (s *shard) clear() {
	s.batch.Reset()
	s.span, s.records, s.newest, s.unsure, s.begun = wal.Range{}, 0, wal.Record{}, false, false
	s.in.budget.Release(s.held)
	s.held = 0
	s.links = s.links[:0]
}

// acknowledge tells the WAL that the batch is in ClickHouse.
func (s *shard) acknowledge(ctx context.Context) state {
	if s.persist(ctx, "acknowledge", func() error { return s.lease.Land(ctx, s.span.Last) }) != nil {
		return s.release
	}
	s.mu.Lock()
	s.landed, s.gathered = s.span.Last, 0
	s.forget()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if s.most *= 2; s.span.Last >= s.suspect {
		s.most = 0
	}
	s.clear()
	s.trim(ctx)
	return s.gather
}

// release hands the shard back, with whatever is left undone. It is the last state.
func (s *shard) release(ctx context.Context) state {
	if errors.Is(s.error(), wal.ErrFenced) {
		s.in.metrics.fenced.Inc()
		s.log.Warn("another ingester has taken this shard over; what was gathered is dropped here and landed there")
		return nil
	}
	if s.span.Last > 0 {
		s.log.Warn("handing the shard back before its batch landed; the next owner will land it", "first", s.span.First, "last", s.span.Last)
	}
	ctx = context.WithoutCancel(ctx)
	for attempt := 0; ; attempt++ {
		err := s.handBack(ctx)
		if errors.Is(err, wal.ErrFenced) {
			s.in.metrics.fenced.Inc()
			return nil
		}
		if err == nil {
			return nil
		}
		s.failed("hand the shard back", err)
		if s.in.isDraining() {
			s.log.Warn("the shard could not be handed back; it is taken over when this ingester is gone", "error", err)
			return nil
		}
		// This ingester lives on, and nobody takes over what a live one owns.
		wait(ctx, soon, attempt)
	}
}

// handBack tries once to release the lease.
func (s *shard) handBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, wal.DefaultTimeout)
	defer cancel()
	return s.lease.Release(ctx)
}

// persist does something until it succeeds, or there is no use in repeating it: the shard is fenced, ClickHouse
// refuses the rows for what they are, or ctx has ended.
func (s *shard) persist(ctx context.Context, step string, do func() error) error {
	for attempt := 0; ; attempt++ {
		err := do()
		if err == nil {
			s.recovered()
			return nil
		}
		fenced := errors.Is(err, wal.ErrFenced)
		if !fenced && (ctx.Err() != nil || isRefused(err)) {
			return err
		}
		s.failed(step, err)
		pace := soon
		if needsOperator(err) {
			pace = slowly
		}
		if fenced || !wait(ctx, pace, attempt) {
			return err
		}
	}
}

// refusedError is why ClickHouse refuses the rows of a batch for what is in them.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// isRefused tells whether repeating is no use because of what is in the batch.
func isRefused(err error) bool {
	_, ok := errors.AsType[*refusedError](err)
	return ok
}

// needsOperator tells whether what failed stays so until somebody acts.
func needsOperator(err error) bool {
	return err != nil && store.Classify(err) != store.Transient || errors.Is(err, wal.ErrDeadLettersFull)
}

// wait waits before the next attempt, and returns false if ctx ended.
func wait(ctx context.Context, b backoff, attempt int) bool {
	most := min(b.first<<min(attempt, 10), b.longest)
	select {
	case <-time.After(most/2 + rand.N(most/2)):
		return true
	case <-ctx.Done():
		return false
	}
}

// trim deletes what may go from the WAL. It is tried again with the next batch.
func (s *shard) trim(ctx context.Context) {
	s.trimmed = time.Now()
	if err := s.journal.Trim(ctx, s.number, s.lease.Position().Landed, s.in.cfg.ReplayWindow); err != nil && ctx.Err() == nil {
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
	s.wake()
}

// current is what the shard is doing. It needs mu.
func (s *shard) current() string {
	if s.failure != nil {
		return stateRetrying
	}
	return s.doing
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
	switch {
	case !remind || errors.Is(err, wal.ErrFenced):
	case needsOperator(err):
		s.log.Error("a step fails and will until somebody acts; nothing is lost meanwhile", "step", step, "error", err)
	default:
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
