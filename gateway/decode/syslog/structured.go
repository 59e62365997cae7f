package syslog

import (
	"bytes"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/shared/logs"
)

// maxNameBytes is the longest metadata name that is made of an SD-ID and a PARAM-NAME. Each has 32 bytes at most by the
// RFC; a long SD-ID would be repeated for each of its parameters.
const maxNameBytes = 255

// structuredEnd is where the elements of structured data end at the beginning of text, as in
// [exampleSDID@32473 iut="3" eventID="1011"][examplePriority@32473 class="high"]; 0 if there are none or they are bad.
// https://www.rfc-editor.org/rfc/rfc5424#section-6.3
func structuredEnd(text []byte) int {
	rest := text
	for len(rest) > 0 && rest[0] == '[' {
		_, after, ok := cutName(rest[1:], " ]")
		for ok && after[0] == ' ' {
			_, _, after, ok = cutParam(after[1:])
		}
		if !ok {
			return 0
		}
		rest = after[1:]
	}
	return len(text) - len(rest)
}

// structured adds elements that structuredEnd has seen to the entry that was made last.
func (p *Parser) structured(b *logs.Batch, rest []byte) {
	for len(rest) > 0 {
		id, after, _ := cutName(rest[1:], " ]")
		p.name = append(p.name[:0], id...)
		var value []byte
		for more := true; more; more = after[0] == ' ' {
			if after[0] == ' ' {
				var param []byte
				param, value, after, _ = cutParam(after[1:])
				p.name = append(append(p.name[:len(id)], '.'), param...)
			}
			if len(p.name) > maxNameBytes || len(b.Metadata) >= decode.MaxMetadataNames-ownNames {
				p.metadata(b, structuredData, rest)
				return
			}
			b.AddMetadata(p.name, p.unescape(value))
		}
		rest = after[1:]
	}
}

// cutName reads a name up to one of the bytes that may follow it.
func cutName(text []byte, ends string) (name, rest []byte, ok bool) {
	end := bytes.IndexAny(text, ends)
	if end < 1 || bytes.ContainsAny(text[:end], ` ="]`) {
		return nil, nil, false
	}
	return text[:end], text[end:], true
}

// cutParam reads a parameter, name="value", escapes not undone. The rest begins with a space or a closing bracket.
func cutParam(text []byte) (name, value, rest []byte, ok bool) {
	if name, rest, ok = cutName(text, "="); !ok || len(rest) < len(`=""`) || rest[1] != '"' {
		return nil, nil, nil, false
	}
	rest = rest[len(`="`):]
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case '"':
			value, rest = rest[:i], rest[i+1:]
			return name, value, rest, len(rest) > 0 && (rest[0] == ' ' || rest[0] == ']')
		}
	}
	return nil, nil, nil, false
}

// unescape undoes \", \\ and \]; any other backslash is one. What it returns holds until it is called again.
func (p *Parser) unescape(value []byte) []byte {
	if bytes.IndexByte(value, '\\') < 0 {
		return value
	}
	p.value = p.value[:0]
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) && (value[i+1] == '"' || value[i+1] == '\\' || value[i+1] == ']') {
			i++
		}
		p.value = append(p.value, value[i])
	}
	return p.value
}
