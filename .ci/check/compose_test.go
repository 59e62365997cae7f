package check

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
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
	want := []string{
		"clickhouse-1", "clickhouse-2", "gateway", "grafana", "ingester", "keeper-1", "keeper-2", "keeper-3",
		"nats-1", "nats-2", "nats-3", "prometheus", "proxy",
	}
	if got := p.ServiceNames(); !slices.Equal(got, want) {
		t.Fatalf("services %q, want %q", got, want)
	}
	published := map[string]string{}
	for name, s := range p.Services {
		if s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 {
			t.Errorf("%s has no health check", name)
		}
		if s.Build == nil && !regexp.MustCompile(`:v?[0-9]+\.[0-9]+[^:]*$`).MatchString(s.Image) {
			t.Errorf("%s: the image %q is not pinned", name, s.Image)
		}
		if s.MemLimit <= 0 {
			t.Errorf("%s may take all memory", name)
		}
		if text := env(s, "GOMEMLIMIT"); text != "" {
			limit, err := units.RAMInBytes(text)
			if err != nil || limit >= int64(s.MemLimit) || limit < int64(s.MemLimit)/2 {
				t.Errorf("%s: GOMEMLIMIT is %s, and the limit of the container %d (%v)", name, text, s.MemLimit, err)
			}
		}
		// The images of ClickHouse write their own configuration as they start.
		if !s.ReadOnly && !strings.HasPrefix(s.Image, "clickhouse/") {
			t.Errorf("%s may write to its image", name)
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
			if !v.ReadOnly {
				t.Errorf("%s may write to %s", name, v.Source)
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Error(err)
			}
		}
	}
	if got, want := slices.Sorted(maps.Keys(published)), []string{"3000", "3100", "4317", "8123", "8124", "9090"}; !slices.Equal(got, want) {
		t.Errorf("ports %q are published, want %q", got, want)
	}
	gateway, ingester := p.Services["gateway"], p.Services["ingester"]
	if n := gateway.GetScale(); n < 2 {
		t.Errorf("%d gateway: nobody takes pushes while it is gone", n)
	}
	if n := ingester.GetScale(); n < 2 {
		t.Errorf("%d ingester: nobody takes its shards over", n)
	}
}

// Images are of the versions that the tests run.
func TestComposeVersions(t *testing.T) {
	p := project(t)
	nats := strings.TrimPrefix(required(t, natsModule, "go.mod"), "v")
	for _, name := range natsServices(p) {
		if image := p.Services[name].Image; image != "nats:"+nats+"-alpine" {
			t.Errorf("the image of %s is %s, the product embeds %s", name, image, nats)
		}
	}
	// The module of Prometheus 3.4.5 is v0.304.5.
	module := required(t, prometheusModule, ".ci", "check", "go.mod")
	var minor, patch int
	if _, err := fmt.Sscanf(module, "v0.3%02d.%d", &minor, &patch); err != nil {
		t.Fatalf("%s: %v", module, err)
	}
	if image, want := p.Services["prometheus"].Image, fmt.Sprintf("prom/prometheus:v3.%d.%d", minor, patch); image != want {
		t.Errorf("the image of Prometheus is %s, the tests read the rules with %s", image, want)
	}
	if tool := required(t, prometheusModule, ".ci", "prometheus.mod"); tool != module {
		t.Errorf("promtool is of %s, the parser of %s", tool, module)
	}
}

// A password is said once, and reaches all who need it.
func TestComposePasswords(t *testing.T) {
	p := project(t, "CLICKHOUSE_PASSWORD=s3cret", "CLICKHOUSE_READER_PASSWORD=r3ader", "GRAFANA_PASSWORD=gr4fana")
	for _, name := range []string{"clickhouse-1", "clickhouse-2"} {
		if got := env(p.Services[name], "CLICKHOUSE_PASSWORD"); got != "s3cret" {
			t.Errorf("the password of %s is %q", name, got)
		}
	}
	for _, name := range []string{"clickhouse-1", "clickhouse-2", "grafana"} {
		if got := env(p.Services[name], "CLICKHOUSE_READER_PASSWORD"); got != "r3ader" {
			t.Errorf("the password of the reader is %q for %s", got, name)
		}
	}
	for _, name := range []string{"gateway", "ingester"} {
		if got := env(p.Services[name], "LOGTHRA_CLICKHOUSE_DSN"); !strings.Contains(got, ":s3cret@") {
			t.Errorf("the DSN of the %s is %q", name, got)
		}
	}
	if got := env(p.Services["grafana"], "GF_SECURITY_ADMIN_PASSWORD"); got != "gr4fana" {
		t.Errorf("Grafana's password is %q", got)
	}
}

// Who is given addresses knows all servers of the engine, and waits for them.
func TestComposeAddresses(t *testing.T) {
	p := project(t)
	nats := natsServices(p)
	for _, name := range []string{"gateway", "ingester"} {
		s := p.Services[name]
		var hosts []string
		for server := range strings.SplitSeq(env(s, "LOGTHRA_NATS_URL"), ",") {
			hosts = append(hosts, strings.TrimSuffix(strings.TrimPrefix(server, "nats://"), ":4222"))
		}
		if !slices.Equal(hosts, nats) {
			t.Errorf("%s knows NATS at %q, compose.yaml has %q", name, hosts, nats)
		}
		if got := env(s, "LOGTHRA_REPLICAS"); got != strconv.Itoa(len(hosts)) {
			t.Errorf("%s wants %s copies of a shard on %d servers", name, got, len(hosts))
		}
		waitsFor(t, name, s, nats...)
	}
	ingester := p.Services["ingester"]
	dsn := regexp.MustCompile(`^clickhouse://[^@]+@([^/]+)/logs$`).FindStringSubmatch(env(ingester, "LOGTHRA_CLICKHOUSE_DSN"))
	if dsn == nil {
		t.Fatalf("the DSN is %q", env(ingester, "LOGTHRA_CLICKHOUSE_DSN"))
	}
	want := []string{"clickhouse-1", "clickhouse-2"}
	if got := strings.Split(strings.ReplaceAll(dsn[1], ":9000", ""), ","); !slices.Equal(got, want) {
		t.Errorf("the DSN has the hosts %q, want %q", got, want)
	}
	waitsFor(t, "ingester", ingester, want...)
	// A gateway takes pushes also without a ClickHouse, so it waits for none.
	for _, variable := range []string{"LOGTHRA_CLICKHOUSE_DSN", "LOGTHRA_CLICKHOUSE_CLUSTER"} {
		if got, want := env(p.Services["gateway"], variable), env(ingester, variable); got != want {
			t.Errorf("%s is %q of the gateway, %q of the ingester", variable, got, want)
		}
	}
}

func waitsFor(t *testing.T, name string, s types.ServiceConfig, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		if _, ok := s.DependsOn[host]; !ok {
			t.Errorf("%s does not wait for %s", name, host)
		}
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

// env is a variable of a service, empty where it has none.
func env(s types.ServiceConfig, name string) string {
	if value := s.Environment[name]; value != nil {
		return *value
	}
	return ""
}

func natsServices(p *types.Project) []string {
	return slices.DeleteFunc(p.ServiceNames(), func(name string) bool { return !strings.HasPrefix(name, "nats-") })
}

// element is XML as it stands, with the order kept.
type element struct {
	XMLName  xml.Name
	FromEnv  string    `xml:"from_env,attr"`
	Text     string    `xml:",chardata"`
	Children []element `xml:",any"`
}

// all are the elements at a path below e.
func (e element) all(names ...string) []element {
	found := []element{e}
	for _, name := range names {
		var next []element
		for _, f := range found {
			for _, c := range f.Children {
				if c.XMLName.Local == name {
					next = append(next, c)
				}
			}
		}
		found = next
	}
	return found
}

// texts are what the elements at a path say.
func (e element) texts(names ...string) []string {
	var texts []string
	for _, f := range e.all(names...) {
		texts = append(texts, strings.TrimSpace(f.Text))
	}
	return texts
}

// variables are the names of the environment that e is filled from.
func (e element) variables() []string {
	var names []string
	if e.FromEnv != "" {
		names = append(names, e.FromEnv)
	}
	for _, c := range e.Children {
		names = append(names, c.variables()...)
	}
	return names
}

func clickhouseConfig(t *testing.T, name string) element {
	t.Helper()
	var root element
	if err := xml.Unmarshal([]byte(read(t, "deploy", "clickhouse", name)), &root); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if root.XMLName.Local != "clickhouse" {
		t.Errorf("%s: the root is <%s>, which ClickHouse does not merge", name, root.XMLName.Local)
	}
	return root
}

// The servers, the Keepers and compose.yaml know each other by the same names and ports.
func TestComposeClickHouse(t *testing.T) {
	p := project(t)
	cluster, users, keeper := clickhouseConfig(t, "cluster.xml"), clickhouseConfig(t, "users.xml"), clickhouseConfig(t, "keeper.xml")

	name := env(p.Services["ingester"], "LOGTHRA_CLICKHOUSE_CLUSTER")
	shards := cluster.all("remote_servers", name, "shard")
	if len(shards) != 1 {
		t.Fatalf("the cluster %q of the ingesters has %d shards in cluster.xml", name, len(shards))
	}
	replicas := []string{"clickhouse-1", "clickhouse-2"}
	if got := shards[0].texts("replica", "host"); !slices.Equal(got, replicas) {
		t.Errorf("the replicas are %q, want %q", got, replicas)
	}
	// A table that replicates by itself, and queries that run on both servers as whoever asks.
	if got := shards[0].texts("internal_replication"); !slices.Equal(got, []string{"true"}) {
		t.Errorf("internal_replication is %q", got)
	}
	if len(cluster.all("remote_servers", name, "secret")) != 1 {
		t.Error("the servers of the cluster share no secret: the user of a query is not known on the other")
	}
	for _, macro := range []string{"shard", "replica"} {
		if len(cluster.all("macros", macro)) != 1 {
			t.Errorf("there is no macro %s", macro)
		}
	}

	keepers := slices.DeleteFunc(p.ServiceNames(), func(name string) bool { return !strings.HasPrefix(name, "keeper-") })
	if got := cluster.texts("zookeeper", "node", "host"); !slices.Equal(got, keepers) {
		t.Errorf("ClickHouse knows the Keepers %q, compose.yaml has %q", got, keepers)
	}
	if got := keeper.texts("keeper_server", "raft_configuration", "server", "hostname"); !slices.Equal(got, keepers) {
		t.Errorf("the Keepers know %q, compose.yaml has %q", got, keepers)
	}
	port := keeper.texts("keeper_server", "tcp_port")
	for _, got := range cluster.texts("zookeeper", "node", "port") {
		if got != port[0] {
			t.Errorf("ClickHouse asks port %s, the Keepers listen on %s", got, port[0])
		}
	}
	for i, id := range keeper.texts("keeper_server", "raft_configuration", "server", "id") {
		if got := env(p.Services[keepers[i]], "KEEPER_ID"); got != id {
			t.Errorf("%s is %q to itself and %q to the others", keepers[i], got, id)
		}
	}
	ready := "http://127.0.0.1:" + keeper.texts("keeper_server", "http_control", "port")[0] + keeper.texts("keeper_server", "http_control", "readiness", "endpoint")[0]

	for _, service := range keepers {
		s := p.Services[service]
		if !slices.Contains(s.HealthCheck.Test, ready) {
			t.Errorf("the health check of %s is %q, the Keeper answers at %s", service, s.HealthCheck.Test, ready)
		}
		wantVariables(t, service, s, keeper)
		wantMounted(t, service, s, "deploy/clickhouse/keeper.xml", "/etc/clickhouse-keeper/keeper_config.xml")
	}
	for _, service := range replicas {
		s := p.Services[service]
		if got := env(s, "CLICKHOUSE_REPLICA"); got != service {
			t.Errorf("%s calls itself %q, and the other would fetch from there", service, got)
		}
		wantVariables(t, service, s, cluster, users)
		wantMounted(t, service, s, "deploy/clickhouse/cluster.xml", "/etc/clickhouse-server/config.d/cluster.xml")
		wantMounted(t, service, s, "deploy/clickhouse/users.xml", "/etc/clickhouse-server/users.d/logthra.xml")
		waitsFor(t, service, s, keepers...)
	}
	// Where anybody looks at the dashboards, nothing is written.
	if got := users.texts("profiles", "reader", "readonly"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("the reader's profile has readonly %q", got)
	}
	if got := users.texts("users", "grafana", "grants", "query"); !slices.Equal(got, []string{"GRANT SELECT ON logs.*"}) {
		t.Errorf("the reader may %q", got)
	}
}

func wantVariables(t *testing.T, name string, s types.ServiceConfig, configs ...element) {
	t.Helper()
	for _, config := range configs {
		for _, variable := range config.variables() {
			if env(s, variable) == "" {
				t.Errorf("%s lacks the variable %s", name, variable)
			}
		}
	}
}

func wantMounted(t *testing.T, name string, s types.ServiceConfig, file, target string) {
	t.Helper()
	source, err := filepath.Abs(path(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range s.Volumes {
		if v.Target == target && v.Source == source {
			return
		}
	}
	t.Errorf("%s does not have %s at %s", name, file, target)
}

func haproxyConfig(t *testing.T) string { return read(t, "deploy", "proxy", "haproxy.cfg") }

// The proxy is reached, and reaches the gateways, under the addresses of compose.yaml.
func TestProxyAddresses(t *testing.T) {
	p := project(t)
	config := haproxyConfig(t)
	gateway, proxy := p.Services["gateway"], p.Services["proxy"]
	for _, variable := range []string{"LOGTHRA_HTTP_LISTEN", "LOGTHRA_GRPC_LISTEN"} {
		_, port, err := net.SplitHostPort(env(gateway, variable))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^  bind :` + port + `\b`).MatchString(config) {
			t.Errorf("the proxy does not listen on %s", port)
		}
		if !regexp.MustCompile(`(?m)^  server-template \w+ [0-9]+ gateway:` + port + `\b`).MatchString(config) {
			t.Errorf("the proxy does not hand on to port %s of the gateways", port)
		}
		if !slices.ContainsFunc(proxy.Ports, func(c types.ServicePortConfig) bool {
			return c.Published == port && strconv.Itoa(int(c.Target)) == port
		}) {
			t.Errorf("port %s of the proxy is not published", port)
		}
	}
	for _, slots := range regexp.MustCompile(`server-template \w+ ([0-9]+)`).FindAllStringSubmatch(config, -1) {
		if n, err := strconv.Atoi(slots[1]); err != nil || n < gateway.GetScale() {
			t.Errorf("the proxy knows %d of %d gateways (%v)", n, gateway.GetScale(), err)
		}
	}
	if !slices.Contains(proxy.HealthCheck.Test, "http://127.0.0.1:8404/healthz") {
		t.Errorf("the health check of the proxy is %q", proxy.HealthCheck.Test)
	}
	wantMounted(t, "proxy", proxy, "deploy/proxy/haproxy.cfg", "/usr/local/etc/haproxy/haproxy.cfg")
}

// The proxy takes pushes and calls, leaves out a gateway that is not ready, and says how it is.
func TestProxy(t *testing.T) {
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		t.Fatalf("%v (.ci/run installs it)", err)
	}
	servers := natsCluster(t)
	one, two := startPlainGateway(t, servers), startPlainGateway(t, servers)

	// Only addresses are other ones, and names need no DNS.
	at := map[string]string{"3100": freeAddress(t), "4317": freeAddress(t), "8404": freeAddress(t)}
	config := regexp.MustCompile(`(?m)^  bind :([0-9]+)`).ReplaceAllStringFunc(haproxyConfig(t), func(bind string) string {
		_, port, _ := strings.Cut(bind, ":")
		return "  bind " + at[port]
	})
	for port, name := range map[string]string{"3100": "http", "4317": "grpc"} {
		line := regexp.MustCompile(`(?m)^  server-template gateway 8 gateway:` + port + `(.*)$`)
		rest := line.FindStringSubmatch(config)
		if rest == nil {
			t.Fatalf("no gateways at %s", port)
		}
		var lines []string
		for i, g := range []*program{one, two} {
			_, asked, _ := net.SplitHostPort(g.at["http"])
			lines = append(lines, fmt.Sprintf("  server g%d %s%s", i, g.at[name], strings.ReplaceAll(rest[1], "port 3100", "port "+asked)))
		}
		config = line.ReplaceAllString(config, strings.Join(lines, "\n"))
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), haproxy, "-c", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("haproxy -c: %v\n%s", err, out)
	}
	log := new(lockedBuffer)
	cmd := exec.Command(haproxy, "-db", "-f", file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy:\n%s\n%s", log, config)
		}
	})

	status := "http://" + at["8404"]
	eventually(t, time.Minute, "the proxy has a gateway", func() bool { return healthy(t, status+"/healthz") })
	get(t, status+"/metrics")
	front := &program{at: map[string]string{"http": at["3100"]}, scheme: "http", client: &http.Client{Timeout: 20 * time.Second}}
	t.Cleanup(front.client.CloseIdleConnections)
	front.push(t, "by the proxy")
	if healthy(t, "http://"+at["3100"]+"/metrics") {
		t.Error("the proxy shows the metrics of any gateway")
	}
	eventually(t, time.Minute, "gRPC is answered", func() bool { return grpcHealthy(t, at["4317"]) })

	// One is gone: its share goes to the other, and no push is refused once that is noticed.
	one.stop()
	time.Sleep(3 * time.Second)
	for i := range 10 {
		front.wantStatus(t, "acme", http.StatusNoContent, fmt.Sprint("by the other ", i))
		if !grpcHealthy(t, at["4317"]) {
			t.Error("gRPC is not answered while one gateway is away")
		}
	}
	two.stop()
	eventually(t, time.Minute, "the proxy says that no gateway is left", func() bool { return !healthy(t, status+"/healthz") })
	front.wantStatus(t, "acme", http.StatusServiceUnavailable, "nobody is there")
}

// grpcHealthy makes a call of grpc.health.v1.Health, without a library: an empty message, behind its five bytes of length.
func grpcHealthy(t *testing.T, address string) bool {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{Protocols: &protocols}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/grpc.health.v1.Health/Check", bytes.NewReader(make([]byte, 5)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := client.Do(req)
	if err != nil {
		t.Logf("gRPC: %v", err)
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	// SERVING is 1, in field 1.
	return err == nil && resp.Trailer.Get("Grpc-Status") == "0" && bytes.Equal(body, []byte{0, 0, 0, 0, 2, 8, 1})
}
