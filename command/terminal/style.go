// Package terminal writes what a query found: for people, who look at a terminal, and for what comes behind a pipe.
package terminal

import (
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/casteloig/logthra/command/answer"
)

// defaultWidth is that of what has none, as a file.
const defaultWidth = 80

// Width is how many columns a terminal has.
func Width(file *os.File) int {
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		return width
	}
	return defaultWidth
}

// Colored tells whether colors are wanted in a file: always, never, or, as auto, on a terminal, unless the environment has NO_COLOR
// (https://no-color.org) or a terminal that knows none.
func Colored(file *os.File, when string) bool {
	switch when {
	case "always":
		return true
	case "never":
		return false
	}
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}

// Sequences of ECMA-48 that choose colors.
const (
	reset   = "\x1b[0m"
	bold    = "\x1b[1m"
	dim     = "\x1b[2m"
	red     = "\x1b[31m"
	yellow  = "\x1b[33m"
	cyan    = "\x1b[36m"
	boldRed = "\x1b[1;31m"
)

// colorOf is the color of lines of a level; empty for those that are not to stand out.
func colorOf(level string) string {
	switch strings.ToLower(level) {
	case "critical", "fatal", "panic", "emergency", "alert", "crit", "emerg":
		return boldRed
	case "error", "err":
		return red
	case "warn", "warning":
		return yellow
	case "debug", "trace":
		return dim
	}
	return ""
}

// levelOf is the level of an entry, as the server found it or as a label says.
func levelOf(e *answer.Entry) string {
	if level := e.Metadata.Get("detected_level"); level != "" && level != "unknown" {
		return level
	}
	for _, labels := range []answer.Labels{e.Parsed, e.Metadata, e.Stream} {
		if level := labels.Get("level"); level != "" {
			return level
		}
	}
	return ""
}

// appendPrintable appends a text without what a terminal would obey: control characters other than tabs and, where they are wanted, line feeds are
// written as \x1b is. Colors stay, if those are wanted.
func appendPrintable(dst []byte, text string, colors, lines bool) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == 0xc2 && i+1 < len(text) && text[i+1] >= 0x80 && text[i+1] <= 0x9f: // U+0080 to U+009F, which some terminals obey
			i++
			dst = append(dst, '\\', 'x', hex[text[i]>>4], hex[text[i]&15])
		case c == '\n' && !lines:
			dst = append(dst, '\\', 'n')
		case c >= ' ' && c != 0x7f, c == '\t', c == '\n':
			dst = append(dst, c)
		case c == 0x1b && colors && colorLen(text[i:]) > 0:
			n := colorLen(text[i:])
			dst = append(dst, text[i:i+n]...)
			i += n - 1
		case c == 0x1b && colorLen(text[i:]) > 0: // a color that is not wanted goes without a trace
			i += colorLen(text[i:]) - 1
		default:
			dst = append(dst, '\\', 'x', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// colorLen is how long the sequence is that a text begins with, if that chooses colors: ESC [ digits and semicolons m.
func colorLen(text string) int {
	if !strings.HasPrefix(text, "\x1b[") {
		return 0
	}
	for i := 2; i < len(text); i++ {
		switch c := text[i]; {
		case c == 'm':
			return i + 1
		case (c < '0' || c > '9') && c != ';':
			return 0
		}
	}
	return 0
}
