package command

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/config"
)

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                          "0s", // a clock behind ours
		0:                                     "0s",
		400 * time.Microsecond:                "0s",
		20*time.Millisecond + 499*1000:        "20ms",
		999*time.Millisecond + 600*1000:       "1s",
		1520 * time.Millisecond:               "1.5s",
		9960 * time.Millisecond:               "10s",
		12*time.Second + 400*time.Millisecond: "12s",
		30 * time.Second:                      "30s",
		90 * time.Second:                      "1m30s",
		5 * time.Minute:                       "5m",
		time.Hour - time.Millisecond:          "1h",
		2*time.Hour + 5*time.Minute + 29e9:    "2h5m",
		24*time.Hour - time.Second:            "1d",
		27*time.Hour + 31*time.Minute:         "1d4h",
		72 * time.Hour:                        "3d",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%d) is %q, want %q", d, got, want)
		}
	}
}

func TestPrintStatus(t *testing.T) {
	var out bytes.Buffer
	err := printStatus(&out, &logthrav1.StatusResponse{
		Ingester: "host-1", Version: "1.0", Started: timestamppb.New(time.Now().Add(-26 * time.Hour)),
		Addresses: map[string]string{"http": "127.0.0.1:3100", "clickhouse-http": "127.0.0.1:8123"},
		Shards: []*logthrav1.ShardStatus{
			{Shard: 0, Owner: "host-1", State: "gathering", WalBytes: 512, WalMaxBytes: 1024},
			{Shard: 1, Owner: "host-1", State: "retrying", Error: "no route to ClickHouse", BacklogRecords: 12345, BacklogBytes: 3 << 20,
				OldestUnflushed: durationpb.New(95 * time.Second), WalBytes: 1024, WalMaxBytes: 1024,
				LastFlush: &logthrav1.FlushStatus{Time: timestamppb.New(time.Now().Add(-2 * time.Minute)), Rows: 1234567, Bytes: 1 << 30, Duration: durationpb.New(1530 * time.Millisecond)}},
			{Shard: 2, Owner: "host-2"},
			{Shard: 13},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `
   SHARD   BACKLOG     BYTES   OLDEST   LAST FLUSH        ROWS     BYTES   TOOK    WAL   STATE
       0         0       0 B        -            -           -         -      -    50%   gathering
       1    12,345   3.0 MiB    1m35s       2m ago   1,234,567   1.0 GiB   1.5s   100%   retrying
       2         0       0 B        -            -           -         -      -     0%   owned by host-2
      13         0       0 B        -            -           -         -      -     0%   no owner
shard 1: no route to ClickHouse

ingester host-1, 1.0, up 1d2h
  clickhouse-http  127.0.0.1:8123
  http             127.0.0.1:3100
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestNATSHosts(t *testing.T) {
	for urls, want := range map[string]string{
		"nats://127.0.0.1:4222":                  "127.0.0.1:4222",
		"nats://user:p@ss@a:4222, tls://token@b": "a:4222,b",
		"user:secret@c:4222":                     "c:4222",
		"d":                                      "d",
		"nats://[::1]:4222":                      "[::1]:4222",
		"nats://user:secret@host:port":           "",
		"nats://a,nats://user:secret@%zz":        "",
		"":                                       "",
	} {
		got, err := natsHosts(urls)
		if got != want || (err != nil) != (want == "") || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %q, %v", urls, got, err)
		}
	}
}

// What is printed can be copied: a server that listens on all addresses is reached under one of them.
func TestWelcome(t *testing.T) {
	text := welcome(map[string]string{"http": "0.0.0.0:3100", "grpc": "[::]:4317"}, config.Gateway{}, time.Hour)
	for _, part := range []string{"http://127.0.0.1:3100/api/push", "See it:\n\n  go run . query --tenant demo '{app=\"hello\"}'\n", " 127.0.0.1:4317, gRPC", "1h at most", "in your ClickHouse", "\n  SELECT timestamp"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q lacks %q", text, part)
		}
	}
	guarded := welcome(map[string]string{"http": "127.0.0.1:3100"}, config.Gateway{TLSCertFile: "cert", TenantsFile: "tenants"}, time.Hour)
	if !strings.Contains(guarded, "curl -i https://127.0.0.1:3100/api/push -H 'Authorization: Bearer TOKEN'") {
		t.Error(guarded)
	}
	if !strings.Contains(guarded, "query --token TOKEN --url https://127.0.0.1:3100 '{app=\"hello\"}'") {
		t.Error(guarded)
	}
	if regexp.MustCompile(`(?m) $`).MatchString(text) {
		t.Error("a line ends with a space")
	}
}

func TestProcessID(t *testing.T) {
	one, other := processID(), processID()
	if one == other || strings.ContainsAny(one, ".*> ") {
		t.Errorf("ids are %q and %q", one, other)
	}
}
