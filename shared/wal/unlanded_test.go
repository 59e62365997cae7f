package wal

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

// taken publishes records of two tenants in turn to one shard, and returns their sequences.
func taken(t *testing.T, w *WAL, records int) (acme, other []uint64) {
	t.Helper()
	for i := range records {
		ack := publish(t, w, "", numbered(2*i))
		acme = append(acme, ack.Sequence)
		another, err := w.Publish(t.Context(), "other", "", numbered(2*i+1))
		if err != nil {
			t.Fatal(err)
		}
		other = append(other, another.Sequence)
	}
	return acme, other
}

func TestExtent(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	first, last, err := w.Extent(t.Context(), 0)
	if err != nil || first != base(w, 0)+1 || last != base(w, 0) {
		t.Errorf("empty: %d to %d, %v", first, last, err)
	}
	acme, other := taken(t, w, 5)
	if first, last, err = w.Extent(t.Context(), 0); err != nil || first != acme[0] || last != other[4] {
		t.Errorf("%d to %d, %v; want %d to %d", first, last, err, acme[0], other[4])
	}
	purge(t, w, other[4]+1)
	if first, last, err = w.Extent(t.Context(), 0); err != nil || first != other[4]+1 || last != other[4] {
		t.Errorf("trimmed: %d to %d, %v; want %d to %d", first, last, err, other[4]+1, other[4])
	}
	if _, _, err := w.Extent(t.Context(), 7); err == nil {
		t.Error("there is a shard 7")
	}
}

func TestBetween(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	acme, other := taken(t, w, 300)
	before := acme[0] - 1
	read := func(tenant string, after, last uint64) ([]uint64, error) {
		var got []uint64
		for record, err := range w.Between(t.Context(), 0, after, last, tenant) {
			if err != nil {
				return got, err
			}
			if record.Tenant != tenant {
				t.Fatalf("a record of %s", record.Tenant)
			}
			got = append(got, record.Sequence)
		}
		return got, nil
	}
	for _, c := range []struct {
		tenant      string
		after, last uint64
		want        []uint64
	}{
		{"acme", before, other[299], acme},
		{"other", before, other[299], other},
		{"acme", before, acme[299], acme},
		{"acme", acme[10], other[20], acme[11:21]},
		{"acme", other[10], acme[20], acme[11:21]},
		{"other", other[10], other[11], other[11:12]},
		{"acme", acme[10], other[10], nil},
		{"acme", acme[299], other[299], nil},
		{"acme", other[299], other[299], nil},
		{"nobody", before, other[299], nil},
	} {
		got, err := read(c.tenant, c.after, c.last)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s after %d up to %d: %d records, %v; want %d", c.tenant, c.after-before, c.last-before, len(got), err, len(c.want))
		}
	}
	for record, err := range w.Between(t.Context(), 0, before, other[299], "acme") { // it can be left
		if err != nil || record.Sequence != acme[0] {
			t.Error(err)
		}
		break
	}
	for _, tenant := range []string{"", "*", "a.b"} {
		if _, err := read(tenant, before, other[299]); err == nil {
			t.Errorf("%q can be a tenant", tenant)
		}
	}
	purge(t, w, acme[10])
	if _, err := read("acme", before, other[299]); !errors.Is(err, ErrTrimmed) {
		t.Error("records that were trimmed:", err)
	}
	if _, err := read("nobody", before, other[299]); !errors.Is(err, ErrTrimmed) {
		t.Error("records that were trimmed, of which none may have been the tenant's:", err)
	}
	if got, err := read("acme", acme[10]-1, other[299]); err != nil || !slices.Equal(got, acme[10:]) {
		t.Errorf("%d records, %v", len(got), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range w.Between(ctx, 0, acme[10], other[299], "acme") {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

func TestTail(t *testing.T) {
	server := enginetest.NATS(t)
	w := open(t, server, testConfig)
	for i := range 20 {
		publish(t, w, "", numbered(i))
	}
	tail, err := w.Tail(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	got := map[uint64]bool{}
	check := func(want map[uint64]bool) {
		t.Helper()
		for len(got) < len(want) {
			select {
			case record := <-tail.Records():
				key := uint64(record.Shard)<<60 | record.Sequence
				if record.Tenant != "acme" || !want[key] || got[key] {
					t.Fatalf("record %d of shard %d and %s", record.Sequence, record.Shard, record.Tenant)
				}
				got[key] = true
			case <-time.After(time.Minute):
				t.Fatalf("%d records of %d", len(got), len(want))
			}
		}
	}
	want := map[uint64]bool{}
	push := func(w *WAL, from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			ack := publish(t, w, "", numbered(i))
			want[uint64(ack.Shard)<<60|ack.Sequence] = true
			if _, err := w.Publish(t.Context(), "other", "", numbered(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	push(w, 100, 150)
	check(want)

	following, stop := context.WithCancel(t.Context())
	defer stop()
	go w.Follow(following)
	if _, err := w.SetShards(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shards are raised", func() bool { return w.state.Load().Shards == 5 })
	push(w, 200, 300)
	check(want)
	if _, err := w.Tail(t.Context(), "a.*"); err == nil || !strings.Contains(err.Error(), "tenant") {
		t.Error(err)
	}
}

func TestOwners(t *testing.T) {
	server := enginetest.NATS(t)
	w := open(t, server, testConfig)
	before, err := w.Claim(t.Context(), 0, "a", func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if err := before.Land(t.Context(), 42); err != nil {
		t.Fatal(err)
	}
	owners, err := w.WatchOwners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer owners.Close()
	if p, ok := owners.Position(0); !ok || p.Owner != "a" || p.Landed != 42 {
		t.Errorf("%+v, %v", p, ok)
	}
	if p, ok := owners.Position(1); ok {
		t.Errorf("%+v", p)
	}
	member, err := w.Join(t.Context(), "a", Member{GRPC: "127.0.0.1:1"}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the member is known", func() bool { m, ok := owners.Member("a"); return ok && m.GRPC == "127.0.0.1:1" })
	if err := before.Land(t.Context(), 43); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has landed more", func() bool { p, _ := owners.Position(0); return p.Landed == 43 })
	if err := member.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the member is gone", func() bool { _, ok := owners.Member("a"); return !ok })
	if err := before.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody owns it", func() bool { p, _ := owners.Position(0); return p.Owner == "" && p.Landed == 43 })
}

// A restart of NATS delays who follows, and leaves nothing out.
func TestFollowersOverARestartOfNATS(t *testing.T) {
	server := newRestartable(t)
	w := server.open(testConfig)
	lease, err := w.Claim(t.Context(), 0, "a", func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	owners, err := w.WatchOwners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer owners.Close()
	tail, err := w.Tail(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	for i := range 30 {
		if i == 10 {
			server.restart()
			server.await(w)
			if err := lease.Land(t.Context(), 42); err != nil {
				t.Fatal(err)
			}
		}
		publish(t, w, "", numbered(i))
	}
	got := map[uint64]bool{}
	for len(got) < 30 {
		select {
		case record := <-tail.Records():
			key := uint64(record.Shard)<<60 | record.Sequence
			if got[key] {
				t.Fatal("a record came twice")
			}
			got[key] = true
		case <-time.After(time.Minute):
			t.Fatalf("%d records of 30", len(got))
		}
	}
	eventually(t, "what has landed is known", func() bool { p, _ := owners.Position(0); return p.Landed == 42 })
}

// A record that was confirmed is read at once, though the server that reads may not have it yet.
func TestBetweenOnACluster(t *testing.T) {
	servers, url := enginetest.NATSCluster(t, 3)
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	cfg := oneShard()
	cfg.Replicas = len(servers)
	w, err := Open(t.Context(), nc, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		ack := publish(t, w, "", numbered(i))
		_, last, err := w.Extent(t.Context(), 0)
		if err != nil || last != ack.Sequence {
			t.Fatalf("the last record is %d, not %d: %v", last, ack.Sequence, err)
		}
		n := 0
		for record, err := range w.Between(t.Context(), 0, ack.Sequence-1, last, "acme") {
			if err != nil || record.Sequence != ack.Sequence {
				t.Fatal(record.Sequence, err)
			}
			n++
		}
		if n != 1 {
			t.Fatalf("%d records", n)
		}
	}
}
