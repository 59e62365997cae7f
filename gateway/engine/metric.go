package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

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
	sum, ok := r.newSum(f)
	if !ok {
		f.exact = false
	}
	if rest := f.rest(); rest != nil {
		part := s.clone()
		part.and(rest...)
		if err := r.readRows(ctx, part); err != nil {
			return err
		}
	}
	if !f.exact {
		return nil
	}
	s.and(f.certain()...)
	return sum.read(ctx, s)
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

// sum is a range aggregation in ClickHouse.
type sum struct {
	r         *rangeQuery
	labels    []string // names of labels that series are grouped by, whose values are in groups
	groups    []string // expressions
	byStream  bool     // grouped by stream, and so by labels of streams
	unwrapped string   // expression of the value, as text; empty: none
}

// newSum plans how ClickHouse computes the aggregation of what is left of f. It adds to f where that is certain, and is false where
// it can't be.
func (r *rangeQuery) newSum(f *sift) (*sum, bool) {
	s := &sum{r: r}
	if !series.Merges(r.agg.Op) {
		return nil, false
	}
	if u := r.agg.Unwrap; u != nil {
		v := f.label(u.Label)
		if !v.known || u.Conversion != logql.NoConversion || len(u.Filters) > 0 {
			return nil, false
		}
		f.need(v.sure...)
		f.need("(" + v.sql + " = '' OR " + isNumber(v.sql) + ")")
		f.when = append(f.when, v.sql+" != ''")
		s.unwrapped = v.sql
	}
	g := r.agg.Grouping
	if g == nil || g.Without {
		// The labels of streams and metadata are all there are, where nothing was parsed; where there is no metadata, those of streams.
		f.need("empty(metadata)")
		s.byStream = true
		return s, f.all && len(f.renamed) == 0 && !r.lines.withLevel
	}
	s.byStream = true
	for _, name := range g.Labels {
		v := f.label(name)
		if !v.known {
			return nil, false
		}
		f.need(v.sure...)
		s.labels, s.groups = append(s.labels, name), append(s.groups, v.sql)
		s.byStream = s.byStream && r.isOfStreams(f, name)
	}
	if s.byStream {
		s.labels, s.groups = nil, nil
	}
	return s, true
}

// isOfStreams tells whether a label is one of every stream, and still is at the end of the pipeline.
func (r *rangeQuery) isOfStreams(f *sift, name string) bool {
	if f.gone[name] || f.kept != nil && !slices.Contains(f.kept, name) {
		return true // it is nowhere
	}
	if _, ok := f.renamed[name]; ok {
		return false
	}
	for _, of := range r.streams {
		if valueOf(of.labels, name) == "" {
			return false
		}
	}
	return true
}

// streamLabels are the labels of the series that a stream adds to.
func (s *sum) streamLabels(isLeft func(string) bool, of *stream) []logs.Label {
	var labels []logs.Label
	unwrapped := ""
	if u := s.r.agg.Unwrap; u != nil {
		unwrapped = u.Label
	}
	for _, l := range of.labels {
		if isLeft(l.Name) && l.Name != unwrapped {
			labels = append(labels, l)
		}
	}
	if s.r.agg.Grouping == nil {
		return labels
	}
	return series.Group(nil, labels, s.r.agg.Grouping)
}

// read runs the statement, and adds what comes of it.
func (s *sum) read(ctx context.Context, q *statement) error {
	r := s.r
	isLeft := leftLabels(r.agg.Log.Stages)
	points := int64(r.window.Len())
	var (
		intervals   proto.ColUInt64
		count       proto.ColUInt64
		stream      proto.ColUInt64
		values      = make([]proto.ColStr, len(s.groups))
		total       proto.ColFloat64
		least, most proto.ColFloat64
		first, last proto.ColFloat64
		firstAt     = newPositions("first")
		lastAt      = newPositions("last")
		columns     proto.Results
		groups      = []string{"intervals"}
		step        = q.number(max(r.window.Step, 1))
		since       = q.number(r.window.Start - int64(r.window.Offset))
		sinceAll    = q.number(r.window.Start - int64(r.window.Offset) - int64(r.window.Range))
		at          = "toUnixTimestamp64Nano(timestamp)"
		firstPoint  = fmt.Sprintf("if(%[1]s <= %[2]s, 0, intDiv(%[1]s - %[2]s - 1, %[3]s) + 1)", at, since, step)
		lastPoint   = fmt.Sprintf("least(intDiv(%s - %s - 1, %s), %s)", at, sinceAll, step, q.number(points-1))
		add         = func(expression, name string, data proto.ColResult) {
			q.columns = append(q.columns, expression+" AS "+name)
			columns = append(columns, proto.ResultColumn{Name: name, Data: data})
		}
	)
	q.and(firstPoint + " <= " + lastPoint)
	add("bitOr(bitShiftLeft(toUInt64("+firstPoint+"), 32), toUInt64("+lastPoint+"))", "intervals", &intervals)
	if s.byStream {
		add("stream_id", "of_stream", &stream)
		groups = append(groups, "of_stream")
	}
	for i, expression := range s.groups {
		name := fmt.Sprintf("group_%d", i)
		add("CAST("+expression+", 'String')", name, &values[i])
		groups = append(groups, name)
	}
	add("count()", "samples", &count)
	op := r.agg.Op
	switch {
	case s.unwrapped != "":
		value := "toFloat64OrZero(" + s.unwrapped + ")"
		switch op {
		case logql.MinOverTime:
			add("min("+value+")", "least", &least)
		case logql.MaxOverTime:
			add("max("+value+")", "most", &most)
		case logql.FirstOverTime:
			add("argMin("+value+", "+positionColumns+")", "first", &first)
			firstAt.add("min", add)
		case logql.LastOverTime:
			add("argMax("+value+", "+positionColumns+")", "last", &last)
			lastAt.add("max", add)
		default:
			add("sum("+value+")", "total", &total)
		}
	case op == logql.BytesOverTime || op == logql.BytesRate:
		add("toFloat64(sum(length(msg)))", "total", &total)
	}
	q.tail = " GROUP BY " + strings.Join(groups, ", ")
	known := map[uint64][]logs.Label{}
	return r.e.read(ctx, q, r.q.Limits, r.stats, columns, func(n int) error {
		for i := range n {
			p := series.Partial{Count: float64(count[i]), Sum: float64(count[i])}
			switch {
			case len(total) > 0:
				p.Sum = total[i]
			case len(least) > 0:
				p.Min = least[i]
			case len(most) > 0:
				p.Max = most[i]
			case len(first) > 0:
				p.First, p.FirstAt = first[i], firstAt.at(i)
			case len(last) > 0:
				p.Last, p.LastAt = last[i], lastAt.at(i)
			}
			labels := r.labels[:0]
			if s.byStream {
				id := stream[i]
				var ok bool
				if labels, ok = known[id]; !ok {
					labels = s.streamLabels(isLeft, r.streams[id])
					known[id] = labels
				}
			} else {
				for k := range s.labels {
					if value := values[k].Row(i); value != "" {
						labels = append(labels, logs.Label{Name: s.labels[k], Value: value})
					}
				}
				slices.SortFunc(labels, func(a, b logs.Label) int { return strings.Compare(a.Name, b.Name) })
				r.labels = labels
			}
			if err := r.sums.Merge(labels, int(intervals[i]>>32), int(intervals[i]&(1<<32-1)), p); err != nil {
				return err
			}
		}
		return nil
	})
}

// leftLabels tells of the labels of streams which of them drop and keep leave.
func leftLabels(stages []logql.Stage) func(string) bool {
	gone, kept := map[string]bool{}, []map[string]bool(nil)
	for _, stage := range stages {
		switch stage := stage.(type) {
		case *logql.Drop:
			for _, l := range stage.Labels {
				gone[l.Name] = l.Matcher == nil || gone[l.Name]
			}
		case *logql.Keep:
			names := map[string]bool{}
			for _, l := range stage.Labels {
				names[l.Name] = true
			}
			kept = append(kept, names)
		}
	}
	return func(name string) bool {
		return !gone[name] && !slices.ContainsFunc(kept, func(names map[string]bool) bool { return !names[name] })
	}
}

// positionColumns is the position of a row, as a tuple.
const positionColumns = "(toUnixTimestamp64Nano(timestamp), wal_shard, wal_seq, wal_index)"

// positions is a column of positions.
type positions struct {
	name     string
	time     proto.ColInt64
	shard    proto.ColUInt16
	sequence proto.ColUInt64
	index    proto.ColUInt32
}

func newPositions(name string) *positions { return &positions{name: name} }

func (p *positions) add(which string, add func(expression, name string, data proto.ColResult)) {
	at := which + positionOfRow
	add("tupleElement("+at+", 1)", p.name+"_time", &p.time)
	add("tupleElement("+at+", 2)", p.name+"_shard", &p.shard)
	add("tupleElement("+at+", 3)", p.name+"_sequence", &p.sequence)
	add("tupleElement("+at+", 4)", p.name+"_index", &p.index)
}

const positionOfRow = "(" + positionColumns + ")"

func (p *positions) at(i int) series.Position {
	return series.Position{Time: p.time[i], Shard: p.shard[i], Sequence: p.sequence[i], Index: p.index[i]}
}
