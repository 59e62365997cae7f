package engine

import (
	"cmp"
	"maps"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/logql"
)

// sift is what ClickHouse can do of a pipeline. It divides the rows in two: those for which SQL says the same as the pipeline, for certain,
// and all others, which the pipeline is asked about. So what is done in ClickHouse never changes an answer; it only makes it faster.
type sift struct {
	s       *statement
	streams map[uint64]*stream

	always []string // hold for every row that the pipeline keeps
	sure   []string // where these hold, SQL says the same as the pipeline; each is true or false of every row
	when   []string // where sure holds, the pipeline keeps a row if and only if these hold
	exact  bool     // sure may hold at all
	sums   bool     // for a metric query: a stage that fails does not merely leave a label, but ends the query

	budget int // how many more conditions the statement may have

	line    bool   // the line is still that of the row
	raw     string // the value of one of the labels of the line as JSON, as it stands there
	json    bool   // the labels of the line as JSON count
	unknown bool   // there may be labels that SQL can't tell
	mixed   bool   // a parser came after labels had been taken away or made, of which it may make new ones
	fails   bool   // a stage may fail where SQL does not notice
	intact  bool   // no label was taken away or made, so that an entry has all those of its stream
	gone    map[string]bool
	kept    []string // nil: all
	renamed map[string]value
}

// value is the value of a label in SQL, and where that is certain.
type value struct {
	sql   string // of type String; the empty string where there is no such label
	sure  []string
	known bool

	ofStreams bool // it is a label that every stream has
}

// maxConditions bounds what a statement is made of. A query that has more is sifted by what comes first, and left to the pipeline.
const maxConditions = 100

// afford tells whether the statement may have so many more conditions.
func (f *sift) afford(conditions int) bool {
	f.budget -= conditions
	f.exact = f.exact && f.budget >= 0
	return f.budget >= 0
}

// conditions is how many there are in a predicate.
func conditions(p logql.Predicate) int {
	n := 0
	for waiting := []logql.Predicate{p}; len(waiting) > 0; n++ {
		last := len(waiting) - 1
		p, waiting = waiting[last], waiting[:last]
		switch p := p.(type) {
		case *logql.And:
			waiting = append(waiting, p.Left, p.Right)
		case *logql.Or:
			waiting = append(waiting, p.Left, p.Right)
		}
	}
	return n
}

// newSift looks at the stages of a pipeline. streams are all those whose rows the statement is about.
func newSift(s *statement, streams map[uint64]*stream, stages []logql.Stage, sums bool) *sift {
	f := &sift{s: s, streams: streams, budget: maxConditions, exact: true, sums: sums, line: true, intact: true, gone: map[string]bool{}, renamed: map[string]value{}}
	for _, stage := range stages {
		f.stage(stage)
	}
	return f
}

// certain are the conditions of the rows that SQL keeps for certain.
func (f *sift) certain() []string {
	if len(f.sure) == 0 {
		return slices.Concat(f.always, f.when)
	}
	return slices.Concat(f.always, []string{f.isSure()}, f.when)
}

// isSure is true of the rows that SQL is certain about; empty: of all. A line in which a member was found is an object, and is not read as a
// whole once more to find that out.
func (f *sift) isSure() string {
	sure := strings.Join(f.sure, " AND ")
	if f.raw == "" {
		return sure
	}
	return strings.ReplaceAll(sure, isObject, "JSONType(if("+f.raw+" != '', '{}', msg)) = 'Object'")
}

// all are the conditions of the rows that SQL keeps, or is not certain about.
func (f *sift) all() []string {
	if len(f.sure) == 0 || len(f.when) == 0 {
		return slices.Concat(f.always, f.when)
	}
	return append(slices.Clone(f.always), "(NOT ("+f.isSure()+") OR ("+strings.Join(f.when, " AND ")+"))")
}

// rest are the conditions of the rows that the pipeline is to be asked about; nil: there are none.
func (f *sift) rest() []string {
	switch {
	case !f.exact:
		return f.all()
	case len(f.sure) == 0:
		return nil
	}
	return append(slices.Clone(f.always), "NOT ("+f.isSure()+")")
}

func (f *sift) need(conditions ...string) {
	for _, c := range conditions {
		if !slices.Contains(f.sure, c) {
			f.sure = append(f.sure, c)
		}
	}
}

func (f *sift) stage(stage logql.Stage) {
	switch stage := stage.(type) {
	case *logql.LineFilter:
		f.lineFilter(stage)
	case *logql.LabelFilter:
		if !f.afford(conditions(stage.Predicate)) {
			return
		}
		f.always = append(f.always, f.hint(stage.Predicate)...)
		if holds, sure, ok := f.predicate(stage.Predicate); ok {
			f.need(sure...)
			f.when = append(f.when, holds)
		} else {
			f.exact = false
		}
	case *logql.JSON:
		f.parser()
		if len(stage.Labels) > 0 || f.json || f.unknown || !f.line {
			f.unknown = true
			f.mayFail()
			return
		}
		f.json, f.s.isHeavy = true, true
		if f.sums {
			f.need(hasNoMark, isObject)
		}
	case *logql.Logfmt:
		f.parser()
		f.unknown = true
		if stage.Strict {
			f.mayFail()
		}
	case *logql.RegexpParser, *logql.PatternParser:
		f.parser()
		f.unknown = true
	case *logql.Unpack:
		f.parser()
		f.unknown, f.line = true, false
		f.mayFail()
	case *logql.LineFormat:
		f.line = false
		f.mayFail()
	case *logql.Decolorize:
		f.line = false
	case *logql.LabelFormat:
		f.labelFormat(stage)
	case *logql.Drop:
		f.drop(stage)
	case *logql.Keep:
		f.keep(stage)
	default:
		f.unknown, f.line, f.intact, f.exact = true, false, false, false
	}
}

// parser says that labels are made of the line.
func (f *sift) parser() {
	f.intact, f.mixed = false, f.mixed || f.kept != nil || len(f.gone) > 0 || len(f.renamed) > 0
}

// mayFail says that a stage may fail. That ends a metric query; of a log query it makes a label.
func (f *sift) mayFail() { f.fails, f.exact = true, f.exact && !f.sums }

// isObject holds where the line is one JSON object, as the pipeline has it: ClickHouse reads it whole, and refuses what is not UTF-8.
// Before it, ClickHouse overlooks a byte order mark.
const (
	isObject  = "JSONType(msg) = 'Object'"
	hasNoMark = `NOT startsWith(msg, '\xEF\xBB\xBF')`
)

func (f *sift) lineFilter(stage *logql.LineFilter) {
	if !f.line {
		f.exact = false
		return
	}
	if !f.afford(len(stage.Alternatives)) {
		return
	}
	var some, sure []string // of the alternatives; negative operators want none of them
	certain := true
	for _, a := range stage.Alternatives {
		holds, needs, ok := f.linePattern(stage.Op, a)
		if !ok {
			certain = false
			some = append(some, "1") // it may hold
			continue
		}
		some, sure = append(some, holds), append(sure, needs...)
	}
	holds := "(" + strings.Join(some, " OR ") + ")"
	negative := stage.Op == logql.LineNotContains || stage.Op == logql.LineNotMatches || stage.Op == logql.LinePatternNot
	switch {
	case !certain && !negative:
		f.exact = false
		if len(sure) == 0 && !slices.Contains(some, "1") {
			f.always = append(f.always, holds)
		}
	case !certain:
		f.exact = false
	case len(sure) == 0:
		if negative {
			holds = "NOT " + holds
		}
		f.always = append(f.always, holds)
	default:
		if negative {
			holds = "NOT " + holds
		}
		f.need(sure...)
		f.when = append(f.when, holds)
	}
}

// linePattern is when a line has in it what a line filter looks for, whether it wants that or not.
func (f *sift) linePattern(op logql.LineOp, p logql.LinePattern) (holds string, sure []string, ok bool) {
	if p.IP {
		return "", nil, false
	}
	switch op {
	case logql.LineContains, logql.LineNotContains:
		return "msg LIKE " + f.s.text("%"+wildcards.Replace(p.Value)+"%"), nil, true
	case logql.LineMatches, logql.LineNotMatches:
		return f.match("msg", p.Value, false)
	}
	return "", nil, false
}

// wildcards are characters that LIKE does not take as they are. It is LIKE, since an index that somebody adds serves that.
var wildcards = strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`)

// maxProgram is the longest regular expression, as written, that ClickHouse is asked to look for: it refuses what takes too much memory.
const maxProgram = 500

// match is when the value of an expression matches a regular expression: somewhere, or as a whole. Both sides have RE2's syntax, but they read what is not
// UTF-8, and letters of either case, in ways of their own.
func (f *sift) match(sql, expression string, whole bool) (holds string, sure []string, ok bool) {
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil || len(expression) > maxProgram {
		return "", nil, false
	}
	switch c := classify(tree); {
	case c.folds || c.odd:
		return "", nil, false
	case c.wide:
		sure = append(sure, "isValidUTF8("+sql+")")
	}
	flags := "(?-s)"
	if whole {
		expression, flags = "^(?:"+expression+")$", "(?s)"
	}
	return "match(" + sql + ", " + f.s.text(flags+expression) + ")", sure, true
}

// class is what of a regular expression both sides may read differently.
type class struct {
	wide  bool // it can match characters beyond ASCII, and so depends on what is not UTF-8
	folds bool // it matches letters of either case
	odd   bool // repetitions of repetitions, of which RE2 may run out of memory
}

func classify(tree *syntax.Regexp) class {
	var c class
	switch tree.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		c.wide = true
	case syntax.OpCharClass:
		c.wide = len(tree.Rune) > 0 && tree.Rune[len(tree.Rune)-1] >= utf8.RuneSelf
	case syntax.OpLiteral:
		c.wide = slices.ContainsFunc(tree.Rune, func(r rune) bool { return r >= utf8.RuneSelf })
		c.folds = tree.Flags&syntax.FoldCase != 0
	case syntax.OpRepeat:
		c.odd = tree.Max > 100 || tree.Min > 100
	}
	for _, sub := range tree.Sub {
		of := classify(sub)
		c.wide, c.folds, c.odd = c.wide || of.wide, c.folds || of.folds, c.odd || of.odd || tree.Op == syntax.OpRepeat && sub.Op == syntax.OpRepeat
	}
	return c
}

// label is the value of a label, at this point of the pipeline.
func (f *sift) label(name string) value {
	switch {
	case name == pipeline.ErrorLabel || name == pipeline.DetailsLabel:
		v := value{sql: "''", known: !f.fails}
		if f.json {
			v.sure = []string{hasNoMark, isObject}
		}
		return v
	case f.mixed:
		return value{}
	case f.gone[name] || f.kept != nil && !slices.Contains(f.kept, name):
		return value{sql: "''", known: true}
	}
	if v, ok := f.renamed[name]; ok {
		return v
	}
	return f.original(name)
}

// original is the value of a label of the stream, of the metadata, or of the line, in this order.
func (f *sift) original(name string) value {
	var ids []uint64
	var values []string
	for _, id := range slices.Sorted(maps.Keys(f.streams)) {
		if text := valueOf(f.streams[id].labels, name); text != "" {
			ids, values = append(ids, id), append(values, text)
		}
	}
	ofStream := "transform(stream_id, " + f.s.ids(ids) + ", " + f.s.texts(values) + ", '')"
	if len(ids) == len(f.streams) {
		return value{sql: ofStream, known: true, ofStreams: true}
	}
	isLevel := name == pipeline.LevelLabel
	if strings.HasPrefix(name, "_") || strings.HasSuffix(name, "_extracted") || f.unknown && !isLevel {
		return value{}
	}
	v := value{known: true, sure: []string{f.isOneKey(name)}}
	v.sql = "metadata[" + f.s.text(name) + "]"
	switch {
	case isLevel: // every entry has it
		v.sql = "if(mapContains(metadata, " + f.s.text(name) + "), " + v.sql + ", " + f.s.level(f.streams) + ")"
	case f.json:
		line := f.ofJSON(name)
		v.sql = "if(mapContains(metadata, " + f.s.text(name) + "), " + v.sql + ", " + line.sql + ")"
		v.sure = append(v.sure, line.sure...)
	}
	if len(ids) > 0 {
		v.sql = "if(" + ofStream + " != '', " + ofStream + ", " + v.sql + ")"
	}
	return v
}

// isOneKey holds where at most one key of the metadata makes a label of this name, and that is the name itself.
func (f *sift) isOneKey(name string) string {
	if !strings.Contains(name, "_") {
		return "countEqual(mapKeys(metadata), " + f.s.text(name) + ") <= 1"
	}
	other := "(?s)^" + strings.ReplaceAll(name, "_", `(?:[^a-zA-Z0-9]|\C)`) + "$"
	return "arrayCount(key -> match(key, " + f.s.text(other) + "), mapKeys(metadata)) <= toUInt8(mapContains(metadata, " + f.s.text(name) + "))"
}

// ofJSON is the value of a label that the parser json makes of the line: of a scalar of the object, by its own name. It is certain where no
// other key can make the same name, nothing is escaped, and a number is an integer: of others ClickHouse does not keep how they were written.
func (f *sift) ofJSON(name string) value {
	raw := "JSONExtractRaw(msg, " + f.s.text(name) + ")"
	f.raw = cmp.Or(f.raw, raw)
	quoted := `"` + name + `"`
	v := value{known: true, sure: []string{
		hasNoMark,
		`position(msg, '\\') = 0`,
		"countSubstrings(msg, " + f.s.text(quoted) + ") <= 1",
		"(" + raw + " != '' OR " + isObject + " AND countSubstrings(msg, " + f.s.text(quoted) + ") = 0)", // it may stand below a name that is empty
		raw + ` != '""' AND position(` + raw + `, '\\') = 0`,
		"(" + raw + " < '-' OR " + raw + " > ':' OR match(msg, " + f.s.text(quoted+`[ \t]*:[ \t]*(?:0|-?[1-9][0-9]{0,17})[ \t]*[,}]`) + "))",
	}}
	if first, _, more := strings.Cut(name, "_"); more {
		v.sure = append(v.sure, "countSubstrings(msg, "+f.s.text(`"`+first)+") = countSubstrings(msg, "+f.s.text(quoted)+")")
	}
	v.sql = `multiIf(startsWith(` + raw + `, '"'), substring(` + raw + `, 2, length(` + raw + `) - 2),
		` + raw + ` = 'null' OR startsWith(` + raw + `, '[') OR startsWith(` + raw + `, '{'), '', ` + raw + `)`
	return v
}

// isNumber holds where text is a number that both sides read the same, to the last bit: of at most 15 digits.
func isNumber(sql string) string {
	return `match(` + sql + `, '^-?(?:[0-9]{1,15}|[0-9]{1,9}\\.[0-9]{1,6})$')`
}

// predicate is when a label filter holds, and where that is certain.
func (f *sift) predicate(p logql.Predicate) (holds string, sure []string, ok bool) {
	switch p := p.(type) {
	case *logql.And:
		return f.both(p.Left, p.Right, " AND ")
	case *logql.Or:
		return f.both(p.Left, p.Right, " OR ")
	case *logql.StringPredicate:
		v := f.label(p.Matcher.Name)
		switch {
		case !v.known:
			return "", nil, false
		case v.ofStreams:
			return f.ofStreams(p.Matcher)
		}
		switch p.Matcher.Op {
		case logql.Equal:
			return v.sql + " = " + f.s.text(p.Matcher.Value), v.sure, true
		case logql.NotEqual:
			return v.sql + " != " + f.s.text(p.Matcher.Value), v.sure, true
		}
		holds, sure, ok := f.match(v.sql, p.Matcher.Value, true)
		if p.Matcher.Op == logql.NotRegexp {
			holds = "NOT " + holds
		}
		return holds, append(slices.Clone(v.sure), sure...), ok
	case *logql.NumberPredicate:
		v := f.label(p.Name)
		if !v.known {
			return "", nil, false
		}
		op := [...]string{"=", "!=", ">", ">=", "<", "<="}[p.Op]
		return v.sql + " != '' AND toFloat64OrZero(" + v.sql + ") " + op + " " + f.s.float(p.Value),
			append(slices.Clone(v.sure), "("+v.sql+" = '' OR "+isNumber(v.sql)+")"), true
	}
	return "", nil, false
}

// ofStreams is when a matcher holds for a label that every stream has.
func (f *sift) ofStreams(m logql.Matcher) (holds string, sure []string, ok bool) {
	selector, err := pipeline.NewSelector([]logql.Matcher{m})
	if err != nil {
		return "", nil, false
	}
	var ids []uint64
	for _, id := range slices.Sorted(maps.Keys(f.streams)) {
		if selector.Matches(f.streams[id].labels) {
			ids = append(ids, id)
		}
	}
	return "stream_id IN " + f.s.ids(ids), nil, true
}

func (f *sift) both(left, right logql.Predicate, op string) (holds string, sure []string, ok bool) {
	l, lSure, lOK := f.predicate(left)
	r, rSure, rOK := f.predicate(right)
	return "((" + l + ")" + op + "(" + r + "))", append(slices.Clone(lSure), rSure...), lOK && rOK
}

// hint is what holds for every row for which a label filter does, whatever the parser before it: the value that a label has to
// have stands somewhere in the row, unless it is escaped there.
func (f *sift) hint(p logql.Predicate) []string {
	switch p := p.(type) {
	case *logql.And:
		return append(f.hint(p.Left), f.hint(p.Right)...)
	case *logql.StringPredicate:
		m := p.Matcher
		_, isRenamed := f.renamed[m.Name]
		if m.Op != logql.Equal || len(m.Value) < 3 || !f.line || isRenamed || f.gone[m.Name] || strings.HasPrefix(m.Name, "_") || m.Name == pipeline.LevelLabel ||
			!utf8.ValidString(m.Value) || strings.ContainsRune(m.Value, utf8.RuneError) || strings.ContainsAny(m.Value, `\"`) {
			return nil
		}
		for _, of := range f.streams {
			if valueOf(of.labels, m.Name) != "" {
				return nil
			}
		}
		text := f.s.text(m.Value)
		places := "has(mapValues(metadata), " + text + ")"
		if f.json || f.unknown {
			places += " OR position(msg, " + text + `) > 0 OR position(msg, '\\') > 0`
		}
		return []string{"(" + places + ")"}
	}
	return nil
}

func (f *sift) labelFormat(stage *logql.LabelFormat) {
	f.intact = false
	made := map[string]value{}
	for _, l := range stage.Labels {
		if l.IsTemplate {
			made[l.Label] = value{}
			f.mayFail()
			continue
		}
		// A source that is not there leaves both as they are, which takes more than a value to say.
		made[l.Label], made[l.Source] = value{}, value{}
	}
	for name, v := range made {
		f.renamed[name] = v
		delete(f.gone, name)
		if f.kept != nil {
			f.kept = append(f.kept, name)
		}
	}
}

func (f *sift) drop(stage *logql.Drop) {
	for _, l := range stage.Labels {
		switch {
		case l.Name == pipeline.ErrorLabel || l.Name == pipeline.DetailsLabel:
		case l.Matcher != nil:
			f.renamed[l.Name], f.intact = value{}, false
		default:
			f.gone[l.Name] = true
		}
	}
}

func (f *sift) keep(stage *logql.Keep) {
	var kept []string
	for _, l := range stage.Labels {
		if f.kept != nil && !slices.Contains(f.kept, l.Name) {
			continue
		}
		kept = append(kept, l.Name)
		if l.Matcher != nil && l.Name != pipeline.ErrorLabel {
			f.renamed[l.Name], f.intact = value{}, false
		}
	}
	f.kept = append([]string{}, kept...)
}

// contains are texts that every line has that the pipeline keeps.
func contains(stages []logql.Stage) []string {
	var texts []string
	for _, stage := range stages {
		switch stage := stage.(type) {
		case *logql.LineFilter:
			if stage.Op == logql.LineContains && len(stage.Alternatives) == 1 && !stage.Alternatives[0].IP && stage.Alternatives[0].Value != "" {
				texts = append(texts, stage.Alternatives[0].Value)
			}
		case *logql.LineFormat, *logql.Decolorize, *logql.Unpack:
			return texts
		}
	}
	return texts
}
