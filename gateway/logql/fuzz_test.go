package logql_test

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/gateway/logql/logqltest"
)

// FuzzParse holds that whatever is a query is read back from what it is written as, and whatever is none has an error with a place in it.
func FuzzParse(f *testing.F) {
	for _, query := range []string{
		"", "1", "{", `{a="b"}`, `{a="b", c=~"d|e", f!="", g!~".+"} |= "x" or ip("10.0.0.0/8") != "y" |~ "z" !~ "w" |> "<_> v" !> "u"`,
		`{a="b"} | json | json x="y[0]", z | logfmt --strict --keep-empty x, y="z" | regexp "(?P<x>.)" | pattern "<x> <_>" | unpack`,
		`{a="b"} | x="1" or y!="2" and z=~"3", w!~"4" v>=5 (u<6ms) | t==7KB | s=ip("1.1.1.1-1.1.1.9") | json != "x" | (json != "x")`,
		"{a=\"b\"} | line_format `{{.x}}` | label_format x=y,z=`{{.w | f \"1\"}}` | decolorize | drop x, y=\"z\" | keep x !~ \"y\" # comment",
		`quantile_over_time(0.99, {a="b"}[5m] offset -1h | json | unwrap bytes(x) | __error__="") without (a, b)`,
		`sum by (x) (rate(({a="b"} |= "c")[1h30m])) / on (x) group_left (y) topk(10, sum(rate({a="b"}[1w])) by (x, y)) > bool -1e3`,
		`label_replace(vector(1), "a", "$1", "b", "(.*)") or 2 ^ -3 ^ 4 - 5 % (6 - 7) unless ignoring () sort_desc(vector(.5))`,
		`variants(count_over_time({a="b"}[1m]), sum(bytes_rate({a="b"}[1m]))) of ({a="b"} | json [1m])`,
	} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		start := time.Now()
		e, err := logql.Parse(query)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("reading it took %v", took)
		}
		if err == nil {
			readsBack(t, e)
			return
		}
		at, ok := errors.AsType[*logql.ParseError](err)
		if lines := strings.Split(query, "\n"); !ok || at.Line < 1 || at.Line > len(lines) || at.Column < 1 ||
			at.Column > utf8.RuneCountInString(lines[at.Line-1])+1 || at.Reason == "" || !utf8.ValidString(at.Reason) {
			t.Errorf("the error is %#v", err)
		}
		if matchers, err := logql.ParseSelector(query); err == nil {
			text := (&logql.LogExpr{Matchers: matchers}).String()
			if got, err := logql.ParseSelector(text); err != nil || !reflect.DeepEqual(got, matchers) {
				t.Errorf("%s is read as %v: %v", text, got, err)
			}
		}
	})
}

// FuzzPrint holds that random trees are read back from what they are written as.
func FuzzPrint(f *testing.F) {
	f.Add(uint64(0), "x")
	f.Add(uint64(1), "\"\\`\r\n\t\x00\xffé\ufeff{{")
	f.Fuzz(func(t *testing.T, seed uint64, word string) {
		r := rand.New(rand.NewPCG(seed, seed))
		v := logqltest.Default()
		// A regular expression has to be UTF-8, and a word in a pattern is to have no captures of its own.
		if word != "" && utf8.ValidString(word) && !strings.ContainsAny(word, "<>") {
			v.Words = append(v.Words, word)
			for name := range v.Labels {
				v.Labels[name] = append(v.Labels[name], word)
			}
		}
		v.Paths["odd"] = word
		v.Numbers["odd"] = []float64{r.NormFloat64(), 1e-300 * r.Float64(), 1e300 * r.Float64(), float64(r.Int64())}
		v.Durations["odd"] = []time.Duration{time.Duration(r.Int64()), -time.Duration(r.Int64N(1e12))}
		v.Sizes["odd"] = []uint64{r.Uint64(), 1 << r.IntN(64)}
		v.Ranges = append(v.Ranges, 1+time.Duration(r.Int64N(1e18)))
		v.Scalars = append(v.Scalars, v.Numbers["odd"]...)
		readsBack(t, v.Log(r))
		readsBack(t, v.Metric(r))
	})
}

func readsBack(t *testing.T, e logql.Expr) {
	t.Helper()
	for _, text := range []string{e.String(), logql.Format(e)} {
		if got, err := logql.Parse(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		} else if !reflect.DeepEqual(got, e) {
			t.Fatalf("%s is read as %s", text, got)
		}
	}
}
