package syslog

import "github.com/prometheus/client_golang/prometheus"

// Values of labels.
const (
	networkTCP = "tcp"
	networkTLS = "tls"
	networkUDP = "udp"

	lostRefused  = "refused"
	lostBuffer   = "buffer_full"
	lostShutdown = "shutdown"

	rejectedMany      = "max_connections"
	rejectedHandshake = "handshake"
	rejectedTenant    = "tenant"
)

// Metrics are those of all servers of a gateway.
type Metrics struct {
	connections prometheus.Gauge
	rejected    *prometheus.CounterVec
	messages    *prometheus.CounterVec
	truncated   prometheus.Counter
	unparsed    prometheus.Counter
	invalid     prometheus.Counter
	lost        *prometheus.CounterVec
	retries     prometheus.Counter
	waiting     prometheus.Gauge
}

// NewMetrics registers the metrics of syslog.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "logthra_gateway_syslog_connections", Help: "Connections that are open.",
		}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_syslog_rejected_connections_total", Help: "Connections that were closed before anything was read, by reason.",
		}, []string{"reason"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_syslog_messages_total", Help: "Messages that came, by network.",
		}, []string{"network"}),
		truncated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_gateway_syslog_truncated_total", Help: "Messages that were cut, as they are longer than a line may be.",
		}),
		unparsed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_gateway_syslog_unparsed_total", Help: "Messages that follow neither RFC 5424 nor RFC 3164, and were taken as they are.",
		}),
		invalid: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_gateway_syslog_invalid_frames_total", Help: "Messages on a connection with a length before them that does not follow RFC 6587.",
		}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_syslog_lost_messages_total", Help: "Messages that came and were not pushed, by reason.",
		}, []string{"reason"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "logthra_gateway_syslog_push_retries_total", Help: "Pushes that failed and were tried again.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "logthra_gateway_syslog_udp_buffer_bytes", Help: "Bytes of messages over UDP that are not pushed yet.",
		}),
	}
	registry.MustRegister(m.connections, m.rejected, m.messages, m.truncated, m.unparsed, m.invalid, m.lost, m.retries, m.waiting)
	// Series from the start, so that a rate sees also the first of each kind.
	for vec, values := range map[*prometheus.CounterVec][]string{
		m.rejected: {rejectedMany, rejectedHandshake, rejectedTenant},
		m.messages: {networkTCP, networkTLS, networkUDP},
		m.lost:     {lostRefused, lostBuffer, lostShutdown},
	} {
		for _, value := range values {
			vec.WithLabelValues(value)
		}
	}
	return m
}
