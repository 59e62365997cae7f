package cut

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/wal"
)

const (
	// sweepEvery is how often the connections to ingesters that are gone are closed.
	sweepEvery = 10 * time.Second
	// reconnectWithin is how long it takes at most until an ingester that could not be reached is tried again.
	reconnectWithin = 2 * time.Second
	// avoidFor is for how long an ingester that did not answer in time is not asked.
	avoidFor = 5 * time.Second
)

// peers are the connections to ingesters, one each.
type peers struct {
	owners *wal.Owners

	mu  sync.Mutex
	all map[string]*peer // by id
}

// peer is a connection to an ingester.
type peer struct {
	logthrav1.IngesterServiceClient

	conn    *grpc.ClientConn
	avoided atomic.Int64 // until when, in unix nanoseconds
}

func (p *peer) avoid() { p.avoided.Store(time.Now().Add(avoidFor).UnixNano()) }

// to is the connection to an ingester; nil: it is not known, or was too slow just now.
func (s *peers) to(id string) *peer {
	member, known := s.owners.Member(id)
	if !known || member.GRPC == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.all[id]
	if p == nil {
		conn, err := grpc.NewClient(member.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)), // a line may be of any length
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: reconnectWithin / 10, Multiplier: 2, Jitter: 0.2, MaxDelay: reconnectWithin},
				MinConnectTimeout: reconnectWithin,
			}))
		if err != nil { // its address is none
			return nil
		}
		p = &peer{IngesterServiceClient: logthrav1.NewIngesterServiceClient(conn), conn: conn}
		s.all[id] = p
	}
	if time.Now().UnixNano() < p.avoided.Load() {
		return nil
	}
	return p
}

// sweep closes connections to ingesters that are gone, until ctx ends.
func (s *peers) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.closeGone()
		case <-ctx.Done():
			return
		}
	}
}

func (s *peers) closeGone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.all {
		if _, known := s.owners.Member(id); !known {
			_ = p.conn.Close()
			delete(s.all, id)
		}
	}
}

func (s *peers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.all {
		_ = p.conn.Close()
	}
	clear(s.all)
}
