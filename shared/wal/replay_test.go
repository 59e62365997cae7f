package wal

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
)

// quietFor is the timeout of the tests' claims.
const quietFor = 200 * time.Millisecond

func TestReplayLease(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	ctx := t.Context()
	if _, err := w.Replay(ctx, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("before any replay: %v", err)
	}
	want := ReplayPosition{Tenant: "acme", First: 11, Last: 50}
	a, err := w.ClaimReplay(ctx, 0, want, time.Hour) // there is nothing to wait for
	if err != nil {
		t.Fatal(err)
	}
	p := a.Position()
	if p.ID == "" || p.Tenant != "acme" || p.First != 11 || p.Last != 50 || p.Done != 10 || p.Intent != nil || time.Since(p.Started) > time.Minute {
		t.Errorf("begins at %+v", p)
	}
	if err := a.Intend(ctx, Range{First: 11, Last: 20, Bytes: 5}); err != nil {
		t.Fatal(err)
	}
	if err := a.Done(ctx, 20); err != nil {
		t.Fatal(err)
	}
	if err := a.Intend(ctx, Range{First: 21, Last: 30, Bytes: 5}); err != nil {
		t.Fatal(err)
	}
	token := a.Token(Range{First: 21, Last: 30, Bytes: 5})
	if want := "logthra-replay-" + p.ID + "-0-21-30"; token != want {
		t.Errorf("the token is %s, want %s", token, want)
	}

	// The process is killed. Another replay can't begin, the same is resumed.
	other := ReplayPosition{Tenant: "globex", First: 11, Last: 50}
	_, err = w.ClaimReplay(ctx, 0, other, quietFor)
	if o, ok := errors.AsType[*OtherReplayError](err); !ok || !errors.Is(err, ErrOtherReplay) || o.Position.ID != p.ID || o.Position.Done != 20 ||
		!strings.Contains(err.Error(), "records 11 to 50 of tenant acme") {
		t.Errorf("another replay: %v", err)
	}
	b, err := w.ClaimReplay(ctx, 0, want, quietFor)
	if err != nil {
		t.Fatal(err)
	}
	if q := b.Position(); q.ID != p.ID || q.Done != 20 || q.Intent == nil || *q.Intent != (Range{First: 21, Last: 30, Bytes: 5}) || b.Token(*q.Intent) != token {
		t.Errorf("resumed at %+v", q)
	}
	if found, err := w.Replay(ctx, 0); err != nil || found.ID != p.ID {
		t.Errorf("there is %+v, %v", found, err)
	}

	// It was frozen, not killed.
	for name, do := range map[string]func() error{
		"intend": func() error { return a.Intend(ctx, Range{First: 31, Last: 40, Bytes: 5}) },
		"done":   func() error { return a.Done(ctx, 30) },
		"beat":   func() error { return a.Beat(ctx) },
	} {
		if err := do(); !errors.Is(err, ErrReplayRuns) {
			t.Errorf("the former one could %s: %v", name, err)
		}
	}
	if err := b.Finish(ctx); err == nil {
		t.Error("finished while an insert may be under way")
	}
	if err := b.Done(ctx, 50); err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Replay(ctx, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("after it has finished: %v", err)
	}
	if err := a.Beat(ctx); !errors.Is(err, ErrReplayRuns) {
		t.Errorf("the former one beats: %v", err)
	}

	// The next one begins at once, with another id.
	c, err := w.ClaimReplay(ctx, 0, ReplayPosition{First: 1, Last: 1}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if q := c.Position(); q.ID == p.ID || q.Done != 0 || q.Tenant != "" {
		t.Errorf("the next one begins at %+v", q)
	}
	if _, err := w.ClaimReplay(ctx, 1, want, time.Hour); err != nil {
		t.Errorf("of another shard: %v", err)
	}
	for name, want := range map[string]ReplayPosition{"no records": {First: 5, Last: 4}, "no first": {Last: 4}} {
		if _, err := w.ClaimReplay(ctx, 1, want, time.Hour); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := w.ClaimReplay(ctx, 2, want, time.Hour); err == nil {
		t.Error("a shard that there is not: no error")
	}
}

// A replay that runs is left alone, by the same and by another, whatever of it changes.
func TestReplayThatRuns(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	want := ReplayPosition{First: 1, Last: 50}
	l, err := w.ClaimReplay(t.Context(), 0, want, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() {
		for n := uint64(1); ctx.Err() == nil; n++ {
			for _, do := range []func() error{
				func() error { return l.Beat(ctx) },
				func() error { return l.Intend(ctx, Range{First: n, Last: n, Bytes: 1}) },
				func() error { return l.Done(ctx, n) },
			} {
				if err := do(); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
		}
	})
	for _, want := range []ReplayPosition{want, {Tenant: "acme", First: 1, Last: 50}} {
		if _, err := w.ClaimReplay(t.Context(), 0, want, time.Minute); !errors.Is(err, ErrReplayRuns) {
			t.Errorf("%+v: %v", want, err)
		}
	}
}

// A replay that was given back is resumed at once, where it stands; not so another.
func TestReleasedReplay(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	want := ReplayPosition{First: 1, Last: 50, Request: "all"}
	a, err := w.ClaimReplay(t.Context(), 0, want, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Done(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if err := a.Intend(t.Context(), Range{First: 8, Last: 9, Bytes: 1}); err != nil {
		t.Fatal(err)
	}
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ClaimReplay(t.Context(), 0, ReplayPosition{First: 1, Last: 51}, time.Hour); !errors.Is(err, ErrOtherReplay) {
		t.Errorf("another: %v", err)
	}
	b, err := w.ClaimReplay(t.Context(), 0, want, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if p, was := b.Position(), a.Position(); p.ID != was.ID || p.Done != 7 || p.Intent == nil || p.Intent.Last != 9 || p.Request != "all" {
		t.Errorf("resumed at %+v", p)
	}
	if err := a.Beat(t.Context()); !errors.Is(err, ErrReplayRuns) {
		t.Errorf("the former one beats: %v", err)
	}
}

// Of many that claim at once, one wins: of a replay that begins, and of one that is resumed.
func TestClaimReplayIsExclusive(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	for round := range 6 {
		var mu sync.Mutex
		var won []*ReplayLease
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				l, err := w.ClaimReplay(t.Context(), 0, ReplayPosition{First: 1, Last: 50}, quietFor)
				if err == nil {
					mu.Lock()
					won = append(won, l)
					mu.Unlock()
				} else if !errors.Is(err, ErrReplayRuns) {
					t.Error(err)
				}
			})
		}
		group.Wait()
		held := 0
		for _, l := range won {
			if err := l.Beat(t.Context()); err == nil {
				held++
			} else if !errors.Is(err, ErrReplayRuns) {
				t.Error(err)
			}
		}
		if held != 1 {
			t.Fatalf("round %d: %d of %d that won hold the replay", round, held, len(won))
		}
	}
}

// A write whose answer was lost does not end a replay, whatever comes after it.
func TestReplayRecognizesItsOwnWrite(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	l, err := w.ClaimReplay(t.Context(), 0, ReplayPosition{First: 1, Last: 50}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	revision, value := l.position.revision, l.position.value
	if err := l.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.position.revision, l.position.value = revision, value
	if err := l.Done(t.Context(), 7); err != nil {
		t.Error(err)
	}
	if p, err := w.Replay(t.Context(), 0); err != nil || p.Done != 7 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestClaimReplayObeysItsContext(t *testing.T) {
	w := open(t, enginetest.NATS(t), testConfig)
	want := ReplayPosition{First: 1, Last: 50}
	if _, err := w.ClaimReplay(t.Context(), 0, want, time.Hour); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := w.ClaimReplay(ctx, 0, want, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
