package command

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/certs/certstest"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

// tenantsFile is a file of two tenants, with a token and the name of a client certificate each.
func tenantsFile(acme, globex string) string {
	text := "tenants:\n"
	for _, tenant := range []struct{ name, token string }{{"acme", acme}, {"globex", globex}} {
		sum := sha256.Sum256([]byte(tenant.token))
		text += fmt.Sprintf("  %s: {tokens: [\"sha256:%s\"], certificates: [\"CN=%s-shipper\"]}\n", tenant.name, hex.EncodeToString(sum[:]), tenant.name)
	}
	return text
}

// A gateway with TLS and tenants: tokens and client certificates over HTTP, gRPC and syslog; certificates and tenants that
// change while it runs; and nothing secret in what it says of itself.
func TestGuardedGateway(t *testing.T) {
	t.Parallel()
	server := enginetest.NATS(t)
	authority, dir := certstest.New(t), t.TempDir()
	cert, key, ca := authority.Write(t, dir, "gateway")
	tenants := filepath.Join(dir, "tenants.yaml")
	writeFile(t, tenants, tenantsFile("secret-one", "secret-two"))
	l := begin(t, nil, "gateway", "--nats-url", server.URL(), "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "debug",
		"--tenants-file", tenants, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-client-ca-file", ca, "--tls-client-auth", "optional",
		"--syslog-listen", "tls://127.0.0.1:0")
	at := l.ready()
	url := "https://" + at["http"]

	conn, err := nats.Connect(server.URL())
	must(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	must(t, err)
	// pushes is how many of a tenant are in the WAL.
	pushes := func(tenant string) (n uint64) {
		t.Helper()
		streams := js.ListStreams(t.Context())
		for info := range streams.Info() {
			stream, err := js.Stream(t.Context(), info.Config.Name)
			must(t, err)
			info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("logs."+tenant+".>"))
			must(t, err)
			for _, count := range info.State.Subjects {
				n += count
			}
		}
		must(t, streams.Err())
		return n
	}
	// post pushes a line and returns the status.
	post := func(config *tls.Config, headers ...string) (status int, answer string) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 30 * time.Second}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/push", strings.NewReader(`{"streams":[{"stream":{"app":"a"},"values":[["","x"]]}]}`))
		must(t, err)
		for i := 0; i < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		response, err := client.Do(request)
		must(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		must(t, err)
		return response.StatusCode, string(text)
	}
	want := func(want int, config *tls.Config, headers ...string) {
		t.Helper()
		if got, answer := post(config, headers...); got != want || strings.Contains(answer, "secret-") {
			t.Errorf("%q is answered with %d %s, want %d", headers, got, answer, want)
		}
	}
	nobody, shipper, stranger := authority.Client(t, ""), authority.Client(t, "acme-shipper"), authority.Client(t, "a-laptop")
	want(204, nobody, "Authorization", "Bearer secret-one")
	want(204, shipper)
	want(204, shipper, "Authorization", "Bearer secret-one", "tenant-id", "acme")
	want(401, nobody)
	want(401, stranger)
	want(401, nobody, "Authorization", "Bearer secret-three")
	want(403, nobody, "Authorization", "Bearer secret-one", "tenant-id", "globex")
	want(403, shipper, "Authorization", "Bearer secret-two")
	if n := pushes("acme"); n != 3 {
		t.Errorf("%d pushes of acme", n)
	}

	// gRPC.
	call := func(config *tls.Config, headers ...string) error {
		t.Helper()
		conn, err := grpc.NewClient(at["grpc"], grpc.WithTransportCredentials(credentials.NewTLS(config)))
		must(t, err)
		defer conn.Close()
		_, err = logthrav1.NewPushServiceClient(conn).Push(metadata.AppendToOutgoingContext(t.Context(), headers...), &logthrav1.PushRequest{
			Streams: []*logthrav1.Stream{{Labels: map[string]string{"app": "a"}, Entries: []*logthrav1.Entry{{Line: []byte("x")}}}},
		})
		return err
	}
	for _, c := range []struct {
		config  *tls.Config
		headers []string
		want    codes.Code
	}{
		{shipper, nil, codes.OK},
		{nobody, []string{"authorization", "Bearer secret-one"}, codes.OK},
		{nobody, nil, codes.Unauthenticated},
		{stranger, []string{"tenant-id", "acme"}, codes.Unauthenticated},
		{shipper, []string{"tenant-id", "globex"}, codes.PermissionDenied},
	} {
		if err := call(c.config, c.headers...); status.Code(err) != c.want {
			t.Errorf("gRPC with %q: %v, want %v", c.headers, err, c.want)
		}
	}
	if n := pushes("acme"); n != 5 {
		t.Errorf("%d pushes of acme", n)
	}

	// syslog: the certificate says whose it is.
	dialer := tls.Dialer{Config: authority.Client(t, "globex-shipper")}
	sender, err := dialer.DialContext(t.Context(), "tcp", at["syslog_tls"])
	must(t, err)
	_, err = io.WriteString(sender, "<13>1 2026-01-02T03:04:05.678Z web-1 shop 42 - - order paid\n")
	must(t, err)
	must(t, sender.Close())
	l.eventually("a message of globex is there", func() bool { return pushes("globex") == 1 })

	// The tools.
	file := filepath.Join(dir, "lines")
	writeFile(t, file, "one\ntwo\n")
	if code, _, stderr := run(t, "", "push", "--url", url, "--ca-file", ca, "--token", "secret-one", file); code != 0 {
		t.Errorf("push: %d %s", code, stderr)
	}
	if code, _, stderr := run(t, "", "push", "--url", url, "--ca-file", ca, "--token", "secret-one", "--tenant", "globex", file); code != exitFailure || !strings.Contains(stderr, "403") {
		t.Errorf("push: %d %s", code, stderr)
	}
	if code, _, stderr := run(t, "", "push", "--url", url, "--token", "secret-one", "--give-up", "0s", file); code != exitFailure || !strings.Contains(stderr, "certificate") {
		t.Errorf("push: %d %s", code, stderr)
	}
	if code, _, stderr := run(t, "", "ready", "--url", url, "--ca-file", ca); code != 0 {
		t.Errorf("ready: %d %s", code, stderr)
	}

	// A bad file changes nothing, a good one does, and so do new certificates.
	writeFile(t, tenants, "tenants: {acme: {token: [secret-four]}}")
	l.eventually("the bad file is told of", func() bool {
		return strings.Contains(l.stderr.String(), "tenants of before stay") || strings.Contains(l.stderr.String(), "not good")
	})
	want(204, nobody, "Authorization", "Bearer secret-one")
	writeFile(t, tenants, tenantsFile("secret-five", "secret-two"))
	l.eventually("the new token counts", func() bool {
		status, _ := post(nobody, "Authorization", "Bearer secret-five")
		return status == 204
	})
	want(401, nobody, "Authorization", "Bearer secret-one")
	authority.Write(t, dir, "gateway-renewed")
	l.eventually("the new certificate is served", func() bool {
		dialer := tls.Dialer{Config: nobody}
		conn, err := dialer.DialContext(t.Context(), "tcp", at["http"])
		must(t, err)
		defer conn.Close()
		secure, _ := conn.(*tls.Conn)
		return secure.ConnectionState().PeerCertificates[0].Subject.CommonName == "gateway-renewed"
	})

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: nobody}, Timeout: 30 * time.Second}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	must(t, err)
	response, err := client.Do(request)
	must(t, err)
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	must(t, err)
	for _, name := range []string{"logthra_tls_certificate_expiry_timestamp_seconds", "logthra_gateway_tenants_file_reloads_total"} {
		if !strings.Contains(string(metrics), name) {
			t.Errorf("there is no metric %s", name)
		}
	}
	for what, text := range map[string]string{"the metrics": string(metrics), "the log": l.stderr.String()} {
		if strings.Contains(text, "secret-") || strings.Contains(text, "PRIVATE") {
			t.Errorf("%s tell a secret:\n%s", what, text)
		}
	}
	l.stop()
}

func TestGuardedUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	server := enginetest.NATS(t)
	for name, c := range map[string]struct {
		args string
		code int
		want []string
	}{
		"certificate without a key":       {"--tls-cert-file x", exitUsage, []string{"--tls-key-file"}},
		"authority without certificate":   {"--tls-client-ca-file x", exitUsage, []string{"--tls-cert-file"}},
		"client auth":                     {"--tls-client-auth maybe", exitUsage, []string{"--tls-client-auth", "require", "optional"}},
		"no such certificate":             {"--tls-cert-file " + dir + "/none --tls-key-file " + empty, exitFailure, []string{dir + "/none"}},
		"empty certificate":               {"--tls-cert-file " + empty + " --tls-key-file " + empty, exitFailure, []string{empty, "PEM"}},
		"no tenants file":                 {"--tenants-file " + dir + "/none", exitFailure, []string{"--tenants-file", dir + "/none"}},
		"empty tenants file":              {"--tenants-file " + empty, exitFailure, []string{"--tenants-file", empty, "empty"}},
		"default tenant":                  {"--default-tenant a.b", exitUsage, []string{"--default-tenant", `"a.b"`}},
		"default tenant and file":         {"--default-tenant a --tenants-file x", exitUsage, []string{"--default-tenant", "--tenants-file"}},
		"syslog, scheme":                  {"--syslog-listen 127.0.0.1:514", exitUsage, []string{"--syslog-listen", "tcp://host:port"}},
		"syslog, parameter":               {"--syslog-listen tcp://127.0.0.1:514?tennant=a", exitUsage, []string{"--syslog-listen", "parameter"}},
		"syslog, tenant's name":           {"--syslog-listen tcp://127.0.0.1:514?tenant=a.b", exitUsage, []string{"--syslog-listen", `"a.b"`}},
		"syslog, no tenant":               {"--syslog-listen tcp://127.0.0.1:0", exitFailure, []string{"--syslog-listen", "?tenant=NAME", "--default-tenant"}},
		"syslog, TLS without certificate": {"--syslog-listen tls://127.0.0.1:0?tenant=a", exitFailure, []string{"--syslog-listen", "--tls-cert-file"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"gateway", "--nats-url", server.URL(), "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--log-level", "error"}, strings.Fields(c.args)...)
			code, _, stderr := run(t, "", args...)
			wantFailure(t, code, c.code, stderr, c.want...)
		})
	}
}
