package wal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers that a dead letter has beside those of the record that it was.
const (
	headerReason   = "Logthra-Reason"
	headerShard    = "Logthra-Shard"
	headerSequence = "Logthra-Sequence"
	headerTime     = "Logthra-Time"    // when the WAL took the record, RFC 3339
	headerAt       = "Logthra-Aside"   // of a tombstone: when the record was put aside, RFC 3339
	headerDropped  = "Logthra-Dropped" // of a tombstone: when an operator dropped the letter, RFC 3339
)

// deadLetterHeaders is the most bytes that these headers add to a record.
const deadLetterHeaders = 8 << 10

// tombstoneTTL is how long the tombstone of a dropped letter stays, for an audit to know of it.
const tombstoneTTL = 30 * 24 * time.Hour

// Of the room for dead letters, one part in so many is kept for tombstones, so that a letter can be dropped when
// there is no room for another.
const tombstoneRoom = 16

// ErrDeadLettersFull is returned while there is no room for another dead letter. None is ever dropped by itself.
var ErrDeadLettersFull = errors.New("the stream of dead letters, " + DeadLetterStream + ", is full; `logthra deadletter` makes room")

// DeadLetter is a record that was put aside because it could not be inserted.
type DeadLetter struct {
	Record            // as the WAL had it: its shard, its sequence there and when it was taken
	Reason  string    // why it was put aside
	At      time.Time // when that was
	Entries int       // how many it has; -1: it does not say
	Dropped bool      // an operator dropped it: this is a tombstone, without a body

	subject string
	letter  uint64 // sequence in the stream of dead letters
}

// DeadLetter puts a record aside, as it is, with the reason and where it stood. A record that has been put
// aside already is left as it was, so that a repeated batch makes no second letter of it, nor is a letter that was
// dropped put there again. ErrDeadLettersFull: there is no room.
func (w *WAL) DeadLetter(ctx context.Context, r Record, reason error) error {
	failed := func(err error) error {
		return fmt.Errorf("dead letter of record %d of shard %d: %w", r.Sequence, r.Shard, explain(err))
	}
	msg := &nats.Msg{
		Subject: fmt.Sprintf("%s%s.%d.%d", DeadLetterSubject, r.Tenant, r.Shard, r.Sequence),
		Data:    r.data,
		Header:  originHeaders(r.header),
	}
	msg.Header.Set(headerReason, headerValue(reason.Error()))
	msg.Header.Set(headerShard, strconv.Itoa(r.Shard))
	msg.Header.Set(headerSequence, strconv.FormatUint(r.Sequence, 10))
	msg.Header.Set(headerTime, r.Time.UTC().Format(time.RFC3339Nano))
	info, err := w.letters.Info(ctx)
	if err != nil {
		return failed(err)
	}
	if most := info.Config.MaxBytes; most > 0 && int64(info.State.Bytes)+int64(msg.Size()) > most-most/tombstoneRoom {
		if _, err := w.FindDeadLetter(ctx, r.Shard, r.Sequence); err == nil {
			return nil // it is there already
		}
		return failed(ErrDeadLettersFull)
	}
	_, err = w.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(DeadLetterStream), jetstream.WithExpectLastSequencePerSubject(0))
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == errCodeStoreFailed {
		err = fmt.Errorf("%w: %w", ErrDeadLettersFull, err)
	}
	if err != nil && !wrongLastSequence(err) {
		return failed(err)
	}
	return nil
}

// DeadLetters yields the dead letters of a tenant, or of all where tenant is empty, oldest first, tombstones too. A
// letter that is dropped meanwhile may come twice, as a letter and as a tombstone.
func (w *WAL) DeadLetters(ctx context.Context, tenant string) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		s := scan{wal: w, stream: w.letters, next: 1, last: math.MaxUint64}
		var err error
		if tenant != "" {
			s.subject = DeadLetterSubject + tenant + ".*.*"
			err = checkTenant(tenant)
		}
		if err == nil {
			err = s.run(ctx, func(m *jetstream.RawStreamMsg) bool { return yield(newDeadLetter(m), nil) })
		}
		if err != nil {
			yield(DeadLetter{}, fmt.Errorf("reading %s: %w", DeadLetterStream, explain(err)))
		}
	}
}

// FindDeadLetter looks a dead letter up, or its tombstone, by where the record stood in the WAL. It returns
// ErrNotFound where there is neither.
func (w *WAL) FindDeadLetter(ctx context.Context, shard int, sequence uint64) (DeadLetter, error) {
	m, err := w.letters.GetLastMsgForSubject(ctx, fmt.Sprintf("%s*.%d.%d", DeadLetterSubject, shard, sequence))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		err = ErrNotFound
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("dead letter of record %d of shard %d: %w", sequence, shard, explain(err))
	}
	return newDeadLetter(m), nil
}

// RemoveDeadLetter deletes a dead letter whose lines have landed after all, or a tombstone. It returns ErrNotFound
// where that is not there any more, also because it was dropped since it was read.
func (w *WAL) RemoveDeadLetter(ctx context.Context, d DeadLetter) error {
	err := w.letters.DeleteMsg(ctx, d.letter)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		if _, getErr := w.letters.GetMsg(ctx, d.letter); errors.Is(getErr, jetstream.ErrMsgNotFound) {
			err = ErrNotFound
		}
	}
	if err != nil {
		return fmt.Errorf("removing the dead letter of record %d of shard %d: %w", d.Sequence, d.Shard, explain(err))
	}
	return nil
}

// DropDeadLetter gives a dead letter up: its body is gone at once, and a tombstone stands in its place for 30 days,
// so that an audit knows what became of the record. One that is dropped already is left alone. It returns ErrNotFound
// where the letter was removed since it was read.
func (w *WAL) DropDeadLetter(ctx context.Context, d DeadLetter) error {
	return w.drop(ctx, d, tombstoneTTL)
}

func (w *WAL) drop(ctx context.Context, d DeadLetter, ttl time.Duration) error {
	if d.Dropped {
		return nil
	}
	failed := func(err error) error {
		return fmt.Errorf("dropping the dead letter of record %d of shard %d: %w", d.Sequence, d.Shard, explain(err))
	}
	msg := &nats.Msg{Subject: d.subject, Header: originHeaders(d.header)}
	msg.Header.Set(headerAt, d.At.UTC().Format(time.RFC3339Nano))
	msg.Header.Set(headerDropped, time.Now().UTC().Format(time.RFC3339Nano))
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject) // one write puts it there and takes the letter away
	_, err := w.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(DeadLetterStream),
		jetstream.WithExpectLastSequencePerSubject(d.letter), jetstream.WithMsgTTL(ttl))
	if !wrongLastSequence(err) {
		if err != nil {
			return failed(err)
		}
		return nil
	}
	m, err := w.letters.GetLastMsgForSubject(ctx, d.subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return failed(ErrNotFound)
	case err != nil:
		return failed(err)
	case newDeadLetter(m).Dropped:
		return nil
	}
	return failed(ErrNotFound) // another letter of the record
}

// newDeadLetter reads a message of the stream of dead letters. Where it lacks a header, because somebody else put it
// there, its subject and time tell as much as they can; a shard that nothing tells is -1.
func newDeadLetter(m *jetstream.RawStreamMsg) DeadLetter {
	d := DeadLetter{
		Record: newRecord(-1, m), Reason: m.Header.Get(headerReason), At: m.Time, Entries: entriesOf(m.Header),
		Dropped: m.Header.Get(headerDropped) != "", subject: m.Subject, letter: m.Sequence,
	}
	if reason, err := strconv.Unquote(d.Reason); err == nil {
		d.Reason = reason
	}
	d.Sequence = 0
	tokens := strings.Split(strings.TrimPrefix(m.Subject, DeadLetterSubject), ".")
	d.Tenant = tokens[0]
	if len(tokens) == 3 {
		if n, err := strconv.Atoi(tokens[1]); err == nil && n >= 0 {
			d.Shard = n
		}
		d.Sequence, _ = strconv.ParseUint(tokens[2], 10, 64)
	}
	if at, err := time.Parse(time.RFC3339Nano, m.Header.Get(headerTime)); err == nil {
		d.Time = at
	}
	if at, err := time.Parse(time.RFC3339Nano, m.Header.Get(headerAt)); err == nil {
		d.At = at
	}
	return d
}

// originHeaders are the headers that a record has from whoever published it, without those that tell the server what to
// do: those were for the record's own stream, and could keep a letter from being taken.
func originHeaders(header nats.Header) nats.Header {
	origin := nats.Header{}
	maps.Copy(origin, header)
	maps.DeleteFunc(origin, func(name string, _ []string) bool { return strings.HasPrefix(strings.ToLower(name), "nats-") })
	return origin
}

// wrongLastSequence tells whether a compare-and-set failed because something else was there.
func wrongLastSequence(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// headerValue makes text fit for one line of a header.
func headerValue(text string) string {
	const most = 1024
	if len(text) > most {
		text = text[:most]
	}
	return strconv.QuoteToASCII(text)
}
