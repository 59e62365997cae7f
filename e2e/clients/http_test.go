package clients

import (
	"net/http"
	"testing"
	"time"
)

// What curl --data-binary sends, its content type included.
func TestJSONLines(t *testing.T) {
	const body = `{"_time":"2026-03-04T05:06:07.000000008Z","_msg":"GET /","level":"warn","host":{"name":"web-1","cpu":[1,2]},"took":1.50,"ok":true,"none":null}` + "\n\n" +
		`{"_time":"2026-03-04T05:06:08Z","_msg":"two \"quoted\" ü","service.name":"shop"}` + "\n"
	status, answer := post(t, "/ingest/jsonline?_msg_field=_msg&_time_field=_time&_stream_fields=host.name", headers{
		"Tenant-Id": "jsonline", "Content-Type": "application/x-www-form-urlencoded",
	}, []byte(body))
	if status != http.StatusNoContent {
		t.Fatalf("%d %s", status, answer)
	}
	first := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	wantRows(t, "jsonline", time.Now(),
		row{first, map[string]string{"host_name": "web-1", "level": "warn"}, "GET /", map[string]string{"host.cpu": "[1,2]", "took": "1.50", "ok": "true"}},
		row{first.Truncate(time.Second).Add(time.Second), map[string]string{"service_name": "shop"}, `two "quoted" ü`, nil},
	)
}

func TestJSONLinesAtTheTimeOfThePush(t *testing.T) {
	began := time.Now()
	status, answer := post(t, "/ingest/jsonline", headers{"X-Scope-OrgID": "jsonline-now"}, []byte(`{"msg":"now"}`))
	if status != http.StatusNoContent {
		t.Fatalf("%d %s", status, answer)
	}
	wantRows(t, "jsonline-now", began, row{labels: map[string]string{"service_name": "unknown_service"}, msg: "now"})
}

func TestSplunk(t *testing.T) {
	const success = `{"text":"Success","code":0}`
	at := time.Date(2026, 4, 5, 6, 7, 8, 123000000, time.UTC)
	labels := map[string]string{"host": "web-1", "index": "main", "source": "api", "sourcetype": "access"}
	began := time.Now()
	for path, body := range map[string]string{
		"/services/collector/event": `{"time":1775369228.123,"host":"web-1","source":"api","sourcetype":"access","index":"main","event":"GET / 200","fields":{"region":"eu"}}` +
			`{"time":"1775369229.123","event":{"severity":"error","n":[1, 2]}}`,
		"/services/collector/raw?host=web-1&source=api&sourcetype=access&index=main": "one\ntwo\n",
	} {
		if status, answer := post(t, path, headers{"Tenant-Id": "splunk", "Content-Type": "application/json"}, []byte(body)); status != http.StatusOK || answer != success {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
	}
	wantRows(t, "splunk", began,
		row{at, labels, "GET / 200", map[string]string{"region": "eu"}},
		row{at.Add(time.Second), map[string]string{"level": "error"}, `{"severity":"error","n":[1, 2]}`, nil},
		row{time.Time{}, labels, "one", nil},
		row{time.Time{}, labels, "two", nil},
	)
}
