// Package wal is the write-ahead log on NATS JetStream: one stream a shard, in which a record is one push,
// and beside it a key-value bucket that says which ingester owns which shard and how far it has landed.
//
// A record counts as taken once JetStream has confirmed it. It is read in the order of its sequence by the
// one owner of its shard, and stays until it has landed in ClickHouse and the replay window has passed; see
// Lease for what makes that exactly once.
package wal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Names in JetStream. An operator meets them in every NATS tool, so they are part of the contract.
const (
	StreamPrefix      = "logthra-logs-"
	SubjectPrefix     = "logs."
	DeadLetterStream  = "logthra-deadletters"
	DeadLetterSubject = "logthra.deadletter."
	Bucket            = "logthra"
)

// MaxShards is the most shards that a WAL can have: a row keeps its shard in 16 bits.
const MaxShards = 1 << 10

// DefaultTimeout bounds a request to JetStream whose caller gave no deadline.
const DefaultTimeout = 5 * time.Second

// deadLetterMaxBytes bounds the stream of dead letters; at the bound it refuses another.
const deadLetterMaxBytes = 1 << 30

// Config is what the WAL is made with.
type Config struct {
	Shards      int           // streams to create; more that exist already are kept
	Replicas    int           // copies of each stream, 1 to 5; more that there are already are kept
	MaxBytes    int64         // of all shards together; a full shard refuses records
	DedupWindow time.Duration // how long a repeated record id is recognized

	Placement *jetstream.Placement // servers that the streams are kept on; nil: where they are, or any
	APIPrefix string               // of JetStream's subjects; empty: the usual one
}

// over is the number of copies and the place of a stream that may be there already: what an operator has set is not
// undone because a process that was started without a flag does not know of it.
func (c *Config) over(now *jetstream.StreamInfo) (replicas int, placement *jetstream.Placement) {
	replicas, placement = c.Replicas, c.Placement
	if now != nil {
		replicas = max(replicas, now.Config.Replicas)
		placement = cmp.Or(placement, now.Config.Placement)
	}
	return replicas, placement
}

// WAL is a connection to the write-ahead log. It is safe for concurrent use.
type WAL struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	kv      jetstream.KeyValue
	letters jetstream.Stream
	log     *slog.Logger

	state    atomic.Pointer[state]
	adopting sync.Mutex    // held while state is changed
	dedup    time.Duration // Config.DedupWindow
}

// Open creates what is missing in JetStream, brings the limits of what is there to cfg, and returns the WAL.
// The number of shards is never lowered: where more exist than cfg.Shards, all of them are used. The caller
// keeps ownership of nc.
func Open(ctx context.Context, nc *nats.Conn, cfg Config, log *slog.Logger) (*WAL, error) {
	w, existing, err := look(ctx, nc, cfg.APIPrefix, log)
	if err != nil {
		return nil, err
	}
	now, err := w.existing(ctx, "KV_"+Bucket)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", Bucket, explain(err))
	}
	replicas, placement := cfg.over(now)
	if w.kv, err = w.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket:      Bucket,
		Description: "Owners and positions of the shards of Logthra's WAL",
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		Placement:   placement,
	}); err != nil {
		return nil, fmt.Errorf("bucket %s: %w", Bucket, explain(err))
	}
	if replicas > cfg.Replicas {
		log.Warn("the WAL has more replicas than --replicas asks for; they are kept", "replicas", replicas, "asked", cfg.Replicas)
	}
	if err := w.openShards(ctx, cfg, existing); err != nil {
		return nil, err
	}
	if now, err = w.existing(ctx, DeadLetterStream); err != nil {
		return nil, fmt.Errorf("stream %s: %w", DeadLetterStream, explain(err))
	}
	replicas, placement = cfg.over(now)
	if w.letters, err = w.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        DeadLetterStream,
		Description: "Records of Logthra's WAL that could not be inserted, with the reason",
		Subjects:    []string{DeadLetterSubject + ">"},
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		MaxBytes:    deadLetterMaxBytes,
		Replicas:    replicas,
		Placement:   placement,
		AllowRollup: true, // DropDeadLetter
		AllowMsgTTL: true,
	}); err != nil {
		return nil, fmt.Errorf("stream %s: %w", DeadLetterStream, explain(err))
	}
	return w, nil
}

// openShards opens as many shards as the layout says, which is written where there is none. Where more are asked for, it
// raises them.
func (w *WAL) openShards(ctx context.Context, cfg Config, existing int) error {
	w.dedup = cfg.DedupWindow
	d := w.layoutDocument()
	err := d.load(ctx)
	for began := time.Now(); errors.Is(err, nats.ErrNoResponders) && time.Since(began) < DefaultTimeout; err = d.load(ctx) {
		time.Sleep(DefaultTimeout / 50) // the servers of a cluster have to agree on who answers for a new bucket
	}
	if err != nil {
		return err
	}
	is := d.get()
	if is.Shards == 0 {
		is.Shards = max(cfg.Shards, existing)
	}
	shards := max(is.Shards, is.Next)
	if most := max(shards, cfg.Shards); most > MaxShards {
		return fmt.Errorf("%d shards are more than the most, %d (--shards)", most, MaxShards)
	}
	like := jetstream.StreamConfig{
		Storage:    jetstream.FileStorage,
		Discard:    jetstream.DiscardNew,
		MaxBytes:   cfg.MaxBytes / int64(max(shards, cfg.Shards)),
		Replicas:   cfg.Replicas,
		Placement:  cfg.Placement,
		Duplicates: cfg.DedupWindow,
		DenyDelete: true, // AllowDirect is off: a follower that lags behind would say that a record is not there
	}
	open := &state{layout: is, until: time.Now().Add(w.dedup + settle)}
	for n := range shards {
		stream, err := w.openShard(ctx, shardConfig(like, n))
		if err != nil {
			return fmt.Errorf("stream %s of the WAL: %w", StreamName(n), explain(err))
		}
		open.streams = append(open.streams, stream)
	}
	w.state.Store(open)
	if d.get().Shards == 0 {
		// Who was quicker opens this WAL, too, and may have been asked for another number.
		if err := d.change(ctx, func(l *layout) { *l = is }); err != nil && !errors.Is(err, ErrLayoutChanged) {
			return err
		}
	}
	switch {
	case is.Shards > cfg.Shards:
		w.log.Warn("the WAL has more shards than --shards asks for; all of them are used", "shards", is.Shards, "asked", cfg.Shards)
	case is.Shards < cfg.Shards:
		w.log.Info("raising the number of shards", "from", is.Shards, "to", cfg.Shards, "takes", settle.String())
		if _, err := w.SetShards(ctx, cfg.Shards); err != nil && !errors.Is(err, ErrLayoutChanged) {
			return err
		}
	default:
		return nil
	}
	if err := d.load(ctx); err != nil {
		return err
	}
	return w.adopt(ctx, d.get())
}

// Attach opens the WAL that exists, as it is, for a tool: it creates and changes nothing. apiPrefix is that of Config. The
// caller keeps ownership of nc.
func Attach(ctx context.Context, nc *nats.Conn, apiPrefix string, log *slog.Logger) (*WAL, error) {
	w, shards, err := look(ctx, nc, apiPrefix, log)
	if err != nil {
		return nil, err
	}
	missing := func(err error, what string) error {
		if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
			return fmt.Errorf("no WAL of Logthra is at the NATS %s: it has no %s", nc.ConnectedUrlRedacted(), what)
		}
		return fmt.Errorf("NATS at %s: %s: %w", nc.ConnectedUrlRedacted(), what, explain(err))
	}
	open := new(state)
	for n := range max(shards, 1) {
		stream, err := w.js.Stream(ctx, StreamName(n))
		if err != nil {
			return nil, missing(err, "stream "+StreamName(n))
		}
		open.streams = append(open.streams, stream)
	}
	open.Shards = len(open.streams)
	w.state.Store(open)
	if w.letters, err = w.js.Stream(ctx, DeadLetterStream); err != nil {
		return nil, missing(err, "stream "+DeadLetterStream)
	}
	if w.kv, err = w.js.KeyValue(ctx, Bucket); err != nil {
		return nil, missing(err, "bucket "+Bucket)
	}
	return w, nil
}

// look returns a WAL that nothing has been opened of, and how many shards exist.
func look(ctx context.Context, nc *nats.Conn, apiPrefix string, log *slog.Logger) (w *WAL, shards int, err error) {
	js, err := jetstream.NewWithAPIPrefix(nc, cmp.Or(apiPrefix, jetstream.DefaultAPIPrefix), jetstream.WithDefaultTimeout(DefaultTimeout))
	if err != nil {
		return nil, 0, fmt.Errorf("JetStream: %w", err)
	}
	w = &WAL{nc: nc, js: js, log: log}
	if shards, err = w.countShards(ctx); err != nil {
		return nil, 0, fmt.Errorf("NATS at %s: listing the streams of the WAL: %w", nc.ConnectedUrlRedacted(), explain(err))
	}
	return w, shards, nil
}

// Ready returns an error that says what is wrong while JetStream can't be reached.
func (w *WAL) Ready(ctx context.Context) error {
	if !w.nc.IsConnected() {
		return fmt.Errorf("NATS: %s", strings.ToLower(w.nc.Status().String()))
	}
	if _, err := w.js.AccountInfo(ctx); err != nil {
		return fmt.Errorf("NATS: %w", explain(err))
	}
	return nil
}

// shardConfig is what the stream of a shard is configured with, like another one.
func shardConfig(like jetstream.StreamConfig, shard int) jetstream.StreamConfig {
	like.Name = StreamName(shard)
	like.Description = "Logthra's WAL, shard " + strconv.Itoa(shard)
	like.Subjects = []string{SubjectPrefix + "*." + strconv.Itoa(shard)}
	return like
}

// StreamName is the name of a shard's stream.
func StreamName(shard int) string { return StreamPrefix + strconv.Itoa(shard) }

// openShard creates the stream of a shard, or brings the one that is there to the configuration.
//
// A new stream counts from the microsecond of its creation, not from one: where a WAL was lost and made anew, its
// records then have other sequences than those of the former one, whose rows are still in ClickHouse. That holds
// below a million records a second and shard.
func (w *WAL) openShard(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	for {
		stream, err := w.js.Stream(ctx, cfg.Name)
		if err == nil {
			now := stream.CachedInfo()
			cfg.FirstSeq = now.Config.FirstSeq
			cfg.Replicas = max(cfg.Replicas, now.Config.Replicas)
			cfg.Placement = cmp.Or(cfg.Placement, now.Config.Placement)
			if held := int64(now.State.Bytes); cfg.MaxBytes < now.Config.MaxBytes { // what is there must not stop what comes
				cfg.MaxBytes = min(now.Config.MaxBytes, max(cfg.MaxBytes, held+held/4))
			}
			return w.js.UpdateStream(ctx, cfg)
		}
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, err
		}
		cfg.FirstSeq = uint64(time.Now().UnixMicro())
		stream, err = w.js.CreateStream(ctx, cfg)
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // by one who was quicker
			return stream, err
		}
	}
}

// existing looks at a stream; nil: there is none.
func (w *WAL) existing(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	stream, err := w.js.Stream(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return stream.CachedInfo(), nil
}

// countShards returns one more than the highest shard whose stream exists.
func (w *WAL) countShards(ctx context.Context) (int, error) {
	count := 0
	names := w.js.StreamNames(ctx)
	for name := range names.Name() {
		number, ok := strings.CutPrefix(name, StreamPrefix)
		if n, err := strconv.Atoi(number); ok && err == nil {
			count = max(count, n+1)
		}
	}
	return count, names.Err()
}

// Codes of JetStream's errors that the client has no names for.
const (
	errCodeWrongLastID     jetstream.ErrorCode = 10070
	errCodeStorageExceeded jetstream.ErrorCode = 10047 // of the account or the server
	errCodeStoreFailed     jetstream.ErrorCode = 10077 // most of all because the stream is full
	errCodeNoPeers         jetstream.ErrorCode = 10005
	errCodeNoReplicas      jetstream.ErrorCode = 10074

	errCodeMoveAndScale        jetstream.ErrorCode = 10123
	errCodeDuplicateInProcess  jetstream.ErrorCode = 10158 // a publish with the same id has not been answered yet
	errCodeClusterNotAvailable jetstream.ErrorCode = 10008
)

// explain adds what to do to errors of JetStream that don't say so.
func explain(err error) error {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case errCodeStorageExceeded:
			return fmt.Errorf("%w (raise max_file_store of that NATS, --max-store of logthra nats, or lower --wal-max-bytes)", err)
		case errCodeMoveAndScale:
			return fmt.Errorf("%w (change --replicas, and --placement-cluster and --placement-tags, one after the other)", err)
		case errCodeNoPeers, errCodeNoReplicas:
			return fmt.Errorf("%w (has that NATS as many servers as --replicas asks for, where --placement-cluster and --placement-tags want them, with room for --wal-max-bytes?)", err)
		}
	}
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w (is JetStream enabled on that server, and is the WAL there? A role makes it when it starts)", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("no answer in time: %w", err)
	}
	return err
}
