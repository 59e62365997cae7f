package query

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// Defaults of what is detected, as Loki has them.
const (
	defaultFields     = 1000 // or values of a field
	defaultFieldLines = 100
)

// scope is the streams and the time of a question about streams.
func (q *question) scope(since time.Duration) engine.Scope {
	start, end := q.span(since)
	q.within(time.Duration(end - start))
	return engine.Scope{
		Tenant: q.Tenant, Limits: q.engineLimits(), Start: start, End: end, Matchers: q.matchers(q.text("query")),
	}
}

// names asks for a list of strings, and writes them between two pieces of JSON.
func names(before, after string, find func(context.Context) ([]string, error)) answer {
	return func(ctx context.Context, w *writer) error {
		found, err := find(ctx)
		if err != nil {
			return err
		}
		w.raw(before)
		w.texts(found)
		w.raw(after)
		return nil
	}
}

// selected is the scope of a question that has to select streams.
func (q *question) selected() engine.Scope {
	scope := q.scope(defaultSince)
	if !q.has("query") {
		q.fail("query: a selector of streams is needed here, such as {app=\"api\"}")
	}
	return scope
}

const success = `{"status":"success","data":`

func (a *API) labels(q *question) (answer, error) {
	scope := q.scope(defaultSinceNames)
	return names(success, "}", func(ctx context.Context) ([]string, error) { return a.cfg.Engine.Labels(ctx, scope) }), nil
}

func (a *API) labelValues(q *question) (answer, error) {
	if !logs.ValidLabelName(q.name) {
		return nil, badParameter("label name %q does not match [a-zA-Z_][a-zA-Z0-9_]*", logs.Clip(q.name))
	}
	scope := q.scope(defaultSinceNames)
	return names(success, "}", func(ctx context.Context) ([]string, error) { return a.cfg.Engine.LabelValues(ctx, scope, q.name) }), nil
}

func (a *API) series(q *question) (answer, error) {
	scope := q.scope(defaultSinceNames)
	var selectors [][]logql.Matcher
	for _, selector := range slices.Concat(q.values["match[]"], q.values["match"]) {
		selectors = append(selectors, q.matchers(selector))
	}
	if len(selectors) == 0 {
		selectors = append(selectors, scope.Matchers)
	}
	return func(ctx context.Context, w *writer) error {
		found, err := a.cfg.Engine.Series(ctx, scope, selectors)
		if err != nil {
			return err
		}
		w.raw(success + "[")
		for i, labels := range found {
			w.comma(i)
			w.labels(labels)
		}
		w.raw("]}")
		return nil
	}, nil
}

func (a *API) indexStats(q *question) (answer, error) {
	scope := q.selected()
	return func(ctx context.Context, w *writer) error {
		found, err := a.cfg.Engine.IndexStats(ctx, scope)
		if err != nil {
			return err
		}
		w.raw(`{"streams":`)
		w.count(found.Streams)
		w.raw(`,"chunks":`)
		w.count(found.Chunks)
		w.raw(`,"bytes":`)
		w.count(found.Bytes)
		w.raw(`,"entries":`)
		w.count(found.Entries)
		w.raw("}")
		return nil
	}, nil
}

func (a *API) volume(q *question) (answer, error) { return a.volumes(q, false) }

func (a *API) volumeRange(q *question) (answer, error) { return a.volumes(q, true) }

// volumes reads a question for how many bytes of lines there are, in all or by steps.
func (a *API) volumes(q *question, ranged bool) (answer, error) {
	query := engine.VolumeQuery{Scope: q.selected(), Limit: q.count("limit", defaultLimit)}
	if most := q.Limits.MaxSeries; query.Limit > most {
		q.fail("limit: at most %d series are possible", most)
	}
	if labels := q.text("targetLabels"); labels != "" {
		query.TargetLabels = strings.Split(labels, ",")
		for _, name := range query.TargetLabels {
			if !logs.ValidLabelName(name) {
				q.fail("targetLabels: %q does not match [a-zA-Z_][a-zA-Z0-9_]*", logs.Clip(name))
			}
		}
	}
	switch by := q.text("aggregateBy"); by {
	case "", "series":
	case "labels":
		query.ByLabels = true
	default:
		q.fail("invalid aggregation option %q; series and labels are possible", logs.Clip(by))
	}
	if ranged {
		query.Step = q.step(query.Start, query.End)
		if q.err != nil {
			return nil, q.err
		}
		query.Start, query.End = aligned(query.Start, query.End, query.Step)
	}
	return func(ctx context.Context, w *writer) error {
		found, err := a.cfg.Engine.Volume(ctx, query)
		if err != nil {
			return err
		}
		kind := "vector"
		if ranged {
			kind = "matrix"
		}
		stats := engine.Stats{Took: time.Since(q.now) - q.queued, Queued: q.queued, Returned: uint64(len(found))}
		w.result(kind, false, nil, &stats, func() { w.volumes(found, ranged) })
		return nil
	}, nil
}

func (w *writer) volumes(found []engine.Volume, ranged bool) {
	w.raw("[")
	n := 0
	for _, v := range found {
		if len(v.Points) == 0 {
			continue
		}
		w.comma(n)
		n++
		w.raw(`{"metric":`)
		w.labels(v.Labels)
		if ranged {
			w.raw(`,"values":[`)
		} else {
			w.raw(`,"value":`)
			v.Points = v.Points[:1]
		}
		for i, p := range v.Points {
			w.comma(i)
			w.raw("[")
			w.at(p.Time)
			w.raw(`,"`)
			w.count(p.Bytes)
			w.raw(`"]`)
		}
		if ranged {
			w.raw("]")
		}
		w.raw("}")
	}
	w.raw("]")
}

func (a *API) detectedLabels(q *question) (answer, error) {
	scope := q.scope(defaultSince)
	return func(ctx context.Context, w *writer) error {
		found, err := a.cfg.Engine.DetectedLabels(ctx, scope)
		if err != nil {
			return err
		}
		w.raw(`{"detectedLabels":[`)
		for i, l := range found {
			w.comma(i)
			w.raw(`{"label":`)
			w.text(l.Name)
			w.raw(`,"cardinality":`)
			w.count(l.Cardinality)
			w.raw("}")
		}
		w.raw("]}")
		return nil
	}, nil
}

// detected reads what is asked about fields: a log query, how many of its lines are looked at, and how many fields or values are wanted.
func (q *question) detected() (query engine.Query, expr *logql.LogExpr, limit int, err error) {
	if expr, err = q.parseLog(); err != nil {
		return query, nil, 0, err
	}
	start, end := q.span(defaultSince)
	q.within(time.Duration(end - start))
	query = engine.Query{Tenant: q.Tenant, Limits: q.engineLimits(), Start: start, End: end, Limit: q.count("line_limit", defaultFieldLines)}
	if most := q.Limits.MaxEntries; most > 0 {
		query.Limit = min(query.Limit, most)
	}
	limit = q.count("limit", q.count("field_limit", defaultFields))
	return query, expr, limit, nil
}

func (a *API) detectedFields(q *question) (answer, error) {
	query, expr, limit, err := q.detected()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w *writer) error {
		found, err := a.cfg.Engine.DetectedFields(ctx, query, expr)
		if err != nil {
			return err
		}
		w.raw(`{"fields":[`)
		for i, f := range found[:min(len(found), limit)] {
			w.comma(i)
			w.field(&f)
		}
		w.raw(`],"limit":`)
		w.integer(int64(limit))
		w.raw("}")
		return nil
	}, nil
}

func (w *writer) field(f *engine.DetectedField) {
	w.raw(`{"label":`)
	w.text(f.Label)
	w.raw(`,"type":`)
	w.text(f.Type)
	w.raw(`,"cardinality":`)
	w.count(f.Cardinality)
	w.raw(`,"parsers":`)
	if f.Parsers == nil {
		w.raw("null") // as Loki says of metadata
	} else {
		w.texts(f.Parsers)
	}
	if len(f.JSONPath) > 0 {
		w.raw(`,"jsonPath":`)
		w.texts(f.JSONPath)
	}
	w.raw("}")
}

func (a *API) detectedFieldValues(q *question) (answer, error) {
	query, expr, limit, err := q.detected()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w *writer) error {
		found, err := a.cfg.Engine.DetectedFieldValues(ctx, query, expr, q.name, limit)
		if err != nil {
			return err
		}
		w.raw(`{"values":`)
		w.texts(found)
		w.raw(`,"limit":`)
		w.integer(int64(limit))
		w.raw("}")
		return nil
	}, nil
}

func (a *API) patterns(q *question) (answer, error) {
	expr, err := q.parseLog()
	if err != nil {
		return nil, err
	}
	start, end := q.span(defaultSince)
	q.within(time.Duration(end - start))
	query := engine.Query{
		Tenant: q.Tenant, Limits: q.engineLimits(), Start: start, End: end, Step: q.step(start, end),
	}
	return func(ctx context.Context, w *writer) error {
		found, err := a.cfg.Engine.Patterns(ctx, query, expr)
		if err != nil {
			return err
		}
		w.raw(success + "[")
		for i, p := range found {
			w.comma(i)
			w.pattern(&p)
		}
		w.raw("]}")
		return nil
	}, nil
}

func (w *writer) pattern(p *engine.Pattern) {
	w.raw(`{"pattern":`)
	w.text(p.Pattern)
	if p.Level != "" {
		w.raw(`,"level":`)
		w.text(p.Level)
	}
	w.raw(`,"samples":[`)
	for i, s := range p.Samples {
		w.comma(i)
		w.raw("[")
		w.integer(s.Time)
		w.raw(",")
		w.integer(s.Count)
		w.raw("]")
	}
	w.raw("]}")
}
