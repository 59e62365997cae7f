package pipeline

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/casteloig/logthra/gateway/logql"
)

// lineFilter keeps lines by what is in them. Regular expressions are Go's, without flags: . is no line feed, and ^ is the beginning of
// the line that was logged, whatever line feeds are in it.
type lineFilter struct {
	alternatives []lineMatcher
	negate       bool
}

// lineMatcher holds for lines.
type lineMatcher interface{ matches(line []byte) bool }

func newLineFilter(s *logql.LineFilter) (stage, error) {
	f := &lineFilter{negate: s.Op == logql.LineNotContains || s.Op == logql.LineNotMatches || s.Op == logql.LinePatternNot}
	for _, p := range s.Alternatives {
		m, err := newLineMatcher(s.Op, p)
		if err != nil {
			return nil, err
		}
		f.alternatives = append(f.alternatives, m)
	}
	return f, nil
}

func newLineMatcher(op logql.LineOp, p logql.LinePattern) (lineMatcher, error) {
	switch {
	case p.IP:
		return newIPMatcher(p.Value)
	case op == logql.LineMatches || op == logql.LineNotMatches:
		return newLineRegexp(p.Value)
	case op == logql.LinePatternIs || op == logql.LinePatternNot:
		return newLinePattern(p.Value)
	}
	return contains(p.Value), nil
}

func (f *lineFilter) process(e *entry) bool {
	for _, m := range f.alternatives {
		if m.matches(e.line) {
			return !f.negate
		}
	}
	return f.negate
}

// contains holds for lines with this text in them.
type contains string

func (c contains) matches(line []byte) bool { return strings.Contains(view(line), string(c)) }

// containsAny holds for lines with one of these texts in them.
type containsAny []string

func (c containsAny) matches(line []byte) bool {
	for _, text := range c {
		if strings.Contains(view(line), text) {
			return true
		}
	}
	return false
}

// containsFolded holds for lines with a text of ASCII in them, whatever its case.
type containsFolded struct {
	text string // lower case
	re   *regexp.Regexp
}

func (c *containsFolded) matches(line []byte) bool {
	if containsFold(line, c.text) {
		return true
	}
	// The Kelvin sign is a k, and the long s an s, if case does not matter.
	return (bytes.IndexByte(line, "\u212a"[0]) >= 0 || bytes.IndexByte(line, "\u017f"[0]) >= 0) && c.re.Match(line)
}

// containsFold tells whether text, which is lower case, is in line, whatever the case of ASCII.
func containsFold(line []byte, text string) bool {
	first := text[0]
	other := first
	if 'a' <= first && first <= 'z' {
		other -= 'a' - 'A'
	}
	for i := 0; i+len(text) <= len(line); i++ {
		if c := line[i]; c != first && c != other {
			continue
		}
		j := 1
		for j < len(text) && lower(line[i+j]) == text[j] {
			j++
		}
		if j == len(text) {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// lineRegexp holds for lines with a match.
type lineRegexp struct {
	required []byte // what is in every line that matches
	re       *regexp.Regexp
}

func newLineRegexp(expression string) (lineMatcher, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, err
	}
	a := analyze(expression, 0)
	switch {
	case a.foldsASCII:
		return &containsFolded{a.literals[0], re}, nil
	case slices.Contains(a.literals, ""):
		return contains(""), nil
	case a.literals != nil:
		return containsAny(a.literals), nil
	}
	return &lineRegexp{a.required, re}, nil
}

func (r *lineRegexp) matches(line []byte) bool {
	return bytes.Contains(line, r.required) && r.re.Match(line)
}

// linePattern holds for lines that have the texts of a pattern one behind the other, each where it is found first behind the one before it. <_> between them, before
// the first or behind the last stands for one byte or more. What ends with a text ends the line with it; what begins with one may begin anywhere. The empty
// pattern holds for the empty line.
type linePattern []logql.PatternPart

func newLinePattern(pattern string) (lineMatcher, error) {
	parts, err := logql.ParsePattern(pattern)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if p.IsCapture && p.Capture != "_" {
			return nil, fmt.Errorf("named captures are not allowed: found '<%s>'", p.Capture)
		}
	}
	return linePattern(parts), nil
}

func (p linePattern) matches(line []byte) bool {
	rest, isBehindCapture := view(line), false
	for i, part := range p {
		if part.IsCapture {
			isBehindCapture = true
			continue
		}
		at := strings.Index(rest, part.Literal)
		if at < 0 || isBehindCapture && at == 0 || i > 0 && !isBehindCapture && at > 0 {
			return false
		}
		rest, isBehindCapture = rest[at+len(part.Literal):], false
	}
	return isBehindCapture == (rest != "")
}
