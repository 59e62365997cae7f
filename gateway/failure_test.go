package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casteloig/logthra/shared/embedded"
)

// A full WAL refuses pushes and drops nothing; once there is room it takes them again.
func TestFullWAL(t *testing.T) {
	f := start(t, func(s *setup) { s.wal.Shards, s.wal.MaxBytes, s.wal.DedupWindow = 1, 1<<20, 100*time.Millisecond })
	taken := 0
	var full answer
	for taken < 20 {
		if full = f.post(t, "/api/push", bytes.NewReader(asJSON(noise(uint64(taken), 1, 100_000))), "tenant-id", "t"); full.Status != http.StatusNoContent {
			break
		}
		taken++
	}
	wantRefused(t, full, http.StatusServiceUnavailable, "the WAL is full (--wal-max-bytes)")
	if after := full.Header.Get("Retry-After"); after != "5" {
		t.Errorf("Retry-After: %s", after)
	}
	_, err := f.push(t, asRequest(noise(100, 1, 100_000)), "tenant-id", "t")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the WAL is full") {
		t.Error(err)
	}
	records := f.landed(t)
	if len(records) != taken || taken < 5 {
		t.Fatalf("%d records of %d pushes", len(records), taken)
	}
	for i, rows := range records {
		sameRows(t, rows, rowsOf("t", noise(uint64(i), 1, 100_000)))
	}
	f.wantIdle(t)

	s := noise(uint64(taken), 1, 100_000)
	eventually(t, "there is room once the records that landed are older than the duplicate window", func() bool {
		must(t, f.wal.Trim(t.Context(), 0, f.seen[0], 0))
		return f.post(t, "/api/push", bytes.NewReader(asJSON(s)), "tenant-id", "t").Status == http.StatusNoContent
	})
	f.wantLanded(t, rowsOf("t", s))
}

// While NATS is away pushes are refused in time; once it is back, the same gateway takes them again.
func TestNATSAway(t *testing.T) {
	dir, listen := t.TempDir(), "127.0.0.1:0"
	engine, err := embedded.StartNATS(embedded.NATSConfig{Dir: dir, Listen: listen})
	must(t, err)
	listen = strings.TrimPrefix(engine.URL(), "nats://")
	f := start(t, func(s *setup) { s.nats, s.PushTimeout = engine.URL(), 2*time.Second })

	for round := range 2 {
		before := one(fmt.Sprint("before ", round))
		wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asJSON(before)), "tenant-id", "t"))
		f.wantLanded(t, rowsOf("t", before))

		engine.Stop()
		during := one(fmt.Sprint("during ", round))
		for range 3 {
			began := time.Now()
			a := f.post(t, "/api/push", bytes.NewReader(asJSON(during)), "tenant-id", "t")
			wantRefused(t, a, http.StatusServiceUnavailable, "the WAL did not confirm the push")
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("refused after %s", took)
			}
		}
		if _, err := f.push(t, asRequest(during), "tenant-id", "t"); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
		if a := f.do(t, http.MethodGet, "/ready", nil); a.Status != http.StatusServiceUnavailable {
			t.Errorf("ready: %d", a.Status)
		}
		if a := f.do(t, http.MethodGet, "/api/health", nil); a.Status != http.StatusOK {
			t.Errorf("healthy: %d", a.Status)
		}

		engine, err = embedded.StartNATS(embedded.NATSConfig{Dir: dir, Listen: listen})
		must(t, err)
		t.Cleanup(engine.Stop)
		eventually(t, "ready", func() bool { return f.do(t, http.MethodGet, "/ready", nil).Status == http.StatusOK })
		// The retries of a client that was refused: one of them lands.
		for range 2 {
			eventually(t, "the retry is taken", func() bool {
				return f.post(t, "/api/push", bytes.NewReader(asJSON(during)), "tenant-id", "t").Status == http.StatusNoContent
			})
		}
		f.wantLanded(t, rowsOf("t", during))
	}
	f.wantIdle(t)
}

// A client that does not wait leaves a push that it may send again, and no memory taken.
func TestClientThatDoesNotWait(t *testing.T) {
	f := start(t)
	s := noise(9, 100, 1000)
	for i := range 20 {
		ctx, stop := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond/2)
		_, _ = f.try(ctx, http.MethodPost, "/api/push", bytes.NewReader(asSnappy(s)), "tenant-id", "t", "Content-Type", protoType)
		stop()
	}
	wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asSnappy(s)), "tenant-id", "t", "Content-Type", protoType))
	f.wantLanded(t, rowsOf("t", s))
	f.wantIdle(t)
}

// At the ceiling a gateway refuses what is new, and goes on with what it has.
func TestMemoryCeiling(t *testing.T) {
	const ceiling, sent = 36 << 20, 5 << 20
	f := start(t, func(s *setup) { s.MaxInflightBytes = ceiling })
	slow, other, small := noise(10, 60, 100<<10), noise(11, 60, 100<<10), one("small")
	body := asSnappy(slow) // 6 MB: the buffer of 8 MiB, the block unpacked, and three times as much
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		a, err := f.try(t.Context(), http.MethodPost, "/api/push", reader, "tenant-id", "slow", "Content-Type", protoType)
		if err == nil && a.Status != http.StatusNoContent {
			err = fmt.Errorf("%d: %+v", a.Status, a.refusal)
		}
		done <- err
	}()
	_, err := writer.Write(body[:sent])
	must(t, err)
	eventually(t, "the slow push holds its memory", func() bool {
		if !f.gateway.inflight.TryAcquire(ceiling / 2) {
			return true
		}
		f.gateway.inflight.Release(ceiling / 2)
		return false
	})

	a := f.post(t, "/api/push", bytes.NewReader(asSnappy(other)), "tenant-id", "other", "Content-Type", protoType)
	wantRefused(t, a, http.StatusServiceUnavailable, "memory ceiling (--max-inflight-bytes)")
	if after := a.Header.Get("Retry-After"); after != "1" {
		t.Errorf("Retry-After: %s", after)
	}
	_, err = f.push(t, asRequest(other), "tenant-id", "other")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "memory ceiling") {
		t.Error(err)
	}
	wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asJSON(small)), "tenant-id", "other"))
	f.wantLanded(t, rowsOf("other", small))

	_, err = writer.Write(body[sent:])
	must(t, err)
	must(t, writer.Close())
	must(t, <-done)
	f.wantLanded(t, rowsOf("slow", slow))
	f.wantIdle(t)

	wantTaken(t, f.post(t, "/api/push", bytes.NewReader(body), "tenant-id", "later", "Content-Type", protoType))
	f.wantLanded(t, rowsOf("later", slow))
}
