package gateway

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casteloig/logthra/gateway/decode"
	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

// encode writes a body in a content encoding; "raw deflate" is deflate without zlib's header.
func encode(t testing.TB, encoding string, body []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch encoding {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "deflate":
		w = zlib.NewWriter(&out)
	case "raw deflate":
		w, err = flate.NewWriter(&out, flate.DefaultCompression)
	case "zstd":
		w, err = zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	case "snappy":
		return snappy.Encode(nil, body)
	default:
		return body
	}
	must(t, err)
	_, err = w.Write(body)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

func TestEncodings(t *testing.T) {
	f := start(t)
	streams := []stream{one("compressed"), noise(4, 50, 3000), one(strings.Repeat("again and ", 20_000))}
	plain := map[string][]byte{jsonType: asJSON(streams...), protoType: asSnappy(streams...)}
	half := func(b []byte) []byte {
		return slices.Concat(encode(t, "gzip", b[:len(b)/2]), encode(t, "gzip", b[len(b)/2:]))
	}
	for _, typ := range []string{jsonType, protoType} {
		body := plain[typ]
		whole := encode(t, "snappy", body)
		if typ == protoType {
			whole = body // the block that it is anyway
		}
		for i, c := range []struct {
			header string
			body   []byte
		}{
			{"", body},
			{"identity", body},
			{"gzip", encode(t, "gzip", body)},
			{"GZip", encode(t, "gzip", body)},
			{"gzip", half(body)},
			{"deflate", encode(t, "deflate", body)},
			{"deflate", encode(t, "raw deflate", body)},
			{"zstd", encode(t, "zstd", body)},
			{"zstd", slices.Concat(encode(t, "zstd", body[:100]), encode(t, "zstd", body[100:]))},
			{"snappy", whole},
			{"Snappy", whole},
		} {
			t.Run(fmt.Sprint(typ, " ", c.header, i), func(t *testing.T) {
				tenant := fmt.Sprintf("t%d-%d", i, len(typ))
				wantTaken(t, f.post(t, "/loki/api/v1/push", bytes.NewReader(c.body), "tenant-id", tenant, "Content-Type", typ, "Content-Encoding", c.header))
				f.wantLanded(t, rowsOf(tenant, streams...))
			})
		}
	}
	// Without a type, where snappy can be nothing but protobuf.
	wantTaken(t, f.post(t, "/loki/api/v1/push", bytes.NewReader(plain[protoType]), "tenant-id", "untyped", "Content-Encoding", "snappy"))
	f.wantLanded(t, rowsOf("untyped", streams...))
	f.wantIdle(t)
}

// Broken bodies are refused, and do not spoil the decoders and buffers for those that follow.
func TestBrokenEncodings(t *testing.T) {
	f := start(t)
	streams := []stream{noise(5, 20, 1000)}
	body := asJSON(streams...)
	pushed := 0
	for range 3 { // pools have something to give from the second round on
		for _, encoding := range []string{"gzip", "deflate", "raw deflate", "zstd", "snappy"} {
			header := strings.TrimPrefix(encoding, "raw ")
			whole := encode(t, encoding, body)
			flipped := slices.Clone(whole)
			flipped[len(flipped)-2] ^= 0x55 // in the checksum, where there is one
			for name, broken := range map[string][]byte{
				"empty": {}, "one byte": whole[:1], "half": whole[:len(whole)/2], "all but one byte": whole[:len(whole)-1],
				"not it": []byte("\x00\xffnothing of the kind"), "flipped": flipped,
			} {
				a := f.post(t, "/api/push", bytes.NewReader(broken), "tenant-id", "t", "Content-Type", jsonType, "Content-Encoding", header)
				if a.Status != http.StatusBadRequest {
					t.Errorf("%s, %s: %d %s", encoding, name, a.Status, a.Error)
				}
			}
			pushed++
			wantTaken(t, f.post(t, "/api/push", bytes.NewReader(whole), "tenant-id", fmt.Sprint("t", pushed), "Content-Type", jsonType, "Content-Encoding", header))
			f.wantLanded(t, rowsOf(fmt.Sprint("t", pushed), streams...))
		}
		for _, unknown := range []string{"br", "gzip, zstd", "x", strings.Repeat("y", 1000)} {
			a := f.post(t, "/api/push", bytes.NewReader(body), "tenant-id", "t", "Content-Encoding", unknown)
			wantRefused(t, a, http.StatusBadRequest, "is none of gzip, deflate, zstd, snappy, identity")
		}
	}
	f.wantIdle(t)
}

// zeros is a gzip stream of so many MiB of zeros.
func zeros(t testing.TB, mebibytes int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	must(t, err)
	_, err = w.Write(make([]byte, 1<<20))
	must(t, err)
	must(t, w.Flush())
	// What was flushed refers to nothing but zeros, and so can follow itself.
	stream := slices.Concat([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, bytes.Repeat(out.Bytes(), mebibytes))
	out.Reset()
	must(t, w.Close())
	stream = append(stream, out.Bytes()...)
	return append(stream, make([]byte, 8)...) // the checksum, which nobody gets to
}

// Bodies that are small, and say that they are large, cost no more than the limit allows.
func TestBombs(t *testing.T) {
	const limit = 1 << 20
	f := start(t, func(s *setup) { s.Limits.MaxPushBytes = limit })
	wide := encode(t, "zstd", []byte("x"))
	wide[4], wide[5] = 0, (41-10)<<3 // a frame header with a window of 2 TiB
	claim := binary.AppendUvarint(nil, 1<<32-1)
	for _, c := range []struct {
		name     string
		typ      string
		encoding string
		body     []byte
		status   int
	}{
		{"1 GiB of gzip", jsonType, "gzip", zeros(t, 1024), 413},
		{"1 GiB of gzip as protobuf", protoType, "gzip", zeros(t, 1024), 413},
		{"1 GiB of deflate", jsonType, "deflate", zeros(t, 1024)[10:], 413},
		{"64 MiB of zstd", jsonType, "zstd", encode(t, "zstd", make([]byte, 64<<20)), 413},
		{"a zstd frame that says 64 MiB", jsonType, "zstd", []byte("\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x04"), 413},
		{"a zstd window of 2 TiB", jsonType, "zstd", wide, 400},
		{"a snappy block of 4 GB", jsonType, "snappy", append(claim, 0, 'x'), 413},
		{"a protobuf block of 4 GB", protoType, "", append(claim, 0, 'x'), 413},
		{"a protobuf block of all the limit", protoType, "", append(binary.AppendUvarint(nil, limit), 0, 'x'), 400},
		{"a length over 64 bits", protoType, "", bytes.Repeat([]byte{0xff}, 20), 400},
		{"gzip that is too large compressed", jsonType, "gzip", encode(t, "gzip", asSnappy(noise(6, 100, 20_000))), 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			a := f.post(t, "/api/push", bytes.NewReader(c.body), "tenant-id", "t", "Content-Type", c.typ, "Content-Encoding", c.encoding)
			runtime.ReadMemStats(&after)
			wantRefused(t, a, c.status)
			if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20 {
				t.Errorf("%d bytes of body took %d bytes of memory", len(c.body), took)
			}
		})
	}
	f.wantNothing(t)
	f.wantIdle(t)
}

// A body that is larger than the limit is refused also where it ends, for its decoder, at the very limit.
func TestLimitBetweenGzipMembers(t *testing.T) {
	first := encode(t, "gzip", []byte(`{"streams":[]}`))
	limit := len(first) - 1
	budget := &budget{most: 1 << 30}
	_, err := readBody(bytes.NewReader(slices.Concat(first, encode(t, "gzip", []byte(" more")))), "gzip", limit, budget)
	if _, ok := errors.AsType[*decode.TooLargeError](err); !ok {
		t.Error(err)
	}
}

// What a body is counted as under the memory ceiling has to cover what it really takes.
func TestBodiesAreCounted(t *testing.T) {
	const limit, ceiling = 8 << 20, 4 << 20
	window := encode(t, "zstd", []byte("x"))
	window[4], window[5] = 0, (23-10)<<3 // a frame header with a window of 8 MiB
	zero := stream{map[string]string{"app": "zero"}, []entry{{someTime, strings.Repeat("0", 200<<10), nil}}}
	f := start(t, func(s *setup) { s.Limits.MaxPushBytes, s.MaxInflightBytes = limit, ceiling })
	for _, c := range []struct {
		name, typ, encoding string
		body                []byte
	}{
		{"plain", jsonType, "", bytes.Repeat([]byte(" "), ceiling/2)},
		{"gzip", jsonType, "gzip", zeros(t, 4)},
		{"a zstd window", jsonType, "zstd", window},
		{"snappy", jsonType, "snappy", snappy.Encode(nil, make([]byte, ceiling/2))},
		{"empty lines", jsonType, "", []byte(`{"streams":[{"stream":{"a":"b"},"values":[["",""]` + strings.Repeat(`,["",""]`, 80_000) + `]}]}`)},
		{"protobuf", protoType, "", asSnappy(zero, zero, zero, zero, zero, zero, zero, zero)},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.post(t, "/api/push", bytes.NewReader(c.body), "tenant-id", "t", "Content-Type", c.typ, "Content-Encoding", c.encoding)
			wantRefused(t, a, http.StatusServiceUnavailable, "--max-inflight-bytes")
		})
	}
	request := asRequest(one(""))
	request.Streams[0].Entries = slices.Repeat([]*logthrav1.Entry{{}}, 130_000)
	if _, err := f.push(t, request, "tenant-id", "t"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "--max-inflight-bytes") {
		t.Error(err)
	}
	f.wantNothing(t)
	f.wantIdle(t)
}

// A buffer that an earlier push has left large is not charged to the many small ones that come after as if
// they filled it.
func TestSmallBodiesFitUnderTheCeiling(t *testing.T) {
	const ceiling = 64 << 20
	ample, budget := &budget{most: 1 << 40}, &budget{most: ceiling}
	var open []*body
	for range 12 {
		b, err := readBody(bytes.NewReader(make([]byte, 2<<20+1)), "", 16<<20, ample)
		must(t, err)
		open = append(open, b)
	}
	for _, b := range open {
		b.close()
	}
	open = open[:0]
	for range 12 { // of up to 4 MiB each, or fewer where the pool has forgotten some
		b, err := readBody(strings.NewReader("small"), "", 16<<20, budget)
		must(t, err)
		open = append(open, b)
	}
	for _, b := range open {
		b.close()
	}
	if !budget.TryAcquire(ceiling) {
		t.Error("not all is given back")
	}
}

var fuzzEncodings = []string{"", "identity", "gzip", "deflate", "zstd", "snappy", "unknown"}

// FuzzBody checks that no body of any encoding passes the limit, panics or keeps memory of the ceiling.
func FuzzBody(f *testing.F) {
	const limit, ceiling = 64 << 10, 2 << 20
	for i, encoding := range fuzzEncodings {
		body := asJSON(one("x"), noise(7, 2, 500))
		for _, seed := range [][]byte{{}, body, encode(f, encoding, body), encode(f, encoding, body[:0]), encode(f, encoding, make([]byte, limit+1))} {
			f.Add(byte(i), seed)
			f.Add(byte(i), seed[:len(seed)/2])
			f.Add(byte(i), slices.Concat(seed, seed))
		}
	}
	f.Add(byte(3), encode(f, "raw deflate", []byte("hello")))
	f.Fuzz(func(t *testing.T, encoding byte, data []byte) {
		budget := &budget{most: ceiling}
		b, err := readBody(bytes.NewReader(data), fuzzEncodings[int(encoding)%len(fuzzEncodings)], limit, budget)
		var bad *decode.Error
		var large *decode.TooLargeError
		switch {
		case err == nil:
			if len(b.data) > limit {
				t.Errorf("%d bytes of %d", len(b.data), limit)
			}
			if b.held < int64(len(b.data)) {
				t.Errorf("%d bytes held for %d", b.held, len(b.data))
			}
			b.close()
		case !errors.As(err, &bad) && !errors.As(err, &large) && !errors.Is(err, errBusy):
			t.Errorf("%T %v", err, err)
		}
		if !budget.TryAcquire(ceiling) {
			t.Error("not all is given back")
		}
	})
}
