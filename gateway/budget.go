package gateway

import "sync/atomic"

// budget is the memory that pushes under way may take, and do. Nobody waits for it: what does not fit is refused.
type budget struct {
	most int64 // bytes
	used atomic.Int64
}

// TryAcquire takes n bytes, if they are to be had.
func (b *budget) TryAcquire(n int64) bool {
	for {
		used := b.used.Load()
		if n > b.most-used {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// Release gives n bytes back.
func (b *budget) Release(n int64) { b.used.Add(-n) }
