package engine

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// stream is one that the matchers of a query hold for.
type stream struct {
	id          uint64
	canonical   string
	labels      []logs.Label
	first, last int64 // times of its first and last entry, in unix nanoseconds
}

// maxStreams is the most streams that one query may be about.
const maxStreams = 200_000

// streams are those that have entries at Start <= time < End, and that the matchers hold for: those that ClickHouse knows and those of
// the cut, which was made before.
func (e *Engine) streams(ctx context.Context, s Scope, c *cut.Cut, stats *Stats) (map[uint64]*stream, error) {
	selector, err := pipeline.NewSelector(s.Matchers)
	if err != nil {
		return nil, err
	}
	found := map[uint64]*stream{}
	if err := e.tableStreams(ctx, s, selector, stats, found); err != nil {
		return nil, err
	}
	for i := range c.Entries {
		if err := see(found, s.Tenant, &c.Entries[i]); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// see adds the stream of an entry that is not in ClickHouse yet.
func see(found map[uint64]*stream, tenant string, entry *cut.Entry) error {
	id := logs.StreamID(tenant, entry.Labels)
	known := found[id]
	if known == nil {
		labels, err := logs.ParseLabels(entry.Labels)
		if err != nil {
			return err
		}
		known = &stream{id: id, canonical: entry.Labels, labels: labels, first: entry.Timestamp, last: entry.Timestamp}
		found[id] = known
	}
	known.first, known.last = min(known.first, entry.Timestamp), max(known.last, entry.Timestamp)
	return nil
}

func (e *Engine) tableStreams(ctx context.Context, s Scope, selector *pipeline.Selector, stats *Stats, found map[uint64]*stream) error {
	q := e.from(tableStream, s.Tenant)
	q.columns = []string{
		"stream_id", "toString(any(stream)) AS canonical",
		"min(toUnixTimestamp64Nano(first_seen)) AS first", "max(toUnixTimestamp64Nano(last_seen)) AS last",
	}
	for _, m := range s.Matchers {
		if m.Op == logql.Equal && m.Value != "" { // the others, and once more these, are looked at here
			q.and("JSONExtractString(stream, " + q.text(m.Name) + ") = " + q.text(m.Value))
		}
	}
	q.tail = " GROUP BY stream_id HAVING first < " + q.number(s.End) + " AND last >= " + q.number(s.Start)
	var (
		id          proto.ColUInt64
		labels      proto.ColStr
		first, last proto.ColInt64
	)
	return e.read(ctx, q, s.Limits, stats, proto.Results{
		{Name: "stream_id", Data: &id}, {Name: "canonical", Data: &labels}, {Name: "first", Data: &first}, {Name: "last", Data: &last},
	}, func(rows int) error {
		for i := range rows {
			of := &stream{id: id[i], canonical: labels.Row(i), first: first[i], last: last[i]}
			var err error
			if of.labels, err = logs.ParseLabels(of.canonical); err != nil {
				return fmt.Errorf("stream %d: %w", of.id, err)
			}
			if !selector.Matches(of.labels) {
				continue
			}
			if found[of.id] = of; len(found) > maxStreams {
				return &Error{fmt.Sprintf("the selector matches more than %d streams; narrow it by more matchers, or a shorter time", maxStreams)}
			}
		}
		return nil
	})
}
