package wal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers that a dead letter has beside those of the record that it was.
const (
	headerReason   = "Logthra-Reason"
	headerShard    = "Logthra-Shard"
	headerSequence = "Logthra-Sequence"
	headerTime     = "Logthra-Time" // when the WAL took the record, RFC 3339
)

// DeadLetter puts a record aside, as it is, with the reason and where it stood. A record that has been put
// aside already is left as it was, so that a repeated batch makes no second letter of it.
func (w *WAL) DeadLetter(ctx context.Context, r Record, reason error) error {
	msg := &nats.Msg{
		Subject: fmt.Sprintf("%s%s.%d.%d", DeadLetterSubject, r.Tenant, r.Shard, r.Sequence),
		Data:    r.msg.Data(),
		Header:  maps.Clone(r.msg.Headers()),
	}
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	msg.Header.Del(jetstream.MsgIDHeader)
	msg.Header.Del(jetstream.ExpectedStreamHeader)
	msg.Header.Set(headerReason, headerValue(reason.Error()))
	msg.Header.Set(headerShard, strconv.Itoa(r.Shard))
	msg.Header.Set(headerSequence, strconv.FormatUint(r.Sequence, 10))
	msg.Header.Set(headerTime, r.Time.UTC().Format(time.RFC3339Nano))
	_, err := w.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(DeadLetterStream), jetstream.WithExpectLastSequencePerSubject(0))
	if err != nil && !wrongLastSequence(err) {
		return fmt.Errorf("dead letter of record %d of shard %d: %w", r.Sequence, r.Shard, explain(err))
	}
	return nil
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
