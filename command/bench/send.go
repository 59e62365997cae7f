package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// busyError is an answer that asks to try again.
type busyError struct {
	reason string
	after  time.Duration
}

func (e *busyError) Error() string { return e.reason }

// sender sends one push after another over a connection of its own. It is not safe for concurrent use.
type sender interface {
	// send returns nil, a *busyError where the push may be taken later, or why there is no use in sending it again.
	send(ctx context.Context, p push) error
	close()
}

func newSender(cfg Config) (sender, error) {
	if protocols[cfg.Protocol].grpc {
		return newCaller(cfg)
	}
	return newPoster(cfg)
}

// poster sends over HTTP/1.1, with as little work of its own as it takes: a client of net/http would take as much of the
// machine for a small push as the gateway does.
type poster struct {
	cfg     Config
	at      *url.URL
	address string
	head    []byte // of each request, up to the tenant
	buffer  []byte
	conn    net.Conn
	reader  *bufio.Reader
}

// answerTimeout is how long an answer may take.
const answerTimeout = time.Minute

func newPoster(cfg Config) (*poster, error) {
	how := protocols[cfg.Protocol]
	at, err := url.Parse(strings.TrimRight(cfg.URL, "/") + how.path)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	p := &poster{cfg: cfg, at: at, address: at.Host}
	switch {
	case at.Scheme != "http" && at.Scheme != "https" || at.Host == "":
		return nil, fmt.Errorf("--url: %q is not http://host:port or https://host:port", cfg.URL)
	case at.Port() == "" && at.Scheme == "http":
		p.address += ":80"
	case at.Port() == "":
		p.address += ":443"
	}
	p.head = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: logthra-bench\r\nContent-Type: %s\r\n", at.RequestURI(), at.Host, how.contentType)
	if cfg.Encoding != "none" {
		p.head = fmt.Appendf(p.head, "Content-Encoding: %s\r\n", cfg.Encoding)
	}
	if cfg.Token != "" {
		scheme := "Bearer"
		if cfg.Protocol == "splunk" {
			scheme = "Splunk"
		}
		p.head = fmt.Appendf(p.head, "Authorization: %s %s\r\n", scheme, cfg.Token)
	}
	return p, nil
}

func (p *poster) close() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}

// connect dials, where there is no connection yet.
func (p *poster) connect(ctx context.Context) (err error) {
	if p.conn != nil {
		return nil
	}
	if p.at.Scheme == "https" {
		p.conn, err = (&tls.Dialer{Config: p.cfg.TLS}).DialContext(ctx, "tcp", p.address)
	} else {
		p.conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
	}
	if err != nil {
		p.conn = nil
		return &busyError{reason: err.Error()}
	}
	p.reader = bufio.NewReader(p.conn)
	return nil
}

func (p *poster) send(ctx context.Context, push push) error {
	if err := p.connect(ctx); err != nil {
		return err
	}
	p.buffer = append(p.buffer[:0], p.head...)
	if push.tenant != "" {
		p.buffer = append(append(append(p.buffer, "X-Scope-OrgID: "...), push.tenant...), "\r\n"...)
	}
	p.buffer = strconv.AppendInt(append(p.buffer, "Content-Length: "...), int64(len(push.body)), 10)
	p.buffer = append(p.buffer, "\r\n\r\n"...)
	_ = p.conn.SetDeadline(time.Now().Add(answerTimeout))
	parts := net.Buffers{p.buffer, push.body}
	_, err := parts.WriteTo(p.conn)
	if err == nil {
		err = p.receive()
	}
	if broken := (*net.OpError)(nil); errors.As(err, &broken) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		p.close()
		return &busyError{reason: "the connection broke: " + err.Error()}
	}
	return err
}

// receive reads an answer.
func (p *poster) receive() error {
	response, err := http.ReadResponse(p.reader, nil)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil {
		return err
	}
	if response.Close {
		p.close()
	}
	reason := response.Status + ": " + string(bytes.TrimSpace(text))
	switch {
	case response.StatusCode/100 == 2:
		return nil
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return &busyError{reason, time.Duration(seconds) * time.Second}
	}
	return errors.New(reason)
}

// caller sends over gRPC.
type caller struct {
	cfg    Config
	method string
	conn   *grpc.ClientConn
}

func newCaller(cfg Config) (*caller, error) {
	how := insecure.NewCredentials()
	target := cfg.URL
	if host, secure := strings.CutPrefix(target, "https://"); secure {
		how, target = credentials.NewTLS(cfg.TLS), host
	}
	target = strings.TrimRight(strings.TrimPrefix(target, "http://"), "/")
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(how), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	return &caller{cfg, protocols[cfg.Protocol].path, conn}, nil
}

func (c *caller) close() { _ = c.conn.Close() }

func (c *caller) send(ctx context.Context, p push) error {
	if p.tenant != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "tenant-id", p.tenant)
	}
	if c.cfg.Token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.cfg.Token)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var answer []byte
	err := c.conn.Invoke(ctx, c.method, p.body, &answer)
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded:
		return &busyError{reason: err.Error()}
	}
	return err
}

// raw is a codec for messages that are encoded already.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
