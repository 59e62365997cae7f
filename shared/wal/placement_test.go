package wal

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

// The WAL is kept where it is wanted, on as many servers as are asked for; and a process that is started without the flags
// leaves both as they are.
func TestPlacementAndReplicas(t *testing.T) {
	_, urls := enginetest.NATSCluster(t, 3)
	nc, err := nats.Connect(urls)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	opened := func(edit func(*Config)) *WAL {
		t.Helper()
		cfg := testConfig
		edit(&cfg)
		return reopen(t, nc, cfg)
	}
	// want checks all streams, once the servers are done with what was asked for.
	want := func(w *WAL, tag string) {
		t.Helper()
		for _, name := range []string{StreamName(0), StreamName(1), DeadLetterStream, "KV_" + Bucket} {
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
				info, err := w.existing(t.Context(), name) // it may not be answered while the stream moves
				if err == nil && len(info.Cluster.Replicas) == 0 && info.Config.Placement != nil &&
					info.Config.Placement.Tags[0] == tag && info.Cluster.Leader == "n"+strings.TrimPrefix(tag, "server:") {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %+v, %v", name, info, err)
				}
			}
		}
	}

	on := func(tag string) func(*Config) {
		return func(cfg *Config) { cfg.Placement = &jetstream.Placement{Cluster: "logthra", Tags: []string{tag}} }
	}
	want(opened(on("server:1")), "server:1")
	publish(t, opened(func(*Config) {}), "", numbered(1))
	want(opened(func(*Config) {}), "server:1")
	want(opened(on("server:2")), "server:2") // it moves

	cfg := testConfig
	cfg.Replicas = 3
	for tag, what := range map[string]string{"server:2": "servers as --replicas asks for", "server:0": "one after the other"} {
		on(tag)(&cfg)
		var err error
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
			if _, err = Open(t.Context(), nc, cfg, slog.New(slog.DiscardHandler)); err != nil && strings.Contains(err.Error(), what) {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), "--placement-tags") || !strings.Contains(err.Error(), what) {
			t.Errorf("three replicas on one server: %v", err)
		}
	}
}

// reopen opens a WAL as a role does: again, where streams that move don't answer in time.
func reopen(t *testing.T, nc *nats.Conn, cfg Config) *WAL {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		w, err := Open(t.Context(), nc, cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			return w
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// The number of replicas is raised while the WAL is used, and never lowered by a process that asks for fewer.
func TestReplicasAreNeverLowered(t *testing.T) {
	_, urls := enginetest.NATSCluster(t, 3)
	nc, err := nats.Connect(urls)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	want := 0
	for i, asked := range []int{1, 3, 1} {
		cfg := testConfig
		cfg.Replicas = asked
		w := reopen(t, nc, cfg)
		publish(t, w, "", numbered(i))
		want = max(want, asked)
		for _, name := range []string{StreamName(0), StreamName(1), DeadLetterStream, "KV_" + Bucket} {
			var info *jetstream.StreamInfo
			for range 10 { // it may not be answered while replicas are added
				if info, err = w.existing(t.Context(), name); err == nil {
					break
				}
			}
			if err != nil || info.Config.Replicas != want {
				t.Errorf("%d asked for: %s: %+v, %v", asked, name, info, err)
			}
		}
	}
}
