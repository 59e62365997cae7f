package syslog

import (
	"bytes"

	"github.com/prometheus/client_golang/prometheus"
)

// maxDigits is how many digits the length before a message has at most: one less than unix time has, so that a line that
// begins with that is not taken for a length, which would swallow all that follows.
const maxDigits = 9

// framer cuts the bytes of a connection into messages (https://www.rfc-editor.org/rfc/rfc6587#section-3.4). One that
// begins with a digit from 1 to 9 has its length before it, as in "5 hello"; any other ends with LF or CRLF. Both may
// follow each other. A framer keeps no more than max bytes of a message, and knows how many it left out.
type framer struct {
	max int
	// invalid counts lengths that are none. What was read of such a one begins a message that ends with LF.
	invalid prometheus.Counter

	part  []byte // the beginning of a message whose end has not come yet
	cut   int    // bytes that came after part and were not kept
	cr    bool   // the last of these was CR
	state state
	left  int // bytes to come of a message with a length
}

type state int

const (
	atStart state = iota
	inLength
	inCounted
	inLine
)

// maxPart is the most bytes of memory that a framer keeps from one message to the next.
const maxPart = 64 << 10

// next takes data up to the end of a message. Where ok is false all of it was taken, and no message has ended. The
// message is valid until the next call; it is never empty.
func (f *framer) next(data []byte) (message []byte, cut int, rest []byte, ok bool) {
	for len(data) > 0 {
		switch f.state {
		case atStart:
			f.begin()
			if '1' <= data[0] && data[0] <= '9' {
				f.state = inLength
			} else {
				f.state = inLine
			}
		case inLength:
			c := data[0]
			switch {
			case c == ' ':
				f.part, f.state = f.part[:0], inCounted
				data = data[1:]
			case '0' <= c && c <= '9' && len(f.part) < maxDigits:
				f.part, f.left = append(f.part, c), 10*f.left+int(c-'0')
				data = data[1:]
			default:
				f.state = inLine
				f.invalid.Inc()
			}
		case inCounted:
			n := min(f.left, len(data))
			f.left -= n
			message, data = data[:n], data[n:]
			if f.left > 0 {
				f.keep(message)
				continue
			}
			if message, cut = f.end(message); cut == 0 {
				message = trim(message)
			}
			if len(message) > 0 {
				return message, cut, data, true
			}
		case inLine:
			n := bytes.IndexByte(data, '\n')
			if n < 0 {
				f.keep(data)
				return nil, 0, nil, false
			}
			message, data = data[:n], data[n+1:]
			if message, cut = f.endLine(message); len(message) > 0 {
				return message, cut, data, true
			}
		}
	}
	return nil, 0, nil, false
}

// last is the message that the end of the connection ends, if there is one.
func (f *framer) last() (message []byte, cut int) {
	switch f.state {
	case inLength, inCounted:
		f.invalid.Inc()
		return f.end(nil)
	case inLine:
		return f.endLine(nil)
	}
	return nil, 0
}

// begin forgets the message before.
func (f *framer) begin() {
	if cap(f.part) > maxPart {
		f.part = nil
	}
	f.part, f.cut, f.cr, f.left = f.part[:0], 0, false, 0
}

// keep adds to the message that has not ended yet.
func (f *framer) keep(more []byte) {
	n := min(len(more), f.max-len(f.part))
	f.part = append(f.part, more[:n]...)
	if n < len(more) {
		f.cut += len(more) - n
		f.cr = more[len(more)-1] == '\r'
	}
}

// end returns the message whose end is more.
func (f *framer) end(more []byte) (message []byte, cut int) {
	f.state = atStart
	if len(f.part) == 0 && len(more) <= f.max {
		return more, 0
	}
	f.keep(more)
	return f.part, f.cut
}

// endLine is end without a CR at the end.
func (f *framer) endLine(more []byte) (message []byte, cut int) {
	message, cut = f.end(more)
	if cut == 0 {
		return bytes.TrimSuffix(message, []byte("\r")), 0
	}
	if f.cr {
		cut--
	}
	return message, cut
}

// trim takes off what rsyslog, syslog-ng and others put at the end of messages that need no end: LF or CRLF, or NUL.
func trim(message []byte) []byte {
	message = bytes.TrimSuffix(message, []byte{0})
	if line, ok := bytes.CutSuffix(message, []byte("\n")); ok {
		return bytes.TrimSuffix(line, []byte("\r"))
	}
	return message
}
