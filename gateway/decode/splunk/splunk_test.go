package splunk

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

func TestRaw(t *testing.T) {
	all := Defaults{Host: "h", Source: "s", SourceType: "st", Index: "i", Time: []byte("1760000000.25")}
	const allLabels = `{"host":"h","index":"i","source":"s","sourcetype":"st"}`
	for _, c := range []struct {
		name, body string
		d          Defaults
		want       []row
	}{
		{"one line", "hello", Defaults{}, []row{{Labels: unlabeled, Time: testNow, Line: "hello"}}},
		{
			"lines", "a\nb\r\n\n\r\n \r\r\n{\"c\": 1}\n", all,
			[]row{
				{Labels: allLabels, Time: 1760000000250e6, Line: "a"}, {Labels: allLabels, Time: 1760000000250e6, Line: "b"},
				{Labels: allLabels, Time: 1760000000250e6, Line: " \r"}, {Labels: allLabels, Time: 1760000000250e6, Line: `{"c": 1}`},
			},
		},
		{"any bytes", "\x00\xff\n\xfe", Defaults{Index: "i"}, []row{{Labels: `{"index":"i"}`, Time: testNow, Line: "\x00\xff"}, {Labels: `{"index":"i"}`, Time: testNow, Line: "\xfe"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b logs.Batch
			decodetest.Must(t, Raw(&b, []byte(c.body), c.d, testNow, testLimits))
			decodetest.SameRows(t, decodetest.Rows(t, &b), c.want)
			if b.Stamped != (c.d.Time == nil) {
				t.Errorf("Stamped is %v", b.Stamped)
			}
		})
	}
}

func TestRawRefuses(t *testing.T) {
	raw := func(body string, d Defaults) error { return Raw(new(logs.Batch), []byte(body), d, testNow, testLimits) }
	for _, body := range []string{"", "\n", "\r\n\n"} {
		wantError(t, raw(body, Defaults{}), NoData, NoEvent, "there is no event in the push")
	}
	wantError(t, raw("a", Defaults{Time: []byte("now")}), InvalidFormat, NoEvent, `time: timestamp "now" is neither unix time nor RFC 3339 nor a date`)
	wantError(t, raw("a", Defaults{Source: "\xff"}), InvalidFormat, NoEvent, `the value of label "source" is not valid UTF-8: "\xff"`)

	limits := decode.Limits{MaxLineBytes: 3, MaxPushBytes: 10}
	decodetest.Must(t, Raw(new(logs.Batch), []byte("abc\r\ndef\r\n"), Defaults{}, testNow, limits))
	err := Raw(new(logs.Batch), []byte("abc\n\ndefg"), Defaults{}, testNow, limits)
	wantError(t, err, InvalidFormat, 1, "events[1]: line of 4 bytes is longer than 3 (--max-line-bytes)")
	err = Raw(new(logs.Batch), []byte("abc\r\ndef\r\n\n"), Defaults{}, testNow, limits)
	if large, ok := errors.AsType[*decode.TooLargeError](err); !ok || large.Limit != 10 {
		t.Errorf("%v", err)
	}
}

func TestAppendResponse(t *testing.T) {
	for _, c := range []struct {
		code, event int
		want        string
	}{
		{Success, NoEvent, `{"text":"Success","code":0}`},
		{TokenRequired, NoEvent, `{"text":"Token is required","code":2}`},
		{BadAuthorization, NoEvent, `{"text":"Invalid authorization","code":3}`},
		{InvalidToken, NoEvent, `{"text":"Invalid token","code":4}`},
		{NoData, NoEvent, `{"text":"No data","code":5}`},
		{InvalidFormat, 3, `{"text":"Invalid data format","code":6,"invalid-event-number":3}`},
		{ServerError, NoEvent, `{"text":"Internal server error","code":8}`},
		{Busy, NoEvent, `{"text":"Server is busy","code":9}`},
		{EventRequired, 0, `{"text":"Event field is required","code":12,"invalid-event-number":0}`},
		{EventBlank, 0, `{"text":"Event field cannot be blank","code":13,"invalid-event-number":0}`},
		{AckDisabled, NoEvent, `{"text":"ACK is disabled","code":14}`},
		{BadFields, 1, `{"text":"Error in handling indexed fields","code":15,"invalid-event-number":1}`},
		{Healthy, NoEvent, `{"text":"HEC is healthy","code":17}`},
	} {
		if got := string(AppendResponse([]byte("> "), c.code, Text(c.code), c.event)); got != "> "+c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	if got := AppendResponse(nil, 99, "a \"b\"\n\xff", NoEvent); !json.Valid(got) {
		t.Errorf("not JSON: %s", got)
	}
	if got := Text(99); got != "" {
		t.Errorf("%q", got)
	}
}

func FuzzRaw(f *testing.F) {
	for _, body := range []string{"a\nb\r\n\n\r\nc", "\r", "\r\r\n\n"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var b logs.Batch
		err := Raw(&b, body, Defaults{Host: "h"}, testNow, decode.Limits{MaxLineBytes: 1 << 20, MaxPushBytes: 1 << 20})
		var want []string
		for line := range strings.SplitSeq(string(body), "\n") {
			if line = strings.TrimSuffix(line, "\r"); line != "" {
				want = append(want, line)
			}
		}
		if (err != nil) != (len(want) == 0) {
			t.Fatalf("%q: %v", body, err)
		}
		if err != nil {
			return
		}
		var got []string
		for _, r := range decodetest.Rows(t, &b) {
			got = append(got, r.Line)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q: %q, want %q", body, got, want)
		}
		if bytes.ContainsRune(b.Lines, '\n') {
			t.Fatalf("%q", b.Lines)
		}
	})
}
