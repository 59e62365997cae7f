package syslog

import (
	"fmt"
	"testing"
	"time"

	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

// benches are the lines of decodetest.BenchPush in several forms.
func benches() map[string][][]byte {
	out := map[string][][]byte{}
	for _, s := range decodetest.BenchPush() {
		for _, e := range s.Entries {
			stamp := e.Time.Format("2006-01-02T15:04:05.999999Z07:00")
			// The columns of metadata grow from nothing with each batch, so that many of them are no measure here.
			for name, message := range map[string]string{
				"rfc5424":    fmt.Sprintf("<30>1 %s %s checkout 4711 - - %s", stamp, s.Labels[3].Value, e.Line),
				"structured": fmt.Sprintf(`<30>1 %s %s checkout 4711 - [origin software="a \"b\""] %s`, stamp, s.Labels[3].Value, e.Line),
				"rfc3164":    fmt.Sprintf("<30>%s %s checkout[4711]: %s", e.Time.Format(time.Stamp), s.Labels[3].Value, e.Line),
				"forward":    fmt.Sprintf("<30>%s %s checkout[4711]: %s", stamp, s.Labels[3].Value, e.Line),
				"unparsed":   e.Line,
			} {
				out[name] = append(out[name], []byte(message))
			}
		}
	}
	return out
}

func BenchmarkAppend(b *testing.B) {
	for name, messages := range benches() {
		size := 0
		for _, message := range messages {
			size += len(message)
		}
		b.Run(name, func(b *testing.B) {
			var p Parser
			decodetest.Benchmark(b, size, func(batch *logs.Batch) error {
				for _, message := range messages {
					p.Append(batch, message, testNow, decodetest.Limits, testPeer)
				}
				return nil
			})
		})
	}
}

func TestAllocations(t *testing.T) {
	for name, messages := range benches() {
		t.Run(name, func(t *testing.T) {
			var p Parser
			decodetest.WantFewAllocations(t, func(batch *logs.Batch) error {
				for _, message := range messages {
					p.Append(batch, message, testNow, decodetest.Limits, testPeer)
				}
				return nil
			})
		})
	}
}
