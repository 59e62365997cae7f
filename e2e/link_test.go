package e2e

import (
	"net"
	"sync"
)

// condition is what a link does with what goes through it.
type condition int

const (
	whole    condition = iota // passes everything
	cut                       // resets every connection, old and new
	cutAfter                  // is cut once a number of bytes has gone to the server
	stalled                   // holds back what goes to the server after a number of bytes; it arrives when the link is healed
	mute                      // swallows what the server answers; the connections are reset when the link is healed
)

// A chunk is the most that a link reads at once. While it is stalled it takes up to queued of them from a client,
// who may be dead by the time that they are passed on.
const (
	chunk  = 32 << 10 // bytes
	queued = 256      // chunks
)

// link is a TCP proxy in front of a server, and the network between it and one client. It keeps its port however
// often the server behind it comes back on another: no other program can take it meanwhile.
type link struct {
	name     string
	listener net.Listener
	serving  sync.WaitGroup

	mu        sync.Mutex // guards what follows
	target    string     // empty while there is no server
	condition condition
	left      int           // bytes until cutAfter or stalled begins
	changed   chan struct{} // closed when the condition changes
	conns     map[*conn]bool
}

// conn is one connection through a link.
type conn struct {
	client, server *net.TCPConn
	lossy          bool // an answer was swallowed; guarded by the link's mu
	once           sync.Once
	closed         chan struct{}
}

func newLink(name string) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{name: name, listener: listener, changed: make(chan struct{}), conns: map[*conn]bool{}}
	l.serving.Go(l.accept)
	return l, nil
}

// addr is where the client connects to.
func (l *link) addr() string { return l.listener.Addr().String() }

// close ends all connections and returns when nothing runs any more.
func (l *link) close() {
	_ = l.listener.Close()
	l.set(cut, 0)
	l.serving.Wait()
}

// retarget makes new connections go to another address.
func (l *link) retarget(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = address
}

// set puts the link in a condition; bytes is the number that cutAfter and stalled are about.
func (l *link) set(c condition, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.condition
	l.condition, l.left = c, bytes
	close(l.changed)
	l.changed = make(chan struct{})
	for conn := range l.conns {
		if c == cut || was == mute && conn.lossy {
			conn.reset()
		}
	}
}

// heal makes the link whole.
func (l *link) heal() { l.set(whole, 0) }

func (l *link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.serving.Go(func() { l.serve(client.(*net.TCPConn)) })
	}
}

func (l *link) serve(client *net.TCPConn) {
	c := &conn{client: client, closed: make(chan struct{})}
	defer c.reset()
	l.mu.Lock()
	target, isCut := l.target, l.condition == cut
	l.mu.Unlock()
	if target == "" || isCut {
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	c.server = server.(*net.TCPConn)
	l.mu.Lock()
	if l.condition == cut { // meanwhile
		l.mu.Unlock()
		return
	}
	l.conns[c] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
	}()

	var up sync.WaitGroup
	defer up.Wait()
	defer c.reset()
	chunks := make(chan []byte, queued)
	up.Go(func() { c.receive(chunks) })
	up.Go(func() { l.up(c, chunks) })
	l.down(c)
}

// receive reads what the client sends.
func (c *conn) receive(chunks chan<- []byte) {
	defer close(chunks)
	for {
		buf := make([]byte, chunk)
		n, err := c.client.Read(buf)
		if n > 0 {
			select {
			case chunks <- buf[:n]:
			case <-c.closed:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// up passes on what the client has sent, in the end also that it sends no more.
func (l *link) up(c *conn, chunks <-chan []byte) {
	for data := range chunks {
		if !l.admit(c, len(data)) {
			break
		}
		if _, err := c.server.Write(data); err != nil {
			break
		}
	}
	_ = c.server.CloseWrite()
}

// admit waits until n bytes may go to the server. It returns false if they never will.
func (l *link) admit(c *conn, n int) bool {
	for counted := false; ; {
		l.mu.Lock()
		limited := l.condition == cutAfter || l.condition == stalled
		if limited && !counted {
			l.left -= n
			counted = true
		}
		over, condition, changed := limited && l.left < 0, l.condition, l.changed
		l.mu.Unlock()
		switch {
		case condition == cut:
			return false
		case !over:
			return true
		case condition == cutAfter:
			l.set(cut, 0)
			return false
		}
		select {
		case <-changed:
		case <-c.closed:
			return false
		}
	}
}

// down passes on what the server answers, until it ends the connection. A client that is gone does not end it:
// what it has sent before is still on its way.
func (l *link) down(c *conn) {
	buf := make([]byte, chunk)
	gone := false
	for {
		n, err := c.server.Read(buf)
		if n > 0 && !gone && !l.swallows(c) {
			_, writeErr := c.client.Write(buf[:n])
			gone = writeErr != nil
		}
		if err != nil {
			return
		}
	}
}

func (l *link) swallows(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.lossy = c.lossy || l.condition == mute
	return c.lossy
}

// reset ends the connection on both sides, without waiting for anything.
func (c *conn) reset() {
	c.once.Do(func() {
		close(c.closed)
		for _, side := range []*net.TCPConn{c.client, c.server} {
			if side != nil {
				_ = side.SetLinger(0)
				_ = side.Close()
			}
		}
	})
}
