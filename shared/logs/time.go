package logs

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
)

// What a DateTime64(9) of ClickHouse holds, in unix nanoseconds: from 1900-01-01 00:00:00 to the last
// nanosecond of an int64, 2262-04-11 23:47:16.854775807.
const (
	MinTime int64 = -2208988800 * 1e9
	MaxTime int64 = math.MaxInt64
)

// maxDigits is how many digits an int64 has at most.
const maxDigits = 19

var errTimeRange = errors.New("is outside of 1900-01-01 to 2262-04-11")

// CheckTime returns an error for a time, in unix nanoseconds, that a DateTime64(9) can't hold.
func CheckTime(ns int64) error {
	if ns < MinTime {
		return fmt.Errorf("timestamp %d %w", ns, errTimeRange)
	}
	return nil
}

// UnixNano joins a time given as seconds and nanoseconds after 1970, and returns an error where nanos are not
// within a second, or a DateTime64(9) can't hold the time.
func UnixNano(seconds, nanos int64) (int64, error) {
	if nanos < 0 || nanos > 999_999_999 {
		return 0, fmt.Errorf("nanos %d are outside of 0 to 999999999", nanos)
	}
	if seconds < MinTime/1e9 || seconds > MaxTime/1e9 || seconds == MaxTime/1e9 && nanos > MaxTime%1e9 {
		return 0, fmt.Errorf("timestamp of %d s and %d ns after 1970 %w", seconds, nanos, errTimeRange)
	}
	return seconds*1e9 + nanos, nil
}

// ParseTime reads a timestamp as unix nanoseconds ("1700000000000000000"), as RFC 3339 with any number of
// fractional digits ("2024-01-01T10:00:00.5+02:00"), or as a date ("2024-01-01", midnight UTC).
func ParseTime(s []byte) (int64, error) {
	if ns, ok := parseNanos(s); ok {
		return ns, CheckTime(ns)
	}
	// Neither of the two allocates, unless it fails or the zone is not one of whole hours.
	var t time.Time
	var err error
	if len(s) == len(time.DateOnly) {
		t, err = time.Parse(time.DateOnly, string(s))
	} else {
		err = t.UnmarshalText(s)
	}
	if err != nil {
		if isInteger(s) {
			return 0, fmt.Errorf("timestamp %q %w", Clip(s), errTimeRange)
		}
		return 0, fmt.Errorf("timestamp %q is neither unix nanoseconds nor RFC 3339 nor a date", Clip(s))
	}
	const last = MaxTime / 1e9
	if sec := t.Unix(); sec < MinTime/1e9 || sec > last || sec == last && int64(t.Nanosecond()) > MaxTime%1e9 {
		return 0, fmt.Errorf("timestamp %q %w", Clip(s), errTimeRange)
	}
	return t.UnixNano(), nil
}

// isInteger tells whether s is a decimal integer of any size.
func isInteger(s []byte) bool {
	digits := bytes.TrimPrefix(s, []byte("-"))
	return len(digits) > 0 && len(bytes.Trim(digits, "0123456789")) == 0
}

// parseNanos reads a decimal int64 without allocating.
func parseNanos(s []byte) (int64, bool) {
	digits := s
	negative := len(s) > 0 && s[0] == '-'
	if negative {
		digits = s[1:]
	}
	if len(digits) > maxDigits {
		digits = bytes.TrimLeft(digits, "0")
	}
	if len(digits) == 0 || len(digits) > maxDigits {
		return 0, len(digits) == 0 && len(s) > maxDigits
	}
	var n uint64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if n > math.MaxInt64 {
		return 0, false
	}
	if negative {
		return -int64(n), true
	}
	return int64(n), true
}
