package gateway

import (
	"mime"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/otlp"
	"github.com/casteloig/logthra/gateway/limit"
	"github.com/casteloig/logthra/shared/logs"
)

// OTLP's protocols over HTTP.
const (
	protocolOTLP     = "otlp"
	protocolOTLPJSON = "otlp-json"
)

// Content types of OTLP.
const (
	typeJSON     = "application/json"
	typeProtobuf = "application/x-protobuf"
)

// routeOTLP adds OTLP over HTTP, on its own path and on Loki's. https://opentelemetry.io/docs/specs/otlp/#otlphttp
func (g *Gateway) routeOTLP(e *echo.Echo) {
	e.POST("/v1/logs", g.pushOTLP)
	e.POST("/otlp/v1/logs", g.pushOTLP)
}

func (g *Gateway) pushOTLP(c echo.Context) error {
	var partial decode.Partial
	x := &exchange{protocol: protocolOTLP, each: partialOf(&partial)}
	kind, _, err := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType))
	switch {
	case err == nil && kind == typeJSON:
		x.protocol, x.open = protocolOTLPJSON, (*body).holdObjects
		x.decode = otlpDecoder(&partial, otlp.JSON)
		x.accept = func(c echo.Context) error {
			return c.Blob(http.StatusOK, typeJSON, otlp.AppendResponseJSON(nil, partial))
		}
		x.refuse = func(c echo.Context, v verdict, err error) error {
			return c.Blob(v.status, typeJSON, otlp.AppendStatusJSON(nil, int(v.code), err.Error()))
		}
	default: // what does not say what it is, is what exporters send unless told otherwise
		x.decode = otlpDecoder(&partial, otlp.Protobuf)
		x.accept = func(c echo.Context) error {
			return c.Blob(http.StatusOK, typeProtobuf, otlp.AppendResponse(nil, partial))
		}
		x.refuse = func(c echo.Context, v verdict, err error) error {
			return c.Blob(v.status, typeProtobuf, otlp.AppendStatus(nil, int(v.code), err.Error()))
		}
	}
	return g.take(c, x)
}

// otlpDecoder is one of OTLP's decoders, which tells in partial what it left out.
func otlpDecoder(
	partial *decode.Partial, read func(*logs.Batch, []byte, int64, decode.Limits) (decode.Partial, error),
) func(*logs.Batch, []byte, int64, decode.Limits) error {
	return func(b *logs.Batch, data []byte, now int64, lim decode.Limits) (err error) {
		*partial, err = read(b, data, now, lim)
		return err
	}
}

// partialOf counts the entries that a limit refuses.
func partialOf(partial *decode.Partial) func(int, *limit.Error) {
	return func(_ int, err *limit.Error) {
		if partial.Rejected++; partial.Reason == "" {
			partial.Reason = err.Error()
		}
	}
}
