// Package answer reads what Loki's query API answers, as it arrives: of an answer of any length there is never more in memory than one
// entry, or one series.
package answer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/zeebo/xxh3"
)

// longestValue is the most bytes of a single value in an answer: an entry, a point or a set of labels.
const longestValue = 32 << 20

// Entry is one line of an answer.
type Entry struct {
	Time                     int64 // unix nanoseconds
	Line                     string
	Stream, Metadata, Parsed Labels
}

// ID tells an entry from another: it is the same for entries that are the same in all they have but the time.
type ID [2]uint64

// ID is the entry's.
func (e *Entry) ID() ID {
	var hash xxh3.Hasher
	part := func(text string) { // its length keeps it apart from the next
		_, _ = hash.WriteString(strconv.Itoa(len(text)))
		_, _ = hash.WriteString(":")
		_, _ = hash.WriteString(text)
	}
	for _, labels := range []Labels{e.Stream, e.Metadata, e.Parsed} {
		for _, label := range labels {
			part(label.Name)
			part(label.Value)
		}
		_, _ = hash.WriteString(";")
	}
	part(e.Line)
	sum := hash.Sum128()
	return ID{sum.Hi, sum.Lo}
}

// Series is one line of a chart: a label set and its points, oldest first.
type Series struct {
	Labels Labels
	Points []Point
}

// Point is a value at a time.
type Point struct {
	Time  int64 // unix nanoseconds, of whole milliseconds
	Value float64
}

// Last is the value of the newest point.
func (s *Series) Last() float64 {
	if len(s.Points) == 0 {
		return math.NaN()
	}
	return s.Points[len(s.Points)-1].Value
}

// Visitor is called with the parts of an answer while they arrive. The error of a call ends the reading, and is returned.
type Visitor struct {
	Entry  func(Entry) error
	Series func(Series) error
}

// Kind is what an answer consists of.
type Kind string

// The kinds of answers.
const (
	Streams Kind = "streams" // entries
	Matrix  Kind = "matrix"  // series with points
	Vector  Kind = "vector"  // series with a point each
	Scalar  Kind = "scalar"  // a series of one point, without labels
)

// Summary is what an answer says besides what it consists of.
type Summary struct {
	Kind     Kind
	Warnings []string
	Stats    Stats
}

// Stats are those of an answer that people ask for.
type Stats struct {
	Exec    float64 `json:"execTime"`  // seconds
	Queue   float64 `json:"queueTime"` // seconds
	Bytes   int64   `json:"totalBytesProcessed"`
	Lines   int64   `json:"totalLinesProcessed"`
	Entries int64   `json:"totalEntriesReturned"`
}

// Read reads the answer to a query.
func Read(from io.Reader, visit Visitor) (Summary, error) {
	d := newDecoder(from, visit)
	var summary Summary
	err := d.object(func(key string) error {
		switch key {
		case "data":
			return d.object(func(key string) error {
				switch key {
				case "resultType":
					return d.value(&summary.Kind)
				case "result":
					return d.result()
				case "stats":
					var stats struct{ Summary Stats }
					err := d.value(&stats)
					summary.Stats = stats.Summary
					return err
				}
				return d.skip()
			})
		case "warnings":
			return d.value(&summary.Warnings)
		}
		return d.skip()
	})
	return summary, d.where(err)
}

// Dropped is an entry that a tail did not send, as its reader was too slow.
type Dropped struct {
	Time   string `json:"timestamp"` // as the server writes it
	Labels Labels `json:"labels"`
}

// ReadTail reads one message of a tail.
func ReadTail(from io.Reader, entry func(Entry) error) ([]Dropped, error) {
	d := newDecoder(from, Visitor{Entry: entry})
	var dropped []Dropped
	err := d.object(func(key string) error {
		switch key {
		case "streams":
			return d.result()
		case "dropped_entries":
			return d.value(&dropped)
		}
		return d.skip()
	})
	return dropped, d.where(err)
}

// ReadData reads an answer that is a list, such as the names of labels.
func ReadData[T any](from io.Reader) (data []T, warnings []string, err error) {
	d := newDecoder(from, Visitor{})
	err = d.object(func(key string) error {
		switch key {
		case "data":
			return d.value(&data)
		case "warnings":
			return d.value(&warnings)
		}
		return d.skip()
	})
	return data, warnings, d.where(err)
}

// decoder walks through JSON token by token.
type decoder struct {
	json  *json.Decoder
	from  *bounded
	visit Visitor
}

func newDecoder(from io.Reader, visit Visitor) *decoder {
	b := &bounded{from: from, left: longestValue}
	return &decoder{json: json.NewDecoder(b), from: b, visit: visit}
}

// bounded fails when too much is read without a value coming to its end.
type bounded struct {
	from io.Reader
	left int
}

var errTooLong = fmt.Errorf("a single value is longer than %d bytes", longestValue)

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.from.Read(p)
	b.left -= n
	return n, err
}

// where says of a failure at which byte of the answer it was. What a visitor returned it leaves alone, and what the network did.
func (d *decoder) where(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if errors.As(err, &syntax) || errors.As(err, &kind) || errors.Is(err, errShape) || errors.Is(err, errTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the answer is not of Loki's form, at byte %d: %w", d.json.InputOffset(), err)
	}
	return err
}

var errShape = errors.New("unexpected JSON")

// value reads one value.
func (d *decoder) value(into any) error {
	d.from.left = longestValue
	return d.json.Decode(into)
}

func (d *decoder) skip() error { return d.value(new(json.RawMessage)) }

// open reads the beginning of an object or array, or null, which is not open.
func (d *decoder) open(delim json.Delim) (bool, error) {
	d.from.left = longestValue
	token, err := d.json.Token()
	if err != nil || token == nil {
		return false, err
	}
	if token != delim {
		return false, fmt.Errorf("%w: %v where %v is expected", errShape, token, delim)
	}
	return true, nil
}

// object calls member with each key, which has to read the value.
func (d *decoder) object(member func(key string) error) error {
	open, err := d.open('{')
	if err != nil || !open {
		return err
	}
	return d.members(member)
}

// members are those of an object that is open already.
func (d *decoder) members(member func(key string) error) error {
	for d.json.More() {
		key, err := d.json.Token()
		if err != nil {
			return err
		}
		if err := member(key.(string)); err != nil { // nothing else is a key
			return err
		}
	}
	_, err := d.json.Token()
	return err
}

// array calls element until the array ends; it has to read one element.
func (d *decoder) array(element func() error) error {
	open, err := d.open('[')
	if err != nil || !open {
		return err
	}
	for d.json.More() {
		if err := element(); err != nil {
			return err
		}
	}
	_, err = d.json.Token()
	return err
}

// result reads what an answer consists of: an array of streams or of series, or the time and the value of a scalar.
func (d *decoder) result() error {
	return d.array(func() error {
		d.from.left = longestValue
		token, err := d.json.Token()
		switch token := token.(type) {
		case json.Delim:
			if token == '{' {
				return d.element()
			}
		case float64:
			value, err := d.number()
			if err != nil {
				return err
			}
			return d.series(Series{Points: []Point{{unixNano(token), value}}})
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: neither a stream nor a series", errShape)
	})
}

// element reads a stream or a series, whose beginning has been read. Its labels have to come first.
func (d *decoder) element() error {
	var of string
	var labels Labels
	return d.members(func(key string) error {
		switch key {
		case "stream", "metric":
			of = key
			return d.value(&labels)
		case "value", "values":
			switch {
			case of == "stream":
				return d.array(func() error { return d.entry(labels) })
			case of == "":
				return fmt.Errorf("%w: %s before their labels", errShape, key)
			case key == "values":
				return d.points(labels)
			}
			point, err := d.point()
			if err != nil {
				return err
			}
			return d.series(Series{labels, []Point{point}})
		}
		return d.skip()
	})
}

// entry reads ["nanoseconds", "line"], or with metadata and what was parsed behind them.
func (d *decoder) entry(stream Labels) error {
	entry := Entry{Stream: stream}
	var at string
	var apart struct {
		Metadata Labels `json:"structuredMetadata"`
		Parsed   Labels `json:"parsed"`
	}
	parts := []any{&at, &entry.Line, &apart}
	read := 0
	err := d.array(func() error {
		if read++; read > len(parts) {
			return d.skip()
		}
		return d.value(parts[read-1])
	})
	if err != nil {
		return err
	}
	if entry.Time, err = strconv.ParseInt(at, 10, 64); err != nil || read < 2 {
		return fmt.Errorf("%w: no time and line", errShape)
	}
	if d.visit.Entry == nil {
		return fmt.Errorf("%w: entries", errShape)
	}
	entry.Metadata, entry.Parsed = apart.Metadata, apart.Parsed
	return d.visit.Entry(entry)
}

func (d *decoder) points(labels Labels) error {
	series := Series{Labels: labels}
	err := d.array(func() error {
		point, err := d.point()
		series.Points = append(series.Points, point)
		return err
	})
	if err != nil {
		return err
	}
	return d.series(series)
}

func (d *decoder) series(series Series) error {
	if d.visit.Series == nil {
		return fmt.Errorf("%w: series", errShape)
	}
	return d.visit.Series(series)
}

// point reads [seconds, "value"].
func (d *decoder) point() (Point, error) {
	open, err := d.open('[')
	if err != nil {
		return Point{}, err
	}
	if !open {
		return Point{}, fmt.Errorf("%w: no point", errShape)
	}
	var seconds float64
	if err := d.value(&seconds); err != nil {
		return Point{}, err
	}
	value, err := d.number()
	if err != nil {
		return Point{}, err
	}
	token, err := d.json.Token()
	if err == nil && token != json.Delim(']') {
		err = fmt.Errorf("%w: %v behind a point", errShape, token)
	}
	return Point{unixNano(seconds), value}, err
}

// number reads a number that is written as a string, as NaN and infinity have to be.
func (d *decoder) number() (float64, error) {
	var text string
	if err := d.value(&text); err != nil {
		return 0, err
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %q is no number", errShape, text)
	}
	return number, nil
}

func unixNano(seconds float64) int64 { return int64(math.Round(seconds*1000)) * 1e6 }
