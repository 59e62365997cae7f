package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/casteloig/logthra/shared/wal"
)

// Metrics are those of a gateway.
type Metrics struct {
	pushes         *prometheus.CounterVec
	entries        *prometheus.CounterVec
	duplicates     *prometheus.CounterVec
	limited        *prometheus.CounterVec
	bodyBytes      *prometheus.CounterVec
	lineBytes      *prometheus.CounterVec
	walBytes       prometheus.Counter
	publishSeconds prometheus.Histogram
}

// NewMetrics registers the metrics of a gateway.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_pushes_total", Help: "Pushes that were answered, by protocol and by HTTP status or gRPC code.",
		}, []string{"protocol", "code"}),
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_entries_total", Help: "Entries that were taken, those of duplicates not counted.",
		}, []string{"protocol"}),
		duplicates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_duplicate_pushes_total", Help: "Pushes that the WAL had already.",
		}, []string{"protocol"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_limited_total",
			Help: "Refusals by a tenant's limits, by tenant and limit: one a push, or one an entry where the protocol refuses single entries.",
		}, []string{"tenant", "reason"}),
		bodyBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_body_bytes_total", Help: "Bytes of bodies of pushes, decompressed.",
		}, []string{"protocol"}),
		lineBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_line_bytes_total", Help: "Bytes of the lines that were taken, those of duplicates not counted.",
		}, []string{"protocol"}),
		walBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_gateway_wal_bytes_total", Help: "Bytes of the records that were written to the WAL.",
		}),
		publishSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "logthra_gateway_publish_duration_seconds", Help: "Time until the WAL confirmed a push, or did not.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
	registry.MustRegister(m.pushes, m.entries, m.duplicates, m.limited, m.bodyBytes, m.lineBytes, m.walBytes, m.publishSeconds)
	return m
}

// accepted counts a push that the WAL has.
func (m *Metrics) accepted(protocol string, entries, lineBytes int, ack wal.Ack) {
	if ack.Duplicate {
		m.duplicates.WithLabelValues(protocol).Inc()
		return
	}
	m.entries.WithLabelValues(protocol).Add(float64(entries))
	m.lineBytes.WithLabelValues(protocol).Add(float64(lineBytes))
	m.walBytes.Add(float64(ack.Bytes))
}
