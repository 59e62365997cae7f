package gateway

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A tenant that pushes ten times what it may does not slow another down: the 99th percentile of that one's pushes stays
// within twice what it is without.
func TestNoisyNeighbor(t *testing.T) {
	if testing.Short() {
		t.Skip("measures times, which the race detector changes")
	}
	const (
		limit   = 20 // pushes a second of the noisy one
		clients = 4
		pushes  = 200
		rounds  = 5
		tries   = 5 // for what else this machine does
	)
	f := start(t, withTenants(t, map[string]string{"quiet": "", "noisy": fmt.Sprintf("pushes_per_second: %d", limit)}))
	body := func(seed uint64) []byte { return asJSON(noise(seed, 1000, 100)) }

	// p99 is that of the quiet tenant's pushes, one after the other.
	seed := uint64(clients)
	p99 := func() time.Duration {
		var took []time.Duration
		for range pushes {
			seed++
			push := body(seed)
			began := time.Now()
			wantTaken(t, f.post(t, "/api/push", bytes.NewReader(push), "Authorization", "Bearer quiet-token"))
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	// beside runs the noisy tenant meanwhile.
	beside := func(measure func() time.Duration) time.Duration {
		ctx, cancel := context.WithCancel(t.Context())
		var sent, refused atomic.Int64
		var noisy sync.WaitGroup
		began := time.Now()
		for client := range clients {
			push := body(uint64(client))
			noisy.Go(func() {
				ticker := time.NewTicker(time.Second * clients / (10 * limit))
				defer ticker.Stop()
				for ctx.Err() == nil {
					a, err := f.try(ctx, "POST", "/api/push", bytes.NewReader(push), "Authorization", "Bearer noisy-token")
					if err == nil {
						sent.Add(1)
						if a.Status == 429 {
							refused.Add(1)
						}
					}
					<-ticker.C
				}
			})
		}
		took := measure()
		cancel()
		noisy.Wait()
		if let, most := sent.Load()-refused.Load(), limit*(time.Since(began).Seconds()+1)+clients; float64(let) > most {
			t.Errorf("%d noisy pushes were let in, want %.0f at most", let, most)
		}
		return took
	}
	p99() // the first pushes find nothing warm
	median := 0.0
	for range tries {
		var ratios []float64
		for range rounds {
			alone := p99()
			with := beside(p99)
			ratios = append(ratios, float64(with)/float64(alone))
			t.Logf("p99 of the quiet tenant: %s alone, %s beside the noisy one", alone, with)
		}
		slices.Sort(ratios)
		if median = ratios[rounds/2]; median <= 2 {
			return
		}
	}
	t.Errorf("the noisy tenant makes the quiet one's p99 %.1f times what it is alone", median)
}
