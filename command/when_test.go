package command

import (
	"strings"
	"testing"
	"time"
)

func TestWhen(t *testing.T) {
	for text, want := range map[string]time.Time{
		"2026-11-22T10:00:00Z":        time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
		"2026-11-22T10:00:00.5+02:00": time.Date(2026, 11, 22, 8, 0, 0, 5e8, time.UTC),
		"2026-11-22":                  time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC),
		"":                            {},
	} {
		var got when
		if err := got.UnmarshalText([]byte(text)); err != nil || !got.Equal(want) {
			t.Errorf("%q is read as %s (%v), want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]time.Duration{
		"0s": 0, "30m": 30 * time.Minute, "2h": 2 * time.Hour, "2h ago": 2 * time.Hour, "1h30m ago": 90 * time.Minute,
		"3d": 72 * time.Hour, "1d12h": 36 * time.Hour, "0d": 0, " 2h ": 2 * time.Hour,
	} {
		var got when
		before := time.Now()
		err := got.UnmarshalText([]byte(text))
		if err != nil || got.Before(before.Add(-want)) || got.After(time.Now().Add(-want)) {
			t.Errorf("%q is read as %s (%v), want %s before %s", text, got, err, want, before)
		}
	}
	for _, text := range []string{"soon", "-2h", "2", "d", "-1d", "1d-2h", "99999999999d", "2026-13-01", "2026-11-22 10:00", "2026-11-22T10:00:00", "ago", "105850d2562047h", "2d3d"} {
		got := when{time.Unix(7, 0)}
		if err := got.UnmarshalText([]byte(text)); err == nil || got.Unix() != 7 {
			t.Errorf("%q is read as %s (%v)", text, got, err)
		} else if !strings.Contains(err.Error(), "RFC 3339") {
			t.Errorf("%q: %v says not what can be read", text, err)
		}
	}
}

func TestPeriod(t *testing.T) {
	early, late := when{time.Unix(1, 0)}, when{time.Unix(2, 0)}
	for _, c := range []struct {
		period period
		ok     bool
	}{
		{period{}, true},
		{period{From: early}, true},
		{period{To: late}, true},
		{period{early, late}, true},
		{period{late, early}, false},
		{period{early, early}, false},
	} {
		if err := c.period.Validate(); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.period, err)
		}
	}
}
