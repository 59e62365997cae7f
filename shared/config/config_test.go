package config

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "1": 1, "1023": 1023, "1500": 1500, "1000000": 1e6,
		"1KiB": 1 << 10, "256KiB": 256 << 10, "64MiB": 64 << 20, "64 MiB": 64 << 20, "64mib": 64 << 20,
		"1GB": 1e9, "1.5GiB": 3 << 29, "10GiB": 10 << 30, "2TiB": 2 << 40, "4096TiB": 4 << 50,
	} {
		var got Bytes
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s is read as %d (%v), want %d", text, got, err, want)
		}
	}
	for _, b := range []Bytes{0, 1, 512, 1023, 1024, 1025, 1536, 1 << 20, 1<<20 + 1, 3 << 29, 1 << 30, 1e9, 1<<40 + 1<<10, 1 << 50, 1<<53 - 1} {
		var got Bytes
		if err := got.UnmarshalText([]byte(b.String())); err != nil || got != b {
			t.Errorf("%d is written as %s and read as %d (%v)", b, b, got, err)
		}
	}
	for b, want := range map[Bytes]string{0: "0", 1000: "1000", 16 << 20: "16MiB", 1536 << 10: "1536KiB"} {
		if got := b.String(); got != want {
			t.Errorf("%d is written as %s, want %s", b, got, want)
		}
	}
	for _, text := range []string{"", "-1", "many", "12q", "MiB", "1e400", "9223372036854775808", "9EiB", "NaN"} {
		got := Bytes(7)
		if err := got.UnmarshalText([]byte(text)); err == nil || got != 7 {
			t.Errorf("%q is read as %d (%v)", text, got, err)
		} else if !strings.Contains(err.Error(), "64MiB") {
			t.Errorf("%q: %v gives no example", text, err)
		}
	}
}

func TestValidate(t *testing.T) {
	wal := WAL{Shards: 4, Replicas: 1, WALMaxBytes: 10 << 30, DedupWindow: 2 * time.Minute}
	gateway := Gateway{MaxPushBytes: 16 << 20, MaxLineBytes: 256 << 10, MaxInflightBytes: 512 << 20, PushTimeout: 10 * time.Second, SyslogMaxConns: 1024}
	ingester := Ingester{FlushInterval: 30 * time.Second, FlushRows: 500000, FlushBytes: 64 << 20, BufferBytes: 256 << 20, ReplayWindow: 72 * time.Hour, OwnerTimeout: 10 * time.Second}
	for _, c := range []struct {
		name   string
		change func(*WAL, *Gateway, *Ingester)
		want   string // in the error; empty where there is none
	}{
		{"defaults", func(*WAL, *Gateway, *Ingester) {}, ""},
		{"no shards", func(w *WAL, _ *Gateway, _ *Ingester) { w.Shards = 0 }, "--shards"},
		{"one shard", func(w *WAL, _ *Gateway, _ *Ingester) { w.Shards = 1 }, ""},
		{"most shards", func(w *WAL, _ *Gateway, _ *Ingester) { w.Shards = 1024 }, ""},
		{"more shards", func(w *WAL, _ *Gateway, _ *Ingester) { w.Shards = 1025 }, "1 to 1024"},
		{"no replicas", func(w *WAL, _ *Gateway, _ *Ingester) { w.Replicas = 0 }, "--replicas"},
		{"most replicas", func(w *WAL, _ *Gateway, _ *Ingester) { w.Replicas = 5 }, ""},
		{"more replicas", func(w *WAL, _ *Gateway, _ *Ingester) { w.Replicas = 6 }, "--replicas"},
		{"shortest window", func(w *WAL, _ *Gateway, _ *Ingester) { w.DedupWindow = 100 * time.Millisecond }, ""},
		{"no window", func(w *WAL, _ *Gateway, _ *Ingester) { w.DedupWindow = 0 }, "--dedup-window"},
		{"smallest WAL", func(w *WAL, _ *Gateway, _ *Ingester) { w.WALMaxBytes = 4 << 20 }, ""},
		{"smaller WAL", func(w *WAL, _ *Gateway, _ *Ingester) { w.WALMaxBytes = 4<<20 - 1 }, "1MiB a shard is needed, 4MiB"},
		{"no push", func(_ *WAL, g *Gateway, _ *Ingester) { g.MaxPushBytes = 0 }, "--max-push-bytes"},
		{"largest push", func(_ *WAL, g *Gateway, _ *Ingester) { g.MaxPushBytes, g.MaxInflightBytes = 1<<30, 8<<30 }, ""},
		{"larger push", func(_ *WAL, g *Gateway, _ *Ingester) { g.MaxPushBytes, g.MaxInflightBytes = 1<<30+1, math.MaxInt64 }, "--max-push-bytes"},
		{"no line", func(_ *WAL, g *Gateway, _ *Ingester) { g.MaxLineBytes = 0 }, "--max-line-bytes"},
		{"too little memory", func(_ *WAL, g *Gateway, _ *Ingester) { g.MaxInflightBytes = 128<<20 - 1 }, "--max-inflight-bytes: a push of --max-push-bytes needs 128MiB"},
		{"fewer tenants than none", func(_ *WAL, g *Gateway, _ *Ingester) { g.MetricsTenants = -1 }, "--metrics-max-tenants"},
		{"no time", func(_ *WAL, g *Gateway, _ *Ingester) { g.PushTimeout = 0 }, "--push-timeout"},
		{"no connections", func(_ *WAL, g *Gateway, _ *Ingester) { g.SyslogMaxConns = 0 }, "--syslog-max-connections"},
		{"no interval", func(_ *WAL, _ *Gateway, i *Ingester) { i.FlushInterval = 0 }, "--flush-interval"},
		{"no rows", func(_ *WAL, _ *Gateway, i *Ingester) { i.FlushRows = 0 }, "--flush-rows"},
		{"no bytes", func(_ *WAL, _ *Gateway, i *Ingester) { i.FlushBytes = 0 }, "--flush-bytes"},
		{"no buffer", func(_ *WAL, _ *Gateway, i *Ingester) { i.BufferBytes = 1<<20 - 1 }, "--buffer-bytes"},
		{"no replay", func(_ *WAL, _ *Gateway, i *Ingester) { i.ReplayWindow = 0 }, ""},
		{"before now", func(_ *WAL, _ *Gateway, i *Ingester) { i.ReplayWindow = -1 }, "--replay-window"},
		{"shortest heartbeat", func(_ *WAL, _ *Gateway, i *Ingester) { i.OwnerTimeout = time.Second }, ""},
		{"no heartbeat", func(_ *WAL, _ *Gateway, i *Ingester) { i.OwnerTimeout = time.Second - 1 }, "--owner-timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, g, i := wal, gateway, ingester
			c.change(&w, &g, &i)
			var said []string
			for _, err := range []error{w.Validate(), g.Validate(), i.Validate()} {
				if err != nil {
					said = append(said, err.Error())
				}
			}
			got := strings.Join(said, "; ")
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) || len(said) > 1 {
				t.Errorf("the error is %q, want %q in it", got, c.want)
			}
		})
	}
}

func TestValidateQuery(t *testing.T) {
	good := Query{
		QueryTimeout: time.Minute, QueryMaxEntries: 5000, QueryMaxSeries: 500, QueryMaxMemory: 1 << 30, QueryMaxQueued: 256, TailMaxConns: 200,
	}
	for _, c := range []struct {
		change func(*Query)
		want   string // in the error; empty where there is none
	}{
		{func(*Query) {}, ""},
		{func(q *Query) { q.QueryMaxEntries, q.QueryMaxSeries, q.QueryMaxQueued, q.TailMaxConns = 0, 1, 1, 1 }, ""},
		{func(q *Query) { q.QueryTimeout = 0 }, "--query-timeout"},
		{func(q *Query) { q.QueryMaxEntries = -1 }, "--query-max-entries"},
		{func(q *Query) { q.QueryMaxRange = -1 }, "--query-max-range"},
		{func(q *Query) { q.QueryMaxBytes = -1 }, "--query-max-bytes"},
		{func(q *Query) { q.QueryMaxSeries = 0 }, "--query-max-series"},
		{func(q *Query) { q.QueryMaxMemory = 1<<20 - 1 }, "--query-max-memory"},
		{func(q *Query) { q.QueryConcurrency = -1 }, "--query-concurrency"},
		{func(q *Query) { q.QueryPerTenant = -1 }, "--query-tenant-concurrency"},
		{func(q *Query) { q.QueryMaxQueued = 0 }, "--query-max-queued"},
		{func(q *Query) { q.TailMaxConns = 0 }, "--tail-max-connections"},
	} {
		q := good
		c.change(&q)
		err := q.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: the error is %v, want %q in it", q, err, c.want)
		}
	}
}

func TestConcurrency(t *testing.T) {
	for _, c := range []struct{ all, tenant, wantAll, wantTenant int }{
		{8, 3, 8, 3}, {8, 0, 8, 6}, {1, 0, 1, 1}, {4, 9, 4, 9},
	} {
		q := Query{QueryConcurrency: c.all, QueryPerTenant: c.tenant}
		if all, tenant := q.Concurrency(); all != c.wantAll || tenant != c.wantTenant {
			t.Errorf("of %d and %d: %d and %d", c.all, c.tenant, all, tenant)
		}
	}
	if all, tenant := new(Query).Concurrency(); all < 4 || tenant < 3 || tenant >= all {
		t.Errorf("by default %d, and %d of a tenant", all, tenant)
	}
}
