// Package limit holds tenants to their limits: how much they push, before it is read, and what is in it, once it is
// decoded, whatever the protocol was. The limits stand in the file of tenants, package tenant.
package limit

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/telemetry"
)

// Reasons of refusals, as metrics and logs name them. They are the keys of the limits in the file of tenants.
const (
	reasonBytes       = "push_bytes_per_second"
	reasonPushes      = "pushes_per_second"
	reasonLines       = "max_lines_per_push"
	reasonLine        = "max_line_bytes"
	reasonLabels      = "max_labels"
	reasonLabelName   = "max_label_name_bytes"
	reasonLabelValue  = "max_label_value_bytes"
	reasonStreams     = "max_streams"
	reasonAge         = "max_age"
	reasonFuture      = "max_future"
	originalTimestamp = "original_timestamp" // metadata of an entry whose time was moved
)

// summaryEvery is how often the refusals of a tenant are logged.
const summaryEvery = time.Minute

// maxTenants is for how many tenants the state is kept. One that was let go begins with full buckets.
const maxTenants = 10_000

// Error says which limit a push, or an entry of one, passes.
type Error struct {
	Reason string // key of the limit
	Text   string
	Where  string // in the push; empty where it is the push as a whole
	Labels string // of the stream, where it is one
	// Wait is how long it takes until the limit lets a push in again. 0 says that the same push would never be.
	Wait time.Duration
}

func (e *Error) Error() string {
	if e.Where == "" {
		return e.Text
	}
	return e.Where + ": " + e.Text
}

// Limiter keeps what tenants have used of their limits. It is safe for concurrent use.
type Limiter struct {
	live    func() int // gateways that share each limit
	refused *telemetry.TenantCounter
	log     *slog.Logger

	mu      sync.Mutex
	tenants map[string]*state
}

// state is what one tenant has used.
type state struct {
	mu            sync.Mutex
	bytes, pushes bucket
	streams       streams
	refused       map[string]int // since the last summary, by reason
	summary       time.Time      // when that was
}

// New returns a Limiter. live returns how many gateways there are, this one among them: a tenant's rates are shared
// out among them. refused counts refusals, by tenant and reason.
func New(live func() int, refused *telemetry.TenantCounter, log *slog.Logger) *Limiter {
	return &Limiter{live: live, refused: refused, log: log, tenants: map[string]*state{}}
}

// Push is one push of a tenant on its way through the limits. The zero value has none.
type Push struct {
	limiter *Limiter
	state   *state
	tenant  string
	limits  tenant.Limits
}

// Of returns a push of a tenant.
func (l *Limiter) Of(name string, limits tenant.Limits) Push {
	return Push{l, l.state(name), name, limits}
}

// Admit tells whether the tenant may push at all now, and counts the push. Its errors are *Error.
func (p Push) Admit(now time.Time) error {
	if p.state == nil {
		return nil
	}
	share := float64(max(1, p.limiter.live()))
	p.state.mu.Lock()
	defer p.state.mu.Unlock()
	if most := p.limits.PushBytesPerSecond; most > 0 {
		if wait := p.state.bytes.wait(float64(most)/share, burst(p.limits.PushBytesBurst, most)/share, now); wait > 0 {
			return p.refuse(now, &Error{Reason: reasonBytes, Wait: wait, Text: fmt.Sprintf(
				"tenant %s pushes more than %d bytes a second (%s)", p.tenant, most, reasonBytes)})
		}
	}
	if most := p.limits.PushesPerSecond; most > 0 {
		if wait := p.state.pushes.wait(most/share, burst(p.limits.PushesBurst, most)/share, now); wait > 0 {
			return p.refuse(now, &Error{Reason: reasonPushes, Wait: wait, Text: fmt.Sprintf(
				"tenant %s pushes more than %g times a second (%s)", p.tenant, most, reasonPushes)})
		}
		p.state.pushes.take(1)
	}
	return nil
}

// burst is what a bucket holds: a second's worth where nothing else is said.
func burst[N int64 | float64](burst, rate N) float64 {
	if burst > 0 {
		return float64(burst)
	}
	return float64(rate)
}

// Charge counts the bytes of the push, decompressed.
func (p Push) Charge(size int) {
	if p.state == nil || p.limits.PushBytesPerSecond == 0 {
		return
	}
	p.state.mu.Lock()
	p.state.bytes.take(float64(size))
	p.state.mu.Unlock()
}

// Check holds a decoded push against the limits. now is in unix nanoseconds. Where each is nil the first entry that
// passes a limit refuses the push; else each is told of every such entry, by its index in the batch, in order, and
// the batch is rid of them at the end. The error is an *Error, for the push as a whole.
func (p Push) Check(b *logs.Batch, now int64, each func(entry int, err *Error)) error {
	if p.state == nil || p.limits == (tenant.Limits{}) {
		return nil
	}
	if most := p.limits.MaxLinesPerPush; most > 0 && b.Len() > most {
		return p.fail(now, &Error{Reason: reasonLines, Text: fmt.Sprintf("the push has %d lines, at most %d are taken (%s)", b.Len(), most, reasonLines)})
	}
	var drop []uint32
	entry := 0
	for _, s := range b.Streams {
		bad := p.stream(s.Labels, now)
		for range s.Entries {
			err := bad
			if err == nil {
				err = p.entry(b, entry, now)
			}
			if err != nil && each == nil {
				err.Where, err.Labels = "entry "+strconv.Itoa(entry), s.Labels
				return p.fail(now, err)
			}
			if err != nil {
				_ = p.fail(now, err)
				each(entry, err)
				drop = append(drop, uint32(entry))
			}
			entry++
		}
	}
	b.Drop(drop)
	return nil
}

// stream checks the labels of a stream that is new, and whether there is room for it.
func (p Push) stream(labels string, unixNano int64) *Error {
	l := &p.limits
	if l.MaxStreams == 0 && l.MaxLabels == 0 && l.MaxLabelNameBytes == 0 && l.MaxLabelValueBytes == 0 {
		return nil
	}
	now := time.Unix(0, unixNano)
	s := &p.state.streams
	p.state.mu.Lock()
	defer p.state.mu.Unlock()
	if s.active(labels, now) {
		return nil
	}
	if err := p.labels(labels); err != nil {
		return err
	}
	switch {
	case l.MaxStreams > 0 && s.count() >= l.MaxStreams:
		return &Error{Reason: reasonStreams, Wait: s.room(now), Text: fmt.Sprintf(
			"tenant %s has %d streams already, as many as it may (%s)", p.tenant, s.count(), reasonStreams)}
	case l.MaxStreams == 0 && len(s.recent) >= maxRemembered:
		s.forget(now)
	}
	s.add(labels)
	return nil
}

// labels checks the labels of one stream, in canonical form.
func (p Push) labels(canonical string) *Error {
	var labels map[string]string
	if err := json.Unmarshal([]byte(canonical), &labels); err != nil {
		return &Error{Reason: reasonLabels, Text: "the labels can't be read: " + err.Error()}
	}
	l := &p.limits
	if l.MaxLabels > 0 && len(labels) > l.MaxLabels {
		return &Error{Reason: reasonLabels, Text: fmt.Sprintf("the stream has %d labels, at most %d are taken (%s)", len(labels), l.MaxLabels, reasonLabels)}
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		value := labels[name]
		if l.MaxLabelNameBytes > 0 && len(name) > l.MaxLabelNameBytes {
			return &Error{Reason: reasonLabelName, Text: fmt.Sprintf("label name %q has %d bytes, at most %d are taken (%s)",
				logs.Clip(name), len(name), l.MaxLabelNameBytes, reasonLabelName)}
		}
		if l.MaxLabelValueBytes > 0 && len(value) > l.MaxLabelValueBytes {
			return &Error{Reason: reasonLabelValue, Text: fmt.Sprintf("the value of label %q has %d bytes, at most %d are taken (%s)",
				logs.Clip(name), len(value), l.MaxLabelValueBytes, reasonLabelValue)}
		}
	}
	return nil
}

// entry checks the length and the time of an entry, and moves the time where that is what the tenant wants.
func (p Push) entry(b *logs.Batch, entry int, now int64) *Error {
	l := &p.limits
	if size := int64(b.Lengths[entry]); l.MaxLineBytes > 0 && size > l.MaxLineBytes {
		return &Error{Reason: reasonLine, Text: fmt.Sprintf("line of %d bytes is longer than %d (%s)", size, l.MaxLineBytes, reasonLine)}
	}
	if l.OutOfWindow == tenant.Off {
		return nil
	}
	at := b.Timestamps[entry]
	age := now - at // does not wrap: no time is before 1900
	var edge int64
	var reason string
	switch {
	case l.MaxAge > 0 && age > int64(l.MaxAge):
		edge, reason = now-int64(l.MaxAge), reasonAge
	case l.MaxFuture > 0 && -age > int64(l.MaxFuture):
		edge, reason = now+int64(l.MaxFuture), reasonFuture
	default:
		return nil
	}
	if l.OutOfWindow == tenant.Reject {
		allowed := l.MaxAge
		if reason == reasonFuture {
			allowed = l.MaxFuture
		}
		return &Error{Reason: reason, Text: fmt.Sprintf("timestamp %s is more than %s from now (%s)",
			time.Unix(0, at).UTC().Format(time.RFC3339Nano), allowed, reason)}
	}
	b.Timestamps[entry] = edge
	b.AddMetadataTo(entry, originalTimestamp, []byte(time.Unix(0, at).UTC().Format(time.RFC3339Nano)))
	b.Stamped, b.Coarse = true, true // the next push of the same would be moved elsewhere
	return nil
}

// fail is refuse, for one who does not hold the lock.
func (p Push) fail(unixNano int64, err *Error) error {
	p.state.mu.Lock()
	defer p.state.mu.Unlock()
	return p.refuse(time.Unix(0, unixNano), err)
}

// refuse counts a refusal, and logs those of the last minute, if there has been no summary for so long. It needs
// the lock.
func (p Push) refuse(now time.Time, err *Error) error {
	p.limiter.refused.Inc(p.tenant, err.Reason, now)
	s := p.state
	if s.refused == nil {
		s.refused = map[string]int{}
	}
	s.refused[err.Reason]++
	if now.Sub(s.summary) < summaryEvery {
		return err
	}
	attrs := []any{slog.String("tenant", p.tenant)}
	for _, reason := range slices.Sorted(maps.Keys(s.refused)) {
		attrs = append(attrs, slog.Int(reason, s.refused[reason]))
	}
	p.limiter.log.Warn("a tenant's limits refuse what it pushes; logged once a minute", append(attrs, slog.String("last", err.Error()))...)
	clear(s.refused)
	s.summary = now
	return err
}

// state returns the state of a tenant.
func (l *Limiter) state(name string) *state {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.tenants[name]
	if !ok {
		for other := range l.tenants { // any
			if len(l.tenants) < maxTenants {
				break
			}
			delete(l.tenants, other)
		}
		s = new(state)
		l.tenants[name] = s
	}
	return s
}
