package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/embedded"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code != 0 && live.log != "" {
		text, _ := os.ReadFile(live.log)
		fmt.Fprintf(os.Stderr, "the end of what logthra says:\n%s", text[max(0, len(text)-16<<10):])
	}
	if live.stop != nil {
		if err := live.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// live is a Logthra with everything embedded, which all tests share that ask it: the program as it is, in a process of its own.
var live struct {
	once     sync.Once
	err      error
	stop     func() error
	url, log string
	ingester logthrav1.IngesterServiceClient
}

// How long it may take to start and to end, on a busy machine.
const (
	liveStart = 3 * time.Minute
	liveStop  = time.Minute
)

// startLive returns the Logthra, and starts it if it does not run yet.
func startLive(t *testing.T) *server {
	t.Helper()
	live.once.Do(func() { live.err = beginLive() })
	if live.err != nil {
		t.Fatal(live.err)
	}
	return &server{url: live.url}
}

func beginLive() error {
	// The first to need the library fetches it, which takes longer than a start.
	if _, err := embedded.Library(context.Background(), os.Stderr); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "logthra-query-")
	if err != nil {
		return err
	}
	live.stop = func() error { return os.RemoveAll(dir) }
	binary, data := filepath.Join(dir, "logthra"), filepath.Join(dir, "data")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/casteloig/logthra").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	live.log = log.Name()
	// Nothing is flushed but by the tests.
	args := []string{"--data-dir", data, "--shards", "2", "--flush-interval", "1h", "--query-timeout", "30s"}
	for _, flag := range []string{"http", "grpc", "ingester", "ingester-http", "nats", "clickhouse", "clickhouse-http"} {
		args = append(args, "--"+flag+"-listen", "127.0.0.1:0")
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LOGTHRA_") && !strings.HasPrefix(v, "LOGTHRA_CHDB_LIB=")
	})
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	said := func(err error) error {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("logthra: %w\n%s", err, text)
	}
	live.stop = func() error {
		defer os.RemoveAll(dir)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-exited:
			if err != nil {
				return said(err)
			}
		case <-time.After(liveStop):
			_ = cmd.Process.Kill()
			return said(errors.Join(errors.New("it did not end in time"), <-exited))
		}
		return nil
	}
	for deadline := time.Now().Add(liveStart); ; time.Sleep(20 * time.Millisecond) {
		if err := reachLive(data); err == nil {
			return nil
		} else if time.Now().After(deadline) {
			return said(err)
		}
		select {
		case err := <-exited:
			exited <- err
			return said(errors.Join(errors.New("it ended by itself"), err))
		default:
		}
	}
}

// reachLive finds out where it listens, and whether it answers queries.
func reachLive(data string) error {
	text, err := os.ReadFile(filepath.Join(data, "addresses.json"))
	if err != nil {
		return err
	}
	var at map[string]string
	if err := json.Unmarshal(text, &at); err != nil {
		return err
	}
	live.url = "http://" + at["http"]
	conn, err := grpc.NewClient(at["ingester"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	live.ingester = logthrav1.NewIngesterServiceClient(conn)
	request, err := http.NewRequest(http.MethodGet, live.url+v1+"/labels", nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Scope-OrgID", "anybody")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("queries are answered %s", response.Status)
	}
	return nil
}

// unique is a tenant that nobody had before.
func unique(name string) string { return fmt.Sprint(name, "-", time.Now().UnixNano()) }

// flush brings all that was pushed into ClickHouse.
func flush(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		_, err := live.ingester.Flush(t.Context(), &logthrav1.FlushRequest{})
		return err == nil
	})
}

// entry is what is pushed: a stream, a time in unix nanoseconds, a line, and metadata.
type entry struct {
	labels, metadata map[string]string
	time             int64
	line             string
}

// push pushes entries, as Loki's JSON.
func (s *server) push(t *testing.T, tenant string, entries ...entry) {
	t.Helper()
	type stream struct {
		Stream map[string]string `json:"stream"`
		Values [][]any           `json:"values"`
	}
	var push struct {
		Streams []stream `json:"streams"`
	}
	for _, e := range entries {
		value := []any{fmt.Sprint(e.time), e.line}
		if e.metadata != nil {
			value = append(value, e.metadata)
		}
		push.Streams = append(push.Streams, stream{e.labels, [][]any{value}})
	}
	body, err := json.Marshal(push)
	if err != nil {
		t.Fatal(err)
	}
	status, text, _ := s.do(t, http.MethodPost, v1+"/push", string(body), "X-Scope-OrgID", tenant, "Content-Type", "application/json")
	if status != http.StatusNoContent {
		t.Fatalf("%d %s", status, text)
	}
}
