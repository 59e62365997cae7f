package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/engine/patterns"
	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// writePatterns writes patterns a line each: level, pattern, and its counts by second.
func writePatterns(found []Pattern) string {
	var out []string
	for _, p := range found {
		text := p.Level + " " + p.Pattern
		for _, s := range p.Samples {
			text += fmt.Sprintf(" %d:%d", s.Time-second(0)/1e9, s.Count)
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

func TestPatterns(t *testing.T) {
	f := start(t)
	var landed []line
	for i := range 40 {
		landed = append(landed,
			line{`app="api"`, second(i), fmt.Sprintf("level=info msg=\"user %c logged in\" took=%dms", 'a'+i%26, i), nil},
			line{fmt.Sprintf(`app="db",shard="%d"`, i%3), second(i), fmt.Sprintf("connection %d to host-%d lost", i, i%7), nil})
	}
	f.push(t, "acme", landed...)
	f.push(t, "other", line{`app="api"`, second(5), "not yours", nil})
	f.landAll(t)
	f.push(t, "acme",
		line{`app="api"`, second(39), `level=error msg="user zed logged in" took=5ms`, nil},
		line{`app="api"`, second(61), `level=info msg="user zed logged in" took=5ms`, nil},
		line{`app="api"`, second(61), `4711`, nil})
	for _, c := range []struct {
		name, query string
		q           Query
		want        string
	}{
		{"of a stream", `{app="api"}`, Query{Start: second(0), End: second(100), Step: 20e9}, `info level=info msg="user <_> logged in" took=<_> 0:20 20:20 60:1
error level=error msg="user zed logged in" took=<_> 20:1`},
		{"of several streams", `{app="db"}`, Query{Start: second(10), End: second(30), Step: 10e9}, `unknown connection <_> to <_> lost 10:10 20:10`},
		{"with a line filter", `{app="api"} |= "user a "`, Query{Start: second(0), End: second(100), Step: 30e9}, `info level=info msg="user a logged in" took=<_> 0:2`},
		{"with what ClickHouse can't count by", `{app="api"} | line_format "{{.app}}" | label_format a="{{.app}}" | a="api"`, Query{Start: second(0), End: second(100), Step: 100e9},
			`info api 0:41
error api 0:1
unknown api 0:1`},
		{"steps are whole seconds, and begin at multiples", `{app="db",shard="0"}`, Query{Start: second(1), End: second(9), Step: 3_500_000_000}, `unknown connection <_> to <_> lost 0:1 4:1`},
		{"none", `{app="secret"}`, Query{Start: second(0), End: second(100)}, ``},
		{"of no time", `{app="api"}`, Query{Start: second(1), End: second(1)}, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.Tenant = "acme"
			found, err := f.Patterns(t.Context(), c.q, parse(t, c.query).(*logql.LogExpr))
			must(t, err)
			if got := writePatterns(found); got != c.want {
				t.Errorf("--- got\n%s\n--- want\n%s", got, c.want)
			}
		})
	}
}

// Of more lines than are looked at, the counts are those of all lines.
func TestPatternsOfASample(t *testing.T) {
	f := start(t)
	const n = 60_000
	for first := 0; first < n; first += 10_000 {
		var batch []line
		for i := first; i < first+10_000; i++ {
			text := fmt.Sprintf("request %d is done", i)
			if i%4 == 0 {
				text = fmt.Sprintf("cache miss of key-%d, it is read", i)
			}
			batch = append(batch, line{`app="api"`, second(0) + int64(i)*1e9/100, text, nil}) // 100 a second
		}
		f.push(t, "acme", batch...)
	}
	f.landAll(t)
	found, err := f.Patterns(t.Context(), Query{Tenant: "acme", Start: second(0), End: second(n / 100), Step: 100e9}, parse(t, `{app="api"}`).(*logql.LogExpr))
	must(t, err)
	const want = `unknown request <_> is done 0:7500 100:7500 200:7500 300:7500 400:7500 500:7500
unknown cache miss of <_>, it is read 0:2500 100:2500 200:2500 300:2500 400:2500 500:2500`
	if got := writePatterns(found); got != want {
		t.Errorf("--- got\n%s\n--- want\n%s", got, want)
	}
}

// Whatever lines are, each matches, as |> has it, the pattern that it is counted under.
func TestLinesMatchTheirPatternsAsAFilter(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", "bc", "12", "é", " ", " ", "=", ":", ",", "\"", "<", ">", "_", "<_>", "-", "\n", "\xff", "[", "]", "|", ".", "x1", "in", " in ", `k="v"`, `"k":`}
	var labels pipeline.Labels
	for range 300 {
		m := patterns.NewMiner()
		lines, of := make([]string, 20), make([]int, 20)
		for i := range lines {
			for range 1 + rnd.IntN(12) {
				lines[i] += pieces[rnd.IntN(len(pieces))]
			}
			of[i] = m.Add("", []byte(lines[i]))
		}
		for i, text := range lines {
			filter := &logql.LineFilter{Op: logql.LinePatternIs, Alternatives: []logql.LinePattern{{Value: m.Pattern(of[i])}}}
			p, err := pipeline.New([]logql.Stage{filter})
			must(t, err)
			labels.Reset([]logs.Label{{Name: "app", Value: "api"}}, nil)
			if _, keep := p.Process(0, []byte(text), &labels); !keep {
				t.Fatalf("%q does not match %q", text, m.Pattern(of[i]))
			}
		}
	}
}

func TestStepsOfPatterns(t *testing.T) {
	for _, c := range []struct {
		q    Query
		base int64
		step int64
		n    int
	}{
		{Query{Start: 0, End: 10e9, Step: 1e9}, 0, 1e9, 10},
		{Query{Start: 0, End: 10e9 + 1, Step: 1e9}, 0, 1e9, 11},
		{Query{Start: 1_700_000_001_999_999_999, End: 1_700_000_030_000_000_001, Step: 10e9}, 1_700_000_000_000_000_000, 10e9, 4},
		{Query{Start: -1, End: 1, Step: 10e9}, -10e9, 10e9, 2},
		{Query{Start: 0, End: 1000e9}, 0, 10e9, 100},
		{Query{Start: 0, End: 5}, 0, 1e9, 1},
	} {
		p := newPatternCount(c.q)
		if p.base != c.base || p.step != c.step || p.steps != c.n {
			t.Errorf("%+v: %d steps of %d from %d", c.q, p.steps, p.step, p.base)
		}
		var covered []int
		for _, slice := range p.slices() {
			for i := slice.first; i < slice.end; i++ {
				covered = append(covered, i)
			}
		}
		if len(covered) != c.n || !slices.IsSorted(covered) {
			t.Errorf("%+v: slices cover %v", c.q, covered)
		}
	}
}
