package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/snappy"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/tenant"
	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// setup is what a gateway under test is made of.
type setup struct {
	Config

	wal  wal.Config
	nats string // URL; empty for a server of the test's own
}

// fixture is a gateway on a WAL, and those who push to it.
type fixture struct {
	gateway *Gateway
	wal     *wal.WAL
	handler http.Handler
	url     string
	nats    string
	conn    *grpc.ClientConn
	rpc     logthrav1.PushServiceClient
	seen    []uint64 // by shard, the last sequence that landed has returned
}

// start starts a gateway with HTTP and gRPC on free ports.
func start(t testing.TB, changes ...func(*setup)) *fixture {
	t.Helper()
	s := setup{
		Config: Config{
			Limits:           decode.Limits{MaxLineBytes: 256 << 10, MaxPushBytes: 16 << 20},
			MaxInflightBytes: 512 << 20,
			PushTimeout:      10 * time.Second,
			Tenants:          func() *tenant.Directory { return nil },
			Live:             func() int { return 1 },
		},
		wal: wal.Config{Shards: 2, Replicas: 1, MaxBytes: 1 << 30, DedupWindow: 2 * time.Minute},
	}
	for _, change := range changes {
		change(&s)
	}
	if s.nats == "" {
		s.nats = enginetest.NATS(t).URL()
	}
	conn, err := nats.Connect(s.nats, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1))
	must(t, err)
	t.Cleanup(conn.Close)
	quiet := slog.New(slog.DiscardHandler)
	w, err := wal.Open(t.Context(), conn, s.wal, quiet)
	must(t, err)

	registry := prometheus.NewRegistry()
	g := New(s.Config, w, NewMetrics(registry, 1000), quiet)
	f := &fixture{gateway: g, wal: w, handler: g.Handler(registry), nats: s.nats, seen: make([]uint64, w.Shards())}
	web := httptest.NewServer(f.handler)
	t.Cleanup(web.Close)
	f.url = web.URL

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := grpc.NewServer(g.ServerOptions()...)
	g.RegisterPush(server)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	client, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	f.conn, f.rpc = client, logthrav1.NewPushServiceClient(client)
	return f
}

// answer is what a client got.
type answer struct {
	Status int
	Header http.Header
	refusal
}

// post sends a body with headers given in turn as name and value.
func (f *fixture) post(t testing.TB, path string, body io.Reader, headers ...string) answer {
	t.Helper()
	return f.do(t, http.MethodPost, path, body, headers...)
}

func (f *fixture) do(t testing.TB, method, path string, body io.Reader, headers ...string) answer {
	t.Helper()
	a, err := f.try(t.Context(), method, path, body, headers...)
	must(t, err)
	return a
}

// try is do for goroutines other than the test's own.
func (f *fixture) try(ctx context.Context, method, path string, body io.Reader, headers ...string) (a answer, err error) {
	request, err := http.NewRequestWithContext(ctx, method, f.url+path, body)
	if err != nil {
		return a, err
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return a, err
	}
	a.Status, a.Header = response.StatusCode, response.Header
	switch {
	case a.Status == http.StatusNoContent && len(text) > 0:
		return a, fmt.Errorf("%d with a body: %s", a.Status, text)
	case a.Status >= 400:
		if err := json.Unmarshal(text, &a.refusal); err != nil || a.Error == "" {
			return a, fmt.Errorf("%d is not told as JSON: %q, %w", a.Status, text, err)
		}
	}
	return a, nil
}

// push sends a push over gRPC, with metadata given in turn as name and value.
func (f *fixture) push(t testing.TB, request *logthrav1.PushRequest, headers ...string) (*logthrav1.PushResponse, error) {
	t.Helper()
	return f.rpc.Push(metadata.AppendToOutgoingContext(t.Context(), headers...), request)
}

// stream and entry are a push, before it is written in one protocol or another.
type stream struct {
	labels  map[string]string
	entries []entry
}

type entry struct {
	at       int64 // unix nanoseconds
	line     string
	metadata map[string]string
}

// asJSON writes a push as Loki's JSON.
func asJSON(streams ...stream) []byte {
	out := []byte(`{"streams":[`)
	for i, s := range streams {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"stream":`...)
		out = append(out, asObject(s.labels)...)
		out = append(out, `,"values":[`...)
		for j, e := range s.entries {
			if j > 0 {
				out = append(out, ',')
			}
			out = fmt.Appendf(out, `["%d",%s`, e.at, quoted(e.line))
			if e.metadata != nil {
				out = append(append(out, ','), asObject(e.metadata)...)
			}
			out = append(out, ']')
		}
		out = append(out, "]}"...)
	}
	return append(out, "]}"...)
}

func asObject(pairs map[string]string) []byte {
	var members [][]byte
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		members = append(members, append(append(quoted(name), ':'), quoted(pairs[name])...))
	}
	return append(append([]byte{'{'}, bytes.Join(members, []byte{','})...), '}')
}

// quoted is a JSON string in which bytes that are not UTF-8 stand as they are.
func quoted(s string) []byte {
	out := []byte{'"'}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c < ' ':
			out = fmt.Appendf(out, `\u%04x`, c)
		default:
			out = append(out, c)
		}
	}
	return append(out, '"')
}

// asProto writes a push as Loki's protobuf, not yet compressed, with Loki's own code.
func asProto(streams ...stream) []byte {
	var request push.PushRequest
	for _, s := range streams {
		var labels []string
		for _, name := range slices.Sorted(maps.Keys(s.labels)) {
			labels = append(labels, name+"="+strconv.Quote(s.labels[name]))
		}
		out := push.Stream{Labels: "{" + strings.Join(labels, ", ") + "}"}
		for _, e := range s.entries {
			entry := push.Entry{Timestamp: time.Unix(0, e.at).UTC(), Line: e.line}
			for _, name := range slices.Sorted(maps.Keys(e.metadata)) {
				entry.StructuredMetadata = append(entry.StructuredMetadata, push.LabelAdapter{Name: name, Value: e.metadata[name]})
			}
			out.Entries = append(out.Entries, entry)
		}
		request.Streams = append(request.Streams, out)
	}
	raw, err := request.Marshal()
	if err != nil {
		panic(err)
	}
	return raw
}

// asSnappy writes a push as Loki's clients send it.
func asSnappy(streams ...stream) []byte { return snappy.Encode(nil, asProto(streams...)) }

// asRequest writes a push for gRPC.
func asRequest(streams ...stream) *logthrav1.PushRequest {
	request := new(logthrav1.PushRequest)
	for _, s := range streams {
		out := &logthrav1.Stream{Labels: s.labels}
		for _, e := range s.entries {
			out.Entries = append(out.Entries, &logthrav1.Entry{
				Timestamp: timestamppb.New(time.Unix(0, e.at)), Line: []byte(e.line), Metadata: e.metadata,
			})
		}
		request.Streams = append(request.Streams, out)
	}
	return request
}

// row is an entry as the WAL has it.
type row struct {
	Tenant   string
	Labels   string
	Time     int64
	Line     string
	Metadata string // name=value of each, sorted, apart by newlines
}

// rowsOf is what a push leaves in the WAL.
func rowsOf(tenant string, streams ...stream) []row {
	var rows []row
	for _, s := range streams {
		labels, err := json.Marshal(s.labels)
		if err != nil {
			panic(err)
		}
		for _, e := range s.entries {
			var pairs []string
			for name, value := range e.metadata {
				pairs = append(pairs, name+"="+value)
			}
			slices.Sort(pairs)
			rows = append(rows, row{tenant, string(labels), e.at, e.line, strings.Join(pairs, "\n")})
		}
	}
	return rows
}

// landed reads back the records that the WAL got since the last call, shard by shard.
func (f *fixture) landed(t testing.TB) (records [][]row) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for shard := range f.seen {
		last, err := f.wal.Last(ctx, shard)
		must(t, err)
		if last == f.seen[shard] {
			continue
		}
		reader, err := f.wal.Read(ctx, shard, f.seen[shard]+1)
		must(t, err)
		defer reader.Close() //nolint:revive // one a shard
		for f.seen[shard] < last {
			select {
			case record, ok := <-reader.Records():
				if !ok {
					t.Fatal(reader.Err())
				}
				records = append(records, rowsIn(t, record))
				f.seen[shard] = record.Sequence
			case <-ctx.Done():
				t.Fatalf("shard %d: read up to %d of %d", shard, f.seen[shard], last)
			}
		}
	}
	return records
}

func rowsIn(t testing.TB, record wal.Record) []row {
	t.Helper()
	var b logs.Batch
	_, err := record.Decode(&b, nil)
	must(t, err)
	var rows []row
	from := 0
	for _, s := range b.Streams {
		for range s.Entries {
			i := len(rows)
			to := from + int(b.Lengths[i])
			rows = append(rows, row{Tenant: record.Tenant, Labels: s.Labels, Time: b.Timestamps[i], Line: string(b.Lines[from:to])})
			from = to
		}
	}
	pairs := make([][]string, len(rows))
	for _, c := range b.Metadata {
		from = 0
		for i, entry := range c.Entries {
			to := from + int(c.Lengths[i])
			pairs[entry] = append(pairs[entry], c.Name+"="+string(c.Values[from:to]))
			from = to
		}
	}
	for i := range rows {
		slices.Sort(pairs[i])
		rows[i].Metadata = strings.Join(pairs[i], "\n")
	}
	return rows
}

// wantLanded fails t unless the WAL got exactly one record since the last look, with these rows.
func (f *fixture) wantLanded(t testing.TB, want []row) {
	t.Helper()
	records := f.landed(t)
	if len(records) != 1 {
		t.Fatalf("%d records landed, not 1", len(records))
	}
	sameRows(t, records[0], want)
}

func sameRows(t testing.TB, got, want []row) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d rows landed, not %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("row %d\n got %.300s\nwant %.300s", i, fmt.Sprintf("%#v", got[i]), fmt.Sprintf("%#v", want[i]))
		}
	}
}

// wantNothing fails t if there is a record in the WAL.
func (f *fixture) wantNothing(t testing.TB) {
	t.Helper()
	for shard := range f.seen {
		last, err := f.wal.Last(t.Context(), shard)
		must(t, err)
		if last != 0 {
			t.Fatalf("shard %d: the last sequence is %d", shard, last)
		}
	}
}

// wantIdle fails t unless all of the memory ceiling is given back.
func (f *fixture) wantIdle(t testing.TB) {
	t.Helper()
	g := f.gateway
	eventually(t, "the memory of all pushes is given back", func() bool {
		if !g.inflight.TryAcquire(g.cfg.MaxInflightBytes) {
			return false
		}
		g.inflight.Release(g.cfg.MaxInflightBytes)
		return true
	})
}

// wantTaken fails t unless the answer is 204.
func wantTaken(t testing.TB, a answer) {
	t.Helper()
	if a.Status != http.StatusNoContent {
		t.Fatalf("%d: %+v", a.Status, a.refusal)
	}
}

// wantRefused fails t unless the answer has the status and an error with all parts.
func wantRefused(t testing.TB, a answer, status int, parts ...string) {
	t.Helper()
	if a.Status != status {
		t.Fatalf("%d, not %d: %+v", a.Status, status, a.refusal)
	}
	for _, part := range parts {
		if !strings.Contains(a.Error, part) {
			t.Errorf("%q lacks %q", a.Error, part)
		}
	}
	if after := a.Header.Get("Retry-After"); (after != "") != (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) {
		t.Errorf("%d with Retry-After %q", status, after)
	}
}

// eventually fails t when condition doesn't hold within two minutes.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// someTime is a time that is finer than a second, so that content is an identity.
const someTime = int64(1_760_000_000_123_456_789)

// one is a push of one line.
func one(line string) stream {
	return stream{map[string]string{"app": "api"}, []entry{{someTime, line, nil}}}
}

// noise is lines of random bytes, which nothing compresses, the same for every call with a seed.
func noise(seed uint64, lines, size int) stream {
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	s := stream{labels: map[string]string{"app": "noise"}}
	for i := range lines {
		line := make([]byte, size)
		_, _ = random.Read(line)
		s.entries = append(s.entries, entry{someTime + int64(i), string(line), nil})
	}
	return s
}
