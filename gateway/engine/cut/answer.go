package cut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/unflushed"
	"github.com/casteloig/logthra/shared/wal"
)

const (
	// lookTimeout is how long it is tried to find out where a shard ends, as while NATS is restarted, and lookPatience how long
	// the first answer may take.
	lookTimeout  = 5 * time.Second
	lookPatience = time.Second
	// askPatience is how long an ingester may say nothing. One that is asked says something twice a second.
	askPatience = 2 * time.Second
	// readTimeout is how long a shard may take to be read from the WAL.
	readTimeout = 10 * time.Second
	// retryPause is between attempts of each.
	retryPause = 50 * time.Millisecond
	// readAtOnce is how many shards are read at once.
	readAtOnce = 4
)

// look finds out where each shard ends.
func (c *Cutter) look(ctx context.Context, parts []part) error {
	within, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var group errgroup.Group
	for i := range parts {
		p := &parts[i]
		p.shard = i
		group.Go(func() error {
			first, last, err := c.extent(within, i)
			if err != nil {
				// All that is in the table counts, also what is landing right now.
				p.isDone, p.landed = true, math.MaxUint64
				p.missing = fmt.Sprintf("lines that were pushed lately may be missing: shard %d of the WAL does not answer: %v", i, err)
				return ctx.Err()
			}
			position, _ := c.owners.Position(i)
			p.last, p.landed = last, max(position.Landed, first-1)
			p.isDone = p.landed >= p.last
			return nil
		})
	}
	return group.Wait()
}

// extent asks for the first and the last record of a shard until ctx ends.
func (c *Cutter) extent(ctx context.Context, shard int) (first, last uint64, err error) {
	for patience := lookPatience; ; patience *= 2 {
		attempt, cancel := context.WithTimeout(ctx, patience) // a server that is restarted forgets the question
		first, last, err = c.wal.Extent(attempt, shard)
		cancel()
		if err == nil || !pause(ctx) {
			return first, last, err
		}
	}
}

// pause waits before the next attempt, and returns false if ctx ended.
func pause(ctx context.Context) bool {
	select {
	case <-time.After(retryPause):
		return true
	case <-ctx.Done():
		return false
	}
}

// byOwner are the parts of which something may not have landed, by who owns the shard as far as is known; empty: nobody.
func (c *Cutter) byOwner(parts []part) map[string][]*part {
	by := map[string][]*part{}
	for i := range parts {
		if p := &parts[i]; !p.isDone {
			position, _ := c.owners.Position(p.shard)
			by[position.Owner] = append(by[position.Owner], p)
		}
	}
	return by
}

// answer answers for the shards of one owner: by asking it, or else from the WAL.
func (c *Cutter) answer(ctx context.Context, q *question, owner string, parts []*part) error {
	reason := fallbackNoOwner
	if owner != "" {
		var err error
		if reason, err = c.ask(ctx, q, owner, parts); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readAtOnce)
	for _, p := range parts {
		if p.isDone {
			continue
		}
		c.metrics.fallbacks.WithLabelValues(reason).Inc()
		group.Go(func() error { return c.read(ctx, q, p) })
	}
	return group.Wait()
}

// ask asks the owner of shards, and marks those as done that it has answered for. Of the others it says why they are not.
func (c *Cutter) ask(ctx context.Context, q *question, owner string, parts []*part) (reason string, err error) {
	peer := c.peers.to(owner)
	if peer == nil {
		return fallbackUnreachable, nil
	}
	asked := make(map[uint32]*part, len(parts))
	for _, p := range parts {
		asked[uint32(p.shard)] = p
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	patience := time.AfterFunc(askPatience, cancel)
	defer patience.Stop()
	stream, err := peer.Unflushed(asking, q.to(owner, parts))
	for err == nil {
		var r *logthrav1.UnflushedResponse
		if r, err = stream.Recv(); err != nil {
			break
		}
		patience.Reset(askPatience)
		p := asked[r.GetShard()]
		if p == nil || p.isDone {
			err = errColumns
			break
		}
		if err = q.take(p, r); err != nil {
			break
		}
		switch end := r.GetEnd(); {
		case end == nil:
		case end.GetUnanswered():
			q.drop(p)
			delete(asked, r.GetShard())
		default:
			p.landed, p.isDone = max(p.landed, end.GetLanded()), true
		}
	}
	for _, p := range parts {
		if !p.isDone {
			q.drop(p)
		}
	}
	_, tooLarge := errors.AsType[*TooLargeError](err)
	switch {
	case errors.Is(err, io.EOF):
		return fallbackRefused, nil
	case tooLarge:
		return "", err
	case ctx.Err() != nil:
		return "", ctx.Err()
	case status.Code(err) == codes.ResourceExhausted:
		return "", &TooLargeError{q.MaxBytes}
	case asking.Err() != nil:
		peer.avoid()
		err = fmt.Errorf("it said nothing for %s", askPatience)
	}
	c.log.Debug("an ingester could not be asked what is not in ClickHouse yet; the WAL is read", "ingester", owner, "error", err)
	return fallbackUnreachable, nil
}

// landed asks how far a shard has landed; 0: there is no answer.
func (c *Cutter) landed(ctx context.Context, shard int) uint64 {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	position, err := c.wal.Position(ctx, shard)
	if err != nil {
		return 0
	}
	return position.Landed
}

// read reads what a shard holds that has not landed from the WAL, or as much of it as time allows.
func (c *Cutter) read(ctx context.Context, q *question, p *part) error {
	within, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	w, err := unflushed.NewWriter(q.to("", nil), func(r *logthrav1.UnflushedResponse) error { return q.take(p, r) })
	if err != nil {
		return err
	}
	w.Begin(uint32(p.shard))
	p.landed = max(p.landed, c.landed(within, p.shard))
	for reached := p.landed; reached < p.last; {
		reached, err = w.Read(within, c.wal, p.shard, reached, p.last)
		if err == nil {
			break
		}
		if _, tooLarge := errors.AsType[*TooLargeError](err); tooLarge || errors.Is(err, unflushed.ErrTooLarge) {
			return &TooLargeError{q.MaxBytes}
		}
		if errors.Is(err, wal.ErrTrimmed) { // what was read may have landed, too
			if first, _, err := c.extent(within, p.shard); err == nil {
				q.drop(p)
				w.Begin(uint32(p.shard))
				p.landed = max(p.landed, first-1)
				reached = p.landed
			}
		}
		if !pause(within) {
			p.missing = fmt.Sprintf("lines that were pushed lately are missing: %d records of shard %d of the WAL are not in ClickHouse yet, and could not be read in time: %v",
				p.last-reached, p.shard, err)
			break
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return w.End(p.landed)
}
