package native

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/casteloig/logthra/gateway/decode/decodetest"
	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
)

// benchPush is decodetest.BenchPush as a client sends it.
func benchPush(t testing.TB) []byte {
	var request logthrav1.PushRequest
	for _, s := range decodetest.BenchPush() {
		out := &logthrav1.Stream{Labels: asMap(s.Labels)}
		for _, e := range s.Entries {
			out.Entries = append(out.Entries, &logthrav1.Entry{Timestamp: timestamppb.New(e.Time), Line: []byte(e.Line), Metadata: asMap(e.Metadata)})
		}
		request.Streams = append(request.Streams, out)
	}
	raw, err := proto.Marshal(&request)
	decodetest.Must(t, err)
	return raw
}

func asMap(labels []logs.Label) map[string]string {
	pairs := make(map[string]string)
	for _, l := range labels {
		pairs[l.Name] = l.Value
	}
	return pairs
}

func BenchmarkProtobuf(b *testing.B) {
	raw := benchPush(b)
	decodetest.Benchmark(b, len(raw), func(batch *logs.Batch) error { return Protobuf(batch, raw, testNow, testLimits) })
}

// BenchmarkGenerated is the same push by way of the generated code.
func BenchmarkGenerated(b *testing.B) {
	raw := benchPush(b)
	decodetest.Benchmark(b, len(raw), func(batch *logs.Batch) error {
		var request logthrav1.PushRequest
		if err := proto.Unmarshal(raw, &request); err != nil {
			return err
		}
		return reference(batch, &request)
	})
}

func TestAllocations(t *testing.T) {
	raw := benchPush(t)
	decodetest.WantFewAllocations(t, func(b *logs.Batch) error { return Protobuf(b, raw, testNow, testLimits) })
}
