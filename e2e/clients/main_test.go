package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/casteloig/logthra/shared/embedded"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
	landTimeout  = 30 * time.Second // from a push to its rows
	pollInterval = 20 * time.Millisecond
)

// Syslog has no place for a tenant: every test of it has a listener of its own, which names one.
var (
	syslogTCP = []string{"go-syslog", "logger-tcp", "rsyslog-octets", "rsyslog-lines", "syslog-ng", "syslog-ng-bsd"}
	syslogUDP = []string{"logger-udp", "rsyslog-udp", "syslog-ng-udp"}
)

// defaultTenant is whose the pushes are of clients that can't name a tenant over HTTP.
const defaultTenant = "nameless"

// The Logthra that all tests push to.
var (
	addresses  map[string]string
	clickHouse driver.Conn
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "logthra-clients-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	stop, err := start(dir)
	if err != nil {
		return fail(err)
	}
	defer func() {
		if err := stop(); err != nil {
			code = fail(err)
		}
	}()
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// start builds a Logthra, starts it with everything embedded, and returns when it is ready. stop ends it.
func start(dir string) (stop func() error, err error) {
	// The first to need the library fetches it, which takes longer than a start.
	if _, err := embedded.Library(context.Background(), os.Stderr); err != nil {
		return nil, err
	}
	binary := filepath.Join(dir, "logthra")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/casteloig/logthra").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	logPath, data := filepath.Join(dir, "log"), filepath.Join(dir, "data")
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(binary, flags(data)...)
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	stop = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err = <-exited:
		case <-time.After(stopTimeout):
			_ = cmd.Process.Kill()
			<-exited
			err = errors.New("it did not end in time")
		}
		if err != nil {
			text, _ := os.ReadFile(logPath)
			err = fmt.Errorf("logthra: %w\n%s", err, text)
		}
		return err
	}
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(pollInterval) {
		if err = ready(binary, data); err == nil {
			return stop, nil
		}
		select {
		case ended := <-exited:
			exited <- errors.Join(errors.New("it ended by itself"), ended)
			return nil, stop()
		default:
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("logthra is not ready: %w", err), stop())
		}
	}
}

func flags(data string) []string {
	// One shard, so that rows of equal times have the order in which they came.
	all := []string{"--data-dir", data, "--shards", "1", "--flush-interval", "300ms", "--default-tenant", defaultTenant}
	for _, flag := range []string{
		"--http-listen", "--grpc-listen", "--ingester-listen", "--ingester-http-listen",
		"--nats-listen", "--clickhouse-listen", "--clickhouse-http-listen",
	} {
		all = append(all, flag, "127.0.0.1:0")
	}
	for network, tenants := range map[string][]string{"tcp": syslogTCP, "udp": syslogUDP} {
		for _, tenant := range tenants {
			all = append(all, "--syslog-listen", network+"://127.0.0.1:0?tenant="+tenant)
		}
	}
	return all
}

// environment is that of the tests without what would configure a Logthra.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LOGTHRA_") && !strings.HasPrefix(v, "LOGTHRA_CHDB_LIB=")
	})
}

// ready asks for the addresses of the Logthra that runs on a data directory, and connects to its ClickHouse. Before they
// are there, status would ask one that runs on the default ports.
func ready(binary, data string) error {
	if _, err := os.Stat(filepath.Join(data, "addresses.json")); err != nil {
		return err
	}
	text, err := exec.Command(binary, "status", "--json", "--data-dir", data).Output()
	if err != nil {
		return err
	}
	var status struct {
		Addresses map[string]string `json:"addresses"`
	}
	if err := json.Unmarshal(text, &status); err != nil {
		return err
	}
	addresses = status.Addresses
	clickHouse, err = clickhouse.Open(&clickhouse.Options{Addr: []string{addresses["clickhouse"]}})
	if err != nil {
		return err
	}
	return clickHouse.Exec(context.Background(), "SELECT 1 FROM logs.log LIMIT 0")
}

// at is an address of the Logthra.
func at(t *testing.T, name string) string {
	t.Helper()
	address := addresses[name]
	if address == "" {
		t.Fatalf("there is no address %q among %v", name, addresses)
	}
	return address
}

// row is a line in ClickHouse.
type row struct {
	time     time.Time
	labels   map[string]string
	msg      string
	metadata map[string]string
}

func (r row) String() string {
	return fmt.Sprintf("%s %v %q %q", r.time.Format(time.RFC3339Nano), r.labels, r.msg, r.metadata)
}

// rows waits until ClickHouse has n rows of a tenant, and returns them in the order of their time.
func rows(t *testing.T, tenant string, n uint64) []row {
	t.Helper()
	count := uint64(0)
	for deadline := time.Now().Add(landTimeout); count < n; time.Sleep(pollInterval) {
		if err := clickHouse.QueryRow(t.Context(), "SELECT count() FROM logs.log WHERE tenant_id = ?", tenant).Scan(&count); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			break
		}
	}
	found, err := clickHouse.Query(t.Context(), `SELECT toUnixTimestamp64Nano(timestamp), labels, msg, metadata FROM logs.log
		WHERE tenant_id = ? ORDER BY timestamp, wal_seq, wal_index`, tenant)
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	var all []row
	for found.Next() {
		var nanos int64
		var r row
		if err := found.Scan(&nanos, &r.labels, &r.msg, &r.metadata); err != nil {
			t.Fatal(err)
		}
		r.time = time.Unix(0, nanos).UTC()
		all = append(all, r)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// wantRows compares the rows of a tenant field by field. A wanted time that is zero stands for any since the test began.
func wantRows(t *testing.T, tenant string, began time.Time, want ...row) {
	t.Helper()
	got := rows(t, tenant, uint64(len(want)))
	for i, w := range want[:min(len(got), len(want))] {
		g := got[i]
		if w.time.IsZero() && !g.time.Before(began.Truncate(time.Second)) && !g.time.After(time.Now()) {
			g.time = w.time
		}
		if !g.time.Equal(w.time) || g.msg != w.msg || !maps.Equal(g.labels, w.labels) || !maps.Equal(g.metadata, w.metadata) {
			t.Errorf("row %d\n got %s\nwant %s", i, g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d rows, want %d: %v", len(got), len(want), got)
	}
}
