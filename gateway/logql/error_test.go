package logql

import (
	"errors"
	"testing"
)

func TestParseErrors(t *testing.T) {
	const (
		matchesEmpty = "queries require at least one regexp or equality matcher that does not have an empty-compatible value. " +
			`For instance, app=~".*" does not meet this requirement, but app=~".+" will`
		noMetric = "a metric query is needed here, and this is a log query: it has to be aggregated, as by count_over_time({app=\"x\"}[5m])"
	)
	for _, test := range []struct {
		query  string
		column int
		reason string
	}{
		{`{a="b"`, 7, "syntax error: unexpected end of input, expecting } or ,"},
		{`{a="b`, 4, "literal not terminated: the string that begins here has no end"},
		{`{a="b\q"}`, 4, `invalid string "b\q": a backslash that is no escape is written twice, or the string in backquotes`},
		{"{a=}", 4, "syntax error: unexpected }, expecting a string"},
		{"{a", 3, "syntax error: unexpected end of input, expecting = or != or =~ or !~"},
		{"{", 2, "syntax error: unexpected end of input, expecting the name of a label"},
		{`{a="b"} |`, 10, `syntax error: unexpected end of input, expecting a stage, or a condition such as level="error"`},
		{`{a="b"} |=`, 11, "syntax error: unexpected end of input, expecting a string or ip(…)"},
		{`{a="b"} |= x`, 12, "syntax error: unexpected IDENTIFIER (x), expecting a string or ip(…)"},
		{`{a="b"} | foo`, 14, "syntax error: unexpected end of input, expecting = or != or =~ or !~ or > or >= or < or <= behind the label foo, since there is no stage of this name"},
		{`{a="b"} | json x=`, 18, "syntax error: unexpected end of input, expecting a string: what of the line becomes the label"},
		{`{a="b"} | logfmt x --strict`, 20, "syntax error: unexpected --strict, expecting an operator or the end"},
		{`{a="b"} | logfmt --foo`, 18, "syntax error: unexpected --foo, expecting --strict or --keep-empty"},
		{`{a="b"} | regexp "(.)"`, 18, "invalid regexp parser: at least one named capture must be supplied, as (?P<name>…)"},
		{`{a="b"} | regexp "(?P<x>.)(?P<x>.)"`, 18, "invalid regexp parser: duplicate extracted label name 'x'"},
		{`{a="b"} | regexp "(?P<1x>.)"`, 18, "invalid regexp parser: invalid extracted label name '1x'"},
		{`{a="b"} | regexp "("`, 18, "invalid regexp parser: error parsing regexp: missing closing ): `(`"},
		{`{a="b"} | pattern "<_>"`, 19, "invalid pattern parser: at least one capture is required, as <name>"},
		{`{a="b"} | pattern "<x><y>"`, 19, "invalid pattern parser: found consecutive capture '<x><y>': there has to be text between two"},
		{`{a="b"} | pattern "<x> <x>"`, 19, "invalid pattern parser: duplicate capture name (x)"},
		{`{a="b"} | pattern ""`, 19, "invalid pattern parser: at least one capture is required, as <name>"},
		{`{a="b"} |> "<x> y"`, 12, "invalid pattern filter: named captures are not allowed: <x> has to be <_>"},
		{`{a="b"} |> "<_><_>"`, 12, "invalid pattern filter: found consecutive capture '<_><_>': there has to be text between two"},
		{`{a="b"} | line_format "{{.x}"`, 23, "invalid template, line 1: bad character U+007D '}'"},
		{`{a="b"} | line_format "{{if}}"`, 23, "invalid template, line 1: missing value for if"},
		{`{a="b"} | line_format x`, 23, "syntax error: unexpected IDENTIFIER (x), expecting a template, as a string"},
		{`{a="b"} | label_format x=y,x="{{.d}}"`, 28, "multiple label name 'x' not allowed in a single format operation"},
		{`{a="b"} | label_format x="{{"`, 26, "invalid template, line 1: unclosed action"},
		{`{a="b"} | label_format x=5`, 26, "syntax error: unexpected NUMBER (5), expecting the name of a label, or a template as a string"},
		{`{a="b"} | drop x,`, 18, "syntax error: unexpected end of input, expecting the name of a label"},
		{`{a="b"} | drop`, 15, "syntax error: unexpected end of input, expecting the name of a label"},
		{`{a="b"} | keep x=~"("`, 19, "error parsing regexp: missing closing ): `(`"},
		{`{a=~"("}`, 5, "error parsing regexp: missing closing ): `(`"},
		{`{a="b"} |~ "("`, 12, "error parsing regexp: missing closing ): `(`"},
		{`{a="b"} | x=~"("`, 14, "error parsing regexp: missing closing ): `(`"},
		{`{a="b"} | x=~5`, 14, "syntax error: unexpected NUMBER (5), expecting a string"},
		{`{a="b"} | x>"y"`, 13, `syntax error: unexpected STRING ("y"), expecting a number, a duration such as 5m, or a size such as 5MB`},
		{`{a="b"} | x="y" and`, 20, `syntax error: unexpected end of input, expecting a stage, or a condition such as level="error"`},
		{`{a="b"} | (x="y"`, 17, "syntax error: unexpected end of input, expecting )"},
		{`{a="b"} | x = ip("z")`, 18, `invalid ip pattern "z": it is no address ("10.0.0.1"), no range ("10.0.0.1-10.0.0.9") and no CIDR ("10.0.0.0/8")`},
		{`{a="b"} |= ip("10.0.0.9-10.0.0.1")`, 15, `invalid ip pattern "10.0.0.9-10.0.0.1": the range ends before it begins`},
		{`{a="b"} |~ ip("10.0.0.9")`, 12, "syntax error: unexpected ip: it goes with |= and != only"},
		{`{a="b"} | x =~ ip("10.0.0.9")`, 16, "syntax error: unexpected IDENTIFIER (ip), expecting a string"},
		{`{a="b"} | x=5z`, 13, "syntax error: 5z is no number, no duration such as 1h30m and no size such as 20MB, or too large a one"},
		{`{a="b"} $`, 9, "syntax error: unexpected character '$'"},
		{`{a="b"} 'x'`, 9, "syntax error: unexpected ': a string is in double quotes or backquotes"},
		{`{a="b"} "x"`, 9, `syntax error: unexpected STRING ("x"), expecting an operator or the end`},
		{`{a="b"}[5m]`, 8, "syntax error: unexpected [: a range is for metric queries, as count_over_time({…}[5m])"},
		{`{a="b"} | unwrap x`, 11, "syntax error: unexpected unwrap: it is for metric queries, as sum_over_time({…} | unwrap took [5m])"},
		{"{}", 1, matchesEmpty},
		{`{a=~".*"}`, 1, matchesEmpty},
		{`{a="",b!="c"}`, 1, matchesEmpty},
		{`rate({a="b"})`, 13, "syntax error: unexpected ), expecting a range such as [5m]"},
		{`rate({a="b"}[5m] |= "x" offset 5m)`, 25, "syntax error: unexpected IDENTIFIER (offset), expecting )"},
		{`rate({a="b"}[5m]) offset 5m`, 19, "syntax error: unexpected IDENTIFIER (offset), expecting an operator or the end"},
		{`rate({a="b"}[5m][5m])`, 17, "syntax error: unexpected [: there is a range already"},
		{`rate({a="b"}[5])`, 14, "syntax error: unexpected NUMBER (5), expecting a duration such as 5m"},
		{`rate({a="b"}[-5m])`, 14, "the range has to be longer than 0"},
		{`rate({a="b"}[0s])`, 14, "the range has to be longer than 0"},
		{`rate(sum(rate({a="b"}[5m])))`, 6, "syntax error: unexpected IDENTIFIER (sum), expecting {"},
		{`rate by (x) ({a="b"}[5m])`, 6, "syntax error: unexpected IDENTIFIER (by), expecting ("},
		{`rate({a="b"}[5m]) by (x)`, 19, "grouping not allowed for rate aggregation"},
		{`sum_over_time({a="b"}[5m])`, 1, "invalid aggregation sum_over_time without unwrap: it is of values, as | unwrap took makes them"},
		{`count_over_time({a="b"} | unwrap x [5m])`, 27, "invalid aggregation count_over_time with unwrap: it is of lines, not of values"},
		{`sum_over_time({a="b"} | unwrap foo(x) [5m])`, 32, `"foo" is no conversion of unwrap: there are bytes, duration and duration_seconds`},
		{`sum_over_time({a="b"} | unwrap x | json [5m])`, 34, `only label filters can follow unwrap, such as | __error__=""`},
		{`sum_over_time({a="b"} | unwrap x | unwrap y [5m])`, 36, "syntax error: unexpected unwrap: there is one already"},
		{`sum_over_time({a="b"} | unwrap x |= "y" [5m])`, 41, `only label filters can follow unwrap, such as | __error__=""`},
		{`quantile_over_time({a="b"} | unwrap x [5m])`, 20, "parameter required for operation quantile_over_time: the quantile, as in quantile_over_time(0.99, …)"},
		{`rate(2, {a="b"} [5m])`, 6, "parameter 2 not supported for operation rate"},
		{"topk(0, vector(1))", 6, "invalid parameter (must be greater than 0) topk(0"},
		{"topk(-1, vector(1))", 6, "invalid parameter (must be greater than 0) topk(-1"},
		{"topk(1.5, vector(1))", 6, "invalid parameter topk(1.5: it has to be a whole number, and not above 2147483647"},
		{"topk(3e9, vector(1))", 6, "invalid parameter topk(3e9: it has to be a whole number, and not above 2147483647"},
		{"topk(vector(1))", 6, "parameter required for operation topk: how many, as in topk(10, …)"},
		{"sum(2, vector(1))", 5, "unsupported parameter for operation sum(2,"},
		{"sum by (x) (vector(1)) by (x)", 24, "syntax error: unexpected IDENTIFIER (by), expecting an operator or the end"},
		{"sum by x (vector(1))", 8, "syntax error: unexpected IDENTIFIER (x), expecting ("},
		{"sum by (x,) (vector(1))", 11, "syntax error: unexpected ), expecting the name of a label"},
		{"approx_topk(2, vector(1)) by (x)", 27, "grouping not allowed for approx_topk aggregation"},
		{"sort by (x) (vector(1))", 6, "grouping not allowed for sort aggregation"},
		{`sum({a="b"})`, 5, noMetric},
		{`sum({a="b"}[5m])`, 12, "syntax error: unexpected [: a range is for metric queries, as count_over_time({…}[5m])"},
		{`{a="b"} + 1`, 1, noMetric},
		{`1 + {a="b"}`, 5, noMetric},
		{`({a="b"}) |= "x"`, 11, "syntax error: unexpected |=, expecting an operator or the end"},
		{`foo({a="b"}[5m])`, 1, "syntax error: unexpected IDENTIFIER (foo): there is no function of this name"},
		{"foo", 1, "syntax error: unexpected IDENTIFIER (foo), expecting a query"},
		{"rate", 5, "syntax error: unexpected end of input, expecting ("},
		{"1 or vector(1)", 3, "unexpected literal for left leg of logical/set binary operation (or): a number has no labels to match, vector(…) of it has: none"},
		{"vector(1) and 1", 11, "unexpected literal for right leg of logical/set binary operation (and): a number has no labels to match, vector(…) of it has: none"},
		{"vector(1) unless (1 > 2)", 11, "unexpected literal for right leg of logical/set binary operation (unless): a number has no labels to match, vector(…) of it has: none"},
		{"vector(1) + bool vector(2)", 13, "bool is for comparisons only, not for +"},
		{"vector(1) > group_left (x) vector(2)", 13, "syntax error: unexpected IDENTIFIER (group_left): there is no function of this name"},
		{"vector(1) and on (x) group_left () vector(2)", 22, "group_left is not allowed for the set operator and, which matches many with many"},
		{"1 +", 4, "syntax error: unexpected end of input, expecting a query"},
		{"1 1", 3, "syntax error: unexpected NUMBER (1), expecting an operator or the end"},
		{"-vector(1)", 2, "syntax error: unexpected IDENTIFIER (vector), expecting a number"},
		{"1e999", 1, "syntax error: 1e999 is no number, no duration such as 1h30m and no size such as 20MB, or too large a one"},
		{"vector(x)", 8, "syntax error: unexpected IDENTIFIER (x), expecting a number"},
		{"vector(1", 9, "syntax error: unexpected end of input, expecting )"},
		{`label_replace(vector(1), "a", "b", "c", "(d")`, 41, "invalid regex in label_replace: error parsing regexp: missing closing ): `(d`"},
		{`label_replace(vector(1), "a", "b", "c")`, 39, "syntax error: unexpected ), expecting ,"},
		{`sum(variants(vector(1)) of ({a="b"}[5m]))`, 5, "syntax error: unexpected variants: it can only be the whole of a query"},
		{`variants(vector(1)) of ({a="b"})`, 32, "syntax error: unexpected ), expecting a range such as [5m]"},
		{`variants(vector(1)) of ({a="b"} | unwrap x [5m])`, 35, "unwrap is not for what variants are of, but for the variants themselves"},
		{`variants(vector(1)) of ({a="b"}[5m] offset 5m)`, 25, "offset is not for what variants are of, but for the variants themselves"},
		{`variants({a="b"}) of ({a="b"}[5m])`, 10, noMetric},
		{`"x"`, 1, `syntax error: unexpected STRING ("x"), expecting a query`},
		{")", 1, "syntax error: unexpected ), expecting a query"},
		{"{a='b'}", 4, "syntax error: unexpected ': a string is in double quotes or backquotes"},
		{`{é="b"}`, 2, "syntax error: unexpected character 'é'"},
		{`{a="b"} | json x y`, 18, "syntax error: unexpected IDENTIFIER (y), expecting an operator or the end"},
		{`{a="b"} | x="1" json`, 17, "syntax error: unexpected json: a stage has | before it"},
		{`{a="b"} | json x, logfmt`, 19, "syntax error: unexpected logfmt: a stage has | before it"},
		{`{a="b"} | logfmt line_format "x"`, 18, "syntax error: unexpected line_format: a stage has | before it"},
		{`{a="b"} | and = "x"`, 11, `syntax error: unexpected IDENTIFIER (and), expecting a condition such as level="error"`},
		{`{a="b"} |= "x" or`, 18, "syntax error: unexpected end of input, expecting a string or ip(…)"},
		{`{a="b", }`, 9, "syntax error: unexpected }, expecting the name of a label"},
		{"sum without (vector(1))", 20, "syntax error: unexpected (, expecting )"},
		{`{a="b"} | json "x"`, 16, `syntax error: unexpected STRING ("x"), expecting an operator or the end`},
	} {
		_, err := Parse(test.query)
		want := ParseError{1, test.column, test.reason}
		if got, ok := errors.AsType[*ParseError](err); !ok || *got != want {
			t.Errorf("%s: %v; want %v", test.query, err, &want)
		}
	}
}

func TestParseErrorPlaces(t *testing.T) {
	for query, want := range map[string]string{
		"":                               "parse error at line 1, col 1: syntax error: unexpected end of input, expecting a query",
		"# comment":                      "parse error at line 1, col 10: syntax error: unexpected end of input, expecting a query",
		"\n\n  é":                        "parse error at line 3, col 3: syntax error: unexpected character 'é'",
		"{a=\"é€😀\"}\n| json # é\n |= x": "parse error at line 3, col 5: syntax error: unexpected IDENTIFIER (x), expecting a string or ip(…)",
		"{a=\"b\"} |= `\n\n` x":          "parse error at line 3, col 3: syntax error: unexpected IDENTIFIER (x), expecting an operator or the end",
		"1 +\r\n\t)":                     "parse error at line 2, col 2: syntax error: unexpected ), expecting a query",
		"{a=\"é\xff\"}":                  "parse error at line 1, col 6: the query is not UTF-8: byte 0xff",
		"1\n\xc3":                        "parse error at line 2, col 1: the query is not UTF-8: byte 0xc3",
		"{a=\"\\xff\"} \x00":             "parse error at line 1, col 12: syntax error: unexpected character '\\x00'",
	} {
		if _, err := Parse(query); err == nil || err.Error() != want {
			t.Errorf("%q: %v; want %s", query, err, want)
		}
	}
}

func TestParseSelectorErrors(t *testing.T) {
	for query, want := range map[string]string{
		"":                  "parse error at line 1, col 1: syntax error: unexpected end of input, expecting {",
		"a":                 "parse error at line 1, col 1: syntax error: unexpected IDENTIFIER (a), expecting {",
		`{a="b"} |= "c"`:    "parse error at line 1, col 9: syntax error: unexpected |=, expecting the end",
		`{a=~"b["}`:         "parse error at line 1, col 5: error parsing regexp: missing closing ]: `[`",
		"{a=\"b\xff\"}":     "parse error at line 1, col 6: the query is not UTF-8: byte 0xff",
		`{a="b" c="d"}`:     "parse error at line 1, col 8: syntax error: unexpected IDENTIFIER (c), expecting } or ,",
		`{a; DROP TABLE x}`: "parse error at line 1, col 3: syntax error: unexpected character ';'",
	} {
		if _, err := ParseSelector(query); err == nil || err.Error() != want {
			t.Errorf("%q: %v; want %s", query, err, want)
		}
	}
}

// What would be of meaning in SQL can be the value of a label, and never its name.
func TestNamesAreNames(t *testing.T) {
	for _, name := range []string{
		"a' OR '1'='1", "a; DROP TABLE log", "a--", "a/**/", "a)", "a.b", "a-b", "a b", "1a", "é", "`a`", "\"a\"", "$a", "a\x00", "a:b",
	} {
		for _, query := range []string{
			"{" + name + `="x"}`,
			`{a="b"} | ` + name + `="x"`,
			`{a="b"} | json | ` + name + ` > 5`,
			`{a="b"} | json ` + name + `="x"`,
			`{a="b"} | logfmt x, ` + name,
			`{a="b"} | label_format ` + name + `="x"`,
			`{a="b"} | label_format x=y, ` + name + `=z`,
			`{a="b"} | drop x, ` + name,
			`{a="b"} | keep x, ` + name,
			`sum by (x, ` + name + `) (rate({a="b"}[1m]))`,
			`sum_over_time({a="b"} | unwrap ` + name + ` [1m])`,
			`vector(1) + on (x, ` + name + `) vector(2)`,
			`vector(1) + on (x) group_left (x, ` + name + `) vector(2)`,
		} {
			if e, err := Parse(query); err == nil {
				t.Errorf("%s is read as %s", query, e)
			}
		}
	}
}
