package wal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/telemetry"
)

// maxRecordBytes bounds what a record may be decompressed to. A push is bounded by --max-push-bytes, and its
// columns by a small multiple of it.
const maxRecordBytes = 256 << 20

// prefetchSlack is what a message has beside its payload, in bytes, at most: its headers and subject.
const prefetchSlack = 1 << 20

// Record is a message of the WAL as it stands there.
type Record struct {
	Shard    int
	Sequence uint64
	Tenant   string
	Time     time.Time // when JetStream took it
	header   nats.Header
	data     []byte
}

func newRecord(shard int, m *jetstream.RawStreamMsg) Record {
	return Record{Shard: shard, Sequence: m.Sequence, Tenant: tenantOf(m.Subject), Time: m.Time, header: m.Header, data: m.Data}
}

// UndecodableError is returned for a record that this program can't read. It will not get better by reading
// it again, so the record is a dead letter.
type UndecodableError struct{ Reason error }

func (e *UndecodableError) Error() string { return "undecodable record: " + e.Reason.Error() }
func (e *UndecodableError) Unwrap() error { return e.Reason }

// Trace is the record's place in a trace. It is not valid where the push was not sampled.
func (r *Record) Trace() trace.SpanContext {
	return telemetry.ParseTrace(r.header.Get(headerTrace))
}

// Size is the number of bytes of the record's body, as the WAL stores it.
func (r *Record) Size() int { return len(r.data) }

// Body is the record's body, as the WAL stores it. It must not be changed.
func (r *Record) Body() []byte { return r.data }

// Decode reads the record into b, using scratch for what it decompresses to, and returns scratch, grown if
// it was too small. The batch points into scratch and is good until the next use of it. The error, if any,
// is an *UndecodableError.
func (r *Record) Decode(b *logs.Batch, scratch []byte) ([]byte, error) {
	if v := r.header.Get(headerVersion); v != version1 {
		return scratch, &UndecodableError{fmt.Errorf("version %q is not one that this program reads (%s): was it written by a newer one? Upgrade, and retry the dead letter", v, version1)}
	}
	if e := r.header.Get(headerEncoding); e != encodingS2 {
		return scratch, &UndecodableError{fmt.Errorf("encoding %q is not one that this program reads (%s)", e, encodingS2)}
	}
	size, err := s2.DecodedLen(r.data)
	if err != nil {
		return scratch, &UndecodableError{err}
	}
	if size > maxRecordBytes {
		return scratch, &UndecodableError{fmt.Errorf("%d bytes decompressed, at most %d are read", size, maxRecordBytes)}
	}
	raw, err := s2.Decode(scratch[:cap(scratch)], r.data)
	if err != nil {
		return scratch, &UndecodableError{err}
	}
	if err := parseRecord(b, raw); err != nil {
		return raw, &UndecodableError{err}
	}
	return raw, nil
}

// What a Reader asks for at once, and so what it holds ahead of what was read: so many messages, or about so many bytes. A
// message that is larger it asks for alone.
const (
	fetchMessages = 256
	fetchBytes    = 4 << 20
)

// inactiveAfter is how long NATS keeps the consumer of a reader that has gone without a word.
const inactiveAfter = time.Minute

// Reader reads the records of one shard in order.
type Reader struct {
	wal      *WAL
	shard    int
	tenant   string // whose records; empty: those of all
	next     uint64 // sequence from which on nothing was handed out
	consumer jetstream.Consumer
	passed   uint64 // messages that the consumer has sent: where one is missing, it is made anew

	records chan Record
	err     error // why records was closed; read after that
	cancel  context.CancelFunc
}

// Read returns a reader of a shard that begins with the first record whose sequence is from or more, and
// goes on with those that are yet to come. The caller closes it.
func (w *WAL) Read(ctx context.Context, shard int, from uint64) (*Reader, error) {
	return w.read(ctx, shard, from, "")
}

// read is Read for the records of one tenant, or of all where tenant is empty.
func (w *WAL) read(ctx context.Context, shard int, from uint64, tenant string) (*Reader, error) {
	r := &Reader{wal: w, shard: shard, tenant: tenant, next: max(from, 1), records: make(chan Record)}
	if err := r.consume(ctx); err != nil {
		return nil, fmt.Errorf("reading %s from %d: %w", StreamName(shard), from, explain(err))
	}
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(r.records)
		r.err = fmt.Errorf("reading %s: %w", StreamName(shard), explain(r.run(ctx)))
		r.discard()
	}()
	return r, nil
}

// Records gives the records in order. It is closed when reading failed for good; Err then says why.
func (r *Reader) Records() <-chan Record { return r.records }

// Err is the reason why Records was closed.
func (r *Reader) Err() error { return r.err }

// Close ends reading and waits until nothing of the reader runs any more.
func (r *Reader) Close() {
	r.cancel()
	for range r.records { // until run has ended
	}
}

// consume makes a consumer that begins at next. It keeps no acknowledgements: where this reader is, only it knows.
func (r *Reader) consume(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	cfg := jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.next,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: inactiveAfter,
	}
	if r.tenant != "" {
		cfg.FilterSubject = subject(r.tenant, r.shard)
	}
	r.passed = 0
	r.consumer, err = r.wal.state.Load().streams[r.shard].CreateConsumer(ctx, cfg)
	return err
}

// discard lets NATS forget the consumer at once, if it can be reached.
func (r *Reader) discard() {
	if r.consumer == nil || !r.wal.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), DefaultTimeout)
	defer cancel()
	_ = r.wal.state.Load().streams[r.shard].DeleteConsumer(ctx, r.consumer.CachedInfo().Name)
}

// run hands out records until ctx ends. A consumer that NATS has lost, as with the server it was on, is made anew; where that
// fails, reading has.
func (r *Reader) run(ctx context.Context) error {
	for most := fetchBytes; ; {
		from := r.next
		fetched, err := r.consumer.Fetch(fetchMessages, jetstream.FetchMaxBytes(most), jetstream.FetchContext(ctx))
		if err == nil {
			if err = r.hand(ctx, fetched.Messages()); err == nil {
				err = fetched.Error()
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			r.discard()
			if err := r.consume(ctx); err != nil {
				return err
			}
		case r.next == from && most == fetchBytes:
			most = int(r.wal.nc.MaxPayload()) + prefetchSlack // the next message may be a large one
		default:
			most = fetchBytes
		}
	}
}

var errGap = errors.New("messages were lost on the way")

// hand hands out messages.
func (r *Reader) hand(ctx context.Context, messages <-chan jetstream.Msg) error {
	for msg := range messages {
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if r.passed++; meta.Sequence.Consumer != r.passed {
			return errGap
		}
		record := Record{
			Shard: r.shard, Sequence: meta.Sequence.Stream, Tenant: tenantOf(msg.Subject()), Time: meta.Timestamp,
			header: msg.Headers(), data: msg.Data(),
		}
		select {
		case r.records <- record:
			r.next = record.Sequence + 1
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// tenantOf takes the tenant out of a subject, logs.<tenant>.<shard>.
func tenantOf(subject string) string {
	tenant, _, _ := strings.Cut(strings.TrimPrefix(subject, SubjectPrefix), ".")
	return tenant
}

// checkTenant refuses what can't be one token of a subject, and would match others where it is used as a filter.
func checkTenant(tenant string) error {
	if tenant == "" || strings.ContainsAny(tenant, ".*> \t\r\n") {
		return fmt.Errorf("%q can't be a tenant", tenant)
	}
	return nil
}

// entriesOf is how many entries a record says that it has, -1 if it does not say.
func entriesOf(header nats.Header) int {
	n, err := strconv.Atoi(header.Get(headerEntries))
	if err != nil || n < 0 {
		return -1
	}
	return n
}
