// Package logs is the model that both sides share: a batch of log entries of one tenant, grouped in
// streams, and the canonical form of a stream's labels.
//
// A batch is columnar: one slice per property of an entry, never an object per entry, so that a line
// goes from the wire to the WAL and from the WAL to ClickHouse without an allocation of its own.
package logs

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
		if b.columns == nil {
			b.columns = make(map[string]int)
		}
		i = len(b.Metadata)
		b.Metadata = append(b.Metadata, Column{Name: string(name)})
		b.columns[b.Metadata[i].Name] = i
	}
	c := &b.Metadata[i]
	c.Entries = append(c.Entries, uint32(len(b.Timestamps)-1))
	c.Lengths = append(c.Lengths, uint32(len(value)))
	c.Values = append(c.Values, value...)
}
