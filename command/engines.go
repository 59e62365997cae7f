package command

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/casteloig/logthra/shared/config"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// attachTimeout bounds how long a tool tries to reach an engine.
const attachTimeout = 10 * time.Second

// restartPatience is how long a tool waits for a ClickHouse that can't be reached.
const restartPatience = 5 * time.Second

// toolConnections is how many queries or inserts of a tool may run at once.
const toolConnections = 2

// engines are the engines that a tool looks into.
type engines struct {
	config.Data   `embed:""`
	config.NATS   `embed:""`
	ClickHouseDSN string `name:"clickhouse-dsn" placeholder:"DSN" help:"The ClickHouse that holds the rows, clickhouse://user:pass@host:9000/logs; without one, the embedded one of the Logthra that runs on the data directory."`
	Cluster       string `name:"clickhouse-cluster" placeholder:"NAME" help:"The cluster of that ClickHouse, where the roles have one."`
	InsertQuorum  string `name:"clickhouse-insert-quorum" default:"auto" placeholder:"N" help:"As of the roles."`
}

// open reaches both engines, and changes nothing in either. done closes what was opened.
func (e *engines) open(env *environment) (w *wal.WAL, s *store.Store, done func(), err error) {
	dsn, err := e.dsn()
	if err != nil {
		return nil, nil, nil, err
	}
	if s, err = store.Open(store.Config{DSN: dsn, Connections: toolConnections, Cluster: e.Cluster, Quorum: e.InsertQuorum}, env.log.With("engine", "clickhouse")); err != nil {
		return nil, nil, nil, err
	}
	w, closeWAL, err := e.openWAL(env)
	if err != nil {
		_ = s.Close()
		return nil, nil, nil, err
	}
	done = func() {
		closeWAL()
		_ = s.Close()
	}
	ctx, cancel := context.WithTimeout(env.ctx, attachTimeout)
	defer cancel()
	if err := awaitStore(ctx, s); err != nil {
		done()
		return nil, nil, nil, fmt.Errorf("%w (--clickhouse-dsn)", err)
	}
	return w, s, done, nil
}

// awaitStore returns when ClickHouse answers, or why it does not. One that is being restarted, as the embedded one is
// when it has died, is there again within a second or two.
func awaitStore(ctx context.Context, s *store.Store) error {
	for began := time.Now(); ; {
		err := s.Ready(ctx)
		if err == nil || store.Classify(err) != store.Transient || time.Since(began) > restartPatience {
			return err
		}
		select {
		case <-time.After(restartPatience / 20):
		case <-ctx.Done():
			return err
		}
	}
}

// openWAL reaches NATS alone.
func (e *engines) openWAL(env *environment) (w *wal.WAL, done func(), err error) {
	conn, err := e.connect(env)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(env.ctx, attachTimeout)
	defer cancel()
	if w, err = wal.Attach(ctx, conn, e.APIPrefix(), env.log.With("engine", "nats")); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return w, conn.Close, nil
}

// connect connects to NATS. The caller closes the connection.
func (e *engines) connect(env *environment) (*nats.Conn, error) {
	urls, err := e.urls()
	if err != nil {
		return nil, err
	}
	hosts, err := natsHosts(urls)
	if err != nil {
		return nil, err
	}
	options, err := e.Options()
	if err != nil {
		return nil, err
	}
	log := env.log.With("engine", "nats")
	conn, err := nats.Connect(urls, append(options,
		nats.Name("logthra tool"),
		nats.MaxReconnects(-1), // what a tool does then is bounded by the time that each request may take
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("disconnected; connecting again", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("NATS reports an error", "error", err) }),
	)...)
	if err != nil {
		return nil, fmt.Errorf("NATS at %s: %w (--nats-url)", hosts, err)
	}
	return conn, nil
}

// urls is where NATS is.
func (e *engines) urls() (string, error) {
	if e.NATSURL != "" {
		return e.NATSURL, nil
	}
	at, err := readAddresses(e.DataDir)
	if err != nil {
		return "", err
	}
	if at["nats"] == "" {
		return "", e.unknown()
	}
	return "nats://" + local(at["nats"]), nil
}

// dsn is where ClickHouse is. Of one that is not embedded a running Logthra leaves neither the database nor the
// password: it has to be named.
func (e *engines) dsn() (string, error) {
	if e.ClickHouseDSN != "" {
		return e.ClickHouseDSN, nil
	}
	at, err := readAddresses(e.DataDir)
	if err != nil {
		return "", err
	}
	if len(at) == 0 {
		return "", e.unknown()
	}
	if at["clickhouse-http"] == "" {
		return "", fmt.Errorf("the Logthra that runs on %s uses the ClickHouse at %s; name it with --clickhouse-dsn", e.DataDir, cmp.Or(at["clickhouse"], "an unknown address"))
	}
	return "clickhouse://" + local(at["clickhouse"]) + "/" + store.DefaultDatabase, nil
}

// unknown is the error where the engines were not named and none run here.
func (e *engines) unknown() error {
	return fmt.Errorf("no Logthra runs on %s; name its directory with --data-dir, or the engines with --nats-url and --clickhouse-dsn", e.DataDir)
}
