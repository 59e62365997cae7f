package gateway

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const benchLines = 2000

// benchPush is 2,000 lines of about 150 bytes in 10 streams, the same at every run.
func benchPush() []stream {
	random := rand.New(rand.NewPCG(9, 10))
	words := strings.Fields("request served from cache upstream connection reset by peer retrying user session token expired queue flushed shard")
	var streams []stream
	at := someTime
	for i := range 10 {
		s := stream{labels: map[string]string{"app": "checkout", "env": "production", "level": "info", "pod": fmt.Sprintf("checkout-7d9f8b6c5-%05d", i*7919)}}
		for range benchLines / 10 {
			at += random.Int64N(5_000_000)
			var text []string
			for range 9 {
				text = append(text, words[random.IntN(len(words))])
			}
			s.entries = append(s.entries, entry{at: at, line: fmt.Sprintf("level=info caller=handler.go:%d msg=%q trace=%016x dur=%dms",
				random.IntN(900), strings.Join(text, " "), random.Uint64(), random.IntN(1000))})
		}
		streams = append(streams, s)
	}
	return streams
}

// BenchmarkPush is a push from its body to the confirmation that it is on disk, without HTTP's network. Each
// has a key of its own: without, all but the first would be duplicates.
func BenchmarkPush(b *testing.B) {
	streams := benchPush()
	for _, c := range []struct {
		name, typ string
		body      []byte
		size      int
	}{
		{"protobuf", protoType, asSnappy(streams...), len(asProto(streams...))},
		{"json", jsonType, asJSON(streams...), len(asJSON(streams...))},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := start(b, func(s *setup) { s.wal.MaxBytes = 8 << 30 })
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			body := bytes.NewReader(nil)
			n := 0
			for b.Loop() {
				body.Reset(c.body)
				request := httptest.NewRequest(http.MethodPost, "/loki/api/v1/push", io.NopCloser(body))
				request.Header.Set("Content-Type", c.typ)
				request.Header.Set("tenant-id", "bench")
				request.Header.Set("Idempotency-Key", fmt.Sprint(n))
				n++
				recorder := httptest.NewRecorder()
				f.handler.ServeHTTP(recorder, request)
				if recorder.Code != http.StatusNoContent {
					b.Fatal(recorder.Code, recorder.Body)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchLines, "ns/line")
		})
	}
}
