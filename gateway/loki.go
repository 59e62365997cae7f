package gateway

import (
	"bytes"
	"mime"
	"strings"

	"github.com/klauspost/compress/snappy"
	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/loki"
	"github.com/casteloig/logthra/shared/logs"
)

// Loki's protocols.
const (
	protocolJSON     = "loki-json"
	protocolProtobuf = "loki-protobuf"
)

// routeLoki adds Loki's push, its legacy path, and the prototype's, which is the same with dates for timestamps.
// https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs
func (g *Gateway) routeLoki(e *echo.Echo) {
	for _, path := range []string{"/api/push", "/loki/api/v1/push", "/api/prom/push"} {
		e.POST(path, g.pushLoki)
	}
}

func (g *Gateway) pushLoki(c echo.Context) error {
	header := c.Request().Header
	x := &exchange{protocol: lokiProtocol(header.Get(echo.HeaderContentType))}
	if x.protocol != protocolJSON && strings.EqualFold(header.Get(echo.HeaderContentEncoding), "snappy") {
		x.encoding = "identity" // Loki's protobuf is always snappy; some clients say so, too
	}
	x.open = func(b *body) (int, error) {
		if x.protocol == "" {
			x.protocol = protocolProtobuf
			if isJSON(b.data) {
				x.protocol = protocolJSON
			}
		}
		if x.protocol == protocolJSON {
			return len(b.data), nil
		}
		return b.holdBlock(g.cfg.Limits.MaxPushBytes)
	}
	x.decode = func(b *logs.Batch, data []byte, now int64, lim decode.Limits) error {
		if x.protocol == protocolJSON {
			return loki.JSON(b, data, now, lim)
		}
		return loki.Protobuf(b, data, now, lim)
	}
	return g.take(c, x)
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
