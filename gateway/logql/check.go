package logql

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp/syntax"
	"slices"
	"strings"
	"text/template/parse"
)

// maxInstructions bounds the regular expressions of a query, all of them together: instructions of the program that they compile to.
// A text of 100 KB is one of as many. A class of Unicode counts for many, since it is a table of hundreds of ranges.
const (
	maxInstructions   = 200_000
	classInstructions = 1000
)

// checkRegexp tells whether a regular expression can be compiled, and cheaply so.
func (p *parser) checkRegexp(s string) error {
	_, err := p.parseRegexp(s)
	return err
}

func (p *parser) parseRegexp(s string) (*syntax.Regexp, error) {
	if !p.affords(classInstructions * (strings.Count(s, `\p`) + strings.Count(s, `\P`))) {
		return nil, fmt.Errorf("error parsing regexp: expression too large: it has too many classes of Unicode: `%s`", shorten(s))
	}
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		if e, ok := errors.AsType[*syntax.Error](err); ok {
			return nil, fmt.Errorf("error parsing regexp: %s: `%s`", e.Code, shorten(e.Expr))
		}
		return nil, err
	}
	if !p.affords(instructions(re, maxInstructions)) {
		return nil, fmt.Errorf("error parsing regexp: expression too large: it has too many repetitions: `%s`", shorten(s))
	}
	return re, nil
}

// affords counts instructions, and tells whether there may be so many.
func (p *parser) affords(n int) bool {
	p.instructions += n
	return p.instructions <= maxInstructions
}

// instructions estimates how many there are in the program of an expression. Beyond most it does not count on.
func instructions(re *syntax.Regexp, most int) int {
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpRepeat:
		return (instructions(re.Sub[0], most) + 1) * max(re.Min, re.Max, 1)
	}
	n := 1
	if re.Op == syntax.OpAlternate {
		n = len(re.Sub)
	}
	for _, sub := range re.Sub {
		if n += instructions(sub, most); n > most {
			break
		}
	}
	return n
}

// checkNamedRegexp tells whether a regular expression can make labels.
func (p *parser) checkNamedRegexp(s string) error {
	re, err := p.parseRegexp(s)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, name := range re.CapNames() {
		switch {
		case name == "":
			continue
		case !isIdentifier(name):
			return fmt.Errorf("invalid extracted label name '%s'", shorten(name))
		case seen[name]:
			return fmt.Errorf("duplicate extracted label name '%s'", shorten(name))
		}
		seen[name] = true
	}
	if len(seen) == 0 {
		return errors.New("at least one named capture must be supplied, as (?P<name>…)")
	}
	return nil
}

// checkNamedPattern tells whether a pattern can make labels.
func checkNamedPattern(s string) error {
	parts, err := ParsePattern(s)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if part.IsCapture && part.Capture != "_" {
			return nil
		}
	}
	return errors.New("at least one capture is required, as <name>")
}

// checkLinePattern tells whether a pattern can be looked for in lines.
func checkLinePattern(s string) error {
	parts, err := ParsePattern(s)
	if err != nil {
		return fmt.Errorf("invalid pattern filter: %w", err)
	}
	for _, part := range parts {
		if part.IsCapture && part.Capture != "_" {
			return fmt.Errorf("invalid pattern filter: named captures are not allowed: <%s> has to be <_>", shorten(part.Capture))
		}
	}
	return nil
}

// checkTemplate tells whether the syntax of a template is right. Which functions there are is not looked at.
func checkTemplate(s string) error {
	t := parse.New("")
	t.Mode = parse.SkipFuncCheck
	_, err := t.Parse(s, "", "", map[string]*parse.Tree{})
	if err != nil {
		return errors.New("line " + strings.TrimPrefix(err.Error(), "template: :"))
	}
	return nil
}

// checkIP tells whether s is an address, a range of them or a CIDR.
func checkIP(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	from, to, ok := strings.Cut(s, "-")
	first, err := netip.ParseAddr(strings.TrimSpace(from))
	last, lastErr := netip.ParseAddr(strings.TrimSpace(to))
	if !ok || err != nil || lastErr != nil || first.Is4() != last.Is4() {
		return fmt.Errorf(`invalid ip pattern %s: it is no address ("10.0.0.1"), no range ("10.0.0.1-10.0.0.9") and no CIDR ("10.0.0.0/8")`, quoteShort(s))
	}
	if last.Less(first) {
		return fmt.Errorf("invalid ip pattern %s: the range ends before it begins", quoteShort(s))
	}
	return nil
}

// matchEmpty tells whether all matchers hold for the empty string, and so for streams that have none of the labels.
func matchEmpty(matchers []Matcher) bool {
	for _, m := range matchers {
		switch m.Op {
		case Equal:
			if m.Value != "" {
				return false
			}
		case NotEqual:
			if m.Value == "" {
				return false
			}
		case Regexp, NotRegexp:
			re, err := syntax.Parse(m.Value, syntax.Perl)
			if err != nil || isNullable(re) != (m.Op == Regexp) {
				return false
			}
		}
	}
	return true
}

// isNullable tells whether an expression matches the empty string.
func isNullable(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpNoWordBoundary,
		syntax.OpStar, syntax.OpQuest:
		return true
	case syntax.OpCapture, syntax.OpPlus:
		return isNullable(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min == 0 || isNullable(re.Sub[0])
	case syntax.OpConcat:
		return !slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return !isNullable(sub) })
	case syntax.OpAlternate:
		return slices.ContainsFunc(re.Sub, isNullable)
	default:
		return false
	}
}
