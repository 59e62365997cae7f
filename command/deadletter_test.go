package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestDeadletterCommand(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "100ms")
	letters := func(wantCode int, args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, "", slices.Concat([]string{"deadletter"}, args, []string{"--data-dir", l.dir})...)
		if code != wantCode {
			t.Errorf("%v: exit code %d, want %d: %s", args, code, wantCode, stderr)
		}
		return stdout + stderr
	}
	list := func(args ...string) (all []letterJSON) {
		t.Helper()
		text := letters(0, append([]string{"list", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return all
	}
	want := func(text string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%q lacks %q", text, part)
			}
		}
	}
	if got := letters(0, "list"); got != "There are no dead letters.\n" {
		t.Errorf("of none: %q", got)
	}
	if got := list(); got == nil || len(got) != 0 {
		t.Errorf("of none: %v", got)
	}
	want(letters(0, "retry", "--all"), "There are no dead letters.")

	// What is no record becomes a dead letter, and two records that a newer program has written.
	nc, err := nats.Connect("nats://" + l.at["nats"])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	publish := func(tenant, body string, header nats.Header) {
		t.Helper()
		if _, err := nc.RequestMsg(&nats.Msg{Subject: "logs." + tenant + ".2", Data: []byte(body), Header: header}, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	publish("acme", "not a \x1b[31mrecord", nil)
	publish("acme", "nor this", nats.Header{"Logthra-Record": {"7"}, "Logthra-Entries": {"1234"}})
	publish("other", "nor that", nil)
	flush(t, l.at["ingester"])
	all := list()
	if len(all) != 3 || len(list("--tenant", "acme")) != 2 || len(list("--tenant", "nobody")) != 0 {
		t.Fatalf("listed %+v", all)
	}
	first, second, third := all[0], all[1], all[2]
	if first.Tenant != "acme" || first.Shard != 2 || first.ID != fmt.Sprintf("2.%d", first.Sequence) || first.Entries != nil || first.Bytes != 17 ||
		time.Since(first.Time) > time.Hour || first.PutAside.Before(first.Time) || first.Dropped || !strings.Contains(first.Reason, "version") {
		t.Errorf("the first is %+v", first)
	}
	if second.Entries == nil || *second.Entries != 1234 {
		t.Errorf("the second is %+v", second)
	}
	want(letters(0, "list"), first.ID+"   acme     ", second.ID+"   acme     ", third.ID+"   other    ", "1,234", "undecodable record: version \"7\"")

	shown := letters(0, "show", first.ID)
	want(shown, "acme", first.Time.Format(time.RFC3339), "shard 2", "can't be decoded", "6e 6f 74 20 61 20 1b 5b", "|not a .[31mrecor|")
	if strings.Contains(shown, "\x1b") {
		t.Error("what is shown speaks to the terminal")
	}
	if got := letters(0, "show", first.ID, "--raw"); got != "not a \x1b[31mrecord" {
		t.Errorf("raw: %q", got)
	}
	want(letters(exitFailure, "show", "2.17"), "no dead letter 2.17", "logthra deadletter list")

	_, report := audited(t, "--data-dir", l.dir)
	if !report.Balanced || report.Total.Records != 3 || report.Total.Entries != 1236 || report.Total.DeadLettered != 1236 {
		t.Errorf("audited %+v", report)
	}

	// All that can't be decoded stays, and one that is not there keeps nobody from the others.
	got := letters(exitFailure, "retry", "2.17", first.ID, second.ID)
	want(got, "no dead letter 2.17", first.ID+": stays: undecodable record", second.ID+": stays: undecodable record: version \"7\"")
	if strings.Count(letters(exitFailure, "retry", "--all"), "stays") != 3 || len(list()) != 3 {
		t.Error("retried all of 3, and not all are there")
	}

	want(letters(exitFailure, "drop", first.ID), first.ID+": would be dropped: tenant acme", "nothing was dropped", "--yes")
	if len(list()) != 3 {
		t.Error("dropped without --yes")
	}
	want(letters(0, "drop", "--yes", first.ID), first.ID+": dropped: tenant acme")
	want(letters(0, "drop", "--yes", first.ID), first.ID+": was dropped before")
	want(letters(0, "drop", "--yes", "--all", "--tenant", "other"), third.ID+": dropped: tenant other")
	if left := list(); len(left) != 1 || left[0].ID != second.ID {
		t.Errorf("left are %+v", left)
	}
	want(letters(0, "drop", "--all", "--yes"), second.ID+": dropped")
	want(letters(0, "list"), "no dead letters, but for 3 that were dropped")
	want(letters(0, "list", "--dropped"), first.ID, "(dropped) undecodable record")
	want(letters(0, "show", first.ID), "It was dropped")
	want(letters(exitFailure, "show", "--raw", first.ID), first.ID+" was dropped")
	want(letters(exitFailure, "retry", first.ID), first.ID+": stays", "was dropped")
	if _, report := audited(t, "--data-dir", l.dir); !report.Balanced || report.Total.DeadLettered != 1236 {
		t.Errorf("after all were dropped, audited %+v", report)
	}
}

// What ClickHouse refuses, and does not any more.
func TestDeadletterRetryCommand(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "100ms")
	sql := func(sql string) string { t.Helper(); return mustQuery(t, l.at["clickhouse-http"], sql) }
	tool := func(wantCode int, stdin string, args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, stdin, append(args, "--data-dir", l.dir)...)
		if code != wantCode {
			t.Errorf("%v: exit code %d, want %d: %s", args, code, wantCode, stderr)
		}
		return stdout + stderr
	}
	sql("ALTER TABLE logs.log ADD CONSTRAINT short CHECK length(msg) < 10")
	tool(0, "fine\n", "push", "--tenant", "acme")
	tool(0, "short\nbut this is too long\n", "push", "--tenant", "acme", "--label", "app=api")
	flush(t, l.at["ingester"])
	var all []letterJSON
	if err := json.Unmarshal([]byte(tool(0, "", "deadletter", "list", "--json")), &all); err != nil || len(all) != 1 || *all[0].Entries != 2 {
		t.Fatalf("listed %+v, %v", all, err)
	}
	id := all[0].ID
	shown := tool(0, "", "deadletter", "show", id)
	for _, part := range []string{"Constraint", `Z {"app":"api"} short`, `Z {"app":"api"} but this is too long`} {
		if !strings.Contains(shown, part) {
			t.Errorf("%q lacks %q", shown, part)
		}
	}
	if got := tool(exitFailure, "", "deadletter", "retry", id); !strings.HasPrefix(got, id+": stays: ") || !strings.Contains(got, "short") {
		t.Errorf("retried: %s", got)
	}
	sql("ALTER TABLE logs.log DROP CONSTRAINT short")
	if got := tool(0, "", "deadletter", "retry", id); got != id+": landed, with 2 rows\n" {
		t.Errorf("retried: %s", got)
	}
	wantOnce(t, landed(t, l.at["clickhouse-http"], "1"), linesOf("fine", "short", "but this is too long"))
	if _, report := audited(t, "--data-dir", l.dir); !report.Balanced || report.Total.Rows != 3 || report.Total.DeadLettered != 0 {
		t.Errorf("audited %+v", report)
	}
}

func TestPrintLetters(t *testing.T) {
	at, entries := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), 2000
	var out bytes.Buffer
	err := printLetters(&out, []letterJSON{
		{ID: "0.1763000000000001", Tenant: "acme", Time: at, Entries: &entries, Bytes: 123456, Reason: "Constraint `c`\n is   violated" + strings.Repeat("!", 200)},
		{ID: "13.1763000000000001", Tenant: "a", Time: at, Reason: "version", Dropped: true},
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := `
ID                    TENANT   TAKEN                  ENTRIES   SIZE      REASON
0.1763000000000001    acme     2026-11-22T10:00:00Z   2,000     121 KiB   Constraint ` + "`c`" + ` is violated` + strings.Repeat("!", 93) + `…
13.1763000000000001   a        2026-11-22T10:00:00Z   ?         0 B       (dropped) version
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
