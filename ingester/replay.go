package ingester

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// ReplayConfig is what a replay looks at, and how.
type ReplayConfig struct {
	Tenant   string    // empty: all
	Shards   []int     // empty: all
	From, To time.Time // when the WAL took the records: From is in it, To is not; zero: no bound
	Request  string    // tenant and time as they were asked for; an unfinished replay of the same request is gone on with

	Partial bool // also where the WAL does not hold all any more that it took since From
	Restart bool // abandon an unfinished replay of these shards, whatever it was asked for, and begin anew
	DryRun  bool // only look; an unfinished replay is left alone

	Rate       int           // most rows inserted a second, on average; 0: any number
	FlushRows  int           // a batch ends with so many rows,
	FlushBytes int           // or with so many bytes of memory, whichever is first
	Patience   time.Duration // how long a step that fails is tried again
	Timeout    time.Duration // after so long without a sign of life another replay counts as dead
}

// ReplayedShard is how far the replay of a shard is, and what has come of it so far.
type ReplayedShard struct {
	Shard   int       `json:"shard"`
	First   uint64    `json:"first"`            // first sequence that is looked at, after what was done before
	Last    uint64    `json:"last"`             // last one; before First if there is none
	Done    uint64    `json:"done"`             // last one that was; First - 1 at the beginning
	Resumed time.Time `json:"resumed,omitzero"` // when the replay began that this one goes on with

	Records     uint64 `json:"records"`      // that were looked at, those that were left out included
	Rows        uint64 `json:"rows"`         // of the records that were not
	Missing     uint64 `json:"missing"`      // rows that the table lacked
	Inserted    uint64 `json:"inserted"`     // rows: the missing ones, but in a dry run none
	Present     uint64 `json:"present"`      // rows that the table held
	Expired     uint64 `json:"expired"`      // rows that are older than the table's retention
	DeadLetters uint64 `json:"dead_letters"` // records that were left out since they are dead letters,
	Undecodable uint64 `json:"undecodable"`  // or can't be decoded
	Trimmed     uint64 `json:"trimmed"`      // records, at most, that the WAL deleted before they could be looked at
}

// ReplayTotal adds the numbers of shards up.
func ReplayTotal(shards []ReplayedShard) (all ReplayedShard) {
	for _, s := range shards {
		all.add(s)
	}
	return all
}

// add adds the numbers of a batch, or of another shard.
func (s *ReplayedShard) add(b ReplayedShard) {
	s.Records += b.Records
	s.Rows += b.Rows
	s.Missing += b.Missing
	s.Inserted += b.Inserted
	s.Present += b.Present
	s.Expired += b.Expired
	s.DeadLetters += b.DeadLetters
	s.Undecodable += b.Undecodable
	s.Trimmed += b.Trimmed
}

// beats is how many signs of life a replay gives in the time after which it counts as dead.
const beats = 4

// Replay re-inserts from the WAL what the table lacks, and only that: the rows of records that have landed when it
// begins. Dead letters are left out, and so are rows that retention would remove at once. It runs beside the
// ingesters, with one insert at a time. Run it once.
//
// It is exactly once by the means of a shard's owner: it holds a lease of the shard's replay, and the range of a batch
// is its intent before it is inserted with a token made of both. Whoever goes on with a replay that was cut off
// begins with that range and that token.
type Replay struct {
	cfg   ReplayConfig
	wal   *wal.WAL
	store *store.Store
	table table // the store
	log   *slog.Logger

	letters   map[letter]bool // dead letters
	retention time.Duration
	nextAt    time.Time // the next insert does not begin before

	batch   store.Batch
	counts  ReplayedShard // of the batch
	decoded logs.Batch    // of the record that was read last
	scratch []byte        // what decoded points into

	mu      sync.Mutex
	parts   []*part // the slice, and the ReplayedShard of each
	waiting string
}

// part is the replay of one shard.
type part struct {
	ReplayedShard

	want     wal.ReplayPosition // by which it is claimed
	complete bool               // the WAL holds all that it took in the time that was asked for
	since    time.Time          // when the WAL took the oldest record that it holds
	lease    *wal.ReplayLease   // nil where nothing is to be inserted
}

var (
	// ErrUnfinished is returned, with the reason, by a replay that ended before it was through. The next one of the
	// same request goes on from there.
	ErrUnfinished = errors.New("the replay is unfinished, the same one again goes on from there")
	// ErrTrimmed is returned where the WAL deleted records during the replay. All others were looked at.
	ErrTrimmed = errors.New("the WAL deleted records before they could be looked at")

	errDeleted = errors.New("rows that this replay inserted were deleted meanwhile, and ClickHouse takes the insert for a repetition; --restart begins anew")
)

// PartialError is returned where the WAL does not hold all any more that it took in the time that was asked for.
type PartialError struct {
	From  time.Time
	Since map[int]time.Time // when the oldest record was taken that a shard holds; zero: it holds none
}

func (e *PartialError) Error() string {
	var shards []string
	for _, n := range slices.Sorted(maps.Keys(e.Since)) {
		holds := "nothing"
		if !e.Since[n].IsZero() {
			holds = "what came since " + e.Since[n].UTC().Format(time.RFC3339)
		}
		shards = append(shards, fmt.Sprintf("shard %d holds %s", n, holds))
	}
	return fmt.Sprintf("the WAL does not hold all any more that it took since %s: %s",
		e.From.UTC().Format(time.RFC3339), strings.Join(shards, ", "))
}

// NewReplay returns a replay that does not run yet.
func NewReplay(cfg ReplayConfig, w *wal.WAL, s *store.Store, log *slog.Logger) *Replay {
	return &Replay{cfg: cfg, wal: w, store: s, table: s, log: log, letters: map[letter]bool{}}
}

// Progress is how far each shard is, none before it has begun, and what the replay waits for, empty while it does not.
// It can be called at any time.
func (r *Replay) Progress() (shards []ReplayedShard, waiting string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.parts {
		shards = append(shards, p.ReplayedShard)
	}
	return shards, r.waiting
}

// Run replays. It returns when all is done, ctx has ended, or a step has failed in a way that does not pass by itself,
// or for longer than the patience. Among its errors are wal.ErrReplayRuns, wal.ErrOtherReplay and *PartialError, of a
// replay that has done nothing, ErrUnfinished and ErrTrimmed.
func (r *Replay) Run(ctx context.Context) (err error) {
	if r.retention, err = r.store.Retention(ctx); err != nil {
		return err
	}
	parts, err := r.lookUp(ctx)
	if err != nil {
		return err
	}
	// What had landed by now is a dead letter already, or never will be.
	for d, err := range r.wal.DeadLetters(ctx, "") {
		if err != nil {
			return err
		}
		r.letters[letter{d.Shard, d.Sequence}] = true
	}
	if !r.cfg.DryRun {
		if err := r.resume(ctx, parts); err != nil {
			return err
		}
	}
	if err := r.checkComplete(parts); err != nil {
		return err
	}
	err = r.holding(ctx, parts, func(ctx context.Context) error {
		r.mu.Lock()
		r.parts = parts
		r.mu.Unlock()
		for _, p := range parts {
			if err := r.replay(ctx, p); err != nil {
				return fmt.Errorf("shard %d: %w", p.Shard, err)
			}
		}
		return nil
	})
	if err == nil && !r.cfg.From.IsZero() && !r.cfg.Partial && slices.ContainsFunc(parts, func(p *part) bool { return p.Trimmed > 0 }) {
		return ErrTrimmed
	}
	return err
}

// lookUp finds out what there is to be looked at.
func (r *Replay) lookUp(ctx context.Context) ([]*part, error) {
	shards := r.cfg.Shards
	if len(shards) == 0 {
		for n := range r.wal.Shards() {
			shards = append(shards, n)
		}
	}
	var parts []*part
	for _, n := range shards {
		if n < 0 || n >= r.wal.Shards() {
			return nil, fmt.Errorf("there is no shard %d: the WAL has the shards 0 to %d", n, r.wal.Shards()-1)
		}
		position, err := r.wal.Position(ctx, n)
		if err != nil {
			return nil, err
		}
		span, err := r.wal.Span(ctx, n, r.cfg.From, r.cfg.To)
		if err != nil {
			return nil, err
		}
		last := min(span.Last, position.Landed)
		parts = append(parts, &part{
			ReplayedShard: ReplayedShard{Shard: n, First: span.First, Last: last, Done: span.First - 1},
			want:          wal.ReplayPosition{ID: rand.Text(), Tenant: r.cfg.Tenant, First: span.First, Last: last, Request: r.cfg.Request},
			complete:      span.Complete, since: span.Since,
		})
	}
	return parts, nil
}

// resume turns to the unfinished replays of the shards: those of the same request are what is replayed of their shards.
// Others stand in the way, and a restart abandons them all.
func (r *Replay) resume(ctx context.Context, parts []*part) error {
	var former []*part
	for _, p := range parts {
		unfinished, err := r.wal.Replay(ctx, p.Shard)
		if errors.Is(err, wal.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		f := &part{
			ReplayedShard: ReplayedShard{Shard: p.Shard, Last: unfinished.Last, Resumed: unfinished.Started},
			want:          unfinished,
			complete:      true, // or it would not have begun
		}
		if r.cfg.Restart {
			former = append(former, f)
		} else if unfinished.Request == r.cfg.Request {
			*p = *f
		}
	}
	if len(former) == 0 {
		return nil
	}
	return r.holding(ctx, former, func(ctx context.Context) error {
		for _, f := range former {
			if err := r.abandon(ctx, f); err != nil {
				return fmt.Errorf("abandoning the former replay of shard %d: %w", f.Shard, err)
			}
		}
		return nil
	})
}

// abandon ends a replay where it is. An insert that it had begun may still be on its way to the table, and is known by
// its token alone: it is repeated, so that it can't land later as a second one.
func (r *Replay) abandon(ctx context.Context, p *part) error {
	intent := p.lease.Position().Intent
	if intent == nil {
		return nil
	}
	err := r.pass(ctx, p, intent.First, intent.Last, true)
	if err == nil || ctx.Err() != nil || !errors.Is(err, errDeleted) && store.Classify(err) != store.BadBatch {
		return err
	}
	// It has landed, or ClickHouse refuses it: nothing of it is on its way.
	return r.persist(ctx, "abandoning a replay", func() error { return p.lease.Done(ctx, p.Done) })
}

// checkComplete returns a *PartialError where a replay that is to be complete can't be.
func (r *Replay) checkComplete(parts []*part) error {
	if r.cfg.From.IsZero() || r.cfg.Partial {
		return nil
	}
	since := map[int]time.Time{}
	for _, p := range parts {
		if !p.complete {
			since[p.Shard] = p.since
		}
	}
	if len(since) > 0 {
		return &PartialError{From: r.cfg.From, Since: since}
	}
	return nil
}

// holding does something while it holds the leases of all parts, and finishes them after that. Where it fails they
// are given back, for the same replay to be gone on with.
func (r *Replay) holding(ctx context.Context, parts []*part, do func(context.Context) error) error {
	if r.cfg.DryRun {
		return do(ctx)
	}
	if err := r.claim(ctx, parts); err != nil {
		return err
	}
	beating, cancel := context.WithCancelCause(ctx)
	var done sync.WaitGroup
	done.Go(func() { r.keepBeating(beating, cancel, parts) })
	err := do(beating)
	cancel(nil)
	done.Wait()
	for _, p := range parts {
		if p.lease == nil || err != nil {
			continue
		}
		err = r.persist(ctx, "recording the end", func() error { return p.lease.Finish(ctx) })
	}
	if err != nil {
		r.giveBack(ctx, parts)
		return fmt.Errorf("%w; %w", err, ErrUnfinished)
	}
	return nil
}

// claim claims the replays of all parts, or none. They are claimed side by side, as it takes the timeout to see
// that an unfinished one does not run.
func (r *Replay) claim(ctx context.Context, parts []*part) error {
	r.await("looking whether another replay runs")
	defer r.await("")
	group, claiming := errgroup.WithContext(ctx)
	for _, p := range parts {
		if p.want.First > p.want.Last {
			continue
		}
		group.Go(func() (err error) {
			if p.lease, err = r.wal.ClaimReplay(claiming, p.Shard, p.want, r.cfg.Timeout); err != nil {
				return fmt.Errorf("shard %d: %w", p.Shard, err)
			}
			claimed := p.lease.Position()
			p.Done, p.First = claimed.Done, claimed.Done+1
			if claimed.ID != p.want.ID { // one of another request, but of the same records
				p.Resumed = claimed.Started
			}
			return nil
		})
	}
	err := group.Wait()
	if err == nil {
		return nil
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), wal.DefaultTimeout)
	defer cancel()
	for _, p := range parts {
		if p.lease != nil && p.Resumed.IsZero() { // begun here, and not needed
			if err := p.lease.Finish(end); err != nil {
				r.log.Warn("a replay that was not begun could not be ended; --restart abandons it", "shard", p.Shard, "error", err)
			}
			p.lease = nil
		}
	}
	r.giveBack(ctx, parts)
	return err
}

// giveBack lets the next one go on with these replays at once.
func (r *Replay) giveBack(ctx context.Context, parts []*part) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wal.DefaultTimeout)
	defer cancel()
	for _, p := range parts {
		if p.lease == nil {
			continue
		}
		if err := p.lease.Release(ctx); err != nil && !errors.Is(err, wal.ErrReplayRuns) {
			r.log.Warn("the replay could not be given back; it can be gone on with after a while", "shard", p.Shard, "error", err)
		}
	}
}

// keepBeating shows that the replay runs, until ctx ends. It ends ctx when another process has taken the replay over.
func (r *Replay) keepBeating(ctx context.Context, end context.CancelCauseFunc, parts []*part) {
	ticker := time.NewTicker(r.cfg.Timeout / beats)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, p := range parts {
			if p.lease == nil {
				continue
			}
			if err := p.lease.Beat(ctx); errors.Is(err, wal.ErrReplayRuns) {
				end(fmt.Errorf("shard %d: %w", p.Shard, err))
				return
			} // or else NATS is away, as the replay itself finds out
		}
	}
}

// replay looks at what is left of a shard. What was intended comes first, as it was intended.
func (r *Replay) replay(ctx context.Context, p *part) error {
	if p.lease != nil {
		if intent := p.lease.Position().Intent; intent != nil {
			if err := r.pass(ctx, p, intent.First, intent.Last, true); err != nil {
				return err
			}
		}
	}
	return r.pass(ctx, p, p.Done+1, p.Last, false)
}

// pass looks at the records first..last of a shard, batch by batch; or all at once where they are the batch that a
// replay which is resumed had begun to insert.
func (r *Replay) pass(ctx context.Context, p *part, first, last uint64, resumed bool) error {
	r.begin(p)
	from, next := first, first // where the batch begins; from where on nothing has been read
	var reading trouble
	for next <= last {
		var failure error
		for record, err := range r.wal.Records(ctx, p.Shard, next, last, p.want.Tenant) {
			if err != nil {
				failure = err
				break
			}
			r.over(&reading)
			r.add(&record)
			next = record.Sequence + 1
			if resumed || r.batch.Rows() < r.cfg.FlushRows && r.batch.Width() < r.cfg.FlushBytes {
				continue
			}
			if err := r.flush(ctx, p, wal.Range{First: from, Last: record.Sequence}, false); err != nil {
				return err
			}
			from = next
		}
		if failure == nil {
			break
		}
		if err := r.again(ctx, "reading the WAL", &reading, failure); err != nil {
			return err
		}
	}
	if from > last {
		return nil
	}
	return r.flush(ctx, p, wal.Range{First: from, Last: last}, resumed)
}

// begin makes the batch an empty one.
func (r *Replay) begin(p *part) {
	r.batch.Reset()
	r.batch.Shard = uint16(p.Shard)
	r.counts = ReplayedShard{}
}

// add adds a record to the batch, unless it is to be left out.
func (r *Replay) add(record *wal.Record) {
	r.counts.Records++
	if r.letters[letter{record.Shard, record.Sequence}] {
		r.counts.DeadLetters++
		return
	}
	var err error
	if r.scratch, err = record.Decode(&r.decoded, r.scratch); err != nil {
		r.counts.Undecodable++
		r.log.Warn("a record can't be decoded and is left out", "shard", record.Shard, "sequence", record.Sequence, "tenant", record.Tenant, "error", err)
		return
	}
	r.batch.Add(record.Sequence, record.Tenant, &r.decoded, record)
}

// flush inserts what the table lacks of the batch, and records that its range is done.
func (r *Replay) flush(ctx context.Context, p *part, span wal.Range, resumed bool) error {
	span.Bytes = int64(r.batch.Size())
	err := r.insert(ctx, p, span, resumed)
	if err == nil {
		err = r.persist(ctx, "looking for records that the WAL deleted", func() (err error) {
			r.counts.Trimmed, err = r.trimmed(ctx, p, span)
			return err
		})
	}
	if err == nil && p.lease != nil {
		err = r.persist(ctx, "recording what is done", func() error { return p.lease.Done(ctx, span.Last) })
	}
	if err != nil {
		return fmt.Errorf("records %d to %d: %w", span.First, span.Last, err)
	}
	r.mu.Lock()
	p.Done = span.Last
	p.add(r.counts)
	r.mu.Unlock()
	r.begin(p)
	return nil
}

// insert inserts what the table lacks of the batch. Where the replay is resumed that may have been done before.
func (r *Replay) insert(ctx context.Context, p *part, span wal.Range, resumed bool) error {
	rows := r.batch.Rows()
	if rows == 0 {
		return nil
	}
	expired := 0
	if r.retention > 0 {
		expired = r.batch.SkipBefore(expiryHorizon(r.retention))
	}
	missing, intended, tried := -1, resumed, resumed
	if resumed {
		span.Target = p.lease.Position().Intent.Target
	}
	err := r.persist(ctx, "inserting", func() (err error) {
		if !intended {
			if span.Target, err = r.table.Target(ctx, p.Shard); err != nil {
				return err
			}
		}
		r.batch.Target = span.Target
		n, err := r.table.Reconcile(ctx, &r.batch)
		if err != nil {
			return err
		}
		if missing < 0 { // later attempts find what earlier ones have inserted
			missing = n
		}
		if n == 0 || p.lease == nil {
			return nil
		}
		if !intended {
			if err := r.pace(ctx, n); err != nil {
				return err
			}
			if err := p.lease.Intend(ctx, span); err != nil {
				return err
			}
			intended = true
		}
		repeats := tried
		tried = true
		if err := r.table.Insert(ctx, &r.batch, p.lease.Token(span)); err != nil || !repeats {
			return err
		}
		// ClickHouse says yes also to an insert that it has seen before, whose rows somebody may have deleted since.
		if n, err = r.table.Reconcile(ctx, &r.batch); err == nil && n > 0 {
			err = fmt.Errorf("%d %w", n, errDeleted)
		}
		return err
	})
	if err != nil {
		return err
	}
	r.counts.Rows, r.counts.Expired, r.counts.Missing = uint64(rows), uint64(expired), uint64(missing)
	r.counts.Present = uint64(rows - expired - missing)
	if p.lease != nil {
		r.counts.Inserted = r.counts.Missing
	}
	return nil
}

// trimmed is how many records of the range the WAL deleted before they were read. Of one tenant's it can't be told
// from those of others: then it is how many at most.
func (r *Replay) trimmed(ctx context.Context, p *part, span wal.Range) (uint64, error) {
	all := span.Last - span.First + 1
	if p.want.Tenant == "" {
		return all - r.counts.Records, nil
	}
	held, err := r.wal.Span(ctx, p.Shard, time.Time{}, time.Time{})
	if err != nil || held.First <= span.First {
		return 0, err
	}
	return min(held.First-span.First, all), nil
}

// pace waits until rows may be inserted.
func (r *Replay) pace(ctx context.Context, rows int) error {
	if r.cfg.Rate <= 0 {
		return nil
	}
	select {
	case <-time.After(time.Until(r.nextAt)):
	case <-ctx.Done():
		return ctx.Err()
	}
	r.nextAt = time.Now().Add(time.Duration(float64(rows) / float64(r.cfg.Rate) * float64(time.Second)))
	return nil
}

// trouble is a step that fails: since when, and how often it was tried again.
type trouble struct {
	since    time.Time
	attempts int
}

// persist does a step until it succeeds, or there is no use in going on.
func (r *Replay) persist(ctx context.Context, step string, do func() error) error {
	var t trouble
	for {
		err := do()
		if err == nil {
			r.over(&t)
			return nil
		}
		if err := r.again(ctx, step, &t, err); err != nil {
			return err
		}
	}
}

// again waits before a step is tried again, and returns an error where there is no use in that: it does not fail
// for something that passes by itself, or has for longer than the patience, or ctx has ended.
func (r *Replay) again(ctx context.Context, step string, t *trouble, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, wal.ErrReplayRuns), errors.Is(err, errDeleted), store.Classify(err) != store.Transient:
		return err
	case t.attempts == 0:
		t.since = time.Now()
		r.log.Warn("a step failed; it is tried again", "step", step, "patience", r.cfg.Patience, "error", err)
	case time.Since(t.since) >= r.cfg.Patience:
		return fmt.Errorf("%s failed for %s: %w", step, r.cfg.Patience, err)
	}
	t.attempts++
	r.await(fmt.Sprintf("trying again: %v", err))
	if !wait(ctx, soon, t.attempts) {
		return context.Cause(ctx)
	}
	return nil
}

// over ends a trouble.
func (r *Replay) over(t *trouble) {
	if t.attempts > 0 {
		r.log.Info("the step that failed has succeeded")
		r.await("")
		*t = trouble{}
	}
}

// await says what is waited for.
func (r *Replay) await(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = what
}
