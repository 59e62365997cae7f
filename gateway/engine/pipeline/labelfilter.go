package pipeline

import (
	"fmt"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/casteloig/logthra/gateway/logql"
)

// labelFilter keeps entries by their labels.
//
// A string matcher takes a label that is missing for an empty one. Numbers, durations and sizes do not hold without the label; a value that
// can't be read holds, and sets __error__ to LabelFilterErr unless there is an error already. ip() does not hold without the label, either, but holds
// for every entry that has an error. Of "and" both sides are always looked at; of "or" the right one only if the left one does not hold: so an error that
// is set on the left is there on the right.
type labelFilter struct{ predicate predicate }

// predicate is a condition on labels. It may set an error.
type predicate interface{ holds(l *Labels) bool }

func newLabelFilter(p logql.Predicate) (*labelFilter, error) {
	compiled, err := newPredicate(p)
	return &labelFilter{compiled}, err
}

func (f *labelFilter) process(e *entry) bool { return f.predicate.holds(e.labels) }

func newPredicate(p logql.Predicate) (predicate, error) {
	switch p := p.(type) {
	case *logql.StringPredicate:
		m, err := newStringMatcher(p.Matcher.Op, p.Matcher.Value)
		return &stringPredicate{p.Matcher.Name, m}, err
	case *logql.NumberPredicate:
		return &quantity[float64]{p.Name, p.Op, p.Value, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }}, nil
	case *logql.DurationPredicate:
		return &quantity[time.Duration]{p.Name, p.Op, p.Value, time.ParseDuration}, nil
	case *logql.BytesPredicate:
		return &quantity[uint64]{p.Name, p.Op, p.Value, humanize.ParseBytes}, nil
	case *logql.IPPredicate:
		m, err := newIPMatcher(p.Value)
		return &ipPredicate{p.Name, p.Negate, m}, err
	case *logql.And:
		left, right, err := newPredicates(p.Left, p.Right)
		return &and{left, right}, err
	case *logql.Or:
		left, right, err := newPredicates(p.Left, p.Right)
		return &or{left, right}, err
	}
	return nil, fmt.Errorf("a predicate of type %T is not known", p)
}

func newPredicates(left, right logql.Predicate) (l, r predicate, err error) {
	if l, err = newPredicate(left); err != nil {
		return nil, nil, err
	}
	r, err = newPredicate(right)
	return l, r, err
}

type stringPredicate struct {
	name    string
	matcher *stringMatcher
}

func (p *stringPredicate) holds(l *Labels) bool { return p.matcher.matches(l.value(p.name)) }

// quantity compares the value of a label, as parse reads it.
type quantity[T float64 | time.Duration | uint64] struct {
	name  string
	op    logql.CompareOp
	value T
	parse func(string) (T, error)
}

func (p *quantity[T]) holds(l *Labels) bool {
	text, ok := l.Get(p.name)
	if !ok {
		return false
	}
	value, err := p.parse(text)
	if err != nil {
		if l.err == "" {
			l.fail(LabelFilterErr, err.Error(), -1)
		}
		return true
	}
	switch p.op {
	case logql.CompareEqual:
		return value == p.value
	case logql.CompareNotEqual:
		return value != p.value
	case logql.CompareGreater:
		return value > p.value
	case logql.CompareGreaterOrEqual:
		return value >= p.value
	case logql.CompareLess:
		return value < p.value
	case logql.CompareLessOrEqual:
		return value <= p.value
	}
	return false
}

type ipPredicate struct {
	name    string
	negate  bool
	matcher *ipMatcher
}

func (p *ipPredicate) holds(l *Labels) bool {
	if l.err != "" {
		return true
	}
	text, ok := l.Get(p.name)
	return ok && p.matcher.contains(text) != p.negate
}

type and struct{ left, right predicate }

func (p *and) holds(l *Labels) bool {
	left := p.left.holds(l)
	return p.right.holds(l) && left
}

type or struct{ left, right predicate }

func (p *or) holds(l *Labels) bool { return p.left.holds(l) || p.right.holds(l) }

// labelMatch is a label, or where matcher is set, one whose value it holds for.
type labelMatch struct {
	name    string
	matcher *stringMatcher
}

func newLabelMatches(labels []logql.LabelMatch) ([]labelMatch, error) {
	var matches []labelMatch
	for _, label := range labels {
		m := labelMatch{name: label.Name}
		if label.Matcher != nil {
			var err error
			if m.matcher, err = newStringMatcher(label.Matcher.Op, label.Matcher.Value); err != nil {
				return nil, err
			}
		}
		matches = append(matches, m)
	}
	return matches, nil
}

func (m *labelMatch) matches(value string) bool { return m.matcher == nil || m.matcher.matches(value) }

// dropper is | drop: it takes labels away, the error with its details, too, if that is what is named.
type dropper struct{ labels []labelMatch }

func (d *dropper) process(e *entry) bool {
	for _, m := range d.labels {
		if value, ok := e.labels.Get(m.name); ok && m.matches(value) {
			e.labels.Delete(m.name)
		}
	}
	return true
}

// keeper is | keep: it takes away all labels but those that are named. An error stays.
type keeper struct{ labels []labelMatch }

func (k *keeper) process(e *entry) bool {
	if e.labels.hasLevel {
		e.labels.detectLevel()
	}
	for i := range e.labels.list {
		label := &e.labels.list[i]
		isKept := false
		for _, m := range k.labels {
			isKept = isKept || m.name == label.name && m.matches(label.value)
		}
		label.isGone = label.isGone || !isKept
	}
	return true
}

// Unwrap makes samples of entries. It keeps nothing between entries, but like a Pipeline it is not safe for concurrent use.
type Unwrap struct {
	label   string
	parse   func(string) (float64, error)
	filters []*labelFilter
}

// NewUnwrap compiles an unwrap with its filters.
func NewUnwrap(u *logql.Unwrap) (*Unwrap, error) {
	unwrap := &Unwrap{label: u.Label}
	switch u.Conversion {
	case logql.NoConversion:
		unwrap.parse = func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }
	case logql.Duration, logql.DurationSeconds:
		unwrap.parse = func(s string) (float64, error) {
			d, err := time.ParseDuration(s)
			return d.Seconds(), err
		}
	case logql.Bytes:
		unwrap.parse = func(s string) (float64, error) {
			n, err := humanize.ParseBytes(s)
			return float64(n), err
		}
	default:
		return nil, fmt.Errorf("unwrap: %q is no conversion", u.Conversion)
	}
	for _, f := range u.Filters {
		compiled, err := newLabelFilter(f.Predicate)
		if err != nil {
			return nil, fmt.Errorf("stage '%s': %w", f, err)
		}
		unwrap.filters = append(unwrap.filters, compiled)
	}
	return unwrap, nil
}

// Sample is the value of an entry that went through the pipeline, and whether there is one: an entry without the label has none, nor
// has one with an empty value. A value that can't be read is 0, and sets __error__ to SampleExtractionErr. The filters see the label, which is then taken away; of a
// value that can't be read it stays.
func (u *Unwrap) Sample(_ int64, _ []byte, labels *Labels) (value float64, keep bool) {
	text := labels.value(u.label)
	if text == "" {
		return 0, false
	}
	value, err := u.parse(text)
	if err != nil {
		value = 0
		labels.fail(SampleExtractionErr, err.Error(), -1)
	}
	for _, f := range u.filters {
		if !f.predicate.holds(labels) {
			return 0, false
		}
	}
	if err == nil {
		labels.Delete(u.label)
	}
	return value, true
}
