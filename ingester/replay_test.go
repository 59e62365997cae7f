package ingester

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// newReplay returns a replay that makes a batch of every 100 rows.
func (f *fixture) newReplay(change func(*ReplayConfig)) *Replay {
	cfg := ReplayConfig{FlushRows: 100, FlushBytes: 64 << 20, Patience: 2 * time.Minute, Timeout: 2 * time.Second}
	if change != nil {
		change(&cfg)
	}
	return NewReplay(cfg, f.wal, f.store, quiet())
}

// total is what has come of all shards.
func total(r *Replay) ReplayedShard {
	shards, _ := r.Progress()
	return ReplayTotal(shards)
}

// replay replays and returns what came of all shards.
func (f *fixture) replay(change func(*ReplayConfig)) ReplayedShard {
	f.t.Helper()
	r := f.newReplay(change)
	if err := r.Run(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	shards, _ := r.Progress()
	for _, s := range shards {
		if s.Last >= s.First && s.Done != s.Last || s.Rows != s.Missing+s.Present+s.Expired {
			f.t.Errorf("done with shard %d: %+v", s.Shard, s)
		}
	}
	return total(r)
}

// wantReplay replays and fails the test unless that many rows are inserted, present and expired.
func (f *fixture) wantReplay(inserted, present, expired uint64, change func(*ReplayConfig)) ReplayedShard {
	f.t.Helper()
	all := f.replay(change)
	if all.Inserted != inserted || all.Missing != inserted || all.Present != present || all.Expired != expired {
		f.t.Errorf("replayed %+v, want %d rows inserted, %d present, %d expired", all, inserted, present, expired)
	}
	return all
}

// content is a digest of all rows that match, of all that is in them.
func (f *fixture) content(where string) string {
	f.t.Helper()
	var text string
	sql := `SELECT concat(toString(count()), ' ', toString(sum(toUInt128(sipHash64(tenant_id, stream_id, timestamp, stream, msg, toString(metadata), wal_shard, wal_seq, wal_index)))))
		FROM ` + f.store.Database() + ".log WHERE " + where
	if err := f.ride(func() error { return f.store.Conn().QueryRow(f.t.Context(), sql).Scan(&text) }); err != nil {
		f.t.Fatal(err)
	}
	return text
}

// wantContent fails the test unless the rows are what they were.
func (f *fixture) wantContent(want string) {
	f.t.Helper()
	if got := f.content("1"); got != want {
		f.t.Errorf("the table holds %s, want %s", got, want)
	}
}

const day = 24 * time.Hour

// pushOfAll lands 60 records of 10 lines over three days, of three tenants, with labels, metadata and any bytes.
func (f *fixture) pushOfAll() {
	f.t.Helper()
	for i := range 60 {
		var b logs.Batch
		for stream := range 2 {
			b.AddStream(fmt.Sprintf(`{"app":"%d","odd":"ü\"\\\u0000"}`, stream))
			for line := range 5 {
				b.Lines = fmt.Appendf(b.Lines, "line %d \x00\xff\r %d", i, line)
				at := time.Unix(1700000000, 0).Add(time.Duration(i%3)*day + time.Duration(line))
				b.EndEntry(at.UnixNano(), true)
				if line%2 == 0 {
					b.AddMetadata([]byte("trace"), fmt.Appendf(nil, "t%d\xff", i))
					b.AddMetadata([]byte("odd \x00"), []byte("v"))
				}
			}
		}
		if _, err := f.wal.Publish(f.t.Context(), []string{"acme", "other", "third"}[i/3%3], fmt.Sprint("push ", i), &b); err != nil {
			f.t.Fatal(err)
		}
	}
	f.next += 600
	f.land()
}

func TestReplayAfterAllIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 3)
	f.pushOfAll()
	want := f.content("1")
	for range 2 { // the second one has to have other tokens
		f.exec("TRUNCATE TABLE LOG")
		f.exec("TRUNCATE TABLE " + f.store.Database() + ".stream")
		if all := f.wantReplay(600, 0, 0, nil); all.Records != 60 || all.Rows != 600 {
			t.Errorf("looked at %+v", all)
		}
		f.wantContent(want)
		f.wantReplay(0, 600, 0, nil)
		f.wantContent(want)
	}
	if report := f.audit(AuditOptions{}); !report.Balanced {
		t.Errorf("audited: %+v", report.Total)
	}
	var streams uint64
	if err := f.store.Conn().QueryRow(t.Context(), "SELECT count() FROM "+f.store.Database()+".stream FINAL").Scan(&streams); err != nil || streams != 6 {
		t.Errorf("%d streams of 6: %v", streams, err)
	}
	// A table that was dropped is another one when it is there again.
	f.exec("DROP TABLE LOG SYNC")
	if err := f.newReplay(nil).Run(t.Context()); err == nil || errors.Is(err, ErrUnfinished) {
		t.Errorf("without a table: %v", err)
	}
	f.exec("DROP DATABASE " + f.store.Database() + " SYNC")
	if err := f.store.Migrate(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	f.wantReplay(600, 0, 0, nil)
	f.wantContent(want)
}

func TestReplayInsertsWhatIsMissing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	f.pushOfAll()
	want := f.content("1")
	for name, loss := range map[string]string{
		"a partition":                   "ALTER TABLE LOG DROP PARTITION 20231115",
		"a tenant":                      "DELETE FROM LOG WHERE tenant_id = 'other'",
		"some rows of some records":     "DELETE FROM LOG WHERE wal_index IN (3, 7) AND wal_seq % 3 = 0",
		"all but a row":                 "DELETE FROM LOG WHERE NOT (wal_index = 4 AND msg LIKE 'line 31 %')",
		"nothing, in other parts later": "OPTIMIZE TABLE LOG FINAL",
	} {
		f.exec(loss)
		rows, _ := f.rows()
		f.wantReplay(600-rows, rows, 0, nil)
		if got := f.content("1"); got != want {
			t.Fatalf("after the loss of %s: %s, want %s", name, got, want)
		}
	}
}

func TestReplayOfSome(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	f.pushOfAll()
	all := f.headers(0) // some 30
	from, to := all[5].Time, all[20].Time
	for name, c := range map[string]struct {
		change func(*ReplayConfig)
		where  string
	}{
		"tenant":          {func(c *ReplayConfig) { c.Tenant = "other" }, "tenant_id = 'other'"},
		"unknown tenant":  {func(c *ReplayConfig) { c.Tenant = "nobody" }, "0"},
		"shard":           {func(c *ReplayConfig) { c.Shards = []int{1} }, "wal_shard = 1"},
		"tenant of shard": {func(c *ReplayConfig) { c.Tenant, c.Shards = "acme", []int{0} }, "tenant_id = 'acme' AND wal_shard = 0"},
		"time": {func(c *ReplayConfig) { c.From, c.To, c.Shards = from, to, []int{0} },
			fmt.Sprintf("wal_shard = 0 AND wal_seq BETWEEN %d AND %d", all[5].Sequence, all[19].Sequence)},
		"time of tenant": {func(c *ReplayConfig) { c.From, c.Tenant, c.Shards = from, "third", []int{0} },
			fmt.Sprintf("wal_shard = 0 AND tenant_id = 'third' AND wal_seq >= %d", all[5].Sequence)},
		"until":         {func(c *ReplayConfig) { c.To, c.Shards = to, []int{0} }, fmt.Sprintf("wal_shard = 0 AND wal_seq <= %d", all[19].Sequence)},
		"the future":    {func(c *ReplayConfig) { c.From = time.Now().Add(time.Hour) }, "0"},
		"before it all": {func(c *ReplayConfig) { c.To = time.Now().Add(-time.Hour) }, "0"},
	} {
		want := f.content(c.where)
		f.exec("TRUNCATE TABLE LOG")
		some := f.replay(func(config *ReplayConfig) {
			config.FlushRows = 1000
			c.change(config)
		})
		f.wantContent(want)
		f.wantReplay(600-some.Inserted, some.Inserted, 0, func(c *ReplayConfig) { c.FlushRows = 1000 })
		if got := f.content(c.where); got != want {
			t.Errorf("%s: the rest brought %s, want %s", name, got, want)
		}
	}
	for shards, want := range map[int]string{-1: "shards 0 to 1", 2: "shards 0 to 1"} {
		if err := f.newReplay(func(c *ReplayConfig) { c.Shards = []int{shards} }).Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("shard %d: %v", shards, err)
		}
	}
}

// What has not landed is its owner's to insert.
func TestReplayLeavesTheBacklogAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	f.wantReplay(0, 0, 0, nil) // of a shard that nobody ever owned
	f.push(5, 10)
	f.wantReplay(0, 0, 0, nil)
	f.land()
	f.push(5, 10)
	f.exec("TRUNCATE TABLE LOG")
	f.wantReplay(50, 0, 0, nil)
	f.land()
	if all, different := f.rows(); all != 100 || different != 100 {
		t.Errorf("%d rows, %d different, of 100", all, different)
	}
}

func TestReplayDryRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	f.pushOfAll()
	f.exec("ALTER TABLE LOG DROP PARTITION 20231115")
	dry := func(c *ReplayConfig) { c.DryRun = true }
	for range 2 {
		if all := f.replay(dry); all.Missing != 200 || all.Present != 400 || all.Inserted != 0 || all.Records != 60 {
			t.Errorf("the dry run says %+v", all)
		}
	}
	if rows, _ := f.rows(); rows != 400 {
		t.Errorf("a dry run left %d rows of 400", rows)
	}
	for n := range 2 {
		if p, err := f.wal.Replay(t.Context(), n); !errors.Is(err, wal.ErrNotFound) {
			t.Errorf("a dry run left %+v, %v", p, err)
		}
	}
}

func TestReplayOfATimeThatIsNotHeld(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	f.push(30, 10)
	f.land()
	headers := f.headers(1)
	if err := f.stream(1).Purge(t.Context(), jetstream.WithPurgeSequence(headers[2].Sequence)); err != nil {
		t.Fatal(err)
	}
	f.exec("TRUNCATE TABLE LOG")
	for _, dry := range []bool{false, true} {
		err := f.newReplay(func(c *ReplayConfig) { c.From, c.DryRun = headers[0].Time.Add(-time.Hour), dry }).Run(t.Context())
		partial, ok := errors.AsType[*PartialError](err)
		if !ok || len(partial.Since) != 1 || !partial.Since[1].Equal(headers[2].Time) || !strings.Contains(err.Error(), "shard 1 holds what came since "+headers[2].Time.UTC().Format(time.RFC3339)) {
			t.Errorf("got %v", err)
		}
	}
	if rows, _ := f.rows(); rows != 0 {
		t.Errorf("%d rows of a replay that was refused", rows)
	}
	all := uint64(300 - 20)
	f.wantReplay(all, 0, 0, func(c *ReplayConfig) { c.From, c.Partial = headers[0].Time.Add(-time.Hour), true })
	f.wantReplay(0, all, 0, nil) // all that is held
	f.replay(func(c *ReplayConfig) { c.From = headers[3].Time })
	if err := f.stream(0).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := f.newReplay(func(c *ReplayConfig) { c.From = headers[0].Time }).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "shard 0 holds nothing, shard 1 holds what came since ") {
		t.Errorf("of an empty shard: %v", err)
	}
}

// Records that the WAL deletes under a replay's hands are told. Where they were asked for by their time it is an error.
func TestReplayIsOvertakenByATrim(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tenant string
		from   bool
	}{
		"all that is held": {"", false}, "all since a time": {"", true}, "of a tenant": {"acme", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 1)
			f.pushLarge(6) // more than is read ahead, so that the first insert comes before the last record is read
			f.land()
			headers := f.headers(0)
			f.exec("TRUNCATE TABLE LOG")
			r := f.newReplay(func(config *ReplayConfig) {
				config.Tenant, config.FlushRows = c.tenant, 1
				if c.from {
					config.From = headers[0].Time
				}
			})
			stream := f.stream(0)
			r.table = &meddler{table: f.store, before: func(call int) error {
				if call > 1 {
					return nil
				}
				return stream.Purge(t.Context(), jetstream.WithPurgeSequence(headers[5].Sequence))
			}}
			if err := r.Run(t.Context()); c.from != errors.Is(err, ErrTrimmed) || !c.from && err != nil || errors.Is(err, ErrUnfinished) {
				t.Error(err)
			}
			all := total(r)
			if rows, _ := f.rows(); rows != all.Inserted || all.Trimmed == 0 || all.Inserted+all.Trimmed < 6 || c.tenant == "" && all.Inserted+all.Trimmed != 6 {
				t.Errorf("%d rows, %+v", rows, all)
			}
		})
	}
}

// pushLarge publishes records of a line of 8 MB that can't be compressed.
func (f *fixture) pushLarge(records int) {
	f.t.Helper()
	random := rand.NewChaCha8([32]byte{})
	for range records {
		var b logs.Batch
		b.AddStream(`{"app":"large"}`)
		b.Lines = make([]byte, 8<<20)
		_, _ = random.Read(b.Lines) // never fails
		b.EndEntry(1700000000000000001, true)
		if _, err := f.wal.Publish(f.t.Context(), "acme", fmt.Sprint("large ", f.next), &b); err != nil {
			f.t.Fatal(err)
		}
		f.next++
	}
}

// meddler does something before or after inserts, counted from 1. Where that fails the insert does, before it is
// done or after.
type meddler struct {
	table

	before, after func(call int) error
	calls         int
	tokens        []string
}

func (m *meddler) Insert(ctx context.Context, b *store.Batch, token string) error {
	m.calls++
	m.tokens = append(m.tokens, token)
	if m.before != nil {
		if err := m.before(m.calls); err != nil {
			return err
		}
	}
	if err := m.table.Insert(ctx, b, token); err != nil || m.after == nil {
		return err
	}
	return m.after(m.calls)
}

// A replay ends in the middle, before an insert had its effect or after, or while it is under way, and is gone on with:
// every row is there once, and what was done is not looked at again.
func TestReplayIsGoneOnWith(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		call          int
		after, during bool
		left          uint64 // rows that the second one inserts
	}{
		"before the first insert": {1, false, false, 500},
		"before a later insert":   {4, false, false, 200},
		"during a later insert":   {3, false, true, 300},
		"after a later insert":    {3, true, false, 200},
		"after the last insert":   {5, true, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 1)
			f.push(50, 10)
			f.land()
			want, last := f.content("1"), f.headers(0)[49].Sequence
			f.exec("TRUNCATE TABLE LOG")
			request := func(c *ReplayConfig) { c.Request, c.From = "the last hour", time.Now().Add(-time.Hour) } // another one each time

			ctx, end := context.WithCancel(t.Context())
			defer end()
			ends := func(call int) error {
				if call < c.call {
					return nil
				}
				end()
				if c.during {
					return nil
				}
				return errInjected
			}
			r := f.newReplay(request)
			first := &meddler{table: f.store, before: ends}
			if c.after {
				first.before, first.after = nil, ends
			}
			r.table = first
			if err := r.Run(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnfinished) {
				t.Fatalf("it ended with %v", err)
			}
			began := total(r)
			if p, err := f.wal.Replay(t.Context(), 0); err != nil || p.Claim != "" {
				t.Errorf("it was not given back: %+v, %v", p, err)
			}

			f.push(3, 10) // which the first one did not have before it
			f.land()
			r = f.newReplay(request)
			second := &meddler{table: f.store}
			r.table = second
			if err := r.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			rest := total(r)
			if shards, _ := r.Progress(); shards[0].Resumed.IsZero() || shards[0].Done != last {
				t.Errorf("it did not go on: %+v", shards[0])
			}
			if rest.Inserted != c.left || began.Records+rest.Records != 50 {
				t.Errorf("%+v, and then %+v", began, rest)
			}
			if !c.after && second.tokens[0] != first.tokens[c.call-1] {
				t.Errorf("what was begun with the token %s is repeated with %s", first.tokens[c.call-1], second.tokens[0])
			}
			if got := f.content(fmt.Sprint("wal_seq <= ", last)); got != want {
				t.Errorf("the table holds %s, want %s", got, want)
			}
			f.wantReplay(0, 530, 0, request) // another one
		})
	}
}

// The replay was killed: it can't say so, and its insert may still be under way.
func TestReplayIsGoneOnWithAfterAKill(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	f.push(100, 10)
	f.land()
	want, headers := f.content("1"), f.headers(0)
	f.exec("TRUNCATE TABLE LOG")
	lease, err := f.wal.ClaimReplay(t.Context(), 0, wal.ReplayPosition{First: headers[0].Sequence, Last: headers[99].Sequence, Request: "all"}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// Its batch ends elsewhere than the next one's would.
	span := wal.Range{First: headers[0].Sequence, Last: headers[36].Sequence}
	if err := lease.Intend(t.Context(), span); err != nil {
		t.Fatal(err)
	}
	b, token := f.batch(span), lease.Token(span)
	var late sync.WaitGroup
	late.Go(func() { _ = f.store.Insert(context.Background(), b, token) })
	if all := f.replay(func(c *ReplayConfig) { c.Request = "all" }); all.Inserted+all.Present != 1000 {
		t.Errorf("it says %+v", all)
	}
	late.Wait()
	f.wantContent(want)
	if err := f.store.Insert(t.Context(), b, token); err != nil { // later than all
		t.Fatal(err)
	}
	f.wantContent(want)
}

// What a replay had inserted is lost again before it is gone on with.
func TestReplayIsGoneOnWithAfterAnotherLoss(t *testing.T) {
	t.Parallel()
	for name, loss := range map[string]string{
		"all": "TRUNCATE TABLE LOG", "a partition": "ALTER TABLE LOG DROP PARTITION 20231114", "rows, by a query": "DELETE FROM LOG WHERE 1",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, 1)
			f.push(30, 10)
			f.land()
			want := f.content("1")
			f.exec(loss)
			ctx, end := context.WithCancel(t.Context())
			defer end()
			r := f.newReplay(nil)
			r.table = &meddler{table: f.store, after: func(int) error { end(); return errInjected }}
			if err := r.Run(ctx); !errors.Is(err, ErrUnfinished) {
				t.Fatal(err)
			}
			f.exec(loss)
			if name == "rows, by a query" { // ClickHouse still knows the token
				if err := f.newReplay(nil).Run(t.Context()); !errors.Is(err, errDeleted) || !errors.Is(err, ErrUnfinished) {
					t.Fatal(err)
				}
				f.wantReplay(300, 0, 0, func(c *ReplayConfig) { c.Restart = true })
			} else {
				f.wantReplay(300, 0, 0, nil)
			}
			f.wantContent(want)
		})
	}
}

// A step that fails is tried again, and the insert is the same one then.
func TestReplayRidesFailuresOut(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]*faulty{
		"the first insert, before its effect": {step: "insert", call: 1},
		"a later insert, after its effect":    {step: "insert", call: 4, after: true},
		"the first look":                      {step: "reconcile", call: 1},
		"a later look":                        {step: "reconcile", call: 4, after: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 1)
			f.push(50, 10)
			f.land()
			want := f.content("1")
			f.exec("TRUNCATE TABLE LOG")
			r := f.newReplay(nil)
			fault.table, r.table = f.store, fault
			if err := r.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.wantContent(want)
			if all := total(r); all.Inserted != 500 || all.Present != 0 || !fault.fired.Load() {
				t.Errorf("it says %+v", all)
			}
		})
	}
}

// ClickHouse goes away in the middle, and comes back.
func TestReplayRidesAnOutageOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	f.push(100, 10)
	f.land()
	want := f.content("1")
	f.exec("TRUNCATE TABLE LOG")
	r := f.newReplay(nil)
	r.table = &meddler{table: f.store, before: func(call int) error {
		if call == 4 {
			f.link.cut()
		}
		return nil
	}}
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	f.eventually("it is trying again", func() bool {
		_, waiting := r.Progress()
		return strings.Contains(waiting, "trying again: ClickHouse")
	})
	f.link.mend()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	f.wantContent(want)
	if _, waiting := r.Progress(); total(r).Inserted != 1000 || waiting != "" {
		t.Errorf("it says %+v, waiting %q", total(r), waiting)
	}

	// For longer than the patience.
	f.exec("TRUNCATE TABLE LOG")
	r = f.newReplay(func(c *ReplayConfig) { c.Patience = 100 * time.Millisecond })
	r.table = &meddler{table: f.store, before: func(call int) error {
		if call == 4 {
			f.link.cut()
		}
		return nil
	}}
	err := r.Run(t.Context())
	if !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), "inserting failed for 100ms") {
		t.Errorf("it gave up with %v", err)
	}
	f.link.mend()
	f.wantReplay(700, 0, 0, nil)
	f.wantContent(want)
}

// NATS goes away in the middle, and comes back.
func TestReplayRidesARestartOfNATSOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	dir, at := t.TempDir(), "127.0.0.1:0"
	start := func() *embedded.NATS {
		server, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Listen: at, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		at = strings.TrimPrefix(server.URL(), "nats://")
		return server
	}
	server := start()
	t.Cleanup(func() { server.Stop() })
	nc, err := nats.Connect(server.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if f.wal, err = wal.Open(t.Context(), nc, wal.Config{Shards: 1, Replicas: 1, MaxBytes: 256 << 20, DedupWindow: time.Minute}, quiet()); err != nil {
		t.Fatal(err)
	}
	f.push(100, 10)
	f.land()
	want := f.content("1")
	f.exec("TRUNCATE TABLE LOG")
	r := f.newReplay(nil)
	r.table = &meddler{table: f.store, after: func(call int) error {
		if call == 4 {
			server.Stop()
			server = start()
		}
		return nil
	}}
	if err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantContent(want)
	if all := total(r); all.Inserted != 1000 || all.Records != 100 {
		t.Errorf("it says %+v", all)
	}
}

// What does not pass by itself ends a replay at once. Once somebody has acted it goes on.
func TestReplayEndsForAnOperator(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	f.push(50, 10)
	f.land()
	want, headers := f.content("1"), f.headers(0)
	f.exec("TRUNCATE TABLE LOG")
	f.exec("ALTER TABLE LOG ADD CONSTRAINT sane CHECK msg != 'line 333'")
	where := fmt.Sprintf("shard 0: records %d to %d: ", headers[30].Sequence, headers[39].Sequence)
	for range 2 {
		err := f.newReplay(nil).Run(t.Context())
		if store.Classify(err) != store.BadBatch || !errors.Is(err, ErrUnfinished) || !strings.HasPrefix(err.Error(), where) {
			t.Fatalf("it ended with %v", err)
		}
	}
	// Another one can begin if this is given up.
	later := func(c *ReplayConfig) { c.From, c.Request = headers[40].Time, "later" }
	err := f.newReplay(later).Run(t.Context())
	if other, ok := errors.AsType[*wal.OtherReplayError](err); !ok || other.Position.Done != headers[29].Sequence {
		t.Fatalf("another one: %v", err)
	}
	f.wantReplay(100, 0, 0, func(c *ReplayConfig) { later(c); c.Restart = true })
	f.exec("ALTER TABLE LOG DROP CONSTRAINT sane")
	f.wantReplay(100, 400, 0, nil)
	f.wantContent(want)

	f.exec("TRUNCATE TABLE LOG")
	r := f.newReplay(nil)
	r.table = &meddler{table: f.store, before: func(call int) error {
		if call == 3 {
			f.exec("RENAME TABLE LOG TO " + f.store.Database() + ".elsewhere")
		}
		return nil
	}}
	if err := r.Run(t.Context()); store.Classify(err) != store.Operator || !errors.Is(err, ErrUnfinished) {
		t.Fatalf("it ended with %v", err)
	}
	f.exec("RENAME TABLE " + f.store.Database() + ".elsewhere TO LOG")
	f.wantReplay(300, 0, 0, nil)
	f.wantContent(want)
}

func TestReplaysOfAShardAreOneAtATime(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	f.push(100, 10)
	f.land()
	want := f.content("1")
	f.exec("TRUNCATE TABLE LOG")
	hold, held := make(chan struct{}), make(chan struct{})
	first := f.newReplay(func(c *ReplayConfig) { c.Shards = []int{1} })
	first.table = &meddler{table: f.store, before: func(call int) error {
		if call == 1 {
			close(held)
			<-hold
		}
		return nil
	}}
	done := make(chan error, 1)
	go func() { done <- first.Run(t.Context()) }()
	<-held
	for _, change := range []func(*ReplayConfig){
		func(*ReplayConfig) {}, func(c *ReplayConfig) { c.Request = "another" }, func(c *ReplayConfig) { c.Restart = true },
	} {
		second := f.newReplay(func(c *ReplayConfig) { // sees a sign of life long before
			c.Timeout = time.Minute
			change(c)
		})
		if err := second.Run(t.Context()); !errors.Is(err, wal.ErrReplayRuns) || !strings.Contains(err.Error(), "shard 1") || errors.Is(err, ErrUnfinished) {
			t.Errorf("a second one: %v", err)
		}
	}
	if p, err := f.wal.Replay(t.Context(), 0); !errors.Is(err, wal.ErrNotFound) {
		t.Errorf("one that was refused has left %+v, %v", p, err)
	}
	if all := f.replay(func(c *ReplayConfig) { c.DryRun = true }); all.Missing != 1000 { // is in nobody's way
		t.Errorf("a dry run meanwhile: %+v", all)
	}
	f.replay(func(c *ReplayConfig) { c.Shards = []int{0} })
	close(hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	f.wantContent(want)
}

// A replay that is taken for dead, and is not, ends when it finds out, and nothing is there twice.
func TestReplayIsTakenOver(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	f.push(100, 10)
	f.land()
	want := f.content("1")
	f.exec("TRUNCATE TABLE LOG")
	first := f.newReplay(func(c *ReplayConfig) { c.Timeout = time.Hour }) // beats never
	first.table = &meddler{table: f.store, before: func(call int) error {
		if call == 3 {
			f.wantReplay(800, 0, 0, func(c *ReplayConfig) { c.Timeout = 100 * time.Millisecond })
		}
		return nil
	}}
	if err := first.Run(t.Context()); !errors.Is(err, wal.ErrReplayRuns) {
		t.Errorf("it ended with %v", err)
	}
	f.wantContent(want)
}

// Dead letters are not replayed, neither those that were dropped; nor what this program can't decode.
func TestReplayLeavesDeadLettersOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	f.push(10, 10)
	if _, err := f.stream(0).Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	nc, err := f.nats.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for range 2 {
		if _, err := nc.Request("logs.acme.0", []byte("not a record"), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	f.push(10, 10)
	f.land()
	headers := f.headers(0)
	f.putAside(headers[3].Sequence)
	if err := f.wal.DropDeadLetter(t.Context(), f.putAside(headers[4].Sequence)); err != nil {
		t.Fatal(err)
	}
	letter, err := f.wal.FindDeadLetter(t.Context(), 0, headers[10].Sequence)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.wal.RemoveDeadLetter(t.Context(), letter); err != nil { // as if there had been no room for it
		t.Fatal(err)
	}
	f.exec("TRUNCATE TABLE LOG")
	all := f.wantReplay(180, 0, 0, nil)
	if all.Records != 22 || all.DeadLetters != 3 || all.Undecodable != 1 {
		t.Errorf("it says %+v", all)
	}
	// A range of nothing else is done, too.
	all = f.wantReplay(0, 0, 0, func(c *ReplayConfig) { c.From, c.To = headers[10].Time, headers[12].Time })
	if all.Records != 2 || all.DeadLetters != 1 || all.Undecodable != 1 {
		t.Errorf("it says %+v", all)
	}
}

func TestReplayKnowsRetention(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	now, old := time.Now(), time.Now().Add(-72*time.Hour)
	f.pushTo("acme", repeat(old, 10)...)
	f.pushTo("acme", append(repeat(old, 4), repeat(now, 6)...)...)
	f.pushTo("acme", repeat(now, 10)...)
	f.land()
	want := f.content(fmt.Sprintf("timestamp > fromUnixTimestamp64Nano(%d)", old.UnixNano()))
	if err := f.store.Migrate(t.Context(), day); err != nil {
		t.Fatal(err)
	}
	f.exec("TRUNCATE TABLE LOG")
	f.wantReplay(16, 0, 14, nil)
	f.wantContent(want)
	f.wantReplay(0, 16, 14, nil)
}

func TestReplayIsPaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	f.push(40, 10)
	f.land()
	f.exec("TRUNCATE TABLE LOG")
	began := time.Now()
	f.wantReplay(400, 0, 0, func(c *ReplayConfig) { c.Rate = 500 })
	if took := time.Since(began); took < 600*time.Millisecond { // between the first insert of 100 rows and the fourth
		t.Errorf("400 rows took %s at 500 a second", took)
	}
	f.exec("TRUNCATE TABLE LOG")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := f.newReplay(func(c *ReplayConfig) { c.Rate = 1 }).Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it does not end while it waits: %v", err)
	}
}

// Beside ingesters that land what is pushed, and that come and go, replays do no harm, and find all that is lost.
func TestReplayBesideLiveIngest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	began := time.Now()
	live := func(c *Config) { c.FlushInterval, c.FlushRows = 20*time.Millisecond, 200 }
	in := f.run(live)
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	others.Go(func() {
		for ctx.Err() == nil && f.next < 20_000 {
			f.push(1, 20)
			time.Sleep(5 * time.Millisecond) // or else the replays have ever more to look at
		}
	})
	others.Go(func() {
		for ctx.Err() == nil {
			other := f.run(live)
			for deadline := time.Now().Add(30 * time.Second); other.owns() == 0 && time.Now().Before(deadline); {
				time.Sleep(10 * time.Millisecond)
			}
			other.stop()
		}
	})
	f.eventually("it runs", func() bool { rows, _ := f.rows(); return rows > 2000 })
	lost := uint64(0)
	for _, loss := range []string{"TRUNCATE TABLE LOG", "DELETE FROM LOG WHERE wal_seq % 7 = 0"} {
		f.exec(loss)
		lost += f.replay(func(c *ReplayConfig) { c.FlushRows = 1000 }).Inserted
	}
	cancel()
	others.Wait()
	if lost < 1000 {
		t.Errorf("the replays inserted %d rows", lost)
	}
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.eventually("it is acknowledged", f.acknowledged)
	f.replay(nil) // what was inserted before a loss and landed after that replay had begun
	if all, different := f.rows(); all != uint64(f.next) || different != all {
		t.Errorf("%d rows, %d different, of %d", all, different, f.next)
	}
	var uptime uint32 // of ClickHouse, which may have died of another test
	if err := f.ride(func() error { return f.store.Conn().QueryRow(t.Context(), "SELECT uptime()").Scan(&uptime) }); err != nil {
		t.Fatal(err)
	}
	for _, class := range []store.Class{store.Transient, store.BadBatch, store.Operator} {
		if class == store.Transient && time.Duration(uptime)*time.Second < time.Since(began)-time.Second {
			continue
		}
		if n := testutil.ToFloat64(in.metrics.failures.WithLabelValues(class.String())); n > 0 {
			t.Errorf("%v inserts of the ingester failed: %s", n, class)
		}
	}
}
