package logql

import (
	"slices"
	"strconv"
	"unicode/utf8"
)

// lineWidth is how many characters Format writes on a line, if there is a place to begin a new one.
const lineWidth = 100

// Format writes an expression for people: indented, over several lines where it is long. Parse reads it back.
func Format(e Expr) string {
	f := &formatter{}
	f.expr(e)
	return string(f.b)
}

// formatter writes over several lines what is too long for one.
type formatter struct {
	b     []byte
	depth int // of the indent
}

// line begins a new one.
func (f *formatter) line() {
	f.b = append(f.b, '\n')
	for range f.depth {
		f.b = append(f.b, "  "...)
	}
}

// nested writes something on lines of its own, a level deeper.
func (f *formatter) nested(write func()) {
	f.depth++
	f.line()
	write()
	f.depth--
}

// fits writes something, if there is room for it on a line.
func (f *formatter) fits(write func(b []byte) []byte) bool {
	start := len(f.b)
	f.b = write(f.b)
	if 2*f.depth+utf8.RuneCount(f.b[start:]) <= lineWidth {
		return true
	}
	f.b = f.b[:start]
	return false
}

func (f *formatter) expr(e Expr) {
	if f.fits(func(b []byte) []byte { return appendExpr(b, e) }) {
		return
	}
	switch e := e.(type) {
	case *LogExpr:
		f.log(e, nil)
	case *RangeAgg:
		f.b = append(append(f.b, e.Op...), '(')
		if e.Op == QuantileOverTime {
			f.nested(func() { f.b = append(appendNumber(f.b, e.Param), ',') })
		}
		f.nested(func() { f.window(e) })
		f.line()
		f.b = appendGrouping(append(f.b, ')'), e.Grouping)
	case *VectorAgg:
		f.b = appendVectorHead(f.b, e)
		if vectorRules[e.Op].param {
			f.nested(func() { f.b = append(strconv.AppendInt(f.b, int64(e.Param), 10), ',') })
		}
		f.nested(func() { f.expr(e.Expr) })
		f.line()
		f.b = append(f.b, ')')
	case *BinaryExpr:
		f.binary(e)
	case *LabelReplace:
		f.b = append(f.b, "label_replace("...)
		f.nested(func() { f.expr(e.Expr) })
		for _, s := range e.arguments() {
			f.b = append(f.b, ',')
			f.nested(func() { f.b = appendQuoted(f.b, s) })
		}
		f.line()
		f.b = append(f.b, ')')
	case *Variants:
		f.b = append(f.b, "variants("...)
		for i, of := range e.Of {
			if i > 0 {
				f.b = append(f.b, ',')
			}
			f.nested(func() { f.expr(of) })
		}
		f.line()
		f.b = append(f.b, ") of ("...)
		f.nested(func() { f.window(&RangeAgg{Log: e.Log, Range: e.Range}) })
		f.line()
		f.b = append(f.b, ')')
	default:
		f.b = appendExpr(f.b, e)
	}
}

// log writes a log query with each of its stages on a line, and an unwrap, if there is one.
func (f *formatter) log(e *LogExpr, u *Unwrap) {
	f.b = appendSelector(f.b, e.Matchers)
	for _, s := range e.Stages {
		f.nested(func() { f.b = appendStage(f.b, s) })
	}
	if u == nil {
		return
	}
	f.nested(func() { f.b = appendUnwrap(f.b, u) })
	for _, filter := range u.Filters {
		f.nested(func() { f.b = appendStage(f.b, filter) })
	}
}

// window writes a log query with its range.
func (f *formatter) window(e *RangeAgg) {
	if f.fits(func(b []byte) []byte { return appendLogRange(b, e) }) {
		return
	}
	f.log(e.Log, e.Unwrap)
	f.nested(func() { f.b = appendWindow(f.b, e.Range, e.Offset) })
}

// binary writes each operand and each operator of a chain on lines of their own.
func (f *formatter) binary(e *BinaryExpr) {
	operators, first := chain(e)
	f.b = append(f.b, "  "...)
	f.operand(first, e.Op.precedenceLeft())
	for _, e := range slices.Backward(operators) {
		f.line()
		f.b = appendOperator(f.b, e)
		f.line()
		f.b = append(f.b, "  "...)
		f.operand(e.Right, e.Op.precedenceRight())
	}
}

func (f *formatter) operand(e Expr, least int) {
	f.depth++
	defer func() { f.depth-- }()
	if !needsParens(e, least) {
		f.expr(e)
		return
	}
	if f.fits(func(b []byte) []byte { return appendOperand(b, e, least) }) {
		return
	}
	f.b = append(f.b, '(')
	f.nested(func() { f.expr(e) })
	f.line()
	f.b = append(f.b, ')')
}
