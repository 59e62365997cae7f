package wal

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

func TestMembership(t *testing.T) {
	server := enginetest.NATS(t)
	const timeout = time.Second
	join := func(id string) *Membership {
		m, err := open(t, server, testConfig).Join(t.Context(), id, Member{Started: time.Now()}, timeout)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b := join("a"), join("b")
	eventually(t, "a sees b", func() bool { return slices.Equal(a.Sharing(), []string{"a", "b"}) })
	eventually(t, "b sees a", func() bool { return slices.Equal(b.Sharing(), []string{"a", "b"}) && b.IsLive("a") })
	if b.IsLive("c") {
		t.Errorf("b sees %v", b.Sharing())
	}
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a sees that b left", func() bool { return slices.Equal(a.Sharing(), []string{"a"}) })
	c := join("c")
	eventually(t, "a sees c", func() bool { return a.IsLive("c") })
	c.cancel() // as if it were killed
	c.done.Wait()
	eventually(t, "a sees that c died", func() bool { return !a.IsLive("c") })
	a.mu.Lock()
	silent := time.Since(a.seen["c"].at) // c may have been silent for a while before it died
	a.mu.Unlock()
	if silent < timeout/2 {
		t.Errorf("c counted as gone after %s", silent)
	}
	if err := a.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What a member thinks of another, by for how long that is silent and how many heartbeats it has sent.
func TestSilence(t *testing.T) {
	const timeout = time.Hour
	for _, c := range []struct {
		silent                          float64 // part of the timeout
		beat                            uint64
		deaf                            bool
		live, sharing, missing, overdue bool
	}{
		{silent: 0.01, beat: 1, live: true},
		{silent: 0.01, beat: 10, live: true},
		{silent: 0.01, beat: 11, live: true, sharing: true},
		{silent: 0.29, beat: 100, live: true, sharing: true},
		{silent: 0.31, beat: 100, live: true, sharing: true, missing: true},
		{silent: 0.74, beat: 100, live: true, sharing: true, missing: true},
		{silent: 0.76, beat: 100},
		{silent: 0.86, beat: 100, overdue: true},
		{silent: 1.9, beat: 1, overdue: true},
		{silent: 2.1, beat: 100},
		{silent: 1.9, beat: 100, deaf: true, live: true, sharing: true},
	} {
		m := &Membership{id: "self", timeout: timeout, echo: time.Now()}
		m.seen = map[string]heard{"other": {time.Now().Add(-m.part(c.silent)), c.beat}, "self": {}}
		if c.deaf {
			m.echo = time.Now().Add(-m.part(c.silent))
		}
		sharing := slices.Contains(m.Sharing(), "other")
		if m.IsLive("other") != c.live || sharing != c.sharing || m.IsAnyMissing() != c.missing ||
			m.IsOverdue("other") != c.overdue || m.IsAnyOverdue() != c.overdue {
			t.Errorf("%+v: live %t, sharing %t, missing %t, overdue %t", c, m.IsLive("other"), sharing, m.IsAnyMissing(), m.IsOverdue("other"))
		}
		if !m.IsLive("self") || m.IsOverdue("self") || m.IsLive("unknown") || m.IsOverdue("unknown") || !slices.Contains(m.Sharing(), "self") {
			t.Error("of itself, or one that it does not know")
		}
	}
}

// memberOf names the NATS of which this test's binary, started once more, is to be a member.
const memberOf = "LOGTHRA_TEST_MEMBER_OF"

// runMember is a process that is a member "child" and writes whom it takes for live whenever that changes. It ends with
// its standard input.
func runMember(url string) int {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer nc.Close()
	w, err := Attach(context.Background(), nc, "", slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	m, err := w.Join(context.Background(), "child", Member{}, time.Second)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}()
	for was := ""; ; time.Sleep(time.Millisecond) {
		if now := strings.Join(m.Sharing(), " "); now != was {
			fmt.Println(now)
			was = now
		}
	}
}

// A member that was frozen, and wakes up, does not take the others for gone. They take it for gone while it is frozen,
// and for live again.
func TestFrozenMember(t *testing.T) {
	server := enginetest.NATS(t)
	w := open(t, server, testConfig)
	m, err := w.Join(t.Context(), "parent", Member{}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), memberOf+"="+server.URL())
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var said []string
	var group sync.WaitGroup
	group.Go(func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			mu.Lock()
			said = append(said, lines.Text())
			mu.Unlock()
		}
	})
	saw := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(said)
	}
	const both = "child parent"
	eventually(t, "both see each other", func() bool { return m.IsLive("child") && slices.Contains(saw(), both) })
	for range 3 {
		if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the frozen one is gone", func() bool { return !m.IsLive("child") })
		if err := child.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the frozen one is back", func() bool { return m.IsLive("child") })
	}
	if all := saw(); all[len(all)-1] != both || len(all) > 2 {
		t.Errorf("the one that was frozen saw %q", all)
	}
	if err := m.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other sees that this one left", func() bool { all := saw(); return all[len(all)-1] == "child" })
	_ = stdin.Close()
	group.Wait()
	_ = child.Wait()
}

// While NATS is away nobody is gone, nor when it is back.
func TestMembersOverARestartOfNATS(t *testing.T) {
	server := newRestartable(t)
	const timeout = time.Second
	var members []*Membership
	for _, id := range []string{"a", "b"} {
		m, err := server.open(testConfig).Join(t.Context(), id, Member{}, timeout)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, m)
	}
	live := func() bool { return members[0].IsLive("b") && members[1].IsLive("a") }
	eventually(t, "they see each other", live)
	server.nats.Stop()
	beats := func() (n uint64) {
		for _, m := range members {
			m.mu.Lock()
			for _, last := range m.seen {
				n += uint64(last.at.UnixNano())
			}
			m.mu.Unlock()
		}
		return n
	}
	hold := func(during time.Duration) {
		for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if !live() {
				t.Fatal("one that is there counts as gone")
			}
		}
	}
	hold(timeout * 3 / 2)
	before := beats()
	server.start()
	eventually(t, "they hear each other again", func() bool { hold(time.Millisecond); return beats() != before })
	hold(timeout)
}
