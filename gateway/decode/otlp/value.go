package otlp

import (
	"math"
	"strconv"
)

// Texts of the numbers that JSON has none for. https://protobuf.dev/programming-guides/json/
const (
	textNaN              = "NaN"
	textInfinity         = "Infinity"
	textNegativeInfinity = "-Infinity"
)

// appendDouble appends a number as text, the shortest that is the same number.
func appendDouble(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, textNaN...)
	case math.IsInf(f, 1):
		return append(dst, textInfinity...)
	case math.IsInf(f, -1):
		return append(dst, textNegativeInfinity...)
	}
	// As JavaScript writes numbers: without an exponent until it would be long.
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, 64)
}

// appendDoubleJSON appends a number as JSON.
func appendDoubleJSON(dst []byte, f float64) []byte {
	if !math.IsNaN(f) && !math.IsInf(f, 0) {
		return appendDouble(dst, f)
	}
	return append(appendDouble(append(dst, '"'), f), '"')
}

// appendQuoted appends a string as JSON. Bytes that are not UTF-8 stay as they are.
func appendQuoted(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
