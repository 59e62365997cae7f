package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// fault is a way to break something.
type fault string

const (
	kill         fault = "kill"          // SIGKILL, and a new start after the hold
	killServer   fault = "kill-server"   // SIGKILL of ClickHouse's server under its supervisor
	terminate    fault = "terminate"     // SIGTERM, and a new start after the hold
	freeze       fault = "freeze"        // SIGSTOP, and SIGCONT after the hold
	cutLink      fault = "cut"           // all connections of a link, and no new ones
	cutInside    fault = "cut-inside"    // likewise, once some bytes have passed: in the middle of a push or an insert
	muteLink     fault = "mute"          // answers are swallowed
	lateInsert   fault = "late-insert"   // inserts are held back; the ingester dies; they arrive when a successor is at work
	wakeInside   fault = "wake-inside"   // likewise, but the ingester is frozen, and wakes up together with them
	blindInsert  fault = "blind-insert"  // an ingester loses sight of ClickHouse, and dies while it tries
	fillWAL      fault = "fill-wal"      // the WAL may hold no more than it does
	manyParts    fault = "many-parts"    // ClickHouse refuses inserts: too many parts
	readOnly     fault = "read-only"     // likewise: the table is read-only
	missingTable fault = "missing-table" // likewise: there is no table
	tinyMemory   fault = "tiny-memory"   // ClickHouse is killed and has too little memory until it is killed again

	// Of a cluster of NATS alone; the target is chosen when it comes to it.
	killLeader   fault = "kill-leader"   // kill of the server that leads a shard
	freezeLeader fault = "freeze-leader" // freeze of that
	stepDown     fault = "step-down"     // the leaders of all shards hand over
	restartAll   fault = "restart-all"   // terminate of one server after the other
)

// event is a fault at a time.
type event struct {
	At      time.Duration // since the faults began
	Hold    time.Duration // until it is undone
	Fault   fault
	Targets []string // processes or links
	Bytes   int      // that may pass before it begins, or of memory
}

func (e event) String() string {
	s := fmt.Sprintf("%7.2fs %-13s %s", e.At.Seconds(), e.Fault, strings.Join(e.Targets, " "))
	if e.Bytes > 0 {
		s += fmt.Sprintf(" (%d bytes)", e.Bytes)
	}
	return s + fmt.Sprintf(" for %.2fs", e.Hold.Seconds())
}

// kills is how many SIGKILLs the event is going to send.
func (e event) kills() int {
	switch e.Fault {
	case kill, killServer, lateInsert, blindInsert, killLeader:
		return len(e.Targets)
	case tinyMemory:
		return 2 * len(e.Targets)
	}
	return 0
}

// disturbs are the processes and links that the event has to itself while it lasts.
func (e event) disturbs() []string {
	names := slices.Clone(e.Targets)
	switch e.Fault {
	case lateInsert, wakeInside, blindInsert:
		names = append(names, toClickHouse(e.Targets[0]))
	case fillWAL, manyParts, readOnly, missingTable:
		names = append(names, string(e.Fault))
	}
	if slices.ContainsFunc(names, isNATS) && !slices.Contains(names, natsName) { // one of a cluster at a time
		names = append(names, natsName)
	}
	return names
}

// Faults come in storms, with quiet in between, in which the backlog lands. In the quiet a single ingester dies or
// freezes, and nothing else is broken: that is how long a takeover takes.
const (
	shortestStorm, longestStorm = 25 * time.Second, 40 * time.Second
	shortestQuiet, longestQuiet = 2 * ownerTimeout, 3 * ownerTimeout
	shortestGap, longestGap     = time.Second, 3500 * time.Millisecond

	longestDown    = 5 * time.Second
	shortestFrozen = 500 * time.Millisecond
	longestFrozen  = 3 * ownerTimeout
	// respite is how long a target is left alone after an event, to start again.
	respite = 1500 * time.Millisecond
	// serverRespite is likewise how long a cluster of NATS is left alone, for all its servers to have everything again.
	serverRespite = 8 * time.Second
)

// mix is the faults of a run, and how often each comes.
type mix []struct {
	weight int
	draw   func(p *planner) (event, bool) // false where all that it could hit is hit already
}

// planner draws events. All that it does follows from its seed.
type planner struct {
	rand *rand.Rand
	at   time.Duration
	busy map[string]time.Duration // until when
}

// plan is what is going to be broken in a run of a duration.
func plan(seed uint64, duration time.Duration, m mix) (events []event) {
	p := &planner{rand: rand.New(rand.NewPCG(seed, 0)), busy: map[string]time.Duration{}}
	total := 0
	for _, one := range m {
		total += one.weight
	}
	for p.at < duration {
		for end := p.at + p.between(shortestStorm, longestStorm); p.at < end; p.at += p.between(shortestGap, longestGap) {
			choice, n := 0, p.rand.IntN(total)
			for n >= m[choice].weight {
				n -= m[choice].weight
				choice++
			}
			if e, ok := m[choice].draw(p); ok && e.At+e.Hold <= duration {
				events = append(events, e)
				p.take(e)
			}
		}
		for _, until := range p.busy {
			p.at = max(p.at, until)
		}
		p.at += p.between(shortestQuiet, longestQuiet)
		e, _ := one([]fault{kill, freeze}[p.rand.IntN(2)], 3*ownerTimeout/2, 2*ownerTimeout, ingesterNames...)(p)
		if e.At+e.Hold <= duration {
			events = append(events, e)
			p.take(e)
			p.at = p.busy[e.Targets[0]]
		}
	}
	return events
}

// take makes time and targets those of an event.
func (p *planner) take(e event) {
	p.at = e.At
	for _, name := range e.disturbs() {
		p.busy[name] = e.At + e.Hold + respite
		if isNATS(name) && !slices.Contains(e.Targets, natsName) {
			p.busy[name] += serverRespite
		}
	}
}

func (p *planner) between(least, most time.Duration) time.Duration {
	return least + time.Duration(p.rand.Int64N(int64(most-least)))
}

// free chooses one of the names that nothing happens to at the moment.
func (p *planner) free(names ...string) (string, bool) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return p.busy[name] > p.at })
	if len(names) == 0 {
		return "", false
	}
	return names[p.rand.IntN(len(names))], true
}

// one draws an event that hits one of the names, which may stand there more than once.
func one(f fault, least, most time.Duration, names ...string) func(*planner) (event, bool) {
	return func(p *planner) (event, bool) {
		name, ok := p.free(names...)
		e := event{At: p.at, Fault: f, Targets: []string{name}, Hold: p.between(least, most)}
		return e, ok
	}
}

// within is one with a number of bytes.
func within(bytes int, draw func(*planner) (event, bool)) func(*planner) (event, bool) {
	return func(p *planner) (event, bool) {
		e, ok := draw(p)
		e.Bytes = 1 + p.rand.IntN(bytes)
		return e, ok
	}
}

// table draws an event that hits the pipeline as a whole.
func table(f fault, least, most time.Duration) func(*planner) (event, bool) {
	return func(p *planner) (event, bool) {
		_, ok := p.free(string(f))
		return event{At: p.at, Fault: f, Hold: p.between(least, most)}, ok
	}
}

// killSome draws the death of several processes at once.
func killSome(p *planner) (event, bool) {
	names := allProcesses()
	p.rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = slices.DeleteFunc(names, func(name string) bool { return p.busy[name] > p.at })
	if len(names) < 2 {
		return event{}, false
	}
	names = names[:min(len(names), 2+p.rand.IntN(3))]
	return event{At: p.at, Fault: kill, Targets: names, Hold: p.between(0, longestDown)}, true
}

// killAll draws the death of everything, as soon as everything is up.
func killAll(p *planner) (event, bool) {
	e := event{At: p.at, Fault: kill, Targets: allProcesses(), Hold: p.between(0, longestDown)}
	for _, name := range e.Targets {
		e.At = max(e.At, p.busy[name])
	}
	return e, true
}

// inserting draws an event that hits an ingester and its link to ClickHouse.
func inserting(f fault, least, most time.Duration) func(*planner) (event, bool) {
	return func(p *planner) (event, bool) {
		name, ok := p.free(all(ingesters, ingesterName)...)
		ok = ok && p.busy[toClickHouse(name)] <= p.at
		return event{At: p.at, Fault: f, Targets: []string{name}, Hold: p.between(least, most), Bytes: 1 + p.rand.IntN(200<<10)}, ok
	}
}

func all(n int, name func(int) string) (names []string) {
	for i := range n {
		names = append(names, name(i))
	}
	return names
}

func allProcesses() []string {
	return slices.Concat([]string{natsName, clickhouseName}, all(gateways, gatewayName), all(ingesters, ingesterName))
}

var (
	ingesterNames = all(ingesters, ingesterName)
	gatewayNames  = all(gateways, gatewayName)
	insertLinks   = all(ingesters, func(n int) string { return toClickHouse(ingesterName(n)) })
	positionLinks = all(ingesters, func(n int) string { return toNATS(ingesterName(n)) })
	publishLinks  = all(gateways, func(n int) string { return toNATS(gatewayName(n)) })
	pushLinks     = slices.Concat(
		all(gateways, func(n int) string { return toGateway(n, "http") }),
		all(gateways, func(n int) string { return toGateway(n, "grpc") }))
)

// everything is the mix of the chaos test.
var everything = mix{
	{12, one(kill, 0, longestDown, ingesterNames...)},
	{5, one(kill, 0, longestDown, gatewayNames...)},
	{3, one(kill, 0, longestDown, natsName)},
	{3, one(kill, 0, longestDown, clickhouseName)},
	{2, one(killServer, time.Second, longestDown, clickhouseName)},
	{4, killSome},
	{1, killAll},
	{12, one(freeze, shortestFrozen, longestFrozen, ingesterNames...)},
	{2, one(freeze, shortestFrozen, longestFrozen, gatewayNames...)},
	{2, one(freeze, shortestFrozen, longestFrozen, clickhouseName)},
	{1, one(freeze, shortestFrozen, longestFrozen, natsName)},
	{2, one(terminate, 0, longestDown, ingesterNames...)},
	{1, one(terminate, 0, longestDown, slices.Concat(gatewayNames, []string{natsName, clickhouseName})...)},
	{3, one(cutLink, shortestFrozen, longestFrozen, slices.Concat(insertLinks, positionLinks)...)},
	{2, one(cutLink, shortestFrozen, longestFrozen, slices.Concat(publishLinks, pushLinks)...)},
	{4, within(300<<10, one(cutInside, shortestFrozen, longestFrozen, insertLinks...))},
	{2, within(1<<20, one(cutInside, shortestFrozen, longestFrozen, slices.Concat(publishLinks, positionLinks, pushLinks)...))},
	{3, one(muteLink, shortestFrozen, longestFrozen, insertLinks...)},
	{2, one(muteLink, shortestFrozen, longestFrozen, slices.Concat(publishLinks, positionLinks, pushLinks)...)},
	{4, inserting(lateInsert, 2*ownerTimeout, 3*ownerTimeout)},
	{4, inserting(wakeInside, 2*ownerTimeout, 3*ownerTimeout)},
	{4, inserting(blindInsert, 0, longestDown)},
	{2, table(fillWAL, 3*time.Second, 8*time.Second)},
	{1, table(manyParts, 2*time.Second, 8*time.Second)},
	{1, table(readOnly, 2*time.Second, 8*time.Second)},
	{1, table(missingTable, 2*time.Second, 8*time.Second)},
	{1, within(80<<20, one(tinyMemory, 3*time.Second, 8*time.Second, clickhouseName))},
}

// insertsOnly is the mix that gets to the exactly-once scheme of the ingesters soonest.
var insertsOnly = mix{
	{2, one(kill, 0, longestDown, ingesterNames...)},
	{4, one(freeze, shortestFrozen, longestFrozen, ingesterNames...)},
	{2, one(cutLink, shortestFrozen, longestFrozen, positionLinks...)},
	{2, within(300<<10, one(cutInside, shortestFrozen, longestFrozen, insertLinks...))},
	{2, one(muteLink, shortestFrozen, longestFrozen, insertLinks...)},
	{4, inserting(lateInsert, 2*ownerTimeout, 3*ownerTimeout)},
	{4, inserting(wakeInside, 2*ownerTimeout, 3*ownerTimeout)},
	{4, inserting(blindInsert, 0, longestDown)},
}

func TestPlan(t *testing.T) {
	const hour = time.Hour
	for seed := range uint64(20) {
		events := plan(seed, hour, everything)
		if again := plan(seed, hour, everything); fmt.Sprint(again) != fmt.Sprint(events) {
			t.Fatalf("seed %d gives another plan the second time", seed)
		}
		kills, until, seen := 0, map[string]time.Duration{}, map[fault]bool{}
		for _, e := range events {
			kills += e.kills()
			seen[e.Fault] = true
			for _, name := range e.disturbs() {
				if e.At < until[name] {
					t.Errorf("seed %d: %s is hit while it is down: %s", seed, name, e)
				}
				until[name] = e.At + e.Hold
			}
			if e.At+e.Hold > hour {
				t.Errorf("seed %d: it does not end in time: %s", seed, e)
			}
		}
		if kills < 400 {
			t.Errorf("seed %d: %d kills in an hour", seed, kills)
		}
		if len(seen) != 15 {
			t.Errorf("seed %d: only %d kinds of faults in an hour", seed, len(seen))
		}
	}
}
