package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How the roles are run. The times are short, so that much happens in a minute; outages stay far below the
// deduplication window, and the WAL keeps all that was pushed, for the audit.
const (
	gateways  = 2
	ingesters = 3
	shards    = 6

	flushInterval = 1500 * time.Millisecond
	ownerTimeout  = 3 * time.Second
	dedupWindow   = 5 * time.Minute
	drainTimeout  = 10 * time.Second
	drainDelay    = time.Second
	maxLine       = 16 << 10 // bytes
	walMaxBytes   = 12 << 30
)

// The names of the processes and of the links between them.
const (
	natsName       = "nats"
	clickhouseName = "clickhouse"
)

func gatewayName(n int) string  { return "gateway-" + strconv.Itoa(n+1) }
func ingesterName(n int) string { return "ingester-" + strconv.Itoa(n+1) }

func toNATS(client string) string       { return client + ">" + natsName }
func toClickHouse(client string) string { return client + ">" + clickhouseName }
func toGateway(n int, protocol string) string {
	return "generator>" + gatewayName(n) + "/" + protocol
}

// harnessLink is the harness's own way to NATS, which is never cut.
const harnessLink = "harness>" + natsName

// cluster is all the processes and links.
type cluster struct {
	binary, dir string
	pushTimeout time.Duration // of the gateways
	processes   map[string]*process
	links       map[string]*link
	servers     *natsServers // nil: one NATS, which every client has a link to
}

// newCluster prepares a cluster that keeps everything in dir, and one NATS of its own if there are no others. noticed is told
// what happens unasked.
func newCluster(binary, dir string, servers *natsServers, noticed func(format string, args ...any)) (c *cluster, err error) {
	c = &cluster{binary: binary, dir: dir, pushTimeout: 3 * time.Second, processes: map[string]*process{}, links: map[string]*link{}, servers: servers}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	var names []string
	for n := range gateways {
		names = append(names, toNATS(gatewayName(n)), toClickHouse(gatewayName(n)), toGateway(n, "http"), toGateway(n, "grpc"))
	}
	for n := range ingesters {
		names = append(names, toNATS(ingesterName(n)), toClickHouse(ingesterName(n)))
	}
	if servers == nil {
		names = append(names, harnessLink)
	} else {
		c.pushTimeout = servers.pushTimeout
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, toNATS("")) })
	}
	for _, name := range names {
		if c.links[name], err = newLink(name); err != nil {
			return nil, err
		}
	}

	const anyPort = "127.0.0.1:0"
	wal := []string{"--shards", strconv.Itoa(shards), "--wal-max-bytes", strconv.Itoa(walMaxBytes), "--dedup-window", dedupWindow.String()}
	if servers == nil {
		err = c.add(natsName, "nats", "--data-dir", filepath.Join(dir, natsName), "--nats-listen", anyPort, "--max-store", "15GiB")
	} else {
		wal = append(wal, "--replicas", strconv.Itoa(natsCount))
		err = servers.add(c)
	}
	err = errors.Join(err,
		c.add(clickhouseName, "clickhouse", "--data-dir", filepath.Join(dir, clickhouseName),
			"--clickhouse-listen", anyPort, "--clickhouse-http-listen", anyPort),
	)
	for n := range gateways {
		name := gatewayName(n)
		err = errors.Join(err, c.add(name, slices.Concat([]string{"gateway"}, wal, []string{"--nats-url", c.natsFor(name),
			"--clickhouse-dsn", "clickhouse://" + c.links[toClickHouse(name)].addr() + "/logs", "--query-max-entries", "0",
			"--http-listen", anyPort, "--grpc-listen", anyPort, "--push-timeout", c.pushTimeout.String(),
			"--max-line-bytes", strconv.Itoa(maxLine), "--max-inflight-bytes", "128MiB", "--drain-timeout", drainTimeout.String(), "--drain-delay", drainDelay.String()})...))
	}
	for n := range ingesters {
		name := ingesterName(n)
		err = errors.Join(err, c.add(name, slices.Concat([]string{"ingester"}, wal, []string{"--nats-url", c.natsFor(name),
			"--clickhouse-dsn", "clickhouse://" + c.links[toClickHouse(name)].addr() + "/logs",
			"--ingester-listen", anyPort, "--ingester-http-listen", anyPort,
			"--flush-interval", flushInterval.String(), "--flush-bytes", "16MiB", "--buffer-bytes", "64MiB",
			"--replay-window", "24h", "--owner-timeout", ownerTimeout.String(), "--drain-timeout", drainTimeout.String()})...))
	}
	if err != nil {
		return nil, err
	}
	for name, p := range c.processes {
		p.noticed = noticed
		p.ready = func(at map[string]string) { c.connect(name, at) }
	}
	return c, nil
}

func (c *cluster) add(name string, args ...string) (err error) {
	c.processes[name], err = newProcess(c.binary, c.dir, name, append(args, "--log-format", "json")...)
	return err
}

// throughLinks is where a gateway is reached by way of its link.
func (c *cluster) throughLinks(gateway int, protocol string) string {
	return c.links[toGateway(gateway, protocol)].addr()
}

// natsFor is the URL under which a client reaches NATS.
func (c *cluster) natsFor(client string) string {
	if c.servers != nil {
		return c.servers.url()
	}
	return "nats://" + c.links[toNATS(client)].addr()
}

// natsPastLinks is the URL of NATS itself.
func (c *cluster) natsPastLinks() string {
	if c.servers != nil {
		return c.servers.url()
	}
	return "nats://" + c.processes[natsName].address(natsName)
}

// connect makes the links that lead to a process lead to its present addresses.
func (c *cluster) connect(name string, at map[string]string) {
	for link, l := range c.links {
		_, server, _ := strings.Cut(link, ">")
		server, protocol, _ := strings.Cut(server, "/")
		switch {
		case server != name:
		case name == natsName, name == clickhouseName:
			l.retarget(at[name])
		default:
			l.retarget(at[protocol])
		}
	}
}

// start starts all processes, and returns when all are ready.
func (c *cluster) start(ctx context.Context) error {
	for _, p := range c.processes {
		if err := p.start(); err != nil {
			return err
		}
	}
	return c.awaitReady(ctx)
}

func (c *cluster) awaitReady(ctx context.Context) error {
	for _, p := range c.processes {
		if err := p.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop kills all that runs.
func (c *cluster) stop() {
	for _, p := range c.processes {
		if p == nil {
			continue
		}
		if p.instance() != nil {
			p.kill()
		}
		_ = p.log.Close()
	}
	for _, l := range c.links {
		if l != nil {
			l.close()
		}
	}
}

// query asks ClickHouse, past all links. The caller closes the answer.
func (c *cluster) query(ctx context.Context, sql string) (io.ReadCloser, error) {
	address := c.processes[clickhouseName].address("clickhouse_http")
	if address == "" {
		return nil, errors.New("ClickHouse is not ready")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address, strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	request.Close = true // a ClickHouse that ends waits for the connections that it has
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return nil, fmt.Errorf("ClickHouse: %s", strings.TrimSpace(string(text)))
	}
	return response.Body, nil
}

// exec runs a statement of which only the success matters.
func (c *cluster) exec(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	body, err := c.query(ctx, sql)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, body)
	return err
}

// build builds the real command, with more arguments of go build if some are given.
func build(ctx context.Context, dir string, more ...string) (string, error) {
	binary := filepath.Join(dir, "logthra")
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-buildvcs=false", "-o", binary}, more...), "..")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}
