package telemetry

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func counter(most int) *TenantCounter {
	return NewTenantCounter(prometheus.CounterOpts{Name: "refusals_total", Help: "Refusals."}, "reason", most)
}

func want(t *testing.T, c *TenantCounter, tenant string, value float64) {
	t.Helper()
	if got := testutil.ToFloat64(c.vec.WithLabelValues(tenant, "rate")); got != value {
		t.Errorf("%s has %g, want %g", tenant, got, value)
	}
}

// However many tenants there are, series and memory stay bounded, and the sum is right.
func TestTenantsAreBounded(t *testing.T) {
	const tenants, own, reasons = 100_000, 1000, 10
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	c := counter(own)
	for i := range own {
		for reason := range reasons {
			c.Inc(fmt.Sprint("tenant-", i), fmt.Sprint("reason-", reason), noon)
		}
	}
	before := heap()
	for i := own; i < tenants; i++ {
		for reason := range reasons {
			c.Inc(fmt.Sprint("tenant-", i), fmt.Sprint("reason-", reason), noon.Add(time.Duration(i)*time.Millisecond))
		}
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("%d tenants more take %d bytes", tenants-own, after-before)
	}
	if n := testutil.CollectAndCount(c); n != (own+1)*reasons {
		t.Errorf("%d series", n)
	}
	if got := testutil.ToFloat64(c.vec.WithLabelValues(OtherTenants, "reason-0")); got != tenants-own {
		t.Errorf("%g are counted of the others", got)
	}
}

// A tenant that is not counted any more gives its series up, but only where another needs them.
func TestIdleTenants(t *testing.T) {
	c := counter(2)
	for range 3 {
		c.Inc("old", "rate", noon)
	}
	c.Inc("busy", "rate", noon)
	c.Inc("new", "rate", noon.Add(tenantIdle-1))
	c.Inc("busy", "rate", noon.Add(tenantIdle-1))
	want(t, c, OtherTenants, 1)
	want(t, c, "old", 3)
	c.Inc("new", "rate", noon.Add(tenantIdle)) // just looked
	want(t, c, OtherTenants, 2)
	c.Inc("new", "rate", noon.Add(tenantIdle+sweepEvery))
	c.Inc("old", "rate", noon.Add(tenantIdle+sweepEvery))
	want(t, c, "new", 1)
	want(t, c, "busy", 2)
	want(t, c, OtherTenants, 3)
	if n := testutil.CollectAndCount(c); n != 3 {
		t.Errorf("%d series", n)
	}
	none := counter(0)
	none.Inc("any", "rate", noon)
	want(t, none, OtherTenants, 1)
}

func BenchmarkTenantCounter(b *testing.B) {
	for name, most := range map[string]int{"own": 1, "other": 0} {
		b.Run(name, func(b *testing.B) {
			c := counter(most)
			b.ReportAllocs()
			for b.Loop() {
				c.Inc("acme", "rate", noon)
			}
		})
	}
}
