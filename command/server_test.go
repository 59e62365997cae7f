package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// exchange sends bytes over a connection of its own and returns the status lines of all answers, and whether the
// server has hung up within a time.
func exchange(t *testing.T, address, sent string, within time.Duration) (statuses []string, closed bool) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, sent); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(within))
	answers := bufio.NewReader(conn)
	for {
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			return statuses, !errors.Is(err, os.ErrDeadlineExceeded)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		statuses = append(statuses, fmt.Sprint(response.StatusCode))
	}
}

// A client that sends its request too slowly, or not at all, is cut off; and one request can't hide another.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var bodies []string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, r.URL.Path+" "+string(body))
	})
	server := httpServer(handler, slog.New(slog.DiscardHandler))
	if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.IdleTimeout == 0 || server.MaxHeaderBytes == 0 {
		t.Fatalf("a bound is missing: %+v", server)
	}
	server.ReadHeaderTimeout, server.ReadTimeout, server.IdleTimeout = time.Second, 2*time.Second, time.Second
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	const head = "POST /push HTTP/1.1\r\nHost: logthra\r\n"
	for _, c := range []struct {
		name, sent string
		statuses   string
		bodies     string // that the handler saw
	}{
		{"nothing", "", "", ""},
		{"half a header", head + "Content-Le", "400", ""},
		{"half a body", head + "Content-Length: 10\r\n\r\n12345", "400", ""},
		{"an endless chunk", head + "Transfer-Encoding: chunked\r\n\r\nff\r\n12345", "400", ""},
		{"idle", head + "Content-Length: 2\r\n\r\nok", "200", "/push ok"},
		{"two lengths", head + "Content-Length: 2\r\nContent-Length: 40\r\n\r\nokGET /hidden HTTP/1.1\r\nHost: logthra\r\n\r\n", "400", ""},
		{"two encodings", head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: logthra\r\n\r\n", "501", ""},
		{"an encoding that is none", head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501", ""},
		{"a length that is none", head + "Content-Length: +2\r\n\r\nok", "400", ""},
		{"a header with a space", head + "Content-Length : 2\r\n\r\nok", "400", ""},
		{"a large header", head + "X-Large: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "431", ""},
		// A length beside chunks is ignored (RFC 9112, section 6.3): what the chunks say is the body, and the rest of what came
		// is not taken for another request.
		{"chunks and a length", head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200", "/push ok"},
	} {
		statuses, closed := exchange(t, listener.Addr().String(), c.sent, 30*time.Second)
		mu.Lock()
		if strings.Join(statuses, " ") != c.statuses || !closed || strings.Join(bodies, ", ") != c.bodies {
			t.Errorf("%s: answered %q, hung up: %v, handled %q; want %q and %q", c.name, statuses, closed, bodies, c.statuses, c.bodies)
		}
		bodies = nil
		mu.Unlock()
	}
}
