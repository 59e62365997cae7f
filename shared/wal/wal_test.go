package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
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

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

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
func base(w *WAL, shard int) uint64 { return w.shards[shard].CachedInfo().Config.FirstSeq - 1 }

// eventually waits for a condition that is about to become true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 20 s: " + what)
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

// Records of any size pass: the largest, and small ones between them.
func TestReadLargeRecords(t *testing.T) {
	cfg := testConfig
	cfg.Shards, cfg.MaxBytes = 1, 1<<30
	w := open(t, enginetest.NATS(t), cfg)
	random := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, 15<<20)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
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

func TestReaderGoesOnAfterARestartOfNATS(t *testing.T) {
	dir := t.TempDir()
	start := func(listen string) *embedded.NATS {
		server, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Listen: listen, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return server
	}
	server := start("127.0.0.1:0")
	nc, err := nats.Connect(server.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	cfg := testConfig
	cfg.Shards = 1
	w, err := Open(t.Context(), nc, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
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
	address := strings.TrimPrefix(server.URL(), "nats://")
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	if _, err := w.Publish(ctx, "acme", "", numbered(2)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("published without a server: %v", err)
	}
	cancel()
	server = start(address)
	defer server.Stop()
	eventually(t, "publishing again", func() bool {
		_, err := w.Publish(t.Context(), "acme", "", numbered(2))
		return err == nil
	})
	if got := next(); got != base(w, 0)+2 {
		t.Errorf("after the restart: got record %d", got)
	}
	reader.Close()
}

func TestFullShardRefusesAndLosesNothing(t *testing.T) {
	cfg := testConfig
	cfg.Shards, cfg.MaxBytes = 1, 1<<20
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
	// What has landed makes room, also within the replay window.
	if err := w.Trim(t.Context(), 0, base(w, 0)+taken/2, time.Hour); err != nil {
		t.Fatal(err)
	}
	publish(t, w, "", numbered(1e6))
}

func TestTrim(t *testing.T) {
	cfg := testConfig
	cfg.Shards = 1
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
	if got := trim(0, 0); got != 1 {
		t.Errorf("nothing landed: begins with %d", got)
	}
	if got := trim(5, 0); got != 6 {
		t.Errorf("5 landed, no window: begins with %d", got)
	}
	time.Sleep(100 * time.Millisecond) // the ten are older than all that follow by so much
	old := time.Now().Add(-50 * time.Millisecond)
	for i := range 10 {
		publish(t, w, "", numbered(100+i))
	}
	if got := trim(20, time.Since(old)); got != 11 {
		t.Errorf("all landed, the last 10 in the window: begins with %d", got)
	}
	if got := trim(20, 0); got != 21 {
		t.Errorf("all landed, no window: begins with %d", got)
	}
	if ack := publish(t, w, "", numbered(1000)); ack.Sequence != base(w, 0)+21 {
		t.Errorf("after all was trimmed: sequence %d", ack.Sequence)
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
	if err := a.Intend(ctx, Range{1, 10, 100}); err != nil {
		t.Fatal(err)
	}
	if err := a.Land(ctx, 10); err != nil {
		t.Fatal(err)
	}
	if err := a.Intend(ctx, Range{11, 20, 200}); err != nil {
		t.Fatal(err)
	}
	token := a.Token(Range{11, 20, 200})

	b, err := w.Claim(ctx, 0, "b", nobody)
	if err != nil {
		t.Fatal(err)
	}
	if p := b.Position(); p.Landed != 10 || *p.Intent != (Range{11, 20, 200}) || p.Owner != "b" {
		t.Errorf("the successor finds %+v", p)
	}
	if again := b.Token(Range{11, 20, 200}); again != token {
		t.Errorf("the token of the same range was %s and is %s", token, again)
	}
	for name, do := range map[string]func() error{
		"intend":  func() error { return a.Intend(ctx, Range{11, 12, 1}) },
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
	if other.Token(Range{11, 20, 0}) == token {
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
	revision, position := l.revision, l.position
	if err := l.Intend(t.Context(), Range{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	l.revision, l.position = revision, position // as if the answer had not come
	if err := l.Intend(t.Context(), Range{1, 2, 3}); err != nil {
		t.Errorf("repeating it: %v", err)
	}
	if err := l.Land(t.Context(), 2); err != nil {
		t.Errorf("going on: %v", err)
	}
}

func TestMembership(t *testing.T) {
	server := enginetest.NATS(t)
	const timeout = time.Second
	join := func(id string) *Membership {
		m, err := open(t, server, testConfig).Join(t.Context(), id, Member{Started: time.Now()}, timeout)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b := join("a"), join("b")
	eventually(t, "a sees b", func() bool { return slices.Equal(a.Live(), []string{"a", "b"}) })
	if !slices.Equal(b.Live(), []string{"a", "b"}) || !b.IsLive("a") || b.IsLive("c") {
		t.Errorf("b sees %v", b.Live())
	}
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a sees that b left", func() bool { return slices.Equal(a.Live(), []string{"a"}) })
	c := join("c")
	eventually(t, "a sees c", func() bool { return a.IsLive("c") })
	c.cancel() // as if it were killed
	c.done.Wait()
	died := time.Now()
	eventually(t, "a sees that c died", func() bool { return !a.IsLive("c") })
	if took := time.Since(died); took < timeout/2 {
		t.Errorf("c counted as gone after %s", took)
	}
	if err := a.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestUndecodableRecordBecomesOneDeadLetter(t *testing.T) {
	cfg := testConfig
	cfg.Shards = 1
	w := open(t, enginetest.NATS(t), cfg)
	for name, header := range map[string]nats.Header{
		"version 2":    {headerVersion: {"2"}, headerEncoding: {encodingS2}},
		"no header":    nil,
		"bad encoding": {headerVersion: {version1}, headerEncoding: {"brotli"}},
		"bad body":     {headerVersion: {version1}, headerEncoding: {encodingS2}},
	} {
		t.Run(name, func(t *testing.T) {
			ack, err := w.js.PublishMsg(t.Context(), &nats.Msg{Subject: "logs.acme.0", Header: header, Data: []byte("\x05nonsense")})
			if err != nil {
				t.Fatal(err)
			}
			reader, err := w.Read(t.Context(), 0, ack.Sequence)
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			record := <-reader.Records()
			_, err = record.Decode(new(logs.Batch), nil)
			if _, ok := errors.AsType[*UndecodableError](err); !ok {
				t.Fatalf("decoded: %v", err)
			}
			for range 2 { // the second time by a successor that repeats the batch
				if err := w.DeadLetter(t.Context(), record, err); err != nil {
					t.Fatal(err)
				}
			}
			stream, err := w.js.Stream(t.Context(), DeadLetterStream)
			if err != nil {
				t.Fatal(err)
			}
			letter, err := stream.GetLastMsgForSubject(t.Context(), fmt.Sprintf("logthra.deadletter.acme.0.%d", ack.Sequence))
			if err != nil {
				t.Fatal(err)
			}
			if string(letter.Data) != "\x05nonsense" || !strings.Contains(letter.Header.Get(headerReason), "undecodable") ||
				letter.Header.Get(headerSequence) != fmt.Sprint(ack.Sequence) {
				t.Errorf("the letter is %+v", letter)
			}
		})
	}
	stream, err := w.js.Stream(t.Context(), DeadLetterStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 4 {
		t.Errorf("%d letters of 4 records", n)
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
