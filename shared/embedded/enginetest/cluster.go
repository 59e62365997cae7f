package enginetest

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/casteloig/logthra/shared/embedded"
)

// clusterTimeout bounds how long a cluster takes to elect a leader.
const clusterTimeout = time.Minute

// NATSCluster returns servers of a NATS cluster of t's own, which sync always, as all that the project ships,
// and the URL of them all. They are named n0, n1 and so on, and have the tags server:0, server:1. They stop when t ends, or when they are shut down before.
func NATSCluster(t testing.TB, servers int) ([]*server.Server, string) {
	t.Helper()
	routes := make([]*url.URL, servers)
	for i := range routes {
		routes[i] = &url.URL{Scheme: "nats", Host: freeAddress(t)}
	}
	var all []*server.Server
	var urls []string
	for i := range servers {
		host, port := split(t, routes[i].Host)
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: host, Port: server.RANDOM_PORT, Tags: []string{fmt.Sprintf("server:%d", i)},
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, MaxPayload: embedded.MaxPayload,
			Cluster: server.ClusterOpts{Name: "logthra", Host: host, Port: port}, Routes: routes,
			NoSigs: true, NoLog: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		all = append(all, s)
	}
	for _, s := range all {
		if !s.ReadyForConnections(clusterTimeout) {
			t.Fatal("a server of the cluster takes no connections")
		}
		urls = append(urls, s.ClientURL())
	}
	for deadline := time.Now().Add(clusterTimeout); !isFormed(all); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the cluster has no leader")
		}
	}
	return all, strings.Join(urls, ",")
}

// isFormed tells whether the cluster has a leader that knows all servers.
func isFormed(all []*server.Server) bool {
	for _, s := range all {
		if s.JetStreamIsLeader() {
			return len(s.JetStreamClusterPeers()) == len(all)
		}
	}
	return false
}

func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func split(t testing.TB, address string) (host string, port int) {
	t.Helper()
	addr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return addr.IP.String(), addr.Port
}
