// Package ingester lands the WAL in ClickHouse. An ingester owns some of the shards; for each it gathers
// records in order into a batch, records the batch's range as its intent, inserts it, and acknowledges the
// WAL once ClickHouse has confirmed. The ingesters share the shards out among themselves.
package ingester

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// Config is how an ingester gathers and flushes.
type Config struct {
	ID            string        // unique among the ingesters, and never used again
	GRPC          string        // address of its IngesterService, for the others to see
	FlushInterval time.Duration // a batch ends so long after its first record came,
	FlushRows     int           // or with so many rows,
	FlushBytes    int           // or with so many bytes of memory, whichever is first
	BufferBytes   int64         // most bytes of memory of all batches together
	ReplayWindow  time.Duration // how long records that have landed stay in the WAL
	OwnerTimeout  time.Duration // within so long the shards of an ingester that is gone are taken over
	DrainTimeout  time.Duration // most time that a shard gets to flush before it is handed back

	Tracer trace.Tracer // makes spans of flushes; nil: there are none
}

// Ingester owns shards and lands them. Run it once.
type Ingester struct {
	cfg     Config
	wal     *wal.WAL
	store   *store.Store
	budget  budget // of cfg.BufferBytes
	metrics *Metrics
	log     *slog.Logger
	started time.Time
	asked   chan struct{} // has room for as many queries as are answered at a time

	mu       sync.Mutex
	shards   map[int]*shard // those that run
	unclear  map[int]bool   // those that do not run, and may be this ingester's all the same: the answer to a claim was lost
	draining bool
	drained  chan struct{} // closed when draining and no shard runs any more
	running  sync.WaitGroup
}

// New returns an ingester that is not running yet.
func New(cfg Config, w *wal.WAL, s *store.Store, m *Metrics, log *slog.Logger) *Ingester {
	in := &Ingester{
		cfg: cfg, wal: w, store: s, metrics: m, log: log, started: time.Now(),
		budget: budget{semaphore.NewWeighted(cfg.BufferBytes), m.buffered},
		shards: map[int]*shard{}, unclear: map[int]bool{}, drained: make(chan struct{}),
		asked: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
	}
	m.configured(cfg)
	m.registry.MustRegister(&collector{in: in})
	return in
}

// Run owns and lands shards until ctx ends, or Drain is called. Then it flushes what it has gathered,
// acknowledges, hands its shards back and returns; what takes longer than the drain timeout is handed back
// unflushed, for the next owner to land. It returns an error only where it could not begin.
func (in *Ingester) Run(ctx context.Context) error {
	members, err := in.wal.Join(ctx, in.cfg.ID, wal.Member{Started: in.started, GRPC: in.cfg.GRPC}, in.cfg.OwnerTimeout)
	if err != nil && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("joining the ingesters: %w", err)
	}
	ticker := time.NewTicker(in.cfg.OwnerTimeout / 10)
	defer ticker.Stop()
	for {
		in.balance(ctx, members)
		select {
		case <-ticker.C:
			continue
		case <-in.drained:
		case <-ctx.Done():
		}
		break
	}
	in.drain()
	in.running.Wait()
	// Shards that are handed back are claimed by those that are left: they have to know who that is.
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), wal.DefaultTimeout)
	defer cancel()
	if err := members.Leave(leave); err != nil {
		in.log.Warn("the other ingesters could not be told that this one leaves", "error", err)
	}
	if ctx.Err() == nil { // drained by a call: stay, idle
		<-ctx.Done()
	}
	return nil
}

// balance brings the number of shards that this ingester owns to its share.
func (in *Ingester) balance(ctx context.Context, members *wal.Membership) {
	in.mu.Lock()
	if in.draining {
		in.mu.Unlock()
		return
	}
	share := fairShare(in.wal.Shards(), members.Sharing(), in.cfg.ID)
	var staying []int
	for n, s := range in.shards {
		if !s.isStopping() {
			staying = append(staying, n)
		}
	}
	slices.Sort(staying)
	// Who has just died is not handed anything. Until that is known, nobody is.
	for len(staying) > share && !members.IsAnyMissing() {
		last := len(staying) - 1
		in.shards[staying[last]].stop()
		staying = staying[:last]
	}
	owned, unclear := maps.Clone(in.shards), maps.Clone(in.unclear)
	in.mu.Unlock()

	overdue := members.IsAnyOverdue()
	for n := 0; n < in.wal.Shards() && ctx.Err() == nil; n++ {
		switch {
		case owned[n] != nil:
			continue
		case len(staying) < share || unclear[n]:
		case overdue:
			// Those whose share it is may have died, too. Better too many for a while than none.
			p, err := in.wal.Position(ctx, n)
			if err != nil || !members.IsOverdue(p.Owner) {
				continue
			}
		default:
			continue
		}
		lease, err := in.wal.Claim(ctx, n, in.cfg.ID, members.IsLive)
		in.setUnclear(n, err != nil && !errors.Is(err, wal.ErrOwned))
		if errors.Is(err, wal.ErrOwned) {
			continue
		}
		if err != nil {
			in.log.Warn("claiming a shard failed; it is tried again", "shard", n, "error", err)
			return
		}
		in.metrics.tookOver(in.cfg.ID, lease.Former())
		in.start(ctx, n, lease)
		staying = append(staying, n)
	}
}

// setUnclear keeps whether a shard may be this ingester's although it does not run. Nobody else takes such a one.
func (in *Ingester) setUnclear(shard int, unclear bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if unclear {
		in.unclear[shard] = true
	} else {
		delete(in.unclear, shard)
	}
}

// fairShare is how many of the shards the ingester with this id is to own: all have the same number, but
// that the first in order have one more where it does not divide evenly.
func fairShare(shards int, live []string, id string) int {
	share := shards / len(live)
	if slices.Index(live, id) < shards%len(live) {
		share++
	}
	return share
}

// start runs a shard that was claimed.
func (in *Ingester) start(ctx context.Context, number int, lease *wal.Lease) {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := newShard(in, number, lease)
	in.shards[number] = s
	in.running.Go(func() {
		s.run(context.WithoutCancel(ctx))
		in.mu.Lock()
		defer in.mu.Unlock()
		delete(in.shards, number)
		in.checkDrained()
	})
	if in.draining { // while it was being claimed
		s.stop()
	}
}

// drain stops all shards and takes no new ones.
func (in *Ingester) drain() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.draining = true
	for _, s := range in.shards {
		s.stop()
	}
	in.checkDrained()
}

func (in *Ingester) isDraining() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.draining
}

// checkDrained needs mu.
func (in *Ingester) checkDrained() {
	if !in.draining || len(in.shards) > 0 {
		return
	}
	select {
	case <-in.drained:
	default:
		close(in.drained)
	}
}

// Drain flushes, hands all shards back and takes no new ones; it returns how many rows landed on the way. It
// returns before that where ctx ends, and draining goes on.
func (in *Ingester) Drain(ctx context.Context) (rows uint64, err error) {
	before := in.metrics.landed.Load()
	in.drain()
	select {
	case <-in.drained:
		return in.metrics.landed.Load() - before, nil
	case <-ctx.Done():
		return in.metrics.landed.Load() - before, ctx.Err()
	}
}

// Flush lands all that the WAL held of this ingester's shards when it was called, and returns how many rows
// landed on the way. Where ctx ends before that, landing goes on.
func (in *Ingester) Flush(ctx context.Context) (rows uint64, err error) {
	before := in.metrics.landed.Load()
	in.mu.Lock()
	owned := slices.Collect(maps.Values(in.shards))
	in.mu.Unlock()
	targets := make([]uint64, len(owned))
	for i, s := range owned {
		if targets[i], err = in.wal.Last(ctx, s.number); err != nil {
			return 0, err
		}
		s.flush(targets[i])
	}
	for i, s := range owned {
		if err := s.awaitLanded(ctx, targets[i]); err != nil {
			return in.metrics.landed.Load() - before, err
		}
	}
	return in.metrics.landed.Load() - before, nil
}

// Ready returns an error that says what is wrong while this ingester can't land anything, or a shard of it until
// an operator acts.
func (in *Ingester) Ready(ctx context.Context) error {
	in.mu.Lock()
	owned := maps.Clone(in.shards)
	in.mu.Unlock()
	if in.isDraining() {
		return errors.New("draining")
	}
	failures := []error{in.wal.Ready(ctx), in.store.Ready(ctx)}
	for _, n := range slices.Sorted(maps.Keys(owned)) {
		if err := owned[n].error(); err != nil && needsOperator(err) {
			failures = append(failures, fmt.Errorf("shard %d: %w", n, err))
		}
	}
	return errors.Join(failures...)
}
