package config

import "errors"

// Telemetry is how a role shows what it does, beside its log and its metrics.
type Telemetry struct {
	TracesEndpoint string  `placeholder:"URL" help:"A collector that takes spans, OTLP over HTTP, as http://127.0.0.1:4318; without one, there are no traces."`
	TracesSample   float64 `default:"0.01" placeholder:"SHARE" help:"Which share of the pushes is traced, 0 to 1, where the client does not say."`
	DebugListen    string  `placeholder:"ADDR" help:"Where profiles are to be had, /debug/pprof/ over HTTP; without one, nowhere."`
}

// Validate is called by the command line's parser.
func (t *Telemetry) Validate() error {
	if !(t.TracesSample >= 0 && t.TracesSample <= 1) {
		return errors.New("--traces-sample: 0 to 1 are possible")
	}
	return nil
}
