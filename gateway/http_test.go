package gateway

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
)

const (
	jsonType  = "application/json"
	protoType = "application/x-protobuf"
	formType  = "application/x-www-form-urlencoded" // what curl -d says
)

// layouts are pushes of all shapes. Every protocol has to bring them through.
func layouts() map[string][]stream {
	const day = int64(24 * time.Hour)
	year := stream{labels: map[string]string{"app": "backfill"}}
	for i := range int64(366) {
		year.entries = append(year.entries, entry{someTime - i*day, fmt.Sprint("day ", i), nil})
	}
	var many []stream
	for i := range 10_000 {
		many = append(many, stream{map[string]string{"app": "api", "pod": fmt.Sprint("pod-", i)}, []entry{{someTime + int64(i), fmt.Sprint("line ", i), nil}}})
	}
	shuffled := stream{labels: map[string]string{"app": "shuffled"}}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(500) {
		shuffled.entries = append(shuffled.entries, entry{someTime + int64(i), fmt.Sprint("line ", i), nil})
	}
	return map[string][]stream{
		"one line": {one("hello")},
		"several streams": {
			{map[string]string{"app": "api", "level": "error"}, []entry{{someTime, "a", nil}, {someTime + 1, "b", nil}}},
			{map[string]string{"app": "web"}, []entry{{someTime, "c", nil}}},
			{map[string]string{"level": "error", "app": "api"}, []entry{{someTime + 2, "d", nil}}},
			{map[string]string{"app": "db", "quoted": `a "b" \ c`, "unicode": "é😀"}, []entry{{someTime, "", nil}}},
		},
		"metadata": {
			{map[string]string{"app": "api"}, []entry{
				{someTime, "none", nil},
				{someTime + 1, "one", map[string]string{"trace_id": "1f"}},
				{someTime + 2, "three", map[string]string{"trace_id": "2e", "user": "é", "empty": ""}},
			}},
			{map[string]string{"app": "web"}, []entry{{someTime, "other", map[string]string{"user": "x"}}}},
		},
		"out of order":   {shuffled},
		"10,000 streams": many,
		"a year of days": {year},
		"a line of every size": {func() stream {
			s := stream{labels: map[string]string{"app": "sizes"}}
			for size := range 2000 {
				s.entries = append(s.entries, entry{someTime, strings.Repeat("x", size), nil})
			}
			return s
		}()},
		"the longest line":    {one(strings.Repeat("l", 256<<10))},
		"the ends of time":    {{map[string]string{"app": "old"}, []entry{{-2208988800e9, "1900", nil}, {-1, "1969", nil}, {0, "1970", nil}, {1<<63 - 1, "2262", nil}}}},
		"control characters":  {one("\x00\x01\t\r\n\x1b[31mred\x1b[0m\x7f")},
		"escapes and unicode": {one(`"quoted" \back\slash / é😀` + "\u2028\ufeff\ufffd")},
	}
}

// rawLines can't be in a string of protobuf, but gRPC's and JSON's may hold them.
var rawLines = []string{"\xff\xfe", "a\x80b", "nul\x00in\x00it", "\xed\xa0\x80", "cut \xe2\x82"}

func TestLayouts(t *testing.T) {
	f := start(t)
	for name, streams := range layouts() {
		t.Run(name, func(t *testing.T) {
			wantTaken(t, f.post(t, "/loki/api/v1/push", bytes.NewReader(asJSON(streams...)), "X-Scope-OrgID", "json", "Content-Type", jsonType))
			f.wantLanded(t, rowsOf("json", streams...))

			wantTaken(t, f.post(t, "/loki/api/v1/push", bytes.NewReader(asSnappy(streams...)), "X-Scope-OrgID", "proto", "Content-Type", protoType))
			f.wantLanded(t, rowsOf("proto", streams...))

			response, err := f.push(t, asRequest(streams...), "tenant-id", "grpc")
			must(t, err)
			rows := rowsOf("grpc", streams...)
			if response.GetEntries() != uint64(len(rows)) || response.GetDuplicate() {
				t.Errorf("%d entries, %v", response.GetEntries(), response)
			}
			f.wantLanded(t, rows)
		})
	}
	f.wantIdle(t)
}

func TestLinesOfAnyBytes(t *testing.T) {
	f := start(t)
	s := stream{labels: map[string]string{"app": "raw"}}
	for i, line := range rawLines {
		s.entries = append(s.entries, entry{someTime + int64(i), line, nil})
	}
	wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asJSON(s)), "tenant-id", "json", "Content-Type", jsonType))
	f.wantLanded(t, rowsOf("json", s))
	wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asSnappy(s)), "tenant-id", "proto", "Content-Type", protoType))
	f.wantLanded(t, rowsOf("proto", s))
	_, err := f.push(t, asRequest(s), "tenant-id", "grpc")
	must(t, err)
	f.wantLanded(t, rowsOf("grpc", s))
	// A NUL byte as it is, not escaped: not JSON by the book, and taken all the same.
	wantTaken(t, f.post(t, "/api/push", strings.NewReader("{\"streams\":[{\"stream\":{\"app\":\"raw\"},\"values\":[[\"1\",\"a\x00b\"]]}]}"), "tenant-id", "nul"))
	f.wantLanded(t, []row{{"nul", `{"app":"raw"}`, 1, "a\x00b", ""}})
}

// The request of the first prototype: dates for timestamps, no content type but curl's.
func TestPrototypePush(t *testing.T) {
	f := start(t)
	const day = int64(24 * time.Hour)
	body := `{"streams": [{"stream": {"Language": "Go", "source": "code"},
		"values": [["2023-01-01", "example line"], ["2023-01-02", "example line 2"]]}]}`
	wantTaken(t, f.post(t, "/api/push", strings.NewReader(body), "tenant-id", "tenant1", "Content-Type", formType))
	f.wantLanded(t, []row{
		{"tenant1", `{"Language":"Go","source":"code"}`, 19358 * day, "example line", ""},
		{"tenant1", `{"Language":"Go","source":"code"}`, 19359 * day, "example line 2", ""},
	})
}

func TestHeadersAndTypes(t *testing.T) {
	f := start(t)
	asIs := one("by type")
	for i, c := range []struct {
		path    string
		body    []byte
		headers []string
	}{
		{"/api/push", asJSON(asIs), []string{"tenant-id", ""}},
		{"/api/push", asJSON(asIs), []string{"X-Scope-OrgID", ""}},
		{"/loki/api/v1/push", asJSON(asIs), []string{"tenant-id", ""}},
		{"/loki/api/v1/push", asJSON(asIs), []string{"X-Scope-OrgID", ""}},
		{"/api/push", asJSON(asIs), []string{"tenant-id", "", "X-Scope-OrgID", ""}},

		{"/api/push", asJSON(asIs), []string{"tenant-id", "", "Content-Type", jsonType}},
		{"/api/push", asJSON(asIs), []string{"tenant-id", "", "Content-Type", "application/json; charset=utf-8"}},
		{"/api/push", asJSON(asIs), []string{"tenant-id", "", "Content-Type", "Application/JSON;charset=UTF-8"}},
		{"/api/push", asJSON(asIs), []string{"tenant-id", "", "Content-Type", formType}},
		{"/api/push", asJSON(asIs), []string{"tenant-id", "", "Content-Type", "text/plain"}},
		{"/api/push", asJSON(asIs), []string{"tenant-id", "", "Content-Type", "; nonsense"}},
		{"/api/push", append([]byte("\n\t "), asJSON(asIs)...), []string{"tenant-id", ""}},
		{"/api/push", append([]byte("\ufeff"), asJSON(asIs)...), []string{"tenant-id", ""}},
		{"/api/push", append([]byte("\ufeff"), asJSON(asIs)...), []string{"tenant-id", "", "Content-Type", jsonType}},

		{"/api/push", asSnappy(asIs), []string{"tenant-id", "", "Content-Type", protoType}},
		{"/api/push", asSnappy(asIs), []string{"tenant-id", "", "Content-Type", "application/protobuf"}},
		{"/api/push", asSnappy(asIs), []string{"tenant-id", "", "Content-Type", "application/x-protobuf; proto=logproto.PushRequest"}},
		{"/api/push", asSnappy(asIs), []string{"tenant-id", ""}},
		{"/api/push", asSnappy(asIs), []string{"tenant-id", "", "Content-Type", formType}},
	} {
		// The tenant of a case tells its record from those of the others.
		tenant := fmt.Sprint("case-", i)
		headers := slices.Clone(c.headers)
		for j := 0; j < len(headers) && headers[j] != "Content-Type"; j += 2 {
			headers[j+1] = tenant
		}
		if a := f.post(t, c.path, bytes.NewReader(c.body), headers...); a.Status != http.StatusNoContent {
			t.Errorf("%s %q: %d %+v", c.path, headers, a.Status, a.refusal)
			continue
		}
		f.wantLanded(t, rowsOf(tenant, asIs))
	}
}

// A snappy block begins with its length: of 123 bytes, that is a brace.
func TestSniffingTakesNoBlockForJSON(t *testing.T) {
	f := start(t)
	for size := range 400 {
		s := one(strings.Repeat("x", size))
		body := asSnappy(s)
		if body[0] != '{' || len(asProto(s)) != '{' {
			continue
		}
		wantTaken(t, f.post(t, "/api/push", bytes.NewReader(body), "tenant-id", "t"))
		f.wantLanded(t, rowsOf("t", s))
		return
	}
	t.Fatal("no push has 123 bytes")
}

func TestTimestampsThatTheGatewayGives(t *testing.T) {
	f := start(t)
	for i, text := range []string{`["", "x"]`, `[null, "x"]`} {
		before := time.Now().UnixNano()
		body := `{"streams":[{"stream":{"app":"api"},"values":[` + text + `]}]}`
		wantTaken(t, f.post(t, "/api/push", strings.NewReader(body), "tenant-id", fmt.Sprint("t", i)))
		records := f.landed(t)
		if len(records) != 1 || len(records[0]) != 1 {
			t.Fatal(records)
		}
		if at := records[0][0].Time; at < before || at > time.Now().UnixNano() {
			t.Errorf("%s: %s", text, time.Unix(0, at))
		}
	}
}

func TestPushesOfNothing(t *testing.T) {
	f := start(t)
	for _, body := range []string{
		`{"streams":[]}`,
		`{"streams":[{"stream":{"app":"api"},"values":[]}]}`,
		`{"streams":[{"stream":{"app":"api"},"values":null}]}`,
	} {
		wantTaken(t, f.post(t, "/api/push", strings.NewReader(body), "tenant-id", "t"))
	}
	wantTaken(t, f.post(t, "/api/push", bytes.NewReader(snappy.Encode(nil, nil)), "tenant-id", "t", "Content-Type", protoType))
	f.wantNothing(t)
	f.wantIdle(t)
}

func TestRefusals(t *testing.T) {
	f := start(t, func(s *setup) { s.Limits.MaxPushBytes, s.Limits.MaxLineBytes = 1<<20, 1000 })
	values := func(values string) []byte {
		return []byte(`{"streams":[{"stream":{"app":"ok"},"values":[["1","fine"]]},{"stream":{"b":"2","a":"1"},"values":[["1","fine"],` + values + `]}]}`)
	}
	labels := func(labels string) []byte {
		return []byte(`{"streams":[{"stream":` + labels + `,"values":[["1","x"]]}]}`)
	}
	protoLabels := func(labels string) []byte {
		good := asProto(stream{map[string]string{"a": "b"}, []entry{{1, "x", nil}}})
		raw := bytes.Replace(good, []byte("\x07{a=\"b\"}"), append([]byte{byte(len(labels))}, labels...), 1)
		raw[1] += byte(len(labels) - len(`{a="b"}`))
		return snappy.Encode(nil, raw)
	}
	const second = `{"a":"1","b":"2"}`
	good, block := asJSON(one("x")), asSnappy(one("x"))
	long := stream{map[string]string{"app": "api"}, []entry{{1, "short", nil}, {2, strings.Repeat("l", 1001), nil}}}
	acme := []string{"tenant-id", "acme"}
	for _, c := range []struct {
		name    string
		headers []string
		body    []byte
		status  int
		text    string
		where   string
		stream  string
	}{
		{"no tenant", nil, good, 400, "no tenant", "", ""},
		{"an empty tenant", []string{"tenant-id", "", "X-Scope-OrgID", ""}, good, 400, "no tenant", "", ""},
		{"a dot", []string{"tenant-id", "a.b"}, good, 400, `tenant "a.b" does not match`, "", ""},
		{"a wildcard", []string{"tenant-id", "*"}, good, 400, `tenant "*" does not match`, "", ""},
		{"all that follows", []string{"X-Scope-OrgID", ">"}, good, 400, `tenant ">" does not match`, "", ""},
		{"a space", []string{"tenant-id", "a b"}, good, 400, "does not match", "", ""},
		{"a slash", []string{"tenant-id", "../a"}, good, 400, "does not match", "", ""},
		{"not ASCII", []string{"tenant-id", "é"}, good, 400, "does not match", "", ""},
		{"Loki's many tenants", []string{"X-Scope-OrgID", "a|b"}, good, 400, "does not match", "", ""},
		{"65 bytes", []string{"tenant-id", strings.Repeat("a", 65)}, good, 400, "does not match", "", ""},
		{"two tenants", []string{"tenant-id", "a", "X-Scope-OrgID", "b"}, good, 400, `two tenants: tenant-id is "a", X-Scope-OrgID is "b"`, "", ""},
		{"a header twice", []string{"tenant-id", "a", "tenant-id", "b"}, good, 400, `tenant "a,b" does not match`, "", ""},
		{"the same header twice", []string{"X-Scope-OrgID", "a", "X-Scope-OrgID", "a"}, good, 400, `tenant "a,a" does not match`, "", ""},
		{"a good tenant and a bad one", []string{"tenant-id", "a", "X-Scope-OrgID", "a.b"}, good, 400, "two tenants", "", ""},
		{"a key of 256 bytes", append(acme, "Idempotency-Key", strings.Repeat("k", 256)), good, 400, "has 256 bytes, at most 255", "", ""},

		{"empty", acme, nil, 400, "the push is not a valid snappy block", "", ""},
		{"not JSON", acme, []byte(`{not JSON`), 400, "want a key or '}', got \"n\"", "offset 1", ""},
		{"neither", acme, []byte(`hello world`), 400, "the push is not a valid snappy block", "", ""},
		{"an array", append(acme, "Content-Type", jsonType), []byte(`[]`), 400, "want an object, got array", "", ""},
		{"an empty body of JSON", append(acme, "Content-Type", jsonType), nil, 400, "want an object, got the end", "offset 0", ""},
		{"no streams", acme, []byte(`{}`), 400, `"streams" is missing`, "", ""},
		{"streams of another type", acme, []byte(`{"streams":{}}`), 400, "want an array, got object", "streams", ""},
		{"a stream of another type", acme, []byte(`{"streams":[1]}`), 400, "want an object, got number", "streams[0]", ""},
		{"cut short", acme, good[:len(good)-1], 400, "got the end", fmt.Sprint("offset ", len(good)-1), ""},
		{"something behind it", acme, append(slices.Clone(good), '{'), 400, "want the end of the document", fmt.Sprint("offset ", len(good)), ""},
		{"a value of another type", acme, values(`"x"`), 400, "want an array, got string", "streams[1].values[1]", second},
		{"a value of one", acme, values(`["1"]`), 400, "want 2 or 3 elements, got 1", "streams[1].values[1]", second},
		{"a value of four", acme, values(`["1","x",{},1]`), 400, "want 2 or 3 elements, got more", "streams[1].values[1]", second},
		{"a line of another type", acme, values(`["1",2]`), 400, "want a string, got number", "streams[1].values[1][1]", second},
		{"metadata of another type", acme, values(`["1","x",[]]`), 400, "want an object, got array", "streams[1].values[1][2]", second},
		{"a metadata value of another type", acme, values(`["1","x",{"a":1}]`), 400, "want a string, got number", `streams[1].values[1][2]["a"]`, second},

		{"no labels", acme, labels(`{}`), 400, "at least one label", "streams[0].stream", ""},
		{"labels without values", acme, labels(`{"a":""}`), 400, "at least one label", "streams[0].stream", ""},
		{"a label with a dash", acme, labels(`{"a-b":"x"}`), 400, `label name "a-b"`, "streams[0].stream", ""},
		{"a label that begins with a digit", acme, labels(`{"0":"x"}`), 400, `label name "0"`, "streams[0].stream", ""},
		{"a label given twice", acme, labels(`{"a":"1","a":"2"}`), 400, `label "a" is given twice`, "streams[0].stream", ""},
		{"a label that is not UTF-8", acme, labels("{\"a\":\"\xff\"}"), 400, "not valid UTF-8", "streams[0].stream", ""},
		{"a label of another type", acme, labels(`{"a":1}`), 400, "want a string, got number", `streams[0].stream["a"]`, ""},
		{"bad labels of protobuf", append(acme, "Content-Type", protoType), protoLabels(`{a-b="x"}`), 400, "", "streams[0].labels", ""},
		{"no labels of protobuf", append(acme, "Content-Type", protoType), protoLabels(`{}`), 400, "at least one label", "streams[0].labels", ""},

		{"a timestamp of words", acme, values(`["yesterday","x"]`), 400, `timestamp "yesterday"`, "streams[1].values[1][0]", second},
		{"a fraction", acme, values(`[1.5,"x"]`), 400, "got 1.5", "streams[1].values[1][0]", second},
		{"before 1900", acme, values(`["1899-12-31","x"]`), 400, "outside of 1900-01-01 to 2262-04-11", "streams[1].values[1][0]", second},
		{"after 2262", acme, values(`["9223372036854775808","x"]`), 400, "outside of 1900-01-01 to 2262-04-11", "streams[1].values[1][0]", second},
		{"a line over the limit", acme, asJSON(long), 400, "line of 1001 bytes is longer than 1000 (--max-line-bytes)", "streams[0].values[1]", `{"app":"api"}`},
		{"a line over the limit of protobuf", append(acme, "Content-Type", protoType), asSnappy(long), 400, "line of 1001 bytes is longer than 1000", "streams[0].entries[1]", `{"app":"api"}`},

		{"a body over the limit", acme, append(bytes.Repeat([]byte(" "), 1<<20), good...), 413, "larger than 1048576 bytes", "", ""},
		{"a block over the limit", append(acme, "Content-Type", protoType), snappy.Encode(nil, make([]byte, 1<<20+1)), 413, "larger than 1048576 bytes", "", ""},
		{"a block cut short", append(acme, "Content-Type", protoType), block[:len(block)-1], 400, "not a valid snappy block", "", ""},
		{"protobuf without snappy", append(acme, "Content-Type", protoType), asProto(one("x")), 400, "snappy block", "", ""},
		{"protobuf cut short", append(acme, "Content-Type", protoType), snappy.Encode(nil, asProto(one("x"))[:20]), 400, "malformed protobuf", "streams[0]", ""},
		{"random protobuf", append(acme, "Content-Type", protoType), snappy.Encode(nil, []byte(noise(1, 1, 500).entries[0].line)), 400, "malformed protobuf", "", ""},
		{"JSON as protobuf", append(acme, "Content-Type", protoType), good, 400, "snappy block", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.post(t, "/loki/api/v1/push", bytes.NewReader(c.body), c.headers...)
			wantRefused(t, a, c.status, c.text)
			if a.Where != c.where || a.Stream != c.stream {
				t.Errorf("where %q, stream %q; not %q, %q", a.Where, a.Stream, c.where, c.stream)
			}
			if !strings.HasPrefix(a.Header.Get("Content-Type"), jsonType) {
				t.Error(a.Header)
			}
			if len(a.Error) > 400 {
				t.Errorf("an error of %d bytes", len(a.Error))
			}
		})
	}
	f.wantNothing(t)
	f.wantIdle(t)
}

// A record that NATS would not take is refused, never split.
func TestRecordOverMaxPayload(t *testing.T) {
	f := start(t, func(s *setup) { s.Limits.MaxPushBytes = 32 << 20; s.MaxInflightBytes = 1 << 30 })
	s := noise(2, 68, 250<<10) // 16.6 MiB
	a := f.post(t, "/api/push", bytes.NewReader(asSnappy(s)), "tenant-id", "t", "Content-Type", protoType)
	wantRefused(t, a, http.StatusRequestEntityTooLarge, "NATS takes at most 16777216")
	var size, limit int
	if _, err := fmt.Sscanf(a.Error, "the push makes a WAL record of %d bytes, NATS takes at most %d", &size, &limit); err != nil || size <= limit || size > 18<<20 {
		t.Errorf("%s: %v", a.Error, err)
	}
	f.wantNothing(t)
	s.entries = s.entries[:60]
	wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asSnappy(s)), "tenant-id", "t", "Content-Type", protoType))
	f.wantLanded(t, rowsOf("t", s))
	f.wantIdle(t)
}

func TestPathsAndMethods(t *testing.T) {
	f := start(t)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/api/push", 405},
		{http.MethodPut, "/loki/api/v1/push", 405},
		{http.MethodDelete, "/api/push", 405},
		{http.MethodPost, "/ready", 405},
		{http.MethodPost, "/metrics", 405},
		{http.MethodGet, "/nothing", 404},
		{http.MethodPost, "/api/push/", 404},
		{http.MethodPost, "/loki/api/v1/query", 404},
		{http.MethodGet, "/" + strings.Repeat("long", 1000), 404},
	} {
		a := f.do(t, c.method, c.path, strings.NewReader("{}"), "tenant-id", "t")
		wantRefused(t, a, c.status, c.method)
		if len(a.Error) > 200 {
			t.Error(a.Error)
		}
	}
	for _, path := range []string{"/api/health", "/ready", "/metrics"} {
		if a := f.do(t, http.MethodGet, path, nil); a.Status != http.StatusOK {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
	f.wantNothing(t)
}

// Clients that go away in the middle of a body leave nothing behind, in the WAL or in pooled buffers.
func TestDisconnectMidBody(t *testing.T) {
	f := start(t)
	address := strings.TrimPrefix(f.url, "http://")
	big := noise(3, 200, 1000)
	const head = "POST /api/push HTTP/1.1\r\nHost: x\r\ntenant-id: gone\r\nContent-Type: "
	cut := 0
	for _, encoding := range []string{"", "gzip", "deflate", "zstd", "snappy"} {
		for typ, body := range map[string][]byte{jsonType: asJSON(big), protoType: asSnappy(big)} {
			body = encode(t, encoding, body)
			for _, framing := range []string{
				fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)),
				fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", len(body)),
			} {
				text := head + typ + "\r\n"
				if encoding != "" {
					text += "Content-Encoding: " + encoding + "\r\n"
				}
				conn, err := net.Dial("tcp", address)
				must(t, err)
				_, err = conn.Write(append([]byte(text+framing), body[:len(body)/2]...))
				must(t, err)
				must(t, conn.Close())
				cut++

				s := one(fmt.Sprint("after ", cut))
				wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asJSON(s)), "tenant-id", "stays"))
				f.wantLanded(t, rowsOf("stays", s))
			}
		}
	}
	eventually(t, "all that went away are answered", func() bool {
		return f.metric(t, `logthra_gateway_pushes_total{code="400",protocol="loki-json"}`)+
			f.metric(t, `logthra_gateway_pushes_total{code="400",protocol="loki-protobuf"}`) == float64(cut)
	})
	for range 20 {
		wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asSnappy(big)), "tenant-id", "stays", "Content-Type", protoType, "Idempotency-Key", fmt.Sprint(rand.Uint64())))
		f.wantLanded(t, rowsOf("stays", big))
	}
	f.wantIdle(t)
}
