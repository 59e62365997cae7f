package cut

import (
	"fmt"
	"testing"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/shared/logs"
)

// 200,000 lines have not landed.
func BenchmarkCut(b *testing.B) {
	const lines = 200_000
	f := newFixture(b, 4)
	f.run(nil)
	f.owned()
	for range lines / 1000 {
		var batch logs.Batch
		batch.AddStream(api)
		for range 1000 {
			batch.Lines = fmt.Appendf(batch.Lines, `level=info caller=server.go:%d msg="request served" path=/api/v1/things/%d took=%dms`, f.next%300, f.next, f.next%977)
			batch.EndEntry(epoch+int64(f.next), true)
			f.next++
		}
		if _, err := f.wal.Publish(b.Context(), "acme", "", &batch); err != nil {
			b.Fatal(err)
		}
	}
	f.make(all("acme"))
	for name, c := range map[string]struct {
		change func(*cut.Request)
		want   int
	}{
		"another time":   {func(r *cut.Request) { r.Start, r.End = r.End, r.End+1 }, 0},
		"another tenant": {func(r *cut.Request) { r.Tenant = "other" }, 0},
		"no lines":       {func(r *cut.Request) { r.OmitLines = true }, lines},
		"all":            {func(*cut.Request) {}, lines},
		"newest 100":     {func(r *cut.Request) { r.Limit = 100 }, 100},
	} {
		b.Run(name, func(b *testing.B) {
			request := all("acme")
			c.change(&request)
			b.ReportAllocs()
			for b.Loop() {
				if made := f.make(request); len(made.Entries) < c.want || len(made.Entries) > max(c.want, lines/10) && len(made.Entries) != c.want {
					b.Fatalf("%d entries of %d", len(made.Entries), c.want)
				}
			}
		})
	}
}
