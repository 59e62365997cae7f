package gateway

import (
	"bytes"
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	protobuf "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

func TestGRPCRefusals(t *testing.T) {
	f := start(t, func(s *setup) { s.Limits.MaxPushBytes, s.Limits.MaxLineBytes = 18<<20, 17<<20 })
	entryAt := func(seconds int64, nanos int32) *logthrav1.PushRequest {
		request := asRequest(one("fine"), one("x"))
		request.Streams[1].Entries[0].Timestamp = &timestamppb.Timestamp{Seconds: seconds, Nanos: nanos}
		return request
	}
	labels := func(labels map[string]string) *logthrav1.PushRequest {
		return asRequest(one("fine"), stream{labels, one("x").entries})
	}
	acme := []string{"tenant-id", "acme"}
	for _, c := range []struct {
		name    string
		headers []string
		request *logthrav1.PushRequest
		code    codes.Code
		text    string
	}{
		{"no tenant", nil, asRequest(one("x")), codes.InvalidArgument, "no tenant"},
		{"a dot", []string{"tenant-id", "a.b"}, asRequest(one("x")), codes.InvalidArgument, `tenant "a.b" does not match`},
		{"all that follows", []string{"x-scope-orgid", ">"}, asRequest(one("x")), codes.InvalidArgument, `tenant ">" does not match`},
		{"two tenants", []string{"tenant-id", "a", "x-scope-orgid", "b"}, asRequest(one("x")), codes.InvalidArgument, "two tenants"},
		{"a tenant twice", []string{"tenant-id", "a", "tenant-id", "a"}, asRequest(one("x")), codes.InvalidArgument, `tenant "a,a"`},
		{"a long key", append(acme, "idempotency-key", strings.Repeat("k", 256)), asRequest(one("x")), codes.InvalidArgument, "has 256 bytes, at most 255"},
		{"nothing", acme, &logthrav1.PushRequest{}, codes.InvalidArgument, "streams: at least one is needed"},
		{"no labels", acme, labels(nil), codes.InvalidArgument, "streams[1].labels: a stream needs at least one label"},
		{"labels without values", acme, labels(map[string]string{"a": ""}), codes.InvalidArgument, "streams[1].labels: a stream needs at least one label"},
		{"a label with a dash", acme, labels(map[string]string{"a-b": "x"}), codes.InvalidArgument, `streams[1].labels: label name "a-b"`},
		{"before 1900", acme, entryAt(-2208988801, 0), codes.InvalidArgument, "streams[1].entries[0]: "},
		{"after 2262", acme, entryAt(9223372036, 854775808), codes.InvalidArgument, "streams[1].entries[0]: "},
		{"far out", acme, entryAt(1<<62, 0), codes.InvalidArgument, "streams[1].entries[0]: "},
		{"negative nanoseconds", acme, entryAt(1, -1), codes.InvalidArgument, "streams[1].entries[0]: "},
		{"too many nanoseconds", acme, entryAt(1, 1e9), codes.InvalidArgument, "streams[1].entries[0]: "},
		{"a line over the limit", acme, asRequest(one("fine"), one(strings.Repeat("l", 17<<20+1))), codes.InvalidArgument, "streams[1].entries[0]: line of 17825793 bytes is longer than 17825792"},
		{"a message over the limit", acme, asRequest(one(strings.Repeat("l", 18<<20))), codes.ResourceExhausted, "received message larger than max"},
		{"a record over the limit", acme, asRequest(noise(8, 1, 16<<20)), codes.ResourceExhausted, "NATS takes at most 16777216"},
	} {
		t.Run(c.name, func(t *testing.T) {
			response, err := f.push(t, c.request, c.headers...)
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, %.300v", response, err)
			}
		})
	}
	f.wantNothing(t)
	f.wantIdle(t)
}

func TestGRPCStreamsWithoutEntries(t *testing.T) {
	f := start(t)
	response, err := f.push(t, asRequest(stream{labels: map[string]string{"app": "idle"}}), "x-scope-orgid", "t")
	must(t, err)
	if response.GetEntries() != 0 || response.GetDuplicate() {
		t.Error(response)
	}
	f.wantNothing(t)
	s := one("x")
	_, err = f.push(t, asRequest(stream{labels: map[string]string{"app": "idle"}}, s, stream{labels: map[string]string{"app": "idle"}}), "x-scope-orgid", "t")
	must(t, err)
	f.wantLanded(t, rowsOf("t", s))
}

// rawCodec is a client's that sends bytes as they are.
type rawCodec struct{ encoding.CodecV2 }

func (rawCodec) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(message.([]byte))}, nil
}

// pushRaw sends a message that may be none.
func (f *fixture) pushRaw(ctx context.Context, raw []byte, options ...grpc.CallOption) (*logthrav1.PushResponse, error) {
	var response logthrav1.PushResponse
	options = append(options, grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2(proto.Name)}))
	err := f.conn.Invoke(metadata.AppendToOutgoingContext(ctx, "tenant-id", "raw"), logthrav1.PushService_Push_FullMethodName, raw, &response, options...)
	return &response, err
}

func TestGRPCMalformed(t *testing.T) {
	f := start(t)
	for raw, want := range map[string]string{
		"":              "streams: at least one is needed",
		"\xff":          "malformed protobuf: unexpected EOF",
		"\x0a\x02\x12":  "streams[0]: malformed protobuf: unexpected EOF",
		"\x0a\x02\x08a": "streams[0].labels: malformed protobuf: field 1 has wire type 0, not 2",
	} {
		for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
			if _, err := f.pushRaw(t.Context(), []byte(raw), options...); status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != want {
				t.Errorf("%q: %v", raw, err)
			}
		}
	}
	f.wantNothing(t)
	f.wantIdle(t)
}

// The service looks like the generated one to who asks the server about it.
func TestGRPCReflection(t *testing.T) {
	f := start(t)
	answer, err := grpc_health_v1.NewHealthClient(f.conn).Check(t.Context(), new(grpc_health_v1.HealthCheckRequest))
	if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Error(answer, err)
	}
	ask, err := grpc_reflection_v1.NewServerReflectionClient(f.conn).ServerReflectionInfo(t.Context())
	must(t, err)
	must(t, ask.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}))
	list, err := ask.Recv()
	must(t, err)
	var names []string
	for _, service := range list.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	if !slices.Contains(names, "logthra.v1.PushService") {
		t.Errorf("services %v", names)
	}
	must(t, ask.Send(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "logthra.v1.PushService"},
	}))
	described, err := ask.Recv()
	must(t, err)
	var file descriptorpb.FileDescriptorProto
	must(t, protobuf.Unmarshal(described.GetFileDescriptorResponse().GetFileDescriptorProto()[0], &file))
	push := file.GetService()[0].GetMethod()[0]
	if push.GetName() != "Push" || push.GetInputType() != ".logthra.v1.PushRequest" || push.GetClientStreaming() || push.GetServerStreaming() {
		t.Error(push)
	}
}

// The memory of a push is bounded by the ceiling, not by how many entries fit into the largest message.
func TestGRPCMemory(t *testing.T) {
	const entries = 7_000_000
	labels, err := protobuf.Marshal(&logthrav1.Stream{Labels: map[string]string{"app": "hostile"}})
	must(t, err)
	message := protowire.AppendTag(nil, 1, protowire.BytesType)
	message = protowire.AppendBytes(message, append(labels, bytes.Repeat([]byte{0x12, 0}, entries)...))
	for _, c := range []struct {
		name    string
		ceiling int64
		most    uint64 // bytes of heap, with what the collector has not got to yet
	}{
		{"refused before it is decoded", 32 << 20, 128 << 20},
		{"refused after it was decoded", 128 << 20, 320 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, func(s *setup) { s.MaxInflightBytes = c.ceiling })
			_, err := f.push(t, asRequest(one("warm")), "tenant-id", "t")
			must(t, err)
			for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
				peak := peakHeap(func() {
					if _, err := f.pushRaw(t.Context(), message, options...); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "memory ceiling") {
						t.Error(err)
					}
				})
				t.Logf("%d MiB of heap", peak>>20)
				if peak > c.most {
					t.Errorf("%d MiB of heap, at most %d are right", peak>>20, c.most>>20)
				}
			}
			f.wantIdle(t)
		})
	}
}

// peakHeap is by how many bytes the heap grew at the most while do ran.
func peakHeap(do func()) uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	base, peak := stats.HeapAlloc, stats.HeapAlloc
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	for {
		select {
		case <-done:
			return peak - base
		case <-time.After(time.Millisecond):
			runtime.ReadMemStats(&stats)
			peak = max(peak, stats.HeapAlloc)
		}
	}
}
