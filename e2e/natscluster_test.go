package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/wal"
)

// natsCount is how many servers a cluster of NATS has, and how many of them have each record.
const natsCount = 3

func serverName(n int) string { return natsName + "-" + strconv.Itoa(n+1) }

// isNATS tells whether a name is that of a server of NATS.
func isNATS(name string) bool { return name == natsName || strings.HasPrefix(name, natsName+"-") }

var serverNames = all(natsCount, serverName)

// natsServers is a cluster of NATS: processes of its own server.
type natsServers struct {
	binary      string
	pushTimeout time.Duration // that the gateways are to have
	clients     [natsCount]string
	routes      [natsCount]string
}

// newNATSServers builds the server of the module that the program embeds, and finds ports for it.
func newNATSServers(ctx context.Context, dir string) (*natsServers, error) {
	s := &natsServers{binary: filepath.Join(dir, "nats-server"), pushTimeout: 10 * time.Second}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", s.binary, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build nats-server: %w\n%s", err, out)
	}
	var listeners []net.Listener
	defer func() { // when all ports are known
		for _, listener := range listeners {
			_ = listener.Close()
		}
	}()
	for n := range natsCount {
		for _, address := range []*string{&s.clients[n], &s.routes[n]} {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			listeners = append(listeners, listener)
			*address = listener.Addr().String()
		}
	}
	return s, nil
}

// url is where clients find all servers.
func (s *natsServers) url() string { return "nats://" + strings.Join(s.clients[:], ",nats://") }

// add adds the servers to a cluster. They are configured as deploy/nats is, but for the places and the ports.
func (s *natsServers) add(c *cluster) error {
	for n, name := range serverNames {
		config := filepath.Join(c.dir, name+".conf")
		text := fmt.Sprintf(`server_name: %s
listen: %q
max_payload: 16MB
max_pending: 128MB
jetstream { store_dir: %q, sync_interval: always, max_file_store: 15GB }
cluster { name: logthra, listen: %q, routes: ["nats://%s"] }
`, name, s.clients[n], filepath.Join(c.dir, name), s.routes[n], strings.Join(s.routes[:], `", "nats://`))
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			return err
		}
		p, err := newProcess(s.binary, c.dir, name, "-c", config)
		if err != nil {
			return err
		}
		p.isReady = func(line []byte) (map[string]string, bool) {
			return map[string]string{}, bytes.Contains(line, []byte("Server is ready"))
		}
		c.processes[name] = p
	}
	return nil
}

// downRolling is how long each server is down in a rolling restart.
const downRolling = time.Second

// servers is the mix of what happens to a cluster of NATS, and to who depends on it.
var servers = mix{
	{4, one(kill, 0, 2*longestDown, serverNames...)},
	{4, leads(killLeader, 0, 2*longestDown)},
	{3, leads(freezeLeader, 2*time.Second, 15*time.Second)},
	{2, leads(stepDown, time.Second, 2*time.Second)},
	{2, leads(restartAll, 3*longestDown, 4*longestDown)},
	{2, one(kill, 0, longestDown, ingesterNames...)},
	{1, one(kill, 0, longestDown, gatewayNames...)},
	{2, one(freeze, shortestFrozen, longestFrozen, ingesterNames...)},
	{1, one(kill, 0, longestDown, clickhouseName)},
}

// leads draws an event that hits the servers of NATS by what they lead.
func leads(f fault, least, most time.Duration) func(*planner) (event, bool) {
	return func(p *planner) (event, bool) {
		ok := p.busy[natsName] <= p.at
		return event{At: p.at, Fault: f, Targets: serverNames, Hold: p.between(least, most)}, ok
	}
}

// leader does something to the server that leads a shard, whichever that is now.
func (b *breaker) leader(ctx context.Context, e event, do func(e event, name string) error) error {
	stream, err := b.js.Stream(ctx, wal.StreamName(rand.IntN(shards)))
	if err != nil {
		return err
	}
	cluster := stream.CachedInfo().Cluster
	if cluster == nil || cluster.Leader == "" {
		return fmt.Errorf("%s has no leader", stream.CachedInfo().Config.Name)
	}
	b.note("%s leads %s", cluster.Leader, stream.CachedInfo().Config.Name)
	return do(e, cluster.Leader)
}

// stepDown makes the leader of each shard hand over.
func (b *breaker) stepDown(ctx context.Context, e event) error {
	defer b.disturb(natsName)()
	for shard := range shards {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := b.js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+wal.StreamName(shard), nil)
		cancel()
		if err != nil {
			return err
		}
	}
	time.Sleep(e.Hold)
	return nil
}

// restartAll restarts one server after the other, as an operator does: the next when all have everything again.
func (b *breaker) restartAll(ctx context.Context, e event) error {
	e.Hold = downRolling
	for _, name := range e.Targets {
		if err := b.replace(e, name); err != nil {
			return err
		}
		for shard := range shards {
			if err := b.awaitCopies(ctx, wal.StreamName(shard)); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitCopies returns when all servers have all of a stream.
func (b *breaker) awaitCopies(ctx context.Context, name string) error {
	return until(ctx, askAgainFor, "copies of "+name, func() error {
		stream, err := b.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		info := stream.CachedInfo()
		if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != natsCount-1 {
			return fmt.Errorf("not on %d servers: %+v", natsCount, info.Cluster)
		}
		for _, replica := range info.Cluster.Replicas {
			if !replica.Current || replica.Offline {
				return fmt.Errorf("%s is not current, %d behind", replica.Name, replica.Lag)
			}
		}
		return nil
	})
}

// disturb is calm.disturb of a process. What happens to one server of NATS happens to NATS.
func (b *breaker) disturb(name string) (over func()) {
	overOne := b.calm.disturb(name)
	if !isNATS(name) || name == natsName {
		return overOne
	}
	overAll := b.calm.disturb(natsName)
	return func() {
		overOne()
		overAll()
	}
}

// TestNATSCluster kills and freezes the servers of a cluster of NATS, one at a time, those that lead a shard in particular, and
// restarts all of them in turn. It wants what TestChaos wants; and while most of the servers are there, that no push takes for ever.
func TestNATSCluster(t *testing.T) {
	span := *duration
	if span == 0 {
		span = time.Minute
		if testing.Short() {
			span = 20 * time.Second
		}
	}
	h := newHarness(t, seedOf(t, fmt.Sprintf("go test ./e2e -run '^TestNATSCluster$' -count=1 -timeout %s -v -chaos.duration %s -chaos.rate %g",
		span+30*time.Minute, span, *rate)))
	ctx, cancel := context.WithTimeout(t.Context(), libraryTimeout)
	defer cancel()
	three, err := newNATSServers(ctx, h.dir)
	if err != nil {
		t.Fatal(err)
	}
	h.start(three)
	if err := h.chaos(plan(h.seed, span, servers), span, settleTimeout); err != nil {
		h.Fatal(err)
	}
	violations := h.verify()
	h.summarize(span)
	h.report(violations)
	for shard := range shards {
		if err := h.breaker.awaitCopies(t.Context(), wal.StreamName(shard)); err != nil {
			t.Error(err)
		}
	}
}
