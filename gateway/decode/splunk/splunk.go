// Package splunk decodes pushes to Splunk's HTTP Event Collector (HEC), as Splunk's own clients and most shippers
// send them, and writes the answers that these look for:
// https://docs.splunk.com/Documentation/Splunk/latest/Data/HECRESTendpoints.
package splunk

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/document"
	"github.com/casteloig/logthra/shared/logs"
)

// Names of the labels that the protocol has, which are its keys.
const (
	hostLabel       = "host"
	sourceLabel     = "source"
	sourceTypeLabel = "sourcetype"
	indexLabel      = "index"
)

// Defaults are what the query of a request says of its events. Of an event that says something else itself, that
// counts. What is empty is not there.
type Defaults struct {
	Host, Source, SourceType, Index string

	Time []byte // as document.ParseTime reads it
}

// labels are those of an event that says nothing itself, in the order of keys.
func (d *Defaults) labels() [4]logs.Label {
	return [4]logs.Label{{Name: hostLabel, Value: d.Host}, {Name: sourceLabel, Value: d.Source}, {Name: sourceTypeLabel, Value: d.SourceType}, {Name: indexLabel, Value: d.Index}}
}

// time is that of an event that says nothing itself; own tells whether it is not now.
func (d *Defaults) time(now int64) (ts int64, own bool, err error) {
	if len(d.Time) == 0 {
		return now, false, nil
	}
	if ts, err = document.ParseTime(d.Time); err != nil {
		return 0, false, refuse(InvalidFormat, NoEvent, &decode.Error{Where: "time", Reason: err.Error()})
	}
	return ts, true, nil
}

// Raw appends what came to /services/collector/raw to b: each line of body is an entry. They end with LF or CRLF,
// and empty ones are skipped. All have the labels and the time of d; without a time they get now, in unix
// nanoseconds. Nothing of body is kept.
//
// Errors are those of Events, where the number of an event is that of the line, not counting empty ones.
func Raw(b *logs.Batch, body []byte, d Defaults, now int64, lim decode.Limits) error {
	if len(body) > lim.MaxPushBytes {
		return &decode.TooLargeError{Limit: lim.MaxPushBytes}
	}
	ts, own, err := d.time(now)
	if err != nil {
		return err
	}
	labels := d.labels()
	canonical := decode.Unlabeled
	if d.Host != "" || d.Source != "" || d.SourceType != "" || d.Index != "" {
		if canonical, err = logs.Canonical(labels[:]); err != nil {
			return refuse(InvalidFormat, NoEvent, &decode.Error{Reason: err.Error()})
		}
	}

	// An entry has two bytes at least, but for the last; empty lines must not take memory.
	lines := min(bytes.Count(body, []byte{'\n'}), len(body)/2) + 1
	b.Timestamps, b.Lengths = slices.Grow(b.Timestamps, lines), slices.Grow(b.Lengths, lines)
	b.Lines = slices.Grow(b.Lines, len(body))
	event := 0
	for len(body) > 0 {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte{'\n'})
		line = bytes.TrimSuffix(line, []byte{'\r'})
		if len(line) == 0 {
			continue
		}
		if len(line) > lim.MaxLineBytes {
			return refuse(InvalidFormat, event, &decode.Error{Where: fmt.Sprintf("events[%d]", event), Reason: decode.LineTooLong(len(line), lim.MaxLineBytes), Labels: canonical})
		}
		if event == 0 {
			b.AddStream(canonical)
		}
		b.Lines = append(b.Lines, line...)
		b.EndEntry(ts, own)
		event++
	}
	if event == 0 {
		return noData()
	}
	return nil
}
