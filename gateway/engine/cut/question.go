package cut

import (
	"math"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/logs"
)

// defaultMaxBytes bounds the entries of a request that has no bound.
const defaultMaxBytes = 1 << 30

// question is a Request, and what it has been answered so far.
type question struct {
	Request

	asked *logthrav1.UnflushedRequest // of all owners
	used  atomic.Int64                // bytes of all answers
}

// part is what is known of one shard.
type part struct {
	shard   int
	landed  uint64 // all records up to it have landed
	last    uint64 // the last record that counts
	answers []*logthrav1.UnflushedResponse
	bytes   int64  // of answers
	isDone  bool   // there is nothing more to ask
	missing string // what is, if anything
}

func newQuestion(r Request) (*question, error) {
	if r.MaxBytes <= 0 {
		r.MaxBytes = defaultMaxBytes
	}
	q := &question{Request: r, asked: &logthrav1.UnflushedRequest{
		Tenant: r.Tenant, Start: r.Start, End: r.End, OmitLines: r.OmitLines, MaxBytes: uint64(r.MaxBytes),
		Limit: uint32(min(max(r.Limit, 0), math.MaxInt32)), Forward: r.Forward,
	}}
	matchers := make([]logs.Matcher, len(r.Matchers))
	for i, m := range r.Matchers {
		matchers[i] = logs.Matcher{Name: m.Name, Op: logs.MatchOp(m.Op), Value: m.Value}
		q.asked.Matchers = append(q.asked.Matchers, &logthrav1.LabelMatcher{
			Name: m.Name, Operator: logthrav1.LabelMatcher_OPERATOR_EQUAL + logthrav1.LabelMatcher_Operator(m.Op), Value: m.Value,
		})
	}
	for _, part := range r.Contains {
		q.asked.Contains = append(q.asked.Contains, []byte(part))
	}
	_, err := logs.NewSelector(matchers) // nobody is asked what can't be answered
	return q, err
}

// to is the question to an ingester about some shards.
func (q *question) to(ingester string, parts []*part) *logthrav1.UnflushedRequest {
	request := proto.CloneOf(q.asked)
	request.Ingester = ingester
	for _, p := range parts {
		request.Shards = append(request.Shards, &logthrav1.UnflushedShard{Shard: uint32(p.shard), Sequence: p.last, Landed: p.landed})
	}
	return request
}

// take keeps a response with entries of the part.
func (q *question) take(p *part, r *logthrav1.UnflushedResponse) error {
	if err := check(r); err != nil {
		return err
	}
	if len(r.GetIndexes()) == 0 && !r.GetEnd().GetHasBound() {
		return nil
	}
	n := size(r)
	p.answers, p.bytes = append(p.answers, r), p.bytes+n
	if q.used.Add(n) > q.MaxBytes {
		return &TooLargeError{q.MaxBytes}
	}
	return nil
}

// drop forgets what was taken of a part.
func (q *question) drop(p *part) {
	q.used.Add(-p.bytes)
	p.answers, p.bytes = nil, 0
}
