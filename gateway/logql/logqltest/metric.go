package logqltest

import (
	"math/rand/v2"
	"slices"

	"github.com/casteloig/logthra/gateway/logql"
)

var (
	rangeOps = []logql.RangeOp{
		logql.Rate, logql.CountOverTime, logql.BytesRate, logql.BytesOverTime, logql.AbsentOverTime, logql.SumOverTime, logql.AvgOverTime,
		logql.MinOverTime, logql.MaxOverTime, logql.FirstOverTime, logql.LastOverTime, logql.StdvarOverTime, logql.StddevOverTime,
		logql.QuantileOverTime, logql.RateCounter,
	}
	vectorOps = []logql.VectorOp{
		logql.Sum, logql.Avg, logql.Min, logql.Max, logql.Count, logql.Stddev, logql.Stdvar, logql.TopK, logql.BottomK, logql.ApproxTopK,
		logql.Sort, logql.SortDesc,
	}
	binaryOps = []logql.BinaryOp{
		logql.OpOr, logql.OpAnd, logql.OpUnless, logql.OpEqual, logql.OpNotEqual, logql.OpGreater, logql.OpGreaterOrEqual, logql.OpLess,
		logql.OpLessOrEqual, logql.OpAdd, logql.OpSub, logql.OpMul, logql.OpDiv, logql.OpMod, logql.OpPow,
	}
)

// Metric makes a metric query: a few functions and operators within each other.
func (v *Vocabulary) Metric(r *rand.Rand) logql.Expr {
	m := maker{v, r}
	if !v.NoOuter && m.chance(3) {
		return m.variants()
	}
	return m.metric(3)
}

// metric is an expression of up to so many levels above its range aggregations.
func (m maker) metric(depth int) logql.Expr {
	switch n := m.IntN(100); {
	case depth == 0 || n < 25:
		return m.rangeAgg()
	case n < 65:
		return m.vectorAgg(m.metric(depth - 1))
	case n < 92:
		return m.binary(depth)
	case n < 96:
		return &logql.LabelReplace{
			Expr: m.metric(depth - 1), Destination: key(m, m.Texts), Replacement: "$1x", Source: key(m, m.Labels), Regex: "(.*)",
		}
	default:
		return &logql.VectorLiteral{Value: one(m, m.Scalars)}
	}
}

func orAll[T any](some, all []T) []T {
	if some == nil {
		return all
	}
	return some
}

func (m maker) rangeAgg() *logql.RangeAgg {
	agg := &logql.RangeAgg{Op: one(m, orAll(m.RangeOps, rangeOps)), Log: m.log(3), Range: one(m, m.Ranges)}
	if m.chance(15) {
		agg.Offset = one(m, m.Offsets)
	}
	mayUnwrap, mayGroup := false, false
	switch agg.Op {
	case logql.CountOverTime, logql.BytesRate, logql.BytesOverTime:
	case logql.Rate, logql.AbsentOverTime:
		mayUnwrap = m.chance(40)
	case logql.SumOverTime, logql.RateCounter:
		mayUnwrap = true
	case logql.QuantileOverTime:
		agg.Param = one(m, m.Quantiles)
		mayUnwrap, mayGroup = true, true
	default:
		mayUnwrap, mayGroup = true, true
	}
	if mayUnwrap {
		agg.Unwrap = m.unwrap()
		if m.chance(80) {
			agg.Log.Stages = append([]logql.Stage{one(m, []logql.Stage{&logql.JSON{}, &logql.Logfmt{}})}, agg.Log.Stages...)
		}
	}
	if mayGroup && m.chance(50) {
		agg.Grouping = m.grouping()
	}
	// An entry with an error fails the query, so that most queries let none pass.
	if noError := (&logql.LabelFilter{Predicate: &logql.StringPredicate{Matcher: logql.Matcher{Name: "__error__"}}}); m.chance(90) {
		if agg.Unwrap != nil {
			agg.Unwrap.Filters = append(agg.Unwrap.Filters, noError)
		} else if len(agg.Log.Stages) > 0 {
			agg.Log.Stages = append(agg.Log.Stages, noError)
		}
	}
	return agg
}

func (m maker) unwrap() *logql.Unwrap {
	u := &logql.Unwrap{}
	switch m.IntN(4) {
	case 0:
		u.Label, u.Conversion = key(m, m.Durations), one(m, []logql.Conversion{logql.Duration, logql.DurationSeconds})
	case 1:
		u.Label, u.Conversion = key(m, m.Sizes), logql.Bytes
	default:
		u.Label = key(m, m.Numbers)
	}
	if m.chance(20) {
		u.Filters = append(u.Filters, &logql.LabelFilter{Predicate: m.predicate(1)})
	}
	return u
}

// grouping is by or without some labels of streams and fields, or none.
func (m maker) grouping() *logql.Grouping {
	g := &logql.Grouping{Without: m.chance(30)}
	if m.chance(90) {
		g.Labels = names(m, m.Labels, 2)
	}
	if m.chance(30) {
		g.Labels = append(g.Labels, key(m, m.Texts))
	}
	return g
}

func (m maker) vectorAgg(e logql.Expr) *logql.VectorAgg {
	agg := &logql.VectorAgg{Op: one(m, orAll(m.VectorOps, vectorOps)), Expr: e}
	switch agg.Op {
	case logql.TopK, logql.BottomK:
		agg.Param = 1 + m.IntN(5)
		if m.chance(30) {
			agg.Grouping = m.grouping()
		}
	case logql.ApproxTopK:
		agg.Param = 1 + m.IntN(5)
	case logql.Sort, logql.SortDesc:
	default:
		if m.chance(75) {
			agg.Grouping = m.grouping()
		}
	}
	return agg
}

// binary is an operator between numbers and vectors. Most vectors on both sides are grouped by the same labels, so that they match.
func (m maker) binary(depth int) logql.Expr {
	b := &logql.BinaryExpr{Op: one(m, orAll(m.BinaryOps, binaryOps))}
	isSet := b.Op == logql.OpOr || b.Op == logql.OpAnd || b.Op == logql.OpUnless
	switch b.Op {
	case logql.OpEqual, logql.OpNotEqual, logql.OpGreater, logql.OpGreaterOrEqual, logql.OpLess, logql.OpLessOrEqual:
		b.ReturnBool = m.chance(40)
	}
	if !isSet && m.chance(50) {
		b.Left, b.Right = m.metric(depth-1), m.scalar()
		if m.chance(30) {
			b.Left, b.Right = b.Right, b.Left
		}
		return b
	}
	var by []string
	if m.chance(80) {
		by = names(m, m.Labels, len(m.Labels))
	}
	sum := func(by []string) logql.Expr {
		return &logql.VectorAgg{Op: logql.Sum, Grouping: &logql.Grouping{Labels: slices.Clone(by)}, Expr: m.metric(depth - 1)}
	}
	b.Left, b.Right = sum(by), sum(by)
	switch n := m.IntN(100); {
	case n < 60:
	case n < 70:
		b.Matching = &logql.Matching{On: true, Labels: slices.Clone(by)}
	case n < 75:
		b.Matching = &logql.Matching{Labels: []string{key(m, m.Texts)}}
	case n < 80:
		b.Left, b.Right = m.metric(depth-1), m.metric(depth-1)
	case !isSet:
		// Many of one side have the labels that the other side is grouped by, and one more.
		b.Matching = &logql.Matching{On: true, Group: logql.GroupLeft, Labels: slices.Clone(by)}
		many := sum(append(slices.Clone(by), key(m, m.Texts)))
		if m.chance(50) {
			b.Left = many
		} else {
			b.Matching.Group, b.Right = logql.GroupRight, many
		}
		if len(by) > 1 && m.chance(30) {
			b.Matching.Labels, b.Matching.Include = slices.Clone(by[1:]), by[:1:1]
		}
	}
	return b
}

// scalar is a number, or two of them with an operator between them.
func (m maker) scalar() logql.Expr {
	literal := func() logql.Expr { return &logql.Literal{Value: one(m, m.Scalars)} }
	if m.chance(80) {
		return literal()
	}
	return &logql.BinaryExpr{Op: one(m, []logql.BinaryOp{logql.OpAdd, logql.OpSub, logql.OpMul}), Left: literal(), Right: literal()}
}

func (m maker) variants() logql.Expr {
	agg := m.rangeAgg()
	v := &logql.Variants{Log: agg.Log, Range: agg.Range}
	for range 1 + m.IntN(3) {
		of := &logql.RangeAgg{Op: one(m, []logql.RangeOp{logql.Rate, logql.CountOverTime, logql.BytesRate, logql.BytesOverTime}), Log: v.Log, Range: v.Range}
		if m.chance(30) {
			v.Of = append(v.Of, m.vectorAgg(of))
		} else {
			v.Of = append(v.Of, of)
		}
	}
	return v
}
