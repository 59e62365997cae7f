package series

import (
	"math"
	"math/bits"
	"time"

	"github.com/casteloig/logthra/gateway/logql"
)

// Grid is the points in time that a query is evaluated at: Start, Start+Step, … up to End, in unix nanoseconds. Of an instant query Start is
// End, and Step is 0.
type Grid struct{ Start, End, Step int64 }

// mostPoints bounds the number of points, so that what is reckoned with it does not overflow.
const mostPoints = math.MaxInt / 4

// Len is the number of points. Those beyond 2^61 are not counted.
func (g Grid) Len() int {
	switch {
	case g.Step <= 0:
		return 1
	case g.End < g.Start:
		return 0
	}
	// The difference may be more than an int64 holds, but not more than a uint64.
	steps := (uint64(g.End) - uint64(g.Start)) / uint64(g.Step)
	return int(min(steps, mostPoints-1)) + 1
}

// At is the time of a point.
func (g Grid) At(i int) int64 { return g.Start + int64(i)*max(g.Step, 0) }

// Window is the ranges before the points of a grid: that of the point t holds samples at t-Offset-Range < time <= t-Offset.
type Window struct {
	Grid

	Range, Offset time.Duration
}

// WindowOf is the window of a range aggregation.
func WindowOf(agg *logql.RangeAgg, g Grid) Window { return Window{g, agg.Range, agg.Offset} }

// Span is where samples can be: from < time <= to. Both are kept within what an int64 holds.
func (w Window) Span() (from, to int64) {
	n := w.Len()
	if n == 0 {
		return 0, 0
	}
	width, offset := widen(int64(w.Range)), widen(int64(w.Offset))
	return widen(w.Start).minus(offset).minus(width).clamp(), widen(w.At(n - 1)).minus(offset).clamp()
}

// Interval is the points whose ranges hold a sample at this time, first to last; first > last: none. All samples between two
// neighbors of the times at which a range begins or ends have the same interval, and both first and last never fall with time. So
// whoever aggregates by interval first, as ClickHouse does, loses nothing, and there are at most two intervals a point:
//
//	first = max(0, ceil((time + Offset - Start) / Step))
//	last  = min(Len-1, ceil((time + Offset + Range - Start) / Step) - 1)
func (w Window) Interval(time int64) (first, last int) { return w.interval(time, w.Len()) }

// interval is Interval for who knows the number of points.
func (w Window) interval(time int64, n int) (first, last int) {
	since := widen(time).plus(widen(int64(w.Offset))).minus(widen(w.Start))
	step := uint64(max(w.Step, 1))
	return since.steps(step, n), since.plus(widen(int64(w.Range))).steps(step, n) - 1
}

// wide is an integer of 128 bits: times, offsets and ranges add up to more than 64.
type wide struct {
	high int64
	low  uint64
}

func widen(v int64) wide { return wide{v >> 63, uint64(v)} }

func (w wide) plus(v wide) wide {
	low, carry := bits.Add64(w.low, v.low, 0)
	return wide{w.high + v.high + int64(carry), low}
}

func (w wide) minus(v wide) wide {
	low, borrow := bits.Sub64(w.low, v.low, 0)
	return wide{w.high - v.high - int64(borrow), low}
}

// steps is the number of steps that it takes to come from 0 to w or beyond it: 0 to most.
func (w wide) steps(step uint64, most int) int {
	switch {
	case w.high < 0:
		return 0
	case w.high > 0: // beyond 2^64 ns no grid has a point
		return most
	}
	n := w.low / step
	if w.low%step != 0 {
		n++
	}
	return int(min(n, uint64(most)))
}

// seconds is w nanoseconds in seconds.
func (w wide) seconds() float64 { return (float64(w.high)*(1<<64) + float64(w.low)) / 1e9 }

// clamp is w, or the int64 that is nearest to it.
func (w wide) clamp() int64 {
	switch {
	case w.high < 0 && (w.high < -1 || int64(w.low) >= 0):
		return math.MinInt64
	case w.high >= 0 && (w.high > 0 || int64(w.low) < 0):
		return math.MaxInt64
	}
	return int64(w.low)
}
