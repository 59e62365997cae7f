package syslog

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	decoder "github.com/casteloig/logthra/gateway/decode/syslog"
	"github.com/casteloig/logthra/shared/logs"
)

const (
	handshakeTimeout = 10 * time.Second
	readBytes        = 32 << 10
	// headerBytes is how many bytes more than those of the longest line are kept of a message.
	headerBytes = 8 << 10
)

var errTooMany = errors.New("the listener has as many connections as it may have (--syslog-max-connections)")

// ServeStream takes connections from a listener, which it closes, until ctx ends or the listener fails; that of package
// tls for TLS. Its connections end then, too. It returns once what was gathered is pushed, which takes 5 seconds at most,
// and nothing of it runs any longer. The error is that of the listener; the end of ctx is none.
func (s *Server) ServeStream(ctx context.Context, listener net.Listener) error {
	defer listener.Close()
	ctx, cancel := context.WithCancel(ctx)
	late, end := outlive(ctx)
	defer end()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for ctx.Err() == nil {
		conn, err := listener.Accept()
		if err != nil {
			if !s.transient(ctx, err) {
				return err
			}
			continue
		}
		select {
		case s.connections <- struct{}{}:
			running.Go(func() {
				defer func() { <-s.connections }()
				s.serve(ctx, late, conn)
			})
		default:
			s.reject(rejectedMany, conn, errTooMany)
			_ = conn.Close()
		}
	}
	return nil
}

// serve reads a connection until its end or that of ctx, and pushes what came until late ends.
func (s *Server) serve(ctx, late context.Context, conn net.Conn) {
	defer conn.Close()
	s.metrics.connections.Inc()
	defer s.metrics.connections.Dec()

	network, state := networkTCP, (*tls.ConnectionState)(nil)
	if secure, ok := conn.(*tls.Conn); ok {
		shaking, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		if err := secure.HandshakeContext(shaking); err != nil {
			s.reject(rejectedHandshake, conn, err)
			return
		}
		is := secure.ConnectionState()
		network, state = networkTLS, &is
	}
	tenant, err := s.cfg.Tenant(state)
	if err != nil {
		s.reject(rejectedTenant, conn, err)
		return
	}
	c := connection{
		server: s, conn: conn, late: late, tenant: tenant, network: network, peer: address(conn.RemoteAddr()),
		framer: framer{max: s.cfg.Limits.MaxLineBytes + headerBytes, invalid: s.metrics.invalid},
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(past) })
	defer stop()
	err = c.read(ctx)
	s.log.Debug("a syslog connection ended", "peer", c.peer, "error", err)
}

// connection is one of TCP. It reads, and pushes, but never both, so that who sends has to wait for a slow push.
type connection struct {
	server  *Server
	conn    net.Conn
	late    context.Context // for pushes; ends later than that of read
	tenant  string
	network string
	peer    string

	framer framer
	parser decoder.Parser
	active time.Time // when something came last, or could have

	batch *logs.Batch // what is gathered; nil if nothing is
	bytes int
	first time.Time
}

// read takes messages until the end of the connection, of the time that it may be idle, or of ctx, and returns that as
// an error.
func (c *connection) read(ctx context.Context) error {
	buf := make([]byte, readBytes)
	c.active = time.Now()
	for {
		deadline := c.active.Add(c.server.cfg.IdleTimeout)
		if c.batch != nil {
			deadline = c.first.Add(gatherFor)
		}
		// The end of ctx sets a deadline as well. Either that is the later one, or ctx has ended by now.
		err := c.conn.SetReadDeadline(deadline)
		n := 0
		if err == nil {
			if err = ctx.Err(); err == nil {
				n, err = c.conn.Read(buf)
			}
		}
		now := time.Now()
		if n > 0 {
			c.active = now
			c.take(buf[:n], now)
		}
		if c.batch != nil && time.Since(c.first) >= gatherFor {
			c.push()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil && now.Sub(c.active) < c.server.cfg.IdleTimeout {
			continue
		}
		if err != nil {
			c.finish(now)
			return err
		}
	}
}

// take reads the messages that end in data.
func (c *connection) take(data []byte, now time.Time) {
	for {
		message, cut, rest, ok := c.framer.next(data)
		if !ok {
			return
		}
		c.gather(message, cut, now)
		data = rest
	}
}

// gather adds a message, and pushes if there are enough of them.
func (c *connection) gather(message []byte, cut int, now time.Time) {
	if c.batch == nil {
		c.batch, c.bytes, c.first = c.server.batch(), 0, time.Now()
	}
	c.server.metrics.messages.WithLabelValues(c.network).Inc()
	c.server.judge(c.parser.AppendCut(c.batch, message, cut, now.UnixNano(), c.server.cfg.Limits, c.peer))
	if c.bytes += len(message); c.bytes >= gatherBytes || c.batch.Len() >= gatherMessages {
		c.push()
	}
}

// finish takes what has no end, and pushes what is left.
func (c *connection) finish(now time.Time) {
	if message, cut := c.framer.last(); len(message) > 0 {
		c.gather(message, cut, now)
	}
	if c.batch != nil {
		c.push()
	}
}

// push pushes what is gathered. The sender could not be heard meanwhile.
func (c *connection) push() {
	c.server.push(c.late, c.tenant, c.batch)
	c.server.release(c.batch)
	c.batch, c.active = nil, time.Now()
}
