//go:build clients

package clients

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	service "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"
)

// collectorProtocols are the ways that a Collector pushes, each with the address of Logthra that it is for. Their
// configurations are in the folder otelcol.
var collectorProtocols = map[string]string{"http": "http", "json": "http", "grpc": "grpc"}

// maxLine is the default of --max-line-bytes.
const maxLine = 256 << 10

var unlabeled = map[string]string{"service_name": "unknown_service"}

// collector is an OpenTelemetry Collector that hands on what it is sent.
type collector struct {
	t          *testing.T
	http, grpc string // addresses of its receiver
	log        string // file
}

// startCollector starts a Collector that pushes as a tenant, and ends with the test.
func startCollector(t *testing.T, protocol, tenant string) *collector {
	t.Helper()
	dir, free := t.TempDir(), freeAddresses(t, 2)
	c := &collector{t: t, http: free[0], grpc: free[1], log: filepath.Join(dir, "log")}
	text, err := template.ParseFiles(filepath.Join("otelcol", protocol+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var filled bytes.Buffer
	if err := text.Execute(&filled, map[string]string{
		"HTTP": c.http, "GRPC": c.grpc, "Gateway": at(t, collectorProtocols[protocol]), "Tenant": tenant,
	}); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, filled.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := filepath.Abs("otelcol/build/otelcol")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "--config", config)
	cmd.Dir = dir
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	exited := begin(t, cmd, func() string { return string(c.said()) })
	for deadline := time.Now().Add(startTimeout); !bytes.Contains(c.said(), []byte("Everything is ready.")); time.Sleep(pollInterval) {
		wantRunning(t, exited)
		if time.Now().After(deadline) {
			t.Fatal("it is not ready")
		}
	}
	return c
}

// said is the Collector's log.
func (c *collector) said() []byte {
	c.t.Helper()
	text, err := os.ReadFile(c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// complaint is a warning or an error in the Collector's log.
type complaint struct {
	Level    string `json:"level"`
	What     string `json:"msg"`
	Rejected int    `json:"dropped_log_records"`
	Reason   string `json:"message"`
	Dropped  int    `json:"dropped_items"`
	Error    string `json:"error"`
}

// wantComplaints compares what the Collector complains about, once it complains about as much.
func (c *collector) wantComplaints(want ...complaint) {
	c.t.Helper()
	var got []complaint
	for deadline := time.Now().Add(landTimeout); ; time.Sleep(pollInterval) {
		got = nil
		for line := range bytes.Lines(c.said()) {
			var l complaint
			if err := json.Unmarshal(line, &l); err != nil || l.Level != "info" {
				got = append(got, l)
			}
		}
		if len(got) >= len(want) || time.Now().After(deadline) {
			break
		}
	}
	if !slices.Equal(got, want) {
		c.t.Errorf("complaints\n got %+v\nwant %+v", got, want)
	}
}

// freeAddresses are n addresses on which nothing listens.
func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	var listeners []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all, listeners = append(all, l.Addr().String()), append(listeners, l)
	}
	for _, l := range listeners { // not before all are there, so that they differ
		l.Close()
	}
	return all
}

// push gives the Collector records of a resource with these attributes.
func (c *collector) push(of map[string]any, scope string, records ...*logs.LogRecord) {
	c.t.Helper()
	body, err := proto.Marshal(&service.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  &resource.Resource{Attributes: attributesOf(of)},
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: scope}, LogRecords: records}},
	}}})
	if err != nil {
		c.t.Fatal(err)
	}
	answer, err := http.Post("http://"+c.http+"/v1/logs", "application/x-protobuf", bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		c.t.Fatal(answer.Status)
	}
}

// valueOf makes a value of OTLP of nil, a string, an int64, a float64, bytes, a []any or a map[string]any.
func valueOf(v any) *common.AnyValue {
	switch v := v.(type) {
	case string:
		return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: v}}
	case int64:
		return &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: v}}
	case float64:
		return &common.AnyValue{Value: &common.AnyValue_DoubleValue{DoubleValue: v}}
	case []byte:
		return &common.AnyValue{Value: &common.AnyValue_BytesValue{BytesValue: v}}
	case []any:
		list := &common.ArrayValue{}
		for _, element := range v {
			list.Values = append(list.Values, valueOf(element))
		}
		return &common.AnyValue{Value: &common.AnyValue_ArrayValue{ArrayValue: list}}
	case map[string]any:
		return &common.AnyValue{Value: &common.AnyValue_KvlistValue{KvlistValue: &common.KeyValueList{Values: attributesOf(v)}}}
	}
	return &common.AnyValue{}
}

func attributesOf(m map[string]any) []*common.KeyValue {
	var all []*common.KeyValue
	for name, v := range m {
		all = append(all, &common.KeyValue{Key: name, Value: valueOf(v)})
	}
	return all
}

// All that the SDK sends comes out of a Collector as if it had been sent without one.
func TestCollector(t *testing.T) {
	for protocol := range collectorProtocols {
		t.Run(protocol, func(t *testing.T) {
			tenant := "collector-" + protocol
			c := startCollector(t, protocol, tenant)
			exporter, err := otlploggrpc.New(t.Context(), otlploggrpc.WithEndpoint(c.grpc), otlploggrpc.WithInsecure())
			if err != nil {
				t.Fatal(err)
			}
			testOpenTelemetry(t, tenant, exporter)
			c.wantComplaints()
		})
	}
}

// Lines as of a file have no time but that at which they were read, and no severity.
func TestCollectorLines(t *testing.T) {
	lines := []string{
		"plain", "ü 日本語 🍵\t\"quoted\" \\ </b>\x7f", "", "  spaces  ", "\x1b[31mred\x1b[0m\r", "zero \x00, line separator \u2028",
		"panic: no tea\n\ngoroutine 1 [running]:\nmain.main()\n\t/shop/main.go:7 +0x1d\nexit status 2\n",
		strings.Repeat("ü", maxLine/2),
	}
	first := time.Date(2026, 5, 6, 7, 8, 9, 123456789, time.UTC)
	for protocol := range collectorProtocols {
		t.Run(protocol, func(t *testing.T) {
			tenant := "collector-lines-" + protocol
			c := startCollector(t, protocol, tenant)
			var want []row
			for i := range 3 * len(lines) {
				line, at := lines[i%len(lines)], first.Add(time.Duration(i))
				c.push(map[string]any{"service.name": "shop", "host.name": "web-1"}, "", &logs.LogRecord{
					ObservedTimeUnixNano: uint64(at.UnixNano()), Body: valueOf(line),
					Attributes: attributesOf(map[string]any{"log.file.name": "till ü.log", "log.file.record_number": int64(i)}),
				})
				want = append(want, row{at, map[string]string{"service_name": "shop"}, line, map[string]string{
					"host.name": "web-1", "log.file.name": "till ü.log", "log.file.record_number": strconv.Itoa(i),
				}})
			}
			wantRows(t, tenant, first, want...)
			c.wantComplaints()
		})
	}
}

// What a Collector may be sent by others than the SDK, and a line that Logthra refuses among those that it takes.
func TestCollectorOddities(t *testing.T) {
	first := time.Date(2026, 5, 6, 7, 8, 9, 123456789, time.UTC)
	for protocol := range collectorProtocols {
		t.Run(protocol, func(t *testing.T) {
			tenant := "collector-oddities-" + protocol
			c := startCollector(t, protocol, tenant)
			began := time.Now()
			c.push(nil, "till",
				&logs.LogRecord{
					TimeUnixNano: uint64(first.UnixNano()), ObservedTimeUnixNano: uint64(first.UnixNano()) + 1,
					SeverityText: "WARNING", EventName: "till.opened", Flags: 1, DroppedAttributesCount: 3,
					TraceId: bytes.Repeat([]byte{0xab}, 16), SpanId: bytes.Repeat([]byte{0xcd}, 8), Body: valueOf("odd"),
					Attributes: attributesOf(map[string]any{
						"nan": math.NaN(), "infinity": math.Inf(-1), "tiny": math.SmallestNonzeroFloat64, "huge": math.MaxFloat64,
						"least": int64(math.MinInt64), "most": int64(math.MaxInt64), "nothing": nil, "bytes": []byte{0xff}, "no bytes": []byte{},
						"map": map[string]any{"a": map[string]any{"b": int64(1)}, "empty": map[string]any{}}, "list": []any{nil, math.Inf(1), []any{}},
					}),
				},
				&logs.LogRecord{TimeUnixNano: uint64(first.UnixNano()) + 2, Body: valueOf(strings.Repeat("x", maxLine+1))},
				&logs.LogRecord{TimeUnixNano: uint64(first.UnixNano()) + 3, SeverityNumber: 25, Body: valueOf([]any{"a", map[string]any{"b": []byte{0xff}}, nil})},
				&logs.LogRecord{Body: valueOf("no time")},
			)
			wantRows(t, tenant, began,
				row{first, map[string]string{"level": "warn"}, "odd", map[string]string{
					"scope_name": "till", "severity_text": "WARNING", "event_name": "till.opened", "flags": "1", "dropped_attributes_count": "3",
					"observed_timestamp": strconv.FormatInt(first.UnixNano()+1, 10),
					"trace_id":           strings.Repeat("ab", 16), "span_id": strings.Repeat("cd", 8),
					"nan": "NaN", "infinity": "-Infinity", "tiny": "5e-324", "huge": "1.7976931348623157e+308",
					"least": "-9223372036854775808", "most": "9223372036854775807", "bytes": "/w==", "no bytes": "",
					"map.a.b": "1", "list": `[null,"Infinity",[]]`,
				}},
				row{first.Add(3), unlabeled, `["a",{"b":"/w=="},null]`, map[string]string{"scope_name": "till", "severity_number": "25"}},
				row{time.Time{}, unlabeled, "no time", map[string]string{"scope_name": "till"}},
			)
			c.wantComplaints(complaint{
				Level: "warn", What: "Partial success response", Rejected: 1,
				Reason: fmt.Sprintf("resourceLogs[0].scopeLogs[0].logRecords[1]: line of %d bytes is longer than %d (--max-line-bytes)", maxLine+1, maxLine),
			})
		})
	}
}

// What Logthra refuses as a whole a Collector gives up at once, and says why.
func TestCollectorRefused(t *testing.T) {
	const reason = `tenant "a,b" does not match [A-Za-z0-9_-]{1,64}`
	overHTTP := "error exporting items, request to http://" + at(t, "http") + "/v1/logs responded with HTTP Status Code 400"
	for protocol, err := range map[string]string{
		"http": overHTTP + ", Message=" + reason + ", Details=[]",
		"json": overHTTP, // it reads no more of an answer in JSON
		"grpc": reason,
	} {
		t.Run(protocol, func(t *testing.T) {
			c := startCollector(t, protocol, "a,b")
			c.push(nil, "", &logs.LogRecord{Body: valueOf("refused")})
			c.wantComplaints(complaint{
				Level: "error", What: "Exporting failed. Dropping data.", Dropped: 1,
				Error: "not retryable error: Permanent error: rpc error: code = InvalidArgument desc = " + err,
			})
		})
	}
}
