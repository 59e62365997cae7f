package cut

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a shard was read from the WAL, as metrics name it.
const (
	fallbackNoOwner     = "no_owner"    // nobody owned it: it is being handed over
	fallbackUnreachable = "unreachable" // its owner did not answer
	fallbackRefused     = "refused"     // its owner answered that it is none any more
)

type metrics struct {
	seconds    prometheus.Histogram
	fallbacks  *prometheus.CounterVec
	incomplete prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "logthra_query_cut_duration_seconds", Help: "Time in which a query found out what is not in ClickHouse yet.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_query_cut_fallbacks_total",
			Help: "Shards that were read from the WAL for a query, as their owner could not be asked, by reason: no_owner (it is being " +
				"handed over), unreachable (its owner did not answer), refused (it is none any more).",
		}, []string{"reason"}),
		incomplete: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_query_cut_incomplete_total", Help: "Times that a query was answered without some of the lines that are not in ClickHouse yet, and with a warning of it.",
		}),
	}
	for _, reason := range []string{fallbackNoOwner, fallbackUnreachable, fallbackRefused} {
		m.fallbacks.WithLabelValues(reason)
	}
	return m
}

func (m *metrics) made(c *Cut, took time.Duration) {
	m.seconds.Observe(took.Seconds())
	if len(c.Warnings) > 0 {
		m.incomplete.Inc()
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.seconds, m.fallbacks, m.incomplete}
}

// Describe implements prometheus.Collector.
func (c *Cutter) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.metrics.all() {
		m.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (c *Cutter) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.metrics.all() {
		m.Collect(out)
	}
}
