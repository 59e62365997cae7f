package query

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/shared/logs"
)

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"":                   `""`,
		"plain":              `"plain"`,
		`a"b\c`:              `"a\"b\\c"`,
		"\x00\x1f\n\r\t\x7f": "\"\\u0000\\u001f\\n\\r\\t\x7f\"",
		"äöü €😀":             `"äöü €😀"`,
		"<a href='x'>&":      `"<a href='x'>&"`,
		"a\xffb\xc3":         "\"a\ufffdb\ufffd\"",
		"\xed\xa0\x80":       "\"\ufffd\ufffd\ufffd\"", // half of a pair is no UTF-8
		"\ufffd":             "\"\ufffd\"",
	} {
		if got := string(appendText(nil, text)); got != want {
			t.Errorf("%q is written as %s, want %s", text, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\"b\\c\x00\xff€")
	f.Fuzz(func(t *testing.T, text string) {
		var got string
		if err := json.Unmarshal(appendText(nil, text), &got); err != nil {
			t.Fatal(err)
		}
		if want := string([]rune(text)); got != want {
			t.Errorf("%q is read back as %q", text, got)
		}
	})
}

func TestTakesGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "deflate, gzip;q=1.0, *;q=0.5": true, "GZIP": true, "gzip;q=0.001": true, "gzip; q=0": false, "gzip;q=0.0": false, "br": false, "x-gzip": false,
	} {
		if got := takesGzip(http.Header{"Accept-Encoding": {header}}); got != want {
			t.Errorf("%q: %t", header, got)
		}
	}
}

// written is what a client gets of what write writes.
func written(t *testing.T, accept string, write func(w *writer)) (*httptest.ResponseRecorder, string) {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Accept-Encoding", accept)
	recorder := httptest.NewRecorder()
	a := new(API)
	a.writers.New = func() any { return new(writer) }
	for range 2 { // also one that was used before
		recorder = httptest.NewRecorder()
		w := a.writer(echo.New().NewContext(request, recorder))
		write(w)
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		a.release(w)
	}
	body := io.Reader(recorder.Body)
	if recorder.Header().Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			t.Fatal(err)
		}
		body = unpacked
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return recorder, string(text)
}

func TestCompression(t *testing.T) {
	long := strings.Repeat("a line of a log, ", 100_000)
	for _, c := range []struct {
		name, accept, text, encoding string
	}{
		{"short", "gzip", "short", ""},
		{"long", "gzip", long, "gzip"},
		{"longer than a flush", "identity", long, ""},
		{"empty", "gzip", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			response, got := written(t, c.accept, func(w *writer) {
				for part := range strings.SplitAfterSeq(c.text, ",") {
					w.raw(part)
				}
			})
			if got != c.text {
				t.Errorf("%d bytes came of %d", len(got), len(c.text))
			}
			header := response.Header()
			if header.Get("Content-Encoding") != c.encoding || header.Get("Content-Type") != "application/json; charset=UTF-8" {
				t.Errorf("the header is %v", header)
			}
		})
	}
}

// entriesOf are so many entries of some streams.
func entriesOf(n, size int) []engine.Entry {
	entries := make([]engine.Entry, n)
	line := strings.Repeat("x", size)
	for i := range entries {
		entries[i] = engine.Entry{
			Timestamp: int64(1_700_000_000_000_000_000 + i), Line: line,
			Stream:   []logs.Label{{Name: "app", Value: fmt.Sprint("app-", i%10)}, {Name: "env", Value: "prod"}},
			Metadata: []logs.Label{{Name: "trace", Value: "0123456789abcdef"}},
		}
	}
	return entries
}

func BenchmarkStreams(b *testing.B) {
	entries := entriesOf(5000, 150)
	for _, categorized := range []bool{false, true} {
		b.Run(fmt.Sprintf("categorized=%t", categorized), func(b *testing.B) {
			w := writer{response: echo.NewResponse(discard{}, nil)}
			b.ReportAllocs()
			b.SetBytes(5000 * 150)
			for b.Loop() {
				w.streams(streamsOf(entries, categorized), categorized)
			}
		})
	}
}

// discard is a client that reads nothing.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// An answer is sent while it is made: how large it is does not count.
func TestBounded(t *testing.T) {
	var most int
	_, text := written(t, "", func(w *writer) {
		w.streams(streamsOf(entriesOf(2000, 1000), false), false)
		most = cap(w.buf)
	})
	if most > 4*flushBytes || len(text) < 2000*1000 {
		t.Errorf("%d bytes were gathered of %d", most, len(text))
	}
	if !json.Valid([]byte(text)) {
		t.Error("it is no JSON")
	}
	if n := bytes.Count([]byte(text), []byte(`{"stream":`)); n != 10 {
		t.Errorf("there are %d streams", n)
	}
}
