package embedded_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

func jetStream(t *testing.T, n *embedded.NATS) jetstream.JetStream {
	t.Helper()
	conn, err := n.Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestNATSKeepsMessagesOverRestart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the client's default of 5 seconds is little for a busy machine
	defer cancel()
	dir := t.TempDir()
	start := func(listen string) *embedded.NATS {
		n, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Listen: listen, MaxStore: 1 << 30, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Stop)
		return n
	}
	n := start(anyPort)
	js := jetStream(t, n)
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "s", Subjects: []string{"s.>"}, MaxBytes: 256 << 20, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	largest := bytes.Repeat([]byte("x"), embedded.MaxPayload)
	for _, data := range [][]byte{[]byte("first"), largest} {
		if _, err := js.Publish(ctx, "s.1", data); err != nil {
			t.Fatal(err)
		}
	}
	url := n.URL()
	n.Stop()
	n.Stop()

	again := start(url[len("nats://"):])
	if again.URL() != url {
		t.Errorf("URL is %s, was %s", again.URL(), url)
	}
	stream, err := jetStream(t, again).Stream(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State; got.Msgs != 2 || got.LastSeq != 2 {
		t.Errorf("state after restart: %+v", got)
	}
	message, err := stream.GetMsg(ctx, 2)
	if err != nil || !bytes.Equal(message.Data, largest) {
		t.Errorf("the last message is not what was published (%v)", err)
	}
}

func TestNATSOverTheNetwork(t *testing.T) {
	n := enginetest.NATS(t)
	conn, err := nats.Connect(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.MaxPayload(); got != embedded.MaxPayload {
		t.Errorf("max payload is %d", got)
	}
}

func TestNATSAddressTaken(t *testing.T) {
	taken, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = embedded.StartNATS(embedded.NATSConfig{Dir: t.TempDir(), Listen: taken.Addr().String()})
	wantError(t, err, taken.Addr().String(), "already in use", "--nats-listen")
	_, err = embedded.StartNATS(embedded.NATSConfig{Dir: t.TempDir(), Listen: "nonsense"})
	wantError(t, err, "nonsense", "--nats-listen")
}

func TestNATSUnwritableDir(t *testing.T) {
	for name, dir := range unwritable(t) {
		t.Run(name, func(t *testing.T) {
			_, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Listen: anyPort})
			wantError(t, err, dir, "--data-dir")
		})
	}
	// What only the server finds out is told as well, and at once.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Listen: anyPort})
	wantError(t, err, "start NATS", "JetStream")
}

// A damaged store must be the server's to report, not a panic of our process.
func TestNATSDamagedStore(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	var logged bytes.Buffer
	config := embedded.NATSConfig{Dir: dir, Listen: anyPort, Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	n, err := embedded.StartNATS(config)
	if err != nil {
		t.Fatal(err)
	}
	js := jetStream(t, n)
	for _, name := range []string{"good", "bad"} {
		if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}}); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(ctx, name, []byte("kept")); err != nil {
			t.Fatal(err)
		}
	}
	n.Stop()
	garbage := bytes.Repeat([]byte{0xff, 0x00, 0x13}, 1000)
	damaged := 0
	for _, pattern := range []string{"meta.inf", "msgs/*"} {
		files, _ := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "bad", pattern))
		for _, file := range files {
			damaged++
			if err := os.WriteFile(file, garbage, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if damaged < 2 {
		t.Fatalf("found %d files to damage", damaged)
	}

	if n, err = embedded.StartNATS(config); err != nil {
		t.Fatal(err)
	}
	stream, err := jetStream(t, n).Stream(ctx, "good")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Msgs; got != 1 {
		t.Errorf("the good stream has %d messages", got)
	}
	n.Stop() // before the log is read
	if !bytes.Contains(logged.Bytes(), []byte("bad")) {
		t.Errorf("nothing was logged about the damage: %s", logged.Bytes())
	}
}
