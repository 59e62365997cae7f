package bench

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What the histogram says is within 1 % of what is.
func TestHistogram(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	var one, other histogram
	for i := range 10_000 {
		d := time.Duration(random.ExpFloat64() * float64(20*time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			one.add(d)
		} else {
			other.add(d)
		}
	}
	one.merge(&other)
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999} {
		got, want := float64(one.quantile(q)), float64(all[int(q*float64(len(all)))-1])
		if got < want*0.99 || got > want*1.02 {
			t.Errorf("quantile %g is %g, and was said to be %g", q, want, got)
		}
	}
	if one.quantile(1) != all[len(all)-1] || one.longest != all[len(all)-1] {
		t.Errorf("the longest is %s, not %s", one.quantile(1), all[len(all)-1])
	}
	var none histogram
	if none.quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	none.add(0)
	none.add(time.Hour)
	if none.quantile(0.5) > 2*time.Microsecond || none.quantile(1) != time.Hour {
		t.Errorf("the bounds are %s and %s", none.quantile(0.5), none.quantile(1))
	}
}

// Equal seeds make equal lines, and others make others; they can be compressed about as well as real ones.
func TestGenerator(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	lines := func(seed uint64, least int) (all []byte) {
		g := newGenerator(seed, least)
		for i := range 2000 {
			begin := len(all)
			all = append(g.append(all, i%7, now), '\n')
			if len(all)-begin <= least {
				t.Fatalf("a line of %d bytes: %s", len(all)-begin, all[begin:])
			}
		}
		return all
	}
	one := lines(1, 0)
	if !bytes.Equal(one, lines(1, 0)) || bytes.Equal(one, lines(2, 0)) {
		t.Error("the lines do not follow from the seed")
	}
	if mean := len(one) / 2000; mean < 80 || mean > 200 {
		t.Errorf("a line has %d bytes on average", mean)
	}
	lines(1, 2000)
	var packed bytes.Buffer
	to := gzip.NewWriter(&packed)
	_, _ = to.Write(one)
	_ = to.Close()
	if ratio := float64(len(one)) / float64(packed.Len()); ratio < 3 || ratio > 12 {
		t.Errorf("gzip makes a %.1fth of the lines", ratio)
	}
}

// server takes pushes as a system would that is busy at times.
type server struct {
	*httptest.Server

	mu     sync.Mutex
	pushes int
	busy   int  // answers that ask to try again, at first
	hangUp bool // it closes the connection once, without an answer
	refuse bool
}

func newServer(t *testing.T, s *server) *server {
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.refuse:
			http.Error(w, "not like this", http.StatusBadRequest)
		case s.busy > 0:
			s.busy--
			w.Header().Set("Retry-After", "0")
			http.Error(w, "later", http.StatusTooManyRequests)
		case s.hangUp:
			s.hangUp = false
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_ = conn.Close()
			}
		default:
			s.pushes++
			if s.pushes%5 == 0 {
				w.Header().Set("Connection", "close")
			}
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func config(url string) Config {
	return Config{
		URL: url, Protocol: "loki", Encoding: "none", Lines: 100, LinesPerPush: 10, Streams: 3, StreamsPerPush: 2, Tenants: 1, Tenant: "bench",
		Connections: 2, Seed: 1, Ahead: 1 << 20, Landing: time.Second,
	}
}

// What is refused for now is pushed again, on a new connection if need be, and counted once.
func TestRunPushesAgain(t *testing.T) {
	s := newServer(t, &server{busy: 3, hangUp: true})
	var told atomic.Int64
	cfg := config(s.URL)
	cfg.Progress = func(Progress) { told.Add(1) }
	cfg.Rate = 200
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Lines != 100 || r.Pushes != 10 || s.pushes != 10 || r.Retries != 4 || r.RetryReason == "" {
		t.Errorf("%d pushes arrived; the report is %+v", s.pushes, r)
	}
	if r.Answered < 450*time.Millisecond || told.Load() == 0 {
		t.Errorf("it took %s at 200 lines a second, and told of its progress %d times", r.Answered, told.Load())
	}
}

func TestRunEndsAtARefusal(t *testing.T) {
	s := newServer(t, &server{refuse: true})
	r, err := Run(t.Context(), config(s.URL))
	if err == nil || !strings.Contains(err.Error(), "400 Bad Request: not like this") || r.Lines != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Rows that don't come, or come twice, are errors.
func TestRunCountsRows(t *testing.T) {
	s := newServer(t, new(server))
	for _, c := range []struct {
		rows int64
		want string
	}{{99, "99 rows of 100 lines"}, {101, "more than once"}, {100, ""}} {
		cfg := config(s.URL)
		cfg.Landing = 100 * time.Millisecond
		cfg.Rows = func(context.Context, string, int64) (int64, error) { return c.rows, nil }
		r, err := Run(t.Context(), cfg)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || c.want == "" && r.Landed == 0 {
			t.Errorf("%d rows: %v", c.rows, err)
		}
	}
}

// A server that is not there is waited for, until somebody has enough of it.
func TestRunStops(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, config("http://"+listener.Addr().String())); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
}
