// Package engine answers queries: it plans what ClickHouse does and what is left to do here, and brings both together with what
// is not in ClickHouse yet.
package engine

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

// Limits bound one query. Zero of each means no bound, but for those that say otherwise.
type Limits struct {
	Timeout   time.Duration // 0: a minute
	MaxSeries int           // of a metric query; 0: 500
	MaxBytes  int64         // most bytes that ClickHouse may read, uncompressed
	MaxMemory int64         // most bytes of memory, in ClickHouse and here each; 0: 1 GiB
}

// Defaults of Limits.
const (
	DefaultTimeout   = time.Minute
	DefaultMaxSeries = 500
	DefaultMaxMemory = 1 << 30
)

func (l Limits) withDefaults() Limits {
	l.Timeout = cmp.Or(l.Timeout, DefaultTimeout)
	l.MaxSeries = cmp.Or(l.MaxSeries, DefaultMaxSeries)
	l.MaxMemory = cmp.Or(l.MaxMemory, DefaultMaxMemory)
	return l
}

// size is a number of bytes as people read it.
func size(bytes int64) string { return humanize.IBytes(uint64(bytes)) }

// Query is who asks, and for which time.
type Query struct {
	Tenant     string
	Limits     Limits
	Start, End int64 // unix nanoseconds. Of entries: Start <= time < End. Of a metric query: the first and the last point; an instant query has one
	Step       int64 // nanoseconds between points of a metric query; 0: an instant query
	Limit      int   // most entries; at least 1
	Forward    bool  // oldest entries first; else newest first
	Interval   int64 // least nanoseconds between entries of a stream that are returned; 0: all
	WithLevel  bool  // entries of a log query have the metadata detected_level, whether the query names it or not
}

// Entry is one entry of an answer, as the pipeline leaves it. Labels are sorted by name.
type Entry struct {
	Timestamp                int64
	Line                     string
	Stream, Metadata, Parsed []logs.Label

	shard    uint16
	sequence uint64
	index    uint32
}

// position is the place of the entry in the order of entries.
func (e *Entry) position() series.Position {
	return series.Position{Time: e.Timestamp, Shard: e.shard, Sequence: e.sequence, Index: e.index}
}

// entryBytes and labelBytes are what an entry and a label take of memory beside their texts.
const (
	entryBytes = 160
	labelBytes = 32
)

// size is about how many bytes of memory the entry takes.
func (e *Entry) size() int64 {
	n := entryBytes + len(e.Line)
	for _, labels := range [][]logs.Label{e.Stream, e.Metadata, e.Parsed} {
		for _, l := range labels {
			n += labelBytes + len(l.Name) + len(l.Value)
		}
	}
	return int64(n)
}

// Logs is the answer to a log query.
type Logs struct {
	Entries  []Entry // in the order that was asked for
	Stats    Stats
	Warnings []string
}

// Metric is the answer to a metric query.
type Metric struct {
	series.Value

	Stats    Stats
	Warnings []string
}

// Stats is what a query took.
type Stats struct {
	Took      time.Duration
	Queued    time.Duration
	Rows      uint64 // read by ClickHouse
	Bytes     uint64 // read by ClickHouse, uncompressed
	Unflushed uint64 // entries that were not in ClickHouse yet
	Lines     uint64 // that went through a pipeline here
	Returned  uint64 // entries, or points
}

// Config is what an Engine works with.
type Config struct {
	Store *store.Store
	Cut   *cut.Cutter
	WAL   *wal.WAL // that tails follow
	Log   *slog.Logger
}

// Engine answers queries. It is safe for concurrent use.
type Engine struct {
	cfg  Config
	hubs hubs

	asked func(*statement) // for tests: told of every statement
}

// New returns an Engine.
func New(cfg Config) *Engine { return &Engine{cfg: cfg} }

// Error is a query that is not answered through a fault of its own: it asks for what is not possible, or for too much. Reason says what
// to change.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }
