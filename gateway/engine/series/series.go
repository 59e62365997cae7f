// Package series computes with series of numbers over time: what range aggregations make of samples, and what vector aggregations
// and binary operators make of that. Where samples come from it does not know.
package series

import (
	"cmp"
	"slices"

	"github.com/casteloig/logthra/shared/logs"
)

// Series is the values of one set of labels.
type Series struct {
	Labels []logs.Label // sorted by name
	Points []Point      // ascending by Index
}

// Point is a value at a point of the grid.
type Point struct {
	Index int
	Value float64
}

// Value is what a metric query comes to.
type Value struct {
	Grid     Grid
	IsScalar bool // a number at each point: one Series without labels
	Series   []Series
	IsSorted bool // the order of Series means something: sort, sort_desc, topk and bottomk of an instant query
}

// Error is a query that has no answer through a fault of its own. Reason says what to change.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

// LimitError says which limit a query went beyond.
type LimitError struct{ Reason string }

func (e *LimitError) Error() string { return e.Reason }

// byLabels orders series by their labels.
func byLabels(a, b Series) int { return compareLabels(a.Labels, b.Labels) }

// sorted is series ordered by labels. It leaves those that it is given as they are.
func sorted(series []Series) []Series {
	if slices.IsSortedFunc(series, byLabels) {
		return series
	}
	series = slices.Clone(series)
	slices.SortStableFunc(series, byLabels)
	return series
}

// join orders series by labels, and makes one of those that have the same. Where two of them have a value at one point it
// returns an *Error with the reason.
func join(series []Series, reason string) ([]Series, error) {
	series = sorted(series)
	out := series[:0:0]
	for rest := series; len(rest) > 0; {
		n := 1
		for n < len(rest) && byLabels(rest[0], rest[n]) == 0 {
			n++
		}
		joined := rest[0]
		if n > 1 {
			joined.Points = nil
			for _, s := range rest[:n] {
				joined.Points = append(joined.Points, s.Points...)
			}
			slices.SortFunc(joined.Points, func(a, b Point) int { return cmp.Compare(a.Index, b.Index) })
			for i, p := range joined.Points[1:] {
				if p.Index == joined.Points[i].Index {
					return nil, &Error{reason}
				}
			}
		}
		out = append(out, joined)
		rest = rest[n:]
	}
	return out, nil
}
