package logql

import "time"

// Words that begin an expression and are no function of a range or a vector.
const (
	vector       = "vector"
	labelReplace = "label_replace"
	variants     = "variants"
)

// rangeRule is what a function of ranges takes.
type rangeRule struct {
	lines, values bool // log lines; values that are unwrapped
	grouping      bool
}

var rangeRules = map[RangeOp]rangeRule{
	Rate:             {lines: true, values: true},
	CountOverTime:    {lines: true},
	BytesRate:        {lines: true},
	BytesOverTime:    {lines: true},
	AbsentOverTime:   {lines: true, values: true},
	SumOverTime:      {values: true},
	AvgOverTime:      {values: true, grouping: true},
	MinOverTime:      {values: true, grouping: true},
	MaxOverTime:      {values: true, grouping: true},
	FirstOverTime:    {values: true, grouping: true},
	LastOverTime:     {values: true, grouping: true},
	StdvarOverTime:   {values: true, grouping: true},
	StddevOverTime:   {values: true, grouping: true},
	QuantileOverTime: {values: true, grouping: true},
	RateCounter:      {values: true},
}

// vectorRule is what a function of vectors takes.
type vectorRule struct{ param, grouping bool }

var vectorRules = map[VectorOp]vectorRule{
	Sum:        {grouping: true},
	Avg:        {grouping: true},
	Min:        {grouping: true},
	Max:        {grouping: true},
	Count:      {grouping: true},
	Stddev:     {grouping: true},
	Stdvar:     {grouping: true},
	TopK:       {grouping: true, param: true},
	BottomK:    {grouping: true, param: true},
	ApproxTopK: {param: true},
	Sort:       {},
	SortDesc:   {},
}

// precedences of the binary operators. What binds more has more.
var precedences = map[BinaryOp]int{
	OpOr:  1,
	OpAnd: 2, OpUnless: 2,
	OpEqual: 3, OpNotEqual: 3, OpGreater: 3, OpGreaterOrEqual: 3, OpLess: 3, OpLessOrEqual: 3,
	OpAdd: 4, OpSub: 4,
	OpMul: 5, OpDiv: 5, OpMod: 5,
	OpPow: 6,
}

// isSet tells whether op is one of or, and, unless.
func (op BinaryOp) isSet() bool { return precedences[op] <= precedences[OpUnless] }

func (op BinaryOp) isComparison() bool { return precedences[op] == precedences[OpEqual] }

// precedenceRight is the least that an operator on the right side has to have, to need no parentheses.
func (op BinaryOp) precedenceRight() int {
	if op == OpPow {
		return precedences[op]
	}
	return precedences[op] + 1
}

// expression reads operands and the binary operators between them that have at least that precedence.
func (p *parser) expression(least int) Expr {
	at := p.tok.at
	left := p.operand()
	for p.tok.kind == symbol || p.tok.kind == identifier {
		op := BinaryOp(p.tok.text)
		precedence, ok := precedences[op]
		if !ok || precedence < least {
			break
		}
		p.needMetric(left, at)
		opAt := p.tok.at
		p.advance()
		b := &BinaryExpr{Op: op, Left: left}
		if p.is("bool") {
			if !op.isComparison() {
				p.fail(p.tok.at, "bool is for comparisons only, not for %s", op)
			}
			p.advance()
			b.ReturnBool = true
		}
		b.Matching = p.matching(op)
		rightAt := p.tok.at
		b.Right = p.right(op)
		p.needMetric(b.Right, rightAt)
		if op.isSet() {
			p.refuseLiteral(b.Left, "left", op, opAt)
			p.refuseLiteral(b.Right, "right", op, opAt)
		}
		left = b
	}
	return left
}

// right reads the right side of a binary operator. A chain of ^, which is right associative, is nested.
func (p *parser) right(op BinaryOp) Expr {
	if op != OpPow {
		return p.expression(op.precedenceRight())
	}
	defer p.leave()
	if !p.enter() {
		return nil
	}
	return p.expression(op.precedenceRight())
}

// operand reads what binary operators are between.
func (p *parser) operand() Expr {
	switch {
	case p.tok.kind == number, p.is("+"), p.is("-"):
		return &Literal{Value: p.number()}
	case p.is("{"):
		log := &LogExpr{}
		p.pipeline(&logRange{log: log})
		return log
	case p.is("("):
		p.advance()
		e := p.inner()
		p.expect(")")
		return e
	case p.tok.kind == identifier:
		return p.function()
	default:
		p.unexpected("a query")
		return nil
	}
}

// inner is an expression within parentheses, up to what ends it.
func (p *parser) inner() Expr {
	defer p.leave()
	if !p.enter() {
		return nil
	}
	return p.expression(1)
}

// innerMetric is inner, and no log query.
func (p *parser) innerMetric() Expr {
	at := p.tok.at
	e := p.inner()
	p.needMetric(e, at)
	return e
}

// needMetric refuses a log query, which begins there.
func (p *parser) needMetric(e Expr, at int) {
	if _, ok := e.(*LogExpr); ok {
		p.fail(at, `a metric query is needed here, and this is a log query: it has to be aggregated, as by count_over_time({app="x"}[5m])`)
	}
}

// refuseLiteral refuses a number as a side of or, and, unless.
func (p *parser) refuseLiteral(e Expr, side string, op BinaryOp, at int) {
	if isScalar(e) {
		p.fail(at, "unexpected literal for %s leg of logical/set binary operation (%s): a number has no labels to match, vector(…) of it has: none", side, op)
	}
}

// isScalar tells whether e is a number, and no vector.
func isScalar(e Expr) bool {
	for {
		switch node := e.(type) {
		case *Literal:
			return true
		case *BinaryExpr:
			if node.Op.isSet() || !isScalar(node.Right) {
				return false
			}
			e = node.Left
		default:
			return false
		}
	}
}

// number is one with or without a sign.
func (p *parser) number() float64 {
	negative := p.take("-")
	if !negative {
		p.take("+")
	}
	if p.tok.kind != number {
		p.unexpected("a number")
		return 0
	}
	value := p.tok.number
	p.advance()
	if negative {
		return -value
	}
	return value
}

// matching is what stands between a binary operator and its right side.
func (p *parser) matching(op BinaryOp) *Matching {
	if !p.is("on") && !p.is("ignoring") {
		return nil
	}
	m := &Matching{On: p.is("on")}
	p.advance()
	m.Labels = p.labels()
	switch {
	case p.is("group_left"):
		m.Group = GroupLeft
	case p.is("group_right"):
		m.Group = GroupRight
	default:
		return m
	}
	if op.isSet() {
		p.fail(p.tok.at, "%s is not allowed for the set operator %s, which matches many with many", p.tok.text, op)
	}
	p.advance()
	if p.is("(") {
		m.Include = p.labels()
	}
	return m
}

// function reads what begins with the name of one.
func (p *parser) function() Expr {
	name := p.tok.text
	if _, ok := rangeRules[RangeOp(name)]; ok {
		return p.rangeAgg()
	}
	if _, ok := vectorRules[VectorOp(name)]; ok {
		return p.vectorAgg()
	}
	switch name {
	case vector:
		p.advance()
		p.expect("(")
		v := &VectorLiteral{Value: p.number()}
		p.expect(")")
		return v
	case labelReplace:
		return p.labelReplace()
	case variants:
		p.fail(p.tok.at, "syntax error: unexpected %s: it can only be the whole of a query", name)
	default:
		if isWord(p.ahead(), "(") {
			p.fail(p.tok.at, "syntax error: unexpected %s: there is no function of this name", p.tok)
		}
		p.unexpected("a query")
	}
	return nil
}

func (p *parser) rangeAgg() Expr {
	agg, at := &RangeAgg{Op: RangeOp(p.tok.text)}, p.tok.at
	p.advance()
	p.expect("(")
	hasParam := p.tok.kind == number || p.is("-") || p.is("+")
	if hasParam {
		if agg.Op != QuantileOverTime {
			p.fail(p.tok.at, "parameter %s not supported for operation %s", p.tok.text, agg.Op)
		}
		agg.Param = p.number()
		p.expect(",")
	} else if agg.Op == QuantileOverTime {
		p.fail(p.tok.at, "parameter required for operation %s: the quantile, as in %[1]s(0.99, …)", agg.Op)
	}
	r := p.logRange()
	p.expect(")")
	agg.Log, agg.Unwrap, agg.Range, agg.Offset = r.log, r.unwrap, r.length, r.offset

	rule := rangeRules[agg.Op]
	switch {
	case agg.Unwrap != nil && !rule.values:
		p.fail(r.unwrapAt, "invalid aggregation %s with unwrap: it is of lines, not of values", agg.Op)
	case agg.Unwrap == nil && !rule.lines:
		p.fail(at, "invalid aggregation %s without unwrap: it is of values, as | unwrap took makes them", agg.Op)
	}
	if p.isGrouping() {
		if !rule.grouping {
			p.fail(p.tok.at, "grouping not allowed for %s aggregation", agg.Op)
		}
		agg.Grouping = p.grouping()
	}
	return agg
}

func (p *parser) vectorAgg() Expr {
	agg := &VectorAgg{Op: VectorOp(p.tok.text)}
	p.advance()
	agg.Grouping = p.groupingOf(agg.Op)
	p.expect("(")
	rule := vectorRules[agg.Op]
	comma := p.tok.kind == number && isWord(p.ahead(), ",")
	switch {
	case comma && !rule.param:
		p.fail(p.tok.at, "unsupported parameter for operation %s(%s,", agg.Op, p.tok.text)
	case rule.param:
		agg.Param = p.count(agg.Op)
		p.expect(",")
	}
	agg.Expr = p.innerMetric()
	p.expect(")")
	if agg.Grouping == nil {
		agg.Grouping = p.groupingOf(agg.Op)
	}
	return agg
}

// count is the parameter of topk and its like.
func (p *parser) count(op VectorOp) int {
	at, text, isNumber := p.tok.at, p.tok.text, p.tok.kind == number
	if !isNumber && !p.is("-") && !p.is("+") {
		p.fail(at, "parameter required for operation %s: how many, as in %[1]s(10, …)", op)
		return 0
	}
	value := p.number()
	if value < 1 {
		p.fail(at, "invalid parameter (must be greater than 0) %s(%s", op, appendNumber(nil, value))
	}
	if value > 1<<31-1 || value != float64(int(value)) {
		p.fail(at, "invalid parameter %s(%s: it has to be a whole number, and not above 2147483647", op, text)
	}
	return int(value)
}

func (p *parser) isGrouping() bool { return p.is("by") || p.is("without") }

// grouping is by (…) or without (…).
func (p *parser) grouping() *Grouping {
	g := &Grouping{Without: p.is("without")}
	p.advance()
	g.Labels = p.labels()
	return g
}

// groupingOf is the grouping of a vector aggregation, if there is one here.
func (p *parser) groupingOf(op VectorOp) *Grouping {
	if !p.isGrouping() {
		return nil
	}
	if !vectorRules[op].grouping {
		p.fail(p.tok.at, "grouping not allowed for %s aggregation", op)
	}
	return p.grouping()
}

func (p *parser) labelReplace() Expr {
	l := &LabelReplace{}
	p.advance()
	p.expect("(")
	l.Expr = p.innerMetric()
	var at int
	for _, field := range []*string{&l.Destination, &l.Replacement, &l.Source, &l.Regex} {
		p.expect(",")
		*field, at = p.text("a string")
	}
	p.expect(")")
	if err := p.checkRegexp(l.Regex); err != nil {
		p.fail(at, "invalid regex in label_replace: %v", err)
	}
	return l
}

func (p *parser) variants() Expr {
	v := &Variants{}
	p.advance()
	p.expect("(")
	for {
		v.Of = append(v.Of, p.innerMetric())
		if !p.take(",") {
			break
		}
	}
	p.expect(")")
	p.expect("of")
	p.expect("(")
	at := p.tok.at
	r := p.logRange()
	p.expect(")")
	switch {
	case r.unwrap != nil:
		p.fail(r.unwrapAt, "unwrap is not for what variants are of, but for the variants themselves")
	case r.offset != 0:
		p.fail(at, "offset is not for what variants are of, but for the variants themselves")
	}
	v.Log, v.Range = r.log, r.length
	return v
}

// logRange is the lines that a function of ranges is of.
type logRange struct {
	log      *LogExpr
	isMetric bool
	unwrap   *Unwrap
	unwrapAt int
	length   time.Duration // 0: there is no range yet
	offset   time.Duration
}

// logRange reads a log query with its range: {…} |= "x" [5m], {…}[5m] |= "x", or the like with parentheses.
func (p *parser) logRange() *logRange {
	r := &logRange{log: &LogExpr{}, isMetric: true}
	p.rangeOf(r)
	if r.length == 0 {
		p.unexpected("a range such as [5m]")
	}
	return r
}

// rangeOf reads a part of a log query with or without a range.
func (p *parser) rangeOf(r *logRange) {
	if p.is("(") {
		p.advance()
		if p.enter() {
			p.rangeOf(r)
		}
		p.leave()
		p.expect(")")
		if p.is("[") {
			p.window(r)
		}
		return
	}
	p.pipeline(r)
}

// window reads [5m], and an offset behind it.
func (p *parser) window(r *logRange) {
	if r.length != 0 {
		p.fail(p.tok.at, "syntax error: unexpected [: there is a range already")
	}
	p.expect("[")
	at := p.tok.at
	r.length = p.duration("a duration such as 5m")
	if r.length <= 0 {
		p.fail(at, "the range has to be longer than 0")
	}
	p.expect("]")
	if p.take("offset") {
		r.offset = p.duration("a duration such as 5m")
	}
}

// duration is one with or without a sign.
func (p *parser) duration(expected string) time.Duration {
	negative := p.take("-")
	if !negative {
		p.take("+")
	}
	if p.tok.kind != duration {
		p.unexpected(expected)
		return 0
	}
	d := p.tok.duration
	p.advance()
	if negative {
		return -d
	}
	return d
}
