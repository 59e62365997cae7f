package certs

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/certs/certstest"
)

// serve answers every connection with the common name of its client, until the test ends.
func serve(t *testing.T, r *Reloader) string {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", r.ServerConfig())
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			secure, ok := conn.(*tls.Conn)
			if ok && secure.HandshakeContext(t.Context()) == nil {
				name := "nobody"
				if chains := secure.ConnectionState().VerifiedChains; len(chains) > 0 {
					name = chains[0][0].Subject.CommonName
				}
				_, _ = io.WriteString(conn, name)
			}
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

// greet connects and returns what the server is called, and what it calls the client.
func greet(address string, config *tls.Config) (server, client string, err error) {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: config}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	said, err := io.ReadAll(conn)
	secure, _ := conn.(*tls.Conn)
	return secure.ConnectionState().PeerCertificates[0].Subject.CommonName, string(said), err
}

// later makes the next client find the files looked at long ago.
func (r *Reloader) later() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looked = time.Time{}
}

func TestReload(t *testing.T) {
	authority, dir := certstest.New(t), t.TempDir()
	cert, key, _ := authority.Write(t, dir, "first")
	var logged bytes.Buffer
	r, err := Open(Files{Cert: cert, Key: key}, slog.New(slog.NewTextHandler(&logged, nil)))
	must(t, err)
	address := serve(t, r)
	want := func(name string) {
		t.Helper()
		r.later()
		server, client, err := greet(address, authority.Client(t, ""))
		if err != nil || server != name || client != "nobody" {
			t.Errorf("%s greets %s (%v), want %s", server, client, err, name)
		}
	}
	want("first")
	authority.Write(t, dir, "the second")
	want("the second")

	// The half of a pair, as while it is being written, then nothing, then another pair.
	otherCert, otherKey := authority.Issue(t, "a third one")
	must(t, os.WriteFile(cert, otherCert, 0o600))
	want("the second")
	want("the second")
	must(t, os.Remove(key))
	want("the second")
	want("the second")
	must(t, os.WriteFile(key, otherKey, 0o600))
	want("a third one")
	if left := time.Until(r.Expiry()); left < expiresSoon || left > 21*24*time.Hour {
		t.Errorf("expires in %s", left)
	}
	if problems := strings.Count(logged.String(), "can't be used"); problems != 2 {
		t.Errorf("%d problems were logged, want 2:\n%s", problems, logged.String())
	}
	if strings.Contains(logged.String(), "BEGIN") {
		t.Error("the log has what is in the files")
	}
}

// A certificate that nobody renews is warned of once a day in its last two weeks, and after its end; a renewed one is not.
func TestExpiry(t *testing.T) {
	authority, dir := certstest.New(t), t.TempDir()
	cert, key, _ := authority.Write(t, dir, "server") // for 20 days
	var logged bytes.Buffer
	r, err := Open(Files{Cert: cert, Key: key}, slog.New(slog.NewTextHandler(&logged, nil)))
	must(t, err)
	for hour := range 22 * 24 {
		r.current(r.Expiry().Add(time.Duration(hour-20*24) * time.Hour))
		if hour == 5*24 && logged.Len() > 0 {
			t.Errorf("there are two weeks left:\n%s", logged.String())
		}
	}
	if warnings := strings.Count(logged.String(), "level=WARN"); warnings != 16 || strings.Count(logged.String(), cert) != warnings {
		t.Errorf("%d warnings, want 16:\n%s", warnings, logged.String())
	}
	logged.Reset()
	authority.Write(t, dir, "renewed")
	r.later()
	r.current(time.Now())
	if strings.Count(logged.String(), "level=WARN") > 0 || !strings.Contains(logged.String(), "are served") {
		t.Errorf("a renewed certificate:\n%s", logged.String())
	}
}

func TestClients(t *testing.T) {
	authority, stranger, dir := certstest.New(t), certstest.New(t), t.TempDir()
	cert, key, ca := authority.Write(t, dir, "server")
	foreign := stranger.Client(t, "mallory")
	foreign.RootCAs = authority.Pool()
	for _, c := range []struct {
		name     string
		optional bool
		config   *tls.Config
		want     string // what the server calls the client; empty where it is refused
	}{
		{"required and shown", false, authority.Client(t, "alice"), "alice"},
		{"required and not shown", false, authority.Client(t, ""), ""},
		{"required, of another authority", false, foreign, ""},
		{"optional and shown", true, authority.Client(t, "alice"), "alice"},
		{"optional and not shown", true, authority.Client(t, ""), "nobody"},
		{"optional, of another authority", true, foreign, ""},
		{"too old a version", true, &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10, RootCAs: authority.Pool()}, ""}, //nolint:gosec // to be refused
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Open(Files{Cert: cert, Key: key, ClientCA: ca, Optional: c.optional}, slog.New(slog.DiscardHandler))
			must(t, err)
			_, client, err := greet(serve(t, r), c.config)
			if client != c.want || (err == nil) != (c.want != "") {
				t.Errorf("the client is %q (%v), want %q", client, err, c.want)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	authority, dir := certstest.New(t), t.TempDir()
	cert, key, _ := authority.Write(t, dir, "server")
	_, otherKey := authority.Issue(t, "other")
	other, empty := filepath.Join(dir, "other.key"), filepath.Join(dir, "empty")
	must(t, os.WriteFile(other, otherKey, 0o600))
	must(t, os.WriteFile(empty, nil, 0o600))
	for _, c := range []struct {
		files Files
		want  []string
	}{
		{Files{Cert: cert, Key: dir + "/missing"}, []string{"missing", "no such file"}},
		{Files{Cert: cert, Key: other}, []string{cert, other, "does not match"}},
		{Files{Cert: empty, Key: key}, []string{empty, "PEM"}},
		{Files{Cert: cert, Key: key, ClientCA: empty}, []string{empty, "no certificate"}},
		{Files{Cert: cert, Key: key, ClientCA: dir + "/missing"}, []string{"missing", "no such file"}},
		{Files{Cert: cert}, []string{"no such file"}},
	} {
		_, err := Open(c.files, slog.New(slog.DiscardHandler))
		for _, part := range c.want {
			if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("%+v: %v, want %q in it", c.files, err, part)
			}
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
