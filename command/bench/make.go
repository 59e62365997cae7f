package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"
)

// push is one, ready to be sent.
type push struct {
	tenant string
	body   []byte
	lines  int
	bytes  int // of the lines
}

// feed makes the lines of pushes.
type feed interface {
	// streams makes those of push n, and tells how many bytes they have. It is called once for each, in order.
	streams(n, lines int) (streams []stream, size int)
}

// maker makes pushes ahead of those who send them.
type maker struct {
	cfg    Config
	feed   feed
	how    protocol
	pushes chan push
	ahead  *semaphore.Weighted // bytes of pushes that are made
	full   chan struct{}       // closed when they are as many as they may be, or all
	err    error               // why pushes was closed; read after that
}

// mostAhead is how many pushes may be made ahead, in any case.
const mostAhead = 1 << 20

// newMaker returns a maker of pushes whose streams have run as the value of labelRun.
func newMaker(cfg Config, run string) (*maker, error) {
	m := &maker{
		cfg: cfg, how: protocols[cfg.Protocol],
		pushes: make(chan push, mostAhead), ahead: semaphore.NewWeighted(cfg.Ahead), full: make(chan struct{}),
	}
	made := newGenerator(cfg.Seed, cfg.LineBytes)
	switch {
	case cfg.DataSet != nil:
		m.feed = &dataSet{DataSet: cfg.DataSet, cfg: cfg, run: run, generator: made}
	case len(cfg.Files) == 0:
		m.feed = &live{cfg: cfg, run: run, source: made}
	default:
		read, err := readFiles(cfg.Files)
		if err != nil {
			return nil, err
		}
		m.feed = &live{cfg: cfg, run: run, source: read}
	}
	return m, nil
}

// make makes all pushes, and closes full and then pushes.
func (m *maker) make(ctx context.Context) {
	defer close(m.pushes)
	isFull := false
	fill := func() {
		if !isFull {
			close(m.full)
			isFull = true
		}
	}
	defer fill()
	for n, left := 0, m.cfg.Lines; left > 0; n++ {
		p, err := m.one(n, int(min(int64(m.cfg.LinesPerPush), left)))
		if err != nil {
			m.err = err
			return
		}
		left -= int64(p.lines)
		size := min(int64(len(p.body)), m.cfg.Ahead)
		if !m.ahead.TryAcquire(size) {
			fill()
			if m.err = m.ahead.Acquire(ctx, size); m.err != nil {
				return
			}
		}
		if len(m.pushes) == cap(m.pushes) {
			fill()
		}
		select {
		case m.pushes <- p:
		case <-ctx.Done():
			m.err = ctx.Err()
			return
		}
	}
}

// sent says that a push is not needed any more.
func (m *maker) sent(p push) { m.ahead.Release(min(int64(len(p.body)), m.cfg.Ahead)) }

// one makes push n.
func (m *maker) one(n, lines int) (push, error) {
	p := push{tenant: m.cfg.tenant(n), lines: lines}
	var streams []stream
	streams, p.bytes = m.feed.streams(n, lines)
	body, err := m.how.encode(streams)
	if err != nil {
		return p, err
	}
	p.body, err = compress(body, m.cfg.Encoding)
	return p, err
}

// live makes lines that have the time at which they are made. No two have the same.
type live struct {
	cfg    Config
	run    string
	source source
	last   time.Time
	line   []byte
}

func (l *live) streams(n, lines int) (streams []stream, size int) {
	streams = make([]stream, min(l.cfg.StreamsPerPush, l.cfg.Streams, lines))
	first := n / l.cfg.Tenants * len(streams)
	for i := range streams {
		number := (first + i) % l.cfg.Streams
		s := &streams[i]
		s.labels = map[string]string{
			labelRun: l.run, labelApp: fmt.Sprintf("app-%d", number%50), labelStream: fmt.Sprintf("stream-%d", number),
		}
		for range (i+1)*lines/len(streams) - i*lines/len(streams) {
			now := time.Now()
			if !now.After(l.last) {
				now = l.last.Add(1)
			}
			l.last = now
			l.line = l.source.append(l.line[:0], number, now)
			s.entries = append(s.entries, entry{now, string(l.line)})
			size += len(l.line)
		}
	}
	return streams, size
}
