package embedded

import (
	"log/slog"
	"testing"
)

// Everything that a push was answered with 2xx for rests on these.
func TestNATSConfirmsWhatIsOnDisk(t *testing.T) {
	n, err := StartNATS(NATSConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0", MaxStore: 123 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Stop()
	config := n.server.JetStreamConfig()
	if !config.SyncAlways {
		t.Error("the store does not sync before it confirms")
	}
	if config.MaxStore != 123<<20 {
		t.Errorf("the store takes %d bytes", config.MaxStore)
	}
}
