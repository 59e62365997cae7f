package series

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// Position is the order of samples: by time, and of equal times by where the entry came from.
type Position struct {
	Time     int64
	Shard    uint16
	Sequence uint64
	Index    uint32
}

// Compare is negative where p comes before q, and positive where it comes behind it.
func (p Position) Compare(q Position) int {
	if p.Time != q.Time {
		return cmp.Compare(p.Time, q.Time)
	}
	return cmp.Or(cmp.Compare(p.Shard, q.Shard), cmp.Compare(p.Sequence, q.Sequence), cmp.Compare(p.Index, q.Index))
}

// Partial is what some samples of one series that have the same interval come to; there is at least one. Which of the fields count
// depends on the function:
//
//	count_over_time, rate without unwrap, absent_over_time   Count
//	bytes_over_time, bytes_rate, sum_over_time, rate of unwrap   Sum
//	avg_over_time   Sum, Count
//	min_over_time, max_over_time   Min, Max
//	first_over_time, last_over_time   First with FirstAt, Last with LastAt
type Partial struct {
	Count           float64 // samples
	Sum, Min, Max   float64 // Min and Max are NaN only where all samples are
	First, Last     float64 // value of the earliest and of the latest sample
	FirstAt, LastAt Position
}

// Merges tells whether a range aggregation can be computed of Partials; else it takes all samples: quantiles, deviations and rate_counter.
func Merges(op logql.RangeOp) bool {
	switch op {
	case logql.QuantileOverTime, logql.StddevOverTime, logql.StdvarOverTime, logql.RateCounter:
		return false
	}
	return true
}

// Accumulator computes a range aggregation of samples, which come in any order. It is not safe for concurrent use.
//
// What it keeps of a series is a cell for each interval that has samples, or all samples where the function does not merge.
type Accumulator struct {
	agg       *logql.RangeAgg
	window    Window
	points    int
	intervals []interval // by slot
	newColumn func() column

	rows      map[string]*row // by Key
	key       []byte
	maxSeries int
	bytes     int64
	maxBytes  int64
}

// interval is points, first to last. Since none of them ever falls with time, and one of them rises from an interval to the next, an
// interval is known by their sum: its slot.
type interval struct{ first, last int }

// row is one series.
type row struct {
	labels []logs.Label
	column column
	reach  int // points that it can have a value at, at most
}

// column is what an Accumulator keeps of one series.
type column interface {
	// add adds a sample. It returns the bytes of memory that this took, and whether the slot was empty.
	add(slot int, at Position, value float64) (grown int, fresh bool)
	// values appends the values. The column is not used any more.
	values(to []Point) []Point
}

// merger is a column of a function that merges.
type merger interface {
	column
	// merge adds a partial, and returns what add does.
	merge(slot int, p Partial) (grown int, fresh bool)
}

// rowBytes is what a row takes beside its column, its key and its labels.
const rowBytes = int64(unsafe.Sizeof(row{})) + 64

// NewAccumulator returns one that holds at most so many series, and so many bytes of memory, what Series returns included; 0 of either
// is no bound. Labels come to it as the grouping of agg leaves them.
func NewAccumulator(agg *logql.RangeAgg, w Window, maxSeries int, maxBytes int64) *Accumulator {
	a := &Accumulator{agg: agg, window: w, points: w.Len(), rows: make(map[string]*row), maxSeries: maxSeries, maxBytes: maxBytes}
	a.newColumn = a.function()
	return a
}

// Add adds a sample: 1 of a line that is counted, its bytes, or the value that was unwrapped. labels are sorted, and are copied if they
// are kept. Beyond a limit it returns a *LimitError.
func (a *Accumulator) Add(labels []logs.Label, at Position, value float64) error {
	first, last := a.window.interval(at.Time, a.points)
	if first > last {
		return nil
	}
	r, slot, err := a.place(labels, first, last)
	if err != nil {
		return err
	}
	grown, fresh := r.column.add(slot, at, value)
	return a.grew(r, grown, fresh, last-first+1)
}

// Merge adds what many samples of one interval come to. The function has to be one that Merges, and the interval one of the Window; it
// is an error, and not one of the query, where they are not. Beyond a limit it returns a *LimitError.
func (a *Accumulator) Merge(labels []logs.Label, first, last int, p Partial) error {
	if !Merges(a.agg.Op) {
		return fmt.Errorf("%s cannot be computed of partials", a.agg.Op)
	}
	if first > last {
		return nil
	}
	r, slot, err := a.place(labels, first, last)
	if err != nil {
		return err
	}
	grown, fresh := r.column.(merger).merge(slot, p)
	return a.grew(r, grown, fresh, last-first+1)
}

// place is where samples of an interval go.
func (a *Accumulator) place(labels []logs.Label, first, last int) (*row, int, error) {
	slot, err := a.slot(first, last)
	if err != nil {
		return nil, 0, err
	}
	r, err := a.row(labels)
	return r, slot, err
}

// row is the series with these labels.
func (a *Accumulator) row(labels []logs.Label) (*row, error) {
	if a.agg.Op == logql.AbsentOverTime { // there is one, whichever samples are there
		labels = nil
	}
	a.key = Key(a.key[:0], labels)
	if r, ok := a.rows[string(a.key)]; ok {
		return r, nil
	}
	if a.maxSeries > 0 && len(a.rows) >= a.maxSeries {
		return nil, tooManySeries(a.maxSeries)
	}
	key := string(a.key)
	r := &row{labels: intern(key, labels), column: a.newColumn()}
	a.rows[key] = r
	return r, a.grow(rowBytes + int64(len(key)) + int64(len(labels))*int64(unsafe.Sizeof(logs.Label{})))
}

// slot is where an interval is kept.
func (a *Accumulator) slot(first, last int) (int, error) {
	slot, given, none := first+last, interval{first, last}, interval{-1, -1}
	if first < 0 || last >= a.points {
		return 0, fmt.Errorf("points %d to %d are not within the %d of the query", first, last, a.points)
	}
	if more := slot + 1 - len(a.intervals); more > 0 {
		if err := a.grow(int64(more) * int64(unsafe.Sizeof(given))); err != nil {
			return 0, err
		}
		a.intervals = append(a.intervals, slices.Repeat([]interval{none}, more)...)
	}
	switch known := a.intervals[slot]; known {
	case given:
	case none:
		a.intervals[slot] = given
	default:
		return 0, fmt.Errorf("points %d to %d are no interval of the query: points %d to %d are", first, last, known.first, known.last)
	}
	return slot, nil
}

// grew counts memory that a row took, and what its values will take.
func (a *Accumulator) grew(r *row, grown int, fresh bool, points int) error {
	if fresh && r.reach < a.points {
		points = min(points, a.points-r.reach)
		r.reach += points
		grown += points * int(unsafe.Sizeof(Point{}))
	}
	if grown == 0 {
		return nil
	}
	return a.grow(int64(grown))
}

func (a *Accumulator) grow(bytes int64) error {
	if a.bytes += bytes; a.maxBytes > 0 && a.bytes > a.maxBytes {
		return &LimitError{fmt.Sprintf("%s needs more than the %d bytes of memory that a query may take; consider more specific stream "+
			"selectors, fewer labels (by or without), a shorter time range, or a larger step", a.agg.Op, a.maxBytes)}
	}
	return nil
}

// Series returns the values, ordered by labels. The Accumulator is not used any more.
func (a *Accumulator) Series() []Series {
	if a.agg.Op == logql.AbsentOverTime {
		return a.absent()
	}
	out := make([]Series, 0, len(a.rows))
	var points []Point
	for _, r := range a.rows {
		if points = r.column.values(points[:0]); len(points) > 0 {
			out = append(out, Series{r.labels, slices.Clone(points)})
		}
	}
	slices.SortFunc(out, byLabels)
	return out
}

// absent is 1 at the points whose ranges have no sample. Its labels are those that the selector demands: by one matcher, and that with =.
func (a *Accumulator) absent() []Series {
	var present []Point
	for _, r := range a.rows {
		present = r.column.values(nil)
	}
	var points []Point
	for i := range a.points {
		if len(present) > 0 && present[0].Index == i {
			present = present[1:]
		} else {
			points = append(points, Point{i, 1})
		}
	}
	if len(points) == 0 {
		return nil
	}
	var labels []logs.Label
	for i, m := range a.agg.Log.Matchers {
		others := slices.Concat(a.agg.Log.Matchers[:i], a.agg.Log.Matchers[i+1:])
		same := func(o logql.Matcher) bool { return o.Name == m.Name }
		if m.Op == logql.Equal && m.Value != "" && !slices.ContainsFunc(others, same) {
			labels = append(labels, logs.Label{Name: m.Name, Value: m.Value})
		}
	}
	slices.SortFunc(labels, func(a, b logs.Label) int { return cmp.Compare(a.Name, b.Name) })
	return []Series{{labels, points}}
}

func tooManySeries(most int) error {
	return &LimitError{fmt.Sprintf("maximum number of series (%d) reached for a single query; consider reducing query cardinality by "+
		"adding more specific stream selectors, reducing the time range, or aggregating results with functions like sum(), count() or topk()", most)}
}
