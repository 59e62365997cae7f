package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

const (
	// workers push side by side. Enough of them that the rate holds while a gateway is frozen and half of the pushes
	// wait for their time to be over.
	workers = 32
	// patience is how much longer than the gateway a client waits before it gives an attempt up.
	patience = time.Second
	// giveUpAfter is when a push is not tried again. After that nobody knows whether it was taken.
	giveUpAfter = 2 * time.Minute
	// repeatWithin is how old an accepted push may be that is sent once more on purpose.
	repeatWithin = time.Minute

	// gatewayTriesAgain is after how long a gateway publishes a push again that was not confirmed, which may make a duplicate of it.
	gatewayTriesAgain = 2 * time.Second

	firstPause, longestPause = 100 * time.Millisecond, time.Second
)

// Of so many pushes one is sent again after it was accepted, or has a flaw.
const (
	repeatOneIn = 12
	flawOneIn   = 25
)

// outcome is what the answers to a push allow for.
type outcome uint8

const (
	unknown  outcome = iota // all of its lines, or none
	accepted                // all of its lines, once
	refused                 // none of its lines
)

func (o outcome) String() string { return [...]string{"unknown", "accepted", "refused"}[o] }

// record is what is kept of a push until the end.
type record struct {
	number   uint32
	lines    uint32
	sum      uint64
	outcome  outcome
	protocol protocol
	flaw     flaw
	tenant   string
	attempts int
	began    time.Time
	ended    time.Time
}

// generator pushes numbered lines and keeps the outcome of every push.
type generator struct {
	seed    uint64
	rate    float64       // lines a second, at most
	timeout time.Duration // of an attempt
	http    [gateways]string
	conns   [gateways]*grpc.ClientConn
	natives [gateways]logthrav1.PushServiceClient
	stopped context.Context // no new push after it
	stop    context.CancelFunc
	pushing sync.WaitGroup

	next          atomic.Uint32 // number of the push that was begun last
	acceptedLines atomic.Int64
	failed        atomic.Int64 // attempts without an answer that settles anything
	repeated      atomic.Int64 // accepted pushes that were sent once more
	duplicates    atomic.Int64 // answers that say so

	mu       sync.Mutex // guards what follows
	due      time.Time  // of the next push
	records  []record
	breaches []string // answers that no gateway may give
}

// startGenerator begins to push to the gateways, each at an address a protocol. Numbers begin after first.
func startGenerator(c *cluster, at func(gateway int, protocol string) string, seed uint64, rate float64, first uint32) (*generator, error) {
	g := &generator{seed: seed, rate: rate, timeout: c.pushTimeout + patience, due: time.Now()}
	g.next.Store(first)
	g.stopped, g.stop = context.WithCancel(context.Background())
	for n := range gateways {
		g.http[n] = "http://" + at(n, "http")
		conn, err := grpc.NewClient(at(n, "grpc"),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 1.5, MaxDelay: longestPause},
				MinConnectTimeout: g.timeout,
			}))
		if err != nil {
			return nil, err
		}
		g.conns[n], g.natives[n] = conn, logthrav1.NewPushServiceClient(conn)
	}
	for range workers {
		g.pushing.Go(g.work)
	}
	return g, nil
}

// wait ends the pushing and returns when every push has its outcome.
func (g *generator) wait() {
	g.stop()
	g.pushing.Wait()
	for _, conn := range g.conns {
		_ = conn.Close()
	}
}

// work pushes, on connections of its own, one push after the other.
func (g *generator) work() {
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var recent []sent // accepted pushes, the latest last
	for g.stopped.Err() == nil {
		number := g.next.Add(1)
		random := rand.New(rand.NewPCG(g.seed+1, uint64(number)))
		f, key := none, ""
		if random.IntN(flawOneIn) == 0 {
			f = 1 + flaw(random.IntN(int(flaws)-1))
		}
		tenant := ""
		if f == reusedKey {
			keyed := slices.IndexFunc(recent, func(s sent) bool { return s.key != "" && time.Since(s.began) < repeatWithin })
			if keyed < 0 {
				f = none
			} else {
				key, tenant = recent[keyed].key, recent[keyed].tenant
			}
		}
		r := newRequest(g.seed, number, time.Now(), f, key)
		if tenant != "" {
			r.tenant = tenant
		}
		if !g.pace(int(r.lines)) {
			return
		}
		rec := g.push(client, r)
		g.keep(rec)
		if rec.outcome == accepted {
			recent = append(recent, sent{r, rec.began})
			recent = recent[max(0, len(recent)-4):]
		}
		if len(recent) > 0 && random.IntN(repeatOneIn) == 0 {
			if again := recent[random.IntN(len(recent))]; time.Since(again.began) < repeatWithin {
				g.repeat(client, again.request)
			}
		}
	}
}

// sent is a push that was accepted.
type sent struct {
	*request
	began time.Time
}

// pace waits until so many lines more are due. It returns false when the generator is stopped.
func (g *generator) pace(lines int) bool {
	g.mu.Lock()
	now := time.Now()
	if g.due.Before(now) { // what an outage kept back is not made up for
		g.due = now
	}
	wait := g.due.Sub(now)
	g.due = g.due.Add(time.Duration(float64(lines) / g.rate * float64(time.Second)))
	g.mu.Unlock()
	select {
	case <-time.After(wait):
		return g.stopped.Err() == nil
	case <-g.stopped.Done():
		return false
	}
}

// push sends a push, the same bytes to one gateway and then the other, until its outcome is known or it has taken
// too long.
func (g *generator) push(client *http.Client, r *request) record {
	rec := record{
		number: r.number, lines: r.lines, sum: r.sum, protocol: r.protocol, flaw: r.flaw, tenant: r.tenant, began: time.Now(),
	}
	pause := firstPause
	for {
		gateway := (int(r.number) + rec.attempts) % gateways
		rec.attempts++
		began := time.Now()
		result, duplicate, answer := g.attempt(client, gateway, r)
		rec.ended = time.Now()
		switch {
		case result == accepted && r.flaw != none:
			g.breach("push %d was accepted by %s, although it has a flaw (%d)", r.number, gatewayName(gateway), r.flaw)
		case result == accepted && duplicate && rec.attempts == 1 && rec.ended.Sub(began) < gatewayTriesAgain:
			g.breach("push %d is a duplicate to %s at the first attempt", r.number, gatewayName(gateway))
		case result == refused && r.flaw == none:
			g.breach("push %d was refused by %s, although nothing is wrong with it: %s", r.number, gatewayName(gateway), answer)
		}
		if duplicate {
			g.duplicates.Add(1)
		}
		if result != unknown {
			rec.outcome = result
			return rec
		}
		g.failed.Add(1)
		if time.Since(rec.began) > giveUpAfter {
			return rec
		}
		time.Sleep(pause)
		pause = min(2*pause, longestPause)
	}
}

// repeat sends a push that was accepted before once more, to the other gateway first. It must change nothing.
func (g *generator) repeat(client *http.Client, r *request) {
	began, pause := time.Now(), firstPause
	for attempt := 1; time.Since(began) < giveUpAfter/2; attempt++ {
		result, duplicate, answer := g.attempt(client, (int(r.number)+attempt)%gateways, r)
		if result == unknown {
			g.failed.Add(1)
			time.Sleep(pause)
			pause = min(2*pause, longestPause)
			continue
		}
		if result == refused {
			g.breach("push %d was accepted, and refused when it was repeated: %s", r.number, answer)
		}
		if r.protocol == native && !duplicate {
			g.breach("push %d was accepted, and not recognized when it was repeated", r.number)
		}
		if duplicate {
			g.duplicates.Add(1)
		}
		g.repeated.Add(1)
		return
	}
}

// attempt sends a push once.
func (g *generator) attempt(client *http.Client, gateway int, r *request) (result outcome, duplicate bool, answer string) {
	ctx, cancel := context.WithTimeout(context.Background(), g.timeout)
	defer cancel()
	if r.protocol == native {
		headers := []string{"tenant-id", r.tenant}
		if r.key != "" {
			headers = append(headers, "idempotency-key", r.key)
		}
		response, err := g.natives[gateway].Push(metadata.AppendToOutgoingContext(ctx, headers...), r.message)
		switch status.Code(err) {
		case codes.OK:
			return accepted, response.GetDuplicate(), ""
		case codes.InvalidArgument, codes.ResourceExhausted, codes.Unauthenticated, codes.PermissionDenied:
			return refused, false, err.Error()
		}
		return unknown, false, ""
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.http[gateway]+"/loki/api/v1/push", bytes.NewReader(r.body))
	if err != nil {
		return unknown, false, ""
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	if r.protocol == lokiJSON {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("X-Scope-OrgID", r.tenant)
	if r.key != "" {
		request.Header.Set("Idempotency-Key", r.key)
	}
	response, err := client.Do(request)
	if err != nil {
		return unknown, false, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	switch code := response.StatusCode; {
	case code/100 == 2:
		return accepted, false, ""
	case code/100 == 4 && code != http.StatusTooManyRequests && err == nil:
		return refused, false, fmt.Sprintf("%d %s", code, text)
	}
	return unknown, false, ""
}

func (g *generator) keep(rec record) {
	if rec.outcome == accepted {
		g.acceptedLines.Add(int64(rec.lines))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.records = append(g.records, rec)
}

// breach keeps an answer that breaks a promise by itself.
func (g *generator) breach(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.breaches = append(g.breaches, fmt.Sprintf(format, args...))
}
