package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	// What is tested is built from here, which go test does not know: a change of it is to run the test again.
	_ "github.com/casteloig/logthra/command"
	"github.com/casteloig/logthra/shared/embedded"
	"github.com/casteloig/logthra/shared/wal"
)

var (
	duration  = flag.Duration("chaos.duration", 0, "how long faults are injected (default 1m, with -short 20s)")
	seedFlag  = flag.Uint64("chaos.seed", 0, "what the faults and the lines follow from (default: random)")
	rate      = flag.Float64("chaos.rate", 16000, "lines a second, at most")
	dirFlag   = flag.String("chaos.dir", "", "where data and logs go, and stay (default: a temporary directory, which stays after a failure)")
	mutations = flag.Bool("chaos.mutations", false, "check that the harness notices a program that is broken on purpose")
)

const (
	// libraryTimeout bounds fetching ClickHouse, startTimeout the start of everything on a busy machine.
	libraryTimeout = 10 * time.Minute
	startTimeout   = 3 * time.Minute
	// settleTimeout is how long the backlog may take to land once nothing is broken any more.
	settleTimeout = 6 * time.Minute
	// enoughTakeovers is from how many measured takeovers on their times are held against the owner timeout.
	enoughTakeovers = 100
	// enoughWakes is likewise of ingesters that woke up: one or two may be killed before they get to say anything.
	enoughWakes = 3
	// askAgainFor is how long who asks ClickHouse or NATS for the result rides out that they are away: ClickHouse dies
	// by itself now and then, and is soon back.
	askAgainFor = 2 * time.Minute
)

// TestChaos breaks everything, again and again, and wants every line that was accepted in the table, once.
func TestChaos(t *testing.T) {
	if *mutations {
		checkMutations(t)
		return
	}
	span := *duration
	if span == 0 {
		span = time.Minute
		if testing.Short() {
			span = 20 * time.Second
		}
	}
	h := newHarness(t, seedOf(t, fmt.Sprintf("go test ./e2e -run '^TestChaos$' -count=1 -timeout %s -v -chaos.duration %s -chaos.rate %g",
		span+30*time.Minute, span, *rate)))
	h.start(nil)
	if err := h.chaos(plan(h.seed, span, everything), span, settleTimeout); err != nil {
		h.Fatal(err)
	}
	violations := h.verify()
	h.summarize(span)
	h.report(violations)
}

// seedOf chooses the seed and says how the run is repeated.
func seedOf(t *testing.T, command string) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	again := fmt.Sprintf("%s -chaos.seed %d", command, seed)
	fmt.Fprintln(os.Stderr, "chaos:", again)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the same faults at the same times:\n\t%s", again)
		}
	})
	return seed
}

// harness is one run: the cluster, what is pushed into it, and what is done to it.
type harness struct {
	*testing.T

	seed      uint64
	dir       string
	binary    string
	cluster   *cluster
	calm      *calm
	takeovers *takeovers
	breaker   *breaker
	pulse     *pulse
	records   []record
	generator *generator
	began     time.Time
	accepted  int64

	mu     sync.Mutex // guards what follows
	events *os.File
	noted  []note
}

// note is something that happened.
type note struct {
	at   time.Time
	text string
}

// newHarness prepares a run of the program as it is, or built with more arguments.
func newHarness(t *testing.T, seed uint64, buildArgs ...string) *harness {
	t.Helper()
	h := &harness{T: t, seed: seed, calm: new(calm)}
	ctx, cancel := context.WithTimeout(t.Context(), libraryTimeout)
	defer cancel()
	if _, err := embedded.Library(ctx, os.Stderr); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.dir = *dirFlag; h.dir != "" {
		h.dir = filepath.Join(h.dir, fmt.Sprintf("%s-%d", filepath.Base(t.Name()), time.Now().UnixNano()))
		err = os.MkdirAll(h.dir, 0o755)
	} else {
		h.dir, err = os.MkdirTemp("", "logthra-chaos-*") //nolint:usetesting // it stays after a failure
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		switch {
		case t.Failed():
			t.Logf("data and logs of all processes, and events.log, are in %s", h.dir)
		case *dirFlag == "":
			_ = os.RemoveAll(h.dir)
		}
	})
	if h.events, err = os.Create(filepath.Join(h.dir, "events.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.events.Close() })
	if h.binary, err = build(ctx, h.dir, buildArgs...); err != nil {
		t.Fatal(err)
	}
	return h
}

// start starts everything, with one NATS if there are no others. It has ended when the test has.
func (h *harness) start(servers *natsServers) {
	h.Helper()
	var err error
	if h.cluster, err = newCluster(h.binary, h.dir, servers, h.note); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(h.cluster.stop)
	ctx, cancel := context.WithTimeout(h.Context(), startTimeout)
	defer cancel()
	if err := h.cluster.start(ctx); err != nil {
		h.Fatal(err)
	}
	reconnected := make(chan struct{}, 1)
	url := h.cluster.natsPastLinks()
	if l := h.cluster.links[harnessLink]; l != nil {
		url = "nats://" + l.addr()
	}
	nc, err := nats.Connect(url,
		nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // it is what this is about
		nats.ReconnectHandler(func(*nats.Conn) {
			select {
			case reconnected <- struct{}{}:
			default:
			}
		}))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		h.Fatal(err)
	}
	h.takeovers = newTakeovers(h.calm, h.note)
	h.breaker = &breaker{
		cluster: h.cluster, js: js, calm: h.calm, takeovers: h.takeovers, note: h.note,
		done: map[fault]int{}, missed: map[fault]int{},
	}
	watching, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.takeovers.watch(watching, js, reconnected) })
	h.pulse = &pulse{calm: h.calm, note: h.note}
	running.Go(func() { h.pulse.watch(watching, js) })
	running.Go(func() { h.sample(watching) })
	h.Cleanup(func() { stop(); running.Wait() })
	h.began = time.Now()
}

// sample looks at the memory of all processes every now and then.
func (h *harness) sample(ctx context.Context) {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for ctx.Err() == nil {
		for _, p := range h.cluster.processes {
			p.sample()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// chaos pushes for a time in which the events happen, and returns when all is undone, every push has its outcome,
// and all has landed. Its error says what has not landed within the limit.
func (h *harness) chaos(events []event, span, limit time.Duration) error {
	h.Helper()
	return h.push(h.cluster.throughLinks, limit, func() {
		began := time.Now()
		h.breaker.run(h.Context(), events)
		time.Sleep(span - time.Since(began))
		h.note("all faults are undone")
	})
}

// push pushes to the gateways' addresses while something goes on, and returns when every push has its outcome, and all has
// landed. Its error says what has not landed within the limit.
func (h *harness) push(at func(gateway int, protocol string) string, limit time.Duration, during func()) error {
	h.Helper()
	first := uint32(0)
	for _, r := range h.records {
		first = max(first, r.number)
	}
	g, err := startGenerator(h.cluster, at, h.seed, *rate, first)
	if err != nil {
		h.Fatal(err)
	}
	h.generator = g
	defer g.wait() // also when the test ends here
	progress, stop := context.WithCancel(context.Background())
	defer stop()
	go h.progress(progress, h.accepted)
	during()
	ctx, cancel := context.WithTimeout(h.Context(), startTimeout)
	defer cancel()
	if err := h.cluster.awaitReady(ctx); err != nil {
		h.Fatal(err)
	}
	g.wait()
	h.records = append(h.records, g.records...)
	h.accepted += g.acceptedLines.Load()
	if err := h.cluster.settle(h.Context(), limit); err != nil {
		h.note("%s", err)
		return err
	}
	h.note("all has landed")
	return nil
}

// progress says now and again how far it is; so many lines were accepted before.
func (h *harness) progress(ctx context.Context, before int64) {
	for {
		select {
		case <-time.After(15 * time.Second):
			h.note("%d pushes, %d lines accepted", h.generator.next.Load(), before+h.generator.acceptedLines.Load())
		case <-ctx.Done():
			return
		}
	}
}

// verify compares what was answered with what is there.
func (h *harness) verify() []violation {
	h.Helper()
	var all map[uint32]held
	err := until(h.Context(), askAgainFor, "asking what the table holds", func() (err error) {
		all, err = h.cluster.heldByPush(h.Context())
		return err
	})
	if err != nil {
		h.Fatal(err)
	}
	return compare(h.records, all)
}

// note keeps what happened.
func (h *harness) note(format string, args ...any) {
	n := note{time.Now(), fmt.Sprintf(format, args...)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noted = append(h.noted, n)
	fmt.Fprintln(h.events, clock(n.at), n.text)
}

// report fails the test for all that must not be.
func (h *harness) report(violations []violation) {
	h.Helper()
	const most = 20
	for _, v := range violations[:min(len(violations), most)] {
		h.Errorf("%s\n%s", v, h.around(v))
	}
	if len(violations) > most {
		h.Errorf("and %d more", len(violations)-most)
	}
	for _, breach := range h.generator.breaches { // nobody pushes any more
		h.Error(breach)
	}
	for name, p := range h.cluster.processes {
		for _, line := range p.counts().crashes {
			h.Errorf("%s: %s", name, line)
		}
	}
	if err := h.cluster.audit(h.Context()); err != nil {
		h.Error(err)
	}
	var dead jetstream.Stream
	err := until(h.Context(), askAgainFor, "looking for dead letters", func() (err error) {
		dead, err = h.breaker.js.Stream(h.Context(), wal.DeadLetterStream)
		return err
	})
	if err != nil {
		h.Error(err)
	} else if n := dead.CachedInfo().State.Msgs; n > 0 {
		h.Errorf("%d dead letters", n)
	}
}

// around is what happened about the time of a push.
func (h *harness) around(v violation) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, n := range h.noted {
		if n.at.After(v.began.Add(-10*time.Second)) && n.at.Before(v.ended.Add(20*time.Second)) {
			fmt.Fprintf(&b, "\t%s %s\n", clock(n.at), n.text)
		}
	}
	return b.String()
}

// summarize says what was done, and what it measured.
func (h *harness) summarize(span time.Duration) {
	h.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %s of faults, %s in all\n", h.seed, span, time.Since(h.began).Round(time.Second))
	kills, fenced, ended := 0, 0, 0
	for name := range h.cluster.processes {
		counts := h.cluster.processes[name].counts()
		ended += counts.ended
		kills += counts.kills
		fenced += counts.fenced
	}
	fmt.Fprintf(&b, "SIGKILLs: %d\n", kills)
	h.breaker.mu.Lock()
	for _, f := range slices.Sorted(maps.Keys(h.breaker.done)) {
		fmt.Fprintf(&b, "  %-14s %d\n", f, h.breaker.done[f])
	}
	for _, f := range slices.Sorted(maps.Keys(h.breaker.missed)) {
		fmt.Fprintf(&b, "  %-14s %d could not be applied\n", f, h.breaker.missed[f])
	}
	woke, badStops := h.breaker.wokeLate, h.breaker.badStops
	h.breaker.mu.Unlock()
	fmt.Fprintf(&b, "processes that ended by themselves: %d; that did not end well after SIGTERM: %d\n", ended, badStops)

	outcomes, retried := map[outcome]int{}, 0
	for _, r := range h.records {
		outcomes[r.outcome]++
		if r.attempts > 1 {
			retried++
		}
	}
	fmt.Fprintf(&b, "pushes: %d accepted, %d refused, %d unknown; %d retried, %d repeated on purpose, %d answered as duplicates\n",
		outcomes[accepted], outcomes[refused], outcomes[unknown], retried, h.generator.repeated.Load(), h.generator.duplicates.Load())
	fmt.Fprintf(&b, "lines: %d accepted, %.0f a second\n", h.accepted, float64(h.accepted)/span.Seconds())
	whole, broken := h.latencies()
	fmt.Fprintf(&b, "from the first attempt of a push until it was accepted, NATS in order: %s\n", times(whole))
	fmt.Fprintf(&b, "from the first attempt of a push until it was accepted, something done to NATS: %s\n", times(broken))

	h.takeovers.mu.Lock()
	alone, all := slices.Sorted(slices.Values(h.takeovers.alone)), slices.Sorted(slices.Values(slices.Concat(h.takeovers.alone, h.takeovers.amid)))
	disturbed := h.takeovers.disturbed
	h.takeovers.mu.Unlock()
	fmt.Fprintf(&b, "takeovers, nothing else broken: %s\n", times(alone))
	fmt.Fprintf(&b, "takeovers, NATS and another ingester in order: %s\n", times(all))
	fmt.Fprintf(&b, "takeovers, others: %d\n", disturbed)
	h.pulse.mu.Lock()
	fmt.Fprintf(&b, "writes that took a NATS to which nothing was done more than %s: %d, longest %.2fs\n", pulseSlow, h.pulse.slow, h.pulse.longest.Seconds())
	h.pulse.mu.Unlock()
	fmt.Fprintf(&b, "ingesters that woke up after a takeover: %d; shards that were given up as fenced: %d\n", woke, fenced)
	b.WriteString("most memory:")
	for _, name := range slices.Concat(gatewayNames, ingesterNames) {
		fmt.Fprintf(&b, " %s %d MiB", name, h.cluster.processes[name].counts().memory>>20)
	}
	h.Logf("%s", &b)
	if p99 := quantile(alone, 0.99); len(alone) >= enoughTakeovers && p99 > ownerTimeout {
		h.Errorf("99 %% of the takeovers took up to %s, more than the owner timeout, %s", p99, ownerTimeout)
	}
	if woke >= enoughWakes && fenced == 0 {
		h.Errorf("%d ingesters woke up after their shards had been taken over, and none said that it was fenced", woke)
	}
}

// latencies are how long the accepted pushes took, in order, while nothing was done to NATS and otherwise.
func (h *harness) latencies() (whole, broken []time.Duration) {
	for _, r := range h.records {
		switch {
		case r.outcome != accepted:
		case h.calm.undisturbed(r.began, r.ended, natsName):
			whole = append(whole, r.ended.Sub(r.began))
		default:
			broken = append(broken, r.ended.Sub(r.began))
		}
	}
	slices.Sort(whole)
	slices.Sort(broken)
	return whole, broken
}

// times describes durations that are in order.
func times(sorted []time.Duration) string {
	return fmt.Sprintf("%d, p50 %.2fs, p99 %.2fs, longest %.2fs", len(sorted),
		quantile(sorted, 0.5).Seconds(), quantile(sorted, 0.99).Seconds(), quantile(sorted, 1).Seconds())
}
