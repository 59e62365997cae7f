package query

import (
	"strconv"
	"time"

	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// What stands under /api/prom is how Loki's API was before version 1. Entries have times as RFC 3339, and streams have labels as they are written in a
// selector.

// legacyQuery reads a log query, or a selector with a regular expression beside it.
func (a *API) legacyQuery(q *question) (answer, error) {
	expr, err := q.parseLog()
	if err != nil {
		return nil, err
	}
	if q.has("regexp") {
		filter := &logql.LineFilter{Op: logql.LineMatches, Alternatives: []logql.LinePattern{{Value: q.text("regexp")}}}
		// Read back, it is checked as any other.
		if expr, err = parseLog((&logql.LogExpr{Matchers: expr.Matchers, Stages: append([]logql.Stage{filter}, expr.Stages...)}).String()); err != nil {
			return nil, err
		}
	}
	start, end := q.span(defaultSince)
	return a.logs(q, expr, start, end, func(w *writer, found *engine.Logs) {
		w.raw(`{"streams":`)
		w.legacyStreams(streamsOf(found.Entries, false))
		w.raw(`,"stats":`)
		w.stats(&found.Stats)
		w.raw("}")
	}), nil
}

func (w *writer) legacyStreams(streams []*stream) {
	w.raw("[")
	for i, s := range streams {
		w.comma(i)
		w.raw(`{"labels":`)
		w.text(selector(s.labels))
		w.raw(`,"entries":[`)
		for j, e := range s.entries {
			w.comma(j)
			w.raw(`{"ts":"`)
			w.date(e.Timestamp)
			w.raw(`","line":`)
			w.text(e.Line)
			w.raw("}")
		}
		w.raw("]}")
	}
	w.raw("]")
}

func (w *writer) date(unixNano int64) {
	w.buf = time.Unix(0, unixNano).UTC().AppendFormat(w.buf, time.RFC3339Nano)
}

// selector is labels as they are written in one.
func selector(labels []logs.Label) string {
	out := []byte{'{'}
	for i, l := range labels {
		if i > 0 {
			out = append(out, ", "...)
		}
		out = append(append(out, l.Name...), '=')
		out = strconv.AppendQuote(out, l.Value)
	}
	return string(append(out, '}'))
}

func (w *writer) legacyTail(batch engine.TailBatch, _ bool) {
	w.raw(`{"streams":`)
	w.legacyStreams(runsOf(batch.Entries, false))
	w.raw(`,"dropped_entries":[`)
	for i, d := range batch.Dropped {
		w.comma(i)
		w.raw(`{"timestamp":"`)
		w.date(d.Timestamp)
		w.raw(`","labels":`)
		w.text(selector(d.Labels))
		w.raw("}")
	}
	w.raw("]}")
}
