package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casteloig/logthra/command/answer"
	"github.com/casteloig/logthra/shared/logs"
)

// Format is how what was found is written.
type Format string

// The formats.
const (
	Text  Format = "text"  // entries: time, labels, line, in colors. Series: charts, or a table of values
	Raw   Format = "raw"   // entries: nothing but lines. Series: fields with tabs between them
	JSON  Format = "json"  // an object a line
	Table Format = "table" // columns with a heading
)

// Shown says which labels are shown in texts and tables.
type Shown string

// What can be shown.
const (
	Differing Shown = "differ" // labels of streams that are not the same in all lines, and what went wrong in the pipeline
	All       Shown = "all"    // all, and metadata and what was parsed, too
	None      Shown = "none"
)

// timeLayout can be read by --from.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// exactLayout is the whole of a time, of a fixed width, so that texts are in order if times are.
const exactLayout = "2006-01-02T15:04:05.000000000Z07:00"

// widestColumn is the most columns that a label is padded to. Longer ones push what follows to the right, in their line alone.
const widestColumn = 32

// flushBytes is how much is gathered before it is written.
const flushBytes = 64 << 10

// Lines writes entries. Which labels differ, and how wide they are, it learns from what it is given.
type Lines struct {
	Out    io.Writer
	Format Format
	Labels Shown
	Color  bool
	Notes  io.Writer // is told the labels that all lines have in common

	began   bool
	common  answer.Labels // of all streams so far
	columns []column      // sorted by name
	heading string        // that was written last
	text    buffer
	encoder *json.Encoder // to text
}

// column is a label that is shown, and the width of its widest value.
type column struct {
	name  string
	width int
}

type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

func (b *buffer) add(parts ...string) {
	for _, part := range parts {
		*b = append(*b, part...)
	}
}

// pad brings what was added since begin to a width.
func (b *buffer) pad(begin, width int) {
	for n := utf8.RuneCount((*b)[begin:]); n < width; n++ {
		*b = append(*b, ' ')
	}
}

// Write writes entries in the order in which they are given.
func (l *Lines) Write(entries []answer.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if l.Format == Text || l.Format == Table {
		l.learn(entries)
	}
	if l.Format == Table {
		l.addHeading(len(local(entries[0].Time)))
	}
	for i := range entries {
		if err := l.add(&entries[i]); err != nil {
			return err
		}
		if len(l.text) >= flushBytes {
			if err := l.flush(); err != nil {
				return err
			}
		}
	}
	return l.flush()
}

func (l *Lines) flush() error {
	_, err := l.Out.Write(l.text)
	l.text = l.text[:0]
	return err
}

// learn looks at the labels of entries that are about to be written.
func (l *Lines) learn(entries []answer.Entry) {
	first := !l.began
	if first {
		l.began, l.common = true, slices.Clone(entries[0].Stream)
	}
	for i := range entries {
		stream := entries[i].Stream
		l.common = slices.DeleteFunc(l.common, func(label logs.Label) bool { return stream.Get(label.Name) != label.Value })
	}
	if first && l.Labels == Differing && len(l.common) > 0 {
		fmt.Fprintln(l.Notes, "common labels:", l.common)
	}
	for i := range entries {
		for label := range l.shown(&entries[i]) {
			at, found := slices.BinarySearchFunc(l.columns, label.Name, func(c column, name string) int { return strings.Compare(c.name, name) })
			if !found {
				l.columns = slices.Insert(l.columns, at, column{name: label.Name})
				if l.Format == Table { // where the name stands above
					l.columns[at].width = utf8.RuneCountInString(label.Name)
				}
			}
			l.columns[at].width = min(max(l.columns[at].width, utf8.RuneCountInString(valueOf(label))), widestColumn)
		}
	}
}

// shown yields the labels of an entry that are shown.
func (l *Lines) shown(e *answer.Entry) func(yield func(logs.Label) bool) {
	return func(yield func(logs.Label) bool) {
		for _, label := range e.Stream {
			if l.Labels == All || l.Labels == Differing && l.common.Get(label.Name) != label.Value {
				if !yield(label) {
					return
				}
			}
		}
		for _, labels := range []answer.Labels{e.Metadata, e.Parsed} {
			for _, label := range labels {
				if l.Labels == All || l.Labels == Differing && strings.HasPrefix(label.Name, "__error") {
					if !yield(label) {
						return
					}
				}
			}
		}
	}
}

// valueOf is the value of a label as it is shown: quoted if it could be taken for more than one, or for none.
func valueOf(label logs.Label) string {
	if label.Value == "" || strings.ContainsFunc(label.Value, func(r rune) bool { return r <= ' ' || r == '"' || !strconv.IsPrint(r) }) {
		return strconv.Quote(label.Value)
	}
	return label.Value
}

// local is a time where the reader is, as TZ says.
func local(ns int64) string { return time.Unix(0, ns).Format(timeLayout) }

func (l *Lines) addHeading(timeWidth int) {
	var heading buffer
	heading.add("TIME")
	heading.pad(0, timeWidth)
	for _, c := range l.columns {
		heading.add("  ")
		begin := len(heading)
		heading.add(c.name)
		heading.pad(begin, c.width)
	}
	heading.add("  LINE")
	names := strings.Join(strings.Fields(string(heading)), " ")
	if names == l.heading {
		return
	}
	if l.heading != "" {
		l.text.add("\n")
	}
	l.heading = names
	l.text.add(paint(l.Color, bold, string(heading)), "\n")
}

// record is an entry as JSON.
type record struct {
	Timestamp string        `json:"timestamp"`
	Labels    answer.Labels `json:"labels"`
	Metadata  answer.Labels `json:"metadata,omitempty"`
	Parsed    answer.Labels `json:"parsed,omitempty"`
	Line      string        `json:"line"`
}

// add adds an entry to the text.
func (l *Lines) add(e *answer.Entry) error {
	switch l.Format {
	case Raw:
		l.text.add(e.Line, "\n")
	case JSON:
		if l.encoder == nil {
			l.encoder = json.NewEncoder(&l.text)
			l.encoder.SetEscapeHTML(false)
		}
		return l.encoder.Encode(record{time.Unix(0, e.Time).UTC().Format(exactLayout), e.Stream, e.Metadata, e.Parsed, e.Line})
	case Table:
		l.text.add(paint(l.Color, dim, local(e.Time)))
		l.addColumns(e)
		l.text.add("  ")
		l.addLine(e, false)
	case Text:
		l.text.add(paint(l.Color, dim, local(e.Time)))
		switch l.Labels {
		case Differing:
			l.addColumns(e)
		case All:
			l.text.add(" ", paint(l.Color, cyan, answer.Labels(slices.Collect(l.shown(e))).String()))
		}
		l.text.add("  ")
		l.addLine(e, true)
	}
	return nil
}

// addColumns adds the values of labels, one below the other: those of a table below their names, the others behind them.
func (l *Lines) addColumns(e *answer.Entry) {
	for _, c := range l.columns {
		prefix, width := c.name+"=", len(c.name)+1+c.width
		if l.Format == Table {
			prefix, width = "", c.width
			l.text.add(" ")
		}
		l.text.add(" ")
		begin := len(l.text)
		for label := range l.shown(e) {
			if label.Name != c.name {
				continue
			}
			l.text.add(paint(l.Color, cyan, prefix+valueOf(label)))
			if l.Color {
				width += len(cyan) + len(reset)
			}
			break
		}
		l.text.pad(begin, width)
	}
}

// addLine adds the line itself, in the color of its level; over several lines if it is several.
func (l *Lines) addLine(e *answer.Entry, several bool) {
	line := e.Line
	if several {
		line = strings.TrimRight(line, "\n")
	}
	color := ""
	if l.Color {
		color = colorOf(levelOf(e))
	}
	l.text.add(color)
	l.text = appendPrintable(l.text, line, l.Color, several)
	if color != "" || l.Color && strings.Contains(line, "\x1b") {
		l.text.add(reset)
	}
	l.text.add("\n")
}
