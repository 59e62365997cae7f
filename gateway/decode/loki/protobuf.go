package loki

import (
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/snappy"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/wire"
	"github.com/casteloig/logthra/shared/logs"
)

// Field numbers of logproto.PushRequest and what it is made of.
// https://github.com/grafana/loki/blob/main/pkg/push/push.proto
const (
	pushStreams   = 1
	streamLabels  = 1
	streamEntries = 2
	entryTime     = 1
	entryLine     = 2
	entryMetadata = 3
)

// maxSnappyRatio is how many times larger than compressed a snappy block can be at most: its densest element
// gives 64 bytes for 3. A block that claims more is broken, and memory for it is never allocated.
// https://github.com/google/snappy/blob/main/format_description.txt
const maxSnappyRatio = 22

var protoParsers = sync.Pool{New: func() any { return new(protoParser) }}

// Protobuf appends the entries of a protobuf push to b. body is a logproto.PushRequest in the snappy block
// format. Fields may come in any order and unknown ones are skipped; of a singular field that is repeated the
// last counts. Labels are read by ParseLabels. An entry without a timestamp message gets now, in unix
// nanoseconds, and makes the batch Coarse; an empty message is 1970-01-01, as protobuf has it.
//
// Errors are those of the package; a *decode.Error has the path of what is wrong, such as
// streams[3].entries[12].timestamp.
func Protobuf(b *logs.Batch, body []byte, now int64, lim decode.Limits) error {
	size, err := snappy.DecodedLen(body)
	if err != nil {
		return &decode.Error{Reason: "the push is not a valid snappy block"}
	}
	if size > lim.MaxPushBytes {
		return &decode.TooLargeError{Limit: lim.MaxPushBytes}
	}
	if size > maxSnappyRatio*len(body) {
		return &decode.Error{Reason: fmt.Sprintf("the push is not a valid snappy block: %d bytes can't hold %d", len(body), size)}
	}
	p := protoParsers.Get().(*protoParser)
	defer p.release()
	if cap(p.buf) < size {
		p.buf = make([]byte, size)
	}
	data, err := snappy.Decode(p.buf[:size], body)
	if err != nil {
		return &decode.Error{Reason: "the push is not a valid snappy block"}
	}
	p.batch, p.now, p.maxLine = b, now, lim.MaxLineBytes
	b.Lines = slices.Grow(b.Lines, len(data))
	return p.push(wire.Message{Rest: data})
}

// protoParser goes over a push once; of a stream whose labels come after its entries it mends the labels.
type protoParser struct {
	batch   *logs.Batch
	now     int64 // unix nanoseconds
	maxLine int   // bytes

	decode.Place

	// Kept from one push to the next.
	buf    []byte // the push, decompressed
	labels []logs.Label
	cache  decode.LabelCache
}

func (p *protoParser) release() {
	p.batch, p.Known = nil, ""
	p.buf = decode.KeepScratch(p.buf)
	clear(p.labels[:cap(p.labels)])
	protoParsers.Put(p)
}

func (p *protoParser) push(m wire.Message) error {
	for p.Stream = 0; ; p.Stream++ {
		p.Known = ""
		found, err := m.Find(pushStreams)
		if err != nil {
			return p.malformed("", err)
		}
		if !found {
			return nil
		}
		sub, err := m.Bytes()
		if err != nil {
			return p.malformed(p.At(""), err)
		}
		if err := p.streamMessage(wire.Message{Rest: sub}); err != nil {
			return err
		}
	}
}

func (p *protoParser) streamMessage(m wire.Message) error {
	begin := p.batch.Len()
	for p.Entry = 0; len(m.Rest) > 0; {
		field, err := m.Next()
		if err != nil {
			return p.malformed(p.At(""), err)
		}
		switch field {
		case streamLabels:
			text, err := m.Bytes()
			if err != nil {
				return p.malformed(p.At(".labels"), err)
			}
			if err := p.streamLabels(text); err != nil {
				return err
			}
		case streamEntries:
			sub, err := m.Bytes()
			if err != nil {
				return p.malformed(p.inEntry(""), err)
			}
			if p.Entry == 0 {
				p.batch.AddStream(p.Known)
			}
			if len(p.batch.Timestamps) == cap(p.batch.Timestamps) {
				p.reserve(m)
			}
			if err := p.entryMessage(wire.Message{Rest: sub}); err != nil {
				return err
			}
			p.Entry++
		default:
			if err := m.Skip(); err != nil {
				return p.malformed(p.At(""), err)
			}
		}
	}
	if p.Known == "" {
		return p.Fail(p.At(".labels"), logs.ErrNoLabels.Error())
	}
	if p.batch.Len() > begin {
		p.batch.Streams[len(p.batch.Streams)-1].Labels = p.Known
	}
	return nil
}

// reserve makes room for one entry and for those that m, the rest of its stream, still has. An entry may be as
// short as two bytes: growing step by step would take several times the memory that is needed in the end.
func (p *protoParser) reserve(m wire.Message) {
	entries := 1
	for len(m.Rest) > 0 {
		field, err := m.Next()
		if err != nil || m.Skip() != nil {
			break // to be found again, and told, when it is read
		}
		if field == streamEntries {
			entries++
		}
	}
	p.batch.Timestamps = slices.Grow(p.batch.Timestamps, entries)
	p.batch.Lengths = slices.Grow(p.batch.Lengths, entries)
}

// streamLabels reads labels into p.Known.
func (p *protoParser) streamLabels(text []byte) error {
	if canonical, ok := p.cache.Get(text); ok {
		p.Known = canonical
		return nil
	}
	p.Known = ""
	labels, err := appendLabels(p.labels[:0], string(text))
	p.labels = labels
	if err != nil {
		return p.Fail(p.At(".labels"), err.Error())
	}
	canonical, err := logs.Canonical(labels)
	if err != nil {
		return p.Fail(p.At(".labels"), err.Error())
	}
	p.Known = canonical
	p.cache.Put(text, canonical)
	return nil
}

func (p *protoParser) entryMessage(m wire.Message) error {
	var line []byte
	var seconds, nanos int64
	var metadata wire.Message // from the first metadata on
	own := false
	for len(m.Rest) > 0 {
		before := m
		field, err := m.Next()
		if err != nil {
			return p.malformed(p.inEntry(""), err)
		}
		switch field {
		case entryTime:
			if err := m.Timestamp(&seconds, &nanos); err != nil {
				return p.malformed(p.inEntry(".timestamp"), err)
			}
			own = true
		case entryLine:
			if line, err = m.Bytes(); err != nil {
				return p.malformed(p.inEntry(".line"), err)
			}
		case entryMetadata:
			if _, err := m.Bytes(); err != nil {
				return p.malformed(p.inEntry(".structuredMetadata"), err)
			}
			if metadata.Rest == nil {
				metadata = before
			}
		default:
			if err := m.Skip(); err != nil {
				return p.malformed(p.inEntry(""), err)
			}
		}
	}

	ts := p.now
	if own {
		var err error
		if ts, err = logs.UnixNano(seconds, nanos); err != nil {
			return p.Fail(p.inEntry(".timestamp"), err.Error())
		}
	}
	if len(line) > p.maxLine {
		return p.Fail(p.inEntry(""), decode.LineTooLong(len(line), p.maxLine))
	}
	p.batch.Lines = append(p.batch.Lines, line...)
	p.batch.EndEntry(ts, own)
	return p.metadata(metadata)
}

// metadata adds the metadata in m, the rest of an entry that has been read once, to the entry that ended last.
func (p *protoParser) metadata(m wire.Message) error {
	for {
		found, err := m.Find(entryMetadata)
		if err != nil {
			return p.malformed(p.inEntry(""), err)
		}
		if !found {
			return nil
		}
		name, value, err := m.Pair()
		if err != nil {
			return p.malformed(p.inEntry(".structuredMetadata"), err)
		}
		p.batch.AddMetadata(name, value)
		if len(p.batch.Metadata) > decode.MaxMetadataNames {
			return p.Fail(p.inEntry(".structuredMetadata"), decode.ErrTooManyNames.Error())
		}
	}
}

// inEntry is the path of the entry, with what follows it.
func (p *protoParser) inEntry(suffix string) string { return p.InEntry("entries", suffix) }

func (p *protoParser) malformed(where string, err error) error {
	return p.Fail(where, wire.Malformed(err))
}
