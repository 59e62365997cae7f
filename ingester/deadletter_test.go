package ingester

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// lose lands a record without its rows, as a dead letter.
func (f *fixture) lose(timestamps ...time.Time) wal.DeadLetter {
	f.t.Helper()
	header := f.pushTo("acme", timestamps...)
	f.land()
	f.exec("DELETE FROM LOG WHERE wal_seq = ?", header.Sequence)
	return f.putAside(header.Sequence)
}

// wantLetters fails the test unless these letters are there, and no other.
func (f *fixture) wantLetters(want ...wal.DeadLetter) {
	f.t.Helper()
	var got, wanted []uint64
	for d, err := range f.wal.DeadLetters(f.t.Context(), "") {
		if err != nil {
			f.t.Fatal(err)
		}
		got = append(got, d.Sequence)
	}
	for _, d := range want {
		wanted = append(wanted, d.Sequence)
	}
	if !slices.Equal(got, wanted) {
		f.t.Errorf("the dead letters are %d, want %d", got, wanted)
	}
}

func TestRetryDeadLetter(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	at := time.Now()
	f.push(1, 10)
	d, other := f.lose(at, at.Add(1), at.Add(-24*time.Hour)), f.lose(at)
	books := Books{Records: 3, Entries: 14, Rows: 10, DeadLettered: 4}
	f.wantBooks(AuditOptions{}, books)
	f.exec("INSERT INTO LOG (tenant_id, timestamp, wal_shard, wal_seq, wal_index) VALUES ('acme', ?, 0, ?, 1)", at, d.Sequence) // one made it
	if inserted, err := RetryDeadLetter(t.Context(), f.wal, f.store, d); err != nil || inserted != 2 {
		t.Fatalf("inserted %d rows: %v", inserted, err)
	}
	f.wantLetters(other)
	books.Rows, books.DeadLettered = 13, 1
	f.wantBooks(AuditOptions{}, books)
	if inserted, err := RetryDeadLetter(t.Context(), f.wal, f.store, d); err != nil || inserted != 0 { // as by another, who read it before
		t.Errorf("again, inserted %d rows: %v", inserted, err)
	}
	if _, err := RetryDeadLetter(t.Context(), f.wal, f.store, other); err != nil {
		t.Error(err)
	}
	f.wantLetters()
	f.wantBooks(AuditOptions{}, Books{Records: 3, Entries: 14, Rows: 14})
}

func TestRetryDeadLetterFromBothSides(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	d := f.lose(repeat(time.Now(), 1000)...)
	var retries sync.WaitGroup
	for range 4 {
		retries.Go(func() {
			if _, err := RetryDeadLetter(t.Context(), f.wal, f.store, d); err != nil {
				t.Error(err)
			}
		})
	}
	retries.Wait()
	f.wantLetters()
	f.wantBooks(AuditOptions{}, Books{Records: 1, Entries: 1000, Rows: 1000})
}

func TestRetryDeadLetterThatStays(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	nc, err := f.nats.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Request("logs.acme.0", []byte("not a record"), time.Minute); err != nil {
		t.Fatal(err)
	}
	sequence := f.headers(0)[0].Sequence
	d := f.putAside(sequence)
	_, err = RetryDeadLetter(t.Context(), f.wal, f.store, d)
	if _, ok := errors.AsType[*wal.UndecodableError](err); !ok {
		t.Errorf("what can't be decoded: %v", err)
	}
	f.wantLetters(d)

	refused := f.lose(time.Now())
	f.exec("ALTER TABLE LOG ADD CONSTRAINT never CHECK msg != 'line 0'")
	_, err = RetryDeadLetter(t.Context(), f.wal, f.store, refused)
	if err == nil || store.Classify(err) != store.BadBatch {
		t.Errorf("what is refused: %v", err)
	}
	f.wantLetters(d, refused)
	f.exec("ALTER TABLE LOG DROP CONSTRAINT never")
	if inserted, err := RetryDeadLetter(t.Context(), f.wal, f.store, refused); err != nil || inserted != 1 {
		t.Errorf("not refused any more: %d rows, %v", inserted, err)
	}
	f.wantLetters(d)

	f.link.cut()
	_, err = RetryDeadLetter(t.Context(), f.wal, f.store, f.putAside(refused.Sequence))
	if err == nil || store.Classify(err) == store.BadBatch {
		t.Errorf("without ClickHouse: %v", err)
	}
	f.link.mend()
}

// ClickHouse remembers an insert whose rows somebody has deleted. The letter is the last copy then, and stays.
func TestRetryDeadLetterThatClickHouseTakesForARepetition(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	d := f.lose(time.Now())
	if _, err := RetryDeadLetter(t.Context(), f.wal, f.store, d); err != nil {
		t.Fatal(err)
	}
	f.exec("DELETE FROM LOG WHERE wal_seq = ?", d.Sequence)
	if _, err := RetryDeadLetter(t.Context(), f.wal, f.store, d); err == nil || !strings.Contains(err.Error(), "still lacks 1 row") {
		t.Errorf("retried: %v", err)
	}
	if again := f.putAside(d.Sequence); !again.At.After(d.At) {
		t.Errorf("put aside at %s, and again at %s", d.At, again.At)
	} else if inserted, err := RetryDeadLetter(t.Context(), f.wal, f.store, again); err != nil || inserted != 1 {
		t.Errorf("a letter that was put aside later: %d rows, %v", inserted, err)
	}
	f.wantBooks(AuditOptions{}, Books{Records: 1, Entries: 1, Rows: 1})
}

func TestRetryDeadLetterThatHasExpired(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	d := f.lose(time.Now(), time.Now().Add(-72*time.Hour))
	if err := f.store.Migrate(t.Context(), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if inserted, err := RetryDeadLetter(t.Context(), f.wal, f.store, d); err != nil || inserted != 1 {
		t.Errorf("inserted %d rows: %v", inserted, err)
	}
	f.wantLetters()
	f.wantBooks(AuditOptions{}, Books{Records: 1, Entries: 2, Rows: 1, Expired: 1})
}
