package gateway

import (
	"cmp"

	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/jsonline"
	"github.com/casteloig/logthra/shared/logs"
)

const protocolJSONLine = "jsonline"

// routeJSONLine adds JSON lines, with the parameters that VictoriaLogs has for them, as query or as header.
// https://docs.victoriametrics.com/victorialogs/data-ingestion/#http-parameters
func (g *Gateway) routeJSONLine(e *echo.Echo) { e.POST("/ingest/jsonline", g.pushJSONLine) }

func (g *Gateway) pushJSONLine(c echo.Context) error {
	parameter := func(query, header string) string {
		return cmp.Or(c.QueryParam(query), c.Request().Header.Get("Logthra-"+header), c.Request().Header.Get("VL-"+header))
	}
	mapping, mappingErr := jsonline.Mapping(
		parameter("_msg_field", "Msg-Field"), parameter("_time_field", "Time-Field"), parameter("_stream_fields", "Stream-Fields"))
	return g.take(c, &exchange{
		protocol: protocolJSONLine,
		open:     (*body).holdObjects,
		decode: func(b *logs.Batch, data []byte, now int64, lim decode.Limits) error {
			if mappingErr != nil {
				return mappingErr
			}
			return jsonline.Decode(b, data, &mapping, now, lim)
		},
	})
}
