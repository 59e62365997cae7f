package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// TraceHeader names a push's place in a trace, in its request: https://www.w3.org/TR/trace-context/
const TraceHeader = "traceparent"

// traceQueue is how many spans may wait for the collector. More are dropped.
const traceQueue = 4096

// warnExportEvery is how often it is logged that spans can't be sent.
const warnExportEvery = time.Minute

// StartTraces sends spans to a collector that takes OTLP over HTTP, http://host:4318, in the background: a collector that is slow, or
// away, costs spans and nothing else. Of pushes whose client does not say whether they are sampled, the share sample is. stop sends
// what is left, within its ctx.
func StartTraces(ctx context.Context, endpoint string, sample float64, role, version string, log *slog.Logger) (tracer trace.Tracer, stop func(context.Context), err error) {
	at, err := url.Parse(endpoint)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, nil, errors.New("--traces-endpoint is not of the form http://collector:4318")
	}
	if strings.Trim(at.Path, "/") == "" {
		at.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(at.String()))
	if err != nil {
		return nil, nil, fmt.Errorf("--traces-endpoint: %w", err)
	}
	var warned atomic.Int64
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		now, last := time.Now().UnixNano(), warned.Load()
		if now-last >= int64(warnExportEvery) && warned.CompareAndSwap(last, now) {
			log.Warn("spans are lost; the collector does not take them", "endpoint", at.Redacted(), "error", err)
		}
	}))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sampler{sdktrace.ParentBased(sdktrace.TraceIDRatioBased(sample))}),
		sdktrace.WithBatcher(exporter, sdktrace.WithMaxQueueSize(traceQueue)),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "logthra-"+role), attribute.String("service.version", version),
		)),
	)
	stop = func(ctx context.Context) {
		if err := provider.Shutdown(ctx); err != nil {
			log.Warn("the last spans are lost", "error", err)
		}
	}
	return provider.Tracer("github.com/casteloig/logthra"), stop, nil
}

// sampler takes what is linked to something that was sampled, and leaves the rest to another.
type sampler struct{ sdktrace.Sampler }

func (s sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if len(p.Links) > 0 {
		return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
	}
	return s.Sampler.ShouldSample(p)
}

// ParseTrace reads the value of a TraceHeader. One that can't be read is no place at all.
func ParseTrace(value string) trace.SpanContext {
	if value == "" {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{TraceHeader: value})
	return trace.SpanContextFromContext(ctx)
}

// FormatTrace is the value of a TraceHeader.
func FormatTrace(at trace.SpanContext) string {
	return fmt.Sprintf("00-%s-%s-%s", at.TraceID(), at.SpanID(), at.TraceFlags()&trace.FlagsSampled)
}
