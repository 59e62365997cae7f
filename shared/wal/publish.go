package wal

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/zeebo/xxh3"
	"go.opentelemetry.io/otel/trace"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/telemetry"
)

// Headers of a record, and the values that this program writes. The layout is proto/logthra/v1/record.proto.
const (
	headerVersion  = "Logthra-Record"
	headerEncoding = "Logthra-Encoding"
	headerEntries  = "Logthra-Entries"
	headerContent  = "Logthra-Content"
	headerTrace    = "Logthra-Traceparent" // not traceparent itself, which a NATS with message tracing acts upon

	version1   = "1"
	encodingS2 = "s2"
)

var (
	// ErrFull is returned while the shard of a record holds as many bytes as it may.
	ErrFull = errors.New("the WAL is full (--wal-max-bytes)")
	// ErrUnavailable is returned when JetStream did not confirm a record: it may have it or not, and takes
	// it only once when it is published again with the same id.
	ErrUnavailable = errors.New("the WAL did not confirm the push")
	// ErrKeyReused is returned when a record with another content was published under the same key.
	ErrKeyReused = errors.New("the idempotency key was used for another push within the duplicate window (--dedup-window)")
)

// TooLargeError is returned for a record that the server's largest message can't hold.
type TooLargeError struct{ Size, Limit int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the push makes a WAL record of %d bytes, NATS takes at most %d (its max_payload)", e.Size, e.Limit)
}

// Ack says where a record is.
type Ack struct {
	Shard     int
	Sequence  uint64
	Duplicate bool // it was there already
	Bytes     int  // of the record, as the WAL stores it
}

// Encoded is a batch as a record: what is left of it to be published. It is not changed by that.
type Encoded struct {
	Entries   int
	LineBytes int // of all lines

	data            []byte // compressed
	content         xxh3.Uint128
	coarse, stamped bool // as of the batch
}

// buffers holds what encoding needs: the record, and the record compressed.
type buffers struct{ raw, packed []byte }

// maxPooled is the largest buffer, in bytes, that is kept for the next record.
const maxPooled = 4 << 20

var pool = sync.Pool{New: func() any { return new(buffers) }}

// Encode makes a record of the batch, which is not needed any more then. The error is a *TooLargeError.
func Encode(b *logs.Batch) (*Encoded, error) {
	buf := pool.Get().(*buffers)
	defer func() {
		if cap(buf.raw)+cap(buf.packed) <= maxPooled {
			pool.Put(buf)
		}
	}()
	buf.raw = appendRecord(buf.raw[:0], b)
	if len(buf.raw) > maxRecordBytes {
		return nil, &TooLargeError{int64(len(buf.raw)), maxRecordBytes}
	}
	buf.packed = s2.Encode(buf.packed[:cap(buf.packed)], buf.raw)
	return &Encoded{
		Entries: b.Len(), LineBytes: len(b.Lines),
		data: bytes.Clone(buf.packed), content: xxh3.Hash128(buf.raw), coarse: b.Coarse, stamped: b.Stamped,
	}, nil
}

// Publish makes one record of the batch and returns once JetStream has it on disk. While JetStream does not confirm it, as
// when the leader of a shard is lost, it is published again until ctx ends: it is taken once. A record that is
// published again is recognized, within the duplicate window, by the key, or, without one, by its content
// if the timestamps of the batch are fine enough to tell a retry from a second push. Tenants have ids of
// their own, so that none can make the record of another look like a duplicate.
//
// Errors: *TooLargeError, ErrKeyReused, ErrFull and ErrUnavailable; only the last two are worth another try.
func (w *WAL) Publish(ctx context.Context, tenant, key string, b *logs.Batch) (Ack, error) {
	record, err := Encode(b)
	if err != nil {
		return Ack{}, err
	}
	return w.PublishEncoded(ctx, tenant, key, record)
}

// PublishEncoded is Publish for a record that was made before.
func (w *WAL) PublishEncoded(ctx context.Context, tenant, key string, record *Encoded) (Ack, error) {
	id := identify(tenant, key, record.content, record.coarse)
	shard, other := w.state.Load().place(id)
	msg := &nats.Msg{
		Subject: subject(tenant, shard),
		Data:    record.data,
		Header: nats.Header{
			jetstream.MsgIDHeader: {id},
			headerVersion:         {version1},
			headerEncoding:        {encodingS2},
			headerEntries:         {strconv.Itoa(record.Entries)},
		},
	}
	digest := "" // of what must be equal under an equal key
	if key != "" && !record.stamped {
		sum := record.content.Bytes()
		digest = hex.EncodeToString(sum[:])
		msg.Header[headerContent] = []string{digest}
	}
	if size, limit := int64(msg.Size())+deadLetterHeaders, w.nc.MaxPayload(); size > limit { // it may have to be put aside
		return Ack{}, &TooLargeError{size, limit}
	}
	if at := trace.SpanContextFromContext(ctx); at.IsSampled() {
		msg.Header[headerTrace] = []string{telemetry.FormatTrace(at)}
		if int64(msg.Size())+deadLetterHeaders > w.nc.MaxPayload() { // a push is not refused for being traced
			delete(msg.Header, headerTrace)
		}
	}
	ack, shard, err := w.publish(ctx, msg, tenant, id, shard, other)
	if err != nil {
		return Ack{}, publishError(err, msg, w.nc.MaxPayload())
	}
	if ack.Duplicate && digest != "" {
		if err := w.sameContent(ctx, shard, ack.Sequence, digest); err != nil {
			return Ack{}, err
		}
	}
	return Ack{Shard: shard, Sequence: ack.Sequence, Duplicate: ack.Duplicate, Bytes: len(record.data)}, nil
}

// How a record is published again: after a confirmation has not come for firstPatience, then for twice as long each time, and
// after a pause where JetStream can't take it at the moment.
const (
	firstPatience = 2 * time.Second
	publishPause  = 100 * time.Millisecond
)

// publish publishes a message until it is confirmed or ctx ends, and returns which of the two shards has it.
func (w *WAL) publish(ctx context.Context, msg *nats.Msg, tenant, id string, shard, other int) (ack *jetstream.PubAck, in int, err error) {
	for patience := firstPatience; ; {
		attempt, cancel := context.WithTimeout(ctx, patience)
		ack, in, err = w.publishOnce(attempt, msg, tenant, id, shard, other)
		if attempt.Err() != nil {
			patience *= 2
		}
		cancel()
		if err == nil || ctx.Err() != nil || !mayPass(err) {
			return ack, in, err
		}
		select {
		case <-time.After(publishPause):
		case <-ctx.Done():
			return ack, in, err
		}
	}
}

// mayPass tells whether an error of a publish is gone once a leader is elected, a server is reached again, or JetStream is done with
// the attempt before.
func mayPass(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return !errors.Is(err, nats.ErrMaxPayload) && (!ok ||
		api.ErrorCode == errCodeDuplicateInProcess || api.ErrorCode == errCodeClusterNotAvailable)
}

// publishOnce publishes a message to a shard, unless the other one has it, and returns which of them it was.
func (w *WAL) publishOnce(ctx context.Context, msg *nats.Msg, tenant, id string, shard, other int) (*jetstream.PubAck, int, error) {
	if other >= 0 {
		ack, held, err := w.isHeld(ctx, tenant, id, other)
		if held || err != nil {
			return ack, other, err
		}
	}
	ack, err := w.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(StreamName(shard)))
	return ack, shard, err
}

func subject(tenant string, shard int) string {
	return SubjectPrefix + tenant + "." + strconv.Itoa(shard)
}

// TenantPattern is what the names of tenants match: each is one token of a NATS subject.
const TenantPattern = "[A-Za-z0-9_-]{1,64}"

// ValidTenant tells whether a name matches TenantPattern.
func ValidTenant(name string) bool {
	const most = 64 // bytes
	for i := range len(name) {
		c := name[i]
		if c != '_' && c != '-' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) <= most
}

// identify returns the id of a record. The tenant stands in it as it is: no hash of one tenant's can then meet another's.
func identify(tenant, key string, content xxh3.Uint128, coarse bool) string {
	var sum [16]byte
	kind := ".content."
	switch {
	case key != "":
		kind = ".key."
		full := sha256.Sum256([]byte(key))
		copy(sum[:], full[:])
	case coarse:
		kind = ".random."
		_, _ = rand.Read(sum[:]) // never fails, by its documentation
	default:
		sum = content.Bytes()
	}
	return tenant + kind + hex.EncodeToString(sum[:])
}

// sameContent tells a retry from another push under a key that was used before.
func (w *WAL) sameContent(ctx context.Context, shard int, seq uint64, digest string) error {
	old, err := w.state.Load().streams[shard].GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // it has landed and was trimmed; the key alone must do
	}
	if err != nil {
		return fmt.Errorf("%w: looking up the push that has the same key: %w", ErrUnavailable, err)
	}
	if was := old.Header.Get(headerContent); was != "" && was != digest {
		return ErrKeyReused
	}
	return nil
}

// publishError classes what JetStream answered.
func publishError(err error, msg *nats.Msg, limit int64) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum):
		return &TooLargeError{int64(msg.Size()), limit}
	case errors.As(err, &api) && (api.ErrorCode == errCodeStoreFailed || api.ErrorCode == errCodeStorageExceeded):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, explain(err))
}
