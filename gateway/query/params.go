package query

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// Defaults of parameters, as Loki has them.
const (
	defaultSince      = time.Hour
	defaultSinceNames = 6 * time.Hour // of labels, their values and series
	defaultLimit      = 100
	defaultPoints     = 250 // between start and end, where nothing says how far apart they are
)

// maxPoints is how many points a series may have.
const maxPoints = 11_000

// params are the parameters of a request. The first that is wrong is kept in err.
type params struct {
	values url.Values
	now    time.Time
	err    error
}

func (p *params) fail(format string, args ...any) {
	if p.err == nil {
		p.err = badParameter(format, args...)
	}
}

// text is a parameter as it is.
func (p *params) text(name string) string { return p.values.Get(name) }

// has tells whether a parameter is given. An empty one is not.
func (p *params) has(name string) bool { return p.values.Get(name) != "" }

// count is a parameter that is a number, at least 1.
func (p *params) count(name string, without int) int {
	text := p.text(name)
	if text == "" {
		return without
	}
	n, err := strconv.ParseInt(text, 10, 32)
	switch {
	case err != nil:
		p.fail("%s: %q is not a whole number", name, logs.Clip(text))
	case n <= 0:
		p.fail("%s must be a positive value", name)
	}
	return int(n)
}

// time is a parameter that is a time, in unix nanoseconds.
func (p *params) time(name string, without int64) int64 {
	text := p.text(name)
	if text == "" {
		return without
	}
	at, ok := parseTime(text)
	if !ok {
		p.fail("%s: cannot parse %q to a valid timestamp; nanoseconds, seconds with a fraction and RFC 3339 are possible", name, logs.Clip(text))
	}
	return at
}

// duration is a parameter that is a time's length.
func (p *params) duration(name string, without time.Duration) time.Duration {
	text := p.text(name)
	if text == "" {
		return without
	}
	d, ok := parseDuration(text)
	if !ok {
		p.fail("%s: cannot parse %q to a valid duration; seconds and durations such as 5m are possible", name, logs.Clip(text))
	}
	return d
}

// span is start and end. Where start is not given it is since before end, or before now if end is in the future.
func (p *params) span(since time.Duration) (start, end int64) {
	now := p.now.UnixNano()
	end = p.time("end", now)
	since = p.duration("since", since)
	if start = p.time("start", math.MinInt64); start == math.MinInt64 {
		start = max(min(end, now)-int64(since), logs.MinTime)
	}
	if end < start {
		p.fail("end timestamp must not be before or equal to start time")
	}
	if start < 0 {
		end = min(end, start+math.MaxInt64) // what is between them is a duration, too
	}
	return start, end
}

// step is how far points of a metric query are apart.
func (p *params) step(start, end int64) int64 {
	step := p.duration("step", time.Duration(max((end-start)/int64(time.Second)/defaultPoints, 1))*time.Second)
	switch {
	case p.err != nil:
	case step <= 0:
		p.fail("zero or negative query resolution step widths are not accepted. Try a positive integer")
	case (end-start)/int64(step) > maxPoints:
		p.fail("exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter")
	}
	return int64(step)
}

// forward tells whether the oldest entries come first.
func (p *params) forward() bool {
	switch text := p.text("direction"); strings.ToLower(text) {
	case "", "backward":
	case "forward":
		return true
	default:
		p.fail("invalid direction '%s'; forward and backward are possible", logs.Clip(text))
	}
	return false
}

// matchers are those of a selector; nil where all streams are meant.
func (p *params) matchers(selector string) []logql.Matcher {
	if strings.TrimSpace(selector) == "" {
		return nil
	}
	matchers, err := logql.ParseSelector(selector)
	if err != nil && p.err == nil {
		p.err = err
	}
	return matchers
}

// parseTime reads a time as the API takes it: seconds with a fraction, nanoseconds, of which fewer than eleven digits are seconds, or RFC 3339. What
// ClickHouse does not hold is moved to the nearest that it does.
func parseTime(text string) (int64, bool) {
	if strings.Contains(text, ".") {
		if seconds, err := strconv.ParseFloat(text, 64); err == nil {
			whole, part := math.Modf(seconds)
			switch {
			case math.IsNaN(whole) || math.IsInf(whole, 0):
				return 0, false
			case whole >= float64(logs.MaxTime/1e9):
				return logs.MaxTime, true
			case whole <= float64(logs.MinTime/1e9):
				return logs.MinTime, true
			}
			return int64(whole)*1e9 + int64(math.Round(part*1e6))*1e3, true // a float of these days is good for microseconds
		}
	}
	const secondsDigits = 10
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if len(text) <= secondsDigits {
			n *= 1e9
		}
		return max(n, logs.MinTime), true
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	switch {
	case err != nil:
		return 0, false
	case t.Unix() >= logs.MaxTime/1e9:
		return logs.MaxTime, true
	case t.Unix() <= logs.MinTime/1e9:
		return logs.MinTime, true
	}
	return t.UnixNano(), true
}

// units are those of Prometheus's durations that Go's lack.
var units = map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "y": 365 * 24 * time.Hour}

// parseDuration reads a duration as the API takes it: seconds, Prometheus's (1d12h) or Go's (1.5h).
func parseDuration(text string) (time.Duration, bool) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		nanos := seconds * float64(time.Second)
		if !(math.Abs(nanos) < math.MaxInt64) {
			return 0, false
		}
		return time.Duration(nanos), true
	}
	var long time.Duration // days, weeks and years, which come first
	rest := text
	for {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if digits == 0 || digits == len(rest) {
			break
		}
		unit, ok := units[rest[digits:digits+1]]
		n, err := strconv.ParseInt(rest[:digits], 10, 32)
		if !ok || err != nil || n > int64((math.MaxInt64-long)/unit) {
			break
		}
		long += time.Duration(n) * unit
		rest = rest[digits+1:]
	}
	if rest == "" && text != "" {
		return long, true
	}
	d, err := time.ParseDuration(rest)
	if err != nil || rest != text && (d < 0 || d > math.MaxInt64-long) {
		return 0, false
	}
	return long + d, true
}

// badParameter is an error of what is asked for.
func badParameter(format string, args ...any) error {
	return &parameterError{fmt.Errorf(format, args...)}
}
