package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// Metric answers a metric query.
func (e *Engine) Metric(ctx context.Context, q Query, expr logql.Expr) (*Metric, error) {
	began := time.Now()
	q.Limits = q.Limits.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, q.Limits.Timeout)
	defer cancel()
	answer := new(Metric)
	grid := series.Grid{Start: q.Start, End: q.End, Step: q.Step}
	withLevel := namesLevel(expr)
	value, err := series.Evaluate(groupEarly(expr), grid, q.Limits.MaxSeries, func(agg *logql.RangeAgg) ([]series.Series, error) {
		r, err := e.newRangeQuery(ctx, q, agg, grid, withLevel, answer)
		if err != nil {
			return nil, err
		}
		return r.run(ctx)
	})
	if err != nil {
		return nil, err
	}
	answer.Value = *value
	answer.Stats.Took = time.Since(began)
	for _, s := range answer.Series {
		answer.Stats.Returned += uint64(len(s.Points))
	}
	return answer, nil
}

// groupEarly lets a range aggregation group its samples as the vector aggregation around it is going to, where the one of the other is the
// same as the one of all: a sum of sums, a maximum of maxima. There are fewer series then, and labels that nobody asks for need not be known.
func groupEarly(expr logql.Expr) logql.Expr {
	switch expr := expr.(type) {
	case *logql.VectorAgg:
		agg := *expr
		of, ok := expr.Expr.(*logql.RangeAgg)
		if !ok || of.Grouping != nil || !isAssociative(expr.Op, of) {
			agg.Expr = groupEarly(expr.Expr)
			return &agg
		}
		grouped := *of
		if grouped.Grouping = expr.Grouping; grouped.Grouping == nil {
			grouped.Grouping = &logql.Grouping{}
		}
		agg.Expr = &grouped
		return &agg
	case *logql.BinaryExpr:
		binary := *expr
		binary.Left, binary.Right = groupEarly(expr.Left), groupEarly(expr.Right)
		return &binary
	case *logql.LabelReplace:
		replace := *expr
		replace.Expr = groupEarly(expr.Expr)
		return &replace
	}
	return expr
}

func isAssociative(op logql.VectorOp, of *logql.RangeAgg) bool {
	switch of.Op {
	case logql.Rate, logql.CountOverTime, logql.BytesRate, logql.BytesOverTime, logql.SumOverTime:
		return op == logql.Sum
	case logql.MinOverTime:
		return op == logql.Min
	case logql.MaxOverTime:
		return op == logql.Max
	}
	return false
}

// rangeQuery is a range aggregation that is being computed.
type rangeQuery struct {
	e      *Engine
	q      Query
	agg    *logql.RangeAgg
	window series.Window
	lines  *liner
	unwrap *pipeline.Unwrap // nil: none
	sums   *series.Accumulator
	stats  *Stats

	cut        *cut.Cut // without lines where only their lengths count
	omitsLines bool
	streams    map[uint64]*stream
	labels     []logs.Label // of the sample that is being added
}

func (e *Engine) newRangeQuery(ctx context.Context, q Query, agg *logql.RangeAgg, grid series.Grid, withLevel bool, answer *Metric) (*rangeQuery, error) {
	window := series.WindowOf(agg, grid)
	after, to := window.Span()
	r := &rangeQuery{
		e: e, q: q, agg: agg, window: window, stats: &answer.Stats,
		sums: series.NewAccumulator(agg, window, q.Limits.MaxSeries, q.Limits.MaxMemory),
	}
	r.q.Start, r.q.End = after+1, to+1
	var err error
	if r.lines, err = newLiner(agg.Log.Stages, withLevel, r.stats); err != nil {
		return nil, err
	}
	if agg.Unwrap != nil {
		if r.unwrap, err = pipeline.NewUnwrap(agg.Unwrap); err != nil {
			return nil, &Error{err.Error()}
		}
	}
	r.lines.pipeline.Need(r.needs())
	scope := Scope{Tenant: q.Tenant, Limits: q.Limits, Start: r.q.Start, End: r.q.End, Matchers: agg.Log.Matchers}
	r.omitsLines = len(agg.Log.Stages) == 0 && !r.lines.withLevel
	if r.cut, err = e.makeCut(ctx, scope, cut.Request{OmitLines: r.omitsLines}, agg.Log.Stages, r.stats); err != nil {
		return nil, err
	}
	for _, warning := range r.cut.Warnings {
		if !slices.Contains(answer.Warnings, warning) {
			answer.Warnings = append(answer.Warnings, warning)
		}
	}
	r.streams, err = e.streams(ctx, scope, r.cut, r.stats)
	return r, err
}

// namesLevel tells whether a query names the level of entries, which it has only then.
func namesLevel(expr logql.Expr) bool {
	found := false
	names := func(labels ...string) { found = found || slices.Contains(labels, pipeline.LevelLabel) }
	logql.Walk(expr, func(e logql.Expr) {
		switch e := e.(type) {
		case *logql.LogExpr:
			found = found || pipeline.NeedsLevel(e.Stages)
		case *logql.RangeAgg:
			if e.Grouping != nil {
				names(e.Grouping.Labels...)
			}
			if e.Unwrap != nil {
				names(e.Unwrap.Label)
				for _, filter := range e.Unwrap.Filters {
					found = found || pipeline.NeedsLevel([]logql.Stage{filter})
				}
			}
		case *logql.VectorAgg:
			if e.Grouping != nil {
				names(e.Grouping.Labels...)
			}
		case *logql.BinaryExpr:
			if e.Matching != nil {
				names(e.Matching.Labels...)
				names(e.Matching.Include...)
			}
		case *logql.LabelReplace:
			names(e.Source)
		}
	})
	return found
}

// needs are the labels that are needed once the pipeline is done; nil: all.
func (r *rangeQuery) needs() []string {
	g := r.agg.Grouping
	if g == nil || g.Without {
		return nil
	}
	names := append([]string{}, g.Labels...)
	if r.agg.Unwrap == nil {
		return names
	}
	if len(r.agg.Unwrap.Filters) > 0 {
		return nil
	}
	return append(names, r.agg.Unwrap.Label)
}

// run computes it: of what is not in ClickHouse yet, and of what is.
func (r *rangeQuery) run(ctx context.Context) ([]series.Series, error) {
	for i := range r.cut.Entries {
		entry := &r.cut.Entries[i]
		of := r.streams[logs.StreamID(r.q.Tenant, entry.Labels)]
		if err := r.sample(positionOf(entry), of, entry.Line, entry.Length, entry.Metadata); err != nil {
			return nil, err
		}
	}
	for _, part := range r.parts() {
		if err := r.table(ctx, part[0], part[1]); err != nil {
			return nil, err
		}
	}
	return r.sums.Series(), nil
}

// parts divides the time in those in which there are entries of the cut, and those in which there are none, for which ClickHouse has less
// to read.
func (r *rangeQuery) parts() [][2]int64 {
	if len(r.cut.Entries) == 0 {
		return [][2]int64{{r.q.Start, r.q.End}}
	}
	first, last := r.cut.Entries[0].Timestamp, r.cut.Entries[0].Timestamp
	for i := range r.cut.Entries {
		first, last = min(first, r.cut.Entries[i].Timestamp), max(last, r.cut.Entries[i].Timestamp)
	}
	var parts [][2]int64
	for _, part := range [][2]int64{{r.q.Start, first}, {first, last + 1}, {last + 1, r.q.End}} {
		if part[0] < part[1] {
			parts = append(parts, part)
		}
	}
	return parts
}

// sample adds what an entry comes to.
func (r *rangeQuery) sample(at series.Position, of *stream, line []byte, length int, metadata []logs.Label) error {
	if of == nil {
		return nil
	}
	line, keep := r.lines.process(at.Time, line, of.labels, metadata)
	if !keep {
		return nil
	}
	labels := &r.lines.labels
	value := 1.0
	switch {
	case r.unwrap != nil:
		if value, keep = r.unwrap.Sample(at.Time, line, labels); !keep {
			return nil
		}
	case r.agg.Op == logql.BytesOverTime || r.agg.Op == logql.BytesRate:
		if value = float64(length); !r.omitsLines {
			value = float64(len(line))
		}
	}
	if name, _ := labels.Err(); name != "" {
		return &Error{fmt.Sprintf("pipeline error: '%s' for series: '%s'.\n"+
			"Use a label filter to intentionally skip this error. (e.g | __error__!=\"%[1]s\").\n"+
			"To skip all potential errors you can match empty errors.(e.g __error__=\"\")\n"+
			"The label filter can also be specified after unwrap. (e.g | unwrap latency | __error__=\"\" )\n", name, selectorOf(labels.Append(nil)))}
	}
	if g := r.agg.Grouping; g != nil {
		r.labels = labels.Group(r.labels[:0], g.Labels, g.Without)
	} else {
		r.labels = slices.DeleteFunc(labels.Append(r.labels[:0]), func(l logs.Label) bool { return l.Value == "" })
	}
	return r.sums.Add(r.labels, at, value)
}

// selectorOf writes labels as a selector.
func selectorOf(labels []logs.Label) string {
	pairs := make([]string, len(labels))
	for i, l := range labels {
		pairs[i] = fmt.Sprintf("%s=%q", l.Name, l.Value)
	}
	return "{" + strings.Join(pairs, ", ") + "}"
}

// table computes it of rows: in ClickHouse of those that it is certain about, here of the others.
func (r *rangeQuery) table(ctx context.Context, from, to int64) error {
	s := r.e.rowsOf(r.q.Tenant, r.streams, r.cut, from, to)
	if s == nil {
		return nil
	}
	f := newSift(s, r.streams, r.agg.Log.Stages, true)
	if sum, ok := r.newSum(f); !ok {
		f.exact = false
	} else if f.exact {
		all := s.clone()
		all.and(f.all()...)
		sum.write(all, f)
		if isWhole, err := sum.read(ctx, all); isWhole || err != nil {
			return err
		}
	}
	s.and(f.rest()...)
	return r.readRows(ctx, s)
}

func (r *rangeQuery) readRows(ctx context.Context, s *statement) error {
	block := newRows()
	s.columns = rowColumns
	return r.e.read(ctx, s, r.q.Limits, r.stats, block.result(), func(n int) error {
		for i := range n {
			line := block.line.RowBytes(i)
			if err := r.sample(block.at(i), r.streams[block.stream[i]], line, len(line), block.metadataOf(i)); err != nil {
				return err
			}
		}
		return nil
	})
}
