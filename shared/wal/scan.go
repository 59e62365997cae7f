package wal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNotFound is returned for what the WAL does not hold, or does not hold any more.
var ErrNotFound = errors.New("the WAL does not hold it")

const (
	// headersAhead is how many headers are held ahead of what was yielded, some hundred bytes each.
	headersAhead = 2000
	// scanPatience is how long nothing may come before it is asked whether anything is left.
	scanPatience = time.Second
	// scanStall is how long nothing may come although something is left.
	scanStall = 30 * time.Second
	// scanResets is how often an ordered consumer is tried to be made anew, 1, 2, 4, … s apart.
	scanResets = 5
)

// Header is what is known of a record without reading its body.
type Header struct {
	Sequence uint64
	Tenant   string
	Time     time.Time // when JetStream took it
	Entries  int       // -1: it does not say
}

// Headers yields the headers of the records first..last of a shard that the WAL holds, in order; of one tenant, or
// of all where tenant is empty. Bodies are not transferred. It ends with the last record that was there when it
// began, or with an error, and rides out a restart of NATS that takes some seconds.
func (w *WAL) Headers(ctx context.Context, shard int, first, last uint64, tenant string) iter.Seq2[Header, error] {
	return func(yield func(Header, error) bool) {
		err := w.scanShard(ctx, shard, first, last, tenant, true, func(m *jetstream.RawStreamMsg) bool {
			return yield(Header{m.Sequence, tenantOf(m.Subject), m.Time, entriesOf(m.Header)}, nil)
		})
		if err != nil {
			yield(Header{}, err)
		}
	}
}

// Records is as Headers, with the bodies. Ahead of what was yielded it holds as many bytes as two messages of
// the largest size.
func (w *WAL) Records(ctx context.Context, shard int, first, last uint64, tenant string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		err := w.scanShard(ctx, shard, first, last, tenant, false, func(m *jetstream.RawStreamMsg) bool {
			return yield(newRecord(shard, m), nil)
		})
		if err != nil {
			yield(Record{}, err)
		}
	}
}

// Record reads one record. It returns ErrNotFound where the WAL does not hold it, or does not any more.
func (w *WAL) Record(ctx context.Context, shard int, sequence uint64) (Record, error) {
	stream, err := w.shard(shard)
	if err != nil {
		return Record{}, err
	}
	m, err := stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Record{}, fmt.Errorf("record %d of shard %d: %w", sequence, shard, ErrNotFound)
	}
	if err != nil {
		return Record{}, fmt.Errorf("record %d of shard %d: %w", sequence, shard, explain(err))
	}
	return newRecord(shard, m), nil
}

// Span is the retained records of a shard that were taken in a time.
type Span struct {
	First, Last uint64    // First > Last: none
	Complete    bool      // the WAL still holds all that it ever took in that time: nothing of it was trimmed
	Since       time.Time // when the oldest retained record was taken; zero if none is retained
}

// Span looks up which records of a shard were taken in [from, to), by the clock of NATS. A zero time is no
// bound; Complete then tells whether anything was ever trimmed.
func (w *WAL) Span(ctx context.Context, shard int, from, to time.Time) (Span, error) {
	info, err := w.info(ctx, shard)
	if err != nil {
		return Span{}, err
	}
	state := info.State
	s := Span{First: state.FirstSeq, Last: state.LastSeq}
	trimmedTo := state.LastTime // what was trimmed is not younger; zero where the server does not know
	if state.Msgs > 0 {
		s.Since, trimmedTo = state.FirstTime, state.FirstTime
	}
	trimmed := state.FirstSeq > max(info.Config.FirstSeq, 1)
	s.Complete = !trimmed || !from.IsZero() && trimmedTo.Unix() > 0 && from.After(trimmedTo)
	if state.Msgs == 0 {
		return s, nil
	}
	if !from.IsZero() {
		if s.First, err = w.firstSince(ctx, shard, from); err != nil {
			return Span{}, err
		}
	}
	if !to.IsZero() {
		next, err := w.firstSince(ctx, shard, to)
		if err != nil {
			return Span{}, err
		}
		s.Last = next - 1
	}
	return s, nil
}

// scanShard gives yield the records first..last that the stream of a shard holds now, until it returns false.
func (w *WAL) scanShard(
	ctx context.Context, shard int, first, last uint64, tenant string, headersOnly bool, yield func(*jetstream.RawStreamMsg) bool,
) error {
	info, err := w.info(ctx, shard)
	if err != nil {
		return err
	}
	s := scan{
		wal: w, stream: w.state.Load().streams[shard], headersOnly: headersOnly,
		next: max(first, info.State.FirstSeq), last: min(last, info.State.LastSeq),
	}
	if tenant != "" {
		if err := checkTenant(tenant); err != nil {
			return err
		}
		s.subject = SubjectPrefix + tenant + "." + strconv.Itoa(shard)
	}
	if s.next > s.last {
		return nil
	}
	if err := s.run(ctx, yield); err != nil {
		return fmt.Errorf("reading %s from %d: %w", StreamName(shard), s.next, explain(err))
	}
	return nil
}

// scan reads a part of a stream in order, and ends.
type scan struct {
	wal         *WAL
	stream      jetstream.Stream
	subject     string // empty: all
	headersOnly bool
	next, last  uint64 // what is left to be read
}

// errStalled is why a scan begins anew, or ends where that does not help.
var errStalled = fmt.Errorf("nothing came for %s, although there is more", scanStall)

// run gives yield what is left, until it returns false. The error is why it could not.
func (s *scan) run(ctx context.Context, yield func(*jetstream.RawStreamMsg) bool) error {
	for {
		began := s.next
		err := s.read(ctx, yield)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, errStalled) || s.next == began {
			return err
		}
	}
}

// read reads with one ordered consumer, which begins anew by itself where something is missing.
func (s *scan) read(ctx context.Context, yield func(*jetstream.RawStreamMsg) bool) error {
	cfg := jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(s.next, 1),
		HeadersOnly: s.headersOnly, MaxResetAttempts: scanResets,
	}
	if s.subject != "" {
		cfg.FilterSubjects = []string{s.subject}
	}
	consumer, err := s.stream.OrderedConsumer(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { // one that can't be deleted goes by itself after some minutes
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DefaultTimeout)
		defer cancel()
		_ = s.stream.DeleteConsumer(ctx, consumer.CachedInfo().Name)
	}()
	if consumer.CachedInfo().NumPending == 0 {
		return nil
	}
	var ahead jetstream.PullMessagesOpt = jetstream.PullMaxMessages(headersAhead)
	if !s.headersOnly {
		ahead = jetstream.PullMaxBytes(2 * (int(s.wal.nc.MaxPayload()) + prefetchSlack))
	}
	messages, err := consumer.Messages(ahead)
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for heard := time.Now(); s.next <= s.last; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		msg, err := messages.Next(jetstream.NextMaxWait(scanPatience))
		idle := errors.Is(err, nats.ErrTimeout)
		if err != nil && !idle {
			return err
		}
		var pending uint64
		if !idle {
			heard = time.Now()
			meta, err := msg.Metadata()
			if err != nil {
				return err
			}
			if meta.Sequence.Stream > s.last {
				return nil
			}
			s.next, pending = meta.Sequence.Stream+1, meta.NumPending
			if !yield(&jetstream.RawStreamMsg{
				Subject: msg.Subject(), Sequence: meta.Sequence.Stream, Header: msg.Headers(), Data: msg.Data(), Time: meta.Timestamp,
			}) {
				return nil
			}
		}
		if pending > 0 || s.next > s.last {
			continue
		}
		// Either nothing is left that matches, also because it was trimmed meanwhile, or it is on its way.
		left, err := probe(ctx, s.stream, jetstream.ConsumerConfig{
			DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: s.next, FilterSubject: s.subject,
		})
		if err == nil && left.NumPending == 0 {
			return nil
		}
		if time.Since(heard) > scanStall {
			return cmp.Or(err, errStalled)
		}
	}
	return nil
}

// probe makes a consumer that is never read, and returns what the server knows of it: where it would begin, and how
// many messages it would get.
func probe(ctx context.Context, stream jetstream.Stream, cfg jetstream.ConsumerConfig) (*jetstream.ConsumerInfo, error) {
	cfg.AckPolicy, cfg.MemoryStorage, cfg.Replicas, cfg.InactiveThreshold = jetstream.AckNonePolicy, true, 1, time.Minute
	consumer, err := stream.CreateConsumer(ctx, cfg)
	if err != nil {
		return nil, err
	}
	info := consumer.CachedInfo()
	return info, stream.DeleteConsumer(ctx, info.Name)
}

// firstSince returns the sequence of the first record that a shard took at or after the time, or the one after the
// last if there is none.
func (w *WAL) firstSince(ctx context.Context, shard int, at time.Time) (uint64, error) {
	info, err := probe(ctx, w.state.Load().streams[shard], jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &at,
	})
	if err != nil {
		return 0, fmt.Errorf("%s: looking up the records since %s: %w", StreamName(shard), at.Format(time.RFC3339), explain(err))
	}
	return info.Delivered.Stream + 1, nil
}
