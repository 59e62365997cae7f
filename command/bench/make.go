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

// maker makes pushes ahead of those who send them.
type maker struct {
	cfg    Config
	run    string // the value of labelRun
	source source
	how    protocol
	pushes chan push
	ahead  *semaphore.Weighted // bytes of pushes that are made
	full   chan struct{}       // closed when they are as many as they may be, or all
	err    error               // why pushes was closed; read after that
}

// mostAhead is how many pushes may be made ahead, in any case.
const mostAhead = 1 << 20

func newMaker(cfg Config, run string) (*maker, error) {
	m := &maker{
		cfg: cfg, run: run, how: protocols[cfg.Protocol],
		pushes: make(chan push, mostAhead), ahead: semaphore.NewWeighted(cfg.Ahead), full: make(chan struct{}),
	}
	if len(cfg.Files) == 0 {
		m.source = newGenerator(cfg.Seed, cfg.LineBytes)
		return m, nil
	}
	var err error
	m.source, err = readFiles(cfg.Files)
	return m, err
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
	var last time.Time
	for n, left := 0, m.cfg.Lines; left > 0; n++ {
		p, err := m.one(n, int(min(int64(m.cfg.LinesPerPush), left)), &last)
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

// one makes push n. No two lines have the same time.
func (m *maker) one(n, lines int, last *time.Time) (push, error) {
	p := push{tenant: m.cfg.tenant(n), lines: lines}
	streams := make([]stream, min(m.cfg.StreamsPerPush, m.cfg.Streams, lines))
	first := n / m.cfg.Tenants * len(streams)
	var line []byte
	for i := range streams {
		number := (first + i) % m.cfg.Streams
		s := &streams[i]
		s.labels = map[string]string{
			labelRun: m.run, labelApp: fmt.Sprintf("app-%d", number%50), labelStream: fmt.Sprintf("stream-%d", number),
		}
		for range (i+1)*lines/len(streams) - i*lines/len(streams) {
			now := time.Now()
			if !now.After(*last) {
				now = last.Add(1)
			}
			*last = now
			line = m.source.append(line[:0], number, now)
			s.entries = append(s.entries, entry{now, string(line)})
			p.bytes += len(line)
		}
	}
	body, err := m.how.encode(streams)
	if err != nil {
		return p, err
	}
	p.body, err = compress(body, m.cfg.Encoding)
	return p, err
}
