package ingester

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/casteloig/logthra/shared/wal"
)

// gathered are the values of all series of an ingester, by their name and labels.
func (r *running) gathered(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := r.metrics.registry.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	return values
}

func TestMetrics(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(func(c *Config) { c.FlushInterval, c.BufferBytes = 90*time.Minute, 8<<20 })
	f.eventually("it owns both shards, and waits for records", func() bool {
		values := in.gathered(t)
		return values["logthra_ingester_shard_state 0 gathering"] == 1 && values["logthra_ingester_shard_state 1 gathering"] == 1
	})
	values := in.gathered(t)
	for series, want := range map[string]float64{
		"logthra_ingester_flush_interval_seconds":          5400,
		"logthra_ingester_owner_timeout_seconds":           1,
		"logthra_ingester_buffer_max_bytes":                8 << 20,
		"logthra_ingester_buffer_bytes":                    0,
		"logthra_ingester_shards_owned":                    2,
		"logthra_ingester_shard_state 0 recovering":        0,
		"logthra_ingester_shard_state 0 inserting":         0,
		"logthra_ingester_shard_state 1 retrying":          0,
		"logthra_ingester_takeovers_total released":        2,
		"logthra_ingester_takeovers_total gone":            0,
		"logthra_ingester_takeovers_total own":             0,
		"logthra_ingester_fenced_total":                    0,
		"logthra_ingester_insert_failures_total transient": 0,
		"logthra_wal_unreadable_shards":                    0,
		"logthra_wal_dead_letters":                         0,
		"logthra_wal_dead_letters_bytes":                   0,
		"logthra_wal_dead_letters_max_bytes":               1 << 30,
		"logthra_wal_backlog_records 1":                    0,
	} {
		if got, ok := values[series]; !ok || got != want {
			t.Errorf("%s is %g (%t), not %g", series, got, ok, want)
		}
	}
	if _, ok := values["logthra_ingester_last_landed_timestamp_seconds 0"]; ok {
		t.Error("nothing has landed yet")
	}
	began := float64(time.Now().Unix())
	f.push(20, 10)
	f.eventually("batches are gathered", func() bool { return in.gathered(t)["logthra_ingester_buffer_bytes"] > 0 })
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.eventually("it has landed", f.acknowledged)
	values = in.gathered(t)
	for _, shard := range []string{"0", "1"} {
		if at := values["logthra_ingester_last_landed_timestamp_seconds "+shard]; at < began || at > began+600 {
			t.Errorf("shard %s landed at %g, %g s after it was pushed", shard, at, at-began)
		}
	}
	if held := values["logthra_ingester_buffer_bytes"]; held != 0 {
		t.Errorf("%g bytes are held", held)
	}
}

// A shard that can't be read is counted, and keeps no other from being told of.
func TestUnreadableShardIsCounted(t *testing.T) {
	f := newFixture(t, 3)
	in := f.run(nil)
	f.eventually("it owns all shards", func() bool { return in.owns() == 3 })
	js, err := jetstream.New(f.conn(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), wal.StreamName(0)); err != nil {
		t.Fatal(err)
	}
	values := in.gathered(t)
	if got := values["logthra_wal_unreadable_shards"]; got != 1 {
		t.Errorf("%g shards are unreadable", got)
	}
	for shard, want := range map[string]bool{"0": false, "1": true, "2": true} {
		if _, ok := values["logthra_wal_max_bytes "+shard]; ok != want {
			t.Errorf("shard %s: %t", shard, ok)
		}
	}
}

// Dead letters are counted as long as they lie there, and those that were dropped are not.
func TestDeadLettersAreCounted(t *testing.T) {
	f := newFixture(t, 1)
	in := f.run(func(c *Config) { c.FlushInterval = 100 * time.Millisecond })
	nc := f.conn(t)
	for range 3 {
		if _, err := nc.Request("logs.acme.0", []byte("not a record"), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	f.eventually("they are dead letters", func() bool { return in.gathered(t)["logthra_wal_dead_letters"] == 3 })
	for d, err := range f.wal.DeadLetters(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if err := f.wal.DropDeadLetter(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		break
	}
	c := &collector{in: in.Ingester}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	want := func(n string) {
		t.Helper()
		text := strings.NewReader("# HELP logthra_wal_dead_letters Dead letters that wait to be retried or dropped.\n" +
			"# TYPE logthra_wal_dead_letters gauge\nlogthra_wal_dead_letters " + n + "\n")
		if err := testutil.GatherAndCompare(registry, text, "logthra_wal_dead_letters"); err != nil {
			t.Error(err)
		}
	}
	want("2")
	for d, err := range f.wal.DeadLetters(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if err := f.wal.DropDeadLetter(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	want("2") // until they are counted again
	c.mu.Lock()
	c.countedAt = c.countedAt.Add(-tombstonesEvery)
	c.mu.Unlock()
	want("0")
}

// Who takes a shard over counts why, and who has lost one counts that.
func TestTakeoversAreCounted(t *testing.T) {
	f := newFixture(t, 1)
	in := f.run(nil)
	f.eventually("it owns the shard", func() bool { return in.owns() == 1 })
	if _, err := f.wal.Claim(t.Context(), 0, "usurper", nobodyLives); err != nil {
		t.Fatal(err)
	}
	f.eventually("it is fenced, and takes the shard back", func() bool {
		return testutil.ToFloat64(in.metrics.fenced) == 1 && testutil.ToFloat64(in.metrics.takeovers.WithLabelValues(takeoverGone)) == 1
	})
	in.metrics.tookOver("me", "me")
	for reason, want := range map[string]float64{takeoverReleased: 1, takeoverGone: 1, takeoverOwn: 1} {
		if got := testutil.ToFloat64(in.metrics.takeovers.WithLabelValues(reason)); got != want {
			t.Errorf("%g takeovers of %s, not %g", got, reason, want)
		}
	}
}
