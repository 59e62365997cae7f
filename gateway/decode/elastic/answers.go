package elastic

// Answer is what a client is told that asks for something else than a bulk.
type Answer struct {
	Method, Path string // of the request; :name stands for a part of the path, and * for any number of them
	Status       int
	Body         string // JSON, or nothing
}

// Every answer has this header: Elastic's own clients speak with nothing else.
const (
	ProductHeader = "X-Elastic-Product"
	Product       = "Elasticsearch"
)

// Version is the release of Elasticsearch whose answers these are. Beats refuse a server that is older than they are,
// in its first two numbers, unless told otherwise: this is the last of its major version.
const Version = "8.19.0"

const (
	info = `{"name":"logthra","cluster_name":"logthra","cluster_uuid":"bG9ndGhyYWxvZ3RocmFsbw",` +
		`"version":{"number":"` + Version + `","build_flavor":"default","build_type":"tar",` + build + `,"build_snapshot":false,` +
		`"lucene_version":"9.12.2","minimum_wire_compatibility_version":"7.17.0","minimum_index_compatibility_version":"7.0.0"},` +
		`"tagline":"You Know, for Search"}`
	build = `"build_hash":"0000000000000000000000000000000000000000","build_date":"2025-07-23T00:00:00.000Z"`

	// Beats and Logstash want an active license; basic is what Elastic gives away.
	uid     = `"uid":"6c6f6774-6872-4100-8000-000000000000"`
	license = `{"license":{"status":"active",` + uid + `,"type":"basic","issue_date":"2025-07-23T00:00:00.000Z","issue_date_in_millis":1753228800000,` +
		`"max_nodes":1000,"max_resource_units":null,"issued_to":"logthra","issuer":"elasticsearch","start_date_in_millis":-1}}`
	xpack = `{"build":{"hash":"0000000000000000000000000000000000000000","date":"2025-07-23T00:00:00.000Z"},` +
		`"license":{` + uid + `,"type":"basic","mode":"basic","status":"active"},` +
		`"features":{"data_streams":{"available":true,"enabled":true},"ilm":{"available":true,"enabled":true},"security":{"available":true,"enabled":false}},` +
		`"tagline":"You know, for X"}`

	nodes  = `{"_nodes":{"total":1,"successful":1,"failed":0},"cluster_name":"logthra","nodes":{}}`
	health = `{"cluster_name":"logthra","status":"green","timed_out":false,"number_of_nodes":1,"number_of_data_nodes":1,` +
		`"active_primary_shards":1,"active_shards":1,"relocating_shards":0,"initializing_shards":0,"unassigned_shards":0,` +
		`"delayed_unassigned_shards":0,"number_of_pending_tasks":0,"number_of_in_flight_fetch":0,"task_max_waiting_in_queue_millis":0,` +
		`"active_shards_percent_as_number":100.0}`
	catHealth = `[{"cluster":"logthra","status":"green","node.total":"1","node.data":"1","shards":"1","pri":"1","active_shards_percent":"100.0%"}]`

	acknowledged = `{"acknowledged":true}`
)

// Answers are what clients ask before their first bulk. Policies, templates, pipelines and data streams are always
// there already, so that a client does not set them up, and may be set all the same, to no effect: there is nothing
// that they could apply to. The last, of any index, has to be tried after everything else.
var Answers = []Answer{
	{"GET", "/", 200, info},
	{"HEAD", "/", 200, ""},
	{"GET", "/_license", 200, license},
	{"GET", "/_xpack", 200, xpack},

	// Beats and Logstash, as they set themselves up; https://www.elastic.co/docs/reference/beats/filebeat/ilm
	{"GET", "/_ilm/policy/:name", 200, "{}"},
	{"HEAD", "/_ilm/policy/:name", 200, ""},
	{"PUT", "/_ilm/policy/:name", 200, acknowledged},
	{"GET", "/_index_template/:name", 200, `{"index_templates":[]}`},
	{"HEAD", "/_index_template/:name", 200, ""},
	{"PUT", "/_index_template/:name", 200, acknowledged},
	{"GET", "/_component_template/:name", 200, `{"component_templates":[]}`},
	{"HEAD", "/_component_template/:name", 200, ""},
	{"PUT", "/_component_template/:name", 200, acknowledged},
	{"GET", "/_template/:name", 200, "{}"},
	{"HEAD", "/_template/:name", 200, ""},
	{"PUT", "/_template/:name", 200, acknowledged},
	{"GET", "/_ingest/pipeline/:name", 200, "{}"},
	{"HEAD", "/_ingest/pipeline/:name", 200, ""},
	{"PUT", "/_ingest/pipeline/:name", 200, acknowledged},
	{"GET", "/_data_stream/:name", 200, `{"data_streams":[]}`},
	{"HEAD", "/_data_stream/:name", 200, ""},
	{"PUT", "/_data_stream/:name", 200, acknowledged},

	// Logstash and the client libraries, where they look for more hosts: there are none.
	{"GET", "/_nodes", 200, nodes},
	{"GET", "/_nodes/*", 200, nodes},

	// Health, as Vector and rsyslog ask for it.
	{"GET", "/_cluster/health", 200, health},
	{"HEAD", "/_cluster/health", 200, ""},
	{"GET", "/_cat/health", 200, catHealth},
	{"HEAD", "/_cat/health", 200, ""},

	// Logstash and Fluentd, before they create an index.
	{"HEAD", "/:index", 200, ""},
}
