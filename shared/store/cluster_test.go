package store

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

// openCluster returns a store of two shards, migrated, whose DSN names the first.
func openCluster(t *testing.T) (*Store, []*embedded.ClickHouse) {
	t.Helper()
	servers := enginetest.ClickHouseCluster(t, "two", 2)
	s := openAt(t, servers[0], "two")
	if err := s.Migrate(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return s, servers
}

func openAt(t *testing.T, server *embedded.ClickHouse, cluster string) *Store {
	t.Helper()
	s, err := Open(Config{DSN: server.DSN() + "?dial_timeout=1s", Connections: 4, Cluster: cluster, Quorum: "auto"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// ofShard is a batch of one shard of the WAL.
func ofShard(t *testing.T, s *Store, walShard uint16) *Batch {
	t.Helper()
	b := wide(1000, 2)
	b.Shard = walShard
	target, err := s.Target(t.Context(), int(walShard))
	if err != nil {
		t.Fatal(err)
	}
	b.Target = target
	return b
}

// holds is how many rows each server has.
func holds(t *testing.T, servers []*embedded.ClickHouse) (rows []string) {
	t.Helper()
	for _, server := range servers {
		rows = append(rows, query(t, openAt(t, server, ""), "SELECT concat(toString(count()), ' of ', toString(uniqExact(wal_shard, wal_seq, wal_index))) FROM logs.log_local"))
	}
	return rows
}

func TestClusterShards(t *testing.T) {
	s, servers := openCluster(t)
	for walShard := range uint16(4) {
		b := ofShard(t, s, walShard)
		if want := uint32(walShard%2) + 1; b.Target != want {
			t.Errorf("the rows of shard %d of the WAL go to shard %d, want %d", walShard, b.Target, want)
		}
		for range 2 { // nobody heard of the first one
			insert(t, s, b, "token-"+string(rune('a'+walShard)))
		}
		reconcile(t, s, b, 0)
	}
	if got := holds(t, servers); !slices.Equal(got, []string{"2000 of 2000", "2000 of 2000"}) {
		t.Errorf("the servers have %q", got)
	}
	// Any server answers for all of them, in the columns that people ask for.
	for _, server := range servers {
		s := openAt(t, server, "")
		if got := query(t, s, "SELECT concat(toString(count()), ' ', toString(uniqExact(wal_shard))) FROM logs.log"); got != "4000 4" {
			t.Errorf("a server answers for %s", got)
		}
		if got := query(t, s, "SELECT DISTINCT mapKeys(labels)[1] FROM logs.log WHERE tenant_id != '' AND has(label, label[1])"); got == "" {
			t.Error("there are no labels")
		}
		if got := query(t, s, "SELECT toString(uniqExact(stream_id)) FROM logs.stream"); got == "0" {
			t.Error("there are no streams")
		}
	}
	for _, retention := range []time.Duration{time.Hour, 2 * time.Hour, 0} {
		if err := s.Migrate(t.Context(), retention); err != nil {
			t.Fatal(err)
		}
		for _, server := range servers {
			of := openAt(t, server, "two")
			if got, err := of.Retention(t.Context()); err != nil || got != retention {
				t.Errorf("retention is %s, %v, want %s", got, err, retention)
			}
		}
	}
}

// A shard was added, or rows were replayed: they are not where they would go now.
func TestClusterFindsRowsOnOtherShards(t *testing.T) {
	s, servers := openCluster(t)
	b := ofShard(t, s, 0)
	b.Target = 2
	insert(t, s, b, "token")
	again := ofShard(t, s, 0)
	reconcile(t, s, again, 0)
	insert(t, s, again, "token")
	if got := holds(t, servers); !slices.Equal(got, []string{"0 of 0", "1000 of 1000"}) {
		t.Fatalf("the servers have %q", got)
	}
	// And what is there twice, once on each, is counted as that.
	insert(t, s, ofShard(t, s, 0), "token")
	rows, entries := uint64(0), uint64(0)
	for c, err := range s.Counts(t.Context(), 0, 0, 1<<62, "") {
		if err != nil {
			t.Fatal(err)
		}
		rows, entries = rows+c.Rows, entries+c.Entries
	}
	if rows != 2000 || entries != 1000 {
		t.Errorf("%d rows of %d entries are counted, want 2000 of 1000", rows, entries)
	}
}

// What goes to a shard that is away waits for it; the other takes what is its own.
func TestClusterShardAway(t *testing.T) {
	s, servers := openCluster(t)
	first, second := ofShard(t, s, 0), ofShard(t, s, 1)
	servers[1].Stop(t.Context())
	insert(t, s, first, "first")
	err := s.Insert(t.Context(), second, "second")
	if err == nil || Classify(err) != Transient || !strings.Contains(err.Error(), servers[1].Addr()+", shard 2") {
		t.Errorf("a shard that is away: %v", err)
	}
	if _, err := s.Reconcile(t.Context(), second); err == nil || Classify(err) != Transient {
		t.Errorf("rows may be on a shard that is away: %v", err)
	}
	if err := s.Migrate(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "shard 2") {
		t.Errorf("migrating a cluster of which a shard is away: %v", err)
	}
}

func TestClusterUnknown(t *testing.T) {
	s := openAt(t, enginetest.ClickHouse(t), "nowhere")
	for _, err := range []error{s.Migrate(t.Context(), 0), func() error { _, err := s.Target(t.Context(), 0); return err }()} {
		if err == nil || Classify(err) != Operator || !strings.Contains(err.Error(), "nowhere") || !strings.Contains(err.Error(), "--clickhouse-cluster") {
			t.Errorf("a cluster that is none: %v", err)
		}
	}
}

// After an error that another replica may be spared, that one is asked.
func TestClusterReplicas(t *testing.T) {
	engine := enginetest.ClickHouse(t)
	s := openAt(t, engine, "replicas")
	s.cluster.known = &topology{shards: []shard{{1, []string{"127.0.0.1:1", engine.Addr()}}}}
	s.cluster.asked, s.cluster.using[1] = time.Now(), 0
	ask := func(sql string) error {
		return s.on(t.Context(), 1, func(conn *server) error { return conn.Exec(t.Context(), sql) })
	}
	if err := ask("SELECT 1"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Fatalf("the first replica is not there: %v", err)
	}
	if err := ride(t, func() error { return ask("SELECT 1") }); err != nil {
		t.Fatalf("the second replica: %v", err)
	}
	for _, c := range []struct {
		code  int
		stays bool
	}{{60, true}, {469, true}, {497, true}, {242, false}, {241, false}, {999, false}, {319, false}} {
		s.cluster.using[1] = 1
		err := s.on(t.Context(), 1, func(*server) error { return &clickhouse.Exception{Code: int32(c.code)} })
		if stays := s.cluster.using[1] == 1; err == nil || stays != c.stays {
			t.Errorf("after code %d the replica stays: %t, want %t", c.code, stays, c.stays)
		}
	}
	if err := s.on(t.Context(), 7, func(*server) error { return nil }); !errors.Is(err, errSchema) {
		t.Errorf("a shard that is gone: %v", err)
	}
}

// Where the servers are reached follows the DSN, and else what they call each other.
func TestClusterAddress(t *testing.T) {
	c := cluster{options: clickhouse.Options{Addr: []string{"a:9440", "b:1", "b:2"}}}
	for _, is := range []struct {
		host  string
		port  uint16
		alone bool
		want  string
	}{
		{"a", 9000, true, "a:9440"},
		{"a", 9000, false, "a:9000"},
		{"b", 2, false, "b:2"},
		{"c", 9000, true, "c:9000"},
		{"::1", 9000, true, "[::1]:9000"},
	} {
		if got := c.address(is.host, is.port, is.alone); got != is.want {
			t.Errorf("%s:%d, alone %t, is reached at %s, want %s", is.host, is.port, is.alone, got, is.want)
		}
	}
}

// What the migrations say to servers that replicate can't run here: it is compared with what was read by people, and read
// by ClickHouse's parser.
func TestClusterStatements(t *testing.T) {
	s, _ := openNew(t)
	files, err := readMigrations(names{Database: "logs", Local: "_local", Cluster: quote("it's"), OnCluster: " ON CLUSTER " + quote("it's")})
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, m := range files {
		for _, statement := range m.statements {
			all.WriteString(statement + ";\n\n")
			if err := ride(t, func() error {
				var text string
				return s.conn.QueryRow(t.Context(), "SELECT formatQuery(?)", statement).Scan(&text)
			}); err != nil {
				t.Errorf("%s: %v", statement, err)
			}
		}
	}
	golden := filepath.Join("testdata", "cluster.sql")
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != all.String() {
		got := filepath.Join(t.ArtifactDir(), "cluster.sql")
		if err := os.WriteFile(got, []byte(all.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Errorf("the statements are not those of %s (%v); see them in %s, with -artifacts", golden, err, got)
	}
}
