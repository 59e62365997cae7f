package command

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // ClickHouse has it, too
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/embedded"
)

// commandEnv makes the test binary the logthra command: what is tested is a process, with what the race
// detector has to say about it.
const commandEnv = "LOGTHRA_TEST_COMMAND"

func TestMain(m *testing.M) {
	embedded.RunChild()
	if os.Getenv(commandEnv) != "" {
		os.Exit(Main("1.2.3-test", os.Args[1:]))
	}
	// The first to need the library fetches it, which takes longer than a test waits for anything.
	if _, err := embedded.Library(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// logthra is a running command.
type logthra struct {
	t              *testing.T
	process        *os.Process
	stdout, stderr *output
	exited         chan struct{} // closed when state is set
	state          *os.ProcessState
}

// begin starts the command. It has ended when the test has.
func begin(t *testing.T, stdin io.Reader, args ...string) *logthra {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LOGTHRA_") }), commandEnv+"=1")
	if library := os.Getenv("LOGTHRA_CHDB_LIB"); library != "" {
		cmd.Env = append(cmd.Env, "LOGTHRA_CHDB_LIB="+library)
	}
	l := &logthra{t: t, stdout: new(output), stderr: new(output), exited: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, l.stdout, l.stderr
	cmd.WaitDelay = time.Second // for a stdin that nobody closes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.process = cmd.Process
	go func() {
		defer close(l.exited)
		_ = cmd.Wait() // the state tells
		l.state = cmd.ProcessState
	}()
	t.Cleanup(func() {
		select {
		case <-l.exited:
		default:
			l.stop()
		}
		if t.Failed() {
			t.Logf("%s\nstdout: %s\nstderr: %s", strings.Join(args, " "), l.stdout, l.stderr)
		}
	})
	return l
}

// run runs the command to its end.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	l := begin(t, strings.NewReader(stdin), args...)
	return l.wait(), l.stdout.String(), l.stderr.String()
}

// wait waits for the end and returns the exit code, -1 after a signal.
func (l *logthra) wait() int {
	l.t.Helper()
	select {
	case <-l.exited:
	case <-time.After(time.Minute):
		_ = l.process.Kill()
		<-l.exited
		l.t.Errorf("did not end within a minute")
	}
	if strings.Contains(l.stderr.String(), "DATA RACE") {
		l.t.Errorf("data race")
	}
	return l.state.ExitCode()
}

// stop ends it as a service manager does, and expects a good end.
func (l *logthra) stop() {
	l.t.Helper()
	l.signal(syscall.SIGTERM)
	if code := l.wait(); code != 0 {
		l.t.Errorf("exit code after SIGTERM is %d", code)
	}
}

// kill ends it as a power cut does.
func (l *logthra) kill() {
	l.t.Helper()
	l.signal(syscall.SIGKILL)
	l.wait()
}

func (l *logthra) signal(s os.Signal) {
	l.t.Helper()
	if err := l.process.Signal(s); err != nil {
		l.t.Fatal(err)
	}
}

// ready waits for the ready line of a role that logs JSON, and returns what it says.
func (l *logthra) ready() map[string]string {
	l.t.Helper()
	at := map[string]string{}
	l.eventually("ready", func() bool {
		for line := range strings.Lines(l.stderr.String()) {
			var attrs map[string]any
			if json.Unmarshal([]byte(line), &attrs) != nil || attrs["msg"] != "ready" {
				continue
			}
			for name, value := range attrs {
				if text, ok := value.(string); ok {
					at[name] = text
				}
			}
			return true
		}
		return false
	})
	return at
}

// eventually fails the test when the condition does not hold within a minute, or never can, as l has ended.
func (l *logthra) eventually(what string, condition func() bool) {
	l.t.Helper()
	eventually(l.t, what, func() bool {
		if condition() {
			return true
		}
		select {
		case <-l.exited:
			l.t.Fatalf("ended (%s) before: %s", l.state, what)
		default:
		}
		return false
	})
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// output is what a process has written so far.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// anyPorts are the flags of a Logthra that disturbs no other.
func anyPorts() []string {
	var flags []string
	for _, flag := range []string{
		"--http-listen", "--grpc-listen", "--ingester-listen", "--ingester-http-listen",
		"--nats-listen", "--clickhouse-listen", "--clickhouse-http-listen",
	} {
		flags = append(flags, flag, "127.0.0.1:0")
	}
	return flags
}

// freeAddress is an address that keeps its port over restarts. Another program may take it; few do.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// alone is a Logthra that runs everything.
type alone struct {
	*logthra

	dir string
	at  map[string]string
}

// runAlone starts a Logthra on the data directory and returns when it is ready.
func runAlone(t *testing.T, dir string, args ...string) *alone {
	t.Helper()
	l := begin(t, nil, slices.Concat(anyPorts(), []string{"--data-dir", dir, "--log-level", "debug"}, args)...)
	l.eventually("ready", func() bool { return strings.Contains(l.stdout.String(), "See it") })
	at, err := readAddresses(dir)
	if err != nil || at["http"] == "" {
		t.Fatalf("addresses: %v, %v", at, err)
	}
	return &alone{logthra: l, dir: dir, at: at}
}

// dial connects to a gRPC server.
func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func ingesterOf(t *testing.T, address string) logthrav1.IngesterServiceClient {
	t.Helper()
	return logthrav1.NewIngesterServiceClient(dial(t, address))
}

// flush lands all that was pushed.
func flush(t *testing.T, ingester string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, err := ingesterOf(t, ingester).Flush(ctx, &logthrav1.FlushRequest{})
		if err == nil {
			return
		}
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			t.Fatal(err)
		}
		t.Logf("flushing again: %v", err) // on a busy machine a shard may be on its way to an owner
		time.Sleep(time.Second)
	}
}

// sqlQuery asks ClickHouse over HTTP.
func sqlQuery(address, sql string) (string, error) {
	request, err := http.NewRequest(http.MethodPost, "http://"+address, strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	request.Close = true // a ClickHouse that ends waits for the connections that it has
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = &refusedQueryError{string(text)}
	}
	return string(text), err
}

// refusedQueryError is what ClickHouse says against a query.
type refusedQueryError struct{ text string }

func (r *refusedQueryError) Error() string { return r.text }

func mustQuery(t *testing.T, address, sql string) string {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		text, err := sqlQuery(address, sql)
		if err == nil {
			return text
		}
		if errors.As(err, new(*refusedQueryError)) || time.Now().After(deadline) { // it may have died by itself, and is soon back
			t.Fatal(err)
		}
	}
}

// lines counts lines by their hash.
type lines map[string]int

func hash(line string) string {
	sum := md5.Sum([]byte(line)) //nolint:gosec // to compare, not to protect
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

func linesOf(text ...string) lines {
	all := lines{}
	for _, line := range text {
		all[hash(line)]++
	}
	return all
}

// landed are the lines that a ClickHouse holds.
func landed(t *testing.T, address, where string) lines {
	t.Helper()
	all := lines{}
	for row := range strings.Lines(mustQuery(t, address, "SELECT hex(MD5(msg)), count() FROM logs.log WHERE "+where+" GROUP BY 1 FORMAT TSV")) {
		sum, count, _ := strings.Cut(strings.TrimSpace(row), "\t")
		n, err := strconv.Atoi(count)
		if err != nil {
			t.Fatal(err)
		}
		all[sum] = n
	}
	return all
}

// wantOnce fails the test unless got has each line as often as want.
func wantOnce(t *testing.T, got, want lines) {
	t.Helper()
	missing, more, all := 0, 0, 0
	for sum, n := range want {
		all += n
		missing += max(0, n-got[sum])
	}
	for sum, n := range got {
		more += max(0, n-want[sum])
	}
	if missing > 0 || more > 0 {
		t.Errorf("of %d lines %d are missing; there are %d too many", all, missing, more)
	}
}

// children are the processes that a process has started.
func children(t *testing.T, pid int) []int {
	t.Helper()
	var pids []int
	files, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
