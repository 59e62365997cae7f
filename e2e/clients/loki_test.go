package clients

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/snappy"
)

type headers map[string]string

// post posts as curl does, and returns the answer.
func post(t *testing.T, path string, header headers, body []byte) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at(t, "http")+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// What Promtail, Alloy and Fluent Bit's plugin push: Loki's own types.
func TestLokiProtobuf(t *testing.T) {
	first := time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC)
	message, err := (&push.PushRequest{Streams: []push.Stream{
		{Labels: `{app="shop", level="info"}`, Entries: []push.Entry{
			{Timestamp: first, Line: "order 4711 paid", StructuredMetadata: push.LabelsAdapter{{Name: "trace_id", Value: "0af7651916cd43dd"}, {Name: "user", Value: "ü \""}}},
			{Timestamp: first.Add(time.Nanosecond), Line: "raw \xff\x00 bytes\n"},
		}},
		{Labels: `{app="till", quote="a\"b"}`, Entries: []push.Entry{{Timestamp: first.Add(time.Hour), Line: ""}}},
	}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	body := snappy.Encode(nil, message)
	for name, path := range map[string]string{"loki-push": "/loki/api/v1/push", "loki-legacy": "/api/prom/push"} {
		t.Run(strings.TrimPrefix(path, "/"), func(t *testing.T) {
			status, answer := post(t, path, headers{"Content-Type": "application/x-protobuf", "X-Scope-OrgID": name}, body)
			if status != http.StatusNoContent {
				t.Fatalf("%d %s", status, answer)
			}
			wantRows(t, name, time.Now(),
				row{first, map[string]string{"app": "shop", "level": "info"}, "order 4711 paid", map[string]string{"trace_id": "0af7651916cd43dd", "user": "ü \""}},
				row{first.Add(time.Nanosecond), map[string]string{"app": "shop", "level": "info"}, "raw \xff\x00 bytes\n", nil},
				row{first.Add(time.Hour), map[string]string{"app": "till", "quote": `a"b`}, "", nil},
			)
		})
	}
}
