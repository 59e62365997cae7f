package command

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

// What was answered is landed before the process ends, however long the flush interval, and not again after.
func TestStopLands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := runAlone(t, dir, "--flush-interval", "1h")
	load := startLoad(t, l.at["http"])
	load.more(50)
	want := load.stop()
	if got := landed(t, l.at["clickhouse-http"], "1"); len(got) != 0 {
		t.Fatalf("%d lines have landed before they had to", len(got))
	}
	l.stop()

	l = runAlone(t, dir, "--flush-interval", "1h")
	wantOnce(t, landed(t, l.at["clickhouse-http"], "1"), want)
	flush(t, l.at["ingester"])
	wantOnce(t, landed(t, l.at["clickhouse-http"], "1"), want)
}

// The whole process dies between two answers, in the middle of batches and of inserts.
func TestKill(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freeAddress(t)
	start := func(interval string) *alone {
		t.Helper()
		l := runAlone(t, dir, "--http-listen", address, "--flush-interval", interval, "--owner-timeout", "1s")
		l.eventually("it owns all shards", func() bool { return ownsAll(t, l.at["ingester"]) })
		return l
	}
	l := start("1h") // the first death finds everything in the WAL
	load := startLoad(t, address)
	for range 3 {
		load.more(50)
		l.kill()
		l = start("20ms") // and the others are amid inserts
	}
	load.more(50)
	want := load.stop()
	l.kill()
	l = start("1h")
	flush(t, l.at["ingester"])
	wantOnce(t, landed(t, l.at["clickhouse-http"], "1"), want)
	wantQuiet(t, l.logthra)
}

// ClickHouse dies: nobody who pushes takes notice.
func TestKillClickHouse(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "50ms")
	load := startLoad(t, l.at["http"])
	for range 2 {
		load.more(30)
		var pids []int
		l.eventually("it has one child", func() bool { pids = children(t, l.process.Pid); return len(pids) == 1 })
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		load.more(30)
		l.eventually("ClickHouse is back", func() bool {
			_, err := sqlQuery(l.at["clickhouse-http"], "SELECT 1")
			return err == nil
		})
	}
	want := load.stop()
	if failed := load.failed.Load(); failed > 0 {
		t.Errorf("%d pushes were refused", failed)
	}
	flush(t, l.at["ingester"])
	wantOnce(t, landed(t, l.at["clickhouse-http"], "1"), want)
}

// statusOf asks an ingester.
func statusOf(t *testing.T, ingester string) *logthrav1.StatusResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status, err := ingesterOf(t, ingester).Status(ctx, &logthrav1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// owns is how many shards an ingester runs.
func owns(t *testing.T, ingester string) (count int) {
	t.Helper()
	status := statusOf(t, ingester)
	for _, shard := range status.GetShards() {
		if shard.GetOwner() == status.GetIngester() && shard.GetState() != "" {
			count++
		}
	}
	return count
}

func ownsAll(t *testing.T, ingester string) bool {
	t.Helper()
	return owns(t, ingester) == 4
}

// Each role in a process of its own, and what the ingesters do when one of them leaves.
func TestRoles(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	json := []string{"--log-format", "json"}
	role := func(args ...string) (*logthra, map[string]string) {
		t.Helper()
		l := begin(t, nil, append(args, json...)...)
		return l, l.ready()
	}
	dir := t.TempDir() // the engines share it
	_, nats := role("nats", "--data-dir", dir, "--nats-listen", "127.0.0.1:0")
	_, clickhouse := role("clickhouse", "--data-dir", dir, "--clickhouse-listen", "127.0.0.1:0", "--clickhouse-http-listen", "127.0.0.1:0")
	_, gateway := role("gateway", "--nats-url", nats["nats_url"], "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0")
	ingester := func() (*logthra, map[string]string) {
		t.Helper()
		return role("ingester", "--nats-url", nats["nats_url"], "--clickhouse-dsn", clickhouse["clickhouse_dsn"],
			"--ingester-listen", "127.0.0.1:0", "--ingester-http-listen", "127.0.0.1:0",
			"--flush-interval", "100ms", "--owner-timeout", timeout.String())
	}
	for at, want := range map[string]string{gateway["nats"]: nats["nats"], gateway["clickhouse"]: ""} {
		if at != want {
			t.Errorf("an address is %q, want %q", at, want)
		}
	}
	share := func(one, other map[string]string) func() bool {
		return func() bool { return owns(t, one["ingester"]) == 2 && owns(t, other["ingester"]) == 2 }
	}
	first, firstAt := ingester()
	_, secondAt := ingester()
	eventually(t, "the shards are shared", share(firstAt, secondAt))
	load := startLoad(t, gateway["http"])
	load.more(30)
	first.kill()
	load.more(30)
	eventually(t, "the second has all shards", func() bool { return ownsAll(t, secondAt["ingester"]) })
	load.more(30)

	third, thirdAt := ingester()
	eventually(t, "the shards are shared again", share(secondAt, thirdAt))
	load.more(30)
	third.stop()
	left := time.Now()
	eventually(t, "the second has all shards, again", func() bool { return ownsAll(t, secondAt["ingester"]) })
	if took := time.Since(left); took > timeout*2/3 {
		t.Errorf("the shards of one that said good-bye were taken over after %s", took)
	}
	load.more(30)
	want := load.stop()
	if failed := load.failed.Load(); failed > 0 {
		t.Errorf("%d pushes were refused", failed)
	}
	flush(t, secondAt["ingester"])
	wantOnce(t, landed(t, clickhouse["clickhouse_http"], "1"), want)
}

// A ClickHouse that is away at the start is as good as one that goes later: pushes are taken, and land when it
// is there.
func TestStartWithoutClickHouse(t *testing.T) {
	t.Parallel()
	native, web := freeAddress(t), freeAddress(t)
	dir := t.TempDir()
	l := begin(t, nil, slices.Concat(anyPorts(), []string{
		"--data-dir", dir, "--clickhouse-dsn", "clickhouse://" + native + "/logs", "--flush-interval", "200ms", "--log-format", "json",
	})...)
	var at map[string]string
	l.eventually("addresses", func() bool { at, _ = readAddresses(dir); return at["ingester"] != "" })
	code, _, stderr := run(t, "one\ntwo\n", "push", "--data-dir", dir, "--tenant", "early")
	if code != 0 {
		t.Fatal(stderr)
	}
	if code, _, stderr := run(t, "", "ready", "--url", at["ingester-http"]); code == 0 || !strings.Contains(stderr, "ClickHouse") {
		t.Errorf("ready, without ClickHouse: %d %s", code, stderr)
	}
	if strings.Contains(l.stdout.String(), "ready") {
		t.Error("it says that it is ready")
	}
	begin(t, nil, "clickhouse", "--data-dir", t.TempDir(), "--clickhouse-listen", native, "--clickhouse-http-listen", web)
	l.eventually("landed", func() bool {
		count, err := sqlQuery(web, "SELECT count() FROM logs.log WHERE tenant_id = 'early'")
		return err == nil && strings.TrimSpace(count) == "2"
	})
	l.ready()
}
