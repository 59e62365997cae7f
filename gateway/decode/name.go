package decode

// Unlabeled are the canonical labels of a stream that would have none, as Loki gives them.
const Unlabeled = `{"service_name":"unknown_service"}`

// MaxPath is how many bytes the names of the objects around a value may have for it to be metadata of its own. Longer
// ones would be repeated for each value in there; the object is then metadata as JSON instead.
const MaxPath = 256

// IsLabel tells whether what has this name, a resource attribute of OpenTelemetry or a field of a document, is a label of
// the stream rather than metadata of the line. They are those that Loki's OTLP endpoint makes labels by default,
// https://grafana.com/docs/loki/latest/send-data/otel/#format-considerations, but for k8s.pod.name and
// service.instance.id, whose values have no bound.
func IsLabel(name []byte) bool {
	switch string(name) {
	case "cloud.availability_zone", "cloud.region",
		"container.name",
		"deployment.environment", "deployment.environment.name",
		"k8s.cluster.name", "k8s.container.name", "k8s.cronjob.name", "k8s.daemonset.name", "k8s.deployment.name", "k8s.job.name",
		"k8s.namespace.name", "k8s.replicaset.name", "k8s.statefulset.name",
		"service.name", "service.namespace":
		return true
	}
	return false
}

// LabelName makes a label's name of any: what can't be in one becomes _, and one that begins with a digit gets a _
// before it.
func LabelName(name []byte) string {
	out := make([]byte, 0, len(name)+1)
	if len(name) == 0 || '0' <= name[0] && name[0] <= '9' {
		out = append(out, '_')
	}
	for _, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			c = '_'
		}
		out = append(out, c)
	}
	return string(out)
}
