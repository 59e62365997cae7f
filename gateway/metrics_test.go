package gateway

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/protobuf/proto"
)

// scrape reads /metrics.
func (f *fixture) scrape(t testing.TB) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/metrics", nil)
	must(t, err)
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	return string(text)
}

// metric is the value of a series; one that is not there is 0.
func (f *fixture) metric(t testing.TB, series string) float64 {
	t.Helper()
	for line := range strings.Lines(f.scrape(t)) {
		if text, ok := strings.CutPrefix(line, series+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			must(t, err)
			return value
		}
	}
	return 0
}

func TestMetrics(t *testing.T) {
	f := start(t)
	s := stream{map[string]string{"app": "api"}, []entry{{someTime, "12345", nil}, {someTime + 1, "678", nil}}}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(asJSON(s))
	must(t, err)
	must(t, w.Close())

	const acme, path = "acme", "/api/push"
	wantTaken(t, f.post(t, path, &packed, "tenant-id", "json", "Content-Encoding", "gzip"))
	wantTaken(t, f.post(t, path, bytes.NewReader(asJSON(s)), "tenant-id", "json")) // again
	wantTaken(t, f.post(t, path, bytes.NewReader(asSnappy(s)), "tenant-id", "proto", "Content-Type", protoType))
	wantRefused(t, f.post(t, path, strings.NewReader("{}"), "tenant-id", acme), 400)
	wantRefused(t, f.post(t, path, strings.NewReader("{}")), 400)
	wantRefused(t, f.post(t, path, strings.NewReader("{}"), "Content-Type", protoType, "tenant-id", "a.b"), 400)
	wantRefused(t, f.post(t, path, bytes.NewReader(make([]byte, 16<<20+1)), "tenant-id", acme, "Content-Type", jsonType), 413)
	for range 2 {
		_, err = f.push(t, asRequest(s), "tenant-id", "grpc")
		must(t, err)
	}
	if _, err = f.push(t, asRequest(s)); err == nil {
		t.Fatal("taken without a tenant")
	}
	if _, err = f.push(t, asRequest(one(strings.Repeat("l", 16<<20))), "tenant-id", "grpc"); err == nil {
		t.Fatal("taken over the limit")
	}

	for series, want := range map[string]float64{
		`logthra_gateway_pushes_total{code="204",protocol="loki-json"}`:          2,
		`logthra_gateway_pushes_total{code="204",protocol="loki-protobuf"}`:      1,
		`logthra_gateway_pushes_total{code="400",protocol="loki-json"}`:          1,
		`logthra_gateway_pushes_total{code="400",protocol="loki-protobuf"}`:      1,
		`logthra_gateway_pushes_total{code="400",protocol="unknown"}`:            1,
		`logthra_gateway_pushes_total{code="413",protocol="loki-json"}`:          1,
		`logthra_gateway_pushes_total{code="OK",protocol="grpc"}`:                2,
		`logthra_gateway_pushes_total{code="InvalidArgument",protocol="grpc"}`:   1,
		`logthra_gateway_pushes_total{code="ResourceExhausted",protocol="grpc"}`: 1,

		`logthra_gateway_entries_total{protocol="loki-json"}`:              2,
		`logthra_gateway_entries_total{protocol="loki-protobuf"}`:          2,
		`logthra_gateway_entries_total{protocol="grpc"}`:                   2,
		`logthra_gateway_line_bytes_total{protocol="loki-json"}`:           8,
		`logthra_gateway_line_bytes_total{protocol="loki-protobuf"}`:       8,
		`logthra_gateway_line_bytes_total{protocol="grpc"}`:                8,
		`logthra_gateway_duplicate_pushes_total{protocol="loki-json"}`:     1,
		`logthra_gateway_duplicate_pushes_total{protocol="grpc"}`:          1,
		`logthra_gateway_duplicate_pushes_total{protocol="loki-protobuf"}`: 0,

		`logthra_gateway_body_bytes_total{protocol="loki-json"}`:     float64(2*len(asJSON(s)) + len("{}")),
		`logthra_gateway_body_bytes_total{protocol="loki-protobuf"}`: float64(len(asProto(s))),
		`logthra_gateway_body_bytes_total{protocol="grpc"}`:          float64(2 * proto.Size(asRequest(s))),
		`logthra_gateway_publish_duration_seconds_count`:             5,
	} {
		if got := f.metric(t, series); got != want {
			t.Errorf("%s is %g, not %g", series, got, want)
		}
	}
	stored := 0.0
	for shard := range f.seen {
		reader, err := f.wal.Read(t.Context(), shard, 1)
		must(t, err)
		last, err := f.wal.Last(t.Context(), shard)
		must(t, err)
		for read := uint64(0); read < last; {
			record := <-reader.Records()
			stored += float64(record.Size())
			read = record.Sequence
		}
		reader.Close()
	}
	if got := f.metric(t, "logthra_gateway_wal_bytes_total"); got != stored || got == 0 {
		t.Errorf("%g bytes written, not %g", got, stored)
	}

	problems, err := promlint.New(strings.NewReader(f.scrape(t))).Lint()
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// What goes wrong is told apart, and each kind has a series before it first happens.
func TestFailureMetrics(t *testing.T) {
	const ceiling = 4 << 20
	f := start(t, func(s *setup) { s.Limits.MaxPushBytes, s.MaxInflightBytes = 8<<20, ceiling })
	text := f.scrape(t)
	for _, series := range []string{
		`logthra_gateway_push_failures_total{reason="wal_full"}`, `logthra_gateway_push_failures_total{reason="wal_unavailable"}`,
		`logthra_gateway_push_failures_total{reason="memory"}`, `logthra_gateway_push_failures_total{reason="passwords"}`,
		`logthra_gateway_push_failures_total{reason="internal"}`, `logthra_gateway_pushes_total{code="503",protocol="syslog"}`,
		`logthra_gateway_pushes_total{code="200",protocol="otlp-json"}`, `logthra_gateway_pushes_total{code="Unavailable",protocol="otlp-grpc"}`,
		`logthra_gateway_duplicate_pushes_total{protocol="splunk-raw"}`, "logthra_gateway_inflight_bytes",
	} {
		if !strings.Contains(text, "\n"+series+" 0\n") {
			t.Errorf("there is no %s at 0", series)
		}
	}
	if got := f.metric(t, "logthra_gateway_inflight_max_bytes"); got != ceiling {
		t.Errorf("the ceiling is %g", got)
	}
	if !f.gateway.inflight.TryAcquire(ceiling) {
		t.Fatal("something is under way")
	}
	if got := f.metric(t, "logthra_gateway_inflight_bytes"); got != ceiling {
		t.Errorf("%g bytes are under way", got)
	}
	wantRefused(t, f.post(t, "/api/push", bytes.NewReader(asJSON(one("late"))), "tenant-id", "t"), http.StatusServiceUnavailable)
	if _, err := f.push(t, asRequest(one("late")), "tenant-id", "t"); err == nil {
		t.Error("taken over the ceiling")
	}
	f.gateway.inflight.Release(ceiling)
	if got := f.metric(t, `logthra_gateway_push_failures_total{reason="memory"}`); got != 2 {
		t.Errorf("%g pushes failed for want of memory", got)
	}
	f.wantIdle(t)
}

func TestReadyUntilDrained(t *testing.T) {
	f := start(t)
	if a := f.do(t, http.MethodGet, "/ready", nil); a.Status != http.StatusOK {
		t.Fatal(a)
	}
	f.gateway.Drain()
	a := f.do(t, http.MethodGet, "/ready", nil)
	if a.Status != http.StatusServiceUnavailable || !strings.Contains(a.Error, "shutting down") {
		t.Error(a)
	}
	// Who has not heard yet is still served.
	if a := f.do(t, http.MethodGet, "/api/health", nil); a.Status != http.StatusOK {
		t.Error(a)
	}
	s := one("late")
	wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asJSON(s)), "tenant-id", "t"))
	f.wantLanded(t, rowsOf("t", s))
}
