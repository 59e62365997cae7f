package tenant

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// lookEvery is how often the file is looked at.
const lookEvery = time.Second

// Watcher has the newest good state of a file of tenants.
type Watcher struct {
	path    string
	log     *slog.Logger
	reloads *prometheus.CounterVec
	loaded  prometheus.Gauge

	directory atomic.Pointer[Directory]
	seen      stamp  // of the file, when it was looked at last
	said      string // what was wrong with it then

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// stamp changes when a file does.
type stamp struct {
	modified time.Time
	size     int64
}

// Watch reads a file of tenants, which has to be good, and from then on reads it again within a second after it has
// changed, until Close. It looks at the file that is behind the path, so that a link may be changed, as Kubernetes does.
// A file that is not good is logged and counted, and the last good state stays.
func Watch(path string, log *slog.Logger, registry prometheus.Registerer) (*Watcher, error) {
	return watch(path, lookEvery, log, registry)
}

func watch(path string, every time.Duration, log *slog.Logger, registry prometheus.Registerer) (*Watcher, error) {
	w := &Watcher{
		path: path, log: log,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_tenants_file_reloads_total", Help: "How often the file of tenants was read after it had changed, by whether it was good.",
		}, []string{"result"}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "logthra_gateway_tenants_file_last_load_timestamp_seconds", Help: "When the file of tenants was read that is in force.",
		}),
	}
	registry.MustRegister(w.reloads, w.loaded)
	w.reloads.WithLabelValues("bad")
	w.seen = w.look()
	directory, err := Load(path)
	if err != nil {
		return nil, err
	}
	w.use(directory)
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	w.done.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				w.reload()
			case <-ctx.Done():
				return
			}
		}
	})
	return w, nil
}

// Directory is the newest good state.
func (w *Watcher) Directory() *Directory { return w.directory.Load() }

// Close ends the watch. The last state stays.
func (w *Watcher) Close() {
	w.cancel()
	w.done.Wait()
}

// look returns the stamp of the file; of one that is away it is empty.
func (w *Watcher) look() stamp {
	info, err := os.Stat(w.path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size()}
}

func (w *Watcher) reload() {
	now := w.look()
	if now == w.seen {
		return
	}
	w.seen = now
	directory, err := Load(w.path)
	if err == nil {
		w.said = ""
		w.reloads.WithLabelValues("ok").Inc()
		w.use(directory)
		return
	}
	w.reloads.WithLabelValues("bad").Inc()
	if w.said != err.Error() {
		w.said = err.Error()
		w.log.Error("the file of tenants is not good; the tenants of before stay", "error", err)
	}
}

func (w *Watcher) use(directory *Directory) {
	w.directory.Store(directory)
	w.loaded.SetToCurrentTime()
	tenants, credentials := directory.Len()
	w.log.Info("the file of tenants was read", "tenants", tenants, "credentials", credentials)
}
