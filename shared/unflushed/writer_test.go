package unflushed

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// entry is one that was sent, or is to be.
type entry struct {
	stream, line string
	length       uint32
	at           int64
	sequence     uint64
	index        uint32
	metadata     string // as name=value, in order of the names
}

// entries takes responses apart.
func entries(t testing.TB, responses []*logthrav1.UnflushedResponse) (all []entry) {
	t.Helper()
	for _, r := range responses {
		columns := make([]logs.Column, len(r.GetMetadata()))
		for i, c := range r.GetMetadata() {
			columns[i] = logs.Column{Name: string(c.GetName()), Entries: c.GetEntries(), Lengths: c.GetValueLengths(), Values: c.GetValues()}
		}
		metadata := logs.MetadataOf(columns, len(r.GetIndexes()))
		at, offset := 0, uint32(0)
		for run, n := range r.GetRunEntries() {
			if n == 0 {
				t.Fatal("a run of nothing")
			}
			for range n {
				e := entry{
					stream: r.GetStreamLabels()[r.GetRunStreams()[run]], sequence: r.GetRunSequences()[run],
					length: r.GetLineLengths()[at], at: r.GetTimestamps()[at], index: r.GetIndexes()[at],
				}
				if len(r.GetLines()) > 0 {
					e.line = string(r.GetLines()[offset : offset+e.length])
				}
				for _, l := range metadata[at] {
					e.metadata += l.Name + "=" + l.Value + " "
				}
				offset += e.length
				all = append(all, e)
				at++
			}
		}
		if at != len(r.GetIndexes()) {
			t.Fatalf("%d entries of %d are in runs", at, len(r.GetIndexes()))
		}
	}
	return all
}

// publish puts batches into a WAL of one shard, and returns them as its records.
func publish(t testing.TB, batches ...*logs.Batch) (w *wal.WAL, records []wal.Record) {
	t.Helper()
	conn, err := enginetest.NATS(t).Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	w, err = wal.Open(t.Context(), conn, wal.Config{Shards: 1, Replicas: 1, MaxBytes: 1 << 30, DedupWindow: time.Minute}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range batches {
		if _, err := w.Publish(t.Context(), "acme", fmt.Sprint(i), b); err != nil {
			t.Fatal(err)
		}
	}
	first, last, err := w.Extent(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for record, err := range w.Between(t.Context(), 0, first-1, last, "acme") {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, record)
	}
	return w, records
}

// random makes a batch of entries, which it also returns one by one.
func random(r *rand.Rand, longest int) (*logs.Batch, []entry) {
	var b logs.Batch
	var all []entry
	for range r.IntN(6) {
		stream := fmt.Sprintf(`{"app":"%d","env":"%d"}`, r.IntN(4), r.IntN(2))
		b.AddStream(stream)
		for range r.IntN(5) {
			e := entry{stream: stream, line: strings.Repeat(string(rune('a'+r.IntN(4))), r.IntN(longest)), at: int64(r.IntN(200)), index: uint32(b.Len())}
			e.length = uint32(len(e.line))
			b.Lines = append(b.Lines, e.line...)
			b.EndEntry(e.at, true)
			for name := range r.IntN(3) {
				value := fmt.Sprint(r.IntN(1000))
				b.AddMetadata(fmt.Appendf(nil, "m%d", name), []byte(value))
				e.metadata += fmt.Sprintf("m%d=%s ", name, value)
			}
			all = append(all, e)
		}
	}
	return &b, all
}

func TestWriter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var batches []*logs.Batch
	var pushed []entry
	for i := range 60 {
		longest := 20
		if i%10 == 0 {
			longest = 300 << 10
		}
		b, of := random(r, longest)
		if b.Len() == 0 {
			continue
		}
		for j := range of {
			of[j].sequence = uint64(len(batches))
		}
		batches, pushed = append(batches, b), append(pushed, of...)
	}
	w, records := publish(t, batches...)
	first := records[0].Sequence
	for n := range 300 {
		request := &logthrav1.UnflushedRequest{
			Tenant: "acme", Start: int64(r.IntN(150)), OmitLines: r.IntN(3) == 0, Limit: uint32(max(0, r.IntN(60)-20)), Forward: r.IntN(2) == 0,
		}
		request.End = request.GetStart() + int64(r.IntN(150))
		app := ""
		if r.IntN(2) == 0 {
			app = fmt.Sprint(r.IntN(5))
			request.Matchers = []*logthrav1.LabelMatcher{{Name: "app", Operator: logthrav1.LabelMatcher_OPERATOR_EQUAL, Value: app}}
		}
		if r.IntN(3) == 0 {
			request.Contains = [][]byte{[]byte("aa")}
		}
		var got []*logthrav1.UnflushedResponse
		writer, err := NewWriter(request, func(r *logthrav1.UnflushedResponse) error { got = append(got, r); return nil })
		if err != nil {
			t.Fatal(err)
		}
		writer.Begin(3)
		if n%2 == 0 {
			for i := range records {
				record := &records[i]
				if !request.GetForward() {
					record = &records[len(records)-1-i]
				}
				if err := writer.Add(record); err != nil {
					t.Fatal(err)
				}
			}
		} else if reached, err := writer.Read(t.Context(), w, 0, first-1, records[len(records)-1].Sequence); err != nil || reached != records[len(records)-1].Sequence {
			t.Fatal(reached, err)
		}
		if err := writer.End(77); err != nil {
			t.Fatal(err)
		}
		for i, response := range got {
			end := response.GetEnd()
			if response.GetShard() != 3 || (end != nil) != (i == len(got)-1) || len(response.GetLines()) > chunkBytes || i < len(got)-1 && len(response.GetIndexes()) == 0 {
				t.Fatalf("response %d of %d has %d bytes of lines, end %v", i, len(got), len(response.GetLines()), end)
			}
		}
		end := got[len(got)-1].GetEnd()
		if end.GetLanded() != 77 || end.GetUnanswered() || end.GetHasBound() && request.GetLimit() == 0 {
			t.Fatalf("it ends with %v", end)
		}
		isWithin := func(e entry) bool {
			return !end.GetHasBound() || request.GetForward() && e.at < end.GetBound() || !request.GetForward() && e.at >= end.GetBound()
		}
		var want []entry
		for _, e := range pushed {
			if e.at < request.GetStart() || e.at >= request.GetEnd() || app != "" && !strings.Contains(e.stream, `"app":"`+app+`"`) ||
				len(request.GetContains()) > 0 && !strings.Contains(e.line, "aa") || !isWithin(e) {
				continue
			}
			e.sequence += first
			if request.GetOmitLines() {
				e.line = ""
			}
			want = append(want, e)
		}
		sent := slices.DeleteFunc(entries(t, got), func(e entry) bool { return !isWithin(e) })
		byPlace := func(a, b entry) int { return int(a.sequence)<<20 + int(a.index) - int(b.sequence)<<20 - int(b.index) }
		slices.SortFunc(sent, byPlace)
		if !slices.Equal(sent, want) {
			t.Fatalf("%v\nsent %d entries, want %d", request, len(sent), len(want))
		}
		if end.GetHasBound() && len(want) < int(request.GetLimit()) {
			t.Errorf("%d entries are nearer than the bound, of %d", len(want), request.GetLimit())
		}
	}
}

func TestWriterIsBounded(t *testing.T) {
	var b logs.Batch
	b.AddStream(`{"a":"b"}`)
	for range 100 {
		b.Lines = append(b.Lines, strings.Repeat("x", 50_000)...)
		b.EndEntry(1, false)
	}
	_, records := publish(t, &b)
	for limit, want := range map[uint64]error{0: nil, 6_000_000: nil, 4_000_000: ErrTooLarge} {
		writer, err := NewWriter(&logthrav1.UnflushedRequest{Tenant: "acme", End: 2, MaxBytes: limit}, func(*logthrav1.UnflushedResponse) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		writer.Begin(0)
		if err := errors.Join(writer.Add(&records[0]), writer.End(0)); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("at most %d bytes: %v", limit, err)
		}
	}
	gone := errors.New("gone")
	writer, err := NewWriter(&logthrav1.UnflushedRequest{Tenant: "acme", End: 2}, func(*logthrav1.UnflushedResponse) error { return gone })
	if err != nil {
		t.Fatal(err)
	}
	writer.Begin(0)
	if err := writer.Add(&records[0]); !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestWriterRefuses(t *testing.T) {
	for _, m := range []*logthrav1.LabelMatcher{
		{Name: "a", Value: "b"},
		{Name: "a", Operator: 9, Value: "b"},
		{Name: "a", Operator: logthrav1.LabelMatcher_OPERATOR_REGEXP, Value: "("},
	} {
		if _, err := NewWriter(&logthrav1.UnflushedRequest{Matchers: []*logthrav1.LabelMatcher{m}}, nil); err == nil {
			t.Errorf("%v is taken", m)
		}
	}
}

func TestWants(t *testing.T) {
	w, err := NewWriter(&logthrav1.UnflushedRequest{
		Tenant: "acme", Start: 10, End: 20,
		Matchers: []*logthrav1.LabelMatcher{{Name: "app", Operator: logthrav1.LabelMatcher_OPERATOR_EQUAL, Value: "api"}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	api, db := []string{`{"app":"db"}`, `{"app":"api"}`}, []string{`{"app":"db"}`}
	for _, c := range []struct {
		tenant           string
		earliest, latest int64
		streams          []string
		want             bool
	}{
		{"acme", 10, 10, api, true},
		{"acme", 19, 30, api, true},
		{"acme", 0, 30, api, true},
		{"acme", 0, 9, api, false},
		{"acme", 20, 30, api, false},
		{"acme", 10, 10, db, false},
		{"acme", 10, 10, nil, false},
		{"other", 10, 10, api, false},
	} {
		if got := w.Wants(c.tenant, c.earliest, c.latest, c.streams); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	var batch logs.Batch
	for i := range 10 {
		batch.AddStream(fmt.Sprintf(`{"app":"api","pod":"%d"}`, i))
		for n := range 200 {
			batch.Lines = fmt.Appendf(batch.Lines, `level=info ts=2024-01-01T10:00:00Z caller=server.go:%d msg="request served" path=/api/v1/things/%d took=%dms`, n, n*i, n)
			batch.EndEntry(int64(n), true)
		}
	}
	_, records := publish(b, &batch)
	for name, request := range map[string]*logthrav1.UnflushedRequest{
		"all":       {},
		"omitted":   {OmitLines: true},
		"contained": {Contains: [][]byte{[]byte("things/99 ")}},
		"one":       {Matchers: []*logthrav1.LabelMatcher{{Name: "pod", Operator: logthrav1.LabelMatcher_OPERATOR_EQUAL, Value: "3"}}},
		"limit":     {Limit: 100},
	} {
		b.Run(name, func(b *testing.B) {
			request.Tenant, request.End = "acme", 1000
			w, err := NewWriter(request, func(*logthrav1.UnflushedResponse) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
			w.Begin(0)
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Add(&records[0]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/line")
		})
	}
}
