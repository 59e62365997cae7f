package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/wal"
)

// The leaders of the WAL's streams change while pushes are under way, and at last a server goes. Each push ends
// in 204 or in an error that says that it may be sent again; what was answered with 204 is there once.
func TestLeaderChange(t *testing.T) {
	servers, urls := enginetest.NATSCluster(t, 3)
	f := start(t, func(s *setup) {
		s.nats, s.wal.Replicas, s.PushTimeout = urls, 3, 2*time.Second
	})
	nc, err := nats.Connect(urls)
	must(t, err)
	t.Cleanup(nc.Close)

	const pushers, changes = 4, 8
	stop := make(chan struct{})
	var group sync.WaitGroup
	var mu sync.Mutex
	var sent []string // of pushes that were answered with 204
	for pusher := range pushers {
		group.Go(func() {
			for i := 0; ; i++ {
				line := fmt.Sprintf("push %d of %d", i, pusher)
				for taken := false; !taken; {
					select {
					case <-stop:
						return
					default:
					}
					began := time.Now()
					a, err := f.try(context.Background(), http.MethodPost, "/api/push", bytes.NewReader(asJSON(one(line))), "tenant-id", "t")
					switch took := time.Since(began); {
					case err != nil:
						t.Error(err)
						return
					case took > 20*time.Second:
						t.Errorf("answered after %s", took)
					}
					switch a.Status {
					case http.StatusNoContent:
						taken = true
					case http.StatusServiceUnavailable:
						if a.Header.Get("Retry-After") == "" {
							t.Error("503 without Retry-After")
						}
					default:
						t.Errorf("%d: %+v", a.Status, a.refusal)
						return
					}
				}
				mu.Lock()
				sent = append(sent, line)
				mu.Unlock()
			}
		})
	}
	taken := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(sent)
	}
	progress := func() {
		before := taken()
		eventually(t, "pushes are taken", func() bool { return taken() > before+pushers })
	}
	progress()
	for i := range changes {
		stream := wal.StreamName(i % f.wal.Shards())
		eventually(t, "the leader steps down", func() bool {
			_, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, 10*time.Second)
			return err == nil
		})
		progress()
	}
	servers[0].Shutdown()
	progress()
	close(stop)
	group.Wait()

	rows := map[string]int{}
	for _, record := range f.landed(t) {
		for _, row := range record {
			rows[row.Line]++
		}
	}
	for _, line := range sent {
		if rows[line] != 1 {
			t.Errorf("%q is there %d times", line, rows[line])
		}
	}
	for line, count := range rows { // also of what was answered with 503 and not sent again
		if count != 1 {
			t.Errorf("%q is there %d times", line, count)
		}
	}
}
