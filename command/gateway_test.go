package command

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// askGateway is a query of a gateway, with headers given in turn as name and value.
func askGateway(t *testing.T, address, path, query string, headers ...string) (status int, answer string, header http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path+"query="+url.QueryEscape(query), nil)
	must(t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, string(text), response.Header
}

// Gateways answer queries where they know a ClickHouse, each tenant its own, and say what is missing where they can't.
func TestGatewayQueries(t *testing.T) {
	t.Parallel()
	role := func(args ...string) (*logthra, map[string]string) {
		t.Helper()
		l := begin(t, nil, append(args, "--log-format", "json")...)
		return l, l.ready()
	}
	dir := t.TempDir()
	_, nats := role("nats", "--data-dir", dir, "--nats-listen", "127.0.0.1:0")
	rows, clickhouse := role("clickhouse", "--data-dir", dir, "--clickhouse-listen", "127.0.0.1:0", "--clickhouse-http-listen", "127.0.0.1:0")
	_, ingester := role("ingester", "--nats-url", nats["nats_url"], "--clickhouse-dsn", clickhouse["clickhouse_dsn"],
		"--ingester-listen", "127.0.0.1:0", "--ingester-http-listen", "127.0.0.1:0", "--flush-interval", "1h")
	gateway := []string{"gateway", "--nats-url", nats["nats_url"], "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"}
	tenants := filepath.Join(dir, "tenants.yaml")
	writeFile(t, tenants, tenantsFile("secret-one", "secret-two")+"defaults: {limits: {query_max_entries: 2}}\n")

	_, pushing := role(gateway...)
	guarded, at := role(append(gateway, "--clickhouse-dsn", clickhouse["clickhouse_dsn"], "--tenants-file", tenants)...)
	if at["clickhouse"] != clickhouse["clickhouse"] {
		t.Errorf("it reaches ClickHouse at %q", at["clickhouse"])
	}
	for tenant, line := range map[string]string{"acme": "of acme", "globex": "of globex"} {
		if code, _, stderr := run(t, line+"\n", "push", "--url", "http://"+pushing["http"], "--tenant", tenant, "--label", "app=a"); code != 0 {
			t.Fatal(stderr)
		}
	}

	const entries, selector = "/loki/api/v1/query_range?", `{app="a"}`
	status, answer, _ := askGateway(t, pushing["http"], entries, selector, "tenant-id", "acme")
	if status != http.StatusNotImplemented || !strings.Contains(answer, "--clickhouse-dsn") {
		t.Errorf("without a ClickHouse: %d %s", status, answer)
	}
	for _, flushed := range []bool{false, true} {
		if flushed {
			flush(t, ingester["ingester"])
		}
		for token, want := range map[string]string{"secret-one": "of acme", "secret-two": "of globex"} {
			status, answer, _ := askGateway(t, at["http"], entries, selector, "Authorization", "Bearer "+token)
			if status != http.StatusOK || strings.Count(answer, `"of `) != 1 || !strings.Contains(answer, want) || strings.Contains(answer, "warnings") {
				t.Errorf("flushed %t, %s: %d %s", flushed, token, status, answer)
			}
		}
	}
	for _, c := range []struct {
		status  int
		path    string
		headers []string
		want    string
	}{
		{401, entries, nil, "no credential"},
		{401, entries, []string{"Authorization", "Bearer wrong"}, "not one of this gateway's tenants"},
		{403, entries, []string{"Authorization", "Bearer secret-one", "X-Scope-OrgID", "globex"}, "does not allow"},
		{400, entries, []string{"Authorization", "Bearer secret-one", "X-Scope-OrgID", "acme|globex"}, "several tenants"},
		{400, entries + "limit=3&", []string{"Authorization", "Bearer secret-one"}, "limit > max_entries_limit_per_query (3 > 2)"},
		{401, "/loki/api/v1/tail?", nil, "no credential"},
	} {
		status, answer, header := askGateway(t, at["http"], c.path, selector, c.headers...)
		if status != c.status || !strings.Contains(answer, c.want) || strings.Contains(answer, "secret-") || (header.Get("WWW-Authenticate") != "") != (status == 401) {
			t.Errorf("%v: %d %s, want %d %q", c.headers, status, answer, c.status, c.want)
		}
	}

	// A tail ends with the gateway, which does not wait for it.
	tail, _, err := websocket.Dial(t.Context(), "http://"+at["http"]+"/loki/api/v1/tail?query="+url.QueryEscape(selector), &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer secret-one"}},
	})
	must(t, err)
	defer tail.CloseNow()
	if _, message, err := tail.Read(t.Context()); err != nil || !strings.Contains(string(message), "of acme") {
		t.Fatalf("the tail says %s, %v", message, err)
	}

	// ClickHouse goes, and comes back.
	rows.stop()
	status, answer, header := askGateway(t, at["http"], entries, selector, "Authorization", "Bearer secret-one")
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(answer, "ClickHouse") {
		t.Errorf("without ClickHouse: %d %s", status, answer)
	}
	role("clickhouse", "--data-dir", dir, "--clickhouse-listen", clickhouse["clickhouse"], "--clickhouse-http-listen", "127.0.0.1:0")
	guarded.eventually("queries are answered again", func() bool {
		status, _, _ := askGateway(t, at["http"], entries, selector, "Authorization", "Bearer secret-one")
		return status == http.StatusOK
	})

	began := time.Now()
	ended := make(chan error, 1)
	go func() {
		_, message, err := tail.Read(t.Context())
		if err == nil {
			err = fmt.Errorf("it says %s", message)
		}
		ended <- err
	}()
	guarded.stop()
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the tail ends by %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the gateway ended after %s", took)
	}
}
