package query

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/shared/logs"
)

// dial opens a tail.
func (s *server) dial(t *testing.T, path string, headers ...string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	header := http.Header{"X-Scope-Orgid": {"acme"}}
	for i := 0; i < len(headers); i += 2 {
		header.Set(headers[i], headers[i+1])
	}
	conn, response, err := websocket.Dial(t.Context(), s.url+path, &websocket.DialOptions{HTTPHeader: header})
	if err == nil {
		t.Cleanup(func() { conn.CloseNow() })
	}
	return conn, response, err
}

// batches is a tail that sends these, and then waits for its end.
func batches(all ...engine.TailBatch) func(context.Context, engine.TailQuery, func(engine.TailBatch) error) error {
	return func(ctx context.Context, _ engine.TailQuery, send func(engine.TailBatch) error) error {
		for _, b := range all {
			if err := send(b); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}
}

func TestTailMessages(t *testing.T) {
	batch := engine.TailBatch{
		Entries: []engine.Entry{
			{Timestamp: 1, Line: "one", Stream: []logs.Label{label("app", "b")}, Metadata: []logs.Label{label("trace", "x")}},
			{Timestamp: 2, Line: "two", Stream: []logs.Label{label("app", "b")}, Metadata: []logs.Label{label("trace", "x")}},
			{Timestamp: 3, Line: "three", Stream: []logs.Label{label("app", "a")}},
			{Timestamp: 4, Line: "four", Stream: []logs.Label{label("app", "b")}},
		},
		Dropped: []engine.DroppedEntry{{Timestamp: 7, Labels: []logs.Label{label("app", "a")}}, {Timestamp: 8, Labels: []logs.Label{label("app", "b")}}},
	}
	one := engine.TailBatch{Entries: batch.Entries[2:3]}
	s := serve(t, &fake{tail: batches(batch, one)})
	query := []string{"query", `{app=~".+"}`}
	for _, c := range []struct {
		name, path string
		headers    []string
		want       [2]string
	}{
		{"as ever", v1 + "/tail", nil, [2]string{
			`{"streams":[{"stream":{"app":"b","trace":"x"},"values":[["1","one"],["2","two"]]},{"stream":{"app":"a"},"values":[["3","three"]]},` +
				`{"stream":{"app":"b"},"values":[["4","four"]]}],"dropped_entries":[{"labels":{"app":"a"},"timestamp":"7"},{"labels":{"app":"b"},"timestamp":"8"}]}`,
			`{"streams":[{"stream":{"app":"a"},"values":[["3","three"]]}]}`,
		}},
		{"categorized", v1 + "/tail", []string{encodingHeader, categorizeLabels}, [2]string{
			`{"streams":[{"stream":{"app":"b"},"values":[["1","one",{"structuredMetadata":{"trace":"x"}}],["2","two",{"structuredMetadata":{"trace":"x"}}]]},` +
				`{"stream":{"app":"a"},"values":[["3","three",{}]]},{"stream":{"app":"b"},"values":[["4","four",{}]]}],"encodingFlags":["categorize-labels"],` +
				`"dropped_entries":[{"labels":{"app":"a"},"timestamp":"7"},{"labels":{"app":"b"},"timestamp":"8"}]}`,
			`{"streams":[{"stream":{"app":"a"},"values":[["3","three",{}]]}],"encodingFlags":["categorize-labels"]}`,
		}},
		{"legacy", "/api/prom/tail", nil, [2]string{
			`{"streams":[{"labels":"{app=\"b\", trace=\"x\"}","entries":[{"ts":"1970-01-01T00:00:00.000000001Z","line":"one"},{"ts":"1970-01-01T00:00:00.000000002Z","line":"two"}]},` +
				`{"labels":"{app=\"a\"}","entries":[{"ts":"1970-01-01T00:00:00.000000003Z","line":"three"}]},` +
				`{"labels":"{app=\"b\"}","entries":[{"ts":"1970-01-01T00:00:00.000000004Z","line":"four"}]}],` +
				`"dropped_entries":[{"timestamp":"1970-01-01T00:00:00.000000007Z","labels":"{app=\"a\"}"},{"timestamp":"1970-01-01T00:00:00.000000008Z","labels":"{app=\"b\"}"}]}`,
			`{"streams":[{"labels":"{app=\"a\"}","entries":[{"ts":"1970-01-01T00:00:00.000000003Z","line":"three"}]}],"dropped_entries":[]}`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, _, err := s.dial(t, with(c.path, query...), c.headers...)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				_, got, err := conn.Read(t.Context())
				if err != nil || string(got) != want {
					t.Fatalf("the message is\n%s (%v), want\n%s", got, err, want)
				}
			}
			if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, func() bool { return testutil.ToFloat64(s.api.metrics.tails) == 0 })
	if entries, dropped := testutil.ToFloat64(s.api.metrics.entries), testutil.ToFloat64(s.api.metrics.dropped); entries != 15 || dropped != 6 {
		t.Errorf("%g entries and %g dropped are counted", entries, dropped)
	}
}

func TestTailQuery(t *testing.T) {
	asked := make(chan engine.TailQuery, 1)
	s := serve(t, &fake{tail: func(_ context.Context, q engine.TailQuery, _ func(engine.TailBatch) error) error {
		asked <- q
		return nil
	}})
	for _, c := range []struct {
		params  []string
		headers []string
		check   func(engine.TailQuery) bool
	}{
		{nil, nil, func(q engine.TailQuery) bool {
			return q.Limit == 100 && q.Delay == 0 && !q.WithLevel && time.Since(time.Unix(0, q.Start)).Round(time.Minute) == time.Hour
		}},
		{[]string{"limit", "5", "delay_for", "5", "start", "1700000000000000000"}, []string{encodingHeader, categorizeLabels}, func(q engine.TailQuery) bool {
			return q.Limit == 5 && q.Delay == 5*time.Second && q.WithLevel && q.Start == 1_700_000_000e9
		}},
	} {
		if _, _, err := s.dial(t, with(v1+"/tail", append(c.params, "query", `{app="a"} |= "x"`)...), c.headers...); err != nil {
			t.Fatal(err)
		}
		if q := <-asked; !c.check(q) || q.Tenant != "acme" || q.Expr.String() != `{app="a"} |= "x"` || q.Limits.MaxMemory != 1<<30 {
			t.Errorf("%v: asked is %+v", c.params, q)
		}
	}
}

func TestTailLimit(t *testing.T) {
	s := serve(t, &fake{tail: batches()})
	path := with(v1+"/tail", "query", `{app="a"}`)
	first, _, err := s.dial(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.dial(t, path); err != nil {
		t.Fatal(err)
	}
	status, body := s.get(t, path)
	if want := "max concurrent tail requests limit exceeded, count > limit (3 > 2)\n"; status != http.StatusTooManyRequests || body != want {
		t.Errorf("the third gets %d %s", status, body)
	}
	if _, _, err := s.dial(t, path, "X-Scope-OrgID", "other"); err != nil {
		t.Errorf("another tenant's: %v", err)
	}
	if err := first.CloseNow(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		_, _, err := s.dial(t, path)
		return err == nil
	})
}

// A page of somebody else's can't have a browser open a tail with what the browser knows.
func TestTailOrigin(t *testing.T) {
	s := serve(t, &fake{tail: batches()})
	path := with(v1+"/tail", "query", `{app="a"}`)
	if _, response, err := s.dial(t, path, "Origin", "https://evil.example"); err == nil || response.StatusCode != http.StatusForbidden {
		t.Errorf("it is let in: %v", err)
	}
	if _, _, err := s.dial(t, path, "Origin", s.url); err != nil {
		t.Errorf("one of this origin: %v", err)
	}
}

func TestTailEnds(t *testing.T) {
	s := serve(t, &fake{tail: func(_ context.Context, q engine.TailQuery, _ func(engine.TailBatch) error) error {
		return errors.New(strings.Repeat("NATS is away, ", 20))
	}})
	path := with(v1+"/tail", "query", `{app="a"}`)
	conn, _, err := s.dial(t, path)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = conn.Read(t.Context())
	if closed, ok := errors.AsType[websocket.CloseError](err); !ok || closed.Code != websocket.StatusInternalError || !strings.HasPrefix(closed.Reason, "NATS is away") {
		t.Errorf("it ends by %v", err)
	}

	s = serve(t, &fake{tail: batches()})
	if conn, _, err = s.dial(t, path); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.api.Close()
	}()
	_, _, err = conn.Read(t.Context())
	if websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("it ends by %v", err)
	}
	<-closed
	if status, body := s.get(t, path); status != http.StatusServiceUnavailable {
		t.Errorf("after the end: %d %s", status, body)
	}
}

// What is there already is asked for by turn.
func TestTailTurn(t *testing.T) {
	turned := make(chan error, 1)
	s := serve(t, &fake{tail: func(ctx context.Context, q engine.TailQuery, _ func(engine.TailBatch) error) error {
		done, err := q.Turn(ctx)
		if err == nil {
			done()
		}
		turned <- err
		return nil
	}})
	s.limits.Concurrency = 1
	leave, err := s.api.queue.enter(t.Context(), "acme", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.dial(t, with(v1+"/tail", "query", `{app="a"}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { _, waiting := s.api.queue.state(); return waiting == 1 })
	leave()
	if err := <-turned; err != nil {
		t.Error(err)
	}
	eventually(t, func() bool { running, waiting := s.api.queue.state(); return running+waiting == 0 })
}

// A client that does not read is let go.
func TestTailSlow(t *testing.T) {
	ended := make(chan error, 1)
	batch := engine.TailBatch{Entries: entriesOf(1000, 10_000)}
	s := serve(t, &fake{tail: func(_ context.Context, _ engine.TailQuery, send func(engine.TailBatch) error) error {
		var err error
		for err == nil {
			err = send(batch)
		}
		ended <- err
		return err
	}})
	s.api.patient = 100 * time.Millisecond
	if _, _, err := s.dial(t, with(v1+"/tail", "query", `{app="a"}`)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it never ends")
	}
}
