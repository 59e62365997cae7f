package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/casteloig/logthra/shared/wal"
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

// BenchmarkSmallPushes is pushes of one line each, from 256 clients that keep their connections, and for comparison the same
// records published straight to NATS by as many: most of either is the disk's, which has to confirm each for itself, so that
// TMPDIR has to be on a real one.
func BenchmarkSmallPushes(b *testing.B) {
	const clients, pushes = 256, 20_000
	f := start(b, func(s *setup) { s.wal.Shards, s.wal.MaxBytes = 4, 8<<30 })
	each := func(do func(client int) func(n int) error) time.Duration {
		var next atomic.Int64
		var group errgroup.Group
		began := time.Now()
		for client := range clients {
			one := do(client)
			group.Go(func() error {
				for n := next.Add(1); n <= pushes; n = next.Add(1) {
					if err := one(int(n)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		must(b, group.Wait())
		return time.Since(began)
	}
	var pushed, bare time.Duration
	var round int64
	for b.Loop() {
		round++
		pushed += each(func(int) func(int) error {
			conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
			must(b, err)
			b.Cleanup(func() { _ = conn.Close() })
			answers := bufio.NewReader(conn)
			return func(n int) error {
				body := asSnappy(stream{map[string]string{"app": "checkout"}, []entry{{at: someTime + round*pushes + int64(n), line: fmt.Sprintf("level=info msg=\"order %d paid\" trace=%016x", n, n*7919)}}})
				if _, err := fmt.Fprintf(conn, "POST /loki/api/v1/push HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: bench\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", protoType, len(body), body); err != nil {
					return err
				}
				response, err := http.ReadResponse(answers, nil)
				if err == nil && response.StatusCode != http.StatusNoContent {
					err = errors.New(response.Status)
				}
				return err
			}
		})
		record, err := f.wal.Record(b.Context(), 0, f.last(b, 0))
		must(b, err)
		conn, err := nats.Connect(f.nats)
		must(b, err)
		js, err := jetstream.New(conn)
		must(b, err)
		bare += each(func(int) func(int) error {
			return func(n int) error {
				msg := nats.NewMsg(fmt.Sprintf("%sbare.%d", wal.SubjectPrefix, n%4))
				msg.Data = record.Body()
				msg.Header = nats.Header{
					jetstream.MsgIDHeader: {fmt.Sprintf("bare.content.%032x", round*pushes+int64(n))},
					"Logthra-Record":      {"1"}, "Logthra-Encoding": {"s2"}, "Logthra-Entries": {"1"},
				}
				_, err := js.PublishMsg(b.Context(), msg)
				return err
			}
		})
		conn.Close()
	}
	total := float64(b.N * pushes)
	b.ReportMetric(total/pushed.Seconds(), "pushes/s")
	b.ReportMetric(total/bare.Seconds(), "bare/s")
	b.ReportMetric(bare.Seconds()/pushed.Seconds(), "of-bare")
}

// last is the last record of a shard.
func (f *fixture) last(t testing.TB, shard int) uint64 {
	t.Helper()
	last, err := f.wal.Last(t.Context(), shard)
	must(t, err)
	return last
}
