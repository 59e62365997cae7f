package query

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/logs"
)

// fake says what it is told to, and remembers what it was asked.
type fake struct {
	err error

	logs     engine.Logs
	metric   engine.Metric
	names    []string
	series   [][]logs.Label
	stats    engine.IndexStats
	volumes  []engine.Volume
	labels   []engine.DetectedLabel
	fields   []engine.DetectedField
	patterns []engine.Pattern
	block    chan struct{} // nil: nothing blocks
	tail     func(ctx context.Context, q engine.TailQuery, send func(engine.TailBatch) error) error

	mu        sync.Mutex // guards what it was asked
	query     engine.Query
	scope     engine.Scope
	volume    engine.VolumeQuery
	expr      string
	name      string
	limit     int
	selectors [][]logql.Matcher
}

// asked keeps what it was asked.
func (f *fake) asked(keep func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keep()
}

func (f *fake) wait(ctx context.Context) error {
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f.err
}

func (f *fake) Logs(ctx context.Context, q engine.Query, expr *logql.LogExpr) (*engine.Logs, error) {
	f.asked(func() { f.query, f.expr = q, expr.String() })
	return &f.logs, f.wait(ctx)
}

func (f *fake) Metric(ctx context.Context, q engine.Query, expr logql.Expr) (*engine.Metric, error) {
	f.asked(func() { f.query, f.expr = q, expr.String() })
	return &f.metric, f.wait(ctx)
}

func (f *fake) Tail(ctx context.Context, q engine.TailQuery, send func(engine.TailBatch) error) error {
	return f.tail(ctx, q, send)
}

func (f *fake) Labels(ctx context.Context, s engine.Scope) ([]string, error) {
	f.asked(func() { f.scope = s })
	return f.names, f.wait(ctx)
}

func (f *fake) LabelValues(ctx context.Context, s engine.Scope, name string) ([]string, error) {
	f.asked(func() { f.scope, f.name = s, name })
	return f.names, f.wait(ctx)
}

func (f *fake) Series(ctx context.Context, s engine.Scope, selectors [][]logql.Matcher) ([][]logs.Label, error) {
	f.asked(func() { f.scope, f.selectors = s, selectors })
	return f.series, f.wait(ctx)
}

func (f *fake) IndexStats(ctx context.Context, s engine.Scope) (engine.IndexStats, error) {
	f.asked(func() { f.scope = s })
	return f.stats, f.wait(ctx)
}

func (f *fake) Volume(ctx context.Context, q engine.VolumeQuery) ([]engine.Volume, error) {
	f.asked(func() { f.volume = q })
	return f.volumes, f.wait(ctx)
}

func (f *fake) DetectedLabels(ctx context.Context, s engine.Scope) ([]engine.DetectedLabel, error) {
	f.asked(func() { f.scope = s })
	return f.labels, f.wait(ctx)
}

func (f *fake) DetectedFields(ctx context.Context, q engine.Query, expr *logql.LogExpr) ([]engine.DetectedField, error) {
	f.asked(func() { f.query, f.expr = q, expr.String() })
	return f.fields, f.wait(ctx)
}

func (f *fake) DetectedFieldValues(ctx context.Context, q engine.Query, expr *logql.LogExpr, field string, limit int) ([]string, error) {
	f.asked(func() { f.query, f.expr, f.name, f.limit = q, expr.String(), field, limit })
	return f.names, f.wait(ctx)
}

func (f *fake) Patterns(ctx context.Context, q engine.Query, expr *logql.LogExpr) ([]engine.Pattern, error) {
	f.asked(func() { f.query, f.expr = q, expr.String() })
	return f.patterns, f.wait(ctx)
}

// flagLimits are those of the flags.
var flagLimits = tenant.QueryLimits{
	Timeout: time.Minute, MaxEntries: 5000, MaxSeries: 500, MaxMemory: 1 << 30, Concurrency: 3, MaxTails: 2,
}

// server is the API in front of an Engine.
type server struct {
	api      *API
	url      string
	registry *prometheus.Registry
	limits   tenant.QueryLimits
}

// serve starts the API. A request is of the tenant that it names.
func serve(t *testing.T, e Engine, changes ...func(*http.Server)) *server {
	t.Helper()
	s := &server{registry: prometheus.NewRegistry(), limits: flagLimits}
	s.api = New(Config{Engine: e, Concurrency: 4, MaxQueued: 2, Version: "1.2.3"}, NewMetrics(s.registry), slog.New(slog.DiscardHandler))
	router := echo.New()
	s.api.Route(router, func(r *http.Request) (Caller, error) {
		switch who := r.Header.Get("X-Scope-Orgid"); who {
		case "":
			return Caller{}, &decode.Error{Reason: "no tenant"}
		case "nobody":
			return Caller{}, tenant.ErrBadCredentials
		case "stranger":
			return Caller{}, tenant.ErrForbidden
		default:
			return Caller{who, s.limits}, nil
		}
	})
	web := httptest.NewUnstartedServer(router)
	for _, change := range changes {
		change(web.Config)
	}
	web.Start()
	t.Cleanup(web.Close)
	t.Cleanup(s.api.Close)
	s.url = web.URL
	return s
}

// get asks for a path with its parameters.
func (s *server) get(t *testing.T, path string, headers ...string) (status int, body string) {
	t.Helper()
	status, body, _ = s.do(t, http.MethodGet, path, "", headers...)
	return status, body
}

func (s *server) do(t *testing.T, method, path, form string, headers ...string) (status int, body string, header http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	if form != "" {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	request.Header.Set("X-Scope-OrgID", "acme")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text), response.Header
}

// with is a path with parameters, given in turn as name and value.
func with(path string, params ...string) string {
	values := url.Values{}
	for i := 0; i < len(params); i += 2 {
		values.Add(params[i], params[i+1])
	}
	return path + "?" + values.Encode()
}

// wantJSON fails t unless got is the JSON that is wanted, where stats are left out.
func wantJSON(t *testing.T, got, want string) {
	t.Helper()
	if i := strings.Index(got, `,"stats":{`); i >= 0 {
		if !json.Valid([]byte(got)) {
			t.Fatalf("no JSON: %s", got)
		}
		got = got[:i] + "}}"
		if strings.HasPrefix(got, `{"streams"`) {
			got = got[:len(got)-1]
		}
	}
	if got != want {
		t.Errorf("the answer is\n%s\nnot\n%s", got, want)
	}
}
