package decode

import "fmt"

// MaxLabels is how many labels a stream may have; Loki's own limit is 15 unless configured. It bounds what a push
// of nothing but tiny labels can take in memory.
const MaxLabels = 1024

// ErrTooManyLabels is the reason given for a stream with more than MaxLabels.
var ErrTooManyLabels = fmt.Errorf("a stream has at most %d labels", MaxLabels)

const (
	maxCacheBytes = 1 << 20 // of a whole LabelCache, keys and values
	maxCacheEntry = 8 << 10 // of one key with its value
)

// LabelCache remembers the canonical form of labels by the bytes that they came as. Shippers send the same
// streams over and over; a hit costs a hash instead of parsing, sorting and two allocations. Labels that are
// refused are never in it. The zero value is an empty cache.
type LabelCache struct {
	canonical map[string]string
	bytes     int
}

// Get returns the canonical form of labels that were put.
func (c *LabelCache) Get(wire []byte) (canonical string, ok bool) {
	canonical, ok = c.canonical[string(wire)]
	return canonical, ok
}

// Put adds labels that Get did not find. A full cache starts again from nothing.
func (c *LabelCache) Put(wire []byte, canonical string) {
	size := len(wire) + len(canonical)
	if size > maxCacheEntry {
		return
	}
	if c.canonical == nil {
		c.canonical = make(map[string]string)
	}
	if c.bytes+size > maxCacheBytes {
		clear(c.canonical)
		c.bytes = 0
	}
	c.canonical[string(wire)] = canonical
	c.bytes += size
}
