package embedded

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

const (
	defaultClickHouseListen     = "127.0.0.1:9000"
	defaultClickHouseHTTPListen = "127.0.0.1:8123"
	defaultClickHouseMemory     = 2 << 30 // bytes

	// A child that dies is started again after restartFirst, and after twice the
	// time with every death up to restartLast, until one has lived for restartReset.
	restartFirst = 100 * time.Millisecond
	restartLast  = 10 * time.Second
	restartReset = time.Minute

	stopGrace    = 3 * time.Second // from closing the child's stdin to killing it
	pollInterval = 20 * time.Millisecond
	lastWords    = 8 << 10 // bytes kept of the child's stderr: a stack trace has about 4 KiB
)

// listenQueries are what the child runs. The last one reads the pipe that the
// parent holds, so it ends, and ClickHouse with it, when the parent does. It is
// an INFILE and not SELECT FROM file(), which needs a right that clickhouse.xml
// withholds.
const listenQueries = `SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP;
INSERT INTO FUNCTION null('line String') FROM INFILE '/dev/stdin' FORMAT LineAsString`

//go:embed clickhouse.xml
var clickHouseXML []byte

// ClickHouseConfig says how an embedded ClickHouse runs.
type ClickHouseConfig struct {
	Dir        string       // its data and config.xml; settings of your own go into config.d/*.xml in it
	Listen     string       // host:port of the native protocol; empty means 127.0.0.1:9000, port 0 any free one
	HTTPListen string       // host:port of HTTP, the same host; empty means 127.0.0.1:8123, port 0 any free one
	Memory     int64        // ceiling in bytes for queries, inserts, merges and caches; 0 means 2 GiB
	Library    string       // path of libchdb.so; empty means that of [Library], fetched without progress
	Logger     *slog.Logger // nil means slog.Default()
}

// ClickHouse is a ClickHouse server in a child process, which is started again
// whenever it dies: clients see refused connections for about half a second.
// It listens without a password, on the addresses it was given.
type ClickHouse struct {
	config   ClickHouseConfig
	addr     string
	httpAddr string

	stopping context.Context // done when Stop has been called: no restart from then on
	stop     context.CancelFunc
	done     chan struct{} // closed when the last child has been waited for

	mu    sync.Mutex // guards child
	child *child
}

// StartClickHouse starts ClickHouse and returns when it answers, which takes
// less than a second with an empty Dir. ctx bounds the start alone. The program
// must call [RunChild] first thing in main. It fails when an address is taken,
// Dir can't be written to, the library can't be had, or when the child ends
// before it answers; then the error holds its last words.
func StartClickHouse(ctx context.Context, config ClickHouseConfig) (*ClickHouse, error) {
	config.Listen = cmp.Or(config.Listen, defaultClickHouseListen)
	config.HTTPListen = cmp.Or(config.HTTPListen, defaultClickHouseHTTPListen)
	config.Memory = cmp.Or(config.Memory, defaultClickHouseMemory)
	config.Logger = cmp.Or(config.Logger, slog.Default())
	var err error
	if config.Library == "" {
		if config.Library, err = Library(ctx, nil); err != nil {
			return nil, err
		}
	}
	if config.Dir, err = filepath.Abs(config.Dir); err != nil {
		return nil, err
	}
	if err := makeWritable(config.Dir); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(config.Dir, "config.xml"), clickHouseXML, 0o600); err != nil {
		return nil, fmt.Errorf("configure ClickHouse: %w", err)
	}

	c := &ClickHouse{config: config, done: make(chan struct{})}
	if err := c.reserve(ctx); err != nil {
		return nil, err
	}
	first, err := c.start()
	if err != nil {
		return nil, err
	}
	if err := c.waitReady(ctx, first); err != nil {
		first.kill()
		return nil, err
	}
	c.child = first
	c.stopping, c.stop = context.WithCancel(context.Background())
	go c.supervise(first)
	return c, nil
}

// Addr returns the host:port of the native protocol, the same over restarts.
func (c *ClickHouse) Addr() string { return c.addr }

// HTTPAddr returns the host:port of HTTP, the same over restarts.
func (c *ClickHouse) HTTPAddr() string { return c.httpAddr }

// DSN returns the data source name of the database logs, which need not exist.
func (c *ClickHouse) DSN() string { return "clickhouse://default@" + c.addr + "/logs" }

// Ready blocks until ClickHouse answers, through restarts, or ctx ends.
func (c *ClickHouse) Ready(ctx context.Context) error { return c.waitReady(ctx, nil) }

// Kill ends the child with SIGKILL and returns when it is gone, if there was
// one: for tests of what is above. It is then restarted as after any death.
func (c *ClickHouse) Kill() {
	c.mu.Lock()
	child := c.child
	c.mu.Unlock()
	child.kill()
}

// Stop lets running queries end, stops ClickHouse for good and returns when it
// is gone. It kills it when ctx ends or 3 seconds have passed, which loses
// nothing that an insert was confirmed for. Stopping twice is allowed.
func (c *ClickHouse) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	c.stop()
	select {
	case <-c.done:
	case <-ctx.Done():
		c.Kill()
		<-c.done
	}
}

// supervise waits for the child and replaces it when it dies, until Stop.
func (c *ClickHouse) supervise(current *child) {
	defer close(c.done)
	backoff := restartFirst
	for {
		select {
		case <-c.stopping.Done():
			_ = current.stdin.Close()
			<-current.exited
			return
		case <-current.exited:
		}
		if c.stopping.Err() != nil {
			return
		}
		lived := time.Since(current.started)
		if lived > restartReset {
			backoff = restartFirst
		}
		c.config.Logger.Error("ClickHouse died, restarting it", "status", current.status(), "lived", lived,
			"restart_in", backoff, "last_words", current.stderr.String())
		if !c.sleep(backoff) {
			return
		}
		next, err := c.start()
		for ; err != nil; next, err = c.start() {
			c.config.Logger.Error("ClickHouse could not be restarted", "error", err)
			if !c.sleep(restartLast) {
				return
			}
		}
		c.mu.Lock()
		c.child = next
		c.mu.Unlock()
		current, backoff = next, min(2*backoff, restartLast)
	}
}

// sleep waits for d and reports whether Stop has not been called meanwhile.
func (c *ClickHouse) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-c.stopping.Done():
		return false
	}
}

// reserve waits for the ClickHouse of a Logthra that has just been killed, so
// that a restarted Logthra doesn't trip over it, and sets the addresses.
func (c *ClickHouse) reserve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, orphanGrace+stopGrace)
	defer cancel()
	status := flock.New(filepath.Join(c.config.Dir, "status")) // ClickHouse's own lock
	orphan := false
	for {
		free, err := status.TryLock()
		if err != nil {
			return fmt.Errorf("lock ClickHouse's data: %w", err)
		}
		if free {
			_ = status.Close()
			if err = c.reservePorts(); err == nil || !orphan || !errors.Is(err, errAddressTaken) {
				return err
			}
		} else {
			orphan = true
			err = fmt.Errorf("data directory %s is in use by another ClickHouse; stop it or choose another with --data-dir", c.config.Dir)
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return err
		}
	}
}

func (c *ClickHouse) reservePorts() error {
	native, err := reserve("--clickhouse-listen", c.config.Listen)
	if err != nil {
		return err
	}
	defer func() { _ = native.Close() }()
	web, err := reserve("--clickhouse-http-listen", c.config.HTTPListen)
	if err != nil {
		return err
	}
	defer func() { _ = web.Close() }()
	if a, b := native.Addr().(*net.TCPAddr).IP, web.Addr().(*net.TCPAddr).IP; !a.Equal(b) {
		return fmt.Errorf("--clickhouse-listen (%s) and --clickhouse-http-listen (%s) must be on the same host", c.config.Listen, c.config.HTTPListen)
	}
	c.addr, c.httpAddr = native.Addr().String(), web.Addr().String()
	return nil
}

// waitReady blocks until /ping is answered, ctx ends, or child has exited; nil
// is no child.
func (c *ClickHouse) waitReady(ctx context.Context, child *child) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second} // and no proxy
	ping, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.httpAddr+"/ping", nil)
	if err != nil {
		return err
	}
	var exited <-chan struct{}
	if child != nil {
		exited = child.exited
	}
	for {
		if response, err := client.Do(ping); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-exited:
			return fmt.Errorf("ClickHouse did not start (%s): %s", child.status(), cmp.Or(child.stderr.String(), "it said nothing"))
		case <-ctx.Done():
			return fmt.Errorf("wait for ClickHouse on %s: %w", c.httpAddr, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// child is one process of ClickHouse.
type child struct {
	process *os.Process
	stdin   io.Closer // ClickHouse ends when this is closed
	started time.Time
	stderr  tail
	exited  chan struct{} // closed when state is set
	state   *os.ProcessState
}

// start starts this program as a child that becomes ClickHouse in RunChild.
func (c *ClickHouse) start() (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	host, port, err := net.SplitHostPort(c.addr)
	if err != nil {
		return nil, err
	}
	_, httpPort, err := net.SplitHostPort(c.httpAddr)
	if err != nil {
		return nil, err
	}
	args := []string{
		"--path", c.config.Dir, "--config-file", filepath.Join(c.config.Dir, "config.xml"),
		"--logger.console", "--log-level=fatal", // only what it dies of
		"--listen_host", host, "--query", listenQueries,
		"--", "--tcp_port=" + port, "--http_port=" + httpPort,
		fmt.Sprintf("--max_server_memory_usage=%d", c.config.Memory),
	}
	// Each has a default of gigabytes, which would fill the ceiling by itself.
	for _, cache := range []string{"mark", "index_mark", "primary_index", "text_index_tokens", "text_index_header", "text_index_postings"} {
		args = append(args, fmt.Sprintf("--%s_cache_size=%d", cache, c.config.Memory/16))
	}

	cmd := exec.Command(self, args...) //nolint:noctx // ends with its stdin, not with the context of the start
	cmd.Dir = c.config.Dir             // ClickHouse takes relative paths, and a config.xml, from here
	// Nothing else of ours, so that no secret in the environment is within a query's reach.
	cmd.Env = []string{childEnv + "=" + c.config.Library, "LD_LIBRARY_PATH=" + os.Getenv("LD_LIBRARY_PATH"), "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for Logthra, which drains into ClickHouse first
	child := &child{exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &child.stderr, &child.stderr
	if child.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	child.started = time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start ClickHouse: %w", err)
	}
	child.process = cmd.Process
	go func() {
		defer close(child.exited)
		_ = cmd.Wait() // its error is the state, and the state is the report
		child.state = cmd.ProcessState
	}()
	return child, nil
}

func (c *child) kill() {
	_ = c.process.Kill() // an error means that it is gone already
	<-c.exited
}

// status returns how an exited child ended, e.g. "signal: aborted".
func (c *child) status() string { return c.state.String() }

// tail is a writer that keeps the end of what was written to it.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-lastWords):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
