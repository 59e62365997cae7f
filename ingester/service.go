package ingester

import (
	"context"
	"errors"
	"maps"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

// Service is the ingester's gRPC service.
type Service struct {
	logthrav1.UnimplementedIngesterServiceServer

	Ingester  *Ingester
	Version   string
	Addresses func() map[string]string // what the process is reached under and reaches
}

// Status implements logthra.v1.IngesterService.
func (s *Service) Status(ctx context.Context, _ *logthrav1.StatusRequest) (*logthrav1.StatusResponse, error) {
	in := s.Ingester
	response := &logthrav1.StatusResponse{
		Ingester: in.cfg.ID, Version: s.Version, Started: timestamppb.New(in.started), Addresses: s.Addresses(),
	}
	in.mu.Lock()
	owned := maps.Clone(in.shards)
	in.mu.Unlock()
	for n := range in.wal.Shards() {
		state, err := in.wal.State(ctx, n)
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		shard := &logthrav1.ShardStatus{
			Shard: uint32(n), Owner: state.Position.Owner,
			BacklogRecords: state.BacklogRecords, BacklogBytes: state.BacklogBytes,
			OldestUnflushed: durationpb.New(state.OldestUnflushed),
			LandedSequence:  state.Position.Landed, LastSequence: state.Last,
			WalBytes: state.Bytes, WalMaxBytes: state.MaxBytes,
		}
		if s := owned[n]; s != nil {
			s.describe(shard)
		}
		response.Shards = append(response.Shards, shard)
	}
	return response, nil
}

// describe adds what only the owner knows.
func (s *shard) describe(to *logthrav1.ShardStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to.State, to.GatheredRows = s.current(), uint64(s.gathered)
	if s.failure != nil {
		to.Error = s.failure.Error()
	}
	if f := s.lastFlush; !f.at.IsZero() {
		to.LastFlush = &logthrav1.FlushStatus{
			Time: timestamppb.New(f.at), Rows: uint64(f.rows), Bytes: uint64(f.bytes), Duration: durationpb.New(f.took),
		}
	}
}

// Flush implements logthra.v1.IngesterService.
func (s *Service) Flush(ctx context.Context, _ *logthrav1.FlushRequest) (*logthrav1.FlushResponse, error) {
	rows, err := s.Ingester.Flush(ctx)
	if err != nil {
		return nil, unfinished("flushing", err)
	}
	return &logthrav1.FlushResponse{Rows: rows}, nil
}

// Drain implements logthra.v1.IngesterService.
func (s *Service) Drain(ctx context.Context, _ *logthrav1.DrainRequest) (*logthrav1.DrainResponse, error) {
	rows, err := s.Ingester.Drain(ctx)
	if err != nil {
		return nil, unfinished("draining", err)
	}
	return &logthrav1.DrainResponse{Rows: rows}, nil
}

// unfinished is the answer to a call that ended before its work did.
func unfinished(what string, err error) error {
	if errors.Is(err, context.Canceled) {
		return status.Errorf(codes.Canceled, "%s goes on: %v", what, err)
	}
	return status.Errorf(codes.Unavailable, "%s goes on: %v", what, err)
}
