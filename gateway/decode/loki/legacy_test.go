package loki

import (
	"testing"

	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

func TestLegacyJSON(t *testing.T) {
	var b logs.Batch
	decodetest.Must(t, JSON(&b, []byte(`{"streams": [
		{"entries": [
			{"ts": "2024-01-01T00:00:00.5Z", "line": "first \"quoted\""},
			{"line": "second", "ts": "1704067200000000007", "structuredMetadata": {"trace_id": "1f"}, "other": [1]},
			{"ts": "", "line": ""}
		], "labels": "{app=\"api\", level=\"info\"}"},
		{"labels": "{app=\"api\"}", "entries": null},
		{"stream": {"app": "api"}, "entries": [{"ts": "1704067200000000008", "line": "mixed"}]}
	]}`), decodetest.Now, decodetest.Limits))
	const labels = `{"app":"api","level":"info"}`
	decodetest.SameRows(t, decodetest.Rows(t, &b), []row{
		{Labels: labels, Time: newYear + 5e8, Line: `first "quoted"`},
		{Labels: labels, Time: newYear + 7, Line: "second", Metadata: []string{"trace_id=1f"}},
		{Labels: labels, Time: decodetest.Now},
		{Labels: api, Time: newYear + 8, Line: "mixed"},
	})
}

func TestLegacyJSONRefuses(t *testing.T) {
	const head = `{"streams":[{"labels":"{app=\"api\"}","entries":`
	for in, want := range map[string]string{
		`{"streams":[{"labels":{"app":"api"}}]}`:                        "streams[0].labels: want a string, got object",
		`{"streams":[{"labels":"{app}"}]}`:                              `streams[0].labels: offset 4: want '=', got "}"`,
		`{"streams":[{"labels":"{}","entries":[]}]}`:                    "streams[0].labels: a stream needs at least one label",
		`{"streams":[{"labels":"{a=\"b\"}","stream":{"a":"b"}}]}`:       `streams[0]: "stream" is given twice`,
		`{"streams":[{"labels":"{a=\"b\"}","values":[],"entries":[]}]}`: `streams[0]: "entries" is given twice`,
		head + `{}}]}`:                                          "streams[0].entries: want an array, got object",
		head + `[["1","x"]]}]}`:                                 "streams[0].entries[0]: want an object, got array",
		head + `[{"ts":"1","line":1}]}]}`:                       "streams[0].entries[0].line: want a string, got number",
		head + `[{"ts":"now","line":""}]}]}`:                    `streams[0].entries[0].ts: timestamp "now" is neither unix nanoseconds nor RFC 3339 nor a date`,
		head + `[{"line":"a","line":"b"}]}]}`:                   `streams[0].entries[0]: "line" is given twice`,
		head + `[{"line":"a","structuredMetadata":{"k":1}}]}]}`: `streams[0].entries[0].structuredMetadata["k"]: want a string, got number`,
		head + `[{"line":"a","structuredMetadata":[]}]}]}`:      "streams[0].entries[0].structuredMetadata: want an object, got array",
	} {
		var b logs.Batch
		decodetest.WantError(t, JSON(&b, []byte(in), decodetest.Now, decodetest.Limits), want)
	}
}
