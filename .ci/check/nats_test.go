package check

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const natsModule = "github.com/nats-io/nats-server/v2"

// What the WAL takes with the defaults of the command: --wal-max-bytes, and the dead letters.
const (
	walMaxBytes        = 10 << 30
	deadLetterMaxBytes = 1 << 30
	maxPushBytes       = 16 << 20
)

// natsPatience is how long a server or a cluster may take to start, on a machine that has other things to do.
const natsPatience = time.Minute

// The configuration is read and run by the server whose version the product embeds, and the image of
// compose.yaml is of that version.
func TestNATSVersion(t *testing.T) {
	if here, product := required(t, natsModule, ".ci", "check", "go.mod"), required(t, natsModule, "go.mod"); here != product {
		t.Errorf(".ci/check tests with nats-server %s, the product embeds %s", here, product)
	}
}

// natsConfig reads a configuration with the server's own parser.
func natsConfig(t *testing.T, file string) *server.Options {
	t.Helper()
	opts, err := server.ProcessConfigFile(path("deploy", "nats", file))
	if err != nil {
		t.Fatal(err)
	}
	return opts
}

// wantWAL checks what the WAL needs of a server.
func wantWAL(t *testing.T, file string, opts *server.Options) {
	t.Helper()
	if !opts.JetStream {
		t.Errorf("%s: JetStream is off", file)
	}
	if !opts.SyncAlways {
		t.Errorf("%s: sync_interval is not always: a confirmed push could be lost with the power", file)
	}
	if opts.MaxPayload < maxPushBytes {
		t.Errorf("%s: max_payload is %d, less than the largest push, %d", file, opts.MaxPayload, maxPushBytes)
	}
	if opts.MaxPending < 2*int64(opts.MaxPayload) {
		t.Errorf("%s: max_pending is %d: it can't hold two messages of max_payload", file, opts.MaxPending)
	}
	if least := int64(walMaxBytes + deadLetterMaxBytes); opts.JetStreamMaxStore < least {
		t.Errorf("%s: max_file_store is %d, less than what the WAL reserves, %d", file, opts.JetStreamMaxStore, least)
	}
	if opts.StoreDir != "/data" {
		t.Errorf("%s: store_dir is %q, compose.yaml mounts the volume at /data", file, opts.StoreDir)
	}
}

// apart moves a server to where it meets nobody: free ports of loopback, and a directory of its own.
func apart(t *testing.T, opts *server.Options) {
	t.Helper()
	opts.Host, opts.Port = "127.0.0.1", server.RANDOM_PORT
	opts.HTTPHost, opts.HTTPPort = "127.0.0.1", -1
	opts.StoreDir = t.TempDir()
	opts.NoLog, opts.NoSigs = true, true
}

// runNATS starts a server, which ends with the test.
func runNATS(t *testing.T, opts *server.Options) *server.Server {
	t.Helper()
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// freeAddress is one of loopback. Another program may take it; few do.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestNATSConfig(t *testing.T) {
	opts := natsConfig(t, "nats.conf")
	wantWAL(t, "nats.conf", opts)

	// It has to start as well, and to say that it is healthy where the health check of compose.yaml asks.
	apart(t, opts)
	s := runNATS(t, opts)
	if !s.ReadyForConnections(natsPatience) {
		t.Fatal("the server does not take connections")
	}
	if !s.JetStreamEnabled() {
		t.Fatal("JetStream did not start")
	}
	get(t, "http://"+s.MonitorAddr().String()+"/healthz")
}

// natsCluster starts the three servers of compose.yaml from their configuration, on free ports, and returns them when they
// have a leader. Only addresses and directories are other ones.
func natsCluster(t *testing.T) []*server.Server {
	t.Helper()
	names := natsServices(project(t))
	// Each is given the routes to all from the start, as in the file.
	routes := make([]*url.URL, len(names))
	for i := range names {
		routes[i] = &url.URL{Scheme: "nats", Host: freeAddress(t)}
	}
	servers := make([]*server.Server, len(names))
	for i, name := range names {
		t.Setenv("NATS_SERVER_NAME", name)
		opts := natsConfig(t, "cluster.conf")
		wantWAL(t, "cluster.conf", opts)
		if opts.ServerName != name {
			t.Fatalf("the server %s is called %q", name, opts.ServerName)
		}
		var known []string
		for _, route := range opts.Routes {
			known = append(known, route.Hostname())
			if route.Port() != strconv.Itoa(opts.Cluster.Port) {
				t.Errorf("a route goes to port %s, the servers listen on %d", route.Port(), opts.Cluster.Port)
			}
		}
		if !slices.Equal(known, names) {
			t.Errorf("the servers know %q, compose.yaml has %q", known, names)
		}
		apart(t, opts)
		port, err := strconv.Atoi(routes[i].Port())
		if err != nil {
			t.Fatal(err)
		}
		opts.Cluster.Host, opts.Cluster.Port = "127.0.0.1", port
		opts.Routes = slices.Clone(routes)
		servers[i] = runNATS(t, opts)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(natsPatience) {
			t.Fatalf("%s does not take connections", s.Name())
		}
	}
	eventually(t, natsPatience, "the servers have a leader", func() bool {
		return slices.ContainsFunc(servers, func(s *server.Server) bool {
			return s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(names)
		})
	})
	for _, s := range servers {
		eventually(t, natsPatience, s.Name()+" is healthy", func() bool { return healthy(t, "http://"+s.MonitorAddr().String()+"/healthz") })
	}
	return servers
}

// The cluster keeps the WAL of the real program on all its servers, and takes pushes while one of them is away.
func TestNATSCluster(t *testing.T) {
	servers := natsCluster(t)
	g := startGateway(t, servers)
	g.push(t, "all three")

	copies := func(s *server.Server) (streams, replicas int) {
		t.Helper()
		info, err := s.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Config: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, account := range info.AccountDetails {
			for _, stream := range account.Streams {
				streams++
				replicas += stream.Config.Replicas
			}
		}
		return streams, replicas
	}
	for _, s := range servers {
		eventually(t, natsPatience, s.Name()+" has a copy of everything", func() bool {
			streams, replicas := copies(s)
			return streams >= 5 && replicas == 3*streams // four shards, and the dead letters
		})
	}

	for _, s := range servers {
		if s.JetStreamIsLeader() {
			s.Shutdown()
			s.WaitForShutdown()
			break
		}
	}
	g.push(t, "two of three")
}
