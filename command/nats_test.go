package command

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/casteloig/logthra/shared/certs/certstest"
)

// natsSettings are what is common to the configurations of the tests below.
const natsSettings = `
listen: "127.0.0.1:-1"
max_payload: 16MB
max_pending: 128MB
`

// startNATS runs a server with a configuration, which is a file's text. It ends with the test.
func startNATS(t *testing.T, config string) *server.Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	writeFile(t, file, natsSettings+config)
	options, err := server.ProcessConfigFile(file)
	must(t, err)
	options.NoLog, options.NoSigs = true, true
	s, err := server.NewServer(options)
	must(t, err)
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("no connections")
	}
	return s
}

func jetStream(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("jetstream { store_dir: %q, sync_interval: always, max_file_store: 40GB }\n", t.TempDir())
}

// userNATS is the URL of a user.
func userNATS(s *server.Server, user, password string) string {
	u, _ := url.Parse(s.ClientURL())
	u.User = url.UserPassword(user, password)
	return u.String()
}

// The roles and tools get along with a NATS that lets in only whom it knows, and only to what a role needs; over TLS; behind a
// leaf node; and in another account.
func TestSecuredNATS(t *testing.T) {
	clickhouse := begin(t, nil, "clickhouse", "--data-dir", t.TempDir(), "--log-format", "json",
		"--clickhouse-listen", "127.0.0.1:0", "--clickhouse-http-listen", "127.0.0.1:0").ready()
	user, err := nkeys.CreateUser()
	must(t, err)
	for name, secure := range map[string]func(t *testing.T) (gateway, ingester []string){
		"users that may do what their role needs": func(t *testing.T) (gateway, ingester []string) {
			users, err := filepath.Abs(filepath.Join("..", "deploy", "nats", "users.conf"))
			must(t, err)
			text, err := os.ReadFile(users)
			must(t, err)
			config := strings.NewReplacer("$NATS_GATEWAY_PASSWORD", "gate", "$NATS_INGESTER_PASSWORD", "in").Replace(string(text))
			s := startNATS(t, jetStream(t)+config)
			return []string{"--nats-url", userNATS(s, "gateway", "gate")}, []string{"--nats-url", userNATS(s, "ingester", "in")}
		},
		"TLS with certificates of clients": func(t *testing.T) (gateway, ingester []string) {
			authority := certstest.New(t)
			cert, key, ca := authority.Write(t, t.TempDir(), "nats")
			s := startNATS(t, jetStream(t)+fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", cert, key, ca))
			cert, key, ca = authority.Write(t, t.TempDir(), "logthra")
			args := []string{"--nats-url", s.ClientURL(), "--nats-ca-file", ca, "--nats-cert-file", cert, "--nats-key-file", key}
			return args, args
		},
		"an NKey": func(t *testing.T) (gateway, ingester []string) {
			public, err := user.PublicKey()
			must(t, err)
			seed, err := user.Seed()
			must(t, err)
			file := filepath.Join(t.TempDir(), "user.nk")
			writeFile(t, file, string(seed))
			s := startNATS(t, jetStream(t)+fmt.Sprintf("authorization { users: [ { nkey: %s } ] }", public))
			args := []string{"--nats-url", s.ClientURL(), "--nats-nkey-file", file}
			return args, args
		},
		"credentials": func(t *testing.T) (gateway, ingester []string) {
			config, creds := operated(t, user)
			s := startNATS(t, jetStream(t)+config)
			args := []string{"--nats-url", s.ClientURL(), "--nats-creds-file", creds}
			return args, args
		},
		"a domain behind a leaf node": func(t *testing.T) (gateway, ingester []string) {
			hub := startNATS(t, strings.Replace(jetStream(t), "{", "{ domain: hub,", 1)+`leafnodes { listen: "127.0.0.1:-1" }`)
			leaf := startNATS(t, strings.Replace(jetStream(t), "{", "{ domain: leaf,", 1)+
				fmt.Sprintf(`leafnodes { remotes: [ { url: "nats://%s" } ] }`, leafAddress(hub)))
			eventually(t, "the leaf is connected", func() bool { return leaf.NumLeafNodes() == 1 })
			args := []string{"--nats-url", leaf.ClientURL(), "--nats-domain", "hub"}
			return args, args
		},
		"JetStream of another account": func(t *testing.T) (gateway, ingester []string) {
			s := startNATS(t, jetStream(t)+`accounts {
				LOGS {
					jetstream: enabled
					users: [ { user: owner, password: p } ]
					exports: [
						{ service: "$JS.API.>", response_type: stream }
						{ service: "$KV.logthra.>" }
						{ service: "logs.*.*" }
						{ service: "logthra.deadletter.>" }
						{ service: "$JS.FC.>" }
						{ stream: "_INBOX.>" }
					]
				}
				SHIPPERS {
					users: [ { user: logthra, password: p } ]
					imports: [
						{ service: { account: LOGS, subject: "$JS.API.>" }, to: "LOGS.API.>" }
						{ service: { account: LOGS, subject: "$KV.logthra.>" }, to: "LOGS.API.$KV.logthra.>" }
						{ service: { account: LOGS, subject: "logs.*.*" } }
						{ service: { account: LOGS, subject: "logthra.deadletter.>" } }
						{ service: { account: LOGS, subject: "$JS.FC.>" } }
						{ stream: { account: LOGS, subject: "_INBOX.>" } }
					]
				}
			}`)
			args := []string{"--nats-url", userNATS(s, "logthra", "p"), "--nats-api-prefix", "LOGS.API"}
			return args, args
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gatewayArgs, ingesterArgs := secure(t)
			database := "secured_" + strings.Map(func(r rune) rune {
				if r == ' ' {
					return '_'
				}
				return r
			}, name)
			dsn := strings.TrimSuffix(clickhouse["clickhouse_dsn"], "logs") + database
			small := []string{"--log-format", "json", "--shards", "2", "--wal-max-bytes", "64MiB"}
			in := begin(t, nil, append(append([]string{"ingester", "--clickhouse-dsn", dsn, "--ingester-listen", "127.0.0.1:0",
				"--ingester-http-listen", "127.0.0.1:0", "--flush-interval", "100ms", "--owner-timeout", "2s"}, small...), ingesterArgs...)...)
			ingester := in.ready()
			gate := begin(t, nil, append(append([]string{"gateway", "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"},
				small...), gatewayArgs...)...)
			gateway := gate.ready()

			for _, line := range []string{"one", "two", "three"} {
				// The same key twice: the gateway looks at the record that it has.
				for range 2 {
					must(t, pushJSON(gateway["http"], "acme", "key of "+line, fmt.Sprintf(`{"streams":[{"stream":{"app":"a"},"values":[["",%q]]}]}`, line)))
				}
			}
			eventually(t, "the ingester has all shards", func() bool { return owns(t, ingester["ingester"]) == 2 })
			flush(t, ingester["ingester"])
			if rows := mustQuery(t, clickhouse["clickhouse_http"], "SELECT arraySort(groupArray(msg)) FROM "+database+".log"); strings.TrimSpace(rows) != "['one','three','two']" {
				t.Errorf("the table holds %s", rows)
			}
			for _, tool := range [][]string{{"audit", "--clickhouse-dsn", dsn}, {"deadletter", "list", "--clickhouse-dsn", dsn}, {"replay", "--clickhouse-dsn", dsn}, {"shards", "set", "3"}} {
				if code, stdout, stderr := run(t, "", append(tool, ingesterArgs...)...); code != 0 || strings.Contains(stderr, "NATS reports") {
					t.Errorf("%s: exit code %d\n%s%s", tool, code, stdout, stderr)
				}
			}
			eventually(t, "the shard that is new is owned, too", func() bool { return owns(t, ingester["ingester"]) == 3 })
			for _, role := range []*logthra{in, gate} {
				if log := role.stderr.String(); strings.Contains(log, "NATS reports") {
					t.Errorf("something is not allowed:\n%s", log)
				}
			}
		})
	}
}

func leafAddress(s *server.Server) string {
	varz, _ := s.Varz(nil)
	return fmt.Sprintf("127.0.0.1:%d", varz.LeafNode.Port)
}

// operated is the configuration of a server that goes by an operator's word, and the credentials file of a user.
func operated(t *testing.T, user nkeys.KeyPair) (config, creds string) {
	t.Helper()
	public := func(key nkeys.KeyPair) string {
		t.Helper()
		text, err := key.PublicKey()
		must(t, err)
		return text
	}
	operator, err := nkeys.CreateOperator()
	must(t, err)
	account, err := nkeys.CreateAccount()
	must(t, err)
	operatorJWT, err := jwt.NewOperatorClaims(public(operator)).Encode(operator)
	must(t, err)
	claims := jwt.NewAccountClaims(public(account))
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	accountJWT, err := claims.Encode(operator)
	must(t, err)
	system, err := nkeys.CreateAccount()
	must(t, err)
	systemJWT, err := jwt.NewAccountClaims(public(system)).Encode(operator)
	must(t, err)
	userClaims := jwt.NewUserClaims(public(user))
	userJWT, err := userClaims.Encode(account)
	must(t, err)
	seed, err := user.Seed()
	must(t, err)
	file, err := jwt.FormatUserConfig(userJWT, seed)
	must(t, err)
	creds = filepath.Join(t.TempDir(), "user.creds")
	writeFile(t, creds, string(file))
	return fmt.Sprintf("operator: %s\nresolver: MEMORY\nsystem_account: %s\nresolver_preload: { %s: %s, %s: %s }\n",
		operatorJWT, public(system), public(system), systemJWT, public(account), accountJWT), creds
}

// What is wrong with who this is, or with a file that says so, is said with its flag.
func TestNATSOptionErrors(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad")
	writeFile(t, bad, "SECRET")
	const url = "--nats-url nats://127.0.0.1:1 "
	for args, want := range map[string]string{
		"gateway --nats-creds-file " + bad:                                                      "--nats-creds-file: --nats-url is needed, too",
		"--nats-domain hub":                                                                     "--nats-domain: --nats-url is needed, too",
		"gateway " + url + "--nats-cert-file " + bad:                                            "one needs the other",
		"gateway " + url + "--nats-creds-file x --nats-nkey-file y":                             "one of them",
		"gateway " + url + "--nats-domain a --nats-api-prefix b":                                "a domain is a prefix",
		"gateway " + url + "--nats-nkey-file " + bad:                                            "--nats-nkey-file: ",
		"gateway " + url + "--nats-ca-file " + bad:                                              "--nats-ca-file: ",
		"audit " + url + "--clickhouse-dsn clickhouse://127.0.0.1:1/logs --nats-ca-file " + bad: "--nats-ca-file: ",
		"audit " + url + "--clickhouse-dsn clickhouse://127.0.0.1:1/logs --nats-cert-file " + bad + " --nats-key-file " + bad: "--nats-cert-file: ",
		"audit " + url + "--clickhouse-dsn clickhouse://127.0.0.1:1/logs --nats-creds-file /nonsense":                         "--nats-creds-file: ",
	} {
		code, stdout, stderr := run(t, "", strings.Fields(args)...)
		if code == 0 || stdout != "" || !strings.Contains(stderr, want) || strings.Contains(stderr, "SECRET") {
			t.Errorf("%s: exit code %d, %q lacks %q", args, code, stderr, want)
		}
	}
}
