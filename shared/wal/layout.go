package wal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/zeebo/xxh3"
)

// The shards can be raised while everything runs. A document in the bucket, the layout, says how many there are, and all
// that has the WAL open follows it. What goes on at a raise from 4 to 16:
//
//  1. The streams 4 to 15 are created, in room that the others have left.
//  2. The layout says 4, and 16 to come. Ingesters share 16 out; gateways still use 4.
//  3. After settle, by when all gateways have heard of it, the layout says 16, and 4 before.
//
// From 2 to a duplicate window after 3 a gateway that puts a record into one of the streams asks the one that the other
// number gives, too, whether it has that record: a push that was sent before the raise and is sent again after it, or by way of
// another gateway in the middle of it, is recognized.

const layoutKey = "layout"

// settle is how long all that follows the layout may take to hear of it.
const settle = 5 * time.Second

// layout is how records are spread over the shards.
type layout struct {
	Shards int `json:"shards"`
	Next   int `json:"next,omitempty"`   // how many there are going to be; 0 but in a raise
	Former int `json:"former,omitempty"` // how many there were before the last raise
}

// other is the number of shards that a record may have been spread over beside Shards; 0: none.
func (l layout) other() int { return max(l.Next, l.Former) }

// holder: a layout has none. Every change counts.
func (layout) holder() string { return "" }

// ErrLayoutChanged is returned where two raise the shards at the same time.
var ErrLayoutChanged = errors.New("somebody else is changing the number of shards")

// state is what a WAL knows of its shards.
type state struct {
	layout
	streams []jetstream.Stream // at least Shards
	until   time.Time          // how long a record may be where Former would have it
}

// place is the shard of the record with an id, and the one that it may be in already; -1: there is none.
func (s *state) place(id string) (shard, other int) {
	hash := xxh3.HashString(id)
	shard, other = int(hash%uint64(s.Shards)), -1
	if n := s.other(); n > 0 && (s.Next > 0 || time.Now().Before(s.until)) {
		if other = int(hash % uint64(n)); other == shard {
			other = -1
		}
	}
	return shard, other
}

// Shards is the number of shards, those to come included.
func (w *WAL) Shards() int { return len(w.state.Load().streams) }

// shard returns the stream of a shard.
func (w *WAL) shard(n int) (jetstream.Stream, error) {
	streams := w.state.Load().streams
	if n < 0 || n >= len(streams) {
		return nil, fmt.Errorf("shard %d: the WAL has the shards 0 to %d", n, len(streams)-1)
	}
	return streams[n], nil
}

// Follow keeps up with raises of the number of shards until ctx ends. Without it, Shards and where Publish puts a record
// stay as they were when the WAL was opened.
func (w *WAL) Follow(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		if err := w.follow(ctx); err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			w.log.Warn("the number of shards can't be watched; it is tried again", "error", err)
		}
		select {
		case <-time.After(settle / 5):
		case <-ctx.Done():
		}
	}
}

// follow takes over the layout as it is, and each that is to come.
func (w *WAL) follow(ctx context.Context) error {
	watcher, err := w.kv.Watch(ctx, layoutKey)
	if err != nil {
		return explain(err)
	}
	defer func() { _ = watcher.Stop() }()
	look := time.NewTicker(settle / 2) // a watcher may be gone for long before the client finds out
	defer look.Stop()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return nil
			}
			if entry == nil || entry.Operation() != jetstream.KeyValuePut {
				continue
			}
			var l layout
			if err := json.Unmarshal(entry.Value(), &l); err != nil {
				return fmt.Errorf("key %s of bucket %s: %w", layoutKey, Bucket, err)
			}
			if err := w.adopt(ctx, l); err != nil {
				return err
			}
		case <-look.C:
			d := w.layoutDocument()
			if err := d.load(ctx); err != nil {
				return err
			}
			if err := w.adopt(ctx, d.get()); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *WAL) layoutDocument() *document[layout] {
	return &document[layout]{kv: w.kv, key: layoutKey, what: "number of shards", mine: "nobody", lost: ErrLayoutChanged}
}

// adopt goes by a layout from now on. One that is not newer than what is known changes nothing.
func (w *WAL) adopt(ctx context.Context, l layout) error {
	w.adopting.Lock()
	defer w.adopting.Unlock()
	known := w.state.Load()
	if l == known.layout || l.Shards < known.Shards || l.Shards == known.Shards && l.Next == 0 && known.Next > 0 {
		return nil
	}
	next := &state{layout: l, streams: known.streams, until: time.Now().Add(w.dedup + settle)}
	for n := len(next.streams); n < max(l.Shards, l.Next); n++ {
		stream, err := w.js.Stream(ctx, StreamName(n))
		if err != nil {
			return fmt.Errorf("stream %s of the WAL: %w", StreamName(n), explain(err))
		}
		next.streams = append(slices.Clip(next.streams), stream)
	}
	w.state.Store(next)
	w.log.Info("the number of shards has changed", "shards", l.Shards, "to_come", l.Next)
	return nil
}

// SetShards raises the number of shards while everything runs, see above. It takes some seconds; where it ends before it
// is done, it can be called again. It returns the number before. The new streams are as the first one is; the room that all
// have together stays the same, but no stream gets less than it holds.
func (w *WAL) SetShards(ctx context.Context, shards int) (before int, err error) {
	d := w.layoutDocument()
	if err := d.load(ctx); err != nil {
		return 0, err
	}
	now := d.get()
	if now.Shards == 0 {
		now.Shards = w.Shards()
	}
	switch {
	case shards < now.Shards:
		return now.Shards, fmt.Errorf("the WAL has %d shards; their number can't be lowered to %d", now.Shards, shards)
	case shards > MaxShards:
		return now.Shards, fmt.Errorf("%d shards are more than the most, %d", shards, MaxShards)
	case now.Next > 0 && now.Next != shards:
		return now.Shards, fmt.Errorf("the shards are being raised from %d to %d; finish that first, with %d", now.Shards, now.Next, now.Next)
	case shards == now.Shards:
		return now.Shards, nil
	}
	first, err := w.js.Stream(ctx, StreamName(0))
	if err != nil {
		return now.Shards, fmt.Errorf("stream %s of the WAL: %w", StreamName(0), explain(err))
	}
	like := first.CachedInfo().Config
	room := like.MaxBytes * int64(now.Shards)
	like.MaxBytes = room / int64(shards)
	for n := range shards { // those that are there make room for the others
		if _, err := w.openShard(ctx, shardConfig(like, n)); err != nil {
			return now.Shards, fmt.Errorf("stream %s of the WAL: %w", StreamName(n), explain(err))
		}
	}
	if now.Next == 0 {
		if err := d.change(ctx, func(l *layout) { *l = layout{Shards: now.Shards, Next: shards} }); err != nil {
			return now.Shards, err
		}
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return now.Shards, fmt.Errorf("raising the shards from %d to %d: %w; it goes on when it is asked for again", now.Shards, shards, ctx.Err())
	}
	if err := d.change(ctx, func(l *layout) { *l = layout{Shards: shards, Former: now.Shards} }); err != nil {
		return now.Shards, err
	}
	return now.Shards, nil
}

// What the last record of a stream never is: the conditions of isHeld.
const (
	neverLast   = 1 << 62
	neverLastID = "none"
)

// isHeld tells whether a shard recognizes a record by its id, and where it is. It publishes the id on a condition that
// never holds, so that nothing is stored: JetStream looks for a duplicate before it looks at that condition. Of a stream with
// replicas that is the one on the sequence, which is looked at before anything is proposed to them; without, the one on the id.
func (w *WAL) isHeld(ctx context.Context, tenant, id string, shard int) (*jetstream.PubAck, bool, error) {
	stream, err := w.shard(shard)
	if err != nil {
		return nil, false, err
	}
	condition := jetstream.WithExpectLastMsgID(neverLastID)
	if stream.CachedInfo().Config.Replicas > 1 {
		condition = jetstream.WithExpectLastSequence(neverLast)
	}
	ask := &nats.Msg{Subject: subject(tenant, shard), Header: nats.Header{jetstream.MsgIDHeader: {id}}}
	ack, err := w.js.PublishMsg(ctx, ask, jetstream.WithExpectStream(StreamName(shard)), condition)
	switch {
	case wrongLastSequence(err), wrongLastID(err):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	case !ack.Duplicate:
		return nil, false, fmt.Errorf("stream %s took a record on a condition that does not hold", StreamName(shard))
	}
	return ack, true, nil
}

func wrongLastID(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == errCodeWrongLastID
}
