// Package query answers Loki's query API: it reads parameters, holds them against the limits of who asks, has the query wait for
// its turn, and writes the answer as Loki does. What a query means it does not know; that is package engine's.
//
// The API is that of https://grafana.com/docs/loki/latest/reference/loki-http-api/.
package query

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/logs"
)

// Engine is what answers; an *engine.Engine.
type Engine interface {
	Logs(ctx context.Context, q engine.Query, expr *logql.LogExpr) (*engine.Logs, error)
	Metric(ctx context.Context, q engine.Query, expr logql.Expr) (*engine.Metric, error)
	Tail(ctx context.Context, q engine.TailQuery, send func(engine.TailBatch) error) error

	Labels(ctx context.Context, s engine.Scope) ([]string, error)
	LabelValues(ctx context.Context, s engine.Scope, name string) ([]string, error)
	Series(ctx context.Context, s engine.Scope, selectors [][]logql.Matcher) ([][]logs.Label, error)
	IndexStats(ctx context.Context, s engine.Scope) (engine.IndexStats, error)
	Volume(ctx context.Context, q engine.VolumeQuery) ([]engine.Volume, error)
	DetectedLabels(ctx context.Context, s engine.Scope) ([]engine.DetectedLabel, error)
	DetectedFields(ctx context.Context, q engine.Query, expr *logql.LogExpr) ([]engine.DetectedField, error)
	DetectedFieldValues(ctx context.Context, q engine.Query, expr *logql.LogExpr, field string, limit int) ([]string, error)
	Patterns(ctx context.Context, q engine.Query, expr *logql.LogExpr) ([]engine.Pattern, error)
}

// Caller is who asks, and within which limits.
type Caller struct {
	Tenant string
	Limits tenant.QueryLimits
}

// Config is how queries are answered.
type Config struct {
	Engine      Engine // nil: there is no ClickHouse to ask, and queries are answered 501
	Concurrency int    // queries that run at a time, of all tenants
	MaxQueued   int    // most queries of a tenant that wait
	Version     string // of the program
}

// API answers queries. Close it.
type API struct {
	cfg     Config
	queue   *queue
	tails   tails
	metrics *Metrics
	log     *slog.Logger
	writers sync.Pool
	warned  atomic.Int64  // unix nanoseconds of the last warning about queries that failed
	patient time.Duration // how long a message of a tail may take to be sent
	closing context.Context
	close   context.CancelFunc
}

// New returns an API.
func New(cfg Config, m *Metrics, log *slog.Logger) *API {
	a := &API{cfg: cfg, queue: newQueue(cfg.Concurrency, cfg.MaxQueued), metrics: m, log: log, patient: tailWrite}
	a.writers.New = func() any { return new(writer) }
	a.closing, a.close = context.WithCancel(context.Background())
	m.watch(a.queue)
	return a
}

// Close ends all tails, and returns when they have ended. Queries go on.
func (a *API) Close() {
	a.close()
	a.tails.close()
}

// The endpoints, as metrics name them.
const (
	endpointQuery          = "query"
	endpointRange          = "query_range"
	endpointLabels         = "labels"
	endpointLabelValues    = "label_values"
	endpointSeries         = "series"
	endpointIndexStats     = "index_stats"
	endpointVolume         = "index_volume"
	endpointVolumeRange    = "index_volume_range"
	endpointDetectedLabels = "detected_labels"
	endpointDetectedFields = "detected_fields"
	endpointDetectedValues = "detected_field_values"
	endpointPatterns       = "patterns"
	endpointTail           = "tail"
	endpointFormat         = "format_query"
	endpointLimits         = "drilldown_limits"
)

// Route adds the API. identify finds out who asks; its errors are those of a push.
func (a *API) Route(e *echo.Echo, identify func(*http.Request) (Caller, error)) {
	add := func(endpoint string, run runner, paths ...string) {
		serve := a.serve(endpoint, identify, run)
		for _, path := range paths {
			e.GET(path, serve)
			e.POST(path, serve)
		}
	}
	const v1, prom = "/loki/api/v1", "/api/prom"
	add(endpointQuery, a.inTurn(a.instant), v1+"/query")
	add(endpointRange, a.inTurn(a.ranged), v1+"/query_range")
	add(endpointLabels, a.inTurn(a.labels), v1+"/labels", v1+"/label", prom+"/label")
	add(endpointLabelValues, a.inTurn(a.labelValues), v1+"/label/:name/values", prom+"/label/:name/values")
	add(endpointSeries, a.inTurn(a.series), v1+"/series", prom+"/series")
	add(endpointIndexStats, a.inTurn(a.indexStats), v1+"/index/stats")
	add(endpointVolume, a.inTurn(a.volume), v1+"/index/volume")
	add(endpointVolumeRange, a.inTurn(a.volumeRange), v1+"/index/volume_range")
	add(endpointDetectedLabels, a.inTurn(a.detectedLabels), v1+"/detected_labels")
	add(endpointDetectedFields, a.inTurn(a.detectedFields), v1+"/detected_fields")
	add(endpointDetectedValues, a.inTurn(a.detectedFieldValues), v1+"/detected_field/:name/values")
	add(endpointPatterns, a.inTurn(a.patterns), v1+"/patterns")
	add(endpointLimits, a.drilldownLimits, v1+"/drilldown-limits")
	e.GET(v1+"/tail", a.serveTail(identify, (*writer).tail))
	e.GET(v1+"/format_query", a.format)
	e.POST(v1+"/format_query", a.format)
	e.GET(v1+"/status/buildinfo", a.buildInfo)

	add(endpointRange, a.inTurn(a.legacyQuery), prom+"/query")
	e.GET(prom+"/tail", a.serveTail(identify, (*writer).legacyTail))
}

// maxForm is the most bytes of a POST's parameters. The longest query that is parsed has less.
const maxForm = 1 << 20

// question is a request of a caller.
type question struct {
	Caller
	params

	header http.Header
	name   string        // in the path
	queued time.Duration // how long it waited for its turn
}

// runner answers a question, to the end of the answer. What it writes before it returns an error is not sent, as long as it is little.
type runner func(ctx context.Context, q *question, w *writer) error

// answer asks the engine, and writes what it says.
type answer func(ctx context.Context, w *writer) error

// ask reads the parameters of a request, and who it is from.
func (a *API) ask(c echo.Context, identify func(*http.Request) (Caller, error)) (*question, error) {
	request := c.Request()
	caller, err := identify(request)
	if err != nil {
		return nil, err
	}
	request.Body = http.MaxBytesReader(c.Response(), request.Body, maxForm)
	if err := request.ParseForm(); err != nil {
		return nil, badParameter("the parameters can't be read: %w", err)
	}
	name, err := url.PathUnescape(c.Param("name"))
	if err != nil {
		return nil, badParameter("the name in the path can't be read: %w", err)
	}
	return &question{
		Caller: caller, params: params{values: request.Form, now: time.Now()}, header: request.Header, name: name,
	}, nil
}

// serve answers the requests of one endpoint.
func (a *API) serve(endpoint string, identify func(*http.Request) (Caller, error), run runner) echo.HandlerFunc {
	return func(c echo.Context) error {
		began := time.Now()
		w := a.writer(c)
		defer a.release(w)
		q, err := a.ask(c, identify)
		if err == nil {
			err = run(c.Request().Context(), q, w)
		}
		if err != nil {
			a.refuse(c, q, err)
		}
		a.metrics.answered(endpoint, c.Response().Status, time.Since(began))
		return nil
	}
}

// inTurn reads a question before it waits for its turn, so that what is wrong with it is told at once.
func (a *API) inTurn(read func(*question) (answer, error)) runner {
	return func(ctx context.Context, q *question, w *writer) error {
		answer, err := read(q)
		if err == nil {
			err = q.err
		}
		if err != nil {
			return err
		}
		if a.cfg.Engine == nil {
			return errNoEngine
		}
		ctx, cancel := context.WithTimeoutCause(ctx, q.Limits.Timeout, &timeoutError{q.Limits.Timeout})
		defer cancel()
		leave, err := a.queue.enter(ctx, q.Tenant, q.Limits.Concurrency)
		if err != nil {
			return cause(ctx, err)
		}
		defer leave()
		q.queued = time.Since(q.now)
		// Its turn ends with the last byte of the answer, so that what waits to be sent is bounded, too: in number, and in time.
		w.timeout = q.Limits.Timeout
		if err = answer(ctx, w); err == nil {
			err = w.end()
		}
		return cause(ctx, err)
	}
}

// cause tells a time that is up from a client that went.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// engineLimits are those that the engine holds to.
func (c *Caller) engineLimits() engine.Limits {
	return engine.Limits{Timeout: c.Limits.Timeout, MaxSeries: c.Limits.MaxSeries, MaxBytes: c.Limits.MaxBytes, MaxMemory: c.Limits.MaxMemory}
}

// warnEvery is how often queries that fail through no fault of the client's are logged.
const warnEvery = 10 * time.Second

// maxFault is the most bytes that a client is told of a fault that is not its own. ClickHouse repeats the statement; the log has all of it.
const maxFault = 200

// refuse answers a question that has no answer, in plain text as Loki does.
func (a *API) refuse(c echo.Context, q *question, err error) {
	v := judge(err)
	if v.status >= http.StatusInternalServerError && v.status != http.StatusNotImplemented {
		a.warn(q, v.status, err)
	}
	response := c.Response()
	if response.Committed {
		return // the connection is closed before the answer's end, which tells the client
	}
	header := response.Header()
	if v.retry > 0 {
		header.Set(echo.HeaderRetryAfter, strconv.Itoa(int(v.retry/time.Second)))
	}
	if v.status == http.StatusUnauthorized {
		header.Set(echo.HeaderWWWAuthenticate, `Bearer realm="logthra", Basic realm="logthra"`)
	}
	header.Del(echo.HeaderContentEncoding)
	header.Set(echo.HeaderXContentTypeOptions, "nosniff")
	text := err.Error()
	if v.status >= http.StatusInternalServerError && len(text) > maxFault {
		text = strings.ToValidUTF8(text[:maxFault], "") + "…"
	}
	if err := c.String(v.status, text+"\n"); err != nil {
		a.log.Debug("the client did not wait for its answer", "error", err)
	}
}

// warn logs that queries fail, but not each of them.
func (a *API) warn(q *question, status int, err error) {
	now, last := time.Now().UnixNano(), a.warned.Load()
	if now-last < int64(warnEvery) || !a.warned.CompareAndSwap(last, now) {
		return
	}
	attrs := []any{slog.Int("status", status), slog.String("error", err.Error())}
	if q != nil {
		attrs = append(attrs, slog.String("tenant", q.Tenant), slog.String("query", logs.Clip(q.values.Get("query"))))
	}
	a.log.Warn("a query failed", attrs...)
}
