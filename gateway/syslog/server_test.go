package syslog

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/certs/certstest"
	"github.com/casteloig/logthra/shared/logs"
)

var (
	errLater = errors.New("not now")
	errNever = errors.New("never")
)

// push is one call of Push.
type push struct {
	tenant, key string
	lines       []string
	bytes       int
	err         error
}

// fixture is a server under test, and a WAL that keeps all in memory.
type fixture struct {
	tb      testing.TB
	metrics *Metrics
	server  *Server
	log     bytes.Buffer
	address net.Addr
	stop    func() error // ends the context and waits for the listener

	mu     sync.Mutex
	answer func(try int) error // of a push; nil takes all
	pushes []push
	rows   []decodetest.Row // of pushes that were taken
}

func (f *fixture) push(_ context.Context, tenant, key string, b *logs.Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.answer != nil {
		err = f.answer(len(f.pushes))
	}
	p := push{tenant: tenant, key: key, bytes: len(b.Lines), err: err}
	at := 0
	for _, n := range b.Lengths {
		p.lines = append(p.lines, string(b.Lines[at:at+int(n)]))
		at += int(n)
	}
	f.pushes = append(f.pushes, p)
	if err == nil {
		f.rows = append(f.rows, decodetest.Rows(f.tb, b)...)
	}
	return err
}

// lines are those that were taken.
func (f *fixture) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, r := range f.rows {
		out = append(out, r.Line)
	}
	return out
}

// all are the pushes so far.
func (f *fixture) all() []push {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.pushes)
}

// answers says how pushes are answered from now on.
func (f *fixture) answers(answer func(try int) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// until waits for something to become true.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *fixture) wantLines(t testing.TB, want ...string) {
	t.Helper()
	until(t, fmt.Sprintf("%d lines", len(want)), func() bool { return len(f.lines()) >= len(want) })
	if got := f.lines(); !slices.Equal(got, want) {
		t.Fatalf("\n got %.1000q\nwant %.1000q", got, want)
	}
}

func want(t testing.TB, what string, metric prometheus.Collector, value float64) {
	t.Helper()
	until(t, fmt.Sprintf("%s %v", what, value), func() bool { return testutil.ToFloat64(metric) == value })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start serves until the test ends. secure is nil for TCP without TLS.
func start(t testing.TB, network string, secure *tls.Config, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{tb: t}
	cfg := Config{
		Tenant:    func(*tls.ConnectionState) (string, error) { return "acme", nil },
		Limits:    decode.Limits{MaxLineBytes: 1 << 10},
		Push:      f.push,
		Retryable: func(err error) bool { return errors.Is(err, errLater) },
	}
	if change != nil {
		change(&cfg)
	}
	f.metrics = NewMetrics(prometheus.NewRegistry())
	f.server = New(cfg, f.metrics, slog.New(slog.NewTextHandler(&f.log, nil)))
	var serve func(context.Context) error
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		must(t, err)
		f.address, serve = conn.LocalAddr(), func(ctx context.Context) error { return f.server.ServePacket(ctx, conn) }
	} else {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		f.address = listener.Addr()
		if secure != nil {
			listener = tls.NewListener(listener, secure)
		}
		serve = func(ctx context.Context) error { return f.server.ServeStream(ctx, listener) }
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("it goes on after its context has ended")
		}
	})
	t.Cleanup(func() { must(t, f.stop()) })
	return f
}

// dial connects to the server.
func (f *fixture) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial(f.address.Network(), f.address.String())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t testing.TB, conn io.Writer, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	must(t, err)
}

func TestStream(t *testing.T) {
	f := start(t, "tcp", nil, nil)
	conn := f.dial(t)
	send(t, conn, "<14>1 2025-10-01T08:00:00Z h a 7 - - one\r\n\n38 <14>1 2025-10-01T08:00:00Z h a - - - \n3")
	send(t, conn, "7 <14>1 2025-10-01T08:00:00Z h a - - - <14>1 - - - - - - four\nnot syslog\n1x\n")
	send(t, conn, "<14>1 - - - - - - the last")
	must(t, conn.Close())
	f.wantLines(t, "one", "", "", "four", "not syslog", "1x", "the last")
	f.mu.Lock()
	decodetest.SameRows(t, f.rows[:1], []decodetest.Row{{
		Labels: `{"app":"a","facility":"user","host":"h","level":"info"}`, Time: 1759305600e9, Line: "one", Metadata: []string{"proc_id=7"},
	}})
	if got := f.rows[6].Labels; got != `{"facility":"user","host":"127.0.0.1","level":"info"}` {
		t.Error(got)
	}
	if got := f.pushes[0].tenant; got != "acme" {
		t.Error(got)
	}
	f.mu.Unlock()
	want(t, "messages", f.metrics.messages.WithLabelValues("tcp"), 7)
	want(t, "unparsed", f.metrics.unparsed, 2)
	want(t, "invalid", f.metrics.invalid, 1)
	want(t, "connections", f.metrics.connections, 0)
}

// A push has what came in 200 ms, or 2,000 messages, or 256 KiB.
func TestGather(t *testing.T) {
	f := start(t, "tcp", nil, func(c *Config) { c.Limits.MaxLineBytes = 256 << 10 })
	conn := f.dial(t)
	began := time.Now()
	send(t, conn, "<14>1 - - - - - - x\n")
	f.wantLines(t, "x")
	if took := time.Since(began); took < gatherFor {
		t.Errorf("pushed after %s", took)
	}

	for range 25 {
		send(t, conn, strings.Repeat("<14>1 - - - - - - x\n", 100))
	}
	until(t, "2501 lines", func() bool { return len(f.lines()) == 2501 })
	for _, p := range f.all() {
		if len(p.lines) > gatherMessages {
			t.Errorf("%d messages in a push", len(p.lines))
		}
	}

	before := len(f.all())
	line := "<14>1 - - - - - - " + strings.Repeat("x", 200<<10) + "\n"
	for range 12 {
		send(t, conn, line)
	}
	until(t, "2513 lines", func() bool { return len(f.lines()) == 2513 })
	for _, p := range f.all()[before:] {
		if p.bytes > gatherBytes+len(line) {
			t.Errorf("%d bytes in a push", p.bytes)
		}
	}
}

// A push that failed comes again with its key, and the connection is not read meanwhile.
func TestRetry(t *testing.T) {
	f := start(t, "tcp", nil, nil)
	f.answers(func(int) error { return errLater })
	conn := f.dial(t)
	send(t, conn, "<14>1 - - - - - - one\n")
	until(t, "3 tries", func() bool { return len(f.all()) >= 3 })
	must(t, conn.SetWriteDeadline(time.Now().Add(time.Second)))
	flood := []byte(strings.Repeat("<14>1 - - - - - - "+strings.Repeat("x", 1000)+"\n", 1000))
	sent := 0
	for {
		n, err := conn.Write(flood)
		sent += n
		if err != nil {
			break // the sender has to wait
		}
		if sent > 256<<20 {
			t.Fatal("the connection is read on")
		}
	}
	f.answers(nil)
	until(t, "all lines", func() bool { return len(f.lines()) >= sent/len(flood)*1000 })
	tries := f.all()
	for i, p := range tries[1:] {
		if retry := tries[i].err != nil; retry != (p.key == tries[i].key) || retry && !slices.Equal(p.lines, tries[i].lines) {
			t.Errorf("push %d: key %s after %s", i+1, p.key, tries[i].key)
		}
	}
	if got := testutil.ToFloat64(f.metrics.retries); got < 3 {
		t.Errorf("%v retries", got)
	}
	must(t, f.stop())
	if n := strings.Count(f.log.String(), "can't be pushed yet"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, f.log.String())
	}
}

func TestRefused(t *testing.T) {
	f := start(t, "tcp", nil, nil)
	f.answers(func(try int) error {
		if try < 2 {
			return errNever
		}
		return nil
	})
	conn := f.dial(t)
	for i, text := range []string{"<14>1 - - - - - - a\n<14>1 - - - - - - b\n", "<14>1 - - - - - - c\n", "<14>1 - - - - - - d\n"} {
		send(t, conn, text)
		until(t, "the push", func() bool { return len(f.all()) == i+1 })
	}
	f.wantLines(t, "d")
	want(t, "lost", f.metrics.lost.WithLabelValues("refused"), 3)
	must(t, f.stop())
	if n := strings.Count(f.log.String(), "messages are lost"); n != 1 || !strings.Contains(f.log.String(), "never") {
		t.Errorf("%d lines in the log:\n%s", n, f.log.String())
	}
}

// What is too long is cut, and a message without an end takes no more memory than one that ends.
func TestEndless(t *testing.T) {
	f := start(t, "tcp", nil, nil)
	const size = 64 << 20
	for _, begin := range []string{"<14>1 - - - - - - ", fmt.Sprintf("%d <14>1 - - - - - - ", size+18)} {
		var before, after runtime.MemStats
		conn := f.dial(t)
		send(t, conn, begin)
		piece := bytes.Repeat([]byte("x"), 1<<20)
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range size / len(piece) {
			_, err := conn.Write(piece)
			must(t, err)
		}
		runtime.ReadMemStats(&after)
		if grown := int(after.TotalAlloc - before.TotalAlloc); grown > 4<<20 {
			t.Errorf("%d bytes allocated", grown)
		}
		send(t, conn, "\n<14>1 - - - - - - next\n")
		must(t, conn.Close())
	}
	long := strings.Repeat("x", 1<<10)
	f.wantLines(t, long, "next", long, "next")
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range []int{0, 2} {
		if got, want := fmt.Sprint(f.rows[i].Metadata), fmt.Sprintf("[truncated_bytes=%d]", size-1<<10); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	want(t, "truncated", f.metrics.truncated, 2)
}

func TestSlowPeer(t *testing.T) {
	f := start(t, "tcp", nil, func(c *Config) { c.IdleTimeout = time.Second })
	slow, quick := f.dial(t), f.dial(t)
	const text = "<14>1 - - - - - - slow\n"
	for i := range text {
		send(t, slow, text[i:i+1])
		send(t, quick, "<14>1 - - - - - - quick\n")
		time.Sleep(50 * time.Millisecond) // in all longer than a connection may be idle
	}
	until(t, "all lines", func() bool { return len(f.lines()) == len(text)+1 })
	if !slices.Contains(f.lines(), "slow") {
		t.Errorf("%q", f.lines())
	}
}

func TestIdle(t *testing.T) {
	f := start(t, "tcp", nil, func(c *Config) { c.IdleTimeout = 300 * time.Millisecond })
	conn := f.dial(t)
	send(t, conn, "<14>1 - - - - - - one\n<14>1 - - - - - - without an end")
	must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	f.wantLines(t, "one", "without an end")
	want(t, "connections", f.metrics.connections, 0)
}

func TestMaxConnections(t *testing.T) {
	f := start(t, "tcp", nil, func(c *Config) { c.MaxConnections = 2 })
	first, second := f.dial(t), f.dial(t)
	want(t, "connections", f.metrics.connections, 2)
	third := f.dial(t)
	must(t, third.SetReadDeadline(time.Now().Add(20*time.Second)))
	if _, err := third.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	want(t, "rejected", f.metrics.rejected.WithLabelValues("max_connections"), 1)
	must(t, first.Close())
	want(t, "connections", f.metrics.connections, 1)
	until(t, "a place", func() bool { return len(f.server.connections) == 1 })
	send(t, f.dial(t), "<14>1 - - - - - - fourth\n")
	send(t, second, "<14>1 - - - - - - second\n")
	until(t, "both lines", func() bool { return len(f.lines()) == 2 })
}

func TestTLS(t *testing.T) {
	authority := certstest.New(t)
	pair := func(name string) tls.Certificate {
		cert, err := tls.X509KeyPair(authority.Issue(t, name))
		must(t, err)
		return cert
	}
	server := &tls.Config{Certificates: []tls.Certificate{pair("server")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool()}
	f := start(t, "tcp", server, func(c *Config) {
		c.Tenant = func(state *tls.ConnectionState) (string, error) {
			if state == nil {
				return "", errors.New("no TLS")
			}
			name := state.VerifiedChains[0][0].Subject.CommonName
			if name == "stranger" {
				return "", errors.New("nobody's")
			}
			return name, nil
		}
	})
	mute := f.dial(t) // nobody waits for its handshake
	connect := func(certificates ...tls.Certificate) (net.Conn, error) {
		return tls.Dial("tcp", f.address.String(), &tls.Config{RootCAs: authority.Pool(), Certificates: certificates})
	}
	conn, err := connect(pair("globex"))
	must(t, err)
	send(t, conn, "<14>1 - - - - - - one\n")
	f.wantLines(t, "one") // the deadline of what is gathered passes, and the connection goes on
	send(t, conn, "21 <14>1 - - - - - - two<13>1 - - - - - - three")
	must(t, conn.Close())
	f.wantLines(t, "one", "two", "three")
	for _, p := range f.all() {
		if p.tenant != "globex" {
			t.Errorf("tenant %s", p.tenant)
		}
	}
	want(t, "messages", f.metrics.messages.WithLabelValues("tls"), 3)

	for reason, certificates := range map[string][]tls.Certificate{"tenant": {pair("stranger")}, "handshake": nil} {
		if conn, err := connect(certificates...); err == nil {
			must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("read something")
			}
			conn.Close()
		}
		want(t, reason, f.metrics.rejected.WithLabelValues(reason), 1)
	}
	must(t, f.stop())
	if _, err := mute.Read(make([]byte, 1)); err == nil {
		t.Error("read something")
	}
}

func TestPacket(t *testing.T) {
	f := start(t, "udp", nil, nil)
	conn := f.dial(t)
	for _, text := range []string{
		"<14>1 - - - - - - one", "<14>1 - - - - - - two\n", "<14>1 - - - - - - three\r\n", "<14>1 - - - - - - four\x00", "", "\n", "5 <13>\nx\n",
		"<14>1 - - - - - - " + strings.Repeat("x", 60<<10),
	} {
		send(t, conn, text)
	}
	f.wantLines(t, "one", "two", "three", "four", "5 <13>\nx", strings.Repeat("x", 1<<10))
	f.mu.Lock()
	for i, want := range []string{`{"facility":"user","host":"127.0.0.1","level":"info"}`, "", "", "", `{"host":"127.0.0.1"}`, ""} {
		if got := f.rows[i].Labels; want != "" && got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f.mu.Unlock()
	want(t, "messages", f.metrics.messages.WithLabelValues("udp"), 6)
	want(t, "truncated", f.metrics.truncated, 1)
	want(t, "unparsed", f.metrics.unparsed, 1)
	want(t, "waiting", f.metrics.waiting, 0)
}

// What has no room in the buffer while nothing can be pushed is counted.
func TestPacketLoss(t *testing.T) {
	const buffer = 10_000
	f := start(t, "udp", nil, func(c *Config) { c.UDPBuffer = buffer })
	f.answers(func(int) error { return errLater })
	conn := f.dial(t)
	message := "<14>1 - - - - - - " + strings.Repeat("x", 442)
	const fit = buffer / (460 + packetBytes)
	for i := range 3 * fit {
		send(t, conn, message)
		want(t, "messages", f.metrics.messages.WithLabelValues("udp"), float64(i+1)) // none is lost on the way here
	}
	lost := f.metrics.lost.WithLabelValues("buffer_full")
	want(t, "lost", lost, 2*fit)
	want(t, "waiting", f.metrics.waiting, buffer)
	f.answers(nil)
	until(t, "the lines", func() bool { return len(f.lines()) == fit })
	send(t, conn, "<14>1 - - - - - - last")
	until(t, "the last line", func() bool { return slices.Contains(f.lines(), "last") })
	want(t, "waiting", f.metrics.waiting, 0)
	want(t, "lost", lost, 2*fit)
	must(t, f.stop())
	if n := strings.Count(f.log.String(), "messages are lost"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, f.log.String())
	}
}

func TestPacketWithoutTenant(t *testing.T) {
	f := start(t, "udp", nil, func(c *Config) {
		c.Tenant = func(*tls.ConnectionState) (string, error) { return "", errNever }
	})
	send(t, f.dial(t), "<14>1 - - - - - - one")
	want(t, "lost", f.metrics.lost.WithLabelValues("refused"), 1)
}

// A queue gives chunks of at most 2,000 messages, in their order.
func TestQueue(t *testing.T) {
	q := queue{max: 1 << 20, changed: make(chan struct{}, 1)}
	for i := range 4500 {
		if !q.add(fmt.Appendf(nil, "%d", i), netip.MustParseAddr("192.0.2.7"), time.Now()) {
			t.Fatal("no room")
		}
	}
	q.end()
	var sizes []int
	var text string
	for c := q.next(); c != nil; c = q.next() {
		sizes = append(sizes, len(c.messages))
		text += string(c.data)
		q.done(c)
	}
	if !slices.Equal(sizes, []int{2000, 2000, 500}) || q.bytes != 0 || !strings.HasPrefix(text, "0123") || !strings.HasSuffix(text, "44984499") {
		t.Errorf("%v, %d bytes", sizes, q.bytes)
	}
}

// When the context ends what was gathered is pushed, and nothing runs on.
func TestEnd(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			before := runtime.NumGoroutine()
			f := start(t, network, nil, nil)
			conn := f.dial(t)
			send(t, conn, "<14>1 - - - - - - gathered")
			if network == "tcp" {
				send(t, conn, "\n<14>1 - - - - - - without an end")
			}
			want(t, "what came", f.metrics.messages.WithLabelValues(network), 1)
			must(t, f.stop())
			lines := []string{"gathered"}
			if network == "tcp" {
				lines = append(lines, "without an end")
			}
			if got := f.lines(); !slices.Equal(got, lines) {
				t.Errorf("%q", got)
			}
			must(t, conn.Close())
			until(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
			if _, err := net.Dial(f.address.Network(), f.address.String()); network == "tcp" && err == nil {
				t.Error("it listens on")
			}
		})
	}
}

// The end does not wait for ever for a push.
func TestEndWithoutPush(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			f := start(t, network, nil, nil)
			f.answers(func(int) error { return errLater })
			send(t, f.dial(t), "<14>1 - - - - - - gathered\n")
			until(t, "a try", func() bool { return len(f.all()) > 0 })
			began := time.Now()
			must(t, f.stop())
			if took := time.Since(began); took < grace || took > 2*grace {
				t.Errorf("it took %s", took)
			}
			want(t, "lost", f.metrics.lost.WithLabelValues("shutdown"), 1)
		})
	}
}

// A listener that was closed by somebody else is an error.
func TestListenerFails(t *testing.T) {
	f := start(t, "tcp", nil, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, listener.Close())
	if err := f.server.ServeStream(t.Context(), listener); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	must(t, conn.Close())
	if err := f.server.ServePacket(t.Context(), conn); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// With its listener ends all that came from it, even where nothing can be pushed.
func TestListenerFailsLater(t *testing.T) {
	f := start(t, "tcp", nil, nil)
	f.answers(func(int) error { return errLater })
	ended := make(chan error, 2)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() { ended <- f.server.ServeStream(t.Context(), listener) }()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	go func() { ended <- f.server.ServePacket(t.Context(), socket) }()
	for _, address := range []net.Addr{listener.Addr(), socket.LocalAddr()} {
		conn, err := net.Dial(address.Network(), address.String())
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		send(t, conn, "<14>1 - - - - - - gathered\n")
	}
	until(t, "a try of each", func() bool {
		keys := map[string]bool{}
		for _, p := range f.all() {
			keys[p.key] = true
		}
		return len(keys) == 2
	})
	must(t, listener.Close())
	must(t, socket.Close())
	for range 2 {
		select {
		case err := <-ended:
			if !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it goes on without its listener")
		}
	}
	want(t, "connections", f.metrics.connections, 0)
	want(t, "lost", f.metrics.lost.WithLabelValues("shutdown"), 2)
}

func TestMetricNames(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	for _, v := range []*prometheus.CounterVec{m.rejected, m.messages, m.lost} {
		if n := testutil.CollectAndCount(v); n != 3 {
			t.Errorf("%d series from the start", n)
		}
	}
	families, err := registry.Gather()
	must(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	must(t, err)
	if len(problems) > 0 || len(families) != 9 {
		t.Errorf("%d metrics, %v", len(families), problems)
	}
}
