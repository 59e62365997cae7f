package logql

import (
	"strconv"
	"strings"
)

// appendQuoted writes a string so that it reads back: in backquotes if that saves escapes, else in double quotes.
func appendQuoted(b []byte, s string) []byte {
	if strings.ContainsAny(s, "\"\\") && strconv.CanBackquote(s) {
		return append(append(append(b, '`'), s...), '`')
	}
	return strconv.AppendQuote(b, s)
}

// quoteShort quotes s for an error, and leaves out most of a long one.
func quoteShort(s string) string { return strconv.Quote(shorten(s)) }

// shorten leaves out most of a long text, and what is not UTF-8.
func shorten(s string) string {
	const most = 100
	s = strings.ToValidUTF8(s, "\ufffd")
	runes := 0
	for i := range s {
		if runes++; runes > most {
			return s[:i] + "…"
		}
	}
	return s
}
