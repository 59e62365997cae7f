package splunk

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

// benchEvents is decodetest.BenchPush as events with strings, or with objects.
func benchEvents(tb testing.TB, objects bool) []byte {
	tb.Helper()
	var out []byte
	for _, s := range decodetest.BenchPush() {
		for _, e := range s.Entries {
			// The columns of metadata grow from nothing with each batch, so that many of them are no measure here.
			fields := map[string]string{"service.name": s.Labels[0].Value, "deployment.environment": s.Labels[1].Value, "level": s.Labels[2].Value}
			for _, m := range e.Metadata {
				fields[m.Name] = m.Value
			}
			seconds := fmt.Sprintf("%d.%06d", e.Time.Unix(), e.Time.Nanosecond()/1000)
			event := map[string]any{"time": json.Number(seconds), "host": s.Labels[3].Value, "sourcetype": "app", "event": e.Line, "fields": fields}
			if objects {
				event["event"] = map[string]any{"message": e.Line, "severity": "info"}
			}
			text, err := json.Marshal(event)
			decodetest.Must(tb, err)
			out = append(out, text...)
		}
	}
	return out
}

// benchRaw is the lines of decodetest.BenchPush.
func benchRaw() []byte {
	var out []byte
	for _, s := range decodetest.BenchPush() {
		for _, e := range s.Entries {
			out = append(append(out, e.Line...), '\n')
		}
	}
	return out
}

// benches are pushes of decodetest.BenchLines lines.
func benches(tb testing.TB) map[string]bench {
	tb.Helper()
	events := func(body []byte) bench {
		return bench{len(body), func(b *logs.Batch) error { return Events(b, body, Defaults{Index: "main"}, testNow, testLimits) }}
	}
	raw := benchRaw()
	return map[string]bench{
		"strings": events(benchEvents(tb, false)),
		"objects": events(benchEvents(tb, true)),
		"raw":     {len(raw), func(b *logs.Batch) error { return Raw(b, raw, Defaults{Index: "main"}, testNow, testLimits) }},
	}
}

type bench struct {
	size   int
	decode func(*logs.Batch) error
}

func BenchmarkDecode(b *testing.B) {
	for name, push := range benches(b) {
		b.Run(name, func(b *testing.B) { decodetest.Benchmark(b, push.size, push.decode) })
	}
}

func TestAllocations(t *testing.T) {
	for name, push := range benches(t) {
		t.Run(name, func(t *testing.T) { decodetest.WantFewAllocations(t, push.decode) })
	}
}
