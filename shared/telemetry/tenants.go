package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// OtherTenants is the tenant of what is counted of tenants that have no series of their own. No tenant can have this name.
const OtherTenants = "(other)"

// A tenant that was not counted for tenantIdle gives up its series when another needs the room, which is looked for every
// sweepEvery at most: a tenant beyond the bound must not cost a look at all of them each time.
const (
	tenantIdle = time.Hour
	sweepEvery = time.Minute
)

// TenantCounter counts by tenant and one further label. Only so many tenants have series of their own, those that came
// first; all others share those of OtherTenants, so that sums stay right. It is safe for concurrent use.
type TenantCounter struct {
	vec  *prometheus.CounterVec
	most int

	mu    sync.Mutex
	last  map[string]time.Time // when a tenant that has series of its own was counted last
	swept time.Time
}

// NewTenantCounter returns a counter with the labels tenant and label. most is how many tenants have series of their own.
func NewTenantCounter(opts prometheus.CounterOpts, label string, most int) *TenantCounter {
	return &TenantCounter{vec: prometheus.NewCounterVec(opts, []string{"tenant", label}), most: most, last: map[string]time.Time{}}
}

// Inc counts one of a tenant, at this time; value is that of the further label.
func (c *TenantCounter) Inc(tenant, value string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock() // held while it is counted: in between the series could be swept away
	if !c.admit(tenant, now) {
		tenant = OtherTenants
	}
	c.vec.WithLabelValues(tenant, value).Inc()
}

// admit tells whether a tenant has series of its own, or gets them now. It needs mu.
func (c *TenantCounter) admit(tenant string, now time.Time) bool {
	if _, ok := c.last[tenant]; !ok && len(c.last) >= c.most {
		if now.Sub(c.swept) < sweepEvery {
			return false
		}
		c.swept = now
		for other, last := range c.last {
			if now.Sub(last) >= tenantIdle {
				delete(c.last, other)
				c.vec.DeletePartialMatch(prometheus.Labels{"tenant": other})
			}
		}
		if len(c.last) >= c.most {
			return false
		}
	}
	c.last[tenant] = now
	return true
}

// Describe implements prometheus.Collector.
func (c *TenantCounter) Describe(out chan<- *prometheus.Desc) { c.vec.Describe(out) }

// Collect implements prometheus.Collector.
func (c *TenantCounter) Collect(out chan<- prometheus.Metric) { c.vec.Collect(out) }
