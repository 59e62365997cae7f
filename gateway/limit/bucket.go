package limit

import "time"

// bucket is a token bucket that may go into debt: what it is asked for is found out only once a push was read, so
// that a push is let in while there is anything in it, takes what it is, and the next waits until that is paid back.
// Over any time t no more than rate × t + burst is let in, and what the pushes under way at the end of t hold.
type bucket struct {
	tokens float64
	at     time.Time // when tokens was right
	filled bool
}

// wait fills the bucket for the time that has passed, and returns how long it takes until there is one whole token in
// it, a push or a byte.
func (b *bucket) wait(rate, burst float64, now time.Time) time.Duration {
	if burst = max(burst, 1); !b.filled {
		b.tokens, b.filled = burst, true
	} else if passed := now.Sub(b.at); passed > 0 {
		b.tokens += rate * passed.Seconds()
	}
	b.tokens = min(b.tokens, burst)
	b.at = now
	if b.tokens >= 1 {
		return 0
	}
	return time.Duration((1 - b.tokens) / rate * float64(time.Second))
}

func (b *bucket) take(n float64) { b.tokens -= n }
