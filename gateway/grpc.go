package gateway

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/casteloig/logthra/gateway/decode/native"
	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
)

// ServerOptions are what a gRPC server is made with for RegisterPush.
func (g *Gateway) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.MaxRecvMsgSize(g.cfg.Limits.MaxPushBytes),
	}
}

// codec leaves a message as it came where a method asks for its bytes, with a *mem.BufferSlice, which the method
// then has to free. All other messages go through the codec inside.
type codec struct{ encoding.CodecV2 }

func (c codec) Unmarshal(data mem.BufferSlice, into any) error {
	raw, ok := into.(*mem.BufferSlice)
	if !ok {
		return c.CodecV2.Unmarshal(data, into)
	}
	data.Ref()
	*raw = data
	return nil
}

// RegisterPush adds logthra.v1.PushService to a server that was made with ServerOptions. The service is not the
// generated one, which would make an object of every entry before anything could count its memory. It does not
// call interceptors, of which the servers here have none.
func (g *Gateway) RegisterPush(server grpc.ServiceRegistrar) {
	file := logthrav1.File_logthra_v1_push_proto
	service := file.Services().ByName("PushService")
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: string(service.FullName()),
		HandlerType: (*any)(nil),
		Metadata:    file.Path(),
		Methods: []grpc.MethodDesc{{
			MethodName: "Push",
			Handler: func(_ any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				response, err := g.takeNative(ctx, receive)
				g.metrics.pushes.WithLabelValues(protocolGRPC, status.Code(err).String()).Inc()
				return response, err
			},
		}},
	}, g)
}

// takeNative takes a push. Its error is a gRPC status.
func (g *Gateway) takeNative(ctx context.Context, receive func(any) error) (*logthrav1.PushResponse, error) {
	from, err := identify(protocolGRPC, header(ctx, "tenant-id"), header(ctx, "x-scope-orgid"), header(ctx, "idempotency-key"))
	if err != nil {
		return nil, g.status(from, err)
	}
	var message mem.BufferSlice
	if err := receive(&message); err != nil {
		return nil, err
	}
	size := message.Len()
	g.metrics.bodyBytes.WithLabelValues(protocolGRPC).Add(float64(size))
	memory := int64(size) * (1 + memoryFactor)
	if !g.inflight.TryAcquire(memory) {
		message.Free()
		return nil, g.status(from, errBusy)
	}
	defer g.inflight.Release(memory)
	body := message.MaterializeToBuffer(mem.DefaultBufferPool())
	message.Free()
	defer body.Free()
	entries, duplicate, err := g.push(ctx, from, func(b *logs.Batch) error {
		return native.Protobuf(b, body.ReadOnlyData(), time.Now().UnixNano(), g.cfg.Limits)
	})
	if err != nil {
		return nil, g.status(from, err)
	}
	return &logthrav1.PushResponse{Entries: uint64(entries), Duplicate: duplicate}, nil
}

// status is the gRPC status of a push that was not taken.
func (g *Gateway) status(from origin, err error) error {
	return status.Error(g.judge(from, err).code, err.Error())
}

// header is a value of the call's metadata.
func header(ctx context.Context, name string) string {
	return joined(metadata.ValueFromIncomingContext(ctx, name))
}
