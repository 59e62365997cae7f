package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/nats-io/nats.go"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// statusClientClosed is what metrics show for a client that did not wait. It is nginx's, and Loki's.
const statusClientClosed = 499

// retryAfter is how long to wait until a query that failed by no fault of its own is worth another try.
const retryAfter = time.Second

var (
	errNoEngine = errors.New("this gateway answers no queries: start it with --clickhouse-dsn")
	errInstant  = badParameter("log queries are not supported as an instant query type, please change your query to a range query type")
	errQueued   = errors.New("too many outstanding requests")
	errClosing  = errors.New("the gateway is shutting down")
)

// parameterError is a request that asks for what is not possible.
type parameterError struct{ error }

func (e *parameterError) Unwrap() error { return e.error }

// timeoutError is a query that did not come to its end in time.
type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string {
	return fmt.Sprintf("the query took longer than %s (--query-timeout); ask for less time, or for fewer streams", e.after)
}

// verdict is how a question without an answer is answered.
type verdict struct {
	status int
	retry  time.Duration // to wait; 0 where there is no use in trying again
}

// judge tells whose fault it is that a question has no answer.
func judge(err error) verdict {
	var (
		parse     *logql.ParseError
		asked     *engine.Error
		limit     *series.LimitError
		math      *series.Error
		parameter *parameterError
		claims    *decode.Error
		tails     *tailLimitError
		timeout   *timeoutError
	)
	switch {
	case errors.As(err, &parse), errors.As(err, &asked), errors.As(err, &limit), errors.As(err, &math), errors.As(err, &parameter), errors.As(err, &claims),
		errors.Is(err, store.ErrReadsTooMuch), errors.Is(err, store.ErrMemoryExceeded):
		return verdict{status: http.StatusBadRequest}
	case errors.Is(err, tenant.ErrNoCredentials), errors.Is(err, tenant.ErrBadCredentials):
		return verdict{status: http.StatusUnauthorized}
	case errors.Is(err, tenant.ErrForbidden):
		return verdict{status: http.StatusForbidden}
	case errors.Is(err, errQueued), errors.As(err, &tails):
		return verdict{http.StatusTooManyRequests, retryAfter}
	case errors.Is(err, errNoEngine):
		return verdict{status: http.StatusNotImplemented}
	case errors.Is(err, context.Canceled):
		return verdict{status: statusClientClosed}
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, store.ErrTimeExceeded):
		return verdict{status: http.StatusGatewayTimeout}
	case errors.Is(err, tenant.ErrBusy), errors.Is(err, errClosing), isAway(err):
		return verdict{http.StatusServiceUnavailable, retryAfter}
	}
	return verdict{status: http.StatusInternalServerError}
}

// isAway tells whether an error is of ClickHouse or of NATS, or of the way there.
func isAway(err error) bool {
	var network net.Error
	return errors.As(err, new(*clickhouse.Exception)) || errors.As(err, &network) || errors.Is(err, wal.ErrUnavailable) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout)
}
