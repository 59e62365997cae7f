package otlp

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

// benchRequest is decodetest.BenchPush: its labels are attributes of resources.
func benchRequest() *logspb.LogsData {
	req := request()
	for _, s := range decodetest.BenchPush() {
		rl := resource(attributes("service.name", s.Labels[0].Value, "deployment.environment", s.Labels[1].Value, "k8s.pod.name", s.Labels[3].Value), new(logspb.ScopeLogs))
		rl.ScopeLogs[0].Scope = &commonpb.InstrumentationScope{Name: "bench"}
		for _, e := range s.Entries {
			record := &logspb.LogRecord{
				TimeUnixNano: uint64(e.Time.UnixNano()), ObservedTimeUnixNano: uint64(e.Time.UnixNano()), SeverityNumber: 9, SeverityText: "INFO", Body: anyOf(e.Line),
				Attributes: attributes("http.status_code", 200, "http", attributes("route", "/cart"), "peers", []any{"a", 1}),
			}
			for _, m := range e.Metadata {
				record.TraceId = []byte(m.Value)
			}
			rl.ScopeLogs[0].LogRecords = append(rl.ScopeLogs[0].LogRecords, record)
		}
		req.ResourceLogs = append(req.ResourceLogs, rl)
	}
	return req
}

func BenchmarkDecode(b *testing.B) {
	for _, f := range formats {
		body := f.write(b, benchRequest())
		b.Run(f.name, func(b *testing.B) {
			decodetest.Benchmark(b, len(body), func(batch *logs.Batch) error {
				_, err := f.decode(batch, body, testNow, testLimits)
				return err
			})
		})
	}
}

func TestAllocations(t *testing.T) {
	for _, f := range formats {
		body := f.write(t, benchRequest())
		t.Run(f.name, func(t *testing.T) {
			var b logs.Batch
			got := testing.AllocsPerRun(20, func() {
				b.Reset()
				_, err := f.decode(&b, body, testNow, testLimits)
				decodetest.Must(t, err)
			})
			// The columns of metadata grow from nothing with each batch.
			if most := float64(100 + 40*len(b.Metadata)); got > most {
				t.Errorf("%.0f allocations for %d lines, want %.0f at most", got, decodetest.BenchLines, most)
			}
		})
	}
}

// What a push takes in memory is bounded by its size, whatever it is made of.
func TestMemory(t *testing.T) {
	const n = 100_000
	inRecordJSON := func(members string) []byte { return []byte(jsonRecord(members)) }
	repeat := func(one []byte) []byte { return bytes.Repeat(one, n) }
	record := sub(scopeLogsRecords, nil)
	pair := msg(str(1, "k"), sub(2, str(valueString, "")))
	for _, c := range []struct {
		name   string
		format format
		body   []byte
	}{
		{"empty resources", formats[0], repeat(sub(requestResourceLogs, nil))},
		{"empty records", formats[0], sub(requestResourceLogs, sub(resourceLogsScopes, repeat(record)))},
		{"rejected records", formats[0], sub(requestResourceLogs, sub(resourceLogsScopes, repeat(sub(scopeLogsRecords, fixed64(recordTime, 1<<63)))))},
		{"scopes", formats[0], sub(requestResourceLogs, repeat(sub(resourceLogsScopes, record)))},
		{"one attribute each", formats[0], sub(requestResourceLogs, sub(resourceLogsScopes, repeat(sub(scopeLogsRecords, sub(recordAttributes, pair)))))},
		{"attributes of one", formats[0], inRecord(repeat(sub(recordAttributes, pair)))},
		{"an array", formats[0], inRecord(sub(recordBody, sub(valueArray, repeat(sub(listValues, nil)))))},
		{"escapes", formats[0], inRecord(sub(recordBody, sub(valueArray, sub(listValues, sub(valueString, repeat([]byte{1}))))))},
		{"a map under a long name", formats[0], inRecord(sub(recordAttributes, msg(str(1, strings.Repeat("x", n)), sub(2, sub(valueMap, repeat(sub(listValues, pair)))))))},
		{"empty resources", formats[1], []byte(`{"resourceLogs":[` + strings.Repeat(`{},`, n) + `{}]}`)},
		{"empty records", formats[1], inRecordJSON(strings.Repeat(`},{`, n))},
		{"attributes of one", formats[1], inRecordJSON(`"attributes":[` + strings.Repeat(`{"value":{"stringValue":""}},`, n) + `{}]`)},
		{"an array", formats[1], inRecordJSON(`"body":{"arrayValue":{"values":[` + strings.Repeat(`{},`, n) + `{}]}}`)},
		{"escapes", formats[1], inRecordJSON(`"body":{"stringValue":"` + strings.Repeat(`\n`, n) + `"}`)},
		{"nested", formats[1], inRecordJSON(`"x":` + strings.Repeat("[", n) + strings.Repeat("]", n))},
		{"keys in keys", formats[1], inRecordJSON(strings.Repeat(`"attributes":[{"key":"`+strings.Repeat("k", 100)+`","value":{"kvlistValue":{"values":[]}}}],`, n/100) + `"flags":0`)},
	} {
		t.Run(c.format.name+"/"+c.name, func(t *testing.T) {
			// Columns grow by copying, so that what was allocated in all is some times what is in use at the end.
			got := decodetest.MemoryFactor(len(c.body), func(b *logs.Batch) error {
				_, err := c.format.decode(b, c.body, testNow, testLimits)
				return err
			})
			t.Logf("%.1f bytes a byte", got)
			if got > 40 {
				t.Errorf("%.1f bytes allocated for each of the push", got)
			}
		})
	}
}

// A resource that is large and repeated for each record is refused before it takes much more memory than a push may.
func TestMemoryOfResources(t *testing.T) {
	limits := testLimits
	limits.MaxPushBytes = 1 << 20
	req := request(resource(attributes("a", strings.Repeat("x", 1<<19)), scope(slices.Repeat([]*logspb.LogRecord{{}}, 1<<10)...)))
	for _, f := range formats {
		body := f.write(t, req)
		if len(body) > limits.MaxPushBytes {
			t.Fatalf("%s: %d bytes, which no gateway would decode", f.name, len(body))
		}
		got := decodetest.MemoryFactor(limits.MaxPushBytes, func(b *logs.Batch) error {
			_, err := f.decode(b, body, testNow, limits)
			if err == nil {
				t.Error("the push was taken")
			}
			return err
		})
		if t.Logf("%s: %.1f bytes a byte", f.name, got); got > 40 {
			t.Errorf("%s: %.1f bytes allocated for each of the largest push", f.name, got)
		}
	}
}
