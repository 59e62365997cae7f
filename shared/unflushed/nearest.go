package unflushed

// nearest tells of which entries there are enough nearer ones already: newer ones, or older ones with forward. It keeps the times of the
// nearest so far.
type nearest struct {
	most    int // that are enough; 0: all are wanted
	forward bool

	keys  []int64 // of times, a heap: the least near one is first
	isCut bool    // an entry was refused, or may have been
}

// key is higher for what is nearer.
func (n *nearest) key(time int64) int64 {
	if n.forward {
		return -time
	}
	return time
}

// mayTake tells whether an entry between these times may be taken.
func (n *nearest) mayTake(earliest, latest int64) bool {
	if n.most == 0 || len(n.keys) < n.most || max(n.key(earliest), n.key(latest)) >= n.keys[0] {
		return true
	}
	n.isCut = true
	return false
}

// take tells whether an entry is taken.
func (n *nearest) take(time int64) bool {
	if n.most == 0 {
		return true
	}
	key := n.key(time)
	if len(n.keys) < n.most {
		n.keys = append(n.keys, key)
		for i := len(n.keys) - 1; i > 0 && n.keys[(i-1)/2] > n.keys[i]; i = (i - 1) / 2 {
			n.keys[i], n.keys[(i-1)/2] = n.keys[(i-1)/2], n.keys[i]
		}
		return true
	}
	if key < n.keys[0] {
		n.isCut = true
		return false
	}
	n.keys[0] = key
	for i := 0; ; {
		child := 2*i + 1
		if child+1 < len(n.keys) && n.keys[child+1] < n.keys[child] {
			child++
		}
		if child >= len(n.keys) || n.keys[child] >= n.keys[i] {
			return true
		}
		n.keys[i], n.keys[child] = n.keys[child], n.keys[i]
		i = child
	}
}

// bound is where entries were left out: before it, or from it on with forward. All others were taken.
func (n *nearest) bound() (time int64, is bool) {
	switch {
	case !n.isCut:
		return 0, false
	case n.forward:
		return -n.keys[0] + 1, true
	}
	return n.keys[0], true
}
