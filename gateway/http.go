package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/loki"
	"github.com/casteloig/logthra/shared/logs"
)

// Protocols, as metrics and logs name them.
const (
	protocolJSON     = "loki-json"
	protocolProtobuf = "loki-protobuf"
	protocolGRPC     = "grpc"
)

// readyTimeout bounds how long /ready looks.
const readyTimeout = 2 * time.Second

// Handler is the gateway's HTTP: pushes, /api/health, /ready and /metrics.
func (g *Gateway) Handler(metrics prometheus.Gatherer) http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = g.answerError
	e.Use(middleware.RecoverWithConfig(middleware.RecoverConfig{
		LogErrorFunc: func(c echo.Context, err error, stack []byte) error {
			g.log.Error("panic while answering a request", "path", c.Path(), "error", err, "stack", string(stack))
			return errors.New("internal error")
		},
	}))
	e.POST("/api/push", g.pushLoki)
	e.POST("/loki/api/v1/push", g.pushLoki)
	e.GET("/api/health", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"status": "ok"}) })
	e.GET("/ready", g.ready)
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(metrics, promhttp.HandlerOpts{})))
	return e
}

// pushLoki takes Loki's push, https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs, and the
// prototype's, which is the same with dates for timestamps.
func (g *Gateway) pushLoki(c echo.Context) error {
	request := c.Request()
	header := request.Header
	protocol := lokiProtocol(header.Get(echo.HeaderContentType))
	from, err := identify(protocol, joined(header.Values("Tenant-Id")), joined(header.Values("X-Scope-Orgid")), joined(header.Values("Idempotency-Key")))
	if err == nil {
		err = g.takeLoki(request, &from)
	}
	if err != nil {
		status := g.refuse(c, from, err)
		g.metrics.pushes.WithLabelValues(protocolLabel(from.protocol), strconv.Itoa(status)).Inc()
		return nil
	}
	g.metrics.pushes.WithLabelValues(from.protocol, strconv.Itoa(http.StatusNoContent)).Inc()
	return c.NoContent(http.StatusNoContent)
}

func (g *Gateway) takeLoki(request *http.Request, from *origin) error {
	encoding := request.Header.Get(echo.HeaderContentEncoding)
	if from.protocol != protocolJSON && strings.EqualFold(encoding, "snappy") {
		encoding = "" // Loki's protobuf is always snappy; some clients say so, too
	}
	body, err := readBody(request.Body, encoding, g.cfg.Limits.MaxPushBytes, g.inflight)
	if err != nil {
		return err
	}
	defer body.close()
	if from.protocol == "" {
		from.protocol = protocolProtobuf
		if isJSON(body.data) {
			from.protocol = protocolJSON
		}
	}
	size := len(body.data)
	if from.protocol == protocolProtobuf {
		if size, err = body.holdBlock(g.cfg.Limits.MaxPushBytes); err != nil {
			return err
		}
	}
	g.metrics.bodyBytes.WithLabelValues(from.protocol).Add(float64(size))
	_, _, err = g.push(request.Context(), *from, func(b *logs.Batch) error {
		now := time.Now().UnixNano()
		if from.protocol == protocolJSON {
			return loki.JSON(b, body.data, now, g.cfg.Limits)
		}
		return loki.Protobuf(b, body.data, now, g.cfg.Limits)
	})
	return err
}

// lokiProtocol tells the protocol by the content type. It is empty where the type does not tell: curl, for
// one, calls everything a form.
func lokiProtocol(contentType string) string {
	kind, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return ""
	case kind == "application/json":
		return protocolJSON
	case kind == "application/x-protobuf", kind == "application/protobuf":
		return protocolProtobuf
	}
	return ""
}

// isJSON tells JSON from a snappy block. Either may begin with a brace: as the length of a block, it is 123.
func isJSON(data []byte) bool {
	if text := bytes.TrimLeft(data, " \t\r\n\ufeff"); len(text) == 0 || text[0] != '{' {
		return false
	}
	if data[0] != '{' {
		return true
	}
	_, err := snappy.Decode(nil, data)
	return err != nil
}

// protocolLabel names the protocol of a push that was refused before it could be told.
func protocolLabel(protocol string) string {
	if protocol == "" {
		return "unknown"
	}
	return protocol
}

// refusal is the body of an answer that is not 2xx.
type refusal struct {
	Error  string `json:"error"`
	Where  string `json:"where,omitempty"`  // path in the push
	Stream string `json:"stream,omitempty"` // canonical labels of the stream at fault
}

// refuse answers a push that was not taken, and returns the status.
func (g *Gateway) refuse(c echo.Context, from origin, err error) int {
	answer := refusal{Error: err.Error()}
	if bad, ok := errors.AsType[*decode.Error](err); ok {
		answer.Where, answer.Stream = bad.Where, bad.Labels
	}
	verdict := g.judge(from, err)
	if verdict.retry > 0 {
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(verdict.retry))
	}
	if err := c.JSON(verdict.status, answer); err != nil {
		g.log.Debug("the client did not wait for its answer", "error", err)
	}
	return verdict.status
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
