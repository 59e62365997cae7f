package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/semaphore"
)

// server is a ClickHouse server, or some of which any will do. What is asked now and then goes through the driver's
// pool of connections. Inserts of rows, and the rows of queries, have connections of their own, of the client that the driver is built on: to
// that one columns are bytes, which it passes on as they are, where the driver would take them apart into values and build them again.
type server struct {
	driver.Conn

	options *clickhouse.Options
	dials   atomic.Uint64 // how often a connection was dialed, for taking turns

	mu     sync.Mutex
	idle   []*connection
	closed bool
}

// connection is one for rows, in and out.
type connection struct {
	*ch.Client

	since time.Time
	packs bool // it compresses what it sends
}

// packing bounds how many inserts are compressed at a time: each is in memory as a whole for it, and the connection would keep
// that memory.
var packing = semaphore.NewWeighted(2)

func openServer(options clickhouse.Options) (*server, error) {
	queries := options
	if queries.Compression == nil {
		queries.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	conn, err := clickhouse.Open(&queries)
	if err != nil {
		return nil, fmt.Errorf("ClickHouse: %w", err)
	}
	return &server{Conn: conn, options: &options}, nil
}

// Close closes all connections that are not in use; those that are, when they are not any more.
func (s *server) Close() error {
	s.mu.Lock()
	s.closed = true
	idle := s.idle
	s.idle = nil
	s.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
	return s.Conn.Close()
}

// insert inserts a batch over a connection of its own. That is used again only after a success: where an insert breaks off it is
// closed, and ClickHouse throws away what it got.
func (s *server) insert(ctx context.Context, e *encoder, query ch.Query) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	conn, err := s.connect(ctx)
	if err != nil {
		return asException(err)
	}
	if conn.packs {
		if err := packing.Acquire(ctx, 1); err != nil {
			_ = conn.Close()
			return err
		}
		defer packing.Release(1)
	}
	e.abort = func() { _ = conn.Close() }
	stop := context.AfterFunc(ctx, e.abort)
	err = conn.Do(ctx, query)
	stop()
	if err = errors.Join(e.err, err); err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), asException(err))
		}
		return asException(err)
	}
	if conn.packs && e.batch.Width() > maxPooled {
		_ = conn.Close()
		return nil
	}
	s.keep(conn)
	return nil
}

// keep keeps a connection for the next one that needs it.
func (s *server) keep(conn *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.idle) >= s.options.MaxIdleConns || conn.IsClosed() {
		_ = conn.Close()
		return
	}
	s.idle = append(s.idle, conn)
}

// connect returns a connection that answers: one that is idle, or a new one.
func (s *server) connect(ctx context.Context) (*connection, error) {
	for {
		s.mu.Lock()
		if len(s.idle) == 0 {
			s.mu.Unlock()
			return s.dial(ctx)
		}
		conn := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		s.mu.Unlock()
		ping, cancel := context.WithTimeout(ctx, s.options.DialTimeout)
		err := conn.Ping(ping)
		cancel()
		if err == nil && time.Since(conn.since) < s.options.ConnMaxLifetime {
			return conn, nil
		}
		_ = conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// dial connects to the first of the addresses that takes the connection, in the order that the DSN asks for.
func (s *server) dial(ctx context.Context) (*connection, error) {
	addresses := slices.Clone(s.options.Addr)
	switch s.options.ConnOpenStrategy {
	case clickhouse.ConnOpenRandom:
		rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	case clickhouse.ConnOpenRoundRobin:
		turn := int(s.dials.Add(1) % uint64(len(addresses)))
		addresses = slices.Concat(addresses[turn:], addresses[:turn])
	}
	var failed []error
	for _, address := range addresses {
		method := compression(s.options, address)
		conn, err := ch.Dial(ctx, ch.Options{
			Address: address, Database: s.options.Auth.Database, User: s.options.Auth.Username, Password: s.options.Auth.Password,
			Compression: method, ClientName: "logthra", Settings: settingsOf(s.options.Settings),
			TLS: s.options.TLS, DialTimeout: s.options.DialTimeout, HandshakeTimeout: s.options.DialTimeout,
			ReadTimeout: time.Second, // how often it looks whether the context has ended
		})
		if err == nil {
			return &connection{conn, time.Now(), method != ch.CompressionDisabled}, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// compression is what the DSN asks for, or else none to a server on this machine, and LZ4 to others: it costs both sides CPU for
// what it saves of the network.
func compression(options *clickhouse.Options, address string) ch.Compression {
	if options.Compression != nil {
		switch options.Compression.Method {
		case clickhouse.CompressionNone:
			return ch.CompressionDisabled
		case clickhouse.CompressionZSTD:
			return ch.CompressionZSTD
		case clickhouse.CompressionLZ4HC:
			return ch.CompressionLZ4HC
		default:
			return ch.CompressionLZ4
		}
	}
	if host, _, err := net.SplitHostPort(address); err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback()) {
		return ch.CompressionDisabled
	}
	return ch.CompressionLZ4
}

// settingsOf are settings as the client for inserts takes them.
func settingsOf(settings clickhouse.Settings) (all []ch.Setting) {
	for key, value := range settings {
		custom, isCustom := value.(clickhouse.CustomSetting)
		if isCustom {
			value = custom.Value
		}
		all = append(all, ch.Setting{Key: key, Value: fmt.Sprint(value), Important: !isCustom, Custom: isCustom})
	}
	return all
}

// asException makes what ClickHouse answered to an insert what the driver makes of it.
func asException(err error) error {
	exception, ok := ch.AsException(err)
	if !ok {
		return err
	}
	return &clickhouse.Exception{
		Code: int32(exception.Code), Name: exception.Name,
		Message: strings.TrimSpace(strings.TrimPrefix(exception.Message, exception.Name+":")),
	}
}
