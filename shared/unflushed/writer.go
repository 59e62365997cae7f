// Package unflushed picks those entries that a query wants out of records that may not be in ClickHouse yet, and makes columns of
// them, logthra.v1.UnflushedResponse. The owner of a shard does that with the records that it holds; where a gateway can't ask
// one, it does the same with those of the WAL.
package unflushed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

// ErrTooLarge is returned where the entries take more than they may.
var ErrTooLarge = errors.New("the entries take more bytes than they may")

const (
	// chunkBytes is about how many bytes a response has.
	chunkBytes = 1 << 20
	// entryBytes is about what an entry takes in it beside its line, and pairBytes what metadata takes beside its value.
	entryBytes = 16
	pairBytes  = 4
	// silence is how long nothing is sent, at most: whoever waits then knows that this goes on.
	silence = 500 * time.Millisecond
)

// Writer sends the entries that a request wants. It is not safe for concurrent use. What it sends is the receiver's.
type Writer struct {
	request  *logthrav1.UnflushedRequest
	selector *logs.Selector
	selected map[string]bool // streams, by their labels
	nearest  nearest
	send     func(*logthrav1.UnflushedResponse) error

	chunk  *logthrav1.UnflushedResponse // that is being filled
	size   int                          // of it, about
	total  uint64                       // of all that were sent
	sentAt time.Time
	known  map[string]uint32 // streams of the chunk, by their labels
	names  map[string]int    // metadata of the chunk

	decoded logs.Batch
	scratch []byte  // what decoded points into
	slots   []int32 // of the entries of decoded: their index in the chunk, -1 if they are not in it
}

// NewWriter returns a Writer. It fails where the request is none.
func NewWriter(request *logthrav1.UnflushedRequest, send func(*logthrav1.UnflushedResponse) error) (*Writer, error) {
	matchers := make([]logs.Matcher, len(request.GetMatchers()))
	for i, m := range request.GetMatchers() {
		if m.GetOperator() == logthrav1.LabelMatcher_OPERATOR_UNSPECIFIED {
			return nil, fmt.Errorf("the matcher of label %q has no operator", logs.Clip(m.GetName()))
		}
		matchers[i] = logs.Matcher{Name: m.GetName(), Op: logs.MatchOp(m.GetOperator() - logthrav1.LabelMatcher_OPERATOR_EQUAL), Value: m.GetValue()}
	}
	selector, err := logs.NewSelector(matchers)
	if err != nil {
		return nil, err
	}
	return &Writer{
		request: request, selector: selector, selected: map[string]bool{}, send: send, sentAt: time.Now(),
		nearest: nearest{most: int(request.GetLimit()), forward: request.GetForward()},
		known:   map[string]uint32{}, names: map[string]int{},
	}, nil
}

// Forward tells whether the oldest entries are the nearest: it is best to add records in that order.
func (w *Writer) Forward() bool { return w.request.GetForward() }

// Begin begins a shard.
func (w *Writer) Begin(shard uint32) { w.begin(shard, 0, 0) }

// begin begins a chunk that has about so many entries and bytes of lines.
func (w *Writer) begin(shard uint32, entries, lines int) {
	w.chunk = &logthrav1.UnflushedResponse{
		Shard: shard, Indexes: make([]uint32, 0, entries), Timestamps: make([]int64, 0, entries), LineLengths: make([]uint32, 0, entries),
		Lines: make([]byte, 0, lines),
	}
	w.size = 0
	clear(w.known)
	clear(w.names)
}

// End ends the shard: all that is wanted of it behind landed was added.
func (w *Writer) End(landed uint64) error {
	end := &logthrav1.UnflushedEnd{Landed: landed}
	end.Bound, end.HasBound = w.nearest.bound()
	w.chunk.End = end
	return w.flush()
}

// Fail sends that a shard can't be answered for. What was sent of it does not count.
func (w *Writer) Fail(shard uint32) error {
	w.Begin(shard)
	w.chunk.End = &logthrav1.UnflushedEnd{Unanswered: true}
	return w.flush()
}

// Wants tells whether a record may have entries that are wanted: one of a tenant, with streams of these labels, whose entries
// are of the times from earliest to latest.
func (w *Writer) Wants(tenant string, earliest, latest int64, streams []string) bool {
	r := w.request
	if tenant != r.GetTenant() || latest < r.GetStart() || earliest >= r.GetEnd() || !w.nearest.mayTake(earliest, latest) {
		return false
	}
	return slices.ContainsFunc(streams, w.selects)
}

// Add adds the entries of a record that are wanted. One that can't be decoded has none: it is going to be a dead letter.
func (w *Writer) Add(record *wal.Record) (err error) {
	if record.Tenant != w.request.GetTenant() {
		return nil
	}
	if w.scratch, err = record.Decode(&w.decoded, w.scratch); err != nil {
		return nil //nolint:nilerr // see above
	}
	if err := w.add(record.Sequence, &w.decoded); err != nil {
		return err
	}
	if time.Since(w.sentAt) >= silence {
		return w.flush()
	}
	return nil
}

// Read adds the entries that are wanted of the records after one up to another from the WAL itself. It returns the last record
// up to which that is done, also with an error.
func (w *Writer) Read(ctx context.Context, log *wal.WAL, shard int, after, last uint64) (reached uint64, err error) {
	for record, err := range log.Between(ctx, shard, after, last, w.request.GetTenant()) {
		if err == nil {
			err = w.Add(&record)
		}
		if err != nil {
			return after, err
		}
		after = record.Sequence
	}
	return last, nil
}

func (w *Writer) add(sequence uint64, b *logs.Batch) error {
	r := w.request
	metadata := 0 // bytes of an entry's, on average
	for i := range b.Metadata {
		metadata += pairBytes*len(b.Metadata[i].Entries) + len(b.Metadata[i].Values)
	}
	metadata /= max(b.Len(), 1)
	w.slots = slices.Grow(w.slots[:0], b.Len())[:b.Len()]
	for i := range w.slots {
		w.slots[i] = -1
	}
	entry, offset := 0, 0
	for i := range b.Streams {
		stream := &b.Streams[i]
		isSelected, inRun := w.selects(stream.Labels), false
		for end := entry + stream.Entries; entry < end; entry++ {
			line := b.Lines[offset : offset+int(b.Lengths[entry])]
			offset += len(line)
			at := b.Timestamps[entry]
			if !isSelected || at < r.GetStart() || at >= r.GetEnd() || !w.contains(line) || !w.nearest.take(at) {
				continue
			}
			if r.GetOmitLines() {
				line = line[:0]
			}
			size := entryBytes + len(line) + metadata
			if w.size > 0 && w.size+size > chunkBytes {
				w.addMetadata(b)
				if err := w.flush(); err != nil {
					return err
				}
				inRun = false
			}
			if !inRun {
				w.addRun(stream.Labels, sequence)
				inRun = true
			}
			c := w.chunk
			c.RunEntries[len(c.RunEntries)-1]++
			w.slots[entry] = int32(len(c.Indexes))
			c.Indexes = append(c.Indexes, uint32(entry))
			c.Timestamps = append(c.Timestamps, at)
			c.LineLengths = append(c.LineLengths, b.Lengths[entry])
			c.Lines = append(c.Lines, line...)
			w.size += size
		}
	}
	w.addMetadata(b)
	return nil
}

// selects tells whether the stream with these labels is wanted.
func (w *Writer) selects(stream string) bool {
	is, known := w.selected[stream]
	if !known {
		labels, err := logs.ParseLabels(stream)
		is = err == nil && w.selector.Matches(labels)
		w.selected[stream] = is
	}
	return is
}

func (w *Writer) contains(line []byte) bool {
	for _, part := range w.request.GetContains() {
		if !bytes.Contains(line, part) {
			return false
		}
	}
	return true
}

// addRun begins a run of entries.
func (w *Writer) addRun(stream string, sequence uint64) {
	at, ok := w.known[stream]
	if !ok {
		at = uint32(len(w.chunk.StreamLabels))
		w.known[stream] = at
		w.chunk.StreamLabels = append(w.chunk.StreamLabels, stream)
		w.size += len(stream)
	}
	w.chunk.RunStreams = append(w.chunk.RunStreams, at)
	w.chunk.RunEntries = append(w.chunk.RunEntries, 0)
	w.chunk.RunSequences = append(w.chunk.RunSequences, sequence)
	w.size += entryBytes
}

// addMetadata adds the metadata of the entries of a batch that are in the chunk.
func (w *Writer) addMetadata(b *logs.Batch) {
	for i := range b.Metadata {
		from := &b.Metadata[i]
		var to *logthrav1.MetadataColumn
		offset := 0
		for j, entry := range from.Entries {
			value := from.Values[offset : offset+int(from.Lengths[j])]
			offset += len(value)
			slot := w.slots[entry]
			if slot < 0 {
				continue
			}
			if to == nil {
				to = w.column(from.Name)
			}
			to.Entries = append(to.Entries, uint32(slot))
			to.ValueLengths = append(to.ValueLengths, uint32(len(value)))
			to.Values = append(to.Values, value...)
		}
	}
	for i := range w.slots {
		w.slots[i] = -1
	}
}

// column is the one of a name in the chunk.
func (w *Writer) column(name string) *logthrav1.MetadataColumn {
	at, ok := w.names[name]
	if !ok {
		at = len(w.chunk.Metadata)
		w.names[name] = at
		w.chunk.Metadata = append(w.chunk.Metadata, &logthrav1.MetadataColumn{Name: []byte(name)})
	}
	return w.chunk.Metadata[at]
}

// flush sends the chunk, and begins another.
func (w *Writer) flush() error {
	w.total += uint64(w.size)
	if most := w.request.GetMaxBytes(); most > 0 && w.total > most {
		return ErrTooLarge
	}
	chunk := w.chunk
	err := w.send(chunk)
	w.sentAt = time.Now()
	w.begin(chunk.GetShard(), len(chunk.GetIndexes()), len(chunk.GetLines()))
	return err
}
