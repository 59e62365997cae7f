package query

import (
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/logs"
)

func TestParseTime(t *testing.T) {
	for text, want := range map[string]int64{
		"0":                              0,
		"1":                              1e9, // fewer than eleven digits are seconds
		"1700000000":                     1_700_000_000e9,
		"17000000000":                    17_000_000_000, // eleven are nanoseconds
		"1700000000123456789":            1_700_000_000_123_456_789,
		"-1":                             -1e9,
		"1700000000.5":                   1_700_000_000_500_000_000,
		"1700000000.123":                 1_700_000_000_123_000_000,
		"-1.5":                           -1_500_000_000,
		"1e9.":                           math.MinInt64,
		"2023-11-14T22:13:20Z":           1_700_000_000e9,
		"2023-11-14T22:13:20.123456789Z": 1_700_000_000_123_456_789,
		"2023-11-15T00:13:20+02:00":      1_700_000_000e9,
		"9223372036854775807":            math.MaxInt64,
		"-9223372036854775808":           logs.MinTime, // before what ClickHouse holds
		"99999999999.9":                  logs.MaxTime,
		"-99999999999.9":                 logs.MinTime,
		"9999-12-31T23:59:59Z":           logs.MaxTime,
		"0001-01-01T00:00:00Z":           logs.MinTime,
		"":                               math.MinInt64,
		"now":                            math.MinInt64,
		"2023-11-14":                     math.MinInt64,
		"2023-11-14 22:13:20":            math.MinInt64,
		"9223372036854775808":            math.MinInt64,
		"NaN":                            math.MinInt64,
		"1.7e400.":                       math.MinInt64,
		"0x1p4":                          math.MinInt64,
		"1700000000s":                    math.MinInt64,
	} {
		got, ok := parseTime(text)
		if ok != (want != math.MinInt64) || ok && got != want {
			t.Errorf("%q is read as %d (%t), want %d", text, got, ok, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	const wrong = time.Duration(math.MinInt64)
	for text, want := range map[string]time.Duration{
		"0": 0, "15": 15 * time.Second, "0.5": 500 * time.Millisecond, "-1": -time.Second, "1e3": 1000 * time.Second,
		"5m": 5 * time.Minute, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, "100ms": 100 * time.Millisecond, "10ns": 10,
		"1d": 24 * time.Hour, "2w": 14 * 24 * time.Hour, "1y": 365 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1y2w3d4h5m6s7ms": (365+14+3)*24*time.Hour + 4*time.Hour + 5*time.Minute + 6*time.Second + 7*time.Millisecond,
		"-5m": -5 * time.Minute, "292y": 292 * 365 * 24 * time.Hour,
		"": wrong, "abc": wrong, "5": 5 * time.Second, "5x": wrong, "d": wrong, "1d-1h": wrong, "1h1d": wrong, "293y": wrong, "1e300": wrong, "NaN": wrong, "Inf": wrong,
		"292y292y": wrong, "9999999999d": wrong, "1d ": wrong, " 1d": wrong, "1d1": wrong, "$__interval": wrong,
	} {
		got, ok := parseDuration(text)
		if ok != (want != wrong) || ok && got != want {
			t.Errorf("%q is read as %s (%t), want %s", text, got, ok, want)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, text := range []string{"1700000000", "1700000000.123", "2023-11-14T22:13:20.1Z", "-1", "9223372036854775807", "1d12h", "5m"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if at, ok := parseTime(text); ok && at < logs.MinTime {
			t.Errorf("%q is read as %d", text, at)
		}
		if d, ok := parseDuration(text); ok && d < 0 && !strings.HasPrefix(text, "-") {
			t.Errorf("%q is read as %s", text, d)
		}
	})
}

// at is the time of all tests.
var at = time.Unix(1_700_000_000, 0)

func paramsOf(t *testing.T, query string) *params {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return &params{values: values, now: at}
}

func TestSpan(t *testing.T) {
	const hour = int64(time.Hour)
	now := at.UnixNano()
	for query, want := range map[string][2]int64{
		"":                           {now - hour, now},
		"since=10m":                  {now - hour/6, now},
		"since=1d":                   {now - 24*hour, now},
		"start=1600000000":           {1_600_000_000e9, now},
		"end=1600000000":             {1_600_000_000e9 - hour, 1_600_000_000e9},
		"end=1800000000":             {now - hour, 1_800_000_000e9}, // from now, not from the future
		"end=1800000000&since=600":   {now - hour/6, 1_800_000_000e9},
		"start=1&end=2":              {1e9, 2e9},
		"start=1&end=1":              {1e9, 1e9},
		"start=1.5&end=2&since=5m":   {1_500_000_000, 2e9},
		"end=-9223372036854775808":   {logs.MinTime, logs.MinTime},
		"start=0001-01-01T00:00:00Z": {logs.MinTime, now},
		"start=0001-01-01T00:00:00Z&end=9999-01-01T00:00:00Z": {logs.MinTime, logs.MinTime + math.MaxInt64},
		"end=9999-01-01T00:00:00Z&since=":                     {now - hour, logs.MaxTime},
	} {
		p := paramsOf(t, query)
		if start, end := p.span(time.Hour); p.err != nil || start != want[0] || end != want[1] {
			t.Errorf("%q is %d to %d (%v), want %d to %d", query, start, end, p.err, want[0], want[1])
		}
	}
}

func TestStep(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"start=1&end=2":                                       time.Second,
		"start=1&end=251":                                     time.Second,
		"start=1&end=501":                                     2 * time.Second,
		"start=0&end=86400":                                   345 * time.Second,
		"start=0&end=86400&step=30":                           30 * time.Second,
		"start=0&end=86400&step=1m":                           time.Minute,
		"start=0&end=11&step=0.001":                           time.Millisecond,
		"start=0&end=11000&step=1":                            time.Second,
		"start=0001-01-01T00:00:00Z&end=9999-01-01T00:00:00Z": 36893488 * time.Second,
	} {
		p := paramsOf(t, query)
		start, end := p.span(time.Hour)
		if step := p.step(start, end); p.err != nil || step != int64(want) {
			t.Errorf("%q: the step is %s (%v), want %s", query, time.Duration(step), p.err, want)
		}
	}
}

func TestAligned(t *testing.T) {
	for _, c := range []struct{ start, end, step, first, last int64 }{
		{1201, 1990, 60, 1200, 2040},
		{1200, 1980, 60, 1200, 1980},
		{1201, 1201, 60, 1200, 1260},
		{-61, -1, 60, -120, 0},
		{-60, 0, 60, -60, 0},
		{0, math.MaxInt64, 1000, 0, math.MaxInt64},
		{logs.MinTime, logs.MinTime + 1, 7, logs.MinTime - 4, logs.MinTime + 3},
	} {
		if first, last := aligned(c.start, c.end, c.step); first != c.first || last != c.last {
			t.Errorf("%d to %d by %d is %d to %d, want %d to %d", c.start, c.end, c.step, first, last, c.first, c.last)
		}
	}
}
