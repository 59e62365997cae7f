package logql

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fill repeats unit between before and after, so often that the query is as long as one may be.
func fill(before, unit, after string) string {
	return before + strings.Repeat(unit, (maxQueryBytes-len(before)-len(after))/len(unit)) + after
}

// parseTime is what reading the worst query may take. Processors that are busy with other tests are given more than the tenth of a
// second that it should take at most.
const parseTime = 2 * time.Second

func TestParseIsBounded(t *testing.T) {
	deep := func(before, open, middle, shut, after string, n int) string {
		return before + strings.Repeat(open, n) + middle + strings.Repeat(shut, n) + after
	}
	tooDeep := "the query is nested too deeply: at most 256 parentheses and functions may be within each other"
	tooLarge := "expression too large"
	for name, test := range map[string]struct{ query, want string }{
		"a megabyte":                  {strings.Repeat("x", 1<<20), "the query is too long: 1048576 bytes, at most 131072 are read"},
		"a byte too much":             {fill(`{a="`, "b", `"}`) + " ", "the query is too long: 131073 bytes, at most 131072 are read"},
		"parentheses":                 {deep("", "(", "1", ")", "", 10_000), tooDeep},
		"open parentheses":            {fill("", "(", ""), tooDeep},
		"functions":                   {deep("", "sum(", "vector(1)", ")", "", 10_000), tooDeep},
		"label_replace":               {fill("", "label_replace(", ""), tooDeep},
		"right sides":                 {deep("", "1+(", "1", ")", "", 10_000), tooDeep},
		"powers":                      {fill("1", "^1", ""), tooDeep},
		"ranges":                      {deep("rate(", "(", `{a="b"}[1m]`, ")", ")", 10_000), tooDeep},
		"conditions":                  {deep(`{a="b"} | `, "(", "a=1", ")", "", 10_000), tooDeep},
		"joined conditions":           {fill(`{a="b"} | a=1`, ",a=1 or a=1", ""), tooDeep},
		"nested repetitions":          {`{a="b"} |~ "(((a{100}){100}){100})"`, "invalid repeat count"},
		"many repetitions":            {fill(`{a="b"} |~ "`, "(a{500})", `"`), tooLarge},
		"repeated classes":            {fill(`{a="b"} |~ "`, `\\pL{999}`, `"`), tooLarge},
		"repeated alternatives":       {`{a="b"} |~ "(` + strings.Repeat("a|bcd*e+|f|", 1000) + `){1000}"`, tooLarge},
		"many expressions":            {fill(`{a="b"}`, "|~`a{999}`", ""), tooLarge},
		"groups":                      {deep(`{a="b"} |~ "`, "(", "a", ")", `"`, 10_000), "expression nests too deeply"},
		"folded classes":              {fill(`{a="b"} |~ "(?i)`, `\\pL`, `"`), "too many classes of Unicode"},
		"classes in many expressions": {fill(`{a="b"}`, "|~`(?i)\\PL`", ""), "too many classes of Unicode"},
		"case folding":                {fill(`{a=~"(?i)`, "kſ", `"}`), ""},
		"empty expressions":           {fill(`{a="b"`, ",a=~``", "}"), ""},
		"expressions that match the empty string": {fill(`{a=~""`, ",a=~`.*`", "}"), "queries require at least one regexp"},
		"a long one that does":                    {fill("{a=~`(", "b?", ")*`}"), "queries require at least one regexp"},
		"template parentheses":                    {fill(`{a="b"} | line_format "{{`, "(", `"`), "invalid template, line 1"},
		"template conditions":                     {fill(`{a="b"} | line_format "`, "{{if 1}}", `"`), "invalid template, line 1"},
		"templates":                               {fill(`{a="b"}`, "| line_format `{{.a}}`", ""), ""},
		"label_format":                            {fill(`{a="b"} | label_format x=y`, ",a=b", ""), "multiple label name"},
		"captures":                                {fill(`{a="b"} | pattern "<x> `, "<_> ", `"`), ""},
		"open captures":                           {fill(`{a="b"} | pattern "<x> `, "<", `"`), ""},
		"stages":                                  {fill(`{a="b"}`, "|json", ""), ""},
		"alternatives":                            {fill(`{a="b"}|=""`, `or""`, ""), ""},
		"matchers":                                {fill(`{a="b"`, `,a=""`, "}"), ""},
		"labels":                                  {fill("sum by (a", ",a", ")(vector(1))"), ""},
		"variants":                                {fill("variants(1", ",1", `) of ({a="b"}[1s])`), ""},
		"sums":                                    {fill("1", "+1", ""), ""},
		"differences of vectors":                  {fill("vector(1)", "-vector(1)", ""), ""},
		"set operators":                           {fill("vector(1)", " or vector(1)", ""), ""},
		"or":                                      {fill(`{a="b"}|a=1`, " or a=1", ""), ""},
		"and":                                     {fill(`{a="b"}|a=1`, " and a=1", ""), ""},
		"commas":                                  {fill(`{a="b"}|a=1`, ",a=1", ""), ""},
		"or with and":                             {fill(`{a="b"}|a=1`, " or a=1 and a=1", ""), ""},
		"comments":                                {fill("", "#\n", "1"), ""},
		"signs":                                   {fill("", "-", "1"), "unexpected -"},
		"a string":                                {fill(`{a="`, "b", `"}`), ""},
		"escapes":                                 {fill(`{a="`, `\\`, `"}`), ""},
		"a string without end":                    {fill(`{a="`, "b", ``), "literal not terminated"},
		"a number":                                {fill("", "1", ""), "too large a one"},
		"a fraction":                              {fill("0.", "1", ""), ""},
		"a duration":                              {fill(`rate({a="b"}[`, "1s", "])"), ""},
		"a name":                                  {fill("", "x", ""), "unexpected IDENTIFIER"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			e, err := Parse(test.query)
			took := time.Since(start)
			t.Logf("%v: %v", took, err)
			if took > parseTime {
				t.Errorf("took %v", took)
			}
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				readsBack(t, e)
				return
			}
			if _, ok := errors.AsType[*ParseError](err); !ok || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 500 {
				t.Errorf("%v; want %s", err, test.want)
			}
		})
	}
}

// readsBack checks that a tree is read from what it is written as.
func readsBack(t *testing.T, e Expr) {
	t.Helper()
	for _, text := range []string{e.String(), Format(e)} {
		// Format adds lines and spaces, and both add zeros and parentheses.
		if len(text) > maxQueryBytes {
			continue
		}
		if got, err := Parse(text); err != nil {
			t.Errorf("%s: %v", shorten(text), err)
		} else if !reflect.DeepEqual(got, e) {
			t.Errorf("%s is read as %s", shorten(text), shorten(got.String()))
		}
	}
}

func TestDepthThatIsAllowed(t *testing.T) {
	for _, test := range [][3]string{
		{"(", "1", ")"},
		{"sum(", "vector(1)", ")"},
		{"1-(", "1", ")"},
		{"(1-", "1", ")"},
		{"2^", "1", ""},
	} {
		query := strings.Repeat(test[0], maxDepth) + test[1] + strings.Repeat(test[2], maxDepth)
		e, err := Parse(query)
		if err != nil {
			t.Errorf("%s: %v", test[0], err)
			continue
		}
		readsBack(t, e)
		if _, err := Parse(test[0] + query + test[2]); err == nil {
			t.Errorf("%s is not refused a level deeper", test[0])
		}
	}
	joined := fmt.Sprintf(`{a="b"} | a=1%s`, strings.Repeat(", a=1 or a=1 and a=1", maxDepth/2))
	e, err := Parse(joined)
	if err != nil {
		t.Fatal(err)
	}
	readsBack(t, e)
}
