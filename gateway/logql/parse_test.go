package logql

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// app is what selects in most of the queries here.
var app = []Matcher{{Name: "a", Value: "b"}}

// lines is {a="b"} with stages.
func lines(stages ...Stage) *LogExpr { return &LogExpr{Matchers: app, Stages: stages} }

func TestParseSelectors(t *testing.T) {
	for query, want := range map[string][]Matcher{
		`{a="b"}`:                {{"a", Equal, "b"}},
		"{ a = `b` , c!=\"d\" }": {{"a", Equal, "b"}, {"c", NotEqual, "d"}},
		`{a=~"b|c",d!~".*e"}`:    {{"a", Regexp, "b|c"}, {"d", NotRegexp, ".*e"}},
		`{a="b",a!="c"}`:         {{"a", Equal, "b"}, {"a", NotEqual, "c"}},
		`{a!=""}`:                {{"a", NotEqual, ""}},
		`{a!~".*"}`:              {{"a", NotRegexp, ".*"}},
		`{_A9="\x41\u00e9\n\\"}`: {{"_A9", Equal, "Aé\n\\"}},
		"{a=`\\d\n\"`}":          {{"a", Equal, "\\d\n\""}},
		`{by="1", json="2", rate="3", or="4", offset="5"}`: {
			{"by", Equal, "1"}, {"json", Equal, "2"}, {"rate", Equal, "3"}, {"or", Equal, "4"}, {"offset", Equal, "5"},
		},
		"# first\n{ # second\na=\"b#c\"}# third": {{"a", Equal, "b#c"}},
	} {
		got, err := Parse(query)
		if want := (&LogExpr{Matchers: want}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", query, got, err, want)
		}
		if got, err := ParseSelector(query); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("selector %s: %+v, %v; want %+v", query, got, err, want)
		}
	}
	for query, want := range map[string][]Matcher{
		"{}":               nil,
		`{a=""}`:           {{"a", Equal, ""}},
		`{a=~".*",b!="c"}`: {{"a", Regexp, ".*"}, {"b", NotEqual, "c"}},
	} {
		if got, err := ParseSelector(query); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("selector %s: %+v, %v; want %+v", query, got, err, want)
		}
	}
}

func TestParseStages(t *testing.T) {
	line := func(op LineOp, values ...string) *LineFilter {
		f := &LineFilter{Op: op}
		for _, v := range values {
			f.Alternatives = append(f.Alternatives, LinePattern{Value: v})
		}
		return f
	}
	match := func(name string, op MatchOp, value string) LabelMatch {
		return LabelMatch{Name: name, Matcher: &Matcher{name, op, value}}
	}
	text := func(name string, op MatchOp, value string) *LabelFilter {
		return &LabelFilter{&StringPredicate{Matcher{name, op, value}}}
	}
	for query, want := range map[string][]Stage{
		``:                               nil,
		`|= "x" != "y" |~ "z+" !~ "w"`:   {line(LineContains, "x"), line(LineNotContains, "y"), line(LineMatches, "z+"), line(LineNotMatches, "w")},
		`|> "<_> x" !> "y"`:              {line(LinePatternIs, "<_> x"), line(LinePatternNot, "y")},
		`|> ""`:                          {line(LinePatternIs, "")},
		`|= "x" or "y" or "z" |= ""`:     {line(LineContains, "x", "y", "z"), line(LineContains, "")},
		`|=ip("10.0.0.1")or"x"`:          {&LineFilter{LineContains, []LinePattern{{true, "10.0.0.1"}, {false, "x"}}}},
		`!= ip("::1-::9") or ip("::/8")`: {&LineFilter{LineNotContains, []LinePattern{{true, "::1-::9"}, {true, "::/8"}}}},

		`| json`:                        {&JSON{}},
		`| json x="y[0].z", w`:          {&JSON{[]Extraction{{"x", "y[0].z"}, {"w", "w"}}}},
		`| logfmt`:                      {&Logfmt{}},
		`| logfmt --strict`:             {&Logfmt{Strict: true}},
		`|logfmt --keep-empty --strict`: {&Logfmt{Strict: true, KeepEmpty: true}},
		`| logfmt --keep-empty x, y="z"`: {
			&Logfmt{KeepEmpty: true, Labels: []Extraction{{"x", "x"}, {"y", "z"}}},
		},
		"| regexp `(?P<x>.)(.)(?<y>.)`": {&RegexpParser{"(?P<x>.)(.)(?<y>.)"}},
		`| pattern "<x> <_>"`:           {&PatternParser{"<x> <_>"}},
		`| unpack`:                      {&Unpack{}},
		`| line_format "{{.x | f}}"`:    {&LineFormat{"{{.x | f}}"}},
		`| label_format x=y, z="{{.w}}", v="u"`: {
			&LabelFormat{[]LabelFormatting{{"x", false, "y", ""}, {"z", true, "", "{{.w}}"}, {"v", true, "", "u"}}},
		},
		`| decolorize`: {&Decolorize{}},
		`| drop x, y="z", w!="", v=~"u", t!~"s"`: {&Drop{[]LabelMatch{
			{Name: "x"}, match("y", Equal, "z"), match("w", NotEqual, ""), match("v", Regexp, "u"), match("t", NotRegexp, "s"),
		}}},
		`| keep x`: {&Keep{[]LabelMatch{{Name: "x"}}}},

		`| json != "x"`:            {&JSON{}, line(LineNotContains, "x")},
		`| json x !~ "y"`:          {&JSON{[]Extraction{{"x", "x"}}}, line(LineNotMatches, "y")},
		`| unpack !~ "x"`:          {&Unpack{}, line(LineNotMatches, "x")},
		`| (json != "x")`:          {text("json", NotEqual, "x")},
		`| json = "x"`:             {text("json", Equal, "x")},
		`| regexp != "x"`:          {text("regexp", NotEqual, "x")},
		`| drop x != "y" != "z"`:   {&Drop{[]LabelMatch{match("x", NotEqual, "y")}}, line(LineNotContains, "z")},
		`| drop x |= "y"`:          {&Drop{[]LabelMatch{{Name: "x"}}}, line(LineContains, "y")},
		`| label_format x=y !~"z"`: {&LabelFormat{[]LabelFormatting{{"x", false, "y", ""}}}, line(LineNotMatches, "z")},
		`| x="y" != "z"`:           {text("x", Equal, "y"), line(LineNotContains, "z")},
		`| drop by, json`:          {&Drop{[]LabelMatch{{Name: "by"}, {Name: "json"}}}},
		`| unwrap = "x" | offset!="y" | ip="z" | bytes=~"w"`: {
			text("unwrap", Equal, "x"), text("offset", NotEqual, "y"), text("ip", Equal, "z"), text("bytes", Regexp, "w"),
		},
	} {
		query = `{a="b"}` + query
		if got, err := Parse(query); err != nil || !reflect.DeepEqual(got, lines(want...)) {
			t.Errorf("%s: %v, %v; want %v", query, got, err, lines(want...))
		}
	}
}

func TestParsePredicates(t *testing.T) {
	is := func(name string) Predicate { return &StringPredicate{Matcher{Name: name, Value: "1"}} }
	x, y, z, w := is("x"), is("y"), is("z"), is("w")
	and := func(left, right Predicate) Predicate { return &And{left, right} }
	or := func(left, right Predicate) Predicate { return &Or{left, right} }
	for query, want := range map[string]Predicate{
		`x="1"`:  x,
		`x!="1"`: &StringPredicate{Matcher{"x", NotEqual, "1"}},
		`x=~"1"`: &StringPredicate{Matcher{"x", Regexp, "1"}},
		`x!~"1"`: &StringPredicate{Matcher{"x", NotRegexp, "1"}},

		`x=1`:                  &NumberPredicate{"x", CompareEqual, 1},
		`x==.5`:                &NumberPredicate{"x", CompareEqual, 0.5},
		`x!=1e3`:               &NumberPredicate{"x", CompareNotEqual, 1000},
		`x>-1`:                 &NumberPredicate{"x", CompareGreater, -1},
		`x>=+1.25`:             &NumberPredicate{"x", CompareGreaterOrEqual, 1.25},
		`x<2E-3`:               &NumberPredicate{"x", CompareLess, 0.002},
		`x<=1`:                 &NumberPredicate{"x", CompareLessOrEqual, 1},
		`x > 1h30m`:            &DurationPredicate{"x", CompareGreater, 90 * time.Minute},
		`x != -5ms`:            &DurationPredicate{"x", CompareNotEqual, -5 * time.Millisecond},
		`x = 0.5h`:             &DurationPredicate{"x", CompareEqual, 30 * time.Minute},
		`x < 20KB`:             &BytesPredicate{"x", CompareLess, 20_000},
		`x >= 1.5kib`:          &BytesPredicate{"x", CompareGreaterOrEqual, 1536},
		`x = ip("10.0.0.0/8")`: &IPPredicate{"x", false, "10.0.0.0/8"},
		`x != ip("10.0.0.1")`:  &IPPredicate{"x", true, "10.0.0.1"},

		`x="1" and y="1" and z="1"`:       and(and(x, y), z),
		`x="1" or y="1" or z="1"`:         or(or(x, y), z),
		`x="1" or y="1" and z="1"`:        or(x, and(y, z)),
		`x="1" and y="1" or z="1"`:        or(and(x, y), z),
		`(x="1" or y="1") and z="1"`:      and(or(x, y), z),
		`((x="1")) and (y="1" and z="1")`: and(x, and(y, z)),

		// Whatever follows a comma or nothing is the other side.
		`x="1", y="1", z="1"`:             and(and(x, y), z),
		`x="1" y="1" z="1"`:               and(and(x, y), z),
		`x="1"(y="1")z="1"`:               and(and(x, y), z),
		`x="1", y="1" or z="1"`:           and(x, or(y, z)),
		`x="1" y="1" or z="1"`:            and(x, or(y, z)),
		`x="1" or y="1", z="1"`:           or(x, and(y, z)),
		`x="1" and y="1", z="1"`:          and(x, and(y, z)),
		`x="1", y="1" and z="1"`:          and(x, and(y, z)),
		`x="1", y="1" and z="1" or w="1"`: and(x, or(and(y, z), w)),
		`x="1" or y="1", z="1" or w="1"`:  or(x, and(y, or(z, w))),
		`(x="1", y="1") or z="1"`:         or(and(x, y), z),
	} {
		query = `{a="b"} | ` + query
		if got, err := Parse(query); err != nil || !reflect.DeepEqual(got, lines(&LabelFilter{want})) {
			t.Errorf("%s: %v, %v; want %v", query, got, err, lines(&LabelFilter{want}))
		}
	}
}

func TestParseRangeAggregations(t *testing.T) {
	x := &LineFilter{LineContains, []LinePattern{{Value: "x"}}}
	noError := &LabelFilter{&StringPredicate{Matcher{Name: "__error__"}}}
	counted := &RangeAgg{Op: CountOverTime, Log: lines(x), Range: 5 * time.Minute}
	for query, want := range map[string]*RangeAgg{
		`count_over_time({a="b"} |= "x" [5m])`:     counted,
		`count_over_time({a="b"}[5m] |= "x")`:      counted,
		`count_over_time(({a="b"} |= "x")[5m])`:    counted,
		`count_over_time((({a="b"} |= "x" [5m])))`: counted,
		`rate({a="b"}[1h30m])`:                     {Op: Rate, Log: lines(), Range: 90 * time.Minute},
		`bytes_rate({a="b"}[1d])`:                  {Op: BytesRate, Log: lines(), Range: day},
		`bytes_over_time({a="b"}[1w])`:             {Op: BytesOverTime, Log: lines(), Range: week},
		`absent_over_time({a="b"}[1y])`:            {Op: AbsentOverTime, Log: lines(), Range: year},
		`rate({a="b"}[5m] offset 1h)`:              {Op: Rate, Log: lines(), Range: 5 * time.Minute, Offset: time.Hour},
		`rate({a="b"}|="x"[5m] offset -30s)`:       {Op: Rate, Log: lines(x), Range: 5 * time.Minute, Offset: -30 * time.Second},
		`rate({a="b"}[5m] offset 1h |= "x")`:       {Op: Rate, Log: lines(x), Range: 5 * time.Minute, Offset: time.Hour},
		`rate(({a="b"} |= "x")[5m] offset 1h)`:     {Op: Rate, Log: lines(x), Range: 5 * time.Minute, Offset: time.Hour},

		`rate({a="b"} | unwrap y [1s])`:               {Op: Rate, Log: lines(), Unwrap: &Unwrap{Label: "y"}, Range: time.Second},
		`absent_over_time({a="b"} | unwrap y [1s])`:   {Op: AbsentOverTime, Log: lines(), Unwrap: &Unwrap{Label: "y"}, Range: time.Second},
		`sum_over_time({a="b"} | unwrap bytes [1s])`:  {Op: SumOverTime, Log: lines(), Unwrap: &Unwrap{Label: "bytes"}, Range: time.Second},
		`rate_counter({a="b"}[1s] | json | unwrap y)`: {Op: RateCounter, Log: lines(&JSON{}), Unwrap: &Unwrap{Label: "y"}, Range: time.Second},
		`avg_over_time({a="b"} | unwrap bytes(y) [1s])`: {
			Op: AvgOverTime, Log: lines(), Unwrap: &Unwrap{Label: "y", Conversion: Bytes}, Range: time.Second,
		},
		`min_over_time({a="b"} | unwrap duration(y) | __error__="" [1s]) by (c)`: {
			Op: MinOverTime, Log: lines(), Unwrap: &Unwrap{"y", Duration, []*LabelFilter{noError}}, Range: time.Second,
			Grouping: &Grouping{Labels: []string{"c"}},
		},
		`max_over_time({a="b"} | unwrap duration_seconds(y) | __error__="" | __error__="" [1s]) without (c, by)`: {
			Op: MaxOverTime, Log: lines(), Unwrap: &Unwrap{"y", DurationSeconds, []*LabelFilter{noError, noError}}, Range: time.Second,
			Grouping: &Grouping{Without: true, Labels: []string{"c", "by"}},
		},
		`first_over_time({a="b"} | unwrap y [1s]) by ()`: {
			Op: FirstOverTime, Log: lines(), Unwrap: &Unwrap{Label: "y"}, Range: time.Second, Grouping: &Grouping{},
		},
		`last_over_time({a="b"} | unwrap y [1s]) without ()`: {
			Op: LastOverTime, Log: lines(), Unwrap: &Unwrap{Label: "y"}, Range: time.Second, Grouping: &Grouping{Without: true},
		},
		`stdvar_over_time({a="b"} | unwrap y [1s])`: {Op: StdvarOverTime, Log: lines(), Unwrap: &Unwrap{Label: "y"}, Range: time.Second},
		`stddev_over_time({a="b"} | unwrap y [1s])`: {Op: StddevOverTime, Log: lines(), Unwrap: &Unwrap{Label: "y"}, Range: time.Second},
		`quantile_over_time(0.99, {a="b"} | unwrap y [1s] offset 1m) by (c)`: {
			Op: QuantileOverTime, Param: 0.99, Log: lines(), Unwrap: &Unwrap{Label: "y"}, Range: time.Second, Offset: time.Minute,
			Grouping: &Grouping{Labels: []string{"c"}},
		},
		`quantile_over_time(-1, {a="b"} | unwrap y [1s])`: {
			Op: QuantileOverTime, Param: -1, Log: lines(), Unwrap: &Unwrap{Label: "y"}, Range: time.Second,
		},
	} {
		if got, err := Parse(query); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v; want %v", query, got, err, want)
		}
	}
}

func TestParseMetrics(t *testing.T) {
	rate := &RangeAgg{Op: Rate, Log: lines(), Range: time.Second}
	vector := func(n float64) Expr { return &VectorLiteral{n} }
	one, two, three, four := vector(1), vector(2), vector(3), vector(4)
	binary := func(left Expr, op BinaryOp, right Expr) Expr { return &BinaryExpr{Op: op, Left: left, Right: right} }
	literal := func(n float64) Expr { return &Literal{n} }
	byC := &Grouping{Labels: []string{"c"}}
	for query, want := range map[string]Expr{
		`1`:                     literal(1),
		`-1.5e-3`:               literal(-0.0015),
		`+ .5`:                  literal(0.5),
		`((1))`:                 literal(1),
		`vector(1)`:             one,
		`vector(-0.5)`:          vector(-0.5),
		`(({a="b"}))`:           lines(),
		`((rate({a="b"}[1s])))`: rate,

		`sum(rate({a="b"}[1s]))`:                           &VectorAgg{Op: Sum, Expr: rate},
		`sum(1)`:                                           &VectorAgg{Op: Sum, Expr: literal(1)},
		`avg by (c) (rate({a="b"}[1s]))`:                   &VectorAgg{Op: Avg, Grouping: byC, Expr: rate},
		`min(rate({a="b"}[1s])) by (c)`:                    &VectorAgg{Op: Min, Grouping: byC, Expr: rate},
		`max without(c,d)(rate({a="b"}[1s]))`:              &VectorAgg{Op: Max, Grouping: &Grouping{true, []string{"c", "d"}}, Expr: rate},
		`count(rate({a="b"}[1s])) without ()`:              &VectorAgg{Op: Count, Grouping: &Grouping{Without: true}, Expr: rate},
		`stddev by () (rate({a="b"}[1s]))`:                 &VectorAgg{Op: Stddev, Grouping: &Grouping{}, Expr: rate},
		`stdvar(sum(rate({a="b"}[1s])) by (c))`:            &VectorAgg{Op: Stdvar, Expr: &VectorAgg{Op: Sum, Grouping: byC, Expr: rate}},
		`topk(10, rate({a="b"}[1s]))`:                      &VectorAgg{Op: TopK, Param: 10, Expr: rate},
		`topk(1, rate({a="b"}[1s])) by (c)`:                &VectorAgg{Op: TopK, Param: 1, Grouping: byC, Expr: rate},
		`bottomk by (c) (2147483647, vector(1))`:           &VectorAgg{Op: BottomK, Param: 1<<31 - 1, Grouping: byC, Expr: one},
		`approx_topk(5, rate({a="b"}[1s]))`:                &VectorAgg{Op: ApproxTopK, Param: 5, Expr: rate},
		`sort(rate({a="b"}[1s]))`:                          &VectorAgg{Op: Sort, Expr: rate},
		`sort_desc(rate({a="b"}[1s]))`:                     &VectorAgg{Op: SortDesc, Expr: rate},
		`label_replace(vector(1), "a", "$1", "b", "(.*)")`: &LabelReplace{one, "a", "$1", "b", "(.*)"},
		`variants(rate({a="b"}[1s]), sum(rate({a="b"}[1s]))) of ({a="b"} | json [1s])`: &Variants{
			[]Expr{rate, &VectorAgg{Op: Sum, Expr: rate}}, lines(&JSON{}), time.Second,
		},

		`1 + 1`: binary(literal(1), OpAdd, literal(1)),
		`1-1`:   binary(literal(1), OpSub, literal(1)),
		`1--1`:  binary(literal(1), OpSub, literal(-1)),
		`-2^2`:  binary(literal(-2), OpPow, literal(2)),
		`vector(1) or vector(2) and vector(3) unless vector(4)`: binary(one, OpOr, binary(binary(two, OpAnd, three), OpUnless, four)),
		`vector(1) unless vector(2) == vector(3) + vector(4)`:   binary(one, OpUnless, binary(two, OpEqual, binary(three, OpAdd, four))),
		`vector(1) != vector(2) < vector(3)`:                    binary(binary(one, OpNotEqual, two), OpLess, three),
		`vector(1) > vector(2) >= vector(3) <= vector(4)`:       binary(binary(binary(one, OpGreater, two), OpGreaterOrEqual, three), OpLessOrEqual, four),
		`vector(1) - vector(2) + vector(3) * vector(4)`:         binary(binary(one, OpSub, two), OpAdd, binary(three, OpMul, four)),
		`vector(1) / vector(2) % vector(3) ^ vector(4)`:         binary(binary(one, OpDiv, two), OpMod, binary(three, OpPow, four)),
		`vector(1) ^ vector(2) ^ vector(3)`:                     binary(one, OpPow, binary(two, OpPow, three)),
		`(vector(1) ^ vector(2)) ^ vector(3)`:                   binary(binary(one, OpPow, two), OpPow, three),
		`vector(1) * (vector(2) + vector(3))`:                   binary(one, OpMul, binary(two, OpAdd, three)),
		`vector(1) - (vector(2) - vector(3))`:                   binary(one, OpSub, binary(two, OpSub, three)),
		`vector(1) > bool 2`:                                    &BinaryExpr{Op: OpGreater, Left: one, Right: literal(2), ReturnBool: true},
		`vector(1)==bool on(c,d)vector(2)`: &BinaryExpr{
			Op: OpEqual, Left: one, Right: two, ReturnBool: true, Matching: &Matching{On: true, Labels: []string{"c", "d"}},
		},
		`vector(1) and ignoring () vector(2)`: &BinaryExpr{Op: OpAnd, Left: one, Right: two, Matching: &Matching{}},
		`vector(1) / on (c) group_left vector(2)`: &BinaryExpr{
			Op: OpDiv, Left: one, Right: two, Matching: &Matching{On: true, Labels: []string{"c"}, Group: GroupLeft},
		},
		`vector(1) / ignoring (c) group_right (d, e) (vector(2))`: &BinaryExpr{
			Op: OpDiv, Left: one, Right: two, Matching: &Matching{Labels: []string{"c"}, Group: GroupRight, Include: []string{"d", "e"}},
		},
		`vector(1) + on () group_left () vector(2) + vector(3)`: binary(
			&BinaryExpr{Op: OpAdd, Left: one, Right: two, Matching: &Matching{On: true, Group: GroupLeft}}, OpAdd, three),
	} {
		if got, err := Parse(query); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v; want %v", query, got, err, want)
		}
	}
}

func TestWalk(t *testing.T) {
	e, err := Parse(`topk(1, label_replace(rate({a="b"}[1s]), "c", "", "d", "") + 2) - vector(3)`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	Walk(e, func(e Expr) { got = append(got, reflect.TypeOf(e).Elem().Name()) })
	want := "BinaryExpr VectorAgg BinaryExpr LabelReplace RangeAgg LogExpr Literal VectorLiteral"
	if strings.Join(got, " ") != want {
		t.Errorf("visited %v; want %s", got, want)
	}

	v := &Variants{Of: []Expr{&Literal{1}, &Literal{2}}, Log: lines()}
	var visited []Expr
	Walk(v, func(e Expr) { visited = append(visited, e) })
	if want := []Expr{v, v.Of[0], v.Of[1], v.Log}; !reflect.DeepEqual(visited, want) {
		t.Errorf("visited %v; want %v", visited, want)
	}
}
