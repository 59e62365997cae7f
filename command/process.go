package command

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/casteloig/logthra/ingester"
	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/config"
	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/telemetry"
	"github.com/casteloig/logthra/shared/wal"
)

// retryEngine is how often a role tries to reach an engine at its start.
const retryEngine = 2 * time.Second

// process is a role that runs: what it has started, to be stopped in reverse.
type process struct {
	env      *environment
	log      *slog.Logger
	began    time.Time
	failed   chan error // a server that ended by itself
	stops    []func(context.Context)
	natsName string
	natsAPI  string // wal.Config.APIPrefix
	connect  func(...nats.Option) (*nats.Conn, error)

	mu    sync.Mutex
	inUse map[string]string // addresses, by their names in status
}

// run is the life of a role: what start has started runs until the process is told to end, or a part of it
// fails, and is then stopped within drain. Nothing that was answered is lost where that time is too short: the
// next start lands it.
func (env *environment) run(drain time.Duration, start func(*process) error) error {
	p := &process{env: env, log: env.log, began: time.Now(), inUse: map[string]string{}, failed: make(chan error, 8)}
	err := start(p)
	if err != nil {
		p.stop(drain)
		if env.ctx.Err() != nil {
			p.log.Info("told to end before it was ready", "error", err)
			err = nil
		}
		return err
	}
	select {
	case <-env.ctx.Done():
		p.log.Info("shutting down; a second signal ends at once")
	case err = <-p.failed:
	}
	began := time.Now()
	if p.stop(drain) {
		p.log.Info("stopped", since(began))
	} else {
		p.log.Warn("not all could be stopped in time; what has not landed will after the next start", "drain_timeout", drain.String())
	}
	return err
}

// ready says that the role has started, and where it is reached.
func (p *process) ready(more ...slog.Attr) {
	at := p.addresses()
	attrs := []slog.Attr{since(p.began)}
	for _, name := range slices.Sorted(maps.Keys(at)) {
		attrs = append(attrs, slog.String(strings.ReplaceAll(name, "-", "_"), at[name]))
	}
	p.log.LogAttrs(context.Background(), slog.LevelInfo, "ready", append(attrs, more...)...)
}

// since is how long something took, in a log line.
func since(began time.Time) slog.Attr {
	return slog.Float64("seconds", time.Since(began).Round(time.Millisecond).Seconds())
}

// address keeps an address that the process is reached under, or reaches.
func (p *process) address(name, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inUse[name] = address
}

// addresses are those in use so far.
func (p *process) addresses() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.inUse)
}

// onStop adds what is to be done, before all that was added earlier, when the process ends.
func (p *process) onStop(stop func(context.Context)) { p.stops = append(p.stops, stop) }

// stop stops what was started, the last first. It returns false after the timeout, whatever is left: the end of
// the process stops that.
func (p *process) stop(timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for _, stop := range slices.Backward(p.stops) {
			stop(ctx)
		}
	}()
	select {
	case <-stopped:
		return true
	case <-ctx.Done():
		return false
	}
}

// lock takes a directory for this process.
func (p *process) lock(dir string) error {
	lock, err := embedded.LockDataDir(dir)
	if err != nil {
		return err
	}
	p.onStop(func(context.Context) {
		if err := lock.Close(); err != nil {
			p.log.Warn("unlocking the data directory failed", "error", err)
		}
	})
	return nil
}

// startClickHouse starts an embedded ClickHouse in the data directory and returns its DSN.
func (p *process) startClickHouse(dataDir string, cfg config.ClickHouseServer) (dsn string, err error) {
	dir := filepath.Join(dataDir, "clickhouse")
	if err := p.lock(dir); err != nil {
		return "", err
	}
	library, err := embedded.Library(p.env.ctx, os.Stderr)
	if err != nil {
		return "", err
	}
	server, err := embedded.StartClickHouse(p.env.ctx, embedded.ClickHouseConfig{
		Dir: dir, Listen: cfg.ClickHouseListen, HTTPListen: cfg.ClickHouseHTTPListen,
		Memory: int64(cfg.ClickHouseMemory), Library: library, Logger: p.log.With("engine", "clickhouse"),
	})
	if err != nil {
		return "", err
	}
	p.onStop(server.Stop)
	p.address("clickhouse", server.Addr())
	p.address("clickhouse-http", server.HTTPAddr())
	return server.DSN(), nil
}

// startNATS starts an embedded NATS in the data directory, which the process then uses.
func (p *process) startNATS(dataDir string, cfg config.NATSServer, maxStore int64) error {
	dir := filepath.Join(dataDir, "nats")
	if err := p.lock(dir); err != nil {
		return err
	}
	server, err := embedded.StartNATS(embedded.NATSConfig{
		Dir: dir, Listen: cfg.NATSListen, MaxStore: maxStore, Logger: p.log.With("engine", "nats"),
	})
	if err != nil {
		return err
	}
	p.onStop(func(context.Context) { server.Stop() })
	p.natsName, p.connect = strings.TrimPrefix(server.URL(), "nats://"), server.Conn
	p.address("nats", p.natsName)
	return nil
}

// useNATS makes the process use an existing NATS.
func (p *process) useNATS(cfg config.NATS) error {
	hosts, err := natsHosts(cfg.NATSURL)
	if err != nil {
		return err
	}
	with, err := cfg.Options()
	if err != nil {
		return err
	}
	p.address("nats", hosts)
	p.natsName, p.natsAPI = hosts, cfg.APIPrefix()
	p.connect = func(options ...nats.Option) (*nats.Conn, error) {
		return nats.Connect(cfg.NATSURL, append(with, options...)...)
	}
	return nil
}

// natsHosts are the servers of a NATS URL, or of a list of them, without what is secret: users, passwords and
// tokens. Its error does not quote the URL either.
func natsHosts(urls string) (string, error) {
	var hosts []string
	for server := range strings.SplitSeq(urls, ",") {
		server = strings.TrimSpace(server)
		if !strings.Contains(server, "://") { // nats.go takes it, too
			server = "nats://" + server
		}
		parsed, err := url.Parse(server)
		if err != nil || parsed.Host == "" {
			return "", errors.New("--nats-url is not of the form nats://user:password@host:4222")
		}
		hosts = append(hosts, parsed.Host)
	}
	return strings.Join(hosts, ","), nil
}

// useClickHouse makes the process use an existing ClickHouse.
func (p *process) useClickHouse(dsn string) error {
	hosts, err := store.Hosts(dsn)
	if err != nil {
		return err
	}
	p.address("clickhouse", strings.Join(hosts, ","))
	return nil
}

// openWAL connects to NATS and opens the WAL. It tries until it succeeds or the process is told to end.
func (p *process) openWAL(name string, cfg config.WAL) (*wal.WAL, error) {
	log := p.log.With("engine", "nats")
	var w *wal.WAL
	err := p.untilReached(p.env.ctx, log, func(ctx context.Context) error {
		conn, err := p.connect(
			nats.Name("logthra "+name),
			nats.MaxReconnects(-1),
			nats.IgnoreAuthErrorAbort(), // a password that is being changed is no reason to give up for good
			nats.ReconnectWait(250*time.Millisecond),
			nats.ReconnectBufSize(-1),                                     // a push fails at once while NATS is away, rather than wait in memory
			nats.PingInterval(2*time.Second), nats.MaxPingsOutstanding(2), // a server that is frozen is left after 6 s at most
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil {
					log.Warn("disconnected; connecting again", "error", err)
				}
			}),
			nats.ReconnectHandler(func(*nats.Conn) { log.Info("connected again") }),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("NATS reports an error", "error", err) }),
		)
		if err != nil {
			return fmt.Errorf("NATS at %s: %w", p.natsName, err)
		}
		w, err = wal.Open(ctx, conn, wal.Config{
			Shards: cfg.Shards, Replicas: cfg.Replicas, MaxBytes: int64(cfg.WALMaxBytes), DedupWindow: cfg.DedupWindow,
			Placement: cfg.Placement(), APIPrefix: p.natsAPI,
		}, log)
		if err != nil {
			conn.Close()
			return err
		}
		following, stop := context.WithCancel(context.Background())
		var done sync.WaitGroup
		done.Go(func() { w.Follow(following) })
		p.onStop(func(context.Context) {
			stop()
			conn.Close()
			done.Wait()
		})
		return nil
	})
	return w, err
}

// openStore opens ClickHouse, which need not be there yet.
func (p *process) openStore(cfg config.ClickHouse, connections int) (*store.Store, error) {
	s, err := store.Open(store.Config{
		DSN: cfg.ClickHouseDSN, Connections: connections, Cluster: cfg.ClickHouseCluster, Quorum: cfg.InsertQuorum,
	}, p.log.With("engine", "clickhouse"))
	if err != nil {
		return nil, err
	}
	p.onStop(func(context.Context) { _ = s.Close() })
	return s, nil
}

// untilReached tries to reach an engine until it succeeds or ctx ends, and says why it can't.
func (p *process) untilReached(ctx context.Context, log *slog.Logger, reach func(context.Context) error) error {
	said := ""
	for {
		err := reach(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("ended before the engines were reached: %w", err)
		}
		if err.Error() != said {
			said = err.Error()
			log.Warn("not there yet; it is tried again", "every", retryEngine.String(), "error", err)
		}
		select {
		case <-time.After(retryEngine):
		case <-ctx.Done():
		}
	}
}

// startIngester starts an ingester between the WAL and ClickHouse. It is there at once, so that it can be asked
// what it waits for; migrated is closed when ClickHouse was reached and has its schema.
func (p *process) startIngester(
	cfg config.Ingester, drain config.Drain, tracer trace.Tracer, w *wal.WAL, s *store.Store, retention time.Duration,
) (migrated <-chan struct{}, err error) {
	rpc, err := listen("--ingester-listen", cfg.IngesterListen)
	if err != nil {
		return nil, err
	}
	web, err := listen("--ingester-http-listen", cfg.IngesterHTTPListen)
	if err != nil {
		return nil, errors.Join(err, rpc.Close())
	}
	// An end has two parts, to land the WAL and to hand the shards back, and the servers need some time, too.
	part := drain.DrainTimeout / 3
	registry := telemetry.Registry(p.env.version)
	in := ingester.New(ingester.Config{
		ID: processID(), GRPC: p.reachedAt(rpc.Addr()),
		FlushInterval: cfg.FlushInterval, FlushRows: cfg.FlushRows, FlushBytes: int(cfg.FlushBytes),
		BufferBytes: int64(cfg.BufferBytes), ReplayWindow: cfg.ReplayWindow, OwnerTimeout: cfg.OwnerTimeout,
		DrainTimeout: part, Tracer: tracer,
	}, w, s, ingester.NewMetrics(registry), p.log)
	p.onStop(together( // after the shards have been handed back: who drains can be asked how far it is
		p.serveGRPC("ingester", rpc, health.NewServer(), func(server *grpc.Server) {
			logthrav1.RegisterIngesterServiceServer(server, &ingester.Service{Ingester: in, Version: p.env.version, Addresses: p.addresses})
		}),
		p.serveHTTP("ingester-http", web, ingesterHandler(in, registry), nil),
	))
	ctx, cancel := context.WithCancel(context.Background())
	done, reached := make(chan struct{}), make(chan struct{})
	reach, giveUp := context.WithCancel(p.env.ctx)
	context.AfterFunc(ctx, giveUp)
	go func() {
		defer close(done)
		migrate := func(ctx context.Context) error { return s.Migrate(ctx, retention) }
		if p.untilReached(reach, p.log.With("engine", "clickhouse"), migrate) != nil {
			return // the process is told to end, or ends
		}
		close(reached)
		if err := in.Run(ctx); err != nil {
			p.failed <- err
		}
	}()
	p.onStop(func(ctx context.Context) {
		// What was answered before the end is better landed now than after the next start; it is safe either way.
		flush, stop := context.WithTimeout(ctx, part)
		defer stop()
		if _, err := in.Flush(flush); err != nil {
			p.log.Warn("not all of the WAL landed before the end; it will after the next start", "error", err)
		}
		cancel()
		<-done
	})
	return reached, nil
}

// reachedAt is where the other processes reach an address that is listened on: of one that stands for all of this machine, the one towards NATS,
// which all of them use.
func (p *process) reachedAt(address net.Addr) string {
	listened, ok := address.(*net.TCPAddr)
	if !ok || !listened.IP.IsUnspecified() {
		return address.String()
	}
	towards, _, _ := strings.Cut(p.natsName, ",")
	if _, _, err := net.SplitHostPort(towards); err != nil {
		towards = net.JoinHostPort(strings.Trim(towards, "[]"), strconv.Itoa(nats.DefaultPort))
	}
	conn, err := net.Dial("udp", towards) //nolint:noctx // it sends nothing, and waits for a name at most
	if err != nil {
		return address.String() // gateways read the WAL instead
	}
	defer conn.Close()
	host, _, _ := net.SplitHostPort(conn.LocalAddr().String())
	return net.JoinHostPort(host, strconv.Itoa(listened.Port))
}

// await waits for something that a start needs, unless the process is told to end or a part of it fails first.
func (p *process) await(done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case err := <-p.failed:
		return err
	case <-p.env.ctx.Done():
		return p.env.ctx.Err()
	}
}

// ingesterHandler is the HTTP of an ingester.
func ingesterHandler(in *ingester.Ingester, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := in.Ready(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ready")
	})
	return mux
}

// processID is unique to this process, and says where it runs.
func processID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	// One token of a NATS subject.
	host = strings.Map(func(r rune) rune {
		if strings.ContainsRune(".*> \t", r) {
			return '-'
		}
		return r
	}, host)
	var unique [4]byte
	_, _ = rand.Read(unique[:])
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), hex.EncodeToString(unique[:]))
}
