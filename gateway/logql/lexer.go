package logql

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// token is a word of a query. Which of the fields beside kind and at count depends on its kind.
type token struct {
	kind     kind
	at       int           // byte of the query where it begins
	text     string        // as it is written; of what is bad, why
	value    string        // of a string, without quotes and escapes
	number   float64       // of a number
	duration time.Duration // of a duration
	size     uint64        // of a size, in bytes
}

type kind uint8

const (
	end        kind = iota // of the query
	bad                    // what no word of the language begins with
	symbol                 // operators, parentheses and the like, told apart by their text
	identifier             // names; which of them are keywords depends on where they stand
	str                    // "…" or `…`
	number                 // 1, .5, 2e3
	duration               // 1h30m
	size                   // 20MB
	flag                   // --strict
)

// String is how Loki calls it in errors.
func (t token) String() string {
	switch t.kind {
	case end:
		return "end of input"
	case identifier:
		return "IDENTIFIER (" + shorten(t.text) + ")"
	case str:
		return "STRING (" + shorten(t.text) + ")"
	case number:
		return "NUMBER (" + shorten(t.text) + ")"
	case duration:
		return "DURATION (" + shorten(t.text) + ")"
	case size:
		return "BYTES (" + shorten(t.text) + ")"
	default:
		return shorten(t.text)
	}
}

// symbols are what is made of other characters than letters and digits; where one begins like another, the longer one comes first.
var symbols = []string{
	"|=", "|~", "|>", "|", "!=", "!~", "!>", "==", "=~", "=", ">=", ">", "<=", "<",
	"{", "}", "(", ")", "[", "]", ",", "+", "-", "*", "/", "%", "^",
}

// lexer cuts a query into words. It is small, and a copy of it goes on from where it stands.
type lexer struct {
	src string
	pos int // byte behind the last token
}

// next is the word that follows. Behind the last one, and behind what is bad, it is the end for ever.
func (l *lexer) next() token {
	l.skip()
	at, rest := l.pos, l.src[l.pos:]
	t := token{at: at}
	switch {
	case rest == "":
		return t
	case isIdentifierByte(rest[0], true):
		t.kind, t.text = identifier, rest[:span(rest, func(c byte) bool { return isIdentifierByte(c, false) })]
	case rest[0] == '"' || rest[0] == '`':
		l.string(&t)
	case isDigit(rest[0]) || rest[0] == '.' && len(rest) > 1 && isDigit(rest[1]):
		l.quantity(&t)
	case len(rest) > 2 && rest[:2] == "--" && isIdentifierByte(rest[2], true):
		t.kind, t.text = flag, rest[:span(rest, func(c byte) bool { return c == '-' || isIdentifierByte(c, false) })]
	default:
		l.symbol(&t)
	}
	l.pos = at + len(t.text)
	if t.kind == bad {
		l.pos = len(l.src)
	}
	return t
}

// skip goes over spaces and comments.
func (l *lexer) skip() {
	for l.pos < len(l.src) {
		switch l.src[l.pos] {
		case ' ', '\t', '\r', '\n':
			l.pos++
		case '#':
			if n := strings.IndexByte(l.src[l.pos:], '\n'); n >= 0 {
				l.pos += n
			} else {
				l.pos = len(l.src)
			}
		default:
			return
		}
	}
}

func (l *lexer) symbol(t *token) {
	rest := l.src[t.at:]
	for _, s := range symbols {
		if strings.HasPrefix(rest, s) {
			t.kind, t.text = symbol, s
			return
		}
	}
	r, _ := utf8.DecodeRuneInString(rest)
	t.kind, t.text = bad, "syntax error: unexpected character "+strconv.QuoteRune(r)
	if r == '\'' {
		t.text = "syntax error: unexpected ': a string is in double quotes or backquotes"
	}
}

func (l *lexer) string(t *token) {
	rest := l.src[t.at:]
	length := 1
	for ; length < len(rest) && rest[length] != rest[0]; length++ {
		if rest[0] == '"' && rest[length] == '\\' {
			length++
		}
		if rest[0] == '"' && length < len(rest) && rest[length] == '\n' {
			break
		}
	}
	if length >= len(rest) || rest[length] != rest[0] {
		t.kind, t.text = bad, "literal not terminated: the string that begins here has no end"
		return
	}
	text := rest[:length+1]
	value, err := strconv.Unquote(text)
	if err != nil {
		t.kind, t.text = bad, "invalid string "+shorten(text)+": a backslash that is no escape is written twice, or the string in backquotes"
		return
	}
	t.kind, t.text, t.value = str, text, value
}

// quantity reads what begins with a digit: a number, a duration or a size.
func (l *lexer) quantity(t *token) {
	t.text = l.src[t.at : t.at+quantityLength(l.src[t.at:])]
	var ok bool
	if t.number, ok = parseNumber(t.text); ok {
		t.kind = number
	} else if t.duration, ok = parseDuration(t.text); ok {
		t.kind = duration
	} else if t.size, ok = parseSize(t.text); ok {
		t.kind = size
	} else {
		t.kind, t.text = bad, "syntax error: "+shorten(t.text)+" is no number, no duration such as 1h30m and no size such as 20MB, or too large a one"
	}
}

// quantityLength is the number of bytes up to what can't belong to a number or a unit.
func quantityLength(s string) int {
	n := 0
	for n < len(s) {
		c := s[n]
		switch {
		case isIdentifierByte(c, false) || c == '.':
			n++
		case strings.HasPrefix(s[n:], "µ") || strings.HasPrefix(s[n:], "μ"):
			n += len("µ")
		case (c == '+' || c == '-') && isExponent(s[:n]) && n+1 < len(s) && isDigit(s[n+1]):
			n++
		default:
			return n
		}
	}
	return n
}

// isExponent tells whether s is a number up to the e behind which its exponent has to follow.
func isExponent(s string) bool {
	n := len(s) - 1
	return n > 0 && (s[n] == 'e' || s[n] == 'E') && span(s, func(c byte) bool { return isDigit(c) || c == '.' }) == n
}

// span is the number of bytes that s begins with for which f holds.
func span(s string, f func(byte) bool) int {
	for i := range len(s) {
		if !f(s[i]) {
			return i
		}
	}
	return len(s)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
