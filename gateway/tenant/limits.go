package tenant

import "time"

// Limits are what a tenant may push. Of every limit 0 is none.
type Limits struct {
	PushBytesPerSecond int64   // bytes of pushes, decompressed, over all gateways
	PushBytesBurst     int64   // bytes that may come at once; 0: what may come in a second
	PushesPerSecond    float64 // pushes, over all gateways
	PushesBurst        float64 // pushes that may come at once; 0: what may come in a second

	MaxLinesPerPush    int   // entries of one push
	MaxLineBytes       int64 // bytes of a line, within those of --max-line-bytes
	MaxLabels          int   // labels of a stream
	MaxLabelNameBytes  int   // bytes of a label's name
	MaxLabelValueBytes int   // bytes of a label's value
	MaxStreams         int   // streams that are active, on each gateway

	MaxAge      time.Duration // how far behind now a timestamp may be
	MaxFuture   time.Duration // how far ahead of now
	OutOfWindow Window        // what becomes of a timestamp that is further away
}

// Window is what becomes of an entry whose timestamp is too old, or too far in the future.
type Window uint8

// What may become of it.
const (
	Off    Window = iota // it is taken as it is
	Reject               // it is refused
	Clamp                // its time is moved to the edge, and the one it had is kept as metadata
)

// QueryLimits are what a tenant may ask. Of MaxEntries, MaxRange and MaxBytes 0 is none; all others are at least 1.
type QueryLimits struct {
	Timeout     time.Duration // of a query, the wait for its turn included
	MaxEntries  int           // of an answer to a log query
	MaxRange    time.Duration // from the first to the last time that a query looks at
	MaxSeries   int           // of a metric query
	MaxBytes    int64         // that ClickHouse may read for a query, uncompressed
	MaxMemory   int64         // bytes that a query may take, in ClickHouse and on the gateway each
	Concurrency int           // queries that run at a time, on each gateway
	MaxTails    int           // that are open, on each gateway
}
