package series

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// given is what range aggregations of tests come to: by the value of the label of their selector, series as lines, with one value a
// point, and _ where there is none.
var given = map[string]string{
	"requests": `
		{app="api", pod="1"} 1 2 3
		{app="api", pod="2"} 10 20 _
		{app="web", pod="1"} 100 _ _
		{app="web", pod="3"} _ _ 300`,
	"errors": `
		{app="api", pod="1"} 1 1 1
		{app="api", pod="2"} 5 0 _
		{app="db", pod="1"} 7 7 7`,
	"limits": `
		{app="api", team="red"} 2 4 8
		{app="web", team="blue"} 10 10 10`,
	"moving": `
		{app="api", node="a"} 2 _ _
		{app="api", node="b"} _ 4 8`,
	"twice": `
		{app="api", pod="1"} 2 2 2
		{app="api", pod="9"} _ 3 _
		{app="web", pod="1"} 1 1 1`,
	"odd": `
		{n="a"} NaN 1 NaN
		{n="b"} 2 +Inf NaN
		{n="c"} -Inf -Inf NaN
		{n="d"} 2 0 _`,
	"equal": `
		{n="c"} 1 1 1
		{n="a"} 1 1 1
		{n="b"} 1 2 1`,
	"names": `
		{src="api-1"} 1 2 _
		{dst="old", src="web-2"} 3 4 5
		{other="x"} 6 _ _`,
	"halves": `
		{src="a", v="1"} 1 _ 3
		{src="a", v="2"} _ 2 _`,
	"one":     `{a="b"} 5 6 7`,
	"nothing": ``,
}

// read reads lines of series.
func read(t testing.TB, text string) []Series {
	t.Helper()
	var all []Series
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		end := strings.LastIndex(line, "}") + 1
		matchers, err := logql.ParseSelector(line[:end])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		var s Series
		for _, m := range matchers {
			s.Labels = append(s.Labels, logs.Label{Name: m.Name, Value: m.Value})
		}
		for i, f := range strings.Fields(line[end:]) {
			if f == "_" {
				continue
			}
			v, err := strconv.ParseFloat(f, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			s.Points = append(s.Points, Point{i, v})
		}
		all = append(all, s)
	}
	return all
}

// lines writes series as read reads them.
func lines(all []Series, points int) string {
	var b strings.Builder
	for _, s := range all {
		fields := slices.Repeat([]string{"_"}, points)
		for _, p := range s.Points {
			fields[p.Index] = strconv.FormatFloat(p.Value, 'g', -1, 64)
		}
		fmt.Fprintln(&b, format(s.Labels), strings.Join(fields, " "))
	}
	return b.String()
}

// short writes range aggregations of given for the queries of a table: requests is count_over_time({s="requests"}[1m]).
func short(query string) string {
	words := make([]string, 0, 2*len(given))
	for name := range given {
		words = append(words, "$"+name, fmt.Sprintf("count_over_time({s=%q}[1m])", name))
	}
	return strings.NewReplacer(words...).Replace(query)
}

func evaluate(t testing.TB, query string, g Grid, maxSeries int) (*Value, error) {
	t.Helper()
	expr, err := logql.Parse(short(query))
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return Evaluate(expr, g, maxSeries, func(agg *logql.RangeAgg) ([]Series, error) {
		series := read(t, given[agg.Log.Matchers[0].Value])
		for i, s := range series { // of points that the grid does not have, too
			series[i].Points = slices.DeleteFunc(s.Points, func(p Point) bool { return p.Index >= g.Len() })
		}
		return slices.DeleteFunc(series, func(s Series) bool { return len(s.Points) == 0 }), nil
	})
}

var three = Grid{Start: 0, End: 2 * second, Step: second}

//nolint:dupword // values may repeat
func TestEvaluate(t *testing.T) {
	for _, tt := range []struct{ query, want string }{
		// Range aggregations, as they come.
		{`$requests`, given["requests"]},
		{`$nothing`, ``},

		// Vector aggregations.
		{`sum($requests)`, `{} 111 22 303`},
		{`sum by (app) ($requests)`, `
			{app="api"} 11 22 3
			{app="web"} 100 _ 300`},
		{`sum by (nobody) ($requests)`, `{} 111 22 303`},
		{`sum by () ($requests)`, `{} 111 22 303`},
		{`sum without () ($requests)`, given["requests"]},
		{`sum without (app) ($requests)`, `
			{pod="1"} 101 2 3
			{pod="2"} 10 20 _
			{pod="3"} _ _ 300`},
		{`sum without (pod, nobody) ($requests)`, `
			{app="api"} 11 22 3
			{app="web"} 100 _ 300`},
		{`sum by (pod, app) ($requests)`, given["requests"]},
		{`avg by (app) ($requests)`, `
			{app="api"} 5.5 11 3
			{app="web"} 100 _ 300`},
		{`min by (app) ($requests)`, `
			{app="api"} 1 2 3
			{app="web"} 100 _ 300`},
		{`max by (app) ($requests)`, `
			{app="api"} 10 20 3
			{app="web"} 100 _ 300`},
		{`count by (app) ($requests)`, `
			{app="api"} 2 2 1
			{app="web"} 1 _ 1`},
		{`stddev by (app) ($requests)`, `
			{app="api"} 4.5 9 0
			{app="web"} 0 _ 0`},
		{`stdvar by (app) ($requests)`, `
			{app="api"} 20.25 81 0
			{app="web"} 0 _ 0`},
		{`sum($nothing)`, ``},
		{`count($nothing)`, ``},
		{`stddev($nothing)`, ``},
		{`topk(3, $nothing)`, ``},
		{`sort($nothing)`, ``},

		// Numbers that are none, and infinite ones.
		{`sum($odd)`, `{} NaN NaN NaN`},
		{`avg($odd)`, `{} NaN NaN NaN`},
		{`min($odd)`, `{} -Inf -Inf NaN`},
		{`max($odd)`, `{} 2 +Inf NaN`},
		{`count($odd)`, `{} 4 4 3`},
		{`stdvar($odd)`, `{} NaN NaN NaN`},
		{`topk(2, $odd)`, `
			{n="a"} _ 1 NaN
			{n="b"} 2 +Inf NaN
			{n="d"} 2 _ _`},
		{`bottomk(2, $odd)`, `
			{n="a"} _ _ NaN
			{n="b"} 2 _ NaN
			{n="c"} -Inf -Inf _
			{n="d"} _ 0 _`},

		// The first of each point.
		{`topk(1, $requests)`, `
			{app="api", pod="2"} _ 20 _
			{app="web", pod="1"} 100 _ _
			{app="web", pod="3"} _ _ 300`},
		{`bottomk(1, $requests)`, `{app="api", pod="1"} 1 2 3`},
		{`topk(9, $requests)`, given["requests"]},
		{`topk by (app) (1, $requests)`, `
			{app="api", pod="1"} _ _ 3
			{app="api", pod="2"} 10 20 _
			{app="web", pod="1"} 100 _ _
			{app="web", pod="3"} _ _ 300`},
		{`bottomk without (pod) (1, $requests)`, `
			{app="api", pod="1"} 1 2 3
			{app="web", pod="1"} 100 _ _
			{app="web", pod="3"} _ _ 300`},
		{`approx_topk(1, $requests)`, `
			{app="api", pod="2"} _ 20 _
			{app="web", pod="1"} 100 _ _
			{app="web", pod="3"} _ _ 300`},
		{`topk(1, $equal)`, `
			{n="a"} 1 _ 1
			{n="b"} _ 2 _`},
		{`bottomk(2, $equal)`, `
			{n="a"} 1 1 1
			{n="b"} 1 _ 1
			{n="c"} _ 1 _`},
		{`sort($equal)`, `
			{n="a"} 1 1 1
			{n="b"} 1 2 1
			{n="c"} 1 1 1`},

		// Numbers and series.
		{`$one + 1`, `{a="b"} 6 7 8`},
		{`1 + $one`, `{a="b"} 6 7 8`},
		{`$one - 1`, `{a="b"} 4 5 6`},
		{`10 - $one`, `{a="b"} 5 4 3`},
		{`$one * 2`, `{a="b"} 10 12 14`},
		{`$one / 2`, `{a="b"} 2.5 3 3.5`},
		{`210 / $one`, `{a="b"} 42 35 30`},
		{`$one % 4`, `{a="b"} 1 2 3`},
		{`20 % $one`, `{a="b"} 0 2 6`},
		{`$one ^ 2`, `{a="b"} 25 36 49`},
		{`2 ^ $one`, `{a="b"} 32 64 128`},
		{`$one / 0`, `{a="b"} NaN NaN NaN`},
		{`$one % 0`, `{a="b"} NaN NaN NaN`},
		{`1 / ($one - 6)`, `{a="b"} -1 NaN 1`},
		{`$one == 6`, `{a="b"} _ 6 _`},
		{`6 == $one`, `{a="b"} _ 6 _`},
		{`$one != 6`, `{a="b"} 5 _ 7`},
		{`$one > 6`, `{a="b"} _ _ 7`},
		{`$one >= 6`, `{a="b"} _ 6 7`},
		{`$one < 6`, `{a="b"} 5 _ _`},
		{`$one <= 6`, `{a="b"} 5 6 _`},
		{`6 > $one`, `{a="b"} 5 _ _`},
		{`6 <= $one`, `{a="b"} _ 6 7`},
		{`$one > 9`, ``},
		{`$one == bool 6`, `{a="b"} 0 1 0`},
		{`$one != bool 6`, `{a="b"} 1 0 1`},
		{`$one > bool 6`, `{a="b"} 0 0 1`},
		{`$one >= bool 6`, `{a="b"} 0 1 1`},
		{`$one < bool 6`, `{a="b"} 1 0 0`},
		{`$one <= bool 6`, `{a="b"} 1 1 0`},
		{`6 < bool $one`, `{a="b"} 0 0 1`},
		{`$odd > 1`, `
			{n="b"} 2 +Inf _
			{n="d"} 2 _ _`},
		{`$odd != 2`, `
			{n="a"} NaN 1 NaN
			{n="b"} _ +Inf NaN
			{n="c"} -Inf -Inf NaN
			{n="d"} _ 0 _`},
		{`$nothing + 1`, ``},

		// Literals.
		{`1 + 1`, `{} 2 2 2`},
		{`2 ^ 3 ^ 2`, `{} 512 512 512`},
		{`7 % 4 - 10 / 4`, `{} 0.5 0.5 0.5`},
		{`1 / 0`, `{} NaN NaN NaN`},
		{`2 > 1`, `{} 1 1 1`},
		{`2 < 1`, `{} 0 0 0`},
		{`vector(3)`, `{} 3 3 3`},
		{`vector(1) + vector(1)`, `{} 2 2 2`},
		{`vector(1) > vector(2)`, ``},
		{`sum(vector(3)) * 2`, `{} 6 6 6`},

		// One to one.
		{`$requests / $errors`, `
			{app="api", pod="1"} 1 2 3
			{app="api", pod="2"} 2 NaN _`},
		{`$requests - $errors`, `
			{app="api", pod="1"} 0 1 2
			{app="api", pod="2"} 5 20 _`},
		{`$requests > $errors`, `
			{app="api", pod="1"} _ 2 3
			{app="api", pod="2"} 10 20 _`},
		{`$errors < $requests`, `
			{app="api", pod="1"} _ 1 1
			{app="api", pod="2"} 5 0 _`},
		{`$requests == bool $errors`, `
			{app="api", pod="1"} 1 0 0
			{app="api", pod="2"} 0 0 _`},
		{`sum by (app) ($requests) / on (app) $limits`, `
			{app="api"} 5.5 5.5 0.375
			{app="web"} 10 _ 30`},
		{`$limits / ignoring (team) sum by (app) ($requests)`, `
			{app="api"} 0.18181818181818182 0.18181818181818182 2.6666666666666665
			{app="web"} 0.1 _ 0.03333333333333333`},
		{`sum($requests) / on () vector(2)`, `{} 55.5 11 151.5`},
		{`$requests + $limits`, ``},
		{`$requests + $nothing`, ``},
		{`$nothing + $requests`, ``},
		{`$nothing + on (app) $requests`, ``},
		{`sum by (app) ($requests) * on (app) $moving`, `{app="api"} 22 88 24`},
		{`$moving * on (app) sum by (app) ($requests)`, `{app="api"} 22 88 24`},

		// Many to one.
		{`$requests / on (app) group_left () $limits`, `
			{app="api", pod="1"} 0.5 0.5 0.375
			{app="api", pod="2"} 5 5 _
			{app="web", pod="1"} 10 _ _
			{app="web", pod="3"} _ _ 30`},
		{`$requests / on (app) group_left (team) $limits`, `
			{app="api", pod="1", team="red"} 0.5 0.5 0.375
			{app="api", pod="2", team="red"} 5 5 _
			{app="web", pod="1", team="blue"} 10 _ _
			{app="web", pod="3", team="blue"} _ _ 30`},
		{`$requests / ignoring (pod, team) group_left $limits`, `
			{app="api", pod="1"} 0.5 0.5 0.375
			{app="api", pod="2"} 5 5 _
			{app="web", pod="1"} 10 _ _
			{app="web", pod="3"} _ _ 30`},
		{`$limits - on (app) group_right (team) $requests`, `
			{app="api", pod="1", team="red"} 1 2 5
			{app="api", pod="2", team="red"} -8 -16 _
			{app="web", pod="1", team="blue"} -90 _ _
			{app="web", pod="3", team="blue"} _ _ -290`},
		{`$limits > on (app) group_right () $requests`, `{app="api", pod="1"} 2 4 8`},
		{`$requests < on (app) group_left () $limits`, `{app="api", pod="1"} 1 2 3`},
		{`$requests + on (app) group_left (node) $moving`, `
			{app="api", node="a", pod="1"} 3 _ _
			{app="api", node="a", pod="2"} 12 _ _
			{app="api", node="b", pod="1"} _ 6 11
			{app="api", node="b", pod="2"} _ 24 _`},

		// Sets.
		{`$requests and $errors`, `
			{app="api", pod="1"} 1 2 3
			{app="api", pod="2"} 10 20 _`},
		{`$requests and on (app) $moving`, `
			{app="api", pod="1"} 1 2 3
			{app="api", pod="2"} 10 20 _`},
		{`$requests and ignoring (pod, team) $limits`, given["requests"]},
		{`$requests and $nothing`, ``},
		{`$requests unless $errors`, `
			{app="web", pod="1"} 100 _ _
			{app="web", pod="3"} _ _ 300`},
		{`$errors unless on (pod) ($requests > 2)`, `
			{app="api", pod="1"} _ 1 _
			{app="db", pod="1"} _ 7 _`},
		{`$requests unless $nothing`, given["requests"]},
		{`$requests or $errors`, `
			{app="api", pod="1"} 1 2 3
			{app="api", pod="2"} 10 20 _
			{app="db", pod="1"} 7 7 7
			{app="web", pod="1"} 100 _ _
			{app="web", pod="3"} _ _ 300`},
		{`$requests > 5 or $errors`, `
			{app="api", pod="1"} 1 1 1
			{app="api", pod="2"} 10 20 _
			{app="db", pod="1"} 7 7 7
			{app="web", pod="1"} 100 _ _
			{app="web", pod="3"} _ _ 300`},
		{`$requests or on (app) $limits`, `
			{app="api", pod="1"} 1 2 3
			{app="api", pod="2"} 10 20 _
			{app="web", pod="1"} 100 _ _
			{app="web", pod="3"} _ _ 300
			{app="web", team="blue"} _ 10 _`},
		{`sum($nothing) or vector(0)`, `{} 0 0 0`},
		{`sum($requests > 50) or vector(0)`, `{} 100 0 300`},

		// Labels.
		{`label_replace($names, "dst", "$1", "src", "(.*)-.*")`, `
			{dst="api", src="api-1"} 1 2 _
			{dst="web", src="web-2"} 3 4 5
			{other="x"} 6 _ _`},
		{`label_replace($names, "dst", "$name/$2", "src", "(?P<name>.*)-(.*)")`, `
			{dst="api/1", src="api-1"} 1 2 _
			{dst="web/2", src="web-2"} 3 4 5
			{other="x"} 6 _ _`},
		{`label_replace($names, "dst", "x", "src", "api")`, given["names"]},
		{`label_replace($names, "dst", "", "src", "web-2")`, `
			{src="api-1"} 1 2 _
			{src="web-2"} 3 4 5
			{other="x"} 6 _ _`},
		{`label_replace($names, "dst", "none", "src", "")`, `
			{src="api-1"} 1 2 _
			{dst="old", src="web-2"} 3 4 5
			{dst="none", other="x"} 6 _ _`},
		{`label_replace($names, "a", "1", "", "")`, `
			{a="1", src="api-1"} 1 2 _
			{a="1", dst="old", src="web-2"} 3 4 5
			{a="1", other="x"} 6 _ _`},
		{`label_replace($names, "src", "${1}b", "src", "(.*)")`, `
			{src="api-1b"} 1 2 _
			{dst="old", src="web-2b"} 3 4 5
			{other="x", src="b"} 6 _ _`},
		{`label_replace($halves, "v", "", "v", ".*")`, `{src="a"} 1 2 3`},
		{`label_replace(vector(1), "a", "b", "", "")`, `{a="b"} 1 1 1`},

		// Parts within parts.
		{`sum by (app) ($requests) / sum by (app) ($errors) > 3`, `{app="api"} _ 22 _`},
		{`topk(1, sum by (app) ($requests)) or $nothing`, `
			{app="api"} _ 22 _
			{app="web"} 100 _ 300`},
		{`count(sum by (app) ($requests) > 20)`, `{} 1 1 1`},
	} {
		t.Run(tt.query, func(t *testing.T) {
			v, err := evaluate(t, tt.query, three, 0)
			if err != nil {
				t.Fatal(err)
			}
			if v.IsSorted {
				t.Error("series of a range of points have an order")
			}
			if got, want := lines(v.Series, 3), lines(sorted(read(t, tt.want)), 3); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestEvaluateInstant(t *testing.T) {
	for _, tt := range []struct {
		query, want string
		isSorted    bool
	}{
		{`$requests`, `
			{app="api", pod="1"} 1
			{app="api", pod="2"} 10
			{app="web", pod="1"} 100`, false},
		{`sort($requests)`, `
			{app="api", pod="1"} 1
			{app="api", pod="2"} 10
			{app="web", pod="1"} 100`, true},
		{`sort_desc($requests)`, `
			{app="web", pod="1"} 100
			{app="api", pod="2"} 10
			{app="api", pod="1"} 1`, true},
		{`sort($odd)`, `
			{n="c"} -Inf
			{n="b"} 2
			{n="d"} 2
			{n="a"} NaN`, true},
		{`sort_desc($odd)`, `
			{n="b"} 2
			{n="d"} 2
			{n="c"} -Inf
			{n="a"} NaN`, true},
		{`sort_desc($equal)`, `
			{n="a"} 1
			{n="b"} 1
			{n="c"} 1`, true},
		{`topk(2, $requests)`, `
			{app="web", pod="1"} 100
			{app="api", pod="2"} 10`, true},
		{`approx_topk(2, $requests)`, `
			{app="web", pod="1"} 100
			{app="api", pod="2"} 10`, true},
		{`bottomk(2, $requests)`, `
			{app="api", pod="1"} 1
			{app="api", pod="2"} 10`, true},
		{`topk by (app) (1, $requests)`, `
			{app="api", pod="2"} 10
			{app="web", pod="1"} 100`, true},
		{`sort(topk(2, $requests))`, `
			{app="api", pod="2"} 10
			{app="web", pod="1"} 100`, true},
		{`topk(2, $requests) * 2`, `
			{app="api", pod="2"} 20
			{app="web", pod="1"} 200`, false},
		{`label_replace(sort_desc($equal), "n", "x$1", "n", "(.*)")`, `
			{n="xa"} 1
			{n="xb"} 1
			{n="xc"} 1`, false},
		{`topk(2, $nothing)`, ``, true},
		{`1 + 1`, `{} 2`, false},
		{`vector(1)`, `{} 1`, false},
	} {
		t.Run(tt.query, func(t *testing.T) {
			v, err := evaluate(t, tt.query, Grid{Start: second, End: second}, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := lines(v.Series, 1), lines(read(t, tt.want), 1); got != want || v.IsSorted != tt.isSorted {
				t.Errorf("sorted %t, got\n%swant\n%s", v.IsSorted, got, want)
			}
		})
	}
}

func TestScalars(t *testing.T) {
	for query, want := range map[string]bool{
		`1`: true, `1 + 1`: true, `2 > 1`: true, `vector(1)`: false, `1 + vector(1)`: false, `$one * 2`: false, `$nothing`: false,
	} {
		v, err := evaluate(t, query, three, 0)
		if err != nil {
			t.Fatal(err)
		}
		if v.IsScalar != want || v.Grid != three {
			t.Errorf("%s: scalar is %t, of %+v", query, v.IsScalar, v.Grid)
		}
	}
}

// TestNumbers computes with literals, of which the parser may leave only the result.
func TestNumbers(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, tt := range []struct {
		left  float64
		op    logql.BinaryOp
		right float64
		want  float64
	}{
		{7, logql.OpAdd, 2, 9}, {7, logql.OpSub, 2, 5}, {7, logql.OpMul, 2, 14}, {7, logql.OpDiv, 2, 3.5}, {7, logql.OpMod, 2, 1}, {7, logql.OpPow, 2, 49},
		{7, logql.OpDiv, 0, nan}, {-7, logql.OpDiv, 0, nan}, {0, logql.OpDiv, 0, nan}, {7, logql.OpMod, 0, nan}, {-7, logql.OpMod, 2, -1},
		{7.5, logql.OpMod, 2, 1.5}, {inf, logql.OpSub, inf, nan}, {inf, logql.OpDiv, 2, inf}, {1, logql.OpDiv, inf, 0}, {2, logql.OpPow, -1, .5},
		{0, logql.OpPow, 0, 1}, {-8, logql.OpPow, .5, nan},
		{1, logql.OpEqual, 1, 1}, {1, logql.OpEqual, 2, 0}, {1, logql.OpNotEqual, 1, 0}, {1, logql.OpNotEqual, 2, 1},
		{1, logql.OpGreater, 1, 0}, {2, logql.OpGreater, 1, 1}, {1, logql.OpGreaterOrEqual, 1, 1}, {0, logql.OpGreaterOrEqual, 1, 0},
		{1, logql.OpLess, 1, 0}, {0, logql.OpLess, 1, 1}, {1, logql.OpLessOrEqual, 1, 1}, {2, logql.OpLessOrEqual, 1, 0},
		{nan, logql.OpEqual, nan, 0}, {nan, logql.OpNotEqual, nan, 1}, {nan, logql.OpLess, 1, 0}, {nan, logql.OpGreaterOrEqual, 1, 0},
	} {
		for _, returnBool := range []bool{false, true} {
			expr := &logql.BinaryExpr{Op: tt.op, Left: &logql.Literal{Value: tt.left}, Right: &logql.Literal{Value: tt.right}, ReturnBool: returnBool}
			v, err := Evaluate(expr, Grid{}, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !v.IsScalar {
				t.Errorf("%v %s %v is no number", tt.left, tt.op, tt.right)
			}
			equal(t, []Series{{Points: []Point{{0, tt.want}}}}, v.Series)
		}
	}
}

func TestVariants(t *testing.T) {
	expr := &logql.Variants{Of: []logql.Expr{
		&logql.RangeAgg{Op: logql.CountOverTime},
		&logql.RangeAgg{Op: logql.BytesOverTime},
		&logql.VectorAgg{Op: logql.Sum, Expr: &logql.RangeAgg{Op: logql.BytesOverTime}},
	}}
	var asked []logql.RangeOp
	v, err := Evaluate(expr, three, 0, func(agg *logql.RangeAgg) ([]Series, error) {
		asked = append(asked, agg.Op)
		if agg.Op == logql.CountOverTime {
			return read(t, `{app="a"} 1 2 3`), nil
		}
		return read(t, `
			{app="a"} 10 20 30
			{app="b"} 5 _ _`), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := lines(read(t, `
		{__variant__="0", app="a"} 1 2 3
		{__variant__="1", app="a"} 10 20 30
		{__variant__="1", app="b"} 5 _ _
		{__variant__="2"} 15 20 30`), 3)
	if got := lines(v.Series, 3); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if !slices.Equal(asked, []logql.RangeOp{logql.CountOverTime, logql.BytesOverTime, logql.BytesOverTime}) {
		t.Errorf("asked for %v", asked)
	}
}

func TestEvaluateFails(t *testing.T) {
	for _, tt := range []struct{ query, want string }{
		{`$requests / on (app) $limits`, "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"},
		{`$limits / on (app) $requests`, `found duplicate series for the match group {app="api"} on the right hand-side of the operation: ` +
			`[{app="api", pod="1"}, {app="api", pod="2"}];many-to-many matching not allowed: matching labels must be unique on one side`},
		{`$requests / on (app) group_left () $twice`, `found duplicate series for the match group {app="api"} on the right hand-side of the operation: ` +
			`[{app="api", pod="1"}, {app="api", pod="9"}];many-to-many matching not allowed: matching labels must be unique on one side`},
		{`$twice / on (app) group_right () $requests`, `found duplicate series for the match group {app="api"} on the left hand-side of the operation: ` +
			`[{app="api", pod="1"}, {app="api", pod="9"}];many-to-many matching not allowed: matching labels must be unique on one side`},
		{`$requests / on (app) group_left (pod) $limits`, "multiple matches for labels: grouping labels must ensure unique matches"},
		{`label_replace($requests, "pod", "x", "pod", ".*")`, "vector cannot contain metrics with the same labelset: keep a label that tells them apart"},
	} {
		t.Run(tt.query, func(t *testing.T) {
			_, err := evaluate(t, tt.query, three, 0)
			if e, ok := errors.AsType[*Error](err); !ok || e.Reason != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	aggregation := &logql.RangeAgg{Op: logql.CountOverTime, Log: &logql.LogExpr{Matchers: []logql.Matcher{{Name: "a", Value: "b"}}}}
	number := &logql.Literal{Value: 1}
	for _, tt := range []struct {
		expr logql.Expr
		want string
	}{
		{&logql.LabelReplace{Expr: aggregation, Destination: "a-b", Regex: ".*"}, `invalid destination label name in label_replace(): a-b`},
		{&logql.LabelReplace{Expr: aggregation, Destination: "", Regex: ".*"}, `invalid destination label name in label_replace(): `},
		{&logql.LabelReplace{Expr: aggregation, Destination: "a", Regex: "("}, "invalid regular expression in label_replace(): error parsing regexp: missing closing ): `^(?:()$`"},
		{&logql.LabelReplace{Expr: number, Destination: "a"}, "label_replace takes series, not the number 1: vector(1) makes one of it"},
		{&logql.VectorAgg{Op: logql.Sum, Expr: number}, "sum takes series, not the number 1: vector(1) makes one of it"},
		{&logql.BinaryExpr{Op: logql.OpAnd, Left: number, Right: aggregation}, "and takes series on both sides, not a number: vector() makes series of one"},
		{&logql.BinaryExpr{Op: logql.OpOr, Left: aggregation, Right: number}, "or takes series on both sides, not a number: vector() makes series of one"},
		{aggregation.Log, "a log query has no values: count its lines, as by count_over_time"},
	} {
		_, err := Evaluate(tt.expr, three, 0, func(*logql.RangeAgg) ([]Series, error) { return nil, nil })
		if e, ok := errors.AsType[*Error](err); !ok || e.Reason != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}

	broken := errors.New("broken")
	for _, expr := range []logql.Expr{
		aggregation, &logql.VectorAgg{Op: logql.Sum, Expr: aggregation}, &logql.VectorAgg{Op: logql.TopK, Expr: aggregation},
		&logql.BinaryExpr{Op: logql.OpAdd, Left: aggregation, Right: number}, &logql.BinaryExpr{Op: logql.OpAdd, Left: number, Right: aggregation},
		&logql.LabelReplace{Expr: aggregation, Destination: "a"}, &logql.Variants{Of: []logql.Expr{aggregation}},
	} {
		if _, err := Evaluate(expr, three, 0, func(*logql.RangeAgg) ([]Series, error) { return nil, broken }); !errors.Is(err, broken) {
			t.Errorf("%T returns %v", expr, err)
		}
	}
}

func TestSeriesOfAnAnswerAreBounded(t *testing.T) {
	if _, err := evaluate(t, `sum by (app) ($requests)`, three, 2); err != nil {
		t.Error(err) // only what is answered counts
	}
	_, err := evaluate(t, `$requests`, three, 3)
	want := "maximum number of series (3) reached for a single query; consider reducing query cardinality by adding more specific stream selectors, " +
		"reducing the time range, or aggregating results with functions like sum(), count() or topk()"
	if limit, ok := errors.AsType[*LimitError](err); !ok || limit.Reason != want {
		t.Errorf("got %v", err)
	}
}

func TestNoPoints(t *testing.T) {
	for _, query := range []string{`1`, `vector(1)`, `sum($requests)`, `topk(1, $requests)`, `sort($requests)`, `$requests + $errors`, `$requests or $errors`} {
		v, err := evaluate(t, query, Grid{Start: second, End: 0, Step: second}, 0)
		if err != nil || len(v.Series) > 0 {
			t.Errorf("%s: %v, %v", query, v, err)
		}
	}
}

// TestLeavesAreNotChanged evaluates of series that are out of order and shared.
func TestLeavesAreNotChanged(t *testing.T) {
	shared, before := read(t, given["equal"]), read(t, given["equal"])
	for _, query := range []string{
		`sum($equal)`, `topk(2, $equal)`, `sort($equal)`, `$equal + 1`, `$equal > 1`, `$equal + $equal`, `$equal or $equal`, `$equal and $equal`,
		`$equal unless $equal`, `label_replace($equal, "n", "x$1", "n", "(.*)")`, `$equal + on (n) group_left (m) $equal`,
	} {
		expr, err := logql.Parse(short(query))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Evaluate(expr, three, 0, func(*logql.RangeAgg) ([]Series, error) { return shared, nil }); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(shared, before) {
			t.Fatalf("%s changed what it was given to\n%s", query, write(shared))
		}
	}
}

// TestPointsAreIndependent evaluates random series at all points at once, and at each by itself.
func TestPointsAreIndependent(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	const points = 6
	some := func() []Series {
		var all []Series
		for i := range 12 {
			s := Series{Labels: labels("app", fmt.Sprint(i%3), "pod", fmt.Sprint(i/3))}
			for p := range points {
				if random.IntN(4) == 0 {
					s.Points = append(s.Points, Point{p, float64(random.IntN(5))})
				}
			}
			if s.Points != nil {
				all = append(all, s)
			}
		}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all
	}
	failed := 0
	for _, query := range []string{
		`sum by (app) ($one)`, `max without (app) ($one)`, `stddev($one)`, `topk(2, $one)`, `bottomk by (app) (1, $one)`, `$one > 2`,
		`$one + $odd`, `$one == $odd`, `$one / on (app) sum by (app) ($odd)`, `$one * on (app) group_left (pod) $odd`, `$one - on (pod) group_right $odd`,
		`$one + on (app, pod) group_left $odd`, `$one and on (app) $odd`, `$one or on (pod) $odd`, `$one unless on (app) $odd`, `$one + on (app) $odd`,
		`label_replace($one, "pod", "x", "pod", "[12]")`,
	} {
		expr, err := logql.Parse(short(query))
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			values := map[string][]Series{"one": some(), "odd": some()}
			grid := Grid{End: points - 1, Step: 1}
			whole, wholeErr := Evaluate(expr, grid, 0, func(agg *logql.RangeAgg) ([]Series, error) { return values[agg.Log.Matchers[0].Value], nil })
			joined := map[string]Series{}
			var eachErr error
			for i := range points {
				v, err := Evaluate(expr, Grid{Step: 1}, 0, func(agg *logql.RangeAgg) ([]Series, error) {
					var at []Series
					for _, s := range values[agg.Log.Matchers[0].Value] {
						for _, p := range s.Points {
							if p.Index == i {
								at = append(at, Series{s.Labels, []Point{{0, p.Value}}})
							}
						}
					}
					return at, nil
				})
				if err != nil {
					eachErr = err
					break
				}
				for _, s := range v.Series {
					key := format(s.Labels)
					joined[key] = Series{s.Labels, append(joined[key].Points, Point{i, s.Points[0].Value})}
				}
			}
			if (wholeErr != nil) != (eachErr != nil) {
				t.Fatalf("%s: all at once: %v; each: %v", query, wholeErr, eachErr)
			}
			if wholeErr != nil {
				failed++
				continue
			}
			equal(t, sorted(slices.Collect(maps.Values(joined))), whole.Series)
		}
	}
	if failed == 0 {
		t.Error("no matching was refused")
	}
}

// BenchmarkEvaluate computes of 500 series at 300 points.
func BenchmarkEvaluate(b *testing.B) {
	var all []Series
	for i := range 500 {
		s := Series{Labels: labels("app", fmt.Sprint("app", i/10), "level", []string{"debug", "info", "warn", "error"}[i%4], "pod", fmt.Sprint("pod", i))}
		for p := range 300 {
			s.Points = append(s.Points, Point{p, float64((i*7919 + p*104729) % 1000)})
		}
		all = append(all, s)
	}
	all = sorted(all)
	for _, query := range []string{
		`sum by (level) ($one)`, `stddev by (level) ($one)`, `topk(10, $one)`, `$one * 2 > 100`, `$one / $one`,
		`$one / on (app) group_left sum by (app) ($one)`, `$one and on (app) $one`, `label_replace($one, "pod", "$1", "pod", "pod(.*)")`,
	} {
		b.Run(query, func(b *testing.B) {
			expr, err := logql.Parse(short(query))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Evaluate(expr, Grid{End: 299, Step: 1}, 500, func(*logql.RangeAgg) ([]Series, error) { return all, nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
