package pipeline

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/Masterminds/sprig/v3"
	"github.com/dustin/go-humanize"
)

// sprigFunctions are all that sprig has; only some of them are for LogQL.
var sprigFunctions = sprig.TxtFuncMap()

// floatFunctions are those of sprig that are taken as they are: they make numbers of numbers, and of text that is one.
var floatFunctions = func() template.FuncMap {
	some := template.FuncMap{}
	for _, name := range []string{"addf", "subf", "mulf", "divf", "maxf", "minf", "ceil", "floor", "round", "float64"} {
		some[name] = sprigFunctions[name]
	}
	return some
}()

var sprigInteger = sprigFunctions["int64"].(func(any) int64)

// integer makes an integer of a number, or of text that is one: with 0x, 0b, 0o or 0 before it, or with a fraction, which is cut off. Anything else is 0.
func integer(value any) int64 {
	text, ok := value.(string)
	if !ok {
		return sprigInteger(value)
	}
	if n, err := strconv.ParseInt(text, 0, 64); err == nil {
		return n
	}
	f, _ := strconv.ParseFloat(text, 64)
	return int64(f)
}

// fold computes with integers from left to right.
func fold(with func(a, b int64) int64) func(first any, others ...any) int64 {
	return func(first any, others ...any) int64 {
		result := integer(first)
		for _, other := range others {
			result = with(result, integer(other))
		}
		return result
	}
}

// integerFunctions compute with integers.
var integerFunctions = template.FuncMap{
	"int": func(value any) int { return int(integer(value)) },
	"add": func(values ...any) int64 { return fold(func(a, b int64) int64 { return a + b })(0, values...) },
	"sub": func(a, b any) int64 { return integer(a) - integer(b) },
	"mul": fold(func(a, b int64) int64 { return a * b }),
	"div": func(a, b any) int64 { return integer(a) / integer(b) },
	"mod": func(a, b any) int64 { return integer(a) % integer(b) },
	"max": fold(func(a, b int64) int64 { return max(a, b) }),
	"min": fold(func(a, b int64) int64 { return min(a, b) }),
}

// titleOf makes the first letter of each word one for titles.
var titleOf = sprigFunctions["title"].(func(string) string)

// functions are those of https://grafana.com/docs/loki/latest/query/template_functions/, and text/template's own. All times are in UTC where no zone
// is named. Those that make text are bounded, together with all that one execution does.
func (r *templateRun) functions() template.FuncMap {
	all := template.FuncMap{
		stepFunction:    r.step,
		"__line__":      r.currentLine,
		"__timestamp__": r.currentTimestamp,

		"ToLower": r.lower, "lower": r.lower,
		"ToUpper": r.upper, "upper": r.upper,
		"title":                  func(s string) string { return r.text(titleOf(s)) },
		"Replace":                r.replaceSome,
		"replace":                func(old, with, s string) string { return r.replaceSome(s, old, with, -1) },
		"Trim":                   strings.Trim,
		"TrimLeft":               strings.TrimLeft,
		"TrimRight":              strings.TrimRight,
		"TrimPrefix":             strings.TrimPrefix,
		"TrimSuffix":             strings.TrimSuffix,
		"TrimSpace":              strings.TrimSpace,
		"trim":                   strings.TrimSpace,
		"trimAll":                func(cut, s string) string { return strings.Trim(s, cut) },
		"trimPrefix":             func(prefix, s string) string { return strings.TrimPrefix(s, prefix) },
		"trimSuffix":             func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
		"trunc":                  truncate,
		"substr":                 substring,
		"alignLeft":              r.alignLeft,
		"alignRight":             r.alignRight,
		"indent":                 r.indent,
		"nindent":                func(n int, s string) string { return r.text("\n" + r.indent(n, s)) },
		"repeat":                 r.repeat,
		"contains":               func(part, s string) bool { r.charge(len(s)); return strings.Contains(s, part) },
		"hasPrefix":              func(prefix, s string) bool { return strings.HasPrefix(s, prefix) },
		"hasSuffix":              func(suffix, s string) bool { return strings.HasSuffix(s, suffix) },
		"default":                defaultTo,
		"fromJson":               r.fromJSON,
		"urlencode":              func(s string) string { return r.text(url.QueryEscape(s)) },
		"urldecode":              url.QueryUnescape,
		"b64enc":                 func(s string) string { return r.text(base64.StdEncoding.EncodeToString([]byte(s))) },
		"b64dec":                 r.fromBase64,
		"bytes":                  parseBytes,
		"duration":               parseSeconds,
		"now":                    func() time.Time { return time.Now().UTC() },
		"date":                   r.date,
		"toDate":                 func(layout, s string) time.Time { return parseTime(layout, "UTC", s) },
		"unixToTime":             unixToTime,
		"html":                   func(args ...any) string { return r.escape(template.HTMLEscaper, args) },
		"js":                     func(args ...any) string { return r.escape(template.JSEscaper, args) },
		"urlquery":               func(args ...any) string { return r.escape(template.URLQueryEscaper, args) },
		"print":                  func(args ...any) string { return r.escape(fmt.Sprint, args) },
		"println":                func(args ...any) string { return r.escape(fmt.Sprintln, args) },
		"printf":                 r.printf,
		"count":                  r.count,
		"unixEpoch":              func(t time.Time) string { return fmt.Sprint(t.Unix()) },
		"toDateInZone":           parseTime,
		"duration_seconds":       parseSeconds,
		"regexReplaceAll":        r.regexReplaceAll,
		"regexReplaceAllLiteral": r.regexReplaceAllLiteral,
		"unixEpochMillis":        func(t time.Time) string { return fmt.Sprint(t.UnixMilli()) },
		"unixEpochNanos":         func(t time.Time) string { return fmt.Sprint(t.UnixNano()) },
	}
	maps.Copy(all, integerFunctions)
	maps.Copy(all, floatFunctions)
	return all
}

func (r *templateRun) lower(s string) string { return r.text(strings.ToLower(s)) }

func (r *templateRun) upper(s string) string { return r.text(strings.ToUpper(s)) }

func (r *templateRun) replaceSome(s, old, with string, n int) string {
	if n != 0 {
		found := strings.Count(s, old)
		if n > 0 {
			found = min(found, n)
		}
		r.charge(len(s))
		r.room(len(s) + found*max(len(with)-len(old), 0))
	}
	return strings.Replace(s, old, with, n)
}

// truncate is the first n bytes of s, or of a negative n, the last.
func truncate(n int, s string) string {
	switch {
	case n < 0 && len(s)+n > 0:
		return s[len(s)+n:]
	case n >= 0 && len(s) > n:
		return s[:n]
	}
	return s
}

// substring is s[:end] if start is negative, s[start:] if end is negative or too large, or else s[start:end].
func substring(start, end int, s string) (string, error) {
	switch {
	case start < 0:
		start = 0
	case end < 0 || end > len(s):
		end = len(s)
	}
	if end < 0 || end > len(s) || start > end {
		return "", fmt.Errorf("substr %d %d of a text of %d bytes", start, end, len(s))
	}
	return s[start:end], nil
}

// alignLeft is the first n characters of s, or s with spaces behind it.
func (r *templateRun) alignLeft(n int, s string) string {
	length := utf8.RuneCountInString(s)
	r.charge(len(s))
	switch {
	case n < 0 || n == length:
		return s
	case n > length:
		r.room(len(s) + n - length)
		return s + strings.Repeat(" ", n-length)
	}
	return s[:offsetOf(s, n)]
}

// alignRight is the last n characters of s, or s with spaces before it.
func (r *templateRun) alignRight(n int, s string) string {
	length := utf8.RuneCountInString(s)
	r.charge(len(s))
	switch {
	case n < 0 || n == length:
		return s
	case n > length:
		r.room(len(s) + n - length)
		return strings.Repeat(" ", n-length) + s
	}
	return s[offsetOf(s, length-n):]
}

// offsetOf is where the character n of s begins.
func offsetOf(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

func (r *templateRun) indent(n int, s string) string {
	if n < 0 {
		panic(errors.New("negative indent"))
	}
	r.room(n)
	pad := strings.Repeat(" ", n)
	return pad + r.replaceSome(s, "\n", "\n"+pad, -1)
}

func (r *templateRun) repeat(n int, s string) string {
	if n < 0 {
		panic(errors.New("negative repeat count"))
	}
	if s == "" {
		return ""
	}
	r.room(min(n, maxOutput+1) * len(s))
	return strings.Repeat(s, n)
}

// defaultTo is the value, or if it is empty, 0, false or none, the default before it.
func defaultTo(or any, values ...any) any {
	if len(values) == 0 {
		return or
	}
	if truth, _ := template.IsTrue(values[0]); !truth {
		return or
	}
	return values[0]
}

// fromJSON is the value of a JSON document; nil if it is none.
func (r *templateRun) fromJSON(s string) any {
	r.charge(len(s))
	var value any
	if json.Unmarshal([]byte(s), &value) != nil {
		return nil
	}
	return value
}

// fromBase64 is what s encodes, or else the text of the error.
func (r *templateRun) fromBase64(s string) string {
	r.charge(len(s))
	decoded, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return err.Error()
	}
	return string(decoded)
}

func parseBytes(s string) (float64, error) {
	n, err := humanize.ParseBytes(s)
	return float64(n), err
}

func parseSeconds(s string) (float64, error) {
	d, err := time.ParseDuration(s)
	return d.Seconds(), err
}

// date is a time, or a number of seconds since 1970, in a layout of Go's package time; of anything else, the current time.
func (r *templateRun) date(layout string, date any) string {
	t := time.Now()
	switch date := date.(type) {
	case time.Time:
		t = date
	case int:
		t = time.Unix(int64(date), 0)
	case int64:
		t = time.Unix(date, 0)
	}
	return r.text(t.UTC().Format(layout))
}

// parseTime is the zero time if s does not have the layout. A zone that is not known is UTC.
func parseTime(layout, zone, s string) time.Time {
	location, err := time.LoadLocation(zone)
	if err != nil {
		location = time.UTC
	}
	t, _ := time.ParseInLocation(layout, s, location)
	return t
}

// unixToTime tells by the number of digits what a time counts since 1970: days, seconds, milliseconds, microseconds or nanoseconds.
func unixToTime(epoch string) (time.Time, error) {
	n, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("unable to parse time '%s': %w", epoch, err)
	}
	switch len(epoch) {
	case 5:
		return time.Unix(0, 0).UTC().AddDate(0, 0, int(n)), nil
	case 10:
		return time.Unix(n, 0).UTC(), nil
	case 13:
		return time.UnixMilli(n).UTC(), nil
	case 16:
		return time.UnixMicro(n).UTC(), nil
	case 19:
		return time.Unix(0, n).UTC(), nil
	}
	return time.Time{}, fmt.Errorf("unable to parse time '%s': want 5, 10, 13, 16 or 19 digits", epoch)
}

// escape makes text of values by one of the functions that text/template has for that.
func (r *templateRun) escape(with func(...any) string, args []any) string {
	size := 0
	for _, arg := range args {
		size += sizeOf(arg)
	}
	r.room(size)
	return r.text(with(args...))
}

// sizeOf is about how many bytes a value takes when it is printed.
func sizeOf(value any) int {
	switch value := value.(type) {
	case string:
		return len(value)
	case map[string]any:
		size := 0
		for key, member := range value {
			size += len(key) + sizeOf(member)
		}
		return size
	case map[string]string:
		size := 0
		for key, member := range value {
			size += len(key) + len(member)
		}
		return size
	case []any:
		size := 0
		for _, element := range value {
			size += sizeOf(element)
		}
		return size
	}
	return 32
}

// printf makes sure beforehand that the text does not become too large.
func (r *templateRun) printf(format string, args ...any) string {
	size, largest := len(format), 0
	for _, arg := range args {
		n := sizeOf(arg)
		size += n
		largest = max(largest, n)
		if width, ok := arg.(int); ok && strings.Contains(format, "*") {
			size += max(width, -width)
		}
	}
	// Widths and precisions are numbers behind %. With [ there, an argument may be used again.
	isInVerb, number := false, 0
	for _, c := range []byte(format) {
		switch {
		case c == '%':
			isInVerb = !isInVerb
		case !isInVerb:
		case isDigit(c):
			number = min(number*10+int(c-'0'), maxOutput+1)
			continue
		case c == '[':
			size += largest
		case strings.IndexByte("+-# .*]", c) < 0:
			isInVerb = false
		}
		size += number
		number = 0
	}
	r.room(size)
	return r.text(fmt.Sprintf(format, args...))
}

// regexps are expressions that were compiled before.
type regexps map[string]*regexp.Regexp

// maxRegexps is how many are kept.
const maxRegexps = 100

func (r *templateRun) regexp(expression string) *regexp.Regexp {
	if re, ok := r.regexps[expression]; ok {
		return re
	}
	re, err := regexp.Compile(expression)
	if err != nil {
		panic(err)
	}
	r.charge(len(expression) * 100)
	if r.regexps == nil {
		r.regexps = regexps{}
	}
	if len(r.regexps) >= maxRegexps {
		clear(r.regexps)
	}
	r.regexps[strings.Clone(expression)] = re
	return re
}

// regexpWork is how much more work a byte is for a regular expression.
const regexpWork = 8

func (r *templateRun) count(expression, s string) int {
	r.charge(len(s) * regexpWork)
	return len(r.regexp(expression).FindAllStringIndex(s, -1))
}

func (r *templateRun) regexReplaceAll(expression, s, with string) string {
	re := r.regexp(expression)
	r.charge(len(s) * regexpWork)
	matches := len(re.FindAllStringIndex(s, -1))
	r.room(len(s)*(1+strings.Count(with, "$")) + matches*len(with))
	return r.text(re.ReplaceAllString(s, with))
}

func (r *templateRun) regexReplaceAllLiteral(expression, s, with string) string {
	re := r.regexp(expression)
	r.charge(len(s) * regexpWork)
	matches := len(re.FindAllStringIndex(s, -1))
	r.room(len(s) + matches*len(with))
	return re.ReplaceAllLiteralString(s, with)
}
