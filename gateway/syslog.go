package gateway

import (
	"context"
	"crypto/tls"
	"strconv"
	"time"

	"github.com/casteloig/logthra/gateway/limit"
	"github.com/casteloig/logthra/gateway/syslog"
	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

const protocolSyslog = "syslog"

// Syslog returns what a listener for syslog is made with. All that comes in belongs to the tenant with this name; where
// it is empty, to the one that the client's certificate vouches for.
func (g *Gateway) Syslog(name string) syslog.Config {
	return syslog.Config{
		Limits: g.cfg.Limits,
		Tenant: func(state *tls.ConnectionState) (string, error) {
			directory := g.cfg.Tenants()
			switch {
			case name != "":
				return name, nil
			case directory == nil:
				return g.cfg.DefaultTenant, nil
			}
			return directory.Authenticate(tenant.Credentials{Certificate: leaf(state)}, "")
		},
		Push:      g.pushSyslog,
		Retryable: func(err error) bool { return g.judge(origin{protocol: protocolSyslog}, err).retry > 0 },
	}
}

// pushSyslog takes messages that were gathered. Syslog has no way to tell a sender of a refusal: what a limit refuses is
// counted and logged, the rest is taken.
func (g *Gateway) pushSyslog(ctx context.Context, name, key string, batch *logs.Batch) error {
	from := origin{protocol: protocolSyslog, tenant: name, key: key}
	if directory := g.cfg.Tenants(); directory != nil {
		from.limits = g.limiter.Of(name, directory.Limits(name))
	}
	err := from.limits.Admit(time.Now())
	if err == nil {
		g.metrics.bodyBytes.WithLabelValues(protocolSyslog).Add(float64(len(batch.Lines)))
		from.limits.Charge(len(batch.Lines))
		traced, end := g.span(ctx, from)
		var record *wal.Encoded
		if record, err = g.encode(from, func(int, *limit.Error) {}, batch); err == nil {
			_, err = g.publish(traced, from, record)
		}
		end(record, err)
	}
	status := 204
	if err != nil {
		v := g.judge(from, err)
		g.metrics.failed(v)
		status = v.status
	}
	g.metrics.pushes.WithLabelValues(protocolSyslog, strconv.Itoa(status)).Inc()
	return err
}
