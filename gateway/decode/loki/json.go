package loki

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/jsontext"
	"github.com/casteloig/logthra/shared/logs"
)

var jsonParsers = sync.Pool{New: func() any { return new(jsonParser) }}

// JSON appends the entries of a JSON push to b:
//
//	{"streams": [{"stream": {"app": "api"}, "values": [["<timestamp>", "<line>", {"trace": "1f"}], ...]}, ...]}
//
// or in the form that Loki had before, of /api/prom/push:
//
//	{"streams": [{"labels": "{app=\"api\"}", "entries": [{"ts": "<timestamp>", "line": "<line>"}, ...]}, ...]}
//
// Keys may come in any order, and unknown ones are skipped. A timestamp is a string as logs.ParseTime reads,
// or an integer of unix nanoseconds; an entry whose timestamp is "" or null gets now, in unix nanoseconds, and
// makes the batch Coarse. The third element of a value, metadata, may be left out.
//
// The grammar is that of package jsontext; a byte order mark before the document is skipped.
//
// Errors are those of the package; a *decode.Error has the path of what is wrong, such as
// streams[3].values[12][1], or for bad syntax "offset N", in bytes from the beginning of body.
func JSON(b *logs.Batch, body []byte, now int64, lim decode.Limits) error {
	if len(body) > lim.MaxPushBytes {
		return &decode.TooLargeError{Limit: lim.MaxPushBytes}
	}
	p := jsonParsers.Get().(*jsonParser)
	p.batch, p.now, p.maxLine = b, now, lim.MaxLineBytes
	p.Reset(body)
	b.Lines = slices.Grow(b.Lines, len(body))
	err := p.push()
	if bad, ok := errors.AsType[*decode.Error](err); ok {
		bad.Labels = p.Known
	}
	p.Reset(nil)
	p.batch, p.Known, p.text = nil, "", decode.KeepScratch(p.text)
	clear(p.labels[:cap(p.labels)])
	jsonParsers.Put(p)
	return err
}

// jsonParser goes over a push once, from left to right.
type jsonParser struct {
	jsontext.Reader

	batch   *logs.Batch
	now     int64 // unix nanoseconds
	maxLine int   // bytes

	decode.Place

	// Kept from one push to the next.
	text   []byte // names and values of a stream's labels, back to back
	ends   []int  // where in text each of them ends
	labels []logs.Label
	cache  decode.LabelCache
}

// push reads the whole document.
func (p *jsonParser) push() error {
	if err := p.Open('{', "", "an object"); err != nil {
		return err
	}
	found := false
	for first := true; ; first = false {
		key, more, err := p.Member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if string(key) != "streams" {
			if err := p.Skip(); err != nil {
				return err
			}
			continue
		}
		if found {
			return &decode.Error{Reason: `"streams" is given twice`}
		}
		found = true
		if err := p.streams(); err != nil {
			return err
		}
	}
	if err := p.End(); err != nil {
		return err
	}
	if !found {
		return &decode.Error{Reason: `"streams" is missing`}
	}
	return nil
}

// streams reads the array of streams.
func (p *jsonParser) streams() error {
	if err := p.Open('[', "streams", "an array"); err != nil {
		return err
	}
	for p.Stream = 0; ; p.Stream++ {
		p.Known = ""
		if more, err := p.Element(p.Stream == 0); err != nil || !more {
			return err
		}
		if err := p.streamObject(); err != nil {
			return err
		}
	}
}

// streamObject reads one stream. Its entries go to the batch as they come, and the labels are put in place
// at the end, since they may stand behind the entries.
func (p *jsonParser) streamObject() error {
	if p.Peek() != '{' {
		return p.Mismatch(p.At(""), "an object")
	}
	p.Pos++
	var labels, values bool
	begin := p.batch.Len()
	for first := true; ; first = false {
		key, more, err := p.Member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		switch string(key) {
		case "stream", "labels":
			if labels {
				return p.Fail(p.At(""), fmt.Sprintf("%q is given twice", key))
			}
			labels = true
			if key[0] == 's' {
				err = p.streamLabels()
			} else {
				err = p.legacyLabels()
			}
		case "values", "entries":
			if values {
				return p.Fail(p.At(""), fmt.Sprintf("%q is given twice", key))
			}
			values = true
			if key[0] == 'v' {
				err = p.values()
			} else {
				err = p.legacyEntries()
			}
		default:
			err = p.Skip()
		}
		if err != nil {
			return err
		}
	}
	if !labels {
		return p.Fail(p.At(".stream"), logs.ErrNoLabels.Error())
	}
	if p.batch.Len() > begin {
		p.batch.Streams[len(p.batch.Streams)-1].Labels = p.Known
	}
	return nil
}

// streamLabels reads the object of labels into p.Known.
func (p *jsonParser) streamLabels() error {
	if p.Peek() != '{' {
		return p.Mismatch(p.At(".stream"), "an object")
	}
	start := p.Pos
	wire, err := p.Raw()
	if err != nil {
		return err
	}
	end := p.Pos
	if canonical, ok := p.cache.Get(wire); ok {
		p.Known = canonical
		return nil
	}

	p.Pos = start + 1
	p.text, p.ends = p.text[:0], p.ends[:0]
	for first := true; ; first = false {
		key, more, err := p.Member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if p.Peek() != '"' {
			return p.Mismatch(fmt.Sprintf("%s[%q]", p.At(".stream"), logs.Clip(key)), "a string")
		}
		value, err := p.String()
		if err != nil {
			return err
		}
		if len(p.ends) == 2*decode.MaxLabels {
			return p.Fail(p.At(".stream"), decode.ErrTooManyLabels.Error())
		}
		p.text = append(p.text, key...)
		p.ends = append(p.ends, len(p.text))
		p.text = append(p.text, value...)
		p.ends = append(p.ends, len(p.text))
	}
	p.Pos = end

	text, from := string(p.text), 0
	p.labels = p.labels[:0]
	for i := 0; i < len(p.ends); i += 2 {
		mid, to := p.ends[i], p.ends[i+1]
		p.labels = append(p.labels, logs.Label{Name: text[from:mid], Value: text[mid:to]})
		from = to
	}
	canonical, err := logs.Canonical(p.labels)
	if err != nil {
		return p.Fail(p.At(".stream"), err.Error())
	}
	p.Known = canonical
	p.cache.Put(wire, canonical)
	return nil
}

// values reads the array of a stream's entries. null stands for none: that is how a Go client writes a nil
// slice, and Loki takes it.
func (p *jsonParser) values() error {
	switch p.Peek() {
	case 'n':
		return p.Literal("null")
	case '[':
		p.Pos++
	default:
		return p.Mismatch(p.At(".values"), "an array")
	}
	for p.Entry = 0; ; p.Entry++ {
		if more, err := p.Element(p.Entry == 0); err != nil || !more {
			return err
		}
		if p.Entry == 0 {
			p.batch.AddStream(p.Known)
		}
		if err := p.value(); err != nil {
			return err
		}
	}
}

// value reads one entry: timestamp, line and perhaps metadata.
func (p *jsonParser) value() error {
	if p.Peek() != '[' {
		return p.Mismatch(p.inValue(""), "an array")
	}
	p.Pos++
	if p.Peek() == ']' {
		return p.count("0")
	}
	ts, own, err := p.timestamp(p.inValue, "[0]")
	if err != nil {
		return err
	}
	switch p.Peek() {
	case ',':
		p.Pos++
	case ']':
		return p.count("1")
	default:
		return p.Unexpected("',' or ']'")
	}
	if err := p.line(p.inValue, "[1]"); err != nil {
		return err
	}
	p.batch.EndEntry(ts, own)
	switch p.Peek() {
	case ']':
		p.Pos++
		return nil
	case ',':
		p.Pos++
	default:
		return p.Unexpected("',' or ']'")
	}
	if err := p.metadata(p.inValue, "[2]"); err != nil {
		return err
	}
	switch p.Peek() {
	case ']':
		p.Pos++
		return nil
	case ',':
		return p.count("more")
	default:
		return p.Unexpected("',' or ']'")
	}
}

// timestamp reads unix nanoseconds; own tells that the client gave them. place is the path of the entry, with its suffix.
func (p *jsonParser) timestamp(place func(string) string, suffix string) (ts int64, own bool, err error) {
	const want = "a string or an integer"
	var text []byte
	switch c := p.Peek(); {
	case c == '"':
		if text, err = p.String(); err != nil {
			return 0, false, err
		}
		if len(text) == 0 {
			return p.now, false, nil
		}
	case c == 'n':
		return p.now, false, p.Literal("null")
	case c == '-' || '0' <= c && c <= '9':
		var integer bool
		if text, integer, err = p.Number(); err != nil {
			return 0, false, err
		}
		if !integer {
			return 0, false, p.Fail(place(suffix), "want "+want+", got "+logs.Clip(text))
		}
	default:
		return 0, false, p.Mismatch(place(suffix), want)
	}
	if ts, err = logs.ParseTime(text); err != nil {
		return 0, false, p.Fail(place(suffix), err.Error())
	}
	return ts, true, nil
}

// line reads a line into the batch. place is the path of the entry, with its suffix.
func (p *jsonParser) line(place func(string) string, suffix string) error {
	if p.Peek() != '"' {
		return p.Mismatch(place(suffix), "a string")
	}
	b := p.batch
	var err error
	if b.Lines, err = p.AppendString(b.Lines); err != nil {
		return err
	}
	if size := b.Pending(); size > p.maxLine {
		return p.Fail(place(""), decode.LineTooLong(size, p.maxLine))
	}
	return nil
}

// metadata reads an object of strings for the entry that ended last. place is the path of the entry, with its suffix.
func (p *jsonParser) metadata(place func(string) string, suffix string) error {
	if p.Peek() != '{' {
		return p.Mismatch(place(suffix), "an object")
	}
	p.Pos++
	for first := true; ; first = false {
		name, more, err := p.Member(first)
		if err != nil || !more {
			return err
		}
		if p.Peek() != '"' {
			return p.Mismatch(place(fmt.Sprintf("%s[%q]", suffix, logs.Clip(name))), "a string")
		}
		value, err := p.String()
		if err != nil {
			return err
		}
		p.batch.AddMetadata(name, value)
		if len(p.batch.Metadata) > decode.MaxMetadataNames {
			return p.Fail(place(suffix), decode.ErrTooManyNames.Error())
		}
	}
}

// legacyLabels reads a string of labels, as ParseLabels takes it, into p.Known.
func (p *jsonParser) legacyLabels() error {
	if p.Peek() != '"' {
		return p.Mismatch(p.At(".labels"), "a string")
	}
	text, err := p.String()
	if err != nil {
		return err
	}
	if canonical, ok := p.cache.Get(text); ok {
		p.Known = canonical
		return nil
	}
	if p.labels, err = appendLabels(p.labels[:0], string(text)); err != nil {
		return p.Fail(p.At(".labels"), err.Error())
	}
	canonical, err := logs.Canonical(p.labels)
	if err != nil {
		return p.Fail(p.At(".labels"), err.Error())
	}
	p.Known = canonical
	p.cache.Put(text, canonical)
	return nil
}

// legacyEntries reads an array of entries that are objects.
func (p *jsonParser) legacyEntries() error {
	switch p.Peek() {
	case 'n':
		return p.Literal("null")
	case '[':
		p.Pos++
	default:
		return p.Mismatch(p.At(".entries"), "an array")
	}
	for p.Entry = 0; ; p.Entry++ {
		if more, err := p.Element(p.Entry == 0); err != nil || !more {
			return err
		}
		if p.Entry == 0 {
			p.batch.AddStream(p.Known)
		}
		if err := p.legacyEntry(); err != nil {
			return err
		}
	}
}

// legacyEntry reads one entry that is an object.
func (p *jsonParser) legacyEntry() error {
	if p.Peek() != '{' {
		return p.Mismatch(p.inEntry(""), "an object")
	}
	p.Pos++
	ts, own, line, metadata := p.now, false, false, 0
	for first := true; ; first = false {
		key, more, err := p.Member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		switch string(key) {
		case "ts", "timestamp":
			ts, own, err = p.timestamp(p.inEntry, ".ts")
		case "line":
			if line {
				return p.Fail(p.inEntry(""), `"line" is given twice`)
			}
			line = true
			err = p.line(p.inEntry, ".line")
		case "structuredMetadata":
			p.Peek()
			metadata = p.Pos
			err = p.Skip()
		default:
			err = p.Skip()
		}
		if err != nil {
			return err
		}
	}
	p.batch.EndEntry(ts, own)
	if metadata == 0 {
		return nil
	}
	end := p.Pos
	p.Pos = metadata
	err := p.metadata(p.inEntry, ".structuredMetadata")
	p.Pos = end
	return err
}

// inEntry is the path of an entry that is an object, with what follows it.
func (p *jsonParser) inEntry(suffix string) string { return p.InEntry("entries", suffix) }

// inValue is the path of the entry, with what follows it.
func (p *jsonParser) inValue(suffix string) string { return p.InEntry("values", suffix) }

// count is the error for a value that has not two or three elements.
func (p *jsonParser) count(got string) error {
	return p.Fail(p.inValue(""), "want 2 or 3 elements, got "+got)
}
