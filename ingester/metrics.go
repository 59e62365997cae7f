package ingester

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/casteloig/logthra/shared/store"
)

// Why a shard could be claimed, as metrics name it.
const (
	takeoverReleased = "released" // nobody owned it: it is new, or was handed back
	takeoverGone     = "gone"     // its owner is not live any more
	takeoverOwn      = "own"      // it was this ingester's: the answer to a claim was lost
)

// How questions about entries that are not in ClickHouse yet end, as metrics name it.
const (
	unflushedOK       = "ok"
	unflushedCanceled = "canceled"
	unflushedFailed   = "failed"
)

// Metrics are those of an ingester.
type Metrics struct {
	registry prometheus.Registerer

	owned        prometheus.Gauge
	takeovers    *prometheus.CounterVec
	fenced       prometheus.Counter
	buffered     prometheus.Gauge
	flushSeconds prometheus.Histogram
	flushRows    prometheus.Histogram
	rows         prometheus.Counter
	bytes        prometheus.Counter
	failures     *prometheus.CounterVec
	deadLetters  prometheus.Counter

	unflushedRequests *prometheus.CounterVec
	unflushedEntries  prometheus.Counter
	unflushedSeconds  prometheus.Histogram

	landed atomic.Uint64 // rows, for those who ask over gRPC
}

// NewMetrics registers the metrics of an ingester.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		registry: registry,
		owned: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "logthra_ingester_shards_owned", Help: "Shards of the WAL that this ingester owns.",
		}),
		takeovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_ingester_takeovers_total",
			Help: "Shards that this ingester became the owner of, by reason: released (new, or handed back), " +
				"gone (its owner was killed, frozen or cut off), own (the answer to a claim was lost).",
		}, []string{"reason"}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_ingester_fenced_total",
			Help: "Shards that others took over from this ingester while it ran: it was frozen or cut off for longer than --owner-timeout. Nothing is lost by that.",
		}),
		buffered: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "logthra_ingester_buffer_bytes", Help: "Memory that the batches of this ingester take now. At logthra_ingester_buffer_max_bytes batches are inserted early.",
		}),
		flushSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "logthra_ingester_flush_duration_seconds", Help: "Time from the first attempt of an insert until ClickHouse confirmed it.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 14),
		}),
		flushRows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "logthra_ingester_flush_rows", Help: "Rows of a confirmed insert.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 11),
		}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_ingester_rows_total", Help: "Rows that ClickHouse confirmed.",
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_ingester_line_bytes_total", Help: "Bytes of the lines of the rows that ClickHouse confirmed.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_ingester_insert_failures_total",
			Help: "Attempts of an insert that failed, by class: transient and operator are tried again, bad_batch is searched for the bad record.",
		}, []string{"class"}),
		deadLetters: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_ingester_dead_letters_total", Help: "Records that could not be decoded or inserted and were put aside.",
		}),
		unflushedRequests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_ingester_unflushed_requests_total",
			Help: "Gateways' questions for a query about entries that are not in ClickHouse yet, by result: ok, " +
				"canceled (the gateway did not wait for the end), failed.",
		}, []string{"result"}),
		unflushedEntries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_ingester_unflushed_entries_total", Help: "Entries that queries were given from memory, or from the WAL, as they were not in ClickHouse yet.",
		}),
		unflushedSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "logthra_ingester_unflushed_duration_seconds", Help: "Time that such an answer took, until all of it was sent.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
	}
	registry.MustRegister(m.owned, m.takeovers, m.fenced, m.buffered, m.flushSeconds, m.flushRows, m.rows, m.bytes, m.failures, m.deadLetters,
		m.unflushedRequests, m.unflushedEntries, m.unflushedSeconds)
	for _, result := range []string{unflushedOK, unflushedCanceled, unflushedFailed} {
		m.unflushedRequests.WithLabelValues(result)
	}
	for _, class := range []store.Class{store.Transient, store.BadBatch, store.Operator} {
		m.failures.WithLabelValues(class.String()) // a series from the start, to be alerted on
	}
	for _, reason := range []string{takeoverReleased, takeoverGone, takeoverOwn} {
		m.takeovers.WithLabelValues(reason)
	}
	return m
}

// configured tells what of the configuration the alerts go by.
func (m *Metrics) configured(cfg Config) {
	for _, c := range []struct {
		name, help string
		value      float64
	}{
		{"logthra_ingester_flush_interval_seconds", "Longest time until a batch is inserted, --flush-interval.", cfg.FlushInterval.Seconds()},
		{"logthra_ingester_owner_timeout_seconds", "Within so long the shards of an ingester that is gone are taken over, --owner-timeout.", cfg.OwnerTimeout.Seconds()},
		{"logthra_ingester_buffer_max_bytes", "Most memory that the batches of this ingester may take, --buffer-bytes.", float64(cfg.BufferBytes)},
	} {
		gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: c.name, Help: c.help})
		gauge.Set(c.value)
		m.registry.MustRegister(gauge)
	}
}

// tookOver counts a shard that an ingester got from another; former is empty where it had no owner.
func (m *Metrics) tookOver(by, former string) {
	reason := takeoverGone
	switch former {
	case "":
		reason = takeoverReleased
	case by:
		reason = takeoverOwn
	}
	m.takeovers.WithLabelValues(reason).Inc()
}

// budget is the memory that all batches together may take, and do.
type budget struct {
	*semaphore.Weighted

	used prometheus.Gauge
}

// Acquire is semaphore.Weighted's.
func (b budget) Acquire(ctx context.Context, n int64) error {
	err := b.Weighted.Acquire(ctx, n)
	if err == nil {
		b.used.Add(float64(n))
	}
	return err
}

// TryAcquire is semaphore.Weighted's.
func (b budget) TryAcquire(n int64) bool {
	ok := b.Weighted.TryAcquire(n)
	if ok {
		b.used.Add(float64(n))
	}
	return ok
}

// Release is semaphore.Weighted's.
func (b budget) Release(n int64) {
	b.used.Sub(float64(n))
	b.Weighted.Release(n)
}

func (m *Metrics) flushed(rows, bytes int, took time.Duration) {
	m.landed.Add(uint64(rows))
	m.rows.Add(float64(rows))
	m.bytes.Add(float64(bytes))
	m.flushRows.Observe(float64(rows))
	m.flushSeconds.Observe(took.Seconds())
}
