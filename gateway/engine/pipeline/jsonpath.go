package pipeline

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/logql"
)

// PathStep is a step into a JSON value: to a member of an object, or to an element of an array.
type PathStep struct {
	Name    string
	Index   int // from 0
	IsIndex bool
}

// ParseJSONPath reads an expression of | json: names with dots between them, of which each may have indexes behind it, and ["name"] for
// names that are no identifiers: request.headers["user-agent"][0].
func ParseJSONPath(path string) ([]PathStep, error) {
	var steps []PathStep
	for rest := path; rest != "" || len(steps) == 0; {
		var step PathStep
		var err error
		if step, rest, err = nextStep(rest, len(steps) == 0); err != nil {
			return nil, fmt.Errorf("cannot parse expression [%s]: %w", path, err)
		}
		steps = append(steps, step)
	}
	return steps, nil
}

func nextStep(s string, isFirst bool) (step PathStep, rest string, err error) {
	if inside, ok := strings.CutPrefix(s, "["); ok {
		if strings.HasPrefix(inside, `"`) {
			quoted, err := strconv.QuotedPrefix(inside)
			if err != nil {
				return step, "", errors.New("a quoted name has no end, or a bad escape")
			}
			inside = inside[len(quoted):]
			step.Name, _ = strconv.Unquote(quoted)
		} else {
			end := 0
			for end < len(inside) && isDigit(inside[end]) {
				end++
			}
			if end == 0 {
				return step, "", errors.New(`want an index or a quoted name behind "["`)
			}
			if step.Index, err = strconv.Atoi(inside[:end]); err != nil {
				return step, "", err
			}
			step.IsIndex = true
			inside = inside[end:]
		}
		rest, ok := strings.CutPrefix(inside, "]")
		if !ok {
			return step, "", errors.New(`want "]"`)
		}
		return step, rest, nil
	}
	if !isFirst {
		var ok bool
		if s, ok = strings.CutPrefix(s, "."); !ok {
			return step, "", fmt.Errorf("unexpected char %s", firstChar(s))
		}
	}
	end := 0
	for end < len(s) && nameByte[s[end]] {
		end++
	}
	if step.Name = s[:end]; !isLabelName(step.Name) {
		return step, "", fmt.Errorf("want a name, got %q", s)
	}
	return step, s[end:], nil
}

func firstChar(s string) string {
	_, size := utf8.DecodeRuneInString(s)
	return s[:size]
}

// jsonPaths is | json with expressions: it makes a label of each value that is named.
//
// The line has to be a JSON object or array, else as for jsonParser; otherwise no label is made, but __error__ is JSONParserErr. What is named and
// not there is an empty label, and so is null; an object or array is the text as it stands in the line. Of members of the same name the first counts.
type jsonPaths struct {
	labels  []string
	paths   [][]PathStep
	scanner jsonScanner
}

func newJSONPaths(extractions []logql.Extraction) (*jsonPaths, error) {
	p := &jsonPaths{}
	for _, x := range extractions {
		path, err := ParseJSONPath(x.Expression)
		if err != nil {
			return nil, err
		}
		p.labels, p.paths = append(p.labels, x.Label), append(p.paths, path)
	}
	return p, nil
}

func (p *jsonPaths) process(e *entry) bool {
	s := &p.scanner
	s.begin(e)
	if c := s.peek(); c != '{' && c != '[' {
		s.fail("no JSON object: want '{'", s.pos)
		e.labels.fail(JSONParserErr, s.reason, s.at)
		return true
	}
	if !s.skip(0) || !s.end() {
		e.labels.fail(JSONParserErr, s.reason, s.at)
		return true
	}
	for i, path := range p.paths {
		s.pos = 0
		value := ""
		if s.walk(path) {
			value = s.text()
		}
		e.labels.extract(p.labels[i], value, true)
	}
	return true
}

// walk goes to the value that a path names, in a line that has been checked, and tells whether there is one.
func (s *jsonScanner) walk(path []PathStep) bool {
	for _, step := range path {
		opening := byte('{')
		if step.IsIndex {
			opening = '['
		}
		if s.peek() != opening {
			return false
		}
		s.pos++
		for i := 0; ; i++ {
			if c := s.peek(); c == '}' || c == ']' {
				return false
			}
			isIt := step.IsIndex && i == step.Index
			if !step.IsIndex {
				raw, isEscaped, _ := s.str()
				isIt = s.labels.jsonText(raw, isEscaped) == step.Name
				s.colon()
			}
			if isIt {
				break
			}
			s.skip(0)
			if s.peek() == ',' {
				s.pos++
			}
		}
	}
	return true
}

// text is the value that follows, in a line that has been checked.
func (s *jsonScanner) text() string {
	switch c := s.peek(); c {
	case '"':
		raw, isEscaped, _ := s.str()
		return s.labels.jsonText(raw, isEscaped)
	case 'n':
		return ""
	}
	from := s.pos
	s.skip(0)
	raw := s.data[from:s.pos]
	if !utf8.Valid(raw) {
		return string([]rune(string(raw)))
	}
	return view(raw)
}
