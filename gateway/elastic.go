package gateway

import (
	"bytes"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/elastic"
	"github.com/casteloig/logthra/gateway/limit"
	"github.com/casteloig/logthra/shared/logs"
)

const protocolElastic = "elasticsearch"

// elasticItemMemory is how many bytes an action of a bulk takes beside its document: what became of it, and that as JSON.
const elasticItemMemory = 512

// elasticTypes are what Elasticsearch calls its refusals, by status.
var elasticTypes = map[int]string{
	http.StatusBadRequest:            "illegal_argument_exception",
	http.StatusUnauthorized:          "security_exception",
	http.StatusForbidden:             "security_exception",
	http.StatusRequestEntityTooLarge: "content_too_long_exception",
	http.StatusTooManyRequests:       "es_rejected_execution_exception",
	http.StatusServiceUnavailable:    "process_cluster_event_timeout_exception",
	http.StatusInternalServerError:   "exception",
}

// routeElastic adds Elasticsearch's bulk, and what its clients ask before they send any, at the root and under
// /elasticsearch. https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk
func (g *Gateway) routeElastic(e *echo.Echo) {
	for _, root := range []string{"", "/elasticsearch"} {
		for _, method := range []string{http.MethodPost, http.MethodPut} {
			e.Add(method, root+"/_bulk", g.pushElastic)
			e.Add(method, root+"/:index/_bulk", g.pushElastic)
		}
		e.GET(root+"/:index", func(echo.Context) error { return echo.ErrNotFound }) // HEAD has an answer, for any name
		for _, a := range elastic.Answers {
			e.Add(a.Method, root+a.Path, func(c echo.Context) error {
				c.Response().Header().Set(elastic.ProductHeader, elastic.Product)
				if a.Body == "" {
					return c.NoContent(a.Status)
				}
				return c.JSONBlob(a.Status, []byte(a.Body))
			})
		}
	}
}

func (g *Gateway) pushElastic(c echo.Context) error {
	began := time.Now()
	var items []elastic.Item
	next := 0 // of the items, the first that may be an entry that a limit refuses
	c.Response().Header().Set(elastic.ProductHeader, elastic.Product)
	return g.take(c, &exchange{
		protocol: protocolElastic,
		open: func(b *body) (int, error) {
			actions := min(bytes.Count(b.data, []byte{'\n'})/2+1, elastic.MaxItems)
			return len(b.data), b.hold(cap(b.data)+actions*elasticItemMemory, len(b.data))
		},
		decode: func(b *logs.Batch, data []byte, now int64, lim decode.Limits) (err error) {
			items, err = elastic.Bulk(b, data, c.Param("index"), now, lim, nil)
			return err
		},
		each: func(entry int, err *limit.Error) {
			for items[next].Entry != entry {
				next++
			}
			item := &items[next]
			item.Entry, item.Status, item.Type, item.Reason = -1, http.StatusBadRequest, elasticTypes[http.StatusBadRequest], err.Error()
			if err.Wait > 0 {
				item.Status, item.Type = http.StatusTooManyRequests, elasticTypes[http.StatusTooManyRequests]
			}
		},
		accept: func(c echo.Context) error {
			return c.JSONBlob(http.StatusOK, elastic.AppendResponse(nil, items, time.Since(began).Milliseconds()))
		},
		refuse: func(c echo.Context, v verdict, err error) error {
			return c.JSONBlob(v.status, elastic.AppendError(nil, v.status, elasticTypes[v.status], err.Error()))
		},
	})
}
