package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unsafe"

	"github.com/casteloig/logthra/gateway/logql"
)

// regexpParser is | regexp: it makes labels of the named groups of the first match. One that took no part in it is an empty label. A line that does not
// match has none of the labels, and no error.
type regexpParser struct {
	re       *regexp.Regexp
	required []byte // what is in every line that matches
	groups   []group
}

type group struct {
	label string
	index int
}

func newRegexpParser(expression string) (*regexpParser, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, err
	}
	p := &regexpParser{re: re, required: analyze(expression, 0).required}
	seen := map[string]bool{}
	for i, name := range re.SubexpNames() {
		if name == "" {
			continue
		}
		if seen[name] {
			return nil, fmt.Errorf("duplicate extracted label name '%s'", name)
		}
		seen[name] = true
		p.groups = append(p.groups, group{string(appendLabelName(nil, name, true)), i})
	}
	if len(p.groups) == 0 {
		return nil, errors.New("at least one named capture must be supplied")
	}
	return p, nil
}

func (p *regexpParser) process(e *entry) bool {
	if !bytes.Contains(e.line, p.required) {
		return true
	}
	match := p.re.FindSubmatchIndex(e.line)
	if match == nil {
		return true
	}
	for _, g := range p.groups {
		value := ""
		if from := match[2*g.index]; from >= 0 {
			value = view(e.line[from:match[2*g.index+1]])
		}
		e.labels.extract(g.label, value, false)
	}
	return true
}

// patternParser is | pattern: it makes labels of what stands between pieces of text.
//
// Text at the beginning of the pattern has to be the beginning of the line, or there are no labels; an empty line has none, either. A capture is all up to where the text
// behind it is found first, or up to the end of the line if it is not found or there is none; with that the parser is done. What stands behind the last text does not matter.
type patternParser struct{ parts []logql.PatternPart }

func newPatternParser(pattern string) (*patternParser, error) {
	parts, err := logql.ParsePattern(pattern)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		if part.IsCapture && part.Capture != "_" {
			return &patternParser{parts}, nil
		}
	}
	return nil, errors.New("at least one capture is required")
}

func (p *patternParser) process(e *entry) bool {
	rest, parts := e.line, p.parts
	if len(rest) == 0 {
		return true
	}
	if !parts[0].IsCapture {
		text := parts[0].Literal
		if len(rest) < len(text) || view(rest[:len(text)]) != text {
			return true
		}
		rest, parts = rest[len(text):], parts[1:]
	}
	for len(parts) > 0 {
		end, next := len(rest), len(rest)
		isLast := true
		if len(parts) > 1 {
			if i := strings.Index(view(rest), parts[1].Literal); i >= 0 {
				end, next, isLast = i, i+len(parts[1].Literal), false
			}
		}
		if name := parts[0].Capture; name != "_" {
			e.labels.extract(name, view(rest[:end]), false)
		}
		if isLast {
			break
		}
		rest, parts = rest[next:], parts[2:]
	}
	return true
}

// entryMember is the member of what Promtail's pack stage writes that holds the line as it was.
const entryMember = "_entry"

// unpacker is | unpack: where the line is a JSON object that has a string _entry, it makes labels of all other members that are strings, and
// that string the line. What else is an object stays as it is; an empty line, too. A line that is no object as jsonParser wants it sets __error__ to JSONParserErr.
type unpacker struct{ scanner jsonScanner }

func (u *unpacker) process(e *entry) bool {
	if len(e.line) == 0 {
		return true
	}
	s := &u.scanner
	s.begin(e)
	packed, isPacked, ok := s.packed()
	if !ok {
		e.labels.fail(JSONParserErr, s.reason, s.at)
		return true
	}
	if !isPacked {
		return true
	}
	for _, f := range s.fields {
		e.labels.extract(f.name, f.value, false)
	}
	e.line = unsafe.Slice(unsafe.StringData(packed), len(packed))
	return true
}

// packed gathers the members of the line that are strings, and finds the first that is the line that was packed.
func (s *jsonScanner) packed() (line string, isPacked, ok bool) {
	if s.peek() != '{' {
		return "", false, s.fail("no JSON object: want '{'", s.pos)
	}
	s.pos++
	if s.peek() == '}' {
		s.pos++
		return "", false, s.end()
	}
	for {
		name, isInLine, ok := s.member()
		if !ok {
			return "", false, false
		}
		if s.peek() != '"' {
			if !s.skip(1) {
				return "", false, false
			}
		} else {
			raw, isEscaped, ok := s.str()
			switch label := view(name); {
			case !ok:
				return "", false, false
			case label == entryMember && !isPacked:
				line, isPacked = s.labels.jsonText(raw, isEscaped), true
			case label != entryMember && label != "":
				if !isInLine {
					label = s.labels.hold(label)
				}
				s.fields = append(s.fields, field{label, s.labels.jsonText(raw, isEscaped)})
			}
		}
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return line, isPacked, s.end()
		default:
			return "", false, s.fail("want ',' or '}'", s.pos)
		}
	}
}
