package loki

import (
	"fmt"
	"strings"
	"testing"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/snappy"

	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

func benchPush() push.PushRequest {
	var req push.PushRequest
	for _, s := range decodetest.BenchPush() {
		var labels []string
		for _, l := range s.Labels {
			labels = append(labels, fmt.Sprintf("%s=%q", l.Name, l.Value))
		}
		out := push.Stream{Labels: "{" + strings.Join(labels, ", ") + "}"}
		for _, e := range s.Entries {
			entry := push.Entry{Timestamp: e.Time, Line: e.Line}
			for _, m := range e.Metadata {
				entry.StructuredMetadata = append(entry.StructuredMetadata, push.LabelAdapter{Name: m.Name, Value: m.Value})
			}
			out.Entries = append(out.Entries, entry)
		}
		req.Streams = append(req.Streams, out)
	}
	return req
}

func benchJSON(req push.PushRequest) []byte {
	out := []byte(`{"streams":[`)
	for i, s := range req.Streams {
		if i > 0 {
			out = append(out, ',')
		}
		labels, err := ParseLabels(s.Labels)
		if err != nil {
			panic(err)
		}
		canonical, err := logs.Canonical(labels)
		if err != nil {
			panic(err)
		}
		out = append(out, `{"stream":`+canonical+`,"values":[`...)
		for j, e := range s.Entries {
			if j > 0 {
				out = append(out, ',')
			}
			out = fmt.Appendf(out, `["%d",%q`, e.Timestamp.UnixNano(), e.Line)
			for _, m := range e.StructuredMetadata {
				out = fmt.Appendf(out, `,{%q:%q}`, m.Name, m.Value)
			}
			out = append(out, ']')
		}
		out = append(out, "]}"...)
	}
	return append(out, "]}"...)
}

func BenchmarkJSON(b *testing.B) {
	body := benchJSON(benchPush())
	decodetest.Benchmark(b, len(body), func(batch *logs.Batch) error { return JSON(batch, body, testNow, testLimits) })
}

func BenchmarkProtobuf(b *testing.B) {
	req := benchPush()
	raw, err := req.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	body := snappy.Encode(nil, raw)
	decodetest.Benchmark(b, len(raw), func(batch *logs.Batch) error { return Protobuf(batch, body, testNow, testLimits) })
}

func BenchmarkProtobufUnpacked(b *testing.B) {
	// What the snappy block costs by itself.
	req := benchPush()
	raw, err := req.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	body := snappy.Encode(nil, raw)
	buf := make([]byte, len(raw))
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := snappy.Decode(buf, body); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/decodetest.BenchLines, "ns/line")
}

func TestAllocations(t *testing.T) {
	req := benchPush()
	raw, err := req.Marshal()
	decodetest.Must(t, err)
	body, packed := benchJSON(req), snappy.Encode(nil, raw)
	t.Run("JSON", func(t *testing.T) {
		decodetest.WantFewAllocations(t, func(b *logs.Batch) error { return JSON(b, body, testNow, testLimits) })
	})
	t.Run("Protobuf", func(t *testing.T) {
		decodetest.WantFewAllocations(t, func(b *logs.Batch) error { return Protobuf(b, packed, testNow, testLimits) })
	})
}
