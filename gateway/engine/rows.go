package engine

import (
	"slices"
	"strings"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/shared/logs"
)

// rows is a block of entries of the table, by column.
type rows struct {
	stream      proto.ColUInt64
	time        proto.ColInt64
	line        proto.ColStr
	names       proto.ColArr[string]
	values      proto.ColArr[string]
	shard       proto.ColUInt16
	sequence    proto.ColUInt64
	index       proto.ColUInt32
	name, value *proto.ColStr
	known       map[string]string // names of metadata: there are few
	metadata    []logs.Label      // of the entry that metadataOf was asked for last
}

func newRows() *rows {
	r := &rows{name: new(proto.ColStr), value: new(proto.ColStr), known: map[string]string{}}
	r.names, r.values = *proto.NewArray(r.name), *proto.NewArray(r.value)
	return r
}

// rowColumns are the expressions of rows.
var rowColumns = []string{
	"stream_id", "toUnixTimestamp64Nano(timestamp) AS time", "msg",
	"CAST(mapKeys(metadata), 'Array(String)') AS names", "mapValues(metadata) AS values",
	"wal_shard", "wal_seq", "wal_index",
}

// rowOrder is the order of entries, each column of which may be followed by DESC.
var rowOrder = []string{"timestamp", "wal_shard", "wal_seq", "wal_index"}

func (r *rows) result() proto.Results {
	return proto.Results{
		{Name: "stream_id", Data: &r.stream}, {Name: "time", Data: &r.time}, {Name: "msg", Data: &r.line},
		{Name: "names", Data: &r.names}, {Name: "values", Data: &r.values},
		{Name: "wal_shard", Data: &r.shard}, {Name: "wal_seq", Data: &r.sequence}, {Name: "wal_index", Data: &r.index},
	}
}

// at is the position of an entry.
func (r *rows) at(i int) series.Position {
	return series.Position{Time: r.time[i], Shard: r.shard[i], Sequence: r.sequence[i], Index: r.index[i]}
}

// metadataOf is the metadata of an entry, sorted by name, good until the next call.
func (r *rows) metadataOf(i int) []logs.Label {
	first, end := 0, int(r.names.Offsets[i])
	if i > 0 {
		first = int(r.names.Offsets[i-1])
	}
	r.metadata = r.metadata[:0]
	for k := first; k < end; k++ {
		bytes := r.name.RowBytes(k)
		name, ok := r.known[string(bytes)]
		if !ok {
			name = string(bytes)
			if len(r.known) < maxKnownNames {
				r.known[name] = name
			}
		}
		r.metadata = append(r.metadata, logs.Label{Name: name, Value: r.value.Row(k)})
	}
	if len(r.metadata) > 1 {
		slices.SortStableFunc(r.metadata, func(a, b logs.Label) int { return strings.Compare(a.Name, b.Name) })
	}
	return r.metadata
}

// maxKnownNames bounds how many names of metadata are kept while a query runs.
const maxKnownNames = 10_000
