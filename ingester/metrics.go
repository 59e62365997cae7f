package ingester

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// scrapeTimeout bounds how long a scrape waits for the state of the WAL.
const scrapeTimeout = 2 * time.Second

// Metrics are those of an ingester.
type Metrics struct {
	registry prometheus.Registerer

	owned        prometheus.Gauge
	flushSeconds prometheus.Histogram
	flushRows    prometheus.Histogram
	rows         prometheus.Counter
	bytes        prometheus.Counter
	failures     *prometheus.CounterVec
	deadLetters  prometheus.Counter

	landed atomic.Uint64 // rows, for those who ask over gRPC
}

// NewMetrics registers the metrics of an ingester.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		registry: registry,
		owned: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "logthra_ingester_shards_owned", Help: "Shards of the WAL that this ingester owns.",
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
	}
	registry.MustRegister(m.owned, m.flushSeconds, m.flushRows, m.rows, m.bytes, m.failures, m.deadLetters)
	for _, class := range []store.Class{store.Transient, store.BadBatch, store.Operator} {
		m.failures.WithLabelValues(class.String()) // a series from the start, to be alerted on
	}
	return m
}

func (m *Metrics) flushed(rows, bytes int, took time.Duration) {
	m.landed.Add(uint64(rows))
	m.rows.Add(float64(rows))
	m.bytes.Add(float64(bytes))
	m.flushRows.Observe(float64(rows))
	m.flushSeconds.Observe(took.Seconds())
}

// backlog collects the state of all shards. Every ingester reports all of them, so that they are seen also
// while one has no owner; aggregate with max.
type backlog struct{ wal *wal.WAL }

var (
	backlogRecords = prometheus.NewDesc("logthra_wal_backlog_records", "Records of the WAL that have not landed in ClickHouse.", []string{"shard"}, nil)
	backlogBytes   = prometheus.NewDesc("logthra_wal_backlog_bytes", "Estimated bytes of the records that have not landed.", []string{"shard"}, nil)
	backlogAge     = prometheus.NewDesc("logthra_wal_oldest_unflushed_seconds", "Age of the oldest record that has not landed, 0 if there is none.", []string{"shard"}, nil)
	walBytes       = prometheus.NewDesc("logthra_wal_bytes", "Bytes of the WAL, records that are kept for replay included.", []string{"shard"}, nil)
	walMaxBytes    = prometheus.NewDesc("logthra_wal_max_bytes", "Bytes that the WAL may hold.", []string{"shard"}, nil)
)

// Describe implements prometheus.Collector.
func (b backlog) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{backlogRecords, backlogBytes, backlogAge, walBytes, walMaxBytes} {
		out <- d
	}
}

// Collect implements prometheus.Collector. A shard whose state can't be read is left out.
func (b backlog) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	for n := range b.wal.Shards() {
		s, err := b.wal.State(ctx, n)
		if err != nil {
			return
		}
		shard := strconv.Itoa(n)
		for desc, value := range map[*prometheus.Desc]float64{
			backlogRecords: float64(s.BacklogRecords),
			backlogBytes:   float64(s.BacklogBytes),
			backlogAge:     s.OldestUnflushed.Seconds(),
			walBytes:       float64(s.Bytes),
			walMaxBytes:    float64(s.MaxBytes),
		} {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, shard)
		}
	}
}
