package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/wire"
	"github.com/casteloig/logthra/shared/logs"
)

// Field numbers of ExportLogsServiceRequest and what it is made of.
// https://github.com/open-telemetry/opentelemetry-proto/tree/main/opentelemetry/proto
const (
	requestResourceLogs = 1

	resourceLogsResource = 1
	resourceLogsScopes   = 2
	resourceAttributes   = 1

	scopeLogsScope   = 1
	scopeLogsRecords = 2
	scopeName        = 1
	scopeVersion     = 2
	scopeAttributes  = 3

	recordTime       = 1
	recordSeverity   = 2
	recordText       = 3
	recordBody       = 5
	recordAttributes = 6
	recordDropped    = 7
	recordFlags      = 8
	recordTrace      = 9
	recordSpan       = 10
	recordObserved   = 11
	recordEvent      = 12

	valueString = 1
	valueBool   = 2
	valueInt    = 3
	valueDouble = 4
	valueArray  = 5
	valueMap    = 6
	valueBytes  = 7

	listValues = 1 // of ArrayValue and KeyValueList
)

var protoParsers = sync.Pool{New: func() any { return new(protoParser) }}

// Protobuf appends the records of a request to b, and tells which it left out. Fields may come in any order and unknown
// ones are skipped; of a field that is repeated but should not be, the last counts. now is in unix nanoseconds.
func Protobuf(b *logs.Batch, body []byte, now int64, lim decode.Limits) (decode.Partial, error) {
	p := protoParsers.Get().(*protoParser)
	defer p.release()
	p.begin(b, now, lim)
	b.Lines = slices.Grow(b.Lines, len(body))
	if err := p.request(body); err != nil {
		return decode.Partial{}, p.malformed(err)
	}
	return p.partial, nil
}

// protoParser goes over a push. The errors of its methods are *decode.Error, or those of package wire, for the place where
// they were met.
type protoParser struct{ mapper }

func (p *protoParser) release() {
	p.mapper.release()
	protoParsers.Put(p)
}

// malformed is the error for a message that can't be read.
func (p *protoParser) malformed(err error) error {
	if refused, ok := errors.AsType[*decode.Error](err); ok {
		return refused
	}
	return p.fail(wire.Malformed(err))
}

func (p *protoParser) request(data []byte) error {
	m := wire.Message{Rest: data}
	for p.index[0] = 0; ; p.index[0]++ {
		p.at(0, "")
		found, err := m.Find(requestResourceLogs)
		if err != nil || !found {
			return err
		}
		p.at(1, "")
		sub, err := m.Bytes()
		if err != nil {
			return err
		}
		if err := p.resourceLogs(sub); err != nil {
			return err
		}
	}
}

// last is the last field of a message with a number, wherever it stands.
func last(data []byte, number protowire.Number) (value []byte, err error) {
	for m := (wire.Message{Rest: data}); ; {
		found, err := m.Find(number)
		if err != nil || !found {
			return value, err
		}
		if value, err = m.Bytes(); err != nil {
			return nil, err
		}
	}
}

func (p *protoParser) resourceLogs(data []byte) error {
	p.beginResource()
	resource, err := last(data, resourceLogsResource)
	if err != nil {
		return err
	}
	p.at(1, "resource")
	if err := p.attributes(&p.resource, resource, resourceAttributes, 1); err != nil {
		return err
	}
	p.resourceRead()
	m := wire.Message{Rest: data}
	for p.index[1] = 0; ; p.index[1]++ {
		p.at(1, "")
		found, err := m.Find(resourceLogsScopes)
		if err != nil || !found {
			return err
		}
		p.at(2, "")
		sub, err := m.Bytes()
		if err != nil {
			return err
		}
		if err := p.scopeLogs(sub); err != nil {
			return err
		}
	}
}

func (p *protoParser) scopeLogs(data []byte) error {
	scope, err := last(data, scopeLogsScope)
	if err != nil {
		return err
	}
	if err := p.scopeMessage(scope); err != nil {
		return err
	}
	m := wire.Message{Rest: data}
	for p.index[2] = 0; ; p.index[2]++ {
		p.at(2, "")
		found, err := m.Find(scopeLogsRecords)
		if err != nil || !found {
			return err
		}
		p.at(3, "")
		sub, err := m.Bytes()
		if err != nil {
			return err
		}
		if len(p.batch.Timestamps) == cap(p.batch.Timestamps) {
			p.reserve(m)
		}
		if err := p.recordMessage(sub); err != nil {
			return err
		}
	}
}

// reserve makes room for one record and for those that m, the rest of its scope, still has. A record may be as short as
// two bytes: growing step by step would take several times the memory that is needed in the end.
func (p *protoParser) reserve(m wire.Message) {
	records := 1
	for {
		found, err := m.Find(scopeLogsRecords)
		if err != nil || !found || m.Skip() != nil {
			break // an error is found again, and told, when it is read
		}
		records++
	}
	p.batch.Timestamps = slices.Grow(p.batch.Timestamps, records)
	p.batch.Lengths = slices.Grow(p.batch.Lengths, records)
}

func (p *protoParser) scopeMessage(data []byte) error {
	p.at(2, "scope")
	p.scope.reset()
	var name, version []byte
	for m := (wire.Message{Rest: data}); len(m.Rest) > 0; {
		field, err := m.Next()
		if err != nil {
			return err
		}
		switch field {
		case scopeName:
			name, err = m.Bytes()
		case scopeVersion:
			version, err = m.Bytes()
		default:
			err = m.Skip()
		}
		if err != nil {
			return err
		}
	}
	p.scope.add(nameScope, name)
	p.scope.add(nameVersion, version)
	return p.attributes(&p.scope, data, scopeAttributes, 1)
}

func (p *protoParser) recordMessage(data []byte) error {
	p.beginRecord()
	r := &p.record
	var body, text, trace, span, event []byte
	var flags uint32
	var dropped, severity int64
	for m := (wire.Message{Rest: data}); len(m.Rest) > 0; {
		p.member = ""
		field, err := m.Next()
		if err != nil {
			return err
		}
		switch field {
		case recordTime:
			p.member = "timeUnixNano"
			r.time, err = m.Fixed64()
		case recordObserved:
			p.member = "observedTimeUnixNano"
			r.observed, err = m.Fixed64()
		case recordSeverity:
			p.member = "severityNumber"
			severity, err = m.Int64()
		case recordText:
			p.member = "severityText"
			text, err = m.Bytes()
		case recordBody:
			p.member = "body"
			body, err = m.Bytes()
		case recordAttributes:
			p.member = "attributes"
			var name, value []byte
			if name, value, err = m.Pair(); err == nil {
				err = p.attribute(&r.fields, name, value, 1)
			}
		case recordDropped:
			p.member = "droppedAttributesCount"
			dropped, err = m.Int64()
		case recordFlags:
			p.member = "flags"
			flags, err = m.Fixed32()
		case recordTrace:
			p.member = "traceId"
			trace, err = m.Bytes()
		case recordSpan:
			p.member = "spanId"
			span, err = m.Bytes()
		case recordEvent:
			p.member = "eventName"
			event, err = m.Bytes()
		default:
			err = m.Skip()
		}
		if err != nil {
			return err
		}
	}

	r.severity = int32(severity)
	p.severityText(text)
	r.add(nameEvent, event)
	addID(&r.fields, nameTrace, trace)
	addID(&r.fields, nameSpan, span)
	r.addNumber(nameFlags, int64(flags))
	r.addNumber(nameDropped, int64(uint32(dropped)))
	p.member = "body"
	v, err := anyValue(body)
	if err != nil {
		return err
	}
	if v.kind == valueBytes {
		p.batch.Lines = append(p.batch.Lines, v.bytes...)
	} else if v.kind != 0 {
		if p.batch.Lines, err = p.appendText(p.batch.Lines, v, &r.fields); err != nil {
			return err
		}
	}
	p.member = ""
	return p.recordRead()
}

// addID adds the id of a trace or a span, unless it is nothing but zeros.
func addID(s *fields, name string, id []byte) {
	if slices.ContainsFunc(id, func(c byte) bool { return c != 0 }) {
		s.begin([]byte(name))
		s.text = hex.AppendEncode(s.text, id)
		s.end(false)
	}
}

// attributes reads the attributes in the fields of a message that have a number, whose values are depth values deep.
func (p *protoParser) attributes(s *fields, data []byte, number protowire.Number, depth int) error {
	m := wire.Message{Rest: data}
	for {
		found, err := m.Find(number)
		if err != nil || !found {
			return err
		}
		name, value, err := m.Pair()
		if err != nil {
			return err
		}
		if err := p.attribute(s, name, value, depth); err != nil {
			return err
		}
	}
}

// attribute reads the value of an attribute, if it has one, which is depth values deep.
func (p *protoParser) attribute(s *fields, name, value []byte, depth int) error {
	if value == nil {
		return nil
	}
	if depth > maxDepth {
		s.deep = true
		return nil
	}
	v, err := anyValue(value)
	if err != nil || v.kind == 0 {
		return err
	}
	if v.kind == valueMap && s.enter(name) {
		if err := p.attributes(s, v.bytes, listValues, depth+1); err != nil {
			return err
		}
		s.leave(len(name))
		return nil
	}
	s.begin(name)
	v.depth = depth
	if s.text, err = p.appendText(s.text, v, s); err != nil {
		return err
	}
	s.end(v.kind == valueString || v.kind == valueInt || v.kind == valueBool)
	return nil
}

// value is an AnyValue.
type value struct {
	kind   protowire.Number // 0 is none
	bytes  []byte           // of a string, bytes, an array or a map
	number int64            // of an integer or a boolean
	double float64
	depth  int
}

// anyValue reads an AnyValue. What is in an array or a map is left to be read.
func anyValue(data []byte) (v value, err error) {
	v.depth = 1
	for m := (wire.Message{Rest: data}); len(m.Rest) > 0; {
		field, err := m.Next()
		if err != nil {
			return v, err
		}
		switch field {
		case valueString, valueArray, valueMap, valueBytes:
			v.bytes, err = m.Bytes()
		case valueBool, valueInt:
			v.number, err = m.Int64()
		case valueDouble:
			v.double, err = m.Double()
		default:
			if err := m.Skip(); err != nil {
				return v, err
			}
			continue
		}
		if err != nil {
			return v, err
		}
		v.kind = field
	}
	return v, nil
}

// appendText appends a value as text.
func (p *protoParser) appendText(dst []byte, v value, s *fields) ([]byte, error) {
	switch v.kind {
	case valueString:
		return append(dst, v.bytes...), nil
	case valueBytes:
		return base64.StdEncoding.AppendEncode(dst, v.bytes), nil
	case valueDouble:
		return appendDouble(dst, v.double), nil
	}
	return p.appendJSON(dst, v, s)
}

// appendJSON appends a value as JSON.
func (p *protoParser) appendJSON(dst []byte, v value, s *fields) (_ []byte, err error) {
	switch v.kind {
	case valueString:
		return appendQuoted(dst, v.bytes), nil
	case valueBool:
		return strconv.AppendBool(dst, v.number != 0), nil
	case valueInt:
		return strconv.AppendInt(dst, v.number, 10), nil
	case valueDouble:
		return appendDoubleJSON(dst, v.double), nil
	case valueBytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v.bytes), '"'), nil
	case valueArray:
		dst, err = p.appendList(append(dst, '['), v, s)
		return append(dst, ']'), err
	case valueMap:
		dst, err = p.appendList(append(dst, '{'), v, s)
		return append(dst, '}'), err
	}
	return append(dst, "null"...), nil
}

// appendList appends what is in an array or a map.
func (p *protoParser) appendList(dst []byte, list value, s *fields) ([]byte, error) {
	m := wire.Message{Rest: list.bytes}
	for first := true; ; first = false {
		found, err := m.Find(listValues)
		if err != nil || !found {
			return dst, err
		}
		if !first {
			dst = append(dst, ',')
		}
		var name, data []byte
		if list.kind == valueMap {
			name, data, err = m.Pair()
			dst = append(appendQuoted(dst, name), ':')
		} else {
			data, err = m.Bytes()
		}
		if err != nil {
			return dst, err
		}
		if list.depth == maxDepth {
			s.deep = s.deep || data != nil
			continue
		}
		v, err := anyValue(data)
		if err != nil {
			return dst, err
		}
		v.depth = list.depth + 1
		if dst, err = p.appendJSON(dst, v, s); err != nil {
			return dst, err
		}
	}
}
