// Package otlp decodes logs of OpenTelemetry, an ExportLogsServiceRequest as protobuf or as JSON, and writes its answers.
// https://opentelemetry.io/docs/specs/otlp/
//
// Both decoders give the same entries for the same request:
//
//   - The line is the body: a string or bytes as they are, numbers and booleans as text, an array or a map as JSON, in
//     which bytes are base64. A record without a body is an empty line.
//   - The timestamp is time_unix_nano, else observed_time_unix_nano, else now.
//   - Labels are the resource attributes of decode.IsLabel, if they are strings, integers or booleans, and not empty; of
//     two with the same name the first. The label level is that of severity_number, else of severity_text. A record
//     without any has decode.Unlabeled.
//   - All else is metadata: the other attributes of resource, scope and record under their own names, maps in them
//     flattened with dots, arrays as JSON and bytes as base64; and scope_name, scope_version, severity_number,
//     severity_text, event_name, trace_id, span_id, flags and dropped_attributes_count, if they are neither zero nor
//     empty; and observed_timestamp, in unix nanoseconds, if it is not the timestamp. What has no value is not there.
//
// A record is rejected, and counted in decode.Partial, if its line is too long, its time is outside of what logs.CheckTime
// allows, or its values or those of its resource or scope nest deeper than 32; and all records of a resource are if its
// labels are not UTF-8. Whatever else is wrong is an error for the whole push, a *decode.Error with the path of what is
// wrong, such as resourceLogs[0].scopeLogs[1].logRecords[7].body; then the batch is of no use.
package otlp

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/shared/logs"
)

const (
	// maxDepth is how deep the values of a record may nest.
	maxDepth = 32

	// maxShared is how many times the largest push the attributes of resources and scopes may take in a batch, where they
	// are repeated for every record.
	maxShared = 4

	// perValue is about what one value of metadata takes in a batch beside its bytes.
	perValue = 8
)

// Names of metadata and labels.
const (
	nameScope    = "scope_name"
	nameVersion  = "scope_version"
	nameSeverity = "severity_number"
	nameText     = "severity_text"
	nameEvent    = "event_name"
	nameTrace    = "trace_id"
	nameSpan     = "span_id"
	nameFlags    = "flags"
	nameDropped  = "dropped_attributes_count"
	nameObserved = "observed_timestamp"
	labelLevel   = "level"
)

// fields are what becomes metadata of a resource, a scope or a record: its attributes, flattened, and more.
type fields struct {
	text []byte // names and values, back to back
	list []field
	path []byte // names of the maps around what is read, each with a dot behind it
	size int    // of the values, about as they are in a batch

	deep bool // there is a value that nests too deep
	over bool // there are more than can be metadata

	from, mid int // of the field that is being written
}

// field is a name, text[from:mid], and its value, text[mid:to].
type field struct {
	from, mid, to int
	plain         bool // a string, an integer or a boolean
	label         bool
}

// reset empties s for the next resource, scope or record of the push.
func (s *fields) reset() {
	s.text, s.list, s.path = s.text[:0], s.list[:0], s.path[:0]
	s.size, s.deep, s.over = 0, false, false
}

// begin begins a field; what is appended to text until end is its value.
func (s *fields) begin(name []byte) {
	s.from = len(s.text)
	s.text = append(s.text, s.path...)
	s.text = append(s.text, name...)
	s.mid = len(s.text)
}

func (s *fields) end(plain bool) {
	if len(s.list) == decode.MaxMetadataNames {
		s.over = true
		s.text = s.text[:s.from]
		return
	}
	s.size += len(s.text) - s.mid + perValue
	s.list = append(s.list, field{from: s.from, mid: s.mid, to: len(s.text), plain: plain})
}

// enter goes into a map. It returns false if its fields can't be metadata of their own.
func (s *fields) enter(name []byte) bool {
	if len(s.path)+len(name) >= decode.MaxPath {
		return false
	}
	s.path = append(append(s.path, name...), '.')
	return true
}

// leave goes out of the map whose name enter was given, size bytes long.
func (s *fields) leave(size int) { s.path = s.path[:len(s.path)-size-1] }

// add adds a text that is not empty.
func (s *fields) add(name string, value []byte) {
	if len(value) > 0 {
		s.begin([]byte(name))
		s.text = append(s.text, value...)
		s.end(false)
	}
}

// addNumber adds a number that is not zero.
func (s *fields) addNumber(name string, n int64) {
	if n != 0 {
		s.begin([]byte(name))
		s.text = strconv.AppendInt(s.text, n, 10)
		s.end(false)
	}
}

func (s *fields) name(f *field) []byte  { return s.text[f.from:f.mid] }
func (s *fields) value(f *field) []byte { return s.text[f.mid:f.to] }

// mapper makes entries of records. A decoder reads a resource into resource, a scope into scope and a record into record,
// its body into the batch's Lines, and then calls resourceRead and recordRead. All that is reset at the beginning of the
// next.
type mapper struct {
	batch   *logs.Batch
	now     int64 // unix nanoseconds
	lim     decode.Limits
	partial decode.Partial
	shared  int // size of what the entries of the push have of their resources and scopes

	place

	resource, scope fields
	record          record

	given     []int               // of the resource's fields, those that are labels; no name is twice among them
	wire      []byte              // labels of the resource, each name and value behind its length
	wireLen   int                 // of the labels in wire, without the level
	canonical [len(levels)]string // labels by level; empty until they are needed
	refused   string              // why the labels of the resource can't be

	// Kept from one push to the next.
	labels []logs.Label
	cache  decode.LabelCache
}

// record is what a record has that is not simply metadata.
type record struct {
	fields
	time, observed uint64 // unix nanoseconds; 0 is none
	severity       int32
	textLevel      string // level of the severity's text
}

// levels are the values of the label level; the first is none.
var levels = [...]string{"", "trace", "debug", "info", "warn", "error", "fatal"}

func (m *mapper) begin(b *logs.Batch, now int64, lim decode.Limits) {
	m.batch, m.now, m.lim, m.partial, m.shared, m.place = b, now, lim, decode.Partial{}, 0, place{}
}

// release lets go of what was the push's.
func (m *mapper) release() {
	m.batch, m.partial = nil, decode.Partial{}
	m.beginResource()
	for _, s := range []*fields{&m.resource, &m.scope, &m.record.fields} {
		s.reset()
		s.text = decode.KeepScratch(s.text)
	}
	m.wire = decode.KeepScratch(m.wire)
	clear(m.labels[:cap(m.labels)])
}

func (m *mapper) beginResource() {
	m.resource.reset()
	m.resourceRead()
}

// resourceRead finds the labels among the fields of the resource.
func (m *mapper) resourceRead() {
	m.given, m.wire, m.refused = m.given[:0], m.wire[:0], ""
	clear(m.canonical[:])
	list := m.resource.list
	for i := range list {
		f := &list[i]
		name := m.resource.name(f)
		if !f.plain || f.mid == f.to || !decode.IsLabel(name) || m.isGiven(name) {
			continue
		}
		f.label = true
		m.given = append(m.given, i)
		m.wire = append(binary.AppendUvarint(m.wire, uint64(len(name))), name...)
		m.wire = append(binary.AppendUvarint(m.wire, uint64(f.to-f.mid)), m.resource.value(f)...)
	}
	m.wireLen = len(m.wire)
}

// isGiven tells whether a label has the name already.
func (m *mapper) isGiven(name []byte) bool {
	for _, i := range m.given {
		if string(m.resource.name(&m.resource.list[i])) == string(name) {
			return true
		}
	}
	return false
}

// streamLabels are the canonical labels of the record; empty if they are refused.
func (m *mapper) streamLabels() string {
	level := decode.LevelOfNumber(int64(m.record.severity))
	if level == "" {
		level = m.record.textLevel
	}
	i := 0
	for levels[i] != level {
		i++
	}
	if m.canonical[i] == "" && m.refused == "" {
		m.canonical[i] = m.canonicalLabels(level)
	}
	return m.canonical[i]
}

// canonicalLabels are the canonical labels of the resource with a level; empty, with refused set, if there can't be any.
func (m *mapper) canonicalLabels(level string) string {
	if m.wireLen == 0 && level == "" {
		return decode.Unlabeled
	}
	m.wire = append(m.wire[:m.wireLen], level...)
	if canonical, ok := m.cache.Get(m.wire); ok {
		return canonical
	}
	m.labels = m.labels[:0]
	for _, i := range m.given {
		f := &m.resource.list[i]
		m.labels = append(m.labels, logs.Label{Name: decode.LabelName(m.resource.name(f)), Value: string(m.resource.value(f))})
	}
	m.labels = append(m.labels, logs.Label{Name: labelLevel, Value: level})
	canonical, err := logs.Canonical(m.labels)
	if err != nil {
		m.refused = err.Error()
		return ""
	}
	m.cache.Put(m.wire, canonical)
	return canonical
}

func (m *mapper) beginRecord() {
	m.record.reset()
	m.record.time, m.record.observed, m.record.severity, m.record.textLevel = 0, 0, 0, ""
}

// severityText takes the record's severity as text.
func (m *mapper) severityText(text []byte) {
	m.record.textLevel = decode.Level(text)
	m.record.add(nameText, text)
}

// recordRead makes an entry of the record, whose body is the end of the batch's Lines; or rejects it, and leaves nothing of
// it in the batch.
func (m *mapper) recordRead() error {
	b, r := m.batch, &m.record
	r.addNumber(nameSeverity, int64(r.severity))
	if r.time != 0 && r.observed != 0 && r.time != r.observed {
		r.begin([]byte(nameObserved))
		r.text = strconv.AppendUint(r.text, r.observed, 10)
		r.end(false)
	}
	if m.resource.over || m.scope.over || r.over {
		return m.fail(fmt.Sprintf("the record has more than %d attributes", decode.MaxMetadataNames))
	}

	ns := r.time
	if ns == 0 {
		ns = r.observed
	}
	ts, own := int64(ns), ns != 0
	if !own {
		ts = m.now
	}
	labels := m.streamLabels()
	switch size := b.Pending(); {
	case m.resource.deep || m.scope.deep || r.deep:
		m.reject(func() string { return fmt.Sprintf("a value nests deeper than %d", maxDepth) })
		return nil
	case labels == "":
		m.reject(func() string { return m.refused })
		return nil
	case own && ns > uint64(logs.MaxTime):
		m.reject(func() string { return fmt.Sprintf("timestamp %d is after 2262-04-11", ns) })
		return nil
	case size > m.lim.MaxLineBytes:
		m.reject(func() string { return decode.LineTooLong(size, m.lim.MaxLineBytes) })
		return nil
	}

	if m.shared += m.resource.size + m.scope.size; m.shared > maxShared*m.lim.MaxPushBytes {
		return m.fail(fmt.Sprintf("the attributes of resources and scopes, repeated for each record, are more than %d bytes", maxShared*m.lim.MaxPushBytes))
	}
	if n := len(b.Streams); n == 0 || b.Streams[n-1].Labels != labels {
		b.AddStream(labels)
	}
	b.EndEntry(ts, own)
	m.addMetadata(&m.resource)
	m.addMetadata(&m.scope)
	m.addMetadata(&r.fields)
	if len(b.Metadata) > decode.MaxMetadataNames {
		return m.fail(decode.ErrTooManyNames.Error())
	}
	return nil
}

// addMetadata gives the entry that ended last all fields that are no labels.
func (m *mapper) addMetadata(s *fields) {
	for i := range s.list {
		if f := &s.list[i]; !f.label {
			m.batch.AddMetadata(s.name(f), s.value(f))
		}
	}
}

// reject leaves the record out. Of all reasons only the first is told.
func (m *mapper) reject(reason func() string) {
	m.batch.Lines = m.batch.Lines[:len(m.batch.Lines)-m.batch.Pending()]
	if m.partial.Rejected++; m.partial.Rejected == 1 {
		m.member = ""
		m.partial.Reason = m.path() + ": " + reason()
	}
}

// fail is the error for what is wrong here.
func (m *mapper) fail(reason string) error { return &decode.Error{Where: m.path(), Reason: reason} }

// place is where in a push a decoder is.
type place struct {
	index  [3]int // of the resource, of the scope in it, of the record in that
	depth  int    // how many of them are being read
	member string // what of the last of them; empty for it as a whole
}

// at goes to a member of the element at a depth.
func (p *place) at(depth int, member string) { p.depth, p.member = depth, member }

func (p *place) path() string {
	var parts []string
	for i, name := range []string{"resourceLogs", "scopeLogs", "logRecords"}[:p.depth] {
		parts = append(parts, fmt.Sprintf("%s[%d]", name, p.index[i]))
	}
	if p.member != "" {
		parts = append(parts, p.member)
	}
	return strings.Join(parts, ".")
}
