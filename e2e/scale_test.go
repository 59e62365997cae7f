package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/snappy"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/wal"
)

var scaleRows = flag.String("scale.rows", "", "measure the rows of docs/scale.md whose names match, as in 'streams=' or '.'")

// setting is a system of some size, and what is pushed into it.
type setting struct {
	shards, ingesters, tenants, streams int
	perPush                             int // lines of a push
	lines                               int // in all
}

// baseSetting is what all rows of docs/scale.md have in common but for one number.
var baseSetting = setting{shards: 4, ingesters: 2, tenants: 1, streams: 10, perPush: 1000, lines: 1_000_000}

// scaleTable is docs/scale.md: each row is the base with one number changed.
func scaleTable() (names []string, rows map[string]setting) {
	rows = map[string]setting{}
	add := func(name string, values []int, change func(*setting, int)) {
		for _, value := range values {
			s := baseSetting
			change(&s, value)
			key := fmt.Sprintf("%s=%d", name, value)
			names, rows[key] = append(names, key), s
		}
	}
	add("shards", []int{1, 4, 16}, func(s *setting, n int) { s.shards = n })
	add("ingesters", []int{1, 3, 10}, func(s *setting, n int) { s.ingesters, s.shards = n, 16 })
	add("tenants", []int{1, 100, 10_000}, func(s *setting, n int) { s.tenants = n })
	add("streams", []int{10, 1000, 20_000, 200_000}, func(s *setting, n int) { s.streams = n })
	// 7 lines are 1 KB on the wire, 28,000 are 4 MB, before compression.
	add("lines-per-push", []int{7, 100, 1000, 7000, 28_000}, func(s *setting, n int) {
		s.perPush, s.lines = n, min(s.lines/n, 20_000)*n
	})
	return names, rows
}

// TestScale measures what lines cost in systems of several sizes; without -scale.rows it only tries whether that works.
func TestScale(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), libraryTimeout)
	defer cancel()
	if _, err := embedded.Library(ctx, os.Stderr); err != nil {
		t.Fatal(err)
	}
	binary, err := build(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if *scaleRows == "" {
		small := setting{shards: 2, ingesters: 2, tenants: 3, streams: 20, perPush: 100, lines: 5000}
		if got := startSized(t, binary, small).measure(); got.rows != small.lines || got.linesPerSecond <= 0 || got.natsStreams != small.shards+2 || got.takeover <= 0 {
			t.Errorf("measured %+v", got)
		}
		return
	}
	wanted, err := regexp.Compile(*scaleRows)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("| row | lines/s | gateway µs | NATS µs | ingesters µs | ClickHouse µs | gateway MB | NATS MB | an ingester MB | streams, consumers, keys of NATS | parts | takeover |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	names, rows := scaleTable()
	for _, name := range names {
		if !wanted.MatchString(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			got := startSized(t, binary, rows[name]).measure()
			if got.rows != rows[name].lines {
				t.Errorf("%d rows of %d lines", got.rows, rows[name].lines)
			}
			fmt.Printf("| %s | %s |\n", name, got)
		})
	}
}

// sized is a system of a size: NATS, ClickHouse and a gateway, each a process, and some ingesters.
type sized struct {
	*testing.T
	setting

	nats, clickhouse, gateway *process
	running                   []*process // ingesters
	query                     *cluster   // only to ask ClickHouse
}

func startSized(t *testing.T, binary string, size setting) *sized {
	t.Helper()
	s := &sized{T: t, setting: size, query: &cluster{processes: map[string]*process{}}}
	dir := t.TempDir()
	const anyPort = "127.0.0.1:0"
	start := func(name string, args ...string) *process {
		t.Helper()
		p, err := newProcess(binary, dir, name, append(args, "--log-format", "json")...)
		if err != nil {
			t.Fatal(err)
		}
		p.noticed, p.ready = t.Logf, func(map[string]string) {}
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			p.kill()
			_ = p.log.Close()
		})
		ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
		defer cancel()
		if err := p.awaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		return p
	}
	s.nats = start("nats", "nats", "--data-dir", filepath.Join(dir, "nats"), "--nats-listen", anyPort)
	s.clickhouse = start("clickhouse", "clickhouse", "--data-dir", filepath.Join(dir, "clickhouse"), "--clickhouse-listen", anyPort, "--clickhouse-http-listen", anyPort)
	s.query.processes[clickhouseName] = s.clickhouse
	engines := []string{"--nats-url", "nats://" + s.nats.address("nats"), "--shards", strconv.Itoa(size.shards)}
	for n := range size.ingesters {
		s.running = append(s.running, start(ingesterName(n), append([]string{"ingester",
			"--clickhouse-dsn", "clickhouse://" + s.clickhouse.address("clickhouse") + "/logs",
			"--owner-timeout", ownerTimeout.String(), "--ingester-listen", anyPort, "--ingester-http-listen", anyPort}, engines...)...))
	}
	s.gateway = start("gateway", append([]string{"gateway", "--http-listen", anyPort, "--grpc-listen", anyPort}, engines...)...)
	return s
}

// cost is what a setting was measured to cost: CPU in microseconds a line, memory in MB.
type cost struct {
	rows                                int
	linesPerSecond                      float64 // from the first push until the last row was there
	gateway, nats, ingesters, table     float64
	gatewayMB, natsMB, ingesterMB       int64
	natsStreams, consumers, keys, parts int
	takeover                            time.Duration // of the shards of an ingester that is killed; 0: there was one alone
}

func (c cost) String() string {
	takeover := "-"
	if c.takeover > 0 {
		takeover = fmt.Sprintf("%.1f s", c.takeover.Seconds())
	}
	return fmt.Sprintf("%.0f | %.2f | %.2f | %.2f | %.2f | %d | %d | %d | %d, %d, %d | %d | %s", c.linesPerSecond,
		c.gateway, c.nats, c.ingesters, c.table, c.gatewayMB, c.natsMB, c.ingesterMB, c.natsStreams, c.consumers, c.keys, c.parts, takeover)
}

// measure pushes, waits until all has landed and ClickHouse has merged it, and kills an ingester at last.
func (s *sized) measure() (c cost) {
	s.Helper()
	s.eventually("the shards are shared out", s.shared)
	processes := append([]*process{s.gateway, s.nats, s.clickhouse}, s.running...)
	before := map[*process]time.Duration{}
	for _, p := range processes {
		before[p] = cpuTime(p.instance().cmd.Process.Pid)
	}
	bodies := s.bodies()
	began := time.Now()
	s.push(bodies)
	s.flush()
	s.settle("")
	took := time.Since(began)
	s.eventually("merges", func() error {
		if running := s.number("SELECT count() FROM system.merges"); running > 0 {
			return fmt.Errorf("%d merges", running)
		}
		return nil
	})
	each := func(p *process) float64 {
		return float64((cpuTime(p.instance().cmd.Process.Pid) - before[p]).Microseconds()) / float64(s.lines)
	}
	megabytes := func(p *process) int64 { return peakMemory(p.instance().cmd.Process.Pid) / 1e6 }
	c = cost{
		rows: s.number("SELECT count() FROM logs.log"), parts: s.number("SELECT count() FROM system.parts WHERE active AND database = 'logs'"),
		linesPerSecond: float64(s.lines) / took.Seconds(),
		gateway:        each(s.gateway), nats: each(s.nats), table: each(s.clickhouse),
		gatewayMB: megabytes(s.gateway), natsMB: megabytes(s.nats),
	}
	for _, p := range s.running {
		c.ingesters += each(p)
		c.ingesterMB = max(c.ingesterMB, megabytes(p))
	}
	s.countNATS(&c)
	if len(s.running) > 1 {
		status, err := statusOf(s.Context(), s.running[0].address("ingester"))
		if err != nil {
			s.Fatal(err)
		}
		began := time.Now()
		s.running[0].kill()
		s.running = s.running[1:]
		s.settle(status.GetIngester())
		c.takeover = time.Since(began)
	}
	return c
}

// countNATS counts what NATS keeps.
func (s *sized) countNATS(c *cost) {
	s.Helper()
	nc, err := nats.Connect("nats://" + s.nats.address("nats"))
	if err != nil {
		s.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		s.Fatal(err)
	}
	for info := range js.ListStreams(s.Context()).Info() {
		c.natsStreams++
		c.consumers += info.State.Consumers
		if info.Config.Name == "KV_"+wal.Bucket {
			c.keys = int(info.State.NumSubjects)
		}
	}
}

// flush has every ingester land all that it has, without waiting for --flush-interval.
func (s *sized) flush() {
	s.Helper()
	for _, p := range s.running {
		err := until(s.Context(), settleTimeout, "flush", func() error {
			conn, err := grpc.NewClient(p.address("ingester"), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = logthrav1.NewIngesterServiceClient(conn).Flush(s.Context(), &logthrav1.FlushRequest{})
			return err
		})
		if err != nil {
			s.Fatal(err)
		}
	}
}

// shared returns an error while a shard has no owner, or an ingester none that it could have.
func (s *sized) shared() error {
	status, err := statusOf(s.Context(), s.running[0].address("ingester"))
	if err != nil {
		return err
	}
	owners := map[string]bool{}
	for _, shard := range status.GetShards() {
		owners[shard.GetOwner()] = true
	}
	if owners[""] || len(owners) < min(s.ingesters, s.shards) {
		return fmt.Errorf("%d owners", len(owners))
	}
	return nil
}

// settle waits until every shard has an owner, which is not the one that is gone, and all has landed.
func (s *sized) settle(gone string) {
	s.Helper()
	s.eventually("all has landed", func() error {
		status, err := statusOf(s.Context(), s.running[0].address("ingester"))
		if err != nil {
			return err
		}
		for _, shard := range status.GetShards() {
			if shard.GetBacklogRecords() > 0 || shard.GetOwner() == "" || shard.GetOwner() == gone {
				return fmt.Errorf("shard %d of %q has a backlog of %d", shard.GetShard(), shard.GetOwner(), shard.GetBacklogRecords())
			}
		}
		if len(status.GetShards()) != s.shards {
			return fmt.Errorf("%d shards", len(status.GetShards()))
		}
		return nil
	})
}

func (s *sized) eventually(what string, try func() error) {
	s.Helper()
	for deadline := time.Now().Add(settleTimeout); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("%s: %v", what, err)
		}
	}
}

// number asks ClickHouse for one.
func (s *sized) number(sql string) int {
	s.Helper()
	var text []byte
	err := until(s.Context(), askAgainFor, sql, func() error {
		body, err := s.query.query(s.Context(), sql)
		if err != nil {
			return err
		}
		defer body.Close()
		text, err = io.ReadAll(body)
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// bodies are pushes that have all streams between them, to be sent again and again: what the harness does for a line counts for
// little.
func (s *sized) bodies() (bodies [][]byte) {
	s.Helper()
	count := max(16, (s.streams+s.perPush-1)/s.perPush)
	random := rand.New(rand.NewPCG(1, uint64(s.perPush)))
	now := time.Now().UnixNano()
	stream := 0
	for range count {
		var request push.PushRequest
		parts := max(1, min(s.streams, s.perPush, (s.streams+count-1)/count))
		for part := range parts {
			one := push.Stream{Labels: fmt.Sprintf(`{app="app-%d", env="prod", pod="pod-%d"}`, stream%50, stream)}
			stream = (stream + 1) % s.streams
			for range (part+1)*s.perPush/parts - part*s.perPush/parts {
				now += 1000
				var line strings.Builder
				fmt.Fprintf(&line, "level=info caller=%s.go:%d id=%08x", words[random.IntN(len(words))], random.IntN(900), random.Uint32())
				for line.Len() < 110+random.IntN(60) {
					line.WriteString(" " + words[random.IntN(len(words))])
				}
				one.Entries = append(one.Entries, push.Entry{Timestamp: time.Unix(0, now), Line: line.String()})
			}
			request.Streams = append(request.Streams, one)
		}
		body, err := request.Marshal()
		if err != nil {
			s.Fatal(err)
		}
		bodies = append(bodies, snappy.Encode(nil, body))
	}
	return bodies
}

// push sends the bodies by turn, each time under a key of its own, until all lines are sent.
func (s *sized) push(bodies [][]byte) {
	s.Helper()
	const connections = 8
	var sent, failed atomic.Int64
	var pushing sync.WaitGroup
	pushes := int64(s.lines / s.perPush)
	for range connections {
		pushing.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
			defer client.CloseIdleConnections()
			for n := sent.Add(1) - 1; n < pushes && failed.Load() == 0; n = sent.Add(1) - 1 {
				err := pushBody(s.Context(), client, s.gateway.address("http"), fmt.Sprintf("tenant-%d", n%int64(s.tenants)), strconv.FormatInt(n, 10), bodies[n%int64(len(bodies))])
				if err != nil {
					failed.Add(1)
					s.Error(err)
				}
			}
		})
	}
	pushing.Wait()
}

func pushBody(ctx context.Context, client *http.Client, gateway, tenant, key string, body []byte) error {
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+gateway+"/loki/api/v1/push", bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/x-protobuf")
		request.Header.Set("X-Scope-OrgID", tenant)
		request.Header.Set("Idempotency-Key", key)
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		switch {
		case response.StatusCode == http.StatusNoContent:
			return err
		case response.StatusCode != http.StatusServiceUnavailable:
			return errors.Join(err, fmt.Errorf("%s: %s", response.Status, text))
		}
		time.Sleep(firstPause)
	}
}
