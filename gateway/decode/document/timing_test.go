package document

import (
	"testing"

	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

// filebeat is a line of a container's log as Filebeat sends it with add_kubernetes_metadata.
const filebeat = `{"@timestamp":"2025-10-01T08:15:42.123Z","@metadata":{"beat":"filebeat","type":"_doc","version":"8.15.0"},` +
	`"message":"10.8.0.17 - - [01/Oct/2025:08:15:42 +0000] \"GET /api/cart/items?page=3 HTTP/1.1\" 200 1532 \"-\" \"Mozilla/5.0\" 0.013",` +
	`"log":{"offset":5231098,"file":{"path":"/var/log/containers/checkout-7d9f8b6c5-x2x4z_shop_checkout-0a1b2c3d4e5f.log"}},"stream":"stdout","input":{"type":"filestream"},` +
	`"kubernetes":{"namespace":"shop","labels":{"app":"checkout","pod-template-hash":"7d9f8b6c5"},"pod":{"name":"checkout-7d9f8b6c5-x2x4z","uid":"5b3cb2a4-5a53-4a5b-9d0b-6d4cf2a0e7b1","ip":"10.8.3.44"},"node":{"name":"node-17"},"container":{"name":"checkout"}},` +
	`"container":{"id":"0a1b2c3d4e5f","runtime":"containerd","image":{"name":"registry.example.com/shop/checkout:1.42.0"}},` +
	`"agent":{"type":"filebeat","version":"8.15.0","id":"1c8f7ad5-41b5-4b52-a0a8-0b2a1d1d6c77","ephemeral_id":"9d2f7d0c-8c43-41d0-a8cf-4ae4b0a5c8f0","name":"node-17"},` +
	`"ecs":{"version":"8.0.0"},"host":{"name":"node-17"},"service":{"name":"checkout"}}`

func appendMany(b *logs.Batch, p *Parser, document []byte) error {
	defer p.Reset()
	for range decodetest.BenchLines {
		if err := p.Append(b, document, &testMapping, testNow, testLimits); err != nil {
			return err
		}
	}
	return nil
}

const (
	short = `{"time":1700000000123,"level":"info","msg":"request served","service":{"name":"checkout"},"pid":17}`
	whole = `{"time":1700000000123,"level":"INFO","text":"request served","service":{"name":"checkout"},"pid":17}`
)

func BenchmarkAppend(b *testing.B) {
	for name, document := range map[string]string{"filebeat": filebeat, "short": short, "whole": whole} {
		b.Run(name, func(b *testing.B) {
			var p Parser
			decodetest.Benchmark(b, decodetest.BenchLines*len(document), func(batch *logs.Batch) error { return appendMany(batch, &p, []byte(document)) })
		})
	}
}

func BenchmarkParseTime(b *testing.B) {
	for _, text := range []string{"2025-10-01T08:15:42.123Z", "2025-10-01 08:15:42,123+0200", "1700000000.123456789"} {
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseTime([]byte(text)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The columns of metadata grow from nothing with each batch, so that a document with many of them is no measure here.
func TestAllocations(t *testing.T) {
	for name, document := range map[string]string{"short": short, "whole": whole} {
		t.Run(name, func(t *testing.T) {
			var p Parser
			decodetest.WantFewAllocations(t, func(b *logs.Batch) error { return appendMany(b, &p, []byte(document)) })
		})
	}
}
