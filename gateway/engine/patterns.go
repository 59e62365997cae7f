package engine

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/gateway/engine/patterns"
	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// How many lines are looked at for patterns: all of them up to patternSample, and of more than that the newest of so many slices of the time.
const (
	patternSample = 20_000
	patternSlices = 20
	patternBytes  = 64 << 20 // about how many bytes of lines of a slice, at most
	patternSteps  = 100      // of a query without a step
	maxPatterns   = 500      // in an answer
)

// Patterns groups lines by what they have in common, and by their level; the most frequent first. Steps are multiples of q.Step, in whole seconds (0: about
// a hundredth of the time). Up to 20,000 lines are all looked at, and counts are exact. Of more, the newest 1,000 of each of 20 slices of the time
// are, and what they tell of the slice is scaled to the lines of each of its steps, which are counted. Only where the query has
// stages that ClickHouse can't count by, counts are those of the sample. The lines that a pattern was made of all match it as |> does.
func (e *Engine) Patterns(ctx context.Context, q Query, expr *logql.LogExpr) ([]Pattern, error) {
	q.Limits = q.Limits.withDefaults()
	q.WithLevel, q.Forward, q.Interval = true, false, 0
	ctx, cancel := context.WithTimeout(ctx, q.Limits.Timeout)
	defer cancel()
	if q.Start >= q.End {
		return nil, nil
	}
	if err := checkSpan(q.Start, q.End); err != nil {
		return nil, err
	}
	l, err := e.newLogQuery(q, expr)
	if err != nil {
		return nil, err
	}
	if err := l.prepare(ctx, q.Start, q.End, cut.Request{OmitLines: len(expr.Stages) == 0}); err != nil { // to count; lines are read by slices
		return nil, err
	}
	p := newPatternCount(q)
	if p.all, err = l.count(ctx, p); err != nil {
		return nil, err
	}
	for _, slice := range p.slices() {
		l.q.Start, l.q.End = max(q.Start, p.at(slice.first)), min(q.End, p.at(slice.end))
		if l.q.Limit = p.wanted(slice); l.q.Limit == 0 {
			continue
		}
		l.answer.Entries, l.held = nil, 0
		if err := l.run(ctx); err != nil {
			return nil, err
		}
		p.add(slice, l.answer.Entries)
	}
	return p.patterns(), nil
}

// lines is how many there are, and their bytes.
type lines struct{ count, bytes int64 }

// count counts the lines of a query by step; nil: only the pipeline can tell which count.
func (l *logQuery) count(ctx context.Context, p *patternCount) ([]lines, error) {
	all := make([]lines, p.steps)
	s := l.e.rowsOf(l.q.Tenant, l.streams, l.cut, l.q.Start, l.q.End)
	if s != nil {
		f := newSift(s, l.streams, l.expr.Stages, false)
		if f.rest() != nil {
			return nil, nil
		}
		s.and(f.certain()...)
		var step, count, bytes proto.ColInt64
		s.columns = []string{
			"intDiv(toUnixTimestamp64Nano(timestamp) - " + s.number(p.base) + ", " + s.number(p.step) + ") AS step",
			"toInt64(count()) AS count", "toInt64(sum(length(msg))) AS bytes",
		}
		s.tail = " GROUP BY step"
		err := l.e.read(ctx, s, l.q.Limits, &l.answer.Stats, proto.Results{
			{Name: "step", Data: &step}, {Name: "count", Data: &count}, {Name: "bytes", Data: &bytes},
		}, func(rows int) error {
			for i := range rows {
				all[step[i]] = lines{count[i], bytes[i]}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range l.cut.Entries {
		entry := &l.cut.Entries[i]
		if of := l.streams[logs.StreamID(l.q.Tenant, entry.Labels)]; of != nil {
			if _, keep := l.lines.process(entry.Timestamp, entry.Line, of.labels, entry.Metadata); keep {
				step := p.stepOf(entry.Timestamp)
				all[step].count++
				all[step].bytes += int64(entry.Length)
			}
		}
	}
	return all, nil
}

// patternCount counts lines by pattern and step.
type patternCount struct {
	base, step int64 // of the first step, and its width, in nanoseconds
	steps      int
	all        []lines // by step; nil: unknown

	miner *patterns.Miner
	mined []mined // by the number of the cluster
}

// mined is how many lines of a cluster there are.
type mined struct {
	level  string
	counts map[int]float64 // by step
}

func newPatternCount(q Query) *patternCount {
	const second = int64(time.Second)
	step := cmp.Or(q.Step, (q.End-q.Start)/patternSteps)
	step = max(second, (step+second-1)/second*second)
	p := &patternCount{step: step, miner: patterns.NewMiner()}
	p.base = q.Start - (q.Start%step+step)%step
	p.steps = p.stepOf(q.End-1) + 1
	return p
}

func (p *patternCount) at(step int) int64     { return p.base + int64(step)*p.step }
func (p *patternCount) stepOf(time int64) int { return int((time - p.base) / p.step) }

// steps is some that follow one another.
type steps struct{ first, end int }

// slices are the slices of the time that are looked at one after another.
func (p *patternCount) slices() []steps {
	n := min(patternSlices, p.steps)
	slices := make([]steps, n)
	for i := range slices {
		slices[i] = steps{p.steps * i / n, p.steps * (i + 1) / n}
	}
	return slices
}

// wanted is how many lines of a slice are to be looked at.
func (p *patternCount) wanted(slice steps) int {
	most := int64(patternSample / patternSlices)
	if p.all == nil {
		return int(most)
	}
	in := totalOf(p.all[slice.first:slice.end])
	if totalOf(p.all).count <= patternSample {
		most = in.count
	}
	return int(min(in.count, max(1, min(most, patternBytes*in.count/max(1, in.bytes)))))
}

func totalOf(all []lines) (total lines) {
	for _, l := range all {
		total.count += l.count
		total.bytes += l.bytes
	}
	return total
}

// add adds the lines of a slice that are looked at.
func (p *patternCount) add(slice steps, sample []Entry) {
	inSlice := map[int]int64{} // the lines of each cluster
	isWhole := p.all == nil || int64(len(sample)) >= totalOf(p.all[slice.first:slice.end]).count
	for i := range sample {
		level := valueOf(sample[i].Metadata, pipeline.LevelLabel)
		number := p.miner.Add(level, []byte(sample[i].Line))
		if number < 0 {
			continue
		}
		if number == len(p.mined) {
			p.mined = append(p.mined, mined{level, map[int]float64{}})
		}
		inSlice[number]++
		if isWhole {
			p.mined[number].counts[p.stepOf(sample[i].Timestamp)]++
		}
	}
	if isWhole {
		return
	}
	for number, n := range inSlice {
		for step := slice.first; step < slice.end; step++ {
			if in := p.all[step].count; in > 0 {
				p.mined[number].counts[step] += float64(n) * float64(in) / float64(len(sample))
			}
		}
	}
}

// patterns are those that were found. Clusters whose patterns are the same are one.
func (p *patternCount) patterns() []Pattern {
	type key struct{ pattern, level string }
	merged := map[key]map[int]float64{}
	for number, of := range p.mined {
		k := key{p.miner.Pattern(number), of.level}
		if k.pattern == "" || k.pattern == patterns.Wildcard { // says nothing
			continue
		}
		if merged[k] == nil {
			merged[k] = of.counts
			continue
		}
		for step, n := range of.counts {
			merged[k][step] += n
		}
	}
	totals := map[key]int64{}
	all := make([]Pattern, 0, len(merged))
	for k, counts := range merged {
		of := Pattern{Pattern: k.pattern, Level: k.level}
		for _, step := range slices.Sorted(maps.Keys(counts)) {
			if n := int64(math.Round(counts[step])); n > 0 {
				of.Samples = append(of.Samples, PatternSample{p.at(step) / int64(time.Second), n})
				totals[k] += n
			}
		}
		if totals[k] > 0 {
			all = append(all, of)
		}
	}
	slices.SortFunc(all, func(a, b Pattern) int {
		return cmp.Or(cmp.Compare(totals[key{b.Pattern, b.Level}], totals[key{a.Pattern, a.Level}]), cmp.Compare(a.Pattern, b.Pattern), cmp.Compare(a.Level, b.Level))
	})
	return all[:min(len(all), maxPatterns)]
}
