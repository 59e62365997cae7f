package pipeline

import (
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/casteloig/logthra/shared/logs"
)

// Kind is where a label of an entry comes from.
type Kind uint8

// Where labels come from.
const (
	Stream   Kind = iota // of the stream
	Metadata             // of the entry
	Parsed               // of the line, or of a stage that set or renamed it
)

// Labels with a meaning of their own.
const (
	ErrorLabel   = "__error__"
	DetailsLabel = "__error_details__"
	// LevelLabel is metadata that every entry has without its being stored: its level, from its labels, its metadata or its line.
	LevelLabel = "detected_level"
)

// extracted is what a name gets behind it that the stream or the entry has already.
const extracted = "_extracted"

const (
	indexFrom      = 24      // labels from which on names are looked up in a map
	maxNames       = 4096    // names of metadata whose form as a label's name is remembered
	maxKeptScratch = 1 << 20 // bytes of scratch memory that are kept for the next entry
)

// Labels is the labels of one entry. It is used again for the next one. No label has an empty value but one that a stage made so. The
// zero value has no labels. It is not safe for concurrent use.
type Labels struct {
	list             []label // no name twice
	ofStream         int     // the first of list are those of the stream,
	ofEntry          int     // and the first of list those of the stream and of metadata
	stream, metadata []logs.Label

	index   map[string]int // of list by name; in use if isLong
	isLong  bool
	scratch []byte            // names and values that are not in the line as they are
	names   map[string]string // names of metadata as those of labels, of those that are none

	err, reason string
	at          int // offset in the line that reason is about; -1: none

	line     []byte // to detect the level of; nil: SetLevel was not called
	hasLevel bool   // the level is yet to be detected
}

type label struct {
	name, value string
	kind        Kind
	isGone      bool
	isBorrowed  bool // name and value may point into memory that is used again
}

// Reset makes it those of an entry, before any stage. Both are sorted by name, and must not change while they are in use. A name of
// metadata that is no label name is made one: each character that may not be in one becomes _, and one that begins with a digit gets a _ before it. One
// that is a label of the stream, too, or has a meaning of its own, gets _extracted behind it. Of two that come to the same name the first counts, and
// labels without a value are none.
func (l *Labels) Reset(stream, metadata []logs.Label) {
	l.list, l.scratch = l.list[:0], kept(l.scratch, maxKeptScratch)
	l.stream, l.metadata = stream, metadata
	l.err, l.reason = "", ""
	l.line, l.hasLevel = nil, false
	if l.isLong {
		clear(l.index)
		l.isLong = false
	}
	for _, s := range stream {
		if s.Value != "" {
			l.add(label{name: s.Name, value: s.Value, kind: Stream})
		}
	}
	l.ofStream = len(l.list)
	for _, m := range metadata {
		if m.Value == "" {
			continue
		}
		name := m.Name
		if !isLabelName(name) {
			name = l.labelName(name)
		}
		i := l.find(name)
		isTaken := i >= 0 && i < l.ofStream || name == ErrorLabel || name == DetailsLabel
		if isTaken {
			name = l.suffixed(name)
			i = l.find(name)
		}
		if i < 0 {
			l.add(label{name: name, value: m.Value, kind: Metadata, isBorrowed: isTaken})
		}
	}
	l.ofEntry = len(l.list)
}

// kept is a slice that is emptied, or none if it is too large to be kept.
func kept[T any](s []T, most int) []T {
	if cap(s) > most {
		return nil
	}
	return s[:0]
}

// labelName is the name of metadata as that of a label. The memory of those that were seen before is bounded.
func (l *Labels) labelName(name string) string {
	if known, ok := l.names[name]; ok {
		return known
	}
	if l.names == nil {
		l.names = make(map[string]string)
	} else if len(l.names) >= maxNames {
		clear(l.names)
	}
	clean := string(appendLabelName(nil, name, true))
	l.names[strings.Clone(name)] = clean
	return clean
}

// add appends a label whose name is not there.
func (l *Labels) add(to label) {
	l.list = append(l.list, to)
	switch n := len(l.list); {
	case l.isLong:
		l.index[to.name] = n - 1
	case n > indexFrom:
		if l.index == nil {
			l.index = make(map[string]int)
		}
		l.isLong = true
		for i := range l.list {
			l.index[l.list[i].name] = i
		}
	}
}

// find is where a label is in list, also one that is gone; -1: nowhere.
func (l *Labels) find(name string) int {
	if l.hasLevel && name == LevelLabel {
		l.detectLevel()
	}
	if l.isLong {
		if i, ok := l.index[name]; ok {
			return i
		}
		return -1
	}
	for i := range l.list {
		if l.list[i].name == name {
			return i
		}
	}
	return -1
}

// Get is the value of a label, and whether it is there.
func (l *Labels) Get(name string) (value string, ok bool) {
	if i := l.find(name); i >= 0 {
		return l.list[i].value, !l.list[i].isGone
	}
	switch name {
	case ErrorLabel:
		return l.err, l.err != ""
	case DetailsLabel:
		_, details := l.Err()
		return details, details != ""
	}
	return "", false
}

// value is the value of a label as string matchers see it: empty without one.
func (l *Labels) value(name string) string {
	if value, ok := l.Get(name); ok {
		return value
	}
	return ""
}

// Set gives a label a value, and makes it one of that kind: a label of the stream that a stage sets is no longer one of the stream. name
// and value must not change while the entry is in use.
func (l *Labels) Set(kind Kind, name, value string) {
	l.set(label{name: name, value: value, kind: kind})
}

func (l *Labels) set(to label) {
	switch to.name {
	case ErrorLabel:
		l.err = strings.Clone(to.value)
		return
	case DetailsLabel:
		l.reason, l.at = strings.Clone(to.value), -1
		return
	}
	if i := l.find(to.name); i >= 0 {
		l.list[i] = to
	} else {
		l.add(to)
	}
}

// extract sets a label that a parser found in the line. Both strings may point into the line or into scratch. A name that the stream has,
// whatever stages did with it, or that is one of metadata, or has a meaning of its own, gets _extracted behind it. Of what parsers extract
// under one name the first counts, and what was set before counts more; but where a query itself says what the label is made of, that does.
func (l *Labels) extract(name, value string, isNamed bool) {
	i := l.find(name)
	if i >= 0 && (i < l.ofStream || i < l.ofEntry && l.list[i].kind == Metadata && !l.list[i].isGone) || isReserved(name) {
		name = l.suffixed(name)
		i = l.find(name)
	}
	to := label{name: name, value: value, kind: Parsed, isBorrowed: true}
	switch {
	case i < 0:
		l.add(to)
	case isNamed || l.list[i].isGone:
		l.list[i] = to
	}
}

// isReserved tells whether a label is not one that a parser can make.
func isReserved(name string) bool {
	return name == ErrorLabel || name == DetailsLabel || name == LevelLabel
}

// suffixed is a name with _extracted behind it, in scratch.
func (l *Labels) suffixed(name string) string {
	from := len(l.scratch)
	l.scratch = append(append(l.scratch, name...), extracted...)
	return view(l.scratch[from:])
}

// hold copies a string to scratch.
func (l *Labels) hold(s string) string {
	from := len(l.scratch)
	l.scratch = append(l.scratch, s...)
	return view(l.scratch[from:])
}

// view is bytes as a string that is good as long as they do not change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Delete takes a label away.
func (l *Labels) Delete(name string) {
	switch name {
	case ErrorLabel:
		l.err, l.reason = "", ""
	case DetailsLabel:
		l.reason = ""
	default:
		if i := l.find(name); i >= 0 {
			l.list[i].isGone = true
		}
	}
}

// fail sets the error, over one that is there. reason is what is wrong; at is where in the line, in bytes, or -1.
func (l *Labels) fail(name, reason string, at int) { l.err, l.reason, l.at = name, reason, at }

// Err is the error that a stage has set; both are empty without one.
func (l *Labels) Err() (name, details string) {
	if l.reason != "" && l.at >= 0 {
		l.reason, l.at = l.reason+" at offset "+strconv.Itoa(l.at), -1
	}
	return l.err, l.reason
}

// Append appends all labels, sorted by name. Their strings stay good: they do not point into memory that is used again.
func (l *Labels) Append(to []logs.Label) []logs.Label {
	from := len(to)
	for kind := Stream; kind <= Parsed; kind++ {
		to = l.appendKind(to, kind)
	}
	sortByName(to[from:])
	return to
}

// AppendKind appends those of one kind, sorted by name, as Append does. The labels of an error are Parsed.
func (l *Labels) AppendKind(to []logs.Label, kind Kind) []logs.Label {
	from := len(to)
	to = l.appendKind(to, kind)
	sortByName(to[from:])
	return to
}

func (l *Labels) appendKind(to []logs.Label, kind Kind) []logs.Label {
	if l.hasLevel {
		l.detectLevel()
	}
	size := 0
	for i := range l.list {
		if a := &l.list[i]; a.kind == kind && !a.isGone && a.isBorrowed {
			size += len(a.name) + len(a.value)
		}
	}
	// The strings that have to be copied are one in memory.
	copies := make([]byte, 0, size)
	for i := range l.list {
		a := &l.list[i]
		if a.kind != kind || a.isGone {
			continue
		}
		label := logs.Label{Name: a.name, Value: a.value}
		if a.isBorrowed {
			from := len(copies)
			copies = append(append(copies, a.name...), a.value...)
			both := view(copies[from:])
			label = logs.Label{Name: both[:len(a.name)], Value: both[len(a.name):]}
		}
		to = append(to, label)
	}
	if kind == Parsed {
		to = l.appendError(to)
	}
	return to
}

func (l *Labels) appendError(to []logs.Label) []logs.Label {
	name, details := l.Err()
	if name != "" {
		to = append(to, logs.Label{Name: ErrorLabel, Value: name})
	}
	if details != "" {
		to = append(to, logs.Label{Name: DetailsLabel, Value: details})
	}
	return to
}

// Group appends, sorted by name, the labels that a grouping keeps: those named, or without those named. Labels with an empty value are none
// to a series. The strings are good until the next entry.
func (l *Labels) Group(to []logs.Label, names []string, without bool) []logs.Label {
	from := len(to)
	if !without {
		for i, name := range names {
			if value := l.value(name); value != "" && !slices.Contains(names[:i], name) {
				to = append(to, logs.Label{Name: name, Value: value})
			}
		}
		sortByName(to[from:])
		return to
	}
	if l.hasLevel && !slices.Contains(names, LevelLabel) {
		l.detectLevel()
	}
	for i := range l.list {
		if a := &l.list[i]; !a.isGone && a.value != "" && !slices.Contains(names, a.name) {
			to = append(to, logs.Label{Name: a.name, Value: a.value})
		}
	}
	if l.err != "" {
		for _, e := range l.appendError(nil) {
			if !slices.Contains(names, e.Name) {
				to = append(to, e)
			}
		}
	}
	sortByName(to[from:])
	return to
}

func sortByName(labels []logs.Label) {
	slices.SortFunc(labels, func(a, b logs.Label) int { return strings.Compare(a.Name, b.Name) })
}

// nameByte tells for each byte whether it may be in the name of a label.
var nameByte = func() (table [256]bool) {
	for c := range table {
		table[c] = c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	}
	return table
}()

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isLabelName tells whether a name can be that of a label.
func isLabelName(name string) bool {
	for i := range len(name) {
		if !nameByte[name[i]] {
			return false
		}
	}
	return name != "" && !isDigit(name[0])
}

// appendLabelName appends name as that of a label, or as a part of one: what may not be in one becomes _, a character, or a byte that is of
// none, each; one that begins with a digit gets a _ before it where it isFirst.
func appendLabelName(to []byte, name string, isFirst bool) []byte {
	if isFirst && (name == "" || isDigit(name[0])) {
		to = append(to, '_')
	}
	for _, r := range name {
		if r < 0x80 && nameByte[r] {
			to = append(to, byte(r))
		} else {
			to = append(to, '_')
		}
	}
	return to
}
