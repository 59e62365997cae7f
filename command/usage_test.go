package command

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

// wantFailure fails the test unless the command ended with the code and one sentence that has all the parts.
func wantFailure(t *testing.T, code, wantCode int, stderr string, parts ...string) {
	t.Helper()
	if code != wantCode {
		t.Errorf("exit code is %d, want %d", code, wantCode)
	}
	text, hint, _ := strings.Cut(strings.TrimSpace(stderr), "\n")
	if !strings.HasPrefix(text, "logthra: ") || hint != "" && code != exitUsage {
		t.Errorf("not one sentence: %q", stderr)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q lacks %q", text, part)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	writeFile(t, bad, "flush-interval: 5s\nflush-intervall: 5s\nreplica: 2\n")
	list := filepath.Join(t.TempDir(), "list.yaml")
	writeFile(t, list, "- flush-interval\n")
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	writeFile(t, wrong, "flush-interval: soon\n")
	for name, c := range map[string]struct {
		args string
		code int
		want []string
	}{
		"flag":               {"--nonsense", exitUsage, []string{"--nonsense"}},
		"tool":               {"nonsense", exitUsage, []string{"nonsense"}},
		"size":               {"--flush-bytes 12q", exitUsage, []string{"--flush-bytes", `"12q"`, "64MiB"}},
		"duration":           {"--flush-interval soon", exitUsage, []string{"--flush-interval", "soon", "duration"}},
		"number":             {"--shards four", exitUsage, []string{"--shards", "four"}},
		"bound":              {"--shards 0", exitUsage, []string{"--shards", "1 to 1024"}},
		"bound of a role":    {"gateway --nats-url nats://127.0.0.1:1 --max-push-bytes 2GiB", exitUsage, []string{"--max-push-bytes", "1GiB"}},
		"level":              {"--log-level loud", exitUsage, []string{"--log-level", "loud"}},
		"format":             {"--log-format xml", exitUsage, []string{"--log-format", "text", "json", "xml"}},
		"label":              {"push --label a-b=c", exitUsage, []string{"--label", `"a-b"`, "a-zA-Z"}},
		"label without =":    {"push --label a", exitUsage, []string{"--label", "<key>=<value>"}},
		"no file":            {"--config /nonsense.yaml", exitUsage, []string{"/nonsense.yaml", "no such file"}},
		"key of the file":    {"--config " + bad, exitUsage, []string{"configuration file", "flush-intervall, replica"}},
		"shape of the file":  {"--config " + list, exitUsage, []string{"not a YAML mapping of flags"}},
		"value of the file":  {"--config " + wrong, exitUsage, []string{"--flush-interval", "soon"}},
		"gateway":            {"gateway", exitFailure, []string{"--nats-url", "logthra nats"}},
		"ingester":           {"ingester --nats-url nats://127.0.0.1:1", exitFailure, []string{"--clickhouse-dsn", "logthra clickhouse"}},
		"DSN":                {"ingester --nats-url nats://127.0.0.1:1 --clickhouse-dsn clickhouse://u:secret@h:port/logs", exitFailure, []string{"--clickhouse-dsn", "clickhouse://user:password@host:9000/logs"}},
		"DSN, no URL":        {"ingester --nats-url nats://127.0.0.1:1 --clickhouse-dsn u:secret@h", exitFailure, []string{"--clickhouse-dsn"}},
		"NATS URL":           {"gateway --nats-url nats://u:secret@h:port", exitFailure, []string{"--nats-url", "nats://user:password@host:4222"}},
		"status":             {"status --data-dir /nonsense --ingester 127.0.0.1:1", exitFailure, []string{"no ingester answers at 127.0.0.1:1", "--ingester", "--data-dir", "connection refused"}},
		"status, no address": {"status --ingester 127.0.0.1", exitFailure, []string{"127.0.0.1", "--ingester"}},
		"ready":              {"ready --url http://127.0.0.1:1", exitFailure, []string{"not ready", "127.0.0.1:1", "connection refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(t, "", strings.Fields(c.args)...)
			wantFailure(t, code, c.code, stderr, c.want...)
			if stdout != "" {
				t.Errorf("stdout has %q", stdout)
			}
			if strings.Contains(stderr, "secret") {
				t.Error("the password is told")
			}
		})
	}
}

// What the place does not allow is told before anything is fetched or started, or soon after.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for i := 0; i < len(anyPorts()); i += 2 {
		flag := anyPorts()[i]
		t.Run(flag, func(t *testing.T) {
			code, _, stderr := run(t, "", slices.Concat(anyPorts(), []string{"--data-dir", t.TempDir(), "--log-level", "error", flag, taken.Addr().String()})...)
			wantFailure(t, code, exitFailure, stderr, taken.Addr().String(), "in use", "choose another", flag)
		})
		t.Run(flag+" nonsense", func(t *testing.T) {
			code, _, stderr := run(t, "", slices.Concat(anyPorts(), []string{"--data-dir", t.TempDir(), "--log-level", "error", flag, "nonsense"})...)
			wantFailure(t, code, exitFailure, stderr, "nonsense", flag, "host:port")
		})
	}
	held := t.TempDir()
	for _, engine := range []string{"", "nats", "clickhouse"} {
		lock, err := embedded.LockDataDir(filepath.Join(held, engine))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { lock.Close() })
	}
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	for dir, want := range map[string]string{held: "in use by another Logthra", file: "not a directory", filepath.Join(file, "below"): "not a directory"} {
		for _, role := range []string{"run", "nats", "clickhouse"} {
			code, _, stderr := run(t, "", role, "--data-dir", dir)
			wantFailure(t, code, exitFailure, stderr, dir, want, "--data-dir")
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// parse parses a command line in this process.
func parse(t *testing.T, args ...string) (*cli, *kong.Kong) {
	t.Helper()
	var flags cli
	parser, err := newParser(&flags, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &flags, parser
}

// The contract of the flags.
func TestFlags(t *testing.T) {
	type table map[string]string
	data := table{"data-dir": "./logthra-data"}
	nats := table{"nats-url": ""}
	natsServer := table{"nats-listen": "127.0.0.1:4222"}
	clickhouse := table{"clickhouse-dsn": "", "retention": "0s"}
	clickhouseServer := table{"clickhouse-listen": "127.0.0.1:9000", "clickhouse-http-listen": "127.0.0.1:8123"}
	wal := table{"shards": "4", "replicas": "1", "wal-max-bytes": "10GiB", "dedup-window": "2m"}
	gateway := table{"http-listen": "127.0.0.1:3100", "grpc-listen": "127.0.0.1:4317", "max-push-bytes": "16MiB", "max-line-bytes": "256KiB", "push-timeout": "10s"}
	ingester := table{
		"ingester-listen": "127.0.0.1:9011", "ingester-http-listen": "127.0.0.1:9012",
		"flush-interval": "30s", "flush-rows": "500000", "flush-bytes": "64MiB", "replay-window": "72h",
	}
	drain := table{"drain-timeout": "30s"}
	_, parser := parse(t, "version")
	for role, tables := range map[string][]table{
		"run":        {data, nats, natsServer, clickhouse, clickhouseServer, wal, gateway, ingester, drain},
		"gateway":    {nats, wal, gateway, drain},
		"ingester":   {nats, clickhouse, wal, ingester, drain},
		"nats":       {data, natsServer},
		"clickhouse": {data, clickhouseServer},
		"push":       {data, {"tenant": "", "label": "", "url": ""}},
		"query":      {data, {"tenant": "", "url": "", "timeout": "2m", "since": "", "from": "", "to": "", "limit": "100", "output": "text", "labels": "differ", "color": "auto", "step": "", "at": ""}},
		"tail":       {data, {"tenant": "", "url": "", "since": "1h", "limit": "10", "delay": "0s", "output": "text", "labels": "differ", "color": "auto"}},
		"labels":     {data, {"tenant": "", "url": "", "since": "", "from": "", "to": "", "match": ""}},
		"series":     {data, {"tenant": "", "url": "", "since": "", "from": "", "to": ""}},
		"status":     {data},
	} {
		node := parser.Model.Children[slices.IndexFunc(parser.Model.Children, func(n *kong.Node) bool { return n.Name == role })]
		flags := map[string]*kong.Flag{}
		for _, flag := range node.Flags {
			flags[flag.Name] = flag
			if !strings.HasSuffix(flag.Help, ".") {
				t.Errorf("%s --%s: the help %q is no sentence", role, flag.Name, flag.Help)
			}
			if want := "LOGTHRA_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_")); !slices.Equal(flag.Envs, []string{want}) {
				t.Errorf("%s --%s is %v in the environment, want %s", role, flag.Name, flag.Envs, want)
			}
		}
		_, help, _ := run(t, "", role, "--help")
		for _, table := range tables {
			for name, value := range table {
				if flags[name] == nil {
					t.Errorf("%s has no --%s", role, name)
				} else if got := flags[name].Default; got != value {
					t.Errorf("%s --%s is %q by default, want %q", role, name, got, value)
				}
				if !strings.Contains(help, "--"+name+"=") {
					t.Errorf("%s --help lacks --%s", role, name)
				}
				if value != "" && !strings.Contains(strings.Join(strings.Fields(help), " "), " Default "+value+".") {
					t.Errorf("%s --help lacks the default of --%s, %s", role, name, value)
				}
			}
		}
	}
	// Alone, and with flags alone, it is run; what is not given is the default.
	flags, _ := parse(t, "--flush-rows", "7")
	if got := flags.Run; got.FlushRows != 7 || got.FlushInterval != 30*time.Second || got.MaxPushBytes != 16<<20 {
		t.Errorf("parsed %+v", got)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--version"}, {"version"}} {
		code, stdout, stderr := run(t, "", args...)
		want := []string{"logthra 1.2.3-test"}
		if strings.HasSuffix(args[0], "h") || args[0] == "--help" {
			want = []string{"Roles:", "Tools:", "run", "gateway", "ingester", "nats", "clickhouse", "push", "query", "tail", "labels", "series", "status", "version", "--config", "LOGTHRA_"}
		}
		if code != 0 || stderr != "" {
			t.Errorf("%v: exit code %d, stderr %q", args, code, stderr)
		}
		for _, part := range want {
			if !strings.Contains(stdout, part) {
				t.Errorf("%v: %q lacks %q", args, stdout, part)
			}
		}
	}
}

func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "logthra.yaml")
	writeFile(t, file, "flush-interval: 1s\nflush-rows: 11\nflush-bytes: 1MiB\nretention: 0\nlog-level: warn\nlabel: {app: api, note: 'a=b, c'}\ntenant: file\nhttp-listen: 127.0.0.1:1\n")
	t.Setenv("LOGTHRA_FLUSH_INTERVAL", "2s")
	t.Setenv("LOGTHRA_FLUSH_ROWS", "22")
	t.Setenv("LOGTHRA_GRPC_LISTEN", "127.0.0.1:2")
	for name, args := range map[string][]string{"flag": {"--config", file}, "environment": nil} {
		t.Run(name, func(t *testing.T) {
			if args == nil {
				t.Setenv("LOGTHRA_CONFIG", file)
			}
			flags, _ := parse(t, append(args, "--flush-interval", "3s")...)
			got := flags.Run
			if got.FlushInterval != 3*time.Second {
				t.Errorf("the flag is beaten: %s", got.FlushInterval)
			}
			if got.FlushRows != 22 {
				t.Errorf("the environment is beaten: %d", got.FlushRows)
			}
			if got.FlushBytes != 1<<20 || got.HTTPListen != "127.0.0.1:1" || flags.LogLevel != slog.LevelWarn {
				t.Errorf("the file is beaten: %s, %s, %s", got.FlushBytes, got.HTTPListen, flags.LogLevel)
			}
			if got.GRPCListen != "127.0.0.1:2" || got.IngesterListen != "127.0.0.1:9011" {
				t.Errorf("environment alone: %s; default: %s", got.GRPCListen, got.IngesterListen)
			}
			flags, _ = parse(t, append(args, "push", "--tenant", "flag")...)
			if want := map[string]string{"app": "api", "note": "a=b, c"}; flags.Push.Tenant != "flag" || !reflect.DeepEqual(flags.Push.Label, want) {
				t.Errorf("parsed %+v", flags.Push)
			}
		})
	}
}

// holdServer keeps a gateway's gRPC from ending by itself.
func holdServer(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	watch, err := grpc_health_v1.NewHealthClient(dial(t, address)).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	nats := enginetest.NATS(t)
	gateway := func(args ...string) (*logthra, map[string]string) {
		t.Helper()
		l := begin(t, nil, slices.Concat([]string{"gateway", "--nats-url", nats.URL(), "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--log-format", "json"}, args)...)
		return l, l.ready()
	}
	t.Run("twice", func(t *testing.T) {
		l, at := gateway()
		holdServer(t, at["grpc"])
		l.signal(syscall.SIGINT)
		l.eventually("it says that it shuts down", func() bool { return strings.Contains(l.stderr.String(), "shutting down") })
		began := time.Now()
		l.signal(syscall.SIGINT)
		if code := l.wait(); code == 0 || time.Since(began) > serverGrace*4/5 {
			t.Errorf("exit code %d after %s", code, time.Since(began))
		}
	})
	t.Run("drain timeout", func(t *testing.T) {
		l, at := gateway("--drain-timeout", "500ms")
		holdServer(t, at["grpc"])
		began := time.Now()
		l.stop()
		if took := time.Since(began); took > serverGrace*4/5 {
			t.Errorf("ended after %s", took)
		}
	})
	t.Run("before it is ready", func(t *testing.T) {
		l := begin(t, nil, "gateway", "--nats-url", "nats://user:secret@127.0.0.1:1,other:secret@127.0.0.1:2", "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0")
		l.eventually("it says what it waits for", func() bool {
			return strings.Contains(l.stderr.String(), "not there yet") && strings.Contains(l.stderr.String(), "127.0.0.1:1,127.0.0.1:2")
		})
		l.stop()
		if strings.Contains(l.stderr.String(), "secret") {
			t.Error("the password is told")
		}
	})
}
