package logql

import "fmt"

// PatternPart is a piece of a pattern: text that stands there, or a capture of whatever stands there.
type PatternPart struct {
	Literal   string // not empty, of text
	Capture   string // name of a capture; "_" of one that is not kept
	IsCapture bool
}

// ParsePattern reads a pattern as | pattern "…" and the line filters |> and !> take it: text with captures <name> and <_>. What is in
// angle brackets but no name is text. Two captures have to have text between them, and no name may stand twice. Text follows no text.
func ParsePattern(pattern string) ([]PatternPart, error) {
	var parts []PatternPart
	names := map[string]bool{}
	literal := 0 // where text begins
	for i := 0; i < len(pattern); {
		name, ok := captureAt(pattern[i:])
		if !ok {
			i++
			continue
		}
		if i > literal {
			parts = append(parts, PatternPart{Literal: pattern[literal:i]})
		} else if len(parts) > 0 {
			return nil, fmt.Errorf("found consecutive capture '<%s><%s>': there has to be text between two",
				shorten(parts[len(parts)-1].Capture), shorten(name))
		}
		if name != "_" && names[name] {
			return nil, fmt.Errorf("duplicate capture name (%s)", shorten(name))
		}
		names[name] = true
		parts = append(parts, PatternPart{Capture: name, IsCapture: true})
		i += len(name) + len("<>")
		literal = i
	}
	if literal < len(pattern) {
		parts = append(parts, PatternPart{Literal: pattern[literal:]})
	}
	return parts, nil
}

// captureAt is the name of the capture that s begins with.
func captureAt(s string) (name string, ok bool) {
	if s[0] != '<' {
		return "", false
	}
	end := 1
	for end < len(s) && isIdentifierByte(s[end], end == 1) {
		end++
	}
	return s[1:end], end > 1 && end < len(s) && s[end] == '>'
}

// isIdentifier tells whether s can be the name of a label.
func isIdentifier(s string) bool {
	for i := range len(s) {
		if !isIdentifierByte(s[i], i == 0) {
			return false
		}
	}
	return s != ""
}

func isIdentifierByte(c byte, first bool) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || !first && '0' <= c && c <= '9'
}
