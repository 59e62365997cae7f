package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/logs"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

var databases atomic.Int32

// openNew returns a store with a database of its own, not migrated.
func openNew(t testing.TB) (*Store, *embedded.ClickHouse) {
	t.Helper()
	server := enginetest.ClickHouse(t)
	dsn := fmt.Sprintf("clickhouse://%s/store_%d", server.Addr(), databases.Add(1))
	s := openDSN(t, dsn)
	t.Cleanup(func() {
		if err := ride(t, func() error {
			return s.conn.Exec(context.Background(), "DROP DATABASE IF EXISTS "+s.database+" SYNC")
		}); err != nil {
			t.Error(err)
		}
	})
	return s, server
}

// ride does something again while ClickHouse is away, and returns what came of it. All tests share one ClickHouse, which
// may die of what an earlier one has done to its connections, and is soon back.
func ride(t testing.TB, do func() error) error {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := do()
		if err == nil || Classify(err) != Transient || errors.Is(err, context.Canceled) || time.Now().After(deadline) {
			return err
		}
		if _, refused := errors.AsType[*clickhouse.Exception](err); refused { // it is there
			return err
		}
		t.Logf("tried again: %v", err)
	}
}

func openDSN(t testing.TB, dsn string) *Store {
	t.Helper()
	s, err := Open(Config{DSN: dsn, Connections: 4}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func migrated(t testing.TB) (*Store, *embedded.ClickHouse) {
	t.Helper()
	s, server := openNew(t)
	if err := ride(t, func() error { return s.Migrate(t.Context(), 0) }); err != nil {
		t.Fatal(err)
	}
	return s, server
}

// query returns the rows of a query as text, a line a row.
func query(t testing.TB, s *Store, sql string, args ...any) string {
	t.Helper()
	sql = strings.ReplaceAll(sql, "logs.", s.database+".")
	var out []string
	err := ride(t, func() error {
		out = nil
		rows, err := s.conn.Query(t.Context(), sql, args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				return err
			}
			out = append(out, text)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(out, "\n")
}

func count(t testing.TB, s *Store) uint64 {
	t.Helper()
	var n uint64
	if err := ride(t, func() error { return s.conn.QueryRow(t.Context(), "SELECT count() FROM "+s.database+".log").Scan(&n) }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOpenRefusesBadDSNsAndTellsNoPassword(t *testing.T) {
	for _, dsn := range []string{"clickhouse://user:secret@host:notaport/logs", "://user:secret@host", "clickhouse://user:secret@host:9000/logs;drop"} {
		_, err := Open(Config{DSN: dsn, Connections: 1}, slog.New(slog.DiscardHandler))
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "--clickhouse-dsn") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func TestMigrateByManyAtOnceAndAgain(t *testing.T) {
	s, _ := openNew(t)
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			if err := s.Migrate(t.Context(), time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if err := s.Migrate(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s, "SELECT concat(toString(version), ' ', name) FROM logs.migration FINAL ORDER BY version"); got != "1 0001_log\n2 0002_stream\n3 0003_merge" {
		t.Errorf("the migrations on record are\n%s", got)
	}
	// A newer schema is left as it is.
	if err := s.conn.Exec(t.Context(), "INSERT INTO "+s.database+".migration (version, name) VALUES (9999, 'later')"); err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(t.Context(), time.Hour); err != nil {
		t.Error("with a newer schema:", err)
	}
}

// A failing statement leaves the version where it was, and the next start goes on from there.
func TestMigrateResumes(t *testing.T) {
	s, _ := openNew(t)
	if err := s.conn.Exec(t.Context(), "CREATE DATABASE "+s.database); err != nil {
		t.Fatal(err)
	}
	// Something else stands where the second migration wants a table.
	if err := s.conn.Exec(t.Context(), "CREATE TABLE "+s.database+".stream (x UInt8) ENGINE = Memory"); err != nil {
		t.Fatal(err)
	}
	err := s.Migrate(t.Context(), 0)
	if err == nil || !strings.Contains(err.Error(), "0002_stream") {
		t.Fatalf("the second migration is to fail by its name: %v", err)
	}
	if err := s.conn.Exec(t.Context(), "DROP TABLE "+s.database+".stream SYNC"); err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

func TestRetention(t *testing.T) {
	s, _ := migrated(t)
	ttl := func() string {
		return query(t, s, "SELECT extract(engine_full, 'toIntervalSecond\\(([0-9]+)\\)') FROM system.tables WHERE database = '"+s.database+"' AND name = 'log'")
	}
	for _, retention := range []time.Duration{0, 48 * time.Hour, 48 * time.Hour, 100 * 365 * 24 * time.Hour, 24 * time.Hour, 0} {
		if err := s.Migrate(t.Context(), retention); err != nil {
			t.Fatal(err)
		}
		want := ""
		if retention > 0 {
			want = fmt.Sprint(int(retention.Seconds()))
		}
		if got := ttl(); got != want {
			t.Errorf("retention %s: the table has %q", retention, got)
		}
		if got, err := s.Retention(t.Context()); err != nil || got != retention {
			t.Errorf("retention %s: the store says %s, %v", retention, got, err)
		}
	}
	// One that somebody else has set is not taken for ours, and is replaced.
	for _, foreign := range []string{
		"toDateTime(timestamp) + INTERVAL 1 DAY", "toDateTime(timestamp) + toIntervalSecond(86400)", "toDateTime(timestamp) + INTERVAL 1 DAY WHERE tenant_id = 'acme'",
	} {
		execute(t, s, "ALTER TABLE logs.log MODIFY TTL "+foreign)
		if got, err := s.Retention(t.Context()); err == nil || Classify(err) != Operator {
			t.Errorf("%s: %s, %v", foreign, got, err)
		}
		if err := s.Migrate(t.Context(), 24*time.Hour); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Retention(t.Context()); err != nil || got != 24*time.Hour {
			t.Errorf("after %s: %s, %v", foreign, got, err)
		}
	}
	// Lines of any time: those that a TTL could not hold do not expire for wrapping around.
	if err := s.Migrate(t.Context(), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	times := map[string]int64{
		"1901": time.Date(1901, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), "old": now.Add(-72 * time.Hour).UnixNano(),
		"now": now.UnixNano(), "2150": time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), "2262": logs.MaxTime,
	}
	var r logs.Batch
	r.AddStream(`{"a":"b"}`)
	for name, ts := range times {
		r.Lines = append(r.Lines, name...)
		r.EndEntry(ts, true)
	}
	var b Batch
	addCopy(&b, 1, "acme", &r)
	if err := s.Insert(t.Context(), &b, "retention"); err != nil {
		t.Fatal(err)
	}
	if err := s.conn.Exec(t.Context(), "OPTIMIZE TABLE "+s.database+".log FINAL"); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s, "SELECT msg FROM logs.log ORDER BY timestamp"); got != "now\n2150\n2262" {
		t.Errorf("kept for a day are\n%s", got)
	}
	execute(t, s, "DROP TABLE logs.log SYNC")
	if got, err := s.Retention(t.Context()); err == nil || Classify(err) != Operator {
		t.Errorf("no table: %s, %v", got, err)
	}
}

// What is sent compressed is the same, and has the same tokens.
func TestInsertCompressed(t *testing.T) {
	s, server := migrated(t)
	insert(t, s, mixed(), "mixed")
	insert(t, s, wide(100_000, 3), "wide")
	want := content(t, s)
	for _, method := range []string{"none", "lz4", "lz4hc", "zstd"} {
		packed := openDSN(t, fmt.Sprintf("clickhouse://%s/%s?compress=%s", server.Addr(), s.database, method))
		for range 2 { // over a connection that is new, and one that is not
			insert(t, packed, mixed(), "mixed")
			insert(t, packed, wide(100_000, 3), "wide")
			if got := content(t, s); got != want {
				t.Errorf("%s, the same tokens: %s, not %s", method, got, want)
			}
			execute(t, s, "TRUNCATE TABLE logs.log")
		}
	}
	if _, err := Open(Config{DSN: "http://127.0.0.1:8123/logs"}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "native protocol") {
		t.Errorf("over HTTP: %v", err)
	}
}

// mixed is a batch that has all there is: tenants, streams, times, any bytes, metadata, an empty record.
func mixed() *Batch {
	b := &Batch{Shard: 3}
	var r logs.Batch
	add := func(line string, ts int64, metadata ...string) {
		r.Lines = append(r.Lines, line...)
		r.EndEntry(ts, true)
		for i := 0; i < len(metadata); i += 2 {
			r.AddMetadata([]byte(metadata[i]), []byte(metadata[i+1]))
		}
	}
	r.AddStream(`{"app":"api","level":"info"}`)
	add("one", 1700000000123456789, "pod", "a-1", "trace", "t1")
	add("two", 1700000000123456788)
	r.AddStream(`{"app":"ü\"\\\u0000\n"}`)
	add("\x00\xff\xfe invalid\r", 1600000000000000000, "trace", "t2", "trace", "again", "odd \xff", "\x00")
	addCopy(b, 7, "acme", &r)
	r.Reset()
	addCopy(b, 8, "acme", &r)
	r.AddStream(`{"app":"api","level":"info"}`)
	add("", logs.MinTime)
	add("last", logs.MaxTime, "pod", "b-1")
	addCopy(b, 9, "other", &r)
	return b
}

const mixedRows = `7.0 acme app=api,level=info 1700000000123456789 6F6E65 pod=a-1,trace=t1
7.1 acme app=api,level=info 1700000000123456788 74776F 
7.2 acme app=ü"\` + "\x00\n" + ` 1600000000000000000 00FFFE20696E76616C69640D trace=t2,trace=again,odd ` + "\xff=\x00" + `
9.0 other app=api,level=info -2208988800000000000  
9.1 other app=api,level=info 9223372036854775807 6C617374 pod=b-1`

const selectMixed = `SELECT concat(toString(wal_seq), '.', toString(wal_index), ' ', tenant_id, ' ',
	arrayStringConcat(arrayMap((k, v) -> concat(k, '=', v), mapKeys(labels), mapValues(labels)), ','), ' ',
	toString(toUnixTimestamp64Nano(timestamp)), ' ', hex(msg), ' ',
	arrayStringConcat(arrayMap((k, v) -> concat(toString(k), '=', v), mapKeys(metadata), mapValues(metadata)), ','))
	FROM logs.log WHERE wal_shard = 3 ORDER BY wal_seq, wal_index`

func TestInsertKeepsEveryField(t *testing.T) {
	s, _ := migrated(t)
	b := mixed()
	if b.Rows() != 5 {
		t.Fatalf("the batch has %d rows", b.Rows())
	}
	if err := s.Insert(t.Context(), b, "token"); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s, selectMixed); got != mixedRows {
		t.Errorf("got\n%q\nwant\n%q", got, mixedRows)
	}
	if got := query(t, s, "SELECT arrayStringConcat(label, ' ') FROM logs.log WHERE wal_seq = 7 AND wal_index = 0"); got != "app:api level:info" {
		t.Errorf("label is %q", got)
	}
	want := fmt.Sprint(logs.StreamID("acme", `{"app":"api","level":"info"}`))
	if got := query(t, s, "SELECT DISTINCT toString(stream_id) FROM logs.log WHERE tenant_id = 'acme' AND labels['app'] = 'api'"); got != want {
		t.Errorf("stream_id is %s, want %s", got, want)
	}
	if got := query(t, s, `SELECT concat(tenant_id, ' ', labels['app'], ' ', toString(toUnixTimestamp64Nano(first_seen)), ' ', toString(toUnixTimestamp64Nano(last_seen)))
		FROM logs.stream FINAL WHERE labels['level'] = 'info' ORDER BY tenant_id`); got !=
		"acme api 1700000000123456788 1700000000123456789\nother api -2208988800000000000 9223372036854775807" {
		t.Errorf("the streams are\n%s", got)
	}
	// The same memory, used again.
	b.Reset()
	var r logs.Batch
	r.AddStream(`{"x":"y"}`)
	r.Lines = append(r.Lines, "plain"...)
	r.EndEntry(1, true)
	addCopy(b, 20, "acme", &r)
	if err := s.Insert(t.Context(), b, "second"); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s, "SELECT concat(msg, toString(length(metadata))) FROM logs.log WHERE wal_seq = 20"); got != "plain0" {
		t.Errorf("the second batch is %q", got)
	}
}

// wide is a batch of many blocks: rows over days, each line telling its row.
func wide(rows, days int) *Batch {
	b := new(Batch)
	var r logs.Batch
	const perRecord = 1000
	for row := 0; row < rows; {
		r.Reset()
		r.AddStream(fmt.Sprintf(`{"app":"%d"}`, row/perRecord%5))
		for range perRecord {
			r.Lines = fmt.Appendf(r.Lines, "row %d %s", row, strings.Repeat("x", 100))
			r.EndEntry(1700000000000000000+int64(row%days)*24*3600e9+int64(row), true)
			if row%1000 == 7 {
				r.AddMetadata([]byte("row"), fmt.Append(nil, row))
			}
			row++
		}
		addCopy(b, uint64(row), "acme", &r)
	}
	return b
}

func TestInsertOfManyBlocksAndAYearOfDays(t *testing.T) {
	s, _ := migrated(t)
	const rows = 200_000
	b := wide(rows, 365)
	for range 2 { // the same token: there once
		if err := s.Insert(t.Context(), b, "wide"); err != nil {
			t.Fatal(err)
		}
	}
	if got := query(t, s, `SELECT concat(toString(count()), ' ', toString(uniqExact(extract(msg, '^row ([0-9]+) '))), ' ', toString(uniqExact(wal_seq, wal_index)), ' ',
		toString(countIf(metadata['row'] = extract(msg, '^row ([0-9]+) '))), ' ', toString(uniqExact(toDate(timestamp)))) FROM logs.log`); got !=
		fmt.Sprintf("%d %d %d %d 365", rows, rows, rows, rows/1000) {
		t.Errorf("got %s", got)
	}
}

// An insert makes one part a day, although this user's profile cuts blocks small, by rows, by bytes and strictly.
func TestInsertIsOneBlock(t *testing.T) {
	s, server := migrated(t)
	execute(t, s, "SYSTEM STOP MERGES logs.log")
	limited := openDSN(t, fmt.Sprintf("clickhouse://%s/%s?min_insert_block_size_rows=1000&min_insert_block_size_bytes=1000&max_insert_block_size=1000&use_strict_insert_block_limits=1",
		server.Addr(), s.database))
	execute(t, limited, "INSERT INTO logs.log (timestamp, msg) SELECT '2020-01-01', toString(number) FROM numbers(10000)")
	const rows = 201_000 // of several blocks
	b := wide(rows, 3)
	insert(t, limited, b, "token")
	if got := query(t, s, `SELECT concat(partition, ' ', toString(count()), ' ', toString(sum(rows))) FROM system.parts
		WHERE database = '`+s.database+`' AND table = 'log' GROUP BY partition ORDER BY partition`); got !=
		fmt.Sprintf("20200101 10 10000\n20231114 1 %d\n20231115 1 %[1]d\n20231116 1 %[1]d", rows/3) {
		t.Errorf("days, parts and rows are\n%s", got)
	}
}

// Functions that ClickHouse has used a few times it compiles, and then they have to give the same.
func TestStreamsKeepOldTimes(t *testing.T) {
	s, _ := migrated(t)
	for i := range 6 {
		execute(t, s, "TRUNCATE TABLE logs.stream")
		insert(t, s, mixed(), fmt.Sprint("token", i))
		if got := query(t, s, `SELECT concat(toString(toUnixTimestamp64Nano(first_seen)), ' ', toString(toUnixTimestamp64Nano(last_seen))) FROM logs.stream FINAL WHERE tenant_id = 'other'`); got !=
			fmt.Sprint(logs.MinTime, logs.MaxTime) {
			t.Errorf("insert %d: the stream is from and to %s", i, got)
		}
	}
}

// ClickHouse dies in the middle of inserts, again and again; each is reconciled and repeated until it is confirmed.
func TestInsertIsExactlyOnceThroughKills(t *testing.T) {
	s, server := migrated(t)
	const rows, inserts = 150_000, 6
	b := wide(rows, 4)
	retries := 0
	for i := range inserts {
		b.Shard = uint16(i)
		b.unmark()
		token := fmt.Sprint("kill", i)
		killed := make(chan struct{})
		kill := time.AfterFunc(time.Duration(20+40*i)*time.Millisecond, func() { defer close(killed); server.Kill() })
		for err := s.Insert(t.Context(), b, token); err != nil; {
			retries++
			if t.Context().Err() != nil {
				t.Fatal(err)
			}
			if err := server.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err = s.Reconcile(t.Context(), b); err == nil {
				err = s.Insert(t.Context(), b, token)
			}
		}
		if !kill.Stop() {
			<-killed // or it would hit what comes next
		}
	}
	if err := server.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s); n != inserts*rows {
		t.Errorf("%d rows of %d, after %d retries", n, inserts*rows, retries)
	}
	if retries == 0 {
		t.Error("no kill came in the middle of an insert: the test shows nothing")
	}
}

func TestInsertEndsWithItsContext(t *testing.T) {
	s, _ := migrated(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Insert(ctx, mixed(), "token"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := count(t, s); n != 0 {
		t.Errorf("%d rows", n)
	}
}

func TestErrorsSayWhatHappened(t *testing.T) {
	s := openDSN(t, "clickhouse://127.0.0.1:1/logs")
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "ClickHouse: ") {
		t.Errorf("nobody there: %v", err)
	}
	s, _ = openNew(t)
	err := s.Insert(t.Context(), mixed(), "token")
	if exception, ok := errors.AsType[*clickhouse.Exception](err); !ok || exception.Code == 0 {
		t.Errorf("no table: %v", err)
	}
}

// What a batch says of its memory is near what it takes.
func TestSize(t *testing.T) {
	var r logs.Batch
	r.AddStream(`{"a":"b"}`)
	for i := range 1000 {
		r.Lines = append(r.Lines, "some line"...)
		r.EndEntry(int64(i+1), true)
		r.AddMetadata([]byte("name"), []byte("value"))
	}
	var b Batch
	for i := range 100 {
		addCopy(&b, uint64(i), "acme", &r)
	}
	if got, want := b.Size(), 100*SizeOf(&r, b.records[0]); got != want || got < 100*len(r.Lines) {
		t.Errorf("the batch has %d bytes, its records were said to take %d", got, want)
	}
	if got, most := b.Width(), 200*100*1000; got < 100*1000*len("some line name value") || got > most {
		t.Errorf("the rows are said to be %d bytes", got)
	}
	b.Reset()
	if b.Size() != 0 || b.Rows() != 0 || b.Width() != 0 {
		t.Errorf("reset, it has %d bytes and %d rows of %d", b.Size(), b.Rows(), b.Width())
	}
}

func BenchmarkInsert(b *testing.B) {
	s, _ := migrated(b)
	for name, batch := range map[string]*Batch{"no metadata": benchBatch(200_000, false), "metadata in each row": benchBatch(200_000, true)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := s.Insert(b.Context(), batch, fmt.Sprint(b.Name(), i, time.Now())); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch.Rows()), "ns/row")
		})
	}
}

// BenchmarkEncode is what an insert does before a block goes over the wire.
func BenchmarkEncode(b *testing.B) {
	for name, batch := range map[string]*Batch{"no metadata": benchBatch(200_000, false), "metadata in each row": benchBatch(200_000, true)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encodeAll(b, batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch.Rows()), "ns/row")
		})
	}
}

// benchBatch has records of 2,000 rows of five streams.
func benchBatch(rows int, metadata bool) *Batch {
	b := new(Batch)
	var r logs.Batch
	for row := 0; row < rows; {
		r.Reset()
		for stream := range 5 {
			r.AddStream(fmt.Sprintf(`{"app":"api","pod":"%d"}`, stream))
			for range 400 {
				r.Lines = fmt.Appendf(r.Lines, "row %d %s", row, strings.Repeat("x", 100))
				r.EndEntry(1700000000000000000+int64(row), true)
				if metadata {
					r.AddMetadata([]byte("trace_id"), []byte("0af7651916cd43dd8448eb211c80319c"))
					r.AddMetadata([]byte("span_id"), []byte("b7ad6b7169203331"))
				}
				row++
			}
		}
		addCopy(b, uint64(row), "acme", &r)
	}
	return b
}

// What a batch costs in allocations does not grow with its rows.
func TestAllocationsOfABatch(t *testing.T) {
	for _, metadata := range []bool{false, true} {
		batch := benchBatch(20_000, metadata)
		var again Batch
		var decoded logs.Batch
		var scratch []byte
		if got := testing.AllocsPerRun(10, func() {
			again.Reset()
			for _, r := range batch.records {
				var err error
				if scratch, err = r.Decode(&decoded, scratch); err != nil {
					t.Fatal(err)
				}
				again.Add(r.sequence, "acme", &decoded, r.Source)
			}
			encodeAll(t, &again)
		}); got > 200 {
			t.Errorf("metadata %t: %.0f allocations for %d rows", metadata, got, batch.Rows())
		}
	}
}

// encodeAll makes all columns of a batch.
func encodeAll(t testing.TB, b *Batch) {
	t.Helper()
	e := newEncoder(b)
	defer e.release()
	w := proto.NewWriter(io.Discard, new(proto.Buffer))
	for _, c := range e.columns() {
		c.Data.(*column).WriteColumn(w)
	}
	if e.err != nil {
		t.Fatal(e.err)
	}
}
