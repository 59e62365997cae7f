package check

import (
	"encoding/json"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v3"
)

// The newest that Grafana writes itself. It brings older ones up to it, and says nothing of newer ones.
const dashboardSchema = 42

type position struct{ X, Y, W, H int }

type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     position
	Collapsed   bool
	Panels      []panel
	Targets     []struct{ RefID, Expr string }
	FieldConfig struct {
		Defaults struct{ Unit string }
	}
}

type dashboard struct {
	SchemaVersion int
	UID, Title    string
	Panels        []panel
	Templating    struct {
		List []struct {
			Name, Type string
			Definition string
		}
	}
	Annotations struct {
		List []struct{ Name, Expr string }
	}
}

func dashboardFile(t *testing.T) (text string, d dashboard) {
	t.Helper()
	text = read(t, "deploy", "grafana", "dashboards", "logthra.json")
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return text, d
}

// Every panel has a place of its own, and says what it shows, and in which unit.
func TestDashboard(t *testing.T) {
	_, d := dashboardFile(t)
	if d.SchemaVersion != dashboardSchema {
		t.Errorf("the schema is version %d, want %d", d.SchemaVersion, dashboardSchema)
	}
	var rows []string
	ids := map[int]string{}
	for i, p := range d.Panels {
		if other, ok := ids[p.ID]; ok || p.ID == 0 {
			t.Errorf("%q and %q have the id %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		if p.Title == "" {
			t.Errorf("panel %d has no title", p.ID)
		}
		g := p.GridPos
		if g.X < 0 || g.Y < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("%q is not on the grid: %+v", p.Title, g)
		}
		for _, o := range d.Panels[:i] {
			h := o.GridPos
			if g.X < h.X+h.W && h.X < g.X+g.W && g.Y < h.Y+h.H && h.Y < g.Y+g.H {
				t.Errorf("%q and %q overlap", p.Title, o.Title)
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			if p.Collapsed || len(p.Panels) > 0 {
				t.Errorf("row %q holds panels, which are not looked at here", p.Title)
			}
			continue
		}
		if len(p.Targets) == 0 {
			t.Errorf("%q asks for nothing", p.Title)
		}
		seen := map[string]bool{}
		for _, target := range p.Targets {
			if seen[target.RefID] || target.RefID == "" {
				t.Errorf("%q has the query %q twice", p.Title, target.RefID)
			}
			seen[target.RefID] = true
		}
		units := []string{"short", "s", "bytes", "Bps", "cps", "reqps", "percentunit", "dateTimeAsIso"}
		if !slices.Contains(units, p.FieldConfig.Defaults.Unit) && p.Type != "table" {
			t.Errorf("%q has the unit %q", p.Title, p.FieldConfig.Defaults.Unit)
		}
	}
	want := []string{
		"Now", "Intake", "Latency", "Refusals", "WAL", "Flush", "Ingesters and takeovers", "Dead letters", "Syslog",
		"Queries", "Tenants file and certificate", "Runtime",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("the rows are %q, want %q", rows, want)
	}
}

// It can be imported anywhere: what it asks is chosen there.
func TestDashboardSources(t *testing.T) {
	text, d := dashboardFile(t)
	for _, uid := range regexp.MustCompile(`"uid": "([^"]*)"`).FindAllStringSubmatch(text, -1) {
		if uid[1] != "${datasource}" && uid[1] != "-- Grafana --" && uid[1] != d.UID {
			t.Errorf("the source %q is that of one Grafana", uid[1])
		}
	}
	defined := []string{"__rate_interval", "__range"}
	for _, v := range d.Templating.List {
		defined = append(defined, v.Name)
	}
	for _, want := range []string{"datasource", "job", "instance", "tenant"} {
		if !slices.Contains(defined, want) {
			t.Errorf("there is no variable %s", want)
		}
	}
	for _, used := range regexp.MustCompile(`\$\{?([A-Za-z_]+)`).FindAllStringSubmatch(text, -1) {
		if used[1] == "__all" { // a value, not a variable
			continue
		}
		if !slices.Contains(defined, used[1]) {
			t.Errorf("the variable %s is not defined", used[1])
		}
	}
}

// It asks for what the program has, and shows all of it.
func TestDashboardMetrics(t *testing.T) {
	_, d := dashboardFile(t)
	known, recordings := exposed(t), recorded(t)
	shown := map[string]bool{}
	// As Grafana fills in; variables within strings need no filling in to be parsed.
	fill := strings.NewReplacer("$__rate_interval", "1m", "$__range", "3h")
	check := func(where, expr string) {
		expr = fill.Replace(expr)
		wantKnown(t, where, expr, known, recordings)
		found, err := selectors(expr)
		if err != nil {
			return // it was told
		}
		for _, s := range found {
			shown[metricOf(s.Name, known)] = true
			if !strings.HasPrefix(s.Name, "logthra_") {
				continue
			}
			if !slices.ContainsFunc(s.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == "job" }) {
				t.Errorf("%s: %s is not of the job that was chosen", where, s.Name)
			}
		}
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			check(a.Name, a.Expr)
		}
	}
	values := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		asked := values.FindStringSubmatch(v.Definition)
		if asked == nil {
			t.Errorf("%s: %q asks for no label", v.Name, v.Definition)
			continue
		}
		wantKnown(t, v.Name, asked[1], known, recordings)
		found, err := selectors(asked[1])
		if err != nil || len(found) != 1 {
			continue // it was told
		}
		if label := asked[2]; label != "job" && label != "instance" && !slices.Contains(known[found[0].Name].labels, label) {
			t.Errorf("%s: %s has no label %s", v.Name, found[0].Name, label)
		}
	}
	for name := range known {
		if strings.HasPrefix(name, "logthra_") && !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// What is provisioned is there when compose.yaml is up.
func TestGrafanaProvisioning(t *testing.T) {
	p := project(t)
	grafana := p.Services["grafana"]
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, Type, URL string
			UID             string `yaml:"uid"`
			JSONData        struct {
				Host, Username, Protocol string
				Port                     int
				Header                   string `yaml:"httpHeaderName1"`
			} `yaml:"jsonData"`
			Secret struct {
				Header string `yaml:"httpHeaderValue1"`
			} `yaml:"secureJsonData"`
		}
	}
	text := read(t, "deploy", "grafana", "provisioning", "datasources", "logthra.yaml")
	if err := yaml.Unmarshal([]byte(text), &sources); err != nil {
		t.Fatal(err)
	}
	if len(sources.Datasources) != 3 || sources.APIVersion != 1 {
		t.Fatalf("the sources are %+v", sources)
	}
	for _, s := range sources.Datasources {
		if s.UID != "" {
			t.Errorf("%s has a fixed uid", s.Name)
		}
		switch s.Type {
		case "prometheus":
			at, err := url.Parse(s.URL)
			if err != nil || at.Host != net.JoinHostPort("prometheus", "9090") {
				t.Errorf("Prometheus is asked at %q (%v)", s.URL, err)
			}
		case "loki":
			at, err := url.Parse(s.URL)
			if err != nil || at.Host != net.JoinHostPort("proxy", "3100") || s.JSONData.Header != "X-Scope-OrgID" || s.Secret.Header == "" {
				t.Errorf("the gateways are asked at %q (%v), as the tenant of %+v", s.URL, err, s)
			}
		case "grafana-clickhouse-datasource":
			if _, ok := p.Services[s.JSONData.Host]; !ok || s.JSONData.Protocol != "native" || s.JSONData.Port != 9000 {
				t.Errorf("ClickHouse is asked at %s:%s, %s", s.JSONData.Host, strconv.Itoa(s.JSONData.Port), s.JSONData.Protocol)
			}
			if len(clickhouseConfig(t, "users.xml").all("users", s.JSONData.Username)) != 1 {
				t.Errorf("users.xml has no user %s", s.JSONData.Username)
			}
			if !strings.HasPrefix(env(grafana, "GF_PLUGINS_PREINSTALL"), s.Type+"@") {
				t.Errorf("the plugin %s is not installed, or in any version", s.Type)
			}
		default:
			t.Errorf("%s is of the type %q", s.Name, s.Type)
		}
	}
	for _, variable := range regexp.MustCompile(`\$([A-Z_]+)`).FindAllStringSubmatch(text, -1) {
		if env(grafana, variable[1]) == "" {
			t.Errorf("Grafana lacks the variable %s", variable[1])
		}
	}

	var providers struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Type    string
			Options struct{ Path string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy", "grafana", "provisioning", "dashboards", "logthra.yaml")), &providers); err != nil {
		t.Fatal(err)
	}
	if len(providers.Providers) != 1 || providers.Providers[0].Type != "file" || providers.APIVersion != 1 {
		t.Fatalf("the providers are %+v", providers)
	}
	folder := providers.Providers[0].Options.Path
	wantMounted(t, "grafana", grafana, "deploy/grafana/dashboards", folder)
	wantMounted(t, "grafana", grafana, "deploy/grafana/provisioning", "/etc/grafana/provisioning")
	home := env(grafana, "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH")
	if name, err := filepath.Rel(folder, home); err != nil {
		t.Error(err)
	} else if _, err := os.Stat(path("deploy", "grafana", "dashboards", name)); err != nil {
		t.Errorf("the first page: %v", err)
	}
}
