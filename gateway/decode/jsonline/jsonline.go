// Package jsonline decodes JSON lines (https://github.com/ndjson/ndjson-spec), the form in which curl, Fluent Bit,
// Vector and many others send documents over HTTP, into a logs.Batch.
package jsonline

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/document"
	"github.com/casteloig/logthra/gateway/decode/jsontext"
	"github.com/casteloig/logthra/shared/logs"
)

// maxNames is how many fields a request may name for the message, and for the timestamp.
const maxNames = 64

// Mapping is that of the parameters _msg_field, _time_field and _stream_fields, which are names of fields with
// commas between them, as VictoriaLogs has them:
// https://docs.victoriametrics.com/victorialogs/data-ingestion/#http-parameters. Without _msg_field or
// _time_field the defaults of package document count, and without _stream_fields no fields are labels but those
// of decode.IsLabel. At most 64 fields may be the message or the timestamp, and decode.MaxLabels may be labels;
// the error is a *decode.Error with the parameter for a place.
func Mapping(msgField, timeField, streamFields string) (m document.Mapping, err error) {
	if m.Message, err = names("_msg_field", msgField, maxNames); err != nil {
		return document.Mapping{}, err
	}
	if m.Time, err = names("_time_field", timeField, maxNames); err != nil {
		return document.Mapping{}, err
	}
	if m.Streams, err = names("_stream_fields", streamFields, decode.MaxLabels); err != nil {
		return document.Mapping{}, err
	}
	if m.Message == nil {
		m.Message = document.DefaultMessage
	}
	if m.Time == nil {
		m.Time, m.Guess = document.DefaultTime, true
	}
	return m, nil
}

// names are those that a parameter lists, each once, and nil if there are none.
func names(parameter, list string, most int) ([]string, error) {
	var out []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name == "" || slices.Contains(out, name) {
			continue
		}
		if len(out) == most {
			return nil, &decode.Error{Where: parameter, Reason: fmt.Sprintf("more than %d fields", most)}
		}
		out = append(out, name)
	}
	return out, nil
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// Decode appends the documents of a push to b, as document.Parser.Append does: one JSON object a line, where lines
// end with LF or CRLF and empty ones are skipped. Objects on the same line with nothing between them are taken as
// well (Fluent Bit's json_stream, and what curl -d makes of JSON lines), and so is an array of objects, over any
// number of lines (the format json of Fluent Bit and of Vector). A document without a timestamp gets now, in unix
// nanoseconds. Nothing of body is kept.
//
// An error is a *decode.TooLargeError, or a *decode.Error that has the line for a place, such as
// "line 17: offset 5", or in an array the element, such as "[16]: offset 5"; the offset is in bytes from the
// beginning of the line, or of the object where there are several. After one the batch holds a part of the push
// and has to be discarded (logs.Batch.Reset).
func Decode(b *logs.Batch, body []byte, m *document.Mapping, now int64, lim decode.Limits) error {
	if len(body) > lim.MaxPushBytes {
		return &decode.TooLargeError{Limit: lim.MaxPushBytes}
	}
	d := decoders.Get().(*decoder)
	defer d.release()
	b.Lines = slices.Grow(b.Lines, len(body))
	add := func(doc []byte) error { return d.parser.Append(b, doc, m, now, lim) }

	d.frames.Reset(body)
	if d.frames.Peek() == '[' {
		return d.array(add)
	}
	for line := 1; len(body) > 0; line++ {
		var text []byte
		text, body, _ = bytes.Cut(body, []byte{'\n'})
		if err := d.line(text, add); err != nil {
			return within(fmt.Sprintf("line %d", line), err)
		}
	}
	return nil
}

type decoder struct {
	frames jsontext.Reader // finds where an object ends
	parser document.Parser
}

func (d *decoder) release() {
	d.frames.Reset(nil)
	d.parser.Reset()
	decoders.Put(d)
}

// array adds the elements of the array that frames is at.
func (d *decoder) array(add func(doc []byte) error) error {
	d.frames.Pos++
	for i := 0; ; i++ {
		more, err := d.frames.Element(i == 0)
		if err != nil {
			return err
		}
		if !more {
			return d.frames.End()
		}
		doc, err := d.frames.Raw()
		if err != nil {
			return err
		}
		if err := add(doc); err != nil {
			return within(fmt.Sprintf("[%d]", i), err)
		}
	}
}

// line adds the objects of a line. Only where there may be several it is read twice.
func (d *decoder) line(text []byte, add func(doc []byte) error) error {
	if len(bytes.TrimLeft(text, " \t\r")) == 0 {
		return nil
	}
	if !bytes.Contains(text, []byte("}{")) {
		return add(text)
	}
	d.frames.Reset(text)
	for i := 0; ; i++ {
		if d.frames.Peek(); d.frames.Pos == len(text) {
			return nil
		}
		doc, err := d.frames.Raw()
		if err != nil {
			return err
		}
		if err := add(doc); err != nil {
			return within(fmt.Sprintf("object %d", i+1), err)
		}
	}
}

// within puts a place before that of an error.
func within(where string, err error) error {
	bad, ok := errors.AsType[*decode.Error](err)
	if !ok {
		return err
	}
	if bad.Where != "" {
		where += ": " + bad.Where
	}
	return &decode.Error{Where: where, Reason: bad.Reason, Labels: bad.Labels}
}
