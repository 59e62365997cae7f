package engine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// fixture is an engine on a WAL and a ClickHouse of its own. What is pushed is in the WAL only, until it is landed.
type fixture struct {
	*Engine

	conn  *nats.Conn
	wal   *wal.WAL
	store *store.Store
}

var databases atomic.Int32

// shards is that of the WAL of a fixture.
const shards = 2

func start(t testing.TB) *fixture {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	conn, err := nats.Connect(enginetest.NATS(t).URL(), nats.MaxReconnects(-1))
	must(t, err)
	t.Cleanup(conn.Close)
	w, err := wal.Open(t.Context(), conn, wal.Config{Shards: shards, Replicas: 1, MaxBytes: 1 << 30, DedupWindow: time.Minute}, quiet)
	must(t, err)
	s, err := store.Open(store.Config{
		DSN: fmt.Sprintf("clickhouse://%s/engine_%d", enginetest.ClickHouse(t).Addr(), databases.Add(1)), Connections: 4,
	}, quiet)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Conn().Exec(context.Background(), "DROP DATABASE IF EXISTS "+s.Database()+" SYNC"); err != nil {
			t.Error(err)
		}
		_ = s.Close()
	})
	must(t, s.Migrate(t.Context(), 0))
	c, err := cut.New(t.Context(), w, quiet)
	must(t, err)
	t.Cleanup(c.Close)
	return &fixture{Engine: New(Config{Store: s, Cut: c, WAL: w, Log: quiet}), conn: conn, wal: w, store: s}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// line is an entry to push.
type line struct {
	labels   string // as in a selector without braces: app="api",env="prod"
	time     int64  // unix nanoseconds
	text     string
	metadata []logs.Label
}

// push pushes lines as one push of a tenant.
func (f *fixture) push(t testing.TB, tenant string, lines ...line) {
	t.Helper()
	var b logs.Batch
	for _, l := range lines {
		b.AddStream(canonical(t, l.labels))
		b.Lines = append(b.Lines, l.text...)
		b.EndEntry(l.time, true)
		for _, m := range l.metadata {
			b.AddMetadata([]byte(m.Name), []byte(m.Value))
		}
	}
	_, err := f.wal.Publish(t.Context(), tenant, fmt.Sprint("push-", pushes.Add(1)), &b)
	must(t, err)
}

var pushes atomic.Int64

// canonical makes canonical labels of those of a selector.
func canonical(t testing.TB, text string) string {
	t.Helper()
	matchers, err := logql.ParseSelector("{" + text + "}")
	must(t, err)
	var labels []logs.Label
	for _, m := range matchers {
		labels = append(labels, logs.Label{Name: m.Name, Value: m.Value})
	}
	out, err := logs.Canonical(labels)
	must(t, err)
	return out
}

// land does what an ingester does: it inserts what has not landed of a shard, and says so.
func (f *fixture) land(t testing.TB, shard int) {
	t.Helper()
	lease, err := f.wal.Claim(t.Context(), shard, "test", func(string) bool { return false })
	must(t, err)
	last, err := f.wal.Last(t.Context(), shard)
	must(t, err)
	batch := store.Batch{Shard: uint16(shard)}
	for record, err := range f.wal.Records(t.Context(), shard, lease.Position().Landed+1, last, "") {
		must(t, err)
		var decoded logs.Batch
		_, err = record.Decode(&decoded, nil)
		must(t, err)
		batch.Add(record.Sequence, record.Tenant, &decoded, &record)
	}
	must(t, f.store.Insert(t.Context(), &batch, fmt.Sprintf("test-%d-%d", shard, last)))
	must(t, lease.Land(t.Context(), last))
	must(t, lease.Release(t.Context()))
}

func (f *fixture) landAll(t testing.TB) {
	t.Helper()
	for shard := range shards {
		f.land(t, shard)
	}
}

// parse parses a query that is known to be good.
func parse(t testing.TB, query string) logql.Expr {
	t.Helper()
	expr, err := logql.Parse(query)
	must(t, err)
	return expr
}

// second is a time of the tests.
func second(n int) int64 { return time.Date(2026, 3, 1, 10, 0, n, 0, time.UTC).UnixNano() }

// write writes entries a line each: second, labels by kind, line.
func write(entries []Entry) string {
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%d %s %s", (e.Timestamp-second(0))/1e9, selectorOf(slices.Concat(e.Stream, e.Metadata, e.Parsed)), e.Line))
	}
	return strings.Join(out, "\n")
}
