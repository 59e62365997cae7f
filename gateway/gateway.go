// Package gateway is the front door: it takes pushes over HTTP and gRPC, and answers once they are in the
// WAL. All protocols come together in push: decode, check, publish.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/limit"
	"github.com/casteloig/logthra/gateway/query"
	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

// Config is what a gateway accepts.
type Config struct {
	Limits           decode.Limits
	MaxInflightBytes int64         // most bytes of memory of the pushes that are under way
	PushTimeout      time.Duration // after so long without a confirmation a push is refused

	// Tenants returns the tenants that may push. Where it returns nil, any may, by naming itself.
	Tenants func() *tenant.Directory
	// DefaultTenant is who pushes where any may and a push names none. Empty: it is refused.
	DefaultTenant string
	// Live is how many gateways there are, which share the tenants' rates.
	Live func() int
	// Tracer makes spans of pushes. nil: there are none.
	Tracer trace.Tracer

	// Query answers queries. nil: there are no endpoints for them.
	Query *query.API
	// QueryLimits are those of a tenant of which the tenants say nothing else.
	QueryLimits tenant.QueryLimits
}

// Gateway takes pushes. Its HTTP side is Handler, its gRPC side RegisterPush.
type Gateway struct {
	cfg      Config
	wal      *wal.WAL
	inflight budget // of cfg.MaxInflightBytes
	limiter  *limit.Limiter
	metrics  *Metrics
	log      *slog.Logger
	batches  sync.Pool
	working  chan struct{} // has room for as many as decode at a time
	draining atomic.Bool
	warned   atomic.Int64 // unix nanoseconds of the last warning about refused pushes
}

// memoryFactor is how many bytes are made of each byte of a push: the batch, the record, and the record
// compressed.
const memoryFactor = 3

// entryMemory is how many bytes an entry takes beside its own: its time and length in the batch, in the record,
// and in the record compressed. It counts where lines are empty or short.
const entryMemory = 32

// warnEvery is how often pushes that are refused through no fault of the client's are logged.
const warnEvery = 10 * time.Second

var (
	errBusy     = errors.New("the gateway is at its memory ceiling (--max-inflight-bytes)")
	errDraining = errors.New("the gateway is shutting down")
)

// New returns a gateway in front of a WAL.
func New(cfg Config, w *wal.WAL, m *Metrics, log *slog.Logger) *Gateway {
	g := &Gateway{
		cfg: cfg, wal: w, metrics: m, log: log, limiter: limit.New(cfg.Live, m.limited, log),
		inflight: budget{most: cfg.MaxInflightBytes},
		batches:  sync.Pool{New: func() any { return new(logs.Batch) }},
		working:  make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	m.watch(&g.inflight)
	return g
}

// Drain makes the gateway say that it is not ready, so that load balancers send no more; what they still
// send is taken.
func (g *Gateway) Drain() { g.draining.Store(true) }

// Ready returns an error that says what is wrong while the gateway can't take a push.
func (g *Gateway) Ready(ctx context.Context) error {
	if g.draining.Load() {
		return errDraining
	}
	return g.wal.Ready(ctx)
}

// maxPooledBatch is the largest batch, in bytes of lines, that is kept for the next push.
const maxPooledBatch = 4 << 20

// push decodes a push, holds it against the limits and publishes it, and returns how many entries were taken and whether
// the WAL had them already. each is told of the entries that a limit refuses; where it is nil, one refuses the push. decoded
// is called when nothing is needed any more of what the push was decoded to.
func (g *Gateway) push(
	ctx context.Context, from origin, each func(int, *limit.Error), decode func(*logs.Batch) error, decoded func(),
) (entries int, duplicate bool, err error) {
	ctx, end := g.span(ctx, from)
	record, err := g.record(from, each, decode)
	decoded()
	if err == nil {
		entries = record.Entries
		duplicate, err = g.publish(ctx, from, record)
	}
	end(record, err)
	return entries, duplicate, err
}

// record decodes a push, and makes a record of it. As many do that at a time as there are processors for: more would be no
// faster, and each needs several times the memory of what it then waits with for the disk.
func (g *Gateway) record(from origin, each func(int, *limit.Error), decode func(*logs.Batch) error) (*wal.Encoded, error) {
	g.working <- struct{}{}
	defer func() { <-g.working }()
	batch := g.batches.Get().(*logs.Batch)
	defer func() {
		if cap(batch.Lines) <= maxPooledBatch {
			batch.Reset()
			g.batches.Put(batch)
		}
	}()
	if err := decode(batch); err != nil {
		return nil, err
	}
	return g.encode(from, each, batch)
}

// encode holds a batch against the limits, and makes a record of what they leave.
func (g *Gateway) encode(from origin, each func(int, *limit.Error), batch *logs.Batch) (*wal.Encoded, error) {
	if err := from.limits.Check(batch, time.Now().UnixNano(), each); err != nil {
		return nil, err
	}
	memory := entryMemory * int64(batch.Len())
	if !g.inflight.TryAcquire(memory) {
		return nil, errBusy
	}
	defer g.inflight.Release(memory)
	return wal.Encode(batch)
}

// publish publishes a record. One without entries is taken, and leaves nothing.
func (g *Gateway) publish(ctx context.Context, from origin, record *wal.Encoded) (duplicate bool, err error) {
	if record.Entries == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.PushTimeout)
	defer cancel()
	began := time.Now()
	ack, err := g.publishTraced(ctx, from, record)
	g.metrics.publishSeconds.Observe(time.Since(began).Seconds())
	if err != nil {
		return false, err
	}
	g.metrics.accepted(from.protocol, record.Entries, record.LineBytes, ack)
	return ack.Duplicate, nil
}

// How long to wait until a push that was refused is worth another try: a moment where a moment's pressure is the
// reason, longer where room has to be made.
const (
	retrySoon  = time.Second
	retryLater = 5 * time.Second
)

// verdict is how a push that was not taken is answered, over HTTP and over gRPC.
type verdict struct {
	status int
	code   codes.Code
	retry  time.Duration // to wait; 0 where there is no use in trying again
	fault  string        // of Logthra's own, as metrics name it; empty where it is the client's
}

// judge classes why a push was not taken, and logs what is no fault of the client's.
func (g *Gateway) judge(from origin, err error) verdict {
	var (
		bad         *decode.Error
		large       *decode.TooLargeError
		largeRecord *wal.TooLargeError
		over        *limit.Error
	)
	switch {
	case errors.As(err, &bad), errors.Is(err, wal.ErrKeyReused):
		return verdict{http.StatusBadRequest, codes.InvalidArgument, 0, ""}
	case errors.As(err, &over) && over.Wait == 0:
		return verdict{http.StatusBadRequest, codes.InvalidArgument, 0, ""}
	case errors.As(err, &over):
		return verdict{http.StatusTooManyRequests, codes.ResourceExhausted, over.Wait, ""}
	case errors.As(err, &large), errors.As(err, &largeRecord):
		return verdict{http.StatusRequestEntityTooLarge, codes.ResourceExhausted, 0, ""}
	case errors.Is(err, tenant.ErrNoCredentials), errors.Is(err, tenant.ErrBadCredentials):
		return verdict{http.StatusUnauthorized, codes.Unauthenticated, 0, ""}
	case errors.Is(err, tenant.ErrForbidden):
		return verdict{http.StatusForbidden, codes.PermissionDenied, 0, ""}
	case errors.Is(err, wal.ErrFull):
		g.warn(from, err)
		return verdict{http.StatusServiceUnavailable, codes.Unavailable, retryLater, faultWALFull}
	case errors.Is(err, wal.ErrUnavailable):
		g.warn(from, err)
		return verdict{http.StatusServiceUnavailable, codes.Unavailable, retrySoon, faultWALUnavailable}
	case errors.Is(err, errBusy):
		g.warn(from, err)
		return verdict{http.StatusServiceUnavailable, codes.Unavailable, retrySoon, faultMemory}
	case errors.Is(err, tenant.ErrBusy):
		g.warn(from, err)
		return verdict{http.StatusServiceUnavailable, codes.Unavailable, retrySoon, faultPasswords}
	}
	g.log.Error("a push failed", "tenant", from.tenant, "error", err)
	return verdict{http.StatusInternalServerError, codes.Internal, 0, faultInternal}
}

// seconds rounds up to whole seconds.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// warn logs that pushes are being refused, but not each of them.
func (g *Gateway) warn(from origin, err error) {
	now, last := time.Now().UnixNano(), g.warned.Load()
	if now-last < int64(warnEvery) || !g.warned.CompareAndSwap(last, now) {
		return
	}
	g.log.Warn("pushes are refused; clients are told to try again", "tenant", from.tenant, "protocol", from.protocol, "error", err)
}
