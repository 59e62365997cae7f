package tenant

import (
	"context"
	"crypto/sha256"
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
	good    prometheus.Gauge

	directory atomic.Pointer[Directory]
	seen      os.FileInfo       // of the file, when it was looked at last; nil if it was away
	read      os.FileInfo       // of the file, when it was read last
	content   [sha256.Size]byte // of the file that is in force
	wrong     string            // what was wrong when it was looked at last

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// Watch reads a file of tenants, which has to be good, and from then on again when it has changed, until Close. It looks
// at it once a second, and reads it when it is the same for the second time, as it may be half written the first. What it
// looks at is the file behind the path, so that a link may be changed, as Kubernetes does. A file that is not good is
// logged and counted, and the last good state stays.
func Watch(path string, log *slog.Logger, registry prometheus.Registerer) (*Watcher, error) {
	return watch(path, lookEvery, log, registry)
}

func watch(path string, every time.Duration, log *slog.Logger, registry prometheus.Registerer) (*Watcher, error) {
	w := &Watcher{
		path: path, log: log,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "logthra_gateway_tenants_file_reloads_total", Help: "How often the file of tenants was read, by whether it was good.",
		}, []string{"result"}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "logthra_gateway_tenants_file_last_load_timestamp_seconds", Help: "When the file of tenants was read that is in force.",
		}),
		good: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "logthra_gateway_tenants_file_last_reload_successful",
			Help: "1 where the file of tenants is good as it is now, 0 where it is not: then the tenants of before are in force, and the gateway would not start.",
		}),
	}
	registry.MustRegister(w.reloads, w.loaded, w.good)
	for _, result := range []string{"ok", "bad"} {
		w.reloads.WithLabelValues(result)
	}
	if err := w.load(); err != nil {
		return nil, err
	}
	w.good.Set(1)
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	w.done.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				w.look()
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

// look reads the file if it has changed, and tells what is wrong.
func (w *Watcher) look() {
	info, err := os.Stat(w.path)
	before := w.seen
	w.seen = info
	switch {
	case err != nil:
		w.seen, w.read = nil, nil
	case !same(info, before), same(info, w.read):
		return
	default:
		err = w.load()
	}
	switch {
	case err == nil:
		w.wrong = ""
		w.good.Set(1)
	case err.Error() != w.wrong:
		w.good.Set(0)
		w.wrong = err.Error()
		w.reloads.WithLabelValues("bad").Inc()
		w.log.Error("the file of tenants is not good; the tenants of before stay", "error", err)
	}
}

// same tells whether nothing has happened to a file. Neither has to be there.
func same(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// load reads the file, and brings it into force if it is good, and other than what is, or was bad in between.
func (w *Watcher) load() error {
	info, err := os.Stat(w.path)
	if err != nil {
		return err
	}
	data, err := readFile(w.path)
	if err != nil {
		return err
	}
	w.read = info
	content := sha256.Sum256(data)
	before := w.directory.Load()
	if before != nil && content == w.content && w.wrong == "" {
		return nil
	}
	directory, err := Parse(data, w.path)
	if err != nil {
		return err
	}
	if before != nil {
		directory.passwords = before.passwords // what was right still is: the hash is part of what is remembered
	}
	w.content = content
	w.directory.Store(directory)
	w.loaded.SetToCurrentTime()
	w.reloads.WithLabelValues("ok").Inc()
	tenants, credentials := directory.Len()
	w.log.Info("the file of tenants was read", "tenants", tenants, "credentials", credentials)
	return nil
}
