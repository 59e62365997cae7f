package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	lokipush "github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

// stream is the lines of one stream in a push.
type stream struct {
	labels  map[string]string
	entries []entry
}

type entry struct {
	time time.Time
	line string
}

// protocol is a way to push.
type protocol struct {
	path        string // below the URL
	contentType string
	grpc        bool // the body is a message of the gRPC method that path names
	encode      func([]stream) ([]byte, error)
}

// protocols are those that bench knows, by the names of its flag.
var protocols = map[string]protocol{
	"loki":      {"/loki/api/v1/push", "application/x-protobuf", false, encodeLoki},
	"loki-json": {"/loki/api/v1/push", "application/json", false, encodeLokiJSON},
	"otlp":      {"/v1/logs", "application/x-protobuf", false, encodeOTLP},
	"elastic":   {"/_bulk", "application/x-ndjson", false, encodeElastic},
	"jsonline":  {"/ingest/jsonline?_stream_fields=" + strings.Join(labelNames, ","), "application/x-ndjson", false, encodeJSONLine},
	"splunk":    {"/services/collector/event", "application/json", false, encodeSplunk},
	"grpc":      {logthrav1.PushService_Push_FullMethodName, "", true, encodeGRPC},
}

// Protocols are the names of the protocols that a Config may ask for, sorted.
func Protocols() []string { return slices.Sorted(maps.Keys(protocols)) }

// The labels of a stream are some that each protocol has a way to give: OpenTelemetry's, with _ for dots.
const (
	labelRun    = "service_namespace"
	labelApp    = "service_name"
	labelStream = "k8s_container_name"
)

var labelNames = []string{labelRun, labelApp, labelStream}

// attribute is the name that a label has in OpenTelemetry.
func attribute(label string) string {
	if label == labelStream {
		return "k8s.container.name"
	}
	return strings.Replace(label, "_", ".", 1)
}

func encodeLoki(streams []stream) ([]byte, error) {
	var request lokipush.PushRequest
	for _, s := range streams {
		var labels []string
		for _, name := range slices.Sorted(maps.Keys(s.labels)) {
			labels = append(labels, name+"="+strconv.Quote(s.labels[name]))
		}
		one := lokipush.Stream{Labels: "{" + strings.Join(labels, ", ") + "}"}
		for _, e := range s.entries {
			one.Entries = append(one.Entries, lokipush.Entry{Timestamp: e.time, Line: e.line})
		}
		request.Streams = append(request.Streams, one)
	}
	raw, err := request.Marshal()
	return snappy.Encode(nil, raw), err
}

func encodeLokiJSON(streams []stream) ([]byte, error) {
	type one struct {
		Stream map[string]string `json:"stream"`
		Values [][2]string       `json:"values"`
	}
	var request struct {
		Streams []one `json:"streams"`
	}
	for _, s := range streams {
		o := one{Stream: s.labels}
		for _, e := range s.entries {
			o.Values = append(o.Values, [2]string{strconv.FormatInt(e.time.UnixNano(), 10), e.line})
		}
		request.Streams = append(request.Streams, o)
	}
	return json.Marshal(request)
}

func encodeOTLP(streams []stream) ([]byte, error) {
	text := func(s string) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
	}
	var request collectorpb.ExportLogsServiceRequest
	for _, s := range streams {
		resource := &resourcepb.Resource{}
		for _, name := range slices.Sorted(maps.Keys(s.labels)) {
			resource.Attributes = append(resource.Attributes, &commonpb.KeyValue{Key: attribute(name), Value: text(s.labels[name])})
		}
		scope := &logspb.ScopeLogs{}
		for _, e := range s.entries {
			scope.LogRecords = append(scope.LogRecords, &logspb.LogRecord{TimeUnixNano: uint64(e.time.UnixNano()), Body: text(e.line)})
		}
		request.ResourceLogs = append(request.ResourceLogs, &logspb.ResourceLogs{Resource: resource, ScopeLogs: []*logspb.ScopeLogs{scope}})
	}
	return proto.Marshal(&request)
}

// objects encodes each entry as an object, with what comes before it.
func objects(streams []stream, before string, fields func(stream, entry) map[string]any) ([]byte, error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body) // which ends each with a line feed
	for _, s := range streams {
		for _, e := range s.entries {
			body.WriteString(before)
			if err := encoder.Encode(fields(s, e)); err != nil {
				return nil, err
			}
		}
	}
	return body.Bytes(), nil
}

func encodeElastic(streams []stream) ([]byte, error) {
	return objects(streams, `{"create":{"_index":"logs-bench"}}`+"\n", func(s stream, e entry) map[string]any {
		fields := map[string]any{"@timestamp": e.time.Format(time.RFC3339Nano), "message": e.line}
		for name, value := range s.labels {
			fields[attribute(name)] = value
		}
		return fields
	})
}

func encodeJSONLine(streams []stream) ([]byte, error) {
	return objects(streams, "", func(s stream, e entry) map[string]any {
		fields := map[string]any{"_time": e.time.Format(time.RFC3339Nano), "_msg": e.line}
		for name, value := range s.labels {
			fields[name] = value
		}
		return fields
	})
}

func encodeSplunk(streams []stream) ([]byte, error) {
	return objects(streams, "", func(s stream, e entry) map[string]any {
		return map[string]any{
			"time":  json.Number(fmt.Sprintf("%d.%09d", e.time.Unix(), e.time.Nanosecond())),
			"index": s.labels[labelRun], "source": s.labels[labelApp], "host": s.labels[labelStream], "event": e.line,
		}
	})
}

func encodeGRPC(streams []stream) ([]byte, error) {
	var request logthrav1.PushRequest
	for _, s := range streams {
		one := &logthrav1.Stream{Labels: s.labels}
		for _, e := range s.entries {
			one.Entries = append(one.Entries, &logthrav1.Entry{Timestamp: timestamppb.New(e.time), Line: []byte(e.line)})
		}
		request.Streams = append(request.Streams, one)
	}
	return proto.Marshal(&request)
}

// Encodings are the content encodings that a Config may ask for.
var Encodings = []string{"none", "gzip", "zstd", "snappy"}

// compress encodes a body as its content encoding says.
func compress(body []byte, encoding string) ([]byte, error) {
	var packed bytes.Buffer
	var to io.WriteCloser
	switch encoding {
	case "gzip":
		to = gzip.NewWriter(&packed)
	case "zstd":
		var err error
		if to, err = zstd.NewWriter(&packed, zstd.WithEncoderConcurrency(1)); err != nil {
			return nil, err
		}
	case "snappy":
		return snappy.Encode(nil, body), nil
	default:
		return body, nil
	}
	if _, err := to.Write(body); err != nil {
		return nil, err
	}
	err := to.Close()
	return packed.Bytes(), err
}
