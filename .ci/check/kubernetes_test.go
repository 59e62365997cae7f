package check

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/go-units"
	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// What deploy/kubernetes has for kubectl apply -k.
const (
	kubernetesBase    = "deploy/kubernetes/base"
	kubernetesExample = "deploy/kubernetes/overlays/example"
)

// kustomized builds a directory as kubectl would, and reads what comes out of it strictly: a field that its type does not have
// is an error.
func kustomized(t *testing.T, dir string) []runtime.Object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), path(dir))
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", resource.CurId(), err)
		}
		objects = append(objects, object)
	}
	return objects
}

// object is one of Kubernetes, with its name and labels.
type object interface {
	runtime.Object
	metav1.Object
}

// all are the objects of a type, by name.
func all[T object](objects []runtime.Object) map[string]T {
	found := map[string]T{}
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found[o.GetName()] = o
		}
	}
	return found
}

// workload is a Deployment or a StatefulSet.
type workload struct {
	selector *metav1.LabelSelector
	corev1.PodTemplateSpec
}

func (w workload) container() corev1.Container { return w.Spec.Containers[0] }

// variable is one of the container's, nil where it has none of that name.
func (w workload) variable(name string) *corev1.EnvVar {
	for _, v := range w.container().Env {
		if v.Name == name {
			return &v
		}
	}
	return nil
}

// port is a port of the container, by its name; 0 where there is none.
func (w workload) port(name string) int32 {
	for _, p := range w.container().Ports {
		if p.Name == name {
			return p.ContainerPort
		}
	}
	return 0
}

// workloads are those of the objects, by name. Each has one container.
func workloads(t *testing.T, objects []runtime.Object) map[string]workload {
	t.Helper()
	found := map[string]workload{}
	for name, d := range all[*appsv1.Deployment](objects) {
		found[name] = workload{d.Spec.Selector, d.Spec.Template}
	}
	for name, s := range all[*appsv1.StatefulSet](objects) {
		found[name] = workload{s.Spec.Selector, s.Spec.Template}
	}
	for name, w := range found {
		if len(w.Spec.Containers) != 1 || len(w.Spec.InitContainers) != 0 {
			t.Fatalf("%s: the checks know pods of one container", name)
		}
	}
	return found
}

// selects tells whether a selector selects labels.
func selects(t *testing.T, selector *metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(of))
}

// configText is the configuration file of the roles.
func configText(t *testing.T, objects []runtime.Object) string {
	t.Helper()
	for _, c := range all[*corev1.ConfigMap](objects) {
		if text, ok := c.Data["logthra.yaml"]; ok {
			return text
		}
	}
	t.Fatal("no ConfigMap has logthra.yaml")
	return ""
}

func configKeys(t *testing.T, objects []runtime.Object) map[string]string {
	t.Helper()
	var keys map[string]string
	if err := yaml.Unmarshal([]byte(configText(t, objects)), &keys); err != nil {
		t.Fatal(err)
	}
	return keys
}

// both runs a test on the base and on the example.
func both(t *testing.T, test func(*testing.T, []runtime.Object)) {
	t.Helper()
	for _, dir := range []string{kubernetesBase, kubernetesExample} {
		t.Run(filepath.Base(dir), func(t *testing.T) { test(t, kustomized(t, dir)) })
	}
}

// Every pod may do as little as the strictest of the Pod Security Standards asks for, and less.
func TestKubernetesPods(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	both(t, func(t *testing.T, objects []runtime.Object) {
		for name, w := range workloads(t, objects) {
			for _, result := range evaluator.EvaluatePod(restricted, &w.ObjectMeta, &w.Spec) {
				if !result.Allowed {
					t.Errorf("%s: %s: %s", name, result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
			c := w.container()
			if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				t.Errorf("%s may write to its image", name)
			}
			if user := w.Spec.SecurityContext.RunAsUser; user == nil || *user == 0 {
				t.Errorf("%s does not say whom it runs as", name)
			}
			// A variable such as LOGTHRA_GATEWAY_PORT could be taken for a flag.
			if links := w.Spec.EnableServiceLinks; links == nil || *links {
				t.Errorf("%s is given variables of the Services", name)
			}
			wantNoToken(t, name, w, objects)
			wantResources(t, name, w)
			wantProbes(t, name, w)
			wantSpread(t, name, w)
			wantVolumes(t, name, w, objects)
		}
	})
}

// wantNoToken checks that a pod has an account of its own, and no token of it.
func wantNoToken(t *testing.T, name string, w workload, objects []runtime.Object) {
	t.Helper()
	if mount := w.Spec.AutomountServiceAccountToken; mount == nil || *mount {
		t.Errorf("%s is given a token of the API server", name)
	}
	account, ok := all[*corev1.ServiceAccount](objects)[w.Spec.ServiceAccountName]
	if !ok || w.Spec.ServiceAccountName != name {
		t.Errorf("%s has the account %q", name, w.Spec.ServiceAccountName)
	} else if mount := account.AutomountServiceAccountToken; mount == nil || *mount {
		t.Errorf("the account %s gives its token to pods", name)
	}
}

func wantResources(t *testing.T, name string, w workload) {
	t.Helper()
	r := w.container().Resources
	limit := r.Limits.Memory().Value()
	if limit == 0 || r.Requests.Memory().IsZero() || r.Requests.Cpu().IsZero() {
		t.Errorf("%s does not say what it needs, and may take: %v", name, r)
	}
	if r.Requests.Memory().Value() > limit {
		t.Errorf("%s asks for more memory than it may take", name)
	}
	v := w.variable("GOMEMLIMIT")
	if v == nil {
		t.Errorf("%s has no GOMEMLIMIT", name)
		return
	}
	if soft, err := units.RAMInBytes(v.Value); err != nil || soft >= limit || soft < limit/2 {
		t.Errorf("%s: GOMEMLIMIT is %s, and the limit of the container %d (%v)", name, v.Value, limit, err)
	}
}

func wantProbes(t *testing.T, name string, w workload) {
	t.Helper()
	c := w.container()
	for kind, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if probe == nil {
			t.Errorf("%s has no %s probe", name, kind)
			continue
		}
		var port intstr.IntOrString
		switch {
		case probe.HTTPGet != nil:
			port = probe.HTTPGet.Port
			if kind != "readiness" && strings.HasPrefix(probe.HTTPGet.Path, "/ready") {
				t.Errorf("%s is killed when an engine is away: its %s probe asks %s", name, kind, probe.HTTPGet.Path)
			}
		case probe.TCPSocket != nil:
			port = probe.TCPSocket.Port
		}
		if w.port(port.StrVal) == 0 {
			t.Errorf("%s: the %s probe asks port %q, which the container does not have", name, kind, port.String())
		}
		// /ready looks for up to two seconds.
		if probe.TimeoutSeconds < 3 {
			t.Errorf("%s: the %s probe waits for %d s", name, kind, probe.TimeoutSeconds)
		}
	}
}

func wantSpread(t *testing.T, name string, w workload) {
	t.Helper()
	keys := map[string]bool{}
	for _, c := range w.Spec.TopologySpreadConstraints {
		keys[c.TopologyKey] = true
		if !selects(t, c.LabelSelector, w.Labels) {
			t.Errorf("%s: the spread over %s counts other pods", name, c.TopologyKey)
		}
	}
	if !keys[corev1.LabelHostname] || !keys[corev1.LabelTopologyZone] {
		t.Errorf("%s is spread over %v", name, keys)
	}
}

// handmade are the Secrets that docs/kubernetes.md has people make.
var handmade = []string{"logthra-nats", "logthra-clickhouse", "logthra-tenants"}

// wantVolumes checks that what a pod is given is there, and is mounted.
func wantVolumes(t *testing.T, name string, w workload, objects []runtime.Object) {
	t.Helper()
	page := read(t, "docs", "kubernetes.md")
	secret := func(secret string) {
		if _, ok := all[*corev1.Secret](objects)[secret]; ok {
			return
		}
		if !slices.Contains(handmade, secret) || !strings.Contains(page, secret) {
			t.Errorf("%s needs the Secret %s, which nobody makes", name, secret)
		}
	}
	mounts := map[string]string{}
	for _, m := range w.container().VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	for _, v := range w.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			if _, ok := all[*corev1.ConfigMap](objects)[v.ConfigMap.Name]; !ok {
				t.Errorf("%s: there is no ConfigMap %s", name, v.ConfigMap.Name)
			}
		case v.Secret != nil:
			secret(v.Secret.SecretName)
		default:
			t.Errorf("%s: the volume %s is neither a ConfigMap nor a Secret", name, v.Name)
		}
		if mounts[v.Name] == "" {
			t.Errorf("%s: the volume %s is not mounted", name, v.Name)
		}
	}
	for _, v := range w.container().Env {
		if v.ValueFrom != nil && v.ValueFrom.SecretKeyRef != nil {
			secret(v.ValueFrom.SecretKeyRef.Name)
		}
	}
}

// Whoever selects pods selects those of one workload, at the ports that they have.
func TestKubernetesSelectors(t *testing.T) {
	both(t, func(t *testing.T, objects []runtime.Object) {
		pods := workloads(t, objects)
		// selected is the workload that a selector selects.
		selected := func(what string, selector *metav1.LabelSelector) workload {
			var names []string
			for name, w := range pods {
				if selects(t, selector, w.Labels) {
					names = append(names, name)
				}
			}
			if len(names) != 1 {
				t.Fatalf("%s selects the pods of %q, want those of one", what, names)
			}
			if !strings.HasSuffix(what, " "+names[0]) {
				t.Errorf("%s selects the pods of %s", what, names[0])
			}
			return pods[names[0]]
		}
		for name, w := range pods {
			selected("workload "+name, w.selector)
			if _, ok := all[*corev1.Service](objects)[name]; !ok {
				t.Errorf("%s has no Service", name)
			}
			if _, ok := all[*policyv1.PodDisruptionBudget](objects)[name]; !ok {
				t.Errorf("a drain of nodes may take all of %s", name)
			}
		}
		for name, s := range all[*corev1.Service](objects) {
			w := selected("Service "+name, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
			for _, p := range s.Spec.Ports {
				if target := w.port(p.TargetPort.StrVal); target != p.Port {
					t.Errorf("port %d of the Service %s leads to port %d (%s)", p.Port, name, target, p.TargetPort.StrVal)
				}
			}
		}
		for name, b := range all[*policyv1.PodDisruptionBudget](objects) {
			selected("PodDisruptionBudget "+name, b.Spec.Selector)
			if b.Spec.MaxUnavailable.IntValue() != 1 {
				t.Errorf("the budget %s allows for %s to be away", name, b.Spec.MaxUnavailable)
			}
		}
	})
}

// A rollout takes nothing away before there is something new, the number is the HPA's, and no more ingesters start than have
// shards.
func TestKubernetesScale(t *testing.T) {
	both(t, func(t *testing.T, objects []runtime.Object) {
		scalers := map[string]*autoscalingv2.HorizontalPodAutoscaler{}
		for _, h := range all[*autoscalingv2.HorizontalPodAutoscaler](objects) {
			scalers[h.Spec.ScaleTargetRef.Kind+" "+h.Spec.ScaleTargetRef.Name] = h
		}
		for name, least := range map[string]int32{"logthra-gateway": 2, "logthra-ingester": 3} {
			d := all[*appsv1.Deployment](objects)[name]
			r := d.Spec.Strategy.RollingUpdate
			if r == nil || r.MaxUnavailable == nil || r.MaxUnavailable.IntValue() != 0 || r.MaxSurge == nil || r.MaxSurge.IntValue() < 1 {
				t.Errorf("%s is rolled out by %v", name, d.Spec.Strategy)
			}
			if d.Spec.Replicas != nil {
				t.Errorf("%s is set back to %d with every apply", name, *d.Spec.Replicas)
			}
			h, ok := scalers["Deployment "+name]
			if !ok {
				t.Errorf("nobody says how many there are of %s", name)
			} else if h.Spec.MinReplicas == nil || *h.Spec.MinReplicas < least || h.Spec.MaxReplicas <= *h.Spec.MinReplicas {
				t.Errorf("of %s there are %s", name, h.Spec.String())
			}
		}
		shards := configKeys(t, objects)["shards"]
		if most := scalers["Deployment logthra-ingester"].Spec.MaxReplicas; shards != fmt.Sprint(most) {
			t.Errorf("%d ingesters may start for %s shards", most, shards)
		}
	})
}

// What the pods call the command with is what it takes: every variable, every key of the file, every path of the probes. It is
// the program itself that is run with them.
func TestKubernetesProgram(t *testing.T) {
	objects := kustomized(t, kubernetesExample)
	keys := configKeys(t, objects)
	pods := workloads(t, objects)
	drain, err := time.ParseDuration(keys["drain-timeout"])
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "logthra.yaml")
	if err := os.WriteFile(file, []byte(configText(t, objects)), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := natsConfig(t, "nats.conf")
	apart(t, opts)
	servers := []*server.Server{runNATS(t, opts)}
	if !servers[0].ReadyForConnections(natsPatience) {
		t.Fatal("the server does not take connections")
	}
	running := map[string]*program{
		"logthra-gateway":  startGateway(t, servers, "--config", file),
		"logthra-ingester": startIngester(t, servers, "clickhouse://127.0.0.1:1/logs", "--config", file),
	}
	for name, p := range running {
		w := pods[name]
		c := w.container()
		role := strings.TrimPrefix(name, "logthra-")
		if len(c.Command) != 0 || !slices.Equal(c.Args, []string{role}) {
			t.Errorf("%s runs %q %q", name, c.Command, c.Args)
		}
		help, err := exec.CommandContext(t.Context(), build(t), role, "--help").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range c.Env {
			if flag, ok := strings.CutPrefix(v.Name, "LOGTHRA_"); ok && !has(string(help), "--"+strings.ToLower(strings.ReplaceAll(flag, "_", "-"))) {
				t.Errorf("%s: logthra %s has no flag for %s", name, role, v.Name)
			}
		}
		if v := w.variable("LOGTHRA_CONFIG"); v == nil || v.Value != mounted(w, "config")+"/logthra.yaml" {
			t.Errorf("%s reads %v, the file is in %s", name, v, mounted(w, "config"))
		}

		for port, key := range map[string]map[string]string{
			"logthra-gateway":  {"http": "http-listen", "grpc": "grpc-listen"},
			"logthra-ingester": {"http": "ingester-http-listen", "grpc": "ingester-listen"},
		}[name] {
			host, number, err := net.SplitHostPort(keys[key])
			if err != nil || host != "0.0.0.0" || number != strconv.Itoa(int(w.port(port))) {
				t.Errorf("%s listens on %s, and the container's port %s is %d (%v)", name, keys[key], port, w.port(port), err)
			}
		}

		if grace := time.Duration(*w.Spec.TerminationGracePeriodSeconds) * time.Second; grace < drain+5*time.Second {
			t.Errorf("%s is killed after %s, and drains for %s", name, grace, drain)
		}

		for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			if probe.HTTPGet == nil {
				continue
			}
			// The ingester is not ready, as there is no ClickHouse.
			want := http.StatusOK
			if name == "logthra-ingester" && probe == c.ReadinessProbe {
				want = http.StatusServiceUnavailable
			}
			if got := p.probe(t, probe.HTTPGet.Path); got != want || probe.HTTPGet.Port.StrVal != "http" {
				t.Errorf("%s answers %d at %s, want %d", name, got, probe.HTTPGet.Path, want)
			}
		}
	}
	if got, want := keys["tenants-file"], mounted(pods["logthra-gateway"], "tenants")+"/tenants.yaml"; got != want {
		t.Errorf("the gateway reads %s, the tenants are in %s", got, want)
	}
}

// mounted is where a volume is mounted.
func mounted(w workload, volume string) string {
	for _, m := range w.container().VolumeMounts {
		if m.Name == volume && m.SubPath == "" {
			return m.MountPath
		}
	}
	return ""
}

// probe asks for a path, and returns the status.
func (p *program) probe(t *testing.T, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.scheme+"://"+p.at["http"]+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
