package cut

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/ingester"
	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// epoch is the time of line 0. That of line n is n ns later.
const epoch = int64(1_700_000_000_000_000_001)

var databases atomic.Int32

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// fixture is a pipeline of real engines: what a gateway has of it, and ingesters that reach ClickHouse through a link.
type fixture struct {
	t        testing.TB
	nats     *embedded.NATS
	dir      string // of nats
	shards   int
	wal      *wal.WAL // of the gateway
	cutter   *cut.Cutter
	store    *store.Store
	link     *link
	database string
	next     int // number of the next line
}

func newFixture(t testing.TB, shards int) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), shards: shards, database: fmt.Sprintf("cut_%d", databases.Add(1))}
	f.startNATS("127.0.0.1:0")
	clickhouse := enginetest.ClickHouse(t)
	f.link = newLink(t, clickhouse.Addr())
	f.store = f.open(clickhouse.Addr())
	if err := f.store.Migrate(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	_, f.wal = f.connect()
	f.newCutter()
	return f
}

// startNATS starts NATS, again if it ran before. It stops with the test.
func (f *fixture) startNATS(listen string) {
	f.t.Helper()
	server, err := embedded.StartNATS(embedded.NATSConfig{Dir: f.dir, Listen: listen, Logger: quiet()})
	if err != nil {
		f.t.Fatal(err)
	}
	f.nats = server
	f.t.Cleanup(server.Stop)
}

func (f *fixture) newCutter() {
	f.t.Helper()
	var err error
	if f.cutter, err = cut.New(f.t.Context(), f.wal, quiet()); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(f.cutter.Close)
}

func (f *fixture) open(address string) *store.Store {
	f.t.Helper()
	s, err := store.Open(store.Config{DSN: fmt.Sprintf("clickhouse://%s/%s?dial_timeout=1s", address, f.database), Connections: 8}, quiet())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (f *fixture) connect() (*nats.Conn, *wal.WAL) {
	f.t.Helper()
	nc, err := nats.Connect(f.nats.URL(), nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // it is restarted under them
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(nc.Close)
	w, err := wal.Open(f.t.Context(), nc, wal.Config{Shards: f.shards, Replicas: 1, MaxBytes: 1 << 30, DedupWindow: time.Minute}, quiet())
	if err != nil {
		f.t.Fatal(err)
	}
	return nc, w
}

// running is an ingester that runs, with a NATS connection and a gRPC server of its own.
type running struct {
	*ingester.Ingester

	nc       *nats.Conn
	server   *grpc.Server
	cancel   context.CancelFunc
	done     chan struct{}
	registry *prometheus.Registry
}

var ids atomic.Int32

func (f *fixture) run(change func(*ingester.Config)) *running {
	f.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	cfg := ingester.Config{
		ID: fmt.Sprintf("ingester-%d", ids.Add(1)), GRPC: listener.Addr().String(),
		FlushInterval: time.Hour, FlushRows: 1e6, FlushBytes: 64 << 20, BufferBytes: 256 << 20,
		ReplayWindow: time.Hour, OwnerTimeout: time.Second, DrainTimeout: 20 * time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	nc, w := f.connect()
	r := &running{nc: nc, done: make(chan struct{}), registry: prometheus.NewRegistry(), server: grpc.NewServer()}
	r.Ingester = ingester.New(cfg, w, f.open(f.link.address), ingester.NewMetrics(r.registry), quiet())
	logthrav1.RegisterIngesterServiceServer(r.server, &ingester.Service{Ingester: r.Ingester, Addresses: func() map[string]string { return nil }})
	go func() { _ = r.server.Serve(listener) }()
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(r.done)
		_ = r.Run(ctx)
	}()
	f.t.Cleanup(r.stop)
	return r
}

// stop ends it in good order.
func (r *running) stop() {
	r.cancel()
	<-r.done
	r.server.Stop()
}

// kill ends it without a word to anybody.
func (r *running) kill() {
	r.server.Stop()
	r.nc.Close()
	r.cancel()
}

// owned waits until all shards have an owner that the gateway knows.
func (f *fixture) owned() {
	f.t.Helper()
	owners, err := f.wal.WatchOwners(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	defer owners.Close()
	f.eventually("all shards have an owner", func() bool {
		for shard := range f.shards {
			if p, _ := owners.Position(shard); p.Owner == "" {
				return false
			}
		}
		return true
	})
}

// push pushes records of numbered lines: of tenant and stream, so many of so many lines.
func (f *fixture) push(tenant, stream string, records, lines int) {
	f.t.Helper()
	for range records {
		var b logs.Batch
		b.AddStream(stream)
		for range lines {
			b.Lines = fmt.Appendf(b.Lines, "%d", f.next)
			b.EndEntry(epoch+int64(f.next), true)
			b.AddMetadata([]byte("number"), fmt.Appendf(nil, "n%d", f.next))
			f.next++
		}
		if _, err := f.wal.Publish(f.t.Context(), tenant, "", &b); err != nil {
			f.t.Fatal(err)
		}
	}
}

// all is a request for all lines of a tenant.
func all(tenant string) cut.Request {
	return cut.Request{Tenant: tenant, Start: epoch - 1, End: epoch + 1e15}
}

// make makes a cut, which has to be complete.
func (f *fixture) make(r cut.Request) *cut.Cut {
	f.t.Helper()
	c, err := f.cutter.Cut(f.t.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	if len(c.Warnings) > 0 {
		f.t.Errorf("warnings: %q", c.Warnings)
	}
	return c
}

// rows are the numbers of a tenant's lines that the table has for a cut.
func (f *fixture) rows(tenant string, c *cut.Cut) []uint32 {
	f.t.Helper()
	sql := "SELECT groupArray(toUInt32(msg)) FROM " + f.store.Database() + ".log WHERE tenant_id = ?"
	arguments := []any{tenant}
	for shard, landed := range c.Landed {
		sql += " AND NOT (wal_shard = ? AND wal_seq > ?)"
		arguments = append(arguments, uint16(shard), landed)
	}
	var numbers []uint32
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := f.store.Conn().QueryRow(f.t.Context(), sql, arguments...).Scan(&numbers)
		if err == nil {
			return numbers
		}
		if store.Classify(err) != store.Transient || f.t.Context().Err() != nil || time.Now().After(deadline) {
			f.t.Fatal(err)
		}
	}
}

// numbers are those of the lines of entries.
func numbers(t testing.TB, entries []cut.Entry) []uint32 {
	t.Helper()
	out := make([]uint32, len(entries))
	for i, e := range entries {
		out[i] = uint32(e.Timestamp - epoch)
		if text := fmt.Sprint(out[i]); string(e.Line) != text || e.Length != len(text) {
			t.Fatalf("line %s is %q, of %d bytes", text, e.Line, e.Length)
		}
		if want := (logs.Label{Name: "number", Value: fmt.Sprintf("n%d", out[i])}); len(e.Metadata) != 1 || e.Metadata[0] != want {
			t.Fatalf("line %d has the metadata %q", out[i], e.Metadata)
		}
	}
	return out
}

// seen is all numbers that a cut and the table have of a tenant, in order.
func (f *fixture) seen(tenant string) []uint32 {
	f.t.Helper()
	c := f.make(all(tenant))
	return slices.Sorted(slices.Values(append(f.rows(tenant, c), numbers(f.t, c.Entries)...)))
}

// wantAll fails unless all lines that were pushed are seen, each once, if one tenant pushed all.
func (f *fixture) wantAll(tenant string) {
	f.t.Helper()
	got := f.seen(tenant)
	if len(got) != f.next {
		f.t.Errorf("%d lines of %d are seen", len(got), f.next)
	}
	for i, number := range got {
		if number != uint32(i) {
			f.t.Fatalf("line %d is seen where line %d should be", number, i)
		}
	}
}

func (f *fixture) eventually(what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("not within a minute: " + what)
		}
	}
}

// landed tells whether all of the WAL is in ClickHouse.
func (f *fixture) landed() bool {
	f.t.Helper()
	for shard := range f.shards {
		s, err := f.wal.State(f.t.Context(), shard)
		if err != nil {
			f.t.Fatal(err)
		}
		if s.BacklogRecords > 0 || s.Position.Intent != nil {
			return false
		}
	}
	return true
}

// metric is a counter of the Cutter, over all of its labels but reason, which is one if it is not empty.
func (f *fixture) metric(name, reason string) (sum float64) {
	f.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(f.cutter)
	families, err := registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if reason == "" || maps.Equal(labels, map[string]string{"reason": reason}) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// link is a TCP proxy that can hold back what goes through it, or be cut.
type link struct {
	address string
	target  string

	mu    sync.Mutex
	gate  chan struct{} // closed while all may pass
	conns map[net.Conn]bool
}

func newLink(t testing.TB, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{address: listener.Addr().String(), target: target, gate: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(l.gate)
	var group sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		l.release()
		l.mu.Lock()
		for c := range l.conns {
			_ = c.Close()
		}
		l.mu.Unlock()
		group.Wait()
	})
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", l.target)
			if err != nil {
				_ = client.Close()
				continue
			}
			l.mu.Lock()
			l.conns[client], l.conns[server] = true, true
			l.mu.Unlock()
			group.Go(func() { l.pass(server, client) })
			group.Go(func() { l.pass(client, server) })
		}
	})
	return l
}

// hold holds back all that goes through until release.
func (l *link) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate = make(chan struct{})
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.gate:
	default:
		close(l.gate)
	}
}

func (l *link) pass(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		gate := l.gate
		l.mu.Unlock()
		<-gate
		if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
			_ = from.Close()
			return
		}
	}
}

// loseBucket loses the bucket with the positions, and makes an empty one.
func (f *fixture) loseBucket() {
	f.t.Helper()
	nc, _ := f.connect()
	js, err := jetstream.New(nc)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := js.DeleteKeyValue(f.t.Context(), wal.Bucket); err != nil {
		f.t.Fatal(err)
	}
	_, f.wal = f.connect()
}

// insert inserts the entries of one record.
func insert(t testing.TB, f *fixture, record wal.Record) {
	t.Helper()
	var decoded logs.Batch
	if _, err := record.Decode(&decoded, nil); err != nil {
		t.Fatal(err)
	}
	var b store.Batch
	b.Add(record.Sequence, record.Tenant, &decoded, &record)
	if err := f.store.Insert(t.Context(), &b, ""); err != nil {
		t.Fatal(err)
	}
}
