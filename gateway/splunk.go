package gateway

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/splunk"
	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/logs"
)

// Splunk's protocols.
const (
	protocolSplunk    = "splunk"
	protocolSplunkRaw = "splunk-raw"
)

// routeSplunk adds Splunk's HTTP Event Collector.
// https://docs.splunk.com/Documentation/Splunk/latest/RESTREF/RESTinput#services.2Fcollector
func (g *Gateway) routeSplunk(e *echo.Echo) {
	for _, path := range []string{"/event", "/event/1.0"} { // Docker's log driver asks so whether anybody is there
		e.OPTIONS("/services/collector"+path, func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	}
	for _, path := range []string{"", "/event", "/event/1.0"} {
		e.POST("/services/collector"+path, func(c echo.Context) error { return g.pushSplunk(c, protocolSplunk, splunk.Events) })
	}
	for _, path := range []string{"/raw", "/raw/1.0"} {
		e.POST("/services/collector"+path, func(c echo.Context) error { return g.pushSplunk(c, protocolSplunkRaw, splunk.Raw) })
	}
	for _, path := range []string{"/health", "/health/1.0"} {
		e.GET("/services/collector"+path, g.splunkHealth)
	}
}

func (g *Gateway) pushSplunk(
	c echo.Context, protocol string, read func(*logs.Batch, []byte, splunk.Defaults, int64, decode.Limits) error,
) error {
	defaults := splunk.Defaults{
		Host: c.QueryParam("host"), Source: c.QueryParam("source"), SourceType: c.QueryParam("sourcetype"),
		Index: c.QueryParam("index"), Time: []byte(c.QueryParam("time")),
	}
	return g.take(c, &exchange{
		protocol: protocol,
		open:     (*body).holdObjects,
		decode: func(b *logs.Batch, data []byte, now int64, lim decode.Limits) error {
			return read(b, data, defaults, now, lim)
		},
		accept: func(c echo.Context) error {
			return answerSplunk(c, http.StatusOK, splunk.Success, splunk.Text(splunk.Success), splunk.NoEvent)
		},
		refuse: func(c echo.Context, v verdict, err error) error {
			var bad *splunk.Error
			switch {
			case errors.As(err, &bad):
				return answerSplunk(c, v.status, bad.Code, err.Error(), bad.Event)
			case errors.Is(err, tenant.ErrNoCredentials):
				return answerSplunk(c, v.status, splunk.TokenRequired, err.Error(), splunk.NoEvent)
			case errors.Is(err, tenant.ErrBadCredentials), errors.Is(err, tenant.ErrForbidden):
				return answerSplunk(c, http.StatusForbidden, splunk.InvalidToken, err.Error(), splunk.NoEvent)
			case v.retry > 0:
				return answerSplunk(c, v.status, splunk.Busy, err.Error(), splunk.NoEvent)
			}
			return answerSplunk(c, v.status, splunk.InvalidFormat, err.Error(), splunk.NoEvent)
		},
	})
}

func (g *Gateway) splunkHealth(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), readyTimeout)
	defer cancel()
	if err := g.Ready(ctx); err != nil {
		return answerSplunk(c, http.StatusServiceUnavailable, splunk.Busy, err.Error(), splunk.NoEvent)
	}
	return answerSplunk(c, http.StatusOK, splunk.Healthy, splunk.Text(splunk.Healthy), splunk.NoEvent)
}

// answerSplunk answers as Splunk does. event is the index of the one at fault, or splunk.NoEvent.
func answerSplunk(c echo.Context, status, code int, text string, event int) error {
	return c.JSONBlob(status, splunk.AppendResponse(nil, code, text, event))
}
