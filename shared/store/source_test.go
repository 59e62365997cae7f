package store

import (
	"slices"

	"github.com/casteloig/logthra/shared/logs"
)

// copied is a Source of a batch that was made by hand.
type copied struct{ logs.Batch }

func (c *copied) Size() int { return len(c.Lines) }

func (c *copied) Decode(into *logs.Batch, scratch []byte) ([]byte, error) {
	into.Reset()
	into.Streams = append(into.Streams, c.Streams...)
	into.Timestamps = append(into.Timestamps, c.Timestamps...)
	into.Lengths = append(into.Lengths, c.Lengths...)
	into.Metadata = append(into.Metadata, c.Metadata...)
	scratch = append(scratch[:0], c.Lines...)
	into.Lines = scratch
	return scratch, nil
}

// addCopy adds a record that is a copy of r.
func addCopy(b *Batch, sequence uint64, tenant string, r *logs.Batch) {
	c := &copied{logs.Batch{
		Streams: slices.Clone(r.Streams), Timestamps: slices.Clone(r.Timestamps), Lengths: slices.Clone(r.Lengths), Lines: slices.Clone(r.Lines),
	}}
	for _, m := range r.Metadata {
		c.Metadata = append(c.Metadata, logs.Column{Name: m.Name, Entries: slices.Clone(m.Entries), Lengths: slices.Clone(m.Lengths), Values: slices.Clone(m.Values)})
	}
	b.Add(sequence, tenant, r, c)
}

// manyRows take many chunks of each column.
const manyRows = 64 << 10
