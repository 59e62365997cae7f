// Package elastic decodes what shippers send to Elasticsearch's bulk API into a logs.Batch, and has the answers that
// they want to hear, to that and to what they ask first.
// https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk
package elastic

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/document"
	"github.com/casteloig/logthra/gateway/decode/jsontext"
	"github.com/casteloig/logthra/shared/logs"
)

// MaxItems is how many actions a bulk may have. The answer takes about 200 bytes for each.
const MaxItems = 100_000

const indexLabel = "index"

// Types of errors, as Elasticsearch calls them.
const (
	typeDocument = "document_parsing_exception"          // a document that can't be read, or is over a limit
	typeArgument = "illegal_argument_exception"          // an action that is not for logs
	typeRequest  = "action_request_validation_exception" // an action without an index
)

// Item is what became of one action.
type Item struct {
	Action string // create, index, update or delete
	Index  string
	ID     string // as the client gave it; empty if it did not
	Entry  int    // index in the batch, or -1 if it was refused
	Status int    // of HTTP: 201, or 400 if it was refused

	Type, Reason string // why it was refused
}

var parsers = sync.Pool{New: func() any { return new(parser) }}

// Bulk appends the documents of a bulk to b, and to items one for each of its actions, in their order.
//
//	{"create":{"_index":"logs-app-default"}}
//	{"@timestamp":"2025-10-01T08:00:00.000Z","message":"hello","log":{"level":"info"}}
//
// The actions create and index are one and the same here: a log has no entries that could be replaced. update and
// delete are refused, and so are documents that document.Parser can't make an entry of: those are items of their
// own with a status of 400 and a reason that begins with the line, and nothing of them is in b. index is for actions
// that have no _index; what else may be said of an action but its _id is ignored. The index becomes the label index;
// what the fields of a document become is told by document.DefaultMessage and document.DefaultTime, and an entry
// without a timestamp gets now, in unix nanoseconds.
//
// Lines end with LF or CRLF, the last one may have no end, and before an action empty ones are skipped. Nothing of
// body is kept.
//
// The error is for the whole bulk: a *decode.TooLargeError, or a *decode.Error with the line, counted from 1, that is
// no action, has no document, or is one action too many. After one, b and items hold a part of the bulk and have to
// be discarded.
func Bulk(b *logs.Batch, body []byte, index string, now int64, lim decode.Limits, items []Item) ([]Item, error) {
	if len(body) > lim.MaxPushBytes {
		return items, &decode.TooLargeError{Limit: lim.MaxPushBytes}
	}
	p := parsers.Get().(*parser)
	defer p.release()
	p.batch, p.now, p.limits = b, now, lim
	p.rest, p.line, p.index = body, 0, index
	p.mapping = document.Mapping{Message: document.DefaultMessage, Time: document.DefaultTime, Guess: true, Labels: p.labels[:]}
	p.labels[0].Name = indexLabel
	b.Lines = slices.Grow(b.Lines, len(body))

	begin := len(items)
	p.items = slices.Grow(items, min(bytes.Count(body, []byte{'\n'})/2+1, MaxItems))
	err := p.bulk(begin + MaxItems)
	items = p.items
	ids, from := string(p.ids), 0
	for i, to := range p.ends {
		items[begin+i].ID, from = ids[from:to], to
	}
	return items, err
}

// parser goes over a bulk once, line by line.
type parser struct {
	batch  *logs.Batch
	now    int64 // unix nanoseconds
	limits decode.Limits
	items  []Item

	rest  []byte // the lines that have not been read
	text  []byte // the last one that has
	line  int    // its number, from 1
	index string // of actions that have none

	action  jsontext.Reader
	doc     document.Parser
	mapping document.Mapping
	labels  [1]logs.Label // the index

	// Kept from one bulk to the next.
	ids     []byte // of the items, back to back
	ends    []int  // where in ids each of them ends
	indexes map[string]string
}

func (p *parser) release() {
	p.batch, p.items, p.rest, p.text, p.index = nil, nil, nil, nil, ""
	p.action.Reset(nil)
	p.doc.Reset()
	p.mapping, p.labels = document.Mapping{}, [1]logs.Label{}
	p.ids, p.ends = decode.KeepScratch(p.ids), p.ends[:0]
	p.indexes = nil
	parsers.Put(p)
}

// bulk reads all actions. There may be most items.
func (p *parser) bulk(most int) error {
	for p.next() {
		if p.action.Reset(p.text); p.action.Peek() == 0 && p.action.End() == nil {
			continue
		}
		if len(p.items) == most {
			return p.fail(&decode.Error{Reason: fmt.Sprintf("the bulk has more than %d actions", MaxItems)})
		}
		item, err := p.head()
		if err != nil {
			return p.fail(err)
		}
		if item.Action != "delete" && !p.next() {
			return p.fail(&decode.Error{Where: item.Action, Reason: "its document is missing"})
		}
		kind, err := p.apply(&item)
		if err != nil {
			item.Entry, item.Status, item.Type, item.Reason = -1, 400, kind, p.fail(err).Error()
		}
		p.items = append(p.items, item)
		p.ends = append(p.ends, len(p.ids))
	}
	return nil
}

// next goes to the next line. It returns false at the end.
func (p *parser) next() bool {
	if len(p.rest) == 0 {
		return false
	}
	p.text, p.rest, _ = bytes.Cut(p.rest, []byte{'\n'})
	p.line++
	return true
}

// head reads the line of an action. The id goes to ids.
func (p *parser) head() (item Item, err error) {
	r := &p.action
	if err := r.Open('{', "", "an object"); err != nil {
		return item, err
	}
	key, more, err := r.Member(true)
	if err != nil {
		return item, err
	}
	for _, action := range [...]string{"create", "index", "update", "delete"} {
		if more && action == string(key) {
			item.Action = action
		}
	}
	if item.Action == "" {
		return item, &decode.Error{Reason: fmt.Sprintf("want create, index, update or delete, got %q", logs.Clip(key))}
	}
	if err := r.Open('{', item.Action, "an object"); err != nil {
		return item, err
	}
	item.Index = p.index
	id := len(p.ids)
	for first := true; ; first = false {
		key, more, err := r.Member(first)
		if err != nil {
			return item, err
		}
		if !more {
			break
		}
		var text []byte
		switch string(key) {
		case "_index":
			if text, err = p.name("_index"); len(text) > 0 {
				item.Index = p.indexName(text)
			}
		case "_id":
			text, err = p.name("_id")
			p.ids = append(p.ids[:id], text...)
		default:
			err = r.Skip()
		}
		if err != nil {
			return item, err
		}
	}
	if _, more, err = r.Member(false); err == nil && more {
		err = &decode.Error{Reason: "want one action a line, got two"}
	}
	if err == nil {
		err = r.End()
	}
	return item, err
}

// name reads the value of a key of an action. null stands for none.
func (p *parser) name(key string) ([]byte, error) {
	r := &p.action
	switch c := r.Peek(); {
	case c == '"':
		return r.String()
	case c == 'n':
		return nil, r.Literal("null")
	case c == '-' || '0' <= c && c <= '9':
		text, _, err := r.Number()
		return text, err
	}
	return nil, r.Mismatch(key, "a string")
}

// indexName is the same string for the same name.
func (p *parser) indexName(text []byte) string {
	name, ok := p.indexes[string(text)]
	if !ok {
		if p.indexes == nil {
			p.indexes = make(map[string]string)
		}
		name = string(text)
		p.indexes[name] = name
	}
	return name
}

// apply does what the item asks for. Where that can't be done, kind is the type of the error.
func (p *parser) apply(item *Item) (kind string, err error) {
	switch {
	case item.Action != "create" && item.Action != "index":
		return typeArgument, &decode.Error{Where: item.Action, Reason: "an entry of a log can't be changed"}
	case item.Index == "":
		return typeRequest, &decode.Error{Where: item.Action, Reason: "index is missing"}
	}
	p.labels[0].Value = item.Index
	if err := p.doc.Append(p.batch, p.text, &p.mapping, p.now, p.limits); err != nil {
		return typeDocument, err
	}
	item.Entry, item.Status = p.batch.Len()-1, 201
	return "", nil
}

// fail puts the line before the place of an error.
func (p *parser) fail(err error) error {
	bad, ok := errors.AsType[*decode.Error](err)
	if !ok {
		return err
	}
	where := fmt.Sprintf("line %d", p.line)
	if bad.Where != "" {
		where += ": " + bad.Where
	}
	return &decode.Error{Where: where, Reason: bad.Reason}
}
