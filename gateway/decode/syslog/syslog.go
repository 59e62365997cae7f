// Package syslog decodes syslog messages: those of RFC 5424, and those of RFC 3164 as they are really sent. How
// messages are told from each other on the wire is not its part.
//
// https://www.rfc-editor.org/rfc/rfc5424, https://www.rfc-editor.org/rfc/rfc3164
package syslog

import (
	"encoding/binary"
	"strconv"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/shared/logs"
)

// Names of labels, and of metadata that the message does not name itself.
const (
	hostLabel      = "host"
	appLabel       = "app"
	facilityLabel  = "facility"
	levelLabel     = "level"
	severityText   = "severity_text"
	procID         = "proc_id"
	msgID          = "msg_id"
	structuredData = "structured_data"
	syslogError    = "syslog_error"
	truncatedBytes = "truncated_bytes"

	ownNames = 6 // how many of these are of metadata
)

var facilities = [...]string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock",
	"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

// levels are those of the severities.
var levels = [...]string{"fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug"}

// severities are the words for those that share their level with another.
var severities = [...]string{0: "emerg", 1: "alert", 2: "crit", 5: "notice", 7: ""}

// Parser appends messages to batches. It keeps the labels that it has seen; one is enough for a connection. The zero
// value is ready. A Parser is not safe for concurrent use.
type Parser struct {
	cache  decode.LabelCache
	host   []byte // that of the message, or the peer
	wire   []byte // key in the cache
	name   []byte // of metadata
	value  []byte // of metadata, escapes undone
	labels []logs.Label
}

// Append appends a message to b as one entry. It never fails:
//   - The line is MSG, byte by byte; of RFC 5424 without the BOM before it, of RFC 3164 without the tag. A line
//     longer than lim.MaxLineBytes is cut, between two characters if it is UTF-8, and truncated_bytes in its metadata
//     says how many bytes were.
//   - Labels are host, app, facility by its name, and level: fatal for the severities 0 to 2, error, warn, info for
//     5 and 6, and debug. Without a host it is peer, the sender's address. Without any label there is decode.Unlabeled.
//   - Metadata is severity_text for what the level does not tell: emerg, alert, crit or notice; proc_id, msg_id, and
//     structured data as SD-ID.PARAM-NAME; an SD-ID without parameters has an empty value. Where such a name has more than
//     255 bytes, or the batch as many as it may have, that element and all behind it are in structured_data as they came.
//   - The timestamp of RFC 3164 has neither a zone nor a year. It is taken as UTC, in the year that puts it nearest to
//     now. A message without a timestamp gets now, in unix nanoseconds.
//
// RFC 3164 is read as BSD's syslogd wrote it, "<34>Oct 11 22:14:15 host tag[pid]: text", with a fraction of the second
// or not, with RFC 3339 for the timestamp, and without the host or the tag. What is neither that nor RFC 5424 is as a
// whole the line; syslog_error in its metadata says why, and its labels are peer, and facility and level if there is a PRI.
//
// Nothing of message is kept.
func (p *Parser) Append(b *logs.Batch, message []byte, now int64, lim decode.Limits, peer string) {
	p.AppendCut(b, message, 0, now, lim, peer)
}

// AppendCut is Append for a message whose last cut bytes were left out on its way here. They count as truncated. It
// tells whether the message was read, and how many bytes are missing in all.
func (p *Parser) AppendCut(b *logs.Batch, text []byte, cut int, now int64, lim decode.Limits, peer string) (parsed bool, truncated int) {
	m, reason := parse(text, now)
	var labels string
	if reason == "" {
		labels, reason = p.canonical(&m, peer)
	}
	if reason != "" {
		m = message{pri: m.pri, ts: now, text: text}
		labels, _ = p.canonical(&m, peer)
	}
	if labels == "" { // neither a PRI nor a peer that could be one
		labels = decode.Unlabeled
	}
	if n := len(b.Streams); n == 0 || b.Streams[n-1].Labels != labels {
		b.AddStream(labels)
	}
	line := m.text
	if len(line) > lim.MaxLineBytes || cut > 0 {
		line = whole(line[:min(len(line), lim.MaxLineBytes)])
		cut += len(m.text) - len(line)
	}
	b.Lines = append(b.Lines, line...)
	b.EndEntry(m.ts, m.own)

	if m.pri >= 0 {
		p.value = append(p.value[:0], severities[m.pri%8]...)
		p.metadata(b, severityText, p.value)
	}
	p.metadata(b, procID, m.procID)
	p.metadata(b, msgID, m.msgID)
	p.structured(b, m.structured)
	p.value = append(p.value[:0], reason...)
	p.metadata(b, syslogError, p.value)
	if cut > 0 {
		p.value = strconv.AppendInt(p.value[:0], int64(cut), 10)
		p.metadata(b, truncatedBytes, p.value)
	}
	return reason == "", cut
}

// metadata adds a value, if there is one, to the entry that was made last.
func (p *Parser) metadata(b *logs.Batch, name string, value []byte) {
	if len(value) > 0 {
		p.name = append(p.name[:0], name...)
		b.AddMetadata(p.name, value)
	}
}

// canonical gives the labels of a message, or says why it can have none.
func (p *Parser) canonical(m *message, peer string) (labels, reason string) {
	p.host = append(p.host[:0], m.host...)
	if len(m.host) == 0 {
		p.host = append(p.host, peer...)
	}
	p.wire = binary.AppendVarint(p.wire[:0], int64(m.pri))
	p.wire = binary.AppendUvarint(p.wire, uint64(len(p.host)))
	p.wire = append(append(p.wire, p.host...), m.app...)
	if labels, ok := p.cache.Get(p.wire); ok {
		return labels, ""
	}
	p.labels = append(p.labels[:0], logs.Label{Name: hostLabel, Value: string(p.host)}, logs.Label{Name: appLabel, Value: string(m.app)})
	if m.pri >= 0 {
		p.labels = append(p.labels,
			logs.Label{Name: facilityLabel, Value: facilities[m.pri/8]}, logs.Label{Name: levelLabel, Value: levels[m.pri%8]})
	}
	labels, err := logs.Canonical(p.labels)
	if err != nil {
		return "", err.Error()
	}
	p.cache.Put(p.wire, labels)
	return labels, ""
}

// whole is text without the bytes at its end that are the beginning of a character.
func whole(text []byte) []byte {
	for i := len(text) - 1; i >= 0 && i >= len(text)-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRune(text[i:]) {
				return text[:i]
			}
			break
		}
	}
	return text
}
