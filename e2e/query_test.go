package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var queryDuration = flag.Duration("query.duration", 0, "how long queries run while ingesters are killed (default 25s, with -short 12s)")

// What TestQuery pushes and asks.
const (
	queryPushers = 2
	queryAskers  = 3
	queryStreams = 3                // of a pusher
	queryTenant  = "asked"          // whose lines these are
	lineEvery    = time.Millisecond // between the times of lines; that they are pushed at has nothing to do with it
	queryPause   = time.Second      // between faults
	frozenFor    = 4 * time.Second  // longer than the owner timeout
	queryTimeout = 30 * time.Second // of a request
	recentLines  = 500              // that half of all queries are about
	pushEvery    = 30 * time.Millisecond
)

// TestQuery asks for lines while they are pushed, while batches land, and while ingesters are killed, frozen and restarted. Every log
// query and every count sees exactly the lines that were answered before it began, each once, and none comes with a warning.
func TestQuery(t *testing.T) {
	span := *queryDuration
	if span == 0 {
		span = 25 * time.Second
		if testing.Short() {
			span = 12 * time.Second
		}
	}
	h := newHarness(t, seedOf(t, fmt.Sprintf("go test ./e2e -run '^TestQuery$' -count=1 -timeout %s -v -query.duration %s", span+30*time.Minute, span)))
	h.start(nil)
	r := &reader{harness: h, base: time.Now().Add(-time.Hour).Truncate(time.Second)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var pushing, asking sync.WaitGroup
	for p := range queryPushers {
		pushing.Go(func() { r.push(ctx, p) })
	}
	for n := range queryAskers {
		asking.Go(func() {
			random := rand.New(rand.NewPCG(h.seed, uint64(n)))
			for ctx.Err() == nil && !t.Failed() {
				r.ask(random)
			}
		})
	}
	r.disturb(time.Now().Add(span))
	stop()
	asking.Wait()
	pushing.Wait()
	random := rand.New(rand.NewPCG(h.seed, 1<<32))
	for range 10 {
		r.ask(random)
	}
	r.summarize()
}

// reader is who pushes and asks.
type reader struct {
	*harness

	base     time.Time                   // of line 0
	answered [queryPushers]atomic.Uint32 // lines of each whose push was answered

	mu    sync.Mutex
	took  []time.Duration // by each query
	lines int             // that queries got
}

// at is the time of a line.
func (r *reader) at(line uint32) int64 { return r.base.Add(time.Duration(line) * lineEvery).UnixNano() }

func (r *reader) gateway(n int) string {
	return "http://" + r.cluster.throughLinks(n%gateways, "http")
}

// push pushes numbered lines, each push until it is answered, until ctx ends.
func (r *reader) push(ctx context.Context, pusher int) {
	random := rand.New(rand.NewPCG(r.seed, uint64(pusher)<<16))
	client := &http.Client{Timeout: queryTimeout}
	for next := uint32(0); ctx.Err() == nil; {
		type stream struct {
			Stream map[string]string `json:"stream"`
			Values [][2]string       `json:"values"`
		}
		streams := make([]stream, queryStreams)
		for i := range streams {
			streams[i].Stream = map[string]string{"job": "asked", "pusher": strconv.Itoa(pusher), "part": strconv.Itoa(i)}
		}
		for range 1 + random.Uint32N(50) {
			s := &streams[next%queryStreams]
			s.Values = append(s.Values, [2]string{strconv.FormatInt(r.at(next), 10), fmt.Sprintf("line %d", next)})
			next++
		}
		body, err := json.Marshal(map[string]any{"streams": slices.DeleteFunc(streams, func(s stream) bool { return len(s.Values) == 0 })})
		if err != nil {
			r.Error(err)
			return
		}
		for attempt := 0; ; attempt++ {
			answer, err := r.request(client, http.MethodPost, r.gateway(pusher+attempt)+"/loki/api/v1/push", body)
			if err == nil {
				break
			}
			if attempt == 20 {
				r.Errorf("a push is not taken: %v %s", err, answer)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		r.answered[pusher].Store(next)
		time.Sleep(pushEvery)
	}
}

func (r *reader) request(client *http.Client, method, to string, body []byte) ([]byte, error) {
	request, err := http.NewRequest(method, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Scope-OrgID", queryTenant)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %.300s", response.Status, text)
	}
	return text, err
}

// answer is what the query API answers.
type answer struct {
	Warnings []string `json:"warnings"`
	Data     struct {
		Result []struct {
			Stream map[string]string `json:"stream"`
			Values [][2]string       `json:"values"`
			Value  [2]any            `json:"value"`
		} `json:"result"`
	} `json:"data"`
}

func (r *reader) get(gateway int, path string, parameters url.Values) (answer, error) {
	var a answer
	client := &http.Client{Timeout: queryTimeout}
	defer client.CloseIdleConnections()
	text, err := r.request(client, http.MethodGet, r.gateway(gateway)+path+"?"+parameters.Encode(), nil)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("%w: %.300s", err, text)
	}
	if len(a.Warnings) > 0 {
		return a, fmt.Errorf("warnings: %q", a.Warnings)
	}
	return a, nil
}

// ask asks for the lines of a pusher up to the last one that was answered: for the lines themselves, and how many they are.
func (r *reader) ask(random *rand.Rand) {
	pusher := random.IntN(queryPushers)
	end := r.answered[pusher].Load()
	if end == 0 {
		time.Sleep(10 * time.Millisecond)
		return
	}
	first := uint32(0)
	if random.IntN(2) == 0 {
		first = end - min(end, 1+random.Uint32N(recentLines))
	}
	direction := []string{"forward", "backward"}[random.IntN(2)]
	selector := fmt.Sprintf(`{job="asked", pusher="%d"}`, pusher)
	began := time.Now()
	got, err := r.get(random.Int(), "/loki/api/v1/query_range", url.Values{
		"query": {selector}, "direction": {direction}, "limit": {strconv.Itoa(int(end-first) + 10)},
		"start": {strconv.FormatInt(r.at(first), 10)}, "end": {strconv.FormatInt(r.at(end), 10)},
	})
	took := time.Since(began)
	if err != nil {
		r.Errorf("%s from %d to %d: %v", selector, first, end, err)
		return
	}
	r.check(pusher, first, end, got)
	counted, err := r.get(random.Int(), "/loki/api/v1/query", url.Values{
		"query": {fmt.Sprintf("sum(count_over_time(%s[%dns]))", selector, r.at(end)-r.at(first))}, "time": {strconv.FormatInt(r.at(end)-1, 10)},
	})
	switch {
	case err != nil:
		r.Errorf("counting the lines of %s from %d to %d: %v", selector, first, end, err)
	case len(counted.Data.Result) != 1 || counted.Data.Result[0].Value[1] != strconv.Itoa(int(end-first)):
		r.Errorf("there are %d lines of pusher %d from %d to %d; counted: %v", end-first, pusher, first, end, counted.Data.Result)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took, r.lines = append(r.took, took), r.lines+int(end-first)
}

// check wants each line from first to end once.
func (r *reader) check(pusher int, first, end uint32, got answer) {
	times := make([]int, end-first)
	for _, s := range got.Data.Result {
		for _, v := range s.Values {
			var n uint32
			if _, err := fmt.Sscanf(v[1], "line %d", &n); err != nil || n < first || n >= end || v[0] != strconv.FormatInt(r.at(n), 10) {
				r.Errorf("pusher %d from %d to %d: the line %q at %s is not among these", pusher, first, end, v[1], v[0])
				return
			}
			times[n-first]++
		}
	}
	var lost, doubled []uint32
	for i, n := range times {
		switch {
		case n == 0:
			lost = append(lost, first+uint32(i))
		case n > 1:
			doubled = append(doubled, first+uint32(i))
		}
	}
	if len(lost)+len(doubled) > 0 {
		r.note("pusher %d from %d to %d: lost %v, doubled %v", pusher, first, end, lost, doubled)
		r.Errorf("pusher %d from %d to %d: %d lines are not seen, and %d more than once; events.log has them", pusher, first, end, len(lost), len(doubled))
	}
}

// disturb kills, restarts and freezes ingesters, one after the other, until a time.
func (r *reader) disturb(until time.Time) {
	random := rand.New(rand.NewPCG(r.seed, 2<<32))
	for n := 0; time.Now().Before(until) && !r.Failed(); n++ {
		name := ingesterNames[random.IntN(ingesters)]
		p := r.cluster.processes[name]
		switch n % 3 {
		case 0:
			r.note("killing %s", name)
			p.kill()
		case 1:
			r.note("restarting %s", name)
			if code := p.terminate(stopWithin); code != 0 {
				r.Errorf("%s ended with exit code %d", name, code)
			}
		case 2:
			r.note("freezing %s", name)
			thaw := p.freeze()
			time.Sleep(frozenFor)
			thaw()
			time.Sleep(queryPause)
			continue
		}
		time.Sleep(time.Duration(random.Int64N(int64(queryPause))))
		if err := p.start(); err != nil {
			r.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(r.Context(), startTimeout)
		err := p.awaitReady(ctx)
		cancel()
		if err != nil {
			r.Error(err)
		}
		time.Sleep(queryPause)
	}
	r.note("all faults are undone")
}

func (r *reader) summarize() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.took) == 0 {
		r.Fatal("nothing was asked")
	}
	slices.Sort(r.took)
	pushed := uint32(0)
	for p := range r.answered {
		pushed += r.answered[p].Load()
	}
	r.Logf("%d lines pushed; %d log queries, as many counts, %d lines in answers; half within %s, 99%% within %s, all within %s", pushed, len(r.took), r.lines,
		r.took[len(r.took)/2].Round(time.Millisecond), r.took[len(r.took)*99/100].Round(time.Millisecond), r.took[len(r.took)-1].Round(time.Millisecond))
}
