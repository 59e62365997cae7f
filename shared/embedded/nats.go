package embedded

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	defaultNATSListen = "127.0.0.1:4222"

	// MaxPayload is the largest message that the embedded NATS takes, in bytes.
	MaxPayload = 16 << 20
	// maxPending is how many bytes may wait for a slow connection before it is
	// cut off: an ingester's pull of many large records at once must fit.
	maxPending = 16 * MaxPayload

	natsStartTimeout = 10 * time.Second // from a recovered store to the first connection
)

// NATSConfig says how an embedded NATS runs.
type NATSConfig struct {
	Dir      string       // its streams, in jetstream/ below it
	Listen   string       // host:port; empty means 127.0.0.1:4222, port 0 any free one
	MaxStore int64        // bytes that the limits of all streams may add up to; 0 leaves it to the server: 3/4 of the free disk
	Logger   *slog.Logger // gets warnings and errors, and the rest at debug; nil means slog.Default()
}

// NATS is a NATS server with JetStream inside this process. It confirms a
// message only when it is on disk.
type NATS struct {
	server *server.Server
}

// StartNATS starts a server and returns when it takes connections. It fails
// when the address is taken or Dir can't be written to.
func StartNATS(config NATSConfig) (*NATS, error) {
	if err := makeWritable(config.Dir); err != nil {
		return nil, err
	}
	listener, err := reserve("--nats-listen", cmp.Or(config.Listen, defaultNATSListen))
	if err != nil {
		return nil, err
	}
	addr := listener.Addr().(*net.TCPAddr)
	_ = listener.Close()

	s, err := server.NewServer(&server.Options{
		ServerName:             "logthra",
		Host:                   addr.IP.String(),
		Port:                   addr.Port,
		JetStream:              true,
		StoreDir:               config.Dir,
		JetStreamMaxStore:      config.MaxStore,
		SyncAlways:             true, // the default flushes every two minutes
		MaxPayload:             MaxPayload,
		MaxPending:             maxPending,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	logger := &natsLogger{logger: cmp.Or(config.Logger, slog.Default())}
	s.SetLoggerV2(logger, false, false, false)
	s.Start()
	spare.Do(spareProcessors)
	n := &NATS{server: s}
	for deadline := time.Now().Add(natsStartTimeout); !s.ReadyForConnections(100 * time.Millisecond); {
		err := logger.fatal()
		if err == nil && time.Now().After(deadline) {
			err = fmt.Errorf("no connections within %s", natsStartTimeout)
		}
		if err != nil {
			n.Stop()
			return nil, fmt.Errorf("start NATS: %w", err)
		}
	}
	return n, nil
}

// syncs is how many streams may wait for the disk at a time, as many as a WAL has shards by default, while as many processors as
// the machine has go on: Go's scheduler takes away the one that a goroutine in an fsync holds only after a while. With two
// cores, small pushes are a third faster for it (docs/performance.md).
const syncs = 4

var spare sync.Once

// spareProcessors gives the scheduler processors for those that wait, unless the environment says how many there are.
func spareProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + syncs)
	}
}

// URL returns where other processes connect to, nats://host:port.
func (n *NATS) URL() string { return n.server.ClientURL() }

// Conn connects to the server without going over the network. The caller
// closes the connection.
func (n *NATS) Conn(options ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append(options, nats.InProcessServer(n.server))...)
}

// Stop closes all connections and the store and returns when that is done.
// Stopping twice is allowed.
func (n *NATS) Stop() {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

// natsLogger hands the server's log lines to slog. The server goes on after
// what it calls fatal, so the first such line is kept for StartNATS.
type natsLogger struct {
	logger *slog.Logger

	mu    sync.Mutex // guards first
	first error
}

func (l *natsLogger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *natsLogger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = cmp.Or(l.first, fmt.Errorf(format, args...))
}

func (l *natsLogger) Warnf(format string, args ...any) {
	if !strings.HasPrefix(format, "Maximum payloads over") { // ours are, on purpose
		l.log(slog.LevelWarn, format, args)
	}
}

func (l *natsLogger) Errorf(format string, args ...any)  { l.log(slog.LevelError, format, args) }
func (l *natsLogger) Noticef(format string, args ...any) { l.log(slog.LevelDebug, format, args) }
func (l *natsLogger) Debugf(format string, args ...any)  { l.log(slog.LevelDebug, format, args) }
func (l *natsLogger) Tracef(format string, args ...any)  { l.log(slog.LevelDebug, format, args) }

func (l *natsLogger) log(level slog.Level, format string, args []any) {
	l.logger.Log(context.Background(), level, "embedded NATS", "line", strings.TrimSpace(fmt.Sprintf(format, args...)))
}
