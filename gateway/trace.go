package gateway

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/casteloig/logthra/shared/telemetry"
	"github.com/casteloig/logthra/shared/wal"
)

// span begins the span of a push, below the client's if it has one, and returns what ends it.
//
//nolint:spancheck // end ends it
func (g *Gateway) span(ctx context.Context, from origin) (_ context.Context, end func(*wal.Encoded, error)) {
	if g.cfg.Tracer == nil {
		return ctx, func(*wal.Encoded, error) {}
	}
	if parent := telemetry.ParseTrace(from.trace); parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	ctx, span := g.cfg.Tracer.Start(ctx, "push", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("logthra.tenant", from.tenant), attribute.String("logthra.protocol", from.protocol)))
	return ctx, func(record *wal.Encoded, err error) {
		if record != nil {
			span.SetAttributes(attribute.Int("logthra.entries", record.Entries), attribute.Int("logthra.bytes", record.LineBytes))
		}
		endSpan(span, err)
	}
}

// publishTraced publishes the record, in a span of its own where the push has one.
func (g *Gateway) publishTraced(ctx context.Context, from origin, record *wal.Encoded) (wal.Ack, error) {
	if g.cfg.Tracer == nil {
		return g.wal.PublishEncoded(ctx, from.tenant, from.key, record)
	}
	ctx, span := g.cfg.Tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindProducer))
	ack, err := g.wal.PublishEncoded(ctx, from.tenant, from.key, record)
	if err == nil {
		span.SetAttributes(attribute.Int("logthra.shard", ack.Shard), attribute.Int64("logthra.sequence", int64(ack.Sequence)),
			attribute.Bool("logthra.duplicate", ack.Duplicate), attribute.Int("logthra.record_bytes", ack.Bytes))
	}
	endSpan(span, err)
	return ack, err
}

// endSpan ends a span, with the error if there is one.
func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
