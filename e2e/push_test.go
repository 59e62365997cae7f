package e2e

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/loki/pkg/push"
	"github.com/klauspost/compress/snappy"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/types/known/timestamppb"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
)

// protocol is how a push is sent.
type protocol uint8

const (
	lokiProtobuf protocol = iota
	lokiJSON
	native
)

func (p protocol) String() string { return [...]string{"loki-protobuf", "loki-json", "grpc"}[p] }

// flaw is why a push has to be refused.
type flaw uint8

const (
	none flaw = iota
	longLine
	badLabel
	badTenant
	brokenBody
	reusedKey
	flaws // how many there are
)

// The numbers of a push and of a line stand at the beginning of each line, where verification finds them.
const linePrefix = "p%08d l%05d "

var (
	tenants = []string{"acme", "globex", "initech"}
	words   = strings.Fields(`accepted after alloc answer backend batch begin block body buffer cache call checked client
		closed commit conn context cpu deadline decoded disk done drop encoded error event exceeded fetch flushed from gateway
		handler header hit host index ingest insert io job key label latency limit lock merge miss node offset open owner page
		part peer pending poll queue range read ready record refused reply request retry role row sent shard slow socket start
		state stream sync table tenant timeout token took trace trim user value wait wal write zone`)
)

// request is one push: what is sent, in the same bytes however often, and what must come of it.
type request struct {
	number   uint32
	tenant   string
	key      string // idempotency key, or empty: the content is the identity
	protocol protocol
	flaw     flaw
	body     []byte                 // over HTTP
	message  *logthrav1.PushRequest // over gRPC
	lines    uint32
	sum      uint64 // of the hashes of all rows, as verification computes it
}

// entry is one line.
type entry struct {
	at   int64 // unix nanoseconds
	line string
}

// newRequest makes the push of a number. Everything but the time follows from seed and number. A push that has a
// flaw is to be refused; key, if not empty, is used instead of one of its own.
func newRequest(seed uint64, number uint32, now time.Time, f flaw, key string) *request {
	random := rand.New(rand.NewPCG(seed, uint64(number)))
	r := &request{number: number, flaw: f, tenant: tenants[random.IntN(len(tenants))], key: key}
	switch n := random.IntN(10); {
	case n < 6:
		r.protocol = lokiProtobuf
	case n < 9:
		r.protocol = native
	}
	if r.protocol == lokiProtobuf && random.IntN(6) == 0 {
		r.protocol = lokiJSON
	}
	if key == "" && random.IntN(4) == 0 {
		r.key = fmt.Sprintf("%x-%d", seed, number)
	}
	if f == badTenant {
		r.tenant = "no.dots.in.subjects"
	}
	r.lines = uint32(500 + random.IntN(1500))
	var (
		left  = int(r.lines)
		index = 0
		parts = 1 + random.IntN(3) // streams
		days  = random.IntN(7) == 0
		row   []byte
	)
	encoder := newEncoder(r.protocol)
	for part := range parts {
		labels := []logs.Label{
			{Name: "app", Value: "app-" + strconv.Itoa(random.IntN(8))},
			{Name: "env", Value: []string{"prod", "staging"}[random.IntN(2)]},
			{Name: "part", Value: strconv.Itoa(part)},
		}
		if f == badLabel {
			labels[0].Name = "0app"
		}
		stream, _ := logs.Canonical(labels) // of a bad label, nothing will be there
		count := left
		if part < parts-1 {
			count = random.IntN(left + 1)
		}
		left -= count
		entries := make([]entry, count)
		for i := range entries {
			at := now.UnixNano() + int64(index)*1000 + int64(random.IntN(1000))
			if days && random.IntN(4) == 0 {
				at -= int64(1+random.IntN(3)) * int64(24*time.Hour)
			}
			at |= 1 // never a whole second
			line := fmt.Appendf(nil, linePrefix, number, index)
			if f == longLine && index == int(r.lines)/2 {
				line = append(line, strings.Repeat("x", maxLine)...)
			}
			for range 12 + random.IntN(12) {
				line = append(line, words[random.IntN(len(words))]...)
				line = append(line, ' ')
			}
			entries[i] = entry{at, string(line)}
			row = append(row[:0], r.tenant...)
			row = append(row, '\n')
			row = append(row, stream...)
			row = append(row, '\n')
			row = strconv.AppendInt(row, at, 10)
			row = append(row, '\n')
			row = append(row, line...)
			r.sum += xxh3.Hash(row)
			index++
		}
		encoder.add(labels, entries)
	}
	r.body, r.message = encoder.end()
	if f == brokenBody {
		r.body = r.body[:len(r.body)/2]
		if r.message != nil { // a message can't be broken: it has no labels instead
			r.message.Streams[0].Labels = nil
		}
	}
	return r
}

// rowHash is the SQL of what newRequest hashes.
const rowHash = `xxh3(concat(tenant_id, '\n', stream, '\n', toString(toUnixTimestamp64Nano(timestamp)), '\n', msg))`

// encoder writes the streams of a push.
type encoder struct {
	protocol protocol
	json     []byte
	loki     push.PushRequest
	native   logthrav1.PushRequest
}

func newEncoder(p protocol) *encoder { return &encoder{protocol: p, json: []byte(`{"streams":[`)} }

func (e *encoder) add(labels []logs.Label, entries []entry) {
	switch e.protocol {
	case lokiJSON:
		if len(e.json) > len(`{"streams":[`) {
			e.json = append(e.json, ',')
		}
		e.json = append(e.json, `{"stream":{`...)
		for i, l := range labels {
			if i > 0 {
				e.json = append(e.json, ',')
			}
			e.json = fmt.Appendf(e.json, "%q:%q", l.Name, l.Value)
		}
		e.json = append(e.json, `},"values":[`...)
		for i, one := range entries {
			if i > 0 {
				e.json = append(e.json, ',')
			}
			e.json = append(e.json, `["`...)
			e.json = strconv.AppendInt(e.json, one.at, 10)
			e.json = append(e.json, `","`...)
			e.json = append(e.json, one.line...) // nothing in it needs to be escaped
			e.json = append(e.json, `"]`...)
		}
		e.json = append(e.json, `]}`...)
	case lokiProtobuf:
		var selector []string
		for _, l := range labels {
			selector = append(selector, fmt.Sprintf("%s=%q", l.Name, l.Value))
		}
		stream := push.Stream{Labels: "{" + strings.Join(selector, ", ") + "}"}
		for _, one := range entries {
			stream.Entries = append(stream.Entries, push.Entry{Timestamp: time.Unix(0, one.at), Line: one.line})
		}
		e.loki.Streams = append(e.loki.Streams, stream)
	case native:
		stream := &logthrav1.Stream{Labels: map[string]string{}}
		for _, l := range labels {
			stream.Labels[l.Name] = l.Value
		}
		for _, one := range entries {
			stream.Entries = append(stream.Entries, &logthrav1.Entry{Timestamp: timestamppb.New(time.Unix(0, one.at)), Line: []byte(one.line)})
		}
		e.native.Streams = append(e.native.Streams, stream)
	}
}

func (e *encoder) end() ([]byte, *logthrav1.PushRequest) {
	switch e.protocol {
	case lokiJSON:
		return append(e.json, `]}`...), nil
	case lokiProtobuf:
		body, err := e.loki.Marshal()
		if err != nil {
			panic(err) // nothing in it can fail
		}
		return snappy.Encode(nil, body), nil
	}
	return nil, &e.native
}
