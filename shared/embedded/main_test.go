package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

// helperEnv makes the test binary a process of its own that does one thing and
// then waits to be killed.
const helperEnv = "LOGTHRA_TEST_HELPER"

func TestMain(m *testing.M) {
	embedded.RunChild()
	if what := os.Getenv(helperEnv); what != "" {
		helper(what, os.Args[1])
	}
	os.Exit(enginetest.Main(m))
}

func helper(what, dir string) {
	var said string
	var err error
	switch what {
	case "lock":
		_, err = embedded.LockDataDir(dir)
	case "clickhouse":
		var ch *embedded.ClickHouse
		ch, err = embedded.StartClickHouse(context.Background(), embedded.ClickHouseConfig{Dir: dir, Listen: anyPort, HTTPListen: anyPort})
		if err == nil {
			said = ch.Addr() + " " + ch.HTTPAddr()
		}
	}
	if err != nil {
		said = err.Error()
	}
	fmt.Println(said)
	select {}
}

const anyPort = "127.0.0.1:0"

// startHelper starts a helper and returns it with the line that it said.
func startHelper(t *testing.T, what, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

// eventually fails t when condition doesn't hold within a minute.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// wantError fails t unless err is one line that has every part.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is not one line", err)
	}
}
