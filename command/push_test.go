package command

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestPush(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "1h")
	push := func(stdin string, args ...string) (code int, stdout, stderr string) {
		t.Helper()
		return run(t, stdin, append([]string{"push", "--data-dir", l.dir, "--give-up", "1s"}, args...)...)
	}
	dir := t.TempDir()
	files := map[string][]string{
		"plain.log":         {"one", "two", "three"},
		"crlf.log":          {"one\r", "two\r", "\r"},
		"empty lines.log":   {"", "", "between", "", ""},
		"bytes.log":         {"a\x00b", "\xff\xfe invalid \xc3", "\x1b[31mred\x1b[0m", "tab\tquote\"back\\slash"},
		`quo"te\ünï.log`:    {"a name to quote"},
		"long.log":          {strings.Repeat("x", 200<<10), "short", strings.Repeat("y", 256<<10)},
		"many.log":          nil,
		"open.log":          {"ended", "not ended"},
		"nothing.log":       nil,
		"one line feed.log": {""},
	}
	for i := range 3*pushLines + 7 {
		files["many.log"] = append(files["many.log"], fmt.Sprintf("line %d", i%5000))
	}
	args, total := []string{"--tenant", "files", "--label", "app=api", "--label", "note=a=b, c;d"}, 0
	for name, lines := range files {
		text := strings.Join(lines, "\n")
		if len(lines) > 0 && name != "open.log" {
			text += "\n"
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args, total = append(args, path), total+len(lines)
	}
	code, _, stderr := push("", args...)
	if want := fmt.Sprintf("pushed %d,%03d lines, ", total/1000, total%1000); code != 0 || !strings.HasPrefix(stderr, want) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d, %q does not begin with %q", code, stderr, want)
	}
	if code, _, stderr = push("from\nstdin", "--tenant", "stdin"); code != 0 {
		t.Error(stderr)
	}
	if code, _, stderr = push("and\n", "--tenant", "dash", "--label", "filename=given", filepath.Join(dir, "plain.log"), "-"); code != 0 {
		t.Error(stderr)
	}

	flush(t, l.at["ingester"])
	at := l.at["clickhouse-http"]
	for name, lines := range files {
		where := fmt.Sprintf("tenant_id = 'files' AND labels['app'] = 'api' AND labels['note'] = 'a=b, c;d' AND labels['filename'] = '%s'",
			strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(filepath.Join(dir, name)))
		t.Run(name, func(t *testing.T) { wantOnce(t, landed(t, at, where), linesOf(lines...)) })
	}
	wantOnce(t, landed(t, at, "tenant_id = 'files'"), func() lines {
		var all []string
		for _, lines := range files {
			all = append(all, lines...)
		}
		return linesOf(all...)
	}())
	wantOnce(t, landed(t, at, "tenant_id = 'stdin' AND toString(label) = '[\\'job:logthra-push\\']'"), linesOf("from", "stdin"))
	wantOnce(t, landed(t, at, "tenant_id = 'dash' AND labels['filename'] = 'given'"), linesOf("one", "two", "three", "and"))
	// The order of a file is that of time, and of the record's entries where the clock stood still.
	order := mustQuery(t, at, "SELECT msg FROM logs.log WHERE tenant_id = 'files' AND endsWith(labels['filename'], 'many.log') ORDER BY timestamp, wal_shard, wal_seq, wal_index")
	if order != strings.Join(files["many.log"], "\n")+"\n" {
		t.Error("the lines of a file are out of order")
	}

	// What is wrong is said with the file and the line, and ends the tool.
	many := filepath.Join(dir, "many.log")
	for _, c := range []struct {
		name, stdin string
		args, want  []string
	}{
		{"tenant", "x\ny\n", []string{"--tenant", "a.b"}, []string{"standard input, lines 1 to 2", "400", `"a.b"`, "[A-Za-z0-9_-]"}},
		{"long line", strings.Repeat("x\n", 4242) + strings.Repeat("z", 256<<10+1) + "\nx\n", nil,
			[]string{"standard input, line 4243", "400", "262145 bytes", "--max-line-bytes"}},
		{"no file", "", []string{many + ".gone"}, []string{many + ".gone", "no such file"}},
		{"directory", "", []string{dir}, []string{dir, "is a directory"}},
		{"no gateway", "x\n", []string{"--url", "http://127.0.0.1:1"}, []string{"standard input, line 1: given up after 1s (--give-up)", "no answer from http://127.0.0.1:1", "connection refused"}},
		{"no gateway, no scheme", "x\n", []string{"--url", "127.0.0.1:1/"}, []string{"no answer from http://127.0.0.1:1:"}},
		{"no URL", "x\n", []string{"--url", "http://a b"}, []string{"--url", "http://a b"}},
		{"not a gateway", "x\n", []string{"--url", "http://" + l.at["ingester-http"]}, []string{"line 1: 404"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := push(c.stdin, append([]string{"--tenant", "wrong"}, c.args...)...)
			summary, complaint, _ := strings.Cut(stderr, "\n")
			if !strings.HasPrefix(summary, "pushed ") {
				t.Errorf("the summary is %q", summary)
			}
			wantFailure(t, code, exitFailure, complaint, c.want...)
		})
	}
}

// A pipe that is followed is pushed as it goes, and what was read is not lost at ^C.
func TestPushFollows(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "100ms")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	push := begin(t, reader, "push", "--data-dir", l.dir, "--tenant", "follow")
	got := func() string {
		return mustQuery(t, l.at["clickhouse-http"], "SELECT msg FROM logs.log WHERE tenant_id = 'follow' ORDER BY timestamp")
	}
	write(t, writer, "first\nsec")
	push.eventually("the first line", func() bool { return got() == "first\n" })
	write(t, writer, "ond\nthird\nnot ended")
	push.eventually("more", func() bool { return got() == "first\nsecond\nthird\n" })
	write(t, writer, " now it is\nnor this")
	push.signal(syscall.SIGINT)
	if code := push.wait(); code != exitFailure || !strings.Contains(push.stderr.String(), "interrupted after line ") {
		t.Errorf("exit code %d: %s", code, push.stderr)
	}
	flush(t, l.at["ingester"])
	if lines := strings.Count(got(), "\n"); !strings.Contains(push.stderr.String(), fmt.Sprintf("interrupted after line %d, ", lines)) {
		t.Errorf("%d lines have landed: %s", lines, push.stderr)
	}
}

func write(t *testing.T, to io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatal(err)
	}
}

// The gateway dies and comes back while a file is pushed: no answer means that a push may have been taken.
func TestPushOverRestarts(t *testing.T) {
	t.Parallel()
	dir, address := t.TempDir(), freeAddress(t)
	start := func() *alone {
		return runAlone(t, dir, "--http-listen", address, "--flush-interval", "200ms", "--owner-timeout", "1s")
	}
	l := start()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	push := begin(t, reader, "push", "--url", "http://"+address, "--tenant", "restarts")
	var writing sync.WaitGroup
	stop, want := make(chan struct{}), lines{}
	writing.Go(func() {
		defer writer.Close()
		var text bytes.Buffer
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			text.Reset()
			for j := range 100 {
				line := fmt.Sprintf("line %d of block %d", j, i)
				text.WriteString(line + "\n")
				want[hash(line)]++
			}
			if _, err := writer.Write(text.Bytes()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	count := func() string {
		return mustQuery(t, l.at["clickhouse-http"], "SELECT count() FROM logs.log WHERE tenant_id = 'restarts'")
	}
	for range 2 {
		before := count()
		l.eventually("more lines land", func() bool { return count() != before })
		l.kill()
		l = start()
	}
	before := count()
	l.eventually("lines land after the restarts", func() bool { return count() != before })
	close(stop)
	writing.Wait()
	if code := push.wait(); code != 0 {
		t.Fatalf("exit code %d: %s", code, push.stderr)
	}
	l.eventually("it owns all shards", func() bool { return ownsAll(t, l.at["ingester"]) })
	flush(t, l.at["ingester"])
	wantOnce(t, landed(t, l.at["clickhouse-http"], "tenant_id = 'restarts'"), want)
}
