package logql

import (
	"testing"
)

func TestString(t *testing.T) {
	for query, want := range map[string]string{
		"{ a = `b`,c!=\"d\" }":                                       `{a="b", c!="d"}`,
		`{a="b"}|="x"or"y"!="z"`:                                     `{a="b"} |= "x" or "y" != "z"`,
		`{a=~"\\d+\\.\"x\""}`:                                        "{a=~`\\d+\\.\"x\"`}",
		`{a="\\` + "`" + `"}`:                                        `{a="\\` + "`" + `"}`,
		`{a="b\n\t\x00é"}`:                                           `{a="b\n\t\x00é"}`,
		`{a="b"} |=ip("10.0.0.1")`:                                   `{a="b"} |= ip("10.0.0.1")`,
		`{a="b"} | json x="x",y="z"`:                                 `{a="b"} | json x, y="z"`,
		`{a="b"} | logfmt --keep-empty --strict x`:                   `{a="b"} | logfmt --strict --keep-empty x`,
		`{a="b"} | json json="json", x | logfmt drop="keep"`:         `{a="b"} | json json="json", x | logfmt drop="keep"`,
		"{a=\"b\"} | regexp `(?P<x>\\d)` | pattern `<x> <_>`":        "{a=\"b\"} | regexp `(?P<x>\\d)` | pattern \"<x> <_>\"",
		`{a="b"} | unpack | decolorize | line_format "{{ .x }}"`:     `{a="b"} | unpack | decolorize | line_format "{{ .x }}"`,
		`{a="b"} | label_format x=y,z="{{.w|f \"v\"}}"`:              "{a=\"b\"} | label_format x=y, z=`{{.w|f \"v\"}}`",
		`{a="b"} | drop x,y="z"|keep x,y!~"z"`:                       `{a="b"} | drop x, y="z" | keep x, y!~"z"`,
		`{a="b"} | x="1", y=2 z!=3s | (w>4KB)`:                       `{a="b"} | x="1" and y==2 and z!=3s | w>4KB`,
		`{a="b"} | x=ip("10.0.0.1") or y!=ip("::/8")`:                `{a="b"} | x=ip("10.0.0.1") or y!=ip("::/8")`,
		`{a="b"} | (x=1 and (y=1 or z=1)) or (w=1 and v=1)`:          `{a="b"} | x==1 and (y==1 or z==1) or w==1 and v==1`,
		`{a="b"} | x=1 or (y=1 or z=1)`:                              `{a="b"} | x==1 or (y==1 or z==1)`,
		`{a="b"} | ((x=1 or y=1) and z=1) and (w=1 and v=1)`:         `{a="b"} | (x==1 or y==1) and z==1 and (w==1 and v==1)`,
		`{a="b"} | (json!=1) | (logfmt!~"x" and y=1) | pattern!="x"`: `{a="b"} | (json!=1) | (logfmt!~"x" and y==1) | pattern!="x"`,

		`rate({a="b"}[90m]|="x")`:                                  `rate({a="b"} |= "x" [1h30m])`,
		`rate({a="b"}[1w] offset -0.5h)`:                           `rate({a="b"} [1w] offset -30m)`,
		`avg_over_time({a="b"}|unwrap bytes(x)|y=1[1m])by(z)`:      `avg_over_time({a="b"} | unwrap bytes(x) | y==1 [1m]) by (z)`,
		`quantile_over_time(.99,{a="b"}|unwrap x[1m])without(y,z)`: `quantile_over_time(0.99, {a="b"} | unwrap x [1m]) without (y, z)`,
		`sum(rate({a="b"}[1m]))by(x,y)`:                            `sum by (x, y) (rate({a="b"} [1m]))`,
		`topk(5,vector(1))without()`:                               `topk without () (5, vector(1))`,
		`sum by()(sort(vector(1)))`:                                `sum by () (sort(vector(1)))`,
		`((1+(2*3)))-(4-5)`:                                        `1 + 2 * 3 - (4 - 5)`,
		`((2^3))^(4^(-5))`:                                         `(2 ^ 3) ^ 4 ^ -5`,
		`vector(1)>bool on(x)(vector(2)+3)`:                        `vector(1) > bool on (x) vector(2) + 3`,
		`vector(1)/ignoring()group_left(vector)(vector(2))`:        `vector(1) / ignoring () group_left (vector) vector(2)`,
		`vector(1)/on(x)group_right(y,z)vector(2)`:                 `vector(1) / on (x) group_right (y, z) vector(2)`,
		"label_replace(vector(-.5),\"a\",\"$1\",`b`,`\\d`)":        "label_replace(vector(-0.5), \"a\", \"$1\", \"b\", `\\d`)",
		`variants(vector(1),2)of({a="b"}|json[1m])`:                `variants(vector(1), 2) of ({a="b"} | json [1m])`,
		`1e21`:            `1e+21`,
		`0.000001`:        `0.000001`,
		`1e-7`:            `1e-07`,
		`123456789012345`: `123456789012345`,
		`+007.50`:         `7.5`,
	} {
		e, err := Parse(query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		if got := e.String(); got != want {
			t.Errorf("%s: %s; want %s", query, got, want)
		}
		readsBack(t, e)
	}
}

func TestStringOfParts(t *testing.T) {
	filter := &LabelFilter{&And{&StringPredicate{Matcher{"x", NotRegexp, "y"}}, &DurationPredicate{"z", CompareLess, 0}}}
	for want, part := range map[string]interface{ String() string }{
		`x!~"y"`:                   Matcher{"x", NotRegexp, "y"},
		`| x!~"y" and z<0s`:        filter,
		`x!~"y" and z<0s`:          filter.Predicate,
		`|~ "x" or "y"`:            &LineFilter{LineMatches, []LinePattern{{Value: "x"}, {Value: "y"}}},
		`x>=1KiB`:                  &BytesPredicate{"x", CompareGreaterOrEqual, 1024},
		`x==1 or y!=ip("0.0.0.0")`: &Or{&NumberPredicate{"x", CompareEqual, 1}, &IPPredicate{"y", true, "0.0.0.0"}},
	} {
		if got := part.String(); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, want := range []string{
		`{a="b"} |= "x" | json`,

		`{app="api", env="production"}
  |= "error" or "warning"
  | json status="response.status", method="request.method"
  | status>=500 and method="GET"
  | line_format "{{.status}}"`,

		`sum by (method, status) (
  rate(
    {app="api", env="production"}
      |= "error" or "warning"
      | json status="response.status", method="request.method"
      | status>=500
      [5m] offset 1h
  )
)`,

		`topk by (app) (
  10,
  quantile_over_time(
    0.99,
    {app="api", env="production"}
      | json took="response.took", method="request.method"
      | unwrap duration(took)
      | __error__=""
      [5m]
  ) by (app, method, environment)
)`,

		`  sum by (app, env) (rate({app="api", env="production"} |= "error" [5m]))
/ on (app, env) group_left (version)
  sum by (app, env) (rate({app="api", env="production"} [5m]))
*
  100`,

		`  sum by (app, env) (rate({app="api", env="production"} |= "error" [5m])) * 100
> bool
  sum by (app, env) (rate({app="api", env="production"} [5m]))`,

		`  100
-
  (
      sum by (app, env) (rate({app="api", env="production"} |= "error" [5m]))
    -
      sum by (app, env) (rate({app="api", env="production"} |= "timeout" [5m]))
  )`,

		`label_replace(
  sum by (instance) (rate({app="api", env="production"} |= "error" | logfmt [5m])),
  "host",
  "$1",
  "instance",
  "(.*):[0-9]+"
)`,

		`variants(
  count_over_time({app="api", env="production"} |= "error" [5m]),
  sum by (app) (bytes_over_time({app="api", env="production"} |= "error" [5m]))
) of (
  {app="api", env="production"} |= "error" [5m]
)`,
	} {
		e, err := Parse(want)
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		if got := Format(e); got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
		readsBack(t, e)
	}
}
