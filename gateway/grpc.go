package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/native"
	"github.com/casteloig/logthra/gateway/decode/otlp"
	"github.com/casteloig/logthra/gateway/limit"
	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
)

// Protocols over gRPC.
const (
	protocolGRPC     = "grpc"
	protocolOTLPGRPC = "otlp-grpc"
)

// ServerOptions are what a gRPC server is made with for RegisterPush.
func (g *Gateway) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.MaxRecvMsgSize(g.cfg.Limits.MaxPushBytes),
	}
}

// codec leaves a message as it came where a method asks for its bytes, with a *mem.BufferSlice, which the method
// then has to free, and sends bytes as they are. All other messages go through the codec inside.
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

func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	if raw, ok := message.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(raw)}, nil
	}
	return c.CodecV2.Marshal(message)
}

// RegisterPush adds logthra.v1.PushService and OTLP's LogsService to a server that was made with ServerOptions. They are
// not the generated ones, which would make an object of every entry before anything could count its memory. They do not
// call interceptors, of which the servers here have none.
func (g *Gateway) RegisterPush(server grpc.ServiceRegistrar) {
	file := logthrav1.File_logthra_v1_push_proto
	service := file.Services().ByName("PushService")
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: string(service.FullName()),
		HandlerType: (*any)(nil),
		Metadata:    file.Path(),
		Methods:     []grpc.MethodDesc{g.unary("Push", protocolGRPC, g.pushNative)},
		Streams: []grpc.StreamDesc{{
			StreamName:    "PushStream",
			ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				err := g.pushStream(stream)
				if err != nil {
					g.metrics.pushes.WithLabelValues(protocolGRPC, status.Code(err).String()).Inc()
				}
				return err
			},
		}},
	}, g)
	server.RegisterService(&grpc.ServiceDesc{ // https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
		ServiceName: "opentelemetry.proto.collector.logs.v1.LogsService",
		HandlerType: (*any)(nil),
		Metadata:    "opentelemetry/proto/collector/logs/v1/logs_service.proto",
		Methods:     []grpc.MethodDesc{g.unary("Export", protocolOTLPGRPC, g.exportOTLP)},
	}, g)
}

// unary is a method of one request and one answer.
func (g *Gateway) unary(name, protocol string, method func(context.Context, origin, mem.BufferSlice) (any, error)) grpc.MethodDesc {
	return grpc.MethodDesc{
		MethodName: name,
		Handler: func(_ any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			answer, err := g.call(ctx, protocol, receive, method)
			g.metrics.pushes.WithLabelValues(protocol, status.Code(err).String()).Inc()
			return answer, err
		},
	}
}

// call takes a unary call. Its error is a gRPC status. Who may not push is told before the message is read.
func (g *Gateway) call(
	ctx context.Context, protocol string, receive func(any) error, method func(context.Context, origin, mem.BufferSlice) (any, error),
) (any, error) {
	from, err := g.identify(protocol, grpcClaims(ctx))
	if err == nil {
		err = from.limits.Admit(time.Now())
	}
	if err != nil {
		return nil, g.status(from, err)
	}
	var message mem.BufferSlice
	if err := receive(&message); err != nil {
		return nil, err
	}
	answer, err := method(ctx, from, message)
	if err != nil {
		return nil, g.status(from, err)
	}
	return answer, nil
}

func (g *Gateway) pushNative(ctx context.Context, from origin, message mem.BufferSlice) (any, error) {
	entries, duplicate, err := g.takeMessage(ctx, from, message, nil, native.Protobuf)
	return &logthrav1.PushResponse{Entries: uint64(entries), Duplicate: duplicate}, err
}

func (g *Gateway) exportOTLP(ctx context.Context, from origin, message mem.BufferSlice) (any, error) {
	var partial decode.Partial
	_, _, err := g.takeMessage(ctx, from, message, partialOf(&partial), otlpDecoder(&partial, otlp.Protobuf))
	return otlp.AppendResponse(nil, partial), err
}

// pushStream takes a stream of pushes, one after the other, and stops at the first that is refused.
func (g *Gateway) pushStream(stream grpc.ServerStream) error {
	ctx := stream.Context()
	from, err := g.identify(protocolGRPC, grpcClaims(ctx))
	if err != nil {
		return g.status(from, err)
	}
	key := from.key
	var answer logthrav1.PushStreamResponse
	for {
		var message mem.BufferSlice
		if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
			return stream.SendMsg(&answer)
		} else if err != nil {
			return err
		}
		if key != "" {
			from.key = fmt.Sprintf("%s#%d", key, answer.GetPushes())
		}
		err := from.limits.Admit(time.Now())
		var entries int
		var duplicate bool
		if err == nil {
			entries, duplicate, err = g.takeMessage(ctx, from, message, nil, native.Protobuf)
		} else {
			message.Free()
		}
		if err != nil {
			stream.SetTrailer(metadata.Pairs("logthra-pushes", strconv.FormatUint(answer.GetPushes(), 10)))
			return g.status(from, err)
		}
		g.metrics.pushes.WithLabelValues(protocolGRPC, "OK").Inc()
		answer.Pushes++
		answer.Entries += uint64(entries)
		if duplicate {
			answer.Duplicates++
		}
	}
}

// takeMessage takes a push that came as a message, which it frees.
func (g *Gateway) takeMessage(
	ctx context.Context, from origin, message mem.BufferSlice, each func(int, *limit.Error),
	read func(b *logs.Batch, data []byte, now int64, lim decode.Limits) error,
) (entries int, duplicate bool, err error) {
	size := message.Len()
	g.metrics.bodyBytes.WithLabelValues(from.protocol).Add(float64(size))
	decoded := int64(size) * memoryFactor
	if !g.inflight.TryAcquire(int64(size) + decoded) {
		message.Free()
		return 0, false, errBusy
	}
	defer g.inflight.Release(int64(size))
	body := message.MaterializeToBuffer(mem.DefaultBufferPool())
	message.Free()
	defer body.Free()
	from.limits.Charge(size)
	return g.push(ctx, from, each, func(b *logs.Batch) error {
		return read(b, body.ReadOnlyData(), time.Now().UnixNano(), g.cfg.Limits)
	}, func() { g.inflight.Release(decoded) })
}

// status is the gRPC status of a push that was not taken. Where another try is worth it, it says when, in the form
// that OTLP's clients look for (https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-throttling).
func (g *Gateway) status(from origin, err error) error {
	v := g.judge(from, err)
	g.metrics.failed(v)
	s := status.New(v.code, err.Error())
	if v.retry > 0 {
		if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(v.retry)}); err == nil {
			s = detailed
		}
	}
	return s.Err()
}
