package pipeline

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxJSONDepth is how deep objects and arrays of a line may nest; that of the line itself is 1. It is no less than what ClickHouse reads.
const MaxJSONDepth = 1024

const (
	maxJSONName   = 1024 // bytes of the name of a label
	maxKeptFields = 1024 // fields whose memory is kept for the next entry
)

// jsonParser is | json: it makes labels of all scalars of a line.
//
// The line has to be one JSON object as RFC 8259 defines it, with white space (space, tab, CR, LF) around it, if any. So there are no
// comments, no commas at the end, no control characters inside strings, no byte order mark, and numbers are -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?.
// In three points this is more exact, or wider: a name may stand twice in an object, bytes inside strings need not be UTF-8, and an
// escaped surrogate without its other half is allowed. Objects and arrays nest at most MaxJSONDepth deep.
// Of a line that is none of that no label is made, but __error__ is JSONParserErr.
//
// The label of a scalar has the names of the objects around it before its own, with _ between them; empty ones are left
// out. A string is its text, without escapes, and with U+FFFD for each byte that is not UTF-8 and each
// half of a surrogate; a number is as it is written; true and false are these words. null and arrays give no label, and what would have a name of more
// than maxJSONName bytes does not, either: one long name around many members would else take memory without bound.
type jsonParser struct{ scanner jsonScanner }

func (p *jsonParser) process(e *entry) bool {
	s := &p.scanner
	s.begin(e)
	if !s.wholeObject() {
		e.labels.fail(JSONParserErr, s.reason, s.at)
		return true
	}
	for _, f := range s.fields {
		e.labels.extract(f.name, f.value, false)
	}
	return true
}

// field is a label that was found. Both strings point into the line or the scratch memory of Labels.
type field struct{ name, value string }

// jsonScanner goes over a line of JSON once, checks it, and gathers the labels that are needed. Its methods tell whether all was well; after one that was
// not, reason and at say why.
type jsonScanner struct {
	data   []byte
	pos    int
	reason string
	at     int

	need   *needs
	labels *Labels
	fields []field
	path   []byte // the names of the objects around, as in the label's name
	name   []byte // of the member, where it is not in the line as it is needed
}

func (s *jsonScanner) begin(e *entry) {
	s.data, s.pos, s.labels = e.line, 0, e.labels
	s.fields, s.path = kept(s.fields, maxKeptFields), s.path[:0]
}

func (s *jsonScanner) fail(reason string, at int) bool {
	s.reason, s.at = reason, at
	return false
}

// wholeObject gathers the line, which has to be an object.
func (s *jsonScanner) wholeObject() bool {
	if s.peek() != '{' {
		return s.fail("no JSON object: want '{'", s.pos)
	}
	s.pos++
	return s.object(1) && s.end()
}

// end checks that there is nothing more.
func (s *jsonScanner) end() bool {
	s.peek()
	return s.pos == len(s.data) || s.fail("something follows the JSON value", s.pos)
}

// peek skips white space, and is the byte after it, or 0 at the end.
func (s *jsonScanner) peek() byte {
	for i := s.pos; i < len(s.data); i++ {
		if c := s.data[i]; c > ' ' || c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			s.pos = i
			return c
		}
	}
	s.pos = len(s.data)
	return 0
}

// object gathers the members of an object whose brace has been read.
func (s *jsonScanner) object(depth int) bool {
	if s.peek() == '}' {
		s.pos++
		return true
	}
	for {
		name, isInLine, ok := s.member()
		if !ok {
			return false
		}
		switch c := s.peek(); c {
		case '{':
			if depth == MaxJSONDepth {
				return s.fail("nested too deep", s.pos)
			}
			mark := len(s.path)
			s.push(name)
			if s.need.under(view(s.path)) {
				s.pos++
				ok = s.object(depth + 1)
			} else {
				ok = s.skip(depth)
			}
			s.path = s.path[:mark]
		case '[':
			ok = s.skip(depth)
		default:
			ok = s.scalar(c, name, isInLine)
		}
		if !ok {
			return false
		}
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return true
		default:
			return s.fail("want ',' or '}'", s.pos)
		}
	}
}

// member goes to the value of a member, and returns its name as it is part of a label's: a piece of the line, or of memory that is
// good until the next member.
func (s *jsonScanner) member() (name []byte, isInLine, ok bool) {
	if s.peek() != '"' {
		return nil, false, s.fail("want the name of a member", s.pos)
	}
	from := s.pos + 1
	i := from
	for i < len(s.data) && nameByte[s.data[i]] {
		i++
	}
	if i < len(s.data) && s.data[i] == '"' && i > from && (!isDigit(s.data[from]) || len(s.path) > 0) {
		s.pos = i + 1
		return s.data[from:i], true, s.colon()
	}
	raw, isEscaped, ok := s.str()
	if !ok {
		return nil, false, false
	}
	text := view(raw)
	if isEscaped {
		text = string(appendJSONText(nil, raw))
	}
	s.name = s.name[:0]
	if text != "" {
		s.name = appendLabelName(s.name, text, len(s.path) == 0)
	}
	return s.name, false, s.colon()
}

func (s *jsonScanner) colon() bool {
	if s.peek() != ':' {
		return s.fail("want ':'", s.pos)
	}
	s.pos++
	return true
}

// push adds a name to the path.
func (s *jsonScanner) push(name []byte) {
	if len(s.path) > 0 && len(name) > 0 {
		s.path = append(s.path, '_')
	}
	s.path = append(s.path, name...)
}

// scalar reads the value of a member, which begins with c, and keeps it if it is needed.
func (s *jsonScanner) scalar(c byte, name []byte, isInLine bool) bool {
	var raw []byte
	var isEscaped, ok bool
	if c == '"' {
		raw, isEscaped, ok = s.str()
	} else {
		from := s.pos
		ok = s.word(c)
		raw = s.data[from:s.pos]
	}
	if !ok || c == 'n' {
		return ok
	}
	mark := len(s.path)
	label := view(name)
	if mark > 0 {
		s.push(name)
		label, isInLine = view(s.path), false
	}
	if label != "" && len(label) <= maxJSONName && s.need.label(label) {
		if !isInLine {
			label = s.labels.hold(label)
		}
		s.fields = append(s.fields, field{label, s.labels.jsonText(raw, isEscaped)})
	}
	s.path = s.path[:mark]
	return true
}

// jsonText is the text of a string or of another scalar.
func (l *Labels) jsonText(raw []byte, isEscaped bool) string {
	if !isEscaped && utf8.Valid(raw) {
		return view(raw)
	}
	from := len(l.scratch)
	l.scratch = appendJSONText(l.scratch, raw)
	return view(l.scratch[from:])
}

// skip passes over a value of any kind, which stands in something that is depth deep.
func (s *jsonScanner) skip(depth int) bool {
	c := s.peek()
	switch {
	case c == '"':
		_, _, ok := s.str()
		return ok
	case c != '{' && c != '[':
		return s.word(c)
	case depth == MaxJSONDepth:
		return s.fail("nested too deep", s.pos)
	}
	s.pos++
	closing := c + 2 // } and ]
	if s.peek() == closing {
		s.pos++
		return true
	}
	for {
		if c == '{' {
			if s.peek() != '"' {
				return s.fail("want the name of a member", s.pos)
			}
			if _, _, ok := s.str(); !ok || !s.colon() {
				return false
			}
		}
		if !s.skip(depth + 1) {
			return false
		}
		switch s.peek() {
		case ',':
			s.pos++
		case closing:
			s.pos++
			return true
		default:
			return s.fail("want ',' or the end of an object or array", s.pos)
		}
	}
}

// str reads a string at its quote, and returns what is between the quotes as it stands there.
func (s *jsonScanner) str() (raw []byte, isEscaped, ok bool) {
	from := s.pos + 1
	i := from
	for {
		i = plainEnd(s.data, i)
		if i == len(s.data) {
			return nil, false, s.fail("a string has no end", from-1)
		}
		switch s.data[i] {
		case '"':
			s.pos = i + 1
			return s.data[from:i], isEscaped, true
		case '\\':
			size := escapeSize(s.data[i:])
			if size == 0 {
				return nil, false, s.fail("no escape of JSON", i)
			}
			isEscaped = true
			i += size
		default:
			return nil, false, s.fail("a control character in a string", i)
		}
	}
}

// plainEnd is the offset of the first quote, backslash or control character from i on, or the length of data.
func plainEnd(data []byte, i int) int {
	const low, high = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(data); i += 8 {
		w := binary.LittleEndian.Uint64(data[i:])
		quote, slash := w^low*'"', w^low*'\\'
		// The lowest bit that is set is exact; above it there may be more.
		if m := ((quote - low) &^ quote & high) | ((slash - low) &^ slash & high) | ((w - low*' ') &^ w & high); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(data) && data[i] != '"' && data[i] != '\\' && data[i] >= ' ' {
		i++
	}
	return i
}

// escapeSize is the length of the escape that s begins with, or 0 if it is none.
func escapeSize(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(s[2:]); ok {
			return 6
		}
	}
	return 0
}

func hex4(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range s[:4] {
		switch {
		case isDigit(c):
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

// word reads a scalar that is no string, and begins with c.
func (s *jsonScanner) word(c byte) bool {
	switch c {
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	return s.number()
}

func (s *jsonScanner) literal(word string) bool {
	if len(s.data)-s.pos < len(word) || view(s.data[s.pos:s.pos+len(word)]) != word {
		return s.fail("want a JSON value", s.pos)
	}
	s.pos += len(word)
	return true
}

func (s *jsonScanner) number() bool {
	from := s.pos
	if s.at0() == '-' {
		s.pos++
	}
	switch c := s.at0(); {
	case c == '0':
		s.pos++
	case !isDigit(c):
		return s.fail("want a JSON value", from)
	default:
		s.digits()
	}
	if s.at0() == '.' {
		s.pos++
		if !s.digits() {
			return s.fail("want a digit", s.pos)
		}
	}
	if s.at0()|0x20 == 'e' {
		s.pos++
		if c := s.at0(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return s.fail("want a digit", s.pos)
		}
	}
	return true
}

// at0 is the next byte, or 0 at the end.
func (s *jsonScanner) at0() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

// digits reads as many as there are, and tells whether there is one.
func (s *jsonScanner) digits() bool {
	from := s.pos
	for s.pos < len(s.data) && isDigit(s.data[s.pos]) {
		s.pos++
	}
	return s.pos > from
}

// appendJSONText appends what a string means whose inside is raw, and has been checked. Escapes are read as JSON's and \' is ', too.
func appendJSONText(to, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == '\\':
			c = raw[i+1]
			if c == 'u' {
				r, _ := hex4(raw[i+2:])
				i += 6
				if utf16.IsSurrogate(r) {
					pair := rune(utf8.RuneError)
					if len(raw)-i >= 6 && raw[i] == '\\' && raw[i+1] == 'u' {
						low, _ := hex4(raw[i+2:])
						pair = utf16.DecodeRune(r, low)
					}
					if r = pair; r != utf8.RuneError {
						i += 6
					}
				}
				to = utf8.AppendRune(to, r)
				continue
			}
			if escaped := strings.IndexByte("bfnrt", c); escaped >= 0 {
				c = "\b\f\n\r\t"[escaped]
			}
			to = append(to, c)
			i += 2
		case c < utf8.RuneSelf:
			to = append(to, c)
			i++
		default:
			r, size := utf8.DecodeRune(raw[i:])
			to = utf8.AppendRune(to, r)
			i += size
		}
	}
	return to
}
