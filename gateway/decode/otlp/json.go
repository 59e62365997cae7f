package otlp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/jsontext"
	"github.com/casteloig/logthra/shared/logs"
)

var jsonParsers = sync.Pool{New: func() any { return new(jsonParser) }}

// JSON is Protobuf for a request as OTLP/JSON: ids of traces and spans are hexadecimal, severities are numbers or names,
// integers are numbers or strings. Members may come in any order, unknown ones are skipped, and null is as good as none.
// https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
func JSON(b *logs.Batch, body []byte, now int64, lim decode.Limits) (decode.Partial, error) {
	p := jsonParsers.Get().(*jsonParser)
	defer p.release()
	p.begin(b, now, lim)
	p.reader.Reset(body)
	b.Lines = slices.Grow(b.Lines, len(body))
	if err := p.request(); err != nil {
		return decode.Partial{}, err
	}
	return p.partial, nil
}

// jsonParser goes over a push; what comes before that on which it depends, it skips and comes back to.
type jsonParser struct {
	mapper
	reader jsontext.Reader

	names []byte // keys of the attributes that are being read, one in the other
	open  []byte // first bytes of the objects and arrays that are being skipped
	bytes []byte // a value, decoded
}

func (p *jsonParser) release() {
	p.mapper.release()
	p.reader.Reset(nil)
	p.names, p.open, p.bytes = decode.KeepScratch(p.names), decode.KeepScratch(p.open), decode.KeepScratch(p.bytes)
	jsonParsers.Put(p)
}

func (p *jsonParser) request() error {
	if err := p.object(); err != nil {
		return err
	}
	if err := p.only("resourceLogs", p.eachResource); err != nil {
		return err
	}
	return p.reader.End()
}

// only reads, in the object around Pos, the one member that has a name, and skips all others.
func (p *jsonParser) only(name string, read func() error) error {
	found, err := p.find(true, name)
	for ; err == nil && found; found, err = p.find(false, name) {
		if err = read(); err != nil {
			break
		}
	}
	return err
}

// find goes to the value of the next member that has a name and is not null, past all others. It returns false at the end
// of the object.
func (p *jsonParser) find(first bool, name string) (bool, error) {
	for ; ; first = false {
		key, more, err := p.reader.Member(first)
		if err != nil || !more {
			return false, err
		}
		if string(key) == name && p.reader.Peek() != 'n' {
			return true, nil
		}
		if err := p.skip(); err != nil {
			return false, err
		}
	}
}

// skip passes over a value, and checks it. Unlike that of the reader it goes to any depth, as an attribute of 32 values one
// in the other is four times as many objects and arrays.
func (p *jsonParser) skip() error {
	p.open = p.open[:0]
	for {
		c := p.reader.Peek()
		inside := c == '{' || c == '['
		if inside {
			p.reader.Pos++
			p.open = append(p.open, c)
		} else if err := p.reader.Skip(); err != nil {
			return err
		}
		for first := inside; ; first = false {
			if len(p.open) == 0 {
				return nil
			}
			var more bool
			var err error
			if p.open[len(p.open)-1] == '{' {
				_, more, err = p.reader.Member(first)
			} else {
				more, err = p.reader.Element(first)
			}
			if err != nil {
				return err
			}
			if more {
				break
			}
			p.open = p.open[:len(p.open)-1]
		}
	}
}

// object goes into an object.
func (p *jsonParser) object() error { return p.enter('{', "an object") }

// array goes into an array.
func (p *jsonParser) array() error { return p.enter('[', "an array") }

func (p *jsonParser) enter(bracket byte, want string) error {
	if p.reader.Peek() != bracket {
		return p.mismatch(want)
	}
	p.reader.Pos++
	return nil
}

func (p *jsonParser) mismatch(want string) error { return p.reader.Mismatch(p.path(), want) }

// elements reads the elements of an array, of the kind that is depth deep, one after the other.
func (p *jsonParser) elements(depth int, read func() error) error {
	if err := p.array(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		p.at(depth-1, "")
		more, err := p.reader.Element(i == 0)
		if err != nil || !more {
			return err
		}
		p.index[depth-1] = i
		p.at(depth, "")
		if err := p.object(); err != nil {
			return err
		}
		if err := read(); err != nil {
			return err
		}
	}
}

func (p *jsonParser) eachResource() error {
	return p.elements(1, p.resourceLogs)
}

func (p *jsonParser) resourceLogs() error {
	p.beginResource()
	return p.headed("resource", p.resourceObject, "scopeLogs", p.eachScope)
}

func (p *jsonParser) eachScope() error { return p.elements(2, p.scopeLogs) }

func (p *jsonParser) scopeLogs() error {
	p.scope.reset()
	return p.headed("scope", p.scopeObject, "logRecords", p.eachRecord)
}

func (p *jsonParser) eachRecord() error { return p.elements(3, p.recordObject) }

// headed reads, in the object around Pos, the member head, and then the member rest, wherever they stand.
func (p *jsonParser) headed(head string, readHead func() error, rest string, readRest func() error) error {
	depth := p.depth
	headRead, later := false, 0
	for first := true; ; first = false {
		p.at(depth, "")
		key, more, err := p.reader.Member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		switch {
		case p.reader.Peek() == 'n':
			err = p.reader.Literal("null")
		case string(key) == head:
			headRead = true
			p.member = head
			err = readHead()
		case string(key) != rest:
			err = p.skip()
		case headRead:
			p.member = rest
			err = readRest()
		case later > 0:
			err = p.fail(rest + " is given twice")
		default:
			later = p.reader.Pos
			err = p.skip()
		}
		if err != nil {
			return err
		}
	}
	if later == 0 {
		return nil
	}
	end := p.reader.Pos
	p.reader.Pos = later
	p.member = rest
	err := readRest()
	p.reader.Pos = end
	return err
}

func (p *jsonParser) resourceObject() error {
	p.resource.reset()
	if err := p.object(); err != nil {
		return err
	}
	if err := p.only("attributes", func() error { return p.attributes(&p.resource) }); err != nil {
		return err
	}
	p.resourceRead()
	return nil
}

func (p *jsonParser) scopeObject() error {
	p.scope.reset()
	if err := p.object(); err != nil {
		return err
	}
	for first := true; ; first = false {
		key, more, err := p.reader.Member(first)
		if err != nil || !more {
			return err
		}
		switch string(key) {
		case "name":
			err = p.text(&p.scope, nameScope)
		case "version":
			err = p.text(&p.scope, nameVersion)
		case "attributes":
			err = p.attributes(&p.scope)
		default:
			err = p.skip()
		}
		if err != nil {
			return err
		}
	}
}

func (p *jsonParser) recordObject() error {
	p.beginRecord()
	r := &p.record
	for first := true; ; first = false {
		p.member = ""
		key, more, err := p.reader.Member(first)
		if err != nil {
			return err
		}
		if !more {
			return p.recordRead()
		}
		var n uint64
		switch string(key) {
		case "timeUnixNano":
			p.member = "timeUnixNano"
			r.time, err = p.unsigned(64)
		case "observedTimeUnixNano":
			p.member = "observedTimeUnixNano"
			r.observed, err = p.unsigned(64)
		case "severityNumber":
			p.member = "severityNumber"
			r.severity, err = p.severity()
		case "severityText":
			p.member = "severityText"
			var text []byte
			text, err = p.string()
			p.severityText(text)
		case "body":
			p.member = "body"
			err = p.body()
		case "attributes":
			p.member = "attributes"
			err = p.attributes(&r.fields)
		case "droppedAttributesCount":
			p.member = "droppedAttributesCount"
			n, err = p.unsigned(32)
			r.addNumber(nameDropped, int64(n))
		case "flags":
			p.member = "flags"
			n, err = p.unsigned(32)
			r.addNumber(nameFlags, int64(n))
		case "traceId":
			p.member = "traceId"
			err = p.id(&r.fields, nameTrace)
		case "spanId":
			p.member = "spanId"
			err = p.id(&r.fields, nameSpan)
		case "eventName":
			p.member = "eventName"
			err = p.text(&r.fields, nameEvent)
		default:
			err = p.skip()
		}
		if err != nil {
			return err
		}
	}
}

// string reads a string; null is an empty one. The result is valid until the next member or element.
func (p *jsonParser) string() ([]byte, error) {
	switch p.reader.Peek() {
	case '"':
		return p.reader.String()
	case 'n':
		return nil, p.reader.Literal("null")
	}
	return nil, p.mismatch("a string")
}

// text reads a string into a field.
func (p *jsonParser) text(s *fields, name string) error {
	text, err := p.string()
	s.add(name, text)
	return err
}

// id reads the id of a trace or a span into a field, unless it is nothing but zeros.
func (p *jsonParser) id(s *fields, name string) error {
	id, err := p.string()
	if err != nil {
		return err
	}
	zeros := true
	for _, c := range id {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return p.fail(fmt.Sprintf("want hexadecimal digits, got %q", logs.Clip(id)))
		}
		zeros = zeros && c == '0'
	}
	if zeros {
		return nil
	}
	s.begin([]byte(name))
	for _, c := range id {
		if c > '9' {
			c |= 0x20
		}
		s.text = append(s.text, c)
	}
	s.end(false)
	return nil
}

// digits reads a number, which may be written as a string; null is 0. The result is valid until the next member or element.
func (p *jsonParser) digits() (text []byte, err error) {
	switch c := p.reader.Peek(); {
	case c == '"':
		return p.reader.String()
	case c == '-' || '0' <= c && c <= '9':
		text, _, err = p.reader.Number()
		return text, err
	case c == 'n':
		return []byte("0"), p.reader.Literal("null")
	}
	return nil, p.mismatch("a number")
}

// unsigned reads an unsigned integer of so many bits.
func (p *jsonParser) unsigned(bits int) (uint64, error) {
	text, err := p.digits()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(text), 10, bits)
	if err != nil {
		return 0, p.fail(fmt.Sprintf("want an integer of %d bits without a sign, got %q", bits, logs.Clip(text)))
	}
	return n, nil
}

// signed reads an integer of so many bits.
func (p *jsonParser) signed(bits int) (int64, error) {
	text, err := p.digits()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(text), 10, bits)
	if err != nil {
		return 0, p.fail(fmt.Sprintf("want an integer of %d bits, got %q", bits, logs.Clip(text)))
	}
	return n, nil
}

// severity reads a SeverityNumber, as a number or as its name.
func (p *jsonParser) severity() (int32, error) {
	if p.reader.Peek() != '"' {
		n, err := p.signed(32)
		return int32(n), err
	}
	start := p.reader.Pos
	text, err := p.reader.String()
	if err != nil {
		return 0, err
	}
	word, ok := strings.CutPrefix(string(text), "SEVERITY_NUMBER_")
	if !ok {
		p.reader.Pos = start
		n, err := p.signed(32)
		return int32(n), err
	}
	if word == "UNSPECIFIED" {
		return 0, nil
	}
	// Four numbers a level: TRACE, TRACE2, TRACE3, TRACE4, DEBUG and so on.
	step := 0
	if i := len(word) - 1; i > 0 && '2' <= word[i] && word[i] <= '4' {
		step = int(word[i] - '1')
		word = word[:i]
	}
	for i, level := range levels[1:] {
		if strings.ToUpper(level) == word {
			return int32(1 + 4*i + step), nil
		}
	}
	return 0, p.fail(fmt.Sprintf("unknown severity %q", logs.Clip(text)))
}
