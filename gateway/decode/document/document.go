// Package document turns one JSON object, as Elasticsearch, Splunk and most shippers call an event a document,
// into one entry of a logs.Batch: one of its fields is the line, one the timestamp, a few are labels, and the
// rest is metadata.
package document

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/jsontext"
	"github.com/casteloig/logthra/shared/logs"
)

// What a Mapping may use where nobody says which fields are what: the names that shippers and log libraries have.
var (
	DefaultMessage = []string{"message", "msg", "_msg", "log", "body"}
	DefaultTime    = []string{elasticTime, "timestamp", "_time", "time", "ts"}
)

// elasticTime is the one name that means nothing else.
const elasticTime = "@timestamp"

// Mapping tells which fields of a document are what. A name is a path: "log.level" is the field of that name, and
// the field level of an object log. What is null, an object or an array is not there.
type Mapping struct {
	Message []string     // the first that is there is the line
	Time    []string     // the first that is there, and is not an empty string, is the timestamp
	Guess   bool         // the names of Time are guesses: a field of theirs that is no time, @timestamp apart, is none
	Streams []string     // fields that are labels, beside those of decode.IsLabel
	Labels  []logs.Label // labels of every entry; they go before fields of the same name
}

// Parser makes entries of documents. It may be kept for any number of them, one at a time; the zero value is
// ready.
type Parser struct {
	reader  jsontext.Reader
	mapping *Mapping

	// The document.
	path   []byte // names of the objects around what is read, each with a dot behind it
	text   []byte // names and values of the fields, back to back
	fields []field
	// What was found so far.
	message, time, level choice
	levelText            string

	// Kept from one document to the next.
	key        []byte       // labels, each name and value behind its length: what cache knows them by
	given      []string     // names of the labels in key
	labels     []logs.Label // of a document whose labels are not in cache
	labelNames map[string]string
	cache      decode.LabelCache
	names      map[string]int // of the metadata in the batch, in its order; empty until there are nearly too many
}

// field is one that is neither null nor an object.
type field struct {
	from, mid, to int  // name is text[from:mid], value text[mid:to]
	kind          byte // first byte of the value in the document
	used          bool // it is the line, the timestamp or a label, and so not metadata
}

// choice is the best of the fields that could be one thing.
type choice struct {
	rank  int // in the list of names; less is better
	field int // index in fields, or -1
}

// offer takes a field if its name is in the list, before that of the one that was taken.
func (c *choice) offer(names []string, name []byte, field int) {
	for rank, n := range names[:c.rank] {
		if n == string(name) {
			*c = choice{rank, field}
			return
		}
	}
}

// Reset ends a batch: what Append is called with next may be another one. A Parser that goes back to a pool has
// to be reset.
func (p *Parser) Reset() {
	p.reader.Reset(nil)
	p.mapping = nil
	p.path, p.text, p.key = decode.KeepScratch(p.path), decode.KeepScratch(p.text), decode.KeepScratch(p.key)
	clear(p.labels[:cap(p.labels)])
	clear(p.given[:cap(p.given)])
	p.names = nil
	if len(p.labelNames) > decode.MaxLabels {
		p.labelNames = nil
	}
}

// Append appends doc to b as one entry. Nested fields become flat: {"log":{"level":"info"}} has a field log.level.
//
//   - The line is the text of the message field: a string as it is, a number or a boolean as JSON. Without one it
//     is the document as it came, without the white space around it, and the entry has no metadata.
//   - The timestamp is read by ParseTime; an entry without gets now, in unix nanoseconds.
//   - The label level is one of trace, debug, info, warn, error and fatal: of the first of level, severity,
//     log.level, severity_text, levelname and lvl that decode.Level knows, or that is a level of pino, 10 to 60.
//     Such a field is metadata as well, unless its text is the label's.
//   - Fields that are labels are strings, numbers and booleans that are not empty; of two with the same name the
//     first. An entry without a label gets decode.Unlabeled.
//   - All other fields are metadata, an array as its JSON. null and an empty object give nothing.
//
// Objects nest at most 64 deep, and so does what is in an array. A document has at most 10,000 fields. The error
// is a *decode.Error, with "offset N" in bytes from the beginning of doc or the name of a field for a place, and
// b is as it was before. Nothing of doc is kept.
func (p *Parser) Append(b *logs.Batch, doc []byte, m *Mapping, now int64, lim decode.Limits) error {
	p.mapping = m
	p.reader.Reset(doc)
	p.path, p.text, p.fields = p.path[:0], p.text[:0], p.fields[:0]
	p.message, p.time, p.level = choice{len(m.Message), -1}, choice{len(m.Time), -1}, choice{len(decode.LevelFields), -1}
	if p.reader.Peek() != '{' {
		return p.reader.Mismatch("", "an object")
	}
	start := p.reader.Pos
	if err := p.object(0); err != nil {
		return err
	}
	line := doc[start:p.reader.Pos]
	if err := p.reader.End(); err != nil {
		return err
	}

	where := ""
	if p.message.field >= 0 {
		f := &p.fields[p.message.field]
		f.used = true
		where, line = m.Message[p.message.rank], p.value(f)
	}
	if len(line) > lim.MaxLineBytes {
		return &decode.Error{Where: where, Reason: decode.LineTooLong(len(line), lim.MaxLineBytes)}
	}
	ts, own := now, false
	if p.time.field >= 0 {
		f := &p.fields[p.time.field]
		f.used = true
		var err error
		if ts, err = ParseTime(p.value(f)); err != nil {
			return &decode.Error{Where: m.Time[p.time.rank], Reason: err.Error()}
		}
		own = true
	}
	labels, err := p.canonical()
	if err != nil {
		return &decode.Error{Reason: err.Error()}
	}
	if p.message.field < 0 {
		p.fields = p.fields[:0]
	} else if p.fields = slices.DeleteFunc(p.fields, func(f field) bool { return f.used }); !p.namesFit(b) {
		return &decode.Error{Reason: decode.ErrTooManyNames.Error()}
	}

	if n := len(b.Streams); n == 0 || b.Streams[n-1].Labels != labels {
		b.AddStream(labels)
	}
	b.Lines = append(b.Lines, line...)
	b.EndEntry(ts, own)
	for i := range p.fields {
		f := &p.fields[i]
		b.AddMetadata(p.name(f), p.value(f))
	}
	return nil
}

// isTime tells whether ParseTime reads it.
func isTime(text []byte) bool {
	_, err := parseTime(text)
	return err == nil
}

func (p *Parser) name(f *field) []byte  { return p.text[f.from:f.mid] }
func (p *Parser) value(f *field) []byte { return p.text[f.mid:f.to] }

// object reads an object into fields. depth is how many are around it.
func (p *Parser) object(depth int) error {
	if depth == jsontext.MaxDepth {
		return &decode.Error{Where: fmt.Sprintf("offset %d", p.reader.Pos), Reason: fmt.Sprintf("nested deeper than %d", jsontext.MaxDepth)}
	}
	p.reader.Pos++
	for first := true; ; first = false {
		key, more, err := p.reader.Member(first)
		if err != nil || !more {
			return err
		}
		kind := p.reader.Peek()
		switch path := len(p.path); {
		case kind == 'n':
			err = p.reader.Literal("null")
		case kind == '{' && path+len(key) < decode.MaxPath:
			p.path = append(append(p.path, key...), '.')
			err = p.object(depth + 1)
			p.path = p.path[:path]
		default:
			err = p.field(key, kind)
		}
		if err != nil {
			return err
		}
	}
}

// field reads the value of a field that has one of its own, and looks at what it could be.
func (p *Parser) field(key []byte, kind byte) error {
	if len(p.fields) == decode.MaxMetadataNames {
		return &decode.Error{Reason: fmt.Sprintf("the document has more than %d fields", decode.MaxMetadataNames)}
	}
	f := field{from: len(p.text), kind: kind}
	p.text = append(append(p.text, p.path...), key...)
	f.mid = len(p.text)
	if kind == '"' {
		text, err := p.reader.AppendString(p.text)
		if err != nil {
			return err
		}
		p.text = text
	} else {
		raw, err := p.reader.Raw()
		if err != nil {
			return err
		}
		p.text = append(p.text, raw...)
	}
	f.to = len(p.text)
	i := len(p.fields)
	p.fields = append(p.fields, f)
	if !f.scalar() {
		return nil
	}

	name, value := p.name(&f), p.value(&f)
	p.message.offer(p.mapping.Message, name, i)
	if len(value) > 0 && (!p.mapping.Guess || string(name) == elasticTime || isTime(value)) {
		p.time.offer(p.mapping.Time, name, i)
	}
	level := p.level
	level.offer(decode.LevelFields, name, i)
	if level.field == i {
		if text := levelOf(level.rank, kind, value); text != "" {
			p.level, p.levelText = level, text
		}
	}
	return nil
}

// scalar tells whether the value is a string, a number or a boolean.
func (f *field) scalar() bool { return f.kind != '[' && f.kind != '{' }

// levelOf is the level that a field of decode.LevelFields stands for, or "".
func levelOf(rank int, kind byte, value []byte) string {
	if kind != '"' && decode.LevelFields[rank] == decode.LevelField {
		// https://getpino.io/#/docs/api?id=level-string
		switch string(value) {
		case "10":
			return "trace"
		case "20":
			return "debug"
		case "30":
			return "info"
		case "40":
			return "warn"
		case "50":
			return "error"
		case "60":
			return "fatal"
		}
	}
	return decode.Level(value)
}

// canonical is the canonical form of the document's labels. It marks the fields that they are.
func (p *Parser) canonical() (string, error) {
	p.key, p.given = p.key[:0], p.given[:0]
	for _, l := range p.mapping.Labels {
		if l.Value != "" {
			give(p, l.Name, l.Value)
		}
	}
	if p.level.field >= 0 && give(p, decode.LevelField, p.levelText) {
		f := &p.fields[p.level.field]
		f.used = f.used || string(p.value(f)) == p.levelText
	}
	for i := range p.fields {
		f := &p.fields[i]
		if f.used || !f.scalar() || f.mid == f.to {
			continue
		}
		name := p.name(f)
		if decode.IsLabel(name) || slices.ContainsFunc(p.mapping.Streams, func(s string) bool { return s == string(name) }) {
			f.used = give(p, p.labelName(name), p.value(f))
		}
	}
	switch {
	case len(p.given) == 0:
		return decode.Unlabeled, nil
	case len(p.given) > decode.MaxLabels:
		return "", decode.ErrTooManyLabels
	}
	if canonical, ok := p.cache.Get(p.key); ok {
		return canonical, nil
	}

	text := string(p.key)
	next := func() string {
		size, n := binary.Uvarint([]byte(text[:min(len(text), binary.MaxVarintLen64)]))
		one := text[n : n+int(size)]
		text = text[n+int(size):]
		return one
	}
	p.labels = p.labels[:0]
	for range p.given {
		p.labels = append(p.labels, logs.Label{Name: next(), Value: next()})
	}
	canonical, err := logs.Canonical(p.labels)
	if err != nil {
		return "", err
	}
	p.cache.Put(p.key, canonical)
	return canonical, nil
}

// give adds a label to key. It returns false if there is one of that name.
func give[S string | []byte](p *Parser, name string, value S) bool {
	if slices.Contains(p.given, name) {
		return false
	}
	p.given = append(p.given, name)
	p.key = append(binary.AppendUvarint(p.key, uint64(len(name))), name...)
	p.key = append(binary.AppendUvarint(p.key, uint64(len(value))), value...)
	return true
}

// labelName is decode.LabelName, remembered.
func (p *Parser) labelName(field []byte) string {
	name, ok := p.labelNames[string(field)]
	if !ok {
		if p.labelNames == nil {
			p.labelNames = make(map[string]string)
		}
		name = decode.LabelName(field)
		p.labelNames[string(field)] = name
	}
	return name
}

// namesFit tells whether the batch has room for the names of the fields.
func (p *Parser) namesFit(b *logs.Batch) bool {
	if len(b.Metadata)+len(p.fields) <= decode.MaxMetadataNames {
		return true
	}
	if p.names == nil {
		p.names = make(map[string]int)
	}
	for _, c := range b.Metadata[len(p.names):] {
		p.names[c.Name] = len(p.names)
	}
	for i := range p.fields {
		name := p.name(&p.fields[i])
		if _, ok := p.names[string(name)]; !ok {
			p.names[string(name)] = len(p.names)
		}
	}
	if len(p.names) <= decode.MaxMetadataNames {
		return true
	}
	for i := range p.fields {
		name := p.name(&p.fields[i])
		if p.names[string(name)] >= len(b.Metadata) {
			delete(p.names, string(name))
		}
	}
	return false
}
