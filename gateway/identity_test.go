package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casteloig/logthra/gateway/tenant"
)

// directory is a file of tenants, each with a token that is its name and limits.
func directory(t testing.TB, limits map[string]string) func() *tenant.Directory {
	t.Helper()
	text := "tenants:\n"
	for name, limits := range limits {
		sum := sha256.Sum256([]byte(name + "-token"))
		text += fmt.Sprintf("  %s: {tokens: [\"sha256:%s\"], allow: [%s-dev], limits: {%s}}\n", name, hex.EncodeToString(sum[:]), name, limits)
	}
	d, err := tenant.Parse([]byte(text), "tenants.yaml")
	must(t, err)
	return func() *tenant.Directory { return d }
}

// withTenants makes a gateway know tenants.
func withTenants(t testing.TB, limits map[string]string) func(*setup) {
	return func(s *setup) { s.Tenants = directory(t, limits) }
}

// endpoints are all ways to push over HTTP, each with a push that is good.
var endpoints = map[string]string{
	"/api/push":                     `{"streams":[{"stream":{"app":"a"},"values":[["","x"]]}]}`,
	"/loki/api/v1/push":             `{"streams":[{"stream":{"app":"a"},"values":[["","x"]]}]}`,
	"/api/prom/push":                `{"streams":[{"labels":"{app=\"a\"}","entries":[{"ts":"","line":"x"}]}]}`,
	"/v1/logs":                      `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}`,
	"/otlp/v1/logs":                 `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}`,
	"/_bulk":                        "{\"create\":{\"_index\":\"a\"}}\n{\"msg\":\"x\"}\n",
	"/a/_bulk":                      "{\"create\":{}}\n{\"msg\":\"x\"}\n",
	"/elasticsearch/_bulk":          "{\"create\":{\"_index\":\"a\"}}\n{\"msg\":\"x\"}\n",
	"/services/collector":           `{"event":"x"}`,
	"/services/collector/event/1.0": `{"event":"x"}`,
	"/services/collector/raw":       "x",
	"/ingest/jsonline":              `{"msg":"x"}`,
}

// A credential decides whose push it is, whatever a header says, in every protocol, and what is refused leaves nothing.
func TestIsolation(t *testing.T) {
	f := start(t, withTenants(t, map[string]string{"acme": "", "globex": ""}))
	for path, body := range endpoints {
		for _, c := range []struct {
			name    string
			headers []string
			status  int
			tenant  string
		}{
			{"token", []string{"Authorization", "Bearer acme-token"}, 200, "acme"},
			{"token and header", []string{"Authorization", "Bearer acme-token", "tenant-id", "acme", "X-Scope-OrgID", "acme"}, 200, "acme"},
			{"an allowed tenant", []string{"Authorization", "Splunk acme-token", "X-Scope-OrgID", "acme-dev"}, 200, "acme-dev"},
			{"no credential", []string{"tenant-id", "acme"}, 401, ""},
			{"wrong credential", []string{"Authorization", "Bearer acme", "tenant-id", "acme"}, 401, ""},
			{"another's tenant", []string{"Authorization", "Bearer acme-token", "tenant-id", "globex"}, 403, ""},
			{"another's allowed tenant", []string{"Authorization", "Bearer acme-token", "tenant-id", "globex-dev"}, 403, ""},
			{"two tenants", []string{"Authorization", "Bearer acme-token", "tenant-id", "acme", "X-Scope-OrgID", "globex"}, 400, ""},
			{"two tenants in a header", []string{"Authorization", "Bearer acme-token", "tenant-id", "acme", "tenant-id", "globex"}, 400, ""},
			{"two credentials", []string{"Authorization", "Bearer acme-token", "Authorization", "Bearer globex-token"}, 401, ""},
			{"a list", []string{"Authorization", "Bearer acme-token", "tenant-id", "acme,globex"}, 400, ""},
			{"unicode", []string{"Authorization", "Bearer acme-token", "tenant-id", "аcme"}, 400, ""},
			{"percent-encoded", []string{"Authorization", "Bearer acme-token", "tenant-id", "%61cme"}, 400, ""},
			{"a subject", []string{"Authorization", "Bearer acme-token", "tenant-id", "acme.0"}, 400, ""},
			{"a wildcard", []string{"Authorization", "Bearer acme-token", "tenant-id", "*"}, 400, ""},
		} {
			headers := append([]string{"Content-Type", "application/json"}, c.headers...)
			got := f.send(t, http.MethodPost, path, body, headers...)
			want := c.status
			if strings.HasPrefix(path, "/services/") && want == 401 && c.name != "no credential" {
				want = 403 // as Splunk says it
			}
			if got.Status/100*100 != want && got.Status != want {
				t.Errorf("%s: %s is answered with %d %s, want %d", path, c.name, got.Status, got.Body, want)
			}
			if strings.Contains(got.Body, "acme-token") {
				t.Errorf("%s: %s: the answer tells the credential: %s", path, c.name, got.Body)
			}
			records := f.landed(t)
			if c.tenant == "" && len(records) != 0 || c.tenant != "" && (len(records) != 1 || len(records[0]) != 1 || records[0][0].Tenant != c.tenant) {
				t.Errorf("%s: %s leaves %+v", path, c.name, records)
			}
		}
	}

	for headers, want := range map[[4]string]codes.Code{
		{"authorization", "Bearer acme-token", "tenant-id", "acme"}:   codes.OK,
		{"authorization", "Bearer acme-token", "tenant-id", "globex"}: codes.PermissionDenied,
		{"authorization", "Bearer nobody", "tenant-id", "acme"}:       codes.Unauthenticated,
		{"other", "", "tenant-id", "acme"}:                            codes.Unauthenticated,
	} {
		_, err := f.push(t, asRequest(one("x")), headers[:]...)
		if status.Code(err) != want {
			t.Errorf("gRPC with %q: %v, want %v", headers, err, want)
		}
	}
	f.wantIdle(t)
}

func TestDefaultTenant(t *testing.T) {
	f := start(t, func(s *setup) { s.DefaultTenant = "everyone" })
	for path, body := range endpoints {
		f.send(t, http.MethodPost, path, body, "Content-Type", "application/json")
		if records := f.landed(t); len(records) != 1 || records[0][0].Tenant != "everyone" {
			t.Errorf("%s leaves %+v", path, records)
		}
	}
}

// The limits hold in every protocol, with 429 and a Retry-After that is true, and the tenants do not share them.
func TestRateLimit(t *testing.T) {
	f := start(t, withTenants(t, map[string]string{"acme": "pushes_per_second: 0.01, pushes_burst: 1", "globex": "push_bytes_per_second: 10"}))
	acme := []string{"Authorization", "Bearer acme-token", "Content-Type", "application/json"}
	first := true
	for path, body := range endpoints {
		got := f.send(t, http.MethodPost, path, body, acme...)
		if first && got.Status >= 300 {
			t.Fatalf("%s: %d %s", path, got.Status, got.Body)
		}
		after, _ := strconv.Atoi(got.Header.Get("Retry-After"))
		if !first && (got.Status != 429 || after < 1 || after > 100) {
			t.Errorf("%s: %d %s, Retry-After %d", path, got.Status, got.Body, after)
		}
		first = false
	}
	_, err := f.push(t, asRequest(one("x")), "authorization", "Bearer acme-token")
	var retry *errdetails.RetryInfo
	for _, detail := range status.Convert(err).Details() {
		retry, _ = detail.(*errdetails.RetryInfo)
	}
	if status.Code(err) != codes.ResourceExhausted || retry.GetRetryDelay().AsDuration() <= 0 || retry.GetRetryDelay().AsDuration() > 100*time.Second {
		t.Errorf("gRPC: %v, %v", err, retry)
	}
	if len(f.landed(t)) != 1 {
		t.Error("more than one push landed")
	}
	// Bytes are paid for after the push: 1,000 of them take 100 seconds.
	globex := []string{"Authorization", "Bearer globex-token"}
	large := fmt.Sprintf(`{"streams":[{"stream":{"app":"a"},"values":[["",%q]]}]}`, strings.Repeat("x", 1000))
	wantTaken(t, f.post(t, "/api/push", strings.NewReader(large), globex...))
	a := f.post(t, "/api/push", strings.NewReader(large), globex...)
	wantRefused(t, a, 429, "globex", "push_bytes_per_second")
	if after, _ := strconv.Atoi(a.Header.Get("Retry-After")); after < 30 || after > 110 {
		t.Errorf("Retry-After %d", after)
	}
	f.wantIdle(t)
}

func TestContentLimits(t *testing.T) {
	f := start(t, withTenants(t, map[string]string{"acme": "max_line_bytes: 5, max_age: 1h, max_streams: 2"}))
	headers := []string{"Authorization", "Bearer acme-token", "Content-Type", "application/json"}
	push := func(app, line string, at time.Time) answer {
		return f.post(t, "/api/push", bytes.NewReader(asJSON(stream{map[string]string{"app": app}, []entry{{at.UnixNano(), line, nil}}})), headers...)
	}
	now := time.Now()
	wantTaken(t, push("a", "short", now))
	wantRefused(t, push("a", "longer", now), 400, "entry 0", "line of 6 bytes is longer than 5 (max_line_bytes)")
	wantRefused(t, push("a", "old", now.Add(-2*time.Hour)), 400, "max_age", "1h0m0s")
	wantTaken(t, push("b", "x", now))
	wantRefused(t, push("c", "x", now), 429, "max_streams")
	if records := f.landed(t); len(records) != 2 {
		t.Errorf("%d records", len(records))
	}

	// Where a protocol can say so, only the records that pass a limit are left out.
	nano := strconv.FormatInt(now.UnixNano(), 10)
	record := func(body, at string) string {
		return `{"timeUnixNano":"` + at + `","body":{"stringValue":"` + body + `"}}`
	}
	otlp := func(service string, records ...string) string {
		return `{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"` + service + `"}}]},"scopeLogs":[{"logRecords":[` + strings.Join(records, ",") + `]}]}`
	}
	f = start(t, withTenants(t, map[string]string{"acme": "max_line_bytes: 5, max_age: 1h, max_streams: 1"}))
	got := f.send(t, http.MethodPost, "/v1/logs", `{"resourceLogs":[`+otlp("a", record("one", nano), record("longer", nano), record("old", "1000"))+`,`+otlp("b", record("x", nano))+`]}`, headers...)
	if got.Status != 200 || !strings.Contains(got.Body, `"rejectedLogRecords":"3"`) || !strings.Contains(got.Body, "max_line_bytes") {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	f.wantLanded(t, []row{{"acme", `{"service_name":"a"}`, now.UnixNano(), "one", ""}})

	f = start(t, withTenants(t, map[string]string{"acme": "max_line_bytes: 5, max_streams: 1"}))
	got = f.send(t, http.MethodPost, "/_bulk", strings.Join([]string{
		`{"create":{"_index":"a"}}`, `{"@timestamp":` + nano + `,"msg":"one"}`,
		`{"create":{"_index":"a"}}`, `{"@timestamp":"noon","msg":"bad"}`,
		`{"create":{"_index":"a"}}`, `{"@timestamp":` + nano + `,"msg":"longer"}`,
		`{"create":{"_index":"b"}}`, `{"@timestamp":` + nano + `,"msg":"x"}`,
		`{"create":{"_index":"a"}}`, `{"@timestamp":` + nano + `,"msg":"two"}`, "",
	}, "\n"), headers...)
	var statuses []string
	for part := range strings.SplitSeq(got.Body, `"status":`) {
		statuses = append(statuses, part[:3])
	}
	if strings.Join(statuses[1:], " ") != "201 400 400 429 201" {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	f.wantLanded(t, []row{{"acme", `{"index":"a"}`, now.UnixNano(), "one", ""}, {"acme", `{"index":"a"}`, now.UnixNano(), "two", ""}})
}
