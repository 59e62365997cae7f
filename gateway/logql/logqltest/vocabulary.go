// Package logqltest makes random LogQL queries, for tests that hold two ways of executing a query, or of writing it, against each other.
package logqltest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/casteloig/logthra/gateway/logql"
)

// Vocabulary is what the words of random queries are taken from. A test that has data gives those that are in it, so that queries find
// something. Of each there has to be one at least, but where it is said otherwise; what is in several is found in as many ways.
type Vocabulary struct {
	Labels map[string][]string // of streams, with their values; values may be empty
	Words  []string            // that lines contain

	// Fields of lines and metadata, with values that occur. Queries compare them as what they are.
	Texts     map[string][]string
	Numbers   map[string][]float64
	Durations map[string][]time.Duration
	Sizes     map[string][]uint64
	Addresses map[string][]string // fields with addresses, and ranges or CIDRs to look for

	Paths     map[string]string // for | json and | logfmt: a label, and the expression that it is made of
	Regexps   []string          // with named captures, for | regexp
	Patterns  []string          // with named captures, for | pattern
	Templates []string          // for line_format and label_format

	Ranges    []time.Duration // of range aggregations
	Offsets   []time.Duration // of some of them
	Quantiles []float64
	Scalars   []float64 // that metric queries compute with

	RangeOps  []logql.RangeOp  // nil: all
	VectorOps []logql.VectorOp // nil: all; the sides of operators are sums all the same
	BinaryOps []logql.BinaryOp // nil: all; numbers are added, subtracted and multiplied all the same
	NoOuter   bool             // no variants, which are no part of other queries
}

// Default is a vocabulary that needs no data.
func Default() *Vocabulary {
	return &Vocabulary{
		Labels: map[string][]string{
			"app":  {"api", "web", "db"},
			"env":  {"prod", "dev"},
			"host": {"a", "b.example.com", ""},
		},
		Words: []string{"error", "GET", "timeout", "/api/v1", "took", "user=", `"status":`},
		Texts: map[string][]string{
			"level": {"info", "warn", "error"}, "method": {"GET", "POST"}, "user": {"alice", "bob"},
		},
		Numbers:   map[string][]float64{"status": {200, 404, 500}, "load": {0.5, 1.25, -3}},
		Durations: map[string][]time.Duration{"took": {time.Millisecond, 250 * time.Millisecond, 2 * time.Second}},
		Sizes:     map[string][]uint64{"size": {0, 512, 20_000, 3 << 20}},
		Addresses: map[string][]string{"remote": {"10.0.0.1", "10.0.0.0/8", "192.168.0.1-192.168.0.20", "2001:db8::/32"}},
		Paths:     map[string]string{"method": "request.method", "first": "list[0]", "status": "status", "q": `a["b c"]`},
		Regexps:   []string{`(?P<method>[A-Z]+) (?P<path>\S+)`, `status=(?P<status>\d+)`},
		Patterns:  []string{`<method> <path> <_>`, `<_> took <took>`},
		Templates: []string{`{{.level}} {{.method}}`, `{{ .status | ToUpper }}`, `{{__line__}}`, `x`},
		Ranges:    []time.Duration{time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 90 * time.Second},
		Offsets:   []time.Duration{10 * time.Second, time.Minute, -30 * time.Second},
		Quantiles: []float64{0, 0.5, 0.9, 0.99, 1},
		Scalars:   []float64{0, 1, 2, 0.5, -1, 100},
	}
}

// Log makes a log query of the default vocabulary.
func Log(r *rand.Rand) *logql.LogExpr { return Default().Log(r) }

// Metric makes a metric query of the default vocabulary.
func Metric(r *rand.Rand) logql.Expr { return Default().Metric(r) }

// maker makes one query.
type maker struct {
	*Vocabulary
	*rand.Rand
}

// one takes one of many.
func one[T any](m maker, of []T) T { return of[m.IntN(len(of))] }

// key takes a key of a map.
func key[V any](m maker, of map[string]V) string { return one(m, slices.Sorted(maps.Keys(of))) }

// chance is true in so many of a hundred cases.
func (m maker) chance(percent int) bool { return m.IntN(100) < percent }

// names takes up to most different keys, at least one.
func names[V any](m maker, of map[string]V, most int) []string {
	all := slices.Sorted(maps.Keys(of))
	m.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+m.IntN(min(most, len(all)))]
}
