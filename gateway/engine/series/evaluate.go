package series

import (
	"fmt"
	"strconv"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// VariantLabel tells the series of one variant from those of the others.
const VariantLabel = "__variant__"

// sameLabels is the reason of an Error about two series that are one by their labels.
const sameLabels = "vector cannot contain metrics with the same labelset: keep a label that tells them apart"

// Evaluate computes a metric query. leaf gives the values of its range aggregations; it is asked for each in turn, and what it gives
// is not changed. A query that has no answer is an *Error, one that has more than maxSeries series a *LimitError (0: no bound); errors of leaf
// are returned as they are.
func Evaluate(expr logql.Expr, g Grid, maxSeries int, leaf func(*logql.RangeAgg) ([]Series, error)) (*Value, error) {
	e := &evaluator{grid: g, points: g.Len(), leaf: leaf}
	o, err := e.evaluate(expr)
	if err != nil {
		return nil, err
	}
	v := &Value{Grid: g, IsScalar: o.isNumber, Series: o.series, IsSorted: o.isSorted}
	if o.isNumber {
		v.Series = e.constant(o.number)
	}
	if maxSeries > 0 && len(v.Series) > maxSeries {
		return nil, tooManySeries(maxSeries)
	}
	return v, nil
}

// evaluator computes the parts of one query, each for all points at once.
type evaluator struct {
	grid   Grid
	points int
	leaf   func(*logql.RangeAgg) ([]Series, error)
}

// operand is what a part comes to: a number, or series. Those are ordered by labels, unless isSorted, and each has a point. They may be
// shared with what they were made of, so nobody changes them.
type operand struct {
	isNumber bool
	number   float64
	series   []Series
	isSorted bool
}

func (e *evaluator) evaluate(expr logql.Expr) (operand, error) {
	switch x := expr.(type) {
	case *logql.Literal:
		return operand{isNumber: true, number: x.Value}, nil
	case *logql.VectorLiteral:
		return operand{series: e.constant(x.Value)}, nil
	case *logql.RangeAgg:
		series, err := e.leaf(x)
		return operand{series: sorted(series)}, err
	case *logql.VectorAgg:
		return e.aggregate(x)
	case *logql.BinaryExpr:
		return e.binary(x)
	case *logql.LabelReplace:
		return e.replace(x)
	case *logql.Variants:
		return e.variants(x)
	default:
		return operand{}, &Error{"a log query has no values: count its lines, as by count_over_time"}
	}
}

// constant is a number at each point, as a series without labels.
func (e *evaluator) constant(value float64) []Series {
	if e.points == 0 {
		return nil
	}
	points := make([]Point, e.points)
	for i := range points {
		points[i] = Point{i, value}
	}
	return []Series{{Points: points}}
}

// vector evaluates a part that has to have series.
func (e *evaluator) vector(expr logql.Expr, of string) (operand, error) {
	o, err := e.evaluate(expr)
	if err == nil && o.isNumber {
		return operand{}, &Error{fmt.Sprintf("%s takes series, not the number %v: vector(%[2]v) makes one of it", of, o.number)}
	}
	return o, err
}

func (e *evaluator) variants(x *logql.Variants) (operand, error) {
	var all []Series
	for i, expr := range x.Of {
		o, err := e.vector(expr, "variants")
		if err != nil {
			return operand{}, err
		}
		for _, s := range o.series {
			all = append(all, Series{setLabel(s.Labels, logs.Label{Name: VariantLabel, Value: strconv.Itoa(i)}), s.Points})
		}
	}
	series, err := join(all, sameLabels)
	return operand{series: series}, err
}
