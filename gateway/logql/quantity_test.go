package logql

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "1ns": 1, "1us": 1000, "1µs": 1000, "1μs": 1000, "1ms": 1e6, "1s": 1e9, "1m": time.Minute, "1h": time.Hour,
		"1d": 24 * time.Hour, "1w": 168 * time.Hour, "1y": 8760 * time.Hour,
		"1h30m": 90 * time.Minute, "1m1h": 61 * time.Minute, "0.5h": 30 * time.Minute, ".5m": 30 * time.Second, "1.s": time.Second,
		"1.1s": 1_100_000_000, "1.5d2h": 38 * time.Hour, "007s": 7 * time.Second, "9223372036854775807ns": math.MaxInt64,
	} {
		if got, ok := parseDuration(text); !ok || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"1", "s", "1x", "1S", "1h30", "1..5s", ".s", "1 s", "9223372036854775808ns", "300y", "9223372036s9223372036s", "1e3s", "-1s",
		"18446744073709551616ns", "99999999999999999999999y",
	} {
		if got, ok := parseDuration(text); ok {
			t.Errorf("%s: %v", text, got)
		}
	}
	for want, d := range map[string]time.Duration{
		"0s": 0, "1h30m": 90 * time.Minute, "1d": day, "1w": week, "1d12h": 36 * time.Hour, "1m30s": 90 * time.Second,
		"1s500ms": 1500 * time.Millisecond, "-5m": -5 * time.Minute, "1us1ns": 1001, "8d": 8 * day,
	} {
		if got := string(appendDuration(nil, d)); got != want {
			t.Errorf("%d: %s; want %s", d, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]uint64{
		"0b": 0, "1B": 1, "20b": 20, "42MB": 42e6, "1.5Kib": 1536, "1KB": 1000, "1kb": 1000, "1k": 1000, "1Ki": 1024, "1KiB": 1024,
		"1M": 1e6, "1MiB": 1 << 20, "1GB": 1e9, "1gib": 1 << 30, "1TB": 1e12, "1TiB": 1 << 40, "1PB": 1e15, "1PiB": 1 << 50, "1EB": 1e18,
		"1EiB": 1 << 60, "15EiB": 15 << 60, "0.1KB": 100, ".5B": 1, "18446744073709551615B": math.MaxUint64,
	} {
		if got, ok := parseSize(text); !ok || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"1", "B", "1X", "1KBs", "1KB2B", "1..5KB", "16EiB", "18446744073709551616B", "15.99999999999999999999EiB", "-1B"} {
		if got, ok := parseSize(text); ok {
			t.Errorf("%s: %v", text, got)
		}
	}
	for want, size := range map[string]uint64{"0B": 0, "1B": 1, "1536B": 1536, "1KB": 1000, "1KiB": 1024, "3MiB": 3 << 20, "20KB": 20_000, "5EB": 5e18} {
		if got := string(appendSize(nil, size)); got != want {
			t.Errorf("%d: %s; want %s", size, got, want)
		}
	}
}

func TestQuantitiesReadBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		d := time.Duration(r.Int64() >> r.IntN(63))
		if got, ok := parseDuration(string(appendDuration(nil, d))); !ok || got != d {
			t.Fatalf("%s is read as %d, not %d", appendDuration(nil, d), got, d)
		}
		size := r.Uint64() >> r.IntN(64)
		if got, ok := parseSize(string(appendSize(nil, size))); !ok || got != size {
			t.Fatalf("%s is read as %d, not %d", appendSize(nil, size), got, size)
		}
		number := math.Float64frombits(r.Uint64() >> 1)
		if math.IsInf(number, 0) || math.IsNaN(number) {
			continue
		}
		if got, ok := parseNumber(string(appendNumber(nil, number))); !ok || got != number {
			t.Fatalf("%s is read as %v, not %v", appendNumber(nil, number), got, number)
		}
	}
}
