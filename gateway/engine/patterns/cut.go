package patterns

import (
	"bytes"
	"unicode/utf8"
)

// gap stands for a word in a shape. It is no separator, so that it is in no other place of one.
const gap = 0

// class is what a byte means for the cutting of lines.
type class uint8

const (
	isSeparator class = 1 << iota // it is between words
	isDigit
	isHex    // a digit of hexadecimal numbers
	isKey    // it may be in a key
	isBefore // it may stand before a key of logfmt
	isJoint  // it is between words, unless digits are on both sides
)

var classes = func() (all [256]class) {
	for _, set := range []struct {
		bytes string
		class class
	}{
		{" \t\r\n=\"',;:()[]{}|`", isSeparator},
		{"0123456789", isDigit},
		{"0123456789abcdefABCDEF", isHex},
		{"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.", isKey},
		{" \t\r\n,;([{|", isBefore},
		{":,", isJoint},
	} {
		for i := range len(set.bytes) {
			all[set.bytes[i]] |= set.class
		}
	}
	return all
}()

// cut appends the line to the shape, and sets the words that it has.
func (m *Miner) cut(line []byte) {
	m.words = m.words[:0]
	for i := 0; i < len(line); {
		if isBetween(line, i) {
			m.shape = append(m.shape, line[i])
			i++
			continue
		}
		end := i + 1
		for end < len(line) && !isBetween(line, end) {
			end++
		}
		switch {
		case end > maxLine || len(m.words) == maxWords:
			m.shape = append(m.shape, gap)
			m.words = append(m.words, word{text: line[i:], isHidden: true})
			return
		case keyAt(line, i, end):
			m.shape = append(m.shape, line[i:end]...)
		default:
			m.shape = append(m.shape, gap)
			m.words = append(m.words, newWord(line[i:end]))
		}
		i = end
	}
}

// isBetween tells whether a byte of a line is between words. Times and lists of numbers are one word: 12:00:00,123.
func isBetween(line []byte, i int) bool {
	c := classes[line[i]]
	if c&isJoint != 0 && i > 0 && i+1 < len(line) && classes[line[i-1]]&classes[line[i+1]]&isDigit != 0 {
		return false
	}
	return c&isSeparator != 0
}

// keyAt tells whether line[start:end] is the key of a value: that of logfmt (key=value) or JSON ("key":). Padding of base64 is
// no sign of a key.
func keyAt(line []byte, start, end int) bool {
	const longest = 48
	if end+1 >= len(line) || end-start > longest || classes[line[start]]&isDigit != 0 {
		return false
	}
	for _, c := range line[start:end] {
		if classes[c]&isKey == 0 {
			return false
		}
	}
	if line[end] == '=' {
		return (start == 0 || classes[line[start-1]]&isBefore != 0) && line[end+1] != '=' && line[end+1] != ' '
	}
	return start > 0 && line[start-1] == '"' && line[end] == '"' && line[end+1] == ':'
}

// newWord looks at the bytes of a word. What a pattern can't have in it, or what no two lines have in common but by chance, is hidden: what looks like
// a capture, what is not UTF-8, dates, times, and long numbers and ids.
func newWord(text []byte) word {
	const longest = 128 // bytes of a word that people gave a name
	digits, hex, colons := 0, 0, 0
	for _, c := range text {
		switch k := classes[c]; {
		case k&isDigit != 0:
			digits++
			hex++
		case k&isHex != 0 || c == '-':
			hex++
		case c == ':':
			colons++
		}
	}
	const id, date = 16, len("2006-01-02")
	return word{
		text:    text,
		isLoose: digits > 0,
		isHidden: len(text) > longest || colons > 1 ||
			digits > 0 && hex == len(text) && len(text) >= id ||
			digits == len(text) && digits >= date ||
			len(text) >= date && text[4] == '-' && text[7] == '-' && digits >= 8 && classes[text[0]]&isDigit != 0 ||
			bytes.IndexByte(text, '<') >= 0 || bytes.IndexByte(text, gap) >= 0 || !utf8.Valid(text),
	}
}

func hasDigit(text string) bool {
	for i := range len(text) {
		if classes[text[i]]&isDigit != 0 {
			return true
		}
	}
	return false
}
