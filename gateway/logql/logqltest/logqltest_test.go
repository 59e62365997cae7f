package logqltest

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/casteloig/logthra/gateway/logql"
)

func TestQueriesReadBack(t *testing.T) {
	for seed := range uint64(20_000) {
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
