package embedded_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// startClickHouse starts one of t's own.
func startClickHouse(t *testing.T, config embedded.ClickHouseConfig) *embedded.ClickHouse {
	t.Helper()
	if config.Listen == "" {
		config.Listen, config.HTTPListen = anyPort, anyPort
	}
	ch, err := embedded.StartClickHouse(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ch.Stop(context.Background()) })
	return ch
}

// open connects the real driver.
func open(t *testing.T, ch *embedded.ClickHouse) *sql.DB {
	t.Helper()
	db, err := sql.Open("clickhouse", strings.TrimSuffix(ch.DSN(), "logs")+"default")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func run(t *testing.T, db *sql.DB, queries ...string) {
	t.Helper()
	for _, query := range queries {
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
}

func count(t *testing.T, db *sql.DB, table string) (n uint64) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT count() FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// hang starts a query that takes minutes, and returns when it runs.
func hang(t *testing.T, httpAddr string) {
	t.Helper()
	post := func(query string) string {
		response, err := http.Post("http://"+httpAddr, "", strings.NewReader(query))
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return string(body)
	}
	go post("SELECT sleepEachRow(1) FROM numbers(600) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 600000000")
	eventually(t, "a running query", func() bool {
		return post("SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleepEachRow%'") == "1\n"
	})
}

// childPID returns the process id that ClickHouse has written into its data.
func childPID(t *testing.T, dir string) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`PID: (\d+)`).FindSubmatch(status)
	if match == nil {
		t.Fatalf("no PID in %s", status)
	}
	pid, _ := strconv.Atoi(string(match[1]))
	return pid
}

// Its threads stand back behind those of whoever takes pushes.
func TestClickHouseStandsBack(t *testing.T) {
	dir := t.TempDir()
	db := open(t, startClickHouse(t, embedded.ClickHouseConfig{Dir: dir}))
	run(t, db, "SELECT 1")
	// Go's own threads, which hardly work, stay as they are.
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", childPID(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	nice := 0
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from the state on, which is field 3
		if fields[19-3] == "10" {
			nice++
		}
	}
	if runtime.GOOS == "linux" && nice < len(threads)/2 {
		t.Errorf("%d of %d threads stand back", nice, len(threads))
	}
}

// However little memory there is for them, queries have all the threads that they ask for.
func TestClickHouseReadsWithManyThreads(t *testing.T) {
	db := open(t, startClickHouse(t, embedded.ClickHouseConfig{Dir: t.TempDir(), Memory: 1 << 30}))
	run(t, db, "CREATE DATABASE logs", "CREATE TABLE logs.t (a UInt64) ENGINE = MergeTree ORDER BY a", "INSERT INTO logs.t SELECT number FROM numbers(3000000)")
	rows, err := db.QueryContext(t.Context(), "EXPLAIN PIPELINE SELECT sum(a) FROM logs.t SETTINGS max_threads = 3, merge_tree_min_bytes_for_concurrent_read = 1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var pipeline strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		pipeline.WriteString(line + "\n")
	}
	if err := rows.Err(); err != nil || !strings.Contains(pipeline.String(), "AggregatingTransform × 3") {
		t.Errorf("%v: three threads do\n%s", err, &pipeline)
	}
}

func TestClickHouseSurvivesKill(t *testing.T) {
	var logged syncBuffer
	dir := t.TempDir()
	start := time.Now()
	ch := startClickHouse(t, embedded.ClickHouseConfig{Dir: dir, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	t.Logf("started in %s", time.Since(start))
	addr, httpAddr := ch.Addr(), ch.HTTPAddr()
	db := open(t, ch)
	run(t, db,
		"CREATE DATABASE logs",
		"CREATE TABLE logs.t (a UInt64) ENGINE = MergeTree ORDER BY a",
		"CREATE MATERIALIZED VIEW logs.v ENGINE = AggregatingMergeTree ORDER BY a AS SELECT a FROM logs.t",
	)
	for i := range uint64(3) {
		run(t, db, "INSERT INTO logs.t SELECT number FROM numbers(1000)")
		start := time.Now()
		ch.Kill()
		if err := ch.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("back in %s", time.Since(start))
		for _, table := range []string{"logs.t", "logs.v"} {
			if got := count(t, open(t, ch), table); got != (i+1)*1000 {
				t.Errorf("%s has %d rows after kill %d", table, got, i+1)
			}
		}
	}
	if ch.Addr() != addr || ch.HTTPAddr() != httpAddr {
		t.Errorf("addresses changed from %s, %s to %s, %s", addr, httpAddr, ch.Addr(), ch.HTTPAddr())
	}

	_ = syscall.Kill(childPID(t, dir), syscall.SIGABRT)
	eventually(t, "a logged abort", func() bool { return strings.Contains(logged.String(), "signal: aborted") })
	if got := logged.String(); strings.Count(got, "ClickHouse died") < 4 || !strings.Contains(got, "Received signal 6") {
		t.Errorf("logged: %s", got)
	}
	if err := ch.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A service manager's SIGTERM to all processes and a terminal's ^C are for the
// parent, which still has to drain.
func TestClickHouseIgnoresTermination(t *testing.T) {
	var logged syncBuffer
	dir := t.TempDir()
	ch := startClickHouse(t, embedded.ClickHouseConfig{Dir: dir, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	pid := childPID(t, dir)
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("child %d is in process group %d (%v)", pid, group, err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
	}
	db := open(t, ch)
	for range 20 {
		run(t, db, "SELECT sleep(0.01)")
	}
	if got := logged.String(); got != "" || childPID(t, dir) != pid {
		t.Errorf("logged: %s", got)
	}
}

func TestClickHouseEndsWithItsParent(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run("busy="+strconv.FormatBool(busy), func(t *testing.T) {
			dir := t.TempDir()
			parent, said := startHelper(t, "clickhouse", dir)
			addr, httpAddr, _ := strings.Cut(said, " ")
			if _, _, err := net.SplitHostPort(addr); err != nil {
				t.Fatal(said)
			}
			if busy {
				hang(t, httpAddr)
			}
			start := time.Now()
			_ = parent.Process.Kill()
			_ = parent.Wait()
			// The successor waits for the orphan, whose data and addresses it needs.
			startClickHouse(t, embedded.ClickHouseConfig{Dir: dir, Listen: addr, HTTPListen: httpAddr})
			t.Logf("the successor answers after %s", time.Since(start))
		})
	}
}

func TestClickHouseStop(t *testing.T) {
	tests := map[string]struct {
		during func(t *testing.T, ch *embedded.ClickHouse)
		within time.Duration // of Stop's context
		atMost time.Duration
	}{
		"idle connections": {func(t *testing.T, ch *embedded.ClickHouse) { run(t, open(t, ch), "SELECT 1") }, time.Minute, 20 * time.Second},
		"running query":    {func(t *testing.T, ch *embedded.ClickHouse) { hang(t, ch.HTTPAddr()) }, 100 * time.Millisecond, 20 * time.Second},
		"while it is down": {func(_ *testing.T, ch *embedded.ClickHouse) { ch.Kill() }, time.Minute, 20 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ch := startClickHouse(t, embedded.ClickHouseConfig{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
			test.during(t, ch)
			ctx, cancel := context.WithTimeout(t.Context(), test.within)
			defer cancel()
			start := time.Now()
			ch.Stop(ctx)
			took := time.Since(start)
			t.Logf("stopped in %s", took)
			if took > test.atMost {
				t.Errorf("took %s", took)
			}
			if conn, err := net.Dial("tcp", ch.Addr()); err == nil {
				_ = conn.Close()
				t.Error("it still listens")
			}
			ch.Stop(ctx)
		})
	}
}

func TestClickHouseAddresses(t *testing.T) {
	listener, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := listener.Addr().String()
	tests := map[string]struct {
		listen, httpListen string
		want               []string
	}{
		"native taken": {taken, anyPort, []string{taken, "already in use", "--clickhouse-listen"}},
		"HTTP taken":   {anyPort, taken, []string{taken, "already in use", "--clickhouse-http-listen"}},
		"nonsense":     {"nonsense", anyPort, []string{"nonsense", "--clickhouse-listen"}},
		"two hosts":    {anyPort, "127.0.0.2:0", []string{"same host", "127.0.0.2"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{Dir: t.TempDir(), Listen: test.listen, HTTPListen: test.httpListen})
			wantError(t, err, test.want...)
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %s to say so", took)
			}
		})
	}
}

func TestClickHouseOnAllInterfaces(t *testing.T) {
	ch := startClickHouse(t, embedded.ClickHouseConfig{Dir: t.TempDir(), Listen: ":0", HTTPListen: ":0"})
	run(t, open(t, ch), "SELECT 1")
	_, port, _ := net.SplitHostPort(ch.HTTPAddr())
	response, err := http.Get("http://127.0.0.1:" + port + "/ping")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
}

func TestClickHouseCannotStart(t *testing.T) {
	for name, dir := range unwritable(t) {
		t.Run(name, func(t *testing.T) {
			_, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{Dir: dir, Listen: anyPort, HTTPListen: anyPort})
			wantError(t, err, dir, "--data-dir")
		})
	}
	t.Run("not a library", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "lib.so")
		if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{Dir: t.TempDir(), Listen: anyPort, HTTPListen: anyPort, Library: file})
		wantError(t, err, "ClickHouse did not start (exit status 1)", file)
	})
	t.Run("bad configuration", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "config.d"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.d", "own.xml"), []byte("<clickhouse>"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseConfig{Dir: dir, Listen: anyPort, HTTPListen: anyPort})
		if err == nil || !strings.Contains(err.Error(), "own.xml") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := embedded.StartClickHouse(ctx, embedded.ClickHouseConfig{Dir: t.TempDir(), Listen: anyPort, HTTPListen: anyPort})
		wantError(t, err, "context canceled")
	})
}

// Whoever reaches the port has the tables, but not the machine.
func TestClickHouseReachesNothingElse(t *testing.T) {
	ch := enginetest.ClickHouse(t)
	db := open(t, ch)
	file := filepath.Join(t.TempDir(), "written")
	for _, query := range []string{
		"INSERT INTO FUNCTION file('" + file + "', LineAsString) SELECT 'x'",
		"SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
		"BACKUP DATABASE default TO File('" + file + "')",
		"CREATE DATABASE own",
		"CREATE DICTIONARY own.d (a UInt64) PRIMARY KEY a SOURCE(EXECUTABLE(COMMAND 'touch " + file + "' FORMAT TSV)) LAYOUT(FLAT()) LIFETIME(0)",
		"CREATE USER u",
	} {
		_, err := db.ExecContext(t.Context(), query)
		if err == nil && query != "CREATE DATABASE own" {
			t.Errorf("%s was allowed", query)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the file was written")
	}
}
