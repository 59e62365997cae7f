package command

import (
	"context"
	"net/http"
	"net/http/pprof"

	"go.opentelemetry.io/otel/trace"

	"github.com/casteloig/logthra/shared/config"
	"github.com/casteloig/logthra/shared/telemetry"
)

// startTelemetry starts what a role shows beside its log and its metrics. tracer is nil where there are no traces.
func (p *process) startTelemetry(cfg config.Telemetry, role string) (tracer trace.Tracer, err error) {
	if cfg.TracesEndpoint != "" {
		var stop func(context.Context)
		if tracer, stop, err = telemetry.StartTraces(p.env.ctx, cfg.TracesEndpoint, cfg.TracesSample, role, p.env.version, p.log); err != nil {
			return nil, err
		}
		p.onStop(stop)
	}
	if cfg.DebugListen == "" {
		return tracer, nil
	}
	listener, err := listen("--debug-listen", cfg.DebugListen)
	if err != nil {
		return nil, err
	}
	if !isLoopback(listener.Addr().String()) {
		p.log.Warn("whoever reaches this address sees profiles of the process, and can slow it down", "debug", listener.Addr().String())
	}
	mux := http.NewServeMux() // without the command line, in which there may be passwords
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	p.onStop(p.serveHTTP("debug", listener, mux, nil))
	return tracer, nil
}
