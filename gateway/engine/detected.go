package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

const (
	defaultSample = 1000 // entries that are looked at for fields
	maxFields     = 1000 // that are told of; those of the newest entries go first
)

// Parsers, as an answer names them.
const (
	parserJSON    = "json"
	parserLogfmt  = "logfmt"
	parserRegexp  = "regexp"
	parserPattern = "pattern"
	parserUnpack  = "unpack"
)

// DetectedFields looks at the newest q.Limit entries of a log query (0: 1000) for metadata, for what the parsers of the query make of
// the lines, and if it has none, for what json would, or else logfmt. Sorted by name. A field has the type of all its values, and the type string where they have
// none in common; its cardinality is that of the sample.
func (e *Engine) DetectedFields(ctx context.Context, q Query, expr *logql.LogExpr) ([]DetectedField, error) {
	found := map[string]*field{}
	err := e.sample(ctx, q, expr, func(name, value, parser string, line []byte) {
		of := found[name]
		if of == nil {
			if len(found) == maxFields {
				return
			}
			of = &field{values: map[uint64]struct{}{}}
			found[name] = of
		}
		of.add(name, value, parser, line)
	})
	if err != nil {
		return nil, err
	}
	detected := []DetectedField{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		of := found[name]
		slices.Sort(of.parsers)
		detected = append(detected, DetectedField{name, of.kinds.String(), uint64(len(of.values)), of.parsers, of.path})
	}
	return detected, nil
}

// DetectedFieldValues are values of one field, sorted: at most limit, those of the newest entries.
func (e *Engine) DetectedFieldValues(ctx context.Context, q Query, expr *logql.LogExpr, field string, limit int) ([]string, error) {
	found := names{}
	err := e.sample(ctx, q, expr, func(name, value, _ string, _ []byte) {
		if name == field && value != "" && len(found) < limit {
			found[value] = struct{}{}
		}
	})
	return found.sorted(err)
}

// sample reads entries of a log query, newest first, and calls each for every label of them that their streams do not have, with its value,
// the parser that makes it (none of metadata), and the line.
func (e *Engine) sample(ctx context.Context, q Query, expr *logql.LogExpr, each func(name, value, parser string, line []byte)) error {
	q.Forward, q.WithLevel, q.Interval = false, true, 0
	if q.Limit <= 0 {
		q.Limit = defaultSample
	}
	found, err := e.Logs(ctx, q, expr)
	if err != nil {
		return err
	}
	parsers, err := newParsers(expr.Stages)
	if err != nil {
		return err
	}
	for i := range found.Entries {
		entry := &found.Entries[i]
		for _, l := range entry.Metadata {
			each(l.Name, l.Value, "", nil)
		}
		line := []byte(entry.Line)
		parsed, parser := parsers.parse(entry, line)
		for _, l := range parsed {
			if l.Name != pipeline.ErrorLabel && l.Name != pipeline.DetailsLabel {
				each(l.Name, l.Value, parser, line)
			}
		}
	}
	return nil
}

// parsers makes labels of lines where a query does not.
type parsers struct {
	ofQuery      []string // those that it has
	json, logfmt *pipeline.Pipeline
	labels       pipeline.Labels
	parsed       []logs.Label
}

func newParsers(stages []logql.Stage) (*parsers, error) {
	p := &parsers{}
	for _, stage := range stages {
		switch stage.(type) {
		case *logql.JSON:
			p.ofQuery = append(p.ofQuery, parserJSON)
		case *logql.Logfmt:
			p.ofQuery = append(p.ofQuery, parserLogfmt)
		case *logql.RegexpParser:
			p.ofQuery = append(p.ofQuery, parserRegexp)
		case *logql.PatternParser:
			p.ofQuery = append(p.ofQuery, parserPattern)
		case *logql.Unpack:
			p.ofQuery = append(p.ofQuery, parserUnpack)
		}
	}
	var err error
	if p.json, err = pipeline.New([]logql.Stage{&logql.JSON{}}); err != nil {
		return nil, err
	}
	p.logfmt, err = pipeline.New([]logql.Stage{&logql.Logfmt{}})
	return p, err
}

// parse returns the labels of an entry that come from its line, and the parser that makes them. They are good until the next call.
func (p *parsers) parse(entry *Entry, line []byte) ([]logs.Label, string) {
	isJSON := looksLikeJSON(line)
	if len(p.ofQuery) > 0 {
		return entry.Parsed, p.among(isJSON)
	}
	// What the query itself has made, by label_format, no parser has.
	p.parsed = p.parsed[:0]
	if isJSON && p.run(p.json, entry, line) {
		return p.parsed, parserJSON
	}
	if !isJSON && bytes.IndexByte(line, '=') > 0 {
		p.run(p.logfmt, entry, line)
	}
	return p.parsed, parserLogfmt
}

// run sets parsed to what a parser makes of the line, and reports whether it can read it.
func (p *parsers) run(parser *pipeline.Pipeline, entry *Entry, line []byte) bool {
	p.labels.Reset(entry.Stream, entry.Metadata)
	parser.Process(entry.Timestamp, line, &p.labels)
	if failed, _ := p.labels.Err(); failed != "" {
		return false
	}
	p.parsed = p.labels.AppendKind(p.parsed[:0], pipeline.Parsed)
	return true
}

// among is which parser of the query has made the labels of a line: of json and logfmt, the one that can read it; else the last.
func (p *parsers) among(isJSON bool) string {
	wanted := parserLogfmt
	if isJSON {
		wanted = parserJSON
	}
	if slices.Contains(p.ofQuery, wanted) {
		return wanted
	}
	return p.ofQuery[len(p.ofQuery)-1]
}

func looksLikeJSON(line []byte) bool {
	line = bytes.TrimSpace(line)
	return len(line) > 1 && line[0] == '{' && line[len(line)-1] == '}'
}

// field is what is known of one, while a sample is looked at.
type field struct {
	kinds   kinds
	values  map[uint64]struct{} // hashes of them
	parsers []string
	path    []string
	looked  int // for path, in how many lines
}

func (f *field) add(name, value, parser string, line []byte) {
	if value != "" {
		f.kinds |= kindOf(value)
		f.values[xxhash.Sum64String(value)] = struct{}{}
	}
	if parser == "" {
		return
	}
	if !slices.Contains(f.parsers, parser) {
		f.parsers = append(f.parsers, parser)
	}
	const enough = 10 // a label that the query itself names has a path of its own, which is not looked for
	if parser == parserJSON && f.path == nil && f.looked < enough {
		f.looked++
		f.path = jsonPath(line, name)
	}
}

// kinds is a set of types of values.
type kinds uint8

const (
	isInt kinds = 1 << iota
	isFloat
	isBoolean
	isDuration
	isBytes
	isString
)

// String is the type that all values of the set have.
func (k kinds) String() string {
	switch k {
	case isInt:
		return "int"
	case isFloat, isFloat | isInt:
		return "float"
	case isBoolean:
		return "boolean"
	case isDuration:
		return "duration"
	case isBytes:
		return "bytes"
	}
	return "string"
}

// kindOf is the type of a value: the first that it can be read as.
func kindOf(value string) kinds {
	first := value[0]
	if first != '-' && first != '+' && first != '.' && (first < '0' || first > '9') {
		if value == "true" || value == "false" {
			return isBoolean
		}
		return isString
	}
	if _, err := strconv.ParseInt(value, 10, 64); err == nil {
		return isInt
	}
	if _, err := strconv.ParseFloat(value, 64); err == nil {
		return isFloat
	}
	if _, err := time.ParseDuration(value); err == nil {
		return isDuration
	}
	if isSize(value) {
		return isBytes
	}
	return isString
}

// isSize tells whether a value is a number of bytes with its unit, such as 20MB, 1.5 KiB or 512B.
func isSize(value string) bool {
	unit := strings.TrimLeft(value, "0123456789.")
	if _, err := strconv.ParseFloat(value[:len(value)-len(unit)], 64); err != nil {
		return false
	}
	switch strings.ToLower(strings.TrimPrefix(unit, " ")) {
	case "b", "kb", "kib", "mb", "mib", "gb", "gib", "tb", "tib", "pb", "pib", "eb", "eib":
		return true
	}
	return false
}

// jsonPath is the keys that lead to the scalar of a line of JSON of which the parser json makes a label; nil if none does.
func jsonPath(line []byte, label string) []string {
	label = strings.TrimSuffix(label, "_extracted")
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	var path []string
	var walk func(token json.Token) bool // of a value that begins with token; true: path is found, or the line is no JSON
	walk = func(token json.Token) bool {
		if token != json.Delim('{') {
			return len(path) > 0 && pathLabel(path) == label
		}
		for decoder.More() {
			key, err := decoder.Token()
			if err != nil {
				path = nil
				return true
			}
			path = append(path, key.(string))
			value, err := decoder.Token()
			if err != nil {
				path = nil
				return true
			}
			if value == json.Delim('[') {
				err = skipArray(decoder)
			} else if walk(value) {
				return true
			}
			if err != nil {
				path = nil
				return true
			}
			path = path[:len(path)-1]
		}
		_, err := decoder.Token() // }
		return err != nil
	}
	token, err := decoder.Token()
	if err != nil || !walk(token) || len(path) == 0 {
		return nil
	}
	return path
}

// skipArray reads what is left of an array.
func skipArray(decoder *json.Decoder) error {
	for depth := 1; depth > 0; {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('['), json.Delim('{'):
			depth++
		case json.Delim(']'), json.Delim('}'):
			depth--
		}
	}
	return nil
}

// pathLabel is the name of the label that the parser json makes of a scalar.
func pathLabel(path []string) string {
	name := []byte(strings.Join(path, "_"))
	for i, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			name[i] = '_'
		}
	}
	if len(name) > 0 && name[0] >= '0' && name[0] <= '9' {
		return "_" + string(name)
	}
	return string(name)
}
