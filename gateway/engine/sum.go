package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// sum is a range aggregation in ClickHouse: a row for each group of labels and each interval of the window.
type sum struct {
	r         *rangeQuery
	names     []string // of labels that series are grouped by, whose values are in groups
	groups    []string // expressions
	byStream  bool     // grouped by stream, and so by labels of streams
	unwrapped string   // expression of the value, as text; empty: none

	result      proto.Results
	isSure      proto.ColUInt8  // the row is of rows that SQL is certain about
	intervals   proto.ColUInt64 // the first point in the higher half, the last in the lower
	stream      proto.ColUInt64
	values      []proto.ColStr // of groups
	count       proto.ColUInt64
	total       proto.ColFloat64
	least, most proto.ColFloat64
	first, last proto.ColFloat64
	at          positions // of first, or of last

	known  map[uint64][]logs.Label // labels of series by stream
	labels []logs.Label
}

// newSum plans how ClickHouse computes the aggregation of what is left of f. It adds to f where that is certain, and is false where
// it can't be.
func (r *rangeQuery) newSum(f *sift) (*sum, bool) {
	s := &sum{r: r, known: map[uint64][]logs.Label{}}
	if !series.Merges(r.agg.Op) || !f.line && (r.agg.Op == logql.BytesOverTime || r.agg.Op == logql.BytesRate) {
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
		return s, f.intact && len(f.renamed) == 0 && !r.lines.withLevel
	}
	s.byStream = true
	for _, name := range slices.Compact(slices.Sorted(slices.Values(g.Labels))) {
		if u := r.agg.Unwrap; u != nil && u.Label == name {
			continue // it is no label any more
		}
		v := f.label(name)
		if !v.known {
			return nil, false
		}
		f.need(v.sure...)
		s.names, s.groups = append(s.names, name), append(s.groups, v.sql)
		s.byStream = s.byStream && r.isOfStreams(f, name)
	}
	if s.byStream {
		s.names, s.groups = nil, nil
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

// write makes q the statement, of the rows that f keeps or is not certain about.
func (s *sum) write(q *statement, f *sift) {
	w := s.r.window
	const at = "toUnixTimestamp64Nano(timestamp)"
	step := q.number(max(w.Step, 1))
	since := q.number(w.Start - int64(w.Offset))
	sinceAll := q.number(w.Start - int64(w.Offset) - int64(w.Range))
	first := fmt.Sprintf("if(%[1]s <= %[2]s, 0, intDiv(%[1]s - %[2]s - 1, %[3]s) + 1)", at, since, step)
	last := fmt.Sprintf("least(intDiv(%s - %s - 1, %s), %s)", at, sinceAll, step, q.number(int64(w.Len())-1))
	q.and(first + " <= " + last)
	s.add(q, "bitOr(bitShiftLeft(toUInt64("+first+"), 32), toUInt64("+last+"))", "intervals", &s.intervals)
	groups := []string{"intervals"}
	if len(f.sure) > 0 {
		s.add(q, "toUInt8("+f.isSure()+")", "is_sure", &s.isSure)
		groups = append(groups, "is_sure")
	}
	if s.byStream {
		s.add(q, "stream_id", "of_stream", &s.stream)
		groups = append(groups, "of_stream")
	}
	s.values = make([]proto.ColStr, len(s.groups))
	for i, expression := range s.groups {
		name := fmt.Sprintf("group_%d", i)
		s.add(q, "CAST("+expression+", 'String')", name, &s.values[i])
		groups = append(groups, name)
	}
	s.add(q, "count()", "samples", &s.count)
	switch op := s.r.agg.Op; {
	case s.unwrapped != "":
		s.writeValue(q, "toFloat64OrZero("+s.unwrapped+")")
	case op == logql.BytesOverTime || op == logql.BytesRate:
		s.add(q, "toFloat64(sum(length(msg)))", "total", &s.total)
	}
	q.tail = " GROUP BY " + strings.Join(groups, ", ")
}

// writeValue adds what the function needs of the values of samples.
func (s *sum) writeValue(q *statement, value string) {
	const position = "(toUnixTimestamp64Nano(timestamp), wal_shard, wal_seq, wal_index)"
	switch s.r.agg.Op {
	case logql.MinOverTime:
		s.add(q, "min("+value+")", "least", &s.least)
	case logql.MaxOverTime:
		s.add(q, "max("+value+")", "most", &s.most)
	case logql.FirstOverTime:
		s.add(q, "argMin("+value+", "+position+")", "first", &s.first)
		s.addPosition(q, "min("+position+")")
	case logql.LastOverTime:
		s.add(q, "argMax("+value+", "+position+")", "last", &s.last)
		s.addPosition(q, "max("+position+")")
	default:
		s.add(q, "sum("+value+")", "total", &s.total)
	}
}

func (s *sum) add(q *statement, expression, name string, column proto.ColResult) {
	q.columns = append(q.columns, expression+" AS "+name)
	s.result = append(s.result, proto.ResultColumn{Name: name, Data: column})
}

func (s *sum) addPosition(q *statement, expression string) {
	for i, column := range []proto.ColResult{&s.at.time, &s.at.shard, &s.at.sequence, &s.at.index} {
		s.add(q, fmt.Sprintf("tupleElement(%s, %d)", expression, i+1), fmt.Sprintf("position_%d", i), column)
	}
}

// read runs the statement, and adds what comes of it. isWhole is false where there are rows that SQL is not certain about; these are yet to
// be looked at.
func (s *sum) read(ctx context.Context, q *statement) (isWhole bool, err error) {
	r := s.r
	isWhole = true
	err = r.e.read(ctx, q, r.q.Limits, r.stats, s.result, func(n int) error {
		for i := range n {
			if len(s.isSure) > 0 && s.isSure[i] == 0 {
				isWhole = false
				continue
			}
			if err := r.sums.Merge(s.labelsOf(i), int(s.intervals[i]>>32), int(s.intervals[i]&(1<<32-1)), s.partial(i)); err != nil {
				return err
			}
		}
		return nil
	})
	return isWhole, err
}

// partial is what a row says.
func (s *sum) partial(i int) series.Partial {
	p := series.Partial{Count: float64(s.count[i])}
	switch {
	case len(s.total) > 0:
		p.Sum = s.total[i]
	case len(s.least) > 0:
		p.Min = s.least[i]
	case len(s.most) > 0:
		p.Max = s.most[i]
	case len(s.first) > 0:
		p.First, p.FirstAt = s.first[i], s.at.row(i)
	case len(s.last) > 0:
		p.Last, p.LastAt = s.last[i], s.at.row(i)
	}
	return p
}

// labelsOf are the labels of the series that a row is of, good until the next call.
func (s *sum) labelsOf(i int) []logs.Label {
	if s.byStream {
		id := s.stream[i]
		labels, ok := s.known[id]
		if !ok {
			labels = s.ofStream(s.r.streams[id])
			s.known[id] = labels
		}
		return labels
	}
	s.labels = s.labels[:0]
	for k, name := range s.names {
		if value := s.values[k].Row(i); value != "" {
			s.labels = append(s.labels, logs.Label{Name: name, Value: value})
		}
	}
	return s.labels
}

// ofStream are the labels of the series that a stream adds to.
func (s *sum) ofStream(of *stream) []logs.Label {
	isLeft, unwrapped := leftLabels(s.r.agg.Log.Stages), ""
	if u := s.r.agg.Unwrap; u != nil {
		unwrapped = u.Label
	}
	var labels []logs.Label
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

// positions is a column of positions.
type positions struct {
	time     proto.ColInt64
	shard    proto.ColUInt16
	sequence proto.ColUInt64
	index    proto.ColUInt32
}

func (p *positions) row(i int) series.Position {
	return series.Position{Time: p.time[i], Shard: p.shard[i], Sequence: p.sequence[i], Index: p.index[i]}
}
