// Package enginetest gives tests the real engines. A package that uses it says
//
//	func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }
package enginetest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/embedded"
)

// anyPort lets an engine choose a free port.
const anyPort = "127.0.0.1:0"

// startTimeout bounds the start of ClickHouse, the fetch of its library included.
const startTimeout = 10 * time.Minute

// shared is the test process's ClickHouse, started by whoever asks first.
var shared struct {
	once       sync.Once
	dir        string
	clickhouse *embedded.ClickHouse
	err        error
}

// Main runs the tests of a package and stops what they started. It returns the
// exit code. It must come first in TestMain: the ClickHouse child starts there.
func Main(m *testing.M) int {
	embedded.RunChild()
	code := m.Run()
	if shared.clickhouse != nil {
		shared.clickhouse.Stop(context.Background())
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	return code
}

// ClickHouse returns the one ClickHouse of this test process, on free ports,
// and starts it if t is the first to ask. Tests share it: take a database of
// your own, and wait with Ready after a Kill.
func ClickHouse(t testing.TB) *embedded.ClickHouse {
	t.Helper()
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		var library string
		if library, shared.err = embedded.Library(ctx, os.Stderr); shared.err != nil {
			return
		}
		shared.dir, shared.err = os.MkdirTemp("", "logthra-clickhouse-*") //nolint:usetesting // outlives t
		if shared.err != nil {
			return
		}
		shared.clickhouse, shared.err = embedded.StartClickHouse(ctx, embedded.ClickHouseConfig{
			Dir: filepath.Join(shared.dir, "clickhouse"), Listen: anyPort, HTTPListen: anyPort, Library: library, Logger: quiet(),
		})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.clickhouse
}

// NATS returns a fresh NATS server of t's own, on a free port and without a
// limit of its store. It stops when t ends.
func NATS(t testing.TB) *embedded.NATS {
	t.Helper()
	nats, err := embedded.StartNATS(embedded.NATSConfig{Dir: t.TempDir(), Listen: anyPort, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Stop)
	return nats
}

// quiet keeps the engines' expected complaints out of the tests' output.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// remoteServers is the configuration of a cluster; its values are its name and its shards.
const remoteServers = "<clickhouse><remote_servers><%[1]s>%[2]s</%[1]s></remote_servers></clickhouse>"

// ClickHouseCluster returns servers of t's own that are the shards of a cluster, one replica each. There is no Keeper, so
// they know neither ReplicatedMergeTree nor ON CLUSTER. They stop when t ends.
func ClickHouseCluster(t testing.TB, name string, shards int) []*embedded.ClickHouse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	library, err := embedded.Library(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	addresses := make([]string, shards)
	for i := range addresses {
		addresses[i] = freeAddress(t)
		host, port := split(t, addresses[i])
		fmt.Fprintf(&list, "<shard><replica><host>%s</host><port>%d</port></replica></shard>", host, port)
	}
	var all []*embedded.ClickHouse
	for _, address := range addresses {
		dir := filepath.Join(t.TempDir(), "clickhouse")
		if err := os.MkdirAll(filepath.Join(dir, "config.d"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.d", "cluster.xml"), fmt.Appendf(nil, remoteServers, name, list.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		server, err := embedded.StartClickHouse(ctx, embedded.ClickHouseConfig{
			Dir: dir, Listen: address, HTTPListen: anyPort, Memory: 1 << 30, Library: library, Logger: quiet(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Stop(context.Background()) })
		all = append(all, server)
	}
	return all
}
