package logql

import (
	"os"
	"strings"
	"testing"
)

// Each line of code in the documentation is a query, but for the example of an error.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/logql.md")
	if err != nil {
		t.Fatal(err)
	}
	queries := 0
	for line := range strings.Lines(string(text)) {
		query, ok := strings.CutPrefix(line, "    ")
		if !ok || strings.HasPrefix(query, "parse error") {
			continue
		}
		queries++
		e, err := Parse(query)
		if err != nil {
			t.Errorf("%s%v", query, err)
			continue
		}
		readsBack(t, e)
	}
	if queries < 60 {
		t.Errorf("there are %d queries in the documentation", queries)
	}
}
