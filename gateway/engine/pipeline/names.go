package pipeline

import (
	"slices"
	"strings"

	"github.com/casteloig/logthra/gateway/logql"
)

// names are labels that stages use.
type names struct {
	list []string
	all  bool // any label may be used: a template looks at all there are
}

func (n *names) add(name string) {
	if !slices.Contains(n.list, name) {
		n.list = append(n.list, name)
	}
}

func (n *names) ofStages(stages []logql.Stage) {
	for _, s := range stages {
		switch s := s.(type) {
		case *logql.LabelFilter:
			n.ofPredicate(s.Predicate)
		case *logql.LineFormat:
			n.ofTemplate(s.Template)
		case *logql.LabelFormat:
			for _, f := range s.Labels {
				if f.IsTemplate {
					n.ofTemplate(f.Template)
				} else {
					n.add(f.Source)
				}
			}
		case *logql.Drop:
			n.ofMatches(s.Labels)
		case *logql.Keep:
			n.ofMatches(s.Labels)
		}
	}
}

func (n *names) ofMatches(matches []logql.LabelMatch) {
	for _, m := range matches {
		n.add(m.Name)
	}
}

func (n *names) ofPredicate(p logql.Predicate) {
	switch p := p.(type) {
	case *logql.StringPredicate:
		n.add(p.Matcher.Name)
	case *logql.NumberPredicate:
		n.add(p.Name)
	case *logql.DurationPredicate:
		n.add(p.Name)
	case *logql.BytesPredicate:
		n.add(p.Name)
	case *logql.IPPredicate:
		n.add(p.Name)
	case *logql.And:
		n.ofPredicate(p.Left)
		n.ofPredicate(p.Right)
	case *logql.Or:
		n.ofPredicate(p.Left)
		n.ofPredicate(p.Right)
	}
}

// ofTemplate adds what a template uses. One that can't be parsed is refused elsewhere.
func (n *names) ofTemplate(text string) {
	if f, err := newFormatter("names", text); err == nil {
		n.all = n.all || f.usesAll
		for _, field := range f.fields {
			n.add(field)
		}
	}
}

// with is what parsers have to extract if these labels are needed, too.
func (n *names) with(labels []string) needs {
	if n.all {
		return needs{all: true}
	}
	var list []string
	for _, name := range slices.Concat(n.list, labels) {
		// What is needed as app_extracted is app in the line, perhaps.
		list = append(list, name)
		if before, ok := strings.CutSuffix(name, extracted); ok && before != "" {
			list = append(list, before)
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	need := needs{list: list}
	if len(list) > fewNames {
		need.set = make(map[string]struct{}, len(list))
		for _, name := range list {
			need.set[name] = struct{}{}
		}
	}
	return need
}

// fewNames is how many names are looked through one by one.
const fewNames = 8

// needs is which labels parsers have to extract.
type needs struct {
	all  bool
	list []string
	set  map[string]struct{} // of list, if there are many
}

// label tells whether a label is needed.
func (n *needs) label(name string) bool {
	if n.all {
		return true
	}
	if n.set != nil {
		_, ok := n.set[name]
		return ok
	}
	return slices.Contains(n.list, name)
}

// under tells whether a label is needed whose name is prefix, or begins with it and _.
func (n *needs) under(prefix string) bool {
	if n.all || prefix == "" {
		return true
	}
	for _, name := range n.list {
		if strings.HasPrefix(name, prefix) && (len(name) == len(prefix) || name[len(prefix)] == '_') {
			return true
		}
	}
	return false
}

// NeedsLevel tells whether stages name detected_level, so that it has to be found out.
func NeedsLevel(stages []logql.Stage) bool {
	var n names
	n.ofStages(stages)
	return slices.Contains(n.list, LevelLabel)
}

// UnwrapNames are the labels that an unwrap looks at: what Pipeline.Need has to name before it.
func UnwrapNames(u *logql.Unwrap) []string {
	var n names
	n.add(u.Label)
	for _, f := range u.Filters {
		n.ofPredicate(f.Predicate)
	}
	return n.list
}
