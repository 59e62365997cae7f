package loki

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/shared/logs"
)

// ParseLabels reads the labels of a stream as the protobuf push writes them, {app="api", level="error"}: a
// PromQL selector of which only = is allowed. As in Prometheus, values are strings in double or single
// quotes with the escapes of Go, or in backticks with none; names may be quoted too, but must be label names
// all the same (logs.ValidLabelName); white space may stand between any two tokens, and one comma after the
// last label. Not taken over are a metric name before the braces or in them, and comments.
//
// Labels come in the order in which they were written, and their strings may share the memory of s. Repeated
// names, empty values and values that are not UTF-8 pass: they are logs.Canonical's to judge. Errors give the
// offset in s, in bytes from 0; no label at all is logs.ErrNoLabels, and more than 1024 are too many.
// https://prometheus.io/docs/prometheus/latest/querying/basics/#time-series-selectors
func ParseLabels(s string) ([]logs.Label, error) {
	return appendLabels(nil, s)
}

// appendLabels is ParseLabels into dst, which is empty.
func appendLabels(dst []logs.Label, s string) ([]logs.Label, error) {
	i := skipSpace(s, 0)
	if i == len(s) {
		return dst, logs.ErrNoLabels
	}
	if s[i] != '{' {
		return dst, labelsWant(s, i, "'{'")
	}
	i = skipSpace(s, i+1)
	for i == len(s) || s[i] != '}' {
		name, at, err := "", i, error(nil)
		switch {
		case i < len(s) && isQuote(s[i]):
			if name, i, err = quoted(s, i); err != nil {
				return dst, err
			}
			if !logs.ValidLabelName(name) {
				return dst, fmt.Errorf("offset %d: label name %q does not match [a-zA-Z_][a-zA-Z0-9_]*", at, logs.Clip(name))
			}
		default:
			for i < len(s) && isNameByte(s[i], i > at) {
				i++
			}
			if name = s[at:i]; name == "" {
				return dst, labelsWant(s, i, "a label name")
			}
		}
		i = skipSpace(s, i)
		if i == len(s) || s[i] != '=' {
			return dst, labelsWant(s, i, "'='")
		}
		if i++; i < len(s) && s[i] == '~' {
			return dst, fmt.Errorf("offset %d: want '=', got \"=~\"", i-1)
		}
		i = skipSpace(s, i)
		if i == len(s) || !isQuote(s[i]) {
			return dst, labelsWant(s, i, "a quoted string")
		}
		var value string
		if value, i, err = quoted(s, i); err != nil {
			return dst, err
		}
		if len(dst) == decode.MaxLabels {
			return dst, fmt.Errorf("offset %d: %w", at, decode.ErrTooManyLabels)
		}
		dst = append(dst, logs.Label{Name: name, Value: value})

		i = skipSpace(s, i)
		if i < len(s) && s[i] == ',' {
			i = skipSpace(s, i+1)
		} else if i == len(s) || s[i] != '}' {
			return dst, labelsWant(s, i, "',' or '}'")
		}
	}
	if i = skipSpace(s, i+1); i < len(s) {
		return dst, labelsWant(s, i, "nothing after '}'")
	}
	if len(dst) == 0 {
		return dst, logs.ErrNoLabels
	}
	return dst, nil
}

// quoted reads the string whose opening quote is s[i]; next is behind its closing one.
func quoted(s string, i int) (value string, next int, err error) {
	quote, start := s[i], i+1
	for j := start; j < len(s); j++ {
		switch c := s[j]; {
		case c == quote:
			return s[start:j], j + 1, nil
		case c == '\\' && quote != '`':
			return unquote(s, i, j)
		case c == '\n' && quote != '`':
			return "", 0, fmt.Errorf("offset %d: a new line in a quoted string", j)
		}
	}
	return "", 0, fmt.Errorf("offset %d: the string has no end", i)
}

// unquote goes on where quoted met the first backslash, s[j].
func unquote(s string, i, j int) (value string, next int, err error) {
	quote := s[i]
	buf := append(make([]byte, 0, 64), s[i+1:j]...)
	for j < len(s) {
		switch c := s[j]; c {
		case quote:
			return string(buf), j + 1, nil
		case '\n':
			return "", 0, fmt.Errorf("offset %d: a new line in a quoted string", j)
		case '\\':
			r, multibyte, rest, err := strconv.UnquoteChar(s[j:], quote)
			if err != nil {
				_, size := utf8.DecodeRuneInString(s[min(j+1, len(s)):])
				return "", 0, fmt.Errorf("offset %d: bad escape %q", j, s[j:j+1+size])
			}
			if multibyte {
				buf = utf8.AppendRune(buf, r)
			} else {
				buf = append(buf, byte(r))
			}
			j = len(s) - len(rest)
		default:
			buf = append(buf, c)
			j++
		}
	}
	return "", 0, fmt.Errorf("offset %d: the string has no end", i)
}

func labelsWant(s string, i int, want string) error {
	if i == len(s) {
		return fmt.Errorf("offset %d: want %s, got the end", i, want)
	}
	_, size := utf8.DecodeRuneInString(s[i:])
	return fmt.Errorf("offset %d: want %s, got %q", i, want, s[i:i+size])
}

func skipSpace(s string, i int) int {
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func isQuote(c byte) bool { return c == '"' || c == '\'' || c == '`' }

func isNameByte(c byte, digits bool) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || digits && '0' <= c && c <= '9'
}
