package gateway

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

// at is a JSON push of one line whose timestamp is this element.
func at(timestamp string) []byte {
	return []byte(`{"streams":[{"stream":{"app":"api"},"values":[["1760000000123456789","fine"],[` + timestamp + `,"x"]]}]}`)
}

// Two pushes of each case follow each other. What tells a retry from a second push is the key, or the
// content if all of its timestamps are fine enough.
func TestIdempotency(t *testing.T) {
	f := start(t)
	key := []string{"Idempotency-Key", "k"}
	otherKey := []string{"Idempotency-Key", "l"}
	longest := []string{"Idempotency-Key", strings.Repeat("k", 255)}
	a, b := asJSON(one("a")), asJSON(one("b"))
	for i, c := range []struct {
		name                        string
		first, second               []byte
		firstHeaders, secondHeaders []string
		records, status             int // of the second
	}{
		{"one key", a, a, key, key, 1, 204},
		{"one key of 255 bytes", a, a, longest, longest, 1, 204},
		{"one key, other content", a, b, key, key, 1, 400},
		{"two keys, one content", a, a, key, otherKey, 2, 204},
		{"a key, then none", a, a, key, nil, 2, 204},
		{"one content", a, a, nil, nil, 1, 204},
		{"other content", a, b, nil, nil, 2, 204},
		{"nanoseconds", at(`"1760000000000000001"`), at(`"1760000000000000001"`), nil, nil, 1, 204},
		{"milliseconds", at(`"2024-01-01T00:00:00.001Z"`), at(`"2024-01-01T00:00:00.001Z"`), nil, nil, 1, 204},
		{"a whole second", at(`"1760000000000000000"`), at(`"1760000000000000000"`), nil, nil, 2, 204},
		{"a whole second as text", at(`"2024-01-01T00:00:01Z"`), at(`"2024-01-01T00:00:01Z"`), nil, nil, 2, 204},
		{"a date", at(`"2024-01-01"`), at(`"2024-01-01"`), nil, nil, 2, 204},
		{"no timestamp", at(`""`), at(`""`), nil, nil, 2, 204},
		{"null for a timestamp", at(`null`), at(`null`), nil, nil, 2, 204},
		{"one key, a whole second", at(`"1760000000000000000"`), at(`"1760000000000000000"`), key, key, 1, 204},
		{"one key, a date, other content", at(`"2024-01-01"`), at(`"2024-01-02"`), key, key, 1, 400},
		{"one key, no timestamp", at(`""`), at(`""`), key, key, 1, 204},
		{"one key, a timestamp and then none", a, at(`""`), key, key, 1, 204},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenant := []string{"tenant-id", fmt.Sprint("t", i)}
			wantTaken(t, f.post(t, "/api/push", bytes.NewReader(c.first), append(tenant, c.firstHeaders...)...))
			second := f.post(t, "/api/push", bytes.NewReader(c.second), append(tenant, c.secondHeaders...)...)
			if second.Status != c.status || c.status == 400 && !strings.Contains(second.Error, "the idempotency key was used for another push") {
				t.Errorf("%d: %+v", second.Status, second.refusal)
			}
			if n := len(f.landed(t)); n != c.records {
				t.Errorf("%d records, not %d", n, c.records)
			}
		})
	}
	f.wantIdle(t)
}

// Neither keys nor contents of two tenants meet.
func TestIdempotencyIsATenantsOwn(t *testing.T) {
	f := start(t)
	for _, headers := range [][]string{{"Idempotency-Key", "k"}, nil} {
		for _, tenant := range []string{"a", "b", "A", "ab"} {
			wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asJSON(one("x"))), append(headers, "tenant-id", tenant)...))
			f.wantLanded(t, rowsOf(tenant, one("x")))
		}
	}
	wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asJSON(one("another"))), "tenant-id", "c", "Idempotency-Key", "k"))
	f.wantLanded(t, rowsOf("c", one("another")))
}

// A retry is recognized whichever gateway it comes to, by whichever way, and in whichever form.
func TestRetryElsewhere(t *testing.T) {
	f := start(t)
	other := start(t, func(s *setup) { s.nats = f.nats })
	s := stream{map[string]string{"app": "api", "env": "prod"}, []entry{
		{someTime, "a", map[string]string{"user": "x"}}, {someTime + 1, "b", nil},
	}}
	for _, headers := range [][]string{nil, {"idempotency-key", "k"}} {
		tenant := fmt.Sprint("t", len(headers))
		headers = append([]string{"tenant-id", tenant}, headers...)
		wantTaken(t, f.post(t, "/api/push", bytes.NewReader(asJSON(s)), headers...))
		f.wantLanded(t, rowsOf(tenant, s))
		wantTaken(t, other.post(t, "/loki/api/v1/push", bytes.NewReader(asJSON(s)), headers...))
		wantTaken(t, other.post(t, "/loki/api/v1/push", bytes.NewReader(asSnappy(s)), append(headers, "Content-Type", protoType)...))
		response, err := other.push(t, asRequest(s), headers...)
		must(t, err)
		if !response.GetDuplicate() || response.GetEntries() != 2 {
			t.Error(response)
		}
		if records := f.landed(t); len(records) != 0 {
			t.Errorf("%d more records", len(records))
		}
	}
}

// Go, and protobuf with it, gives maps in another order each time.
func TestRetryOverGRPC(t *testing.T) {
	f := start(t)
	metadata, labels := map[string]string{}, map[string]string{}
	for i := range 30 {
		metadata[fmt.Sprint("name", i)] = fmt.Sprint("value", i)
		labels[fmt.Sprint("label", i)] = fmt.Sprint("value", i)
	}
	s := stream{labels, []entry{{someTime, "x", metadata}, {someTime + 1, "y", metadata}}}
	for i := range 20 {
		response, err := f.push(t, asRequest(s), "tenant-id", "t")
		must(t, err)
		if response.GetDuplicate() != (i > 0) {
			t.Fatalf("push %d: duplicate is %v", i, response.GetDuplicate())
		}
	}
	f.wantLanded(t, rowsOf("t", s))

	// Without timestamps of their own, only a key makes two pushes one.
	request := &logthrav1.PushRequest{Streams: []*logthrav1.Stream{{Labels: labels, Entries: []*logthrav1.Entry{{Line: []byte("now")}}}}}
	for i := range 4 {
		headers := []string{"tenant-id", "t"}
		if i >= 2 {
			headers = append(headers, "idempotency-key", "k")
		}
		response, err := f.push(t, request, headers...)
		must(t, err)
		if response.GetDuplicate() != (i == 3) {
			t.Errorf("push %d: duplicate is %v", i, response.GetDuplicate())
		}
	}
	if records := f.landed(t); len(records) != 3 {
		t.Errorf("%d records, not 3", len(records))
	}

	_, err := f.push(t, asRequest(one("first")), "tenant-id", "t", "idempotency-key", "reused")
	must(t, err)
	_, err = f.push(t, asRequest(one("second")), "tenant-id", "t", "idempotency-key", "reused")
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "the idempotency key was used for another push") {
		t.Error(err)
	}
	f.wantLanded(t, rowsOf("t", one("first")))
}
