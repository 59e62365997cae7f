package cut

import (
	"errors"
	"unsafe"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
)

// Bytes that an entry takes, and a pair of metadata, beside what their strings point to.
const (
	entryBytes = int64(unsafe.Sizeof(Entry{}))
	pairBytes  = int64(unsafe.Sizeof(logs.Label{}))
)

var errColumns = errors.New("the columns of the answer do not agree with one another")

// check tells whether the columns of a response agree.
func check(r *logthrav1.UnflushedResponse) error {
	n := len(r.GetIndexes())
	runs := r.GetRunEntries()
	if len(r.GetTimestamps()) != n || len(r.GetLineLengths()) != n || sum(runs) != uint64(n) ||
		len(r.GetRunStreams()) != len(runs) || len(r.GetRunSequences()) != len(runs) {
		return errColumns
	}
	for _, stream := range r.GetRunStreams() {
		if int(stream) >= len(r.GetStreamLabels()) {
			return errColumns
		}
	}
	if len(r.GetLines()) > 0 && sum(r.GetLineLengths()) != uint64(len(r.GetLines())) {
		return errColumns
	}
	for _, c := range r.GetMetadata() {
		if len(c.GetEntries()) != len(c.GetValueLengths()) || sum(c.GetValueLengths()) != uint64(len(c.GetValues())) {
			return errColumns
		}
		for _, entry := range c.GetEntries() {
			if int(entry) >= n {
				return errColumns
			}
		}
	}
	return nil
}

func sum(values []uint32) (n uint64) {
	for _, v := range values {
		n += uint64(v)
	}
	return n
}

// size is how many bytes of memory the entries of a response take.
func size(r *logthrav1.UnflushedResponse) int64 {
	n := entryBytes*int64(len(r.GetIndexes())) + int64(len(r.GetLines()))
	for _, c := range r.GetMetadata() {
		n += pairBytes*int64(len(c.GetEntries())) + int64(len(c.GetValues()))
	}
	return n
}

// fill makes entries of a response that was checked, as many as it has. Their lines point into it. labels has each string of
// labels once.
func fill(to []Entry, r *logthrav1.UnflushedResponse, labels map[string]string) {
	streams := make([]string, len(r.GetStreamLabels()))
	for i, text := range r.GetStreamLabels() {
		once, known := labels[text]
		if !known {
			labels[text], once = text, text
		}
		streams[i] = once
	}
	lines, hasLines := r.GetLines(), len(r.GetLines()) > 0
	at := 0
	for run, n := range r.GetRunEntries() {
		stream, sequence := streams[r.GetRunStreams()[run]], r.GetRunSequences()[run]
		for range n {
			e := &to[at]
			e.Labels, e.Shard, e.Sequence = stream, uint16(r.GetShard()), sequence
			e.Timestamp, e.Index, e.Length = r.GetTimestamps()[at], r.GetIndexes()[at], int(r.GetLineLengths()[at])
			if hasLines {
				e.Line, lines = lines[:e.Length:e.Length], lines[e.Length:]
			}
			at++
		}
	}
	if len(r.GetMetadata()) == 0 {
		return
	}
	columns := make([]logs.Column, len(r.GetMetadata()))
	for i, c := range r.GetMetadata() {
		columns[i] = logs.Column{Name: string(c.GetName()), Entries: c.GetEntries(), Lengths: c.GetValueLengths(), Values: c.GetValues()}
	}
	for i, metadata := range logs.MetadataOf(columns, len(to)) {
		to[i].Metadata = metadata
	}
}
