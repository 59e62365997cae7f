package check

import (
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// end is one end of a connection: a pod, or an address outside of the cluster.
type end struct {
	namespace string // empty outside of the cluster
	labels    map[string]string
	address   string // where it counts
}

// namespaces are those that the policies tell apart, with their labels.
var namespaces = map[string]map[string]string{
	"logthra": {}, "apps": {"logthra-access": "shippers"}, "others": {}, "monitoring": {}, "kube-system": {}, "clickhouse": {},
}

// matches tells whether a rule's peer is this end. here is the policy's namespace.
func matches(t *testing.T, peer networkingv1.NetworkPolicyPeer, e end, here string) bool {
	t.Helper()
	if peer.IPBlock != nil {
		prefix, err := netip.ParsePrefix(peer.IPBlock.CIDR)
		if err != nil {
			t.Fatal(err)
		}
		address, err := netip.ParseAddr(e.address)
		return err == nil && prefix.Contains(address)
	}
	if e.namespace == "" {
		return false
	}
	if peer.NamespaceSelector == nil {
		if e.namespace != here {
			return false
		}
	} else {
		of := maps.Clone(namespaces[e.namespace])
		of[corev1.LabelMetadataName] = e.namespace
		if !selects(t, peer.NamespaceSelector, of) {
			return false
		}
	}
	return peer.PodSelector == nil || selects(t, peer.PodSelector, e.labels)
}

// reaches tells whether the policies let one end connect to a port of the other. Each end's own policies have to allow it; an end
// that no policy selects allows all.
func reaches(t *testing.T, objects []runtime.Object, from, to end, protocol corev1.Protocol, port int32) bool {
	t.Helper()
	// named is a port's number at the end that is connected to.
	named := func(name string) int32 {
		for _, w := range workloads(t, objects) {
			if labels.Equals(w.Labels, to.labels) {
				return w.port(name)
			}
		}
		return 0
	}
	one := func(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, other end, here string) bool {
		return (len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool { return matches(t, p, other, here) })) &&
			slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
				number := p.Port.IntVal
				if p.Port.StrVal != "" {
					number = named(p.Port.StrVal)
				}
				return *p.Protocol == protocol && number == port
			})
	}
	out, in := true, true // as long as no policy selects the end
	leaves, enters := false, false
	for _, policy := range all[*networkingv1.NetworkPolicy](objects) {
		applies := func(e end, way networkingv1.PolicyType) bool {
			return e.namespace == policy.Namespace && selects(t, &policy.Spec.PodSelector, e.labels) && slices.Contains(policy.Spec.PolicyTypes, way)
		}
		if applies(from, networkingv1.PolicyTypeEgress) {
			out = false
			for _, rule := range policy.Spec.Egress {
				leaves = leaves || one(rule.To, rule.Ports, to, policy.Namespace)
			}
		}
		if applies(to, networkingv1.PolicyTypeIngress) {
			in = false
			for _, rule := range policy.Spec.Ingress {
				enters = enters || one(rule.From, rule.Ports, from, policy.Namespace)
			}
		}
	}
	return (out || leaves) && (in || enters)
}

// Who has to reach whom does, and nobody else.
func TestKubernetesNetwork(t *testing.T) {
	objects := kustomized(t, kubernetesExample)
	pod := func(name string) end { return end{"logthra", workloads(t, objects)[name].Labels, ""} }
	ends := map[string]end{
		"gateway": pod("logthra-gateway"), "ingester": pod("logthra-ingester"), "nats": pod("nats"),
		"shipper":    {"apps", map[string]string{"app": "fluent-bit"}, ""},
		"stranger":   {"others", map[string]string{"app": "else"}, ""},
		"neighbor":   {"logthra", map[string]string{"app": "else"}, ""},
		"prometheus": {"monitoring", map[string]string{"app.kubernetes.io/name": "prometheus"}, ""},
		"grafana":    {"monitoring", map[string]string{"app.kubernetes.io/name": "grafana"}, ""},
		"pretender":  {"logthra", map[string]string{"app.kubernetes.io/name": "prometheus"}, ""},
		"dns":        {"kube-system", map[string]string{"k8s-app": "kube-dns"}, ""},
		"node's dns": {"", nil, "169.254.20.10"},
		"clickhouse": {"clickhouse", map[string]string{"app": "clickhouse"}, ""},
		"internet":   {"", nil, "192.0.2.1"},
	}
	allowed := map[string]bool{}
	for _, line := range []string{
		"shipper > gateway > 3100", "shipper > gateway > 4317",
		"prometheus > gateway > 3100", "prometheus > ingester > 9012",
		"gateway > nats > 4222", "ingester > nats > 4222", "nats > nats > 6222",
		"ingester > clickhouse > 9000", "ingester > clickhouse > 9440",
		"gateway > clickhouse > 9000", "gateway > clickhouse > 9440", "gateway > ingester > 9011",
		"gateway > dns > 53", "ingester > dns > 53", "nats > dns > 53",
		"gateway > node's dns > 53", "ingester > node's dns > 53", "nats > node's dns > 53",
	} {
		allowed[line] = true
	}
	ours := []string{"gateway", "ingester", "nats"}
	for _, from := range slices.Sorted(maps.Keys(ends)) {
		for _, to := range slices.Sorted(maps.Keys(ends)) {
			if !slices.Contains(ours, from) && !slices.Contains(ours, to) {
				continue
			}
			for _, port := range []int32{53, 80, 3100, 4222, 4317, 6222, 8222, 9000, 9011, 9012, 9440} {
				line := from + " > " + to + " > " + strconv.Itoa(int(port))
				if got := reaches(t, objects, ends[from], ends[to], corev1.ProtocolTCP, port); got != allowed[line] {
					t.Errorf("%s: allowed is %t", line, got)
				}
				udp := allowed[line] && port == 53
				if got := reaches(t, objects, ends[from], ends[to], corev1.ProtocolUDP, port); got != udp {
					t.Errorf("%s, UDP: allowed is %t", line, got)
				}
			}
		}
	}
}

// The base has a policy that denies all, and does not know where NATS is.
func TestKubernetesNetworkBase(t *testing.T) {
	objects := kustomized(t, kubernetesBase)
	for name, w := range workloads(t, objects) {
		ours := end{"", w.Labels, ""} // the base has no namespace
		for _, policy := range all[*networkingv1.NetworkPolicy](objects) {
			if len(policy.Spec.Ingress)+len(policy.Spec.Egress) == 0 && selects(t, &policy.Spec.PodSelector, ours.labels) && len(policy.Spec.PolicyTypes) == 2 {
				ours.namespace = "denied"
			}
		}
		if ours.namespace == "" {
			t.Errorf("what no policy allows is allowed to %s", name)
		}
		outside := end{"", nil, "192.0.2.1"}
		for port, want := range map[int32]bool{4222: true, 9000: true, 443: false} {
			if got := reaches(t, objects, end{"", w.Labels, ""}, outside, corev1.ProtocolTCP, port); got != want {
				t.Errorf("%s reaches port %d anywhere: %t", name, port, got)
			}
		}
	}
}

// The three servers of the example have the configuration that is tested, know each other, and are what the roles are told.
func TestKubernetesNATS(t *testing.T) {
	objects := kustomized(t, kubernetesExample)
	set := all[*appsv1.StatefulSet](objects)["nats"]
	w := workloads(t, objects)["nats"]
	service := all[*corev1.Service](objects)[set.Spec.ServiceName]
	if service == nil || service.Spec.ClusterIP != corev1.ClusterIPNone || !service.Spec.PublishNotReadyAddresses {
		t.Error("the servers do not find each other: their Service is not headless, or leaves out those that are not ready")
	}
	if set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Error("the second server waits for the first, which waits for the second")
	}
	var hosts []string
	for i := range *set.Spec.Replicas {
		hosts = append(hosts, set.Name+"-"+strconv.Itoa(int(i))+"."+set.Spec.ServiceName)
	}

	dir := t.TempDir()
	for _, v := range w.Spec.Volumes {
		if v.ConfigMap == nil {
			continue
		}
		for name, text := range all[*corev1.ConfigMap](objects)[v.ConfigMap.Name].Data {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if copied, err := os.ReadFile(filepath.Join(dir, "nats.conf")); err != nil || string(copied) != read(t, "deploy", "nats", "nats.conf") {
		t.Errorf("nats.conf of the example is not deploy/nats/nats.conf (%v)", err)
	}
	t.Setenv("NATS_SERVER_NAME", hosts[0])
	if v := w.variable("NATS_SERVER_NAME"); v == nil || v.ValueFrom == nil || v.ValueFrom.FieldRef.FieldPath != "metadata.name" {
		t.Errorf("the servers are called %v", v)
	}
	if want := []string{"--config", mounted(w, "config") + "/cluster.conf"}; !slices.Equal(w.container().Args, want) {
		t.Errorf("the servers are run with %q, want %q", w.container().Args, want)
	}
	opts, err := server.ProcessConfigFile(filepath.Join(dir, "cluster.conf"))
	if err != nil {
		t.Fatal(err)
	}
	wantWAL(t, "cluster.conf", opts)
	if opts.ServerName != hosts[0] {
		t.Errorf("the server %s is called %q", hosts[0], opts.ServerName)
	}
	wantHosts(t, "the routes", opts.Routes, hosts, opts.Cluster.Port)
	for name, port := range map[string]int{"client": opts.Port, "cluster": opts.Cluster.Port, "monitor": opts.HTTPPort} {
		if int(w.port(name)) != port {
			t.Errorf("the port %s is %d, the server listens on %d", name, w.port(name), port)
		}
	}

	claim := set.Spec.VolumeClaimTemplates[0]
	if size := claim.Spec.Resources.Requests.Storage().Value(); size <= opts.JetStreamMaxStore || mounted(w, claim.Name) != opts.StoreDir {
		t.Errorf("a volume of %d bytes at %q, for max_file_store %d at %q", size, mounted(w, claim.Name), opts.JetStreamMaxStore, opts.StoreDir)
	}
	if image := "nats:" + strings.TrimPrefix(required(t, natsModule, "go.mod"), "v") + "-alpine"; w.container().Image != image {
		t.Errorf("the image is %s, the product embeds %s", w.container().Image, image)
	}
	if got := configKeys(t, objects)["replicas"]; got != strconv.Itoa(len(hosts)) {
		t.Errorf("the roles want %s copies of a shard on %d servers", got, len(hosts))
	}
	v := workloads(t, objects)["logthra-gateway"].variable("LOGTHRA_NATS_URL")
	var told []*url.URL
	for text := range strings.SplitSeq(string(all[*corev1.Secret](objects)[v.ValueFrom.SecretKeyRef.Name].Data[v.ValueFrom.SecretKeyRef.Key]), ",") {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, u)
	}
	wantHosts(t, "the roles", told, hosts, opts.Port)

	// The probes ask for what such a server answers.
	t.Setenv("NATS_SERVER_NAME", "nats-0")
	apart(t, opts)
	opts.Cluster, opts.Routes = server.ClusterOpts{}, nil
	s := runNATS(t, opts)
	if !s.ReadyForConnections(natsPatience) {
		t.Fatal("the server does not take connections")
	}
	for _, probe := range []*corev1.Probe{w.container().StartupProbe, w.container().ReadinessProbe, w.container().LivenessProbe} {
		if probe.HTTPGet.Port.StrVal != "monitor" {
			t.Errorf("a probe asks port %s", probe.HTTPGet.Port.StrVal)
		}
		get(t, "http://"+s.MonitorAddr().String()+probe.HTTPGet.Path)
	}
}

func wantHosts(t *testing.T, who string, urls []*url.URL, hosts []string, port int) {
	t.Helper()
	var known, want []string
	for _, u := range urls {
		known = append(known, u.Scheme+"://"+u.Host)
	}
	for _, host := range hosts {
		want = append(want, "nats://"+net.JoinHostPort(host, strconv.Itoa(port)))
	}
	if !slices.Equal(known, want) {
		t.Errorf("%s know %q, want %q", who, known, want)
	}
}

// Prometheus asks each pod once, under the name of the job that the rules know.
func TestKubernetesPrometheus(t *testing.T) {
	var config struct {
		ScrapeConfigs []struct {
			JobName    string `yaml:"job_name"`
			Kubernetes []struct {
				Role       string
				Namespaces struct{ Names []string }
				Selectors  []struct{ Role, Label string }
			} `yaml:"kubernetes_sd_configs"`
			Relabel []*relabel.Config `yaml:"relabel_configs"`
		} `yaml:"scrape_configs"`
	}
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "deploy", "kubernetes", "prometheus", "scrape.yml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&config); err != nil {
		t.Fatal(err)
	}
	objects := kustomized(t, kubernetesExample)
	pods := workloads(t, objects)
	var jobs []string
	for _, job := range config.ScrapeConfigs {
		jobs = append(jobs, job.JobName)
		sd := job.Kubernetes[0]
		if sd.Role != "pod" || sd.Selectors[0].Role != "pod" || !slices.Equal(sd.Namespaces.Names, names(all[*corev1.Namespace](objects))) {
			t.Errorf("%s looks for %+v", job.JobName, sd)
		}
		selector, err := labels.Parse(sd.Selectors[0].Label)
		if err != nil {
			t.Fatal(err)
		}
		for name, w := range pods {
			if asked := selector.Matches(labels.Set(w.Labels)); asked != (name == job.JobName) {
				t.Errorf("%s asks %s: %t", job.JobName, name, asked)
			}
		}
		for _, r := range job.Relabel {
			if err := r.Validate(model.UTF8Validation); err != nil {
				t.Fatal(err)
			}
		}
		for _, phase := range []string{"Running", "Succeeded"} {
			var asked []string
			for _, port := range pods[job.JobName].container().Ports {
				b := promlabels.NewBuilder(promlabels.FromMap(map[string]string{
					"__meta_kubernetes_namespace": "logthra", "__meta_kubernetes_pod_name": job.JobName + "-0", "__meta_kubernetes_pod_phase": phase,
					"__meta_kubernetes_pod_container_port_name": port.Name,
				}))
				if !relabel.ProcessBuilder(b, job.Relabel...) {
					continue
				}
				asked = append(asked, port.Name)
				if b.Get("namespace") != "logthra" || b.Get("pod") != job.JobName+"-0" {
					t.Errorf("%s: the labels are %s", job.JobName, b.Labels())
				}
			}
			if want := map[string][]string{"Running": {"http"}}[phase]; !slices.Equal(asked, want) {
				t.Errorf("%s: of a pod that is %s it asks %q", job.JobName, phase, asked)
			}
		}
	}
	if want := []string{"logthra-gateway", "logthra-ingester"}; !slices.Equal(jobs, want) {
		t.Errorf("the jobs are %q, the rules know %q", jobs, want)
	}
}

// What the HPA of the ingesters goes by is made by the adapter, of a metric that the program has.
func TestKubernetesBacklog(t *testing.T) {
	var adapter struct {
		Rules struct {
			Default  bool
			External []struct {
				SeriesQuery string `yaml:"seriesQuery"`
				Resources   struct {
					Overrides map[string]struct{ Resource string }
				}
				Name         struct{ As string }
				MetricsQuery string `yaml:"metricsQuery"`
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "deploy", "kubernetes", "prometheus", "adapter.yaml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&adapter); err != nil {
		t.Fatal(err)
	}
	rule := adapter.Rules.External[0]
	known := exposed(t)
	wantKnown(t, "adapter.yaml", rule.SeriesQuery, known, nil)
	series, err := selectors(rule.SeriesQuery)
	if err != nil || len(series) != 1 {
		t.Fatalf("%q: %v", rule.SeriesQuery, err)
	}
	query := strings.NewReplacer("<<.Series>>", series[0].Name, "<<.LabelMatchers>>", "").Replace(rule.MetricsQuery)
	wantKnown(t, "adapter.yaml", query, known, nil)
	if !strings.Contains(read(t, "docs", "metrics.md"), "`"+series[0].Name+"`") {
		t.Errorf("docs/metrics.md does not list %s", series[0].Name)
	}
	// Every ingester tells of all shards.
	if !strings.Contains(query, "max by (namespace, shard)") {
		t.Errorf("%s adds up what each ingester tells", query)
	}
	h := all[*autoscalingv2.HorizontalPodAutoscaler](kustomized(t, kubernetesBase))["logthra-ingester"]
	if len(h.Spec.Metrics) != 1 || h.Spec.Metrics[0].External == nil || h.Spec.Metrics[0].External.Metric.Name != rule.Name.As {
		t.Errorf("the HPA goes by %v, the adapter makes %s", h.Spec.Metrics, rule.Name.As)
	}
}

// names are the keys of a map, sorted.
func names[T any](of map[string]T) []string { return slices.Sorted(maps.Keys(of)) }
