package cut

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/ingester"
	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

const (
	api = `{"app":"api","env":"prod"}`
	db  = `{"app":"db","env":"dev"}`

	fallbacks = "logthra_query_cut_fallbacks_total"
)

func TestWhileItIsGathered(t *testing.T) {
	f := newFixture(t, 4)
	f.run(nil)
	f.owned()
	for range 20 {
		f.push("acme", api, 3, 7)
		f.wantAll("acme")
	}
	if c := f.make(all("acme")); len(c.Entries) != f.next {
		t.Errorf("%d entries of %d are from memory", len(c.Entries), f.next)
	}
	if n := f.metric(fallbacks, ""); n != 0 {
		t.Errorf("%v shards were read from the WAL", n)
	}
}

func TestWhileItIsInserted(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(nil)
	f.owned()
	f.push("acme", api, 10, 100)
	f.link.hold()
	flushed := make(chan error, 1)
	go func() {
		_, err := in.Flush(context.Background())
		flushed <- err
	}()
	f.eventually("both shards insert", func() bool { return inserting(t, in) == 2 })
	for range 5 {
		f.push("acme", api, 4, 25) // which the owners have not read
		f.wantAll("acme")
	}
	f.link.release()
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	f.wantAll("acme")
	if n := f.metric(fallbacks, ""); n != 0 {
		t.Errorf("%v shards were read from the WAL by the gateway", n)
	}
}

// inserting is how many shards an ingester is inserting.
func inserting(t *testing.T, in *running) (n int) {
	families, err := in.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "logthra_ingester_shard_state" {
			continue
		}
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == "inserting" {
					n += int(m.GetGauge().GetValue())
				}
			}
		}
	}
	return n
}

func TestOnceItHasLanded(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(nil)
	f.owned()
	f.push("acme", api, 10, 100)
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := f.make(all("acme")); len(c.Entries) != 0 {
		t.Errorf("%d entries are from memory", len(c.Entries))
	}
	f.wantAll("acme")
	f.push("acme", api, 1, 10)
	if c := f.make(all("acme")); len(c.Entries) != 10 {
		t.Errorf("%d entries of 10 are from memory", len(c.Entries))
	}
	f.wantAll("acme")
}

// Rows of an insert that is not acknowledged yet are in the table and in memory.
func TestRowsThatAreThereAlready(t *testing.T) {
	f := newFixture(t, 1)
	lease, err := f.wal.Claim(t.Context(), 0, "former", func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	f.push("acme", api, 100, 10)
	first, last, err := f.wal.Extent(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	f.wantAll("acme") // the owner is nobody that could be asked
	if n := f.metric(fallbacks, "unreachable"); n == 0 {
		t.Error("the WAL was not read")
	}
	for record, err := range f.wal.Between(t.Context(), 0, first-1, last, "acme") {
		if err != nil {
			t.Fatal(err)
		}
		if record.Sequence < first+50 { // half of them, outside of any batch
			insert(t, f, record)
		}
	}
	f.wantAll("acme")
	if err := lease.Land(t.Context(), first+49); err != nil {
		t.Fatal(err)
	}
	f.wantAll("acme")
	f.run(nil) // claims it, as no former owner is live
	for range 20 {
		f.wantAll("acme")
	}
	f.owned()
	f.wantAll("acme")
}

func TestHandOver(t *testing.T) {
	f := newFixture(t, 4)
	in := f.run(nil)
	f.owned()
	f.push("acme", api, 20, 50)
	stop := f.askAllTheTime("acme")
	f.run(nil) // gets half of the shards
	f.eventually("two ingesters share", func() bool { return f.ownersOf() == 2 })
	if _, err := in.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantAll("acme")
	f.owned()
	f.push("acme", api, 20, 50)
	f.wantAll("acme")
	if n := stop(); n == 0 {
		t.Error("nobody asked meanwhile")
	}
}

// ownersOf is how many ingesters own shards.
func (f *fixture) ownersOf() int {
	owners := map[string]bool{}
	for shard := range f.shards {
		p, err := f.wal.Position(f.t.Context(), shard)
		if err != nil {
			f.t.Fatal(err)
		}
		owners[p.Owner] = true
	}
	delete(owners, "")
	return len(owners)
}

// askAllTheTime wants all lines that are there now, again and again, until what it returns is called, which says how often it was.
func (f *fixture) askAllTheTime(tenant string) (stop func() int) {
	there := uint32(f.next)
	stopping, times := make(chan struct{}), 0
	var asking sync.WaitGroup
	asking.Go(func() {
		for ; ; times++ {
			got := f.seen(tenant)
			for i := range there {
				if i >= uint32(len(got)) || got[i] != i {
					f.t.Errorf("line %d is not seen once, of %d that are seen", i, len(got))
					return
				}
			}
			select {
			case <-stopping:
				return
			default:
			}
		}
	})
	return func() int {
		close(stopping)
		asking.Wait()
		return times
	}
}

func TestOwnerIsKilled(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(func(c *ingester.Config) { c.DrainTimeout = time.Millisecond })
	f.owned()
	f.push("acme", api, 20, 50)
	f.wantAll("acme")
	in.kill()
	f.wantAll("acme")
	f.push("acme", api, 20, 50)
	f.wantAll("acme")
	if n := f.metric(fallbacks, "unreachable"); n == 0 {
		t.Error("the WAL was not read")
	}
	stop := f.askAllTheTime("acme")
	f.run(func(c *ingester.Config) { c.FlushInterval = 50 * time.Millisecond })
	f.eventually("the next owner has landed all", f.landed)
	stop()
	f.wantAll("acme")
}

// An owner that says nothing costs one query some time, and no query a line.
func TestOwnerIsFrozen(t *testing.T) {
	f := newFixture(t, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections, and never reads
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	members, err := f.wal.Join(t.Context(), "frozen", wal.Member{GRPC: listener.Addr().String()}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = members.Leave(context.WithoutCancel(t.Context())) }()
	if _, err := f.wal.Claim(t.Context(), 0, "frozen", func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	f.newCutter()
	f.push("acme", api, 5, 5)
	f.wantAll("acme")
	began := time.Now()
	for range 10 {
		f.wantAll("acme")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("10 queries after the first one took %s", took)
	}
}

// stranger answers as another ingester would that is behind an address by now, or as one of another version might.
type stranger struct {
	logthrav1.UnimplementedIngesterServiceServer

	answer func(*logthrav1.UnflushedRequest, grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error
}

func (s *stranger) Unflushed(r *logthrav1.UnflushedRequest, stream grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error {
	return s.answer(r, stream)
}

func TestAnswersThatCountForNothing(t *testing.T) {
	f := newFixture(t, 2)
	for shard := range 2 {
		if _, err := f.wal.Claim(t.Context(), shard, "stranger", func(string) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
	f.push("acme", api, 10, 10)
	some := func(shard uint32) *logthrav1.UnflushedResponse {
		return &logthrav1.UnflushedResponse{
			Shard: shard, StreamLabels: []string{api}, RunStreams: []uint32{0}, RunEntries: []uint32{1}, RunSequences: []uint64{1},
			Indexes: []uint32{0}, Timestamps: []int64{epoch}, LineLengths: []uint32{1}, Lines: []byte("0"),
		}
	}
	for name, answer := range map[string]func(*logthrav1.UnflushedRequest, grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error{
		"an error at once": func(*logthrav1.UnflushedRequest, grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error {
			return errors.New("no")
		},
		"an error after a part": func(_ *logthrav1.UnflushedRequest, to grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error {
			return errors.Join(to.Send(some(0)), to.Send(some(1)), errors.New("no"))
		},
		"an end after a part": func(_ *logthrav1.UnflushedRequest, to grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error {
			return errors.Join(to.Send(some(0)), to.Send(some(1)))
		},
		"no owner after a part": func(r *logthrav1.UnflushedRequest, to grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error {
			for _, of := range r.GetShards() {
				end := &logthrav1.UnflushedResponse{Shard: of.GetShard(), End: &logthrav1.UnflushedEnd{Unanswered: true}}
				if err := errors.Join(to.Send(some(of.GetShard())), to.Send(end)); err != nil {
					return err
				}
			}
			return nil
		},
		"columns that disagree": func(r *logthrav1.UnflushedRequest, to grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error {
			for _, of := range r.GetShards() {
				bad := some(of.GetShard())
				bad.LineLengths, bad.End = []uint32{3}, &logthrav1.UnflushedEnd{}
				if err := to.Send(bad); err != nil {
					return err
				}
			}
			return nil
		},
		"a shard that was not asked for": func(_ *logthrav1.UnflushedRequest, to grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error {
			return to.Send(some(7))
		},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			logthrav1.RegisterIngesterServiceServer(server, &stranger{answer: answer})
			go func() { _ = server.Serve(listener) }()
			defer server.Stop()
			members, err := f.wal.Join(t.Context(), "stranger", wal.Member{GRPC: listener.Addr().String()}, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = members.Leave(context.WithoutCancel(t.Context())) }()
			f := *f
			f.t = t
			f.newCutter()
			f.wantAll("acme")
			if n := f.metric(fallbacks, ""); n != 2 {
				t.Errorf("%v shards of 2 were read from the WAL", n)
			}
		})
	}
}

// Sequences of a WAL that was made anew are others. Rows of the former one count as they are.
func TestWALIsLostAndMadeAnew(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(nil)
	f.owned()
	f.push("acme", api, 10, 10)
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.stop()
	f.nats.Stop()
	g := &fixture{t: t, dir: t.TempDir(), shards: 2, store: f.store, link: f.link, database: f.database, next: f.next}
	g.startNATS("127.0.0.1:0")
	_, g.wal = g.connect()
	g.newCutter()
	g.wantAll("acme")
	g.push("acme", api, 10, 10)
	g.wantAll("acme")
	in = g.run(nil)
	g.owned()
	g.wantAll("acme")
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.wantAll("acme")
}

// Where the positions are lost, all that the WAL holds may not have landed.
func TestPositionsAreLost(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(func(c *ingester.Config) { c.DrainTimeout = time.Millisecond })
	f.owned()
	f.push("acme", api, 10, 10)
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.kill()
	<-in.done
	f.loseBucket()
	f.newCutter()
	f.wantAll("acme")
	f.push("acme", api, 10, 10)
	f.wantAll("acme")
	stop := f.askAllTheTime("acme")
	in = f.run(nil)
	f.owned()
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	f.wantAll("acme")
}

func TestOnlyWhatIsAskedFor(t *testing.T) {
	f := newFixture(t, 3)
	f.push("acme", api, 4, 10)  // 0 to 39
	f.push("other", api, 4, 10) // 40 to 79
	f.push("acme", db, 4, 10)   // 80 to 119
	check := func(t *testing.T) {
		for _, c := range []struct {
			name   string
			change func(*cut.Request)
			want   []uint32
		}{
			{"all", func(*cut.Request) {}, span(0, 40, 80, 120)},
			{"another tenant", func(r *cut.Request) { r.Tenant = "other" }, span(40, 80)},
			{"no such tenant", func(r *cut.Request) { r.Tenant = "oth" }, nil},
			{"equal", matching("app", logql.Equal, "db"), span(80, 120)},
			{"not equal", matching("app", logql.NotEqual, "db"), span(0, 40)},
			{"regexp", matching("env", logql.Regexp, "p.*|x"), span(0, 40)},
			{"not regexp", matching("env", logql.NotRegexp, "p"), span(0, 40, 80, 120)},
			{"no such stream", matching("app", logql.Equal, "x"), nil},
			{"start", func(r *cut.Request) { r.Start = epoch + 35 }, span(35, 40, 80, 120)},
			{"end", func(r *cut.Request) { r.End = epoch + 85 }, span(0, 40, 80, 85)},
			{"between", func(r *cut.Request) { r.Start, r.End = epoch+40, epoch+80 }, nil},
			{"contains", func(r *cut.Request) { r.Contains = []string{"1", "9"} }, []uint32{19, 91, 109, 119}},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := all("acme")
				c.change(&r)
				made, err := f.cutter.Cut(t.Context(), r)
				if err != nil || len(made.Warnings) > 0 || made.Start != r.Start || made.End != r.End {
					t.Fatalf("%+v, %v", made, err)
				}
				if got := slices.Sorted(slices.Values(numbers(t, made.Entries))); !slices.Equal(got, c.want) {
					t.Errorf("\n got %v\nwant %v", got, c.want)
				}
				r.OmitLines = true
				omitted, err := f.cutter.Cut(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				byPlace := func(a, b cut.Entry) int {
					return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Index, b.Index))
				}
				slices.SortFunc(made.Entries, byPlace)
				slices.SortFunc(omitted.Entries, byPlace)
				same := func(a, b cut.Entry) bool {
					return byPlace(a, b) == 0 && a.Labels == b.Labels && a.Timestamp == b.Timestamp && a.Length == b.Length &&
						slices.Equal(a.Metadata, b.Metadata) && b.Line == nil
				}
				if !slices.EqualFunc(made.Entries, omitted.Entries, same) {
					t.Errorf("without lines\n got %v\nwant %v", omitted.Entries, made.Entries)
				}
			})
		}
	}
	t.Run("from the WAL", check)
	f.run(nil)
	f.owned()
	f.eventually("all owners are asked", func() bool {
		before := f.metric(fallbacks, "")
		f.make(all("acme"))
		return f.metric(fallbacks, "") == before
	})
	before := f.metric(fallbacks, "")
	t.Run("from the owner", check)
	if n := f.metric(fallbacks, ""); n != before {
		t.Errorf("%v shards were read from the WAL", n-before)
	}
}

// span is the numbers from one to another, and from the next to another.
func span(bounds ...uint32) (numbers []uint32) {
	for i := 0; i < len(bounds); i += 2 {
		for n := bounds[i]; n < bounds[i+1]; n++ {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func matching(name string, op logql.MatchOp, value string) func(*cut.Request) {
	return func(r *cut.Request) { r.Matchers = []logql.Matcher{{Name: name, Op: op, Value: value}} }
}

func TestLimit(t *testing.T) {
	f := newFixture(t, 3)
	for _, tenant := range []string{"acme", "acme", "other", "acme"} {
		f.push(tenant, api, 20, 10)
	}
	check := func(t *testing.T, isExact bool) {
		for _, limit := range []int{7, 100, 599, 600, 601} {
			for _, forward := range []bool{false, true} {
				r := all("acme")
				r.Limit, r.Forward = limit, forward
				var got []uint32
				for times := 0; r.Start < r.End; times++ {
					c, err := f.cutter.Cut(t.Context(), r)
					if err != nil || times > 600 {
						t.Fatal(times, err)
					}
					if len(c.Entries) < min(limit, 600-len(got)) {
						t.Fatalf("limit %d: %d entries between %d and %d", limit, len(c.Entries), c.Start, c.End)
					}
					if isExact && len(c.Entries) > 3*limit {
						t.Errorf("limit %d: %d entries", limit, len(c.Entries))
					}
					got = append(got, numbers(t, c.Entries)...)
					if forward {
						if c.Start != r.Start {
							t.Fatalf("it begins at %d, not %d", c.Start, r.Start)
						}
						r.Start = c.End
					} else {
						if c.End != r.End {
							t.Fatalf("it ends at %d, not %d", c.End, r.End)
						}
						r.End = c.Start
					}
				}
				slices.Sort(got)
				if want := span(0, 400, 600, 800); !slices.Equal(got, want) {
					t.Errorf("limit %d, forward %v: %d entries of 600", limit, forward, len(got))
				}
			}
		}
	}
	t.Run("from the WAL", func(t *testing.T) { check(t, false) })
	f.run(nil)
	f.owned()
	t.Run("from the owner", func(t *testing.T) { check(t, true) })
}

func TestTooLarge(t *testing.T) {
	f := newFixture(t, 2)
	f.push("acme", api, 10, 100)
	check := func(t *testing.T) {
		r := all("acme")
		r.MaxBytes = 50_000
		_, err := f.cutter.Cut(t.Context(), r)
		if tooLarge, ok := errors.AsType[*cut.TooLargeError](err); !ok || tooLarge.Limit != 50_000 || !strings.Contains(err.Error(), "narrow") {
			t.Errorf("1,000 entries in 50,000 bytes: %v", err)
		}
		r.End = epoch + 200
		if c, err := f.cutter.Cut(t.Context(), r); err != nil || len(c.Entries) != 200 {
			t.Errorf("200 entries in 50,000 bytes: %v", err)
		}
	}
	t.Run("from the WAL", check)
	f.run(nil)
	f.owned()
	t.Run("from the owner", check)
}

func TestBadMatcherAndEndedContext(t *testing.T) {
	f := newFixture(t, 2)
	f.push("acme", api, 1, 1)
	r := all("acme")
	matching("app", logql.Regexp, "(")(&r)
	if _, err := f.cutter.Cut(t.Context(), r); err == nil || !strings.Contains(err.Error(), "app") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.cutter.Cut(ctx, all("acme")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// While NATS is away a query is answered, and says what it lacks.
func TestNATSIsAway(t *testing.T) {
	f := newFixture(t, 1)
	in := f.run(func(c *ingester.Config) { c.DrainTimeout = time.Millisecond })
	f.owned()
	f.push("acme", api, 5, 10)
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.nats.Stop()
	c, err := f.cutter.Cut(t.Context(), all("acme"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "shard 0") {
		t.Errorf("warnings: %q", c.Warnings)
	}
	if got := f.rows("acme", c); len(got) != 50 {
		t.Errorf("%d rows of 50", len(got))
	}
}

// A restart of NATS delays a query, and takes no line from it.
func TestNATSIsRestarted(t *testing.T) {
	f := newFixture(t, 2)
	f.run(func(c *ingester.Config) { c.OwnerTimeout, c.DrainTimeout = 10*time.Second, time.Second })
	f.owned()
	address := strings.TrimPrefix(f.nats.URL(), "nats://")
	for range 3 {
		f.push("acme", api, 5, 10)
		f.nats.Stop()
		f.startNATS(address)
		f.wantAll("acme")
		f.eventually("pushes are taken again", func() bool { return f.wal.Ready(t.Context()) == nil })
	}
	f.push("acme", api, 5, 10)
	f.wantAll("acme")
}

// Lines are pushed without a pause while batches land all the time and shards change hands. Every query sees all lines that were
// answered before it began, and none twice.
func TestEveryLineOnce(t *testing.T) {
	const (
		pushers = 3
		askers  = 4
		span    = 12 * time.Second
	)
	f := newFixture(t, 4)
	quick := func(c *ingester.Config) { c.FlushInterval, c.DrainTimeout = 100*time.Millisecond, time.Second }
	f.run(quick)
	f.owned()
	var pushed, answered [pushers]atomic.Uint32
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var pushing, asking sync.WaitGroup
	for p := range pushers {
		pushing.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(p)))
			for next := uint32(0); ctx.Err() == nil; {
				var b logs.Batch
				b.AddStream(fmt.Sprintf(`{"pusher":"%d"}`, p))
				n := 1 + random.Uint32N(40)
				for range n {
					number := uint32(p)<<24 + next
					b.Lines = fmt.Appendf(b.Lines, "%d", number)
					b.EndEntry(epoch+int64(number), true)
					b.AddMetadata([]byte("number"), fmt.Appendf(nil, "n%d", number))
					next++
				}
				pushed[p].Store(next)
				if _, err := f.wal.Publish(t.Context(), "acme", "", &b); err != nil {
					t.Error(err)
					return
				}
				answered[p].Store(next)
			}
		})
	}
	var asked atomic.Int32
	for range askers {
		asking.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				var there [pushers]uint32
				for p := range there {
					there[p] = answered[p].Load()
				}
				got := f.seen("acme")
				var next [pushers]uint32
				for _, number := range got {
					p, n := number>>24, number&(1<<24-1)
					switch {
					case n < next[p]:
						t.Errorf("line %d of pusher %d is seen twice", n, p)
					case n > next[p] && next[p] < there[p]:
						t.Errorf("line %d of pusher %d is not seen, and was answered", next[p], p)
					case n >= pushed[p].Load():
						t.Errorf("line %d of pusher %d is seen, and was not pushed", n, p)
					}
					next[p] = n + 1
				}
				for p := range there {
					if next[p] < there[p] {
						t.Errorf("of pusher %d %d lines are seen, and %d were answered", p, next[p], there[p])
					}
				}
				asked.Add(1)
			}
		})
	}
	ends := time.Now().Add(span)
	for time.Now().Before(ends) {
		other := f.run(quick)
		f.eventually("both own shards", func() bool { return f.ownersOf() == 2 })
		if rand.IntN(2) == 0 {
			other.stop()
			continue
		}
		other.kill()
		<-other.done
		f.owned()
		f.eventually("one owns all shards", func() bool { return f.ownersOf() == 1 })
	}
	cancel()
	pushing.Wait()
	asking.Wait()
	lines := uint32(0)
	for p := range answered {
		lines += answered[p].Load()
	}
	t.Logf("%d queries, %d lines, %v shards read from the WAL", asked.Load(), lines, f.metric(fallbacks, ""))
	f.eventually("all has landed", f.landed)
	if got := f.seen("acme"); len(got) != int(lines) {
		t.Errorf("%d lines of %d", len(got), lines)
	}
}
