package logs

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// MatchOp is how a string is compared.
type MatchOp uint8

// How strings are compared.
const (
	MatchEqual MatchOp = iota
	MatchNotEqual
	MatchRegexp
	MatchNotRegexp
)

// Matcher holds for a label with a value. One that is not there has the empty value. Regular expressions are RE2's, match the
// whole value, and their dot matches a new line, too.
type Matcher struct {
	Name  string
	Op    MatchOp
	Value string
}

// Selector tells which streams matchers select. It is safe for concurrent use.
type Selector struct{ matchers []compiled }

type compiled struct {
	Matcher

	expression *regexp.Regexp
}

// NewSelector compiles matchers. The error says which regular expression can't be compiled.
func NewSelector(matchers []Matcher) (*Selector, error) {
	s := &Selector{matchers: make([]compiled, len(matchers))}
	for i, m := range matchers {
		s.matchers[i].Matcher = m
		switch m.Op {
		case MatchEqual, MatchNotEqual:
		case MatchRegexp, MatchNotRegexp:
			var err error
			if s.matchers[i].expression, err = regexp.Compile("^(?s:" + m.Value + ")$"); err != nil {
				return nil, fmt.Errorf("the matcher of label %q: %w", Clip(m.Name), err)
			}
		default:
			return nil, fmt.Errorf("the matcher of label %q has an unknown operator, %d", Clip(m.Name), m.Op)
		}
	}
	return s, nil
}

// Matches tells whether all matchers hold for the labels of a stream, which are sorted by name.
func (s *Selector) Matches(labels []Label) bool {
	for i := range s.matchers {
		m := &s.matchers[i]
		value := ""
		if at, ok := slices.BinarySearchFunc(labels, m.Name, func(l Label, name string) int { return cmp.Compare(l.Name, name) }); ok {
			value = labels[at].Value
		}
		var holds bool
		if m.expression != nil {
			holds = m.expression.MatchString(value)
		} else {
			holds = value == m.Value
		}
		if holds == (m.Op == MatchNotEqual || m.Op == MatchNotRegexp) {
			return false
		}
	}
	return true
}

// ParseLabels reads what Canonical wrote. The labels, which point into it where they can, are sorted by name.
func ParseLabels(canonical string) ([]Label, error) {
	if strings.IndexByte(canonical, '\\') >= 0 {
		return parseEscaped(canonical)
	}
	labels := make([]Label, 0, strings.Count(canonical, `":"`))
	rest, more := strings.CutPrefix(canonical, "{")
	if !more {
		return parseEscaped(canonical)
	}
	for more {
		var name, value string
		var ok bool
		if rest, ok = strings.CutPrefix(rest, `"`); ok {
			if name, rest, ok = strings.Cut(rest, `":"`); ok {
				value, rest, ok = strings.Cut(rest, `"`)
			}
		}
		if !ok {
			return parseEscaped(canonical)
		}
		labels = append(labels, Label{name, value})
		rest, more = strings.CutPrefix(rest, ",")
	}
	if rest != "}" || !slices.IsSortedFunc(labels, byName) {
		return parseEscaped(canonical)
	}
	return labels, nil
}

// parseEscaped reads any JSON object of strings.
func parseEscaped(text string) ([]Label, error) {
	var values map[string]string
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		return nil, fmt.Errorf("labels %q: %w", Clip(text), err)
	}
	labels := make([]Label, 0, len(values))
	for name, value := range values {
		labels = append(labels, Label{name, value})
	}
	slices.SortFunc(labels, byName)
	return labels, nil
}

func byName(a, b Label) int { return strings.Compare(a.Name, b.Name) }
