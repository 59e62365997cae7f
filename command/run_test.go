package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

// What a new user does in the first minute.
func TestRun(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "250ms")
	curls := regexp.MustCompile(`(?m)^ +(curl .+)$`).FindAllStringSubmatch(l.stdout.String(), -1)
	if len(curls) != 2 {
		t.Fatalf("no two curl lines: %s", l.stdout)
	}
	if got := curl(t, curls[0][1]); !strings.Contains(got, "204 No Content") {
		t.Errorf("the push says %q", got)
	}
	l.eventually("the line that was pushed is shown", func() bool {
		got := curl(t, curls[1][1])
		return strings.Contains(got, "it works") && strings.Contains(got, "hello")
	})

	prototype := `{"streams": [{"stream": {"Language": "Go", "source": "code"},
		"values": [["2023-01-01", "example line"], ["2023-01-02", "example line 2"]]}]}`
	if err := pushJSON(l.at["http"], "tenant1", "", prototype); err != nil {
		t.Fatal(err)
	}
	flush(t, l.at["ingester"])
	const want = "['Language:Go','source:code']\t2023-01-01 00:00:00.000000000\texample line\n" +
		"['Language:Go','source:code']\t2023-01-02 00:00:00.000000000\texample line 2\n"
	if got := mustQuery(t, l.at["clickhouse-http"], "SELECT label, timestamp, msg FROM logs.log WHERE tenant_id = 'tenant1' ORDER BY timestamp"); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}

	t.Run("gRPC", func(t *testing.T) { testGRPC(t, l) })
	t.Run("HTTP", func(t *testing.T) { testHTTP(t, l) })
	t.Run("status", func(t *testing.T) { testStatus(t, l) })
	t.Run("in use", func(t *testing.T) {
		code, _, stderr := run(t, "", append(anyPorts(), "--data-dir", l.dir)...)
		wantFailure(t, code, exitFailure, stderr, "in use by another Logthra", l.dir, "--data-dir")
		if _, err := os.Stat(filepath.Join(l.dir, addressesFile)); err != nil {
			t.Errorf("the other one took the addresses away: %v", err)
		}
	})
	t.Run("drain", func(t *testing.T) { testDrain(t, l) })

	l.stop()
	if _, err := os.Stat(filepath.Join(l.dir, addressesFile)); !os.IsNotExist(err) {
		t.Errorf("the addresses are left behind (%v)", err)
	}
	wantQuiet(t, l.logthra)
	if strings.Contains(l.stderr.String(), "map[") {
		t.Error("a Go map is in the log")
	}
}

var (
	// slowLine is what is logged on a machine, or a disk, that has other things to do.
	slowLine = regexp.MustCompile(`heartbeat does not get through|msg="embedded NATS" .*(took too long|processing time|took [0-9])`)
	// abortLine is the end of a ClickHouse that nobody has killed, which is no fault of Logthra's. retryLine comes of it.
	abortLine = regexp.MustCompile(`msg="ClickHouse died, restarting it" .*status="signal: (aborted|segmentation fault)`)
	retryLine = regexp.MustCompile(`msg="a step failed; it is tried again`)
)

// wantQuiet fails the test if something was logged that an operator would have to look at.
func wantQuiet(t *testing.T, l *logthra) {
	t.Helper()
	log := l.stderr.String()
	died := abortLine.MatchString(log)
	for line := range strings.Lines(log) {
		switch {
		case !strings.Contains(line, "level=WARN") && !strings.Contains(line, "level=ERROR"):
		case slowLine.MatchString(line), died && (abortLine.MatchString(line) || retryLine.MatchString(line)):
			t.Logf("ignored: %s", line)
		default:
			t.Errorf("not quiet: %s", line)
		}
	}
}

// curl runs a line of the welcome. Where there is no curl it does what that would.
func curl(t *testing.T, line string) string {
	t.Helper()
	if _, err := exec.LookPath("curl"); err == nil {
		out, err := exec.Command("bash", "-c", strings.Replace(line, "curl", "curl -sS", 1)).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		return string(out)
	}
	parts := regexp.MustCompile(`http://[^ ]+|'[^']*'|"[^"]*"`).FindAllString(line, -1)
	request, err := http.NewRequest(http.MethodPost, parts[0], strings.NewReader(strings.Trim(parts[len(parts)-1], `"'`)))
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) == 3 {
		name, value, _ := strings.Cut(strings.Trim(parts[1], "'"), ": ")
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.Status + " " + string(body)
}

func testGRPC(t *testing.T, l *alone) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, service := range map[string]string{"grpc": "logthra.v1.PushService", "ingester": "logthra.v1.IngesterService"} {
		conn := dial(t, l.at[name])
		for _, asked := range []string{"", service} {
			health, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: asked})
			if err != nil || health.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
				t.Errorf("health of %q on %s: %v, %v", asked, name, health, err)
			}
		}
		stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var services []string
		for _, s := range answer.GetListServicesResponse().GetService() {
			services = append(services, s.GetName())
		}
		if !slices.Contains(services, service) {
			t.Errorf("%s reflects %v", name, services)
		}
	}

	entry := &logthrav1.Entry{Timestamp: timestamppb.New(time.Unix(1700000000, 5)), Line: []byte("by gRPC")}
	request := &logthrav1.PushRequest{Streams: []*logthrav1.Stream{{Labels: map[string]string{"app": "rpc"}, Entries: []*logthrav1.Entry{entry}}}}
	push := logthrav1.NewPushServiceClient(dial(t, l.at["grpc"]))
	ctx = metadata.AppendToOutgoingContext(ctx, "tenant-id", "rpc")
	for _, again := range []bool{false, true} { // as exporters do: compressed, and retried
		response, err := push.Push(ctx, request, grpc.UseCompressor(gzip.Name))
		if err != nil {
			t.Fatal(err)
		}
		if response.GetEntries() != 1 || response.GetDuplicate() != again {
			t.Errorf("push, again %v: %v", again, response)
		}
	}
	flush(t, l.at["ingester"])
	if got := mustQuery(t, l.at["clickhouse-http"], "SELECT label, timestamp, msg FROM logs.log WHERE tenant_id = 'rpc'"); got != "['app:rpc']\t2023-11-14 22:13:20.000000005\tby gRPC\n" {
		t.Errorf("got %q", got)
	}
}

func testHTTP(t *testing.T, l *alone) {
	for _, name := range []string{"http", "ingester-http"} {
		base := "http://" + l.at[name]
		if code, _, stderr := run(t, "", "ready", "--url", base); code != 0 {
			t.Errorf("%s: %s", name, stderr)
		}
		response, err := http.Get(base + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", name, response.Status, err)
		}
		problems, err := promlint.New(strings.NewReader(string(text))).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range problems {
			t.Errorf("%s: %s: %s", name, problem.Metric, problem.Text)
		}
		for _, metric := range []string{`logthra_build_info{version="1.2.3-test"} 1`, "process_resident_memory_bytes", "go_goroutines"} {
			if !strings.Contains(string(text), "\n"+metric) {
				t.Errorf("%s lacks %s", name, metric)
			}
		}
	}
	code, _, stderr := run(t, "", "ready", "--url", "http://"+l.at["http"]+"/nonsense")
	wantFailure(t, code, exitFailure, stderr, "not ready", "404")
}

func testStatus(t *testing.T, l *alone) {
	code, stdout, stderr := run(t, "", "status", "--data-dir", l.dir, "--json")
	if code != 0 {
		t.Fatal(stderr)
	}
	var status struct {
		Ingester, Version string
		Addresses         map[string]string
		Shards            []struct {
			Shard int
			Owner string
		}
	}
	if err := json.Unmarshal([]byte(stdout), &status); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if fmt.Sprint(status.Addresses) != fmt.Sprint(l.at) || status.Version != "1.2.3-test" {
		t.Errorf("addresses are %v, version %q", status.Addresses, status.Version)
	}
	if len(status.Shards) != 4 {
		t.Fatalf("shards: %+v", status.Shards)
	}
	for n, shard := range status.Shards {
		if shard.Shard != n || shard.Owner != status.Ingester {
			t.Errorf("shard %d: %+v", n, shard)
		}
	}
	code, stdout, stderr = run(t, "", "status", "--ingester", l.at["ingester"])
	if code != 0 {
		t.Fatal(stderr)
	}
	for _, part := range append([]string{"SHARD", "STATE", status.Ingester, "1.2.3-test", "gathering"}, l.at["http"], l.at["clickhouse"]) {
		if !strings.Contains(stdout, part) {
			t.Errorf("%q lacks %q", stdout, part)
		}
	}
}

func testDrain(t *testing.T, l *alone) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ingester := ingesterOf(t, l.at["ingester"])
	for range 2 { // again is no harm
		if _, err := ingester.Drain(ctx, &logthrav1.DrainRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	status, err := ingester.Status(ctx, &logthrav1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, shard := range status.GetShards() {
		if shard.GetOwner() != "" {
			t.Errorf("shard %d is still owned", shard.GetShard())
		}
	}
	code, _, stderr := run(t, "", "ready", "--url", l.at["ingester-http"])
	wantFailure(t, code, exitFailure, stderr, "503", "draining")
}
