package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

// source makes the lines of streams.
type source interface {
	// append appends the next line of a stream, whose time is now, to dst.
	append(dst []byte, stream int, now time.Time) []byte
}

// longestLine is the most bytes of a line of a file.
const longestLine = 1 << 20

// files gives the lines of files over and over: a stream has the lines of one file.
type files struct {
	lines [][][]byte // by file
	next  map[int]int
}

// readFiles reads the lines of files into memory. Empty ones are left out.
func readFiles(names []string) (*files, error) {
	f := &files{next: map[int]int{}}
	for _, name := range names {
		lines, err := readLines(name)
		if err != nil {
			return nil, err
		}
		f.lines = append(f.lines, lines)
	}
	return f, nil
}

func readLines(name string) (lines [][]byte, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, longestLine)
	for scanner.Scan() {
		if line := bytes.TrimSuffix(scanner.Bytes(), []byte{'\r'}); len(line) > 0 {
			lines = append(lines, bytes.Clone(line))
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("%s: line %d: %w", name, len(lines)+1, err)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s: %w: there is no line in it", name, io.ErrUnexpectedEOF)
	}
	return lines, nil
}

func (f *files) append(dst []byte, stream int, _ time.Time) []byte {
	lines := f.lines[stream%len(f.lines)]
	at, ok := f.next[stream]
	if !ok {
		at = stream / len(f.lines) * 7919 // streams of a file begin at different lines
	}
	f.next[stream] = at + 1
	return append(dst, lines[at%len(lines)]...)
}

// generator makes lines as services write them: of each stream lines of one kind, in which what varies does so as it does
// in life, some of it by a lot, as identifiers, and some by little, as paths.
type generator struct {
	random *rand.Rand
	zipf   *rand.Zipf
	least  int    // bytes of a line
	level  string // of lines that tell one; none: any
}

// newGenerator returns a generator of lines that are the same for the same seed, of least bytes or more.
func newGenerator(seed uint64, least int) *generator {
	random := rand.New(rand.NewPCG(seed, seed))
	return &generator{random: random, zipf: rand.NewZipf(random, 1.2, 4, 9999), least: least}
}

func (g *generator) append(dst []byte, stream int, now time.Time) []byte {
	begin := len(dst)
	kinds := [...]func([]byte, time.Time) []byte{g.access, g.logfmt, g.json, g.java, g.system}
	dst = kinds[stream%len(kinds)](dst, now)
	for len(dst)-begin < g.least {
		dst = append(dst, ' ')
		dst = append(dst, g.word()...)
		dst = append(dst, '=')
		dst = g.hex(dst, 8)
	}
	return dst
}

var (
	methods = []string{"GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE"}
	things  = []string{"orders", "users", "carts", "items", "payments", "sessions", "invoices", "search", "reviews", "shipments"}
	agents  = []string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15",
		"curl/8.14.1", "Go-http-client/2.0", "kube-probe/1.33",
	}
	levels  = []string{"info", "info", "info", "info", "info", "info", "debug", "debug", "warn", "error"}
	actions = []string{
		"request completed", "cache miss, asking the backend", "connection accepted", "job finished", "retrying after a timeout",
		"transaction committed", "token refreshed", "message published", "partition assigned", "lease renewed",
	}
	words = []string{"region", "shard", "attempt", "node", "queue", "zone", "worker", "digest", "trace", "parent", "owner", "batch"}
)

func pick(g *generator, of []string) string { return of[g.random.IntN(len(of))] }

func (g *generator) severity() string { return cmp.Or(g.level, pick(g, levels)) }

func (g *generator) word() string { return pick(g, words) }

// id is a number of which some are much more frequent than others.
func (g *generator) id(dst []byte) []byte { return strconv.AppendUint(dst, 1000+g.zipf.Uint64(), 10) }

func (g *generator) number(dst []byte, below int) []byte {
	return strconv.AppendInt(dst, int64(g.random.IntN(below)), 10)
}

func (g *generator) hex(dst []byte, digits int) []byte {
	const alphabet = "0123456789abcdef"
	for range digits {
		dst = append(dst, alphabet[g.random.IntN(len(alphabet))])
	}
	return dst
}

// address is one of some thousand clients.
func (g *generator) address(dst []byte) []byte {
	n := g.zipf.Uint64()
	return fmt.Appendf(dst, "10.%d.%d.%d", n>>8&31, n&255, n*7&255)
}

func (g *generator) status() int {
	return [...]int{200, 200, 200, 200, 200, 200, 201, 204, 304, 404, 500, 503}[g.random.IntN(12)]
}

// access is a line of a web server.
func (g *generator) access(dst []byte, now time.Time) []byte {
	dst = g.address(dst)
	dst = append(dst, " - - ["...)
	dst = now.AppendFormat(dst, "02/Jan/2006:15:04:05 -0700")
	dst = append(dst, `] "`...)
	dst = append(append(append(append(dst, pick(g, methods)...), " /api/v1/"...), pick(g, things)...), '/')
	dst = g.id(dst)
	dst = append(dst, ` HTTP/1.1" `...)
	dst = strconv.AppendInt(dst, int64(g.status()), 10)
	dst = g.number(append(dst, ' '), 20000)
	return append(append(append(dst, ` "-" "`...), pick(g, agents)...), '"')
}

// logfmt is a line of a service in Go.
func (g *generator) logfmt(dst []byte, now time.Time) []byte {
	dst = append(dst, "ts="...)
	dst = now.AppendFormat(dst, time.RFC3339Nano)
	dst = append(append(dst, " level="...), g.severity()...)
	dst = append(append(dst, " caller="...), pick(g, things)...)
	dst = g.number(append(dst, ".go:"...), 900)
	dst = append(append(append(dst, ` msg="`...), pick(g, actions)...), '"')
	dst = g.id(append(dst, " user="...))
	dst = g.hex(append(dst, " trace_id="...), 16)
	return append(g.number(append(dst, " duration="...), 2000), "ms"...)
}

// json is a line of a service that writes objects.
func (g *generator) json(dst []byte, now time.Time) []byte {
	dst = append(dst, `{"time":"`...)
	dst = now.AppendFormat(dst, time.RFC3339Nano)
	dst = append(append(dst, `","level":"`...), g.severity()...)
	dst = append(append(dst, `","msg":"`...), pick(g, actions)...)
	dst = g.id(append(dst, `","order":`...))
	dst = g.hex(append(dst, `,"request_id":"`...), 16)
	dst = strconv.AppendInt(append(dst, `","status":`...), int64(g.status()), 10)
	return append(g.number(append(dst, `,"took_ms":`...), 2000), '}')
}

// java is a line of a service on the JVM.
func (g *generator) java(dst []byte, now time.Time) []byte {
	dst = now.AppendFormat(dst, "2006-01-02 15:04:05,000")
	dst = g.number(append(dst, " INFO  [pool-2-thread-"...), 32)
	dst = append(append(dst, "] c.example.shop."...), pick(g, things)...)
	dst = append(append(dst, "Service - "...), pick(g, actions)...)
	dst = g.hex(append(dst, " for blk_"...), 12)
	dst = g.id(append(dst, ", client "...))
	return append(g.number(append(dst, ", "...), 90000), " bytes"...)
}

// system is a line of a daemon.
func (g *generator) system(dst []byte, now time.Time) []byte {
	dst = now.AppendFormat(dst, time.Stamp)
	dst = g.number(append(dst, " node-"...), 40)
	dst = g.number(append(dst, " sshd["...), 32768)
	dst = append(append(dst, "]: Failed password for invalid user "...), pick(g, things)...)
	dst = g.address(append(dst, " from "...))
	return append(g.number(append(dst, " port "...), 65536), " ssh2"...)
}
