package engine

import (
	"slices"
	"strings"

	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/shared/logs"
)

// level is the level of a row of the table log as SQL: what pipeline.DetectLevel says, for every row, as if it had no label detected_level
// of its own. streams are all those whose rows the statement is about. Where their labels tell the level, lines and metadata are not read.
func (s *statement) level(streams map[uint64]*stream) string {
	var (
		ids    []uint64 // of streams that have a level
		levels []string
		labels pipeline.Labels
	)
	for id, of := range streams {
		if slices.ContainsFunc(of.labels, func(l logs.Label) bool { return slices.Contains(pipeline.LevelNames, l.Name) }) {
			labels.Reset(of.labels, nil)
			ids, levels = append(ids, id), append(levels, pipeline.DetectLevel(&labels, nil))
		}
	}
	if len(ids) == 0 {
		return levelOfEntry
	}
	ofStream := "transform(stream_id, " + s.ids(ids) + ", " + s.texts(levels) + ", '')"
	if len(ids) == len(streams) {
		return ofStream
	}
	return "multiIf(notEmpty(" + ofStream + "), " + ofStream + ", " + levelOfEntry + ")"
}

// levelOfEntry is the level of a row whose stream has none: that of its metadata, or else of its line.
var levelOfEntry = "multiIf(notEmpty(" + levelInMetadata + "), " + levelOfWord(levelInMetadata) + ", " + levelOfLine() + ")"

// levelInMetadata is the value of the first of pipeline.LevelNames that has one in the metadata, or empty.
var levelInMetadata = "if(empty(metadata), '', arrayFirst(value -> notEmpty(value), arrayMap(name -> " +
	"arrayFirst((value, key) -> key = name AND notEmpty(value), mapValues(metadata), mapKeys(metadata)), " + literals(pipeline.LevelNames) + ")))"

// levelOfWord is the level of a word in any case. ClickHouse's lower is that of ASCII.
func levelOfWord(word string) string {
	var words, levels []string
	for _, w := range pipeline.LevelWords {
		words, levels = append(words, w.Word), append(levels, w.Level)
	}
	return "transform(lower(" + word + "), " + literals(words) + ", " + literals(levels) + ", " + literal(pipeline.UnknownLevel) + ")"
}

// levelOfLine is the level that a line itself tells. The names of its fields are found faster than the regular expression.
func levelOfLine() string {
	const line = "lower(msg)"
	field := "if(multiSearchAny(" + line + ", ['lvl', 'level', 'severity']), extract(" + line + ", " + literal(pipeline.LevelExpression) + "), '')"
	cases := []string{"notEmpty(" + field + ")", levelOfWord(field)}
	for _, k := range pipeline.LevelKeywords {
		cases = append(cases, "match("+line+", "+literal(k.Expression)+")", literal(k.Level))
	}
	return "multiIf(" + strings.Join(cases, ", ") + ", " + literal(pipeline.UnknownLevel) + ")"
}

// literal is a constant of this program as SQL. What comes from outside is a parameter.
func literal(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}

func literals(texts []string) string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = literal(text)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
