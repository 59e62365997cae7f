package splunk

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/document"
	"github.com/casteloig/logthra/gateway/decode/jsontext"
	"github.com/casteloig/logthra/shared/logs"
)

// keys are those of an event that mean something; the first four are labels.
var keys = [...]string{hostLabel, sourceLabel, sourceTypeLabel, indexLabel, "time", "event", "fields"}

const (
	keyTime = iota + 4
	keyEvent
	keyFields
)

// keyOf is the index of a key in keys, or -1.
func keyOf(key []byte) int {
	for k, name := range keys {
		if name == string(key) {
			return k
		}
	}
	return -1
}

var parsers = sync.Pool{New: func() any { return new(parser) }}

// Events appends what came to /services/collector or /services/collector/event to b
// (https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector): JSON objects, with
// or without white space between them, or an array of them.
//
//	{"time": 1760000000.123, "host": "web-1", "source": "api", "sourcetype": "access", "index": "main",
//	 "event": "GET / 200", "fields": {"region": "eu", "service.name": "shop"}}
//
// Of such an object:
//   - The line is the event: the text of a string, and of all else the JSON as it came.
//   - time is a number or a string, as document.ParseTime reads it. Without one the time is that of d, or else
//     now, in unix nanoseconds.
//   - host, source, sourcetype and index are labels, and so are fields whose names decode.IsLabel knows, unless
//     they are empty or an array; of two with the same name the first.
//   - The label level is that of the first of level, severity, log.level, severity_text, levelname, lvl and
//     otel.log.severity.text that decode.Level knows: among the fields, or else in an event that is an object.
//   - Without any label it gets decode.Unlabeled.
//   - Fields that are no labels are metadata, an array as its JSON. So is one that gave the level, unless its text
//     is the label's.
//   - Other keys, which Splunk would ignore, are metadata, too. Objects there become flat: {"a":{"b":1}} is a.b.
//   - null is as good as not there. Of the keys that mean something none may be given twice.
//
// Values nest at most as deep as package jsontext allows. Nothing of body is kept.
//
// An error is a *decode.TooLargeError, or an *Error whose cause has the path of what is wrong, such as
// events[3].time, or for bad syntax "offset N", in bytes from the beginning of body. After one the batch holds a
// part of the push and has to be discarded (logs.Batch.Reset).
func Events(b *logs.Batch, body []byte, d Defaults, now int64, lim decode.Limits) error {
	if len(body) > lim.MaxPushBytes {
		return &decode.TooLargeError{Limit: lim.MaxPushBytes}
	}
	ts, own, err := d.time(now)
	if err != nil {
		return err
	}
	p := parsers.Get().(*parser)
	defer p.release()
	p.batch, p.defaults, p.now, p.timed, p.maxLine = b, d.labels(), ts, own, lim.MaxLineBytes
	p.Reset(body)
	b.Lines = slices.Grow(b.Lines, len(body))
	err = p.push()
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	if bad, ok := errors.AsType[*decode.Error](err); ok {
		return refuse(InvalidFormat, p.event, bad)
	}
	return err
}

// parser goes over a push once, and over some members of an event again: what is metadata of an entry can only
// be added behind its labels and its line.
type parser struct {
	jsontext.Reader

	batch    *logs.Batch
	defaults [4]logs.Label
	now      int64 // of an event without a time, in unix nanoseconds
	timed    bool  // now was given by the client
	maxLine  int   // bytes

	event int // which one is read, counted from 0
	entry

	// Kept from one event to the next.
	path   []byte // name of the member that is read
	taken  []int  // offsets of the values among the fields that are labels
	wire   []byte // names and values of the labels, each with its length before it
	labels []logs.Label
	cache  decode.LabelCache
}

// entry is what has been found in an event. Offsets are 0 for what is not there.
type entry struct {
	ts     int64
	own    bool            // ts was given by the client
	given  [len(keys)]bool // which of the keys are there
	others bool            // there are other keys
	text   int             // offset of its text
	fields int             // offset of its fields
	level  level
}

func (p *parser) release() {
	p.Reset(nil)
	p.batch, p.defaults = nil, [4]logs.Label{}
	p.path, p.wire = decode.KeepScratch(p.path), decode.KeepScratch(p.wire)
	clear(p.labels[:cap(p.labels)])
	parsers.Put(p)
}

// push reads the whole body.
func (p *parser) push() error {
	array := p.Peek() == '['
	if array {
		p.Pos++
	}
	for p.event = 0; ; p.event++ {
		more := p.Peek() != 0 || p.Pos < len(p.Data)
		if array {
			var err error
			if more, err = p.Element(p.event == 0); err != nil {
				return err
			}
		}
		if !more {
			break
		}
		if err := p.object(); err != nil {
			return err
		}
	}
	if err := p.End(); err != nil {
		return err
	}
	if p.event == 0 {
		return noData()
	}
	return nil
}

// object reads one event.
func (p *parser) object() error {
	if p.Peek() != '{' {
		return p.Mismatch(p.at(""), "an object")
	}
	p.Pos++
	start := p.Pos
	p.entry = entry{ts: p.now, own: p.timed, level: level{rank: 2 * len(decode.LevelFields)}}
	p.taken, p.wire = p.taken[:0], p.wire[:0]
	if err := p.members(0, p.member); err != nil {
		return err
	}
	end := p.Pos
	if err := p.line(); err != nil {
		return err
	}
	if err := p.stream(); err != nil {
		return err
	}
	p.batch.EndEntry(p.ts, p.own)
	if p.fields > 0 {
		p.Pos = p.fields + 1
		if err := p.members(0, p.fieldMetadata); err != nil {
			return err
		}
	}
	if p.others {
		p.Pos = start
		if err := p.members(0, p.otherMetadata); err != nil {
			return err
		}
	}
	p.Pos = end
	return nil
}

// member reads a member of the event, named p.path.
func (p *parser) member() (err error) {
	kind, k := p.Peek(), keyOf(p.path)
	switch {
	case k < 0:
		p.others = true
		return p.Skip()
	case p.given[k]:
		return p.fail(InvalidFormat, "", fmt.Sprintf("%q is given twice", keys[k]))
	case kind == 'n':
		return p.Literal("null")
	}
	p.given[k] = true
	switch k {
	case keyTime:
		return p.time()
	case keyEvent:
		p.text = p.Pos
		return p.skipEvent()
	case keyFields:
		p.fields = p.Pos
		return p.fieldLabels()
	default:
		return p.label(k)
	}
}

// members calls do for each member of the object that Pos is in. The member's name is p.path from prefix on.
func (p *parser) members(prefix int, do func() error) error {
	for first := true; ; first = false {
		key, more, err := p.Member(first)
		if err != nil || !more {
			return err
		}
		p.path = append(p.path[:prefix], key...)
		if err := do(); err != nil {
			return err
		}
	}
}

// time reads the time of the event. An empty string is none.
func (p *parser) time() error {
	kind := p.Peek()
	if kind != '"' && kind != '-' && (kind < '0' || kind > '9') {
		return p.Mismatch(p.at(".time"), "a number or a string")
	}
	text, err := p.scalar()
	if err != nil || len(text) == 0 {
		return err
	}
	if p.ts, err = document.ParseTime(text); err != nil {
		return p.fail(InvalidFormat, ".time", err.Error())
	}
	p.own = true
	return nil
}

// label reads the value of one of the keys that are labels. An empty string is none.
func (p *parser) label(k int) error {
	if p.Peek() != '"' {
		return p.Mismatch(p.at("."+keys[k]), "a string")
	}
	value, err := p.String()
	if err != nil {
		return err
	}
	if p.given[k] = len(value) > 0; p.given[k] {
		p.wire = appendPair(p.wire, keys[k], value)
	}
	return nil
}

// skipEvent passes over the event's text, and looks at its members for a level if it is an object.
func (p *parser) skipEvent() error {
	if p.Peek() != '{' {
		return p.Skip()
	}
	p.Pos++
	return p.members(0, func() error {
		if p.Peek() != '"' {
			return p.Skip()
		}
		at := p.Pos
		value, err := p.String()
		if err == nil {
			p.level.offer(len(decode.LevelFields), p.path, value, at)
		}
		return err
	})
}

// fieldLabels looks at the fields for labels and for a level.
func (p *parser) fieldLabels() error {
	if p.Peek() != '{' {
		return p.badFields(".fields", "want an object")
	}
	p.Pos++
	return p.members(0, func() error {
		switch p.Peek() {
		case 'n':
			return p.Literal("null")
		case '[':
			return p.Skip()
		case '{':
			return p.badFields(fmt.Sprintf(".fields[%q]", logs.Clip(p.path)), "an object can't be nested here")
		}
		at := p.Pos
		value, err := p.scalar()
		if err != nil {
			return err
		}
		if len(value) > 0 && decode.IsLabel(p.path) && !p.has(p.path) {
			p.wire = appendPair(p.wire, p.path, value)
			p.taken = append(p.taken, at)
		}
		p.level.offer(0, p.path, value, at)
		return nil
	})
}

// line appends the event's text to the batch.
func (p *parser) line() error {
	if p.text == 0 {
		return p.fail(EventRequired, ".event", "an event needs one")
	}
	p.Pos = p.text
	b := p.batch
	if p.Peek() == '"' {
		var err error
		if b.Lines, err = p.AppendString(b.Lines); err != nil {
			return err
		}
		if b.Pending() == 0 {
			return p.fail(EventBlank, ".event", "an empty string")
		}
	} else {
		raw, err := p.Raw()
		if err != nil {
			return err
		}
		b.Lines = append(b.Lines, raw...)
	}
	if size := b.Pending(); size > p.maxLine {
		return p.fail(InvalidFormat, ".event", decode.LineTooLong(size, p.maxLine))
	}
	return nil
}

// fieldMetadata adds one of the fields, named p.path, unless it is a label.
func (p *parser) fieldMetadata() error {
	p.Peek()
	if slices.Contains(p.taken, p.Pos) || p.level.same && p.level.at == p.Pos {
		return p.Skip()
	}
	return p.metadata()
}

// otherMetadata adds a member of the event, named p.path, unless it means something.
func (p *parser) otherMetadata() error {
	if keyOf(p.path) >= 0 {
		return p.Skip()
	}
	return p.metadata()
}

// metadata adds the value at Pos, named p.path.
func (p *parser) metadata() error {
	var value []byte
	var err error
	switch prefix := len(p.path) + 1; p.Peek() {
	case 'n':
		return p.Literal("null")
	case '{':
		if prefix <= decode.MaxPath {
			p.path = append(p.path, '.')
			p.Pos++
			return p.members(prefix, p.metadata)
		}
		value, err = p.Raw()
	case '[':
		value, err = p.Raw()
	default:
		value, err = p.scalar()
	}
	if err != nil {
		return err
	}
	p.batch.AddMetadata(p.path, value)
	if len(p.batch.Metadata) > decode.MaxMetadataNames {
		return p.fail(InvalidFormat, "", decode.ErrTooManyNames.Error())
	}
	return nil
}

// scalar reads a string as its text, and all else as it stands in the document.
func (p *parser) scalar() ([]byte, error) {
	if p.Peek() == '"' {
		return p.String()
	}
	return p.Raw()
}

// has tells whether there is a label of a name.
func (p *parser) has(name []byte) bool {
	for rest := p.wire; len(rest) > 0; {
		var other []byte
		if other, _, rest = cutPair(rest); string(other) == string(name) {
			return true
		}
	}
	return false
}

// stream begins the stream of the entry, if it is not that of the one before.
func (p *parser) stream() error {
	for k, l := range p.defaults {
		if !p.given[k] && l.Value != "" {
			p.wire = appendPair(p.wire, l.Name, l.Value)
		}
	}
	if p.level.text != "" {
		p.wire = appendPair(p.wire, decode.LevelField, p.level.text)
	}
	labels, err := p.canonical()
	if err != nil {
		return p.fail(InvalidFormat, "", err.Error())
	}
	if n := len(p.batch.Streams); n == 0 || p.batch.Streams[n-1].Labels != labels {
		p.batch.AddStream(labels)
	}
	return nil
}

// canonical is the canonical form of the labels in p.wire.
func (p *parser) canonical() (string, error) {
	if len(p.wire) == 0 {
		return decode.Unlabeled, nil
	}
	if canonical, ok := p.cache.Get(p.wire); ok {
		return canonical, nil
	}
	p.labels = p.labels[:0]
	for rest := p.wire; len(rest) > 0; {
		var name, value []byte
		name, value, rest = cutPair(rest)
		p.labels = append(p.labels, logs.Label{Name: decode.LabelName(name), Value: string(value)})
	}
	canonical, err := logs.Canonical(p.labels)
	if err != nil {
		return "", err
	}
	p.cache.Put(p.wire, canonical)
	return canonical, nil
}

func appendPair[N, V ~string | ~[]byte](dst []byte, name N, value V) []byte {
	dst = protowire.AppendVarint(dst, uint64(len(name)))
	dst = append(dst, name...)
	dst = protowire.AppendVarint(dst, uint64(len(value)))
	return append(dst, value...)
}

func cutPair(wire []byte) (name, value, rest []byte) {
	name, n := protowire.ConsumeBytes(wire)
	value, m := protowire.ConsumeBytes(wire[n:])
	return name, value, wire[n+m:]
}

// level is the best severity that was found.
type level struct {
	rank int    // less is better
	text string // as decode.Level has it; empty if none was found
	at   int    // offset of the value that it is
	same bool   // the value is the text
}

// offer takes the value of a field that stands at an offset, if it is a better one. The fields of an event go
// before its text, whose ranks begin at base.
func (l *level) offer(base int, name, value []byte, at int) {
	for rank, n := range decode.LevelFields {
		if n == string(name) {
			if text := decode.Level(value); text != "" && base+rank < l.rank {
				*l = level{base + rank, text, at, text == string(value)}
			}
			return
		}
	}
}

// at is the path of the event, with what follows it.
func (p *parser) at(suffix string) string { return fmt.Sprintf("events[%d]%s", p.event, suffix) }

func (p *parser) fail(code int, suffix, reason string) error {
	return refuse(code, p.event, &decode.Error{Where: p.at(suffix), Reason: reason})
}

// badFields is the error for a value at Pos that can't stand there, if it is JSON at all.
func (p *parser) badFields(suffix, reason string) error {
	if err := p.Skip(); err != nil {
		return err
	}
	return p.fail(BadFields, suffix, reason)
}
