package pipeline

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// stringMatcher holds for strings: of labels, streams and matchers of drop and keep. Regular expressions match the whole string, and . any
// character.
type stringMatcher struct {
	negate   bool
	isRegexp bool
	value    string   // if not isRegexp
	literals []string // all that the expression matches; nil: not known
	prefix   string   // of all that it matches,
	rest     restKind // and what may follow
	re       *regexp.Regexp
}

// restKind is what an expression allows behind its prefix.
type restKind uint8

const (
	otherRest    restKind = iota // to be found out by the expression
	anyRest                      // .*
	nonEmptyRest                 // .+
)

func newStringMatcher(op logql.MatchOp, value string) (*stringMatcher, error) {
	m := &stringMatcher{value: value, negate: op == logql.NotEqual || op == logql.NotRegexp, isRegexp: op == logql.Regexp || op == logql.NotRegexp}
	if !m.isRegexp {
		return m, nil
	}
	parsed, err := syntax.Parse(value, syntax.Perl|syntax.DotNL)
	if err != nil {
		return nil, err
	}
	if m.re, err = regexp.Compile(`^(?s:` + value + `)$`); err != nil {
		return nil, err
	}
	parsed = parsed.Simplify()
	if all, ok := literals(parsed); ok {
		m.literals = all
		return m, nil
	}
	m.prefix, m.rest = prefixOf(parsed)
	return m, nil
}

// prefixOf finds the text that an expression begins with, and what it allows behind that.
func prefixOf(re *syntax.Regexp) (prefix string, rest restKind) {
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	if text, ok := literals(parts[0]); ok && len(text) == 1 {
		prefix, parts = text[0], parts[1:]
	}
	if len(parts) == 1 && len(parts[0].Sub) == 1 && parts[0].Sub[0].Op == syntax.OpAnyChar {
		switch parts[0].Op {
		case syntax.OpStar:
			return prefix, anyRest
		case syntax.OpPlus:
			return prefix, nonEmptyRest
		}
	}
	return prefix, otherRest
}

func (m *stringMatcher) matches(s string) bool { return m.holds(s) != m.negate }

func (m *stringMatcher) holds(s string) bool {
	switch {
	case !m.isRegexp:
		return s == m.value
	case m.literals != nil:
		return slices.Contains(m.literals, s)
	case !strings.HasPrefix(s, m.prefix):
		return false
	case m.rest == anyRest:
		return true
	case m.rest == nonEmptyRest:
		return len(s) > len(m.prefix)
	}
	return m.re.MatchString(s)
}

// Selector tells which streams a query is about. It is safe for concurrent use.
type Selector struct {
	names    []string
	matchers []*stringMatcher
}

// NewSelector compiles matchers.
func NewSelector(matchers []logql.Matcher) (*Selector, error) {
	s := &Selector{}
	for _, m := range matchers {
		compiled, err := newStringMatcher(m.Op, m.Value)
		if err != nil {
			return nil, err
		}
		s.names, s.matchers = append(s.names, m.Name), append(s.matchers, compiled)
	}
	return s, nil
}

// Matches tells whether all matchers hold for the labels of a stream, which are sorted by name.
func (s *Selector) Matches(labels []logs.Label) bool {
	for i, m := range s.matchers {
		value := ""
		if at, ok := slices.BinarySearchFunc(labels, s.names[i], func(l logs.Label, name string) int { return strings.Compare(l.Name, name) }); ok {
			value = labels[at].Value
		}
		if !m.matches(value) {
			return false
		}
	}
	return true
}
