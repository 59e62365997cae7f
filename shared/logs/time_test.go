package logs

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	const newYear = 1_704_067_200_000_000_000 // 2024-01-01
	for _, c := range []struct {
		in   string
		want int64
	}{
		{"0", 0},
		{"-0", 0},
		{"1", 1},
		{"-1", -1},
		{"1700000000000000000", 1_700_000_000_000_000_000},
		{"9223372036854775807", MaxTime},
		{"-2208988800000000000", MinTime},
		{"00000000000000000000000042", 42},
		{"-00000000000000000000000042", -42},
		{"00000000000000000000000000", 0},

		{"2024-01-01", newYear},
		{"2024-02-29", newYear + 59*86_400_000_000_000},
		{"1970-01-01", 0},
		{"1900-01-01", MinTime},
		{"2262-04-11", 9_223_286_400 * 1e9},

		{"2024-01-01T00:00:00Z", newYear},
		{"2024-01-01T00:00:00.5Z", newYear + 5e8},
		{"2024-01-01T00:00:00.123456789Z", newYear + 123_456_789},
		{"2024-01-01T00:00:00.1234567891234Z", newYear + 123_456_789},
		{"2024-01-01T02:30:00+02:30", newYear},
		{"2023-12-31T16:00:00.000000001-08:00", newYear + 1},
		{"2024-01-01T00:00:00-00:00", newYear},
		{"1900-01-01T00:00:00Z", MinTime},
		{"1900-01-01T01:00:00+01:00", MinTime},
		{"2262-04-11T23:47:16Z", MaxTime / 1e9 * 1e9},
		{"2262-04-11T23:47:16.854775807Z", MaxTime},
	} {
		got, err := ParseTime([]byte(c.in))
		if err != nil || got != c.want {
			t.Errorf("%s\n got %d, %v\nwant %d", c.in, got, err, c.want)
		}
	}
}

func TestParseTimeRefuses(t *testing.T) {
	for _, in := range []string{
		"9223372036854775808", "-2208988800000000001", "-9223372036854775808", "-9223372036854775809",
		"99999999999999999999", "1" + strings.Repeat("0", 400), "-1" + strings.Repeat("0", 400),
		"1899-12-31", "2262-04-12", "0001-01-01", "9999-12-31",
		"1899-12-31T23:59:59.999999999Z", "1900-01-01T00:00:00+00:01",
		"2262-04-11T23:47:16.854775808Z", "2262-04-11T23:47:17Z", "9999-12-31T23:59:59Z",
	} {
		if got, err := ParseTime([]byte(in)); !errors.Is(err, errTimeRange) {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", " ", "-", "+1", "1 ", " 1", "1.5", "1e18", "1_000", "0x10", "١", "Inf", "NaN", "1e400", "--1",
		"2024-01", "2024-13-01", "2024-02-30", "2023-02-29", "01-01-2024", "2024/01/01", "2024-01-01 ", "2024-01-01Z",
		"2024-01-01T00:00:00", "2024-01-01 00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T00:00:60Z", "2024-01-01T00:00Z",
		"2024-01-01T00:00:00.Z", "2024-01-01T00:00:00+0200", "now", "\xff\xff",
	} {
		got, err := ParseTime([]byte(in))
		if err == nil || !strings.HasSuffix(err.Error(), "is neither unix nanoseconds nor RFC 3339 nor a date") {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	_, err := ParseTime([]byte(strings.Repeat("x", 1000)))
	if want := `timestamp "` + strings.Repeat("x", 64) + `…" is neither unix nanoseconds nor RFC 3339 nor a date`; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestParseTimeDoesNotAllocate(t *testing.T) {
	for _, in := range []string{"1700000000000000000", "2024-01-01T00:00:00.5Z", "2024-01-01T00:00:00.123456789+02:00", "2024-01-01"} {
		text := []byte(in)
		if got := testing.AllocsPerRun(100, func() { _, _ = ParseTime(text) }); got > 0 {
			t.Errorf("%s: %.0f allocations", in, got)
		}
	}
}

func TestTimeBounds(t *testing.T) {
	if got := time.Unix(0, MinTime).UTC().Format(time.RFC3339Nano); got != "1900-01-01T00:00:00Z" {
		t.Error(got)
	}
	if got := time.Unix(0, MaxTime).UTC().Format(time.RFC3339Nano); got != "2262-04-11T23:47:16.854775807Z" {
		t.Error(got)
	}
	for _, ns := range []int64{MinTime, -1, 0, 1, MaxTime} {
		if err := CheckTime(ns); err != nil {
			t.Error(err)
		}
	}
	for _, ns := range []int64{MinTime - 1, math.MinInt64} {
		if err := CheckTime(ns); !errors.Is(err, errTimeRange) {
			t.Errorf("%d: %v", ns, err)
		}
	}
}

// FuzzParseTime checks that what is read is the time that the text says.
func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"1700000000000000000", "-1", "2024-01-01", "2024-01-01T00:00:00.5+02:00", "2262-04-11T23:47:16.854775807Z", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ns, err := ParseTime([]byte(s))
		if err != nil {
			return
		}
		if err := CheckTime(ns); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		again, err := ParseTime([]byte(time.Unix(0, ns).UTC().Format(time.RFC3339Nano)))
		if err != nil || again != ns {
			t.Fatalf("%q is %d, written and read again %d, %v", s, ns, again, err)
		}
	})
}

func BenchmarkParseTime(b *testing.B) {
	for _, in := range []string{"1700000000000000000", "2024-01-01T00:00:00.123456789Z", "2024-01-01"} {
		b.Run(in, func(b *testing.B) {
			text := []byte(in)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseTime(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestUnixNano(t *testing.T) {
	for _, c := range []struct {
		seconds, nanos, want int64
		err                  string
	}{
		{0, 0, 0, ""},
		{-1, 999_999_999, -1, ""},
		{-2208988800, 0, MinTime, ""},
		{9223372036, 854_775_807, MaxTime, ""},
		{0, -1, 0, "nanos -1 are outside of 0 to 999999999"},
		{0, 1e9, 0, "nanos 1000000000 are outside of 0 to 999999999"},
		{-2208988801, 999_999_999, 0, "timestamp of -2208988801 s and 999999999 ns after 1970 is outside of 1900-01-01 to 2262-04-11"},
		{9223372036, 854_775_808, 0, "timestamp of 9223372036 s and 854775808 ns after 1970 is outside of 1900-01-01 to 2262-04-11"},
		{9223372037, 0, 0, "timestamp of 9223372037 s and 0 ns after 1970 is outside of 1900-01-01 to 2262-04-11"},
		{math.MaxInt64, 0, 0, "timestamp of 9223372036854775807 s and 0 ns after 1970 is outside of 1900-01-01 to 2262-04-11"},
		{math.MinInt64, 0, 0, "timestamp of -9223372036854775808 s and 0 ns after 1970 is outside of 1900-01-01 to 2262-04-11"},
	} {
		got, err := UnixNano(c.seconds, c.nanos)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%d s and %d ns: %d, %v", c.seconds, c.nanos, got, err)
		}
	}
}
