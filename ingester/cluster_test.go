package ingester

import (
	"fmt"
	"testing"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// A former owner intended a batch for a shard of ClickHouse's cluster, and died before its insert, after it, or in it. Since
// then a shard was added, and the batch would go elsewhere now. It lands where it was meant to, once.
func TestClusterTakeover(t *testing.T) {
	for name, sent := range map[string]int{"before its insert": 0, "after it": 100, "in the middle of it": 50} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, 1)
			servers := enginetest.ClickHouseCluster(t, "two", 2)
			var err error
			f.store, err = store.Open(store.Config{DSN: servers[0].DSN(), Connections: 8, Cluster: "two", Quorum: "auto"}, quiet())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.store.Close() })
			if err := f.store.Migrate(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			lease, err := f.wal.Claim(t.Context(), 0, "former", nobodyLives)
			if err != nil {
				t.Fatal(err)
			}
			f.push(200, 200)
			last, err := f.wal.Last(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			const notNow = 2 // the shard that shard 0 of the WAL goes to now is 1
			span := wal.Range{First: last - 199, Last: last - 100, Bytes: 1 << 20, Target: notNow}
			if err := lease.Intend(t.Context(), span); err != nil {
				t.Fatal(err)
			}
			if sent > 0 {
				part := span
				part.Last = span.First + uint64(sent) - 1
				b := f.batch(part)
				b.Target = notNow
				if err := f.store.Insert(t.Context(), b, lease.Token(span)+"-part"); err != nil {
					t.Fatal(err)
				}
			}
			in := f.run(nil)
			f.eventually("it owns the shard", func() bool { return in.owns() == 1 })
			if _, err := in.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, server := range servers {
				var got string
				one := f.open(server.Addr(), "logs")
				if err := one.Conn().QueryRow(t.Context(), `SELECT concat(toString(count()), ' of ', toString(uniqExact(wal_seq, wal_index)), ' in ',
					toString(uniqExact(wal_seq))) FROM logs.log_local`).Scan(&got); err != nil {
					t.Fatal(err)
				}
				if want := fmt.Sprintf("%[1]d of %[1]d in 100", f.next/2); got != want {
					t.Errorf("server %d has %s records, want %s", i, got, want)
				}
			}
		})
	}
}
