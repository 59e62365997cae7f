package tenant

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promtest "github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/crypto/bcrypt"
)

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func bcryptOf(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	must(t, err)
	return string(hash)
}

func file(t testing.TB) string {
	return fmt.Sprintf(`
defaults:
  limits: {push_bytes_per_second: 10MiB, max_streams: 5000}
tenants:
  acme:
    tokens: [%q, %q]
    users:
      - {name: alice, password: %q}
    certificates: ["CN=shipper-1", "DNS:ship.acme.example", "URI:spiffe://acme/ship"]
    allow: [acme-dev]
    limits:
      push_bytes_per_second: 0
      pushes_per_second: 2.5
      max_age: 72h
  acme-dev:
  globex:
    tokens: [%q, %q]
    limits: {max_age: 1h, out_of_window: clamp, max_line_bytes: 4KiB, max_labels: 15, max_label_name_bytes: 100, max_label_value_bytes: 1KiB,
      pushes_burst: 7, push_bytes_burst: 20MiB, max_lines_per_push: 1000, max_future: 10m}
  support:
    tokens: [%q]
    certificates: ["CN=desk"]
    allow: ["*"]
`, hashOf("acme-token"), hashOf("acme-second"), bcryptOf(t, "wonder:land"), hashOf("globex-token"), hashOf("YTpi"), hashOf("support-token"))
}

func TestLimits(t *testing.T) {
	d, err := Parse([]byte(file(t)), "tenants.yaml")
	must(t, err)
	for name, want := range map[string]Limits{
		"acme":     {PushesPerSecond: 2.5, MaxStreams: 5000, MaxAge: 72 * time.Hour, OutOfWindow: Reject},
		"acme-dev": {PushBytesPerSecond: 10 << 20, MaxStreams: 5000},
		"unknown":  {PushBytesPerSecond: 10 << 20, MaxStreams: 5000},
		"globex": {
			PushBytesPerSecond: 10 << 20, PushBytesBurst: 20 << 20, PushesBurst: 7, MaxLinesPerPush: 1000, MaxLineBytes: 4 << 10, MaxLabels: 15,
			MaxLabelNameBytes: 100, MaxLabelValueBytes: 1 << 10, MaxStreams: 5000, MaxAge: time.Hour, MaxFuture: 10 * time.Minute, OutOfWindow: Clamp,
		},
	} {
		if got := d.Limits(name); !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n got %+v\nwant %+v", name, got, want)
		}
	}
	if tenants, credentials := d.Len(); tenants != 4 || credentials != 10 || !d.Known("acme-dev") || d.Known("unknown") {
		t.Errorf("%d tenants, %d credentials", tenants, credentials)
	}
}

func TestQueryLimits(t *testing.T) {
	d, err := Parse([]byte(`
defaults: {limits: {query_max_range: 48h, query_max_entries: 100}}
tenants:
  acme:
    limits: {query_timeout: 5s, query_max_entries: 0, query_max_range: 720h, query_max_series: 7, query_max_bytes: 1GiB,
      query_max_memory: 64MiB, query_concurrency: 2, tail_max_connections: 3}
  globex:
`), "tenants.yaml")
	must(t, err)
	flags := QueryLimits{Timeout: time.Minute, MaxEntries: 5000, MaxSeries: 500, MaxMemory: 1 << 30, Concurrency: 6, MaxTails: 200}
	inherited := flags
	inherited.MaxRange, inherited.MaxEntries = 48*time.Hour, 100
	for name, want := range map[string]QueryLimits{
		"acme": {
			Timeout: 5 * time.Second, MaxRange: 720 * time.Hour, MaxSeries: 7, MaxBytes: 1 << 30, MaxMemory: 64 << 20, Concurrency: 2, MaxTails: 3,
		},
		"globex":  inherited,
		"unknown": inherited,
	} {
		if got := d.QueryLimits(name, flags); got != want {
			t.Errorf("%s\n got %+v\nwant %+v", name, got, want)
		}
	}
	if d.Limits("acme") != (Limits{}) {
		t.Error("limits of queries are limits of pushes")
	}
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestAuthenticate(t *testing.T) {
	d, err := Parse([]byte(file(t)), "tenants.yaml")
	must(t, err)
	spiffe, err := url.Parse("spiffe://acme/ship")
	must(t, err)
	named := func(name string) *x509.Certificate { return &x509.Certificate{Subject: pkix.Name{CommonName: name}} }
	for _, c := range []struct {
		name   string
		header string
		cert   *x509.Certificate
		wanted string
		tenant string
		err    error
	}{
		{"token", "Bearer acme-token", nil, "", "acme", nil},
		{"second token", "bearer  acme-second", nil, "acme", "acme", nil},
		{"of Splunk", "Splunk globex-token", nil, "", "globex", nil},
		{"of Elasticsearch", "ApiKey " + base64.StdEncoding.EncodeToString([]byte("an-id:globex-token")), nil, "", "globex", nil},
		{"of Elasticsearch, bare, and base64 of something with a colon", "ApiKey YTpi", nil, "", "globex", nil},
		{"of Elasticsearch, bare", "ApiKey globex-token", nil, "", "globex", nil},
		{"password", basic("alice", "wonder:land"), nil, "acme", "acme", nil},
		{"allowed other", "Bearer acme-token", nil, "acme-dev", "acme-dev", nil},
		{"any", "Bearer support-token", nil, "globex", "globex", nil},
		{"any, own", "Bearer support-token", nil, "", "support", nil},
		{"certificate", "", named("shipper-1"), "", "acme", nil},
		{"certificate of a DNS name", "", &x509.Certificate{DNSNames: []string{"other", "Ship.ACME.example"}}, "", "acme", nil},
		{"certificate of a URI", "", &x509.Certificate{URIs: []*url.URL{spiffe}}, "acme-dev", "acme-dev", nil},
		{"certificate and token", "Bearer acme-token", named("shipper-1"), "", "acme", nil},
		{"unknown certificate and token", "Bearer acme-token", named("laptop"), "", "acme", nil},

		{"nothing", "", nil, "acme", "", ErrNoCredentials},
		{"wrong token", "Bearer acme-tokem", nil, "", "", ErrBadCredentials},
		{"the hash is no token", "Bearer " + hashOf("acme-token"), nil, "", "", ErrBadCredentials},
		{"empty token", "Bearer ", nil, "", "", ErrBadCredentials},
		{"scheme", "Digest acme-token", nil, "", "", ErrBadCredentials},
		{"no scheme", "acme-token", nil, "", "", ErrBadCredentials},
		{"two headers", "Bearer acme-token,Bearer globex-token", nil, "", "", ErrBadCredentials},
		{"wrong password", basic("alice", "wonderland"), nil, "", "", ErrBadCredentials},
		{"unknown user", basic("bob", "wonder:land"), nil, "", "", ErrBadCredentials},
		{"the hash is no password", basic("alice", d.users["alice"].entry.name), nil, "", "", ErrBadCredentials},
		{"not base64", "Basic !", nil, "", "", ErrBadCredentials},
		{"no colon", "Basic " + base64.StdEncoding.EncodeToString([]byte("alice")), nil, "", "", ErrBadCredentials},
		{"unknown certificate", "", named("laptop"), "", "", ErrBadCredentials},
		{"certificate of two", "", &x509.Certificate{Subject: pkix.Name{CommonName: "desk"}, DNSNames: []string{"ship.acme.example"}}, "", "", ErrForbidden},
		{"a name as the other kind", "", &x509.Certificate{DNSNames: []string{"shipper-1"}}, "", "", ErrBadCredentials},
		{"token with a bad certificate's tenant", "Bearer wrong", named("shipper-1"), "", "", ErrBadCredentials},
		{"any, but a tenant", "Bearer support-token", nil, "a,b", "", ErrForbidden},
		{"certificate of another", "Bearer globex-token", named("shipper-1"), "", "", ErrForbidden},
		{"other's tenant", "Bearer acme-token", nil, "globex", "", ErrForbidden},
		{"back from the allowed", "Bearer globex-token", nil, "acme", "", ErrForbidden},
		{"in other letters", "Bearer acme-token", nil, "ACME", "", ErrForbidden},
		{"percent-encoded", "Bearer acme-token", nil, "%61cme", "", ErrForbidden},
		{"with a list", "Bearer acme-token", nil, "acme,globex", "", ErrForbidden},
		{"with a zero", "Bearer acme-token", nil, "acme\x00", "", ErrForbidden},
		{"in other script", "Bearer acme-token", nil, "аcme", "", ErrForbidden},
		{"a star", "Bearer acme-token", nil, "*", "", ErrForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := d.Authenticate(Credentials{Authorization: c.header, Certificate: c.cert}, c.wanted)
			if got != c.tenant || !errors.Is(err, c.err) {
				t.Errorf("%q (%v), want %q (%v)", got, err, c.tenant, c.err)
			}
			if _, secret, ok := strings.Cut(c.header, " "); err != nil && ok && secret != "" && strings.Contains(err.Error(), secret) {
				t.Errorf("%v tells the credential", err)
			}
		})
	}
}

// What was right once costs nothing the second time, and a flood of wrong passwords is turned away.
func TestPasswords(t *testing.T) {
	p := newPasswords()
	hash := []byte(bcryptOf(t, "secret"))
	check := func(password string, want bool, wantErr error) {
		t.Helper()
		if right, err := p.check("alice", []byte(password), hash); right != want || !errors.Is(err, wantErr) {
			t.Errorf("%s: %v (%v)", password, right, err)
		}
	}
	check("secret", true, nil)
	check("wrong", false, nil)
	if len(p.recent) != 1 {
		t.Errorf("%d passwords are remembered", len(p.recent))
	}
	for p.running.TryAcquire(1) { // as if as many were being checked as may be
	}
	check("secret", true, nil)
	check("wrong", false, ErrBusy)
	check("Secret", false, ErrBusy)
	for i := range 3 * maxRemembered {
		p.remember(p.id("bob", fmt.Append(nil, i), hash))
		if i%100 == 0 {
			check("secret", true, nil) // what is used stays
		}
	}
	if n := len(p.recent) + len(p.former); n > maxRemembered {
		t.Errorf("%d passwords are remembered", n)
	}
	if p.id("ab", []byte("c"), hash) == p.id("a", []byte("bc"), hash) {
		t.Error("two users have the same id")
	}
}

// A user who does not exist is checked like one who does.
func TestUnknownUser(t *testing.T) {
	d, err := Parse([]byte(file(t)), "tenants.yaml")
	must(t, err)
	for d.passwords.running.TryAcquire(1) {
	}
	for _, user := range []string{"alice", "nobody"} {
		if _, err := d.Authenticate(Credentials{Authorization: basic(user, "x")}, ""); !errors.Is(err, ErrBusy) {
			t.Errorf("%s: %v", user, err)
		}
	}
	cost, err := bcrypt.Cost(d.users["alice"].hash)
	must(t, err)
	if dummy, err := bcrypt.Cost(d.dummy); err != nil || dummy != cost {
		t.Errorf("the dummy costs %d (%v), a user %d", dummy, err, cost)
	}
	if err := bcrypt.CompareHashAndPassword(d.dummy, []byte("x")); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		t.Errorf("the dummy is not computed: %v", err)
	}
}

func TestParseErrors(t *testing.T) {
	token := hashOf("x")
	const notHash = `users: a password is to be a hash of bcrypt, as logthra tenant hash prints it, of cost 16 at most`
	hash := bcryptOf(t, "x")
	user := func(password string) string {
		return fmt.Sprintf("tenants: {a: {users: [{name: u, password: %q}]}}", password)
	}
	for in, want := range map[string]string{
		"":  "f.yaml: the file is empty",
		"[": "f.yaml:1: did not find expected node content",
		"tenants:\n  a: {users: [{name: u, password: *secret}]}":                               "f.yaml: an alias (*) has no anchor (&) before it; quote what is no alias",
		"tenants: {a: }\n---\ntenants: {b: }":                                                  "f.yaml: the file has more than one document",
		"tenants: {a: {users: [{name: u, secret}]}}":                                           "f.yaml:1: tenant a: a user has no such key\nf.yaml:1: tenant a: " + notHash,
		"tenants: {a: {users: [{name: u, password: $2a$31$" + strings.Repeat("x", 53) + "}]}}": "f.yaml:1: tenant a: " + notHash,
		user("$2a$10$" + strings.Repeat("!", 53)):                                              "f.yaml:1: tenant a: " + notHash,
		user(hash + "x"):       "f.yaml:1: tenant a: " + notHash,
		user(hash + " "):       "f.yaml:1: tenant a: " + notHash,
		user("$2z" + hash[3:]): "f.yaml:1: tenant a: " + notHash,
		"tenants: {a: {users: [{name: secret, password: alice}]}}": "f.yaml:1: tenant a: " + notHash, // in each other's place
		"tenants:\n  a:\n    limits:\n      push_bytes_per_second: 2KiB\n      push_bytes_burst: 1KiB\n      pushes_per_second: 2\n      pushes_burst: 1.5\n": `f.yaml:5: tenant a: push_bytes_burst: less than push_bytes_per_second
f.yaml:7: tenant a: pushes_burst: less than pushes_per_second`,
		"defaults:\n  limits: {pushes_per_second: 2, pushes_burst: 1}\ntenants: {a: {}}":                                                   "f.yaml:2: pushes_burst: less than pushes_per_second",
		"defaults: {limits: {pushes_burst: 10}}\ntenants:\n  a: {limits: {pushes_per_second: 20}}\n  b: {limits: {pushes_per_second: 10}}": "f.yaml:3: tenant a: pushes_burst: less than pushes_per_second",
		"tenants:\n  a: {limits: {query_timeout: 0, query_max_series: 0, query_max_memory: 0, query_concurrency: 0, tail_max_connections: 0}}\n": `f.yaml:2: tenant a: query_timeout: "0" can't be: there has to be a limit
f.yaml:2: tenant a: query_max_series: "0" can't be: there has to be a limit
f.yaml:2: tenant a: query_max_memory: "0" can't be: there has to be a limit
f.yaml:2: tenant a: query_concurrency: "0" can't be: there has to be a limit
f.yaml:2: tenant a: tail_max_connections: "0" can't be: there has to be a limit`,
		"defaults: {limits: {query_max_range: 30d}}\ntenants: {a: }": `f.yaml:1: query_max_range: "30d" is not a duration such as 72h`,
		"- a":                                         "f.yaml:1: the file is to be a mapping\nf.yaml:1: there are no tenants",
		"tenants:\n":                                  "f.yaml:1: there are no tenants",
		"tenants: {a.b: {}}":                          `f.yaml:1: tenant "a.b" does not match [A-Za-z0-9_-]{1,64}`,
		"tenant: {}\ntenants: {a: }":                  `f.yaml:1: the file has no such key: "tenant"`,
		"tenants:\n  a:\n    token: []\n":             `f.yaml:3: tenant a: a tenant has no such key: "token"`,
		"tenants:\n  a:\n  b:\n  a:\n":                `f.yaml:4: tenants has a key twice: "a"`,
		"tenants:\n  a:\n    tokens: secret\n":        "f.yaml:3: tenant a: tokens is to be a list",
		"tenants:\n  a:\n    tokens:\n    - secret\n": "f.yaml:4: tenant a: tokens: want sha256: and 64 hex digits, as logthra tenant hash --token prints them",
		"tenants:\n  a: {tokens: [" + token + "]}\n  b: {tokens: [" + token + "]}": "f.yaml:3: tenant b: the same token stands in line 2",
		"tenants:\n  a:\n    users:\n    - {name: u, password: secret}\n":          "f.yaml:4: tenant a: " + notHash,
		"tenants:\n  a:\n    users:\n    - {password: secret}\n":                   "f.yaml:4: tenant a: users: a user needs a name without a colon",
		"tenants:\n  a:\n    users:\n    - {name: u, pass: secret}\n":              "f.yaml:4: tenant a: a user has no such key\nf.yaml:4: tenant a: " + notHash,
		"tenants:\n  a: {certificates: [shipper]}":                                 "f.yaml:2: tenant a: certificates: want CN=, DNS:, URI: or EMAIL: and a name",
		"tenants:\n  a: {certificates: [DNS:x]}\n  b: {certificates: [DNS:X]}":     "f.yaml:3: tenant b: the same certificate stands in line 2",
		"tenants:\n  a: {allow: [b c]}":                                            `f.yaml:2: tenant a: allow: tenant "b c" does not match [A-Za-z0-9_-]{1,64}`,
		"tenants:\n  a:\n    limits: {max_lines: 1, max_streams: -1, push_bytes_per_second: lots,\n      pushes_per_second: NaN, max_age: 5, out_of_window: drop}\n": `f.yaml:3: tenant a: limits has no such key: "max_lines"
f.yaml:3: tenant a: max_streams: "-1" is not a whole number such as 100
f.yaml:3: tenant a: push_bytes_per_second: "lots" is not a size such as 64MiB
f.yaml:4: tenant a: pushes_per_second: "NaN" is not a number such as 100
f.yaml:4: tenant a: max_age: "5" is not a duration such as 72h
f.yaml:4: tenant a: out_of_window: "drop" is none of off, reject and clamp`,
	} {
		d, err := Parse([]byte(in), "f.yaml")
		if err == nil || err.Error() != want || d != nil {
			t.Errorf("%q\n got %v\nwant %s", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells a secret", in)
		}
	}
}

// What is out of the window is refused, unless the tenant or the defaults choose.
func TestWindow(t *testing.T) {
	for in, want := range map[string]Window{
		"tenants: {a: {limits: {max_age: 1h}}}":                                                           Reject,
		"tenants: {a: {limits: {max_age: 1h, out_of_window: off}}}":                                       Off,
		"tenants: {a: }\ndefaults: {limits: {max_future: 1h}}":                                            Reject,
		"tenants: {a: {limits: {max_streams: 1}}}\ndefaults: {limits: {max_age: 1h}}":                     Reject,
		"tenants: {a: {limits: {out_of_window: off}}}\ndefaults: {limits: {max_age: 1h}}":                 Off,
		"tenants: {a: {limits: {max_age: 2h}}}\ndefaults: {limits: {out_of_window: off}}":                 Off,
		"tenants: {a: {limits: {max_age: 2h}}}\ndefaults: {limits: {out_of_window: clamp}}":               Clamp,
		"tenants: {a: {limits: {max_streams: 2}}}\ndefaults: {limits: {max_age: 1h, out_of_window: off}}": Off,
		"tenants: {a: {limits: {max_streams: 1}}}":                                                        Off,
	} {
		d, err := Parse([]byte(in), "f.yaml")
		must(t, err)
		if got := d.Limits("a").OutOfWindow; got != want {
			t.Errorf("%s\n got %d, want %d", in, got, want)
		}
	}
}

// Lists and limits that several tenants share can be written once.
func TestAliases(t *testing.T) {
	d, err := Parse([]byte("tenants:\n  a: {limits: &big {max_streams: 7}, allow: &all [c, &d d]}\n  b: {limits: *big, allow: *all, tokens: ["+hashOf("b")+"]}\n  e: {allow: [*d], tokens: ["+hashOf("e")+"]}"), "f.yaml")
	must(t, err)
	if d.Limits("b").MaxStreams != 7 {
		t.Errorf("limits are %+v", d.Limits("b"))
	}
	for _, token := range []string{"b", "e"} {
		if got, err := d.Authenticate(Credentials{Authorization: "Bearer " + token}, "d"); got != "d" || err != nil {
			t.Errorf("%s: %q (%v)", token, got, err)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tenants.yaml")
	must(t, os.WriteFile(path, []byte(file(t)), 0o600))
	d, err := Load(path)
	must(t, err)
	if tenants, _ := d.Len(); tenants != 4 {
		t.Errorf("%d tenants", tenants)
	}
	must(t, os.Truncate(path, maxFile+1))
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "larger than 16777216 bytes") {
		t.Errorf("a file that is too large: %v", err)
	}
	if _, err := Load(path + ".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// locked is a buffer that a logger and a test share.
type locked struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *locked) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.String(), part)
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	write := func(name, tenants string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(tenants), 0o600))
		return path
	}
	one := "tenants: {one: {tokens: [" + hashOf("secret") + "]}}"
	two := "tenants: {one: {}, two: {tokens: [" + hashOf("secret") + "]}}"
	path := filepath.Join(dir, "tenants.yaml")
	must(t, os.Symlink(write("first", one), path))
	var logged locked
	registry := prometheus.NewRegistry()
	w, err := watch(path, 5*time.Millisecond, slog.New(slog.NewTextHandler(&logged, nil)), registry)
	must(t, err)
	defer w.Close()
	want := func(what, name string) {
		t.Helper()
		eventually(t, what, func() bool {
			got, err := w.Directory().Authenticate(Credentials{Authorization: "Bearer secret"}, "")
			return err == nil && got == name
		})
	}
	want("the first state", "one")
	over, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = over.WriteString(two)
	must(t, errors.Join(err, over.Close()))
	want("a file that is written over", "two")
	write("other", one)
	must(t, os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "first")))
	want("a file that is put in its place", "one")
	must(t, os.Symlink(write("second", two), path+".new"))
	must(t, os.Rename(path+".new", path))
	want("a link that is changed", "two")

	problem := "is not good"
	write("second", "")
	eventually(t, "an empty file is told of", func() bool { return logged.count(problem) == 1 })
	write("second", "tenants: {one: {tokens: [secret]}}")
	eventually(t, "a bad one, too", func() bool { return logged.count(problem) == 2 })
	must(t, os.Remove(path))
	eventually(t, "and one that is gone", func() bool { return logged.count(problem) == 3 })
	want("the last good state stays", "two")
	if promtest.ToFloat64(w.good) != 0 {
		t.Error("it counts as good")
	}
	must(t, os.Symlink(write("third", one), path))
	want("a good one after bad ones", "one")
	eventually(t, "it counts as good", func() bool { return promtest.ToFloat64(w.good) == 1 })
	must(t, os.Rename(path, path+".away"))
	eventually(t, "it is gone again", func() bool { return logged.count(problem) == 4 })
	must(t, os.Rename(path+".away", path))
	eventually(t, "it is back as it was", func() bool { return logged.count("was read") == 6 })
	must(t, promtest.CollectAndCompare(w.reloads, strings.NewReader(`
# HELP logthra_gateway_tenants_file_reloads_total How often the file of tenants was read, by whether it was good.
# TYPE logthra_gateway_tenants_file_reloads_total counter
logthra_gateway_tenants_file_reloads_total{result="bad"} 4
logthra_gateway_tenants_file_reloads_total{result="ok"} 6
`)))
	if age := float64(time.Now().Unix()) - promtest.ToFloat64(w.loaded); age < -2 || age > 120 {
		t.Errorf("loaded %g s ago", age)
	}
	if logged.count("secret") > 0 {
		t.Errorf("the log tells a secret:\n%s", logged.String())
	}
	w.Close()
	write("third", two)
	if got, err := w.Directory().Authenticate(Credentials{Authorization: "Bearer secret"}, ""); got != "one" {
		t.Errorf("after Close the state is %q (%v)", got, err)
	}
	if _, err := Watch(dir+"/none", slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil {
		t.Error("a file that is not there is taken")
	}
}

// A password that was right is not computed again because the file has changed; one that was changed is not right any more.
func TestPasswordsOverReloads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tenants.yaml")
	hash := bcryptOf(t, "secret")
	write := func(tenant, hash string) {
		must(t, os.WriteFile(path, fmt.Appendf(nil, "tenants: {%s: {users: [{name: alice, password: %q}]}}", tenant, hash), 0o600))
	}
	write("one", hash)
	w, err := watch(path, time.Millisecond, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	must(t, err)
	defer w.Close()
	alice := Credentials{Authorization: basic("alice", "secret")}
	if got, err := w.Directory().Authenticate(alice, ""); got != "one" {
		t.Fatalf("%q (%v)", got, err)
	}
	for w.Directory().passwords.running.TryAcquire(1) {
	}
	write("other", hash)
	eventually(t, "the password is still known", func() bool {
		got, err := w.Directory().Authenticate(alice, "")
		return got == "other" && err == nil
	})
	write("other", bcryptOf(t, "new"))
	eventually(t, "the password is another", func() bool {
		_, err := w.Directory().Authenticate(alice, "")
		return errors.Is(err, ErrBusy)
	})
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
