package ingester

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

// audit audits, and fails the test where the numbers do not add up.
func (f *fixture) audit(o AuditOptions) AuditReport {
	f.t.Helper()
	var report AuditReport
	if err := f.ride(func() (err error) {
		report, err = Audit(f.t.Context(), f.wal, f.store, o)
		return err
	}); err != nil {
		f.t.Fatal(err)
	}
	var total Books
	for n, s := range report.Shards {
		if s.Shard != n {
			f.t.Errorf("shard %d is reported as %d", n, s.Shard)
		}
		if s.Entries != s.Rows-s.Surplus+s.Missing+s.DeadLettered+s.Expired+s.Unflushed {
			f.t.Errorf("shard %d: the books do not add up: %+v", n, s.Books)
		}
		var listed Books
		for _, d := range s.Discrepancies {
			listed.Missing += d.Missing
			listed.Surplus += d.Surplus
		}
		if s.Discrepant < mostDiscrepancies && (listed.Missing != s.Missing || listed.Surplus != s.Surplus || s.Discrepant != uint64(len(s.Discrepancies))) {
			f.t.Errorf("shard %d: the discrepancies %+v are not those of %+v", n, s.Discrepancies, s.Books)
		}
		total.add(s.Books)
	}
	if total != report.Total || report.Balanced != (total.Missing == 0 && total.Surplus == 0) {
		f.t.Errorf("the total of %+v is %+v, balanced: %v", report.Shards, report.Total, report.Balanced)
	}
	return report
}

// wantBooks fails the test unless an audit finds these numbers.
func (f *fixture) wantBooks(o AuditOptions, want Books) AuditReport {
	f.t.Helper()
	report := f.audit(o)
	if report.Total != want {
		f.t.Errorf("audited %+v\nwant    %+v", report.Total, want)
	}
	return report
}

// pushTo publishes a record of one entry a timestamp.
func (f *fixture) pushTo(tenant string, timestamps ...time.Time) wal.Header {
	f.t.Helper()
	var b logs.Batch
	b.AddStream(`{"app":"audit"}`)
	for _, at := range timestamps {
		b.Lines = fmt.Appendf(b.Lines, "line %d", f.next)
		b.EndEntry(at.UnixNano(), true)
		f.next++
	}
	ack, err := f.wal.Publish(f.t.Context(), tenant, fmt.Sprint("push ", f.next), &b)
	if err != nil {
		f.t.Fatal(err)
	}
	return wal.Header{Sequence: ack.Sequence, Tenant: tenant, Entries: len(timestamps)}
}

// repeat is n times the same moment.
func repeat(at time.Time, n int) (times []time.Time) {
	for range n {
		times = append(times, at)
	}
	return times
}

// land lands all that was pushed, by an ingester that then ends.
func (f *fixture) land() {
	f.t.Helper()
	in := f.run(nil)
	f.eventually("it owns all shards", func() bool { return in.owns() == f.wal.Shards() })
	if _, err := in.Flush(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	in.stop()
}

// exec runs a statement; LOG in it is the table.
func (f *fixture) exec(sql string, args ...any) {
	f.t.Helper()
	sql = strings.ReplaceAll(sql, "LOG", f.store.Database()+".log")
	if err := f.ride(func() error { return f.store.Conn().Exec(f.t.Context(), sql, args...) }); err != nil {
		f.t.Fatal(err)
	}
}

// stream is the stream of a shard, as any NATS tool sees it.
func (f *fixture) stream(shard int) jetstream.Stream {
	f.t.Helper()
	nc, err := f.nats.Conn()
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		f.t.Fatal(err)
	}
	stream, err := js.Stream(f.t.Context(), wal.StreamName(shard))
	if err != nil {
		f.t.Fatal(err)
	}
	return stream
}

// putAside makes a record of shard 0 a dead letter.
func (f *fixture) putAside(sequence uint64) wal.DeadLetter {
	f.t.Helper()
	record, err := f.wal.Record(f.t.Context(), 0, sequence)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.wal.DeadLetter(f.t.Context(), record, errors.New("for a test")); err != nil {
		f.t.Fatal(err)
	}
	d, err := f.wal.FindDeadLetter(f.t.Context(), 0, sequence)
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

// double inserts rows that are there again, as they are or with some columns replaced, as nobody but a person would.
func (f *fixture) double(replace, where string, args ...any) {
	f.t.Helper()
	f.exec("INSERT INTO LOG SELECT * "+replace+" FROM (SELECT * FROM LOG WHERE "+where+") SETTINGS insert_deduplicate = 0", args...)
}

func TestAudit(t *testing.T) {
	recent := time.Now().Truncate(time.Second)
	for name, c := range map[string]struct {
		do   func(*fixture, []wal.Header) // after 10 records of 10 entries have landed
		want func(*Books)                 // from the numbers of those
	}{
		"balanced":    {func(*fixture, []wal.Header) {}, func(*Books) {}},
		"truncated":   {func(f *fixture, _ []wal.Header) { f.exec("TRUNCATE TABLE LOG") }, func(b *Books) { b.Rows, b.Missing = 0, 100 }},
		"record gone": {func(f *fixture, h []wal.Header) { f.exec("DELETE FROM LOG WHERE wal_seq = ?", h[3].Sequence) }, func(b *Books) { b.Rows, b.Missing = 90, 10 }},
		"row gone": {func(f *fixture, h []wal.Header) {
			f.exec("DELETE FROM LOG WHERE wal_seq = ? AND wal_index = 9", h[0].Sequence)
		}, func(b *Books) { b.Rows, b.Missing = 99, 1 }},
		"all doubled": {func(f *fixture, _ []wal.Header) { f.double("", "1") }, func(b *Books) { b.Rows, b.Surplus = 200, 100 }},
		"tripled": {func(f *fixture, h []wal.Header) {
			for range 2 {
				f.double("", "wal_seq = ? AND wal_index = 0 LIMIT 1", h[9].Sequence)
			}
		}, func(b *Books) { b.Rows, b.Surplus = 102, 2 }},
		"yet to come": {func(f *fixture, h []wal.Header) {
			f.double("REPLACE (wal_seq + 1000 AS wal_seq)", "wal_seq = ?", h[0].Sequence)
		}, func(b *Books) { b.Rows, b.Surplus = 110, 10 }},
		"before all": {func(f *fixture, h []wal.Header) {
			f.double("REPLACE (wal_seq - 1000 AS wal_seq)", "wal_seq = ?", h[0].Sequence)
		}, func(*Books) {}},
		"other shard": {func(f *fixture, h []wal.Header) {
			f.double("REPLACE (1 AS wal_shard)", "wal_seq = ?", h[0].Sequence)
		}, func(*Books) {}},
		"beyond": {func(f *fixture, h []wal.Header) {
			f.double("REPLACE (wal_index + 8 AS wal_index)", "wal_seq = ?", h[9].Sequence)
		}, func(b *Books) { b.Rows, b.Surplus = 110, 10 }},
		"beyond, the rest gone": {func(f *fixture, h []wal.Header) {
			f.double("REPLACE (wal_index + 10 AS wal_index)", "wal_seq = ?", h[5].Sequence)
			f.exec("DELETE FROM LOG WHERE wal_seq = ? AND wal_index < 10", h[5].Sequence)
		}, func(b *Books) { b.Missing, b.Surplus = 10, 10 }},
		"one lost, one doubled": {func(f *fixture, h []wal.Header) {
			f.exec("DELETE FROM LOG WHERE wal_seq = ? AND wal_index = 4", h[5].Sequence)
			f.double("", "wal_seq = ? AND wal_index = 5", h[5].Sequence)
		}, func(b *Books) { b.Missing, b.Surplus = 1, 1 }},
		"not landed":              {func(f *fixture, _ []wal.Header) { f.push(2, 10) }, func(b *Books) { b.Records, b.Entries, b.Unflushed = 12, 120, 20 }},
		"not landed, dead letter": {func(f *fixture, _ []wal.Header) { f.putAside(f.pushTo("acme", repeat(recent, 7)...).Sequence) }, func(b *Books) { b.Records, b.Entries, b.DeadLettered = 11, 107, 7 }},
		"not landed, insert half done": {func(f *fixture, h []wal.Header) {
			next := f.pushTo("acme", repeat(recent, 10)...)
			f.double("REPLACE (toUInt64(?) AS wal_seq)", "wal_seq = ? AND wal_index < 4", next.Sequence, h[0].Sequence)
		}, func(b *Books) { b.Records, b.Entries, b.Rows, b.Unflushed = 11, 110, 104, 6 }},
		"not landed, doubled": {func(f *fixture, h []wal.Header) {
			next := f.pushTo("acme", repeat(recent, 10)...)
			for range 2 {
				f.double("REPLACE (toUInt64(?) AS wal_seq)", "wal_seq = ?", next.Sequence, h[0].Sequence)
			}
		}, func(b *Books) { b.Records, b.Entries, b.Rows, b.Surplus = 11, 110, 120, 10 }},
		"dead letter": {func(f *fixture, h []wal.Header) {
			f.putAside(h[2].Sequence)
			f.exec("DELETE FROM LOG WHERE wal_seq = ?", h[2].Sequence)
		}, func(b *Books) { b.Rows, b.DeadLettered = 90, 10 }},
		"dead letter, landed after all": {func(f *fixture, h []wal.Header) { f.putAside(h[2].Sequence) }, func(*Books) {}},
		"tombstone": {func(f *fixture, h []wal.Header) {
			if err := f.wal.DropDeadLetter(f.t.Context(), f.putAside(h[2].Sequence)); err != nil {
				f.t.Fatal(err)
			}
			f.exec("DELETE FROM LOG WHERE wal_seq = ?", h[2].Sequence)
		}, func(b *Books) { b.Rows, b.DeadLettered = 90, 10 }},
		"dead letter that is gone": {func(f *fixture, h []wal.Header) {
			if err := f.wal.RemoveDeadLetter(f.t.Context(), f.putAside(h[2].Sequence)); err != nil {
				f.t.Fatal(err)
			}
			f.exec("DELETE FROM LOG WHERE wal_seq = ?", h[2].Sequence)
		}, func(b *Books) { b.Rows, b.Missing = 90, 10 }},
		"not a record": {func(f *fixture, _ []wal.Header) {
			nc, err := f.nats.Conn()
			if err != nil {
				f.t.Fatal(err)
			}
			defer nc.Close()
			if _, err := nc.Request("logs.acme.0", []byte("not a record"), time.Minute); err != nil {
				f.t.Fatal(err)
			}
			f.push(1, 10)
			f.land()
		}, func(b *Books) { b.Records, b.Entries, b.Rows, b.DeadLettered = 12, 111, 110, 1 }},
		"trimmed": {func(f *fixture, h []wal.Header) {
			if err := f.stream(0).Purge(f.t.Context(), jetstream.WithPurgeSequence(h[4].Sequence)); err != nil {
				f.t.Fatal(err)
			}
		}, func(b *Books) { b.Records, b.Entries, b.Rows = 6, 60, 60 }},
		"trimmed, all": {func(f *fixture, _ []wal.Header) {
			if err := f.stream(0).Purge(f.t.Context()); err != nil {
				f.t.Fatal(err)
			}
		}, func(b *Books) { *b = Books{} }},
		"a gap in the WAL": {func(f *fixture, _ []wal.Header) {
			f.pushTo("other", repeat(recent, 3)...)
			f.push(1, 10)
			f.land()
			if err := f.stream(0).Purge(f.t.Context(), jetstream.WithPurgeSubject("logs.other.0")); err != nil {
				f.t.Fatal(err)
			}
		}, func(b *Books) { b.Records, b.Entries, b.Rows, b.Surplus = 11, 110, 113, 3 }},
		"a gap at the end of the WAL": {func(f *fixture, _ []wal.Header) {
			f.pushTo("other", repeat(recent, 3)...)
			f.land()
			if err := f.stream(0).Purge(f.t.Context(), jetstream.WithPurgeSubject("logs.other.0")); err != nil {
				f.t.Fatal(err)
			}
		}, func(b *Books) { b.Rows, b.Surplus = 103, 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 1)
			f.push(10, 10)
			f.land()
			c.do(f, f.headers(0))
			want := Books{Records: 10, Entries: 100, Rows: 100}
			c.want(&want)
			f.wantBooks(AuditOptions{}, want)
		})
	}
}

// headers are those of all records of a shard.
func (f *fixture) headers(shard int) (all []wal.Header) {
	f.t.Helper()
	for h, err := range f.wal.Headers(f.t.Context(), shard, 0, 1<<63, "") {
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, h)
	}
	return all
}

func TestAuditOfNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 3)
	if report := f.wantBooks(AuditOptions{}, Books{}); len(report.Shards) != 3 {
		t.Errorf("%d shards of 3", len(report.Shards))
	}
}

// What does not balance is told: which record, whose, and since when.
func TestAuditListsDiscrepancies(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 4)
	f.push(40, 10)
	f.land()
	gone := map[uint64]int{}
	for shard := range 4 {
		headers := f.headers(shard)
		if len(headers) < 3 {
			t.Fatalf("shard %d has %d records of 40", shard, len(headers))
		}
		h := headers[1]
		gone[h.Sequence] = shard
		f.exec("DELETE FROM LOG WHERE wal_shard = ? AND wal_seq = ? AND wal_index IN (2, 3)", shard, h.Sequence)
		report := f.audit(AuditOptions{}).Shards[shard]
		if len(report.Discrepancies) != 1 {
			t.Fatalf("shard %d: %+v", shard, report)
		}
		want := Discrepancy{Sequence: h.Sequence, Tenant: "acme", Time: h.Time, Entries: 10, Rows: 8, Missing: 2}
		if got := report.Discrepancies[0]; got != want {
			t.Errorf("shard %d: listed %+v\nwant %+v", shard, got, want)
		}
	}
	if total := f.audit(AuditOptions{}).Total; total.Missing != 8 {
		t.Errorf("audited %+v", total)
	}
}

func TestAuditOfATenant(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2)
	at := time.Now()
	for range 20 {
		f.pushTo("acme", repeat(at, 3)...)
		f.pushTo("other", repeat(at, 5)...)
	}
	f.land()
	acme, other := Books{Records: 20, Entries: 60, Rows: 60}, Books{Records: 20, Entries: 100, Rows: 100}
	f.wantBooks(AuditOptions{Tenant: "acme"}, acme)
	f.wantBooks(AuditOptions{Tenant: "other"}, other)
	f.wantBooks(AuditOptions{Tenant: "nobody"}, Books{})
	f.exec("DELETE FROM LOG WHERE tenant_id = 'other' AND wal_index = 0")
	f.double("", "tenant_id = 'other' AND wal_index = 1")
	f.wantBooks(AuditOptions{Tenant: "acme"}, acme)
	other.Missing, other.Surplus = 20, 20
	f.wantBooks(AuditOptions{Tenant: "other"}, other)
	// A row of a tenant in the place of another's is no row of either's.
	f.double("REPLACE ('acme' AS tenant_id)", "tenant_id = 'other' AND wal_index = 2")
	acme.Rows, acme.Surplus = 80, 20
	f.wantBooks(AuditOptions{Tenant: "acme"}, acme)
	f.wantBooks(AuditOptions{Tenant: "other"}, other)
}

func TestAuditOfATime(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	var times []time.Time // between the records
	for range 5 {
		f.push(1, 10)
		time.Sleep(2 * time.Millisecond) // the records have to have different times
	}
	f.land()
	headers := f.headers(0)
	for i := range headers[1:] {
		times = append(times, headers[i].Time.Add(headers[i+1].Time.Sub(headers[i].Time)/2))
	}
	f.exec("DELETE FROM LOG WHERE wal_seq = ?", headers[2].Sequence)
	for _, c := range []struct {
		from, to       time.Time
		records, holes uint64
	}{
		{time.Time{}, time.Time{}, 5, 1},
		{times[0], times[1], 1, 0},
		{times[1], times[2], 1, 1},
		{headers[2].Time, headers[2].Time.Add(1), 1, 1},
		{headers[2].Time.Add(1), time.Time{}, 2, 0},
		{time.Time{}, headers[2].Time, 2, 0},
		{times[0], time.Time{}, 4, 1},
		{time.Now().Add(time.Hour), time.Time{}, 0, 0},
		{time.Time{}, headers[0].Time.Add(-time.Hour), 0, 0},
	} {
		report := f.wantBooks(AuditOptions{From: c.from, To: c.to}, Books{
			Records: c.records, Entries: 10 * c.records, Rows: 10 * (c.records - c.holes), Missing: 10 * c.holes,
		})
		if !report.Shards[0].Complete {
			t.Errorf("from %s: not complete, but nothing was trimmed", c.from)
		}
	}
	if err := f.stream(0).Purge(t.Context(), jetstream.WithPurgeSequence(headers[3].Sequence)); err != nil {
		t.Fatal(err)
	}
	// A row of a sequence that is yet to come is of no time that has an end.
	f.double("REPLACE (wal_seq + 1000 AS wal_seq)", "wal_seq = ?", headers[4].Sequence)
	f.wantBooks(AuditOptions{From: headers[3].Time, To: time.Now().Add(time.Hour)}, Books{Records: 2, Entries: 20, Rows: 20})
	f.wantBooks(AuditOptions{From: headers[3].Time}, Books{Records: 2, Entries: 20, Rows: 30, Surplus: 10})
	f.exec("DELETE FROM LOG WHERE wal_seq > ?", headers[4].Sequence)
	for from, complete := range map[time.Time]bool{times[0]: false, headers[4].Time: true} {
		report := f.audit(AuditOptions{From: from})
		if s := report.Shards[0]; s.Complete != complete || !s.Since.Equal(headers[3].Time) || !report.Balanced {
			t.Errorf("after a trim, from %s: %+v", from, s)
		}
	}
}

// Retention removes rows whose records the WAL still holds.
func TestAuditKnowsRetention(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	now, old := time.Now(), time.Now().Add(-72*time.Hour)
	mixed := append(repeat(old, 4), repeat(now, 6)...)
	all, none, some := f.pushTo("acme", repeat(old, 10)...), f.pushTo("acme", repeat(now, 10)...), f.pushTo("acme", mixed...)
	f.land()
	books := Books{Records: 3, Entries: 30, Rows: 30}
	f.wantBooks(AuditOptions{}, books)
	if err := f.store.Migrate(t.Context(), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	f.eventually("retention has removed the old rows", func() bool {
		f.exec("OPTIMIZE TABLE LOG FINAL")
		if report := f.audit(AuditOptions{}); !report.Balanced || report.Total.Expired != 30-report.Total.Rows {
			t.Fatalf("on the way: %+v", report.Total)
		}
		rows, _ := f.rows()
		return rows == 16
	})
	books.Rows, books.Expired = 16, 14
	f.wantBooks(AuditOptions{}, books)

	// Back-fill that is older than what is kept may be there for a while.
	f.pushTo("acme", repeat(old, 5)...)
	f.land()
	report := f.audit(AuditOptions{})
	if !report.Balanced || report.Total.Rows+report.Total.Expired != 35 {
		t.Errorf("with back-fill: %+v", report.Total)
	}
	f.eventually("retention has removed it", func() bool {
		f.exec("OPTIMIZE TABLE LOG FINAL")
		rows, _ := f.rows()
		return rows == 16
	})
	books.Records, books.Entries, books.Expired = 4, 35, 19
	f.wantBooks(AuditOptions{}, books)

	// What retention can't explain is missing.
	f.exec("DELETE FROM LOG WHERE wal_seq = ? AND wal_index = 7", some.Sequence)
	books.Rows, books.Missing = 15, 1
	f.wantBooks(AuditOptions{}, books)
	f.exec("DELETE FROM LOG WHERE wal_seq = ?", none.Sequence)
	books.Rows, books.Missing = 5, 11
	f.wantBooks(AuditOptions{}, books)
	f.exec("TRUNCATE TABLE LOG")
	books.Rows, books.Missing = 0, 16
	report = f.wantBooks(AuditOptions{}, books)
	for _, d := range report.Shards[0].Discrepancies {
		if d.Sequence == all.Sequence {
			t.Errorf("%+v is not retention's", d)
		}
	}
}

// What has expired may still be there, and is no excuse for what has not and is gone.
func TestAuditOfExpiredRowsThatAreStillThere(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	if err := f.store.Migrate(t.Context(), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	f.exec("SYSTEM STOP MERGES LOG")
	now, old := time.Now(), time.Now().Add(-72*time.Hour)
	f.pushTo("acme", append(repeat(old, 4), repeat(now, 6)...)...)
	f.land()
	f.wantBooks(AuditOptions{}, Books{Records: 1, Entries: 10, Rows: 10})
	f.exec("ALTER TABLE LOG DROP PARTITION " + now.UTC().Format("20060102"))
	f.wantBooks(AuditOptions{}, Books{Records: 1, Entries: 10, Rows: 4, Missing: 6})
}

// More records than a window holds, with bodies that have to be read in several runs.
func TestAuditInWindows(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	at := time.Now()
	for range 60 {
		f.pushTo("acme", at, at.Add(1))
	}
	f.land()
	headers := f.headers(0)
	if err := f.store.Migrate(t.Context(), 1000*time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, 5, 40, 59} {
		f.exec("DELETE FROM LOG WHERE wal_seq = ?", headers[i].Sequence)
	}
	f.double("", "wal_seq = ?", headers[20].Sequence)
	want := Books{Records: 60, Entries: 120, Rows: 112, Missing: 10, Surplus: 2}
	f.wantBooks(AuditOptions{}, want)
	audit := func(last uint64, records, entries int, want Books) {
		t.Helper()
		var report ShardAudit
		a := shardAudit{
			ShardAudit: &report, wal: f.wal, store: f.store, retention: 1000 * time.Hour, landed: last,
			span: wal.Span{First: headers[0].Sequence, Last: last}, windowRecords: records, windowEntries: entries,
		}
		if err := a.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if report.Books != want {
			t.Errorf("in windows of %d records, %d entries: %+v", records, entries, report.Books)
		}
	}
	for _, window := range []struct{ records, entries int }{{1, windowEntries}, {7, windowEntries}, {60, windowEntries}, {windowRecords, 13}} {
		audit(headers[59].Sequence, window.records, window.entries, want)
	}
	// What lands after an audit has begun is none of its business.
	audit(headers[29].Sequence, 7, windowEntries, Books{Records: 30, Entries: 60, Rows: 56, Missing: 6, Surplus: 2})
}

// While lines are pushed, landed, trimmed and removed by retention, and ingesters come and go, no audit finds anything.
func TestAuditBesideLiveIngest(t *testing.T) {
	for name, retention := range map[string]time.Duration{"kept": 0, "expiring": 24 * time.Hour} { // the lines are of 2023
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 2)
			if err := f.store.Migrate(t.Context(), retention); err != nil {
				t.Fatal(err)
			}
			f.besideLiveIngest(func() {
				for n := range 20 {
					if report := f.audit(AuditOptions{}); !report.Balanced {
						t.Errorf("audit %d raises a false alarm: %+v", n, report)
					}
				}
			})
		})
	}
}

// besideLiveIngest does something while all else goes on.
func (f *fixture) besideLiveIngest(do func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	live := func(c *Config) { c.FlushInterval, c.FlushRows = 20*time.Millisecond, 200 }
	f.run(live)
	others.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			f.push(1, 20)
		}
	})
	others.Go(func() {
		for ctx.Err() == nil {
			in := f.run(live)
			for deadline := time.Now().Add(30 * time.Second); in.owns() == 0 && time.Now().Before(deadline); {
				time.Sleep(10 * time.Millisecond) // it has to have joined before it can leave
			}
			in.stop()
		}
	})
	streams := []jetstream.Stream{f.stream(0), f.stream(1)}
	landed := func(shard int) uint64 {
		p, err := f.wal.Position(ctx, shard)
		if err != nil && ctx.Err() == nil {
			f.t.Error(err)
		}
		return p.Landed
	}
	f.eventually("both shards land", func() bool { return landed(0) > 0 && landed(1) > 0 })
	begin := []uint64{landed(0), landed(1)}
	others.Go(func() { // keeps some 50 records that have landed
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			for n, stream := range streams {
				if err := stream.Purge(ctx, jetstream.WithPurgeSequence(landed(n)-50)); err != nil && ctx.Err() == nil {
					f.t.Error(err)
				}
			}
		}
	})
	f.eventually("it goes on", func() bool { return landed(0) > begin[0]+50 && landed(1) > begin[1]+50 })
	do()
}

// The table of a ClickHouse that is away is not an empty one.
func TestAuditFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	f.push(1, 1)
	f.land()
	f.link.cut()
	if report, err := Audit(t.Context(), f.wal, f.store, AuditOptions{}); err == nil || report.Balanced {
		t.Errorf("an audit without ClickHouse: %+v, %v", report, err)
	}
	f.link.mend()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if report, err := Audit(ctx, f.wal, f.store, AuditOptions{}); err == nil || report.Balanced {
		t.Errorf("an audit that was canceled: %+v, %v", report, err)
	}
}

// An audit of ten million rows, in large records and in small ones.
func BenchmarkAudit(b *testing.B) {
	for _, c := range []struct{ records, entries int }{{5_000, 2000}, {200_000, 50}} {
		b.Run(fmt.Sprintf("%d records of %d", c.records, c.entries), func(b *testing.B) {
			f := newFixture(b, 4)
			in := f.run(nil)
			f.eventually("it owns all shards", func() bool { return in.owns() == 4 })
			var pushing sync.WaitGroup
			for pusher := range 16 {
				pushing.Go(func() {
					var batch logs.Batch
					for n := pusher; n < c.records; n += 16 {
						batch.Reset()
						batch.AddStream(`{"app":"audit"}`)
						for i := range c.entries {
							batch.Lines = fmt.Appendf(batch.Lines, "line %d of record %d", i, n)
							batch.EndEntry(1700000000000000001+int64(n*c.entries+i), true)
						}
						if _, err := f.wal.Publish(b.Context(), "acme", "", &batch); err != nil {
							b.Error(err)
						}
					}
				})
			}
			pushing.Wait()
			if _, err := in.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if report := f.audit(AuditOptions{}); !report.Balanced || report.Total.Rows != uint64(c.records*c.entries) {
					b.Errorf("audited %+v", report.Total)
				}
			}
		})
	}
}
