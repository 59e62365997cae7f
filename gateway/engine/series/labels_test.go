package series

import (
	"slices"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

func TestGroup(t *testing.T) {
	given := labels("app", "api", "env", "prod", "pod", "1")
	for _, tt := range []struct {
		name     string
		grouping *logql.Grouping
		want     []logs.Label
	}{
		{"none", nil, nil},
		{"by nothing", &logql.Grouping{}, nil},
		{"by one", &logql.Grouping{Labels: []string{"env"}}, labels("env", "prod")},
		{"by two, in any order", &logql.Grouping{Labels: []string{"pod", "app"}}, labels("app", "api", "pod", "1")},
		{"by one that is not there", &logql.Grouping{Labels: []string{"nobody"}}, nil},
		{"without nothing", &logql.Grouping{Without: true}, given},
		{"without one", &logql.Grouping{Without: true, Labels: []string{"env", "nobody"}}, labels("app", "api", "pod", "1")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := labels("first", "1")
			if got := Group(first, given, tt.grouping); !slices.Equal(got, append(first, tt.want...)) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestKeysAreDistinct(t *testing.T) {
	long := strings.Repeat("x", 128)
	all := [][]logs.Label{
		nil, labels("", ""), labels("a", ""), labels("", "a"), labels("a", "b"), labels("ab", ""), labels("a", "bc"), labels("ab", "c"),
		labels("a", "b", "c", "d"), labels("a", "b\x01c\x01d"), labels("a", "b", "", ""), labels("a", long), labels("a", long+"x"), labels(long, "a"),
		labels("a", strings.Repeat(long, 200)),
	}
	seen := map[string]int{}
	for i, l := range all {
		key := string(Key([]byte("before"), l))
		if other, ok := seen[key]; ok {
			t.Errorf("%v has the key of %v", l, all[other])
		}
		seen[key] = i
		if got := intern(strings.TrimPrefix(key, "before"), l); !slices.Equal(got, l) {
			t.Errorf("got %v, want %v", got, l)
		}
	}
}

// TestKnownSeriesCostNoAllocation adds samples and partials to series that are there.
func TestKnownSeriesCostNoAllocation(t *testing.T) {
	agg := &logql.RangeAgg{Op: logql.LastOverTime, Range: 10}
	w := WindowOf(agg, Grid{Start: 0, End: 1000, Step: 10})
	a := NewAccumulator(agg, w, 0, 1<<20)
	l := labels("app", "api", "env", "prod", "pod", "1")
	round := func() {
		for at := range int64(100) {
			first, last := w.Interval(at)
			if err := a.Add(l, Position{Time: at}, 1); err != nil {
				t.Fatal(err)
			}
			if err := a.Merge(l, first, last, Partial{Last: 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := testing.AllocsPerRun(10, round); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
