package command

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// The shards are raised while all runs: nothing is restarted, and what is pushed before, meanwhile and after lands once.
func TestShardsSet(t *testing.T) {
	t.Parallel()
	l := runAlone(t, t.TempDir(), "--flush-interval", "1h")
	set := func(n string) (code int, stdout, stderr string) {
		t.Helper()
		return run(t, "", "shards", "set", n, "--data-dir", l.dir)
	}
	pushed := 0
	push := func() {
		t.Helper()
		if code, _, stderr := run(t, fmt.Sprintf("line %d\n", pushed), "push", "--tenant", "acme", "--data-dir", l.dir); code != 0 {
			t.Fatal(stderr)
		}
		pushed++
	}
	push()
	pushing, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(pushing)
		for {
			select {
			case <-stop:
				return
			default:
				push()
			}
		}
	}()
	code, stdout, stderr := set("9")
	close(stop)
	<-pushing
	if code != 0 || stderr != "" || !strings.Contains(stdout, "has 9 shards, before it had 4") {
		t.Fatalf("%d, %q, %q", code, stdout, stderr)
	}
	for range 20 {
		push()
	}
	shards := func() (owned, used int) {
		var status struct {
			Shards []struct {
				Owner string
				Last  uint64 `json:"last,string"`
			}
		}
		_, stdout, stderr := run(t, "", "status", "--json", "--data-dir", l.dir)
		if err := json.Unmarshal([]byte(stdout), &status); err != nil {
			t.Fatalf("%v: %q, %q", err, stdout, stderr)
		}
		for _, s := range status.Shards {
			if s.Owner != "" {
				owned++
			}
		}
		return owned, len(status.Shards)
	}
	l.eventually("all 9 have an owner", func() bool {
		owned, all := shards()
		return owned == 9 && all == 9
	})
	flush(t, l.at["ingester"])
	if _, report := audited(t, "--data-dir", l.dir); report.Total.Rows != uint64(pushed) || report.Total.Missing != 0 || len(report.Shards) != 9 {
		t.Errorf("of %d lines: %+v in %d shards", pushed, report.Total, len(report.Shards))
	}
	if code, stdout, _ := set("9"); code != 0 || !strings.Contains(stdout, "has 9 shards already") {
		t.Errorf("once more: %d, %q", code, stdout)
	}
	for n, want := range map[string]string{"4": "can't be lowered to 4", "0": "1 to 1024", "1025": "1 to 1024", "many": "many"} {
		if code, stdout, stderr := set(n); code == 0 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("to %s: %d, %q, %q", n, code, stdout, stderr)
		}
	}
	wantQuiet(t, l.logthra)
}
