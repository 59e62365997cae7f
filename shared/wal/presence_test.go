package wal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

func TestPresence(t *testing.T) {
	server := enginetest.NATS(t)
	announce := func(id string) *Presence {
		p, err := open(t, server, testConfig).announce(id, 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a := announce("a")
	defer a.Close()
	if a.Live() != 1 {
		t.Errorf("alone, a counts %d", a.Live())
	}
	b, c := announce("b"), announce("c")
	defer b.Close()
	for name, p := range map[string]*Presence{"a": a, "b": b, "c": c} {
		eventually(t, name+" counts three", func() bool { return p.Live() == 3 })
	}
	c.Close()
	eventually(t, "c is forgotten", func() bool { return a.Live() == 2 && b.Live() == 2 })
}

// What a gateway counts, by its own clock.
func TestPresenceHear(t *testing.T) {
	now := time.Now()
	p := &Presence{id: "self", every: time.Second, seen: map[string]time.Time{"self": now}}
	at := func(seconds float64, id string, want int) {
		t.Helper()
		p.hear(id, now.Add(time.Duration(seconds*float64(time.Second))))
		if p.Live() != want {
			t.Errorf("at %g s, after %s was heard, %d live, want %d", seconds, id, p.Live(), want)
		}
	}
	at(0.5, "other", 2)
	for second := 1.0; second <= 5; second++ {
		at(second, "self", 2)
	}
	at(6, "self", 1) // silent for 5.5 s
	at(6.5, "other", 2)
	at(20, "self", 2) // deaf for 14 s: nobody could be heard
	for second := 21.0; second <= 25; second++ {
		at(second, "self", 2)
	}
	at(26, "self", 1)
	for i := range 2 * maxGateways {
		p.hear(fmt.Sprint("flood", i), now.Add(20*time.Second))
	}
	if p.Live() != maxGateways {
		t.Errorf("%d live after a flood", p.Live())
	}
	p.seen = map[string]time.Time{"self": now}
	at(0, strings.Repeat("x", maxGatewayID+1), 1)
}
