// Package logs is the model that both sides share: a batch of log entries of one tenant, grouped in
// streams, and the canonical form of a stream's labels.
//
// A batch is columnar: one slice per property of an entry, never an object per entry, so that a line
// goes from the wire to the WAL and from the WAL to ClickHouse without an allocation of its own.
package logs

import (
	"slices"
	"strings"
)

// Batch holds the entries of one push, grouped in streams: the first Streams[0].Entries entries belong
// to the first stream, and so on. Timestamps and Lengths have one element an entry; Lines is all lines
// back to back. The zero value is an empty batch. A Batch is not safe for concurrent use.
type Batch struct {
	Streams    []Stream
	Timestamps []int64  // unix nanoseconds, within [MinTime, MaxTime]
	Lengths    []uint32 // bytes of each line
	Lines      []byte
	Metadata   []Column // one per metadata name, in the order of their first appearance

	// Coarse reports that an entry came without a timestamp of its own finer than a second, so that an
	// equal batch may well be another one, not a retry of this.
	Coarse bool
	// Stamped reports that an entry came without any timestamp, so that a retry of the same push gives
	// another batch.
	Stamped bool

	start   int            // where in Lines the entry that is being written begins
	columns map[string]int // index in Metadata by name
}

// Stream is a run of entries that carry the same labels.
type Stream struct {
	Labels  string // canonical JSON, see Canonical
	Entries int
}

// Column is one metadata name with the values that entries have for it.
type Column struct {
	Name    string
	Entries []uint32 // index of the entry in the batch, ascending; an entry may have several values
	Lengths []uint32 // bytes of each value
	Values  []byte   // all values back to back
}

// Len is the number of entries.
func (b *Batch) Len() int { return len(b.Timestamps) }

// Reset empties the batch and keeps its memory for the next one.
func (b *Batch) Reset() {
	clear(b.Streams)
	clear(b.Metadata)
	clear(b.columns)
	*b = Batch{
		Streams: b.Streams[:0], Timestamps: b.Timestamps[:0], Lengths: b.Lengths[:0], Lines: b.Lines[:0],
		Metadata: b.Metadata[:0], columns: b.columns,
	}
}

// AddStream begins a stream; the entries that follow belong to it. labels is in canonical form.
func (b *Batch) AddStream(labels string) {
	b.Streams = append(b.Streams, Stream{Labels: labels})
}

// EndEntry makes an entry of the bytes that were appended to Lines since the last one, in the stream
// that AddStream began last. ts is in unix nanoseconds; own tells whether the client gave it.
func (b *Batch) EndEntry(ts int64, own bool) {
	b.Timestamps = append(b.Timestamps, ts)
	b.Lengths = append(b.Lengths, uint32(len(b.Lines)-b.start))
	b.start = len(b.Lines)
	b.Streams[len(b.Streams)-1].Entries++
	b.Stamped = b.Stamped || !own
	b.Coarse = b.Coarse || !own || ts%1e9 == 0
}

// Pending is the number of bytes that were appended to Lines since the last entry ended.
func (b *Batch) Pending() int { return len(b.Lines) - b.start }

// AddMetadata gives the entry that EndEntry made last one more name and value.
func (b *Batch) AddMetadata(name, value []byte) {
	i, ok := b.columns[string(name)]
	if !ok {
		i = b.addColumn(string(name))
	}
	c := &b.Metadata[i]
	c.Entries = append(c.Entries, uint32(len(b.Timestamps)-1))
	c.Lengths = append(c.Lengths, uint32(len(value)))
	c.Values = append(c.Values, value...)
}

// addColumn adds a metadata name that is new, and returns its index.
func (b *Batch) addColumn(name string) int {
	if b.columns == nil {
		b.columns = make(map[string]int)
	}
	i := len(b.Metadata)
	b.Metadata = append(b.Metadata, Column{Name: name})
	b.columns[name] = i
	return i
}

// AddMetadataTo gives an entry one more name and value, whichever entry it is. It costs more than AddMetadata where
// entries behind it have the name, too.
func (b *Batch) AddMetadataTo(entry int, name string, value []byte) {
	i, ok := b.columns[name]
	if !ok {
		i = b.addColumn(name)
	}
	c := &b.Metadata[i]
	at, _ := slices.BinarySearch(c.Entries, uint32(entry)+1)
	offset := len(c.Values)
	for _, n := range c.Lengths[at:] {
		offset -= int(n)
	}
	c.Entries = slices.Insert(c.Entries, at, uint32(entry))
	c.Lengths = slices.Insert(c.Lengths, at, uint32(len(value)))
	c.Values = slices.Insert(c.Values, offset, value...)
}

// Drop takes entries out of the batch, and streams and metadata that only they had. entries are their indexes,
// ascending, none twice.
func (b *Batch) Drop(entries []uint32) {
	if len(entries) == 0 {
		return
	}
	streams, first := b.Streams[:0], 0
	for _, s := range b.Streams {
		end := first + s.Entries
		if s.Entries -= within(entries, first, end); s.Entries > 0 {
			streams = append(streams, s)
		}
		first = end
	}
	clear(b.Streams[len(streams):])
	b.Streams = streams

	columns := b.Metadata[:0]
	clear(b.columns)
	for _, c := range b.Metadata {
		c.drop(entries)
		if len(c.Entries) > 0 {
			b.columns[c.Name] = len(columns)
			columns = append(columns, c)
		}
	}
	clear(b.Metadata[len(columns):])
	b.Metadata = columns

	from, to, kept, left := 0, 0, 0, entries
	for i, n := range b.Lengths {
		if len(left) > 0 && int(left[0]) == i {
			left = left[1:]
		} else {
			to += copy(b.Lines[to:], b.Lines[from:from+int(n)])
			b.Timestamps[kept], b.Lengths[kept] = b.Timestamps[i], n
			kept++
		}
		from += int(n)
	}
	b.Timestamps, b.Lengths, b.Lines, b.start = b.Timestamps[:kept], b.Lengths[:kept], b.Lines[:to], to
}

// drop takes the values of entries out of a column, and counts the entries that stay anew.
func (c *Column) drop(entries []uint32) {
	from, to, kept, gone := 0, 0, 0, 0
	for i, entry := range c.Entries {
		for gone < len(entries) && entries[gone] < entry {
			gone++
		}
		n := int(c.Lengths[i])
		if gone == len(entries) || entries[gone] != entry {
			to += copy(c.Values[to:], c.Values[from:from+n])
			c.Entries[kept], c.Lengths[kept] = entry-uint32(gone), uint32(n)
			kept++
		}
		from += n
	}
	c.Entries, c.Lengths, c.Values = c.Entries[:kept], c.Lengths[:kept], c.Values[:to]
}

// within is how many of the ascending entries are in [first, end).
func within(entries []uint32, first, end int) int {
	low, _ := slices.BinarySearch(entries, uint32(first))
	high, _ := slices.BinarySearch(entries, uint32(end))
	return high - low
}

// MetadataOf turns columns into the metadata of each of so many entries, sorted by name. Of several values of a name the first counts.
func MetadataOf(columns []Column, entries int) [][]Label {
	columns = slices.Clone(columns)
	slices.SortFunc(columns, func(a, b Column) int { return strings.Compare(a.Name, b.Name) })
	counts, pairs := make([]int, entries), 0
	for _, c := range columns {
		for _, entry := range c.Entries {
			counts[entry]++
		}
		pairs += len(c.Entries)
	}
	of, room := make([][]Label, entries), make([]Label, pairs)
	for entry, n := range counts {
		if n > 0 {
			of[entry], room = room[:0:n], room[n:]
		}
	}
	for _, c := range columns {
		values := string(c.Values)
		for i, entry := range c.Entries {
			value := values[:c.Lengths[i]]
			values = values[len(value):]
			if has := of[entry]; len(has) == 0 || has[len(has)-1].Name != c.Name {
				of[entry] = append(has, Label{c.Name, value})
			}
		}
	}
	return of
}
