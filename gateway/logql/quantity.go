package logql

import (
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
	year = 365 * day
)

// durationUnits are the units of durations.
var durationUnits = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "μs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": day, "w": week, "y": year,
}

// sizeUnits are the units of sizes, in small letters.
var sizeUnits = map[string]uint64{
	"b": 1,
	"k": 1e3, "kb": 1e3, "ki": 1 << 10, "kib": 1 << 10,
	"m": 1e6, "mb": 1e6, "mi": 1 << 20, "mib": 1 << 20,
	"g": 1e9, "gb": 1e9, "gi": 1 << 30, "gib": 1 << 30,
	"t": 1e12, "tb": 1e12, "ti": 1 << 40, "tib": 1 << 40,
	"p": 1e15, "pb": 1e15, "pi": 1 << 50, "pib": 1 << 50,
	"e": 1e18, "eb": 1e18, "ei": 1 << 60, "eib": 1 << 60,
}

// parseNumber reads a number as Go writes those of base 10.
func parseNumber(s string) (float64, bool) {
	if span(s, func(c byte) bool { return isDigit(c) || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-' }) < len(s) {
		return 0, false
	}
	value, err := strconv.ParseFloat(s, 64)
	return value, err == nil
}

// parseDuration reads what is written as numbers with units: 1h30m, 0.5h, 1d, 1w, 1y. It is never negative.
func parseDuration(s string) (time.Duration, bool) {
	var total uint64
	for s != "" {
		amount, unit, rest, ok := cutQuantity(s)
		factor, known := durationUnits[unit]
		if !ok || !known {
			return 0, false
		}
		part, ok := multiply(amount, uint64(factor))
		if total += part; !ok || part > math.MaxInt64 || total > math.MaxInt64 {
			return 0, false
		}
		s = rest
	}
	return time.Duration(total), true
}

// parseSize reads a number with a unit of bytes: 42MB, 1.5KiB, 20b. M and MB are powers of 10, Mi and MiB of 2; capitals make no difference.
func parseSize(s string) (uint64, bool) {
	amount, unit, rest, ok := cutQuantity(s)
	factor, known := sizeUnits[strings.ToLower(unit)]
	if !ok || !known || rest != "" {
		return 0, false
	}
	return multiply(amount, factor)
}

// cutQuantity takes the first number and its unit from s.
func cutQuantity(s string) (amount, unit, rest string, ok bool) {
	numeric := func(c byte) bool { return isDigit(c) || c == '.' }
	n := span(s, numeric)
	amount, s = s[:n], s[n:]
	n = span(s, func(c byte) bool { return !numeric(c) })
	return amount, s[:n], s[n:], amount != "" && n > 0
}

// multiply is amount, a number without sign and exponent, times factor: exact, but for what is less than 1, which is rounded.
func multiply(amount string, factor uint64) (uint64, bool) {
	whole, fraction, _ := strings.Cut(amount, ".")
	if whole == "" && fraction == "" {
		return 0, false
	}
	n, err := strconv.ParseUint("0"+whole, 10, 64)
	if err != nil {
		return 0, false
	}
	f, err := strconv.ParseFloat("0."+fraction+"0", 64)
	if err != nil {
		return 0, false
	}
	high, low := bits.Mul64(n, factor)
	sum, carry := bits.Add64(low, uint64(math.Round(f*float64(factor))), 0)
	return sum, high == 0 && carry == 0
}

// appendNumber writes a number so that parseNumber reads it back.
func appendNumber(b []byte, value float64) []byte {
	format := byte('f')
	if a := math.Abs(value); a != 0 && (a < 1e-6 || a >= 1e15) {
		format = 'e'
	}
	return strconv.AppendFloat(b, value, format, -1, 64)
}

// appendDuration writes a duration so that parseDuration, behind a sign, reads it back.
func appendDuration(b []byte, d time.Duration) []byte {
	if d < 0 {
		b, d = append(b, '-'), -d
	}
	if d == 0 {
		return append(b, "0s"...)
	}
	if d%week == 0 {
		return append(strconv.AppendInt(b, int64(d/week), 10), 'w')
	}
	for _, unit := range []string{"d", "h", "m", "s", "ms", "us", "ns"} {
		if n := d / durationUnits[unit]; n > 0 {
			b = append(strconv.AppendInt(b, int64(n), 10), unit...)
			d %= durationUnits[unit]
		}
	}
	return b
}

// appendSize writes a size in the largest unit of which it is a whole number, so that parseSize reads it back.
func appendSize(b []byte, size uint64) []byte {
	best := "B"
	for _, unit := range []string{"KB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB", "PB", "PiB", "EB", "EiB"} {
		if size > 0 && size%sizeUnits[strings.ToLower(unit)] == 0 {
			best = unit
		}
	}
	return append(strconv.AppendUint(b, size/sizeUnits[strings.ToLower(best)], 10), best...)
}
