package series

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/casteloig/logthra/gateway/logql"
)

// function returns what makes the columns of the accumulator's function.
func (a *Accumulator) function() func() column {
	seconds := a.window.Range.Seconds()
	itself := func(sum float64, _ int) float64 { return sum }
	perSecond := func(sum float64, _ int) float64 { return sum / seconds }
	add := func(a, b float64) float64 { return a + b }

	one := func(Position, float64) float64 { return 1 }
	count := func(p Partial) float64 { return p.Count }
	sample := func(_ Position, value float64) float64 { return value }
	sum := func(p Partial) float64 { return p.Sum }

	switch op := a.agg.Op; op {
	case logql.CountOverTime, logql.AbsentOverTime:
		return merging(a, one, count, add, itself)
	case logql.Rate:
		if a.agg.Unwrap == nil {
			return merging(a, one, count, add, perSecond)
		}
		return merging(a, sample, sum, add, perSecond)
	case logql.BytesRate:
		return merging(a, sample, sum, add, perSecond)
	case logql.BytesOverTime, logql.SumOverTime:
		return merging(a, sample, sum, add, itself)
	case logql.MinOverTime:
		return merging(a, sample, func(p Partial) float64 { return p.Min }, smaller, itself)
	case logql.MaxOverTime:
		return merging(a, sample, func(p Partial) float64 { return p.Max }, larger, itself)
	case logql.AvgOverTime:
		return merging(a, func(_ Position, value float64) mean { return mean{1, value} },
			func(p Partial) mean { return mean{p.Count, p.Sum} }, mean.plus, func(m mean, _ int) float64 { return m.value() })
	case logql.FirstOverTime:
		return merging(a, newStamped, func(p Partial) stamped { return stamped{p.FirstAt, p.First} }, stamped.earlier, stamped.itself)
	case logql.LastOverTime:
		return merging(a, newStamped, func(p Partial) stamped { return stamped{p.LastAt, p.Last} }, stamped.later, stamped.itself)
	case logql.StdvarOverTime:
		return deviation(a, moments.variance)
	case logql.StddevOverTime:
		return deviation(a, moments.deviation)
	case logql.RateCounter:
		return counter(a)
	case logql.QuantileOverTime:
		return quantile(a)
	default:
		panic("series: no range aggregation: " + string(op))
	}
}

// smaller is the smaller of two numbers. One that is none (NaN) is larger than any.
func smaller(a, b float64) float64 {
	if a < b || math.IsNaN(b) {
		return a
	}
	return b
}

// larger is the larger of two numbers. One that is none (NaN) is smaller than any.
func larger(a, b float64) float64 {
	if a > b || math.IsNaN(b) {
		return a
	}
	return b
}

type mean struct{ count, sum float64 }

func (m mean) plus(o mean) mean { return mean{m.count + o.count, m.sum + o.sum} }
func (m mean) value() float64   { return m.sum / m.count }

// stamped is the value of a sample, and where that stands.
type stamped struct {
	at    Position
	value float64
}

func newStamped(at Position, value float64) stamped { return stamped{at, value} }

func (s stamped) earlier(o stamped) stamped {
	if o.at.Compare(s.at) < 0 {
		return o
	}
	return s
}

func (s stamped) later(o stamped) stamped {
	if o.at.Compare(s.at) > 0 {
		return o
	}
	return s
}

func (s stamped) itself(_ int) float64 { return s.value }

// moments is the number of some values, their mean, and the sum of the squares of their distances from it.
type moments struct{ count, mean, squares float64 }

// newMoments is those of one value; of an infinite one, or none (NaN), the distances are none, too.
func newMoments(value float64) moments { return moments{1, value, value - value} }

func (m moments) plus(o moments) moments {
	count, distance := m.count+o.count, o.mean-m.mean
	return moments{count, m.mean + distance*o.count/count, m.squares + o.squares + distance*distance*m.count*o.count/count}
}

// variance is that of a whole population.
func (m moments) variance() float64 { return m.squares / m.count }

// deviation is the standard deviation of a whole population.
func (m moments) deviation() float64 { return math.Sqrt(m.variance()) }

// pageCells is the number of cells that memory is taken for at once.
const pageCells = 32

// cells is the column of a function that merges: a cell for each slot that has samples.
type cells[T any] struct {
	of     func(Position, float64) T
	from   func(Partial) T
	slider *slider[T]
	slots  int
	pages  []page[T]
}

// page is neighboring cells. Those that are there are set in has.
type page[T any] struct {
	has   uint32
	cells []T
}

// merging makes columns of what a sample counts for, what a partial does, what two of them are together, and the value of that at a point.
func merging[T any](
	a *Accumulator, of func(Position, float64) T, from func(Partial) T, merge func(a, b T) T, value func(T, int) float64,
) func() column {
	s := &slider[T]{intervals: &a.intervals, merge: merge, value: value}
	slots := max(2*a.points-1, 0)
	return func() column { return &cells[T]{of: of, from: from, slider: s, slots: slots} }
}

func (c *cells[T]) add(slot int, at Position, value float64) (grown int, fresh bool) {
	return c.put(slot, c.of(at, value))
}

func (c *cells[T]) merge(slot int, p Partial) (grown int, fresh bool) {
	return c.put(slot, c.from(p))
}

func (c *cells[T]) put(slot int, t T) (grown int, fresh bool) {
	n, i := slot/pageCells, slot%pageCells
	if n >= len(c.pages) {
		pages := make([]page[T], min(max(n+1, 2*n), (c.slots+pageCells-1)/pageCells))
		grown += (len(pages) - len(c.pages)) * int(unsafe.Sizeof(page[T]{}))
		copy(pages, c.pages)
		c.pages = pages
	}
	p := &c.pages[n]
	if p.cells == nil {
		p.cells = make([]T, min(pageCells, c.slots-n*pageCells))
		grown += len(p.cells) * int(unsafe.Sizeof(t))
	}
	if p.has>>i&1 == 1 {
		p.cells[i] = c.slider.merge(p.cells[i], t)
		return grown, false
	}
	p.has |= 1 << i
	p.cells[i] = t
	return grown, true
}

func (c *cells[T]) values(to []Point) []Point {
	for n, p := range c.pages {
		for has := p.has; has != 0; has &= has - 1 {
			i := bits.TrailingZeros32(has)
			c.slider.push(n*pageCells+i, p.cells[i])
		}
	}
	return c.slider.values(to)
}

// samples is the column of a function that takes all samples.
type samples[S any] struct {
	of     func(slot int, at Position, value float64) S
	finish func(samples []S, to []Point) []Point
	all    []S
}

func (s *samples[S]) add(slot int, at Position, value float64) (grown int, fresh bool) {
	before := cap(s.all)
	s.all = append(s.all, s.of(slot, at, value))
	// They take as much again while they move or are computed of. Each may be the only one of its slot: nobody looks whether it is.
	return 2 * (cap(s.all) - before) * int(unsafe.Sizeof(s.all[0])), true
}

func (s *samples[S]) values(to []Point) []Point { return s.finish(s.all, to) }

// slotted is a sample of which only its value and its interval count.
type slotted struct {
	slot  int
	value float64
}

func newSlotted(slot int, _ Position, value float64) slotted { return slotted{slot, value} }

// deviation computes of the moments of samples. They are taken in the order of their values, so that the one in which they came makes no
// difference.
func deviation(a *Accumulator, value func(moments) float64) func() column {
	s := &slider[moments]{intervals: &a.intervals, merge: moments.plus, value: func(m moments, _ int) float64 { return value(m) }}
	finish := func(all []slotted, to []Point) []Point {
		slices.SortFunc(all, func(a, b slotted) int {
			return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.value, b.value))
		})
		for _, v := range all {
			s.push(v.slot, newMoments(v.value))
		}
		return s.values(to)
	}
	return func() column { return &samples[slotted]{of: newSlotted, finish: finish} }
}
