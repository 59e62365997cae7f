package ingester

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

var (
	errInjected = errors.New("injected")
	errDead     = fmt.Errorf("dead: %w", wal.ErrFenced)
)

// faulty makes one call of one step of a shard fail, before its effect or after it. With die, the owner dies of
// it: nothing that it does from then on has an effect. Without, the step is tried again.
type faulty struct {
	lease
	journal
	table

	each  func() // is called before and after each effect
	step  string
	call  int // the first one is 1
	after bool
	die   context.CancelFunc

	calls       int
	fired, dead atomic.Bool
}

func (f *faulty) do(step string, effect func() error) error {
	if f.dead.Load() {
		return errDead
	}
	if f.each != nil {
		f.each()
		defer f.each()
	}
	if step != f.step {
		return effect()
	}
	if f.calls++; f.calls != f.call {
		return effect()
	}
	if f.after {
		_ = effect() // it may be refused, which the owner does not hear of then
	}
	f.fired.Store(true)
	if f.die != nil {
		f.dead.Store(true)
		f.die()
	}
	return errInjected
}

func (f *faulty) Intend(ctx context.Context, r wal.Range) error {
	return f.do("intend", func() error { return f.lease.Intend(ctx, r) })
}

func (f *faulty) Land(ctx context.Context, last uint64) error {
	return f.do("land", func() error { return f.lease.Land(ctx, last) })
}

func (f *faulty) Release(ctx context.Context) error {
	return f.do("release", func() error { return f.lease.Release(ctx) })
}

func (f *faulty) Last(ctx context.Context, shard int) (last uint64, err error) {
	err = f.do("look", func() error {
		last, err = f.journal.Last(ctx, shard)
		return err
	})
	return last, err
}

func (f *faulty) Read(ctx context.Context, shard int, from uint64) (reader *wal.Reader, err error) {
	err = f.do("read", func() error {
		reader, err = f.journal.Read(ctx, shard, from)
		return err
	})
	if err != nil && reader != nil {
		reader.Close()
		reader = nil
	}
	return reader, err
}

func (f *faulty) DeadLetter(ctx context.Context, r wal.Record, reason error) error {
	return f.do("dead letter", func() error { return f.journal.DeadLetter(ctx, r, reason) })
}

func (f *faulty) Trim(ctx context.Context, shard int, landed uint64, window time.Duration) error {
	return f.do("trim", func() error { return f.journal.Trim(ctx, shard, landed, window) })
}

func (f *faulty) Target(ctx context.Context, walShard int) (target uint32, err error) {
	err = f.do("target", func() error {
		target, err = f.table.Target(ctx, walShard)
		return err
	})
	return target, err
}

func (f *faulty) Insert(ctx context.Context, b *store.Batch, token string) error {
	return f.do("insert", func() error { return f.table.Insert(ctx, b, token) })
}

func (f *faulty) Reconcile(ctx context.Context, b *store.Batch) (missing int, err error) {
	err = f.do("reconcile", func() error {
		missing, err = f.table.Reconcile(ctx, b)
		return err
	})
	return missing, err
}

func nobodyLives(string) bool { return false }

// own claims the only shard and runs it, with what wrap makes of what it works with, until it is stopped or dies.
func (f *fixture) own(ctx context.Context, id string, wrap func(*shard)) (s *shard, done <-chan struct{}) {
	f.t.Helper()
	cfg := defaults
	cfg.ID, cfg.FlushInterval, cfg.FlushRows, cfg.ReplayWindow = id, 50*time.Millisecond, 45, 0
	in := New(cfg, f.wal, f.store, NewMetrics(prometheus.NewRegistry()), quiet())
	lease, err := f.wal.Claim(f.t.Context(), 0, id, nobodyLives)
	if err != nil {
		f.t.Fatal(err)
	}
	s = newShard(in, 0, lease)
	if wrap != nil {
		wrap(s)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.run(ctx)
	}()
	f.t.Cleanup(func() {
		s.stop()
		<-ended
	})
	return s, ended
}

// Every step of a shard fails, before it has had its effect or after, and is tried again, or is the last thing
// that the owner does. Each line of the WAL lands once all the same, and each bad record is one dead letter: one
// that can't be decoded, and one that ClickHouse refuses.
func TestEveryStepFails(t *testing.T) {
	type fault struct {
		step string
		call int
	}
	for _, at := range []fault{
		{"look", 1}, {"read", 1}, {"target", 1}, {"intend", 1}, {"intend", 2}, {"insert", 1}, {"insert", 2}, {"insert", 4}, {"reconcile", 1}, {"reconcile", 2},
		{"land", 1}, {"land", 2}, {"land", 4}, {"dead letter", 1}, {"dead letter", 2}, {"trim", 1}, {"trim", 2}, {"release", 1},
	} {
		for _, after := range []bool{false, true} {
			for _, dies := range []bool{false, true} {
				when, what := "before", "is tried again"
				if after {
					when = "after"
				}
				if dies {
					what = "kills the owner"
				}
				t.Run(fmt.Sprintf("%s %d fails %s its effect and %s", at.step, at.call, when, what), func(t *testing.T) {
					t.Parallel()
					f := newFixture(t, 1)
					f.pushAmongBadOnes()
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					var die context.CancelFunc
					if dies {
						die = cancel
					}
					fault := &faulty{step: at.step, call: at.call, after: after, die: die}
					s, done := f.own(ctx, "first", func(s *shard) {
						fault.lease, fault.journal, fault.table = s.lease, s.journal, s.table
						s.lease, s.journal, s.table = fault, fault, fault
					})
					f.eventually("the fault fires, or all has landed", func() bool { return fault.fired.Load() || f.acknowledged() })
					if at.step != "release" && !fault.fired.Load() {
						t.Fatal("the fault did not fire")
					}
					if dies && at.step != "release" {
						<-done
						f.own(context.Background(), "successor", nil)
					}
					f.landed()
					f.eventually("it is acknowledged", f.acknowledged)
					if at.step == "release" {
						s.stop()
						<-done
						if p, err := f.wal.Position(t.Context(), 0); err != nil || !dies && p.Owner != "" {
							t.Errorf("it kept the shard: %+v, %v", p, err)
						}
						f.push(2, 10)
						f.own(context.Background(), "successor", nil)
						f.landed()
						if !fault.fired.Load() {
							t.Error("the fault did not fire")
						}
					}
					if all, different := f.rows(); all != uint64(f.next) || different != all {
						t.Errorf("%d rows, %d different, of %d", all, different, f.next)
					}
					letters := 0
					for letter, err := range f.wal.DeadLetters(t.Context(), "") {
						if err != nil {
							t.Fatal(err)
						}
						t.Logf("dead letter %d.%d: %s", letter.Shard, letter.Sequence, letter.Reason)
						letters++
					}
					if letters != 2 {
						t.Errorf("%d dead letters of 2", letters)
					}
				})
			}
		}
	}
}

// pushAmongBadOnes pushes good records, and among them one that can't be decoded and one that ClickHouse refuses.
func (f *fixture) pushAmongBadOnes() {
	f.t.Helper()
	f.exec("ALTER TABLE LOG ADD CONSTRAINT sane CHECK msg != 'poison'")
	f.push(4, 10)
	nc, err := f.nats.Conn()
	if err != nil {
		f.t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.RequestMsg(&nats.Msg{Subject: "logs.acme.0", Data: []byte("not a record")}, time.Minute); err != nil {
		f.t.Fatal(err)
	}
	f.push(4, 10)
	var b logs.Batch
	b.AddStream(`{"app":"poisoned"}`)
	for _, line := range []string{"first", "poison", "last"} {
		b.Lines = append(b.Lines, line...)
		b.EndEntry(1700000000000000000, true)
	}
	if _, err := f.wal.Publish(f.t.Context(), "acme", "", &b); err != nil {
		f.t.Fatal(err)
	}
	f.push(5, 10)
}

// A read that failed and was begun again is no failure any more, also while there is nothing to flush.
func TestAFailedReadIsForgotten(t *testing.T) {
	f := newFixture(t, 1)
	fault := &faulty{step: "read", call: 1}
	s, _ := f.own(context.Background(), "first", func(s *shard) {
		fault.lease, fault.journal, fault.table = s.lease, s.journal, s.table
		s.journal = fault
	})
	f.eventually("it is known", func() bool { return errors.Is(s.error(), errInjected) })
	f.eventually("it is forgotten", func() bool { return s.error() == nil })
}

// Rows that the table has taken have landed, also where a view that somebody put on it throws for one of them.
func TestAViewThatThrows(t *testing.T) {
	f := newFixture(t, 1)
	db := f.store.Database()
	for _, sql := range []string{
		"CREATE TABLE " + db + ".numbers (n UInt8) ENGINE = MergeTree ORDER BY n",
		"CREATE MATERIALIZED VIEW " + db + ".numbers_of_log TO " + db + ".numbers AS SELECT throwIf(endsWith(msg, '5'), 'five') AS n FROM " + db + ".log",
	} {
		if err := f.store.Conn().Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	in := f.run(func(c *Config) { c.FlushInterval = 50 * time.Millisecond })
	f.push(1, 10)
	f.landed()
	f.eventually("one record alone is acknowledged", f.acknowledged)
	f.push(10, 10)
	f.landed()
	f.eventually("many are acknowledged", f.acknowledged)
	if got := testutil.ToFloat64(in.metrics.deadLetters); got != 0 {
		t.Errorf("%v dead letters", got)
	}
}

// recoverFrom lets a successor take over from an owner that died after it had intended all that was pushed, and done
// more; all lines have to be there once.
func (f *fixture) recoverFrom(died func(l *wal.Lease, b *store.Batch, token string)) {
	f.t.Helper()
	lease, err := f.wal.Claim(f.t.Context(), 0, "former", nobodyLives)
	if err != nil {
		f.t.Fatal(err)
	}
	last, err := f.wal.Last(f.t.Context(), 0)
	if err != nil {
		f.t.Fatal(err)
	}
	span := wal.Range{First: last - 9, Last: last, Bytes: 1 << 20}
	if err := lease.Intend(f.t.Context(), span); err != nil {
		f.t.Fatal(err)
	}
	died(lease, f.batch(span), lease.Token(span))
	f.own(context.Background(), "successor", nil)
	f.landed()
	f.eventually("it is acknowledged", f.acknowledged)
	if all, different := f.rows(); all != uint64(f.next) || different != all {
		f.t.Errorf("%d rows, %d different, of %d", all, different, f.next)
	}
}

// ClickHouse has written a token down and died before it added the rows. It takes every repetition for done.
func TestATokenWithoutRows(t *testing.T) {
	f := newFixture(t, 1)
	f.push(10, 10)
	f.recoverFrom(func(_ *wal.Lease, b *store.Batch, token string) {
		if err := f.store.Insert(t.Context(), b, token); err != nil {
			t.Fatal(err)
		}
		f.exec("ALTER TABLE " + f.store.Database() + ".log DELETE WHERE wal_index < 7 SETTINGS mutations_sync = 2") // keeps the token
	})
}

// ClickHouse has the rows, and has forgotten its tokens in a power cut.
func TestRowsWithoutAToken(t *testing.T) {
	f := newFixture(t, 1)
	f.push(10, 10)
	log := f.store.Database() + ".log"
	f.recoverFrom(func(_ *wal.Lease, b *store.Batch, token string) {
		if err := f.store.Insert(t.Context(), b, token); err != nil {
			t.Fatal(err)
		}
		f.exec("ALTER TABLE " + log + " MODIFY SETTING non_replicated_deduplication_window = 0")
		f.exec("ALTER TABLE " + log + " MODIFY SETTING non_replicated_deduplication_window = 10000")
	})
}

// The bucket with the positions is lost, and with it how far the shard has landed. What the WAL still holds is looked
// for in the table, whatever batches it makes now.
func TestALostPosition(t *testing.T) {
	f := newFixture(t, 1)
	f.push(20, 10)
	s, done := f.own(context.Background(), "former", nil)
	f.landed()
	f.eventually("it is acknowledged", f.acknowledged)
	s.stop()
	<-done
	js, err := jetstream.New(f.conn(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), wal.Bucket); err != nil {
		t.Fatal(err)
	}
	f.wal = f.connect(1, 1<<30)
	f.push(3, 10)
	f.own(context.Background(), "successor", nil)
	f.landed()
	f.eventually("it is acknowledged", f.acknowledged)
	if all, different := f.rows(); all != uint64(f.next) || different != all {
		t.Errorf("%d rows, %d different, of %d", all, different, f.next)
	}
}

// What an operator has to put right makes the ingester not ready, and says why; then the backlog lands.
func TestReadySaysWhatTheOperatorHasToDo(t *testing.T) {
	pace := slowly
	slowly = backoff{50 * time.Millisecond, 50 * time.Millisecond}
	t.Cleanup(func() { slowly = pace })
	f := newFixture(t, 2)
	in := f.run(func(c *Config) { c.FlushInterval = 50 * time.Millisecond })
	if err := in.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	log := f.store.Database() + ".log"
	exec := func(sql string) {
		t.Helper()
		if err := f.store.Conn().Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("RENAME TABLE " + log + " TO " + log + "_away")
	f.push(20, 10)
	f.eventually("it says why", func() bool {
		err := in.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "shard ") && strings.Contains(err.Error(), "code: 60") // UNKNOWN_TABLE
	})
	if got := testutil.ToFloat64(in.metrics.failures.WithLabelValues("operator")); got == 0 {
		t.Error("the metric does not count it")
	}
	exec("RENAME TABLE " + log + "_away TO " + log)
	f.landed()
	f.eventually("it is ready", func() bool { return in.Ready(t.Context()) == nil })
}
