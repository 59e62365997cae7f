// Package store is ClickHouse: the schema with its migrations, the insert of a batch of rows, and what the table
// holds of the WAL. A row is known by where it came from: shard, sequence of the record, index of the entry.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// DefaultDatabase is the database of a DSN that names none.
const DefaultDatabase = "logs"

// How long the driver waits: for a connection, and for the answer to an insert or a migration. An insert of
// a full batch takes seconds on a busy server; what takes minutes is repeated, with the same token.
const (
	dialTimeout = 5 * time.Second
	readTimeout = 5 * time.Minute
)

// Config is what a Store is opened with.
type Config struct {
	DSN         string // such as clickhouse://user:password@host:9000/logs; of a cluster, any of its servers, with commas
	Connections int    // how many inserts can run at once

	Cluster string // its name in system.clusters; empty: a single server
	Quorum  string // of an insert into a replicated table: ClickHouse's insert_quorum, a number or auto
}

// Store is a pool of connections to one ClickHouse, or a cluster. It is safe for concurrent use.
type Store struct {
	conn     *server // that the DSN names
	database string
	cluster  *cluster // nil: there is none
	log      *slog.Logger
}

// Open returns a store. It does not connect yet.
func Open(cfg Config, log *slog.Logger) (*Store, error) {
	options, err := parse(cfg.DSN)
	if err != nil {
		return nil, err
	}
	if options.Protocol != clickhouse.Native {
		return nil, errors.New("--clickhouse-dsn: rows are inserted over ClickHouse's native protocol: clickhouse://host:9000/logs, not http")
	}
	database := options.Auth.Database
	if database == "" {
		database = DefaultDatabase
	}
	if !validDatabase(database) {
		return nil, fmt.Errorf("--clickhouse-dsn: database %q does not match [a-zA-Z_][a-zA-Z0-9_]*", database)
	}
	// All names are qualified, and the database may be yet to be created.
	options.Auth.Database = "default"
	options.DialTimeout = dialTimeout
	options.ReadTimeout = readTimeout
	options.MaxOpenConns = cfg.Connections + 2 // migrations and probes beside the inserts
	options.MaxIdleConns = options.MaxOpenConns
	options.ConnMaxLifetime = time.Hour
	options.ClientInfo.Products = append(options.ClientInfo.Products, struct{ Name, Version string }{"logthra", ""})
	conn, err := openServer(*options)
	if err != nil {
		return nil, err
	}
	s := &Store{conn: conn, database: database, log: log}
	if cfg.Cluster != "" {
		s.cluster = &cluster{
			name: cfg.Cluster, quorum: cfg.Quorum, options: *options, conns: map[string]*server{}, using: map[uint32]int{},
		}
	}
	return s, nil
}

// Hosts are the addresses in a DSN, without what is secret.
func Hosts(dsn string) ([]string, error) {
	options, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	return options.Addr, nil
}

func parse(dsn string) (*clickhouse.Options, error) {
	options, err := clickhouse.ParseDSN(dsn)
	if err != nil {
		// The driver's error may quote the DSN, and with it a password.
		return nil, errors.New("--clickhouse-dsn is not of the form clickhouse://user:password@host:9000/logs")
	}
	return options, nil
}

// Close closes the connections.
func (s *Store) Close() error {
	err := s.conn.Close()
	if s.cluster != nil {
		err = errors.Join(err, s.cluster.close())
	}
	return err
}

// Database is the name of the database that holds the tables.
func (s *Store) Database() string { return s.database }

// Ready returns an error that says what is wrong while ClickHouse does not answer.
func (s *Store) Ready(ctx context.Context) error {
	if err := s.conn.Ping(ctx); err != nil {
		return fmt.Errorf("ClickHouse: %w", plain(err))
	}
	return nil
}

// Conn is the driver's connection, for queries.
func (s *Store) Conn() driver.Conn { return s.conn }

// plain makes errors that the driver passes on from below say what happened.
func plain(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the connection was closed: %w", err)
	}
	return err
}

func validDatabase(name string) bool {
	for i, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
