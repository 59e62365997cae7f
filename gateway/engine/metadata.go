package engine

import (
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// Scope is whose streams and which time a question about streams is about: streams that have entries at Start <= time < End.
type Scope struct {
	Tenant     string
	Limits     Limits
	Start, End int64           // unix nanoseconds
	Matchers   []logql.Matcher // nil: all streams
}

// IndexStats is how much there is.
type IndexStats struct{ Streams, Chunks, Bytes, Entries uint64 }

// VolumeQuery is how volumes are grouped.
type VolumeQuery struct {
	Scope

	Step         int64    // nanoseconds; 0: one value for all of the time
	Limit        int      // most groups: the largest
	TargetLabels []string // nil: the labels that Matchers name
	ByLabels     bool     // aggregateBy=labels: one group a label name
}

// Volume is the bytes of lines of a group at points in time.
type Volume struct {
	Labels []logs.Label
	Points []VolumePoint
}

// VolumePoint is the bytes of lines within Step before a point in time, in unix nanoseconds.
type VolumePoint struct {
	Time  int64
	Bytes uint64
}

// DetectedLabel is a label and how many values it has.
type DetectedLabel struct {
	Name        string
	Cardinality uint64
}

// DetectedField is what was found in a sample of lines.
type DetectedField struct {
	Label       string
	Type        string // string, int, float, boolean, duration, bytes
	Cardinality uint64
	Parsers     []string // json or logfmt; nil: metadata
	JSONPath    []string
}

// Pattern is what lines have in common, and how many there are.
type Pattern struct {
	Pattern string
	Level   string
	Samples []PatternSample
}

// PatternSample is the number of lines from a time on, in unix seconds, until the next step.
type PatternSample struct{ Time, Count int64 }
