package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/logs"
)

// execute runs statements in which logs stands for the store's database.
func execute(t testing.TB, s *Store, statements ...string) {
	t.Helper()
	database := strings.NewReplacer("logs.", s.database+".", "DATABASE logs", "DATABASE "+s.database)
	for _, sql := range statements {
		sql = database.Replace(sql)
		if err := ride(t, func() error { return s.conn.Exec(t.Context(), sql) }); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// loseDeduplication makes the table forget the tokens of its inserts, as a log of them that did not reach the
// disk before the power went does.
func loseDeduplication(t testing.TB, s *Store) {
	t.Helper()
	execute(t, s, "ALTER TABLE logs.log MODIFY SETTING non_replicated_deduplication_window = 0",
		"ALTER TABLE logs.log MODIFY SETTING non_replicated_deduplication_window = 10000")
}

func reconcile(t testing.TB, s *Store, b *Batch, missing int) {
	t.Helper()
	var got int
	if err := ride(t, func() (err error) { got, err = s.Reconcile(t.Context(), b); return err }); err != nil || got != missing {
		t.Fatalf("%d rows are missing, want %d: %v", got, missing, err)
	}
}

func insert(t testing.TB, s *Store, b *Batch, token string) {
	t.Helper()
	if err := ride(t, func() error { return s.Insert(t.Context(), b, token) }); err != nil {
		t.Fatal(err)
	}
}

// content is how many rows the table has, how many different ones, and a sum over all fields of all rows.
func content(t testing.TB, s *Store) string {
	t.Helper()
	return query(t, s, `SELECT concat(toString(count()), ' rows, ', toString(uniqExact(wal_shard, wal_seq, wal_index)), ' different, ',
		toString(sum(cityHash64(tenant_id, stream_id, timestamp, stream, msg, toString(metadata), wal_shard, wal_seq, wal_index))))
		FROM logs.log`)
}

// The insert was confirmed, and nobody heard it.
func TestReconcileAfterALostAnswer(t *testing.T) {
	s, _ := migrated(t)
	b := wide(20_000, 3)
	reconcile(t, s, b, 20_000)
	insert(t, s, b, "token")
	want := content(t, s)
	if !strings.HasPrefix(want, "20000 rows, 20000 different") {
		t.Fatal(want)
	}
	reconcile(t, s, b, 0)
	// Nothing is left to insert, so nobody is asked.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Insert(ctx, b, "token"); err != nil {
		t.Error(err)
	}
	if got := content(t, s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Of each record the rows of some days are gone, with ClickHouse's tokens or without.
func TestReconcileAfterALoss(t *testing.T) {
	for _, lost := range []int{1, 2, 3} {
		for _, tokens := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d of 3 days, tokens %v", lost, tokens), func(t *testing.T) {
				s, _ := migrated(t)
				b := wide(15_000, 3)
				insert(t, s, b, "token")
				want := content(t, s)
				if !tokens {
					loseDeduplication(t, s)
				}
				for day := range lost {
					execute(t, s, fmt.Sprintf("ALTER TABLE logs.log DROP PARTITION %d", 20231114+day))
				}
				reconcile(t, s, b, 5000*lost)
				insert(t, s, b, "token")
				if got := content(t, s); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				reconcile(t, s, b, 0)
			})
		}
	}
}

// What the tests above take for a loss of the tokens is one: without Reconcile, all rows are there twice.
func TestInsertWithoutReconcileAfterALoss(t *testing.T) {
	s, _ := migrated(t)
	b := wide(3000, 3)
	for range 2 {
		insert(t, s, b, "token")
		loseDeduplication(t, s)
	}
	if n := count(t, s); n != 6000 {
		t.Errorf("%d rows", n)
	}
	reconcile(t, s, b, 0)
}

// The first insert brought some days, and its tokens are known: what is missing has another day's part, so it is
// not taken for what has landed. Rows that it left out in the first day do not hold up those of the others.
func TestReconcileWithTokensOfSomeDays(t *testing.T) {
	s, _ := migrated(t)
	b := wide(300_000, 3)
	insert(t, s, b, "token")
	want := content(t, s)
	execute(t, s, "TRUNCATE TABLE logs.log")
	for row, timestamp := range b.timestamps { // what was cut short after the first day
		if time.Unix(0, timestamp).UTC().Day() != 14 {
			b.mark(row, held)
		}
	}
	insert(t, s, b, "token")
	reconcile(t, s, b, 200_000)
	insert(t, s, b, "token")
	if got := content(t, s); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b.unmark()
	insert(t, s, b, "token")
	if got := content(t, s); got != want {
		t.Errorf("after the whole batch again: %s, want %s", got, want)
	}
}

// Any rows may be there, some of them twice, with metadata or without, in any of several blocks of an insert.
func TestReconcileOfAnyRows(t *testing.T) {
	s, _ := migrated(t)
	random := rand.New(rand.NewPCG(1, 2))
	b := wide(3*manyRows, 2)
	present := 0
	for _, share := range []int{3, 10} { // of the rows, one of so many, from two inserts
		b.unmark()
		for row := range b.Rows() {
			if random.IntN(share) != 0 {
				b.mark(row, held)
			}
		}
		present += b.Rows() - b.marked
		insert(t, s, b, fmt.Sprint("share", share))
	}
	b.unmark()
	var distinct uint64
	if err := s.conn.QueryRow(t.Context(), "SELECT uniqExact(wal_seq, wal_index) FROM "+s.database+".log").Scan(&distinct); err != nil {
		t.Fatal(err)
	}
	if present == int(distinct) {
		t.Fatal("no row is there twice: the test shows less than it says")
	}
	missing := b.Rows() - int(distinct)
	reconcile(t, s, b, missing)
	insert(t, s, b, "rest")
	if got, want := query(t, s, `SELECT concat(toString(count()), ' ', toString(uniqExact(wal_seq, wal_index)), ' ',
		toString(uniqExactIf((wal_seq, wal_index), metadata['row'] = extract(msg, '^row ([0-9]+) '))), ' ',
		toString(countIf(toUInt64(extract(msg, '^row ([0-9]+) ')) != wal_seq - 1000 + wal_index)), ' ',
		toString(countIf(JSONExtractString(stream, 'app') != toString(intDiv(wal_seq - 1000, 1000) % 5)))) FROM logs.log`),
		fmt.Sprintf("%d %d %d 0 0", present+missing, b.Rows(), (b.Rows()+999)/1000); got != want {
		t.Errorf("rows, different rows, those with metadata, those with another's index, with another's stream:\n got %s\nwant %s", got, want)
	}
}

// Rows of other shards, records and entries are not the batch's.
func TestReconcileTellsRowsApart(t *testing.T) {
	s, _ := migrated(t)
	entries := func(n int) *logs.Batch {
		var r logs.Batch
		r.AddStream(`{"app":"x"}`)
		for i := range n {
			r.EndEntry(1700000000000000000+int64(i), true)
		}
		return &r
	}
	others := &Batch{Shard: 1}
	addCopy(others, 10, "acme", entries(3))
	insert(t, s, others, "another shard")
	others = new(Batch)
	addCopy(others, 15, "acme", entries(3))
	insert(t, s, others, "a record between")
	others = new(Batch)
	addCopy(others, 20, "acme", entries(5))
	insert(t, s, others, "a record that had more")

	b := new(Batch)
	addCopy(b, 10, "acme", entries(3))
	addCopy(b, 12, "acme", entries(0))
	addCopy(b, 20, "acme", entries(2))
	reconcile(t, s, b, 3)
	insert(t, s, b, "token")
	if got := query(t, s, "SELECT concat(toString(wal_shard), ' ', toString(wal_seq), ' ', toString(count())) FROM logs.log GROUP BY wal_shard, wal_seq ORDER BY wal_shard, wal_seq"); got !=
		"0 10 3\n0 15 3\n0 20 5\n1 10 3" {
		t.Errorf("got\n%s", got)
	}
	// All times that a row can have are found.
	b = mixed()
	reconcile(t, s, b, 5)
	insert(t, s, b, "mixed")
	for range 6 { // ClickHouse compiles what it has been asked a few times
		reconcile(t, s, b, 0)
	}
	if got := query(t, s, selectMixed); got != mixedRows {
		t.Errorf("got\n%q\nwant\n%q", got, mixedRows)
	}
}

func TestSkipBefore(t *testing.T) {
	s, _ := migrated(t)
	b := wide(3000, 3)
	day := func(n int) int64 { return time.Date(2023, 11, n, 0, 0, 0, 0, time.UTC).UnixNano() }
	for _, step := range []struct{ day, want int }{{14, 0}, {15, 1000}, {15, 0}, {16, 1000}, {15, 0}} {
		if got := b.SkipBefore(day(step.day)); got != step.want {
			t.Fatalf("before day %d: %d rows, want %d", step.day, got, step.want)
		}
	}
	reconcile(t, s, b, 1000)
	insert(t, s, b, "token")
	reconcile(t, s, b, 0)
	if got := query(t, s, "SELECT concat(toString(toDate(timestamp)), ' ', toString(count())) FROM logs.log GROUP BY toDate(timestamp)"); got != "2023-11-16 1000" {
		t.Errorf("inserted are\n%s", got)
	}
	if got := b.SkipBefore(day(17)); got != 1000 {
		t.Errorf("rows that the table holds may be skipped too: %d", got)
	}
	reconcile(t, s, b, 0) // without a row to ask for
	execute(t, s, "TRUNCATE TABLE logs.log")
	b.Reset()
	var r logs.Batch
	r.AddStream(`{"app":"x"}`)
	r.EndEntry(1, true)
	addCopy(b, 1, "acme", &r)
	reconcile(t, s, b, 1)
	insert(t, s, b, "old, in a batch that was reset")
	if n := count(t, s); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// The insert ended after the table had its rows and before the view had: the streams come with the answer.
func TestReconcileAddsStreams(t *testing.T) {
	s, _ := migrated(t)
	b := wide(10_000, 3)
	execute(t, s, "DETACH TABLE logs.stream_of_log")
	insert(t, s, b, "token")
	execute(t, s, "ATTACH TABLE logs.stream_of_log")
	streams := `SELECT concat(tenant_id, ' ', labels['app'], ' ', toString(toUnixTimestamp64Nano(first_seen)), ' ', toString(toUnixTimestamp64Nano(last_seen)), ' ', toString(stream_id))
		FROM logs.stream FINAL ORDER BY stream`
	if got := query(t, s, streams); got != "" {
		t.Fatalf("there are streams already:\n%s", got)
	}
	reconcile(t, s, b, 0)
	got := query(t, s, streams)
	execute(t, s, "TRUNCATE TABLE logs.log", "TRUNCATE TABLE logs.stream")
	b.unmark()
	insert(t, s, b, "again")
	if want := query(t, s, streams); got != want || want == "" {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// An answer that a profile would cut off, or take from a cache, would make rows look missing.
func TestReconcileGetsTheWholeAnswer(t *testing.T) {
	s, server := migrated(t)
	limited := openDSN(t, fmt.Sprintf("clickhouse://%s/%s?limit=1&max_rows_to_read=1&read_overflow_mode=break&use_query_cache=1&query_cache_ttl=600", server.Addr(), s.database))
	b := wide(10_000, 3)
	if missing, err := limited.Reconcile(t.Context(), b); err != nil || missing != 10_000 {
		t.Fatalf("%d rows are missing: %v", missing, err)
	}
	insert(t, s, b, "token")
	if missing, err := limited.Reconcile(t.Context(), b); err == nil {
		t.Errorf("with a limit of rows to read, %d rows are missing and there is no error", missing)
	}
	limited = openDSN(t, fmt.Sprintf("clickhouse://%s/%s?limit=1&use_query_cache=1&query_cache_ttl=600", server.Addr(), s.database))
	for _, want := range []int{0, 10_000} {
		if missing, err := limited.Reconcile(t.Context(), b); err != nil || missing != want {
			t.Errorf("%d rows are missing, want %d: %v", missing, want, err)
		}
		execute(t, s, "TRUNCATE TABLE logs.log")
	}
}

// Of a table of some size, only the granules that may hold the batch are read.
func TestReconcileReadsLittle(t *testing.T) {
	s, _ := migrated(t)
	var all Batch
	var r logs.Batch
	for sequence := range uint64(200) {
		r.Reset()
		for stream := range 5 {
			r.AddStream(fmt.Sprintf(`{"app":"%d"}`, stream))
			for i := range 400 {
				r.EndEntry(1700000000000000000+int64(sequence)*1e9+int64(i), true)
			}
		}
		addCopy(&all, 1000+sequence, "acme", &r)
	}
	insert(t, s, &all, "all")
	explained := query(t, s, `SELECT explain FROM (EXPLAIN indexes = 1 SELECT wal_seq, wal_index FROM logs.log WHERE wal_shard = 0 AND wal_seq BETWEEN 1100 AND 1101
		AND timestamp BETWEEN fromUnixTimestamp64Nano(toInt64(1600000000000000000), 'UTC') AND fromUnixTimestamp64Nano(toInt64(1800000000000000000), 'UTC'))`)
	_, index, ok := strings.Cut(explained, "Name: wal_seq")
	_, granules, _ := strings.Cut(index, "Granules: ")
	var read, of int
	if _, err := fmt.Sscanf(granules, "%d/%d", &read, &of); !ok || err != nil || of < 160 || read > 16 {
		t.Errorf("%d of %d granules are read: %v\n%s", read, of, err, explained)
	}
}
