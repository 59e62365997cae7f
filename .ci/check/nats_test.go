package check

import (
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

// The configuration is read and run by the server whose version the product embeds, and the image of
// compose.yaml is of that version.
func TestNATSVersion(t *testing.T) {
	if here, product := required(t, natsModule, ".ci", "check", "go.mod"), required(t, natsModule, "go.mod"); here != product {
		t.Errorf(".ci/check tests with nats-server %s, the product embeds %s", here, product)
	}
}

func TestNATSConfig(t *testing.T) {
	opts, err := server.ProcessConfigFile(path("deploy", "nats", "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if !opts.JetStream {
		t.Error("JetStream is off")
	}
	if !opts.SyncAlways {
		t.Error("sync_interval is not always: a confirmed push could be lost with the power")
	}
	if opts.MaxPayload < maxPushBytes {
		t.Errorf("max_payload is %d, less than the largest push, %d", opts.MaxPayload, maxPushBytes)
	}
	if opts.MaxPending < 2*int64(opts.MaxPayload) {
		t.Errorf("max_pending is %d: it can't hold two messages of max_payload", opts.MaxPending)
	}
	if least := int64(walMaxBytes + deadLetterMaxBytes); opts.JetStreamMaxStore < least {
		t.Errorf("max_file_store is %d, less than what the WAL reserves, %d", opts.JetStreamMaxStore, least)
	}
	if opts.StoreDir != "/data" {
		t.Errorf("store_dir is %q, compose.yaml mounts the volume at /data", opts.StoreDir)
	}

	// It has to start as well, and to say that it is healthy where the health check of compose.yaml asks.
	opts.Host, opts.Port = "127.0.0.1", server.RANDOM_PORT
	opts.HTTPHost, opts.HTTPPort = "127.0.0.1", -1
	opts.StoreDir = t.TempDir()
	opts.NoLog, opts.NoSigs = true, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not take connections")
	}
	if !s.JetStreamEnabled() {
		t.Fatal("JetStream did not start")
	}
	get(t, "http://"+s.MonitorAddr().String()+"/healthz")
}
