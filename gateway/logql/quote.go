package logql

import "strconv"

// quoteShort quotes s for an error, and leaves out most of a long one.
func quoteShort(s string) string {
	const most = 100
	runes := 0
	for i := range s {
		if runes++; runes > most {
			return strconv.Quote(s[:i] + "…")
		}
	}
	return strconv.Quote(s)
}
