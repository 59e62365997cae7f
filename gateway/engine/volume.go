package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/casteloig/logthra/shared/logs"
)

// IndexStats counts streams, and their entries and bytes. Entries are counted exactly, each once, and bytes are those of their lines, without
// metadata. Chunks are the pieces that a stream lies in: one an hour that it has entries in, and one of what is not in ClickHouse yet.
func (e *Engine) IndexStats(ctx context.Context, s Scope) (IndexStats, error) {
	var found IndexStats
	s.Limits = s.Limits.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, s.Limits.Timeout)
	defer cancel()
	stats := &Stats{}
	c, err := e.unflushed(ctx, s)
	if err != nil {
		return found, err
	}
	streams, err := e.streams(ctx, s, c, stats)
	if err != nil {
		return found, err
	}
	fresh, seen := map[string]struct{}{}, map[uint64]struct{}{}
	for i := range c.Entries {
		entry := &c.Entries[i]
		if _, ok := fresh[entry.Labels]; !ok {
			fresh[entry.Labels] = struct{}{}
			seen[logs.StreamID(s.Tenant, entry.Labels)] = struct{}{}
		}
		found.Entries++
		found.Bytes += uint64(entry.Length)
	}
	found.Chunks = uint64(len(fresh))
	if q := e.rowsOf(s.Tenant, streams, c, s.Start, s.End); q != nil {
		var id, entries, bytes, hours proto.ColUInt64
		q.columns = []string{"stream_id", "count() AS entries", "sum(length(msg)) AS bytes", "uniqExact(toStartOfHour(timestamp)) AS hours"}
		q.tail = " GROUP BY stream_id"
		err = e.read(ctx, q, s.Limits, stats, proto.Results{
			{Name: "stream_id", Data: &id}, {Name: "entries", Data: &entries}, {Name: "bytes", Data: &bytes}, {Name: "hours", Data: &hours},
		}, func(rows int) error {
			for i := range rows {
				seen[id[i]] = struct{}{}
				found.Entries += entries[i]
				found.Bytes += bytes[i]
				found.Chunks += hours[i]
			}
			return nil
		})
	}
	found.Streams = uint64(len(seen))
	return found, err
}

// Volumes are computed for so many streams and steps at a time, and the sums of all groups and steps are at most so many.
const (
	volumeCells = 1_000_000
	maxVolumes  = 16_000_000
)

// Volume tells which streams have how many bytes, the largest first: of lines, without metadata, each once. Streams that have none of the labels that are
// grouped by are left out. Without such labels, neither in TargetLabels nor in Matchers, streams are grouped by all of theirs.
func (e *Engine) Volume(ctx context.Context, q VolumeQuery) ([]Volume, error) {
	q.Limits = q.Limits.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, q.Limits.Timeout)
	defer cancel()
	if q.Start >= q.End {
		return nil, nil
	}
	if err := checkSpan(q.Start, q.End); err != nil {
		return nil, err
	}
	if q.Step <= 0 {
		q.Step = q.End - q.Start
	}
	v := &volumes{VolumeQuery: q, steps: int((q.End-q.Start-1)/q.Step) + 1, of: map[uint64][]*volume{}, groups: map[string]*volume{}}
	stats := &Stats{}
	c, err := e.unflushed(ctx, q.Scope)
	if err != nil {
		return nil, err
	}
	streams, err := e.streams(ctx, q.Scope, c, stats)
	if err != nil {
		return nil, err
	}
	if err := v.group(streams); err != nil {
		return nil, err
	}
	for i := range c.Entries {
		entry := &c.Entries[i]
		v.add(logs.StreamID(q.Tenant, entry.Labels), (entry.Timestamp-q.Start)/q.Step, uint64(entry.Length))
	}
	width := q.Step * int64(max(1, volumeCells/max(1, len(v.of))))
	if width/q.Step > int64(v.steps) || width < 0 {
		width = q.End - q.Start
	}
	for from := q.Start; from < q.End; from += width {
		s := e.rowsOf(q.Tenant, streams, c, from, min(q.End, from+width))
		if s == nil {
			continue
		}
		var id, bytes proto.ColUInt64
		var step proto.ColInt64
		s.columns = []string{
			"stream_id", "intDiv(toUnixTimestamp64Nano(timestamp) - " + s.number(q.Start) + ", " + s.number(q.Step) + ") AS step", "sum(length(msg)) AS bytes",
		}
		s.tail = " GROUP BY stream_id, step"
		err := e.read(ctx, s, q.Limits, stats, proto.Results{
			{Name: "stream_id", Data: &id}, {Name: "step", Data: &step}, {Name: "bytes", Data: &bytes},
		}, func(rows int) error {
			for i := range rows {
				v.add(id[i], step[i], bytes[i])
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return v.largest(), nil
}

// volumes adds up the bytes of streams by group and step.
type volumes struct {
	VolumeQuery

	steps  int
	groups map[string]*volume
	of     map[uint64][]*volume // the groups of a stream; with ByLabels one a label
}

// volume is the bytes of a group.
type volume struct {
	labels []logs.Label
	total  uint64
	bytes  []uint64 // by step
}

// group finds the groups of streams.
func (v *volumes) group(streams map[uint64]*stream) error {
	wanted := map[string]bool{}
	for _, name := range v.TargetLabels {
		wanted[name] = true
	}
	if len(v.TargetLabels) == 0 {
		for _, m := range v.Matchers {
			wanted[m.Name] = true
		}
	}
	for id, of := range streams {
		if (len(v.groups)+1)*v.steps > maxVolumes {
			return &Error{fmt.Sprintf("there would be more than %d values; ask for a larger step, a shorter time, or fewer labels to group by", maxVolumes)}
		}
		var key []byte
		var labels []logs.Label
		for _, l := range of.labels {
			if len(wanted) > 0 && !wanted[l.Name] {
				continue
			}
			if v.ByLabels {
				v.of[id] = append(v.of[id], v.named([]byte(l.Name), []logs.Label{{Name: l.Name}}))
				continue
			}
			labels = append(labels, l)
			key = fmt.Appendf(key, "%q%q", l.Name, l.Value)
		}
		if len(labels) > 0 {
			v.of[id] = append(v.of[id], v.named(key, labels))
		}
	}
	return nil
}

// checkSpan refuses times that are further apart than nanoseconds can be counted.
func checkSpan(start, end int64) error {
	if end-start < 0 {
		return &Error{"the time is longer than 292 years; ask for a shorter one"}
	}
	return nil
}

// named is the group of a key.
func (v *volumes) named(key []byte, labels []logs.Label) *volume {
	group := v.groups[string(key)]
	if group == nil {
		group = &volume{labels: labels, bytes: make([]uint64, v.steps)}
		v.groups[string(key)] = group
	}
	return group
}

func (v *volumes) add(id uint64, step int64, bytes uint64) {
	for _, group := range v.of[id] {
		group.bytes[step] += bytes
		group.total += bytes
	}
}

// largest are the largest groups.
func (v *volumes) largest() []Volume {
	groups := slices.SortedFunc(maps.Values(v.groups), func(a, b *volume) int {
		return cmp.Or(cmp.Compare(b.total, a.total), compareLabels(a.labels, b.labels))
	})
	var found []Volume
	for _, group := range groups {
		if group.total == 0 || v.Limit > 0 && len(found) == v.Limit {
			break
		}
		of := Volume{Labels: group.labels}
		for step, bytes := range group.bytes {
			if bytes > 0 {
				of.Points = append(of.Points, VolumePoint{Time: min(v.Start+int64(step+1)*v.Step, v.End), Bytes: bytes})
			}
		}
		found = append(found, of)
	}
	return found
}
