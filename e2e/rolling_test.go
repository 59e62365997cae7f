package e2e

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"testing"
	"time"
)

// TestRollingRestart restarts every gateway and every ingester in turn, as a deployment does, behind a load balancer that goes by
// /ready. No push notices: each is accepted at its first attempt, over HTTP and gRPC, and lands once.
func TestRollingRestart(t *testing.T) {
	h := newHarness(t, seedOf(t, "go test ./e2e -run '^TestRollingRestart$' -count=1 -v"))
	h.start(nil)
	b := newBalancer(t, h.cluster)
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	err := h.push(func(_ int, protocol string) string { return b.addresses[protocol] }, settleTimeout, func() {
		for range rounds {
			for _, name := range append(all(gateways, gatewayName), ingesterNames...) {
				time.Sleep(time.Second)
				h.note("restarting %s", name)
				p := h.cluster.processes[name]
				if code := p.terminate(stopWithin); code != 0 {
					t.Errorf("%s ended with exit code %d", name, code)
				}
				if err := p.start(); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
				err := p.awaitReady(ctx)
				cancel()
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Second)
	})
	if err != nil {
		t.Fatal(err)
	}
	h.report(h.verify())
	again := 0
	for _, r := range h.records {
		if r.attempts > 1 {
			again++
		}
	}
	if again > 0 {
		t.Errorf("%d of %d pushes were not accepted at their first attempt", again, len(h.records))
	}
	t.Logf("%d pushes, %d lines, %d restarts", len(h.records), h.accepted, rounds*(gateways+ingesters))
}

// balancer is a load balancer in front of the gateways: one address a protocol, pushes by turn to all that are ready.
type balancer struct {
	cluster   *cluster
	addresses map[string]string
	ready     [gateways]atomic.Pointer[map[string]string] // addresses of a gateway that was ready when it was asked last
	turn      atomic.Uint64
}

// askReadyEvery is how often a gateway is asked whether it is ready. It counts until it says no, or does not answer.
const askReadyEvery = 100 * time.Millisecond

func newBalancer(t *testing.T, c *cluster) *balancer {
	t.Helper()
	b := &balancer{cluster: c, addresses: map[string]string{}}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	for n := range gateways {
		b.ask(ctx, n)
		go func() {
			for ctx.Err() == nil {
				time.Sleep(askReadyEvery)
				b.ask(ctx, n)
			}
		}()
	}
	for protocol, h2 := range map[string]bool{"http": false, "grpc": true} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var protocols http.Protocols
		protocols.SetHTTP1(!h2)
		protocols.SetUnencryptedHTTP2(h2)
		transport := &http.Transport{Protocols: &protocols, DisableCompression: true, MaxIdleConnsPerHost: workers}
		server := &http.Server{Protocols: &protocols, Handler: &httputil.ReverseProxy{
			Transport:     transport,
			FlushInterval: -1,
			Rewrite: func(r *httputil.ProxyRequest) {
				r.Out.URL.Scheme, r.Out.URL.Host = "http", b.next(protocol)
			},
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				t.Logf("%s %s: %s", r.URL.Path, r.RemoteAddr, err)
				w.WriteHeader(http.StatusBadGateway)
			},
		}}
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(func() { _ = server.Close() })
		b.addresses[protocol] = listener.Addr().String()
	}
	return b
}

// ask asks a gateway whether it is ready.
func (b *balancer) ask(ctx context.Context, n int) {
	p := b.cluster.processes[gatewayName(n)]
	at := map[string]string{"http": p.address("http"), "grpc": p.address("grpc")}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at["http"]+"/ready", nil)
	if err == nil && at["http"] != "" {
		var response *http.Response
		if response, err = http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				b.ready[n].Store(&at)
				return
			}
		}
	}
	b.ready[n].Store(nil)
}

// next is the gateway whose turn it is.
func (b *balancer) next(protocol string) string {
	for range gateways {
		if at := b.ready[b.turn.Add(1)%gateways].Load(); at != nil {
			return (*at)[protocol]
		}
	}
	return "127.0.0.1:0" // none is ready
}
