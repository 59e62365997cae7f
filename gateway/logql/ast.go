// Package logql is the query language of Loki, LogQL: lexer, parser, syntax tree and printer. It knows neither SQL nor
// HTTP, and executes nothing.
//
// The language is that of https://grafana.com/docs/loki/latest/query/.
package logql

import "time"

// Expr is a query, or a part of one that has a value of its own: a *LogExpr, or one of the metric expressions *RangeAgg,
// *VectorAgg, *BinaryExpr, *Literal, *VectorLiteral, *LabelReplace and *Variants. A tree does not change once it is parsed.
//
// String writes it on one line, in a form that Parse reads back to an equal tree, unless it is longer than what Parse reads. Lists that
// are empty are nil.
type Expr interface {
	String() string
	expr()
}

// LogExpr selects streams and sends their lines through a pipeline: {app="api"} |= "error" | json.
type LogExpr struct {
	Matchers []Matcher // at least one that does not match the empty string
	Stages   []Stage
}

// Matcher holds for streams whose label does. A label that is not there has the empty value. Regular expressions are RE2's, with s
// as flag, and match the whole value.
type Matcher struct {
	Name  string
	Op    MatchOp
	Value string
}

// MatchOp is how a string is compared.
type MatchOp uint8

// How strings are compared.
const (
	Equal     MatchOp = iota // =
	NotEqual                 // !=
	Regexp                   // =~
	NotRegexp                // !~
)

// Stage is a step of a pipeline: a *LineFilter, *JSON, *Logfmt, *RegexpParser, *PatternParser, *Unpack, *LabelFilter, *LineFormat,
// *LabelFormat, *Decolorize, *Drop or *Keep.
type Stage interface {
	String() string
	stage()
}

// LineFilter keeps lines by what is in them. Of a positive operator one alternative has to hold; of a negative one none may.
type LineFilter struct {
	Op           LineOp
	Alternatives []LinePattern // at least one; |= "a" or "b" has two
}

// LinePattern is what a line filter looks for.
type LinePattern struct {
	IP    bool // ip("…"): an address, a range or a CIDR anywhere in the line; with |= and != only
	Value string
}

// LineOp is the operator of a line filter.
type LineOp uint8

// The operators of line filters.
const (
	LineContains    LineOp = iota // |=
	LineNotContains               // !=
	LineMatches                   // |~
	LineNotMatches                // !~
	LinePatternIs                 // |>
	LinePatternNot                // !>
)

// JSON makes labels of the line as a JSON object: of all its scalars, flattened with _, or of those that are named.
type JSON struct{ Labels []Extraction }

// Logfmt makes labels of the line as logfmt: of all keys, or of those that are named.
type Logfmt struct {
	Strict    bool // --strict: what is not logfmt is an error
	KeepEmpty bool // --keep-empty: keys without a value become empty labels
	Labels    []Extraction
}

// Extraction is a label and what of the line it is made of: label="expression". Of label alone, Expression is equal to Label.
type Extraction struct{ Label, Expression string }

// RegexpParser makes labels of the named groups of a regular expression: | regexp "…".
type RegexpParser struct{ Expression string }

// PatternParser makes labels of the captures of a pattern: | pattern "<ip> - <_>".
type PatternParser struct{ Pattern string }

// Unpack makes labels of the line as the JSON that Promtail's pack stage writes, and the line what it was before.
type Unpack struct{}

// LabelFilter keeps entries by their labels.
type LabelFilter struct{ Predicate Predicate }

// Predicate is a condition on labels: a *StringPredicate, *NumberPredicate, *DurationPredicate, *BytesPredicate, *IPPredicate,
// *And or *Or. Its labels are not named and or or.
type Predicate interface {
	String() string
	predicate()
}

// CompareOp is how numbers are compared.
type CompareOp uint8

// How numbers are compared.
const (
	CompareEqual          CompareOp = iota // ==, also written =
	CompareNotEqual                        // !=
	CompareGreater                         // >
	CompareGreaterOrEqual                  // >=
	CompareLess                            // <
	CompareLessOrEqual                     // <=
)

// StringPredicate compares a label with a string: level = "error".
type StringPredicate struct{ Matcher Matcher }

// NumberPredicate compares a label with a number: status >= 500.
type NumberPredicate struct {
	Name  string
	Op    CompareOp
	Value float64
}

// DurationPredicate compares a label with a duration: took > 250ms.
type DurationPredicate struct {
	Name  string
	Op    CompareOp
	Value time.Duration
}

// BytesPredicate compares a label with a size: size < 20MB.
type BytesPredicate struct {
	Name  string
	Op    CompareOp
	Value uint64
}

// IPPredicate compares a label with addresses: remote = ip("10.0.0.0/8"). Negate is !=.
type IPPredicate struct {
	Name   string
	Negate bool
	Value  string // an address, a range a-b, or a CIDR
}

// And holds where both do: written and, a comma, or nothing between them.
type And struct{ Left, Right Predicate }

// Or holds where one does. It binds less than And.
type Or struct{ Left, Right Predicate }

// LineFormat writes the line anew: | line_format "{{.status}}". Template is one of Go's text/template.
type LineFormat struct{ Template string }

// LabelFormat renames labels, or writes them anew: | label_format a=b, c="{{.d}}".
type LabelFormat struct{ Labels []LabelFormatting }

// LabelFormatting is one assignment of label_format. One of Source and Template is in use, by IsTemplate.
type LabelFormatting struct {
	Label      string
	IsTemplate bool
	Source     string // the label that is renamed
	Template   string
}

// Decolorize takes ANSI escapes for colors out of the line.
type Decolorize struct{}

// Drop takes labels away: | drop a, b="x". Behind one whose last label has no matcher there is no line filter with != or !~: it would
// be read as the matcher.
type Drop struct{ Labels []LabelMatch }

// Keep takes all labels away but these: | keep a, b="x". What holds of line filters behind Drop holds here.
type Keep struct{ Labels []LabelMatch }

// LabelMatch is a label, or where Matcher is set, a label whose value the matcher holds for.
type LabelMatch struct {
	Name    string
	Matcher *Matcher
}

// RangeAgg is a value of the lines of a range before each point in time: count_over_time({…}[5m]).
type RangeAgg struct {
	Op       RangeOp
	Param    float64 // of quantile_over_time
	Log      *LogExpr
	Unwrap   *Unwrap // nil: lines are counted, or their bytes
	Range    time.Duration
	Offset   time.Duration // may be negative
	Grouping *Grouping     // nil: none
}

// RangeOp is the function of a range aggregation, as it is written.
type RangeOp string

// The functions of ranges. Those from SumOverTime on need an unwrap, AbsentOverTime may have one.
const (
	Rate             RangeOp = "rate" // with unwrap: the sum of values a second
	CountOverTime    RangeOp = "count_over_time"
	BytesRate        RangeOp = "bytes_rate"
	BytesOverTime    RangeOp = "bytes_over_time"
	AbsentOverTime   RangeOp = "absent_over_time"
	SumOverTime      RangeOp = "sum_over_time"
	AvgOverTime      RangeOp = "avg_over_time"
	MinOverTime      RangeOp = "min_over_time"
	MaxOverTime      RangeOp = "max_over_time"
	FirstOverTime    RangeOp = "first_over_time"
	LastOverTime     RangeOp = "last_over_time"
	StdvarOverTime   RangeOp = "stdvar_over_time"
	StddevOverTime   RangeOp = "stddev_over_time"
	QuantileOverTime RangeOp = "quantile_over_time"
	RateCounter      RangeOp = "rate_counter"
)

// Unwrap makes the value of a label the sample of the line: | unwrap duration(took) | took > 1.
type Unwrap struct {
	Label      string
	Conversion Conversion
	Filters    []*LabelFilter // after it
}

// Conversion is how unwrap reads the value of the label.
type Conversion string

// How unwrap reads a value.
const (
	NoConversion    Conversion = ""                 // as a floating point number
	Bytes           Conversion = "bytes"            // as a size
	Duration        Conversion = "duration"         // as a duration, in seconds
	DurationSeconds Conversion = "duration_seconds" // the same
)

// Grouping are the labels that series are grouped by, or without which they are.
type Grouping struct {
	Without bool
	Labels  []string // may be empty
}

// VectorAgg is a value of the series that have the same labels of a grouping: sum by (app) (…).
type VectorAgg struct {
	Op       VectorOp
	Param    int       // of topk, bottomk and approx_topk, at least 1
	Grouping *Grouping // nil: all series are one group
	Expr     Expr
}

// VectorOp is the function of a vector aggregation, as it is written.
type VectorOp string

// The functions of vectors.
const (
	Sum        VectorOp = "sum"
	Avg        VectorOp = "avg"
	Min        VectorOp = "min"
	Max        VectorOp = "max"
	Count      VectorOp = "count"
	Stddev     VectorOp = "stddev"
	Stdvar     VectorOp = "stdvar"
	TopK       VectorOp = "topk"
	BottomK    VectorOp = "bottomk"
	ApproxTopK VectorOp = "approx_topk"
	Sort       VectorOp = "sort"
	SortDesc   VectorOp = "sort_desc"
)

// BinaryExpr computes with two sides, each a vector or a number.
type BinaryExpr struct {
	Op          BinaryOp
	Left, Right Expr
	ReturnBool  bool // bool: a comparison is 0 or 1, not a filter
	Matching    *Matching
}

// BinaryOp is a binary operator, as it is written.
type BinaryOp string

// The binary operators, from those that bind least to those that bind most. ^ is right associative, all others left.
const (
	OpOr             BinaryOp = "or"
	OpAnd            BinaryOp = "and" // and unless bind alike
	OpUnless         BinaryOp = "unless"
	OpEqual          BinaryOp = "==" // the comparisons bind alike
	OpNotEqual       BinaryOp = "!="
	OpGreater        BinaryOp = ">"
	OpGreaterOrEqual BinaryOp = ">="
	OpLess           BinaryOp = "<"
	OpLessOrEqual    BinaryOp = "<="
	OpAdd            BinaryOp = "+" // + and - bind alike
	OpSub            BinaryOp = "-"
	OpMul            BinaryOp = "*" // *, / and % bind alike
	OpDiv            BinaryOp = "/"
	OpMod            BinaryOp = "%"
	OpPow            BinaryOp = "^"
)

// Matching is how series of both sides find each other. Without one, they have to have the same labels.
type Matching struct {
	On      bool     // on (…): by these labels; else ignoring (…): by all others
	Labels  []string // may be empty
	Group   Group
	Include []string // labels of group_left(…) or group_right(…) that are taken from the side of which there is one
}

// Group is the side of which many series may match one of the other.
type Group uint8

// The sides.
const (
	OneToOne   Group = iota
	GroupLeft        // many of the left side match one of the right
	GroupRight       // many of the right side match one of the left
)

// Literal is a number, and finite.
type Literal struct{ Value float64 }

// VectorLiteral is vector(number): a series without labels.
type VectorLiteral struct{ Value float64 }

// LabelReplace is label_replace(expr, "destination", "replacement", "source", "regex").
type LabelReplace struct {
	Expr                                    Expr
	Destination, Replacement, Source, Regex string
}

// Variants are several range aggregations of the same lines, told apart by the label __variant__, the number of the variant from 0:
// variants(count_over_time({…}[1m]), bytes_over_time({…}[1m])) of ({…}[1m]).
type Variants struct {
	Of    []Expr
	Log   *LogExpr
	Range time.Duration
}

func (*LogExpr) expr()       {}
func (*RangeAgg) expr()      {}
func (*VectorAgg) expr()     {}
func (*BinaryExpr) expr()    {}
func (*Literal) expr()       {}
func (*VectorLiteral) expr() {}
func (*LabelReplace) expr()  {}
func (*Variants) expr()      {}

func (*LineFilter) stage()    {}
func (*JSON) stage()          {}
func (*Logfmt) stage()        {}
func (*RegexpParser) stage()  {}
func (*PatternParser) stage() {}
func (*Unpack) stage()        {}
func (*LabelFilter) stage()   {}
func (*LineFormat) stage()    {}
func (*LabelFormat) stage()   {}
func (*Decolorize) stage()    {}
func (*Drop) stage()          {}
func (*Keep) stage()          {}

func (*StringPredicate) predicate()   {}
func (*NumberPredicate) predicate()   {}
func (*DurationPredicate) predicate() {}
func (*BytesPredicate) predicate()    {}
func (*IPPredicate) predicate()       {}
func (*And) predicate()               {}
func (*Or) predicate()                {}
