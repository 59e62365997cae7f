package series

import (
	"fmt"
	"math"
	"slices"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// Why series of two sides don't match. Clients know these words from Prometheus.
const (
	notOneToOne = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
	notUnique   = "multiple matches for labels: grouping labels must ensure unique matches"
)

// operation computes of the values of both sides. It tells whether there is a result.
type operation func(left, right float64) (float64, bool)

// binary computes a binary expression.
func (e *evaluator) binary(x *logql.BinaryExpr) (operand, error) {
	left, err := e.evaluate(x.Left)
	if err != nil {
		return operand{}, err
	}
	right, err := e.evaluate(x.Right)
	if err != nil {
		return operand{}, err
	}
	switch x.Op {
	case logql.OpAnd, logql.OpOr, logql.OpUnless:
		if left.isNumber || right.isNumber {
			return operand{}, &Error{fmt.Sprintf("%s takes series on both sides, not a number: vector() makes series of one", x.Op)}
		}
		return e.set(x, left.series, right.series)
	}
	compute, isComparison := operationOf(x.Op)
	if isComparison && (x.ReturnBool || left.isNumber && right.isNumber) {
		compute = truth(compute)
	}
	switch {
	case left.isNumber && right.isNumber:
		value, _ := compute(left.number, right.number)
		return operand{isNumber: true, number: value}, nil
	case left.isNumber:
		return each(right, func(v float64) (float64, bool) {
			value, ok := compute(left.number, v)
			if isComparison && !x.ReturnBool {
				value = v
			}
			return value, ok
		}), nil
	case right.isNumber:
		return each(left, func(v float64) (float64, bool) { return compute(v, right.number) }), nil
	}
	return e.match(x, left.series, right.series, compute)
}

// operationOf is what an operator does with numbers, and whether it compares them: then the left one is left where the comparison holds.
// As in Loki, and other than in Prometheus, what is divided by 0 is no number (NaN).
func operationOf(op logql.BinaryOp) (o operation, isComparison bool) {
	compute := func(f func(a, b float64) float64) (operation, bool) {
		return func(a, b float64) (float64, bool) { return f(a, b), true }, false
	}
	compare := func(f func(a, b float64) bool) (operation, bool) {
		return func(a, b float64) (float64, bool) { return a, f(a, b) }, true
	}
	switch op {
	case logql.OpAdd:
		return compute(func(a, b float64) float64 { return a + b })
	case logql.OpSub:
		return compute(func(a, b float64) float64 { return a - b })
	case logql.OpMul:
		return compute(func(a, b float64) float64 { return a * b })
	case logql.OpDiv:
		return compute(func(a, b float64) float64 {
			if b == 0 {
				return math.NaN()
			}
			return a / b
		})
	case logql.OpMod:
		return compute(math.Mod)
	case logql.OpPow:
		return compute(math.Pow)
	case logql.OpEqual:
		return compare(func(a, b float64) bool { return a == b })
	case logql.OpNotEqual:
		return compare(func(a, b float64) bool { return a != b })
	case logql.OpGreater:
		return compare(func(a, b float64) bool { return a > b })
	case logql.OpGreaterOrEqual:
		return compare(func(a, b float64) bool { return a >= b })
	case logql.OpLess:
		return compare(func(a, b float64) bool { return a < b })
	case logql.OpLessOrEqual:
		return compare(func(a, b float64) bool { return a <= b })
	default:
		panic("series: no binary operator: " + string(op))
	}
}

// truth is 1 where a comparison holds, else 0.
func truth(compare operation) operation {
	return func(a, b float64) (float64, bool) {
		if _, ok := compare(a, b); ok {
			return 1, true
		}
		return 0, true
	}
}

// each computes of each value by itself.
func each(o operand, compute func(float64) (float64, bool)) operand {
	out := make([]Series, 0, len(o.series))
	for _, s := range o.series {
		points := make([]Point, 0, len(s.Points))
		for _, p := range s.Points {
			if value, ok := compute(p.Value); ok {
				points = append(points, Point{p.Index, value})
			}
		}
		if len(points) > 0 {
			out = append(out, Series{s.Labels, points})
		}
	}
	return operand{series: sorted(out)}
}

// matchingOf is how series find each other, and the labels by which they do.
func matchingOf(x *logql.BinaryExpr) (logql.Matching, *logql.Grouping) {
	var m logql.Matching
	if x.Matching != nil {
		m = *x.Matching
	}
	return m, &logql.Grouping{Without: !m.On, Labels: m.Labels}
}

// match computes with the values of series that match each other. On the side of which there is one, which is the right one unless that
// is grouped, two series with the same labels of the matching must not have a value at the same point. Where the other side has nothing
// at all at that point, they may.
func (e *evaluator) match(x *logql.BinaryExpr, left, right []Series, compute operation) (operand, error) {
	m, by := matchingOf(x)
	many, one, side, reason := left, right, "right", notOneToOne
	if m.Group != logql.OneToOne {
		reason = notUnique
	}
	if m.Group == logql.GroupRight {
		many, one, side = right, left, "left"
		of := compute
		compute = func(a, b float64) (float64, bool) { return of(b, a) }
	}
	groups := newIndex(by)
	ones := groups.split(one)
	wanted := e.presence(many, make([]int, len(many)), 1)[0]
	for id, same := range ones {
		if err := e.unique(same, wanted, groups.groups[id], side); err != nil {
			return operand{}, err
		}
	}
	var out []Series
	for i, id := range groups.number(many) {
		if id >= len(ones) {
			continue
		}
		for _, s := range ones[id] {
			if points := zip(many[i].Points, s.Points, compute); len(points) > 0 {
				labels := groups.groups[id]
				if m.Group != logql.OneToOne {
					labels = include(many[i].Labels, s.Labels, m.Include)
				}
				out = append(out, Series{labels, points})
			}
		}
	}
	out, err := join(out, reason)
	return operand{series: out}, err
}

// unique returns an error where two series have a value at one of the points that are wanted.
func (e *evaluator) unique(series []Series, wanted []bool, group []logs.Label, side string) error {
	if len(series) < 2 || wanted == nil {
		return nil
	}
	owner := make([]*Series, e.points)
	for i := range series {
		for _, p := range series[i].Points {
			if owner[p.Index] != nil && wanted[p.Index] {
				return &Error{fmt.Sprintf("found duplicate series for the match group %s on the %s hand-side of the operation: [%s, %s];"+
					"many-to-many matching not allowed: matching labels must be unique on one side",
					format(group), side, format(owner[p.Index].Labels), format(series[i].Labels))}
			}
			owner[p.Index] = &series[i]
		}
	}
	return nil
}

// zip computes of the values of two series, at the points at which both have one.
func zip(a, b []Point, compute operation) []Point {
	var out []Point
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].Index < b[0].Index:
			a = a[1:]
		case a[0].Index > b[0].Index:
			b = b[1:]
		default:
			if value, ok := compute(a[0].Value, b[0].Value); ok {
				if out == nil {
					out = make([]Point, 0, min(len(a), len(b)))
				}
				out = append(out, Point{a[0].Index, value})
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}

// include is labels with those of these names as the other side has them.
func include(labels, other []logs.Label, names []string) []logs.Label {
	for _, name := range names {
		labels = setLabel(labels, logs.Label{Name: name, Value: valueOf(other, name)})
	}
	return labels
}

// set computes and, or and unless.
func (e *evaluator) set(x *logql.BinaryExpr, left, right []Series) (operand, error) {
	_, by := matchingOf(x)
	groups := newIndex(by)
	lefts, rights := groups.number(left), groups.number(right)
	switch x.Op {
	case logql.OpAnd:
		left = filter(left, lefts, e.presence(right, rights, len(groups.groups)), true)
	case logql.OpUnless:
		left = filter(left, lefts, e.presence(right, rights, len(groups.groups)), false)
	default:
		right = filter(right, rights, e.presence(left, lefts, len(groups.groups)), false)
		left = slices.Concat(left, right)
	}
	out, err := join(left, sameLabels)
	return operand{series: out}, err
}

// presence tells, by the number of a group, at which points one of its series has a value. Of a group without series it is nil.
func (e *evaluator) presence(series []Series, ids []int, groups int) [][]bool {
	has := make([][]bool, groups)
	for i, id := range ids {
		if has[id] == nil {
			has[id] = make([]bool, e.points)
		}
		for _, p := range series[i].Points {
			has[id][p.Index] = true
		}
	}
	return has
}

// filter keeps the points at which the group of a series is present, or is not.
func filter(series []Series, ids []int, presence [][]bool, wanted bool) []Series {
	var out []Series
	for i, id := range ids {
		points := make([]Point, 0, len(series[i].Points))
		for _, p := range series[i].Points {
			if (presence[id] != nil && presence[id][p.Index]) == wanted {
				points = append(points, p)
			}
		}
		if len(points) > 0 {
			out = append(out, Series{series[i].Labels, points})
		}
	}
	return out
}
