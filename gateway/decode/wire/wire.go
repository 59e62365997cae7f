// Package wire reads protobuf messages in place, field by field, without making objects of them.
// https://protobuf.dev/programming-guides/encoding/
package wire

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message is what is left to read of a message. Next and Find go to a field; then one of Bytes, Int64, Fixed32,
// Fixed64, Double, Timestamp, Pair and Skip takes its value. A value of another wire type than asked for is an error:
// to skip it, as protobuf allows, would lose a part of a line unnoticed. After an error a Message is of no more use.
type Message struct {
	Rest  []byte
	field protowire.Number
	kind  protowire.Type
}

var errFieldNumber = errors.New("invalid field number")

// Next reads the number of the next field. Rest must not be empty.
func (m *Message) Next() (protowire.Number, error) {
	var n int
	if m.field, m.kind, n = protowire.ConsumeTag(m.Rest); n < 0 {
		return 0, protowire.ParseError(n)
	}
	if m.field > protowire.MaxValidNumber {
		return 0, errFieldNumber
	}
	m.Rest = m.Rest[n:]
	return m.field, nil
}

// Find goes to the next field with a number, past all others. It returns false at the end of the message.
func (m *Message) Find(field protowire.Number) (bool, error) {
	for len(m.Rest) > 0 {
		next, err := m.Next()
		if err != nil || next == field {
			return err == nil, err
		}
		if err := m.Skip(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// Bytes takes bytes, a string or a message. They share the memory of the message.
func (m *Message) Bytes() ([]byte, error) {
	if m.kind != protowire.BytesType {
		return nil, m.mismatch(protowire.BytesType)
	}
	value, n := protowire.ConsumeBytes(m.Rest)
	if n < 0 {
		return nil, protowire.ParseError(n)
	}
	m.Rest = m.Rest[n:]
	return value, nil
}

// Int64 takes an int64, or another integer or a bool that is written as one.
func (m *Message) Int64() (int64, error) {
	if m.kind != protowire.VarintType {
		return 0, m.mismatch(protowire.VarintType)
	}
	value, n := protowire.ConsumeVarint(m.Rest)
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	m.Rest = m.Rest[n:]
	return int64(value), nil
}

// Fixed32 takes a fixed32.
func (m *Message) Fixed32() (uint32, error) {
	if m.kind != protowire.Fixed32Type {
		return 0, m.mismatch(protowire.Fixed32Type)
	}
	value, n := protowire.ConsumeFixed32(m.Rest)
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	m.Rest = m.Rest[n:]
	return value, nil
}

// Fixed64 takes a fixed64.
func (m *Message) Fixed64() (uint64, error) {
	if m.kind != protowire.Fixed64Type {
		return 0, m.mismatch(protowire.Fixed64Type)
	}
	value, n := protowire.ConsumeFixed64(m.Rest)
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	m.Rest = m.Rest[n:]
	return value, nil
}

// Double takes a double.
func (m *Message) Double() (float64, error) {
	value, err := m.Fixed64()
	return math.Float64frombits(value), err
}

// Skip passes over the value, whatever it is.
func (m *Message) Skip() error {
	n := protowire.ConsumeFieldValue(m.field, m.kind, m.Rest)
	if n < 0 {
		return protowire.ParseError(n)
	}
	m.Rest = m.Rest[n:]
	return nil
}

// Timestamp takes a google.protobuf.Timestamp and puts it on top of what is there: a message that is given twice
// is merged.
func (m *Message) Timestamp(seconds, nanos *int64) error {
	sub, err := m.Bytes()
	for inner := (Message{Rest: sub}); err == nil && len(inner.Rest) > 0; {
		var field protowire.Number
		if field, err = inner.Next(); err != nil {
			break
		}
		switch field {
		case 1:
			*seconds, err = inner.Int64()
		case 2:
			*nanos, err = inner.Int64()
		default:
			err = inner.Skip()
		}
	}
	return err
}

// Pair takes a message whose field 1 is a name and whose field 2 is a value: the form of an entry of a map, and
// of a label in Loki's protocol.
func (m *Message) Pair() (name, value []byte, err error) {
	sub, err := m.Bytes()
	for inner := (Message{Rest: sub}); err == nil && len(inner.Rest) > 0; {
		var field protowire.Number
		if field, err = inner.Next(); err != nil {
			break
		}
		switch field {
		case 1:
			name, err = inner.Bytes()
		case 2:
			value, err = inner.Bytes()
		default:
			err = inner.Skip()
		}
	}
	return name, value, err
}

func (m *Message) mismatch(want protowire.Type) error {
	return fmt.Errorf("field %d has wire type %d, not %d", m.field, m.kind, want)
}

// Malformed is the reason given for a message that can't be read.
func Malformed(err error) string {
	// The protobuf library puts a space in some builds and a no-break space in others after its "proto:", so
	// that nobody relies on it.
	return "malformed protobuf: " + strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
}
