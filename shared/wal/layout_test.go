package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

// follower is a WAL that follows the layout, as every role does, until t ends.
func follower(t *testing.T, url string, cfg Config) *WAL {
	t.Helper()
	nc, err := nats.Connect(url, nats.ReconnectBufSize(-1), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	w, err := Open(t.Context(), nc, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { w.Follow(ctx) })
	t.Cleanup(func() {
		cancel()
		nc.Close()
		done.Wait()
	})
	return w
}

// Pushes go on while the shards are raised, each is sent again, some time later, by way of any gateway, and each is there
// once. A gateway that is started in the middle of it makes no difference.
func TestRaiseShardsWhileRecordsArePublished(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (url string, replicas int){
		"one server": func(t *testing.T) (string, int) { return enginetest.NATS(t).URL(), 1 },
		"a cluster": func(t *testing.T) (string, int) {
			_, urls := enginetest.NATSCluster(t, 3)
			return urls, 3
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time is spent waiting
			url, replicas := start(t)
			cfg := testConfig
			cfg.Replicas = replicas
			gateways := []*WAL{follower(t, url, cfg), follower(t, url, cfg)}
			ctx, stop := context.WithCancel(t.Context())
			var publishing sync.WaitGroup
			defer publishing.Wait()
			defer stop()
			push := func(w *WAL, i int) (Ack, error) {
				for {
					ack, err := w.Publish(ctx, "acme", "", numbered(i))
					if err == nil || !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
						return ack, err
					}
				}
			}
			var mu sync.Mutex
			first := map[int]Ack{}
			again := 0
			for g := range gateways {
				publishing.Go(func() {
					late := make(chan int, 300) // some seconds' worth
					for i := g; ctx.Err() == nil; i += len(gateways) {
						ack, err := push(gateways[g], i)
						if ctx.Err() != nil {
							return
						}
						if err != nil || ack.Duplicate {
							t.Errorf("push %d: %+v, %v", i, ack, err)
						}
						mu.Lock()
						first[i] = ack
						mu.Unlock()
						for _, retried := range []int{i, <-retry(late, i)} {
							if retried < 0 {
								continue
							}
							mu.Lock()
							want := first[retried]
							mu.Unlock()
							ack, err := push(gateways[1-g], retried)
							if ctx.Err() == nil && (err != nil || !ack.Duplicate || ack.Shard != want.Shard || ack.Sequence != want.Sequence) {
								t.Errorf("push %d is at %+v, and again at %+v, %v", retried, want, ack, err)
							}
							mu.Lock()
							again++
							mu.Unlock()
						}
						time.Sleep(5 * time.Millisecond)
					}
				})
			}
			time.Sleep(time.Second)
			operator := follower(t, url, cfg)
			before, err := operator.SetShards(t.Context(), 16)
			if err != nil || before != 2 {
				t.Fatalf("raised from %d: %v", before, err)
			}
			started := follower(t, url, cfg)
			for _, w := range append(gateways, started) {
				eventually(t, "all have heard of it", func() bool { return w.state.Load().layout == layout{Shards: 16, Former: 2} && w.Shards() == 16 })
			}
			time.Sleep(2 * time.Second)
			stop()
			publishing.Wait()
			mu.Lock()
			defer mu.Unlock()
			records := 0
			for n := range 16 {
				info, err := operator.js.Stream(t.Context(), StreamName(n))
				if err != nil {
					t.Fatal(err)
				}
				is := info.CachedInfo()
				if is.State.Msgs == 0 || is.Config.MaxBytes != cfg.MaxBytes/16 || is.Config.Replicas != replicas {
					t.Errorf("shard %d has %d records, %d bytes of room, %d replicas", n, is.State.Msgs, is.Config.MaxBytes, is.Config.Replicas)
				}
				records += int(is.State.Msgs)
			}
			// The answer to the last push of each gateway may have been lost.
			if records < len(first) || records > len(first)+len(gateways) || again < len(first)*5/4 {
				t.Errorf("%d records of %d pushes, of which %d were sent again", records, len(first), again)
			}
			t.Logf("%d pushes, sent again %d times", len(first), again)
		})
	}
}

// retry gives one of the pushes that were made some time ago, or -1.
func retry(late chan int, i int) chan int {
	answer := make(chan int, 1)
	select {
	case late <- i:
		answer <- -1
	default:
		answer <- <-late
		late <- i
	}
	return answer
}

func TestSetShardsRefuses(t *testing.T) {
	url := enginetest.NATS(t).URL()
	w := follower(t, url, testConfig)
	for _, c := range []struct {
		to   int
		want string
	}{{1, "2 shards; their number can't be lowered to 1"}, {0, "lowered"}, {MaxShards + 1, "more than the most, 1024"}} {
		if _, err := w.SetShards(t.Context(), c.to); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("to %d: %v", c.to, err)
		}
	}
	if before, err := w.SetShards(t.Context(), 2); err != nil || before != 2 {
		t.Errorf("as many as there are: %d, %v", before, err)
	}
	// One that ends in the middle leaves a WAL that works, and is finished later, by whomever, but not to another number.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := w.SetShards(ctx, 5); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("ended in the middle: %v", err)
	}
	eventually(t, "5 shards are there", func() bool { return w.Shards() == 5 })
	for i := range 100 {
		if ack := publish(t, w, "", numbered(i)); ack.Shard > 1 {
			t.Fatalf("a record went to shard %d, which others may not know of yet", ack.Shard)
		}
	}
	if _, err := w.SetShards(t.Context(), 6); err == nil || !strings.Contains(err.Error(), "from 2 to 5; finish that first") {
		t.Errorf("another number: %v", err)
	}
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			if before, err := w.SetShards(t.Context(), 5); err != nil && !errors.Is(err, ErrLayoutChanged) || before != 2 {
				t.Errorf("finished: %d, %v", before, err)
			}
		})
	}
	group.Wait()
	eventually(t, "it is finished", func() bool { return w.state.Load().layout == layout{Shards: 5, Former: 2} })
	for i := range 100 {
		if ack := publish(t, w, "", numbered(i)); !ack.Duplicate {
			t.Fatalf("push %d is not known any more", i)
		}
	}
	if ack := publish(t, w, "", numbered(1000)); ack.Duplicate {
		t.Error("a new push is taken for a duplicate")
	}
}

// Where there is less room for each than it holds, a stream keeps what it needs.
func TestSetShardsStopsNoPush(t *testing.T) {
	url := enginetest.NATS(t).URL()
	cfg := testConfig
	cfg.Shards, cfg.MaxBytes = 1, 1<<20
	w := follower(t, url, cfg)
	for i := range 1500 {
		publish(t, w, "", numbered(i))
	}
	if _, err := w.SetShards(t.Context(), 16); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is known", func() bool { return w.Shards() == 16 })
	info, err := w.info(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if held, room := int64(info.State.Bytes), info.Config.MaxBytes; held < 1<<16 || room < held+held/8 || room >= 1<<20 {
		t.Errorf("shard 0 holds %d bytes and may hold %d", held, room)
	}
	for i := range 200 {
		publish(t, w, fmt.Sprint("later ", i), numbered(10_000+i))
	}
}
