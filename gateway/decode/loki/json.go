package loki

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/shared/logs"
)

// maxDepth is how deep the value of an unknown key may nest.
const maxDepth = 64

var jsonParsers = sync.Pool{New: func() any { return new(jsonParser) }}

// JSON appends the entries of a JSON push to b:
//
//	{"streams": [{"stream": {"app": "api"}, "values": [["<timestamp>", "<line>", {"trace": "1f"}], ...]}, ...]}
//
// Keys may come in any order, and unknown ones are skipped. A timestamp is a string as logs.ParseTime reads,
// or an integer of unix nanoseconds; an entry whose timestamp is "" or null gets now, in unix nanoseconds, and
// makes the batch Coarse. The third element of a value, metadata, may be left out.
//
// The grammar is that of RFC 8259 with three liberties: a byte order mark before the document is skipped, and
// inside strings control characters and bytes that are not UTF-8 are kept as they came. An escaped surrogate
// without its other half becomes U+FFFD.
//
// Errors are those of the package; a *decode.Error has the path of what is wrong, such as
// streams[3].values[12][1], or for bad syntax "offset N", in bytes from the beginning of body.
func JSON(b *logs.Batch, body []byte, now int64, lim decode.Limits) error {
	if len(body) > lim.MaxPushBytes {
		return &decode.TooLargeError{Limit: lim.MaxPushBytes}
	}
	p := jsonParsers.Get().(*jsonParser)
	p.batch, p.data, p.pos, p.now, p.maxLine = b, body, 0, now, lim.MaxLineBytes
	b.Lines = slices.Grow(b.Lines, len(body))
	err := p.push()
	p.batch, p.data, p.Known = nil, nil, ""
	p.scratch, p.text = decode.KeepScratch(p.scratch), decode.KeepScratch(p.text)
	clear(p.labels[:cap(p.labels)])
	jsonParsers.Put(p)
	return err
}

// jsonParser goes over a push once, from left to right. Its methods begin at the first byte of what they
// read, or at white space before it, and end behind it.
type jsonParser struct {
	batch   *logs.Batch
	data    []byte
	pos     int
	now     int64 // unix nanoseconds
	maxLine int   // bytes

	decode.Place

	// Kept from one push to the next.
	scratch []byte // strings that had escapes; empty at every key of an object
	text    []byte // names and values of a stream's labels, back to back
	ends    []int  // where in text each of them ends
	labels  []logs.Label
	cache   decode.LabelCache
}

// push reads the whole document.
func (p *jsonParser) push() error {
	if bytes.HasPrefix(p.data, []byte("\ufeff")) {
		p.pos = len("\ufeff")
	}
	if p.peek() != '{' {
		return p.mismatch("", "an object")
	}
	p.pos++
	found := false
	for first := true; ; first = false {
		key, more, err := p.member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if string(key) != "streams" {
			if err := p.skip(0); err != nil {
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
	p.peek()
	if p.pos < len(p.data) {
		return p.unexpected("the end of the document")
	}
	if !found {
		return &decode.Error{Reason: `"streams" is missing`}
	}
	return nil
}

// streams reads the array of streams.
func (p *jsonParser) streams() error {
	if p.peek() != '[' {
		return p.mismatch("streams", "an array")
	}
	p.pos++
	for p.Stream = 0; ; p.Stream++ {
		p.Known = ""
		if more, err := p.element(p.Stream == 0); err != nil || !more {
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
	if p.peek() != '{' {
		return p.mismatch(p.At(""), "an object")
	}
	p.pos++
	var labels, values bool
	begin := p.batch.Len()
	for first := true; ; first = false {
		key, more, err := p.member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		switch string(key) {
		case "stream":
			if labels {
				return p.Fail(p.At(""), `"stream" is given twice`)
			}
			labels = true
			err = p.streamLabels()
		case "values":
			if values {
				return p.Fail(p.At(""), `"values" is given twice`)
			}
			values = true
			err = p.values()
		default:
			err = p.skip(0)
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
	if p.peek() != '{' {
		return p.mismatch(p.At(".stream"), "an object")
	}
	start := p.pos
	if err := p.skip(0); err != nil {
		return err
	}
	wire, end := p.data[start:p.pos], p.pos
	if canonical, ok := p.cache.Get(wire); ok {
		p.Known = canonical
		return nil
	}

	p.pos = start + 1
	p.text, p.ends = p.text[:0], p.ends[:0]
	for first := true; ; first = false {
		key, more, err := p.member(first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if p.peek() != '"' {
			return p.mismatch(fmt.Sprintf("%s[%q]", p.At(".stream"), logs.Clip(key)), "a string")
		}
		value, err := p.str()
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
	p.pos = end

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
	switch p.peek() {
	case 'n':
		return p.literal("null")
	case '[':
		p.pos++
	default:
		return p.mismatch(p.At(".values"), "an array")
	}
	for p.Entry = 0; ; p.Entry++ {
		if more, err := p.element(p.Entry == 0); err != nil || !more {
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
	if p.peek() != '[' {
		return p.mismatch(p.inValue(""), "an array")
	}
	p.pos++
	if p.peek() == ']' {
		return p.count("0")
	}
	ts, own, err := p.timestamp()
	if err != nil {
		return err
	}
	switch p.peek() {
	case ',':
		p.pos++
	case ']':
		return p.count("1")
	default:
		return p.unexpected("',' or ']'")
	}
	if err := p.line(); err != nil {
		return err
	}
	p.batch.EndEntry(ts, own)
	switch p.peek() {
	case ']':
		p.pos++
		return nil
	case ',':
		p.pos++
	default:
		return p.unexpected("',' or ']'")
	}
	if err := p.metadata(); err != nil {
		return err
	}
	switch p.peek() {
	case ']':
		p.pos++
		return nil
	case ',':
		return p.count("more")
	default:
		return p.unexpected("',' or ']'")
	}
}

// timestamp reads the first element of a value as unix nanoseconds; own tells that the client gave it.
func (p *jsonParser) timestamp() (ts int64, own bool, err error) {
	const want = "a string or an integer"
	var text []byte
	switch c := p.peek(); {
	case c == '"':
		p.scratch = p.scratch[:0]
		if text, err = p.str(); err != nil {
			return 0, false, err
		}
		if len(text) == 0 {
			return p.now, false, nil
		}
	case c == 'n':
		return p.now, false, p.literal("null")
	case c == '-' || '0' <= c && c <= '9':
		start := p.pos
		integer, err := p.number()
		if err != nil {
			return 0, false, err
		}
		text = p.data[start:p.pos]
		if !integer {
			return 0, false, p.Fail(p.inValue("[0]"), "want "+want+", got "+logs.Clip(text))
		}
	default:
		return 0, false, p.mismatch(p.inValue("[0]"), want)
	}
	if ts, err = logs.ParseTime(text); err != nil {
		return 0, false, p.Fail(p.inValue("[0]"), err.Error())
	}
	return ts, true, nil
}

// line reads the second element of a value into the batch.
func (p *jsonParser) line() error {
	if p.peek() != '"' {
		return p.mismatch(p.inValue("[1]"), "a string")
	}
	start := p.pos + 1
	rest := p.data[start:]
	// Most lines have no escape: then the first quote is the end.
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return p.unterminated()
	}
	size, b := end, p.batch
	escape := bytes.IndexByte(rest[:end], '\\')
	if escape < 0 {
		p.pos = start + end + 1
		if size <= p.maxLine {
			b.Lines = append(b.Lines, rest[:end]...)
			return nil
		}
	} else {
		var err error
		b.Lines = append(b.Lines, rest[:escape]...)
		if b.Lines, err = p.unescape(b.Lines, start+escape); err != nil {
			return err
		}
		if size = b.Pending(); size <= p.maxLine {
			return nil
		}
	}
	return p.Fail(p.inValue(""), decode.LineTooLong(size, p.maxLine))
}

// metadata reads the third element of a value, an object of strings, for the entry that ended last.
func (p *jsonParser) metadata() error {
	if p.peek() != '{' {
		return p.mismatch(p.inValue("[2]"), "an object")
	}
	p.pos++
	for first := true; ; first = false {
		name, more, err := p.member(first)
		if err != nil || !more {
			return err
		}
		if p.peek() != '"' {
			return p.mismatch(p.inValue(fmt.Sprintf("[2][%q]", logs.Clip(name))), "a string")
		}
		value, err := p.str()
		if err != nil {
			return err
		}
		p.batch.AddMetadata(name, value)
		if len(p.batch.Metadata) > decode.MaxMetadataNames {
			return p.Fail(p.inValue("[2]"), decode.ErrTooManyNames.Error())
		}
	}
}

// peek skips white space and returns the byte after it, or 0 at the end.
func (p *jsonParser) peek() byte {
	for p.pos < len(p.data) {
		c := p.data[p.pos]
		if c > ' ' || !isSpace(c) {
			return c
		}
		p.pos++
	}
	return 0
}

// member goes to the value of an object's next member. more is false if the object ended instead. key is
// valid until the scratch buffer is emptied, which the next call does.
func (p *jsonParser) member(first bool) (key []byte, more bool, err error) {
	switch c := p.peek(); {
	case c == '}':
		p.pos++
		return nil, false, nil
	case first:
	case c == ',':
		p.pos++
	default:
		return nil, false, p.unexpected("',' or '}'")
	}
	if p.peek() != '"' {
		if first {
			return nil, false, p.unexpected("a key or '}'")
		}
		return nil, false, p.unexpected("a key")
	}
	p.scratch = p.scratch[:0]
	if key, err = p.str(); err != nil {
		return nil, false, err
	}
	if p.peek() != ':' {
		return nil, false, p.unexpected("':'")
	}
	p.pos++
	return key, true, nil
}

// element goes to an array's next element. more is false if the array ended instead.
func (p *jsonParser) element(first bool) (more bool, err error) {
	switch c := p.peek(); {
	case c == ']':
		p.pos++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		p.pos++
		return true, nil
	}
	return false, p.unexpected("',' or ']'")
}

// str reads a string, whose opening quote is at pos. The result is part of the document, or of the scratch
// buffer if there was something to unescape.
func (p *jsonParser) str() ([]byte, error) {
	start := p.pos + 1
	rest := p.data[start:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return nil, p.unterminated()
	}
	if bytes.IndexByte(rest[:end], '\\') < 0 {
		p.pos = start + end + 1
		return rest[:end], nil
	}
	from := len(p.scratch)
	var err error
	if p.scratch, err = p.unescape(p.scratch, start); err != nil {
		return nil, err
	}
	return p.scratch[from:], nil
}

// unescape appends to dst what stands between data[i] and the end of the string.
func (p *jsonParser) unescape(dst []byte, i int) ([]byte, error) {
	src := p.data
	for {
		// Eight bytes at a time to the next quote or backslash: where there is one escape, as in a line that
		// is JSON itself, there are many, too near to each other for bytes.IndexByte.
		for i+8 <= len(src) {
			word := binary.LittleEndian.Uint64(src[i:])
			dst = binary.LittleEndian.AppendUint64(dst, word)
			if special := bytesEqual(word, '"') | bytesEqual(word, '\\'); special != 0 {
				n := bits.TrailingZeros64(special) / 8
				dst = dst[:len(dst)-8+n]
				i += n
				break
			}
			i += 8
		}
		for i < len(src) && src[i] != '"' && src[i] != '\\' {
			dst = append(dst, src[i])
			i++
		}
		if i == len(src) {
			return dst, p.unterminated()
		}
		if src[i] == '"' {
			p.pos = i + 1
			return dst, nil
		}
		if i+1 == len(src) {
			return dst, p.unterminated()
		}
		c := src[i+1]
		switch c {
		case '"', '\\', '/':
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, ok := hex4(src[i+2:])
			if !ok {
				return dst, p.badEscape(i, 6)
			}
			i += 6
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if i+1 < len(src) && src[i] == '\\' && src[i+1] == 'u' {
					if low, ok := hex4(src[i+2:]); ok {
						pair = utf16.DecodeRune(r, low)
					}
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		default:
			return dst, p.badEscape(i, 2)
		}
		dst = append(dst, c)
		i += 2
	}
}

// bytesEqual sets the highest bit of the bytes of word that are c. Above the lowest of them it may set more.
func bytesEqual(word uint64, c byte) uint64 {
	const low, high = 0x0101010101010101, 0x8080808080808080
	x := word ^ low*uint64(c)
	return (x - low) &^ x & high
}

func hex4(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range s[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// skip reads a value of any kind, depth levels below one that is skipped.
func (p *jsonParser) skip(depth int) error {
	c := p.peek()
	switch {
	case c == '"':
		p.scratch = p.scratch[:0]
		_, err := p.str()
		return err
	case c == '-' || '0' <= c && c <= '9':
		_, err := p.number()
		return err
	case c == 't':
		return p.literal("true")
	case c == 'f':
		return p.literal("false")
	case c == 'n':
		return p.literal("null")
	case c != '{' && c != '[':
		return p.unexpected("a value")
	case depth == maxDepth:
		return p.syntax(p.pos, fmt.Sprintf("nested deeper than %d", maxDepth))
	}
	p.pos++
	for first := true; ; first = false {
		var more bool
		var err error
		if c == '{' {
			_, more, err = p.member(first)
		} else {
			more, err = p.element(first)
		}
		if err != nil || !more {
			return err
		}
		if err := p.skip(depth + 1); err != nil {
			return err
		}
	}
}

// number reads a number and tells whether it has neither fraction nor exponent.
func (p *jsonParser) number() (integer bool, err error) {
	if p.data[p.pos] == '-' {
		p.pos++
	}
	if p.pos < len(p.data) && p.data[p.pos] == '0' {
		p.pos++
	} else if err := p.digits(); err != nil {
		return false, err
	}
	integer = true
	if p.pos < len(p.data) && p.data[p.pos] == '.' {
		integer = false
		p.pos++
		if err := p.digits(); err != nil {
			return false, err
		}
	}
	if p.pos < len(p.data) && p.data[p.pos]|0x20 == 'e' {
		integer = false
		p.pos++
		if p.pos < len(p.data) && (p.data[p.pos] == '+' || p.data[p.pos] == '-') {
			p.pos++
		}
		if err := p.digits(); err != nil {
			return false, err
		}
	}
	return integer, nil
}

// digits reads one digit or more.
func (p *jsonParser) digits() error {
	start := p.pos
	for p.pos < len(p.data) && '0' <= p.data[p.pos] && p.data[p.pos] <= '9' {
		p.pos++
	}
	if p.pos == start {
		return p.unexpected("a digit")
	}
	return nil
}

// literal reads true, false or null.
func (p *jsonParser) literal(word string) error {
	for i := range len(word) {
		if p.pos == len(p.data) || p.data[p.pos] != word[i] {
			return p.unexpected(word)
		}
		p.pos++
	}
	return nil
}

// inValue is the path of the entry, with what follows it.
func (p *jsonParser) inValue(suffix string) string { return p.InEntry("values", suffix) }

func (p *jsonParser) syntax(offset int, reason string) error {
	return p.Fail(fmt.Sprintf("offset %d", offset), reason)
}

// count is the error for a value that has not two or three elements.
func (p *jsonParser) count(got string) error {
	return p.Fail(p.inValue(""), "want 2 or 3 elements, got "+got)
}

// mismatch is the error for a value at pos that is not of the kind that it has to be.
func (p *jsonParser) mismatch(where, want string) error {
	kind := ""
	switch c := p.peek(); {
	case c == '"':
		kind = "string"
	case c == '-' || '0' <= c && c <= '9':
		kind = "number"
	case c == '{':
		kind = "object"
	case c == '[':
		kind = "array"
	case c == 't' || c == 'f':
		kind = "boolean"
	case c == 'n':
		kind = "null"
	default:
		return p.unexpected(want)
	}
	return p.Fail(where, "want "+want+", got "+kind)
}

// unexpected is the error for a byte at pos that can't stand there.
func (p *jsonParser) unexpected(want string) error {
	if p.pos == len(p.data) {
		return p.syntax(p.pos, "want "+want+", got the end")
	}
	_, size := utf8.DecodeRune(p.data[p.pos:])
	return p.syntax(p.pos, fmt.Sprintf("want %s, got %q", want, p.data[p.pos:p.pos+size]))
}

// unterminated is the error for a document that ends inside a string.
func (p *jsonParser) unterminated() error {
	return p.syntax(len(p.data), fmt.Sprintf("the string that begins at offset %d has no end", p.pos))
}

// badEscape is the error for the escape at i, of which up to size bytes are shown.
func (p *jsonParser) badEscape(i, size int) error {
	return p.syntax(i, fmt.Sprintf("bad escape %q", p.data[i:min(i+size, len(p.data))]))
}
