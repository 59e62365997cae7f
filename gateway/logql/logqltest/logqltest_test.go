package logqltest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/casteloig/logthra/gateway/logql"
)

func TestQueriesReadBack(t *testing.T) {
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 1))
		for _, e := range []logql.Expr{Log(r), Metric(r)} {
			for _, text := range []string{e.String(), logql.Format(e)} {
				if got, err := logql.Parse(text); err != nil {
					t.Fatalf("seed %d: %s: %v", seed, text, err)
				} else if !reflect.DeepEqual(got, e) {
					t.Fatalf("seed %d: %s is read as %s", seed, text, got)
				}
			}
		}
	}
}

func TestEqualSeedsMakeEqualQueries(t *testing.T) {
	for seed := range uint64(100) {
		a, b := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 0))
		if x, y := Metric(a), Metric(b); !reflect.DeepEqual(x, y) {
			t.Fatalf("seed %d: %s and %s", seed, x, y)
		}
		if x, y := Log(a), Log(b); !reflect.DeepEqual(x, y) {
			t.Fatalf("seed %d: %s and %s", seed, x, y)
		}
	}
}

// Everything that a tree can be made of is made.
func TestQueriesCoverTheLanguage(t *testing.T) {
	seen := map[string]bool{}
	r := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		note(seen, reflect.ValueOf(Log(r)))
		note(seen, reflect.ValueOf(Metric(r)))
	}
	for _, want := range []any{
		logql.LogExpr{}, logql.RangeAgg{}, logql.VectorAgg{}, logql.BinaryExpr{}, logql.Literal{}, logql.VectorLiteral{}, logql.LabelReplace{},
		logql.Variants{}, logql.Unwrap{}, logql.Grouping{}, logql.Matching{},
		logql.LineFilter{}, logql.JSON{}, logql.Logfmt{}, logql.RegexpParser{}, logql.PatternParser{}, logql.Unpack{}, logql.LabelFilter{},
		logql.LineFormat{}, logql.LabelFormat{}, logql.Decolorize{}, logql.Drop{}, logql.Keep{},
		logql.StringPredicate{}, logql.NumberPredicate{}, logql.DurationPredicate{}, logql.BytesPredicate{}, logql.IPPredicate{},
		logql.And{}, logql.Or{},
	} {
		if name := reflect.TypeOf(want).String(); !seen[name] {
			t.Errorf("no %s", name)
		}
	}
	for _, op := range rangeOps {
		wantValue(t, seen, op)
	}
	for _, op := range vectorOps {
		wantValue(t, seen, op)
	}
	for _, op := range binaryOps {
		wantValue(t, seen, op)
	}
	for op := range logql.LineOp(6) {
		wantValue(t, seen, op)
	}
	for op := range logql.CompareOp(6) {
		wantValue(t, seen, op)
	}
	for op := range logql.MatchOp(4) {
		wantValue(t, seen, op)
	}
	for group := range logql.Group(3) {
		wantValue(t, seen, group)
	}
	for _, conversion := range []logql.Conversion{logql.NoConversion, logql.Bytes, logql.Duration, logql.DurationSeconds} {
		wantValue(t, seen, conversion)
	}
}

func wantValue(t *testing.T, seen map[string]bool, value any) {
	t.Helper()
	if !seen[fmt.Sprintf("%T %v", value, value)] {
		t.Errorf("no %T %v", value, value)
	}
}

// note writes down the types of all structs in v, and the values of all constants.
func note(seen map[string]bool, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			note(seen, v.Elem())
		}
	case reflect.Struct:
		seen[v.Type().String()] = true
		for _, field := range v.Fields() {
			note(seen, field)
		}
	case reflect.Slice:
		for i := range v.Len() {
			note(seen, v.Index(i))
		}
	case reflect.String, reflect.Uint8:
		seen[fmt.Sprintf("%v %v", v.Type(), v.Interface())] = true
	}
}

func TestVocabularyRestricts(t *testing.T) {
	v := Default()
	v.RangeOps = []logql.RangeOp{logql.CountOverTime}
	v.VectorOps = []logql.VectorOp{logql.Max}
	v.BinaryOps = []logql.BinaryOp{logql.OpDiv}
	v.Ranges = []time.Duration{7 * time.Second}
	v.NoOuter = true
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		e := v.Metric(r)
		logql.Walk(e, func(part logql.Expr) {
			switch part := part.(type) {
			case *logql.RangeAgg:
				if part.Op != logql.CountOverTime || part.Range != 7*time.Second {
					t.Errorf("%s in %s", part, e)
				}
			case *logql.Variants:
				t.Errorf("variants: %s", e)
			}
		})
	}
}
