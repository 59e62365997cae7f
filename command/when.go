package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// period is the time that a tool looks at, by when the WAL took a push: From is in it, To is not.
type period struct {
	From when `placeholder:"TIME" help:"Only what the WAL took at this time or later: a duration ago (2h, 3d), RFC 3339 (2026-11-22T10:00:00Z), or a date (midnight, UTC)."`
	To   when `placeholder:"TIME" help:"Only what the WAL took before this time; written as --from is."`
}

// Validate is called by the command line's parser.
func (p *period) Validate() error {
	if !p.From.IsZero() && !p.To.IsZero() && !p.From.Before(p.To.Time) {
		return fmt.Errorf("--from (%s) is not before --to (%s)", p.From.Format(time.RFC3339), p.To.Format(time.RFC3339))
	}
	return nil
}

// when is a point in time of a command line. The zero value is no bound.
type when struct{ time.Time }

// UnmarshalText implements encoding.TextUnmarshaler. It reads a duration ago, RFC 3339, or a date, which is
// midnight UTC.
func (w *when) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if s == "" {
		*w = when{}
		return nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			*w = when{t.UTC()}
			return nil
		}
	}
	ago, err := parseAgo(strings.TrimSpace(strings.TrimSuffix(s, "ago")))
	if err != nil {
		return fmt.Errorf("%q is neither a duration ago (2h, 3d) nor RFC 3339 (2026-11-22T10:00:00Z) nor a date (2026-11-22)", text)
	}
	*w = when{time.Now().UTC().Add(-ago)}
	return nil
}

// parseAgo reads a duration as people say it: that of time.ParseDuration, with days before it or alone.
func parseAgo(s string) (time.Duration, error) {
	const most = 290 * 365 // what a time.Duration can hold
	var days time.Duration
	if number, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > most {
			return 0, errors.New("not a number of days")
		}
		days = time.Duration(n) * 24 * time.Hour
		if s = rest; s == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || days+d < 0 {
		return 0, errors.New("not a duration")
	}
	return days + d, nil
}
