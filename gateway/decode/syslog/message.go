package syslog

import (
	"bytes"
	"strings"
	"time"

	"github.com/casteloig/logthra/gateway/decode/document"
)

const (
	maxLabelBytes = 255 // of a host, as in RFC 5424, section 6, and of an app, where that has 48
	maxPRI        = 191
)

// none stands for a value that is not there.
const none = "-"

var (
	space = []byte(" ")
	bom   = []byte("\ufeff")
)

// missing are the reasons for fields of RFC 5424 that are not there, in their order.
var missing = [...]string{
	"the timestamp is missing", "the host name is missing", "the app name is missing", "the process id is missing", "the message id is missing",
}

const badStructured = "the structured data does not follow RFC 5424"

// message is what has been found in a message. Slices are parts of it, and empty for what is not there.
type message struct {
	pri           int // -1 if there is none
	ts            int64
	own           bool // ts stands in the message
	host, app     []byte
	procID, msgID []byte
	structured    []byte // all elements
	text          []byte
}

// parse reads a message, or says why it is none by either RFC. If it has a PRI, that is there in any case.
func parse(text []byte, now int64) (m message, reason string) {
	pri, rest, ok := cutPRI(text)
	if !ok {
		return message{pri: -1}, "it does not begin with a PRI of 0 to 191"
	}
	m = message{pri: pri, ts: now}
	if v1, ok := bytes.CutPrefix(rest, []byte("1 ")); ok {
		reason = m.rfc5424(v1)
	} else {
		reason = m.rfc3164(rest, now)
	}
	if reason == "" && (len(m.host) > maxLabelBytes || len(m.app) > maxLabelBytes) {
		reason = "the host or the app has more than 255 bytes"
	}
	return m, reason
}

// cutPRI reads the number at the beginning of a message, <0> to <191>.
func cutPRI(text []byte) (pri int, rest []byte, ok bool) {
	end := bytes.IndexByte(text[:min(len(text), len("<191>"))], '>')
	if end < len("<0") || text[0] != '<' {
		return 0, nil, false
	}
	for _, c := range text[1:end] {
		if !isDigit(c) {
			return 0, nil, false
		}
		pri = 10*pri + int(c-'0')
	}
	return pri, text[end+1:], pri <= maxPRI
}

// rfc5424 reads what follows the version.
func (m *message) rfc5424(rest []byte) (reason string) {
	var fields [len(missing)][]byte
	for i := range fields {
		field, after, ok := bytes.Cut(rest, space)
		if !ok || len(field) == 0 {
			return missing[i]
		}
		if rest = after; string(field) != none {
			fields[i] = field
		}
	}
	m.host, m.app, m.procID, m.msgID = fields[1], fields[2], fields[3], fields[4]
	if ts := fields[0]; len(ts) > 0 {
		if reason = m.timestamp(ts); reason != "" {
			return reason
		}
	}
	end := structuredEnd(rest)
	if end > 0 {
		m.structured = rest[:end]
	} else if bytes.HasPrefix(rest, []byte(none)) {
		end = len(none)
	}
	rest = rest[end:]
	switch {
	case end == 0, len(rest) > 0 && rest[0] != ' ':
		return badStructured
	case len(rest) > 0:
		m.text = bytes.TrimPrefix(rest[1:], bom)
	}
	return ""
}

// rfc3164 reads what follows the PRI.
func (m *message) rfc3164(rest []byte, now int64) (reason string) {
	if ts, after, _ := bytes.Cut(rest, space); isRFC3339(ts) {
		if reason = m.timestamp(ts); reason != "" {
			return reason
		}
		rest = after
	} else {
		var ok bool
		if m.ts, rest, ok = cutClock(rest, now); !ok {
			return "after the PRI there is neither the version of RFC 5424 nor the timestamp of RFC 3164"
		}
		m.own = true
	}
	// Who logs to a socket of its own machine leaves the host out. A single word is the text.
	if word, after, ok := bytes.Cut(rest, space); ok {
		if _, _, tagged := cutTag(word); !tagged {
			if rest = after; string(word) != none {
				m.host = word
			}
		}
	}
	word, after, _ := bytes.Cut(rest, space)
	if app, pid, ok := cutTag(word); ok {
		m.app, m.procID, rest = app, pid, after
	}
	m.text = rest
	return ""
}

// timestamp reads RFC 3339.
func (m *message) timestamp(text []byte) (reason string) {
	if !isRFC3339(text) {
		return "the timestamp does not follow RFC 3339"
	}
	ts, err := document.ParseTime(text)
	if err != nil {
		return err.Error()
	}
	m.ts, m.own = ts, true
	return ""
}

// isRFC3339 tells whether text has the form of a date and a time.
func isRFC3339(text []byte) bool {
	const date = len("2006-01-02")
	return len(text) > date && text[4] == '-' && text[7] == '-' && text[date] == 'T'
}

// cutClock reads the timestamp of RFC 3164, "Oct  1 22:14:15" with or without a fraction of the second, and what parts it
// from the rest.
func cutClock(text []byte, now int64) (ts int64, rest []byte, ok bool) {
	const months = "JanFebMarAprMayJunJulAugSepOctNovDec"
	if len(text) < len("Oct 1 22:14:15") || text[3] != ' ' {
		return 0, nil, false
	}
	month := strings.Index(months, string(text[:3]))
	if month < 0 || month%3 != 0 {
		return 0, nil, false
	}
	rest = bytes.TrimPrefix(text[4:], space)
	var n [4]int // day, hour, minute, second
	for i, end := range [...]byte{' ', ':', ':', 0} {
		digits := 0
		for ; digits < min(2, len(rest)) && isDigit(rest[digits]); digits++ {
			n[i] = 10*n[i] + int(rest[digits]-'0')
		}
		if digits == 0 || i > 0 && digits < 2 {
			return 0, nil, false
		}
		if rest = rest[digits:]; end != 0 {
			if len(rest) == 0 || rest[0] != end {
				return 0, nil, false
			}
			rest = rest[1:]
		}
	}
	if n[1] > 23 || n[2] > 59 || n[3] > 59 {
		return 0, nil, false
	}
	nanos := 0
	if len(rest) > 0 && rest[0] == '.' {
		rest = rest[1:]
		for unit := int(time.Second / 10); len(rest) > 0 && isDigit(rest[0]); unit /= 10 {
			nanos += unit * int(rest[0]-'0')
			rest = rest[1:]
		}
	}
	if len(rest) > 0 && rest[0] != ' ' {
		return 0, nil, false
	}
	at, ok := nearest(now, time.Month(month/3+1), n[0], n[1], n[2], n[3], nanos)
	return at, bytes.TrimPrefix(rest, space), ok
}

// nearest is that of the moments with this date and time, one a year, that is nearest to now. There may be none around a
// 29th of February.
func nearest(now int64, month time.Month, day, hour, minute, second, nanos int) (ts int64, ok bool) {
	today := time.Unix(0, now).UTC()
	var best time.Duration
	for year := today.Year() - 1; year <= today.Year()+1; year++ {
		t := time.Date(year, month, day, hour, minute, second, nanos, time.UTC)
		if away := t.Sub(today).Abs(); t.Day() == day && (!ok || away < best) {
			ts, best, ok = t.UnixNano(), away, true
		}
	}
	return ts, ok
}

// cutTag takes a word apart that is an app with a colon, "su:" or "sshd[42]:". What could be the beginning of JSON or of
// something quoted is none.
func cutTag(word []byte) (app, pid []byte, ok bool) {
	app, ok = bytes.CutSuffix(word, []byte(":"))
	if !ok || bytes.ContainsAny(app, "\"'`{}<>=,;\\") {
		return nil, nil, false
	}
	if inside, ok := bytes.CutSuffix(app, []byte("]")); ok {
		app, pid, _ = bytes.Cut(inside, []byte("["))
	}
	return app, pid, len(app) > 0 && !bytes.ContainsAny(app, "[]")
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
