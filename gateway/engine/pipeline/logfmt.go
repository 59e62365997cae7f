package pipeline

import (
	"bytes"

	"github.com/casteloig/logthra/gateway/logql"
)

// logfmtParser is | logfmt: it makes labels of pairs key=value.
//
// Pairs have bytes up to ' ' between them: spaces and control characters. A key is all up to such a byte or to =; it has no quote. A value
// begins right behind =. It is all up to a space, without quotes and =; or it stands in quotes, with the escapes of JSON strings and \', and then may hold any
// byte. A key alone, and one with nothing behind =, has an empty value, and gives no label without --keep-empty. What is not that ends a strict parser with LogfmtParserErr, and
// the labels before it stay; else all is passed over up to the next space, or, if only the escapes were wrong, to the closing quote. Of pairs of the same name the first counts.
//
// With expressions, labels are made of the keys that are named alone; of those that are missing, or have no value, they are empty.
type logfmtParser struct {
	isStrict, keepsEmpty bool
	need                 *needs

	labels, keys []string // of expressions
	values       []string // of the line, by expression
	found        []bool
	name         []byte
}

func newLogfmtParser(s *logql.Logfmt, need *needs) *logfmtParser {
	p := &logfmtParser{isStrict: s.Strict, keepsEmpty: s.KeepEmpty, need: need}
	for _, x := range s.Labels {
		p.labels = append(p.labels, x.Label)
		p.keys = append(p.keys, string(appendLabelName(nil, x.Expression, true)))
	}
	p.values, p.found = make([]string, len(p.keys)), make([]bool, len(p.keys))
	return p
}

func (p *logfmtParser) process(e *entry) bool {
	clear(p.found)
	s := logfmtScanner{data: e.line}
	for s.next() {
		if s.reason != "" {
			if p.isStrict {
				e.labels.fail(LogfmtParserErr, s.reason, s.at)
				break
			}
			continue
		}
		name, isInLine := view(s.key), true
		if !isLabelName(name) {
			p.name = appendLabelName(p.name[:0], name, true)
			name, isInLine = view(p.name), false
		}
		if p.keys != nil {
			p.fill(name, &s, e.labels)
		} else if (len(s.value) > 0 || p.keepsEmpty) && p.need.label(name) {
			if !isInLine {
				name = e.labels.hold(name)
			}
			e.labels.extract(name, s.text(e.labels), false)
		}
	}
	for i, label := range p.labels {
		if !p.found[i] {
			p.values[i] = ""
		}
		e.labels.extract(label, p.values[i], true)
	}
	return true
}

// fill gives a value to the expressions that name its key.
func (p *logfmtParser) fill(name string, s *logfmtScanner, labels *Labels) {
	for i, key := range p.keys {
		if key == name && !p.found[i] {
			p.values[i], p.found[i] = s.text(labels), true
		}
	}
}

// logfmtScanner goes over a line of logfmt, pair by pair.
type logfmtScanner struct {
	data []byte
	pos  int

	key, value []byte // the value as it stands there, without its quotes
	isEscaped  bool   // value has escapes
	reason     string // why there is no pair, but something else, which was passed over
	at         int
}

// text is what the value means.
func (s *logfmtScanner) text(labels *Labels) string {
	if !s.isEscaped {
		return view(s.value)
	}
	return labels.jsonText(s.value, true)
}

// next goes to the next pair, and tells whether there is something.
func (s *logfmtScanner) next() bool {
	for s.pos < len(s.data) && s.data[s.pos] <= ' ' {
		s.pos++
	}
	if s.pos == len(s.data) {
		return false
	}
	s.reason, s.value, s.isEscaped = "", nil, false
	from := s.pos
	for s.pos < len(s.data) && s.data[s.pos] > ' ' && s.data[s.pos] != '=' && s.data[s.pos] != '"' {
		s.pos++
	}
	s.key = s.data[from:s.pos]
	if s.pos == len(s.data) || s.data[s.pos] <= ' ' {
		return true
	}
	if s.data[s.pos] == '"' || s.pos == from {
		return s.unexpected()
	}
	s.pos++
	if s.pos < len(s.data) && s.data[s.pos] == '"' {
		return s.quoted()
	}
	from = s.pos
	for s.pos < len(s.data) && s.data[s.pos] > ' ' {
		if c := s.data[s.pos]; c == '=' || c == '"' {
			return s.unexpected()
		}
		s.pos++
	}
	s.value = s.data[from:s.pos]
	return true
}

// unexpected passes over what is no pair, up to the next space.
func (s *logfmtScanner) unexpected() bool {
	s.reason, s.at = "no logfmt: unexpected '='", s.pos
	if s.data[s.pos] == '"' {
		s.reason = "no logfmt: unexpected '\"'"
	}
	for s.pos < len(s.data) && s.data[s.pos] > ' ' {
		s.pos++
	}
	return true
}

// quoted reads a value at its quote.
func (s *logfmtScanner) quoted() bool {
	from := s.pos + 1
	isBad := false
	for i := from; ; {
		n := bytes.IndexAny(s.data[i:], `"\`)
		if n < 0 || s.data[i+n] == '\\' && i+n+1 == len(s.data) {
			s.reason, s.at, s.pos = "no logfmt: a quoted value has no end", from-1, len(s.data)
			return true
		}
		i += n
		if s.data[i] == '"' {
			s.value, s.pos = s.data[from:i], i+1
			if isBad {
				s.reason, s.at = "no logfmt: a bad escape in a quoted value", from-1
			}
			return true
		}
		s.isEscaped = true
		size := escapeSize(s.data[i:])
		if s.data[i+1] == '\'' {
			size = 2
		}
		isBad = isBad || size == 0
		i += max(size, 2)
	}
}
