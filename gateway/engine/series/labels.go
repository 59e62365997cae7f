package series

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// Group appends the labels that a grouping keeps, in the order in which they are given: those that it names, or those that it does not
// name. Of none, which is nil, no label is kept.
func Group(dst, labels []logs.Label, g *logql.Grouping) []logs.Label {
	if g == nil {
		return dst
	}
	for _, l := range labels {
		if slices.Contains(g.Labels, l.Name) != g.Without {
			dst = append(dst, l)
		}
	}
	return dst
}

// Key appends an encoding of labels that no other labels have: each name and value behind its length.
func Key(dst []byte, labels []logs.Label) []byte {
	for _, l := range labels {
		dst = binary.AppendUvarint(dst, uint64(len(l.Name)))
		dst = append(dst, l.Name...)
		dst = binary.AppendUvarint(dst, uint64(len(l.Value)))
		dst = append(dst, l.Value...)
	}
	return dst
}

// intern is labels, whose strings are parts of their key.
func intern(key string, labels []logs.Label) []logs.Label {
	own := make([]logs.Label, len(labels))
	next := func(n int) (s string) {
		length := (bits.Len(uint(n)|1) + 6) / 7 // bytes of the length, of 7 bits each
		s, key = key[length:length+n], key[length+n:]
		return s
	}
	for i, l := range labels {
		own[i].Name = next(len(l.Name))
		own[i].Value = next(len(l.Value))
	}
	return own
}

// compareLabels orders sets of labels: by the first label that differs, and a set that another one begins with comes before it.
func compareLabels(a, b []logs.Label) int {
	return slices.CompareFunc(a, b, func(a, b logs.Label) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Value, b.Value)
	})
}

// format writes labels as LogQL does: {app="api", env="prod"}.
func format(labels []logs.Label) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, l := range labels {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(l.Name + "=" + strconv.Quote(l.Value))
	}
	b.WriteByte('}')
	return b.String()
}

// index numbers sets of labels by a part of them, from 0 on in the order of their first appearance.
type index struct {
	part   *logql.Grouping
	ids    map[string]int
	groups [][]logs.Label // the part that each number stands for
	key    []byte
	kept   []logs.Label
}

func newIndex(part *logql.Grouping) *index { return &index{part: part, ids: make(map[string]int)} }

// of is the number of a set of labels. One that is new is added.
func (x *index) of(labels []logs.Label) int {
	x.kept = Group(x.kept[:0], labels, x.part)
	x.key = Key(x.key[:0], x.kept)
	id, ok := x.ids[string(x.key)]
	if !ok {
		id = len(x.groups)
		x.ids[string(x.key)] = id
		x.groups = append(x.groups, slices.Clone(x.kept))
	}
	return id
}

// number is the numbers of series.
func (x *index) number(series []Series) []int {
	ids := make([]int, len(series))
	for i, s := range series {
		ids[i] = x.of(s.Labels)
	}
	return ids
}

// split is series by their numbers.
func (x *index) split(series []Series) [][]Series {
	ids := x.number(series)
	groups := make([][]Series, len(x.groups))
	for i, id := range ids {
		groups[id] = append(groups[id], series[i])
	}
	return groups
}
