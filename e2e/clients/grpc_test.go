package clients

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fullstorydev/grpcurl"
	"github.com/jhump/protoreflect/grpcreflect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

func dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(at(t, "grpc"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// request is a push of one line, the nth.
func request(n int) (*logthrav1.PushRequest, row) {
	r := row{
		time.Date(2026, 2, 3, 4, 5, 6, 100+n, time.UTC), map[string]string{"app": "rpc", "part": fmt.Sprint(n / 2)},
		fmt.Sprintf("line %d \xfe", n), map[string]string{"n": fmt.Sprint(n)},
	}
	return &logthrav1.PushRequest{Streams: []*logthrav1.Stream{{
		Labels:  r.labels,
		Entries: []*logthrav1.Entry{{Timestamp: timestamppb.New(r.time), Line: []byte(r.msg), Metadata: r.metadata}},
	}}}, r
}

func TestGRPCPush(t *testing.T) {
	client := logthrav1.NewPushServiceClient(dial(t))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "tenant-id", "grpc-push")
	push, want := request(1)
	for _, answer := range []*logthrav1.PushResponse{{Entries: 1}, {Entries: 1, Duplicate: true}} {
		got, err := client.Push(ctx, push)
		if err != nil || !proto.Equal(got, answer) {
			t.Fatalf("%v, %v", got, err)
		}
	}
	push.Streams[0].Labels = map[string]string{"0": "bad"}
	if _, err := client.Push(ctx, push); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	wantRows(t, "grpc-push", time.Now(), want)
}

func TestGRPCPushStream(t *testing.T) {
	client := logthrav1.NewPushServiceClient(dial(t))
	stream, err := client.PushStream(metadata.AppendToOutgoingContext(t.Context(), "x-scope-orgid", "grpc-stream"))
	if err != nil {
		t.Fatal(err)
	}
	const pushes = 20
	var want []row
	for n := range pushes {
		push, r := request(n)
		want = append(want, r)
		if err := stream.Send(push); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := stream.CloseAndRecv()
	if err != nil || !proto.Equal(answer, &logthrav1.PushStreamResponse{Pushes: pushes, Entries: pushes}) {
		t.Fatalf("%v, %v", answer, err)
	}
	wantRows(t, "grpc-stream", time.Now(), want...)
}

// grpcurl knows nothing but what the gateway's reflection tells it.
func TestGRPCurl(t *testing.T) {
	conn := dial(t)
	reflection := grpcreflect.NewClientAuto(t.Context(), conn)
	defer reflection.Reset()
	source := grpcurl.DescriptorSourceFromServer(t.Context(), reflection)
	parser, formatter, err := grpcurl.RequestParserAndFormatter(grpcurl.FormatJSON, source, strings.NewReader(`{"streams": [{
		"labels": {"app": "curl", "level": "warn"},
		"entries": [{"timestamp": "2026-02-03T04:05:06.000000007Z", "line": "aGVsbG8=", "metadata": {"k": "v"}}]
	}]}`), grpcurl.FormatOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	handler := &grpcurl.DefaultEventHandler{Out: &out, Formatter: formatter}
	err = grpcurl.InvokeRPC(t.Context(), source, conn, "logthra.v1.PushService/Push", []string{"tenant-id: grpcurl"}, handler, parser.Next)
	if err != nil || handler.Status.Err() != nil || !strings.Contains(out.String(), `"entries": "1"`) {
		t.Fatalf("%v, %v: %s", err, handler.Status, &out)
	}
	wantRows(t, "grpcurl", time.Now(), row{
		time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC), map[string]string{"app": "curl", "level": "warn"}, "hello", map[string]string{"k": "v"},
	})
}

// Whoever looks for OpenTelemetry's service finds it.
func TestReflection(t *testing.T) {
	reflection := grpcreflect.NewClientAuto(t.Context(), dial(t))
	defer reflection.Reset()
	services, err := grpcurl.ListServices(grpcurl.DescriptorSourceFromServer(t.Context(), reflection))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"logthra.v1.PushService", "opentelemetry.proto.collector.logs.v1.LogsService", "grpc.health.v1.Health"} {
		if !slices.Contains(services, want) {
			t.Errorf("%s is not among %v", want, services)
		}
	}
}
