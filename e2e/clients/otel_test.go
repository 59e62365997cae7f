package clients

import (
	"context"
	"maps"
	"strconv"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdk "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
)

func TestOpenTelemetryHTTP(t *testing.T) {
	exporter, err := otlploghttp.New(t.Context(),
		otlploghttp.WithEndpoint(at(t, "http")), otlploghttp.WithInsecure(), otlploghttp.WithCompression(otlploghttp.GzipCompression),
		otlploghttp.WithHeaders(map[string]string{"tenant-id": "otlp-http"}))
	if err != nil {
		t.Fatal(err)
	}
	testOpenTelemetry(t, "otlp-http", exporter)
}

func TestOpenTelemetryGRPC(t *testing.T) {
	exporter, err := otlploggrpc.New(t.Context(),
		otlploggrpc.WithEndpoint(at(t, "grpc")), otlploggrpc.WithInsecure(), otlploggrpc.WithCompressor("gzip"),
		otlploggrpc.WithHeaders(map[string]string{"tenant-id": "otlp-grpc"}))
	if err != nil {
		t.Fatal(err)
	}
	testOpenTelemetry(t, "otlp-grpc", exporter)
}

// testOpenTelemetry logs by way of the SDK, and looks for all of it.
func testOpenTelemetry(t *testing.T, tenant string, exporter sdk.Exporter) {
	provider := sdk.NewLoggerProvider(
		sdk.WithProcessor(sdk.NewBatchProcessor(exporter)),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "shop"), attribute.String("k8s.namespace.name", "prod"),
			attribute.String("k8s.pod.name", "shop-6d9f8-x2x4z"), attribute.Int("process.pid", 7),
		)))
	logger := provider.Logger("till", log.WithInstrumentationVersion("1.2.3"), log.WithInstrumentationAttributes(attribute.Bool("scoped", true)))
	first := time.Date(2026, 5, 6, 7, 8, 9, 123456789, time.UTC)
	traced := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0x0a, 0xf7, 15: 1}, SpanID: trace.SpanID{0xb7, 0xad, 7: 2}, TraceFlags: trace.FlagsSampled,
	}))
	attributes := []attribute.KeyValue{
		attribute.Map("order", attribute.Int("id", 4711), attribute.Map("by", attribute.String("name", "ü \""))),
		attribute.Slice("items", attribute.StringValue("tea"), attribute.IntValue(2)),
		attribute.ByteSlice("raw", []byte{0xff, 0, 1}),
		attribute.Bool("paid", true), attribute.Float64("sum", 12.5), attribute.String("empty", ""),
	}
	observed := first.Add(time.Second)
	labels := func(level string) map[string]string {
		l := map[string]string{"service_name": "shop", "k8s_namespace_name": "prod"}
		if level != "" {
			l["level"] = level
		}
		return l
	}
	metadata := func(severity log.Severity, more map[string]string) map[string]string {
		m := map[string]string{
			"k8s.pod.name": "shop-6d9f8-x2x4z", "process.pid": "7", "scope_name": "till", "scope_version": "1.2.3", "scoped": "true",
			"observed_timestamp": strconv.FormatInt(observed.UnixNano(), 10),
		}
		if severity > 0 {
			m["severity_number"] = strconv.Itoa(int(severity))
		}
		maps.Copy(m, more)
		return m
	}
	var want []row
	for i, c := range []struct {
		ctx      context.Context
		body     attribute.Value
		severity log.Severity
		text     string
		attrs    []attribute.KeyValue

		level, msg string
		more       map[string]string // metadata
	}{
		{
			traced, attribute.StringValue("order 4711 paid"), log.SeverityInfo, "INFO", attributes,
			"info", "order 4711 paid", map[string]string{
				"severity_text": "INFO", "trace_id": "0af70000000000000000000000000001", "span_id": "b7ad000000000002", "flags": "1",
				"order.id": "4711", "order.by.name": `ü "`, "items": `["tea",2]`, "raw": "/wAB", "paid": "true", "sum": "12.5", "empty": "",
			},
		},
		{
			t.Context(), attribute.MapValue(attribute.String("a", "b"), attribute.Slice("c", attribute.IntValue(1))), log.SeverityFatal4, "", nil,
			"fatal", `{"a":"b","c":[1]}`, nil,
		},
		{
			t.Context(), attribute.SliceValue(attribute.IntValue(1), attribute.BoolValue(false)), log.SeverityUndefined, "odd", nil,
			"", `[1,false]`, map[string]string{"severity_text": "odd"},
		},
		{t.Context(), attribute.Int64Value(-7), log.SeverityWarn2, "", nil, "warn", "-7", nil},
		{t.Context(), attribute.Float64Value(0.25), log.SeverityTrace, "", nil, "trace", "0.25", nil},
		{t.Context(), attribute.BoolValue(true), log.SeverityDebug, "", nil, "debug", "true", nil},
		{t.Context(), attribute.ByteSliceValue([]byte("raw \xff")), log.SeverityError, "", nil, "error", "raw \xff", nil},
		{t.Context(), attribute.Value{}, log.SeverityError, "", nil, "error", "", nil},
	} {
		var r log.Record
		r.SetTimestamp(first.Add(time.Duration(i)))
		r.SetObservedTimestamp(observed)
		r.SetBody(c.body)
		r.SetSeverity(c.severity)
		r.SetSeverityText(c.text)
		r.AddAttributes(c.attrs...)
		logger.Emit(c.ctx, r)
		want = append(want, row{r.Timestamp(), labels(c.level), c.msg, metadata(c.severity, c.more)})
	}
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRows(t, tenant, time.Now(), want...)
}
