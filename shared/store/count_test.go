package store

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/casteloig/logthra/shared/logs"
)

func TestCounts(t *testing.T) {
	s, _ := migrated(t)
	add := func(shard uint16, token string, records ...struct {
		sequence uint64
		tenant   string
		entries  int
	}) {
		b := &Batch{Shard: shard}
		for _, record := range records {
			var r logs.Batch
			r.AddStream(`{"app":"x"}`)
			for i := range record.entries {
				r.EndEntry(1700000000000000000+int64(i%2)*24*3600e9, true)
			}
			addCopy(b, record.sequence, record.tenant, &r)
		}
		insert(t, s, b, token)
	}
	type record = struct {
		sequence uint64
		tenant   string
		entries  int
	}
	add(0, "first", record{10, "acme", 3}, record{11, "other", 1}, record{13, "acme", 100}, record{1 << 63, "acme", 2})
	add(0, "again", record{13, "acme", 40})
	add(1, "another shard", record{10, "acme", 7})
	// Of record 10, the entry in the middle is gone.
	execute(t, s, "ALTER TABLE logs.log DELETE WHERE wal_shard = 0 AND wal_seq = 10 AND wal_index = 1 SETTINGS mutations_sync = 1")

	for _, c := range []struct {
		shard       int
		first, last uint64
		tenant      string
		want        string
	}{
		{0, 0, 1<<64 - 1, "", "[{10 2 2 2} {11 1 1 0} {13 140 100 99} {9223372036854775808 2 2 1}]"},
		{0, 0, 1<<64 - 1, "acme", "[{10 2 2 2} {13 140 100 99} {9223372036854775808 2 2 1}]"},
		{0, 0, 1<<64 - 1, "nobody's", "[]"},
		{0, 11, 13, "", "[{11 1 1 0} {13 140 100 99}]"},
		{0, 12, 12, "", "[]"},
		{0, 13, 11, "", "[]"},
		{1, 0, 100, "", "[{10 7 7 6}]"},
		{2, 0, 100, "", "[]"},
	} {
		got := []Count{}
		for count, err := range s.Counts(t.Context(), c.shard, c.first, c.last, c.tenant) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, count)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("shard %d, %d to %d, tenant %q:\n got %v\nwant %s", c.shard, c.first, c.last, c.tenant, got, c.want)
		}
	}
}

func TestCountsEnds(t *testing.T) {
	s, _ := migrated(t)
	execute(t, s, "INSERT INTO logs.log (timestamp, wal_seq) SELECT '2023-11-14', number FROM numbers(300000)")
	// Left early, again and again, it gives its connection back.
	for range 20 {
		var first Count
		if err := ride(t, func() (err error) { // a client that leaves early may be the death of ClickHouse
			for first, err = range s.Counts(t.Context(), 0, 100, 1<<64-1, "") {
				break
			}
			return err
		}); err != nil || first.Sequence != 100 {
			t.Fatalf("%+v, %v", first, err)
		}
	}
	all := func(ctx context.Context) (n int, last error) {
		for _, err := range s.Counts(ctx, 0, 0, 1<<64-1, "") {
			if last != nil {
				t.Fatal("something comes after an error")
			}
			if last = err; err == nil {
				n++
			}
		}
		return n, last
	}
	var n int
	if err := ride(t, func() (err error) { n, err = all(t.Context()); return err }); n != 300_000 || err != nil {
		t.Errorf("%d records, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := all(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("without a context: %v", err)
	}
	execute(t, s, "DROP TABLE logs.log SYNC")
	if n, err := all(t.Context()); n != 0 || Classify(err) != Operator {
		t.Errorf("no table: %d records, %v", n, err)
	}
}
