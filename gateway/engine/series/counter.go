package series

import "slices"

// rise is what a counter did from its first sample to its last.
type rise struct {
	count       float64
	first, last stamped
	lost        float64 // what it had counted each time when it began anew, which is seen by its falling
}

func (r rise) plus(next rise) rise {
	lost := r.lost + next.lost
	if next.first.value < r.last.value {
		lost += r.last.value
	}
	return rise{r.count + next.count, r.first, next.last, lost}
}

// counter computes rate_counter: by how much a counter rose a second, on average of the range. It rose by last-first, and by what it had
// counted each time when it began anew. That is what the samples saw. The ends of the range, before the first and behind the last of
// them, are taken to be like the rest: whole where they are shorter than 1.1 times the mean distance of samples, else for half of that distance;
// and at the front no further than to where the counter would have been 0. So does the rate of Prometheus. One sample does not tell how a
// counter rises: 0. Where all samples have the same time, they are taken for all that happened in the range.
func counter(a *Accumulator) func() column {
	w := a.window
	rate := func(r rise, point int) float64 {
		if r.count < 2 {
			return 0
		}
		rose := r.last.value - r.first.value + r.lost
		first, last, end := widen(r.first.at.Time), widen(r.last.at.Time), widen(w.At(point)).minus(widen(int64(w.Offset)))
		sampled := last.minus(first).seconds()
		if sampled == 0 {
			return rose / w.Range.Seconds()
		}
		distance := sampled / (r.count - 1)
		reach := func(gap float64) float64 {
			if gap < 1.1*distance {
				return gap
			}
			return distance / 2
		}
		after := reach(end.minus(last).seconds())
		before := reach(first.minus(end.minus(widen(int64(w.Range)))).seconds())
		if rose > 0 && r.first.value >= 0 {
			before = min(before, sampled*r.first.value/rose)
		}
		return rose * (before + sampled + after) / sampled / w.Range.Seconds()
	}
	s := &slider[rise]{intervals: &a.intervals, merge: rise.plus, value: rate}
	finish := func(all []stamped, to []Point) []Point {
		slices.SortFunc(all, func(a, b stamped) int { return a.at.Compare(b.at) })
		for _, v := range all {
			first, last := w.interval(v.at.Time, a.points)
			s.push(first+last, rise{1, v, v, 0})
		}
		return s.values(to)
	}
	of := func(_ int, at Position, value float64) stamped { return stamped{at, value} }
	return func() column { return &samples[stamped]{of: of, finish: finish} }
}
