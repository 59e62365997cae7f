package clients

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/elastic/go-elasticsearch/v8"
	"github.com/elastic/go-elasticsearch/v8/esutil"
)

func TestElasticsearch(t *testing.T) {
	client, err := elasticsearch.NewClient(elasticsearch.Config{
		Addresses: []string{"http://" + at(t, "http")},
		Header:    http.Header{"Tenant-Id": {"elastic"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := client.Info()
	if err != nil || info.IsError() {
		t.Fatalf("%v, %v", info, err)
	}
	info.Body.Close()

	began := time.Now()
	indexer, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{
		Client: client, Index: "logs-shop-default", NumWorkers: 1,
		OnError: func(_ context.Context, err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var taken, refused []string
	for _, item := range []esutil.BulkIndexerItem{
		{Action: "create", Body: strings.NewReader(`{"@timestamp":"2026-06-07T08:09:10.123456789Z","message":"one","log":{"level":"error","offset":12},"service":{"name":"shop"},"tags":["a","b"]}`)},
		{Action: "create", DocumentID: "bad", Body: strings.NewReader(`{"@timestamp":"noon","message":"no"}`)},
		{Action: "delete", DocumentID: "gone"},
		{Action: "index", Index: "other", DocumentID: "2", Body: strings.NewReader(`{"@timestamp":1780819750124,"message":"two"}`)},
		{Action: "create", Body: strings.NewReader(`{"message":"three"}`)},
	} {
		item.OnSuccess = func(_ context.Context, i esutil.BulkIndexerItem, answer esutil.BulkIndexerResponseItem) {
			taken = append(taken, i.Action+" "+answer.Index+" "+answer.Result)
		}
		item.OnFailure = func(_ context.Context, i esutil.BulkIndexerItem, answer esutil.BulkIndexerResponseItem, err error) {
			if err != nil {
				t.Error(err)
			}
			refused = append(refused, i.Action+" "+answer.DocumentID+" "+answer.Error.Type+" "+answer.Error.Reason)
		}
		if err := indexer.Add(t.Context(), item); err != nil {
			t.Fatal(err)
		}
	}
	if err := indexer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(taken, "\n"); got != "create logs-shop-default created\nindex other created\ncreate logs-shop-default created" {
		t.Errorf("taken: %s", got)
	}
	if got := strings.Join(refused, "\n"); got != `create bad document_parsing_exception line 4: @timestamp: timestamp "noon" is neither unix time nor RFC 3339 nor a date`+
		"\ndelete gone illegal_argument_exception line 5: delete: an entry of a log can't be changed" {
		t.Errorf("refused: %s", got)
	}
	if stats := indexer.Stats(); stats.NumFlushed != 3 || stats.NumFailed != 2 || stats.NumRequests != 1 {
		t.Errorf("%+v", stats)
	}
	at := time.Date(2026, 6, 7, 8, 9, 10, 123456789, time.UTC)
	shop := map[string]string{"index": "logs-shop-default", "service_name": "shop", "level": "error"}
	wantRows(t, "elastic", began,
		row{at, shop, "one", map[string]string{"log.offset": "12", "tags": `["a","b"]`}},
		row{time.UnixMilli(1780819750124).UTC(), map[string]string{"index": "other"}, "two", nil},
		row{time.Time{}, map[string]string{"index": "logs-shop-default"}, "three", nil},
	)
}
