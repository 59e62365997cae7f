package ingester

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/casteloig/logthra/shared/wal"
)

// maxLinks is how many pushes the span of a flush is linked to, at most: as many as OpenTelemetry lets a span have.
const maxLinks = 128

// link notes the place in a trace of a record of the batch.
func (s *shard) link(record *wal.Record) {
	if s.in.cfg.Tracer == nil || len(s.links) == maxLinks {
		return
	}
	if at := record.Trace(); at.IsSampled() {
		s.links = append(s.links, trace.Link{SpanContext: at})
	}
}

// trace begins the span of a flush, from the batch's first record on, and that of its insert, if a push of the batch is traced.
//
//nolint:spancheck // end ends both
func (s *shard) trace(ctx context.Context) (_ context.Context, end func(error)) {
	if len(s.links) == 0 {
		return ctx, func(error) {}
	}
	ctx, flush := s.in.cfg.Tracer.Start(ctx, "flush", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithTimestamp(s.began), trace.WithLinks(slices.Clone(s.links)...), trace.WithAttributes(
			attribute.Int("logthra.shard", s.number), attribute.Int64("logthra.first", int64(s.span.First)),
			attribute.Int64("logthra.last", int64(s.span.Last)), attribute.Int("logthra.records", s.records),
			attribute.Int("logthra.rows", s.batch.Rows())))
	ctx, insert := s.in.cfg.Tracer.Start(ctx, "insert", trace.WithSpanKind(trace.SpanKindClient))
	return ctx, func(err error) {
		for _, span := range []trace.Span{insert, flush} {
			if err != nil {
				span.SetStatus(codes.Error, err.Error())
			}
			span.End()
		}
	}
}
