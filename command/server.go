package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // what exporters compress with
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/casteloig/logthra/shared/certs"
)

// Bounds of a connection: a client that takes longer is cut off.
const (
	headerTimeout = 10 * time.Second // also of the beginning of a gRPC connection
	readTimeout   = time.Minute      // of a request, its body included
	idleTimeout   = 2 * time.Minute
)

// maxHeader is the most bytes of a request's headers.
const maxHeader = 64 << 10

// maxStreams is how many calls a gRPC connection may have under way.
const maxStreams = 128

// serverGrace is how long a server that stops waits for the requests that are under way.
const serverGrace = 5 * time.Second

// listen listens on an address that a flag gave.
func listen(flag, address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address) //nolint:noctx // binding does not wait
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another program; stop it or choose another address with %s", address, flag)
	}
	if err != nil {
		if opError := (*net.OpError)(nil); errors.As(err, &opError) {
			err = opError.Err // without the address, again
		}
		return nil, fmt.Errorf("%s %s is no host:port to listen on here: %w", flag, address, err)
	}
	return listener, nil
}

// serveHTTP serves until what it returns is called, over TLS where there are certificates. name is the address's in status.
func (p *process) serveHTTP(name string, listener net.Listener, handler http.Handler, reloader *certs.Reloader) (stop func(context.Context)) {
	p.address(name, listener.Addr().String())
	server := httpServer(handler, p.log)
	serve := server.Serve
	if reloader != nil {
		server.TLSConfig = reloader.ServerConfig()
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	go func() {
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			p.failed <- fmt.Errorf("HTTP on %s: %w", listener.Addr(), err)
		}
	}()
	return func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, serverGrace)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			_ = server.Close()
		}
	}
}

// httpServer is a server whose connections are bounded in time, so that slow clients can't hold them for ever, and in the
// size of their headers.
func httpServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// serveGRPC serves what register adds, which healthy then says of, and reflection until what it returns is called. name is the
// address's in status.
func (p *process) serveGRPC(
	name string, listener net.Listener, healthy *health.Server, register func(*grpc.Server), options ...grpc.ServerOption,
) (stop func(context.Context)) {
	p.address(name, listener.Addr().String())
	server := grpc.NewServer(append(options,
		grpc.ConnectionTimeout(headerTimeout), grpc.MaxHeaderListSize(maxHeader), grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: idleTimeout, Timeout: headerTimeout}),
	)...)
	register(server)
	for service := range server.GetServiceInfo() {
		healthy.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(server, healthy)
	reflection.Register(server)
	go func() {
		if err := server.Serve(listener); err != nil {
			p.failed <- fmt.Errorf("gRPC on %s: %w", listener.Addr(), err)
		}
	}()
	return func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, serverGrace)
		defer cancel()
		healthy.Shutdown()
		unneeded := context.AfterFunc(ctx, server.Stop) // who watches the health never hangs up
		defer unneeded()
		server.GracefulStop()
	}
}

// together stops at the same time what does not need each other.
func together(stops ...func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		var stopping sync.WaitGroup
		for _, stop := range stops {
			stopping.Go(func() { stop(ctx) })
		}
		stopping.Wait()
	}
}
