package command

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

// collector is one of OpenTelemetry's: it takes spans, over HTTP.
type collector struct {
	url string

	mu    sync.Mutex
	spans []*tracepb.Span
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := new(collector)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request coltrace.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// named are the spans of a name in a trace; trace may be empty.
func (c *collector) named(name, trace string) (spans []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, span := range c.spans {
		if span.GetName() == name && (trace == "" || hex.EncodeToString(span.GetTraceId()) == trace) {
			spans = append(spans, span)
		}
	}
	return spans
}

// A push is followed from the client's span to the insert into ClickHouse, over HTTP and gRPC, where the client wants it.
func TestTraces(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	l := runAlone(t, t.TempDir(), "--traces-endpoint", c.url, "--traces-sample", "0", "--flush-interval", "200ms")
	const (
		overHTTP  = "0af7651916cd43dd8448eb211c80319c"
		overGRPC  = "1af7651916cd43dd8448eb211c80319c"
		unsampled = "2af7651916cd43dd8448eb211c80319c"
		span      = "b7ad6b7169203331"
	)
	push := func(traceparent, line string) {
		t.Helper()
		request, err := http.NewRequest(http.MethodPost, "http://"+l.at["http"]+"/api/push",
			strings.NewReader(`{"streams":[{"stream":{"app":"a"},"values":[["","`+line+`"]]}]}`))
		must(t, err)
		request.Header.Set("tenant-id", "acme")
		if traceparent != "" {
			request.Header.Set("traceparent", traceparent)
		}
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != http.StatusNoContent {
			t.Fatalf("%s: %s", line, response.Status)
		}
	}
	push("", "no trace")
	push("00-"+unsampled+"-"+span+"-00", "unsampled")
	push("nonsense", "nonsense")
	push("00-"+overHTTP+"-"+span+"-01", "sampled")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "tenant-id", "acme", "traceparent", "00-"+overGRPC+"-"+span+"-01")
	_, err := logthrav1.NewPushServiceClient(dial(t, l.at["grpc"])).Push(ctx, &logthrav1.PushRequest{Streams: []*logthrav1.Stream{{
		Labels: map[string]string{"app": "a"}, Entries: []*logthrav1.Entry{{Timestamp: timestamppb.Now(), Line: []byte("over gRPC")}},
	}}})
	must(t, err)
	flush(t, l.at["ingester"])
	if got := landed(t, l.at["clickhouse-http"], "1"); len(got) != 5 {
		t.Errorf("%d lines have landed", len(got))
	}
	l.stop() // sends what is left

	for _, trace := range []string{overHTTP, overGRPC} {
		pushes, publishes := c.named("push", trace), c.named("publish", trace)
		if len(pushes) != 1 || hex.EncodeToString(pushes[0].GetParentSpanId()) != span {
			t.Fatalf("%s: the spans of the push are %v", trace, pushes)
		}
		if len(publishes) != 1 || string(publishes[0].GetParentSpanId()) != string(pushes[0].GetSpanId()) {
			t.Fatalf("%s: the spans of the publish are %v", trace, publishes)
		}
		linked := 0
		for _, flush := range c.named("flush", "") {
			for _, link := range flush.GetLinks() {
				if string(link.GetSpanId()) != string(publishes[0].GetSpanId()) {
					continue
				}
				linked++
				inserts := c.named("insert", hex.EncodeToString(flush.GetTraceId()))
				if len(inserts) != 1 || string(inserts[0].GetParentSpanId()) != string(flush.GetSpanId()) {
					t.Errorf("%s: the spans of the insert are %v", trace, inserts)
				}
			}
		}
		if linked != 1 {
			t.Errorf("%s: %d flushes are linked to it", trace, linked)
		}
	}
	if all := len(c.named("push", "")); all != 2 {
		t.Errorf("%d pushes are traced, wanted the two that are sampled", all)
	}
}

// A collector that is not there costs spans and nothing else; profiles are where they are asked for, and nowhere else.
func TestTelemetryHarmsNothing(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--traces-endpoint", "http://127.0.0.1:1", "--traces-sample", "1", "--debug-listen", "127.0.0.1:0", "--flush-interval", "100ms")
	began := time.Now()
	for range 50 {
		must(t, pushJSON(l.at["http"], "acme", "", `{"streams":[{"stream":{"app":"a"},"values":[["","line"]]}]}`))
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("50 pushes took %s", took)
	}
	for path, want := range map[string]int{
		l.at["debug"] + "/debug/pprof/heap": http.StatusOK, l.at["debug"] + "/debug/pprof/cmdline": http.StatusNotFound,
		l.at["http"] + "/debug/pprof/heap": http.StatusNotFound, l.at["ingester-http"] + "/debug/pprof/heap": http.StatusNotFound,
	} {
		response, err := http.Get("http://" + path)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %s", path, response.Status)
		}
	}
	flush(t, l.at["ingester"])
	l.stop()
	if log := l.stderr.String(); !strings.Contains(log, "spans are lost") && !strings.Contains(log, "the last spans are lost") {
		t.Errorf("nothing says that spans are lost:\n%s", log)
	}
}

func TestTelemetryUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--traces-sample 2": "0 to 1",
		"gateway --nats-url nats://127.0.0.1:1 --traces-endpoint collector:4318": "http://collector:4318",
		"gateway --nats-url nats://127.0.0.1:1 --debug-listen nonsense":          "--debug-listen",
	} {
		if code, stdout, stderr := run(t, "", strings.Fields(args)...); code == 0 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, %q", args, code, stderr)
		}
	}
}
