package check

import (
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func project(t *testing.T, env ...string) *types.Project {
	t.Helper()
	opts, err := cli.NewProjectOptions([]string{path("compose.yaml")}, cli.WithEnv(env), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := opts.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func get(t *testing.T, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, resp.Status)
	}
}

func TestCompose(t *testing.T) {
	p := project(t)
	if got, want := p.ServiceNames(), []string{"clickhouse", "gateway", "ingester", "nats"}; !slices.Equal(got, want) {
		t.Fatalf("services %q, want %q", got, want)
	}
	published := map[string]string{}
	for name, s := range p.Services {
		if s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 {
			t.Errorf("%s has no health check", name)
		}
		if s.Build == nil && !regexp.MustCompile(`:[0-9]+\.[0-9]+[^:]*$`).MatchString(s.Image) {
			t.Errorf("%s: the image %q is not pinned", name, s.Image)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to other machines", name, port.Published)
			}
			if s.GetScale() > 1 {
				t.Errorf("%s: %d replicas can't share port %s of the host", name, s.GetScale(), port.Published)
			}
			if other, ok := published[port.Published]; ok {
				t.Errorf("%s and %s both publish port %s", name, other, port.Published)
			}
			published[port.Published] = name
		}
		for on, dep := range s.DependsOn {
			if dep.Condition != types.ServiceConditionHealthy {
				t.Errorf("%s starts before %s is healthy", name, on)
			}
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Error(err)
			}
		}
	}
	ingester := p.Services["ingester"]
	if n := ingester.GetScale(); n < 2 {
		t.Errorf("%d ingester: nobody takes its shards over", n)
	}
	version := strings.TrimPrefix(required(t, natsModule, "go.mod"), "v")
	if image := p.Services["nats"].Image; image != "nats:"+version+"-alpine" {
		t.Errorf("the image of NATS is %s, the product embeds %s", image, version)
	}
}

// The password is said once, and reaches both the server and the DSN of the ingesters.
func TestComposePassword(t *testing.T) {
	p := project(t, "CLICKHOUSE_PASSWORD=s3cret")
	if got := p.Services["clickhouse"].Environment["CLICKHOUSE_PASSWORD"]; got == nil || *got != "s3cret" {
		t.Errorf("the server's password is %v", got)
	}
	if got := p.Services["ingester"].Environment["LOGTHRA_CLICKHOUSE_DSN"]; got == nil || !strings.Contains(*got, ":s3cret@") {
		t.Errorf("the DSN is %v", got)
	}
}

// What compose.yaml calls the command with is what the command takes: every LOGTHRA_ variable of a role is a
// flag of that role, and every health check a call that the command knows.
func TestComposeCommand(t *testing.T) {
	program := build(t)
	help := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), program, append(args, "--help")...).CombinedOutput()
		if err != nil {
			t.Fatalf("logthra %s --help: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for name, s := range project(t).Services {
		if s.Build == nil {
			continue
		}
		known := help(s.Command...)
		for variable := range s.Environment {
			flag, ok := strings.CutPrefix(variable, "LOGTHRA_")
			if !ok {
				continue
			}
			flag = "--" + strings.ToLower(strings.ReplaceAll(flag, "_", "-"))
			if !has(known, flag) {
				t.Errorf("%s: logthra %s has no flag %s for %s", name, strings.Join(s.Command, " "), flag, variable)
			}
		}
		// CMD /logthra <subcommand> --flag value
		test := s.HealthCheck.Test
		if len(test) < 3 || test[0] != "CMD" || test[1] != "/logthra" {
			t.Errorf("%s: the health check %q is not the command's own, and the image holds nothing else", name, test)
			continue
		}
		known = help(test[2])
		for _, arg := range test[3:] {
			if strings.HasPrefix(arg, "--") && !has(known, arg) {
				t.Errorf("%s: logthra %s has no flag %s", name, test[2], arg)
			}
		}
	}
}

// has tells whether a help text explains a flag.
func has(help, flag string) bool {
	return regexp.MustCompile(regexp.QuoteMeta(flag) + `([^a-z0-9-]|$)`).MatchString(help)
}
