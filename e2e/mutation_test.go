package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// mutation is a way to break the program on purpose: in one file, one piece of text is replaced by another.
type mutation struct {
	name     string
	file     string // from the top of the module
	old, new string
}

// The scheme that lands every line once has three legs. Without any one of them the harness has to see lines that
// are lost or doubled; otherwise a run that finds nothing says nothing.
var mutants = []mutation{
	{
		"the insert has another token at each attempt", "shared/store/insert.go",
		"insertSettings(token)))", "insertSettings(token+time.Now().String())))",
	},
	{
		"acknowledged before it is inserted", "ingester/shard.go",
		"token := s.lease.Token(s.span)\n", "token := s.lease.Token(s.span)\n\t_ = s.lease.Land(ctx, s.span.Last)\n",
	},
	{
		"a former owner is not fenced", "shared/wal/document.go",
		"\t\tif now.holder() != d.mine {", "\t\tif false {",
	},
}

// A broken program gets so many rounds of faults, so long each, until the harness has to have noticed.
const (
	mutantRounds  = 15
	mutantRound   = 20 * time.Second
	mutantSettles = time.Minute
	controlRounds = 3
)

// checkMutations breaks the program in each of the ways, and fails where the harness does not notice. The same
// faults do no harm to the program as it is.
func checkMutations(t *testing.T) {
	seed := seedOf(t, "go test ./e2e -run '^TestChaos$' -count=1 -timeout 1h -v -chaos.mutations")
	t.Run("control", func(t *testing.T) {
		h := newHarness(t, seed)
		h.start(nil)
		for round := range uint64(controlRounds) {
			violations, err := h.round(round, settleTimeout)
			if err != nil {
				t.Fatal(err)
			}
			h.report(violations)
		}
	})
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			h := newHarness(t, seed, "-overlay", m.overlay(t))
			h.start(nil)
			for round := range uint64(mutantRounds) {
				violations, err := h.round(round, mutantSettles)
				if err != nil { // what is missing may land yet, what is doubled stays so
					t.Log(err)
					violations = slices.DeleteFunc(violations, func(v violation) bool { return v.rows <= v.held.lines })
				}
				if len(violations) > 0 {
					t.Logf("noticed after %s: %d pushes are wrong, the first: %s",
						time.Since(h.began).Round(time.Second), len(violations), violations[0])
					return
				}
			}
			t.Errorf("%s, and the harness did not notice in %d rounds", m.name, mutantRounds)
		})
	}
}

// round breaks things for a while, and returns what it has done to the lines. Its error is that of chaos.
func (h *harness) round(number uint64, limit time.Duration) ([]violation, error) {
	h.Helper()
	err := h.chaos(plan(h.seed+number, mutantRound, insertsOnly), mutantRound, limit)
	return h.verify(), err
}

// overlay writes what go build -overlay takes to build the program with the mutation.
func (m mutation) overlay(t *testing.T) string {
	t.Helper()
	original, err := filepath.Abs(filepath.Join("..", m.file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatalf("the mutation %q is about a file that is gone; bring it up to date: %v", m.name, err)
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		t.Fatalf("the mutation %q replaces what stands %d times in %s, want once; bring it up to date: %s", m.name, n, m.file, m.old)
	}
	dir := t.TempDir()
	mutant := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(mutant, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
