package elastic

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

// benchBulk is decodetest.BenchPush as a shipper sends it.
func benchBulk(t testing.TB) []byte {
	var body []byte
	for _, s := range decodetest.BenchPush() {
		for _, e := range s.Entries {
			fields := map[string]any{"@timestamp": e.Time.Format(time.RFC3339Nano), "message": e.Line}
			for _, l := range s.Labels {
				switch l.Name {
				case "app":
					fields["service"] = map[string]string{"name": l.Value}
				case "level", "pod":
					fields[l.Name] = l.Value
				}
			}
			for _, m := range e.Metadata {
				fields[m.Name] = m.Value
			}
			raw, err := json.Marshal(fields)
			decodetest.Must(t, err)
			body = fmt.Appendf(body, `{"create":{"_index":"logs-checkout-default","_id":"%016x"}}`+"\n%s\n", len(body), raw)
		}
	}
	return body
}

func BenchmarkBulk(b *testing.B) {
	body := benchBulk(b)
	var items []Item
	decodetest.Benchmark(b, len(body), func(batch *logs.Batch) (err error) {
		items, err = Bulk(batch, body, "", testNow, testLimits, items[:0])
		return err
	})
}

func BenchmarkAppendResponse(b *testing.B) {
	var batch logs.Batch
	items, err := Bulk(&batch, benchBulk(b), "", testNow, testLimits, nil)
	decodetest.Must(b, err)
	var answer []byte
	b.ReportAllocs()
	for b.Loop() {
		answer = AppendResponse(answer[:0], items, 17)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(items)), "ns/item")
}

func TestAllocations(t *testing.T) {
	body := benchBulk(t)
	var items []Item
	decodetest.WantFewAllocations(t, func(b *logs.Batch) (err error) {
		items, err = Bulk(b, body, "", testNow, testLimits, items[:0])
		return err
	})
}

// What a bulk costs is bounded by its size, once it is more than the items of one may take.
func TestMemory(t *testing.T) {
	for name, body := range map[string]string{
		"good":    strings.Repeat(`{"index":{}}`+"\n"+`{"msg":"a log line of the usual kind, with a number: 1234567890","k":"v"}`+"\n", MaxItems),
		"refused": strings.Repeat(`{"index":{}}`+"\n"+`{"msg":"a log line of the usual kind, with a number: 1234567890","time":"x"}`+"\n", MaxItems),
		"tiny":    strings.Repeat(`{"index":{}}`+"\n{}\n", 10*MaxItems),
		"deletes": strings.Repeat(`{"delete":{}}`+"\n", 10*MaxItems),
	} {
		t.Run(name, func(t *testing.T) {
			factor := decodetest.MemoryFactor(len(body), func(b *logs.Batch) error {
				_, err := Bulk(b, []byte(body), "i", testNow, decode.Limits{MaxLineBytes: 1 << 20, MaxPushBytes: 100 << 20}, nil)
				return err
			})
			if factor > 10 {
				t.Errorf("%.1f bytes for each byte", factor)
			}
		})
	}
}
