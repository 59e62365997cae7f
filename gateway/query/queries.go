package query

import (
	"cmp"
	"context"
	"math"
	"time"

	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/gateway/logql"
)

// parse reads the query.
func (q *question) parse() (logql.Expr, error) { return logql.Parse(q.text("query")) }

// parseLog reads a query that has to be one for logs.
func (q *question) parseLog() (*logql.LogExpr, error) { return parseLog(q.text("query")) }

func parseLog(query string) (*logql.LogExpr, error) {
	expr, err := logql.Parse(query)
	if err != nil {
		return nil, err
	}
	selected, ok := expr.(*logql.LogExpr)
	if !ok {
		return nil, badParameter("a log query is needed here, such as {app=\"api\"}; this one computes a metric")
	}
	return selected, nil
}

// entries is how many are wanted, which a tenant's limit may forbid.
func (q *question) entries() int {
	most := cmp.Or(q.Limits.MaxEntries, math.MaxInt)
	limit := q.count("limit", min(defaultLimit, most))
	if limit > most {
		q.fail("max entries limit per query exceeded, limit > max_entries_limit_per_query (%d > %d)", limit, most)
	}
	return limit
}

// within holds a span against the tenant's limit.
func (q *question) within(span time.Duration) {
	if most := q.Limits.MaxRange; most > 0 && span > most {
		q.fail("the query time range exceeds the limit (query length: %s, limit: %s)", span.Round(time.Second), most)
	}
}

// instant reads a query for one point in time.
func (a *API) instant(q *question) (answer, error) {
	expr, err := q.parse()
	if err != nil {
		return nil, err
	}
	if _, ok := expr.(*logql.LogExpr); ok {
		return nil, errInstant
	}
	at := q.time("time", q.now.UnixNano())
	_, _ = q.count("limit", defaultLimit), q.forward() // they change nothing, and are good or not all the same
	q.within(longest(expr))
	return a.metric(q, expr, engine.Query{Start: at, End: at}), nil
}

// ranged reads a query for a range of time.
func (a *API) ranged(q *question) (answer, error) {
	expr, err := q.parse()
	if err != nil {
		return nil, err
	}
	start, end := q.span(defaultSince)
	if selected, ok := expr.(*logql.LogExpr); ok {
		return a.logs(q, selected, start, end, a.writeLogs(q)), nil
	}
	q.within(time.Duration(end-start) + longest(expr))
	step := q.step(start, end)
	if q.err != nil {
		return nil, q.err
	}
	start, end = aligned(start, end, step)
	return a.metric(q, expr, engine.Query{Start: start, End: end, Step: step}), nil
}

// aligned widens a span to multiples of the step, as Loki does: points stay where they are while the span moves on with now, and the last
// one has all that is before the end.
func aligned(start, end, step int64) (first, last int64) {
	over := func(t int64) int64 { return (t%step + step) % step } // also before 1970
	first, last = start-over(start), end
	if rest := over(end); rest > 0 && end <= math.MaxInt64-step {
		last = end - rest + step
	}
	return first, last
}

// logs asks for entries, which write then writes.
func (a *API) logs(q *question, expr *logql.LogExpr, start, end int64, write func(*writer, *engine.Logs)) answer {
	query := engine.Query{
		Tenant: q.Tenant, Limits: q.engineLimits(), Start: start, End: end,
		Limit: q.entries(), Forward: q.forward(), Interval: int64(q.duration("interval", 0)), WithLevel: q.categorizes(),
	}
	if query.Interval < 0 {
		q.fail("interval must be >= 0")
	}
	if q.has("step") {
		if step := q.duration("step", 0); step <= 0 {
			q.fail("zero or negative query resolution step widths are not accepted. Try a positive integer")
		}
	}
	q.within(time.Duration(end - start))
	return func(ctx context.Context, w *writer) error {
		found, err := a.cfg.Engine.Logs(ctx, query, expr)
		if err != nil {
			return err
		}
		found.Stats.Queued = q.queued
		a.metrics.read(found.Stats)
		a.metrics.entries.Add(float64(len(found.Entries)))
		write(w, found)
		return nil
	}
}

// writeLogs writes entries as they are asked for.
func (*API) writeLogs(q *question) func(*writer, *engine.Logs) {
	categorized := q.categorizes()
	return func(w *writer, found *engine.Logs) {
		w.result("streams", categorized, found.Warnings, &found.Stats, func() { w.streams(streamsOf(found.Entries, categorized), categorized) })
	}
}

// metric asks for series. query has the time.
func (a *API) metric(q *question, expr logql.Expr, query engine.Query) answer {
	query.Tenant, query.Limits = q.Tenant, q.engineLimits()
	query.Limit = 1 // there are no entries to limit
	return func(ctx context.Context, w *writer) error {
		found, err := a.cfg.Engine.Metric(ctx, query, expr)
		if err != nil {
			return err
		}
		found.Stats.Queued = q.queued
		a.metrics.read(found.Stats)
		w.metric(found, query.Step == 0)
		return nil
	}
}

// longest is how far back from a point in time a metric query looks.
func longest(expr logql.Expr) time.Duration {
	switch e := expr.(type) {
	case *logql.RangeAgg:
		return max(e.Range+e.Offset, 0)
	case *logql.VectorAgg:
		return longest(e.Expr)
	case *logql.BinaryExpr:
		return max(longest(e.Left), longest(e.Right))
	case *logql.LabelReplace:
		return longest(e.Expr)
	case *logql.Variants:
		most := e.Range
		for _, of := range e.Of {
			most = max(most, longest(of))
		}
		return most
	}
	return 0
}
