package elastic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

type row = decodetest.Row

const (
	testNow = decodetest.Now
	noTime  = `{"create":{"_index":"i"}}` + "\n" + `{"message":"m","@timestamp":"noon"}` + "\n"
)

var testLimits = decodetest.Limits

func entry(labels string, ts int64, line string, metadata []string) row {
	return row{Labels: labels, Time: ts, Line: line, Metadata: metadata}
}

func created(action, index, id string, entry int) Item {
	return Item{Action: action, Index: index, ID: id, Entry: entry, Status: 201}
}

func refused(action, index, id, kind, reason string) Item {
	return Item{Action: action, Index: index, ID: id, Entry: -1, Status: 400, Type: kind, Reason: reason}
}

func sameItems(t testing.TB, got, want []Item) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("item %d\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("got %d items, want %d", len(got), len(want))
	}
}

func TestBulk(t *testing.T) {
	for name, c := range map[string]struct {
		body  string
		rows  []row
		items []Item
	}{
		"filebeat": {
			`{"create":{"_index":"filebeat-8.15.0"}}` + "\n" +
				`{"@timestamp":"2025-10-01T08:15:42.123Z","message":"GET /","log":{"offset":12,"file":{"path":"/var/log/a.log"}},"input":{"type":"filestream"},"host":{"name":"n1"},"service":{"name":"web"}}` + "\n",
			[]row{entry(`{"index":"filebeat-8.15.0","service_name":"web"}`, 1759306542123000000, "GET /", []string{"host.name=n1", "input.type=filestream", "log.file.path=/var/log/a.log", "log.offset=12"})},
			[]Item{created("create", "filebeat-8.15.0", "", 0)},
		},
		"fluent bit, with ids": {
			`{"create":{"_index":"logstash-2025.10.01","_id":"5ec1f8d1-0001"}}` + "\n" +
				`{"@timestamp":"2025-10-01T08:15:42.000Z","log":"one","stream":"stderr"}` + "\n" +
				`{"create":{"_index":"logstash-2025.10.01","_id":"5ec1f8d1-0002","_type":"_doc"}}` + "\n" +
				`{"@timestamp":"2025-10-01T08:15:43.000Z","log":"two","stream":"stderr"}` + "\n",
			[]row{
				entry(`{"index":"logstash-2025.10.01"}`, 1759306542e9, "one", []string{"stream=stderr"}),
				entry(`{"index":"logstash-2025.10.01"}`, 1759306543e9, "two", []string{"stream=stderr"}),
			},
			[]Item{created("create", "logstash-2025.10.01", "5ec1f8d1-0001", 0), created("create", "logstash-2025.10.01", "5ec1f8d1-0002", 1)},
		},
		"fluentd": {
			`{"index":{"_index":"fluentd","_type":"_doc"}}` + "\n" + `{"log":"a","level":"WARN","@timestamp":"2025-10-01T10:15:42.123456789+02:00"}` + "\n",
			[]row{entry(`{"index":"fluentd","level":"warn"}`, 1759306542123456789, "a", []string{"level=WARN"})},
			[]Item{created("index", "fluentd", "", 0)},
		},
		"vector": {
			`{"create":{"_index":"logs-generic-default","dynamic_templates":{"a":{"b":[1]}}}}` + "\n" +
				`{"data_stream":{"type":"logs"},"host":"h","message":"a","timestamp":"2025-10-01T08:15:42.123456789Z"}` + "\n",
			[]row{entry(`{"index":"logs-generic-default"}`, 1759306542123456789, "a", []string{"data_stream.type=logs", "host=h"})},
			[]Item{created("create", "logs-generic-default", "", 0)},
		},
		"rsyslog": {
			`{"index":{"_index": "syslog","_type":"events"}}` + "\n" + `{"message":"a\tb","timereported":"x","severity":"err","@timestamp":"2025-10-01T08:15:42.123456+00:00"}` + "\n",
			[]row{entry(`{"index":"syslog","level":"error"}`, 1759306542123456000, "a\tb", []string{"severity=err", "timereported=x"})},
			[]Item{created("index", "syslog", "", 0)},
		},
		"pino, by the JavaScript client": {
			`{"index":{"_index":"pino"}}` + "\n" + `{"level":30,"time":1759306542123,"pid":7,"msg":"up"}` + "\n",
			[]row{entry(`{"index":"pino","level":"info"}`, 1759306542123000000, "up", []string{"level=30", "pid=7"})},
			[]Item{created("index", "pino", "", 0)},
		},
		"CRLF, empty lines and no last line's end": {
			"\r\n \n" + `{"index":{}}` + "\r\n" + ` {"a":1} ` + "\r\n\n\t\r\n" + `{"create":{"_id":7,"_index":null}}` + "\n" + `{"b":2}`,
			[]row{entry(`{"index":"path"}`, testNow, `{"a":1}`, nil), entry(`{"index":"path"}`, testNow, `{"b":2}`, nil)},
			[]Item{created("index", "path", "", 0), created("create", "path", "7", 1)},
		},
		"every kind of item": {
			`{"create":{"_index":"a","_id":"1"}}` + "\n" + `{"msg":"first","n":1}` + "\n" +
				`{"update":{"_index":"a","_id":"1"}}` + "\n" + `{"doc":{"msg":"changed"}}` + "\n" +
				`{"delete":{"_index":"a","_id":"1"}}` + "\n" +
				`{"index":{"_index":"b","_id":"2","_id":"3"}}` + "\n" + `{"msg":"second","level":"error"}` + "\n" +
				`{"create":{"_index":"a"}}` + "\n" + `["no"]` + "\n" +
				`{"create":{"_index":"a"}}` + "\n" + `{"msg":"no","lost":1,"@timestamp":"noon"}` + "\n" +
				`{"create":{"_index":"a"}}` + "\n\n" +
				`{"create":{"_index":"a"}}` + "\n" + `{"msg":"` + strings.Repeat("x", testLimits.MaxLineBytes+1) + `"}` + "\n" +
				`{"create":{"_index":"b\u00e9"}}` + "\n" + `{"msg":"last"}` + "\n",
			[]row{
				entry(`{"index":"a"}`, testNow, "first", []string{"n=1"}),
				entry(`{"index":"b","level":"error"}`, testNow, "second", nil),
				entry(`{"index":"bé"}`, testNow, "last", nil),
			},
			[]Item{
				created("create", "a", "1", 0),
				refused("update", "a", "1", typeArgument, "line 4: update: an entry of a log can't be changed"),
				refused("delete", "a", "1", typeArgument, "line 5: delete: an entry of a log can't be changed"),
				created("index", "b", "3", 1),
				refused("create", "a", "", typeDocument, "line 9: want an object, got array"),
				refused("create", "a", "", typeDocument, `line 11: @timestamp: timestamp "noon" is neither unix time nor RFC 3339 nor a date`),
				refused("create", "a", "", typeDocument, "line 13: offset 0: want an object, got the end"),
				refused("create", "a", "", typeDocument, "line 15: msg: line of 262145 bytes is longer than 262144 (--max-line-bytes)"),
				created("create", "bé", "", 2),
			},
		},
		"nothing": {"\n\n", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var b logs.Batch
			items, err := Bulk(&b, []byte(c.body), "path", testNow, testLimits, nil)
			decodetest.Must(t, err)
			decodetest.SameRows(t, decodetest.Rows(t, &b), c.rows)
			sameItems(t, items, c.items)
		})
	}
}

func TestBulkWithoutIndex(t *testing.T) {
	var b logs.Batch
	items, err := Bulk(&b, []byte(`{"create":{"_id":"x"}}`+"\n{}\n"+`{"create":{"_index":"","_id":"y"}}`+"\n{}\n"), "", testNow, testLimits, nil)
	decodetest.Must(t, err)
	sameItems(t, items, []Item{
		refused("create", "", "x", typeRequest, "line 2: create: index is missing"),
		refused("create", "", "y", typeRequest, "line 4: create: index is missing"),
	})
	if decodetest.Rows(t, &b); b.Len() > 0 {
		t.Errorf("%d entries", b.Len())
	}
}

// Items are appended to what is there, and streams to what the batch has.
func TestBulkAppends(t *testing.T) {
	var b logs.Batch
	var items []Item
	var err error
	for i := range 3 {
		body := fmt.Sprintf(`{"create":{"_index":"i","_id":"%d"}}`+"\n"+`{"msg":"%d"}`+"\n", i, i) + noTime
		items, err = Bulk(&b, []byte(body), "", testNow, testLimits, items)
		decodetest.Must(t, err)
	}
	if len(items) != 6 || items[4] != created("create", "i", "2", 2) || len(b.Streams) != 1 || b.Len() != 3 {
		t.Errorf("%+v in %+v", items, b)
	}
}

func TestBulkErrors(t *testing.T) {
	const good = `{"create":{}}` + "\n{}\n"
	for body, want := range map[string]string{
		good + "x":                           `line 3: offset 0: want an object, got "x"`,
		good + "[]":                          "line 3: want an object, got array",
		good + "{}":                          `line 3: want create, index, update or delete, got ""`,
		good + `{"upsert":{}}`:               `line 3: want create, index, update or delete, got "upsert"`,
		good + "\n" + `{"Create":{}}`:        `line 4: want create, index, update or delete, got "Create"`,
		good + `{"create":"x"}`:              "line 3: create: want an object, got string",
		good + `{"create":{"_index":{}}}`:    "line 3: _index: want a string, got object",
		good + `{"create":{"_id":true}}`:     "line 3: _id: want a string, got boolean",
		good + `{"create":{"_id":"1"`:        "line 3: offset 20: want ',' or '}', got the end",
		good + `{"create":{"a":[}}`:          `line 3: offset 16: want a value, got "}"`,
		good + `{"create":{},"index":{}}`:    "line 3: want one action a line, got two",
		good + `{"create":{}} {}`:            `line 3: offset 14: want the end of the document, got "{"`,
		good + `{"create":{}}`:               "line 3: create: its document is missing",
		good + `{"update":{}}` + "\n":        "line 3: update: its document is missing",
		good + "{\"create\":\n{}}":           "line 3: offset 10: want an object, got the end",
		strings.Repeat(good, MaxItems) + "{": fmt.Sprintf("line %d: the bulk has more than %d actions", 2*MaxItems+1, MaxItems),
	} {
		var b logs.Batch
		_, err := Bulk(&b, []byte(body), "i", testNow, testLimits, nil)
		decodetest.WantError(t, err, want)
		decodetest.Rows(t, &b)
	}

	var b logs.Batch
	lim := testLimits
	lim.MaxPushBytes = len(good) - 1
	if _, err := Bulk(&b, []byte(good), "i", testNow, lim, nil); err == nil || err.Error() != (&decode.TooLargeError{Limit: lim.MaxPushBytes}).Error() {
		t.Error(err)
	}
}

// The body's buffer is used again: neither the batch nor the items may depend on it.
func TestNothingOfTheBodyIsKept(t *testing.T) {
	for range 3 {
		var b logs.Batch
		body := []byte(`{"create":{"_index":"index","_id":"id"}}` + "\n" + `{"msg":"m","k":"v","service.name":"s"}` + "\n" + noTime)
		items, err := Bulk(&b, body, "", testNow, testLimits, nil)
		decodetest.Must(t, err)
		clear(body)
		decodetest.SameRows(t, decodetest.Rows(t, &b), []row{entry(`{"index":"index","service_name":"s"}`, testNow, "m", []string{"k=v"})})
		sameItems(t, items, []Item{
			created("create", "index", "id", 0),
			refused("create", "i", "", typeDocument, `line 4: @timestamp: timestamp "noon" is neither unix time nor RFC 3339 nor a date`),
		})
	}
}

// reply is the answer to a bulk as clients read it.
type reply struct {
	Took   *int64
	Errors *bool
	Items  []map[string]struct {
		Index  string `json:"_index"`
		ID     string `json:"_id"`
		Status int
		Result string
		Error  *struct{ Type, Reason string }
		Shards struct{ Total, Successful, Failed int } `json:"_shards"`
		SeqNo  *int                                    `json:"_seq_no"`
	}
}

func TestAppendResponse(t *testing.T) {
	items := []Item{
		created("create", "logs-a-b", "", 0), created("index", `q"é<`, "\x00\xff", 1), created("index", "", "", math.MaxInt32),
		refused("update", "a", "1", typeArgument, `line 4: "no"`), refused("create", "a", "", typeDocument, "no"),
	}
	var got reply
	raw := AppendResponse([]byte("  "), items, 17)
	decodetest.Must(t, json.Unmarshal(raw, &got))
	if *got.Took != 17 || !*got.Errors || len(got.Items) != len(items) {
		t.Fatalf("%s", raw)
	}
	ids := map[string]bool{}
	for i, want := range items {
		item, ok := got.Items[i][want.Action]
		if !ok || len(got.Items[i]) != 1 || item.Index != want.Index || item.Status != want.Status || (item.Error != nil) != (want.Entry < 0) {
			t.Errorf("item %d of %s", i, raw)
		}
		if item.Error != nil && (item.Error.Type != want.Type || item.Error.Reason != want.Reason) {
			t.Errorf("item %d: %+v", i, item.Error)
		}
		if item.Error == nil && (item.Result != "created" || item.Shards.Successful != 1 || *item.SeqNo != want.Entry) {
			t.Errorf("item %d: %+v", i, item)
		}
		if want.ID == "" && len(item.ID) != 20 || want.ID == "1" && item.ID != "1" || ids[item.ID] {
			t.Errorf("item %d has the id %q", i, item.ID)
		}
		ids[item.ID] = true
	}
	if id := got.Items[1]["index"].ID; id != "\x00�" {
		t.Errorf("id %q", id)
	}

	if raw := AppendResponse(nil, items[:3], 0); !bytes.HasPrefix(raw, []byte(`{"took":0,"errors":false,"items":[{"create":{"_index":"logs-a-b","_id":"`)) {
		t.Errorf("%s", raw)
	}
	if raw := AppendResponse(nil, nil, 0); string(raw) != `{"took":0,"errors":false,"items":[]}` {
		t.Errorf("%s", raw)
	}
}

func TestAppendError(t *testing.T) {
	const want = `{"error":{"root_cause":[{"type":"illegal_argument_exception","reason":"line 1: \"x\""}],` +
		`"type":"illegal_argument_exception","reason":"line 1: \"x\""},"status":400}`
	if got := AppendError(nil, 400, typeArgument, `line 1: "x"`); string(got) != want {
		t.Errorf("%s", got)
	}
}

func TestAnswers(t *testing.T) {
	known := map[string]bool{}
	for _, a := range Answers {
		if known[a.Method+a.Path] || a.Status != 200 || (a.Body == "") != (a.Method == http.MethodHead) || a.Body != "" && !json.Valid([]byte(a.Body)) {
			t.Errorf("%+v", a)
		}
		known[a.Method+a.Path] = true
	}
	var got struct {
		Version struct {
			Number string
			Flavor string `json:"build_flavor"`
		}
		Tagline string
	}
	decodetest.Must(t, json.Unmarshal([]byte(Answers[0].Body), &got))
	if got.Version.Number != Version || got.Version.Flavor != "default" || got.Tagline != "You Know, for Search" {
		t.Errorf("%+v", got)
	}
}

func FuzzBulk(f *testing.F) {
	for _, body := range []string{
		`{"create":{"_index":"a","_id":"1"}}` + "\n" + `{"message":"m","a":{"b":1}}` + "\n" + noTime,
		`{"delete":{"_index":"a"}}` + "\n\n" + `{"update":{}}` + "\n{}\n" + `{"index":{"_index":1}}` + "\r\n" + `{"k":"\ud83d"}`,
		`{"create":{}}`, "x", "",
	} {
		f.Add([]byte(body), "path")
	}
	f.Fuzz(func(t *testing.T, body []byte, index string) {
		var b logs.Batch
		items, err := Bulk(&b, body, index, testNow, testLimits, nil)
		decodetest.Rows(t, &b)
		entries := 0
		for _, item := range items {
			if item.Entry < 0 {
				if item.Status != 400 || item.Type == "" || item.Reason == "" {
					t.Fatalf("%+v", item)
				}
				continue
			}
			if item.Entry != entries || item.Status != 201 || item.Index == "" || item.Reason != "" {
				t.Fatalf("%+v after %d entries", item, entries)
			}
			entries++
		}
		if entries != b.Len() || err == nil && len(items) > bytes.Count(body, []byte{'\n'})+1 {
			t.Fatalf("%d items, %d of them good, for %d entries", len(items), entries, b.Len())
		}
		var got reply
		decodetest.Must(t, json.Unmarshal(AppendResponse(nil, items, 1), &got))
		if len(got.Items) != len(items) {
			t.Fatalf("%d items in the answer, want %d", len(got.Items), len(items))
		}
	})
}
