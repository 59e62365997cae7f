package pipeline

import "bytes"

const (
	escape   = 0x1b
	csi8     = "\u009b" // a control sequence's beginning as one character
	maxFinal = '~'
)

// decolorizer is | decolorize: it takes what terminals take for orders out of the line, as ECMA-48 defines it: control sequences, such as those for
// colors, operating system commands, and all other escapes. One that the line ends in stays.
type decolorizer struct{ line []byte }

func (d *decolorizer) process(e *entry) bool {
	if bytes.IndexByte(e.line, escape) < 0 && !bytes.Contains(e.line, []byte(csi8)) {
		return true
	}
	d.line = kept(d.line, maxKeptScratch)
	for i := 0; i < len(e.line); {
		if n := escapeLength(e.line[i:]); n > 0 {
			i += n
			continue
		}
		d.line = append(d.line, e.line[i])
		i++
	}
	e.line = d.line
	return true
}

// escapeLength is the length of the escape that s begins with, or 0 if it is none.
func escapeLength(s []byte) int {
	switch {
	case s[0] == csi8[0] && len(s) > 1 && s[1] == csi8[1]:
		return sequenceLength(s, len(csi8))
	case s[0] != escape || len(s) == 1:
		return 0
	case s[1] == '[':
		return sequenceLength(s, 2)
	case s[1] == ']':
		for i := 2; i < len(s); i++ {
			switch {
			case s[i] == '\a':
				return i + 1
			case s[i] == escape && i+1 < len(s) && s[i+1] == '\\':
				return i + 2
			case s[i] == escape:
				return 0
			}
		}
		return 0
	}
	i := skipRange(s, 1, ' ', '/')
	if i < len(s) && '0' <= s[i] && s[i] <= maxFinal && (i > 1 || s[i] != '[' && s[i] != ']') {
		return i + 1
	}
	return 0
}

// sequenceLength is the length of a control sequence whose parameters begin at s[i], or 0 if it is none.
func sequenceLength(s []byte, i int) int {
	i = skipRange(s, i, '0', '?')
	i = skipRange(s, i, ' ', '/')
	if i < len(s) && '@' <= s[i] && s[i] <= maxFinal {
		return i + 1
	}
	return 0
}

// skipRange is the offset of the first byte from i on that is not from low to high.
func skipRange(s []byte, i int, low, high byte) int {
	for i < len(s) && low <= s[i] && s[i] <= high {
		i++
	}
	return i
}
