package command

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load pushes lines, all of them different, until it is stopped, each push as often as it takes. What was
// answered with 2xx, and nothing else, has to be in ClickHouse, once.
type load struct {
	t        *testing.T
	stopping context.CancelFunc
	pushing  sync.WaitGroup

	accepted atomic.Int64 // pushes
	failed   atomic.Int64 // attempts

	mu    sync.Mutex // guards lines
	lines lines
}

const (
	loadTenant  = "load"
	loadWorkers = 4
	loadLines   = 20 // of a push
)

// startLoad begins to push to a gateway.
func startLoad(t *testing.T, gateway string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, stopping: cancel, lines: lines{}}
	for worker := range loadWorkers {
		l.pushing.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				l.push(gateway, fmt.Sprintf("%d-%d", worker, n))
			}
		})
	}
	t.Cleanup(func() { cancel(); l.pushing.Wait() })
	return l
}

// stop ends the load and returns all lines that were taken.
func (l *load) stop() lines {
	l.stopping()
	l.pushing.Wait()
	return l.lines
}

// more waits until n more pushes were taken.
func (l *load) more(n int64) {
	l.t.Helper()
	target := l.accepted.Load() + n
	eventually(l.t, "more pushes taken", func() bool { return l.accepted.Load() >= target })
}

func (l *load) push(gateway, key string) {
	values, texts := make([]string, loadLines), make([]string, loadLines)
	for i := range texts {
		texts[i] = fmt.Sprintf("%s %s %d", l.t.Name(), key, i)
		values[i] = fmt.Sprintf(`["%d","%s"]`, time.Now().UnixNano(), texts[i])
	}
	body := `{"streams":[{"stream":{"app":"load"},"values":[` + strings.Join(values, ",") + `]}]}`
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := pushJSON(gateway, loadTenant, key, body)
		if err == nil {
			break
		}
		l.failed.Add(1)
		if time.Now().After(deadline) {
			l.t.Errorf("a push is refused for a minute: %v", err)
			return
		}
	}
	l.mu.Lock()
	for _, text := range texts {
		l.lines[hash(text)]++
	}
	l.mu.Unlock()
	l.accepted.Add(1)
}

// pushJSON pushes once.
func pushJSON(gateway, tenant, key, body string) error {
	request, err := http.NewRequest(http.MethodPost, "http://"+gateway+"/api/push", strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Tenant-Id", tenant)
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("answered with %s", response.Status)
	}
	return nil
}
