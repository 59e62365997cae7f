package query

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/shared/logs"
)

// How long a tail may hold entries back, as Loki bounds it; how long a message may take to be sent; how often a client is asked whether
// it is there, which also keeps proxies from closing a connection that is quiet.
const (
	maxTailDelay = 5 * time.Second
	tailWrite    = 10 * time.Second
	tailPing     = 15 * time.Second
)

// tails counts those that are open.
type tails struct {
	serving sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[string]int // by tenant
}

// tailLimitError is one tail more than a tenant may have.
type tailLimitError struct{ open, most int }

func (e *tailLimitError) Error() string {
	return fmt.Sprintf("max concurrent tail requests limit exceeded, count > limit (%d > %d)", e.open, e.most)
}

// enter counts a tail. Call leave at its end.
func (t *tails) enter(tenant string, most int) (leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return nil, errClosing
	case t.open[tenant] >= most:
		return nil, &tailLimitError{t.open[tenant] + 1, most}
	case t.open == nil:
		t.open = map[string]int{}
	}
	t.open[tenant]++
	t.serving.Add(1)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.open[tenant]--; t.open[tenant] == 0 {
			delete(t.open, tenant)
		}
		t.serving.Done()
	}, nil
}

// close lets no more in, and returns when all that are open have ended.
func (t *tails) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.serving.Wait()
}

// tailWriter writes a message of a tail as JSON.
type tailWriter func(w *writer, batch engine.TailBatch, categorized bool)

// serveTail sends entries over a WebSocket as they are pushed. What is wrong is told before there is one.
func (a *API) serveTail(identify func(*http.Request) (Caller, error), message tailWriter) echo.HandlerFunc {
	return func(c echo.Context) error {
		q, err := a.ask(c, identify)
		if err == nil {
			err = a.tail(c, q, message)
		}
		status := http.StatusSwitchingProtocols
		if err != nil {
			a.refuse(c, q, err)
			status = c.Response().Status
		}
		a.metrics.answered(endpointTail, status, 0)
		return nil
	}
}

// tail returns an error where there is no WebSocket yet.
func (a *API) tail(c echo.Context, q *question, message tailWriter) error {
	query, err := a.readTail(q)
	if err != nil {
		return err
	}
	if a.cfg.Engine == nil {
		return errNoEngine
	}
	leave, err := a.tails.enter(q.Tenant, q.Limits.MaxTails)
	if err != nil {
		return err
	}
	defer leave()
	// Whoever is led here by a page of somebody else's is refused by its origin: a browser would send along the password that it knows.
	conn, err := websocket.Accept(c.Response(), c.Request(), nil)
	if err != nil {
		a.log.Debug("a tail could not be opened", "error", err)
		return nil // it has been answered
	}
	defer func() { _ = conn.CloseNow() }()
	a.metrics.tails.Inc()
	defer a.metrics.tails.Dec()
	a.follow(conn, q, query, message)
	return nil
}

func (a *API) readTail(q *question) (engine.TailQuery, error) {
	expr, err := q.parseLog()
	if err != nil {
		return engine.TailQuery{}, err
	}
	query := engine.TailQuery{
		Query: engine.Query{
			Tenant: q.Tenant, Limits: q.engineLimits(), Limit: q.entries(), Forward: true, WithLevel: q.categorizes(),
			Start: q.time("start", q.now.Add(-defaultSince).UnixNano()), End: q.now.UnixNano(),
		},
		Expr: expr,
		// Of what is there already tails ask as queries do: a hundred that are opened at once are not a hundred queries at once.
		Turn: func(ctx context.Context) (func(), error) {
			ctx, cancel := context.WithTimeoutCause(ctx, q.Limits.Timeout, &timeoutError{q.Limits.Timeout})
			defer cancel()
			leave, err := a.queue.enter(ctx, q.Tenant, q.Limits.Concurrency)
			return leave, cause(ctx, err)
		},
	}
	if text := q.text("delay_for"); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			q.fail("delay_for: %q is not a whole number of seconds", text)
		}
		if query.Delay = time.Duration(seconds) * time.Second; query.Delay > maxTailDelay {
			q.fail("delay_for can't be greater than %d", maxTailDelay/time.Second)
		}
	}
	return query, q.err
}

// follow sends entries until the client goes, the gateway shuts down, or the tail fails.
func (a *API) follow(conn *websocket.Conn, q *question, query engine.TailQuery, message tailWriter) {
	ctx, cancel := context.WithCancel(conn.CloseRead(context.Background())) // clients send nothing
	defer cancel()
	defer context.AfterFunc(a.closing, cancel)()
	var pinging sync.WaitGroup
	pinging.Go(func() { ping(ctx, conn, cancel) })
	defer pinging.Wait()
	defer cancel()

	categorized := q.categorizes()
	var w writer
	err := a.cfg.Engine.Tail(ctx, query, func(batch engine.TailBatch) error {
		w.buf = w.buf[:0]
		message(&w, batch, categorized)
		a.metrics.entries.Add(float64(len(batch.Entries)))
		a.metrics.dropped.Add(float64(len(batch.Dropped)))
		sending, done := context.WithTimeout(ctx, a.patient)
		defer done()
		err := conn.Write(sending, websocket.MessageText, w.buf)
		if cap(w.buf) > maxPooled {
			w.buf = nil
		}
		return err
	})
	switch {
	case a.closing.Err() != nil:
		_ = conn.Close(websocket.StatusGoingAway, errClosing.Error())
	case err != nil && ctx.Err() == nil:
		a.warn(q, judge(err).status, err)
		const most = 123 // bytes of a reason (RFC 6455, section 5.5)
		reason := err.Error()
		_ = conn.Close(websocket.StatusInternalError, reason[:min(len(reason), most)])
	}
}

// ping asks the client whether it is there, and calls gone if it is not.
func ping(ctx context.Context, conn *websocket.Conn, gone func()) {
	ticker := time.NewTicker(tailPing)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		waiting, done := context.WithTimeout(ctx, tailWrite)
		err := conn.Ping(waiting)
		done()
		if err != nil {
			gone()
			return
		}
	}
}

// runsOf are entries in their order, those together that follow each other and have the same labels.
func runsOf(entries []engine.Entry, categorized bool) []*stream {
	var runs []*stream
	var labels []logs.Label
	for i := range entries {
		labels = appendLabels(labels[:0], &entries[i], categorized)
		if n := len(runs); n == 0 || !slices.Equal(runs[n-1].labels, labels) {
			runs = append(runs, &stream{labels: slices.Clone(labels)})
		}
		run := runs[len(runs)-1]
		run.entries = append(run.entries, &entries[i])
	}
	return runs
}

func (w *writer) tail(batch engine.TailBatch, categorized bool) {
	w.raw(`{"streams":`)
	w.streams(runsOf(batch.Entries, categorized), categorized)
	w.flags(categorized)
	for i, d := range batch.Dropped {
		if i == 0 {
			w.raw(`,"dropped_entries":[`)
		} else {
			w.raw(",")
		}
		w.raw(`{"labels":`)
		w.labels(d.Labels)
		w.raw(`,"timestamp":`)
		w.nanos(d.Timestamp)
		w.raw("}")
	}
	if len(batch.Dropped) > 0 {
		w.raw("]")
	}
	w.raw("}")
}
