package otlp

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/casteloig/logthra/shared/logs"
)

// body reads the record's body to the end of the batch's Lines.
func (p *jsonParser) body() error {
	b := p.batch
	b.Lines = b.Lines[:len(b.Lines)-b.Pending()] // of a member that is repeated the last counts
	kind, err := p.value()
	if err != nil || kind == 0 {
		return err
	}
	if kind == valueBytes {
		b.Lines, err = p.appendBytes(b.Lines)
	} else {
		b.Lines, err = p.appendText(b.Lines, kind, 1, &p.record.fields)
	}
	if err != nil {
		return err
	}
	return p.endValue()
}

// attributes reads an array of KeyValue.
func (p *jsonParser) attributes(s *fields) error {
	if p.reader.Peek() == 'n' {
		return p.reader.Literal("null")
	}
	return p.attributeArray(s, 1)
}

// attributeArray reads an array of KeyValue whose values are depth values deep.
func (p *jsonParser) attributeArray(s *fields, depth int) error {
	if err := p.array(); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := p.reader.Element(first)
		if err != nil || !more {
			return err
		}
		if err := p.attribute(s, depth); err != nil {
			return err
		}
	}
}

func (p *jsonParser) attribute(s *fields, depth int) error {
	pair, err := p.pair()
	if err != nil {
		return err
	}
	if pair.found {
		if err := p.attributeValue(s, pair.name, depth); err != nil {
			return err
		}
	}
	return p.endPair(pair)
}

func (p *jsonParser) attributeValue(s *fields, name []byte, depth int) error {
	if depth > maxDepth {
		s.deep = true
		return p.skip()
	}
	kind, err := p.value()
	if err != nil || kind == 0 {
		return err
	}
	if kind == valueMap && s.enter(name) {
		if err := p.attributeMap(s, depth+1); err != nil {
			return err
		}
		s.leave(len(name))
	} else {
		s.begin(name)
		if s.text, err = p.appendText(s.text, kind, depth, s); err != nil {
			return err
		}
		s.end(kind == valueString || kind == valueInt || kind == valueBool)
	}
	return p.endValue()
}

// attributeMap reads a KeyValueList whose values are depth values deep.
func (p *jsonParser) attributeMap(s *fields, depth int) error {
	found, err := p.list()
	if err != nil || !found {
		return err
	}
	if err := p.attributeArray(s, depth); err != nil {
		return err
	}
	return p.endList()
}

// pair is a KeyValue that is being read.
type pair struct {
	name  []byte
	found bool // it has a value
	end   int  // where the pair ends, if its value came before its key; else 0
}

// pair goes into a KeyValue, to its value. endPair has to follow.
func (p *jsonParser) pair() (kv pair, err error) {
	if err := p.object(); err != nil {
		return kv, err
	}
	named, later := false, 0
	for first := true; ; first = false {
		key, more, err := p.reader.Member(first)
		if err != nil {
			return kv, err
		}
		if !more {
			break
		}
		switch {
		case p.reader.Peek() == 'n':
			err = p.reader.Literal("null")
		case string(key) == "key":
			named = true
			kv.name, err = p.string()
			p.names = append(p.names, kv.name...)
			kv.name = p.names[len(p.names)-len(kv.name):]
		case string(key) == "value" && named:
			kv.found = true
			return kv, nil
		case string(key) == "value":
			later = p.reader.Pos
			err = p.skip()
		default:
			err = p.skip()
		}
		if err != nil {
			return kv, err
		}
	}
	kv.end = p.reader.Pos
	if later > 0 {
		kv.found = true
		p.reader.Pos = later
	}
	return kv, nil
}

// endPair goes behind a KeyValue whose value was read.
func (p *jsonParser) endPair(kv pair) error {
	p.names = p.names[:len(p.names)-len(kv.name)]
	if kv.end > 0 {
		p.reader.Pos = kv.end
		return nil
	}
	for {
		_, more, err := p.reader.Member(false)
		if err != nil || !more {
			return err
		}
		if err := p.skip(); err != nil {
			return err
		}
	}
}

// value goes into an AnyValue, to what is in it; endValue has to follow. If there is nothing in it, it returns 0, and is
// behind it.
func (p *jsonParser) value() (kind protowire.Number, err error) {
	if p.reader.Peek() == 'n' {
		return 0, p.reader.Literal("null")
	}
	if err := p.object(); err != nil {
		return 0, err
	}
	return p.kind(true)
}

// endValue goes behind an AnyValue.
func (p *jsonParser) endValue() error {
	kind, err := p.kind(false)
	if err == nil && kind != 0 {
		return p.fail("a value is given twice")
	}
	return err
}

// kind goes to the next member of an AnyValue that says what it is, or behind its end.
func (p *jsonParser) kind(first bool) (protowire.Number, error) {
	for ; ; first = false {
		key, more, err := p.reader.Member(first)
		if err != nil || !more {
			return 0, err
		}
		kind := protowire.Number(0)
		switch string(key) {
		case "stringValue":
			kind = valueString
		case "boolValue":
			kind = valueBool
		case "intValue":
			kind = valueInt
		case "doubleValue":
			kind = valueDouble
		case "arrayValue":
			kind = valueArray
		case "kvlistValue":
			kind = valueMap
		case "bytesValue":
			kind = valueBytes
		}
		if kind != 0 && p.reader.Peek() != 'n' {
			return kind, nil
		}
		if err := p.skip(); err != nil {
			return 0, err
		}
	}
}

// list goes into an ArrayValue or a KeyValueList, to its array; endList has to follow. If it has none, it returns false, and
// is behind it.
func (p *jsonParser) list() (bool, error) {
	if err := p.object(); err != nil {
		return false, err
	}
	return p.find(true, "values")
}

// endList goes behind an ArrayValue or a KeyValueList.
func (p *jsonParser) endList() error {
	found, err := p.find(false, "values")
	if err == nil && found {
		return p.fail("values are given twice")
	}
	return err
}

// appendText appends what is in an AnyValue as text.
func (p *jsonParser) appendText(dst []byte, kind protowire.Number, depth int, s *fields) ([]byte, error) {
	switch kind {
	case valueString:
		if p.reader.Peek() != '"' {
			return dst, p.mismatch("a string")
		}
		return p.reader.AppendString(dst)
	case valueBytes:
		data, err := p.appendBytes(p.bytes[:0])
		p.bytes = data
		return base64.StdEncoding.AppendEncode(dst, data), err
	case valueDouble:
		f, err := p.double()
		return appendDouble(dst, f), err
	}
	return p.appendJSON(dst, kind, depth, s)
}

// appendJSON appends what is in an AnyValue, which is depth values deep, as JSON.
func (p *jsonParser) appendJSON(dst []byte, kind protowire.Number, depth int, s *fields) (_ []byte, err error) {
	switch kind {
	case valueString:
		text, err := p.string()
		return appendQuoted(dst, text), err
	case valueBool:
		switch p.reader.Peek() {
		case 't':
			return append(dst, "true"...), p.reader.Literal("true")
		case 'f':
			return append(dst, "false"...), p.reader.Literal("false")
		}
		return dst, p.mismatch("a boolean")
	case valueInt:
		n, err := p.signed(64)
		return strconv.AppendInt(dst, n, 10), err
	case valueDouble:
		f, err := p.double()
		return appendDoubleJSON(dst, f), err
	case valueBytes:
		dst, err = p.appendText(append(dst, '"'), kind, depth, s)
		return append(dst, '"'), err
	case valueArray:
		dst, err = p.appendList(append(dst, '['), kind, depth, s)
		return append(dst, ']'), err
	case valueMap:
		dst, err = p.appendList(append(dst, '{'), kind, depth, s)
		return append(dst, '}'), err
	}
	return append(dst, "null"...), nil
}

// appendList appends what is in an array or a map, which is depth values deep.
func (p *jsonParser) appendList(dst []byte, list protowire.Number, depth int, s *fields) ([]byte, error) {
	found, err := p.list()
	if err != nil || !found {
		return dst, err
	}
	if err := p.array(); err != nil {
		return dst, err
	}
	for first := true; ; first = false {
		more, err := p.reader.Element(first)
		if err != nil {
			return dst, err
		}
		if !more {
			return dst, p.endList()
		}
		if !first {
			dst = append(dst, ',')
		}
		if list == valueArray {
			dst, err = p.appendValue(dst, depth+1, s)
		} else {
			dst, err = p.appendPair(dst, depth+1, s)
		}
		if err != nil {
			return dst, err
		}
	}
}

// appendPair appends a KeyValue as the member of an object.
func (p *jsonParser) appendPair(dst []byte, depth int, s *fields) ([]byte, error) {
	kv, err := p.pair()
	if err != nil {
		return dst, err
	}
	dst = append(appendQuoted(dst, kv.name), ':')
	if kv.found {
		dst, err = p.appendValue(dst, depth, s)
	} else {
		dst = append(dst, "null"...)
	}
	if err != nil {
		return dst, err
	}
	return dst, p.endPair(kv)
}

// appendValue appends an AnyValue, which is depth values deep.
func (p *jsonParser) appendValue(dst []byte, depth int, s *fields) ([]byte, error) {
	if depth > maxDepth {
		s.deep = true
		return dst, p.skip()
	}
	kind, err := p.value()
	if err != nil {
		return dst, err
	}
	if dst, err = p.appendJSON(dst, kind, depth, s); err != nil || kind == 0 {
		return dst, err
	}
	return dst, p.endValue()
}

// double reads a number, which may be written as a string.
func (p *jsonParser) double() (float64, error) {
	text, err := p.digits()
	if err != nil {
		return 0, err
	}
	switch string(text) {
	case textNaN, textInfinity, textNegativeInfinity:
	default:
		if len(bytes.Trim(text, "+-.0123456789eE")) > 0 {
			return 0, p.notDouble(text)
		}
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0, p.notDouble(text)
	}
	return f, nil
}

func (p *jsonParser) notDouble(text []byte) error {
	return p.fail(fmt.Sprintf("want a number, got %q", logs.Clip(text)))
}

// appendBytes appends bytes, which are written in one of base64's alphabets, with or without padding.
func (p *jsonParser) appendBytes(dst []byte) ([]byte, error) {
	text, err := p.string()
	if err != nil {
		return dst, err
	}
	encoding := base64.RawStdEncoding
	if bytes.ContainsAny(text, "-_") {
		encoding = base64.RawURLEncoding
	}
	dst, err = encoding.AppendDecode(dst, bytes.TrimRight(text, "="))
	if err != nil {
		return dst, p.fail(fmt.Sprintf("want base64, got %q", logs.Clip(text)))
	}
	return dst, nil
}
