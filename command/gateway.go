package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"

	"github.com/casteloig/logthra/gateway"
	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/query"
	"github.com/casteloig/logthra/gateway/syslog"
	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/certs"
	"github.com/casteloig/logthra/shared/config"
	"github.com/casteloig/logthra/shared/telemetry"
	"github.com/casteloig/logthra/shared/wal"
)

// startGateway starts a gateway on the WAL.
func (p *process) startGateway(
	cfg config.Gateway, queries config.Query, rows config.Rows, drainDelay time.Duration, tracer trace.Tracer, w *wal.WAL,
) error {
	registry := telemetry.Registry(p.env.version)
	directory, err := p.tenants(cfg, registry)
	if err != nil {
		return err
	}
	reloader, err := p.certificates(cfg, registry)
	if err != nil {
		return err
	}
	presence, err := w.Announce(processID())
	if err != nil {
		return err
	}
	p.onStop(func(context.Context) { presence.Close() })
	answering, err := p.startQueries(queries, rows, w, registry)
	if err != nil {
		return err
	}
	_, concurrency := queries.Concurrency()
	g := gateway.New(gateway.Config{
		Limits:           decode.Limits{MaxLineBytes: int(cfg.MaxLineBytes), MaxPushBytes: int(cfg.MaxPushBytes)},
		MaxInflightBytes: int64(cfg.MaxInflightBytes),
		PushTimeout:      cfg.PushTimeout,
		Tenants:          directory,
		DefaultTenant:    cfg.DefaultTenant,
		Live:             presence.Live,
		Tracer:           tracer,
		Query:            answering,
		QueryLimits: tenant.QueryLimits{
			Timeout: queries.QueryTimeout, MaxEntries: queries.QueryMaxEntries, MaxRange: queries.QueryMaxRange, MaxSeries: queries.QueryMaxSeries,
			MaxBytes: int64(queries.QueryMaxBytes), MaxMemory: int64(queries.QueryMaxMemory), Concurrency: concurrency, MaxTails: queries.TailMaxConns,
		},
	}, w, gateway.NewMetrics(registry, cfg.MetricsTenants), p.log)

	web, err := listen("--http-listen", cfg.HTTPListen)
	if err != nil {
		return err
	}
	rpc, err := listen("--grpc-listen", cfg.GRPCListen)
	if err != nil {
		return errors.Join(err, web.Close())
	}
	options := g.ServerOptions()
	if reloader != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(reloader.ServerConfig())))
	}
	healthy := health.NewServer()
	stops := []func(context.Context){
		p.serveHTTP("http", web, g.Handler(registry), reloader),
		p.serveGRPC("grpc", rpc, healthy, func(server *grpc.Server) { g.RegisterPush(server) }, options...),
	}
	syslogMetrics := syslog.NewMetrics(registry)
	for _, text := range cfg.SyslogListen {
		stop, err := p.serveSyslog(text, cfg, g, syslogMetrics, reloader)
		if err != nil {
			p.onStop(together(stops...))
			return err
		}
		stops = append(stops, stop)
	}
	stops = append(stops, func(context.Context) { answering.Close() }) // a server does not end WebSockets
	p.onStop(together(stops...))
	p.onStop(func(ctx context.Context) {
		g.Drain()
		healthy.Shutdown()
		select {
		case <-time.After(drainDelay):
		case <-ctx.Done():
		}
	})
	return nil
}

// startQueries starts what answers queries. Without a ClickHouse to ask, it says so to whoever asks.
func (p *process) startQueries(cfg config.Query, rows config.Rows, w *wal.WAL, registry prometheus.Registerer) (*query.API, error) {
	concurrency, _ := cfg.Concurrency()
	answering := query.Config{Concurrency: concurrency, MaxQueued: cfg.QueryMaxQueued, Version: p.env.version}
	if rows.ClickHouseDSN != "" {
		s, err := p.openStore(config.ClickHouse{Rows: rows, InsertQuorum: "auto"}, concurrency)
		if err != nil {
			return nil, err
		}
		cutter, err := cut.New(p.env.ctx, w, p.log)
		if err != nil {
			return nil, fmt.Errorf("what is not in ClickHouse yet can't be read: %w", err)
		}
		p.onStop(func(context.Context) { cutter.Close() })
		registry.MustRegister(cutter)
		answering.Engine = engine.New(engine.Config{Store: s, Cut: cutter, WAL: w, Log: p.log})
	}
	return query.New(answering, query.NewMetrics(registry), p.log), nil
}

// tenants returns who may push: nil where anybody may, of which it warns.
func (p *process) tenants(cfg config.Gateway, registry prometheus.Registerer) (func() *tenant.Directory, error) {
	if cfg.TenantsFile != "" {
		watcher, err := tenant.Watch(cfg.TenantsFile, p.log, registry)
		if err != nil {
			return nil, fmt.Errorf("--tenants-file: %w", err)
		}
		p.onStop(func(context.Context) { watcher.Close() })
		return watcher.Directory, nil
	}
	for _, address := range []string{cfg.HTTPListen, cfg.GRPCListen} {
		if !isLoopback(address) {
			p.log.Warn("whoever reaches this gateway may push and read as any tenant; --tenants-file says who may", "listen", address)
		}
	}
	return func() *tenant.Directory { return nil }, nil
}

// isLoopback tells whether only this machine reaches an address.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// certificates returns those that the gateway serves; nil where it speaks without TLS.
func (p *process) certificates(cfg config.Gateway, registry prometheus.Registerer) (*certs.Reloader, error) {
	if cfg.TLSCertFile == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	reloader, err := certs.Open(certs.Files{
		Cert: cfg.TLSCertFile, Key: cfg.TLSKeyFile, ClientCA: cfg.TLSClientCAFile, Optional: cfg.TLSClientAuth == "optional",
	}, p.log, "h2", "http/1.1")
	if err != nil {
		return nil, err
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "logthra_tls_certificate_expiry_timestamp_seconds", Help: "When the TLS certificate that is served ends.",
	}, func() float64 { return float64(reloader.Expiry().Unix()) }))
	return reloader, nil
}

// serveSyslog listens as one value of --syslog-listen says, until what it returns is called.
func (p *process) serveSyslog(
	text string, cfg config.Gateway, g *gateway.Gateway, metrics *syslog.Metrics, reloader *certs.Reloader,
) (stop func(context.Context), err error) {
	at, err := config.ParseSyslog(text)
	if err != nil {
		return nil, fmt.Errorf("--syslog-listen: %w", err)
	}
	switch {
	case at.Network == "tls" && reloader == nil:
		return nil, fmt.Errorf("--syslog-listen %s: --tls-cert-file is needed", text)
	case at.Tenant != "":
	case cfg.TenantsFile == "" && cfg.DefaultTenant == "":
		return nil, fmt.Errorf("--syslog-listen %s: whose messages are they? Add ?tenant=NAME, or --default-tenant", text)
	case cfg.TenantsFile != "" && (at.Network != "tls" || cfg.TLSClientCAFile == ""):
		return nil, fmt.Errorf("--syslog-listen %s: whose messages are they? Add ?tenant=NAME, or tls:// with --tls-client-ca-file", text)
	}
	settings := g.Syslog(at.Tenant)
	settings.MaxConnections = cfg.SyslogMaxConns
	server := syslog.New(settings, metrics, p.log.With("syslog", at.Network))
	var serve func(context.Context) error
	var address net.Addr
	if at.Network == "udp" {
		conn, err := net.ListenPacket("udp", at.Address) //nolint:noctx // binding does not wait
		if err != nil {
			return nil, fmt.Errorf("--syslog-listen %s: %w", text, err)
		}
		address, serve = conn.LocalAddr(), func(ctx context.Context) error { return server.ServePacket(ctx, conn) }
	} else {
		listener, err := listen("--syslog-listen", at.Address)
		if err != nil {
			return nil, err
		}
		address = listener.Addr()
		if at.Network == "tls" {
			listener = reloader.Listener(listener)
		}
		serve = func(ctx context.Context) error { return server.ServeStream(ctx, listener) }
	}
	p.address(strings.TrimSuffix("syslog-"+at.Network+"-"+at.Tenant, "-"), address.String())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := serve(ctx); err != nil && ctx.Err() == nil {
			p.failed <- fmt.Errorf("syslog on %s: %w", address, err)
		}
	}()
	return func(context.Context) {
		cancel()
		<-done
	}, nil
}
