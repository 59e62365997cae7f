package series

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

func TestGrid(t *testing.T) {
	for _, tt := range []struct {
		grid Grid
		len  int
		last int64
	}{
		{Grid{Start: 5, End: 5}, 1, 5},
		{Grid{Start: 5, End: 5, Step: 10}, 1, 5},
		{Grid{Start: 5, End: 14, Step: 10}, 1, 5},
		{Grid{Start: 5, End: 15, Step: 10}, 2, 15},
		{Grid{Start: -15, End: 5, Step: 10}, 3, 5},
		{Grid{Start: 6, End: 5, Step: 10}, 0, 0},
		{Grid{Start: math.MinInt64, End: math.MaxInt64, Step: 1 << 62}, 4, 1 << 62},
		{Grid{Start: math.MinInt64, End: math.MaxInt64, Step: 1}, math.MaxInt / 4, math.MinInt64 + math.MaxInt/4 - 1},
	} {
		if got := tt.grid.Len(); got != tt.len {
			t.Errorf("%+v has %d points, not %d", tt.grid, tt.len, got)
		}
		if tt.len > 0 && tt.grid.At(tt.len-1) != tt.last {
			t.Errorf("%+v: the last point is %d, not %d", tt.grid, tt.grid.At(tt.len-1), tt.last)
		}
	}
}

func TestIntervalAndSpan(t *testing.T) {
	minute := Window{Grid: Grid{Start: 100, End: 130, Step: 10}, Range: 10}
	for _, tt := range []struct {
		name        string
		window      Window
		from, to    int64
		time        int64
		first, last int
	}{
		{"the end of a range is in it", minute, 90, 130, 100, 0, 0},
		{"its begin is not", minute, 90, 130, 90, 0, -1},
		{"behind its begin", minute, 90, 130, 91, 0, 0},
		{"behind its end is the next", minute, 90, 130, 101, 1, 1},
		{"the last point", minute, 90, 130, 130, 3, 3},
		{"behind the last point", minute, 90, 130, 131, 4, 3},
		{"ranges overlap", Window{Grid: Grid{Start: 100, End: 130, Step: 10}, Range: 25}, 75, 130, 100, 0, 2},
		{"ranges overlap, at a begin", Window{Grid: Grid{Start: 100, End: 130, Step: 10}, Range: 25}, 75, 130, 95, 0, 1},
		{"gaps between ranges", Window{Grid: Grid{Start: 100, End: 130, Step: 10}, Range: 4}, 96, 130, 106, 1, 0},
		{"beside a gap", Window{Grid: Grid{Start: 100, End: 130, Step: 10}, Range: 4}, 96, 130, 107, 1, 1},
		{"offset", Window{Grid: Grid{Start: 100, End: 130, Step: 10}, Range: 10, Offset: 50}, 40, 80, 50, 0, 0},
		{"offset, later", Window{Grid: Grid{Start: 100, End: 130, Step: 10}, Range: 10, Offset: 50}, 40, 80, 81, 4, 3},
		{"negative offset", Window{Grid: Grid{Start: 100, End: 130, Step: 10}, Range: 10, Offset: -50}, 140, 180, 150, 0, 0},
		{"instant", Window{Grid: Grid{Start: 100, End: 100}, Range: 10}, 90, 100, 91, 0, 0},
		{"instant, too early", Window{Grid: Grid{Start: 100, End: 100}, Range: 10}, 90, 100, 90, 0, -1},
		{"instant, too late", Window{Grid: Grid{Start: 100, End: 100}, Range: 10}, 90, 100, 101, 1, 0},
		{"before 1970", Window{Grid: Grid{Start: -100, End: -70, Step: 10}, Range: 10}, -110, -70, -90, 1, 1},
		{"before all times", Window{Grid: Grid{Start: math.MinInt64, End: math.MinInt64}, Range: 10}, math.MinInt64, math.MinInt64, 0, 1, 0},
		{"no points", Window{Grid: Grid{Start: 100, End: 90, Step: 10}, Range: 10}, 0, 0, 95, 0, -1},
		{
			"the ends of time",
			Window{Grid: Grid{Start: math.MinInt64, End: math.MaxInt64, Step: 1 << 62}, Range: math.MaxInt64, Offset: math.MinInt64},
			-math.MaxInt64, math.MaxInt64, math.MaxInt64, 2, 3,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if from, to := tt.window.Span(); from != tt.from || to != tt.to {
				t.Errorf("span %d to %d, not %d to %d", from, to, tt.from, tt.to)
			}
			if first, last := tt.window.Interval(tt.time); first != tt.first || last != tt.last {
				t.Errorf("interval %d to %d, not %d to %d", first, last, tt.first, tt.last)
			}
		})
	}
}

// TestIntervalIsItsDefinition compares intervals with the points whose ranges hold the sample, and with the formula, in integers without bounds.
func TestIntervalIsItsDefinition(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	extremes := []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}
	number := func(size int64) int64 {
		if random.IntN(20) == 0 {
			return extremes[random.IntN(len(extremes))]
		}
		return int64(random.Uint64N(2*uint64(size)+1)) - size
	}
	for range 200_000 {
		size := int64(1) << random.IntN(62)
		w := Window{Grid: Grid{Start: number(size)}, Range: time.Duration(1 + random.Int64N(size)), Offset: time.Duration(number(size))}
		w.End = w.Start
		if n := random.Int64N(12); n > 0 {
			w.Step = 1 + random.Int64N(size)
			// Up to n more points, as far as time goes.
			end := new(big.Int).Add(integer(w.Start), new(big.Int).Mul(integer(n), integer(w.Step)))
			if w.End = math.MaxInt64; end.IsInt64() {
				w.End = end.Int64()
			}
			if w.Len() > 100 {
				continue
			}
		}
		at := number(4 * min(size, 1<<60))
		first, last := w.Interval(at)
		for i := range w.Len() {
			// At - Offset - Range < at <= At - Offset
			end := new(big.Int).Sub(integer(w.At(i)), integer(int64(w.Offset)))
			begin := new(big.Int).Sub(end, integer(int64(w.Range)))
			holds := begin.Cmp(integer(at)) < 0 && integer(at).Cmp(end) <= 0
			if in := first <= i && i <= last; in != holds {
				t.Fatalf("%+v: time %d has the interval %d to %d; that its range holds it is %t of point %d", w, at, first, last, holds, i)
			}
		}
		if w.Step == 0 {
			continue
		}
		since := new(big.Int).Sub(new(big.Int).Add(integer(at), integer(int64(w.Offset))), integer(w.Start))
		low := ceil(since, w.Step)
		high := ceil(new(big.Int).Add(since, integer(int64(w.Range))), w.Step)
		low = max(0, min(low, int64(w.Len())))
		high = max(-1, min(high-1, int64(w.Len())-1))
		if int64(first) != low || int64(last) != high {
			t.Fatalf("%+v: time %d has the interval %d to %d, by the formula it is %d to %d", w, at, first, last, low, high)
		}
	}
}

// TestIntervalsNeverFall walks through times, and wants an interval to be known by the sum of its ends.
func TestIntervalsNeverFall(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		w := Window{
			Grid: Grid{Start: random.Int64N(40) - 20, Step: 1 + random.Int64N(9)}, Range: time.Duration(1 + random.Int64N(40)),
			Offset: time.Duration(random.Int64N(40) - 20),
		}
		w.End = w.Start + random.Int64N(60)
		from, to := w.Span()
		before := [2]int{0, -1}
		distinct := map[[2]int]bool{}
		for at := from - 2; at <= to+2; at++ {
			first, last := w.Interval(at)
			if first < before[0] || last < before[1] {
				t.Fatalf("%+v: at %d the interval falls from %v to %d to %d", w, at, before, first, last)
			}
			if (at <= from || at > to) && first <= last {
				t.Fatalf("%+v: time %d is outside of %d to %d and has the interval %d to %d", w, at, from, to, first, last)
			}
			before = [2]int{first, last}
			if first <= last {
				distinct[before] = true
			}
		}
		if len(distinct) > 2*w.Len() {
			t.Fatalf("%+v: %d intervals of %d points", w, len(distinct), w.Len())
		}
	}
}

func integer(v int64) *big.Int { return big.NewInt(v) }

// ceil is v / step, rounded up, and -1000 or 1000 where it is beyond these.
func ceil(v *big.Int, step int64) int64 {
	q := new(big.Int).Neg(new(big.Int).Div(new(big.Int).Neg(v), integer(step))) // Div rounds down, for a divisor above 0
	if q.CmpAbs(integer(1000)) > 0 {
		return int64(q.Sign()) * 1000
	}
	return q.Int64()
}

func BenchmarkInterval(b *testing.B) {
	w := Window{Grid: Grid{Start: 1_700_000_000_000_000_000, End: 1_700_003_600_000_000_000, Step: 15e9}, Range: 5 * time.Minute}
	n := w.Len()
	at := w.Start
	for b.Loop() {
		w.interval(at, n)
		at += 7919
	}
}
