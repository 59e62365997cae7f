// Package syslog takes syslog messages over TCP, TLS and UDP, and pushes what it has gathered of them.
//
// Syslog has no acknowledgment: a sender forgets a message as soon as its own socket has taken it. What a connection, or
// UDP, has gathered is pushed after 200 ms at the latest, or at 2,000 messages or 256 KiB. A gateway that is killed loses what
// it has gathered, up to that much a connection and up to Config.UDPBuffer of UDP, and what is in the buffers of the
// sockets. While nothing can be pushed, connections are not read, so that their senders have to wait; of UDP is lost what
// comes when the buffer is full. A gateway that is stopped pushes what it has gathered before.
//
// https://www.rfc-editor.org/rfc/rfc6587 (TCP), https://www.rfc-editor.org/rfc/rfc5425 (TLS),
// https://www.rfc-editor.org/rfc/rfc5426 (UDP)
package syslog

import (
	"cmp"
	"context"
	crypto "crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/shared/logs"
)

// When what was gathered is pushed, whichever comes first.
const (
	gatherFor      = 200 * time.Millisecond // since the first message
	gatherMessages = 2000
	gatherBytes    = 256 << 10
)

const (
	defaultMaxConnections = 1024
	defaultIdleTimeout    = 10 * time.Minute
	defaultUDPBuffer      = 16 << 20
)

const (
	grace       = 5 * time.Second // to push what was gathered, after the end
	firstWait   = 100 * time.Millisecond
	longestWait = 5 * time.Second // between two tries
	logEvery    = time.Minute     // what may happen with every message
)

// maxKept is the most bytes of lines that a batch keeps memory for.
const maxKept = 4 << 20

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// Config is what a Server is made with.
type Config struct {
	// Tenant says whose the messages of a client are. state is nil without TLS. It is asked once a connection, and for UDP
	// at every push. On an error the connection is closed, and messages that came over UDP are lost.
	Tenant func(state *tls.ConnectionState) (string, error)
	Limits decode.Limits // MaxLineBytes counts
	// Push makes a batch durable before it returns nil. A retry comes with the same key, and with the batch as the try
	// before left it. The batch must not be kept.
	Push func(ctx context.Context, tenant, key string, b *logs.Batch) error
	// Retryable tells whether the same push may go well later. What is refused for good is lost.
	Retryable func(error) bool

	// MaxConnections is how many there may be at a time; 0 for 1024. An idle one takes 33 KiB of memory, one whose messages
	// can't be pushed what is gathered, 256 KiB, as a batch, and the buffer of the message that is read.
	MaxConnections int
	IdleTimeout    time.Duration // after which a connection that sends nothing is closed; 0 for 10 minutes
	UDPBuffer      int           // bytes that wait to be pushed; 0 for 16 MiB
}

// Server takes messages from any number of listeners. It is safe for concurrent use.
type Server struct {
	cfg     Config
	metrics *Metrics
	log     *slog.Logger

	connections chan struct{} // one element each
	batches     sync.Pool

	rejected, lost, failing, broken seldom // log lines
}

// New returns a server that listens to nothing yet.
func New(cfg Config, m *Metrics, log *slog.Logger) *Server {
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, defaultMaxConnections)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, defaultIdleTimeout)
	cfg.UDPBuffer = cmp.Or(cfg.UDPBuffer, defaultUDPBuffer)
	return &Server{
		cfg: cfg, metrics: m, log: log,
		connections: make(chan struct{}, cfg.MaxConnections),
		batches:     sync.Pool{New: func() any { return new(logs.Batch) }},
	}
}

// push pushes a batch until it is durable, refused, or ctx ends; what is not durable then is lost.
func (s *Server) push(ctx context.Context, tenant string, b *logs.Batch) {
	key := crypto.Text()
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, longestWait) {
		err := s.cfg.Push(ctx, tenant, key, b)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			break
		}
		if !s.cfg.Retryable(err) {
			s.lose(lostRefused, b.Len(), err)
			return
		}
		s.metrics.retries.Inc()
		if tries, ok := s.failing.now(1); ok {
			s.log.Warn("syslog messages can't be pushed yet", "tenant", tenant, "tries", tries, "error", err)
		}
		pause(ctx, wait/2+rand.N(wait/2))
	}
	s.lose(lostShutdown, b.Len(), context.Cause(ctx))
}

// lose counts messages that are lost.
func (s *Server) lose(reason string, messages int, err error) {
	s.metrics.lost.WithLabelValues(reason).Add(float64(messages))
	if n, ok := s.lost.now(messages); ok {
		s.log.Error("syslog messages are lost", "reason", reason, "messages", n, "error", err)
	}
}

// reject counts a connection that was closed before anything was read.
func (s *Server) reject(reason string, conn net.Conn, err error) {
	s.metrics.rejected.WithLabelValues(reason).Inc()
	if n, ok := s.rejected.now(1); ok {
		s.log.Warn("syslog connections are refused", "reason", reason, "connections", n, "peer", conn.RemoteAddr().String(), "error", err)
	}
}

// batch returns an empty one, for release to take back.
func (s *Server) batch() *logs.Batch { return s.batches.Get().(*logs.Batch) }

func (s *Server) release(b *logs.Batch) {
	if cap(b.Lines) <= maxKept {
		b.Reset()
		s.batches.Put(b)
	}
}

// judge counts what is wrong with a message.
func (s *Server) judge(parsed bool, truncated int) {
	if !parsed {
		s.metrics.unparsed.Inc()
	}
	if truncated > 0 {
		s.metrics.truncated.Inc()
	}
}

// transient tells whether an error of a listener may pass, as too many open files do, and waits a moment if so. All may
// once ctx has ended.
func (s *Server) transient(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	if n, ok := s.broken.now(1); ok {
		s.log.Warn("the syslog listener failed", "times", n, "error", err)
	}
	pause(ctx, firstWait)
	return true
}

// outlive returns a context that ends after ctx, by the grace, or with end.
func outlive(ctx context.Context) (late context.Context, end func()) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		pause(late, grace)
		cancel()
	})
	return late, func() {
		stop()
		cancel()
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// address is the host of a network address, an IP without a zone; empty if it has none.
func address(of net.Addr) string {
	port, err := netip.ParseAddrPort(of.String())
	if err != nil {
		return ""
	}
	return bare(port.Addr()).String()
}

// bare is an IP without a zone; that of IPv4 in IPv6 is that of IPv4.
func bare(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }

// seldom lets a log line pass once in logEvery. The zero value is ready.
type seldom struct {
	mu    sync.Mutex
	count int
	last  time.Time
}

// now tells whether to log what just happened n times, and how often it has since the last time.
func (l *seldom) now(n int) (count int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count += n
	if !l.last.IsZero() && time.Since(l.last) < logEvery {
		return 0, false
	}
	count, l.count, l.last = l.count, 0, time.Now()
	return count, true
}
