package ingester

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/unflushed"
)

// wanted is a question about all lines of a tenant.
func wanted(tenant string) *logthrav1.UnflushedRequest {
	return &logthrav1.UnflushedRequest{Tenant: tenant, Start: logs.MinTime, End: logs.MaxTime}
}

// lines are those of an answer.
func lines(responses []*logthrav1.UnflushedResponse) (all []string) {
	for _, r := range responses {
		text := r.GetLines()
		for _, n := range r.GetLineLengths() {
			all, text = append(all, string(text[:n])), text[n:]
		}
	}
	return all
}

// seen is what a query sees of a shard now: rows of the table, and what its owner tells beyond that.
func (f *fixture) seen(s *shard) ([]string, error) {
	ctx := context.Background()
	first, last, err := f.wal.Extent(ctx, s.number)
	if err != nil {
		return nil, err
	}
	var answer []*logthrav1.UnflushedResponse
	w, err := unflushed.NewWriter(wanted("acme"), func(r *logthrav1.UnflushedResponse) error { answer = append(answer, r); return nil })
	if err != nil {
		return nil, err
	}
	if err := s.unflushed(ctx, f.wal, w, &logthrav1.UnflushedShard{Sequence: last, Landed: first - 1}); err != nil {
		return nil, err
	}
	end := answer[len(answer)-1].GetEnd()
	if end == nil || end.GetUnanswered() {
		return nil, fmt.Errorf("it ends with %v", end)
	}
	var rows []string
	sql := "SELECT groupArray(msg) FROM " + f.store.Database() + ".log WHERE wal_seq <= ?"
	if err := f.ride(func() error { return f.store.Conn().QueryRow(ctx, sql, end.GetLanded()).Scan(&rows) }); err != nil {
		return nil, err
	}
	all := append(rows, lines(answer)...)
	slices.Sort(all)
	return all, nil
}

// Before and after every step of a shard, and of its next owner, a query sees each line once: while a bad record is looked for and put aside,
// after an owner died anywhere, and when a batch has landed and the owner does not know it yet.
func TestEachLineIsSeenOnceAtEveryStep(t *testing.T) {
	for _, dies := range []string{"", "intend", "insert", "land", "dead letter"} {
		t.Run("dies of "+dies, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 1)
			f.pushAmongBadOnes()
			var good []string
			for n := range f.next {
				good = append(good, fmt.Sprint("line ", n))
			}
			slices.Sort(good)
			withBad := append(slices.Clone(good), "first", "last", "poison")
			slices.Sort(withBad)
			var times atomic.Int32
			isAside := false
			watch := func(fault *faulty) func(*shard) {
				return func(s *shard) {
					fault.lease, fault.journal, fault.table = s.lease, s.journal, s.table
					s.lease, s.journal, s.table = fault, fault, fault
					fault.each = func() {
						got, err := f.seen(s)
						if err != nil {
							t.Error(err) // and not Fatal, which would end the shard
							return
						}
						if !slices.Equal(got, good) && (isAside || !slices.Equal(got, withBad)) {
							t.Errorf("%d lines are seen after %d steps: %q", len(got), times.Load(), got)
						}
						isAside = isAside || len(got) == len(good) // it stays there
						times.Add(1)
					}
				}
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			fault := &faulty{step: dies, call: 2, after: true, die: cancel}
			_, done := f.own(ctx, "first", watch(fault))
			if dies != "" {
				<-done
				f.own(context.Background(), "second", watch(new(faulty)))
			}
			f.landed()
			f.eventually("it is acknowledged", f.acknowledged)
			if n := times.Load(); n < 20 {
				t.Errorf("it was looked at %d times", n)
			}
		})
	}
}

// ask asks an ingester over gRPC.
func ask(ctx context.Context, client logthrav1.IngesterServiceClient, request *logthrav1.UnflushedRequest) (all []*logthrav1.UnflushedResponse, err error) {
	stream, err := client.Unflushed(ctx, request)
	for err == nil {
		var r *logthrav1.UnflushedResponse
		if r, err = stream.Recv(); err == nil {
			all = append(all, r)
		}
	}
	return all, err
}

func (f *fixture) serve(in *running) logthrav1.IngesterServiceClient {
	f.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	server := grpc.NewServer()
	logthrav1.RegisterIngesterServiceServer(server, &Service{Ingester: in.Ingester})
	go func() { _ = server.Serve(listener) }()
	f.t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return logthrav1.NewIngesterServiceClient(conn)
}

// last is a question about all shards, as far as they go.
func (f *fixture) last(in *running, request *logthrav1.UnflushedRequest) *logthrav1.UnflushedRequest {
	f.t.Helper()
	request.Ingester = in.cfg.ID
	for shard := range f.wal.Shards() {
		first, last, err := f.wal.Extent(f.t.Context(), shard)
		if err != nil {
			f.t.Fatal(err)
		}
		request.Shards = append(request.Shards, &logthrav1.UnflushedShard{Shard: uint32(shard), Sequence: last, Landed: first - 1})
	}
	return request
}

func TestUnflushed(t *testing.T) {
	f := newFixture(t, 2)
	in := f.run(nil)
	client := f.serve(in)
	f.eventually("it owns the shards", func() bool { return in.owns() == 2 })
	f.push(20, 10)
	answer, err := ask(t.Context(), client, f.last(in, wanted("acme")))
	if got := lines(answer); len(got) != 200 || err.Error() != "EOF" {
		t.Errorf("%d lines of 200, %v", len(got), err)
	}
	if got := testutil.ToFloat64(in.metrics.unflushedEntries); got != 200 {
		t.Errorf("the metric says %v", got)
	}
	if answer, _ = ask(t.Context(), client, f.last(in, wanted("other"))); len(lines(answer)) != 0 {
		t.Error("another tenant gets lines")
	}
	few := f.last(in, wanted("acme"))
	few.MaxBytes = 500
	if _, err := ask(t.Context(), client, few); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
	wrong := f.last(in, wanted("acme"))
	wrong.Ingester = "another"
	if _, err := ask(t.Context(), client, wrong); status.Code(err) != codes.FailedPrecondition {
		t.Error(err)
	}
	bad := f.last(in, wanted("acme"))
	bad.Matchers = []*logthrav1.LabelMatcher{{Name: "a", Operator: logthrav1.LabelMatcher_OPERATOR_REGEXP, Value: "("}}
	if _, err := ask(t.Context(), client, bad); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	far := wanted("acme")
	far.Ingester, far.Shards = in.cfg.ID, []*logthrav1.UnflushedShard{{Shard: 9, Sequence: 1}}
	if answer, err = ask(t.Context(), client, far); err.Error() != "EOF" || len(answer) != 1 || !answer[0].GetEnd().GetUnanswered() {
		t.Errorf("a shard that it does not own: %v, %v", answer, err)
	}
	if _, err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	answer, _ = ask(t.Context(), client, f.last(in, wanted("acme")))
	for _, r := range answer {
		last, err := f.wal.Last(t.Context(), int(r.GetShard()))
		if err != nil || r.GetEnd().GetLanded() != last || len(r.GetIndexes()) > 0 {
			t.Errorf("after a flush: %v, %v", r, err)
		}
	}
}

// What does not fit into the budget is known to queries all the same, as is what a shard does not read while it can't insert.
func TestUnflushedWithoutRoom(t *testing.T) {
	f := newFixture(t, 2)
	f.link.cut()
	in := f.run(func(c *Config) { c.BufferBytes, c.FlushRows = 64<<10, 500 })
	client := f.serve(in)
	f.eventually("it owns the shards", func() bool { return in.owns() == 2 })
	for range 20 {
		f.push(5, 100)
		answer, err := ask(t.Context(), client, f.last(in, wanted("acme")))
		got := lines(answer)
		slices.Sort(got)
		if len(got) != f.next || len(slices.Compact(got)) != f.next || err.Error() != "EOF" {
			t.Fatalf("%d lines of %d, %v", len(got), f.next, err)
		}
	}
	f.link.mend()
	f.landed()
	f.eventually("nothing is kept that has landed", func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		for _, s := range in.shards {
			s.mu.Lock()
			kept := len(s.unlanded)
			s.mu.Unlock()
			if kept > 0 {
				return false
			}
		}
		return f.acknowledged()
	})
}

// Many who ask at once, and go away in the middle, hold nothing up.
func TestUnflushedIsCanceled(t *testing.T) {
	f := newFixture(t, 1)
	in := f.run(nil)
	client := f.serve(in)
	f.eventually("it owns the shard", func() bool { return in.owns() == 1 })
	var b logs.Batch
	b.AddStream(`{"a":"b"}`)
	for range 400 {
		b.Lines = append(b.Lines, strings.Repeat("a long line ", 1000)...)
		b.EndEntry(1, false)
	}
	if _, err := f.wal.Publish(t.Context(), "acme", "", &b); err != nil {
		t.Fatal(err)
	}
	request := f.last(in, wanted("acme"))
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			stream, err := client.Unflushed(ctx, request)
			if err == nil {
				_, _ = stream.Recv() // and no more: the others wait behind a full window
			}
			time.AfterFunc(100*time.Millisecond, cancel)
			<-ctx.Done()
		})
	}
	asking.Wait()
	answer, err := ask(t.Context(), client, request)
	if got := lines(answer); len(got) != 400 || err.Error() != "EOF" {
		t.Errorf("%d lines, %v", len(got), err)
	}
	f.eventually("all answers have ended", func() bool { return len(in.asked) == 0 })
}

// A record that was pushed is in an answer at once, though the shard may not have read it when it is asked.
func TestUnflushedIsSoon(t *testing.T) {
	f := newFixture(t, 1)
	in := f.run(nil)
	client := f.serve(in)
	f.eventually("it owns the shard", func() bool { return in.owns() == 1 })
	f.push(1, 1)
	f.eventually("it has read", func() bool { return shardOf(in).rows() == 1 })
	var took []time.Duration
	for range 200 {
		f.push(1, 1)
		request := f.last(in, wanted("acme"))
		began := time.Now()
		answer, err := ask(t.Context(), client, request)
		took = append(took, time.Since(began))
		if got := lines(answer); len(got) != f.next {
			t.Fatalf("%d lines of %d: %v", len(got), f.next, err)
		}
	}
	slices.Sort(took)
	t.Logf("half within %s, all within %s", took[100], took[199])
	if took[100] > readPatience/2 {
		t.Errorf("half of the answers took more than %s: shards are waited for in vain", took[100])
	}
}

// An owner has 200,000 rows that have not landed.
func BenchmarkUnflushed(b *testing.B) {
	f := newFixture(b, 4)
	in := f.run(nil)
	client := f.serve(in)
	f.eventually("it owns the shards", func() bool { return in.owns() == 4 })
	for range 200 {
		var batch logs.Batch
		batch.AddStream(`{"app":"api","env":"prod"}`)
		for range 1000 {
			batch.Lines = fmt.Appendf(batch.Lines, `level=info caller=server.go:%d msg="request served" path=/api/v1/things/%d took=%dms`, f.next%300, f.next, f.next%977)
			batch.EndEntry(1700000000000000001+int64(f.next), true)
			f.next++
		}
		if _, err := f.wal.Publish(b.Context(), "acme", "", &batch); err != nil {
			b.Fatal(err)
		}
	}
	f.eventually("all is gathered", func() bool {
		answer, _ := ask(b.Context(), client, f.last(in, &logthrav1.UnflushedRequest{Tenant: "acme", End: logs.MaxTime, OmitLines: true}))
		n := 0
		for _, r := range answer {
			n += len(r.GetIndexes())
		}
		return n == f.next
	})
	for name, change := range map[string]func(*logthrav1.UnflushedRequest){
		"another time":  func(r *logthrav1.UnflushedRequest) { r.End = 1600000000000000000 },
		"other streams": func(r *logthrav1.UnflushedRequest) { r.Matchers[0].Value = "db" },
		"no lines":      func(r *logthrav1.UnflushedRequest) { r.OmitLines = true },
		"all":           func(*logthrav1.UnflushedRequest) {},
		"newest 100":    func(r *logthrav1.UnflushedRequest) { r.Limit = 100 },
	} {
		b.Run(name, func(b *testing.B) {
			request := f.last(in, wanted("acme"))
			request.Matchers = []*logthrav1.LabelMatcher{{Name: "app", Operator: logthrav1.LabelMatcher_OPERATOR_EQUAL, Value: "api"}}
			change(request)
			for b.Loop() {
				if _, err := ask(b.Context(), client, request); err.Error() != "EOF" {
					b.Fatal(err)
				}
			}
		})
	}
}
