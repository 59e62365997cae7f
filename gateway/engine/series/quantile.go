package series

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// quantile computes quantile_over_time as Prometheus does: between two values it is in proportion to its distance from them. All
// samples of a series are ranked once; of those that a range holds it is counted how many have which rank, in a tree that tells the
// n-th of them and takes a sample in or out in as many steps as the number of samples has bits.
func quantile(a *Accumulator) func() column {
	finish := func(all []slotted, to []Point) []Point {
		slices.SortFunc(all, func(a, b slotted) int { return cmp.Compare(a.value, b.value) })
		order := make([]int32, len(all)) // ranks by slot
		for rank := range order {
			order[rank] = int32(rank)
		}
		slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(all[a].slot, all[b].slot) })
		interval := func(i int) interval { return a.intervals[all[order[i]].slot] }

		in := newRanks(len(all))
		value := func(n int) float64 { return all[in.at(n)].value }
		low, high := 0, 0
		for point := range a.points {
			for ; high < len(order) && interval(high).first <= point; high++ {
				in.add(int(order[high]), 1)
			}
			for ; low < high && interval(low).last < point; low++ {
				in.add(int(order[low]), -1)
			}
			if low < high {
				to = append(to, Point{point, interpolate(a.agg.Param, high-low, value)})
			}
		}
		return to
	}
	return func() column { return &samples[slotted]{of: newSlotted, finish: finish} }
}

// interpolate is the quantile q of n values, of which at gives the i-th smallest.
func interpolate(q float64, n int, at func(i int) float64) float64 {
	switch {
	case math.IsNaN(q):
		return q
	case q < 0:
		return math.Inf(-1)
	case q > 1:
		return math.Inf(1)
	}
	rank := q * float64(n-1)
	low, weight := int(rank), rank-math.Floor(rank)
	if weight == 0 { // an infinite value above it does not count
		return at(low)
	}
	return at(low)*(1-weight) + at(low+1)*weight
}

// ranks is a multiset of the ranks from 0 on: a Fenwick tree of how many of each there are.
type ranks []int32

func newRanks(n int) ranks { return make(ranks, n+1) }

// add adds count to how many there are of a rank.
func (r ranks) add(rank int, count int32) {
	for i := rank + 1; i < len(r); i += i & -i {
		r[i] += count
	}
}

// at is the n-th smallest, from 0 on, of those that are there.
func (r ranks) at(n int) int {
	rank, left := 0, int32(n)
	for step := 1 << (bits.Len(uint(len(r))) - 1); step > 0; step >>= 1 {
		if next := rank + step; next < len(r) && r[next] <= left {
			rank = next
			left -= r[next]
		}
	}
	return rank
}
