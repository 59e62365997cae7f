package bench

import (
	"math"
	"time"
)

// A histogram counts durations from a microsecond to some 18 minutes in buckets that are 1 % wide, which is how exact its
// quantiles are, and keeps the longest as it is.
const (
	histogramWidth   = 1.01
	histogramBuckets = 2092
)

type histogram struct {
	counts  [histogramBuckets]int64
	total   int64
	longest time.Duration
}

func (h *histogram) add(d time.Duration) {
	bucket := 0
	if d > time.Microsecond {
		bucket = min(int(math.Log(float64(d)/float64(time.Microsecond))/math.Log(histogramWidth)), histogramBuckets-1)
	}
	h.counts[bucket]++
	h.total++
	h.longest = max(h.longest, d)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.longest = max(h.longest, other.longest)
}

// quantile returns what a share q of the durations do not exceed, 0 where there are none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := max(int64(math.Ceil(q*float64(h.total))), 1)
	for i, n := range h.counts {
		if rank -= n; rank <= 0 && i < histogramBuckets-1 {
			return min(time.Duration(math.Pow(histogramWidth, float64(i+1))*float64(time.Microsecond)), h.longest)
		}
	}
	return h.longest
}
