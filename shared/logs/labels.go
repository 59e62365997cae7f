package logs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
)

// ErrNoLabels is what Canonical returns for a stream without a single label.
var ErrNoLabels = errors.New("a stream needs at least one label")

// Label is a name and a value that all entries of a stream share.
type Label struct{ Name, Value string }

// Canonical gives labels their one canonical form: a JSON object of strings, sorted by name, without
// white space. It sorts labels in place. As in Prometheus, a label with an empty value is a label that
// is not there, and a name is [a-zA-Z_][a-zA-Z0-9_]*. A bad or repeated name, a value that is not UTF-8
// (JSON could not hold it) and a stream that has no label left are errors.
func Canonical(labels []Label) (string, error) {
	slices.SortFunc(labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	out := make([]byte, 0, 128)
	for i, l := range labels {
		if !ValidLabelName(l.Name) {
			return "", fmt.Errorf("label name %q does not match [a-zA-Z_][a-zA-Z0-9_]*", Clip(l.Name))
		}
		if i > 0 && labels[i-1].Name == l.Name {
			return "", fmt.Errorf("label %q is given twice", Clip(l.Name))
		}
		if !utf8.ValidString(l.Value) {
			return "", fmt.Errorf("the value of label %q is not valid UTF-8: %q", Clip(l.Name), Clip(l.Value))
		}
		if l.Value == "" {
			continue
		}
		out = append(out, ',', '"')
		out = append(out, l.Name...)
		out = append(out, `":"`...)
		out = appendEscaped(out, l.Value)
		out = append(out, '"')
	}
	if len(out) == 0 {
		return "", ErrNoLabels
	}
	out[0] = '{'
	return string(append(out, '}')), nil
}

// ValidLabelName tells whether name is a label name by Prometheus' and Loki's rule.
func ValidLabelName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// StreamID is the hash of a tenant and the canonical labels of one of its streams: XXH64 over the tenant,
// a zero byte and the labels.
func StreamID(tenant, labels string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(tenant)
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(labels)
	return d.Sum64()
}

// appendEscaped appends s as the inside of a JSON string (RFC 8259, section 7).
func appendEscaped(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// Clip shortens what a client sent to what an error message can bear, and cuts no character in half.
func Clip[S ~string | ~[]byte](s S) string {
	const most = 64
	if len(s) <= most {
		return string(s)
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return string(s[:cut]) + "…"
}
