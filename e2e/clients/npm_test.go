//go:build clients

package clients

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// node runs a client of npm's to its end, in a folder of its own, and returns what it says. env are more variables.
func node(t *testing.T, client, tenant string, env ...string) string {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("npm", client+".mjs"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(environment(), append(env, "GATEWAY=http://"+at(t, "http"), "TENANT="+tenant)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v (install.sh installs what is missing)\n%s", client, err, out)
	}
	return string(out)
}

// wantSilence fails the test if a client says anything.
func wantSilence(t *testing.T, out string) {
	t.Helper()
	if out != "" {
		t.Error(out)
	}
}

func TestPinoLoki(t *testing.T) {
	wantSilence(t, node(t, "pino-loki", "pino-loki"))
	first := time.UnixMilli(1775369228123).UTC()
	wantRows(t, "pino-loki", first,
		row{first, map[string]string{"app": "shop", "hostname": "web-1", "level": "info"}, `{"level":30,"time":1775369228123,"msg":"one"}`, nil},
		row{
			first.Add(time.Millisecond), map[string]string{"app": "shop", "hostname": "web-1", "level": "error", "part": "till"},
			`{"level":50,"time":1775369228124,"meta":{"traceId":"abc","n":7},"part":"till","msg":"two ü"}`, map[string]string{"traceId": "abc", "n": "7"},
		},
	)
}

func TestWinstonLoki(t *testing.T) {
	first := time.Date(2026, 4, 5, 6, 7, 8, 123000000, time.UTC)
	for encoding, metadata := range map[string][2]map[string]string{
		"protobuf": {}, // there it leaves out what belongs to a line
		"json":     {{"level": "info"}, {"level": "debug", "n": "7"}},
	} {
		t.Run(encoding, func(t *testing.T) {
			tenant := "winston-" + encoding
			wantSilence(t, node(t, "winston-loki", tenant, "ENCODING="+encoding))
			wantRows(t, tenant, first,
				row{first, map[string]string{"app": "shop", "level": "info"}, "one", metadata[0]},
				row{first.Add(time.Millisecond), map[string]string{"app": "shop", "level": "debug", "part": "till"}, "two ü", metadata[1]},
			)
		})
	}
}

func TestOpenTelemetryOfNode(t *testing.T) {
	wantSilence(t, node(t, "opentelemetry", "otlp-node"))
	first := time.Unix(1778051289, 123456789).UTC()
	labels := map[string]string{"service_name": "shop"}
	wantRows(t, "otlp-node", first,
		row{first, map[string]string{"service_name": "shop", "level": "warn"}, "order 4711 paid", map[string]string{
			"k8s.pod.name": "shop-1", "scope_name": "till", "scope_version": "1.2.3", "severity_text": "WARN", "severity_number": "13",
			"observed_timestamp": "1778051290000000001", "flags": "1", "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331",
			"order.id": "4711", "order.by.name": `ü "`, "items": `["tea",2,null]`, "raw": "/wAB", "paid": "true", "sum": "12.5", "empty": "",
		}},
		row{time.Unix(1778051290, 0).UTC(), labels, `{"a":"b","c":[1,true]}`, map[string]string{
			"k8s.pod.name": "shop-1", "scope_name": "till", "scope_version": "1.2.3",
		}},
	)
}

func TestElasticsearchOfNode(t *testing.T) {
	if out := node(t, "elasticsearch", "elastic-node"); out != "400 document_parsing_exception no\nYou Know, for Search 3 2 1\n" {
		t.Error(out)
	}
	labels := func(more map[string]string) map[string]string {
		more["index"] = "logs-shop-default"
		return more
	}
	wantRows(t, "elastic-node", time.Now(),
		row{time.Date(2026, 6, 7, 8, 9, 10, 123456789, time.UTC), labels(map[string]string{"service_name": "shop", "level": "error"}), "one", map[string]string{"tags": `["a","b"]`}},
		row{time.UnixMilli(1780819750124).UTC(), labels(map[string]string{}), "two ü", map[string]string{"took": "1.5"}},
	)
}

func TestSplunkLogging(t *testing.T) {
	if out := strings.TrimSpace(node(t, "splunk-logging", "splunk-node")); out != `null 200 {"text":"Success","code":0}` {
		t.Error(out)
	}
	first := time.UnixMilli(1775369228123).UTC()
	wantRows(t, "splunk-node", first,
		row{
			first, map[string]string{"host": "farm.local", "source": "coop", "sourcetype": "httpevent", "index": "main", "level": "error"},
			`{"message":{"temperature":"70F"},"severity":"error"}`, nil,
		},
		row{first.Add(time.Second), map[string]string{"level": "info"}, `{"message":"two ü","severity":"info"}`, nil},
	)
}

// A client that reads. It names no tenant.
func TestMyUnisoftLoki(t *testing.T) {
	first := time.Now().Add(-time.Hour).Truncate(time.Second)
	pushLines(t, defaultTenant, `{"app":"sdk"}`, first, "GET /cart 200", "POST /pay 500")
	var got struct {
		Logs    []string
		Parsed  []map[string]string
		Streams []struct {
			Labels map[string]string
			Values [][]string
		}
		Metrics        [][]any
		Values, Labels []string
		Series         []map[string]string
	}
	out := node(t, "myunisoft-loki", defaultTenant)
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	at := func(i int64) string { return strconv.FormatInt(first.UnixNano()+i, 10) }
	if !slices.Equal(got.Logs, []string{"POST /pay 500", "GET /cart 200"}) {
		t.Errorf("the logs are %q", got.Logs)
	}
	if want := []map[string]string{{"verb": "POST", "path": "/pay", "status": "500"}, {"verb": "GET", "path": "/cart", "status": "200"}}; !reflect.DeepEqual(got.Parsed, want) {
		t.Errorf("parsed they are %v", got.Parsed)
	}
	if len(got.Streams) != 2 || !reflect.DeepEqual(got.Streams[0].Labels, map[string]string{"app": "sdk", "trace_id": "t0"}) ||
		!reflect.DeepEqual(got.Streams[0].Values, [][]string{{at(0), "GET /cart 200"}}) {
		t.Errorf("the streams are %v", got.Streams)
	}
	if want := [][]any{{map[string]any{"app": "sdk"}, "2"}}; !reflect.DeepEqual(got.Metrics, want) {
		t.Errorf("the metrics are %v", got.Metrics)
	}
	if !slices.Contains(got.Values, "sdk") || !slices.Contains(got.Labels, "app") || !reflect.DeepEqual(got.Series, []map[string]string{{"app": "sdk"}}) {
		t.Errorf("the names are %v, %v and %v", got.Values, got.Labels, got.Series)
	}
}
