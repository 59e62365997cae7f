// Package tenant knows who may push: the tenants of a YAML file, with their credentials and their limits.
package tenant

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/casteloig/logthra/shared/wal"
)

// Errors of Authenticate. None of them tells what the credential was.
var (
	ErrNoCredentials  = errors.New("no credential: send a token (Authorization: Bearer), a user with a password (Basic), or a client certificate")
	ErrBadCredentials = errors.New("the credential is not one of this gateway's tenants")
	ErrForbidden      = errors.New("the credential does not allow the tenant that the request names")
	ErrBusy           = errors.New("too many passwords are being checked at once")
)

// Credentials are what a request proves itself with.
type Credentials struct {
	Authorization string            // the header's value; empty if there is none
	Certificate   *x509.Certificate // of the client, verified; nil if there is none
}

// Directory is the tenants of one state of the file. It does not change, and is safe for concurrent use.
type Directory struct {
	tenants      map[string]*entry
	defaults     Limits
	queries      []override // of every tenant that does not say otherwise
	tokens       map[[sha256.Size]byte]*entry
	users        map[string]user
	certificates map[string]*entry // by what identities returns
	passwords    *passwords
	dummy        []byte // hash for users who do not exist, as costly as the costliest of those who do
}

// entry is one tenant.
type entry struct {
	name    string
	any     bool            // its credentials may choose any tenant
	allow   map[string]bool // tenants that they may choose; always itself
	limits  Limits
	queries []override // those of all tenants, and then its own
}

// override is one limit of queries that the file has, in place of the command's flag.
type override func(*QueryLimits)

type user struct {
	entry *entry
	hash  []byte // bcrypt's
}

// Authenticate finds out whose credential it is. wanted is the tenant that the request names, or empty: it may only
// agree with the credential, or choose among the tenants that the credential allows. The errors are those of the
// package.
func (d *Directory) Authenticate(c Credentials, wanted string) (string, error) {
	by, err := d.certificate(c.Certificate)
	if err != nil {
		return "", err
	}
	switch {
	case c.Authorization != "":
		other, err := d.authorization(c.Authorization)
		if err != nil {
			return "", err
		}
		if by != nil && by != other {
			return "", ErrForbidden
		}
		by = other
	case c.Certificate == nil:
		return "", ErrNoCredentials
	case by == nil:
		return "", ErrBadCredentials
	}
	switch {
	case wanted == "":
		return by.name, nil
	case by.allow[wanted] || by.any && wal.ValidTenant(wanted):
		return wanted, nil
	}
	return "", ErrForbidden
}

// Limits are those of a tenant, or the defaults for one that is not in the file.
func (d *Directory) Limits(tenant string) Limits {
	if e, ok := d.tenants[tenant]; ok {
		return e.limits
	}
	return d.defaults
}

// QueryLimits are those of a tenant, or the defaults for one that is not in the file. What the file does not say is as in flags.
func (d *Directory) QueryLimits(tenant string, flags QueryLimits) QueryLimits {
	overrides := d.queries
	if e, ok := d.tenants[tenant]; ok {
		overrides = e.queries
	}
	for _, override := range overrides {
		override(&flags)
	}
	return flags
}

// Known tells whether a tenant is in the file.
func (d *Directory) Known(tenant string) bool {
	_, ok := d.tenants[tenant]
	return ok
}

// Len is how many tenants there are, and how many credentials they have.
func (d *Directory) Len() (tenants, credentials int) {
	return len(d.tenants), len(d.tokens) + len(d.users) + len(d.certificates)
}

// authorization finds the tenant of a header, by its scheme (RFC 9110, section 11.4): Bearer (RFC 6750), Basic (RFC 7617),
// Splunk as its event collector has it, or ApiKey as Elasticsearch has it.
func (d *Directory) authorization(header string) (*entry, error) {
	scheme, value, _ := strings.Cut(header, " ")
	value = strings.TrimSpace(value)
	if value == "" {
		return nil, ErrBadCredentials
	}
	switch strings.ToLower(scheme) {
	case "bearer", "splunk":
		return d.token([]byte(value))
	case "apikey": // the key alone, or base64 of an id and the key
		e, err := d.token([]byte(value))
		if err == nil {
			return e, nil
		}
		decoded, _ := base64.StdEncoding.DecodeString(value)
		if _, key, ok := bytes.Cut(decoded, []byte(":")); ok {
			return d.token(key)
		}
		return nil, err
	case "basic":
		decoded, err := base64.StdEncoding.DecodeString(value)
		name, password, ok := bytes.Cut(decoded, []byte(":"))
		if err != nil || !ok {
			return nil, ErrBadCredentials
		}
		return d.password(string(name), password)
	}
	return nil, ErrBadCredentials
}

// token finds a tenant by the SHA-256 of its token. How long the look-up takes depends on nothing but the hash, from which
// nobody learns the token.
func (d *Directory) token(token []byte) (*entry, error) {
	if e, ok := d.tokens[sha256.Sum256(token)]; ok {
		return e, nil
	}
	return nil, ErrBadCredentials
}

// password finds a tenant by one of its users. A user who does not exist takes as long as a wrong password.
func (d *Directory) password(name string, password []byte) (*entry, error) {
	u, ok := d.users[name]
	if !ok {
		u.hash = d.dummy
	}
	right, err := d.passwords.check(name, password, u.hash)
	switch {
	case err != nil:
		return nil, err
	case !ok || !right:
		return nil, ErrBadCredentials
	}
	return u.entry, nil
}

// certificate finds the tenant of a client certificate; nil if there is none, or it is nobody's. One whose names are those
// of two tenants is ErrForbidden.
func (d *Directory) certificate(c *x509.Certificate) (by *entry, err error) {
	if c == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	for _, identity := range identities(c) {
		e, ok := d.certificates[identity]
		if ok && by != nil && e != by {
			return nil, ErrForbidden
		}
		if ok {
			by = e
		}
	}
	return by, nil
}

// identities are the names in a certificate, in the form that the file has them.
func identities(c *x509.Certificate) []string {
	var out []string
	for _, uri := range c.URIs {
		out = append(out, "URI:"+uri.String())
	}
	for _, name := range c.DNSNames {
		out = append(out, "DNS:"+strings.ToLower(name))
	}
	for _, address := range c.EmailAddresses {
		out = append(out, "EMAIL:"+address)
	}
	if c.Subject.CommonName != "" {
		out = append(out, "CN="+c.Subject.CommonName)
	}
	return out
}
