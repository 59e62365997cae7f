package logql

import (
	"bytes"
	"slices"
	"strconv"
	"time"
)

var matchTexts = [...]string{Equal: "=", NotEqual: "!=", Regexp: "=~", NotRegexp: "!~"}

var lineTexts = [...]string{
	LineContains: "|=", LineNotContains: "!=", LineMatches: "|~", LineNotMatches: "!~", LinePatternIs: "|>", LinePatternNot: "!>",
}

var compareTexts = [...]string{
	CompareEqual: "==", CompareNotEqual: "!=", CompareGreater: ">", CompareGreaterOrEqual: ">=", CompareLess: "<", CompareLessOrEqual: "<=",
}

func (e *LogExpr) String() string           { return string(appendExpr(nil, e)) }
func (e *RangeAgg) String() string          { return string(appendExpr(nil, e)) }
func (e *VectorAgg) String() string         { return string(appendExpr(nil, e)) }
func (e *BinaryExpr) String() string        { return string(appendExpr(nil, e)) }
func (e *Literal) String() string           { return string(appendExpr(nil, e)) }
func (e *VectorLiteral) String() string     { return string(appendExpr(nil, e)) }
func (e *LabelReplace) String() string      { return string(appendExpr(nil, e)) }
func (e *Variants) String() string          { return string(appendExpr(nil, e)) }
func (s *LineFilter) String() string        { return string(appendStage(nil, s)) }
func (s *JSON) String() string              { return string(appendStage(nil, s)) }
func (s *Logfmt) String() string            { return string(appendStage(nil, s)) }
func (s *RegexpParser) String() string      { return string(appendStage(nil, s)) }
func (s *PatternParser) String() string     { return string(appendStage(nil, s)) }
func (s *Unpack) String() string            { return string(appendStage(nil, s)) }
func (s *LabelFilter) String() string       { return string(appendStage(nil, s)) }
func (s *LineFormat) String() string        { return string(appendStage(nil, s)) }
func (s *LabelFormat) String() string       { return string(appendStage(nil, s)) }
func (s *Decolorize) String() string        { return string(appendStage(nil, s)) }
func (s *Drop) String() string              { return string(appendStage(nil, s)) }
func (s *Keep) String() string              { return string(appendStage(nil, s)) }
func (p *StringPredicate) String() string   { return string(appendPredicate(nil, p)) }
func (p *NumberPredicate) String() string   { return string(appendPredicate(nil, p)) }
func (p *DurationPredicate) String() string { return string(appendPredicate(nil, p)) }
func (p *BytesPredicate) String() string    { return string(appendPredicate(nil, p)) }
func (p *IPPredicate) String() string       { return string(appendPredicate(nil, p)) }
func (p *And) String() string               { return string(appendPredicate(nil, p)) }
func (p *Or) String() string                { return string(appendPredicate(nil, p)) }

func (m Matcher) String() string { return string(appendMatcher(nil, m)) }

// appendExpr writes an expression on one line.
func appendExpr(b []byte, e Expr) []byte {
	switch e := e.(type) {
	case *LogExpr:
		return appendStages(appendSelector(b, e.Matchers), e.Stages)
	case *RangeAgg:
		b = append(b, e.Op...)
		b = append(b, '(')
		if e.Op == QuantileOverTime {
			b = append(appendNumber(b, e.Param), ", "...)
		}
		b = appendLogRange(b, e)
		return appendGrouping(append(b, ')'), e.Grouping)
	case *VectorAgg:
		b = appendVectorHead(b, e)
		if vectorRules[e.Op].param {
			b = append(strconv.AppendInt(b, int64(e.Param), 10), ", "...)
		}
		return append(appendExpr(b, e.Expr), ')')
	case *BinaryExpr:
		return appendBinary(b, e)
	case *Literal:
		return appendNumber(b, e.Value)
	case *VectorLiteral:
		return append(appendNumber(append(b, "vector("...), e.Value), ')')
	case *LabelReplace:
		b = appendExpr(append(b, "label_replace("...), e.Expr)
		for _, s := range e.arguments() {
			b = appendQuoted(append(b, ", "...), s)
		}
		return append(b, ')')
	case *Variants:
		b = append(b, "variants("...)
		for i, of := range e.Of {
			b = appendExpr(appendComma(b, i), of)
		}
		return append(appendLogRange(append(b, ") of ("...), &RangeAgg{Log: e.Log, Range: e.Range}), ')')
	default:
		panic("logql: an expression of an unknown type")
	}
}

// arguments are those that are strings.
func (e *LabelReplace) arguments() []string {
	return []string{e.Destination, e.Replacement, e.Source, e.Regex}
}

// appendLogRange writes what is in the parentheses of a range aggregation.
func appendLogRange(b []byte, e *RangeAgg) []byte {
	b = appendExpr(b, e.Log)
	if e.Unwrap != nil {
		b = appendUnwrap(append(b, ' '), e.Unwrap)
		for _, f := range e.Unwrap.Filters {
			b = appendStage(append(b, ' '), f)
		}
	}
	return appendWindow(append(b, ' '), e.Range, e.Offset)
}

// appendVectorHead writes a vector aggregation up to its arguments: topk by (app) ( .
func appendVectorHead(b []byte, e *VectorAgg) []byte {
	b = append(b, e.Op...)
	if e.Grouping != nil {
		b = append(appendGrouping(b, e.Grouping), ' ')
	}
	return append(b, '(')
}

// chain is the operators of a chain such as a - b + c, which bind alike, the last one first, and its first operand. Such a chain can be
// as long as a query, and so is no recursion.
func chain(e *BinaryExpr) (operators []*BinaryExpr, first Expr) {
	for {
		operators = append(operators, e)
		left, ok := e.Left.(*BinaryExpr)
		if !ok || precedences[left.Op] != precedences[e.Op] || e.Op == OpPow {
			return operators, e.Left
		}
		e = left
	}
}

// precedenceLeft is the least that an operator on the left side has to have, to need no parentheses.
func (op BinaryOp) precedenceLeft() int {
	if op == OpPow {
		return precedences[op] + 1
	}
	return precedences[op]
}

// needsParens tells whether a side of a binary operator does.
func needsParens(e Expr, least int) bool {
	b, ok := e.(*BinaryExpr)
	return ok && precedences[b.Op] < least
}

func appendBinary(b []byte, e *BinaryExpr) []byte {
	operators, first := chain(e)
	b = appendOperand(b, first, e.Op.precedenceLeft())
	for _, e := range slices.Backward(operators) {
		b = append(appendOperator(append(b, ' '), e), ' ')
		b = appendOperand(b, e.Right, e.Op.precedenceRight())
	}
	return b
}

func appendOperand(b []byte, e Expr, least int) []byte {
	if needsParens(e, least) {
		return append(appendExpr(append(b, '('), e), ')')
	}
	return appendExpr(b, e)
}

// appendOperator writes the operator and what modifies it.
func appendOperator(b []byte, e *BinaryExpr) []byte {
	b = append(b, e.Op...)
	if e.ReturnBool {
		b = append(b, " bool"...)
	}
	m := e.Matching
	if m == nil {
		return b
	}
	if m.On {
		b = append(b, " on "...)
	} else {
		b = append(b, " ignoring "...)
	}
	b = appendLabels(b, m.Labels)
	// The parentheses stand there even if they are empty: else those of the right side would be taken for them.
	switch m.Group {
	case GroupLeft:
		b = appendLabels(append(b, " group_left "...), m.Include)
	case GroupRight:
		b = appendLabels(append(b, " group_right "...), m.Include)
	}
	return b
}

func appendGrouping(b []byte, g *Grouping) []byte {
	switch {
	case g == nil:
		return b
	case g.Without:
		b = append(b, " without "...)
	default:
		b = append(b, " by "...)
	}
	return appendLabels(b, g.Labels)
}

func appendLabels(b []byte, labels []string) []byte {
	b = append(b, '(')
	for i, l := range labels {
		b = append(appendComma(b, i), l...)
	}
	return append(b, ')')
}

// appendComma writes what stands before an element of a list.
func appendComma(b []byte, i int) []byte {
	if i == 0 {
		return b
	}
	return append(b, ", "...)
}

// appendWindow writes [5m] offset 1h.
func appendWindow(b []byte, length, offset time.Duration) []byte {
	b = append(appendDuration(append(b, '['), length), ']')
	if offset != 0 {
		b = appendDuration(append(b, " offset "...), offset)
	}
	return b
}

func appendSelector(b []byte, matchers []Matcher) []byte {
	b = append(b, '{')
	for i, m := range matchers {
		b = appendMatcher(appendComma(b, i), m)
	}
	return append(b, '}')
}

func appendMatcher(b []byte, m Matcher) []byte {
	b = append(b, m.Name...)
	b = append(b, matchTexts[m.Op]...)
	return appendQuoted(b, m.Value)
}

func appendStages(b []byte, stages []Stage) []byte {
	for _, s := range stages {
		b = appendStage(append(b, ' '), s)
	}
	return b
}

func appendStage(b []byte, s Stage) []byte {
	switch s := s.(type) {
	case *LineFilter:
		b = append(b, lineTexts[s.Op]...)
		for i, a := range s.Alternatives {
			if i > 0 {
				b = append(b, " or"...)
			}
			b = append(b, ' ')
			if a.IP {
				b = appendIP(b, a.Value)
			} else {
				b = appendQuoted(b, a.Value)
			}
		}
		return b
	case *JSON:
		return appendExtractions(append(b, "| json"...), s.Labels)
	case *Logfmt:
		b = append(b, "| logfmt"...)
		if s.Strict {
			b = append(b, " --strict"...)
		}
		if s.KeepEmpty {
			b = append(b, " --keep-empty"...)
		}
		return appendExtractions(b, s.Labels)
	case *RegexpParser:
		return appendQuoted(append(b, "| regexp "...), s.Expression)
	case *PatternParser:
		return appendQuoted(append(b, "| pattern "...), s.Pattern)
	case *Unpack:
		return append(b, "| unpack"...)
	case *LabelFilter:
		return appendLabelFilter(b, s)
	case *LineFormat:
		return appendQuoted(append(b, "| line_format "...), s.Template)
	case *LabelFormat:
		b = append(b, "| label_format "...)
		for i, l := range s.Labels {
			b = append(append(appendComma(b, i), l.Label...), '=')
			if l.IsTemplate {
				b = appendQuoted(b, l.Template)
			} else {
				b = append(b, l.Source...)
			}
		}
		return b
	case *Decolorize:
		return append(b, "| decolorize"...)
	case *Drop:
		return appendLabelMatches(append(b, "| drop "...), s.Labels)
	case *Keep:
		return appendLabelMatches(append(b, "| keep "...), s.Labels)
	default:
		panic("logql: a stage of an unknown type")
	}
}

func appendIP(b []byte, value string) []byte {
	return append(appendQuoted(append(b, "ip("...), value), ')')
}

func appendExtractions(b []byte, list []Extraction) []byte {
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, ' '), e.Label...)
		// The name of a stage alone would be taken for one that has no | before it.
		if e.Expression != e.Label || isStage(e.Label) {
			b = appendQuoted(append(b, '='), e.Expression)
		}
	}
	return b
}

func appendLabelMatches(b []byte, list []LabelMatch) []byte {
	for i, l := range list {
		b = appendComma(b, i)
		if l.Matcher != nil {
			b = appendMatcher(b, *l.Matcher)
		} else {
			b = append(b, l.Name...)
		}
	}
	return b
}

// appendUnwrap writes an unwrap without what follows it.
func appendUnwrap(b []byte, u *Unwrap) []byte {
	b = append(b, "| unwrap "...)
	if u.Conversion == NoConversion {
		return append(b, u.Label...)
	}
	b = append(append(b, u.Conversion...), '(')
	return append(append(b, u.Label...), ')')
}

// appendLabelFilter writes a label filter. | json!="x" would be a parser and a line filter, so a label of that name gets parentheses.
func appendLabelFilter(b []byte, f *LabelFilter) []byte {
	b = append(b, "| "...)
	start := len(b)
	b = appendPredicate(b, f.Predicate)
	name := b[start:]
	name = name[:bytes.IndexFunc(name, func(r rune) bool { return !isIdentifierByte(byte(r), false) })]
	if standsAlone(string(name)) && b[start+len(name)] == '!' {
		b = append(slices.Insert(b, start, '('), ')')
	}
	return b
}

// appendPredicate writes a condition. A chain of junctions can be as long as a query, and so is no recursion.
func appendPredicate(b []byte, p Predicate) []byte {
	var junctions []Predicate // each the left side of the one before it
	left, _, isAnd := sides(p)
	for left != nil {
		junctions = append(junctions, p)
		p = left
		_, isOr := p.(*Or)
		if isAnd && isOr {
			break
		}
		left, _, isAnd = sides(p)
	}
	b = appendSide(b, p)
	for _, p := range slices.Backward(junctions) {
		_, right, isAnd := sides(p)
		_, rightIsAnd := right.(*And)
		if isAnd {
			b = append(b, " and "...)
		} else {
			b = append(b, " or "...)
		}
		if !isAnd && rightIsAnd {
			b = appendPredicate(b, right)
		} else {
			b = appendSide(b, right)
		}
	}
	return b
}

// sides are what a junction, And or Or, is between. Of a comparison there are none.
func sides(p Predicate) (left, right Predicate, isAnd bool) {
	switch p := p.(type) {
	case *And:
		return p.Left, p.Right, true
	case *Or:
		return p.Left, p.Right, false
	default:
		return nil, nil, false
	}
}

// appendSide writes a comparison, or conditions in parentheses.
func appendSide(b []byte, p Predicate) []byte {
	switch p := p.(type) {
	case *StringPredicate:
		return appendMatcher(b, p.Matcher)
	case *NumberPredicate:
		return appendNumber(appendComparison(b, p.Name, p.Op), p.Value)
	case *DurationPredicate:
		return appendDuration(appendComparison(b, p.Name, p.Op), p.Value)
	case *BytesPredicate:
		return appendSize(appendComparison(b, p.Name, p.Op), p.Value)
	case *IPPredicate:
		b = append(b, p.Name...)
		if p.Negate {
			b = append(b, '!')
		}
		return appendIP(append(b, '='), p.Value)
	case *And, *Or:
		return append(appendPredicate(append(b, '('), p), ')')
	default:
		panic("logql: a predicate of an unknown type")
	}
}

func appendComparison(b []byte, name string, op CompareOp) []byte {
	return append(append(b, name...), compareTexts[op]...)
}
