package ingester

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/casteloig/logthra/shared/wal"
)

// What a scrape costs at most: how long it waits for the state of the WAL, how many shards are asked for it at a time, and
// how often and for how long dropped dead letters are counted.
const (
	scrapeTimeout   = 2 * time.Second
	scrapeAtOnce    = 16
	tombstonesEvery = time.Minute
	tombstonesMost  = time.Second
)

var (
	backlogRecords = prometheus.NewDesc("logthra_wal_backlog_records", "Records of the WAL that have not landed in ClickHouse.", []string{"shard"}, nil)
	backlogBytes   = prometheus.NewDesc("logthra_wal_backlog_bytes", "Estimated bytes of the records that have not landed.", []string{"shard"}, nil)
	backlogAge     = prometheus.NewDesc("logthra_wal_oldest_unflushed_seconds", "Age of the oldest record that has not landed, 0 if there is none.", []string{"shard"}, nil)
	walBytes       = prometheus.NewDesc("logthra_wal_bytes", "Bytes of the WAL, records that are kept for replay included.", []string{"shard"}, nil)
	walMaxBytes    = prometheus.NewDesc("logthra_wal_max_bytes", "Bytes that the WAL may hold.", []string{"shard"}, nil)
	walUnreadable  = prometheus.NewDesc("logthra_wal_unreadable_shards",
		"Shards of the WAL whose state this ingester could not read from NATS for this scrape; their other logthra_wal metrics are left out.", nil, nil)

	letters        = prometheus.NewDesc("logthra_wal_dead_letters", "Dead letters that wait to be retried or dropped.", nil, nil)
	lettersBytes   = prometheus.NewDesc("logthra_wal_dead_letters_bytes", "Bytes of the stream of dead letters.", nil, nil)
	lettersMaxByte = prometheus.NewDesc("logthra_wal_dead_letters_max_bytes", "Bytes that the stream of dead letters may hold; full, shards with a bad record wait.", nil, nil)

	shardState  = prometheus.NewDesc("logthra_ingester_shard_state", "1 for what this ingester does with a shard that it owns, 0 for what it does not.", []string{"shard", "state"}, nil)
	shardLanded = prometheus.NewDesc("logthra_ingester_last_landed_timestamp_seconds",
		"When ClickHouse confirmed the last batch of a shard that this ingester owns, if it has landed one since it owns it.", []string{"shard"}, nil)
)

// states are what an owner may do with a shard, as a status and metrics name it.
var states = []string{stateRecovering, stateGathering, stateInserting, stateRetrying}

// collector tells, whenever it is asked, of the WAL and of the shards of an ingester. Every ingester tells of the whole WAL,
// so that a shard is seen also while it has no owner; aggregate with max.
type collector struct {
	in *Ingester

	mu         sync.Mutex
	counted    wal.DeadLetterState // when the tombstones were counted last
	tombstones uint64
	counting   wal.DeadLetterState // when the count that is under way began,
	next       uint64              // where it goes on, 0 if none is,
	found      uint64              // and what it has found
	countedAt  time.Time
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		backlogRecords, backlogBytes, backlogAge, walBytes, walMaxBytes, walUnreadable, letters, lettersBytes, lettersMaxByte, shardState, shardLanded,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector. What can't be read is left out.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.collectOwned(out)
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	c.collectWAL(ctx, out)
	c.collectDeadLetters(ctx, out)
}

func gauge(out chan<- prometheus.Metric, desc *prometheus.Desc, value float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

// collectOwned tells what only the owner of a shard knows.
func (c *collector) collectOwned(out chan<- prometheus.Metric) {
	c.in.mu.Lock()
	owned := maps.Clone(c.in.shards)
	c.in.mu.Unlock()
	for n, s := range owned {
		s.mu.Lock()
		doing, landed := s.current(), s.lastFlush.at
		s.mu.Unlock()
		shard := strconv.Itoa(n)
		for _, state := range states {
			value := 0.0
			if state == doing {
				value = 1
			}
			gauge(out, shardState, value, shard, state)
		}
		if !landed.IsZero() {
			gauge(out, shardLanded, float64(landed.UnixMilli())/1000, shard)
		}
	}
}

// collectWAL asks for all shards at once: one that does not answer keeps no other from being told of.
func (c *collector) collectWAL(ctx context.Context, out chan<- prometheus.Metric) {
	var unreadable atomic.Int64
	var group errgroup.Group
	group.SetLimit(scrapeAtOnce)
	for n := range c.in.wal.Shards() {
		group.Go(func() error {
			if s, err := c.in.wal.State(ctx, n); err == nil {
				shard := strconv.Itoa(n)
				gauge(out, backlogRecords, float64(s.BacklogRecords), shard)
				gauge(out, backlogBytes, float64(s.BacklogBytes), shard)
				gauge(out, backlogAge, s.OldestUnflushed.Seconds(), shard)
				gauge(out, walBytes, float64(s.Bytes), shard)
				gauge(out, walMaxBytes, float64(s.MaxBytes), shard)
			} else {
				unreadable.Add(1)
			}
			return nil
		})
	}
	_ = group.Wait() // none fails
	gauge(out, walUnreadable, float64(unreadable.Load()))
}

// collectDeadLetters tells how many dead letters there are. The stream says how many messages it holds, tombstones of
// dropped letters among them; these are counted now and then, where something has changed, in steps if there are many.
func (c *collector) collectDeadLetters(ctx context.Context, out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state, err := c.in.wal.DeadLetterState(ctx)
	if err != nil {
		return
	}
	if c.next == 0 && (state.Messages != c.counted.Messages || state.Last != c.counted.Last) {
		c.counting, c.next, c.found = state, 1, 0
	}
	if c.next > 0 && time.Since(c.countedAt) >= tombstonesEvery {
		ctx, cancel := context.WithTimeout(ctx, tombstonesMost)
		defer cancel()
		c.countedAt = time.Now()
		var n uint64
		n, c.next, err = c.in.wal.CountTombstones(ctx, c.next, c.counting.Last)
		if c.found += n; err == nil {
			c.tombstones, c.counted, c.next = c.found, c.counting, 0
		}
	}
	gauge(out, letters, float64(state.Messages-min(c.tombstones, state.Messages)))
	gauge(out, lettersBytes, float64(state.Bytes))
	gauge(out, lettersMaxByte, float64(state.MaxBytes))
}
