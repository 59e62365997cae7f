package command

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strconv"

	"github.com/casteloig/logthra/command/answer"
)

// Entries are asked for in pages of about so many bytes of lines, within these numbers of lines. A page is in memory, as it has to be
// brought into order.
const (
	pageBytes = 4 << 20
	firstPage = 500
	leastPage = 100
	mostPage  = 5000 // what gateways answer with at most, unless they say otherwise
)

// paging asks for entries page by page. A page begins with the time at which the one before ended, as there may be more entries of that
// time: those that are known are asked for again, and left out.
type paging struct {
	forward    bool
	start, end int64 // of what is left, unix nanoseconds
	limit      int   // entries that are wanted still; 0: all
	most       int   // that the gateway answers with

	size  int // of a page of about pageBytes
	edge  int64
	known map[answer.ID]int // how many of the time edge were returned
	again int               // the sum of those
	asked int
}

func newPaging(start, end int64, limit int, forward bool) *paging {
	return &paging{forward: forward, start: start, end: end, limit: limit, most: mostPage, size: firstPage, known: map[answer.ID]int{}}
}

// parameters are those of the next page.
func (p *paging) parameters() url.Values {
	size := p.size
	if p.again < p.most {
		size = min(size, p.most-p.again)
	}
	if p.limit > 0 {
		size = min(size, p.limit)
	}
	p.asked = size + p.again
	direction := "backward"
	if p.forward {
		direction = "forward"
	}
	return url.Values{"start": {nanoseconds(p.start)}, "end": {nanoseconds(p.end)}, "limit": {strconv.Itoa(p.asked)}, "direction": {direction}}
}

// smaller tells whether a gateway that refused to answer with as many entries as were asked for may be asked for fewer.
func (p *paging) smaller(most int) bool {
	smaller := most < p.most && p.again < most
	p.most = most
	return smaller
}

// take takes the page that was asked for. It returns what is new, in the order that is wanted, and whether there may be more.
func (p *paging) take(entries []answer.Entry) (fresh []answer.Entry, more bool) {
	more = len(entries) >= p.asked
	byTime(entries, p.forward)
	known := maps.Clone(p.known)
	fresh = slices.DeleteFunc(entries, func(e answer.Entry) bool {
		if e.Time != p.edge || known[e.ID()] == 0 {
			return false
		}
		known[e.ID()]--
		return true
	})
	if p.limit > 0 {
		fresh = fresh[:min(len(fresh), p.limit)]
		if p.limit -= len(fresh); p.limit == 0 {
			return fresh, false
		}
	}
	if len(fresh) == 0 {
		return nil, false
	}
	p.advance(fresh)
	return fresh, more
}

// advance goes to the page behind entries.
func (p *paging) advance(entries []answer.Entry) {
	if edge := entries[len(entries)-1].Time; edge != p.edge {
		p.edge, p.again = edge, 0
		clear(p.known)
	}
	bytes := 0
	for i := range entries {
		bytes += len(entries[i].Line)
		if entries[i].Time == p.edge {
			p.known[entries[i].ID()]++
			p.again++
		}
	}
	p.size = min(max(pageBytes/(bytes/len(entries)+1), leastPage), mostPage)
	if p.forward {
		p.start = p.edge
	} else {
		p.end = p.edge + 1
	}
}

// byTime brings entries into the order of time, the oldest first if forward. Those of the same time stay as they are.
func byTime(entries []answer.Entry, forward bool) {
	slices.SortStableFunc(entries, func(a, b answer.Entry) int {
		if forward {
			return cmp.Compare(a.Time, b.Time)
		}
		return cmp.Compare(b.Time, a.Time)
	})
}
