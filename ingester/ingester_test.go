package ingester

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// fixture is a pipeline of real engines, with a link to ClickHouse that can be cut.
type fixture struct {
	t     testing.TB
	nats  *embedded.NATS
	wal   *wal.WAL
	store *store.Store
	link  *link
	next  int // number of the next line
}

var databases atomic.Int32

func newFixture(t testing.TB, shards int) *fixture {
	t.Helper()
	f := &fixture{t: t, nats: enginetest.NATS(t)}
	f.wal = f.connect(shards, 1<<30)
	f.link = newLink(t, enginetest.ClickHouse(t).Addr())
	f.store = f.open(f.link.addr, fmt.Sprintf("ingester_%d", databases.Add(1)))
	if err := f.ride(func() error { return f.store.Migrate(t.Context(), 0) }); err != nil {
		t.Fatal(err)
	}
	return f
}

// ride does something again while ClickHouse is away, and returns what came of it. All tests share one ClickHouse,
// which may die of what another of them does to its connections, and is soon back.
func (f *fixture) ride(do func() error) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := do()
		if err == nil || store.Classify(err) != store.Transient || f.t.Context().Err() != nil || time.Now().After(deadline) {
			return err
		}
		f.t.Logf("tried again: %v", err)
	}
}

func (f *fixture) conn(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := f.nats.Conn(nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (f *fixture) connect(shards int, maxBytes int64) *wal.WAL {
	f.t.Helper()
	w, err := wal.Open(f.t.Context(), f.conn(f.t), wal.Config{Shards: shards, Replicas: 1, MaxBytes: maxBytes, DedupWindow: time.Minute}, quiet())
	if err != nil {
		f.t.Fatal(err)
	}
	return w
}

func (f *fixture) open(addr, database string) *store.Store {
	f.t.Helper()
	s, err := store.Open(store.Config{DSN: fmt.Sprintf("clickhouse://%s/%s?dial_timeout=1s", addr, database), Connections: 8}, quiet())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = s.Close() })
	return s
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

var defaults = Config{
	FlushInterval: time.Hour, FlushRows: 1e6, FlushBytes: 64 << 20, BufferBytes: 256 << 20,
	ReplayWindow: time.Hour, OwnerTimeout: time.Second, DrainTimeout: 20 * time.Second,
}

// running is an ingester that runs.
type running struct {
	*Ingester
	cancel context.CancelFunc
	done   chan struct{}
}

var ids atomic.Int32

// run runs an ingester until it is stopped or the test ends.
func (f *fixture) run(change func(*Config)) *running {
	f.t.Helper()
	cfg := defaults
	cfg.ID = fmt.Sprintf("ingester-%d", ids.Add(1))
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{
		Ingester: New(cfg, f.wal, f.store, NewMetrics(prometheus.NewRegistry()), quiet()),
		cancel:   cancel, done: make(chan struct{}),
	}
	go func() {
		defer close(r.done)
		if err := r.Run(ctx); err != nil {
			f.t.Error(err)
		}
	}()
	f.t.Cleanup(r.stop)
	return r
}

func (r *running) stop() {
	r.cancel()
	<-r.done
}

func (r *running) owns() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.shards)
}

// push publishes records of lines that are numbered through.
func (f *fixture) push(records, lines int) {
	f.t.Helper()
	for range records {
		var b logs.Batch
		b.AddStream(fmt.Sprintf(`{"app":"%d"}`, f.next%3))
		for range lines {
			b.Lines = fmt.Appendf(b.Lines, "line %d", f.next)
			b.EndEntry(1700000000000000001+int64(f.next), true)
			f.next++
		}
		if _, err := f.wal.Publish(f.t.Context(), "acme", "", &b); err != nil {
			f.t.Fatal(err)
		}
	}
}

// rows returns how many lines are in ClickHouse, and how many different ones.
func (f *fixture) rows() (all, different uint64) {
	f.t.Helper()
	sql := "SELECT count(), uniqExact(msg) FROM " + f.store.Database() + ".log"
	if err := f.ride(func() error { return f.store.Conn().QueryRow(f.t.Context(), sql).Scan(&all, &different) }); err != nil {
		f.t.Fatal(err)
	}
	return all, different
}

// landed waits until all lines that were pushed are there, and fails if one is there twice.
func (f *fixture) landed() {
	f.t.Helper()
	f.eventually("all lines are in ClickHouse", func() bool {
		all, different := f.rows()
		if all > uint64(f.next) {
			f.t.Fatalf("%d rows of %d lines", all, f.next)
		}
		return different == uint64(f.next)
	})
}

func (f *fixture) eventually(what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("not within 2 minutes: " + what)
		}
	}
}

// acknowledged tells whether all of the WAL is.
func (f *fixture) acknowledged() bool {
	f.t.Helper()
	for n := range f.wal.Shards() {
		s, err := f.wal.State(f.t.Context(), n)
		if err != nil {
			f.t.Fatal(err)
		}
		if s.BacklogRecords > 0 || s.Position.Intent != nil {
			return false
		}
	}
	return true
}

func TestFlushBy(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"interval": func(c *Config) { c.FlushInterval = 300 * time.Millisecond },
		"rows":     func(c *Config) { c.FlushRows = 50 },
		"bytes":    func(c *Config) { c.FlushBytes = 300 },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, 1)
			in := f.run(change)
			began := time.Now()
			f.push(5, 10)
			f.landed()
			f.eventually("it is acknowledged", f.acknowledged)
			if name == "interval" && time.Since(began) < 300*time.Millisecond {
				t.Errorf("flushed after %s", time.Since(began))
			}
			if got := testutil.ToFloat64(in.metrics.rows); got != 50 {
				t.Errorf("the metric says %v rows", got)
			}
		})
	}
}

func TestNothingIsFlushedBeforeItIsDue(t *testing.T) {
	f := newFixture(t, 1)
	in := f.run(nil)
	f.push(5, 10)
	f.eventually("all is gathered", func() bool { return shardOf(in).rows() == 50 })
	if all, _ := f.rows(); all != 0 || f.acknowledged() {
		t.Errorf("%d rows before the batch was due", all)
	}
	in.stop()
	f.landed() // a stop flushes
	if !f.acknowledged() {
		t.Error("a stop acknowledges what it flushed")
	}
	for n := range f.wal.Shards() {
		if p, err := f.wal.Position(t.Context(), n); err != nil || p.Owner != "" {
			t.Errorf("a stop hands the shard back: %+v, %v", p, err)
		}
	}
}

// shardOf is the shard of an ingester that has one.
func shardOf(in *running) *shard {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.shards {
		return s
	}
	return &shard{}
}

// rows is how many rows are gathered.
func (s *shard) rows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gathered
}

func TestFlushLandsAllThatWasPushed(t *testing.T) {
	f := newFixture(t, 3)
	in := f.run(nil)
	f.eventually("it owns all shards", func() bool { return in.owns() == 3 })
	for range 5 {
		f.push(20, 10)
		rows, err := in.Flush(t.Context())
		if err != nil || rows != 200 {
			t.Fatalf("flushed %d rows of 200: %v", rows, err)
		}
		if all, different := f.rows(); all != uint64(f.next) || different != all {
			t.Fatalf("%d rows, %d different, of %d", all, different, f.next)
		}
	}
	if rows, err := in.Flush(t.Context()); err != nil || rows != 0 {
		t.Errorf("flushed %d rows of nothing: %v", rows, err)
	}
}

func TestOutageOfClickHouse(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(func(c *Config) {
		c.FlushInterval, c.FlushRows, c.BufferBytes = 100*time.Millisecond, 2000, 2<<20
	})
	f.push(10, 100)
	f.landed()
	f.eventually("it is acknowledged", f.acknowledged)
	f.link.cut()
	f.push(300, 100)
	f.eventually("it is retrying", func() bool { return testutil.ToFloat64(in.metrics.failures.WithLabelValues("transient")) >= 2 })
	if err := in.Ready(t.Context()); err == nil {
		t.Error("ready without ClickHouse")
	}
	service := &Service{Ingester: in.Ingester, Addresses: func() map[string]string { return nil }}
	var response *logthrav1.StatusResponse
	f.eventually("all shards are retrying", func() bool { // the failures may all be one shard's
		var err error
		if response, err = service.Status(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(response.GetShards(), func(s *logthrav1.ShardStatus) bool { return s.GetState() != "retrying" })
	})
	backlog := uint64(0)
	for _, s := range response.GetShards() {
		backlog += s.GetBacklogRecords()
		if s.GetState() != "retrying" || !strings.Contains(s.GetError(), "ClickHouse") || s.GetOldestUnflushed().AsDuration() <= 0 {
			t.Errorf("the status is %+v", s)
		}
	}
	if backlog != 300 {
		t.Errorf("the backlog is %d records of 300", backlog)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := service.Flush(ctx, nil); status.Code(err) != codes.Unavailable {
		t.Errorf("a flush without ClickHouse: %v", err)
	}
	f.link.mend()
	f.landed()
	f.eventually("it is acknowledged", f.acknowledged)
	f.eventually("it is ready", func() bool { return in.Ready(t.Context()) == nil })
}

// A backlog far above the memory ceiling does not raise the memory above it.
func TestMemoryIsBounded(t *testing.T) {
	f := newFixture(t, 4)
	f.link.cut()
	random := rand.New(rand.NewPCG(1, 2))
	line := make([]byte, 1000) // that can't be compressed
	for i := range 64 {
		var b logs.Batch
		b.AddStream(`{"a":"b"}`)
		for range 1000 {
			for at := range line {
				line[at] = 'a' + byte(random.IntN(26))
			}
			b.Lines = append(b.Lines, fmt.Sprintf("%d %s", f.next, line)...)
			b.EndEntry(int64(i)+1700000000000000001+int64(f.next), true)
			f.next++
		}
		if _, err := f.wal.Publish(t.Context(), "acme", "", &b); err != nil {
			t.Fatal(err)
		}
	}
	const ceiling = 8 << 20
	in := f.run(func(c *Config) { c.BufferBytes, c.FlushInterval = ceiling, 100*time.Millisecond })
	f.eventually("all shards wait for ClickHouse", func() bool { return testutil.ToFloat64(in.metrics.failures.WithLabelValues("transient")) >= 4 })
	var held int64
	in.mu.Lock()
	for _, s := range in.shards {
		held += int64(s.rows())
	}
	in.mu.Unlock()
	if buffered := testutil.ToFloat64(in.metrics.buffered); buffered <= 0 || buffered > ceiling || buffered < float64(held*1000) {
		t.Errorf("the metric says that %g bytes are held", buffered)
	}
	if held*1000 > ceiling {
		t.Errorf("%d lines of 1,000 bytes are held under a ceiling of %d bytes", held, ceiling)
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	t.Logf("heap in use: %d MiB", memory.HeapInuse>>20)
	f.link.mend()
	f.landed()
	if !in.budget.TryAcquire(ceiling) {
		f.eventually("the budget is given back", func() bool { return in.budget.TryAcquire(ceiling) })
	}
	in.budget.Release(ceiling)
	if buffered := testutil.ToFloat64(in.metrics.buffered); buffered != 0 {
		t.Errorf("the metric says that %g bytes are held at the end", buffered)
	}
}

// One shard alone stays under the ceiling, too, and records that are larger than all of it land one by one.
func TestCeilingBelowOneBatch(t *testing.T) {
	f := newFixture(t, 1)
	const ceiling = 128 << 10
	f.push(40, 2000) // of some 10 KB
	in := f.run(func(c *Config) { c.BufferBytes = ceiling })
	most := 0.0
	f.eventually("no batch has to be full to land", func() bool {
		most = max(most, testutil.ToFloat64(in.metrics.buffered))
		all, _ := f.rows()
		return all > 40*2000/2
	})
	if most == 0 || most > ceiling {
		t.Errorf("%g bytes are held under a ceiling of %d", most, ceiling)
	}
	f.push(5, 100_000)
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.landed()
}

// A former owner died at any point of its insert. Its successor lands the same range, once.
func TestRecovery(t *testing.T) {
	for name, died := range map[string]func(*fixture, *wal.Lease, *store.Batch, wal.Range) error{
		"before the insert": func(*fixture, *wal.Lease, *store.Batch, wal.Range) error { return nil },
		"after the insert": func(f *fixture, l *wal.Lease, b *store.Batch, r wal.Range) error {
			return f.store.Insert(f.t.Context(), b, l.Token(r))
		},
		"while its insert is still on the way": func(f *fixture, l *wal.Lease, b *store.Batch, r wal.Range) error {
			var group sync.WaitGroup
			group.Go(func() { _ = f.store.Insert(context.Background(), b, l.Token(r)) })
			f.t.Cleanup(group.Wait)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, 1)
			lease, err := f.wal.Claim(t.Context(), 0, "former", func(string) bool { return false })
			if err != nil {
				t.Fatal(err)
			}
			f.push(100, 100)
			last, err := f.wal.Last(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			first := last - 99
			// The former owner's batch ends elsewhere than the successor's would.
			span := wal.Range{First: first, Last: first + 36, Bytes: 1 << 20}
			if err := lease.Intend(t.Context(), span); err != nil {
				t.Fatal(err)
			}
			if err := died(f, lease, f.batch(span), span); err != nil {
				t.Fatal(err)
			}
			in := f.run(func(c *Config) { c.FlushRows = 1000 })
			f.eventually("it owns the shard", func() bool { return in.owns() == 1 })
			if _, err := in.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !f.acknowledged() {
				t.Error("a flush acknowledges")
			}
			if all, different := f.rows(); all != uint64(f.next) || different != all {
				t.Errorf("%d rows, %d different, of %d", all, different, f.next)
			}
			if err := lease.Land(t.Context(), span.Last); !errors.Is(err, wal.ErrFenced) {
				t.Errorf("the former owner could acknowledge: %v", err)
			}
		})
	}
}

// batch reads a range as an owner would.
func (f *fixture) batch(span wal.Range) *store.Batch {
	f.t.Helper()
	reader, err := f.wal.Read(f.t.Context(), 0, span.First)
	if err != nil {
		f.t.Fatal(err)
	}
	defer reader.Close()
	b := new(store.Batch)
	var decoded logs.Batch
	var scratch []byte
	for record := range reader.Records() {
		if scratch, err = record.Decode(&decoded, scratch); err != nil {
			f.t.Fatal(err)
		}
		b.Add(record.Sequence, record.Tenant, &decoded, &record)
		if record.Sequence == span.Last {
			break
		}
	}
	return b
}

func TestABadRecordStopsNothing(t *testing.T) {
	f := newFixture(t, 1)
	in := f.run(func(c *Config) { c.FlushInterval = 100 * time.Millisecond })
	nc, err := f.nats.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for range 3 {
		f.push(2, 10)
		if _, err := nc.Request("logs.acme.0", []byte("not a record"), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	f.landed()
	f.eventually("it is acknowledged, the bad ones too", f.acknowledged)
	if got := testutil.ToFloat64(in.metrics.deadLetters); got != 3 {
		t.Errorf("%v dead letters of 3", got)
	}
	if _, err := nc.Request("logs.acme.0", []byte("alone"), time.Minute); err != nil { // a batch of no rows
		t.Fatal(err)
	}
	f.eventually("a bad record alone is acknowledged", f.acknowledged)
}

func TestIngestersShareTheShards(t *testing.T) {
	f := newFixture(t, 7)
	short := func(c *Config) { c.FlushInterval = 50 * time.Millisecond }
	a := f.run(short)
	f.eventually("one owns all", func() bool { return a.owns() == 7 })
	stop := make(chan struct{})
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				f.push(1, 20)
			}
		}
	})
	b := f.run(short)
	f.eventually("two share", func() bool { return a.owns()+b.owns() == 7 && a.owns() >= 3 && b.owns() >= 3 })
	c := f.run(short)
	f.eventually("three share", func() bool {
		return a.owns()+b.owns()+c.owns() == 7 && a.owns() >= 2 && b.owns() >= 2 && c.owns() >= 2
	})
	a.stop()
	f.eventually("two share again", func() bool { return b.owns()+c.owns() == 7 && b.owns() >= 3 && c.owns() >= 3 })
	close(stop)
	pushing.Wait()
	f.landed()
	f.eventually("it is acknowledged", f.acknowledged)
	if all, different := f.rows(); all != uint64(f.next) || different != all {
		t.Errorf("%d rows, %d different, of %d", all, different, f.next)
	}
}

// Two ingesters die one after the other: who is left takes all shards of the first when they are overdue, though some
// would be the share of the second, which does not come for them.
func TestOverdueShardsAreForWhoeverIsThere(t *testing.T) {
	f := newFixture(t, 4)
	js, err := jetstream.New(f.conn(t))
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), wal.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	beat := func(id string) {
		if _, err := kv.Put(t.Context(), "ingester."+id, []byte(`{"beat":100}`)); err != nil {
			t.Error(err)
		}
	}
	const timeout = 5 * time.Second // it keeps what is not its share for a tenth of that, which is not to be missed
	in := f.run(func(c *Config) { c.OwnerTimeout = timeout })
	f.eventually("it owns all", func() bool { return in.owns() == 4 })
	in.stop()
	for shard := range 4 {
		if _, err := f.wal.Claim(t.Context(), shard, "first", nobodyLives); err != nil {
			t.Fatal(err)
		}
	}
	beat("first")
	stop := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		for {
			beat("second") // it lives, and takes no shard
			select {
			case <-time.After(timeout / 10):
			case <-stop:
				return
			}
		}
	})
	defer beating.Wait()
	defer close(stop)
	in = f.run(func(c *Config) { c.OwnerTimeout = timeout })
	taken := map[int]bool{}
	f.eventually("it has taken every shard", func() bool {
		for shard := range 4 {
			p, err := f.wal.Position(t.Context(), shard)
			if err != nil {
				t.Fatal(err)
			}
			taken[shard] = taken[shard] || p.Owner == in.cfg.ID
		}
		return len(taken) == 4 && taken[0] && taken[1] && taken[2] && taken[3]
	})
	f.eventually("it keeps its share", func() bool { return in.owns() == 2 })
}

// An owner that is cut off from its own end is fenced, and says so, and does no harm.
func TestFencedOwnerDropsItsShard(t *testing.T) {
	f := newFixture(t, 1)
	in := f.run(nil)
	f.push(10, 10)
	f.eventually("it has gathered", func() bool { return shardOf(in).rows() == 100 })
	s := shardOf(in)
	usurper, err := f.wal.Claim(t.Context(), 0, "usurper", func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, _ = in.Flush(ctx)
	f.eventually("it drops the shard", func() bool { return shardOf(in) != s })
	if all, _ := f.rows(); all != 0 {
		t.Errorf("%d rows of an owner that was fenced", all)
	}
	// No member of that name lives: it may have been claimed already.
	if err := usurper.Release(t.Context()); err != nil && !errors.Is(err, wal.ErrFenced) {
		t.Error(err)
	}
	f.eventually("it claims it again", func() bool { return in.owns() == 1 })
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.landed()
}

// An owner that has nothing to write finds out, too, and does not count the shard as its own for ever.
func TestIdleOwnerFindsItselfFenced(t *testing.T) {
	f := newFixture(t, 1)
	in := f.run(nil)
	f.eventually("it owns the shard", func() bool { return in.owns() == 1 })
	s := shardOf(in)
	if _, err := f.wal.Claim(t.Context(), 0, "usurper", nobodyLives); err != nil {
		t.Fatal(err)
	}
	f.eventually("it drops the shard", func() bool { return shardOf(in) != s })
}

func TestDrain(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(nil)
	f.push(10, 10)
	f.eventually("it owns the shards", func() bool { return in.owns() == 2 })
	service := &Service{Ingester: in.Ingester, Addresses: func() map[string]string { return nil }}
	if _, err := service.Flush(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	f.push(10, 10)
	if _, err := service.Drain(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if in.owns() != 0 || in.Ready(t.Context()) == nil {
		t.Error("drained, it still owns shards or is ready")
	}
	response, err := service.Status(t.Context(), &logthrav1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range response.GetShards() {
		if s.GetOwner() != "" {
			t.Errorf("shard %d is owned by %q", s.GetShard(), s.GetOwner())
		}
	}
	other := f.run(func(c *Config) { c.FlushInterval = 100 * time.Millisecond })
	f.eventually("another takes the shards", func() bool { return other.owns() == 2 })
	f.landed()
	if _, err := service.Drain(t.Context(), nil); err != nil {
		t.Error("draining again:", err)
	}
}

// A stop does not wait for a ClickHouse that is away beyond the drain timeout, and loses nothing.
func TestStopWithoutClickHouse(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(func(c *Config) { c.DrainTimeout = 500 * time.Millisecond })
	f.push(10, 10)
	f.eventually("it owns the shards", func() bool { return in.owns() == 2 })
	f.link.cut()
	began := time.Now()
	in.stop()
	if took := time.Since(began); took > defaults.DrainTimeout*3/4 {
		t.Errorf("it took %s", took)
	}
	f.link.mend()
	f.run(func(c *Config) { c.FlushInterval = 50 * time.Millisecond })
	f.landed()
}

func TestFairShare(t *testing.T) {
	for shards := range 20 {
		for members := 1; members < 8; members++ {
			var live []string
			for i := range members {
				live = append(live, fmt.Sprint(i))
			}
			total := 0
			for _, id := range live {
				share := fairShare(shards, live, id)
				if share < shards/members || share > shards/members+1 {
					t.Errorf("%d shards, %d ingesters: a share of %d", shards, members, share)
				}
				total += share
			}
			if total != shards {
				t.Errorf("%d shards, %d ingesters: the shares add up to %d", shards, members, total)
			}
		}
	}
}

// link is a TCP connection to ClickHouse that can be cut.
type link struct {
	addr   string
	target string

	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]bool
}

func newLink(t testing.TB, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{addr: listener.Addr().String(), target: target, conns: map[net.Conn]bool{}}
	var group sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		l.cut()
		group.Wait()
	})
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { l.serve(conn) })
		}
	})
	return l
}

func (l *link) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	l.mu.Lock()
	if l.isCut {
		l.mu.Unlock()
		return
	}
	l.conns[client], l.conns[server] = true, true
	l.mu.Unlock()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = true
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = false
}
