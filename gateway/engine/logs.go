package engine

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/engine/series"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// A log query cuts its time in slices that grow from the end where entries are wanted first, so that few entries of a long time don't
// take reading all of it.
const (
	firstSlice  = int64(15 * time.Minute)
	sliceGrowth = 8
)

// Logs answers a log query.
func (e *Engine) Logs(ctx context.Context, q Query, expr *logql.LogExpr) (*Logs, error) {
	began := time.Now()
	q.Limits = q.Limits.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, q.Limits.Timeout)
	defer cancel()
	l, err := e.newLogQuery(q, expr)
	if err != nil {
		return nil, err
	}
	if err := l.run(ctx); err != nil {
		return nil, err
	}
	l.answer.Stats.Took = time.Since(began)
	l.answer.Stats.Returned = uint64(len(l.answer.Entries))
	return &l.answer, nil
}

// logQuery is a log query that is being answered.
type logQuery struct {
	e      *Engine
	q      Query
	expr   *logql.LogExpr
	lines  *liner
	answer Logs

	cut     *cut.Cut
	streams map[uint64]*stream
	top     top
	held    int64            // bytes of the entries of the answer
	last    map[string]int64 // with an interval: the time of the last entry of each set of labels
}

func (e *Engine) newLogQuery(q Query, expr *logql.LogExpr) (*logQuery, error) {
	l := &logQuery{e: e, q: q, expr: expr, last: map[string]int64{}}
	l.top.forward = q.Forward
	var err error
	if l.lines, err = newLiner(expr.Stages, q.WithLevel, &l.answer.Stats); err != nil {
		return nil, err
	}
	return l, nil
}

// makeCut makes the cut of a query.
func (e *Engine) makeCut(ctx context.Context, s Scope, r cut.Request, stages []logql.Stage, stats *Stats) (*cut.Cut, error) {
	r.Tenant, r.Matchers, r.Start, r.End = s.Tenant, s.Matchers, s.Start, s.End
	r.Contains, r.MaxBytes = contains(stages), s.Limits.MaxMemory
	c, err := e.cfg.Cut.Cut(ctx, r)
	if tooLarge, ok := errors.AsType[*cut.TooLargeError](err); ok {
		return nil, &Error{tooLarge.Error()}
	}
	if err != nil {
		return nil, err
	}
	stats.Unflushed += uint64(len(c.Entries))
	return c, nil
}

// cutLimit is of how many entries a cut is made at least: few of them may be left of the pipeline.
const cutLimit = 1000

// run makes cuts, from the near end on, until there are enough entries. Where little is not in ClickHouse yet, the first is of all the time.
func (l *logQuery) run(ctx context.Context) error {
	for start, end := l.q.Start, l.q.End; start < end && len(l.answer.Entries) < l.q.Limit; {
		limit := max(l.q.Limit-len(l.answer.Entries), cutLimit)
		if err := l.prepare(ctx, start, end, cut.Request{Limit: limit, Forward: l.q.Forward}); err != nil {
			return err
		}
		if err := l.slices(ctx, l.cut.Start, l.cut.End); err != nil {
			return err
		}
		if l.q.Forward {
			start = l.cut.End
		} else {
			end = l.cut.Start
		}
	}
	return nil
}

// prepare makes a cut, and looks for the streams that have entries in its time.
func (l *logQuery) prepare(ctx context.Context, start, end int64, request cut.Request) (err error) {
	scope := Scope{Tenant: l.q.Tenant, Limits: l.q.Limits, Start: start, End: end, Matchers: l.expr.Matchers}
	if l.cut, err = l.e.makeCut(ctx, scope, request, l.expr.Stages, &l.answer.Stats); err != nil {
		return err
	}
	for _, warning := range l.cut.Warnings {
		if !slices.Contains(l.answer.Warnings, warning) {
			l.answer.Warnings = append(l.answer.Warnings, warning)
		}
	}
	scope.Start, scope.End = l.cut.Start, l.cut.End
	l.streams, err = l.e.streams(ctx, scope, l.cut, &l.answer.Stats)
	return err
}

// slices reads slice after slice of the time that the cut is of, until there are enough entries.
func (l *logQuery) slices(ctx context.Context, start, end int64) error {
	if len(l.streams) == 0 {
		return nil
	}
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for _, of := range l.streams {
		first, last = min(first, of.first), max(last, of.last)
	}
	start, end = max(start, first), min(end, last+1)
	for width := firstSlice; start < end && len(l.answer.Entries) < l.q.Limit; width *= sliceGrowth {
		from, to := start, end
		if width > 0 && width < end-start { // beyond all times, it is negative
			if l.q.Forward {
				to = start + width
			} else {
				from = end - width
			}
			from, to = l.round(from, to, width)
			from, to = max(from, start), min(to, end)
		}
		if err := l.slice(ctx, from, to); err != nil {
			return err
		}
		if l.q.Forward {
			start = to
		} else {
			end = from
		}
	}
	return nil
}

// round moves the far end of a slice of an hour and more to a whole hour, further away: rows stand by hour, and those of one would be read twice.
func (l *logQuery) round(from, to, width int64) (int64, int64) {
	const hour = int64(time.Hour)
	switch {
	case width < hour:
		return from, to
	case l.q.Forward:
		return from, to + (hour-(to%hour+hour)%hour)%hour
	}
	return from - (from%hour+hour)%hour, to
}

// slice adds to the answer the entries at from <= time < to, as many as are still wanted.
func (l *logQuery) slice(ctx context.Context, from, to int64) error {
	l.top.limit = l.q.Limit - len(l.answer.Entries)
	if l.q.Interval > 0 { // which of them are wanted is known only once they are in order
		l.top.limit = math.MaxInt
	}
	for i := range l.cut.Entries {
		entry := &l.cut.Entries[i]
		if entry.Timestamp >= from && entry.Timestamp < to {
			at := positionOf(entry)
			if _, err := l.offer(at, l.streams[logs.StreamID(l.q.Tenant, entry.Labels)], entry.Line, entry.Metadata); err != nil {
				return err
			}
		}
	}
	if err := l.table(ctx, from, to); err != nil {
		return err
	}
	for _, entry := range l.top.take() {
		if len(l.answer.Entries) == l.q.Limit {
			break
		}
		if l.q.Interval <= 0 || l.isDue(&entry) {
			l.answer.Entries = append(l.answer.Entries, entry)
		}
	}
	return nil
}

func positionOf(entry *cut.Entry) series.Position {
	return series.Position{Time: entry.Timestamp, Shard: entry.Shard, Sequence: entry.Sequence, Index: entry.Index}
}

// isDue tells whether an entry is far enough from the one of its labels before it.
func (l *logQuery) isDue(entry *Entry) bool {
	key := fmt.Sprint(entry.Stream, entry.Metadata, entry.Parsed)
	last, ok := l.last[key]
	if ok && max(entry.Timestamp-last, last-entry.Timestamp) < l.q.Interval {
		return false
	}
	l.last[key] = entry.Timestamp
	return true
}

// table reads rows: of those that ClickHouse keeps, or is not certain about, no more than are wanted. That may be too few, if the pipeline does
// not keep some of them. Then all that it is not certain about are read, and of the others once more as many as are wanted.
func (l *logQuery) table(ctx context.Context, from, to int64) error {
	s := l.e.rowsOf(l.q.Tenant, l.streams, l.cut, from, to)
	if s == nil {
		return nil
	}
	f := newSift(s, l.streams, l.expr.Stages, false)
	if !f.exact || l.q.Interval > 0 {
		s.and(f.all()...)
		_, _, err := l.read(ctx, s)
		return err
	}
	all := s.clone()
	all.and(f.all()...)
	all.tail = l.firsts()
	before, held := slices.Clone(l.top.entries), l.held
	rows, kept, err := l.read(ctx, all)
	if err != nil || kept == rows || rows < l.top.limit {
		return err
	}
	l.top.entries, l.held = before, held
	rest := s.clone()
	rest.and(f.rest()...)
	if _, _, err := l.read(ctx, rest); err != nil {
		return err
	}
	s.and(f.certain()...)
	s.tail = l.firsts()
	_, _, err = l.read(ctx, s)
	return err
}

// firsts ends a statement that reads as many rows as are wanted, in order.
func (l *logQuery) firsts() string {
	order := " DESC"
	if l.q.Forward {
		order = ""
	}
	return " ORDER BY " + strings.Join(rowOrder, order+", ") + order + fmt.Sprintf(" LIMIT %d", l.top.limit)
}

// read sends rows through the pipeline, and tells how many there were, and how many of them it kept or were not wanted any more.
func (l *logQuery) read(ctx context.Context, s *statement) (rows, kept int, err error) {
	block := newRows()
	s.columns = rowColumns
	err = l.e.read(ctx, s, l.q.Limits, &l.answer.Stats, block.result(), func(n int) error {
		rows += n
		for i := range n {
			isKept, err := l.offer(block.at(i), l.streams[block.stream[i]], block.line.RowBytes(i), block.metadataOf(i))
			if err != nil {
				return err
			}
			if isKept {
				kept++
			}
		}
		return nil
	})
	return rows, kept, err
}

// offer sends an entry through the pipeline, if it would be one of the first, and tells whether it was kept, or would not be one.
func (l *logQuery) offer(at series.Position, of *stream, line []byte, metadata []logs.Label) (kept bool, err error) {
	if of == nil || !l.top.wants(at) {
		return true, nil
	}
	line, keep := l.lines.process(at.Time, line, of.labels, metadata)
	if !keep {
		return false, nil
	}
	labels := &l.lines.labels
	entry := Entry{
		Timestamp: at.Time, Line: string(line), shard: at.Shard, sequence: at.Sequence, index: at.Index,
		Stream: labels.AppendKind(nil, pipeline.Stream), Metadata: labels.AppendKind(nil, pipeline.Metadata), Parsed: labels.AppendKind(nil, pipeline.Parsed),
	}
	l.held += entry.size() - l.top.add(entry)
	if l.held > l.q.Limits.MaxMemory {
		return false, &Error{fmt.Sprintf("the entries of the answer take more than %s of memory (--query-max-memory); ask for fewer of them, or a shorter time", size(l.q.Limits.MaxMemory))}
	}
	return true, nil
}

// liner sends entries through a pipeline.
type liner struct {
	pipeline  *pipeline.Pipeline
	labels    pipeline.Labels
	withLevel bool
	stats     *Stats
}

func newLiner(stages []logql.Stage, withLevel bool, stats *Stats) (*liner, error) {
	p, err := pipeline.New(stages)
	if err != nil {
		return nil, &Error{err.Error()}
	}
	return &liner{pipeline: p, withLevel: withLevel || pipeline.NeedsLevel(stages), stats: stats}, nil
}

// process sends an entry through the pipeline. Its labels are in l.labels then.
func (l *liner) process(timestamp int64, line []byte, stream, metadata []logs.Label) ([]byte, bool) {
	l.stats.Lines++
	l.labels.Reset(stream, metadata)
	if l.withLevel {
		l.labels.SetLevel(line)
	}
	return l.pipeline.Process(timestamp, line, &l.labels)
}

// top is the first entries of those that are offered, in the order of a query. It is a heap whose top is the last of them.
type top struct {
	forward bool
	limit   int
	entries []Entry
}

// wants tells whether an entry at this position is one of the first so far.
func (t *top) wants(at series.Position) bool {
	return len(t.entries) < t.limit || t.before(at, t.entries[0].position())
}

// add adds an entry that is wanted, and returns the size of the one that had to go for it.
func (t *top) add(entry Entry) (gone int64) {
	if len(t.entries) < t.limit {
		heap.Push(t, entry)
		return 0
	}
	gone = t.entries[0].size()
	t.entries[0] = entry
	heap.Fix(t, 0)
	return gone
}

// take takes all entries out, in order.
func (t *top) take() []Entry {
	entries := t.entries
	t.entries = nil
	slices.SortFunc(entries, func(a, b Entry) int {
		if t.before(a.position(), b.position()) {
			return -1
		}
		return 1
	})
	return entries
}

func (t *top) before(a, b series.Position) bool {
	return (a.Compare(b) < 0) == t.forward && a != b
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (t *top) Len() int           { return len(t.entries) }
func (t *top) Less(i, j int) bool { return t.before(t.entries[j].position(), t.entries[i].position()) }
func (t *top) Swap(i, j int)      { t.entries[i], t.entries[j] = t.entries[j], t.entries[i] }
func (t *top) Push(x any)         { t.entries = append(t.entries, x.(Entry)) }
func (t *top) Pop() any           { panic("nothing is popped") }
