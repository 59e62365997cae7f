package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/limit"
	"github.com/casteloig/logthra/shared/logs"
)

// readyTimeout bounds how long /ready looks.
const readyTimeout = 2 * time.Second

// Handler is the gateway's HTTP: pushes in every protocol, queries, /api/health, /ready and /metrics.
func (g *Gateway) Handler(metrics prometheus.Gatherer) http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = g.answerError
	e.Use(middleware.RecoverWithConfig(middleware.RecoverConfig{
		LogErrorFunc: func(c echo.Context, err error, stack []byte) error {
			g.log.Error("panic while answering a request", "path", c.Path(), "error", err, "stack", string(stack))
			return errors.New("internal error")
		},
	}))
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if g.draining.Load() {
				c.Response().Header().Set(echo.HeaderConnection, "close") // the client's next request goes to another gateway
			}
			return next(c)
		}
	})
	g.routeLoki(e)
	g.routeOTLP(e)
	g.routeElastic(e)
	g.routeSplunk(e)
	g.routeJSONLine(e)
	if g.cfg.Query != nil {
		g.cfg.Query.Route(e, g.identifyCaller)
	}
	e.GET("/api/health", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"status": "ok"}) })
	e.GET("/ready", g.ready)
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(metrics, promhttp.HandlerOpts{})))
	return e
}

// exchange is one push over HTTP: how its protocol is read, and how it answers.
type exchange struct {
	protocol string // as metrics and logs name it; it may be empty until open has seen the body
	encoding string // of the body, where it is another than the header says

	// open looks at the body before it is decoded, and returns its size in bytes, decompressed. nil: it is as it came.
	open func(*body) (size int, err error)
	// decode reads the body into the batch.
	decode func(b *logs.Batch, data []byte, now int64, lim decode.Limits) error
	// each is told of the entries that a limit refuses. nil: then the push is refused.
	each func(entry int, err *limit.Error)
	// accept answers once the push is on disk. nil: 204.
	accept func(echo.Context) error
	// refuse answers a push that was not taken. nil: as refusal.
	refuse func(c echo.Context, v verdict, err error) error
}

// take takes a push, and answers it.
func (g *Gateway) take(c echo.Context, x *exchange) error {
	from, err := g.identify(x.protocol, httpClaims(c.Request()))
	if err == nil {
		err = from.limits.Admit(time.Now())
	}
	if err == nil {
		err = g.takeBody(c.Request(), &from, x)
	}
	if err == nil {
		if x.accept == nil {
			x.accept = func(c echo.Context) error { return c.NoContent(http.StatusNoContent) }
		}
		err = x.accept(c)
	} else {
		err = g.refuse(c, from, x, err)
	}
	if err != nil {
		g.log.Debug("the client did not wait for its answer", "error", err)
	}
	if x.protocol == "" { // it was refused before its protocol could be told
		x.protocol = "unknown"
	}
	g.metrics.pushes.WithLabelValues(x.protocol, strconv.Itoa(c.Response().Status)).Inc()
	return nil
}

func (g *Gateway) takeBody(request *http.Request, from *origin, x *exchange) error {
	encoding := x.encoding
	if encoding == "" {
		encoding = request.Header.Get(echo.HeaderContentEncoding)
	}
	body, err := readBody(request.Body, encoding, g.cfg.Limits.MaxPushBytes, &g.inflight)
	if err != nil {
		return err
	}
	defer body.close()
	size := len(body.data)
	if x.open != nil {
		if size, err = x.open(body); err != nil {
			return err
		}
	}
	from.protocol = x.protocol
	g.metrics.bodyBytes.WithLabelValues(x.protocol).Add(float64(size))
	from.limits.Charge(size)
	_, _, err = g.push(request.Context(), *from, x.each, func(b *logs.Batch) error {
		return x.decode(b, body.data, time.Now().UnixNano(), g.cfg.Limits)
	}, body.shrink)
	return err
}

// refusal is the body of an answer that is not 2xx, where the protocol has no form of its own for it.
type refusal struct {
	Error  string `json:"error"`
	Where  string `json:"where,omitempty"`  // path in the push
	Stream string `json:"stream,omitempty"` // canonical labels of the stream at fault
}

// refuse answers a push that was not taken.
func (g *Gateway) refuse(c echo.Context, from origin, x *exchange, err error) error {
	v := g.judge(from, err)
	g.metrics.failed(v)
	header := c.Response().Header()
	if v.retry > 0 {
		header.Set(echo.HeaderRetryAfter, strconv.Itoa(seconds(v.retry)))
	}
	if v.status == http.StatusUnauthorized {
		header.Set(echo.HeaderWWWAuthenticate, `Bearer realm="logthra", Basic realm="logthra"`)
	}
	if x.refuse != nil {
		return x.refuse(c, v, err)
	}
	answer := refusal{Error: err.Error()}
	if bad, ok := errors.AsType[*decode.Error](err); ok {
		answer.Where, answer.Stream = bad.Where, bad.Labels
	} else if over, ok := errors.AsType[*limit.Error](err); ok {
		answer.Where, answer.Stream = over.Where, over.Labels
	}
	return c.JSON(v.status, answer)
}

// answerError answers what no handler did: unknown paths and methods, panics.
func (g *Gateway) answerError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	status, text := http.StatusInternalServerError, "internal error"
	if known, ok := errors.AsType[*echo.HTTPError](err); ok {
		status = known.Code
		text = fmt.Sprintf("%s %s: %v", c.Request().Method, logs.Clip(c.Request().URL.Path), known.Message)
	}
	if err := c.JSON(status, refusal{Error: text}); err != nil {
		g.log.Debug("the client did not wait for its answer", "error", err)
	}
}

func (g *Gateway) ready(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), readyTimeout)
	defer cancel()
	if err := g.Ready(ctx); err != nil {
		return c.JSON(http.StatusServiceUnavailable, refusal{Error: err.Error()})
	}
	return c.JSON(http.StatusOK, map[string]string{"status": "ready"})
}
