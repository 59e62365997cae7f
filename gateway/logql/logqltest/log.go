package logqltest

import (
	"math/rand/v2"
	"regexp"

	"github.com/casteloig/logthra/gateway/logql"
)

// Log makes a log query with up to 4 stages.
func (v *Vocabulary) Log(r *rand.Rand) *logql.LogExpr { return maker{v, r}.log(4) }

func (m maker) log(most int) *logql.LogExpr {
	e := &logql.LogExpr{Matchers: m.matchers()}
	for range m.IntN(most + 1) {
		e.Stages = m.add(e.Stages, m.stage())
	}
	return e
}

// add appends a stage, unless it would be read as a part of the one before: | drop a != "x".
func (m maker) add(stages []logql.Stage, s logql.Stage) []logql.Stage {
	f, ok := s.(*logql.LineFilter)
	if ok && len(stages) > 0 && (f.Op == logql.LineNotContains || f.Op == logql.LineNotMatches) {
		var last []logql.LabelMatch
		switch s := stages[len(stages)-1].(type) {
		case *logql.Drop:
			last = s.Labels
		case *logql.Keep:
			last = s.Labels
		}
		if len(last) > 0 && last[len(last)-1].Matcher == nil {
			return stages
		}
	}
	return append(stages, s)
}

// matchers are some of which one selects streams that have a label.
func (m maker) matchers() []logql.Matcher {
	var list []logql.Matcher
	for _, name := range names(m, m.Labels, 3) {
		list = append(list, m.match(name, m.Labels[name]))
	}
	var first string
	for first == "" {
		name := key(m, m.Labels)
		first = one(m, m.Labels[name])
		list[0] = logql.Matcher{Name: name, Value: first}
	}
	switch {
	case m.chance(30):
		list[0].Op, list[0].Value = logql.Regexp, ".+"
	case m.chance(30):
		list[0].Op, list[0].Value = logql.Regexp, regexp.QuoteMeta(first)+"|"+m.regexp(first)+"."
	}
	m.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// match compares a label with one of its values, or something like it.
func (m maker) match(name string, values []string) logql.Matcher {
	value := one(m, values)
	op := logql.MatchOp(m.IntN(4))
	if op == logql.Regexp || op == logql.NotRegexp {
		value = m.regexp(value)
	}
	return logql.Matcher{Name: name, Op: op, Value: value}
}

// regexp is a regular expression that matches a value, or nearly does.
func (m maker) regexp(value string) string {
	quoted := regexp.QuoteMeta(value)
	switch m.IntN(6) {
	case 0:
		return ".*" + quoted + ".*"
	case 1:
		return quoted + "|" + regexp.QuoteMeta(one(m, m.Words))
	case 2:
		return "(?i)" + quoted
	case 3:
		return "[a-z]+"
	case 4:
		return quoted + `\S*`
	default:
		return quoted
	}
}

func (m maker) stage() logql.Stage {
	switch n := m.IntN(100); {
	case n < 30:
		return m.lineFilter()
	case n < 50:
		return m.parser()
	case n < 80:
		return &logql.LabelFilter{Predicate: m.predicate(2)}
	case n < 85:
		return &logql.LineFormat{Template: one(m, m.Templates)}
	case n < 90:
		return m.labelFormat()
	case n < 92:
		return &logql.Decolorize{}
	case n < 96:
		return &logql.Drop{Labels: m.labelMatches()}
	default:
		return &logql.Keep{Labels: m.labelMatches()}
	}
}

func (m maker) lineFilter() logql.Stage {
	f := &logql.LineFilter{Op: logql.LineOp(m.IntN(6))}
	for range 1 + m.IntN(3)*m.IntN(2) {
		word := one(m, m.Words)
		a := logql.LinePattern{Value: word}
		switch f.Op {
		case logql.LineContains, logql.LineNotContains:
			if m.chance(10) {
				a = logql.LinePattern{IP: true, Value: one(m, m.Addresses[key(m, m.Addresses)])}
			}
		case logql.LineMatches, logql.LineNotMatches:
			a.Value = m.regexp(word)
		case logql.LinePatternIs, logql.LinePatternNot:
			a.Value = one(m, []string{"<_>" + word + "<_>", word + "<_>", "<_>" + word, word, "<_>" + word + "<_>" + one(m, m.Words) + "<_>"})
		}
		f.Alternatives = append(f.Alternatives, a)
	}
	return f
}

func (m maker) parser() logql.Stage {
	switch n := m.IntN(100); {
	case n < 40:
		return &logql.JSON{Labels: m.extractions()}
	case n < 70:
		return &logql.Logfmt{Strict: m.chance(20), KeepEmpty: m.chance(20), Labels: m.extractions()}
	case n < 80:
		return &logql.RegexpParser{Expression: one(m, m.Regexps)}
	case n < 90:
		return &logql.PatternParser{Pattern: one(m, m.Patterns)}
	default:
		return &logql.Unpack{}
	}
}

func (m maker) extractions() []logql.Extraction {
	if m.chance(60) {
		return nil
	}
	var list []logql.Extraction
	for _, name := range names(m, m.Paths, 3) {
		list = append(list, logql.Extraction{Label: name, Expression: m.Paths[name]})
	}
	return list
}

// predicate is a comparison, or several of them with up to so many levels of junctions.
func (m maker) predicate(depth int) logql.Predicate {
	if depth > 0 && m.chance(35) {
		left, right := m.predicate(depth-1), m.predicate(depth-1)
		if m.chance(50) {
			return &logql.And{Left: left, Right: right}
		}
		return &logql.Or{Left: left, Right: right}
	}
	compare := logql.CompareOp(m.IntN(6))
	switch n := m.IntN(100); {
	case n < 30:
		name := key(m, m.Texts)
		return &logql.StringPredicate{Matcher: m.match(name, m.Texts[name])}
	case n < 45:
		name := key(m, m.Labels)
		return &logql.StringPredicate{Matcher: m.match(name, m.Labels[name])}
	case n < 50:
		return &logql.StringPredicate{Matcher: logql.Matcher{Name: "__error__", Op: logql.MatchOp(m.IntN(2))}}
	case n < 70:
		name := key(m, m.Numbers)
		return &logql.NumberPredicate{Name: name, Op: compare, Value: one(m, m.Numbers[name])}
	case n < 82:
		name := key(m, m.Durations)
		return &logql.DurationPredicate{Name: name, Op: compare, Value: one(m, m.Durations[name])}
	case n < 92:
		name := key(m, m.Sizes)
		return &logql.BytesPredicate{Name: name, Op: compare, Value: one(m, m.Sizes[name])}
	default:
		name := key(m, m.Addresses)
		return &logql.IPPredicate{Name: name, Negate: m.chance(50), Value: one(m, m.Addresses[name])}
	}
}

func (m maker) labelFormat() logql.Stage {
	f := &logql.LabelFormat{}
	for _, name := range names(m, m.Texts, 2) {
		l := logql.LabelFormatting{Label: name}
		if m.chance(50) {
			l.IsTemplate, l.Template = true, one(m, m.Templates)
		} else {
			l.Source = key(m, m.Numbers)
		}
		f.Labels = append(f.Labels, l)
	}
	return f
}

func (m maker) labelMatches() []logql.LabelMatch {
	var list []logql.LabelMatch
	for _, values := range []map[string][]string{m.Texts, m.Labels} {
		for _, name := range names(m, values, 2) {
			l := logql.LabelMatch{Name: name}
			if m.chance(40) {
				match := m.match(name, values[name])
				l.Matcher = &match
			}
			list = append(list, l)
		}
	}
	return list[:1+m.IntN(len(list))]
}
