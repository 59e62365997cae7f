package decode

import (
	"testing"

	"github.com/casteloig/logthra/shared/logs"
)

func TestLevel(t *testing.T) {
	for text, want := range map[string]string{
		"trace": "trace", "DEBUG": "debug", "Info": "info", "informational": "info", "INFO2": "info", "notice": "info", "Warning": "warn",
		"err": "error", "ERROR": "error", "crit": "fatal", "emerg": "fatal", "panic": "fatal", "Fatal4": "fatal",
		"": "", "infos": "", "5": "", "inf\xef": "", "informational2": "", "info ": "", "[NFO": "",
	} {
		if got := Level([]byte(text)); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	for n, want := range map[int64]string{0: "", -1: "", 1: "trace", 4: "trace", 5: "debug", 8: "debug", 9: "info", 12: "info", 13: "warn", 17: "error", 20: "error", 21: "fatal", 24: "fatal", 25: "", 1 << 62: ""} {
		if got := LevelOfNumber(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	text := []byte("WARNING")
	if got := testing.AllocsPerRun(100, func() { _ = Level(text) }); got > 0 {
		t.Errorf("%g allocations", got)
	}
}

func TestLabelName(t *testing.T) {
	for name, want := range map[string]string{
		"service.name": "service_name", "k8s.namespace.name": "k8s_namespace_name", "": "_", "9lives": "_9lives", "a-b/c": "a_b_c", "é": "__", "_ok": "_ok",
	} {
		if got := LabelName([]byte(name)); got != want || !logs.ValidLabelName(got) {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
	if !IsLabel([]byte("service.name")) || IsLabel([]byte("k8s.pod.name")) || IsLabel([]byte("service_name")) || IsLabel(nil) {
		t.Error("the list of labels is another")
	}
}
