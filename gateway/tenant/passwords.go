package tenant

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/semaphore"
)

// maxRemembered is how many passwords that were right are remembered.
const maxRemembered = 4096

// passwords checks passwords against bcrypt's hashes. bcrypt is slow on purpose, far too slow for every push: what was
// right once is remembered, as a keyed hash that is worth nothing outside of this process.
type passwords struct {
	key     []byte
	running *semaphore.Weighted // computations of bcrypt, so that a flood of wrong passwords leaves time for the rest

	mu             sync.Mutex
	recent, former map[[sha256.Size]byte]struct{}
}

func newPasswords() *passwords {
	p := &passwords{
		key: make([]byte, sha256.Size), running: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
		recent: map[[sha256.Size]byte]struct{}{},
	}
	_, _ = rand.Read(p.key) // never fails
	return p
}

// dummyHash is a hash of bcrypt with no password that anybody knows. It is checked where a user does not exist.
func dummyHash(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s%s.", cost, rand.Text(), rand.Text()) // 26 + 26 + 1 characters of bcrypt's alphabet
}

// check tells whether a password is the one of a hash. The error is ErrBusy.
func (p *passwords) check(name string, password, hash []byte) (bool, error) {
	id := p.id(name, password, hash)
	if p.remembered(id) {
		return true, nil
	}
	if !p.running.TryAcquire(1) {
		return false, ErrBusy
	}
	defer p.running.Release(1)
	right := bcrypt.CompareHashAndPassword(hash, password) == nil
	if right {
		p.remember(id)
	}
	return right, nil
}

// id is a keyed hash of what is checked, each part behind its length.
func (p *passwords) id(name string, password, hash []byte) (id [sha256.Size]byte) {
	mac := hmac.New(sha256.New, p.key)
	for _, part := range [][]byte{[]byte(name), password, hash} {
		_, _ = mac.Write([]byte{byte(len(part) >> 24), byte(len(part) >> 16), byte(len(part) >> 8), byte(len(part))})
		_, _ = mac.Write(part)
	}
	mac.Sum(id[:0])
	return id
}

func (p *passwords) remembered(id [sha256.Size]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.recent[id]; ok {
		return true
	}
	_, ok := p.former[id]
	if ok {
		p.put(id)
	}
	return ok
}

func (p *passwords) remember(id [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(id)
}

// put remembers one more, and forgets the older half where there are too many. It needs the lock.
func (p *passwords) put(id [sha256.Size]byte) {
	if len(p.recent) >= maxRemembered/2 {
		p.former, p.recent = p.recent, map[[sha256.Size]byte]struct{}{}
	}
	p.recent[id] = struct{}{}
}
