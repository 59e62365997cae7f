package series

import (
	"cmp"
	"math"
	"slices"

	"github.com/casteloig/logthra/gateway/logql"
)

// aggregate computes a vector aggregation.
func (e *evaluator) aggregate(x *logql.VectorAgg) (operand, error) {
	o, err := e.vector(x.Expr, string(x.Op))
	if err != nil {
		return operand{}, err
	}
	itself := func(v float64) float64 { return v }
	switch x.Op {
	case logql.Sum:
		return total(e, x, o, itself, func(a, b float64) float64 { return a + b }, itself), nil
	case logql.Min:
		return total(e, x, o, itself, smaller, itself), nil
	case logql.Max:
		return total(e, x, o, itself, larger, itself), nil
	case logql.Count:
		return total(e, x, o, func(float64) float64 { return 1 }, func(a, b float64) float64 { return a + b }, itself), nil
	case logql.Avg:
		return total(e, x, o, func(v float64) mean { return mean{1, v} }, mean.plus, mean.value), nil
	case logql.Stdvar:
		return total(e, x, o, newMoments, moments.plus, moments.variance), nil
	case logql.Stddev:
		return total(e, x, o, newMoments, moments.plus, moments.deviation), nil
	case logql.TopK, logql.ApproxTopK:
		return e.best(x, o, highest), nil
	case logql.BottomK:
		return e.best(x, o, lowest), nil
	case logql.Sort:
		return e.order(o, lowest), nil
	case logql.SortDesc:
		return e.order(o, highest), nil
	default:
		return operand{}, &Error{"no vector aggregation: " + string(x.Op)}
	}
}

// total makes one series of each group. What a value counts for is of it, merge adds two of them, and value is what they come to.
func total[T any](e *evaluator, x *logql.VectorAgg, o operand, of func(float64) T, merge func(a, b T) T, value func(T) float64) operand {
	groups := newIndex(x.Grouping)
	members := groups.split(sorted(o.series))
	out := make([]Series, len(members))
	cells, has := make([]T, e.points), make([]bool, e.points)
	for id := range members {
		n := 0
		for _, s := range members[id] {
			for _, p := range s.Points {
				if t := of(p.Value); has[p.Index] {
					cells[p.Index] = merge(cells[p.Index], t)
				} else {
					cells[p.Index], has[p.Index] = t, true
					n++
				}
			}
		}
		points := make([]Point, 0, n)
		for i, ok := range has {
			if ok {
				points = append(points, Point{i, value(cells[i])})
			}
		}
		clear(has)
		out[id] = Series{groups.groups[id], points}
	}
	return operand{series: sorted(out)}
}

// candidate is the value of one of some series at a point.
type candidate struct {
	value  float64
	series int
}

// highest orders candidates from the highest value to the lowest, those that are no number (NaN) last, and of equal ones by labels.
func highest(a, b candidate) int {
	switch {
	case a.value > b.value || math.IsNaN(b.value) && !math.IsNaN(a.value):
		return -1
	case a.value < b.value || math.IsNaN(a.value) && !math.IsNaN(b.value):
		return 1
	}
	return cmp.Compare(a.series, b.series)
}

// lowest orders them from the lowest value to the highest, and else the same.
func lowest(a, b candidate) int {
	a.value, b.value = -a.value, -b.value
	return highest(a, b)
}

// best keeps the first x.Param series of each group at each point. Of an instant query they come in that order.
func (e *evaluator) best(x *logql.VectorAgg, o operand, order func(a, b candidate) int) operand {
	var out []Series
	for _, members := range newIndex(x.Grouping).split(sorted(o.series)) {
		kept := make([]Series, len(members))
		for i, s := range members {
			kept[i].Labels = s.Labels
		}
		var ranking []int
		for point, candidates := range e.candidates(members) {
			first := candidates[:0]
			for _, c := range candidates {
				if i, _ := slices.BinarySearchFunc(first, c, order); i < x.Param {
					first = slices.Insert(first[:min(len(first), x.Param-1)], i, c)
				}
			}
			ranking = ranking[:0]
			for _, c := range first {
				kept[c.series].Points = append(kept[c.series].Points, Point{point, c.value})
				ranking = append(ranking, c.series)
			}
		}
		if e.grid.Step > 0 {
			out = append(out, slices.DeleteFunc(kept, func(s Series) bool { return len(s.Points) == 0 })...)
			continue
		}
		for _, i := range ranking {
			out = append(out, kept[i])
		}
	}
	if e.grid.Step > 0 {
		return operand{series: sorted(out)}
	}
	return operand{series: out, isSorted: true}
}

// candidates is the values of series by point.
func (e *evaluator) candidates(series []Series) [][]candidate {
	counts, all := make([]int, e.points), 0
	for _, s := range series {
		for _, p := range s.Points {
			counts[p.Index]++
		}
		all += len(s.Points)
	}
	memory, byPoint := make([]candidate, all), make([][]candidate, e.points)
	for i, n := range counts {
		byPoint[i], memory = memory[:0:n], memory[n:]
	}
	for i, s := range series {
		for _, p := range s.Points {
			byPoint[p.Index] = append(byPoint[p.Index], candidate{p.Value, i})
		}
	}
	return byPoint
}

// order sorts the series of an instant query by value. Those of any other have an order at each point, and so none.
func (e *evaluator) order(o operand, order func(a, b candidate) int) operand {
	series := sorted(o.series)
	if e.grid.Step > 0 {
		return operand{series: series}
	}
	out := make([]Series, 0, len(series))
	candidates := e.candidates(series)[0]
	slices.SortFunc(candidates, order)
	for _, c := range candidates {
		out = append(out, series[c.series])
	}
	return operand{series: out, isSorted: true}
}
