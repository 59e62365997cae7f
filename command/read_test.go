package command

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What was pushed is read at once, and is the same when it has been flushed.
func TestRead(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "1h")
	at := []string{"--data-dir", l.dir, "--tenant", "read"}
	push := func(app, text string) {
		t.Helper()
		if code, _, stderr := run(t, text, slices.Concat([]string{"push", "--label", "app=" + app, "--label", "env=test"}, at)...); code != 0 {
			t.Fatal(stderr)
		}
	}
	push("shop", "order 1 paid\norder 2 paid\n")
	push("pay", "level=error msg=\"order 3 failed\" took=250ms\n")
	const failed, counts = "level=error msg=\"order 3 failed\" took=250ms\n", `sum by (app) (count_over_time({env="test"}[1h]))`
	for _, when := range []string{"before the flush", "after the flush"} {
		for _, c := range []struct {
			want string
			args []string
		}{
			{"order 1 paid\norder 2 paid\n" + failed, []string{"query", "-o", "raw", "--forward", `{env="test"}`}},
			{"order 2 paid\norder 1 paid\n", []string{"query", "-o", "raw", `{app="shop"}`}},
			{failed, []string{"query", "-o", "raw", `{app=~"shop|pay"} |= "failed"`}},
			{failed, []string{"query", "-o", "raw", `{env="test"} | detected_level="error"`}},
			{"order 3 failed\n", []string{"query", "-o", "raw", "--limit", "1", `{env="test"} | logfmt | took > 200ms | line_format "{{.msg}}"`}},
			{"1\t{app=\"pay\"}\n2\t{app=\"shop\"}\n", []string{"query", "-o", "raw", "--instant", counts}},
			{"app   VALUE\nshop      2\npay       1\n", []string{"query", "-o", "table", "--instant", counts}},
			{"", []string{"query", `{app="nobody"}`}},
			{"app\nenv\n", []string{"labels"}},
			{"pay\nshop\n", []string{"labels", "app"}},
			{"shop\n", []string{"labels", "app", "--match", `{app=~"s.*"}`}},
			{"{app=\"pay\", env=\"test\"}\n{app=\"shop\", env=\"test\"}\n", []string{"series"}},
			{"{app=\"pay\", env=\"test\"}\n", []string{"series", `{app="pay"}`}},
			{"LABEL  VALUES  STREAMS\napp    2       2\nenv    1       2\n", []string{"series", "--cardinality"}},
		} {
			if code, stdout, stderr := run(t, "", slices.Concat(c.args, at)...); code != 0 || stderr != "" || stdout != c.want {
				t.Errorf("%s: %q: exit code %d, %s\ngot\n%s\nwant\n%s", when, c.args, code, stderr, stdout, c.want)
			}
		}
		flush(t, l.at["ingester"])
	}
	code, stdout, stderr := run(t, "", append([]string{"query", `{app="shop"} |= paid`}, at...)...)
	if code != exitFailure || stdout != "" || !strings.HasPrefix(stderr, "logthra: query: parse error at line 1, col 17: ") || !strings.HasSuffix(stderr, "\n  {app=\"shop\"} |= paid\n                  ^\n") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	code, _, stderr = run(t, "", append([]string{"tail", "rate({app=\"shop\"}[5m])"}, at...)...)
	wantFailure(t, code, exitFailure, stderr, "tail: ")

	// What is followed is there soon after its push, over a restart of Logthra, too.
	tail := begin(t, nil, slices.Concat([]string{"tail", "-o", "raw", "--limit", "1", `{app="shop"}`}, at)...)
	tail.eventually("the last line", func() bool { return tail.stdout.String() == "order 2 paid\n" })
	push("shop", "order 4 paid\n")
	tail.eventually("a new line", func() bool { return tail.stdout.String() == "order 2 paid\norder 4 paid\n" })
	tail.signal(syscall.SIGINT)
	if code := tail.wait(); code != 0 || tail.stderr.String() != "" {
		t.Errorf("exit code %d: %s", code, tail.stderr)
	}
}

// A tail goes on over a restart, and shows no line twice.
func TestTailOverRestart(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freeAddress(t)
	start := func() *alone { return runAlone(t, dir, "--http-listen", address, "--owner-timeout", "1s") }
	push := func(line string) {
		t.Helper()
		if code, _, stderr := run(t, line, "push", "--url", "http://"+address, "--label", "app=x"); code != 0 {
			t.Fatal(stderr)
		}
	}
	l := start()
	push("one\ntwo\n")
	tail := begin(t, nil, "tail", "-o", "raw", "--url", "http://"+address, `{app="x"}`)
	tail.eventually("what is there", func() bool { return tail.stdout.String() == "one\ntwo\n" })
	l.kill()
	tail.eventually("it says so", func() bool { return strings.Contains(tail.stderr.String(), "the connection is lost") })
	start()
	push("three\n")
	tail.eventually("more", func() bool { return tail.stdout.String() == "one\ntwo\nthree\n" })
	push("four\n")
	tail.eventually("more", func() bool { return tail.stdout.String() == "one\ntwo\nthree\nfour\n" })
}

// However many lines there are, few of them are in memory at a time; each is there once.
func TestReadAll(t *testing.T) {
	t.Parallel()
	n := 100_000
	if testing.Short() {
		n = 30_000
	}
	l := runAlone(t, t.TempDir(), "--flush-rows", strconv.Itoa(n*7/10), "--flush-interval", "1h") // some are flushed, and some not
	want := lines{}
	var text strings.Builder
	for i := range n {
		line := fmt.Sprintf(`10.0.%d.%d - - [22/Nov/2026:12:00:00 +0000] "GET /orders/%d HTTP/1.1" 200 1234 "-" "curl/8.0" 0.012`, i/256%256, i%256, i)
		text.WriteString(line + "\n")
		want[hash(line)]++
	}
	file := filepath.Join(t.TempDir(), "access.log")
	writeFile(t, file, text.String())
	if code, _, stderr := run(t, "", "push", "--data-dir", l.dir, file); code != 0 {
		t.Fatal(stderr)
	}
	few := begin(t, nil, "query", "--data-dir", l.dir, "--limit", "10", `{job="logthra-push"}`)
	mostMemory := mostResident(few) + 40<<20 // than it takes anyway
	if code := few.wait(); code != 0 {
		t.Fatalf("exit code %d: %s", code, few.stderr)
	}
	for _, args := range [][]string{{"-o", "raw"}, {"-o", "raw", "--forward"}} {
		began := time.Now()
		query := begin(t, nil, slices.Concat([]string{"query", "--data-dir", l.dir, "--limit", "all", `{job="logthra-push"}`}, args)...)
		memory := mostResident(query)
		if code := query.wait(); code != 0 || query.stderr.String() != "" {
			t.Fatalf("exit code %d: %s", code, query.stderr)
		}
		t.Logf("%q: %d lines in %s, %d MiB", args, n, time.Since(began).Round(time.Millisecond), memory>>20)
		if memory > mostMemory {
			t.Errorf("%q: %d MiB of memory, %d are enough", args, memory>>20, mostMemory>>20)
		}
		wantOnce(t, linesOf(strings.Split(strings.TrimSuffix(query.stdout.String(), "\n"), "\n")...), want)
	}
}

// mostResident waits for the end and returns the most bytes of memory that it had, but for its last moments.
func mostResident(l *logthra) (bytes int64) {
	for {
		select {
		case <-l.exited:
			return bytes
		case <-time.After(10 * time.Millisecond):
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.process.Pid))
		if _, peak, ok := strings.Cut(string(status), "VmHWM:"); ok {
			kilobytes, _ := strconv.ParseInt(strings.Fields(peak)[0], 10, 64)
			bytes = kilobytes << 10
		}
	}
}
