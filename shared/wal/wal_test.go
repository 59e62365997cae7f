package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/logs"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(memberOf); url != "" {
		os.Exit(runMember(url))
	}
	os.Exit(enginetest.Main(m))
}

var testConfig = Config{Shards: 2, Replicas: 1, MaxBytes: 64 << 20, DedupWindow: time.Minute}

func open(t testing.TB, server *embedded.NATS, cfg Config) *WAL {
	t.Helper()
	nc, err := server.Conn(nats.ReconnectBufSize(-1), nats.ReconnectWait(10*time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	w, err := Open(t.Context(), nc, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// numbered is a batch of one entry whose timestamp tells it from all others.
func numbered(i int) *logs.Batch {
	return batchOf(map[string][]entry{`{"a":"b"}`: {{ts: 1700000000000000001 + int64(i), line: fmt.Sprintf("line %d", i)}}}, `{"a":"b"}`)
}

func publish(t testing.TB, w *WAL, key string, b *logs.Batch) Ack {
	t.Helper()
	ack, err := w.Publish(t.Context(), "acme", key, b)
	if err != nil {
		t.Fatal(err)
	}
	return ack
}

// base is the sequence before that of the first record that a shard ever gets.
func base(w *WAL, shard int) uint64 {
	return w.state.Load().streams[shard].CachedInfo().Config.FirstSeq - 1
}

// eventually waits for a condition that is about to become true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: " + what)
		}
	}
}

func TestOpenIsRepeatableAndNeverLowersTheShards(t *testing.T) {
	server := enginetest.NATS(t)
	var group sync.WaitGroup
	for range 4 { // gateways and ingesters that start at once
		group.Go(func() { open(t, server, testConfig) })
	}
	group.Wait()
	more := testConfig
	more.Shards = 3
	if w := open(t, server, more); w.Shards() != 3 {
		t.Errorf("raised to 3: %d shards", w.Shards())
	}
	w := open(t, server, testConfig)
	if w.Shards() != 3 {
		t.Errorf("asked for 2 where 3 exist: %d shards", w.Shards())
	}
	for n := range 3 {
		info, err := w.js.Stream(t.Context(), StreamName(n))
		if err != nil {
			t.Fatal(err)
		}
		cfg := info.CachedInfo().Config
		if cfg.Discard != jetstream.DiscardNew || cfg.Storage != jetstream.FileStorage || cfg.MaxAge != 0 ||
			cfg.Retention != jetstream.LimitsPolicy || cfg.MaxBytes != testConfig.MaxBytes/3 || cfg.Duplicates != time.Minute {
			t.Errorf("shard %d: %+v", n, cfg)
		}
	}
}

// What an operator has to change is in the error.
func TestOpenSaysWhatTheServerLacks(t *testing.T) {
	server, err := embedded.StartNATS(embedded.NATSConfig{
		Dir: t.TempDir(), Listen: "127.0.0.1:0", MaxStore: 1 << 20, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	nc, err := server.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	replicated := testConfig
	replicated.Replicas, replicated.MaxBytes = 3, 2<<10
	for flag, cfg := range map[string]Config{"--wal-max-bytes": testConfig, "--replicas": replicated} {
		if _, err := Open(t.Context(), nc, cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// A WAL that was lost and is made anew never repeats a sequence, so that the rows of the former one, and their
// tokens, are not taken for its own.
func TestSequencesAreNeverRepeated(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	last := uint64(0)
	for i := range 100 {
		last = max(last, publish(t, w, "", numbered(i)).Sequence)
	}
	for n := range w.Shards() {
		if err := w.js.DeleteStream(t.Context(), StreamName(n)); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(t.Context(), w.nc, testConfig, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if ack := publish(t, again, "", numbered(1)); ack.Sequence <= last {
		t.Errorf("after %d comes %d", last, ack.Sequence)
	}
	if opened := open(t, enginetest.NATS(t), testConfig); base(opened, 0) == 0 {
		t.Error("a new shard counts from one")
	}
	first := base(again, 0)
	if opened, err := Open(t.Context(), w.nc, testConfig, slog.New(slog.DiscardHandler)); err != nil || base(opened, 0) != first {
		t.Errorf("opened again, it counts from elsewhere: %v", err)
	}
}

func TestReadGivesWhatWasPublishedInOrder(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	const records = 1000
	var order [2][]string
	for i := range records {
		ack := publish(t, w, "", numbered(i))
		order[ack.Shard] = append(order[ack.Shard], fmt.Sprintf("line %d", i))
		if ack.Sequence != base(w, ack.Shard)+uint64(len(order[ack.Shard])) {
			t.Fatalf("record %d got sequence %d", i, ack.Sequence)
		}
	}
	for shard, lines := range order {
		if len(lines) < records/4 {
			t.Errorf("shard %d got %d of %d records", shard, len(lines), records)
		}
		from := uint64(len(lines) / 3)
		reader, err := w.Read(t.Context(), shard, base(w, shard)+from)
		if err != nil {
			t.Fatal(err)
		}
		var batch logs.Batch
		var scratch []byte
		for i, want := range lines[from-1:] {
			record := <-reader.Records()
			if scratch, err = record.Decode(&batch, scratch); err != nil {
				t.Fatal(err)
			}
			if string(batch.Lines) != want || record.Sequence != base(w, shard)+from+uint64(i) || record.Tenant != "acme" || time.Since(record.Time) > time.Minute {
				t.Fatalf("got %q as %+v, want %q", batch.Lines, record, want)
			}
		}
		reader.Close()
		reader.Close() // is allowed
	}
}

// noise is what can't be compressed.
func noise(n int) []byte {
	random := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, n)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	return noise
}

// Records of any size pass: the largest, and small ones between them.
func TestReadLargeRecords(t *testing.T) {
	cfg := testConfig
	cfg.Shards, cfg.MaxBytes = 1, 1<<30
	w := open(t, enginetest.NATS(t), cfg)
	noise := noise(15 << 20)
	var sizes []int
	for i := range 12 {
		size := []int{15 << 20, 10, 9 << 20, 100_000}[i%4]
		b := batchOf(map[string][]entry{"{}": {{ts: int64(i) + 1, line: string(noise[:size])}}}, "{}")
		publish(t, w, "", b)
		sizes = append(sizes, size)
	}
	reader, err := w.Read(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var b logs.Batch
	var scratch []byte
	for i, size := range sizes {
		record := <-reader.Records()
		if scratch, err = record.Decode(&b, scratch); err != nil {
			t.Fatal(err)
		}
		if record.Sequence != base(w, 0)+uint64(i+1) || len(b.Lines) != size {
			t.Fatalf("record %d has %d bytes, want record %d of %d", record.Sequence, len(b.Lines), i+1, size)
		}
	}
}

// restartable is a NATS that is stopped and started at the same address, from the same directory.
type restartable struct {
	t    testing.TB
	dir  string
	nats *embedded.NATS
	at   string
}

func newRestartable(t testing.TB) *restartable {
	r := &restartable{t: t, dir: t.TempDir(), at: "127.0.0.1:0"}
	r.start()
	r.at = strings.TrimPrefix(r.nats.URL(), "nats://")
	t.Cleanup(func() { r.nats.Stop() })
	return r
}

func (r *restartable) start() {
	r.t.Helper()
	server, err := embedded.StartNATS(embedded.NATSConfig{Dir: r.dir, Listen: r.at, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Error(err)
		return
	}
	r.nats = server
}

func (r *restartable) restart() {
	r.t.Helper()
	r.nats.Stop()
	r.start()
}

// await waits until the WAL has the server again.
func (r *restartable) await(w *WAL) {
	r.t.Helper()
	eventually(r.t, "NATS is there", func() bool {
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		return w.Ready(ctx) == nil
	})
}

func (r *restartable) open(cfg Config) *WAL {
	r.t.Helper()
	nc, err := nats.Connect(r.nats.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(nc.Close)
	w, err := Open(r.t.Context(), nc, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

func TestReaderGoesOnAfterARestartOfNATS(t *testing.T) {
	server := newRestartable(t)
	cfg := testConfig
	cfg.Shards = 1
	w := server.open(cfg)
	reader, err := w.Read(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	next := func() uint64 {
		for {
			record, ok := <-reader.Records()
			if ok {
				return record.Sequence
			}
			t.Logf("begins again: %v", reader.Err()) // as its owner does
			reader.Close()
			eventually(t, "reading again", func() bool { reader, err = w.Read(t.Context(), 0, base(w, 0)+2); return err == nil })
		}
	}
	publish(t, w, "", numbered(1))
	if got := next(); got != base(w, 0)+1 {
		t.Fatalf("got record %d", got)
	}
	server.nats.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	if _, err := w.Publish(ctx, "acme", "", numbered(2)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("published without a server: %v", err)
	}
	cancel()
	server.start()
	eventually(t, "publishing again", func() bool {
		_, err := w.Publish(t.Context(), "acme", "", numbered(2))
		return err == nil
	})
	if got := next(); got != base(w, 0)+2 {
		t.Errorf("after the restart: got record %d", got)
	}
	reader.Close()
}

// brief is a duplicate window that is over soon, for tests that trim.
const brief = 100 * time.Millisecond

func TestFullShardRefusesAndLosesNothing(t *testing.T) {
	cfg := testConfig
	cfg.Shards, cfg.MaxBytes, cfg.DedupWindow = 1, 256<<10, time.Second
	w := open(t, enginetest.NATS(t), cfg)
	taken := uint64(0)
	var err error
	for i := 0; err == nil && i < 1e5; i++ {
		if _, err = w.Publish(t.Context(), "acme", "", numbered(i)); err == nil {
			taken++
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d records: %v", taken, err)
	}
	info, err := w.js.Stream(t.Context(), StreamName(0))
	if err != nil {
		t.Fatal(err)
	}
	if state := info.CachedInfo().State; state.Msgs != taken || state.FirstSeq != base(w, 0)+1 {
		t.Errorf("%d records were taken, the stream has %+v", taken, state)
	}
	// What has landed makes room, also within the replay window, once its repetition would not be recognized anyway.
	eventually(t, "room for another", func() bool {
		if err := w.Trim(t.Context(), 0, base(w, 0)+taken/2, time.Hour); err != nil {
			t.Fatal(err)
		}
		_, err := w.Publish(t.Context(), "acme", "", numbered(1e6))
		return err == nil
	})
	if info, err = w.js.Stream(t.Context(), StreamName(0)); err != nil {
		t.Fatal(err)
	}
	if first := info.CachedInfo().State.FirstSeq - base(w, 0); first > taken/2+1 {
		t.Errorf("%d landed, and the first that is left is %d", taken/2, first)
	}
}

func TestTrim(t *testing.T) {
	cfg := testConfig
	cfg.Shards, cfg.DedupWindow = 1, brief
	w := open(t, enginetest.NATS(t), cfg)
	first := func() uint64 {
		s, err := w.js.Stream(t.Context(), StreamName(0))
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.FirstSeq - base(w, 0)
	}
	trim := func(landed uint64, window time.Duration) uint64 {
		if err := w.Trim(t.Context(), 0, base(w, 0)+landed, window); err != nil {
			t.Fatal(err)
		}
		return first()
	}
	if got := trim(0, 0); got > 1 {
		t.Errorf("nothing there: begins with %d", got)
	}
	for i := range 10 {
		publish(t, w, "", numbered(i))
	}
	if got := trim(5, time.Hour); got != 1 {
		t.Errorf("within the window: begins with %d", got)
	}
	time.Sleep(10 * brief) // the ten are older than the duplicate window, and than all that follow, by so much
	if got := trim(0, 0); got != 1 {
		t.Errorf("nothing landed: begins with %d", got)
	}
	if got := trim(5, 0); got != 6 {
		t.Errorf("5 landed, no window: begins with %d", got)
	}
	old := time.Now().Add(-5 * brief)
	for i := range 10 {
		publish(t, w, "", numbered(100+i))
	}
	if got := trim(20, time.Since(old)); got != 11 {
		t.Errorf("all landed, the last 10 in the window: begins with %d", got)
	}
	time.Sleep(2 * brief)
	if got := trim(15, time.Nanosecond); got != 16 {
		t.Errorf("older than any window, 15 landed: begins with %d", got)
	}
	if got := trim(20, 0); got != 21 {
		t.Errorf("all landed, no window: begins with %d", got)
	}
	if ack := publish(t, w, "", numbered(1000)); ack.Sequence != base(w, 0)+21 {
		t.Errorf("after all was trimmed: sequence %d", ack.Sequence)
	}
}

// What has not landed is never deleted, however old it is, without a window, and where room is needed.
func TestTrimNeverDeletesWhatHasNotLanded(t *testing.T) {
	cfg := testConfig
	cfg.Shards, cfg.DedupWindow, cfg.MaxBytes = 1, brief, 256<<10
	w := open(t, enginetest.NATS(t), cfg)
	taken := uint64(0)
	for {
		if _, err := w.Publish(t.Context(), "acme", "", numbered(int(taken))); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		taken++
	}
	time.Sleep(2 * brief) // the ingester was away for longer than every window
	for _, landed := range []uint64{0, 1, taken / 2, taken - 1} {
		for _, window := range []time.Duration{time.Hour, time.Millisecond, 0} {
			if err := w.Trim(t.Context(), 0, base(w, 0)+landed, window); err != nil {
				t.Fatal(err)
			}
			stream, err := w.info(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if left := stream.State.Msgs; left < taken-landed {
				t.Fatalf("%d of %d landed, window %s: %d are left", landed, taken, window, left)
			}
		}
	}
}

// A shipper that lost our answer, and retries within the duplicate window, is recognized also when the push has
// landed and NATS was restarted meanwhile, which then knows pushes by what the streams still hold.
func TestRetryIsRecognizedAfterTrimAndRestart(t *testing.T) {
	for name, fill := range map[string]int{"no replay window": 1, "a full shard": 900} {
		t.Run(name, func(t *testing.T) {
			server := newRestartable(t)
			cfg := testConfig
			cfg.Shards, cfg.MaxBytes, cfg.DedupWindow = 1, 256<<10, time.Hour // the retry is within it, however slow the disk
			w := server.open(cfg)
			var last Ack
			for i := range fill {
				ack, err := w.Publish(t.Context(), "acme", "", numbered(i))
				if errors.Is(err, ErrFull) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				last = ack
			}
			window := time.Duration(0)
			if fill > 1 {
				window = time.Hour
			}
			if err := w.Trim(t.Context(), 0, last.Sequence, window); err != nil {
				t.Fatal(err)
			}
			server.restart()
			eventually(t, "publishing again", func() bool {
				ack, err := w.Publish(t.Context(), "acme", "", numbered(0))
				if err == nil && !ack.Duplicate {
					t.Error("the retry was taken for another push")
				}
				return err == nil || errors.Is(err, ErrFull) // where the push was forgotten, and nothing is trimmed
			})
		})
	}
}

func TestLease(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	ctx := t.Context()
	nobody := func(string) bool { return false }
	everybody := func(string) bool { return true }

	a, err := w.Claim(ctx, 0, "a", everybody)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Claim(ctx, 0, "b", everybody); !errors.Is(err, ErrOwned) {
		t.Fatalf("claimed from a live owner: %v", err)
	}
	if err := a.Intend(ctx, Range{First: 1, Last: 10, Bytes: 100}); err != nil {
		t.Fatal(err)
	}
	if err := a.Land(ctx, 10); err != nil {
		t.Fatal(err)
	}
	if err := a.Intend(ctx, Range{First: 11, Last: 20, Bytes: 200}); err != nil {
		t.Fatal(err)
	}
	token := a.Token(Range{First: 11, Last: 20, Bytes: 200})

	b, err := w.Claim(ctx, 0, "b", nobody)
	if err != nil {
		t.Fatal(err)
	}
	if p := b.Position(); p.Landed != 10 || *p.Intent != (Range{First: 11, Last: 20, Bytes: 200}) || p.Owner != "b" {
		t.Errorf("the successor finds %+v", p)
	}
	if again := b.Token(Range{First: 11, Last: 20, Bytes: 200}); again != token {
		t.Errorf("the token of the same range was %s and is %s", token, again)
	}
	for name, do := range map[string]func() error{
		"intend":  func() error { return a.Intend(ctx, Range{First: 11, Last: 12, Bytes: 1}) },
		"land":    func() error { return a.Land(ctx, 20) },
		"release": func() error { return a.Release(ctx) },
		"check":   func() error { return a.Check(ctx) },
	} {
		if err := do(); !errors.Is(err, ErrFenced) {
			t.Errorf("the former owner could %s: %v", name, err)
		}
	}
	if p, err := w.Position(ctx, 0); err != nil || p.Landed != 10 || p.Owner != "b" {
		t.Errorf("the former owner left %+v, %v", p, err)
	}
	if err := b.Release(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := w.Claim(ctx, 0, "c", everybody)
	if err != nil {
		t.Fatal("claiming what was released:", err)
	}
	if p := c.Position(); p.Intent == nil || p.Landed != 10 {
		t.Errorf("a release keeps the intent: %+v", p)
	}
	other, err := w.Claim(ctx, 1, "c", everybody)
	if err != nil {
		t.Fatal(err)
	}
	if other.Token(Range{First: 11, Last: 20, Bytes: 0}) == token {
		t.Error("two shards have the same token")
	}
}

// Of many that claim at once, one wins.
func TestClaimIsExclusive(t *testing.T) {
	server := enginetest.NATS(t)
	w := open(t, server, testConfig)
	for round := range 20 {
		var mu sync.Mutex
		var won []*Lease
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				l, err := w.Claim(t.Context(), 0, fmt.Sprint(round, "-", i), func(owner string) bool { return strings.HasPrefix(owner, fmt.Sprint(round)) })
				if err == nil {
					mu.Lock()
					won = append(won, l)
					mu.Unlock()
				} else if !errors.Is(err, ErrOwned) {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if len(won) != 1 {
			t.Fatalf("%d of 8 claimed the shard", len(won))
		}
	}
}

// A write that landed, and whose answer was lost, is the lease's own.
func TestLeaseRecognizesItsOwnWrite(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	l, err := w.Claim(t.Context(), 0, "a", func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	lost := func(do func() error) { // its answer
		t.Helper()
		revision, value := l.position.revision, l.position.value
		if err := do(); err != nil {
			t.Fatal(err)
		}
		l.position.revision, l.position.value = revision, value
	}
	intend := func() error { return l.Intend(t.Context(), Range{First: 1, Last: 2, Bytes: 3}) }
	lost(intend)
	if err := intend(); err != nil {
		t.Errorf("repeating it: %v", err)
	}
	lost(func() error { return l.Land(t.Context(), 2) })
	if err := l.Intend(t.Context(), Range{First: 1, Last: 4, Bytes: 3}); err != nil {
		t.Errorf("something else: %v", err)
	}
	if p, err := w.Position(t.Context(), 0); err != nil || p.Landed != 0 || p.Intent.Last != 4 {
		t.Errorf("what this lease said last is not what stands: %+v, %v", p, err)
	}
	lost(func() error { return l.Release(t.Context()) })
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("releasing again: %v", err)
	}
}

// A lease that was lost does not come back to life when its owner claims the shard again.
func TestLeaseThatWasLostStaysLost(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	nobody := func(string) bool { return false }
	var leases []*Lease
	for _, owner := range []string{"a", "b", "a"} {
		l, err := w.Claim(t.Context(), 0, owner, nobody)
		if err != nil {
			t.Fatal(err)
		}
		leases = append(leases, l)
	}
	for _, l := range leases[:2] {
		if err := l.Land(t.Context(), 9); !errors.Is(err, ErrFenced) {
			t.Errorf("a lost lease landed: %v", err)
		}
		if err := l.Check(t.Context()); !errors.Is(err, ErrFenced) {
			t.Errorf("a lost lease looks like one that is not: %v", err)
		}
	}
	if err := leases[2].Land(t.Context(), 7); err != nil {
		t.Error(err)
	}
}

func TestState(t *testing.T) {
	cfg := testConfig
	cfg.Shards = 1
	w := open(t, enginetest.NATS(t), cfg)
	state := func() ShardState {
		s, err := w.State(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := state(); s.BacklogRecords != 0 || s.Last != base(w, 0) || s.OldestUnflushed != 0 || s.MaxBytes != 64<<20 {
		t.Errorf("of an empty shard: %+v", s)
	}
	for i := range 10 {
		publish(t, w, "", numbered(i))
	}
	if s := state(); s.BacklogRecords != 10 || s.BacklogBytes != s.Bytes || s.Last != base(w, 0)+10 || s.OldestUnflushed <= 0 {
		t.Errorf("of ten records: %+v", s)
	}
	l, err := w.Claim(t.Context(), 0, "a", func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Land(t.Context(), base(w, 0)+9); err != nil {
		t.Fatal(err)
	}
	if s := state(); s.BacklogRecords != 1 || s.BacklogBytes != s.Bytes/10 || s.Position.Landed != base(w, 0)+9 || s.Position.Owner != "a" {
		t.Errorf("of ten records, nine landed: %+v", s)
	}
	if err := l.Land(t.Context(), base(w, 0)+10); err != nil {
		t.Fatal(err)
	}
	if s := state(); s.BacklogRecords != 0 || s.BacklogBytes != 0 || s.OldestUnflushed != 0 {
		t.Errorf("of ten records, all landed: %+v", s)
	}
}
