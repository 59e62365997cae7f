// Package native decodes Logthra's own push protocol, logthra.v1.PushRequest as gRPC clients send it to
// logthra.v1.PushService, into a logs.Batch.
//
// The generated code makes an object of every entry: up to 80 bytes of memory for each byte of a push, before
// anyone can count them. So the message is read where it lies: lines go straight into the batch, with no object
// and no allocation of their own per entry.
package native

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/wire"
	"github.com/casteloig/logthra/shared/logs"
)

// Field numbers of proto/logthra/v1/push.proto.
const (
	pushStreams   = 1
	streamLabels  = 1
	streamEntries = 2
	entryTime     = 1
	entryLine     = 2
	entryMetadata = 3
)

var errNotUTF8 = errors.New("a name or a value is not valid UTF-8")

var parsers = sync.Pool{New: func() any { return new(parser) }}

// Protobuf appends the entries of a logthra.v1.PushRequest to b, in the order in which they came. As protobuf has
// it, fields may come in any order, unknown ones are skipped, of a singular field that is repeated the last
// counts, a repeated timestamp is merged, and of a name that a map has twice the last value counts. Metadata is
// added in the order of its names, so that a retried push whose maps were written in another order gives an
// equal batch. An entry without a timestamp gets now, in unix nanoseconds. A stream without entries adds
// nothing, but its labels must be good. Lines are bytes and kept as they came. Nothing of body is kept.
//
// An error is a *decode.TooLargeError, or a *decode.Error with the path of what is wrong, such as
// streams[3].entries[12]. After one the batch holds a part of the push and has to be discarded
// (logs.Batch.Reset).
func Protobuf(b *logs.Batch, body []byte, now int64, limits decode.Limits) error {
	if len(body) > limits.MaxPushBytes {
		return &decode.TooLargeError{Limit: limits.MaxPushBytes}
	}
	p := parsers.Get().(*parser)
	defer p.release()
	p.batch, p.now, p.maxLine = b, now, limits.MaxLineBytes
	b.Lines = slices.Grow(b.Lines, len(body))
	return p.push(wire.Message{Rest: body})
}

// parser goes over a push once, from one stream to the next.
type parser struct {
	batch   *logs.Batch
	now     int64 // unix nanoseconds
	maxLine int   // bytes

	decode.Place

	// Kept from one push to the next.
	pairs  pairs // of the map that is being read
	key    []byte
	labels []logs.Label
	cache  decode.LabelCache
}

func (p *parser) release() {
	p.batch, p.Known = nil, ""
	p.key = decode.KeepScratch(p.key)
	clear(p.pairs[:cap(p.pairs)])
	clear(p.labels[:cap(p.labels)])
	parsers.Put(p)
}

func (p *parser) push(m wire.Message) error {
	for p.Stream = 0; ; p.Stream++ {
		p.Known = ""
		found, err := m.Find(pushStreams)
		if err != nil {
			return p.malformed("", err)
		}
		if !found {
			break
		}
		stream, err := m.Bytes()
		if err != nil {
			return p.malformed(p.At(""), err)
		}
		if err := p.streamMessage(wire.Message{Rest: stream}); err != nil {
			return err
		}
	}
	if p.Stream == 0 {
		return &decode.Error{Where: "streams", Reason: "at least one is needed"}
	}
	return nil
}

// streamMessage reads the labels of a stream first, wherever they stand, and then its entries.
func (p *parser) streamMessage(m wire.Message) error {
	entries, err := p.head(m)
	if err != nil {
		return err
	}
	if entries == 0 {
		return nil
	}
	// An entry may be as short as two bytes: growing step by step would take several times the memory that is
	// needed in the end.
	p.batch.Timestamps = slices.Grow(p.batch.Timestamps, entries)
	p.batch.Lengths = slices.Grow(p.batch.Lengths, entries)
	p.batch.AddStream(p.Known)
	for p.Entry = 0; p.Entry < entries; p.Entry++ {
		if _, err := m.Find(streamEntries); err != nil {
			return p.malformed(p.At(""), err)
		}
		entry, err := m.Bytes()
		if err != nil {
			return p.malformed(p.inEntry(""), err)
		}
		if err := p.entryMessage(wire.Message{Rest: entry}); err != nil {
			return err
		}
	}
	return nil
}

// head reads the labels of a stream into p.Known and counts its entries, without a look into them.
func (p *parser) head(m wire.Message) (entries int, err error) {
	p.pairs = p.pairs[:0]
	for len(m.Rest) > 0 {
		field, err := m.Next()
		if err != nil {
			return 0, p.malformed(p.At(""), err)
		}
		switch field {
		case streamLabels:
			name, value, err := m.Pair()
			if err != nil {
				return 0, p.malformed(p.At(".labels"), err)
			}
			if !p.pairs.add(name, value, decode.MaxLabels) {
				return 0, p.fail(p.At(".labels"), decode.ErrTooManyLabels)
			}
		case streamEntries:
			if _, err := m.Bytes(); err != nil {
				p.Entry = entries
				return 0, p.malformed(p.inEntry(""), err)
			}
			entries++
		default:
			if err := m.Skip(); err != nil {
				return 0, p.malformed(p.At(""), err)
			}
		}
	}
	if p.Known, err = p.canonical(); err != nil {
		return 0, p.fail(p.At(".labels"), err)
	}
	return entries, nil
}

// canonical is the canonical form of the labels in p.pairs.
func (p *parser) canonical() (string, error) {
	p.pairs.settle()
	if len(p.pairs) > decode.MaxLabels {
		return "", decode.ErrTooManyLabels
	}
	p.key = p.key[:0]
	for _, l := range p.pairs {
		p.key = protowire.AppendBytes(p.key, l.name)
		p.key = protowire.AppendBytes(p.key, l.value)
	}
	if canonical, ok := p.cache.Get(p.key); ok {
		return canonical, nil
	}
	p.labels = p.labels[:0]
	for _, l := range p.pairs {
		p.labels = append(p.labels, logs.Label{Name: string(l.name), Value: string(l.value)})
	}
	canonical, err := logs.Canonical(p.labels)
	if err != nil {
		return "", err
	}
	p.cache.Put(p.key, canonical)
	return canonical, nil
}

func (p *parser) entryMessage(m wire.Message) error {
	var line []byte
	var seconds, nanos int64
	own := false
	p.pairs = p.pairs[:0]
	for len(m.Rest) > 0 {
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
			name, value, err := m.Pair()
			if err != nil {
				return p.malformed(p.inEntry(".metadata"), err)
			}
			if !utf8.Valid(name) || !utf8.Valid(value) {
				return p.fail(p.inEntry(".metadata"), errNotUTF8)
			}
			if !p.pairs.add(name, value, decode.MaxMetadataNames) {
				return p.fail(p.inEntry(""), decode.ErrTooManyNames)
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
		if ts, err = logs.UnixNano(seconds, int64(int32(nanos))); err != nil { // nanos is an int32
			return p.fail(p.inEntry(""), err)
		}
	}
	if len(line) > p.maxLine {
		return p.fail(p.inEntry(""), errors.New(decode.LineTooLong(len(line), p.maxLine)))
	}
	p.batch.Lines = append(p.batch.Lines, line...)
	p.batch.EndEntry(ts, own)
	if len(p.pairs) == 0 {
		return nil
	}
	p.pairs.settle()
	for _, m := range p.pairs {
		p.batch.AddMetadata(m.name, m.value)
	}
	if len(p.batch.Metadata) > decode.MaxMetadataNames {
		return p.fail(p.inEntry(""), decode.ErrTooManyNames)
	}
	return nil
}

// pairs are the names and values of a map.
type pairs []pair

type pair struct{ name, value []byte }

// add adds a pair. It returns false once there are more than most different names, at the latest when there are
// twice as many pairs: a map of nothing but tiny pairs must not take more memory than that.
func (p *pairs) add(name, value []byte, most int) bool {
	if len(*p) >= 2*most {
		if p.settle(); len(*p) > most {
			return false
		}
	}
	*p = append(*p, pair{name, value})
	return true
}

// settle sorts the pairs by name and keeps the last of those with the same.
func (p *pairs) settle() {
	all := *p
	slices.SortStableFunc(all, func(a, b pair) int { return bytes.Compare(a.name, b.name) })
	kept := all[:0]
	for i, one := range all {
		if i+1 == len(all) || !bytes.Equal(one.name, all[i+1].name) {
			kept = append(kept, one)
		}
	}
	*p = kept
}

// inEntry is the path of the entry, with what follows it.
func (p *parser) inEntry(suffix string) string { return p.InEntry("entries", suffix) }

func (p *parser) fail(where string, err error) error { return p.Fail(where, err.Error()) }

func (p *parser) malformed(where string, err error) error { return p.Fail(where, wire.Malformed(err)) }
