package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/logs"
)

func oneShard() Config {
	cfg := testConfig
	cfg.Shards, cfg.DedupWindow = 1, brief
	return cfg
}

// fill publishes n records of the tenant to the one shard, and returns the sequence of the last.
func fill(t testing.TB, w *WAL, tenant string, n int) (last uint64) {
	t.Helper()
	for i := range n {
		ack, err := w.Publish(t.Context(), tenant, fmt.Sprint(i, time.Now().UnixNano()), numbered(i))
		if err != nil {
			t.Fatal(err)
		}
		last = ack.Sequence
	}
	return last
}

// consumers are how many consumers a stream has.
func consumers(t testing.TB, stream jetstream.Stream) int {
	t.Helper()
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Consumers
}

func purge(t testing.TB, w *WAL, keep uint64) {
	t.Helper()
	if err := w.state.Load().streams[0].Purge(t.Context(), jetstream.WithPurgeSequence(keep)); err != nil {
		t.Fatal(err)
	}
}

// sequences are those of the headers that the WAL yields, from base on.
func sequences(t testing.TB, w *WAL, first, last uint64, tenant string) (got []uint64) {
	t.Helper()
	for h, err := range w.Headers(t.Context(), 0, base(w, 0)+first, base(w, 0)+last, tenant) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Sequence-base(w, 0))
	}
	return got
}

func TestHeadersAndRecords(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	var b logs.Batch
	for i := range 60 { // three lines of acme, two of globex, and so on
		b.Reset()
		tenant, entries := "acme", 3
		if i%2 == 1 {
			tenant, entries = "globex", 2
		}
		b.AddStream(`{"a":"b"}`)
		for e := range entries {
			b.Lines = fmt.Appendf(b.Lines, "%s %d", tenant, i)
			b.EndEntry(int64(1000*i+e+1), true)
		}
		if _, err := w.Publish(t.Context(), tenant, "", &b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.js.Publish(t.Context(), "logs.initech.0", []byte("no header")); err != nil {
		t.Fatal(err)
	}
	first := base(w, 0) + 1
	for _, c := range []struct {
		first, last uint64
		tenant      string
		records     int
		entries     int
	}{
		{first, first + 59, "", 60, 150},
		{first, first + 59, "acme", 30, 90},
		{first, first + 59, "globex", 30, 60},
		{first + 10, first + 19, "", 10, 25},
		{first + 10, first + 19, "acme", 5, 15},
		{first + 11, first + 11, "globex", 1, 2},
		{first + 11, first + 11, "acme", 0, 0},
		{0, math.MaxUint64, "acme", 30, 90},
		{first, first + 59, "nobody", 0, 0},
		{first + 60, first + 60, "initech", 1, -1},
		{first + 61, first + 99, "", 0, 0},
		{first + 5, first + 4, "", 0, 0},
	} {
		var headers []Header
		entries := 0
		for h, err := range w.Headers(t.Context(), 0, c.first, c.last, c.tenant) {
			if err != nil {
				t.Fatal(err)
			}
			if h.Sequence < c.first || h.Sequence > c.last || c.tenant != "" && h.Tenant != c.tenant || time.Since(h.Time) > time.Hour {
				t.Errorf("%+v: header %+v", c, h)
			}
			headers = append(headers, h)
			entries += h.Entries
		}
		if len(headers) != c.records || entries != c.entries {
			t.Errorf("%+v: %d headers with %d entries", c, len(headers), entries)
		}
		if !slices.IsSortedFunc(headers, func(a, b Header) int { return int(a.Sequence) - int(b.Sequence) }) {
			t.Errorf("%+v: %+v", c, headers)
		}
		n := 0
		var scratch []byte
		for r, err := range w.Records(t.Context(), 0, c.first, c.last, c.tenant) {
			if err != nil {
				t.Fatal(err)
			}
			if h := headers[n]; r.Sequence != h.Sequence || r.Tenant != h.Tenant || !r.Time.Equal(h.Time) || r.Shard != 0 || r.Size() == 0 {
				t.Errorf("%+v: %+v is of %+v", c, r, h)
			}
			if h := headers[n]; h.Entries >= 0 {
				if scratch, err = r.Decode(&b, scratch); err != nil || b.Len() != h.Entries {
					t.Errorf("%+v: %d entries, %v", h, b.Len(), err)
				}
			}
			n++
		}
		if n != c.records {
			t.Errorf("%+v: %d records", c, n)
		}
	}
	for name, err := range map[string]error{
		"all tenants": firstError(w.Headers(t.Context(), 0, 0, math.MaxUint64, "*")),
		"two tokens":  firstError(w.Headers(t.Context(), 0, 0, math.MaxUint64, "a.b")),
		"no shard":    firstError(w.Headers(t.Context(), 1, 0, math.MaxUint64, "")),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}

	r, err := w.Record(t.Context(), 0, first+1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Decode(&b, nil); err != nil || string(b.Lines) != "globex 1globex 1" || r.Tenant != "globex" || r.Sequence != first+1 {
		t.Errorf("got %+v, %v", r, err)
	}
	purge(t, w, first+2)
	for _, gone := range []uint64{first + 1, first + 61} {
		if _, err := w.Record(t.Context(), 0, gone); !errors.Is(err, ErrNotFound) {
			t.Errorf("record %d: %v", gone, err)
		}
	}
	eventually(t, "no consumer is left", func() bool { return consumers(t, w.state.Load().streams[0]) == 0 })
}

func firstError[T any](seq func(func(T, error) bool)) (err error) {
	for _, err = range seq {
		break
	}
	return err
}

// A scan ends by itself, whatever became of the last record.
func TestScanEnds(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	if got := sequences(t, w, 0, math.MaxUint64/2, ""); got != nil {
		t.Errorf("of an empty shard: %v", got)
	}
	fill(t, w, "acme", 10)
	fill(t, w, "globex", 5)
	if got := sequences(t, w, 8, 15, "acme"); !slices.Equal(got, []uint64{8, 9, 10}) {
		t.Errorf("the last is another's: %v", got)
	}
	if got := sequences(t, w, 11, 15, "acme"); got != nil {
		t.Errorf("all are another's: %v", got)
	}
	purge(t, w, base(w, 0)+5)
	if got := sequences(t, w, 1, 4, ""); got != nil {
		t.Errorf("all were trimmed: %v", got)
	}
	if got := sequences(t, w, 1, 6, ""); !slices.Equal(got, []uint64{5, 6}) {
		t.Errorf("the first were trimmed: %v", got)
	}
	purge(t, w, base(w, 0)+16)
	if got := sequences(t, w, 1, 15, ""); got != nil {
		t.Errorf("trimmed empty: %v", got)
	}
}

// Records are trimmed while a scan is under way, those that it has not asked for yet among them.
func TestScanOfAShardThatIsTrimmed(t *testing.T) {
	for name, later := range map[string]int{"others come": 3, "nothing comes": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t, enginetest.NATS(t), oneShard())
			const records = 3 * headersAhead / 2
			seed(t, w, records)
			var got []uint64
			for h, err := range w.Headers(t.Context(), 0, 0, math.MaxUint64, "") {
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, h.Sequence-base(w, 0)); len(got) == 1 {
					fill(t, w, "acme", later)
					purge(t, w, base(w, 0)+records+1)
				}
			}
			if len(got) < 1 || got[len(got)-1] > records || got[len(got)-1] != uint64(len(got)) {
				t.Errorf("%d headers, the last is %d", len(got), got[len(got)-1])
			}
		})
	}
}

// seed stores n small records, without waiting for each to be on disk.
func seed(t testing.TB, w *WAL, n int) {
	t.Helper()
	js, err := jetstream.New(w.nc, jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		t.Fatal(err)
	}
	var futures []jetstream.PubAckFuture
	for range n {
		f, err := js.PublishMsgAsync(&nats.Msg{Subject: "logs.acme.0", Header: nats.Header{headerEntries: {"1"}}, Data: make([]byte, 100)},
			jetstream.WithStallWait(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, f)
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			t.Fatal(err)
		case <-time.After(time.Minute):
			t.Fatal("no answer")
		}
	}
}

func TestScanCleansUp(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	fill(t, w, "acme", 20)
	for _, err := range w.Records(t.Context(), 0, 0, math.MaxUint64, "") {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if n := consumers(t, w.state.Load().streams[0]); n != 0 {
		t.Errorf("%d consumers are left of a scan that was broken off", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	var last error
	for _, err := range w.Records(ctx, 0, 0, math.MaxUint64, "") {
		if last = err; err == nil {
			n++
		}
		cancel()
	}
	if n > 1 || !errors.Is(last, context.Canceled) {
		t.Errorf("after a cancel: %d records, %v", n, last)
	}
	if n := consumers(t, w.state.Load().streams[0]); n != 0 {
		t.Errorf("%d consumers are left of a scan that was canceled", n)
	}
}

// A restart of NATS in the middle of a scan leaves nothing out and doubles nothing.
func TestScanOverARestartOfNATS(t *testing.T) {
	server := newRestartable(t)
	w := server.open(oneShard())
	const records = 5 * headersAhead / 2
	seed(t, w, records)
	for name, away := range map[string]time.Duration{"stopped and started": 0, "away for a while": time.Second} {
		t.Run(name, func(t *testing.T) {
			server.await(w)
			var group sync.WaitGroup
			defer group.Wait()
			var got uint64
			for h, err := range w.Headers(t.Context(), 0, 0, math.MaxUint64, "") {
				if err != nil {
					t.Fatalf("after %d records: %v", got, err)
				}
				if got++; got == 100 {
					server.nats.Stop()
					group.Go(func() {
						time.Sleep(away)
						server.start()
					})
				}
				if h.Sequence-base(w, 0) != got {
					t.Fatalf("record %d came as number %d", h.Sequence-base(w, 0), got)
				}
			}
			if got != records {
				t.Errorf("%d of %d records", got, records)
			}
		})
	}
}

// Without NATS a scan ends with an error.
func TestScanWithoutNATS(t *testing.T) {
	server := newRestartable(t)
	w := server.open(oneShard())
	fill(t, w, "acme", 3)
	server.nats.Stop()
	if err := firstError(w.Headers(t.Context(), 0, 0, math.MaxUint64, "")); err == nil {
		t.Error("no error")
	}
}

func TestSpan(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	var none time.Time
	span := func(from, to time.Time) (s Span) {
		t.Helper()
		s, err := w.Span(t.Context(), 0, from, to)
		if err != nil {
			t.Fatal(err)
		}
		s.First -= base(w, 0)
		s.Last -= base(w, 0)
		return s
	}
	start := time.Now()
	if s := span(none, none); s.First <= s.Last || !s.Complete || !s.Since.IsZero() {
		t.Errorf("of a new shard: %+v", s)
	}
	if s := span(start, start.Add(time.Hour)); s.First <= s.Last || !s.Complete {
		t.Errorf("of a new shard, in a time: %+v", s)
	}
	fill(t, w, "acme", 10)
	var times []time.Time // of the records
	for h, err := range w.Headers(t.Context(), 0, 0, math.MaxUint64, "") {
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, h.Time)
	}
	after := times[9].Add(time.Nanosecond)
	for _, c := range []struct {
		from, to    time.Time
		first, last uint64
	}{
		{none, none, 1, 10},
		{times[3], none, 4, 10},
		{none, times[3], 1, 3},
		{times[3], times[6], 4, 6},
		{times[3].Add(time.Nanosecond), times[6].Add(time.Nanosecond), 5, 7},
		{times[3], times[3], 4, 3},
		{after, none, 11, 10},
		{none, times[0], 1, 0},
		{start.Add(-time.Hour), times[9].Add(time.Hour), 1, 10},
		{start.Add(-2 * time.Hour), start.Add(-time.Hour), 1, 0},
	} {
		if s := span(c.from, c.to); s.First != c.first || s.Last != c.last || !s.Complete || !s.Since.Equal(times[0]) {
			t.Errorf("from %s to %s: %+v, want %d to %d", c.from, c.to, s, c.first, c.last)
		}
	}

	purge(t, w, base(w, 0)+4)
	for _, c := range []struct {
		name     string
		from, to time.Time
		complete bool
	}{
		{"all", none, none, false},
		{"up to a time", none, after, false},
		{"since before what was trimmed", start, after, false},
		{"since a record that was trimmed", times[2], after, false},
		{"just after what was trimmed", times[2].Add(time.Nanosecond), after, false}, // for all that is known
		{"after the oldest", times[3].Add(time.Nanosecond), after, true},
		{"after the oldest, without an end", times[5], none, true},
		{"after all", after, none, true},
	} {
		if s := span(c.from, c.to); s.Complete != c.complete || !s.Since.Equal(times[3]) {
			t.Errorf("trimmed below 4, %s: %+v", c.name, s)
		}
	}
	if s := span(start, times[5]); s.First != 4 || s.Last != 5 {
		t.Errorf("trimmed below 4: %+v", s)
	}

	purge(t, w, base(w, 0)+11)
	for _, c := range []struct {
		name     string
		from     time.Time
		complete bool
	}{{"all", none, false}, {"since the first", start, false}, {"since the last", times[9], false}, {"after all", after, true}} {
		if s := span(c.from, none); s.Complete != c.complete || s.First <= s.Last || !s.Since.IsZero() {
			t.Errorf("trimmed empty, %s: %+v", c.name, s)
		}
	}
	if _, err := w.Span(t.Context(), 7, none, none); err == nil {
		t.Error("a shard that there is not: no error")
	}
}

// Also after a restart it is known that a stream was trimmed empty.
func TestSpanOfAShardThatWasTrimmedEmpty(t *testing.T) {
	server := newRestartable(t)
	w := server.open(oneShard())
	start := time.Now()
	purge(t, w, fill(t, w, "acme", 5)+1)
	for range 2 {
		server.restart()
		server.await(w)
		for _, from := range []time.Time{{}, start} {
			if s, err := w.Span(t.Context(), 0, from, time.Time{}); err != nil || s.Complete || s.First != base(w, 0)+6 || s.Last != base(w, 0)+5 {
				t.Errorf("since %s: %+v, %v", from, s, err)
			}
		}
	}
}

func TestAttach(t *testing.T) {
	server := enginetest.NATS(t)
	nc, err := server.Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	attach := func() (*WAL, error) { return Attach(t.Context(), nc, "", slog.New(slog.DiscardHandler)) }
	isNone := func(name string) {
		t.Helper()
		if _, err := attach(); err == nil || !strings.Contains(err.Error(), "no WAL of Logthra is at the NATS") {
			t.Errorf("%s: %v", name, err)
		}
	}
	isNone("an empty NATS")
	w := open(t, server, testConfig)
	ack := publish(t, w, "", numbered(1))
	configs := func() (all []jetstream.StreamConfig) {
		for info := range w.js.ListStreams(t.Context()).Info() {
			all = append(all, info.Config)
		}
		return all
	}
	before := configs()
	tool, err := attach()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := tool.Record(t.Context(), ack.Shard, ack.Sequence); err != nil || r.Tenant != "acme" || tool.Shards() != 2 {
		t.Errorf("%d shards, %+v, %v", tool.Shards(), r, err)
	}
	if _, err := tool.Position(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if after := configs(); len(before) != 4 || !reflect.DeepEqual(before, after) {
		t.Errorf("attaching changed\n%+v to\n%+v", before, after)
	}
	for _, stream := range []string{DeadLetterStream, "KV_" + Bucket, StreamName(0)} {
		if err := w.js.DeleteStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		isNone("without " + stream)
		open(t, server, testConfig)
	}
}

func BenchmarkHeaders(b *testing.B) {
	w := open(b, enginetest.NATS(b), oneShard())
	const records = 100_000
	seed(b, w, records)
	for b.Loop() {
		n := 0
		for _, err := range w.Headers(b.Context(), 0, 0, math.MaxUint64, "") {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != records {
			b.Fatalf("%d headers", n)
		}
	}
	b.ReportMetric(float64(b.N*records)/b.Elapsed().Seconds(), "records/s")
}
