package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
)

// Client is how a tool reaches a gateway.
type Client struct {
	Token  string `placeholder:"TOKEN" help:"Token of a tenant, where the gateway wants one; better in the environment, where other users do not see it."`
	CAFile string `name:"ca-file" placeholder:"FILE" help:"Authorities that sign the gateway's certificate, PEM; without one, those that this machine trusts."`
}

// Client returns an HTTP client. Its errors name the file that is not good.
func (c *Client) Client() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--ca-file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca-file: %s has no certificate in PEM", c.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	return &http.Client{Transport: transport}, nil
}

// Authorize adds the token to a request.
func (c *Client) Authorize(request *http.Request) {
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
}
