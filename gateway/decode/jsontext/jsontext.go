// Package jsontext reads JSON documents in place, from left to right, without making objects of them.
//
// The grammar is that of RFC 8259 with two liberties: inside strings, control characters and bytes that are not
// UTF-8 are kept as they came, and an escaped surrogate without its other half becomes U+FFFD.
package jsontext

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/decode"
)

// MaxDepth is how deep a value that is skipped may nest.
const MaxDepth = 64

// Reader goes over a document once. Its methods begin at the first byte of what they read, or at white space
// before it, and end behind it. Their errors are *decode.Error with "offset N", in bytes from the beginning of
// the document, for a place; after one a Reader is of no more use.
type Reader struct {
	Data []byte
	Pos  int // offset in Data of what is read next

	scratch []byte // strings that had escapes; emptied at every member and element
}

// Reset begins a document, and skips the byte order mark that may stand before it.
func (r *Reader) Reset(data []byte) {
	r.Data, r.Pos, r.scratch = data, 0, decode.KeepScratch(r.scratch)
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		r.Pos = len("\ufeff")
	}
}

// Peek skips white space and returns the byte after it, or 0 at the end.
func (r *Reader) Peek() byte {
	for r.Pos < len(r.Data) {
		c := r.Data[r.Pos]
		if c > ' ' || c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
		r.Pos++
	}
	return 0
}

// Open goes into an object or an array, whose first byte is bracket. where and want are for the error if there
// is something else.
func (r *Reader) Open(bracket byte, where, want string) error {
	if r.Peek() != bracket {
		return r.Mismatch(where, want)
	}
	r.Pos++
	return nil
}

// End checks that nothing follows but white space.
func (r *Reader) End() error {
	r.Peek()
	if r.Pos < len(r.Data) {
		return r.Unexpected("the end of the document")
	}
	return nil
}

// Member goes to the value of an object's next member. more is false if the object ended instead. key is valid
// until the next call of Member or Element.
func (r *Reader) Member(first bool) (key []byte, more bool, err error) {
	switch c := r.Peek(); {
	case c == '}':
		r.Pos++
		return nil, false, nil
	case first:
	case c == ',':
		r.Pos++
	default:
		return nil, false, r.Unexpected("',' or '}'")
	}
	if r.Peek() != '"' {
		if first {
			return nil, false, r.Unexpected("a key or '}'")
		}
		return nil, false, r.Unexpected("a key")
	}
	r.scratch = r.scratch[:0]
	if key, err = r.String(); err != nil {
		return nil, false, err
	}
	if r.Peek() != ':' {
		return nil, false, r.Unexpected("':'")
	}
	r.Pos++
	return key, true, nil
}

// Element goes to an array's next element. more is false if the array ended instead.
func (r *Reader) Element(first bool) (more bool, err error) {
	r.scratch = r.scratch[:0]
	switch c := r.Peek(); {
	case c == ']':
		r.Pos++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		r.Pos++
		return true, nil
	}
	return false, r.Unexpected("',' or ']'")
}

// String reads a string, after Peek has returned its opening quote. The result is part of the document, or of a
// buffer that is valid until the next call of Member or Element.
func (r *Reader) String() ([]byte, error) {
	plain, escape, err := r.plain()
	if err != nil || escape < 0 {
		return plain, err
	}
	from := len(r.scratch)
	r.scratch = append(r.scratch, plain...)
	r.scratch, err = r.unescape(r.scratch, escape)
	return r.scratch[from:], err
}

// AppendString appends a string to dst, after Peek has returned its opening quote.
func (r *Reader) AppendString(dst []byte) ([]byte, error) {
	plain, escape, err := r.plain()
	dst = append(dst, plain...)
	if err != nil || escape < 0 {
		return dst, err
	}
	return r.unescape(dst, escape)
}

// plain reads a string to its first escape, and returns where that is; or to its end, and returns -1.
func (r *Reader) plain() (text []byte, escape int, err error) {
	start := r.Pos + 1
	rest := r.Data[start:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return nil, -1, r.unterminated()
	}
	if escape = bytes.IndexByte(rest[:end], '\\'); escape >= 0 {
		return rest[:escape], start + escape, nil
	}
	r.Pos = start + end + 1
	return rest[:end], -1, nil
}

// unescape appends to dst what stands between Data[i] and the end of the string.
func (r *Reader) unescape(dst []byte, i int) ([]byte, error) {
	src := r.Data
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
			return dst, r.unterminated()
		}
		if src[i] == '"' {
			r.Pos = i + 1
			return dst, nil
		}
		if i+1 == len(src) {
			return dst, r.unterminated()
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
			char, ok := hex4(src[i+2:])
			if !ok {
				return dst, r.badEscape(i, 6)
			}
			i += 6
			if utf16.IsSurrogate(char) {
				pair := rune(utf8.RuneError)
				if i+1 < len(src) && src[i] == '\\' && src[i+1] == 'u' {
					if low, ok := hex4(src[i+2:]); ok {
						pair = utf16.DecodeRune(char, low)
					}
				}
				if char = pair; char != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, char)
			continue
		default:
			return dst, r.badEscape(i, 2)
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

// Skip passes over a value of any kind, and checks it.
func (r *Reader) Skip() error { return r.skip(0) }

// Raw is Skip, and returns the value as it stands in the document.
func (r *Reader) Raw() ([]byte, error) {
	r.Peek()
	start := r.Pos
	err := r.skip(0)
	return r.Data[start:r.Pos], err
}

// skip is Skip, depth levels below the value that is skipped.
func (r *Reader) skip(depth int) error {
	c := r.Peek()
	switch {
	case c == '"':
		_, err := r.String()
		return err
	case c == '-' || '0' <= c && c <= '9':
		_, _, err := r.Number()
		return err
	case c == 't':
		return r.Literal("true")
	case c == 'f':
		return r.Literal("false")
	case c == 'n':
		return r.Literal("null")
	case c != '{' && c != '[':
		return r.Unexpected("a value")
	case depth == MaxDepth:
		return r.syntax(r.Pos, fmt.Sprintf("nested deeper than %d", MaxDepth))
	}
	r.Pos++
	for first := true; ; first = false {
		var more bool
		var err error
		if c == '{' {
			_, more, err = r.Member(first)
		} else {
			more, err = r.Element(first)
		}
		if err != nil || !more {
			return err
		}
		if err := r.skip(depth + 1); err != nil {
			return err
		}
	}
}

// Number reads a number, after Peek has returned its first byte. It returns it as it stands in the document, and
// tells whether it has neither fraction nor exponent.
func (r *Reader) Number() (text []byte, integer bool, err error) {
	start := r.Pos
	if r.Data[r.Pos] == '-' {
		r.Pos++
	}
	if r.Pos < len(r.Data) && r.Data[r.Pos] == '0' {
		r.Pos++
	} else if err := r.digits(); err != nil {
		return nil, false, err
	}
	integer = true
	if r.Pos < len(r.Data) && r.Data[r.Pos] == '.' {
		integer = false
		r.Pos++
		if err := r.digits(); err != nil {
			return nil, false, err
		}
	}
	if r.Pos < len(r.Data) && r.Data[r.Pos]|0x20 == 'e' {
		integer = false
		r.Pos++
		if r.Pos < len(r.Data) && (r.Data[r.Pos] == '+' || r.Data[r.Pos] == '-') {
			r.Pos++
		}
		if err := r.digits(); err != nil {
			return nil, false, err
		}
	}
	return r.Data[start:r.Pos], integer, nil
}

// digits reads one digit or more.
func (r *Reader) digits() error {
	start := r.Pos
	for r.Pos < len(r.Data) && '0' <= r.Data[r.Pos] && r.Data[r.Pos] <= '9' {
		r.Pos++
	}
	if r.Pos == start {
		return r.Unexpected("a digit")
	}
	return nil
}

// Literal reads true, false or null.
func (r *Reader) Literal(word string) error {
	for i := range len(word) {
		if r.Pos == len(r.Data) || r.Data[r.Pos] != word[i] {
			return r.Unexpected(word)
		}
		r.Pos++
	}
	return nil
}

func (r *Reader) syntax(offset int, reason string) error {
	return &decode.Error{Where: fmt.Sprintf("offset %d", offset), Reason: reason}
}

// Mismatch is the error for a value at Pos that is not of the kind that it has to be.
func (r *Reader) Mismatch(where, want string) error {
	kind := ""
	switch c := r.Peek(); {
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
		return r.Unexpected(want)
	}
	return &decode.Error{Where: where, Reason: "want " + want + ", got " + kind}
}

// Unexpected is the error for a byte at Pos that can't stand there.
func (r *Reader) Unexpected(want string) error {
	if r.Pos == len(r.Data) {
		return r.syntax(r.Pos, "want "+want+", got the end")
	}
	_, size := utf8.DecodeRune(r.Data[r.Pos:])
	return r.syntax(r.Pos, fmt.Sprintf("want %s, got %q", want, r.Data[r.Pos:r.Pos+size]))
}

// unterminated is the error for a document that ends inside a string.
func (r *Reader) unterminated() error {
	return r.syntax(len(r.Data), fmt.Sprintf("the string that begins at offset %d has no end", r.Pos))
}

// badEscape is the error for the escape at i, of which up to size bytes are shown.
func (r *Reader) badEscape(i, size int) error {
	return r.syntax(i, fmt.Sprintf("bad escape %q", r.Data[i:min(i+size, len(r.Data))]))
}
