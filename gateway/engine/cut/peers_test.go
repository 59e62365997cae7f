package cut

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/wal"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Main(m)) }

// There is one connection to each ingester, and none to one that is gone.
func TestPeers(t *testing.T) {
	conn, err := enginetest.NATS(t).Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	quiet := slog.New(slog.DiscardHandler)
	w, err := wal.Open(t.Context(), conn, wal.Config{Shards: 1, Replicas: 1, MaxBytes: 1 << 30, DedupWindow: time.Minute}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(t.Context(), w, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.peers.to("a") != nil {
		t.Error("nobody is known, and there is a connection")
	}
	members, err := w.Join(t.Context(), "a", wal.Member{GRPC: "127.0.0.1:1"}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	await := func(isKnown bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if _, known := c.owners.Member("a"); known == isKnown {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("not within a minute")
			}
		}
	}
	await(true)
	p := c.peers.to("a")
	if p == nil || c.peers.to("a") != p {
		t.Fatal("there is not one connection")
	}
	p.avoid()
	if c.peers.to("a") != nil {
		t.Error("one that was too slow is asked at once again")
	}
	c.peers.closeGone()
	if p.conn.GetState() == connectivity.Shutdown {
		t.Error("a connection to one that lives was closed")
	}
	if err := members.Leave(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	await(false)
	c.peers.closeGone()
	if p.conn.GetState() != connectivity.Shutdown || len(c.peers.all) != 0 {
		t.Error("a connection to one that is gone was not closed")
	}
}
