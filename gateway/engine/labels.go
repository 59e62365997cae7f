package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// maxNames is the most names, values or series that an answer about streams may have.
const maxNames = maxStreams

// Labels are the names of the labels of streams, sorted.
func (e *Engine) Labels(ctx context.Context, s Scope) ([]string, error) {
	found := names{}
	return found.sorted(e.look(ctx, s, 1, func(*statement) []string {
		return []string{"arrayJoin(JSONExtractKeys(stream))"}
	}, func(values []string) error {
		return found.add(values[0])
	}, func(labels []logs.Label) error {
		for _, l := range labels {
			if err := found.add(l.Name); err != nil {
				return err
			}
		}
		return nil
	}))
}

// LabelValues are the values of a label, sorted.
func (e *Engine) LabelValues(ctx context.Context, s Scope, name string) ([]string, error) {
	found := names{}
	return found.sorted(e.look(ctx, s, 1, func(q *statement) []string {
		return []string{labelSQL(q, name)}
	}, func(values []string) error {
		return found.add(values[0])
	}, func(labels []logs.Label) error {
		return found.add(valueOf(labels, name))
	}))
}

// Series are the label sets of streams that one of the selectors matches, sorted; s.Matchers are not looked at.
func (e *Engine) Series(ctx context.Context, s Scope, selectors [][]logql.Matcher) ([][]logs.Label, error) {
	s.Limits = s.Limits.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, s.Limits.Timeout)
	defer cancel()
	found := map[string][]logs.Label{}
	for _, matchers := range selectors {
		s.Matchers = matchers
		c, err := e.unflushed(ctx, s)
		if err != nil {
			return nil, err
		}
		streams, err := e.streams(ctx, s, c, &Stats{})
		if err != nil {
			return nil, err
		}
		for _, of := range streams {
			found[of.canonical] = of.labels
		}
		if len(found) > maxNames {
			return nil, tooMany()
		}
	}
	all := slices.Collect(maps.Values(found))
	slices.SortFunc(all, compareLabels)
	return all, nil
}

// DetectedLabels are the labels of streams that are of use for narrowing, sorted: all but those of which every value is a number or a
// UUID. What is usual to narrow by is always one, and so is what is nothing but 0 and 1.
func (e *Engine) DetectedLabels(ctx context.Context, s Scope) ([]DetectedLabel, error) {
	found, total := map[string]names{}, 0
	add := func(name, value string) error {
		if found[name] == nil {
			found[name] = names{}
		}
		before := len(found[name])
		err := found[name].add(value)
		if total += len(found[name]) - before; total > maxNames {
			return tooMany()
		}
		return err
	}
	err := e.look(ctx, s, 2, func(*statement) []string {
		const pairs = "arrayJoin(JSONExtractKeysAndValues(stream, 'String'))"
		return []string{"tupleElement(" + pairs + ", 1)", "tupleElement(" + pairs + ", 2)"}
	}, func(values []string) error {
		return add(values[0], values[1])
	}, func(labels []logs.Label) error {
		for _, l := range labels {
			if err := add(l.Name, l.Value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	detected := []DetectedLabel{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if isUsual(name) || !found[name].areIDs() {
			detected = append(detected, DetectedLabel{name, uint64(len(found[name]))})
		}
	}
	return detected, nil
}

// isUsual tells whether a label is one by which streams are usually narrowed, whatever its values are.
func isUsual(name string) bool {
	switch name {
	case "cluster", "namespace", "instance", "pod":
		return true
	}
	return false
}

// names is a set of names or values.
type names map[string]struct{}

// add adds one. An empty one is none.
func (n names) add(name string) error {
	if name == "" {
		return nil
	}
	n[name] = struct{}{}
	if len(n) > maxNames {
		return tooMany()
	}
	return nil
}

func (n names) sorted(err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(n)), nil
}

// areIDs tells whether all values are numbers or UUIDs, and not just 0 and 1.
func (n names) areIDs() bool {
	areBits := true
	for value := range n {
		_, err := strconv.ParseFloat(value, 64)
		if err != nil && !isUUID(value) {
			return false
		}
		areBits = areBits && (value == "0" || value == "1")
	}
	return !areBits
}

// isUUID tells whether a text is a UUID in its usual form (RFC 9562, section 4).
func isUUID(text string) bool {
	if len(text) != len("00000000-0000-0000-0000-000000000000") {
		return false
	}
	for i := range len(text) {
		switch c := text[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f'):
			return false
		}
	}
	return true
}

func tooMany() error {
	return &Error{fmt.Sprintf("the answer would have more than %d names, values or series; narrow it by matchers, or a shorter time", maxNames)}
}

// look goes through the labels of the streams of a scope. Of those that ClickHouse knows, it asks for the different values of so many expressions
// over the canonical labels, the column stream, and calls row for each combination; a combination may come more than once. Those that are not in
// ClickHouse yet come to fresh, as labels, each once.
func (e *Engine) look(ctx context.Context, s Scope, width int, expressions func(*statement) []string,
	row func(values []string) error, fresh func([]logs.Label) error,
) error {
	s.Limits = s.Limits.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, s.Limits.Timeout)
	defer cancel()
	c, err := e.unflushed(ctx, s) // first, so that nothing lands between the two unseen
	if err != nil {
		return err
	}
	seen := map[string]struct{}{}
	for i := range c.Entries {
		canonical := c.Entries[i].Labels
		if _, ok := seen[canonical]; ok {
			continue
		}
		seen[canonical] = struct{}{}
		labels, err := logs.ParseLabels(canonical)
		if err != nil {
			return err
		}
		if err := fresh(labels); err != nil {
			return err
		}
	}
	return e.lookUp(ctx, s, width, expressions, row)
}

// lookUp is look for what ClickHouse knows. It asks for the labels that matchers are about beside what is looked for, and leaves it to
// the matchers here which combinations count: regular expressions mean the same everywhere.
func (e *Engine) lookUp(ctx context.Context, s Scope, width int, expressions func(*statement) []string, row func(values []string) error) error {
	q := e.from(tableStream, s.Tenant)
	q.and("first_seen < "+q.moment(s.End), "last_seen >= "+q.moment(s.Start))
	var (
		here    []logql.Matcher // that are left to be looked at here
		matched []logs.Label    // what they are about
	)
	for _, m := range s.Matchers {
		switch m.Op {
		case logql.Equal:
			q.and(labelSQL(q, m.Name) + " = " + q.text(m.Value))
		case logql.NotEqual:
			q.and(labelSQL(q, m.Name) + " != " + q.text(m.Value))
		default:
			here, matched = append(here, m), append(matched, logs.Label{Name: m.Name})
		}
	}
	selector, err := pipeline.NewSelector(here)
	if err != nil {
		return err
	}
	slices.SortFunc(matched, func(a, b logs.Label) int { return cmp.Compare(a.Name, b.Name) })
	matched = slices.Compact(matched)
	all := expressions(q)
	for _, l := range matched {
		all = append(all, labelSQL(q, l.Name))
	}
	columns, results, groups := make([]proto.ColStr, len(all)), make(proto.Results, len(all)), make([]string, len(all))
	for i, expression := range all {
		groups[i] = "c" + strconv.Itoa(i)
		q.columns = append(q.columns, expression+" AS "+groups[i])
		results[i] = proto.ResultColumn{Name: groups[i], Data: &columns[i]}
	}
	q.tail = " GROUP BY " + strings.Join(groups, ", ")
	values := make([]string, width)
	return e.read(ctx, q, s.Limits, &Stats{}, results, func(rows int) error {
		for i := range rows {
			for n := range matched {
				matched[n].Value = columns[width+n].Row(i)
			}
			if !selector.Matches(matched) {
				continue
			}
			for n := range values {
				values[n] = columns[n].Row(i)
			}
			if err := row(values); err != nil {
				return err
			}
		}
		return nil
	})
}

// unflushed makes a cut of the entries of a scope, for their labels, times and lengths. An answer about streams has no place for warnings.
func (e *Engine) unflushed(ctx context.Context, s Scope) (*cut.Cut, error) {
	c, err := e.makeCut(ctx, s, cut.Request{OmitLines: true}, nil, &Stats{})
	if err != nil {
		return nil, err
	}
	for _, warning := range c.Warnings {
		e.cfg.Log.WarnContext(ctx, "an answer about streams may lack the latest entries", "tenant", s.Tenant, "reason", warning)
	}
	return c, nil
}

// labelSQL is the value of a label as SQL, of the column stream; empty where it is not there.
func labelSQL(q *statement, name string) string {
	return "JSONExtractString(stream, " + q.text(name) + ")"
}

// valueOf is the value of a label, of some that are sorted by name; empty where it is not there.
func valueOf(labels []logs.Label, name string) string {
	at, ok := slices.BinarySearchFunc(labels, name, func(l logs.Label, name string) int { return cmp.Compare(l.Name, name) })
	if !ok {
		return ""
	}
	return labels[at].Value
}

// compareLabels is the order of label sets: by their first names that differ, or else values.
func compareLabels(a, b []logs.Label) int {
	return slices.CompareFunc(a, b, func(a, b logs.Label) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value)) })
}
