package logql

import "fmt"

var matchOps = map[string]MatchOp{"=": Equal, "!=": NotEqual, "=~": Regexp, "!~": NotRegexp}

var lineOps = map[string]LineOp{
	"|=": LineContains, "!=": LineNotContains, "|~": LineMatches, "!~": LineNotMatches, "|>": LinePatternIs, "!>": LinePatternNot,
}

var compareOps = map[string]CompareOp{
	"==": CompareEqual, "=": CompareEqual, "!=": CompareNotEqual,
	">": CompareGreater, ">=": CompareGreaterOrEqual, "<": CompareLess, "<=": CompareLessOrEqual,
}

// selector reads {…}.
func (p *parser) selector() []Matcher {
	p.expect("{")
	var matchers []Matcher
	if !p.take("}") {
		for {
			matchers = append(matchers, p.matcher(p.name("the name of a label")))
			if !p.take(",") {
				break
			}
		}
		if !p.take("}") {
			p.unexpected("} or ,")
		}
	}
	return matchers
}

// matcher reads what a label is compared with.
func (p *parser) matcher(name string) Matcher {
	op, ok := matchOps[p.tok.text]
	if !ok || p.tok.kind != symbol {
		p.unexpected("= or != or =~ or !~")
		return Matcher{}
	}
	p.advance()
	return p.match(name, op)
}

func (p *parser) match(name string, op MatchOp) Matcher {
	value, at := p.text("a string")
	if op == Regexp || op == NotRegexp {
		if err := p.checkRegexp(value); err != nil {
			p.fail(at, "%v", err)
		}
	}
	return Matcher{Name: name, Op: op, Value: value}
}

// pipeline reads a selector and the stages behind it, and where r is of a metric query, its range.
func (p *parser) pipeline(r *logRange) {
	at := p.tok.at
	r.log.Matchers = p.selector()
	if p.err == nil && matchEmpty(r.log.Matchers) {
		p.fail(at, "queries require at least one regexp or equality matcher that does not have an empty-compatible value. "+
			`For instance, app=~".*" does not meet this requirement, but app=~".+" will`)
	}
	p.stages(r)
}

// stages reads stages as long as there are, and a range between or behind them.
func (p *parser) stages(r *logRange) {
	for {
		switch {
		case p.is("["):
			if !r.isMetric {
				p.fail(p.tok.at, "syntax error: unexpected [: a range is for metric queries, as count_over_time({…}[5m])")
			}
			p.window(r)
		case p.isLineFilter():
			p.addStage(r, p.lineFilter(), p.tok.at)
		case p.is("|"):
			at := p.tok.at
			p.advance()
			if p.is("unwrap") && !p.isCompared() {
				p.unwrap(r)
				continue
			}
			p.addStage(r, p.stage(), at)
		default:
			return
		}
	}
}

func (p *parser) isLineFilter() bool {
	_, ok := lineOps[p.tok.text]
	return ok && p.tok.kind == symbol
}

// addStage appends a stage to the pipeline, or behind an unwrap to its filters.
func (p *parser) addStage(r *logRange, s Stage, at int) {
	if r.unwrap == nil {
		r.log.Stages = append(r.log.Stages, s)
		return
	}
	filter, ok := s.(*LabelFilter)
	if !ok {
		p.fail(at, "only label filters can follow unwrap, such as | __error__=\"\"")
	}
	r.unwrap.Filters = append(r.unwrap.Filters, filter)
}

// unwrap reads what is behind | .
func (p *parser) unwrap(r *logRange) {
	at := p.tok.at
	switch {
	case !r.isMetric:
		p.fail(at, "syntax error: unexpected unwrap: it is for metric queries, as sum_over_time({…} | unwrap took [5m])")
	case r.unwrap != nil:
		p.fail(at, "syntax error: unexpected unwrap: there is one already")
	}
	p.advance()
	u := &Unwrap{}
	nameAt := p.tok.at
	u.Label = p.name("the name of a label, or a conversion")
	if p.take("(") {
		u.Conversion = Conversion(u.Label)
		switch u.Conversion {
		case Bytes, Duration, DurationSeconds:
		default:
			p.fail(nameAt, "%s is no conversion of unwrap: there are bytes, duration and duration_seconds", quoteShort(u.Label))
		}
		u.Label = p.name("the name of a label")
		p.expect(")")
	}
	r.unwrap, r.unwrapAt = u, at
}

// isCompared tells whether what is looked at is a label, because it is compared with something, though it may be the name of a stage,
// too. Behind a stage that may stand alone, != and !~ begin a line filter.
func (p *parser) isCompared() bool {
	next := p.ahead()
	if next.kind != symbol {
		return false
	}
	switch next.text {
	case "!=", "!~":
		return !standsAlone(p.tok.text)
	case "=", "==", "=~", ">", ">=", "<", "<=":
		return true
	default:
		return false
	}
}

// standsAlone tells whether there is a stage of this name that needs nothing behind it.
func standsAlone(name string) bool {
	switch name {
	case "json", "logfmt", "unpack", "decolorize":
		return true
	default:
		return false
	}
}

// isStage tells whether there is a stage of this name.
func isStage(name string) bool {
	switch name {
	case "regexp", "pattern", "line_format", "label_format", "drop", "keep", "unwrap":
		return true
	default:
		return standsAlone(name)
	}
}

// stage reads what is behind | .
func (p *parser) stage() Stage {
	if p.tok.kind == identifier && !p.isCompared() {
		switch p.tok.text {
		case "json":
			p.advance()
			return &JSON{Labels: p.extractions()}
		case "logfmt":
			p.advance()
			return p.logfmt()
		case "regexp":
			p.advance()
			return p.regexpParser()
		case "pattern":
			p.advance()
			return p.patternParser()
		case "unpack":
			p.advance()
			return &Unpack{}
		case "line_format":
			p.advance()
			return &LineFormat{Template: p.template()}
		case "label_format":
			p.advance()
			return p.labelFormat()
		case "decolorize":
			p.advance()
			return &Decolorize{}
		case "drop":
			p.advance()
			return &Drop{Labels: p.labelMatches()}
		case "keep":
			p.advance()
			return &Keep{Labels: p.labelMatches()}
		}
	}
	return &LabelFilter{Predicate: p.predicate(nil)}
}

func (p *parser) lineFilter() *LineFilter {
	f := &LineFilter{Op: lineOps[p.tok.text]}
	p.advance()
	for {
		f.Alternatives = append(f.Alternatives, p.linePattern(f.Op))
		if !p.take("or") {
			return f
		}
	}
}

func (p *parser) linePattern(op LineOp) LinePattern {
	if p.is("ip") {
		if op != LineContains && op != LineNotContains {
			p.fail(p.tok.at, "syntax error: unexpected ip: it goes with |= and != only")
		}
		return LinePattern{IP: true, Value: p.ip()}
	}
	value, at := p.text("a string or ip(…)")
	var err error
	switch op {
	case LineMatches, LineNotMatches:
		err = p.checkRegexp(value)
	case LinePatternIs, LinePatternNot:
		err = checkLinePattern(value)
	}
	if err != nil {
		p.fail(at, "%v", err)
	}
	return LinePattern{Value: value}
}

// ip reads ip("…").
func (p *parser) ip() string {
	p.advance()
	p.expect("(")
	value, at := p.text("an address, a range of them or a CIDR, as a string")
	p.expect(")")
	if err := checkIP(value); err != nil {
		p.fail(at, "%v", err)
	}
	return value
}

// extractions are the labels of | json and | logfmt, if they are named.
func (p *parser) extractions() []Extraction {
	if p.tok.kind != identifier {
		return nil
	}
	var list []Extraction
	for {
		at := p.tok.at
		name := p.name("the name of a label")
		e := Extraction{Label: name, Expression: name}
		if p.take("=") {
			e.Expression, _ = p.text("a string: what of the line becomes the label")
		} else if isStage(name) {
			p.failStage(name, at)
		}
		list = append(list, e)
		if !p.take(",") {
			return list
		}
	}
}

// failStage says that | is missing before a stage, whose name begins there.
func (p *parser) failStage(name string, at int) {
	p.fail(at, "syntax error: unexpected %s: a stage has | before it", name)
}

func (p *parser) logfmt() *Logfmt {
	l := &Logfmt{}
	for p.tok.kind == flag {
		switch p.tok.text {
		case "--strict":
			l.Strict = true
		case "--keep-empty":
			l.KeepEmpty = true
		default:
			p.unexpected("--strict or --keep-empty")
		}
		p.advance()
	}
	l.Labels = p.extractions()
	return l
}

func (p *parser) regexpParser() *RegexpParser {
	value, at := p.text("a regular expression, as a string")
	if err := p.checkNamedRegexp(value); err != nil {
		p.fail(at, "invalid regexp parser: %v", err)
	}
	return &RegexpParser{Expression: value}
}

func (p *parser) patternParser() *PatternParser {
	value, at := p.text("a pattern, as a string")
	if err := checkNamedPattern(value); err != nil {
		p.fail(at, "invalid pattern parser: %v", err)
	}
	return &PatternParser{Pattern: value}
}

// template reads a string that is one of text/template, whatever its functions.
func (p *parser) template() string {
	value, at := p.text("a template, as a string")
	if err := checkTemplate(value); err != nil {
		p.fail(at, "invalid template, %v", err)
	}
	return value
}

func (p *parser) labelFormat() *LabelFormat {
	f := &LabelFormat{}
	seen := map[string]bool{}
	for {
		at := p.tok.at
		l := LabelFormatting{Label: p.name("the name of a label")}
		if seen[l.Label] {
			p.fail(at, "multiple label name '%s' not allowed in a single format operation", shorten(l.Label))
		}
		seen[l.Label] = true
		p.expect("=")
		if p.tok.kind == str {
			l.IsTemplate, l.Template = true, p.template()
		} else {
			l.Source = p.name("the name of a label, or a template as a string")
		}
		f.Labels = append(f.Labels, l)
		if !p.take(",") {
			return f
		}
	}
}

// labelMatches are the labels of | drop and | keep.
func (p *parser) labelMatches() []LabelMatch {
	var list []LabelMatch
	for {
		l := LabelMatch{Name: p.name("the name of a label")}
		if _, ok := matchOps[p.tok.text]; ok && p.tok.kind == symbol {
			m := p.matcher(l.Name)
			l.Matcher = &m
		}
		list = append(list, l)
		if !p.take(",") {
			return list
		}
	}
}

// predicate reads conditions on labels: and binds more than or. What a comma or nothing at all joins is read as Loki does: all that
// follows is the other side, so that a, b or c is a and (b or c). first is the first condition, if that has been read.
func (p *parser) predicate(first Predicate) Predicate {
	left := p.conjunction(first)
	for p.take("or") {
		left = &Or{Left: left, Right: p.conjunction(nil)}
	}
	return left
}

func (p *parser) conjunction(first Predicate) Predicate {
	left := p.joined(first)
	for p.take("and") {
		left = &And{Left: left, Right: p.joined(nil)}
	}
	return left
}

// joined reads a condition and what a comma or nothing joins to it. A tree of it may need parentheses when it is printed, and so
// counts as deep as those.
func (p *parser) joined(first Predicate) Predicate {
	left := first
	if left == nil {
		left = p.condition()
	}
	if !p.isJoined() {
		return left
	}
	defer p.leave()
	if !p.enter() {
		return left
	}
	for p.isJoined() {
		p.take(",")
		right := p.condition()
		if p.is("and") || p.is("or") {
			if p.enter() {
				right = p.predicate(right)
			}
			p.leave()
		}
		left = &And{Left: left, Right: right}
	}
	return left
}

// isJoined tells whether a condition follows behind a comma or nothing.
func (p *parser) isJoined() bool {
	return p.is(",") || p.is("(") || p.tok.kind == identifier && !p.is("and") && !p.is("or")
}

// condition reads one comparison, or conditions in parentheses.
func (p *parser) condition() Predicate {
	if p.is("(") {
		p.advance()
		var inner Predicate
		if p.enter() {
			inner = p.predicate(nil)
		}
		p.leave()
		p.expect(")")
		return inner
	}
	if p.is("and") || p.is("or") {
		p.unexpected("a condition such as level=\"error\"")
		return nil
	}
	at := p.tok.at
	name := p.name("a stage, or a condition such as level=\"error\"")
	isSymbol, text := p.tok.kind == symbol, p.tok.text
	match, matches := matchOps[text]
	compare, compares := compareOps[text]
	if !isSymbol || !matches && !compares {
		if isStage(name) {
			p.failStage(name, at)
		}
		p.unexpected(fmt.Sprintf("= or != or =~ or !~ or > or >= or < or <= behind the label %s, since there is no stage of this name", shorten(name)))
		return nil
	}
	p.advance()
	switch {
	case p.is("ip") && (text == "=" || text == "!="):
		return &IPPredicate{Name: name, Negate: text == "!=", Value: p.ip()}
	case p.tok.kind == str && matches:
		return &StringPredicate{Matcher: p.match(name, match)}
	case !compares:
		p.unexpected("a string")
		return nil
	}
	return p.comparison(name, compare, matches)
}

// comparison reads what a label is compared with as a number.
func (p *parser) comparison(name string, op CompareOp, orString bool) Predicate {
	kind := p.tok.kind
	if p.is("-") || p.is("+") {
		kind = p.ahead().kind
	}
	switch {
	case kind == number:
		return &NumberPredicate{Name: name, Op: op, Value: p.number()}
	case kind == duration:
		return &DurationPredicate{Name: name, Op: op, Value: p.duration("a duration such as 5m")}
	case p.tok.kind == size:
		value := p.tok.size
		p.advance()
		return &BytesPredicate{Name: name, Op: op, Value: value}
	case orString:
		p.unexpected("a string, a number, a duration such as 5m, a size such as 5MB, or ip(…)")
	default:
		p.unexpected("a number, a duration such as 5m, or a size such as 5MB")
	}
	return nil
}
