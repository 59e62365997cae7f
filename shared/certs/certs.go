// Package certs gives servers their TLS certificates, and renewed ones without a restart: the files are looked at when a
// client connects, once a second at most.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

// expiresSoon is how long before its end a certificate is warned of, and warnEvery how often, at most.
const (
	expiresSoon = 14 * 24 * time.Hour
	warnEvery   = 24 * time.Hour
)

// Files are the paths of PEM files. Key is that of Cert, whose chain may follow it. ClientCA, where it is not empty, has
// the authorities whose clients are trusted; a client then has to show a certificate, or, with Optional, may.
type Files struct {
	Cert, Key, ClientCA string
	Optional            bool
}

// Reloader has the newest good certificates. It is safe for concurrent use.
type Reloader struct {
	files  Files
	protos []string
	log    *slog.Logger

	mu     sync.Mutex
	looked time.Time
	stamps [3]stamp // of the files, when they were read last
	config *tls.Config
	expiry time.Time
	warned time.Time // of expiry; zero if not yet
}

// stamp changes when a file does.
type stamp struct {
	modified time.Time
	size     int64
}

// Open reads the files. protos are the protocols that the server speaks (ALPN), such as h2. Errors name the file,
// and never what is in it.
func Open(files Files, log *slog.Logger, protos ...string) (*Reloader, error) {
	r := &Reloader{files: files, protos: protos, log: log}
	stamps, err := r.look()
	if err != nil {
		return nil, err
	}
	r.stamps, r.looked = stamps, time.Now()
	if err := r.load(); err != nil {
		return nil, err
	}
	r.warn(r.looked)
	return r, nil
}

// ServerConfig is what a server listens with: every connection gets the newest certificates that were good.
func (r *Reloader) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: r.protos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return r.current(time.Now()), nil
		},
	}
}

// Listener speaks TLS on what another listener accepts.
func (r *Reloader) Listener(plain net.Listener) net.Listener {
	return tls.NewListener(plain, r.ServerConfig())
}

// Expiry is when the certificate that is served ends.
func (r *Reloader) Expiry() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.expiry
}

// current is what is served, once the files were looked at, if that was long enough ago.
func (r *Reloader) current(now time.Time) *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.looked) >= lookEvery {
		r.looked = now
		r.reload()
		r.warn(now)
	}
	return r.config
}

// reload reads the files again if they have changed. Where they can't be read or don't fit, those of before are served
// on, and that is logged once.
func (r *Reloader) reload() {
	stamps, err := r.look()
	if err == nil && stamps == r.stamps {
		return
	}
	if err == nil {
		r.stamps = stamps
		err = r.load()
	} else if r.stamps != ([3]stamp{}) {
		r.stamps = [3]stamp{} // to be read when they are back
	} else {
		return
	}
	if err != nil {
		r.log.Error("new TLS certificates can't be used; those of before are served on", "error", err)
	} else {
		r.log.Info("new TLS certificates are served", "expire", r.expiry)
	}
}

// warn tells that the certificate which is served ends soon, or has ended.
func (r *Reloader) warn(now time.Time) {
	if r.expiry.Sub(now) < expiresSoon && now.Sub(r.warned) >= warnEvery {
		r.warned = now
		r.log.Warn("the TLS certificate ends soon", "file", r.files.Cert, "expires", r.expiry)
	}
}

// look returns the stamps of the files.
func (r *Reloader) look() (stamps [3]stamp, err error) {
	for i, path := range []string{r.files.Cert, r.files.Key, r.files.ClientCA} {
		if path == "" && i == 2 {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return stamps, fmt.Errorf("TLS: %w", err)
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}

// load reads the files, and keeps what was before where they are not good.
func (r *Reloader) load() error {
	pair, err := tls.LoadX509KeyPair(r.files.Cert, r.files.Key)
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return fmt.Errorf("TLS: %w", err)
	}
	if err != nil {
		return fmt.Errorf("TLS: certificate %s with key %s: %w", r.files.Cert, r.files.Key, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: r.protos, Certificates: []tls.Certificate{pair}}
	if r.files.ClientCA != "" {
		pem, err := os.ReadFile(r.files.ClientCA)
		if err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("TLS: %s has no certificate of an authority in PEM", r.files.ClientCA)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if r.files.Optional {
			config.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	r.config, r.expiry, r.warned = config, pair.Leaf.NotAfter, time.Time{}
	return nil
}
