//go:build clients

package clients

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// logcli is a command of Loki's own client, ready to run.
func logcli(t *testing.T, tenant string, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := filepath.Abs("logcli/build/logcli")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(environment(), "LOKI_ADDR=http://"+at(t, "http"), "LOKI_ORG_ID="+tenant)
	return cmd
}

// logcliSays runs a command to its end, and returns what it says without its log.
func logcliSays(t *testing.T, tenant string, args ...string) string {
	t.Helper()
	cmd := logcli(t, tenant, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("logcli %s: %v (install.sh installs what is missing)\n%s%s", strings.Join(args, " "), err, out, log.Bytes())
	}
	return string(out)
}

// pushLines pushes lines of one stream as curl does, each a nanosecond after the one before.
func pushLines(t *testing.T, tenant, labels string, first time.Time, lines ...string) {
	t.Helper()
	var values []string
	for i, line := range lines {
		quoted, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, fmt.Sprintf(`["%d",%s,{"trace_id":"t%d"}]`, first.UnixNano()+int64(i), quoted, i))
	}
	body := fmt.Sprintf(`{"streams":[{"stream":%s,"values":[%s]}]}`, labels, strings.Join(values, ","))
	if status, answer := post(t, "/loki/api/v1/push", headers{"Content-Type": "application/json", "X-Scope-OrgID": tenant}, []byte(body)); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, answer)
	}
}

func TestLogcli(t *testing.T) {
	const tenant = "logcli"
	// Points of a query are at multiples of its step: there is a whole minute around the lines.
	first := time.Now().Add(-10 * time.Minute).Truncate(time.Minute).Add(30 * time.Second)
	pushLines(t, tenant, `{"app":"shop","env":"prod"}`, first, `{"level":"info","took":"20ms","n":1}`, `{"level":"error","took":"1.5s","n":2}`, "no JSON ü")
	pushLines(t, tenant, `{"app":"till"}`, first.Add(time.Second), "level=warn n=7")
	from := []string{"--from", first.Add(-time.Hour).UTC().Format(time.RFC3339), "--to", first.Add(10 * time.Minute).UTC().Format(time.RFC3339), "--timezone", "UTC"}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"query", append([]string{"query", `{app="shop"} | trace_id=~".+"`, "-o", "raw", "--forward"}, from...),
			"{\"level\":\"info\",\"took\":\"20ms\",\"n\":1}\n{\"level\":\"error\",\"took\":\"1.5s\",\"n\":2}\nno JSON ü\n"},
		{"pages", append([]string{"query", `{app="shop"}`, "-o", "raw", "--limit", "3", "--batch", "2"}, from...),
			"no JSON ü\n{\"level\":\"error\",\"took\":\"1.5s\",\"n\":2}\n{\"level\":\"info\",\"took\":\"20ms\",\"n\":1}\n"},
		{"parsed", append([]string{"query", `{app=~".+"} | json | __error__="" | took > 1s | line_format "{{.level}} {{.n}}"`, "-o", "raw"}, from...), "error 2\n"},
		{"labels of lines", append([]string{"query", `{app="till"} | logfmt | keep n`, "--no-labels", "-o", "raw"}, from...), "level=warn n=7\n"},
		{"instant query", []string{"instant-query", `sum by (app) (count_over_time({app=~".+"}[1h]))`, "--now", first.Add(time.Minute).UTC().Format(time.RFC3339)},
			fmt.Sprintf(`[{"metric":{"app":"shop"},"value":[%d,"3"]},{"metric":{"app":"till"},"value":[%[1]d,"1"]}]`, first.Add(time.Minute).Unix())},
		{"metric query", append([]string{"query", `sum(count_over_time({app=~".+"}[1m]))`, "--step", "60s"}, from...),
			fmt.Sprintf(`[{"metric":{},"values":[[%d,"4"]]}]`, first.Add(30*time.Second).Unix())},
		{"labels", append([]string{"labels"}, from...), "app\nenv\n"},
		{"values", append([]string{"labels", "app"}, from...), "shop\ntill\n"},
		{"series", append([]string{"series", `{app="shop"}`}, from...), "{app=\"shop\", env=\"prod\"}\n"},
		{"series by label", append([]string{"series", "{}", "--analyze-labels"}, from...),
			"Total Streams:  2\nUnique Labels:  2\n\nLabel Name  Unique Values  Found In Streams\napp         2              2\nenv         1              1\n"},
		{"stats", append([]string{"stats", `{app="shop"}`}, from...), "{\n  bytes: 83B\n  chunks: 1\n  streams: 1\n  entries: 3\n}\n"},
		{"volume", append([]string{"volume", `{app=~".+"}`}, from...),
			fmt.Sprintf(`[{"metric":{"app":"shop"},"value":[%d,"83"]},{"metric":{"app":"till"},"value":[%[1]d,"14"]}]`, first.Add(10*time.Minute).Unix())},
		{"volume over time", append([]string{"volume_range", `{app="till"}`, "--step", "60s"}, from...),
			fmt.Sprintf(`[{"metric":{"app":"till"},"values":[[%d,"14"]]}]`, first.Add(30*time.Second).Unix())},
		{"fields", append([]string{"detected-fields", `{app="shop"}`}, from...),
			"label: detected_level\t\ttype: string\t\tcardinality: 3\nlabel: level\t\ttype: string\t\tcardinality: 2\nlabel: n\t\ttype: int\t\tcardinality: 2\n" +
				"label: took\t\ttype: duration\t\tcardinality: 2\nlabel: trace_id\t\ttype: string\t\tcardinality: 3\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := logcliSays(t, tenant, append([]string{"--quiet"}, c.args...)...)
			if strings.HasPrefix(c.want, "[") { // it is indented
				var compact bytes.Buffer
				if err := json.Compact(&compact, []byte(got)); err != nil {
					t.Fatalf("%v: %s", err, got)
				}
				got = compact.String()
			}
			if got != c.want {
				t.Errorf("it says\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	t.Run("statistics", func(t *testing.T) {
		cmd := logcli(t, tenant, append([]string{"query", `{app="shop"}`, "--stats", "-o", "jsonl"}, from...)...)
		out, err := cmd.CombinedOutput()
		for _, part := range []string{`"line":"no JSON ü"`, "Summary.TotalLinesProcessed", "Summary.ExecTime"} {
			if err != nil || !bytes.Contains(out, []byte(part)) {
				t.Errorf("%v: %s lacks %s", err, out, part)
			}
		}
	})
	t.Run("error", func(t *testing.T) {
		out, err := logcli(t, tenant, "query", `{app="shop"} | nonsense`).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("parse error at line 1, col ")) {
			t.Errorf("it says %s (%v)", out, err)
		}
	})
}

func TestLogcliFormat(t *testing.T) {
	cmd := logcli(t, "logcli", "fmt")
	cmd.Stdin = strings.NewReader(`sum(rate({app="shop"}|="x"[5m]))`)
	if out, err := cmd.Output(); err != nil || len(out) == 0 {
		t.Errorf("it says %s (%v)", out, err)
	}
}

// said is what a program has said so far.
type said struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestLogcliTail(t *testing.T) {
	const tenant = "logcli-tail"
	pushLines(t, tenant, `{"app":"shop"}`, time.Now().Add(-time.Minute), "before")
	cmd := logcli(t, tenant, "--quiet", "query", `{app="shop"} |= "e"`, "--tail", "-o", "raw", "--since", "1h")
	out := new(said)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (install.sh installs what is missing)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	wantSaid := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(landTimeout); out.String() != want; time.Sleep(pollInterval) {
			if time.Now().After(deadline) {
				t.Fatalf("it says %q, want %q", out, want)
			}
		}
	}
	wantSaid("before\n")
	pushLines(t, tenant, `{"app":"shop"}`, time.Now(), "one", "two: no", "three")
	wantSaid("before\none\nthree\n")
}
