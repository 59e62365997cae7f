package loki

import (
	"bytes"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"

	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

const (
	testNow  = decodetest.Now
	newYear  = int64(1_704_067_200_000_000_000) // 2024-01-01
	maxBytes = 16 << 20
)

var testLimits = decodetest.Limits

type row = decodetest.Row

// What a push takes in memory is bounded by its size, whatever it is full of.
func TestMemory(t *testing.T) {
	const n = 300_000
	type push struct {
		name   string
		size   int
		decode func(*logs.Batch) error
	}
	packed := func(name string, raw []byte) push {
		body := snappy.Encode(nil, raw)
		return push{name, len(raw), func(b *logs.Batch) error { return Protobuf(b, body, testNow, testLimits) }}
	}
	plain := func(name, text string) push {
		body := []byte(text)
		return push{name, len(body), func(b *logs.Batch) error { return JSON(b, body, testNow, testLimits) }}
	}
	for _, c := range []push{
		packed("protobuf metadata", stream(appAPI, entry(stamp(1, 5), bytes.Repeat([]byte{entryMetadata<<3 | 2, 0}, n)))),
		packed("protobuf entries", stream(appAPI, bytes.Repeat([]byte{streamEntries<<3 | 2, 0}, n))),
		packed("protobuf streams", bytes.Repeat(stream(str(streamLabels, `{a="b"}`), entry()), n)),
		packed("protobuf labels", stream(str(streamLabels, "{"+strings.Repeat(`a="",`, n)+"}"))),
		plain("JSON metadata", values(`["1","",{`+strings.Repeat(`"":"",`, n)+`"":""}]`)),
		plain("JSON entries", values(strings.Repeat(`["",""],`, n)+`["",""]`)),
		plain("JSON labels", `{"streams":[{"stream":{`+strings.Repeat(`"":"",`, n)+`"":""}}]}`),
		plain("JSON escapes", `{"`+strings.Repeat(`\n`, n)+`":1,"x":"`+strings.Repeat(`\n`, n)+`"}`),
	} {
		// Columns grow by copying, so that what was allocated in all is some times what is in use at the end.
		got := decodetest.MemoryFactor(c.size, c.decode)
		t.Logf("%s: %.1f bytes a byte", c.name, got)
		if got > 30 {
			t.Errorf("%s: %.1f bytes allocated for each of the push", c.name, got)
		}
	}
}
