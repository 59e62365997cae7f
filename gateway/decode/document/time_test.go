package document

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/logs"
)

func TestParseTime(t *testing.T) {
	for text, want := range map[string]int64{
		"0":                                   0,
		"-0.000":                              0,
		"1700000000":                          1700000000e9,
		"1700000000123":                       1700000000123e6,
		"1700000000123456":                    1700000000123456e3,
		"1700000000123456789":                 1700000000123456789,
		"1700000000.123456789":                1700000000123456789,
		"1700000000.12345678900":              1700000000123456789,
		"01700000000.5":                       17000000005e8,
		"1700000000123.456789":                1700000000123456789,
		"1700000000123456.789":                1700000000123456789,
		"1.7e9":                               1700000000e9,
		"1.7E+9":                              1700000000e9,
		"17000000000000000000e-10":            1700000000e9,
		"1.7e12":                              1700000000e9,
		"0.000000001":                         1,
		"1.0000000019":                        1e9 + 1,
		"-1.0000000019":                       -1e9 - 1,
		"1e-10":                               0,
		"1e-99999999999999999999":             0,
		"2024-01-01T10:00:00.1234567899":      1704103200123456789,
		"-0.5":                                -5e8,
		"-2208988800":                         logs.MinTime,
		"-2208988800000":                      logs.MinTime,
		"99999999999e-2":                      99999999999e7,
		"100000000000":                        1e17, // ms
		"9223372036854.775807":                logs.MaxTime,
		"100000000000000":                     1e17, // µs
		"100000000000000000":                  1e17, // ns
		"9223372036854775807":                 logs.MaxTime,
		"9223372036.854775807":                logs.MaxTime,
		"2024-01-01":                          1704067200e9,
		"2024-01-01T10:00:00Z":                1704103200e9,
		"2024-01-01T10:00:00":                 1704103200e9,
		"2024-01-01 10:00:00.123456789":       1704103200123456789,
		"2024-01-01 10:00:00,123":             1704103200123e6,
		"2024-01-01T10:00:00.1234567890000Z":  1704103200123456789,
		"2024-01-01T12:00:00.5+02:00":         17041032005e8,
		"2024-01-01T12:00:00.5+0200":          17041032005e8,
		"2024-01-01T12:00:00+02":              1704103200e9,
		"2024-01-01 12:00:00 +0200":           1704103200e9,
		"2024-01-01 08:30:00-0130":            1704103200e9,
		"1900-01-01":                          logs.MinTime,
		"2262-04-11T23:47:16.854775807Z":      logs.MaxTime,
		"2262-04-11 23:47:16.854775807-00:00": logs.MaxTime,
	} {
		if got, err := ParseTime([]byte(text)); err != nil || got != want {
			t.Errorf("%s: read %d (%v), want %d", text, got, err, want)
		}
	}
}

func TestParseTimeErrors(t *testing.T) {
	const (
		none = "is neither unix time nor RFC 3339 nor a date"
		out  = "is outside of 1900-01-01 to 2262-04-11"
		fine = "has more than 19 digits"
	)
	for text, want := range map[string]string{
		"": none, "x": none, "-": none, "1.": none, ".5": none, "1e": none, "1e+": none, "1x": none, "+1": none, "0x1p3": none, "NaN": none, "1_000": none,
		"2024-01": none, "2024-13-01": none, "2024-02-30": none, "20240101T100000Z": none, "2024-01-01T": none, "2024-01-01T10:00": none,
		"2024-01-01T10:00:0": none, "2024-01-01X10:00:00": none, "2024-01-01T24:00:00Z": none, "2024-01-01T10:00:00.Z": none, "2024-01-01T10:00:00 ": none,
		"2024-01-01T10:00:00,": none, "2024-01-01T10:00:00+2": none, "2024-01-01T10:00:00+200": none, "2024-01-01T10:00:00+25:00": none, "2024-01-01 10:00:00 CET": none,
		"2024-01-01T10:00:00z": none, "2024-01-01T10:00:00.5Zz": none, "01/Jan/2024": none,
		"1700000000000000000.5":           fine,
		"1700000000.12345678901234567890": fine,
		"9223372036854775808":             out, "-9223372036854775808": out, "99999999999": out, "-2208988800.000000001": out, "1e19": out, "1e99999999999999999999": out,
		"12345678901234567890123": out, "1899-12-31": out, "2262-04-12": out, "9999-12-31T23:59:59Z": out,
	} {
		got, err := ParseTime([]byte(text))
		if err == nil || !strings.HasSuffix(err.Error(), want) || !strings.HasPrefix(err.Error(), `timestamp "`) {
			t.Errorf("%q: read %d (%v), want %s", text, got, err, want)
		}
	}
}

func TestParseTimeAllocatesNothing(t *testing.T) {
	for _, text := range []string{"2025-10-01T08:15:42.123Z", "2025-10-01 08:15:42,123+0200", "1700000000.123456789", "1.7e9"} {
		text := []byte(text)
		if n := testing.AllocsPerRun(100, func() { _, _ = ParseTime(text) }); n > 0 {
			t.Errorf("%s: %.0f allocations", text, n)
		}
	}
}

// FuzzParseTime holds numbers against exact arithmetic, and the rest against logs.ParseTime.
func FuzzParseTime(f *testing.F) {
	for _, text := range []string{"1700000000.123456789", "-17e-1", "100000000000", "2024-01-01T10:00:00.5+02:00", "2024-01-01", "0.00", "1e5", "99999999999999.9"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseTime([]byte(text))
		if err == nil && logs.CheckTime(got) != nil {
			t.Fatalf("%q: %d", text, got)
		}
		if len(text) < 40 && !strings.ContainsAny(text, "_xXpPoObB/") {
			if n, ok := new(big.Rat).SetString(text); ok && strings.Trim(text, "0123456789.eE+-") == "" {
				wantNumber(t, text, n, got, err)
				return
			}
		}
		if want, wantErr := logs.ParseTime([]byte(text)); wantErr == nil && text[4] == '-' && (err != nil || got != want) {
			if err != nil && strings.HasSuffix(err.Error(), errTooFine.Error()) {
				return
			}
			t.Fatalf("%q: read %d (%v), want %d", text, got, err, want)
		}
	})
}

func wantNumber(t *testing.T, text string, n *big.Rat, got int64, err error) {
	t.Helper()
	if err != nil && strings.HasSuffix(err.Error(), errNoTime.Error()) {
		// big.Rat also takes what JSON does not: +1, .5 and 1. are no numbers here.
		if text[0] == '+' || strings.HasPrefix(strings.TrimPrefix(text, "-"), ".") || strings.HasSuffix(text, ".") || strings.Contains(strings.ToLower(text), ".e") {
			return
		}
		t.Fatalf("%q: %v", text, err)
	}
	unit := int64(time.Second)
	for _, limit := range []int64{1e11, 1e14, 1e17} {
		if new(big.Rat).Abs(n).Cmp(new(big.Rat).SetInt64(limit)) < 0 {
			break
		}
		unit /= 1000
	}
	if err != nil && strings.HasSuffix(err.Error(), errTooFine.Error()) {
		return
	}
	scaled := new(big.Rat).Mul(n, new(big.Rat).SetInt64(unit))
	want := new(big.Int).Quo(scaled.Num(), scaled.Denom())
	possible := want.IsInt64() && logs.CheckTime(want.Int64()) == nil
	if possible != (err == nil) || possible && want.Int64() != got {
		t.Fatalf("%q: read %d (%v), want %s", text, got, err, want)
	}
}
