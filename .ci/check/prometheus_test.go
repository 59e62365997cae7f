package check

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

const prometheusModule = "github.com/prometheus/prometheus"

// promtool runs what comes with Prometheus. It is a module of its own: its dependencies are those of every cloud's discovery,
// which the tags leave out.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	run := []string{
		"run", "-modfile=.ci/prometheus.mod", "-tags=remove_all_sd,enable_dns_sd", prometheusModule + "/cmd/promtool",
	}
	cmd := exec.CommandContext(t.Context(), "go", append(run, args...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPrometheusConfig(t *testing.T) {
	promtool(t, "check", "config", "--lint=all", "--lint-fatal", "deploy/prometheus/prometheus.yml")
}

func TestPrometheusRules(t *testing.T) {
	promtool(t, "test", "rules", "deploy/prometheus/logthra.rules.test.yml")
}

// What is asked is what compose.yaml runs, where it listens.
func TestPrometheusTargets(t *testing.T) {
	var config struct {
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
			DNS     []struct {
				Names []string
				Port  string
			} `yaml:"dns_sd_configs"`
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy", "prometheus", "prometheus.yml")), &config); err != nil {
		t.Fatal(err)
	}
	p := project(t)
	asked := map[string][]string{}
	for _, job := range config.ScrapeConfigs {
		for _, dns := range job.DNS {
			for _, name := range dns.Names {
				asked[job.JobName] = append(asked[job.JobName], name+":"+dns.Port)
			}
		}
		for _, static := range job.Static {
			asked[job.JobName] = append(asked[job.JobName], static.Targets...)
		}
	}
	port := func(service, variable string) string {
		_, port, _ := net.SplitHostPort(env(p.Services[service], variable))
		return service + ":" + port
	}
	cluster := clickhouseConfig(t, "cluster.xml").texts("prometheus", "port")
	want := map[string][]string{
		"logthra-gateway":  {port("gateway", "LOGTHRA_HTTP_LISTEN")},
		"logthra-ingester": {port("ingester", "LOGTHRA_INGESTER_HTTP_LISTEN")},
		"logthra-proxy":    {"proxy:8404"},
		"clickhouse":       {"clickhouse-1:" + cluster[0], "clickhouse-2:" + cluster[0]},
		"prometheus":       {"127.0.0.1:9090"},
	}
	if fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked are %v, want %v", asked, want)
	}
}

// rule is one of the rules, an alert or a recording.
type rule struct {
	Alert, Record, Expr string
	For                 *string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy", "prometheus", "logthra.rules.yml")), &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there is no rule")
	}
	return all
}

// Who is called at night is told how bad it is, what it is, what to do, and where to read on: in a section that is about that alert.
func TestAlerts(t *testing.T) {
	sections := sectionsOf(read(t, "docs", "operate.md"))
	tests := read(t, "deploy", "prometheus", "logthra.rules.test.yml")
	seen := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if seen[r.Alert] {
			t.Errorf("%s is there twice", r.Alert)
		}
		seen[r.Alert] = true
		if !strings.HasPrefix(r.Alert, "Logthra") {
			t.Errorf("%s does not say what it is of", r.Alert)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: the severity is %q", r.Alert, s)
		}
		if r.For == nil {
			t.Errorf("%s does not say for how long", r.Alert)
		}
		if r.Annotations["summary"] == "" || len(r.Annotations["description"]) < 60 {
			t.Errorf("%s does not say what it is, or what to do", r.Alert)
		}
		page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		if page != "https://github.com/casteloig/logthra/blob/main/docs/operate.md" || sections[anchor] == "" {
			t.Errorf("%s: docs/operate.md has no %q", r.Alert, r.Annotations["runbook_url"])
		}
		if !strings.Contains(sections[anchor], "`"+r.Alert+"`") {
			t.Errorf("%s: the section %q of docs/operate.md does not name it", r.Alert, anchor)
		}
		// "all is well" is the test of when it does not fire.
		if fires := regexp.MustCompile(`alertname[:=] ?"?` + r.Alert + `\b`); !fires.MatchString(tests) {
			t.Errorf("%s fires in no test", r.Alert)
		}
	}
}

// sectionsOf are what stands under each heading of a page, to the next one, by the anchor that GitHub gives to the heading.
func sectionsOf(page string) map[string]string {
	sections := map[string]string{}
	for _, section := range regexp.MustCompile(`(?m)^#+ `).Split(page, -1)[1:] {
		heading, text, _ := strings.Cut(section, "\n")
		anchor := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading), "")
		sections[strings.ReplaceAll(anchor, " ", "-")] = text
	}
	return sections
}

// The page on operating names no alert and no metric that is not there, and sections that it refers to are.
func TestOperatePage(t *testing.T) {
	page, known := read(t, "docs", "operate.md"), exposed(t)
	sections := sectionsOf(page)
	alerts := map[string]bool{}
	for _, r := range rules(t) {
		alerts[r.Alert] = true
	}
	for _, name := range regexp.MustCompile(`\bLogthra[A-Z]\w+`).FindAllString(page, -1) {
		if !alerts[name] {
			t.Errorf("there is no alert %s", name)
		}
	}
	for _, name := range regexp.MustCompile(`\blogthra_[a-z_]+`).FindAllString(page, -1) {
		if _, ok := known[metricOf(name, known)]; !ok {
			t.Errorf("there is no metric %s", name)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(page, -1) {
		if sections[link[1]] == "" {
			t.Errorf("there is no section %s", link[1])
		}
	}
}

// No rule asks for a metric, or for a label of one, that the program does not have.
func TestRulesMetrics(t *testing.T) {
	known := exposed(t)
	for _, r := range rules(t) {
		wantKnown(t, r.Alert+r.Record, r.Expr, known, recorded(t))
	}
}

// recorded are the names of recording rules.
func recorded(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, r := range rules(t) {
		if r.Record != "" {
			names = append(names, r.Record)
		}
	}
	return names
}

// family is a metric as the program exposes it.
type family struct {
	kind   string
	labels []string
}

// selectors are what a PromQL expression selects.
func selectors(expr string) ([]*parser.VectorSelector, error) {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return nil, err
	}
	var found []*parser.VectorSelector
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			found = append(found, s)
		}
		return nil
	})
	return found, nil
}

// suffix is what the series of histograms and summaries have behind the name of the metric.
var suffix = regexp.MustCompile(`_(bucket|sum|count)$`)

// metricOf is the metric that a series is of.
func metricOf(series string, known map[string]family) string {
	if base := suffix.ReplaceAllString(series, ""); base != series {
		if f, ok := known[base]; ok && (f.kind == "histogram" || f.kind == "summary") {
			return base
		}
	}
	return series
}

// wantKnown fails the test where an expression selects what is neither exposed by the program, nor recorded, nor made by Prometheus itself.
func wantKnown(t *testing.T, where, expr string, known map[string]family, recorded []string) {
	t.Helper()
	found, err := selectors(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	for _, s := range found {
		if s.Name == "up" || s.Name == "ALERTS" || slices.Contains(recorded, s.Name) {
			continue
		}
		f, ok := known[metricOf(s.Name, known)]
		if !ok {
			t.Errorf("%s: the program has no metric %s", where, s.Name)
			continue
		}
		// Beside its own, a series has the labels of its target, and those that make it one of a histogram or a summary.
		has := slices.Concat(f.labels, []string{model.MetricNameLabel, "job", "instance"})
		switch f.kind {
		case "histogram":
			has = append(has, "le")
		case "summary":
			has = append(has, "quantile")
		}
		for _, m := range s.LabelMatchers {
			if !slices.Contains(has, m.Name) {
				t.Errorf("%s: %s has no label %s", where, s.Name, m.Name)
			}
		}
	}
}

// The page lists every metric of the program, as it is, and who watches it.
func TestMetricsPage(t *testing.T) {
	known := exposed(t)
	watching := watchers(t, known)
	page := read(t, "docs", "metrics.md")
	listed := map[string]bool{}
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		name := strings.Trim(strings.TrimSpace(cells[0]), "`")
		if !strings.HasPrefix(name, "logthra_") || len(cells) != 7 {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if listed[name] {
			t.Errorf("%s is listed twice", name)
		}
		listed[name] = true
		f, ok := known[name]
		if !ok {
			t.Errorf("the page lists %s, which the program does not have", name)
			continue
		}
		if cells[1] != f.kind {
			t.Errorf("%s: the page calls it a %s, it is a %s", name, cells[1], f.kind)
		}
		if got := codes(cells[3]); !slices.Equal(got, f.labels) {
			t.Errorf("%s: the page has the labels %q, the program %q", name, got, f.labels)
		}
		if cells[2] == "" || cells[4] == "" || cells[5] == "" {
			t.Errorf("%s: the page lacks its unit, its bound or what it is", name)
		}
		if got := codes(cells[6]); !slices.Equal(got, watching[name]) {
			t.Errorf("%s: the page says that %q watch it, the rules say %q", name, got, watching[name])
		}
	}
	for name := range known {
		if strings.HasPrefix(name, "logthra_") && !listed[name] {
			t.Errorf("the page does not list %s", name)
		}
	}
	for _, r := range rules(t) {
		if r.Alert != "" && !strings.Contains(page, "`"+r.Alert+"`") {
			t.Errorf("the page does not name the alert %s", r.Alert)
		}
	}
}

// codes are what is in backquotes, sorted.
func codes(text string) []string {
	var all []string
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(text, -1) {
		all = append(all, match[1])
	}
	slices.Sort(all)
	return all
}

// watchers are the alerts on each metric, also those by way of a recording.
func watchers(t *testing.T, known map[string]family) map[string][]string {
	t.Helper()
	of := map[string][]string{} // the metrics of a recording
	watching := map[string][]string{}
	for _, pass := range []bool{false, true} { // recordings of recordings come second
		for _, r := range rules(t) {
			found, err := selectors(r.Expr)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range found {
				metrics := []string{metricOf(s.Name, known)}
				if through, ok := of[s.Name]; ok {
					metrics = through
				}
				switch {
				case r.Record != "":
					of[r.Record] = append(of[r.Record], metrics...)
				case pass:
					for _, metric := range metrics {
						watching[metric] = append(watching[metric], r.Alert)
					}
				}
			}
		}
	}
	for metric, alerts := range watching {
		slices.Sort(alerts)
		watching[metric] = slices.Compact(alerts)
	}
	return watching
}

// scraped is what the real program exposes, once for all tests.
var scraped struct {
	sync.Once
	families map[string]family
}

// exposed runs a gateway, an ingester and a ClickHouse, does everything to them that makes a metric appear, and returns the metrics of
// the first two.
func exposed(t *testing.T) map[string]family {
	t.Helper()
	scraped.Do(func() {
		servers := natsCluster(t)
		rows := startClickHouse(t)
		g := startGateway(t, servers, "--clickhouse-dsn", rows)
		g.push(t, "once")
		g.wantStatus(t, "strict", http.StatusBadRequest, "two", "lines")
		in := startIngester(t, servers, rows)
		families := map[string]family{}
		g.scrape(t, families)
		eventually(t, 2*time.Minute, "a batch has landed", func() bool {
			in.scrape(t, families)
			_, ok := families["logthra_ingester_last_landed_timestamp_seconds"]
			return ok
		})
		scraped.families = families
	})
	if scraped.families == nil {
		t.Fatal("the metrics could not be read")
	}
	return scraped.families
}

// program is a role that runs.
type program struct {
	at     map[string]string // its addresses, by their names in the log
	client *http.Client
	scheme string
	log    *lockedBuffer
	stop   func() // ends it, if it has not ended
}

// lockedBuffer is what a process has written so far.
type lockedBuffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// start starts the program as the image holds it. It ends with the test.
func start(t *testing.T, servers []*server.Server, args ...string) *program {
	t.Helper()
	urls := make([]string, len(servers))
	for i, s := range servers {
		urls[i] = s.ClientURL()
	}
	if len(servers) > 0 {
		args = append(args, "--nats-url", strings.Join(urls, ","), "--replicas", fmt.Sprint(len(servers)))
	}
	cmd := exec.Command(build(t), append(args, "--log-format", "json")...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LOGTHRA_") })
	p := &program{at: map[string]string{}, scheme: "http", log: new(lockedBuffer), client: &http.Client{Timeout: 20 * time.Second, Transport: new(http.Transport)}}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.stop = sync.OnceFunc(func() {
		p.client.CloseIdleConnections()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		hurry := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer hurry.Stop()
		_ = cmd.Wait()
	})
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("logthra %s:\n%s", strings.Join(args, " "), p.log)
		}
	})
	return p
}

const token = "a-token-of-the-tests"

// startGateway starts a gateway with all that has metrics: a file of tenants, TLS, syslog.
func startGateway(t *testing.T, servers []*server.Server, more ...string) *program {
	t.Helper()
	dir := t.TempDir()
	hash := sha256.Sum256([]byte(token))
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	tenants := write("tenants.yaml", "tenants:\n  acme:\n    tokens: [\"sha256:"+hex.EncodeToString(hash[:])+"\"]\n    allow: [strict]\n"+
		"  strict:\n    limits: {max_lines_per_push: 1}\n")
	cert, key := certificate(t)
	p := start(t, servers, append([]string{
		"gateway", "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0",
		"--tenants-file", tenants, "--tls-cert-file", write("cert.pem", cert), "--tls-key-file", write("key.pem", key),
		"--syslog-listen", "tcp://127.0.0.1:0?tenant=strict", "--syslog-listen", "tls://127.0.0.1:0?tenant=acme",
	}, more...)...)
	p.scheme = "https"
	p.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // its own certificate, of a minute ago
	p.ready(t)
	return p
}

// startPlainGateway starts a gateway as compose.yaml does, where anybody may push.
func startPlainGateway(t *testing.T, servers []*server.Server) *program {
	t.Helper()
	p := start(t, servers, "gateway", "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0")
	p.ready(t)
	return p
}

// ready waits until the program says that it is, and where.
func (p *program) ready(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, "the program is ready", func() bool {
		for line := range strings.Lines(p.log.String()) {
			var attrs map[string]any
			if json.Unmarshal([]byte(line), &attrs) != nil || attrs["msg"] != "ready" {
				continue
			}
			for name, value := range attrs {
				if text, ok := value.(string); ok {
					p.at[name] = text
				}
			}
			return true
		}
		return false
	})
}

// startClickHouse starts a ClickHouse, and returns its DSN.
func startClickHouse(t *testing.T) string {
	t.Helper()
	p := start(t, nil, "clickhouse", "--data-dir", t.TempDir(), "--clickhouse-listen", "127.0.0.1:0", "--clickhouse-http-listen", "127.0.0.1:0")
	p.ready(t)
	return p.at["clickhouse_dsn"]
}

// startIngester starts an ingester, which may have to wait for its ClickHouse.
func startIngester(t *testing.T, servers []*server.Server, clickhouse string, more ...string) *program {
	t.Helper()
	address := freeAddress(t)
	p := start(t, servers, append([]string{
		"ingester", "--ingester-listen", "127.0.0.1:0", "--ingester-http-listen", address, "--clickhouse-dsn", clickhouse, "--flush-interval", "1s",
	}, more...)...)
	p.at["http"] = address
	eventually(t, time.Minute, "the ingester listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return p
}

// push pushes a line, until it is taken.
func (p *program) push(t *testing.T, line string) {
	t.Helper()
	eventually(t, time.Minute, line+" is taken", func() bool { return p.status(t, "acme", line) == http.StatusNoContent })
}

func (p *program) wantStatus(t *testing.T, tenant string, want int, lines ...string) {
	t.Helper()
	if got := p.status(t, tenant, lines...); got != want {
		t.Errorf("%q of %s: %d, want %d", lines, tenant, got, want)
	}
}

func (p *program) status(t *testing.T, tenant string, lines ...string) int {
	t.Helper()
	var values [][2]string
	for i, line := range lines {
		values = append(values, [2]string{fmt.Sprintf("1700000000123456%03d", i), line})
	}
	body, err := json.Marshal(map[string]any{"streams": []any{map[string]any{"stream": map[string]string{"app": "check"}, "values": values}}})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.scheme+"://"+p.at["http"]+"/api/push", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("tenant-id", tenant)
	resp, err := p.client.Do(req)
	if err != nil {
		t.Logf("push: %v", err)
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// scrape adds the metrics of a role to those that are known.
func (p *program) scrape(t *testing.T, known map[string]family) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.scheme+"://"+p.at["http"]+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text := expfmt.NewTextParser(model.UTF8Validation)
	families, err := text.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range families {
		names := map[string]bool{}
		for _, label := range known[name].labels {
			names[label] = true
		}
		for _, metric := range f.GetMetric() {
			for _, label := range metric.GetLabel() {
				names[label.GetName()] = true
			}
		}
		known[name] = family{strings.ToLower(dto.MetricType_name[int32(f.GetType())]), slices.Sorted(maps.Keys(names))}
	}
}

// certificate makes one for this machine, and its key, PEM.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

func healthy(t *testing.T, url string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// eventually fails the test when the condition does not hold in time.
func eventually(t *testing.T, patience time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}
