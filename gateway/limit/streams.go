package limit

import "time"

// streamsPeriod is half the time after which a stream that gets no entries does not count any more.
const streamsPeriod = 30 * time.Minute

// maxRemembered is how many streams are remembered where their number has no limit, to know that their labels
// have been checked.
const maxRemembered = 100_000

// streams are those of a tenant that got entries in this period and the one before.
type streams struct {
	recent, former map[string]struct{} // canonical labels
	began          time.Time           // of this period
}

// active tells whether a stream is among them, and keeps it there.
func (s *streams) active(labels string, now time.Time) bool {
	s.turn(now)
	if _, ok := s.recent[labels]; ok {
		return true
	}
	if _, ok := s.former[labels]; !ok {
		return false
	}
	s.add(labels)
	delete(s.former, labels)
	return true
}

func (s *streams) add(labels string) {
	if s.recent == nil {
		s.recent = map[string]struct{}{}
	}
	s.recent[labels] = struct{}{}
}

// count is how many are active. No stream is in both.
func (s *streams) count() int { return len(s.recent) + len(s.former) }

// turn begins a period when the last one is over.
func (s *streams) turn(now time.Time) {
	switch age := now.Sub(s.began); {
	case age >= 2*streamsPeriod:
		s.recent, s.former, s.began = nil, nil, now
	case age >= streamsPeriod:
		s.recent, s.former, s.began = nil, s.recent, s.began.Add(streamsPeriod)
	}
}

// forget makes room where the number has no limit.
func (s *streams) forget(now time.Time) {
	s.recent, s.former, s.began = nil, s.recent, now
}

// room is how long it takes until the streams of the former period are forgotten.
func (s *streams) room(now time.Time) time.Duration { return streamsPeriod - now.Sub(s.began) }
