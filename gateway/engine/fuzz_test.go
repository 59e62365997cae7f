package engine

import (
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/gateway/logql/logqltest"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
)

// FuzzStatements writes the statements of any query, and looks at what is in them: constants of this program, and parameters that are bound.
func FuzzStatements(f *testing.F) {
	for _, query := range []string{
		`{app="api"} |= "x" or "y" != "z" |~ "a.*é" | json | status >= 500 and level=~"e.*" or trace_id != "a'b" | drop x | keep app, status`,
		`sum by (level, detected_level) (count_over_time({app=~".+"} | drop __error__ [1m] offset 5s))`,
		`avg_over_time({a="b"} | json | unwrap took | __error__="" [5m]) by (app, it_s)`,
		`{a="';DROP TABLE logs.log;--"} |= "'; --" | json | x="\\' OR 1=1" | b_c!~"{p0_string:String}"`,
		`topk(3, sum without (app) (first_over_time({a="b"} | logfmt | unwrap bytes(x) [1h])))`,
	} {
		f.Add(query, uint64(1))
	}
	for seed := range uint64(20) {
		f.Add(logqltest.Metric(rand.New(rand.NewPCG(seed, 1))).String(), seed)
	}
	s, err := store.Open(store.Config{DSN: "clickhouse://127.0.0.1:1/logs", Connections: 1}, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	e := New(Config{Store: s})
	f.Fuzz(func(t *testing.T, query string, seed uint64) {
		expr, err := logql.Parse(query)
		if err != nil {
			return
		}
		r := rand.New(rand.NewPCG(seed, 2))
		streams := map[uint64]*stream{}
		for i := range 1 + r.IntN(3) {
			of := &stream{id: uint64(i), first: 0, last: 1e18}
			for _, name := range []string{"app", "env", "level", "detected_level"} {
				if r.IntN(2) == 0 {
					of.labels = append(of.labels, logs.Label{Name: name, Value: "it's\\"})
				}
			}
			streams[of.id] = of
		}
		logql.Walk(expr, func(expr logql.Expr) {
			switch expr := expr.(type) {
			case *logql.LogExpr:
				q := e.rowsOf("acme", streams, &cut.Cut{Landed: []uint64{7}, Entries: []cut.Entry{{Timestamp: 5}}}, 0, 10)
				sifted := newSift(q, streams, expr.Stages, r.IntN(2) == 0)
				q.columns = rowColumns
				q.and(sifted.certain()...)
				q.and(sifted.rest()...)
				q.and(sifted.all()...)
				checkStatement(t, q, query)
			case *logql.RangeAgg:
				window := series.WindowOf(expr, series.Grid{Start: 1e18, End: 2e18, Step: 1e15})
				q := e.rowsOf("acme", streams, &cut.Cut{}, 0, 10)
				sifted := newSift(q, streams, expr.Log.Stages, true)
				sum, ok := (&rangeQuery{e: e, agg: expr, window: window, streams: streams, lines: &liner{}}).newSum(sifted)
				if !ok {
					return
				}
				sum.write(q, sifted)
				q.and(sifted.all()...)
				checkStatement(t, q, query)
			}
		})
	})
}

var (
	parameter = regexp.MustCompile(`\{(p\d+_[a-z0-9_]+):[A-Za-z0-9()]+\}`)
	constant  = regexp.MustCompile(`'(?:[^'\\]|\\.)*'`)
	word      = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)
)

// checkStatement checks that all that is named is bound, and that nothing but constants stands beside it.
func checkStatement(t *testing.T, s *statement, query string) {
	t.Helper()
	sql := s.sql()
	if !strings.Contains(strings.Replace(sql, " PREWHERE ", " WHERE ", 1), " FROM logs.log WHERE tenant_id = {p0_string:String} AND ") || s.parameters["p0_string"] != "acme" {
		t.Errorf("%s: a statement without its tenant: %s", query, sql)
	}
	for _, match := range parameter.FindAllStringSubmatch(sql, -1) {
		if _, ok := s.parameters[match[1]]; !ok {
			t.Errorf("%s: %s is not bound: %s", query, match[0], sql)
		}
	}
	bare := constant.ReplaceAllString(parameter.ReplaceAllString(sql, "?"), "''")
	for _, w := range word.FindAllString(bare, -1) {
		if !knownWords[w] {
			t.Errorf("%s: %q is no word of a statement: %s", query, w, sql)
		}
	}
	if strings.ContainsAny(bare, ";`\"#") || strings.Contains(bare, "--") {
		t.Errorf("%s: what comes from outside is in the statement: %s", query, sql)
	}
}

var knownWords = func() map[string]bool {
	known := map[string]bool{}
	for w := range strings.FieldsSeq(`SELECT FROM PREWHERE WHERE AND OR NOT IN LIKE AS GROUP BY logs log tenant_id stream_id timestamp msg metadata wal_shard wal_seq wal_index
		time names values key value name intervals is_sure of_stream samples total least most first last position_0 position_1 position_2 position_3
		group_0 group_1 group_2 group_3 group_4 group_5 group_6 group_7
		CAST mapKeys mapValues mapContains has empty notEmpty length countEqual arrayCount arrayFirst arrayMap match toUInt8 toUInt64 toFloat64 toFloat64OrZero
		toUnixTimestamp64Nano fromUnixTimestamp64Nano toHour position countSubstrings startsWith substring if multiIf transform lower extract multiSearchAny isValidUTF8
		JSONType JSONExtractRaw bitOr bitShiftLeft intDiv least greatest count sum min max argMin argMax tupleElement`) {
		known[w] = true
	}
	return known
}()
