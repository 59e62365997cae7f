package patterns

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/casteloig/logthra/gateway/logql"
)

// mine returns the patterns of lines of one group, each with the number of its lines before it, and fails where a line does not match the
// pattern of its cluster.
func mine(t testing.TB, lines []string) []string {
	t.Helper()
	m := NewMiner()
	counts := map[int]int{}
	of := make([]int, len(lines))
	for i, line := range lines {
		of[i] = m.Add("info", []byte(line))
		counts[of[i]]++
	}
	for i, number := range of {
		if number >= 0 && !matches(t, m.Pattern(number), lines[i]) {
			t.Fatalf("%q does not match %q", lines[i], m.Pattern(number))
		}
	}
	var out []string
	for number := range m.Len() {
		out = append(out, fmt.Sprint(counts[number], " ", m.Pattern(number)))
	}
	return out
}

// matches tells what a pattern means as a line filter: its texts stand in the line one behind the other, each where it comes first, and
// <_> between them stands for something.
func matches(t testing.TB, pattern, line string) bool {
	t.Helper()
	parts, err := logql.ParsePattern(pattern)
	if err != nil {
		t.Fatalf("%q is no pattern: %v", pattern, err)
	}
	for i, p := range parts {
		if p.IsCapture {
			if p.Capture != "_" {
				t.Fatalf("%q captures %s", pattern, p.Capture)
			}
			continue
		}
		before, behind, found := strings.Cut(line, p.Literal)
		if !found || (before != "") != (i > 0) {
			return false
		}
		line = behind
	}
	return (line != "") == (len(parts) > 0 && parts[len(parts)-1].IsCapture)
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"none", nil, nil},
		{"an empty line", []string{"", ""}, []string{"2 "}},
		{"words that differ", []string{"user ann logged in", "user bob logged in"}, []string{"2 user <_> logged in"}},
		{"too many words differ", []string{"user ann logged in", "job backup is done"}, []string{"1 user ann logged in", "1 job backup is done"}},
		{"another number of words", []string{"disk full", "disk sda full"}, []string{"1 disk full", "1 disk sda full"}},
		{"a number that does not differ stays", []string{"main.go:66 took 5ms", "main.go:66 took 7ms"}, []string{"2 main.go:66 took <_>"}},
		{"numbers of a single line", []string{"main.go:66 took 5ms"}, []string{"1 main.go:<_> took <_>"}},
		{"logfmt", []string{
			`ts=2024-03-30T23:03:40Z caller=grpc_logging.go:66 level=info method=/cortex.Ingester/Push duration=200ms msg=gRPC`,
			`ts=2024-03-30T23:03:41Z caller=grpc_logging.go:66 level=info method=/cortex.Ingester/Push duration=500ms msg=gRPC`,
			`ts=2024-03-30T23:03:41Z caller=grpc_logging.go:66 level=info method=/cortex.Ingester/Push duration=500ms err=gRPC`,
		}, []string{
			`2 ts=<_> caller=grpc_logging.go:66 level=info method=/cortex.Ingester/Push duration=<_> msg=gRPC`,
			`1 ts=<_> caller=grpc_logging.go:<_> level=info method=/cortex.Ingester/Push duration=<_> err=gRPC`,
		}},
		{"JSON", []string{
			`{"level":"info","time":"2024-03-30T23:03:40Z","status":200,"msg":"request done"}`,
			`{"level":"info","time":"2024-03-30T23:03:40Z","status":404,"msg":"request done"}`,
			`{"level":"info","time":"2024-03-30T23:03:40Z","stat":404,"msg":"request done"}`,
		}, []string{
			`2 {"level":"info","time":"<_>","status":<_>,"msg":"request done"}`,
			`1 {"level":"info","time":"<_>","stat":<_>,"msg":"request done"}`,
		}},
		{"nginx", []string{
			`10.0.0.1 - - [30/Mar/2024:23:03:40 +0000] "GET /a/b HTTP/1.1" 200 153 "-" "curl/8.5"`,
			`10.0.0.2 - - [30/Mar/2024:23:03:41 +0000] "GET /a/c HTTP/1.1" 404 7 "-" "curl/8.5"`,
		}, []string{`2 <_> - - [<_> +0000] "GET <_> HTTP/1.1" <_> <_> "-" "curl/8.5"`}},
		{"dates, times, long numbers and ids are never part", []string{
			"2024-03-30 23:03:40,123 4bf92f3577b34da6a3ce929d0e0e4736 5d3f1f5e-5f3c-4ab0-8f6c-0d3e0b5a7a11 1711839260000 up",
			"2024-03-30 23:03:40,123 4bf92f3577b34da6a3ce929d0e0e4736 5d3f1f5e-5f3c-4ab0-8f6c-0d3e0b5a7a11 1711839260000 up",
		}, []string{"2 <_> <_> <_> <_> <_> up"}},
		{"what looks like a capture is never part", []string{"got <_> and <name> of <1> a", "got <_> and <name> of <1> a"}, []string{"2 got <_> and <_> of <_> a"}},
		{"what is not UTF-8 is never part", []string{"a b\xff c", "a b\xff c", "a b\x00 c"}, []string{"3 a <_> c"}},
		{"two wildcards with a colon or comma between them are one", []string{"look at it: a:b", "look at it: c:d", "look at it: 1:d"}, []string{"3 look at it: <_>"}},
		{"what stands for a colon or comma takes in more", []string{"it took 1,5s,n=1,x", "it took 2,5s,n=1,y"}, []string{"2 it took <_>=1,<_>"}},
		{"and what is behind another", []string{"it took 1,5s, or 2x", "it took 2,5s, or 2x"}, []string{"2 it took <_> or 2x"}},
		{"base64 is no key", []string{"token: YWJj= and YWJj==", "token: ZGVm= and ZGVm=="}, []string{"2 token: <_>= and <_>=="}},
		{"lines of several lines", []string{"panic: a\n\tat b\n", "panic: c\n\tat b\n"}, []string{"2 panic: <_>\n\tat b\n"}},
		{"long lines", []string{"go " + strings.Repeat("a", 2000) + " x", "go " + strings.Repeat("a", 1000) + " " + strings.Repeat("b", 100)},
			[]string{"1 go <_>", "1 go <_> <_>"}},
		{"many words", []string{strings.Repeat("a ", 500), strings.Repeat("a ", 499)}, []string{"2 " + strings.Repeat("a ", maxWords) + "<_>"}},
	} {
		if got := mine(t, c.lines); !slices.Equal(got, c.want) {
			t.Errorf("%s\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestLinesOfDifferentGroupsHaveDifferentClusters(t *testing.T) {
	m := NewMiner()
	if a, b, c := m.Add("info", []byte("x y")), m.Add("error", []byte("x y")), m.Add("info", []byte("x y")); a != 0 || b != 1 || c != 0 {
		t.Error(a, b, c)
	}
	if m.Pattern(1) != "x y" {
		t.Errorf("%q", m.Pattern(1))
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	m := NewMiner()
	for i := range 3 * maxAlternate { // of one shape, without a word in common
		m.Add("", []byte(strings.Repeat(string(rune('a'+i%26)), 1+i/26)+" x"+strings.Repeat(string(rune('a'+i%26)), 1+i/26)+" y"+strings.Repeat("z", i)))
	}
	if m.Len() != maxAlternate {
		t.Errorf("%d clusters of one shape", m.Len())
	}
	outside := 0
	for i := range 2 * maxClusters { // each of its own shape
		if m.Add("", fmt.Appendf(nil, "%b", i)) < 0 {
			outside++
		}
		if m.Add("", []byte(strings.NewReplacer("0", "=", "1", "|").Replace(fmt.Sprintf("%b", i)))) < 0 {
			outside++
		}
	}
	if m.Len() != maxClusters || outside == 0 {
		t.Errorf("%d clusters, %d lines of none", m.Len(), outside)
	}
	if m.Add("", []byte("a xa y")) != 0 {
		t.Error("a line that fits into a cluster is of none")
	}
}

// Whatever the lines are, each matches the pattern of its cluster, and the same lines make the same patterns.
func TestEveryLineMatchesItsPattern(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", "bc", "12", "1", "1:2", "1,1", "é", " ", "=", ":", ",", "\"", "<", ">", "_", "<_>", "-", "\n", "\xff", "\x00", "[", "}", "|", ".", "x1", "0123456789abcdef", "k=v", `"k":`}
	for range 300 {
		lines := make([]string, 30)
		for i := range lines {
			for range rnd.IntN(12) {
				lines[i] += pieces[rnd.IntN(len(pieces))]
			}
		}
		if first, second := mine(t, lines), mine(t, lines); !slices.Equal(first, second) {
			t.Fatalf("%q\n%q", first, second)
		}
	}
}

func FuzzMiner(f *testing.F) {
	f.Add("user ann logged in", "user bob logged in", `{"a":"b","c":1}`)
	f.Add("ts=2024-03-30T23:03:40Z a=\"b c\"", "ts=1 a=\"d e\"", "<_><_> <a>")
	f.Add(strings.Repeat("x ", 600), strings.Repeat("x", 2000), "\xff\x00=:")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		mine(t, []string{a, b, c, a + b, b + c, a + " " + c, b})
	})
}

func BenchmarkMiner(b *testing.B) {
	words := strings.Fields("alpha beta gamma delta epsilon zeta eta theta iota kappa")
	lines := make([][]byte, 10_000)
	for i := range lines {
		switch i % 3 {
		case 0:
			lines[i] = fmt.Appendf(nil, `ts=2024-03-30T23:03:40.%d caller=grpc_logging.go:66 level=info method=/cortex.Ingester/%s duration=%dms msg=gRPC`, i, words[i%10], i)
		case 1:
			lines[i] = fmt.Appendf(nil, `{"level":"info","time":"2024-03-30T23:03:40Z","status":%d,"msg":"request of %s done by %s"}`, i, words[i%10], words[i%7])
		default:
			lines[i] = fmt.Appendf(nil, `10.0.0.%d - - [30/Mar/2024:23:03:40 +0000] "GET /a/%s HTTP/1.1" %d 153 "-" "curl/8.5"`, i%256, words[i%10], 200+i%7)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		m := NewMiner()
		for _, line := range lines {
			m.Add("info", line)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(lines)), "ns/line")
}
