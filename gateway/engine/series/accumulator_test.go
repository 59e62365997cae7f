package series

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// second is a second in nanoseconds: the tables of tests count time in seconds.
const second = int64(time.Second)

// labels makes labels of names and values in turn.
func labels(pairs ...string) []logs.Label {
	var l []logs.Label
	for i := 0; i < len(pairs); i += 2 {
		l = append(l, logs.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return l
}

// point is at a second, counted from the start of the test's grid.
type sample struct {
	series int
	at     Position
	value  float64
}

// samplesAt is samples of one series: seconds and values in turn.
func samplesAt(pairs ...float64) []sample {
	var s []sample
	for i := 0; i < len(pairs); i += 2 {
		s = append(s, sample{at: Position{Time: int64(pairs[i] * float64(second)), Sequence: uint64(i)}, value: pairs[i+1]})
	}
	return s
}

func TestAccumulator(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	value := &logql.Unwrap{Label: "value"}
	every10 := Grid{Start: 10 * second, End: 40 * second, Step: 10 * second} // points 0 to 3: 10, 20, 30, 40
	instant := Grid{Start: 20 * second, End: 20 * second}
	some := samplesAt(0, 64, 1, 4, 5, 2, 10, 1, 11, 8, 25, 16, 40, 32, 41, 128)
	for _, tt := range []struct {
		name    string
		agg     logql.RangeAgg
		grid    Grid
		samples []sample
		want    []Point
	}{
		{"count_over_time", logql.RangeAgg{Op: logql.CountOverTime}, every10, some, []Point{{0, 3}, {1, 1}, {2, 1}, {3, 1}}},
		{"count_over_time counts, whatever is added", logql.RangeAgg{Op: logql.CountOverTime, Range: 100 * time.Second}, instant, some, []Point{{0, 5}}},
		{"rate", logql.RangeAgg{Op: logql.Rate, Range: 20 * time.Second}, every10, some, []Point{{0, 4. / 20}, {1, 4. / 20}, {2, 2. / 20}, {3, 2. / 20}}},
		{"rate of values", logql.RangeAgg{Op: logql.Rate, Unwrap: value}, every10, some, []Point{{0, .7}, {1, .8}, {2, 1.6}, {3, 3.2}}},
		{"bytes_over_time", logql.RangeAgg{Op: logql.BytesOverTime}, every10, some, []Point{{0, 7}, {1, 8}, {2, 16}, {3, 32}}},
		{"bytes_rate", logql.RangeAgg{Op: logql.BytesRate}, every10, some, []Point{{0, .7}, {1, .8}, {2, 1.6}, {3, 3.2}}},
		{"sum_over_time", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value}, every10, some, []Point{{0, 7}, {1, 8}, {2, 16}, {3, 32}}},
		{"avg_over_time", logql.RangeAgg{Op: logql.AvgOverTime, Unwrap: value}, every10, some, []Point{{0, 7. / 3}, {1, 8}, {2, 16}, {3, 32}}},
		{"min_over_time", logql.RangeAgg{Op: logql.MinOverTime, Unwrap: value, Range: 20 * time.Second}, every10, some, []Point{{0, 1}, {1, 1}, {2, 8}, {3, 16}}},
		{"max_over_time", logql.RangeAgg{Op: logql.MaxOverTime, Unwrap: value, Range: 20 * time.Second}, every10, some, []Point{{0, 64}, {1, 8}, {2, 16}, {3, 32}}},
		{"first_over_time", logql.RangeAgg{Op: logql.FirstOverTime, Unwrap: value}, every10, some, []Point{{0, 4}, {1, 8}, {2, 16}, {3, 32}}},
		{"last_over_time", logql.RangeAgg{Op: logql.LastOverTime, Unwrap: value}, every10, some, []Point{{0, 1}, {1, 8}, {2, 16}, {3, 32}}},
		{"stdvar_over_time", logql.RangeAgg{Op: logql.StdvarOverTime, Unwrap: value}, every10, samplesAt(1, 2, 2, 4, 3, 6, 25, 7), []Point{{0, 8. / 3}, {2, 0}}},
		{"stddev_over_time", logql.RangeAgg{Op: logql.StddevOverTime, Unwrap: value}, every10, samplesAt(1, 1, 2, 5), []Point{{0, 2}}},
		{"stddev_over_time of what is infinite", logql.RangeAgg{Op: logql.StddevOverTime, Unwrap: value}, every10, samplesAt(1, inf, 11, nan), []Point{{0, nan}, {1, nan}}},

		{"nothing", logql.RangeAgg{Op: logql.CountOverTime}, every10, nil, nil},
		{"nothing in a range", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value}, every10, samplesAt(0, 1, 41, 1), nil},
		{"a gap", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value}, every10, samplesAt(5, 1, 35, 2), []Point{{0, 1}, {3, 2}}},
		{"offset", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value, Offset: 5 * time.Second}, every10, some, []Point{{0, 70}, {1, 9}, {2, 16}}},
		{"negative offset", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value, Offset: -5 * time.Second}, every10, some, []Point{{0, 9}, {1, 16}, {3, 160}}},
		{"step > range", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value, Range: time.Second}, every10, some, []Point{{0, 1}, {3, 32}}},
		{"a range that is no multiple of the step", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value, Range: 15 * time.Second}, every10, some, []Point{{0, 71}, {1, 9}, {2, 16}, {3, 32}}},
		{"an instant", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value, Range: 15 * time.Second}, instant, some, []Point{{0, 9}}},

		{"infinite values leave with their range", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value}, every10, samplesAt(5, inf, 15, -inf, 25, nan, 35, 1), []Point{{0, inf}, {1, -inf}, {2, nan}, {3, 1}}},
		{"infinite values cancel out to none", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value}, every10, samplesAt(5, inf, 6, -inf), []Point{{0, nan}}},
		{"large values leave with their range", logql.RangeAgg{Op: logql.SumOverTime, Unwrap: value}, every10, samplesAt(5, 1e300, 15, 1), []Point{{0, 1e300}, {1, 1}}},
		{"min_over_time of none and numbers", logql.RangeAgg{Op: logql.MinOverTime, Unwrap: value}, every10, samplesAt(5, nan, 6, 3, 15, 3, 16, nan, 25, nan), []Point{{0, 3}, {1, 3}, {2, nan}}},
		{"max_over_time of none and numbers", logql.RangeAgg{Op: logql.MaxOverTime, Unwrap: value}, every10, samplesAt(5, nan, 6, 3, 15, 3, 16, nan, 25, nan), []Point{{0, 3}, {1, 3}, {2, nan}}},
		{"avg_over_time of none", logql.RangeAgg{Op: logql.AvgOverTime, Unwrap: value}, every10, samplesAt(5, nan, 6, 3, 15, 3), []Point{{0, nan}, {1, 3}}},

		{"quantile_over_time, median of an odd number", logql.RangeAgg{Op: logql.QuantileOverTime, Param: .5}, every10, samplesAt(5, 9, 6, 1, 7, 3), []Point{{0, 3}}},
		{"quantile_over_time, median of an even number", logql.RangeAgg{Op: logql.QuantileOverTime, Param: .5}, every10, samplesAt(5, 9, 6, 1, 7, 3, 8, 4), []Point{{0, 3.5}}},
		{"quantile_over_time, between two", logql.RangeAgg{Op: logql.QuantileOverTime, Param: .75}, every10, samplesAt(5, 0, 6, 10, 15, 1), []Point{{0, 7.5}, {1, 1}}},
		{"quantile_over_time, least", logql.RangeAgg{Op: logql.QuantileOverTime, Param: 0}, every10, samplesAt(5, 9, 6, 1, 7, 3), []Point{{0, 1}}},
		{"quantile_over_time, largest", logql.RangeAgg{Op: logql.QuantileOverTime, Param: 1}, every10, samplesAt(5, 9, 6, 1, 7, 3), []Point{{0, 9}}},
		{"quantile_over_time, below 0", logql.RangeAgg{Op: logql.QuantileOverTime, Param: -.1}, every10, samplesAt(5, 9), []Point{{0, -inf}}},
		{"quantile_over_time, above 1", logql.RangeAgg{Op: logql.QuantileOverTime, Param: 1.1}, every10, samplesAt(5, 9), []Point{{0, inf}}},
		{"quantile_over_time, none", logql.RangeAgg{Op: logql.QuantileOverTime, Param: nan}, every10, samplesAt(5, 9), []Point{{0, nan}}},
		{"quantile_over_time, none is least", logql.RangeAgg{Op: logql.QuantileOverTime, Param: 1}, every10, samplesAt(5, 9, 6, nan), []Point{{0, 9}}},
		{"quantile_over_time, infinite values above", logql.RangeAgg{Op: logql.QuantileOverTime, Param: .5}, every10, samplesAt(5, 9, 6, 1, 7, inf, 15, inf, 16, 1), []Point{{0, 9}, {1, inf}}},
		{"quantile_over_time, ranges slide", logql.RangeAgg{Op: logql.QuantileOverTime, Param: .5, Range: 20 * time.Second}, every10, samplesAt(5, 1, 6, 2, 15, 3, 25, 2, 26, 9, 27, 9), []Point{{0, 1.5}, {1, 2}, {2, 6}, {3, 9}}},

		// 10 in 8 s, and 1 s at each end: 12.5 in 10 s.
		{"rate_counter, to both ends", logql.RangeAgg{Op: logql.RateCounter}, every10, samplesAt(1, 100, 5, 104, 9, 110), []Point{{0, 1.25}}},
		// 4 in 2 s. The ends of 4 s are longer than 1.1 times the distance of 1 s: half a second each.
		{"rate_counter, half a distance", logql.RangeAgg{Op: logql.RateCounter}, every10, samplesAt(4, 100, 5, 102, 6, 104), []Point{{0, .6}}},
		// 8 in 4 s, 2 s behind it; it was 0 half a second before the first sample.
		{"rate_counter, back to 0", logql.RangeAgg{Op: logql.RateCounter}, every10, samplesAt(4, 1, 8, 9), []Point{{0, 8 * 6.5 / 4 / 10}}},
		{"rate_counter, began anew", logql.RangeAgg{Op: logql.RateCounter}, every10, samplesAt(1, 100, 3, 110, 5, 2, 7, 5, 9, 1), []Point{{0, (10 + 2 + 3 + 1) * 10. / 8 / 10}}},
		{"rate_counter, began anew between ranges", logql.RangeAgg{Op: logql.RateCounter}, every10, samplesAt(1, 1000, 9, 1080, 11, 100, 19, 180), []Point{{0, 10}, {1, 10}}},
		{"rate_counter, does not rise", logql.RangeAgg{Op: logql.RateCounter}, every10, samplesAt(1, 3, 9, 3), []Point{{0, 0}}},
		{"rate_counter, one sample", logql.RangeAgg{Op: logql.RateCounter}, every10, samplesAt(1, 3), []Point{{0, 0}}},
		{"rate_counter, at one time", logql.RangeAgg{Op: logql.RateCounter}, every10, samplesAt(1, 3, 1, 8), []Point{{0, .5}}},
		{"rate_counter, offset", logql.RangeAgg{Op: logql.RateCounter, Offset: 10 * time.Second}, every10, samplesAt(1, 100, 5, 104, 9, 110), []Point{{1, 1.25}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.agg.Range == 0 {
				tt.agg.Range = 10 * time.Second
			}
			for range 5 { // in any order
				a := NewAccumulator(&tt.agg, WindowOf(&tt.agg, tt.grid), 0, 0)
				for _, s := range tt.samples {
					if err := a.Add(labels("app", "api"), s.at, s.value); err != nil {
						t.Fatal(err)
					}
				}
				var want []Series
				if tt.want != nil {
					want = []Series{{labels("app", "api"), tt.want}}
				}
				equal(t, want, a.Series())
				rand.Shuffle(len(tt.samples), func(i, j int) { tt.samples[i], tt.samples[j] = tt.samples[j], tt.samples[i] })
			}
		})
	}
}

func TestAbsentOverTime(t *testing.T) {
	grid := Grid{Start: 10 * second, End: 40 * second, Step: 10 * second}
	selector := []logql.Matcher{
		{Name: "job", Op: logql.Equal, Value: "web"},
		{Name: "app", Op: logql.Equal, Value: "api"},
		{Name: "env", Op: logql.Regexp, Value: "prod|dev"},
		{Name: "host", Op: logql.Equal, Value: ""},
		{Name: "zone", Op: logql.Equal, Value: "a"},
		{Name: "zone", Op: logql.NotEqual, Value: "b"},
	}
	for _, tt := range []struct {
		name    string
		grid    Grid
		samples []sample
		want    []Series
	}{
		{"nothing", grid, nil, []Series{{labels("app", "api", "job", "web"), []Point{{0, 1}, {1, 1}, {2, 1}, {3, 1}}}}},
		{"some", grid, samplesAt(5, 1, 25, 1), []Series{{labels("app", "api", "job", "web"), []Point{{1, 1}, {3, 1}}}}},
		{"everywhere", grid, samplesAt(5, 1, 15, 0, 25, math.NaN(), 35, 1), nil},
		{"instant", Grid{Start: 10 * second, End: 10 * second}, samplesAt(11, 1), []Series{{labels("app", "api", "job", "web"), []Point{{0, 1}}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			agg := &logql.RangeAgg{Op: logql.AbsentOverTime, Log: &logql.LogExpr{Matchers: selector}, Range: 10 * time.Second}
			a := NewAccumulator(agg, WindowOf(agg, tt.grid), 1, 0)
			for i, s := range tt.samples {
				if err := a.Add(labels("pod", fmt.Sprint(i)), s.at, s.value); err != nil {
					t.Fatal(err)
				}
			}
			equal(t, tt.want, a.Series())
		})
	}
}

func TestSeriesAreOrderedByLabels(t *testing.T) {
	agg := &logql.RangeAgg{Op: logql.CountOverTime, Range: time.Second}
	a := NewAccumulator(agg, WindowOf(agg, Grid{Start: second, End: second}), 0, 0)
	want := [][]logs.Label{
		nil, labels("a", "1"), labels("a", "1", "b", "1"), labels("a", "1", "c", "1"), labels("a", "10"), labels("a", "2"),
		labels("a", "2b", "c", ""), labels("ab", "1"), labels("b", strings.Repeat("long", 100)),
	}
	for _, i := range rand.Perm(len(want)) {
		given := slices.Clone(want[i])
		if err := a.Add(given, Position{Time: second}, 1); err != nil {
			t.Fatal(err)
		}
		clear(given) // it is the caller's again
	}
	var got [][]logs.Label
	for _, s := range a.Series() {
		got = append(got, slices.Clip(append([]logs.Label(nil), s.Labels...)))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestAccumulatorIsBounded(t *testing.T) {
	grid := Grid{Start: 0, End: 1000 * second, Step: second}
	fill := func(agg *logql.RangeAgg, maxSeries int, maxBytes int64) error {
		a := NewAccumulator(agg, WindowOf(agg, grid), maxSeries, maxBytes)
		for i := range 100_000 {
			err := a.Add(labels("app", fmt.Sprint(i%600)), Position{Time: int64(i%1000) * second}, 1)
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, tt := range []struct {
		name      string
		op        logql.RangeOp
		maxSeries int
		maxBytes  int64
		want      string
	}{
		{"no bound", logql.CountOverTime, 0, 0, ""},
		{"far from the bounds", logql.CountOverTime, 600, 1 << 30, ""},
		{"series", logql.CountOverTime, 500, 0, "maximum number of series (500) reached for a single query; consider reducing query cardinality by adding more " +
			"specific stream selectors, reducing the time range, or aggregating results with functions like sum(), count() or topk()"},
		{"bytes", logql.CountOverTime, 0, 1 << 20, "count_over_time needs more than the 1048576 bytes of memory that a query may take; consider more specific stream " +
			"selectors, fewer labels (by or without), a shorter time range, or a larger step"},
		{"bytes of samples", logql.QuantileOverTime, 0, 1 << 20, "quantile_over_time needs more than the 1048576 bytes of memory that a query may take; consider more specific stream " +
			"selectors, fewer labels (by or without), a shorter time range, or a larger step"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := fill(&logql.RangeAgg{Op: tt.op, Range: time.Second}, tt.maxSeries, tt.maxBytes)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if limit, ok := errors.AsType[*LimitError](err); !ok || limit.Reason != tt.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPointsThatNoMemoryHolds(t *testing.T) {
	agg := &logql.RangeAgg{Op: logql.CountOverTime, Range: 1}
	a := NewAccumulator(agg, WindowOf(agg, Grid{Start: math.MinInt64, End: math.MaxInt64, Step: 1}), 0, 1<<20)
	if err := a.Add(nil, Position{Time: math.MinInt64}, 1); err != nil {
		t.Error(err)
	}
	if _, ok := errors.AsType[*LimitError](a.Add(nil, Position{Time: math.MinInt64 + 1<<40}, 1)); !ok {
		t.Error("there is no limit")
	}
}

// TestMemoryIsCounted compares, up to an eighth, what is counted with what the heap grows by, of series that have few samples and of series that have many.
func TestMemoryIsCounted(t *testing.T) {
	for _, op := range []logql.RangeOp{logql.CountOverTime, logql.LastOverTime, logql.QuantileOverTime, logql.RateCounter} {
		for _, samples := range []int{1, 50, 2000} {
			for _, points := range []int{1, 100, 5000} {
				agg := &logql.RangeAgg{Op: op, Range: 3 * time.Second, Param: .5}
				w := WindowOf(agg, Grid{Start: 0, End: int64(points-1) * second, Step: second})
				from, to := w.Span()
				before := heap()
				a := NewAccumulator(agg, w, 0, 0)
				for s := range 100 {
					l := labels("app", "api", "pod", fmt.Sprint("a pod of a longer name, ", s))
					for i := range samples {
						at := Position{Time: from + 1 + rand.Int64N(to-from), Index: uint32(i)}
						if err := a.Add(l, at, 1); err != nil {
							t.Fatal(err)
						}
					}
				}
				held := heap() - before
				out := a.Series()
				all := heap() - before
				if most := a.bytes + a.bytes/8 + 64<<10; held > most || all > most {
					t.Errorf("%s of %d samples at %d points: %d bytes are counted, %d were held, %d with the values", op, samples, points, a.bytes, held, all)
				}
				runtime.KeepAlive(out)
				runtime.KeepAlive(a)
			}
		}
	}
}

// heap is the bytes that are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestMergeRefuses(t *testing.T) {
	grid := Grid{Start: 10 * second, End: 40 * second, Step: 10 * second}
	for _, tt := range []struct {
		name        string
		op          logql.RangeOp
		first, last int
		want        string
	}{
		{"a function that takes samples", logql.QuantileOverTime, 0, 0, "quantile_over_time cannot be computed of partials"},
		{"points beyond the last", logql.SumOverTime, 3, 4, "points 3 to 4 are not within the 4 of the query"},
		{"points before the first", logql.SumOverTime, -1, 2, "points -1 to 2 are not within the 4 of the query"},
		{"points of no interval", logql.SumOverTime, 0, 2, "points 0 to 2 are no interval of the query: points 1 to 1 are"},
		{"nothing", logql.SumOverTime, 2, 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			agg := &logql.RangeAgg{Op: tt.op, Range: 10 * time.Second}
			a := NewAccumulator(agg, WindowOf(agg, grid), 0, 0)
			if err := a.Add(nil, Position{Time: 20 * second}, 1); err != nil {
				t.Fatal(err)
			}
			if err := a.Merge(nil, tt.first, tt.last, Partial{}); tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// mergingOps are the functions that merge, and otherOps those that don't.
var (
	mergingOps = []logql.RangeAgg{
		{Op: logql.Rate}, {Op: logql.CountOverTime}, {Op: logql.BytesRate}, {Op: logql.BytesOverTime}, {Op: logql.AbsentOverTime},
		{Op: logql.Rate, Unwrap: &logql.Unwrap{}}, {Op: logql.SumOverTime}, {Op: logql.AvgOverTime}, {Op: logql.MinOverTime},
		{Op: logql.MaxOverTime}, {Op: logql.FirstOverTime}, {Op: logql.LastOverTime},
	}
	otherOps = []logql.RangeAgg{
		{Op: logql.QuantileOverTime, Param: .3}, {Op: logql.QuantileOverTime, Param: .99}, {Op: logql.StddevOverTime},
		{Op: logql.StdvarOverTime}, {Op: logql.RateCounter},
	}
)

// TestAccumulatorIsItsDefinition computes functions of random samples by their definition, of each range by itself, and wants the same
// of the Accumulator: given sample by sample, and where the function merges, given partials of any groups of samples, and both.
func TestAccumulatorIsItsDefinition(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, agg := range slices.Concat(mergingOps, otherOps) {
		if Merges(agg.Op) == slices.ContainsFunc(otherOps, func(o logql.RangeAgg) bool { return o.Op == agg.Op }) {
			t.Errorf("Merges(%s) is %t", agg.Op, Merges(agg.Op))
		}
		agg.Log = &logql.LogExpr{Matchers: []logql.Matcher{{Name: "app", Value: "api"}}}
		for range 300 {
			size := int64(1) << (2 + random.IntN(40))
			agg.Range, agg.Offset = time.Duration(1+random.Int64N(size)), time.Duration(random.Int64N(2*size)-size)
			grid := Grid{Start: random.Int64N(2*size) - size, Step: 1 + random.Int64N(size)}
			grid.End = grid.Start + grid.Step*random.Int64N(20)
			if random.IntN(5) == 0 {
				grid.End, grid.Step = grid.Start, 0
			}
			w := WindowOf(&agg, grid)
			from, to := w.Span()
			var all []sample
			for i := range random.IntN(200) {
				all = append(all, sample{random.IntN(3), Position{
					Time: from - size/4 + random.Int64N(to-from+size/2+1), Shard: uint16(random.IntN(2)), Sequence: uint64(random.IntN(2)), Index: uint32(i),
				}, quarter(random)})
			}
			want := define(&agg, w, all)

			a := NewAccumulator(&agg, w, 0, 0)
			for _, s := range all {
				add(t, a, s)
			}
			equal(t, want, a.Series())
			if !Merges(agg.Op) {
				continue
			}
			for _, share := range []float64{1, .5} { // of samples that come in partials
				a := NewAccumulator(&agg, w, 0, 0)
				partials := map[[4]int]*Partial{}
				for _, s := range all {
					first, last := w.Interval(s.at.Time)
					if first > last || random.Float64() >= share {
						add(t, a, s)
						continue
					}
					k := [4]int{s.series, first, last, random.IntN(3)}
					if partials[k] == nil {
						partials[k] = &Partial{Min: math.Inf(1), Max: math.Inf(-1)}
					}
					partials[k].include(s)
				}
				keys := slices.Collect(maps.Keys(partials))
				random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
				for _, k := range keys {
					if err := a.Merge(seriesLabels(k[0]), k[1], k[2], *partials[k]); err != nil {
						t.Fatal(err)
					}
				}
				equal(t, want, a.Series())
			}
		}
	}
}

// quarter is a random multiple of 1/4: sums of such are exact in any order.
func quarter(random *rand.Rand) float64 { return float64(random.IntN(4000)-2000) / 4 }

func seriesLabels(i int) []logs.Label { return labels("app", "api", "pod", fmt.Sprint(i)) }

func add(t *testing.T, a *Accumulator, s sample) {
	t.Helper()
	if err := a.Add(seriesLabels(s.series), s.at, s.value); err != nil {
		t.Fatal(err)
	}
}

// include adds a sample to a partial.
func (p *Partial) include(s sample) {
	if p.Count == 0 || s.at.Compare(p.FirstAt) < 0 {
		p.First, p.FirstAt = s.value, s.at
	}
	if p.Count == 0 || s.at.Compare(p.LastAt) > 0 {
		p.Last, p.LastAt = s.value, s.at
	}
	p.Count++
	p.Sum += s.value
	p.Min, p.Max = min(p.Min, s.value), max(p.Max, s.value)
}

// define computes a range aggregation by its definition.
func define(agg *logql.RangeAgg, w Window, all []sample) []Series {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b sample) int { return a.at.Compare(b.at) })
	if agg.Op == logql.AbsentOverTime {
		var points []Point
		for i := range w.Len() {
			if len(within(w, i, all)) == 0 {
				points = append(points, Point{i, 1})
			}
		}
		if points == nil {
			return nil
		}
		return []Series{{labels("app", "api"), points}}
	}
	var out []Series
	for n := range 3 {
		of := slices.DeleteFunc(slices.Clone(all), func(s sample) bool { return s.series != n })
		var points []Point
		for i := range w.Len() {
			if in := within(w, i, of); len(in) > 0 {
				points = append(points, Point{i, defineOne(agg, w.At(i)-int64(w.Offset), in)})
			}
		}
		if points != nil {
			out = append(out, Series{seriesLabels(n), points})
		}
	}
	return out
}

func within(w Window, point int, all []sample) []sample {
	end := w.At(point) - int64(w.Offset)
	return slices.DeleteFunc(slices.Clone(all), func(s sample) bool {
		return s.at.Time <= end-int64(w.Range) || s.at.Time > end
	})
}

// defineOne computes it of the samples of one range, which are ordered, and of which there is one.
func defineOne(agg *logql.RangeAgg, end int64, in []sample) float64 {
	var values []float64
	total := 0.
	for _, s := range in {
		values = append(values, s.value)
		total += s.value
	}
	n := float64(len(in))
	switch agg.Op {
	case logql.CountOverTime:
		return n
	case logql.Rate:
		if agg.Unwrap == nil {
			return n / agg.Range.Seconds()
		}
		return total / agg.Range.Seconds()
	case logql.BytesRate:
		return total / agg.Range.Seconds()
	case logql.BytesOverTime, logql.SumOverTime:
		return total
	case logql.AvgOverTime:
		return total / n
	case logql.MinOverTime:
		return slices.Min(values)
	case logql.MaxOverTime:
		return slices.Max(values)
	case logql.FirstOverTime:
		return values[0]
	case logql.LastOverTime:
		return values[len(values)-1]
	case logql.StdvarOverTime, logql.StddevOverTime:
		squares := 0.
		for _, v := range values {
			squares += (v - total/n) * (v - total/n)
		}
		if agg.Op == logql.StdvarOverTime {
			return squares / n
		}
		return math.Sqrt(squares / n)
	case logql.QuantileOverTime:
		slices.Sort(values)
		rank := agg.Param * (n - 1)
		low, high := values[int(math.Floor(rank))], values[int(math.Ceil(rank))]
		return low + (high-low)*(rank-math.Floor(rank))
	case logql.RateCounter:
		return defineRate(agg, end, in)
	}
	panic(agg.Op)
}

func defineRate(agg *logql.RangeAgg, end int64, in []sample) float64 {
	first, last := in[0], in[len(in)-1]
	if len(in) == 1 {
		return 0
	}
	rose := 0.
	for i, s := range in[1:] {
		if s.value < in[i].value {
			rose += s.value
		} else {
			rose += s.value - in[i].value
		}
	}
	sampled := float64(last.at.Time - first.at.Time)
	if sampled == 0 {
		return rose / agg.Range.Seconds()
	}
	distance := sampled / float64(len(in)-1)
	before, after := float64(first.at.Time-(end-int64(agg.Range))), float64(end-last.at.Time)
	if before >= 1.1*distance {
		before = distance / 2
	}
	if after >= 1.1*distance {
		after = distance / 2
	}
	if rose > 0 && first.value >= 0 && sampled*first.value/rose < before {
		before = sampled * first.value / rose
	}
	return rose / sampled * (sampled + before + after) / agg.Range.Seconds()
}

// equal compares series: labels and indexes, and values up to what rounding may do to them.
func equal(t *testing.T, want, got []Series) {
	t.Helper()
	same := slices.EqualFunc(want, got, func(a, b Series) bool {
		return slices.Equal(a.Labels, b.Labels) && slices.EqualFunc(a.Points, b.Points, func(a, b Point) bool {
			near := math.Abs(a.Value-b.Value) <= 1e-9*max(math.Abs(a.Value), math.Abs(b.Value))
			return a.Index == b.Index && (a.Value == b.Value || near || math.IsNaN(a.Value) && math.IsNaN(b.Value))
		})
	})
	if !same {
		t.Fatalf("got\n%s\nwant\n%s", write(got), write(want))
	}
}

func write(all []Series) string {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintln(&b, format(s.Labels), s.Points)
	}
	return cmp.Or(b.String(), "nothing")
}

// BenchmarkAdd adds 1 million samples of 500 series at 300 points.
func BenchmarkAdd(b *testing.B) {
	for _, agg := range []logql.RangeAgg{
		{Op: logql.CountOverTime}, {Op: logql.LastOverTime}, {Op: logql.QuantileOverTime, Param: .99}, {Op: logql.StddevOverTime}, {Op: logql.RateCounter},
	} {
		b.Run(string(agg.Op), func(b *testing.B) {
			agg.Range = 5 * time.Minute
			w := WindowOf(&agg, Grid{Start: 1_700_000_000 * second, End: (1_700_000_000 + 299*15) * second, Step: 15 * second})
			from, to := w.Span()
			all := benchmarkLabels()
			b.ReportAllocs()
			for b.Loop() {
				a := NewAccumulator(&agg, w, 500, 0)
				for i := range 1_000_000 {
					at := Position{Time: from + 1 + int64(i)*((to-from)/1_000_000), Sequence: uint64(i)}
					if err := a.Add(all[i*7919%500], at, float64(i%1000)); err != nil {
						b.Fatal(err)
					}
				}
				if got := a.Series(); len(got) != 500 {
					b.Fatal(len(got))
				}
			}
		})
	}
}

// BenchmarkMerge merges 150,000 partials: 500 series at 300 points.
func BenchmarkMerge(b *testing.B) {
	for _, op := range []logql.RangeOp{logql.CountOverTime, logql.AvgOverTime, logql.LastOverTime} {
		b.Run(string(op), func(b *testing.B) {
			agg := &logql.RangeAgg{Op: op, Range: time.Minute, Unwrap: &logql.Unwrap{}}
			w := WindowOf(agg, Grid{Start: 1_700_000_000 * second, End: (1_700_000_000 + 299*15) * second, Step: 15 * second})
			all := benchmarkLabels()
			b.ReportAllocs()
			for b.Loop() {
				a := NewAccumulator(agg, w, 500, 0)
				for point := range 300 {
					first, last := w.Interval(w.At(point))
					for s := range 500 {
						p := Partial{Count: 1, Sum: 2, Last: 3, LastAt: Position{Time: w.At(point)}}
						if err := a.Merge(all[s], first, last, p); err != nil {
							b.Fatal(err)
						}
					}
				}
				if got := a.Series(); len(got) != 500 || len(got[0].Points) != 300 {
					b.Fatal(len(got))
				}
			}
		})
	}
}

func benchmarkLabels() [][]logs.Label {
	all := make([][]logs.Label, 500)
	for i := range all {
		all[i] = labels("app", fmt.Sprint("app", i/10), "env", "production", "level", "info", "namespace", "shop", "pod", fmt.Sprintf("pod-%08x", i*7919))
	}
	return all
}
