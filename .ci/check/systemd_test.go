package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/docker/go-units"
)

// units are those of deploy/systemd, with the role that each runs and the file of its flags.
var systemdUnits = map[string]struct{ role, flags string }{
	"logthra.service":          {"run", "logthra.env"},
	"logthra-gateway.service":  {"gateway", "gateway.env"},
	"logthra-ingester.service": {"ingester", "ingester.env"},
}

// systemdUnit reads a unit: the values of each "Section.Key".
func systemdUnit(t *testing.T, name string) map[string][]string {
	t.Helper()
	options, err := unit.DeserializeOptions(strings.NewReader(read(t, "deploy", "systemd", name)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	values := map[string][]string{}
	for _, o := range options {
		values[o.Section+"."+o.Name] = append(values[o.Section+"."+o.Name], o.Value)
	}
	return values
}

// environmentFile reads the variables of one of systemd's, also those that are commented out.
func environmentFile(t *testing.T, name string) (set, all map[string]string) {
	t.Helper()
	set, all = map[string]string{}, map[string]string{}
	for line := range strings.Lines(read(t, "deploy", "systemd", name)) {
		line = strings.TrimSpace(line)
		variable, value, ok := strings.Cut(strings.TrimPrefix(line, "#"), "=")
		if !ok || strings.Contains(variable, " ") {
			continue
		}
		all[variable] = value
		if !strings.HasPrefix(line, "#") {
			set[variable] = value
		}
	}
	return set, all
}

// systemd itself finds nothing to say: it names keys and sections that it does not know, and values that it can't read.
func TestSystemdVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatalf("%v (.ci/run installs it)", err)
	}
	dir := t.TempDir()
	args := []string{"verify", "--man=no"}
	for name := range systemdUnits {
		// The program has to be where the unit says.
		text := strings.ReplaceAll(read(t, "deploy", "systemd", name), "/usr/local/bin/logthra", build(t))
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// Each unit runs a role with flags that it has, as nobody, for as long as it takes to drain, and below its memory limit.
func TestSystemdUnits(t *testing.T) {
	files, err := filepath.Glob(path("deploy", "systemd", "*.service"))
	if err != nil || len(files) != len(systemdUnits) {
		t.Fatalf("there are the units %q (%v)", files, err)
	}
	for name, want := range systemdUnits {
		values := systemdUnit(t, name)
		one := func(key string) string {
			if len(values[key]) != 1 {
				t.Errorf("%s: %s is %q", name, key, values[key])
				return ""
			}
			return values[key][0]
		}
		for key, value := range map[string]string{
			"Service.ExecStart":             "/usr/local/bin/logthra " + want.role,
			"Service.EnvironmentFile":       "/etc/logthra/" + want.flags,
			"Service.Restart":               "always",
			"Unit.StartLimitIntervalSec":    "0",
			"Service.DynamicUser":           "yes",
			"Service.NoNewPrivileges":       "yes",
			"Service.ProtectSystem":         "strict",
			"Service.ProtectHome":           "yes",
			"Service.CapabilityBoundingSet": "",
			"Service.StateDirectory":        strings.TrimSuffix(name, ".service"),
			"Install.WantedBy":              "multi-user.target",
		} {
			if got := strings.TrimPrefix(one(key), "-"); got != value {
				t.Errorf("%s: %s is %q, want %q", name, key, got, value)
			}
		}
		if nofile := one("Service.LimitNOFILE"); len(nofile) < 5 {
			t.Errorf("%s may open %s files", name, nofile)
		}

		set, all := environmentFile(t, want.flags)
		given := map[string]string{}
		for _, line := range values["Service.Environment"] {
			for assignment := range strings.FieldsSeq(line) {
				variable, value, _ := strings.Cut(assignment, "=")
				given[variable], all[variable] = value, value
			}
		}
		help, err := exec.CommandContext(t.Context(), build(t), want.role, "--help").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		for variable := range all {
			if flag, ok := strings.CutPrefix(variable, "LOGTHRA_"); ok && !has(string(help), "--"+strings.ToLower(strings.ReplaceAll(flag, "_", "-"))) {
				t.Errorf("%s: logthra %s has no flag for %s", name, want.role, variable)
			}
		}

		drain, err := time.ParseDuration(set["LOGTHRA_DRAIN_TIMEOUT"])
		if err != nil {
			t.Errorf("%s: %v", want.flags, err)
		}
		if stop, err := time.ParseDuration(one("Service.TimeoutStopSec")); err != nil || stop < drain+10*time.Second {
			t.Errorf("%s is killed after %s, and drains for %s (%v)", name, stop, drain, err)
		}
		limit, err := units.RAMInBytes(one("Service.MemoryMax"))
		if err != nil {
			t.Errorf("%s: MemoryMax: %v", name, err)
		}
		soft, err := units.RAMInBytes(given["GOMEMLIMIT"])
		if err != nil || soft >= limit {
			t.Errorf("%s: GOMEMLIMIT is %s, MemoryMax %d (%v)", name, given["GOMEMLIMIT"], limit, err)
		}
		if text, ok := set["LOGTHRA_CLICKHOUSE_MEMORY"]; ok {
			if clickhouse, err := units.RAMInBytes(text); err != nil || soft+clickhouse >= limit {
				t.Errorf("%s: GOMEMLIMIT and ClickHouse's %s are more than MemoryMax (%v)", name, text, err)
			}
		}
	}
}

// The roles start with the flags of their files: only where they listen, and where the engines are, is another.
func TestSystemdFlags(t *testing.T) {
	servers := natsCluster(t)
	for _, want := range systemdUnits {
		if want.role == "run" {
			continue
		}
		set, _ := environmentFile(t, want.flags)
		var args []string
		for variable, value := range set {
			flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, "LOGTHRA_"), "_", "-"))
			if !slices.Contains([]string{"--nats-url", "--clickhouse-dsn", "--replicas"}, flag) {
				args = append(args, flag, value)
			}
		}
		if want.role == "gateway" {
			p := startGateway(t, servers, args...)
			p.push(t, "by systemd's flags")
		} else {
			p := startIngester(t, servers, "clickhouse://127.0.0.1:1/logs", args...)
			if got := p.probe(t, "/metrics"); got != 200 {
				t.Errorf("the ingester answers %d", got)
			}
		}
	}
}
