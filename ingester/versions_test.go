package ingester

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// In an upgrade the records of gateways of several versions stand in one stream. Those of older ones land; one of a version that
// is yet to come is put aside, and stops nothing.
func TestRecordsOfSeveralVersions(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	nc, err := f.nats.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	golden := map[string]int{"one-line": 1, "streams-and-metadata": 4, "any-bytes": 2} // how many entries they have
	want := Books{DeadLettered: 7}
	for name, entries := range golden {
		body, err := os.ReadFile(filepath.Join("..", "shared", "wal", "testdata", "record-v1-"+name+".bin"))
		if err != nil {
			t.Fatal(err)
		}
		f.push(2, 10)
		for _, version := range []string{"1", "2"} {
			msg := &nats.Msg{Subject: "logs.old.0", Data: body, Header: nats.Header{
				"Logthra-Record": {version}, "Logthra-Encoding": {"s2"}, "Logthra-Entries": {strconv.Itoa(entries)},
			}}
			if _, err := nc.RequestMsg(msg, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		want.Records, want.Entries, want.Rows = want.Records+4, want.Entries+20+2*uint64(entries), want.Rows+20+uint64(entries)
	}

	f.run(func(c *Config) { c.FlushInterval = 50 * time.Millisecond })
	f.eventually("all is acknowledged", f.acknowledged)
	f.wantBooks(AuditOptions{}, want)
	letters := 0
	for letter, err := range f.wal.DeadLetters(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		letters++
		if !strings.Contains(letter.Reason, `version "2"`) || !strings.Contains(letter.Reason, "Upgrade") {
			t.Errorf("put aside because of %q", letter.Reason)
		}
		if _, err := RetryDeadLetter(t.Context(), f.wal, f.store, letter); err == nil {
			t.Error("a record that is too new was landed")
		}
	}
	if letters != len(golden) {
		t.Errorf("%d dead letters of %d records", letters, len(golden))
	}
}
