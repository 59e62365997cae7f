package gateway

import (
	"context"
	"testing"

	"github.com/casteloig/logthra/shared/wal"
)

// Who does not want traces does not pay for them.
func TestNoTracesCostNothing(t *testing.T) {
	g := new(Gateway)
	from := origin{trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	record := new(wal.Encoded)
	if allocations := testing.AllocsPerRun(100, func() {
		_, end := g.span(context.Background(), from)
		end(record, nil)
	}); allocations > 0 {
		t.Errorf("%v allocations a push", allocations)
	}
}
