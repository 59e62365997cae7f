// Package tenant knows who may push: the tenants of a YAML file, with their credentials and their limits.
package tenant

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"
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
	tokens       map[[sha256.Size]byte]*entry
	users        map[string]user
	certificates map[string]*entry // by what identities returns
	passwords    *passwords
}

// entry is one tenant.
type entry struct {
	name   string
	any    bool            // its credentials may choose any tenant
	allow  map[string]bool // tenants that they may choose; always itself
	limits Limits
}

type user struct {
	entry *entry
	hash  []byte // bcrypt's
}

// Authenticate finds out whose credential it is. wanted is the tenant that the request names, or empty: it may only
// agree with the credential, or choose among the tenants that the credential allows. The errors are those of the
// package.
func (d *Directory) Authenticate(c Credentials, wanted string) (string, error) {
	var by *entry
	if c.Certificate != nil {
		by = d.certificate(c.Certificate)
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
	case by.any || by.allow[wanted]:
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
	switch strings.ToLower(scheme) {
	case "bearer", "splunk":
		return d.token([]byte(value))
	case "apikey": // base64 of an id and the key, or the key alone
		if decoded, err := base64.StdEncoding.DecodeString(value); err == nil {
			if _, key, ok := bytes.Cut(decoded, []byte(":")); ok {
				return d.token(key)
			}
		}
		return d.token([]byte(value))
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
		u.hash = d.passwords.dummy
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

// certificate finds the tenant of a client certificate; nil if it is nobody's.
func (d *Directory) certificate(c *x509.Certificate) *entry {
	for _, identity := range identities(c) {
		if e, ok := d.certificates[identity]; ok {
			return e
		}
	}
	return nil
}

// identities are the names in a certificate, in the form that the file has them.
func identities(c *x509.Certificate) []string {
	var out []string
	for _, uri := range c.URIs {
		out = append(out, "URI:"+uri.String())
	}
	for _, name := range c.DNSNames {
		out = append(out, "DNS:"+name)
	}
	for _, address := range c.EmailAddresses {
		out = append(out, "EMAIL:"+address)
	}
	if c.Subject.CommonName != "" {
		out = append(out, "CN="+c.Subject.CommonName)
	}
	return out
}
