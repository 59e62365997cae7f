package document

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/casteloig/logthra/shared/logs"
)

var (
	errTooFine   = errors.New("has more than 19 digits")
	errTimeRange = errors.New("is outside of 1900-01-01 to 2262-04-11")
	errNoTime    = errors.New("is neither unix time nor RFC 3339 nor a date")
)

// ParseTime reads a timestamp as unix nanoseconds, within [logs.MinTime, logs.MaxTime].
//
// A number, in the form that JSON has for it, is in seconds, milliseconds, microseconds or nanoseconds after 1970,
// by its size: less than 1e11, 1e14, 1e17, or more. Anything else is a date, midnight UTC, or a date and a time by
// RFC 3339, with some liberties: a space for the T and before the zone, a comma for the point of the fraction, a
// zone of +hh or +hhmm, and no zone for UTC. What is finer than a nanosecond is cut off: clients print more digits of a
// float than it has. A number of more than 19 digits that does not end with nanoseconds is an error.
func ParseTime(text []byte) (int64, error) {
	ns, err := parseTime(text)
	if err != nil {
		return 0, fmt.Errorf("timestamp %q %w", logs.Clip(text), err)
	}
	return ns, nil
}

// parseTime is ParseTime, whose error does not say what could not be read.
func parseTime(text []byte) (int64, error) {
	if n, ok := parseDecimal(text); ok {
		return n.unixNano()
	}
	return parseCalendar(text)
}

// decimal is mantissa times ten to the exponent.
type decimal struct {
	negative bool
	mantissa uint64 // neither begins nor ends with a zero; 0 if it has more than maxDigits
	digits   int    // of the mantissa
	exponent int
}

// maxDigits is how many decimal digits surely fit into a uint64; an int64 has at most as many.
const maxDigits = 19

var powersOfTen = [maxDigits + 1]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19}

// parseDecimal reads a number of JSON, which may have leading zeros here.
func parseDecimal(text []byte) (n decimal, ok bool) {
	text, n.negative = bytes.CutPrefix(text, []byte("-"))
	zeros := 0 // after the last digit of the mantissa
	digits := func() bool {
		begin := len(text)
		for ; len(text) > 0 && isDigit(text[0]); text = text[1:] {
			if text[0] == '0' {
				zeros++
				continue
			}
			if n.digits == 0 {
				zeros = 0
			}
			n.digits += zeros + 1
			if n.digits <= maxDigits {
				n.mantissa = n.mantissa*powersOfTen[zeros+1] + uint64(text[0]-'0')
			}
			zeros = 0
		}
		return len(text) < begin
	}
	if !digits() {
		return n, false
	}
	if len(text) > 0 && text[0] == '.' {
		text = text[1:]
		before := len(text)
		if !digits() {
			return n, false
		}
		n.exponent = len(text) - before
	}
	n.exponent += zeros
	if len(text) > 0 && text[0]|0x20 == 'e' {
		text = text[1:]
		negative := false
		if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
			negative = text[0] == '-'
			text = text[1:]
		}
		if len(text) == 0 {
			return n, false
		}
		exponent := 0
		for ; len(text) > 0 && isDigit(text[0]); text = text[1:] {
			exponent = min(exponent*10+int(text[0]-'0'), math.MaxInt32)
		}
		if negative {
			exponent = -exponent
		}
		n.exponent += exponent
	}
	return n, len(text) == 0
}

func (n *decimal) unixNano() (int64, error) {
	if n.digits == 0 {
		return 0, nil
	}
	shift := n.exponent
	switch whole := n.digits + n.exponent; {
	case whole <= 11:
		shift += 9
	case whole <= 14:
		shift += 6
	case whole <= 17:
		shift += 3
	}
	var ns uint64
	switch {
	case shift < 0 && n.digits > maxDigits:
		return 0, errTooFine
	case shift < -maxDigits:
	case shift < 0:
		ns = n.mantissa / powersOfTen[-shift]
	case n.digits+shift > maxDigits:
		return 0, errTimeRange
	default:
		ns = n.mantissa * powersOfTen[shift]
	}
	if ns > math.MaxInt64 || n.negative && ns > uint64(-logs.MinTime) {
		return 0, errTimeRange
	}
	if n.negative {
		return -int64(ns), nil
	}
	return int64(ns), nil
}

// parseCalendar reads a date, or a date and a time. It writes it down as RFC 3339 has it, for the standard library.
func parseCalendar(text []byte) (int64, error) {
	const date, clock = len("2006-01-02"), len("15:04:05")
	var buf [len("2006-01-02T15:04:05.999999999+00:00")]byte
	if len(text) < date {
		return 0, errNoTime
	}
	out := append(buf[:0], text[:date]...)
	out = append(out, 'T')
	rest := text[date:]
	switch {
	case len(rest) == 0:
		out = append(out, "00:00:00"...)
	case len(rest) <= clock || rest[0] != 'T' && rest[0] != ' ':
		return 0, errNoTime
	default:
		out = append(out, rest[1:1+clock]...)
		rest = rest[1+clock:]
	}
	if len(rest) > 0 && (rest[0] == '.' || rest[0] == ',') {
		zone := 1
		for zone < len(rest) && isDigit(rest[zone]) {
			zone++
		}
		fraction := rest[1:zone]
		out = append(append(out, '.'), fraction[:min(len(fraction), 9)]...)
		rest = rest[zone:]
	}
	if len(rest) > 1 && rest[0] == ' ' {
		rest = rest[1:]
	}
	switch len(rest) {
	case 0:
		out = append(out, 'Z')
	case len("Z"), len("+00:00"):
		out = append(out, rest...)
	case len("+00"), len("+0000"):
		out = append(append(out, rest[:3]...), ':')
		out = append(append(out, rest[3:]...), "00"[len(rest[3:]):]...)
	default:
		return 0, errNoTime
	}
	var t time.Time
	if t.UnmarshalText(out) != nil {
		return 0, errNoTime
	}
	ns, err := logs.UnixNano(t.Unix(), int64(t.Nanosecond()))
	if err != nil {
		return 0, errTimeRange
	}
	return ns, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
