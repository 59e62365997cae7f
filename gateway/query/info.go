package query

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/gateway/logql"
)

// buildInfo says which program this is.
func (a *API) buildInfo(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{
		"version": a.cfg.Version, "revision": "", "branch": "", "buildDate": "", "buildUser": "", "goVersion": runtime.Version(),
	})
}

// drilldownLimits says what Grafana's Logs Drilldown wants to know before it asks: which endpoints there are, and the caller's limits.
func (a *API) drilldownLimits(_ context.Context, q *question, w *writer) error {
	w.raw(`{"limits":{"discover_log_levels":true,"discover_service_name":[],"log_level_fields":[],"max_entries_limit_per_query":`)
	w.integer(int64(q.Limits.MaxEntries))
	w.raw(`,"max_line_size_truncate":false,"max_query_bytes_read":"`)
	w.integer(q.Limits.MaxBytes)
	w.raw(`B","max_query_length":`)
	w.text(q.Limits.MaxRange.String())
	w.raw(`,"max_query_lookback":"0s","max_query_range":"0s","max_query_series":`)
	w.integer(int64(q.Limits.MaxSeries))
	w.raw(`,"metric_aggregation_enabled":false,"pattern_persistence_enabled":false,"query_timeout":`)
	w.text(q.Limits.Timeout.String())
	w.raw(`,"retention_period":"0s","volume_enabled":true,"volume_max_series":`)
	w.integer(int64(q.Limits.MaxSeries))
	w.raw(`},"pattern_ingester_enabled":true,"version":`)
	w.text(a.cfg.Version)
	w.raw("}")
	return w.end()
}

// formatted is a query as format answers it.
type formatted struct {
	Status string `json:"status"`
	Data   string `json:"data,omitempty"`
	Error  string `json:"error,omitempty"`
}

// format writes a query for people. Also that it is none is told as JSON, as Loki does here.
func (a *API) format(c echo.Context) error {
	began := time.Now()
	status, answer := http.StatusOK, formatted{Status: "success"}
	c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, maxForm)
	if expr, err := logql.Parse(c.FormValue("query")); err != nil {
		status, answer = http.StatusBadRequest, formatted{Status: "invalid-query", Error: err.Error()}
	} else {
		answer.Data = logql.Format(expr)
	}
	err := c.JSON(status, answer)
	a.metrics.answered(endpointFormat, status, time.Since(began))
	return err
}
