package jsonline

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/gateway/decode/document"
	"github.com/casteloig/logthra/shared/logs"
)

// benchMapping takes the labels of decodetest.BenchPush for labels; level is one already.
var benchMapping = document.Mapping{Message: document.DefaultMessage, Time: document.DefaultTime, Streams: []string{"app", "env", "pod"}}

// benchPush is decodetest.BenchPush in lines.
func benchPush(tb testing.TB) []byte {
	tb.Helper()
	var out []byte
	for _, s := range decodetest.BenchPush() {
		for _, e := range s.Entries {
			doc := map[string]string{"timestamp": e.Time.Format(time.RFC3339Nano), "message": e.Line}
			for _, l := range s.Labels {
				doc[l.Name] = l.Value
			}
			for _, m := range e.Metadata {
				doc[m.Name] = m.Value
			}
			text, err := json.Marshal(doc)
			decodetest.Must(tb, err)
			out = append(append(out, text...), '\n')
		}
	}
	return out
}

// asArray makes the array of the lines.
func asArray(lines []byte) []byte {
	out := []byte{'['}
	for i, c := range lines {
		if c == '\n' && i+1 < len(lines) {
			c = ','
		}
		out = append(out, c)
	}
	return append(out, ']')
}

func BenchmarkDecode(b *testing.B) {
	lines := benchPush(b)
	for name, body := range map[string][]byte{"lines": lines, "array": asArray(lines)} {
		b.Run(name, func(b *testing.B) {
			decodetest.Benchmark(b, len(body), func(batch *logs.Batch) error { return Decode(batch, body, &benchMapping, testNow, testLimits) })
		})
	}
}

func TestAllocations(t *testing.T) {
	lines := benchPush(t)
	for name, body := range map[string][]byte{"lines": lines, "array": asArray(lines)} {
		t.Run(name, func(t *testing.T) {
			decodetest.WantFewAllocations(t, func(b *logs.Batch) error { return Decode(b, body, &benchMapping, testNow, testLimits) })
		})
	}
}
