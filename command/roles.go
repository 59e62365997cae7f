package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/casteloig/logthra/shared/config"
	"github.com/casteloig/logthra/shared/wal"
)

// readyTimeout bounds how long a role looks when it is asked whether it is ready.
const readyTimeout = 2 * time.Second

// storeSlack is how many bytes the embedded JetStream may hold beside the WAL: positions and dead letters.
const storeSlack = 2 << 30

type runCommand struct {
	config.Data             `embed:"" group:"Engines:"`
	config.NATS             `embed:"" group:"Engines:"`
	config.NATSServer       `embed:"" group:"Engines:"`
	config.ClickHouse       `embed:"" group:"Engines:"`
	config.ClickHouseServer `embed:"" group:"Engines:"`
	config.WAL              `embed:"" group:"WAL:"`
	config.Gateway          `embed:"" group:"Gateway:"`
	config.Query            `embed:"" group:"Query:"`
	config.Ingester         `embed:"" group:"Ingester:"`
	config.GatewayDrain     `embed:""`
	config.Telemetry        `embed:"" group:"Telemetry:"`
}

// Run runs everything.
func (c *runCommand) Run(env *environment) error { return env.run(c.DrainTimeout, c.start) }

func (c *runCommand) start(p *process) error {
	if err := p.lock(c.DataDir); err != nil {
		return err
	}
	removeAddresses(c.DataDir) // those of a process that was killed
	p.onStop(func(context.Context) { removeAddresses(c.DataDir) })
	if err := c.reserve(); err != nil {
		return err
	}
	tracer, err := p.startTelemetry(c.Telemetry, "all")
	if err != nil {
		return err
	}
	clickhouse := c.ClickHouse
	if clickhouse.ClickHouseDSN != "" {
		err = p.useClickHouse(clickhouse.ClickHouseDSN)
	} else {
		clickhouse.ClickHouseDSN, err = p.startClickHouse(c.DataDir, c.ClickHouseServer)
	}
	if err != nil {
		return err
	}
	if c.NATSURL != "" {
		err = p.useNATS(c.NATS)
	} else {
		err = p.startNATS(c.DataDir, c.NATSServer, int64(c.WALMaxBytes)+storeSlack)
	}
	if err != nil {
		return err
	}
	w, err := p.openWAL("ingester", c.WAL)
	if err != nil {
		return err
	}
	s, err := p.openStore(clickhouse, wal.MaxShards)
	if err != nil {
		return err
	}
	migrated, err := p.startIngester(c.Ingester, c.Drain, tracer, w, s, c.Retention)
	if err != nil {
		return err
	}
	// A connection of its own, so that what is read does not hold up what is pushed.
	c.WAL.Shards = w.Shards()
	if w, err = p.openWAL("gateway", c.WAL); err != nil {
		return err
	}
	if err := p.startGateway(c.Gateway, c.Query, clickhouse.Rows, c.DrainDelay, tracer, w); err != nil {
		return err
	}
	if err := p.writeAddresses(c.DataDir); err != nil {
		return err
	}
	if err := p.await(migrated); err != nil { // meanwhile pushes are taken
		return err
	}
	p.ready()
	fmt.Print(welcome(p.addresses(), c.Gateway, c.FlushInterval))
	return nil
}

// reserve fails where a server's address is taken: better now than after ClickHouse was fetched and has started.
func (c *runCommand) reserve() error {
	for _, server := range []struct{ flag, address string }{
		{"--http-listen", c.HTTPListen},
		{"--grpc-listen", c.GRPCListen},
		{"--ingester-listen", c.IngesterListen},
		{"--ingester-http-listen", c.IngesterHTTPListen},
	} {
		listener, err := listen(server.flag, server.address)
		if err != nil {
			return err
		}
		_ = listener.Close()
	}
	return nil
}

// welcome says what to do next. Its commands can be copied as they are.
func welcome(at map[string]string, cfg config.Gateway, flush time.Duration) string {
	const line = `{"streams":[{"stream":{"app":"hello"},"values":[["","it works"]]}]}` // an empty time is now
	var b strings.Builder
	web, who, flags, where := "http://"+local(at["http"]), "tenant-id: demo", "--tenant demo", "WHERE tenant_id = 'demo' "
	if cfg.TLSCertFile != "" {
		web = "https://" + local(at["http"])
	}
	if cfg.TenantsFile != "" {
		who, flags, where = "Authorization: Bearer TOKEN", "--token TOKEN", ""
	}
	if web != "http://127.0.0.1:3100" {
		flags += " --url " + web
	}
	sql := "SELECT timestamp, labels['app'] AS app, msg FROM logs.log " + where + "ORDER BY timestamp DESC LIMIT 10"
	b.WriteString("\nLogthra is ready.\n\n")
	fmt.Fprintf(&b, "  Push    %s, as to Loki, OpenTelemetry, Elasticsearch or Splunk\n          %s, gRPC\n", web, local(at["grpc"]))
	query := at["clickhouse-http"]
	fmt.Fprintf(&b, "  Query   %s, as Loki: Grafana's data source, logcli\n", web)
	if query != "" {
		fmt.Fprintf(&b, "          http://%s, SQL over HTTP\n          %s, ClickHouse's native protocol\n", local(query), local(at["clickhouse"]))
	}
	fmt.Fprintf(&b, "\nPush a line:\n\n  curl -i %s/api/push -H '%s' -d '%s'\n\n", web, who, line)
	fmt.Fprintf(&b, "See it:\n\n  %s query %s '{app=\"hello\"}'\n\n", self(), flags)
	if query != "" {
		fmt.Fprintf(&b, "or with SQL, once it is flushed (%s at most):\n\n  curl http://%s -d \"%s FORMAT PrettyCompact\"\n\n", short(flush), local(query), sql)
	} else {
		fmt.Fprintf(&b, "or with SQL in your ClickHouse, once it is flushed (%s at most):\n\n  %s\n\n", short(flush), sql)
	}
	return b.String()
}

// self is how this program was run, and can be again.
func self() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ."
	}
	return os.Args[0]
}

// local is where an address that is listened on is reached from this machine.
func local(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !net.ParseIP(host).IsUnspecified() {
		return address
	}
	return net.JoinHostPort("127.0.0.1", port)
}

type gatewayCommand struct {
	config.NATS         `embed:"" group:"Engines:"`
	config.Rows         `embed:"" group:"Engines:"`
	config.WAL          `embed:"" group:"WAL:"`
	config.Gateway      `embed:"" group:"Gateway:"`
	config.Query        `embed:"" group:"Query:"`
	config.GatewayDrain `embed:""`
	config.Telemetry    `embed:"" group:"Telemetry:"`
}

// Run runs a gateway.
func (c *gatewayCommand) Run(env *environment) error {
	if c.NATSURL == "" {
		return errors.New("a gateway needs --nats-url (logthra nats runs one; logthra alone runs everything)")
	}
	return env.run(c.DrainTimeout, func(p *process) error {
		tracer, err := p.startTelemetry(c.Telemetry, "gateway")
		if err != nil {
			return err
		}
		if err := p.useNATS(c.NATS); err != nil {
			return err
		}
		w, err := p.openWAL("gateway", c.WAL)
		if err != nil {
			return err
		}
		if c.ClickHouseDSN != "" {
			if err := p.useClickHouse(c.ClickHouseDSN); err != nil {
				return err
			}
		}
		if err := p.startGateway(c.Gateway, c.Query, c.Rows, c.DrainDelay, tracer, w); err != nil {
			return err
		}
		p.ready()
		return nil
	})
}

type ingesterCommand struct {
	config.NATS       `embed:"" group:"Engines:"`
	config.ClickHouse `embed:"" group:"Engines:"`
	config.WAL        `embed:"" group:"WAL:"`
	config.Ingester   `embed:"" group:"Ingester:"`
	config.Drain      `embed:""`
	config.Telemetry  `embed:"" group:"Telemetry:"`
}

// Run runs an ingester.
func (c *ingesterCommand) Run(env *environment) error {
	if c.NATSURL == "" || c.ClickHouseDSN == "" {
		return errors.New("an ingester needs --nats-url and --clickhouse-dsn (logthra nats and logthra clickhouse run them; logthra alone runs everything)")
	}
	return env.run(c.DrainTimeout, func(p *process) error {
		tracer, err := p.startTelemetry(c.Telemetry, "ingester")
		if err != nil {
			return err
		}
		if err := p.useClickHouse(c.ClickHouseDSN); err != nil {
			return err
		}
		if err := p.useNATS(c.NATS); err != nil {
			return err
		}
		w, err := p.openWAL("ingester", c.WAL)
		if err != nil {
			return err
		}
		s, err := p.openStore(c.ClickHouse, wal.MaxShards)
		if err != nil {
			return err
		}
		migrated, err := p.startIngester(c.Ingester, c.Drain, tracer, w, s, c.Retention)
		if err != nil {
			return err
		}
		if err := p.await(migrated); err != nil {
			return err
		}
		p.ready()
		return nil
	})
}

// engineStop is how long an engine that runs alone gets to end.
const engineStop = 10 * time.Second

type natsCommand struct {
	config.Data       `embed:""`
	config.NATSServer `embed:""`
	MaxStore          config.Bytes `default:"12GiB" placeholder:"SIZE" help:"Most bytes of all streams; more than --wal-max-bytes of the roles."`
}

// Run runs NATS alone.
func (c *natsCommand) Run(env *environment) error {
	return env.run(engineStop, func(p *process) error {
		if err := p.startNATS(c.DataDir, c.NATSServer, int64(c.MaxStore)); err != nil {
			return err
		}
		p.ready(slog.String("nats_url", "nats://"+p.natsName))
		return nil
	})
}

type clickhouseCommand struct {
	config.Data             `embed:""`
	config.ClickHouseServer `embed:""`
}

// Run runs ClickHouse alone.
func (c *clickhouseCommand) Run(env *environment) error {
	return env.run(engineStop, func(p *process) error {
		dsn, err := p.startClickHouse(c.DataDir, c.ClickHouseServer)
		if err != nil {
			return err
		}
		p.ready(slog.String("clickhouse_dsn", dsn))
		return nil
	})
}
