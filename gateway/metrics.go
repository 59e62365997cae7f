package gateway

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/casteloig/logthra/shared/telemetry"
	"github.com/casteloig/logthra/shared/wal"
)

// Why a push failed through no fault of the client's, as metrics name it.
const (
	faultWALFull        = "wal_full"
	faultWALUnavailable = "wal_unavailable"
	faultMemory         = "memory"
	faultPasswords      = "passwords" //nolint:gosec // none is here
	faultInternal       = "internal"
)

// Metrics are those of a gateway.
type Metrics struct {
	registry prometheus.Registerer

	pushes         *prometheus.CounterVec
	failures       *prometheus.CounterVec
	entries        *prometheus.CounterVec
	duplicates     *prometheus.CounterVec
	limited        *telemetry.TenantCounter
	bodyBytes      *prometheus.CounterVec
	lineBytes      *prometheus.CounterVec
	walBytes       prometheus.Counter
	publishSeconds prometheus.Histogram
}

// NewMetrics registers the metrics of a gateway. So many tenants have series of their own, and all others share theirs.
func NewMetrics(registry prometheus.Registerer, tenants int) *Metrics {
	m := &Metrics{
		registry: registry,
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_pushes_total", Help: "Pushes that were answered, by protocol and by HTTP status or gRPC code.",
		}, []string{"protocol", "code"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_push_failures_total",
			Help: "Pushes that were answered 5xx or Unavailable, which shippers try again, by reason: wal_full, wal_unavailable (NATS), " +
				"memory (--max-inflight-bytes), passwords (too many new ones at once), internal (the log has the error).",
		}, []string{"reason"}),
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_entries_total", Help: "Entries that were taken, those of duplicates not counted.",
		}, []string{"protocol"}),
		duplicates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_duplicate_pushes_total", Help: "Pushes that the WAL had already.",
		}, []string{"protocol"}),
		limited: telemetry.NewTenantCounter(prometheus.CounterOpts{
			Name: "logthra_gateway_limited_total",
			Help: "Refusals by a tenant's limits, by tenant and limit: one a push, or one an entry where the protocol refuses single entries. " +
				"Tenants beyond --metrics-max-tenants are counted together as (other).",
		}, "reason", tenants),
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
	registry.MustRegister(m.pushes, m.failures, m.entries, m.duplicates, m.limited, m.bodyBytes, m.lineBytes, m.walBytes, m.publishSeconds)
	m.begin()
	return m
}

// begin makes series from the start, at 0, so that a rate sees also the first of each kind.
func (m *Metrics) begin() {
	for _, fault := range []string{faultWALFull, faultWALUnavailable, faultMemory, faultPasswords, faultInternal} {
		m.failures.WithLabelValues(fault)
	}
	refusals := []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestEntityTooLarge,
		http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
	}
	grpcCodes := []codes.Code{
		codes.OK, codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.ResourceExhausted, codes.Internal, codes.Unavailable,
	}
	for protocol, success := range map[string]int{
		protocolJSON: http.StatusNoContent, protocolProtobuf: http.StatusNoContent, protocolJSONLine: http.StatusNoContent,
		protocolOTLP: http.StatusOK, protocolOTLPJSON: http.StatusOK, protocolElastic: http.StatusOK,
		protocolSplunk: http.StatusOK, protocolSplunkRaw: http.StatusOK, protocolSyslog: http.StatusNoContent,
		protocolGRPC: 0, protocolOTLPGRPC: 0,
	} {
		for _, v := range []*prometheus.CounterVec{m.entries, m.duplicates, m.bodyBytes, m.lineBytes} {
			v.WithLabelValues(protocol)
		}
		if success == 0 {
			for _, code := range grpcCodes {
				m.pushes.WithLabelValues(protocol, code.String())
			}
			continue
		}
		for _, status := range append(refusals, success) {
			m.pushes.WithLabelValues(protocol, strconv.Itoa(status))
		}
	}
}

// watch tells of the memory of pushes under way.
func (m *Metrics) watch(inflight *budget) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "logthra_gateway_inflight_bytes", Help: "Memory that the pushes under way take now. Pushes that need more than logthra_gateway_inflight_max_bytes are answered 503.",
		}, func() float64 { return float64(inflight.used.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "logthra_gateway_inflight_max_bytes", Help: "Most memory that the pushes under way may take, --max-inflight-bytes.",
		}, func() float64 { return float64(inflight.most) }),
	)
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

// failed counts a push that was not taken, where that is Logthra's fault.
func (m *Metrics) failed(v verdict) {
	if v.fault != "" {
		m.failures.WithLabelValues(v.fault).Inc()
	}
}
