package series

// slider computes values of ranges that slide over one series: it is given what the samples of each slot come to, slot by slot, and
// merges those that a range holds. That takes a constant number of merges a slot and a point, however long the ranges are, and takes
// nothing away again from a sum, so that the values are those of the samples of the range, and of nothing else.
type slider[T any] struct {
	intervals *[]interval // by slot
	merge     func(a, b T) T
	value     func(t T, point int) float64

	slots  []int
	cells  []T
	suffix []T // of a range that begins at a cell and ends where the ranges stood when suffix was written
}

// push adds to a slot. Slots never fall.
func (s *slider[T]) push(slot int, t T) {
	if n := len(s.slots); n > 0 && s.slots[n-1] == slot {
		s.cells[n-1] = s.merge(s.cells[n-1], t)
		return
	}
	s.slots = append(s.slots, slot)
	s.cells = append(s.cells, t)
}

// values appends the value at each point whose range holds a cell, and forgets the cells.
func (s *slider[T]) values(to []Point) []Point {
	n := len(s.cells)
	if cap(s.suffix) < n {
		s.suffix = make([]T, n)
	}
	suffix, intervals := s.suffix[:n], *s.intervals
	first := func(cell int) int { return intervals[s.slots[cell]].first }
	last := func(cell int) int { return intervals[s.slots[cell]].last }

	// The range of a point holds the cells from low on and below high. Those below turn are in suffix, those from turn on in back.
	var back T
	low, turn, high := 0, 0, 0
	for point := 0; ; point++ {
		for ; high < n && first(high) <= point; high++ {
			if high == turn {
				back = s.cells[high]
			} else {
				back = s.merge(back, s.cells[high])
			}
		}
		for low < high && last(low) < point {
			low++
		}
		if low == high {
			if high == n {
				break
			}
			point = first(high) - 1
			continue
		}
		if low >= turn {
			turn = high
			suffix[high-1] = s.cells[high-1]
			for i := high - 2; i >= low; i-- {
				suffix[i] = s.merge(s.cells[i], suffix[i+1])
			}
		}
		t := suffix[low]
		if high > turn {
			t = s.merge(t, back)
		}
		to = append(to, Point{point, s.value(t, point)})
	}
	s.slots, s.cells = s.slots[:0], s.cells[:0]
	return to
}
