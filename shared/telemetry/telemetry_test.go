package telemetry

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := Logger(&out, "text", slog.LevelWarn)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("too quiet")
	log.Warn("heard", "shard", 3)
	if got := out.String(); !strings.Contains(got, "level=WARN msg=heard shard=3\n") || strings.Contains(got, "quiet") {
		t.Errorf("wrote %q", got)
	}
	out.Reset()
	if log, err = Logger(&out, "json", slog.LevelDebug); err != nil {
		t.Fatal(err)
	}
	log.Debug("heard", "shard", 3)
	var line struct {
		Level, Msg string
		Shard      int
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Level != "DEBUG" || line.Msg != "heard" || line.Shard != 3 {
		t.Errorf("wrote %q (%v)", out.String(), err)
	}
	if _, err := Logger(&out, "xml", slog.LevelInfo); err == nil || !strings.Contains(err.Error(), "xml") {
		t.Errorf("the error is %v", err)
	}
}

func TestRegistry(t *testing.T) {
	families, err := Registry("1.2.3").Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("problems: %v, %v", problems, err)
	}
	found := map[string]string{}
	for _, family := range families {
		found[family.GetName()] = family.GetMetric()[0].String()
	}
	if build := found["logthra_build_info"]; !strings.Contains(build, "1.2.3") {
		t.Errorf("build info: %q", build)
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if _, ok := found[name]; !ok {
			t.Errorf("there is no %s", name)
		}
	}
}
