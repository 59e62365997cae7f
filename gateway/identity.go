package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/limit"
	"github.com/casteloig/logthra/gateway/query"
	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/telemetry"
	"github.com/casteloig/logthra/shared/wal"
)

// maxKey is the most bytes of an idempotency key.
const maxKey = 255

// origin is where a push comes from, and by which protocol.
type origin struct {
	protocol string
	tenant   string
	key      string // idempotency key, may be empty
	trace    string // the client's place in a trace, as it says it; may be empty
	limits   limit.Push
}

// claims are what a request says of who sends it.
type claims struct {
	tenantID, scopeOrgID string // the two headers that may name the tenant
	key                  string // idempotency key
	trace                string // place in a trace
	credentials          tenant.Credentials
}

func httpClaims(r *http.Request) claims {
	return claims{
		tenantID: joined(r.Header.Values("Tenant-Id")), scopeOrgID: joined(r.Header.Values("X-Scope-Orgid")),
		key: joined(r.Header.Values("Idempotency-Key")), trace: r.Header.Get(telemetry.TraceHeader),
		credentials: tenant.Credentials{Authorization: joined(r.Header.Values("Authorization")), Certificate: leaf(r.TLS)},
	}
}

func grpcClaims(ctx context.Context) claims {
	header := func(name string) string { return joined(metadata.ValueFromIncomingContext(ctx, name)) }
	c := claims{
		tenantID: header("tenant-id"), scopeOrgID: header("x-scope-orgid"), key: header("idempotency-key"), trace: header(telemetry.TraceHeader),
		credentials: tenant.Credentials{Authorization: header("authorization")},
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			c.credentials.Certificate = leaf(&info.State)
		}
	}
	return c
}

// leaf is the certificate that the client has proved to be its own; nil if there is none.
func leaf(state *tls.ConnectionState) *x509.Certificate {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil
	}
	return state.VerifiedChains[0][0]
}

// joined is the value of a header. One that was given more than once becomes a list, as HTTP has it (RFC 9110,
// section 5.3), and is refused for what it is: no tenant's name has a comma.
func joined(values []string) string { return strings.Join(values, ",") }

// identify finds out who pushes.
func (g *Gateway) identify(protocol string, c claims) (origin, error) {
	from := origin{protocol: protocol, key: c.key, trace: c.trace}
	wanted := c.tenantID
	switch {
	case c.tenantID == "":
		wanted = c.scopeOrgID
	case c.scopeOrgID != "" && c.scopeOrgID != c.tenantID:
		return from, &decode.Error{Reason: fmt.Sprintf("two tenants: tenant-id is %q, X-Scope-OrgID is %q",
			logs.Clip(c.tenantID), logs.Clip(c.scopeOrgID))}
	}
	if wanted != "" && !wal.ValidTenant(wanted) {
		return from, &decode.Error{Reason: fmt.Sprintf("tenant %q does not match %s", logs.Clip(wanted), wal.TenantPattern)}
	}
	if len(c.key) > maxKey {
		return from, &decode.Error{Reason: fmt.Sprintf("the idempotency key has %d bytes, at most %d are taken", len(c.key), maxKey)}
	}
	directory := g.cfg.Tenants()
	if directory == nil {
		if from.tenant = wanted; wanted == "" {
			from.tenant = g.cfg.DefaultTenant
		}
		if from.tenant == "" {
			return from, &decode.Error{Reason: "no tenant: name it in the tenant-id or X-Scope-OrgID header"}
		}
		return from, nil
	}
	name, err := directory.Authenticate(c.credentials, wanted)
	if err != nil {
		return from, err
	}
	from.tenant, from.limits = name, g.limiter.Of(name, directory.Limits(name))
	return from, nil
}

// identifyCaller finds out who asks, which is as it is with pushes, and within which limits.
func (g *Gateway) identifyCaller(r *http.Request) (query.Caller, error) {
	c := httpClaims(r)
	if strings.Contains(c.tenantID+c.scopeOrgID, "|") {
		return query.Caller{}, &decode.Error{Reason: "several tenants (a|b) can't be asked at once: name one in X-Scope-OrgID"}
	}
	from, err := g.identify("query", c)
	if err != nil {
		return query.Caller{}, err
	}
	limits := g.cfg.QueryLimits
	if directory := g.cfg.Tenants(); directory != nil {
		limits = directory.QueryLimits(from.tenant, limits)
	}
	return query.Caller{Tenant: from.tenant, Limits: limits}, nil
}
