package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

// following is a tail that runs.
type following struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan error

	mu      sync.Mutex
	entries []Entry
	dropped []DroppedEntry
	arrived map[string]time.Time // of the first entry with a line
}

// follow runs a tail until it is stopped or the test ends. Before it returns the tail has begun. Each batch is given to look at first.
func (f *fixture) follow(t *testing.T, tenant, query string, change func(*TailQuery), look func(TailBatch) error) *following {
	t.Helper()
	q := TailQuery{Query: Query{Tenant: tenant, Limit: 1000, Start: time.Now().Add(time.Hour).UnixNano()}, Expr: parse(t, query).(*logql.LogExpr)}
	if change != nil {
		change(&q)
	}
	o := &following{t: t, done: make(chan error, 1), arrived: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	before := f.tails(tenant)
	go func() {
		o.done <- f.Tail(ctx, q, func(b TailBatch) error {
			if look != nil {
				if err := look(b); err != nil {
					return err
				}
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			o.entries, o.dropped = append(o.entries, b.Entries...), append(o.dropped, b.Dropped...)
			for _, e := range b.Entries {
				if _, known := o.arrived[e.Line]; !known {
					o.arrived[e.Line] = time.Now()
				}
			}
			return nil
		})
	}()
	t.Cleanup(cancel)
	eventually(t, "the tail has begun", func() bool { return f.tails(tenant) > before })
	return o
}

// tails is how many tails a tenant has.
func (f *fixture) tails(tenant string) int {
	f.hubs.mu.Lock()
	h := f.hubs.all[tenant]
	f.hubs.mu.Unlock()
	if h == nil {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.tails)
}

func (o *following) stop() error {
	o.cancel()
	return <-o.done
}

func (o *following) lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := make([]string, len(o.entries))
	for i, e := range o.entries {
		lines[i] = e.Line
	}
	return lines
}

func (o *following) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.entries)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: " + what)
		}
	}
}

func TestTail(t *testing.T) {
	f := start(t)
	f.push(t, "acme", line{labels: `app="api"`, time: second(0), text: "before"})
	all := f.follow(t, "acme", `{app=~".+"}`, nil, nil)
	errs := f.follow(t, "acme", `{app="api"} |= "error" | logfmt | took > 1s | line_format "{{.path}} took {{.took}}"`, nil, nil)
	other := f.follow(t, "other", `{app="api"}`, nil, nil)
	f.push(t, "acme", line{labels: `app="api"`, time: second(1), text: "error path=/a took=2s", metadata: []logs.Label{{Name: "pod", Value: "p1"}}})
	f.push(t, "acme",
		line{labels: `app="db"`, time: second(3), text: "error path=/b took=2s"},
		line{labels: `app="api"`, time: second(4), text: "error path=/c took=20ms"},
		line{labels: `app="api"`, time: second(2), text: "error path=/d took=3s"})
	f.push(t, "other", line{labels: `app="api"`, time: second(5), text: "of another"})
	eventually(t, "all have come", func() bool { return all.count() == 4 && errs.count() == 2 && other.count() == 1 })
	for _, c := range []struct {
		o    *following
		want []string
	}{
		{all, []string{"error path=/a took=2s", "error path=/d took=3s", "error path=/b took=2s", "error path=/c took=20ms"}},
		{errs, []string{"/a took 2s", "/d took 3s"}},
		{other, []string{"of another"}},
	} {
		got := c.o.lines()
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("\n got %q\nwant %q", got, c.want)
		}
		if err := c.o.stop(); err != nil {
			t.Error(err)
		}
	}
	at := slices.IndexFunc(errs.entries, func(e Entry) bool { return strings.HasPrefix(e.Line, "/a") })
	if e := errs.entries[at]; write(errs.entries[at:at+1]) != write([]Entry{{
		Timestamp: second(1), Line: "/a took 2s", Stream: []logs.Label{{Name: "app", Value: "api"}},
		Metadata: []logs.Label{{Name: "pod", Value: "p1"}}, Parsed: []logs.Label{{Name: "path", Value: "/a"}, {Name: "took", Value: "2s"}},
	}}) {
		t.Errorf("%+v", e)
	}
}

// However many tails a tenant has, NATS has one consumer a shard, and none once they have ended.
func TestTailsShareConsumers(t *testing.T) {
	f := start(t)
	const many = 1000
	var ended sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	ctx, cancel := context.WithCancel(t.Context())
	for n := range many {
		q := TailQuery{
			Query: Query{Tenant: "acme", Limit: 10, Start: time.Now().Add(time.Hour).UnixNano()},
			Expr:  parse(t, fmt.Sprintf(`{app="api"} |= "line %d."`, n)).(*logql.LogExpr),
		}
		ended.Go(func() {
			if err := f.Tail(ctx, q, func(b TailBatch) error {
				mu.Lock()
				defer mu.Unlock()
				got[n] += len(b.Entries)
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "all tails have begun", func() bool { return f.tails("acme") == many })
	var lines []line
	for n := range many {
		lines = append(lines, line{labels: `app="api"`, time: second(n), text: fmt.Sprintf("line %d.", n)})
	}
	f.push(t, "acme", lines...)
	eventually(t, "each tail has its line", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == many
	})
	if n := f.consumers(t); n != shards {
		t.Errorf("%d consumers of %d shards", n, shards)
	}
	cancel()
	ended.Wait()
	if n := f.consumers(t); n != 0 || f.tails("acme") != 0 {
		t.Errorf("%d consumers without a tail", n)
	}
	for n, times := range got {
		if times != 1 {
			t.Errorf("line %d came %d times", n, times)
		}
	}
}

// consumers is how many the streams of the WAL have.
func (f *fixture) consumers(t *testing.T) (n int) {
	t.Helper()
	js, err := jetstream.New(f.conn)
	must(t, err)
	for shard := range shards {
		stream, err := js.Stream(t.Context(), wal.StreamName(shard))
		must(t, err)
		n += stream.CachedInfo().State.Consumers
	}
	return n
}

// What is there already comes first, and nothing is missing or doubled between that and what is pushed meanwhile.
func TestTailHistory(t *testing.T) {
	f := start(t)
	next, stop := 0, make(chan struct{})
	push := func() {
		f.push(t, "acme", line{labels: fmt.Sprintf(`app="%d"`, next%3), time: second(0) + int64(next), text: fmt.Sprint("line ", next)})
		next++
	}
	for range 50 {
		push()
	}
	f.landAll(t)
	for range 50 {
		push()
	}
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				push()
			}
		}
	})
	since := func(q *TailQuery) { q.Start, q.Limit = second(0)+10, 100_000 }
	var tails []*following
	for range 5 {
		tails = append(tails, f.follow(t, "acme", `{app=~".+"}`, since, nil))
	}
	for _, o := range tails {
		eventually(t, "the history has come", func() bool { return o.count() >= 90 })
	}
	close(stop)
	pushing.Wait()
	for _, o := range tails {
		eventually(t, "all have come", func() bool { return o.count() >= next-10 })
		must(t, o.stop())
		times := map[string]int{}
		for _, l := range o.lines() {
			times[l]++
		}
		for n := range next {
			want := 1
			if n < 10 {
				want = 0 // before its start
			}
			if got := times[fmt.Sprint("line ", n)]; got != want {
				t.Fatalf("line %d came %d times", n, got)
			}
		}
	}
	few := f.follow(t, "acme", `{app=~".+"}`, func(q *TailQuery) { q.Start, q.Limit = second(0), 3 }, nil)
	eventually(t, "the newest have come", func() bool { return few.count() == 3 })
	must(t, few.stop())
	if want := []string{fmt.Sprint("line ", next-3), fmt.Sprint("line ", next-2), fmt.Sprint("line ", next-1)}; !slices.Equal(few.lines(), want) {
		t.Errorf("%q, want %q", few.lines(), want)
	}
}

// Entries that are held back come in order of their own time.
func TestTailDelay(t *testing.T) {
	f := start(t)
	const delay = 400 * time.Millisecond
	o := f.follow(t, "acme", `{app="api"}`, func(q *TailQuery) { q.Delay = delay }, nil)
	began := time.Now()
	for _, n := range []int{5, 3, 4, 1, 2} {
		f.push(t, "acme", line{labels: `app="api"`, time: second(n), text: fmt.Sprint(n)})
	}
	eventually(t, "all have come", func() bool { return o.count() == 5 })
	if took := time.Since(began); took < delay {
		t.Errorf("they came after %s", took)
	}
	must(t, o.stop())
	if got := o.lines(); !slices.Equal(got, []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("%q", got)
	}
}

// A reader that does not read loses entries, which it is told, and no other reader waits for it.
func TestTailSlowReader(t *testing.T) {
	f := start(t)
	gate := make(chan struct{})
	slow := f.follow(t, "acme", `{app="api"}`, nil, func(TailBatch) error { <-gate; return nil })
	quick := f.follow(t, "acme", `{app="api"}`, nil, nil)
	long := strings.Repeat("x", 100_000)
	const many = 2 * tailSendBytes / 100_000
	for n := range many {
		began := time.Now()
		f.push(t, "acme", line{labels: `app="api"`, time: second(n), text: fmt.Sprint(n, long)})
		eventually(t, "the quick one has it", func() bool { return quick.count() == n+1 })
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a line took %s", took)
		}
	}
	close(gate)
	eventually(t, "the slow one knows of all", func() bool {
		slow.mu.Lock()
		defer slow.mu.Unlock()
		return len(slow.entries)+len(slow.dropped) == many
	})
	must(t, slow.stop())
	must(t, quick.stop())
	if got := slow.count(); got < many/3 || got > many*2/3 {
		t.Errorf("the slow one got %d of %d", got, many)
	}
	if d := slow.dropped[len(slow.dropped)-1]; d.Timestamp != second(many-1) || len(d.Labels) != 1 || d.Labels[0].Value != "api" {
		t.Errorf("the last one that it lost is %+v", d)
	}
	if len(quick.dropped) > 0 {
		t.Errorf("the quick one lost %d", len(quick.dropped))
	}
}

// Records that come faster than they can be looked at are dropped, and others are not held up by that.
func TestTailQueueIsBounded(t *testing.T) {
	q := TailQuery{Expr: parse(t, `{app="api"}`).(*logql.LogExpr)}
	tail, err := newTail(q) // that nobody works for
	must(t, err)
	var b logs.Batch
	for n := range 10 {
		b.AddStream([]string{`{"app":"api"}`, `{"app":"db"}`}[n%2])
		b.Lines = append(b.Lines, "line"...)
		b.EndEntry(second(n), true)
	}
	p := &pushed{Batch: b, streams: make([][]logs.Label, 10), size: tailQueueBytes/4 + 1}
	for i, s := range b.Streams {
		p.streams[i], err = logs.ParseLabels(s.Labels)
		must(t, err)
	}
	for range 1000 {
		tail.offer(p)
	}
	if len(tail.queue) != 3 || tail.queued > tailQueueBytes {
		t.Errorf("%d records are held", len(tail.queue))
	}
	if len(tail.dropped) != tailDropped {
		t.Errorf("%d entries were dropped", len(tail.dropped))
	}
	for _, d := range tail.dropped {
		if d.Labels[0].Value != "api" {
			t.Fatalf("%+v was dropped", d)
		}
	}
	tail.process(tail.queue[0])
	if batch, _ := tail.take(time.Now()); len(batch.Entries) != 5 || len(batch.Dropped) != tailDropped || len(tail.dropped) != 0 {
		t.Errorf("%d entries and %d dropped are sent", len(batch.Entries), len(batch.Dropped))
	}
}

func TestTailEnds(t *testing.T) {
	f := start(t)
	gone := errors.New("the reader is gone")
	o := f.follow(t, "acme", `{app="api"}`, nil, func(TailBatch) error { return gone })
	f.push(t, "acme", line{labels: `app="api"`, time: second(0), text: "x"})
	if err := <-o.done; !errors.Is(err, gone) {
		t.Error(err)
	}
	if f.tails("acme") != 0 {
		t.Error("it is still there")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := TailQuery{Query: Query{Tenant: "acme", Limit: 1}, Expr: parse(t, `{app="api"}`).(*logql.LogExpr)}
	if err := f.Tail(ctx, q, func(TailBatch) error { return nil }); err != nil {
		t.Error(err)
	}
	f.conn.Close()
	if err := f.Tail(t.Context(), q, func(TailBatch) error { return nil }); err == nil {
		t.Error("without NATS there is no error")
	}
}

// With a hundred tails a line is sent to each of them within 100 ms from the answer to its push. A machine that is busy with something
// else may get some more attempts.
func TestTailIsSoon(t *testing.T) {
	f := start(t)
	const many, times, attempts, soon = 100, 30, 5, 100 * time.Millisecond
	var tails []*following
	for n := range many {
		query := `{app="api"} | logfmt | number >= 0`
		if n%2 == 0 {
			query = `{app=~"a.*"} |~ "number=\\d+"`
		}
		tails = append(tails, f.follow(t, "acme", query, nil, nil))
	}
	next := 0
	for range attempts {
		var all []time.Duration
		for range times {
			f.push(t, "acme", line{labels: `app="api"`, time: second(next), text: fmt.Sprint("number=", next)})
			answered := time.Now()
			eventually(t, "all have it", func() bool {
				return !slices.ContainsFunc(tails, func(o *following) bool { return o.count() <= next })
			})
			for _, o := range tails {
				all = append(all, o.arrived[fmt.Sprint("number=", next)].Sub(answered))
			}
			next++
		}
		slices.Sort(all)
		t.Logf("of %d: half within %s, 99%% within %s, all within %s", len(all), all[len(all)/2], all[len(all)*99/100], all[len(all)-1])
		if all[len(all)-1] <= soon {
			return
		}
	}
	t.Errorf("in none of %d attempts all came within %s", attempts, soon)
}
