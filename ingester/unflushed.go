package ingester

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/unflushed"
	"github.com/casteloig/logthra/shared/wal"
)

const (
	// readPatience is how long a question waits for shards to read as far as it wants to know. What they have not read by then, or
	// will not read soon, as they insert, is read from the WAL for it.
	readPatience = 100 * time.Millisecond
	// answerTimeout bounds an answer, and so for how long it keeps records that have landed meanwhile from being freed.
	answerTimeout = time.Minute
)

// unlanded is a record that was read and has not landed.
type unlanded struct {
	*wal.Record

	earliest, latest int64    // of its entries
	streams          []string // labels
}

// Bytes of memory that an unlanded takes beside its record, and each of its streams.
const (
	unlandedBytes = 64
	labelsBytes   = 16
)

// sizeOf is how many bytes of memory the record that was decoded last takes.
func (s *shard) sizeOf(record *wal.Record) int {
	return store.SizeOf(&s.decoded, record) + unlandedBytes + labelsBytes*len(s.decoded.Streams)
}

// note keeps the record that was decoded last for queries, until it has landed.
func (s *shard) note(record *wal.Record) {
	u := unlanded{Record: record}
	if s.decoded.Len() > 0 {
		u.earliest, u.latest = slices.Min(s.decoded.Timestamps), slices.Max(s.decoded.Timestamps)
		u.streams = make([]string, len(s.decoded.Streams))
	}
	for i := range u.streams {
		labels, known := s.labels[s.decoded.Streams[i].Labels]
		if !known {
			labels = s.decoded.Streams[i].Labels
			if s.labels == nil {
				s.labels = map[string]string{}
			}
			s.labels[labels] = labels
		}
		u.streams[i] = labels
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.streams != nil {
		s.unlanded = append(s.unlanded, u)
	}
	s.readTo = record.Sequence
	s.wake()
}

// forget lets go of the records that have landed. It needs mu. Who looks at them goes on looking.
func (s *shard) forget() {
	left := s.unlanded
	for len(left) > 0 && left[0].Sequence <= s.landed {
		left = left[1:]
	}
	s.unlanded, s.readTo = slices.Clone(left), max(s.readTo, s.landed)
	clear(s.labels)
}

// wake tells those who wait for records to be read. It needs mu.
func (s *shard) wake() {
	if s.awaited != nil {
		close(s.awaited)
		s.awaited = nil
	}
}

// awaitRead returns once all records up to the sequence have been read, or are not going to be soon.
func (s *shard) awaitRead(ctx context.Context, to uint64) {
	for {
		s.mu.Lock()
		if s.readTo >= to || s.ended || s.doing != stateGathering {
			s.mu.Unlock()
			return
		}
		if s.awaited == nil {
			s.awaited = make(chan struct{})
		}
		awaited := s.awaited
		s.mu.Unlock()
		select {
		case <-awaited:
		case <-ctx.Done():
			return
		}
	}
}

// Unflushed implements logthra.v1.IngesterService.
func (s *Service) Unflushed(request *logthrav1.UnflushedRequest, stream grpc.ServerStreamingServer[logthrav1.UnflushedResponse]) error {
	m, began, entries := s.Ingester.metrics, time.Now(), 0
	err := s.Ingester.unflushed(stream.Context(), request, func(r *logthrav1.UnflushedResponse) error {
		entries += len(r.GetIndexes())
		return stream.Send(r)
	})
	result := unflushedOK
	switch {
	case stream.Context().Err() != nil:
		result = unflushedCanceled
	case err != nil:
		result = unflushedFailed
	}
	m.unflushedRequests.WithLabelValues(result).Inc()
	m.unflushedEntries.Add(float64(entries))
	m.unflushedSeconds.Observe(time.Since(began).Seconds())
	return err
}

// unflushed answers a question. Its error is a gRPC one.
func (in *Ingester) unflushed(ctx context.Context, request *logthrav1.UnflushedRequest, send func(*logthrav1.UnflushedResponse) error) error {
	if id := request.GetIngester(); id != in.cfg.ID {
		return status.Errorf(codes.FailedPrecondition, "this is the ingester %s, not %s", in.cfg.ID, id)
	}
	w, err := unflushed.NewWriter(request, send)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	shards := in.awaitRead(ctx, request.GetShards())
	select {
	case in.asked <- struct{}{}:
		defer func() { <-in.asked }()
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	for i, of := range request.GetShards() {
		err := shards[i].unflushed(ctx, in.wal, w, of)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return status.FromContextError(ctx.Err()).Err()
		case errors.Is(err, unflushed.ErrTooLarge):
			return status.Error(codes.ResourceExhausted, err.Error())
		default:
			return status.Error(codes.Unavailable, err.Error())
		}
	}
	return nil
}

// awaitRead waits until the shards have read as far as is asked for, if they do soon. It returns them, nil for those that this
// ingester does not own.
func (in *Ingester) awaitRead(ctx context.Context, asked []*logthrav1.UnflushedShard) []*shard {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	shards := make([]*shard, len(asked))
	in.mu.Lock()
	for i, of := range asked {
		shards[i] = in.shards[int(of.GetShard())]
	}
	in.mu.Unlock()
	for i, s := range shards {
		if s != nil {
			s.awaitRead(ctx, asked[i].GetSequence())
		}
	}
	return shards
}

// unflushed answers for one shard, up to a sequence. What has landed, what was read and where reading is are of one moment; it
// does not matter what becomes of them, or of the shard, while they are told.
func (s *shard) unflushed(ctx context.Context, log *wal.WAL, w *unflushed.Writer, of *logthrav1.UnflushedShard) error {
	if s == nil {
		return w.Fail(of.GetShard())
	}
	s.mu.Lock()
	landed, records, readTo := s.landed, s.unlanded, s.readTo
	s.mu.Unlock()
	landed, readTo = max(landed, of.GetLanded()), max(readTo, of.GetLanded())
	w.Begin(of.GetShard())
	for i := range records {
		u := &records[i]
		if !w.Forward() {
			u = &records[len(records)-1-i] // of the nearest entries some are enough
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if u.Sequence <= landed || u.Sequence > of.GetSequence() || !w.Wants(u.Tenant, u.earliest, u.latest, u.streams) {
			continue
		}
		if err := w.Add(u.Record); err != nil {
			return err
		}
	}
	if readTo < of.GetSequence() {
		if _, err := w.Read(ctx, log, s.number, readTo, of.GetSequence()); err != nil {
			if errors.Is(err, unflushed.ErrTooLarge) || ctx.Err() != nil {
				return err
			}
			s.log.Warn("a query wants to know what this shard has not read yet, which the WAL does not give", "error", err)
			return w.Fail(of.GetShard())
		}
	}
	return w.End(landed)
}
