package query

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/casteloig/logthra/gateway/engine"
)

// Metrics are those of the query API.
type Metrics struct {
	registry prometheus.Registerer

	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	readBytes prometheus.Counter
	unflushed prometheus.Counter
	entries   prometheus.Counter
	tails     prometheus.Gauge
	dropped   prometheus.Counter
}

// NewMetrics registers the metrics of the query API.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		registry: registry,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_query_requests_total", Help: "Requests of the query API that were answered, by endpoint and HTTP status. 499: the client did not wait.",
		}, []string{"endpoint", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "logthra_query_duration_seconds", Help: "Time from a request of the query API to the end of its answer, the wait for its turn included.",
			Buckets: prometheus.ExponentialBuckets(0.004, 2, 15), // 4 ms to 65 s
		}, []string{"endpoint"}),
		readBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_query_read_bytes_total", Help: "Bytes that ClickHouse read for log and metric queries, uncompressed.",
		}),
		unflushed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_query_unflushed_entries_total", Help: "Entries of log and metric queries that were not in ClickHouse yet.",
		}),
		entries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_query_entries_total", Help: "Entries that log queries and tails returned.",
		}),
		tails: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "logthra_query_tails", Help: "Tails that are open.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_query_tail_dropped_entries_total", Help: "Entries that were not sent to tails, whose clients read too slowly.",
		}),
	}
	registry.MustRegister(m.requests, m.seconds, m.readBytes, m.unflushed, m.entries, m.tails, m.dropped)
	for _, endpoint := range []string{
		endpointQuery, endpointRange, endpointLabels, endpointLabelValues, endpointSeries, endpointIndexStats, endpointVolume, endpointVolumeRange,
		endpointDetectedLabels, endpointDetectedFields, endpointDetectedValues, endpointPatterns, endpointTail, endpointFormat, endpointLimits,
	} {
		m.seconds.WithLabelValues(endpoint)
		success := http.StatusOK
		if endpoint == endpointTail {
			success = http.StatusSwitchingProtocols
		}
		for _, status := range []int{success, http.StatusBadRequest, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusGatewayTimeout} {
			m.requests.WithLabelValues(endpoint, strconv.Itoa(status)) // from the start, at 0, so that a rate sees also the first
		}
	}
	return m
}

// watch tells of the queries that run and wait.
func (m *Metrics) watch(q *queue) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "logthra_query_running", Help: "Queries that run.",
		}, func() float64 { running, _ := q.state(); return float64(running) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "logthra_query_queue_length", Help: "Queries that wait for their turn.",
		}, func() float64 { _, waiting := q.state(); return float64(waiting) }),
	)
}

// answered counts a request. How long a tail lasts is its client's matter.
func (m *Metrics) answered(endpoint string, status int, took time.Duration) {
	m.requests.WithLabelValues(endpoint, strconv.Itoa(status)).Inc()
	if endpoint != endpointTail {
		m.seconds.WithLabelValues(endpoint).Observe(took.Seconds())
	}
}

// read counts what a query took.
func (m *Metrics) read(s engine.Stats) {
	m.readBytes.Add(float64(s.Bytes))
	m.unflushed.Add(float64(s.Unflushed))
}
