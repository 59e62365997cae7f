package wal

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"
)

var (
	// ErrReplayRuns is returned for a shard of which a replay is running, and to the lease of a replay that another
	// process has gone on with.
	ErrReplayRuns = errors.New("a replay of this shard is running elsewhere")
	// ErrOtherReplay is returned for a shard of which another replay was begun and not finished; the error is an
	// *OtherReplayError.
	ErrOtherReplay = errors.New("another replay of this shard is unfinished")
)

// OtherReplayError is ErrOtherReplay with the replay that stands in the way. It has to be gone on with, by claiming
// what its Position says, before another can begin: an insert that it has begun may still land.
type OtherReplayError struct {
	Shard    int
	Position ReplayPosition
}

func (e *OtherReplayError) Error() string {
	p, whose := e.Position, "all tenants"
	if p.Tenant != "" {
		whose = "tenant " + p.Tenant
	}
	return fmt.Sprintf("%s: %s of shard %d, begun %s, replays the records %d to %d of %s and stands at %d; resume or abandon it first",
		ErrOtherReplay, p.ID, e.Shard, p.Started.UTC().Format(time.RFC3339), p.First, p.Last, whose, p.Done)
}

func (e *OtherReplayError) Unwrap() error { return ErrOtherReplay }

// ReplayPosition is what is replayed of a shard, and how far that is. The bucket holds one for each shard that was ever
// replayed, and every change of it is a compare-and-set.
type ReplayPosition struct {
	ID       string    `json:"id"`                // the same from begin to finish, whoever goes on with it
	Claim    string    `json:"claim"`             // of the process that replays; empty: it was given back
	Tenant   string    `json:"tenant,omitempty"`  // empty: all
	Request  string    `json:"request,omitempty"` // what was asked for, in the words of whoever began it
	First    uint64    `json:"first"`
	Last     uint64    `json:"last"`
	Done     uint64    `json:"done"`             // all records up to this sequence are done; First-1 at the beginning
	Intent   *Range    `json:"intent,omitempty"` // the insert that may be there, or not, or in part
	Started  time.Time `json:"started"`
	Beat     uint64    `json:"beat"`
	Finished bool      `json:"finished,omitempty"`
}

func (p ReplayPosition) holder() string { return p.Claim }

// ReplayLease is the right to replay a shard. It ends when another process goes on with the replay, since this one has
// not beaten for long: from then on what would change the position returns ErrReplayRuns.
//
// As with a Lease, Intend a range, insert exactly that range with its Token, then say that it is Done. Who resumes a
// replay repeats the Intent that Position has before anything else.
type ReplayLease struct {
	shard    int
	position document[ReplayPosition]
}

// Replay is the unfinished replay of a shard, whether it runs or not. It returns ErrNotFound where there is none.
func (w *WAL) Replay(ctx context.Context, shard int) (ReplayPosition, error) {
	l := w.replayLease(shard)
	if err := l.position.load(ctx); err != nil {
		return ReplayPosition{}, err
	}
	p := l.Position()
	if p.ID == "" || p.Finished {
		return ReplayPosition{}, fmt.Errorf("unfinished replay of shard %d: %w", shard, ErrNotFound)
	}
	return p, nil
}

// replayLease is one that has not claimed the replay yet.
func (w *WAL) replayLease(shard int) *ReplayLease {
	return &ReplayLease{shard: shard, position: document[ReplayPosition]{
		kv: w.kv, key: "replay." + strconv.Itoa(shard), what: fmt.Sprintf("replay of shard %d", shard),
		mine: rand.Text(), lost: ErrReplayRuns,
	}}
}

// ClaimReplay begins the replay of a shard that want describes, by its Tenant, First and Last, or resumes that very
// replay where it was begun and has not finished. Want may also have the ID, the Request and the Started of one that
// begins.
//
// An unfinished replay that was not given back runs as long as its position changes: ClaimReplay watches it for the
// timeout, by this process's own clock, and returns ErrReplayRuns as soon as it has changed. An unfinished one of
// something else that does not run is an *OtherReplayError.
func (w *WAL) ClaimReplay(ctx context.Context, shard int, want ReplayPosition, timeout time.Duration) (*ReplayLease, error) {
	if _, err := w.shard(shard); err != nil {
		return nil, err
	}
	if want.First == 0 || want.First > want.Last {
		return nil, fmt.Errorf("replay of shard %d: there are no records %d to %d", shard, want.First, want.Last)
	}
	l := w.replayLease(shard)
	if err := l.position.load(ctx); err != nil {
		return nil, err
	}
	found := l.Position()
	begin := found.ID == "" || found.Finished
	if !begin {
		if found.Claim != "" {
			if err := l.position.quiet(ctx, timeout); err != nil {
				return nil, err
			}
		}
		if found.Tenant != want.Tenant || found.First != want.First || found.Last != want.Last {
			return nil, &OtherReplayError{Shard: shard, Position: found}
		}
	}
	err := l.position.change(ctx, func(p *ReplayPosition) {
		if begin {
			*p = ReplayPosition{
				ID: cmp.Or(want.ID, rand.Text()), Tenant: want.Tenant, Request: want.Request,
				First: want.First, Last: want.Last, Done: want.First - 1, Started: want.Started,
			}
			if p.Started.IsZero() {
				p.Started = time.Now().UTC()
			}
		}
		p.Claim = l.position.mine
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Position is the replay's position, as this lease has left it.
func (l *ReplayLease) Position() ReplayPosition { return l.position.get() }

// Token is what an insert of the range carries, so that ClickHouse drops a second one. It is the same for whoever
// resumes the replay, and no other replay has the same.
func (l *ReplayLease) Token(r Range) string {
	return fmt.Sprintf("logthra-replay-%s-%d-%d-%d", l.Position().ID, l.shard, r.First, r.Last)
}

// Intend records the range that is going to be inserted.
func (l *ReplayLease) Intend(ctx context.Context, r Range) error {
	return l.position.change(ctx, func(p *ReplayPosition) { p.Intent = &r })
}

// Done says that all records up to the sequence are done, the intent with them.
func (l *ReplayLease) Done(ctx context.Context, last uint64) error {
	return l.position.change(ctx, func(p *ReplayPosition) { p.Done, p.Intent = last, nil })
}

// Beat shows others that the replay runs. It is needed, several times in the timeout of ClaimReplay, while nothing else
// changes the position. It may be called while other methods run.
func (l *ReplayLease) Beat(ctx context.Context) error {
	return l.position.change(ctx, func(p *ReplayPosition) { p.Beat++ })
}

// Finish ends the replay, so that another can begin; also one that is not done, but not while it has an intent: then
// it is an error.
func (l *ReplayLease) Finish(ctx context.Context) error {
	if p := l.Position(); p.Intent != nil {
		return fmt.Errorf("replay of shard %d: the insert of the records %d to %d is not done", l.shard, p.Intent.First, p.Intent.Last)
	}
	return l.position.change(ctx, func(p *ReplayPosition) { p.Finished = true })
}

// Release gives the replay back as it is, so that it can be resumed at once.
func (l *ReplayLease) Release(ctx context.Context) error {
	return l.position.change(ctx, func(p *ReplayPosition) { p.Claim = "" })
}
