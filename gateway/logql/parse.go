package logql

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// What a query may be at most.
const (
	maxQueryBytes = 128 << 10
	maxDepth      = 256 // parentheses and functions within each other
)

// ParseError is a query that is no LogQL. Line and Column count from 1; the column counts characters.
type ParseError struct {
	Line, Column int
	Reason       string
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("parse error at line %d, col %d: %s", e.Line, e.Column, e.Reason)
}

// Parse reads a query, of at most 128 KiB, in which at most 256 parentheses and functions are within each other. Everything in it that
// can be checked without data is checked: regular expressions, patterns, the syntax of templates, addresses, and which
// function takes what. The error is a *ParseError.
func Parse(query string) (Expr, error) {
	p, err := newParser(query)
	if err != nil {
		return nil, err
	}
	var e Expr
	if p.is(variants) {
		e = p.variants()
	} else {
		e = p.expression(1)
	}
	if p.tok.kind != end {
		p.unexpected("an operator or the end")
	}
	if p.err != nil {
		return nil, p.err
	}
	return e, nil
}

// ParseSelector reads the matchers of streams: {app="api", env=~"prod|dev"}. Unlike those of a query, they may all match the empty
// string, and {} has none. The error is a *ParseError.
func ParseSelector(query string) ([]Matcher, error) {
	p, err := newParser(query)
	if err != nil {
		return nil, err
	}
	matchers := p.selector()
	if p.tok.kind != end {
		p.unexpected("the end")
	}
	if p.err != nil {
		return nil, p.err
	}
	return matchers, nil
}

// parser reads a query by recursive descent, one word ahead. With the first error it comes to the end of the query, so that
// whoever reads lists ends, and what is returned after that is of no meaning.
type parser struct {
	lexer

	tok          token // the word that is looked at
	err          error
	depth        int
	instructions int // of the regular expressions so far
}

func newParser(query string) (*parser, error) {
	p := &parser{lexer: lexer{src: query}}
	switch {
	case len(query) > maxQueryBytes:
		p.src = ""
		p.fail(0, "the query is too long: %d bytes, at most %d are read", len(query), maxQueryBytes)
	case !utf8.ValidString(query):
		valid := 0
		for r, n := utf8.DecodeRuneInString(query); r != utf8.RuneError || n > 1; r, n = utf8.DecodeRuneInString(query[valid:]) {
			valid += n
		}
		p.fail(valid, "the query is not UTF-8: byte 0x%02x", query[valid])
	default:
		p.advance()
	}
	return p, p.err
}

// advance goes on to the next word.
func (p *parser) advance() {
	p.tok = p.next()
	if p.tok.kind == bad {
		p.fail(p.tok.at, "%s", p.tok.text)
	}
}

// ahead is the word behind the one that is looked at.
func (p *parser) ahead() token {
	l := p.lexer
	return l.next()
}

// fail says what is wrong with the query at a byte of it, unless something before was.
func (p *parser) fail(at int, format string, args ...any) {
	if p.err == nil {
		before := p.src[:at]
		line := strings.LastIndexByte(before, '\n') + 1
		p.err = &ParseError{
			Line:   strings.Count(before, "\n") + 1,
			Column: utf8.RuneCountInString(before[line:]) + 1,
			Reason: fmt.Sprintf(format, args...),
		}
	}
	p.pos = len(p.src)
	p.tok = token{at: p.pos}
}

// unexpected says that the word that is looked at can't stand there, and what can.
func (p *parser) unexpected(expected string) {
	p.fail(p.tok.at, "syntax error: unexpected %s, expecting %s", p.tok, expected)
}

// is tells whether a symbol, a keyword or a flag is looked at.
func (p *parser) is(text string) bool { return isWord(p.tok, text) }

func isWord(t token, text string) bool {
	return t.text == text && (t.kind == symbol || t.kind == identifier || t.kind == flag)
}

// take goes over a symbol, a keyword or a flag, if that is looked at.
func (p *parser) take(text string) bool {
	if !p.is(text) {
		return false
	}
	p.advance()
	return true
}

// expect goes over what has to be there.
func (p *parser) expect(text string) {
	if !p.take(text) {
		p.unexpected(text)
	}
}

// name is an identifier.
func (p *parser) name(expected string) string {
	if p.tok.kind != identifier {
		p.unexpected(expected)
		return ""
	}
	name := p.tok.text
	p.advance()
	return name
}

// text is a string, and where it begins.
func (p *parser) text(expected string) (value string, at int) {
	if p.tok.kind != str {
		p.unexpected(expected)
		return "", p.tok.at
	}
	value, at = p.tok.value, p.tok.at
	p.advance()
	return value, at
}

// enter goes a level deeper, which leave ends. It is false where that is too deep.
func (p *parser) enter() bool {
	p.depth++
	if p.depth > maxDepth {
		p.fail(p.tok.at, "the query is nested too deeply: at most %d parentheses and functions may be within each other", maxDepth)
	}
	return p.err == nil
}

func (p *parser) leave() { p.depth-- }

// labels are the names in parentheses.
func (p *parser) labels() []string {
	p.expect("(")
	if p.take(")") {
		return nil
	}
	var labels []string
	for {
		labels = append(labels, p.name("the name of a label"))
		if !p.take(",") {
			break
		}
	}
	p.expect(")")
	return labels
}
