package syslog

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	decoder "github.com/casteloig/logthra/gateway/decode/syslog"
)

const (
	maxPacket = 64 << 10
	// socketBytes is what the system is asked to buffer. It may give less.
	socketBytes = 4 << 20
	// maxPeers is how many senders' addresses are kept as text.
	maxPeers = 10_000
)

var errBufferFull = errors.New("more messages wait to be pushed than the buffer has room for")

// ServePacket takes packets, each with one message, from a socket, which it closes, until ctx ends or the socket fails. It
// returns once what was gathered is pushed, which takes 5 seconds at most, and nothing of it runs any longer. The error is
// that of the socket; the end of ctx is none.
func (s *Server) ServePacket(ctx context.Context, conn net.PacketConn) error {
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late, end := outlive(ctx)
	defer end()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(past) })
	defer stop()
	if socket, ok := conn.(interface{ SetReadBuffer(int) error }); ok {
		_ = socket.SetReadBuffer(socketBytes) // with less, more is lost under load
	}
	q := queue{max: s.cfg.UDPBuffer, changed: make(chan struct{}, 1)}
	var pushing sync.WaitGroup
	pushing.Go(func() { s.pushAll(late, &q) })
	err := s.receive(ctx, conn, &q)
	cancel()
	q.end()
	pushing.Wait()
	return err
}

// receive queues messages until ctx ends.
func (s *Server) receive(ctx context.Context, conn net.PacketConn, q *queue) error {
	buf := make([]byte, maxPacket)
	for ctx.Err() == nil {
		n, from, err := readFrom(conn, buf)
		if err != nil {
			if !s.transient(ctx, err) {
				return err
			}
			continue
		}
		message := trim(buf[:n])
		if len(message) == 0 {
			continue
		}
		s.metrics.messages.WithLabelValues(networkUDP).Inc()
		if q.add(message, from, time.Now()) {
			s.metrics.waiting.Add(float64(packetBytes + len(message)))
		} else {
			s.lose(lostBuffer, 1, errBufferFull)
		}
	}
	return nil
}

// readFrom reads a packet, that of a UDP socket without allocating. The address is not valid where there is none.
func readFrom(conn net.PacketConn, buf []byte) (n int, from netip.Addr, err error) {
	if socket, ok := conn.(*net.UDPConn); ok {
		n, port, err := socket.ReadFromUDPAddrPort(buf)
		return n, bare(port.Addr()), err
	}
	n, addr, err := conn.ReadFrom(buf)
	if udp, ok := addr.(*net.UDPAddr); ok {
		from = bare(udp.AddrPort().Addr())
	}
	return n, from, err
}

// pushAll pushes what is queued until the queue has ended and is empty.
func (s *Server) pushAll(ctx context.Context, q *queue) {
	var parser decoder.Parser
	peers := make(map[netip.Addr]string)
	for c := q.next(); c != nil; c = q.next() {
		b, data := s.batch(), c.data
		for _, m := range c.messages {
			peer, ok := peers[m.from]
			if !ok && m.from.IsValid() {
				if len(peers) == maxPeers {
					clear(peers)
				}
				peer = m.from.String()
				peers[m.from] = peer
			}
			s.judge(parser.AppendCut(b, data[:m.size], 0, m.at, s.cfg.Limits, peer))
			data = data[m.size:]
		}
		if tenant, err := s.cfg.Tenant(nil); err != nil {
			s.lose(lostRefused, b.Len(), err)
		} else {
			s.push(ctx, tenant, b)
		}
		s.release(b)
		q.done(c)
		s.metrics.waiting.Sub(float64(c.bytes()))
	}
}

// queue holds messages in the order that they came in, in chunks of what one push takes. One goroutine adds, another
// one takes.
type queue struct {
	max     int           // bytes
	changed chan struct{} // has an element when there may be something for next, of a capacity of 1

	mu     sync.Mutex
	chunks []*chunk // the last one may grow
	bytes  int      // of them and of the one that was taken and is not done
	ended  bool
}

// chunk is what is pushed at once.
type chunk struct {
	first    time.Time
	messages []packet
	data     []byte // of all messages, back to back
}

// packet is one message.
type packet struct {
	from netip.Addr
	at   int64 // unix nanoseconds
	size int
}

// packetBytes is what a message takes beside its own bytes.
const packetBytes = 40

// full tells whether nothing more is added to a chunk.
func (c *chunk) full() bool { return len(c.data) >= gatherBytes || len(c.messages) >= gatherMessages }

// bytes is how much of the queue's room a chunk takes.
func (c *chunk) bytes() int { return len(c.data) + packetBytes*len(c.messages) }

// add queues a copy of a message, and returns false where there is no room for it.
func (q *queue) add(message []byte, from netip.Addr, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := len(message) + packetBytes
	if q.bytes+size > q.max {
		return false
	}
	q.bytes += size
	if n := len(q.chunks); n == 0 || q.chunks[n-1].full() {
		q.chunks = append(q.chunks, &chunk{first: now})
		q.wake()
	}
	c := q.chunks[len(q.chunks)-1]
	c.messages = append(c.messages, packet{from, now.UnixNano(), len(message)})
	c.data = append(c.data, message...)
	if c.full() {
		q.wake()
	}
	return true
}

// next waits for a chunk that is full, or old enough, or the last one after the end. It returns nil when no more come.
func (q *queue) next() *chunk {
	for {
		c, wait, more := q.take()
		if c != nil || !more {
			return c
		}
		select {
		case <-q.changed:
		case <-time.After(wait):
		}
	}
}

// take is next that does not wait, but says for how long to.
func (q *queue) take() (c *chunk, wait time.Duration, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.chunks) == 0 {
		return nil, time.Hour, !q.ended
	}
	c = q.chunks[0]
	if wait = gatherFor - time.Since(c.first); wait > 0 && !c.full() && !q.ended {
		return nil, wait, true
	}
	q.chunks[0] = nil
	q.chunks = q.chunks[1:]
	return c, 0, true
}

// done gives the room of a chunk back.
func (q *queue) done(c *chunk) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= c.bytes()
}

// end says that nothing more is added.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}
