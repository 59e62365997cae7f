package decode

import (
	"fmt"
	"strings"
	"testing"
)

func TestLabelCacheIsBounded(t *testing.T) {
	var c LabelCache
	for i := range 50_000 {
		wire := fmt.Appendf(nil, `{"app":"%080d"}`, i)
		c.Put(wire, string(wire))
		if got, ok := c.Get(wire); !ok || got != string(wire) {
			t.Fatalf("labels %d: got %q, %v", i, got, ok)
		}
		if c.bytes > maxCacheBytes {
			t.Fatalf("%d bytes after %d labels", c.bytes, i)
		}
	}
	huge := []byte(strings.Repeat("x", maxCacheEntry))
	c.Put(huge, "{}")
	if _, ok := c.Get(huge); ok {
		t.Error("labels over the limit of an entry are kept")
	}
}

func TestKeepScratch(t *testing.T) {
	if got := KeepScratch(make([]byte, 9, maxScratch)); cap(got) != maxScratch || len(got) != 0 {
		t.Errorf("len %d, cap %d", len(got), cap(got))
	}
	if got := KeepScratch(make([]byte, maxScratch+1)); cap(got) > maxScratch {
		t.Errorf("kept %d bytes", cap(got))
	}
}
