package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/casteloig/logthra/shared/wal"
)

// Config is what is measured.
type Config struct {
	URL      string // http://host:port with a path that comes before the protocol's, if any; of gRPC host:port
	Protocol string // one of Protocols
	Encoding string // one of Encodings
	TLS      *tls.Config
	Token    string

	Lines          int64 // in all
	LinesPerPush   int
	Streams        int // of each tenant
	StreamsPerPush int // at most
	Tenants        int
	Tenant         string // the name of the one tenant, or what the names of several begin with
	Connections    int    // each has one push under way at most
	Rate           int    // lines a second over all connections; 0: as fast as they are answered

	DataSet   *DataSet // is pushed, rather than lines that have the time of their push; nil: those
	Files     []string // whose lines are pushed; none: they are made
	Seed      uint64   // equal ones make equal lines
	LineBytes int      // that a line which is made has at least
	Ahead     int64    // bytes of pushes that are made before they are sent, at most

	Processes []Process
	Rows      func(ctx context.Context, run string, want int64) (int64, error) // of the run that have landed; where it is fewer than wanted, about. nil: it is over when all is answered
	Merging   func(ctx context.Context) (bool, error)                          // whether the database still works on them. nil: it is not waited for
	Landing   time.Duration                                                    // how long the rows may take after the last answer
	Progress  func(Progress)                                                   // is told now and then
}

// Validate returns an error that names the flag which is wrong.
func (c *Config) Validate() error {
	for _, number := range []struct {
		flag  string
		value int64
	}{
		{"lines", c.Lines}, {"lines-per-push", int64(c.LinesPerPush)}, {"streams", int64(c.Streams)}, {"streams-per-push", int64(c.StreamsPerPush)},
		{"tenants", int64(c.Tenants)}, {"connections", int64(c.Connections)}, {"ahead", c.Ahead},
	} {
		if number.value < 1 {
			return fmt.Errorf("--%s: %d is less than 1", number.flag, number.value)
		}
	}
	switch {
	case c.Rate < 0:
		return fmt.Errorf("--rate: %d is less than 0", c.Rate)
	case c.Tenant != "" && !wal.ValidTenant(c.tenant(c.Tenants-1)):
		return fmt.Errorf("--tenant: %q does not match %s", c.tenant(c.Tenants-1), wal.TenantPattern)
	case c.Encoding != "none" && (c.Protocol == "loki" || protocols[c.Protocol].grpc):
		return fmt.Errorf("--encoding: %s has an encoding of its own", c.Protocol)
	}
	return nil
}

// tenant is that of push n.
func (c *Config) tenant(n int) string {
	if c.Tenants == 1 {
		return c.Tenant
	}
	return c.Tenant + "-" + strconv.Itoa(n%c.Tenants)
}

// Progress is how far a run is.
type Progress struct {
	Preparing bool
	Pushes    int64 // made, while it prepares; answered afterwards
	Lines     int64
	Answered  bool // all is, and the rows are waited for
	Elapsed   time.Duration
}

// Latency is how long pushes took until they were answered; of a run with a rate from when they were due.
type Latency struct {
	P50 time.Duration `json:"p50_ns"`
	P90 time.Duration `json:"p90_ns"`
	P99 time.Duration `json:"p99_ns"`
	Max time.Duration `json:"max_ns"`
}

// Report is what a run has shown. Times are from the first push on.
type Report struct {
	Run            string        `json:"run"` // value of the label service_namespace of all lines
	Protocol       string        `json:"protocol"`
	Connections    int           `json:"connections"`
	Streams        int           `json:"streams"`
	Tenants        int           `json:"tenants"`
	Pushes         int64         `json:"pushes"`
	Lines          int64         `json:"lines"`
	LineBytes      int64         `json:"line_bytes"`
	BodyBytes      int64         `json:"body_bytes"` // as they were sent
	Retries        int64         `json:"retries"`    // answers that asked to try again, and broken connections
	RetryReason    string        `json:"retry_reason,omitempty"`
	Answered       time.Duration `json:"answered_ns"`          // until the last push was answered
	Landed         time.Duration `json:"landed_ns,omitempty"`  // until the last row was there
	Settled        time.Duration `json:"settled_ns,omitempty"` // until the database had merged them
	LinesPerSecond float64       `json:"lines_per_second"`     // until they had landed, where rows are counted, or else were answered
	Latency        Latency       `json:"latency"`
	Processes      []*Usage      `json:"processes,omitempty"`
	ClientCPU      float64       `json:"client_cpu_seconds"` // of the bench itself while it pushed
}

// Took is what LinesPerSecond counts by.
func (r *Report) Took() time.Duration {
	if r.Landed > 0 {
		return r.Landed
	}
	return r.Answered
}

// How often the processes and the rows are looked at: the latter more often when all is answered.
const (
	progressEvery = 250 * time.Millisecond
	rowsEvery     = 20 * time.Millisecond
)

// run is a run that is under way.
type run struct {
	cfg   Config
	id    string
	maker *maker
	began time.Time
	next  atomic.Int64 // lines that were handed out, which a rate goes by

	mu      sync.Mutex // guards the rest
	latency histogram
	report  Report
}

// Run pushes, and waits until the rows are there. When ctx ends it stops in between, and reports what was done.
//
// Errors: a push was refused, in a way that more of the same would be, too; or rows are missing when Landing is over.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &run{cfg: cfg, id: "bench-" + strings.ToLower(rand.Text()[:10])}
	watched, err := watch(cfg.Processes)
	if err != nil {
		return nil, err
	}
	if r.maker, err = newMaker(cfg, r.id); err != nil {
		return nil, err
	}
	var senders []sender
	defer func() {
		for _, s := range senders {
			s.close()
		}
	}()
	for range cfg.Connections {
		s, err := newSender(cfg)
		if err != nil {
			return nil, err
		}
		senders = append(senders, s)
	}
	making, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { r.maker.make(making) })
	defer done.Wait()
	defer stop()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}

	start(watched)
	before := own()
	r.began = time.Now()
	looking, stopLooking := context.WithCancel(ctx)
	var looks sync.WaitGroup
	looks.Go(func() { r.look(looking, watched) })
	err = r.push(ctx, senders)
	r.mu.Lock()
	r.report.ClientCPU, r.report.Answered = (own() - before).Seconds(), time.Since(r.began)
	r.mu.Unlock()
	if err == nil && cfg.Rows != nil {
		err = r.await(ctx)
	}
	if err == nil && cfg.Merging != nil {
		err = r.settle(ctx)
	}
	stopLooking()
	looks.Wait()
	sample(watched)
	return r.finish(watched), err
}

// prepare waits until pushes are made.
func (r *run) prepare(ctx context.Context) error {
	began := time.Now()
	for {
		select {
		case <-r.maker.full:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(progressEvery):
			r.tell(Progress{Preparing: true, Pushes: int64(len(r.maker.pushes)), Elapsed: time.Since(began)})
		}
	}
}

func (r *run) tell(p Progress) {
	if r.cfg.Progress != nil {
		r.cfg.Progress(p)
	}
}

// look samples the processes and tells of the progress until ctx ends.
func (r *run) look(ctx context.Context, watched []*Usage) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(progressEvery):
		}
		sample(watched)
		r.mu.Lock()
		p := Progress{Pushes: r.report.Pushes, Lines: r.report.Lines, Answered: r.report.Answered > 0, Elapsed: time.Since(r.began)}
		r.mu.Unlock()
		r.tell(p)
	}
}

// push sends all pushes. The first that is refused ends it.
func (r *run) push(ctx context.Context, senders []sender) error {
	sending, ctx := errgroup.WithContext(ctx)
	for _, s := range senders {
		sending.Go(func() error {
			var latency histogram
			defer func() {
				r.mu.Lock()
				r.latency.merge(&latency)
				r.mu.Unlock()
			}()
			for p := range r.maker.pushes {
				if err := r.one(ctx, s, p, &latency); err != nil {
					return err
				}
				r.maker.sent(p)
			}
			return r.maker.err
		})
	}
	return sending.Wait()
}

// How long to wait until a push is sent again where the answer does not say, and how often that is done.
const (
	retryWait   = 100 * time.Millisecond
	mostRetries = 600
)

// one sends a push until it is taken.
func (r *run) one(ctx context.Context, s sender, p push, latency *histogram) error {
	began := time.Now()
	if r.cfg.Rate > 0 {
		due := r.began.Add(time.Duration(float64(r.next.Add(int64(p.lines))-int64(p.lines)) / float64(r.cfg.Rate) * float64(time.Second)))
		if !began.After(due) {
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		began = due
	}
	for attempt := 0; ; attempt++ {
		err := s.send(ctx, p)
		if err == nil {
			break
		}
		var busy *busyError
		if !errors.As(err, &busy) || attempt == mostRetries || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", r.cfg.URL, err)
		}
		r.mu.Lock()
		r.report.Retries++
		r.report.RetryReason = busy.reason
		r.mu.Unlock()
		select {
		case <-time.After(max(busy.after, retryWait)):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", r.cfg.URL, err, ctx.Err())
		}
	}
	latency.add(time.Since(began))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Pushes++
	r.report.Lines += int64(p.lines)
	r.report.LineBytes += int64(p.bytes)
	r.report.BodyBytes += int64(len(p.body))
	return nil
}

// await waits until as many rows are there as lines were taken.
func (r *run) await(ctx context.Context) error {
	for deadline := time.Now().Add(r.cfg.Landing); ; {
		rows, err := r.cfg.Rows(ctx, r.id, r.report.Lines)
		if err != nil {
			return err
		}
		if rows >= r.report.Lines {
			r.report.Landed = time.Since(r.began)
			if rows > r.report.Lines {
				return fmt.Errorf("%d rows of %d lines: some are there more than once", rows, r.report.Lines)
			}
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d rows of %d lines are there %s after the last answer (--landing)", rows, r.report.Lines, r.cfg.Landing)
		}
		select {
		case <-time.After(rowsEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settle waits until the database is done with its merges, which are work for the same lines.
func (r *run) settle(ctx context.Context) error {
	const quiet = 3 // looks, one after the other, that find it idle
	for idle := 0; idle < quiet; {
		merging, err := r.cfg.Merging(ctx)
		if err != nil {
			return err
		}
		if idle++; merging {
			idle = 0
		}
		select {
		case <-time.After(progressEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.report.Settled = time.Since(r.began)
	return nil
}

// finish fills in the report.
func (r *run) finish(watched []*Usage) *Report {
	report := &r.report
	report.Run, report.Protocol = r.id, r.cfg.Protocol
	report.Connections, report.Streams, report.Tenants = r.cfg.Connections, r.cfg.Streams, r.cfg.Tenants
	report.LinesPerSecond = float64(report.Lines) / report.Took().Seconds()
	report.Latency = Latency{r.latency.quantile(0.5), r.latency.quantile(0.9), r.latency.quantile(0.99), r.latency.longest}
	report.Processes = slices.Clone(watched)
	return report
}
