package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// reply is an answer whose body is to be looked at.
type reply struct {
	Status int
	Header http.Header
	Body   string
}

func (f *fixture) send(t testing.TB, method, path, body string, headers ...string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, f.url+path, strings.NewReader(body))
	must(t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	return reply{response.StatusCode, response.Header, string(text)}
}

// Every protocol has a line arrive whole, and answers as its clients want to hear it.
func TestProtocols(t *testing.T) {
	const (
		at    = `"2025-10-09T08:53:20.123456789Z"`
		line  = `a "line" é`
		quote = `"a \"line\" é"`
	)
	for _, c := range []struct {
		name, path, body string
		headers          []string
		status           int
		answer           string // JSON; empty where there is no body
		labels, metadata string
	}{
		{
			"Loki's legacy JSON", "/api/prom/push", `{"streams":[{"labels":"{app=\"shop\"}","entries":[{"ts":` + at + `,"line":` + quote + `}]}]}`, nil,
			204, "", `{"app":"shop"}`, "",
		},
		{
			"OTLP as JSON", "/v1/logs", `{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
				"scopeLogs":[{"logRecords":[{"timeUnixNano":"1760000000123456789","severityNumber":17,"body":{"stringValue":` + quote + `},
				"attributes":[{"key":"user","value":{"kvlistValue":{"values":[{"key":"id","value":{"intValue":"7"}}]}}}]}]}]}]}`, []string{"Content-Type", "application/json"},
			200, `{}`, `{"level":"error","service_name":"shop"}`, "severity_number=17\nuser.id=7",
		},
		{
			"OTLP on Loki's path", "/otlp/v1/logs", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":1760000000123456789,"body":{"stringValue":` + quote + `}}]}]}]}`, []string{"Content-Type", "application/json; charset=utf-8"},
			200, `{}`, `{"service_name":"unknown_service"}`, "",
		},
		{
			"bulk", "/_bulk", `{"create":{"_index":"logs-app","_id":"1"}}` + "\n" + `{"@timestamp":` + at + `,"message":` + quote + `,"log":{"level":"warning"},"user":{"id":7}}` + "\n", nil,
			200, `{"took":0,"errors":false,"items":[{"create":{"_index":"logs-app","_id":"1","_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1,"status":201}}]}`,
			`{"index":"logs-app","level":"warn"}`, "log.level=warning\nuser.id=7",
		},
		{
			"bulk of an index, under /elasticsearch", "/elasticsearch/audit/_bulk", `{"index":{"_id":"1"}}` + "\n" + `{"@timestamp":` + at + `,"message":` + quote + `}`, nil,
			200, `{"took":0,"errors":false,"items":[{"index":{"_index":"audit","_id":"1","_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1,"status":201}}]}`,
			`{"index":"audit"}`, "",
		},
		{
			"HEC", "/services/collector/event", `{"time":1760000000.123456789,"host":"web-1","sourcetype":"access","event":` + quote + `,"fields":{"user":"7"}}`, nil,
			200, `{"text":"Success","code":0}`, `{"host":"web-1","sourcetype":"access"}`, "user=7",
		},
		{
			"HEC, raw", "/services/collector/raw?time=1760000000.123456789&source=file", line, nil,
			200, `{"text":"Success","code":0}`, `{"source":"file"}`, "",
		},
		{
			"JSON lines", "/ingest/jsonline?_stream_fields=app&_msg_field=text", `{"_time":` + at + `,"app":"shop","text":` + quote + `,"level":"info","n":1}`, nil,
			204, "", `{"app":"shop","level":"info"}`, "n=1",
		},
		{
			"JSON lines by headers", "/ingest/jsonline", `{"when":` + at + `,"app":"shop","text":` + quote + `}`,
			[]string{"VL-Stream-Fields", "app", "Logthra-Msg-Field", "text", "VL-Time-Field", "when"},
			204, "", `{"app":"shop"}`, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t)
			got := f.send(t, http.MethodPost, c.path, c.body, append(c.headers, "tenant-id", "acme")...)
			if got.Status != c.status {
				t.Fatalf("%d %s", got.Status, got.Body)
			}
			if c.answer == "" && got.Body != "" || c.answer != "" && !sameJSON(t, got.Body, c.answer) {
				t.Errorf("answered\n%s\nwant\n%s", got.Body, c.answer)
			}
			f.wantLanded(t, []row{{"acme", c.labels, someTime, line, c.metadata}})
			f.wantIdle(t)
			// The same again, compressed, is the same push.
			var packed bytes.Buffer
			w := gzip.NewWriter(&packed)
			_, _ = io.WriteString(w, c.body)
			must(t, w.Close())
			again := f.send(t, http.MethodPost, c.path, packed.String(), append(c.headers, "X-Scope-OrgID", "acme", "Content-Encoding", "gzip")...)
			if again.Status != c.status || len(f.landed(t)) != 0 {
				t.Errorf("a retry is answered with %d %s, or lands", again.Status, again.Body)
			}
		})
	}
}

// sameJSON compares JSON, but for how long something took.
func sameJSON(t testing.TB, got, want string) bool {
	t.Helper()
	read := func(text string) string {
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			t.Fatalf("%q is not JSON: %v", text, err)
		}
		if object, ok := value.(map[string]any); ok {
			delete(object, "took")
		}
		return fmt.Sprint(value)
	}
	return read(got) == read(want)
}

// What single records are refused for is told in each protocol's way, the rest is there, and they truly are not.
func TestPartialSuccess(t *testing.T) {
	f := start(t)
	long := strings.Repeat("x", 256<<10+1)
	record := func(body string) string {
		return `{"timeUnixNano":"1760000000123456789","body":{"stringValue":"` + body + `"}}`
	}
	got := f.send(t, http.MethodPost, "/v1/logs", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[`+record("one")+`,`+record(long)+`,`+record("three")+`]}]}]}`,
		"Content-Type", "application/json", "tenant-id", "acme")
	if got.Status != 200 || !strings.Contains(got.Body, `"rejectedLogRecords":"1"`) || !strings.Contains(got.Body, "logRecords[1]") {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	const labels = `{"service_name":"unknown_service"}`
	f.wantLanded(t, []row{{"acme", labels, someTime, "one", ""}, {"acme", labels, someTime, "three", ""}})

	got = f.send(t, http.MethodPost, "/logs/_bulk", `{"create":{}}
{"@timestamp":"2025-10-09T08:53:20.123456789Z","message":"one"}
{"create":{}}
{"@timestamp":"noon","message":"two"}
{"delete":{"_id":"3"}}
{"create":{}}
{"@timestamp":"2025-10-09T08:53:20.123456789Z","message":"four"}
`, "tenant-id", "acme")
	var bulk struct {
		Errors bool
		Items  []map[string]struct {
			Status int
			Error  struct{ Type, Reason string }
		}
	}
	must(t, json.Unmarshal([]byte(got.Body), &bulk))
	if got.Status != 200 || !bulk.Errors || len(bulk.Items) != 4 {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	if bulk.Items[0]["create"].Status != 201 || bulk.Items[1]["create"].Status != 400 || bulk.Items[2]["delete"].Status != 400 || bulk.Items[3]["create"].Status != 201 {
		t.Error(got.Body)
	}
	f.wantLanded(t, []row{{"acme", `{"index":"logs"}`, someTime, "one", ""}, {"acme", `{"index":"logs"}`, someTime, "four", ""}})
}

// What is refused as a whole is told in each protocol's way, and leaves nothing.
func TestProtocolsRefuse(t *testing.T) {
	f := start(t, func(s *setup) { s.Limits.MaxPushBytes = 1000 })
	large := strings.Repeat("x", 1001)
	var fields strings.Builder
	for i := range 1100 {
		fmt.Fprintf(&fields, "f%d,", i)
	}
	for _, c := range []struct {
		path, body string
		headers    []string
		status     int
		parts      []string
	}{
		{"/v1/logs", "{", []string{"Content-Type", "application/json"}, 400, []string{`"code":3`, "offset 1"}},
		{"/v1/logs", "\xff", nil, 400, []string{"malformed protobuf"}},
		{"/v1/logs", large, []string{"Content-Type", "application/json"}, 413, []string{`"code":8`, "--max-push-bytes"}},
		{"/_bulk", "{\"create\":{\"_index\":\"a\"}}\n", nil, 400, []string{`"status":400`, `"type":"illegal_argument_exception"`, "line 1"}},
		{"/_bulk", "what\n", nil, 400, []string{`"status":400`, "line 1"}},
		{"/_bulk", large, nil, 413, []string{`"status":413`, "content_too_long_exception"}},
		{"/services/collector", `{"event":"a"}{"event":""}`, nil, 400, []string{`"code":13`, `"invalid-event-number":1`}},
		{"/services/collector", `{"host":"a"}`, nil, 400, []string{`"code":12`}},
		{"/services/collector", "", nil, 400, []string{`"code":5`}},
		{"/services/collector/raw?time=noon", "a line", nil, 400, []string{`"code":6`, "noon"}},
		{"/services/collector/event", large, nil, 413, []string{`"code":6`}},
		{"/ingest/jsonline", "{\"msg\":\"a\"}\n{\"msg\"}", nil, 400, []string{`"where":"line 2: offset 6"`}},
		{"/ingest/jsonline?_stream_fields=" + fields.String(), "{}", nil, 400, []string{"_stream_fields"}},
		{"/ingest/jsonline", large, nil, 413, []string{"--max-push-bytes"}},
		{"/api/prom/push", `{"streams":[{"labels":"{","entries":[]}]}`, nil, 400, []string{`"where":"streams[0].labels"`}},
	} {
		got := f.send(t, http.MethodPost, c.path, c.body, append(c.headers, "tenant-id", "acme")...)
		if got.Status != c.status {
			t.Errorf("POST %.60s %.40q: %d %s, want %d", c.path, c.body, got.Status, got.Body, c.status)
		}
		for _, part := range c.parts {
			if !strings.Contains(got.Body, part) {
				t.Errorf("POST %.60s %.40q: %q lacks %q", c.path, c.body, got.Body, part)
			}
		}
		for _, headers := range [][]string{nil, {"tenant-id", "a.b"}, {"tenant-id", ""}, {"tenant-id", "a", "X-Scope-OrgID", "b"}, {"tenant-id", "a", "tenant-id", "b"}} {
			if got := f.send(t, http.MethodPost, c.path, c.body, append(headers, c.headers...)...); got.Status != 400 {
				t.Errorf("POST %.60s by %q: %d %s", c.path, headers, got.Status, got.Body)
			}
		}
	}
	f.wantNothing(t)
	f.wantIdle(t)
}

// What clients of Elasticsearch and of Splunk ask before they push.
func TestHandshakes(t *testing.T) {
	f := start(t)
	for path, part := range map[string]string{
		"/": `"number":"8.`, "/elasticsearch/": `"tagline":"You Know, for Search"`, "/_license": `"status":"active"`, "/_xpack": `"build"`,
		"/elasticsearch/_license": `"status":"active"`, "/_ilm/policy/logs": "{}", "/_index_template/logs": "index_templates",
		"/services/collector/health": `"code":17`, "/services/collector/health/1.0": `"code":17`,
	} {
		got := f.send(t, http.MethodGet, path, "")
		if got.Status != 200 || !strings.Contains(got.Body, part) {
			t.Errorf("GET %s: %d %s", path, got.Status, got.Body)
		}
		if strings.HasPrefix(path, "/_") && got.Header.Get("X-Elastic-Product") != "Elasticsearch" {
			t.Errorf("GET %s has the headers %v", path, got.Header)
		}
	}
	if got := f.send(t, http.MethodHead, "/", ""); got.Status != 200 || got.Body != "" {
		t.Errorf("HEAD /: %d", got.Status)
	}
	for _, path := range []string{"/nothing/here", "/_bulk/x/y", "/v1/traces"} {
		if got := f.send(t, http.MethodGet, path, ""); got.Status != 404 {
			t.Errorf("GET %s: %d %s", path, got.Status, got.Body)
		}
	}
}

// pack compresses with gzip, as often as times says.
func pack(t testing.TB, data []byte, times int) []byte {
	t.Helper()
	for range times {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(data)
		must(t, err)
		must(t, w.Close())
		data = out.Bytes()
	}
	return data
}

// What is wrong with a body, whatever it holds, is told by every endpoint, and leaves nothing: no record, no memory.
func TestBadBodies(t *testing.T) {
	f := start(t, func(s *setup) { s.Limits.MaxPushBytes = 1 << 20 })
	bomb := pack(t, bytes.Repeat([]byte(" "), 64<<20), 1)
	deep := bytes.Repeat([]byte("["), 1<<19)
	var labels bytes.Buffer
	labels.WriteString(`{"streams":[{"stream":{`)
	for i := range 50_000 {
		fmt.Fprintf(&labels, `"l%d":"v",`, i)
	}
	labels.WriteString(`"last":"v"},"values":[["1","x"]]}],"resourceLogs":[{"resource":{"attributes":[]}}]}`)
	for path, good := range endpoints {
		if path == "/services/collector/raw" {
			continue // where all bytes are a line
		}
		packed := pack(t, []byte(good), 1)
		for _, c := range []struct {
			name, encoding string
			body           []byte
			statuses       string // those that may be
		}{
			{"an encoding that is none", "br", []byte(good), "400"},
			{"not gzip", "gzip", []byte(good), "400"},
			{"half of gzip", "gzip", packed[:len(packed)/2], "400"},
			{"gzip of gzip", "gzip", pack(t, []byte(good), 2), "400"},
			{"a bomb", "gzip", bomb, "413"},
			{"a bomb in a bomb", "gzip", pack(t, bomb, 1), "400"},
			{"not zstd", "zstd", []byte(good), "400"},
			{"not deflate", "deflate", []byte(good), "400"},
			{"too large", "", bytes.Repeat([]byte("x"), 1<<20+1), "413"},
			{"deep", "", deep, "400"},
			{"bytes", "", []byte("\x00\xff\xfe\x80"), "400"},
			{"half", "", []byte(good)[:len(good)/2], "400"},
			{"many labels", "", labels.Bytes(), "400 204 200"}, // a document may have them, as metadata
		} {
			got := f.send(t, http.MethodPost, path, string(c.body), "tenant-id", "acme", "Content-Type", "application/json", "Content-Encoding", c.encoding)
			if !strings.Contains(c.statuses, fmt.Sprint(got.Status)) {
				t.Errorf("%s, %s: %d %.200s, want %s", path, c.name, got.Status, got.Body, c.statuses)
			}
			records := f.landed(t)
			if got.Status >= 400 && len(records) > 0 {
				t.Errorf("%s, %s: refused, but there are %d records", path, c.name, len(records))
			}
		}
	}
	f.wantIdle(t)
}

// Bodies of nothing but tiny entries, or of all that swells, stay within the memory ceiling.
func TestTinyEntries(t *testing.T) {
	const size = 1 << 20
	f := start(t, func(s *setup) {
		s.Limits.MaxPushBytes, s.MaxInflightBytes = size, 8*size
	})
	for path, unit := range map[string]string{
		"/ingest/jsonline":        "{}",
		"/services/collector":     `{"event":0}`,
		"/_bulk":                  "{\"create\":{\"_index\":\"a\"}}\n{}\n",
		"/v1/logs":                `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}` + strings.Repeat(",{}", size/3-100) + `]}]}]}`,
		"/services/collector/raw": "x\n",
	} {
		body := strings.Repeat(unit, max(1, size/len(unit)))
		got := f.send(t, http.MethodPost, path, body, "tenant-id", "acme", "Content-Type", "application/json")
		if got.Status != 503 || got.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %.200s", path, got.Status, got.Body)
		}
	}
	f.wantNothing(t)
	f.wantIdle(t)
}
