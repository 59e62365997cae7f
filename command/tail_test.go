package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/casteloig/logthra/command/answer"
)

// tailed is a connection of a tail, and how it was asked for.
type tailed struct {
	*websocket.Conn

	t     *testing.T
	asked *http.Request
}

// newTailed returns a server that hands out each connection to it.
func newTailed(t *testing.T) (f *foreign, connections <-chan *tailed) {
	made, ended := make(chan *tailed), make(chan struct{})
	f = newForeign(t)
	f.with(func(w http.ResponseWriter, r *http.Request) bool {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return true
		}
		select {
		case made <- &tailed{conn, t, r}:
			<-ended // the request is not over while the connection is
		case <-ended:
		}
		return true
	})
	t.Cleanup(func() { close(ended) })
	return f, made
}

func (c *tailed) send(entries []answer.Entry, dropped ...answer.Dropped) {
	c.t.Helper()
	var streams strings.Builder
	writeStreams(&streams, entries)
	var message struct {
		Data struct {
			Result json.RawMessage `json:"result"`
		} `json:"data"`
	}
	must(c.t, json.Unmarshal([]byte(streams.String()), &message))
	text, err := json.Marshal(map[string]any{"streams": message.Data.Result, "dropped_entries": dropped, "encodingFlags": []string{"categorize-labels"}})
	must(c.t, err)
	must(c.t, c.Write(context.Background(), websocket.MessageText, text))
}

// entriesOf are entries whose lines are numbers, which are their times in milliseconds after noon, too.
func entriesOf(times ...int) (entries []answer.Entry) {
	for _, at := range times {
		entries = append(entries, answer.Entry{Time: noon.UnixNano() + int64(at)*1e6, Line: strconv.Itoa(at), Stream: labelsOf("n", strconv.Itoa(at%2))})
	}
	return entries
}

func TestTail(t *testing.T) {
	t.Parallel()
	f, connections := newTailed(t)
	began := time.Now()
	l := begin(t, nil, "tail", "--url", f.URL, "--tenant", "acme", "--token", "secret", "-o", "raw", "--delay", "2s", `{app="x"} |= "y"`)
	c := <-connections
	p := c.asked.URL.Query()
	start, _ := strconv.ParseInt(p.Get("start"), 10, 64)
	if c.asked.URL.Path != "/loki/api/v1/tail" || p.Get("query") != `{app="x"} |= "y"` || p.Get("limit") != "10" || p.Get("delay_for") != "2" ||
		start < began.Add(-time.Hour).UnixNano() || start > time.Now().Add(-time.Hour).UnixNano() {
		t.Errorf("asked %s", c.asked.URL)
	}
	if h := c.asked.Header; h.Get("X-Scope-OrgID") != "acme" || h.Get("Authorization") != "Bearer secret" || h.Get("X-Loki-Response-Encoding-Flags") != "categorize-labels" {
		t.Errorf("asked with %v", h)
	}
	c.send(entriesOf(3, 1, 2))
	l.eventually("the first lines", func() bool { return l.stdout.String() == "1\n2\n3\n" })
	c.send(entriesOf(4), answer.Dropped{Time: "1", Labels: labelsOf("app", "x")}, answer.Dropped{Time: "2", Labels: labelsOf("app", "y")})
	l.eventually("more, and what was dropped", func() bool {
		return l.stdout.String() == "1\n2\n3\n4\n" && l.stderr.String() == "logthra: tail: 2 lines were left out, as they came faster than they were read; the first is of {app=\"x\"}\n"
	})
	l.signal(syscall.SIGINT)
	if code := l.wait(); code != 0 || strings.Count(l.stderr.String(), "\n") != 1 {
		t.Errorf("exit code %d: %s", code, l.stderr)
	}
}

// Over lost connections no line is shown twice, nor left out, also if it is the same as another.
func TestTailConnectsAgain(t *testing.T) {
	t.Parallel()
	f, connections := newTailed(t)
	l := begin(t, nil, "tail", "--url", f.URL, "-o", "raw", "{}")
	c := <-connections
	c.send(entriesOf(1, 2))
	c.send(entriesOf(20_000, 21_000, 21_000, 20_500))
	l.eventually("the first lines", func() bool { return l.stdout.String() == "1\n2\n20000\n20500\n21000\n21000\n" })
	must(t, c.Close(websocket.StatusGoingAway, "going"))

	c = <-connections
	if got, want := c.asked.URL.Query().Get("start"), strconv.FormatInt(noon.UnixNano()+11_000*1e6, 10); got != want || c.asked.URL.Query().Get("limit") != "5000" {
		t.Errorf("asked %s, want start %s", c.asked.URL, want)
	}
	c.send(entriesOf(11_500, 20_000, 20_500, 21_000, 21_000, 21_000, 22_000))
	c.send(entriesOf(23_000, 23_000))
	l.eventually("what is new", func() bool {
		return l.stdout.String() == "1\n2\n20000\n20500\n21000\n21000\n11500\n21000\n22000\n23000\n23000\n"
	})

	// A gateway that answers with fewer entries is asked for those.
	hand := f.answer
	f.with(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("limit") == "1000" {
			return hand(w, r)
		}
		http.Error(w, "max entries limit per query exceeded, limit > max_entries_limit_per_query (5000 > 1000)", http.StatusBadRequest)
		return true
	})
	must(t, c.CloseNow())

	c = <-connections
	c.send(entriesOf(20_000, 20_500, 21_000, 21_000, 21_000, 22_000, 23_000, 23_000, 24_000))
	l.eventually("what is new, once more", func() bool { return strings.HasSuffix(l.stdout.String(), "22000\n23000\n23000\n24000\n") })
	if n := strings.Count(l.stderr.String(), "the connection is lost, and made again"); n != 2 {
		t.Errorf("it says %d times that the connection is lost: %s", n, l.stderr)
	}
	// An answer that will not change ends it.
	f.with(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "no credential", http.StatusUnauthorized)
		return true
	})
	must(t, c.CloseNow())
	if code := l.wait(); code != exitFailure || !strings.HasSuffix(l.stderr.String(), "logthra: tail: 401 Unauthorized: no credential\n") {
		t.Errorf("exit code %d: %s", code, l.stderr)
	}
}

func TestTailErrors(t *testing.T) {
	t.Parallel()
	f, connections := newTailed(t)
	l := begin(t, nil, "tail", "--url", f.URL, "{}")
	c := <-connections
	must(t, c.Close(websocket.StatusInternalError, "a metric query cannot be followed"))
	if code := l.wait(); code != exitFailure || !strings.Contains(l.stderr.String(), "a metric query cannot be followed") {
		t.Errorf("exit code %d: %s", code, l.stderr)
	}
	f.with(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "parse error at line 1, col 3: no", http.StatusBadRequest)
		return true
	})
	code, _, stderr := run(t, "", "tail", "--url", f.URL, "{}x")
	if want := "logthra: tail: parse error at line 1, col 3: no\n  {}x\n    ^\n"; code != exitFailure || stderr != want {
		t.Errorf("exit code %d: %q", code, stderr)
	}
}

// However much was shown, what is remembered is bounded, and the time is known from which on it is complete.
func TestRecent(t *testing.T) {
	t.Parallel()
	var r recent
	const n = 3*tailRemembered + 1
	for i := range n {
		r.add(entryAt{time: int64(i) / 2})
	}
	if len(r.entries) > tailRemembered || r.newest != (n-1)/2 {
		t.Errorf("%d entries, the newest of %d", len(r.entries), r.newest)
	}
	since := r.since()
	known := r.from(since)
	for at := since; at < r.newest; at++ {
		if known[entryAt{time: at}] != 2 {
			t.Fatalf("%d entries of %d", known[entryAt{time: at}], at)
		}
	}
	if first := slices.MinFunc(r.entries, func(a, b entryAt) int { return int(a.time - b.time) }); first.time > since || known[first] > 0 && first.time < since {
		t.Error(fmt.Sprint(first, since))
	}
	r = recent{}
	r.add(entryAt{time: noon.UnixNano()})
	if r.since() != noon.Add(-tailOverlap).UnixNano() {
		t.Error(r.since())
	}
}
