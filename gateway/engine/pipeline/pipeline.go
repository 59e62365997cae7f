// Package pipeline executes the stages of a LogQL query on entries, one by one: line filters, parsers, label filters, formats. It is
// the reference for what a stage means: whatever else executes one has to come to the same result.
package pipeline

import (
	"fmt"

	"github.com/casteloig/logthra/gateway/logql"
)

// The values of ErrorLabel.
const (
	JSONParserErr       = "JSONParserErr"
	LogfmtParserErr     = "LogfmtParserErr"
	LabelFilterErr      = "LabelFilterErr"
	TemplateFormatErr   = "TemplateFormatErr"
	SampleExtractionErr = "SampleExtractionErr"
)

// Pipeline is the stages of a query, ready to run. It keeps memory between entries, so it is not safe for concurrent use.
type Pipeline struct {
	stages     []stage
	used       names // by the stages
	need       needs // of the parsers
	needsLevel bool
	entry      entry
}

// entry is what goes through the stages.
type entry struct {
	timestamp int64
	line      []byte
	labels    *Labels
}

// stage is a step of a pipeline. It tells whether the entry is kept.
type stage interface{ process(e *entry) bool }

// New compiles stages. An error says which of them can't be compiled, and why.
func New(stages []logql.Stage) (*Pipeline, error) {
	p := &Pipeline{need: needs{all: true}, needsLevel: NeedsLevel(stages)}
	for _, s := range stages {
		compiled, err := p.compile(s)
		if err != nil {
			return nil, fmt.Errorf("stage '%s': %w", s, err)
		}
		p.stages = append(p.stages, compiled)
	}
	p.used.ofStages(stages)
	return p, nil
}

func (p *Pipeline) compile(s logql.Stage) (stage, error) {
	switch s := s.(type) {
	case *logql.LineFilter:
		return newLineFilter(s)
	case *logql.JSON:
		if len(s.Labels) > 0 {
			return newJSONPaths(s.Labels)
		}
		return &jsonParser{scanner: jsonScanner{need: &p.need}}, nil
	case *logql.Logfmt:
		return newLogfmtParser(s, &p.need), nil
	case *logql.RegexpParser:
		return newRegexpParser(s.Expression)
	case *logql.PatternParser:
		return newPatternParser(s.Pattern)
	case *logql.Unpack:
		return &unpacker{}, nil
	case *logql.LabelFilter:
		return newLabelFilter(s.Predicate)
	case *logql.LineFormat:
		return newLineFormat(s.Template)
	case *logql.LabelFormat:
		return newLabelFormat(s.Labels)
	case *logql.Decolorize:
		return &decolorizer{}, nil
	case *logql.Drop:
		labels, err := newLabelMatches(s.Labels)
		return &dropper{labels}, err
	case *logql.Keep:
		labels, err := newLabelMatches(s.Labels)
		return &keeper{labels}, err
	}
	return nil, fmt.Errorf("a stage of type %T is not known", s)
}

// Need says which labels are looked at after Process, beside those that the stages use themselves; nil: all, which is the default. Parsers
// then leave out what nobody looks at. Whether a line is kept, how it looks, and its errors do not change by that.
func (p *Pipeline) Need(labels []string) {
	if labels == nil {
		p.need = needs{all: true}
		return
	}
	p.need = p.used.with(labels)
}

// Process sends an entry through the stages: its time in unix nanoseconds, its line, and its labels, which the stages change. It
// returns the line as the stages leave it, and whether the entry is kept. The line that is returned is good until the next call, and
// so are the labels: line must not change until then.
// A stage that fails keeps the entry, and sets the labels __error__ and __error_details__.
func (p *Pipeline) Process(timestamp int64, line []byte, labels *Labels) (out []byte, keep bool) {
	if p.needsLevel {
		labels.SetLevel(line)
	}
	e := &p.entry
	*e = entry{timestamp: timestamp, line: line, labels: labels}
	for _, s := range p.stages {
		if !s.process(e) {
			return nil, false
		}
	}
	return e.line, true
}
