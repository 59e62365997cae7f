package config

import (
	"errors"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
)

// NATS is where the WAL is, and how it is reached. Files are read again at every connection, so that what is in them can be
// replaced while everything runs; only an NKey can't become another.
type NATS struct {
	NATSURL       string `name:"nats-url" placeholder:"URL" help:"An existing NATS with JetStream, or its servers with commas between; without one, the embedded one."`
	NATSCredsFile string `name:"nats-creds-file" placeholder:"FILE" help:"Credentials of a user of that NATS: its JWT and its seed."`
	NATSNkeyFile  string `name:"nats-nkey-file" placeholder:"FILE" help:"Seed of the NKey of a user of that NATS."`
	NATSCAFile    string `name:"nats-ca-file" placeholder:"FILE" help:"Authorities that sign the certificates of that NATS, PEM; without one, those that this machine trusts."`
	NATSCertFile  string `name:"nats-cert-file" placeholder:"FILE" help:"Certificate that is shown to that NATS, PEM."`
	NATSKeyFile   string `name:"nats-key-file" placeholder:"FILE" help:"Its key, PEM."`
	NATSDomain    string `name:"nats-domain" placeholder:"NAME" help:"JetStream domain of the WAL, where that NATS is a leaf node of another."`
	NATSAPIPrefix string `name:"nats-api-prefix" placeholder:"PREFIX" help:"What the subjects of JetStream's API begin with, where they are imported from another account."`
}

// Validate is called by the command line's parser.
func (n *NATS) Validate() error {
	for _, needs := range []struct{ flag, value string }{
		{"--nats-creds-file", n.NATSCredsFile},
		{"--nats-nkey-file", n.NATSNkeyFile},
		{"--nats-ca-file", n.NATSCAFile},
		{"--nats-cert-file", n.NATSCertFile},
		{"--nats-key-file", n.NATSKeyFile},
		{"--nats-domain", n.NATSDomain},
		{"--nats-api-prefix", n.NATSAPIPrefix},
	} {
		if needs.value != "" && n.NATSURL == "" {
			return fmt.Errorf("%s: --nats-url is needed, too", needs.flag)
		}
	}
	switch {
	case (n.NATSCertFile == "") != (n.NATSKeyFile == ""):
		return errors.New("--nats-cert-file and --nats-key-file: one needs the other")
	case n.NATSCredsFile != "" && n.NATSNkeyFile != "":
		return errors.New("--nats-creds-file and --nats-nkey-file: one of them says who this is")
	case n.NATSDomain != "" && n.NATSAPIPrefix != "":
		return errors.New("--nats-domain and --nats-api-prefix: a domain is a prefix")
	}
	return nil
}

// APIPrefix is what the subjects of JetStream's API begin with; empty: as usual.
func (n *NATS) APIPrefix() string {
	if n.NATSDomain != "" {
		return "$JS." + n.NATSDomain + ".API"
	}
	return n.NATSAPIPrefix
}

// Options are those of a connection. Errors name the flag of the file that is not good, and never what is in it.
func (n *NATS) Options() (options []nats.Option, err error) {
	add := func(flag string, option nats.Option, err error) error {
		if err == nil {
			err = option(new(nats.Options)) // a file that is not good now is told now
		}
		if err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
		options = append(options, option)
		return nil
	}
	if n.NATSCredsFile != "" {
		_, err := os.Stat(n.NATSCredsFile) // it is read only when there is a connection
		if err := add("--nats-creds-file", nats.UserCredentials(n.NATSCredsFile), err); err != nil {
			return nil, err
		}
	}
	if n.NATSNkeyFile != "" {
		nkey, err := nats.NkeyOptionFromSeed(n.NATSNkeyFile)
		if err := add("--nats-nkey-file", nkey, err); err != nil {
			return nil, err
		}
	}
	if n.NATSCAFile != "" {
		if err := add("--nats-ca-file", nats.RootCAs(n.NATSCAFile), nil); err != nil {
			return nil, err
		}
	}
	if n.NATSCertFile != "" {
		if err := add("--nats-cert-file", nats.ClientCert(n.NATSCertFile, n.NATSKeyFile), nil); err != nil {
			return nil, err
		}
	}
	return options, nil
}
