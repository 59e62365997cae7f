package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// On a cluster (https://clickhouse.com/docs/architecture/cluster-deployment) the rows are in a table log_local on each
// server, and log is a Distributed table over them. An insert goes straight to a server of one shard, not through the
// Distributed table: that would cut it into blocks of its own and might hand them on after it has confirmed them.
// The intent of the batch names that shard, so that a repetition meets its own token, whatever has become of
// the cluster by then. The replicas of a shard share the tokens, by way of Keeper: a repetition may go to any of them.

// topologyAge is for how long it is taken for granted where the servers of a cluster are.
const topologyAge = time.Minute

// syncTimeout bounds how long a replica may take to fetch what others have.
const syncTimeout = time.Minute

// quorumTimeout is how long an insert waits for the replicas of its quorum; it is repeated then.
const quorumTimeout = time.Minute

// cluster is what a Store knows of a cluster. It is safe for concurrent use.
type cluster struct {
	name    string
	quorum  string
	options clickhouse.Options // of a connection; Addr are the servers that the DSN names

	mu    sync.Mutex
	known *topology
	asked time.Time
	conns map[string]*server // by address
	using map[uint32]int     // by the number of a shard: which of its replicas
}

// topology is where the servers of a cluster are.
type topology struct {
	shards     []shard // ascending by number
	replicated bool    // the servers have the macros that ReplicatedMergeTree needs
}

type shard struct {
	number   uint32
	replicas []string // addresses
}

// Target is the shard of the cluster that the rows of a shard of the WAL go to; 0 without a cluster.
func (s *Store) Target(ctx context.Context, walShard int) (uint32, error) {
	if s.cluster == nil {
		return 0, nil
	}
	t, err := s.topology(ctx)
	if err != nil {
		return 0, err
	}
	return t.shards[walShard%len(t.shards)].number, nil
}

// topology asks the servers that the DSN names where the servers of the cluster are. While none of them answers, what they
// said before counts.
func (s *Store) topology(ctx context.Context) (*topology, error) {
	c := s.cluster
	c.mu.Lock()
	known, asked := c.known, c.asked
	c.mu.Unlock()
	if known != nil && time.Since(asked) < topologyAge {
		return known, nil
	}
	t, err := s.askTopology(ctx)
	if err != nil {
		if known != nil && Classify(err) == Transient {
			return known, nil
		}
		return nil, fmt.Errorf("ClickHouse: looking for the cluster %s: %w", c.name, plain(err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.asked = t, time.Now()
	return t, nil
}

func (s *Store) askTopology(ctx context.Context) (*topology, error) {
	var t topology
	var macros uint64
	if err := s.conn.QueryRow(wholeAnswer(ctx), "SELECT count() FROM system.macros WHERE macro IN ('shard', 'replica')").Scan(&macros); err != nil {
		return nil, err
	}
	t.replicated = macros == 2
	rows, err := s.conn.Query(wholeAnswer(ctx), `SELECT shard_num, host_name, port, count() OVER (PARTITION BY host_name)
		FROM system.clusters WHERE cluster = ? ORDER BY shard_num, replica_num`, s.cluster.name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var number uint32
		var host string
		var port uint16
		var onHost uint64
		if err := rows.Scan(&number, &host, &port, &onHost); err != nil {
			return nil, err
		}
		if n := len(t.shards); n == 0 || t.shards[n-1].number != number {
			t.shards = append(t.shards, shard{number: number})
		}
		of := &t.shards[len(t.shards)-1]
		of.replicas = append(of.replicas, s.cluster.address(host, port, onHost == 1))
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(t.shards) == 0 {
		return nil, fmt.Errorf("%w: the server knows no cluster of that name (--clickhouse-cluster; SELECT DISTINCT cluster FROM system.clusters)", errSchema)
	}
	for _, of := range t.shards {
		if len(of.replicas) > 1 && !t.replicated {
			return nil, fmt.Errorf("%w: shard %d of the cluster has %d replicas, but the servers have no macros shard and replica, without which none of them gets what another has", errSchema, of.number, len(of.replicas))
		}
	}
	return &t, nil
}

// address is where a server of the cluster is reached: where the DSN says, if it names that host and no other server is on
// it, else where the servers reach each other.
func (c *cluster) address(host string, port uint16, alone bool) string {
	if alone {
		for _, address := range c.options.Addr {
			if name, _, err := net.SplitHostPort(address); err == nil && name == host {
				return address
			}
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// connection returns that to a server.
func (c *cluster) connection(address string) (*server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn, ok := c.conns[address]; ok {
		return conn, nil
	}
	options := c.options
	options.Addr = []string{address}
	conn, err := openServer(options)
	if err != nil {
		return nil, err
	}
	c.conns[address] = conn
	return conn, nil
}

func (c *cluster) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// onTarget is on for the shard that the batch goes to.
func (s *Store) onTarget(ctx context.Context, b *Batch, do func(*server) error) error {
	target := b.Target
	if target == 0 {
		var err error
		if target, err = s.Target(ctx, int(b.Shard)); err != nil {
			return err
		}
	}
	return s.on(ctx, target, do)
}

// on calls do with a connection to a replica of a shard of the cluster. After an error that another replica may be spared,
// the next call gets another one. Without a cluster there is one connection.
func (s *Store) on(ctx context.Context, number uint32, do func(*server) error) error {
	if s.cluster == nil {
		return do(s.conn)
	}
	t, err := s.topology(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(t.shards, func(of shard) bool { return of.number == number })
	if at < 0 {
		return fmt.Errorf("%w: the cluster %s has no shard %d any more, to which rows were sent", errSchema, s.cluster.name, number)
	}
	replicas := t.shards[at].replicas
	s.cluster.mu.Lock()
	use, ok := s.cluster.using[number]
	if !ok {
		use = rand.IntN(len(replicas)) //nolint:gosec // no secret
		s.cluster.using[number] = use
	}
	s.cluster.mu.Unlock()
	conn, err := s.cluster.connection(replicas[use%len(replicas)])
	if err != nil {
		return err
	}
	if err = do(conn); err != nil && ctx.Err() == nil && isOfServer(err) {
		s.cluster.mu.Lock()
		if s.cluster.using[number] == use { // nobody else has gone on
			s.cluster.using[number] = (use + 1) % len(replicas)
		}
		s.cluster.mu.Unlock()
	}
	if err != nil && len(t.shards)+len(replicas) > 2 {
		return fmt.Errorf("server %s, shard %d: %w", replicas[use%len(replicas)], number, err)
	}
	return err
}

// codeReadOnlyTable is what a replica says that has lost Keeper (TABLE_IS_READ_ONLY).
const codeReadOnlyTable = 242

// isOfServer tells whether another replica may do what one could not.
func isOfServer(err error) bool {
	exception, ok := errors.AsType[*clickhouse.Exception](err)
	return Classify(err) == Transient || ok && exception.Code == codeReadOnlyTable
}

// each calls do for each shard of the cluster, or once without one.
func (s *Store) each(ctx context.Context, do func(driver.Conn) error) error {
	if s.cluster == nil {
		return do(s.conn)
	}
	t, err := s.topology(ctx)
	if err != nil {
		return err
	}
	for _, of := range t.shards {
		if err := s.on(ctx, of.number, func(conn *server) error { return do(conn) }); err != nil {
			return err
		}
	}
	return nil
}

// hosts are connections to all servers of the cluster that answer, or the one without a cluster.
func (s *Store) hosts(ctx context.Context) ([]driver.Conn, error) {
	if s.cluster == nil {
		return []driver.Conn{s.conn}, nil
	}
	t, err := s.topology(ctx)
	if err != nil {
		return nil, err
	}
	var all []driver.Conn
	for _, of := range t.shards {
		answer := 0
		var failed error
		for _, address := range of.replicas {
			conn, err := s.cluster.connection(address)
			if err == nil {
				err = conn.Ping(ctx)
			}
			if err != nil {
				s.log.Warn("a server of the cluster does not answer", "server", address, "shard", of.number, "error", err)
				failed = err
				continue
			}
			all = append(all, conn)
			answer++
		}
		if answer == 0 {
			return nil, fmt.Errorf("ClickHouse: of shard %d of the cluster %s no server answers: %w", of.number, s.cluster.name, plain(failed))
		}
	}
	return all, nil
}

// fetched returns once a replica has all rows that any of its shard had when it was called. Without that, rows that
// another replica has confirmed would be missing in its answers.
func (s *Store) fetched(ctx context.Context, conn driver.Conn) error {
	if s.cluster == nil {
		return nil
	}
	t, err := s.topology(ctx)
	if err != nil || !t.replicated {
		return err
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"receive_timeout": int(syncTimeout / time.Second)}))
	return conn.Exec(ctx, "SYSTEM SYNC REPLICA "+s.rows()+" LIGHTWEIGHT")
}

// allFetched is fetched for all servers that answer, so that it does not matter which of them the Distributed table asks.
func (s *Store) allFetched(ctx context.Context) error {
	if s.cluster == nil {
		return nil
	}
	hosts, err := s.hosts(ctx)
	if err != nil {
		return err
	}
	for _, conn := range hosts {
		if err := s.fetched(ctx, conn); err != nil {
			return err
		}
	}
	return nil
}

// rows is the table that the rows are in: on a cluster that of the server.
func (s *Store) rows() string { return s.database + ".log" + s.suffix() }

// streams is the table that the streams are in.
func (s *Store) streams() string { return s.database + ".stream" + s.suffix() }

// suffix is that of the tables of a server of a cluster.
func (s *Store) suffix() string {
	if s.cluster == nil {
		return ""
	}
	return "_local"
}

// clusterSettings are those of an insert into a cluster. An insert that replicas confirm one after the other, instead of one
// at a time, can run beside others into the same table.
func (s *Store) clusterSettings(ctx context.Context, settings clickhouse.Settings) error {
	if s.cluster == nil {
		return nil
	}
	t, err := s.topology(ctx)
	if err != nil || !t.replicated {
		return err
	}
	settings["insert_quorum"] = s.cluster.quorum
	settings["insert_quorum_parallel"] = 1
	settings["insert_quorum_timeout"] = quorumTimeout.Milliseconds()
	return nil
}
