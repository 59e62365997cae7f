package query

import (
	"cmp"
	"slices"
	"strings"

	"github.com/casteloig/logthra/gateway/engine"
	"github.com/casteloig/logthra/shared/logs"
)

// Whoever asks by this header to have labels told apart gets what belongs to a line beside the line, and not among the labels of
// its stream.
const (
	encodingHeader   = "X-Loki-Response-Encoding-Flags"
	categorizeLabels = "categorize-labels"
)

// categorizes tells whether labels are to be told apart.
func (q *question) categorizes() bool {
	for flag := range strings.SplitSeq(q.header.Get(encodingHeader), ",") {
		if strings.TrimSpace(flag) == categorizeLabels {
			return true
		}
	}
	return false
}

// stream is entries that have the same labels.
type stream struct {
	labels  []logs.Label
	entries []*engine.Entry
}

// appendLabels appends the labels of an entry's stream: all that the entry has, unless they are told apart.
func appendLabels(to []logs.Label, e *engine.Entry, categorized bool) []logs.Label {
	to = append(to, e.Stream...)
	if !categorized && len(e.Metadata)+len(e.Parsed) > 0 {
		to = append(append(to, e.Metadata...), e.Parsed...)
		slices.SortFunc(to, byName)
	}
	return to
}

func byName(a, b logs.Label) int { return strings.Compare(a.Name, b.Name) }

// streamsOf groups entries by their labels, in the order of these.
func streamsOf(entries []engine.Entry, categorized bool) []*stream {
	var all []*stream
	known := map[string]*stream{}
	var key []byte
	var labels []logs.Label
	for i := range entries {
		key = key[:0]
		labels = appendLabels(labels[:0], &entries[i], categorized)
		for _, l := range labels {
			key = append(append(append(append(key, l.Name...), 0), l.Value...), 0)
		}
		s := known[string(key)]
		if s == nil {
			s = &stream{labels: slices.Clone(labels)}
			known[string(key)] = s
			all = append(all, s)
		}
		s.entries = append(s.entries, &entries[i])
	}
	slices.SortFunc(all, func(a, b *stream) int {
		return slices.CompareFunc(a.labels, b.labels, func(a, b logs.Label) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
		})
	})
	return all
}

// streams appends streams with their entries.
func (w *writer) streams(streams []*stream, categorized bool) {
	w.raw("[")
	for i, s := range streams {
		w.comma(i)
		w.raw(`{"stream":`)
		w.labels(s.labels)
		w.raw(`,"values":[`)
		for j, e := range s.entries {
			w.comma(j)
			w.entry(e, categorized)
		}
		w.raw("]}")
	}
	w.raw("]")
}

// flags appends how the answer is written, where that is not as ever.
func (w *writer) flags(categorized bool) {
	if categorized {
		w.raw(`,"encodingFlags":["` + categorizeLabels + `"]`)
	}
}

func (w *writer) entry(e *engine.Entry, categorized bool) {
	w.raw("[")
	w.nanos(e.Timestamp)
	w.raw(",")
	w.text(e.Line)
	if categorized {
		w.raw(",{")
		if len(e.Metadata) > 0 {
			w.raw(`"structuredMetadata":`)
			w.labels(e.Metadata)
		}
		if len(e.Parsed) > 0 {
			if len(e.Metadata) > 0 {
				w.raw(",")
			}
			w.raw(`"parsed":`)
			w.labels(e.Parsed)
		}
		w.raw("}")
	}
	w.raw("]")
}
