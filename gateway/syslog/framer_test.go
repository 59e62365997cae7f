package syslog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// frames cuts a stream that comes in pieces of a size into messages; cut bytes stand behind those that are not whole.
func frames(stream string, size, most int) (messages []string, invalid int) {
	f := framer{max: most, invalid: prometheus.NewCounter(prometheus.CounterOpts{Name: "invalid_total", Help: "Lengths that are none."})}
	add := func(message []byte, cut int) {
		text := string(message)
		if cut > 0 {
			text += fmt.Sprintf(" (%d cut)", cut)
		}
		messages = append(messages, text)
	}
	for piece := range slices.Chunk([]byte(stream), size) {
		for {
			message, cut, rest, ok := f.next(piece)
			if !ok {
				break
			}
			add(message, cut)
			piece = rest
		}
	}
	if message, cut := f.last(); len(message) > 0 {
		add(message, cut)
	}
	return messages, int(testutil.ToFloat64(f.invalid))
}

func TestFramer(t *testing.T) {
	for _, c := range []struct {
		name, stream string
		want         []string
		invalid      int
	}{
		{"nothing", "", nil, 0},
		{"lines", "<1>a\n<2>b\n", []string{"<1>a", "<2>b"}, 0},
		{"CRLF", "<1>a\r\n<2>b\r\r\n\r<3>\r\n", []string{"<1>a", "<2>b\r", "\r<3>"}, 0},
		{"empty lines", "\n\r\n<1>a\n\n\n", []string{"<1>a"}, 0},
		{"a last line without LF", "<1>a\n<2>b", []string{"<1>a", "<2>b"}, 0},
		{"a last line with CR", "<1>a\n<2>b\r", []string{"<1>a", "<2>b"}, 0},
		{"lengths", "4 <1>a5 <2>\r\n", []string{"<1>a", "<2>"}, 0},
		{"lengths that count the LF", "5 <1>a\n1 \n6 <2>b\r\n5 <3>\n\n5 <4>a\x00", []string{"<1>a", "<2>b", "<3>\n", "<4>a"}, 0},
		{"a length and LF", "4 <1>a\n4 <2>b\n", []string{"<1>a", "<2>b"}, 0},
		{"mixed", "4 <1>a<2>b\n6 <3>\n\nc<4>d\n", []string{"<1>a", "<2>b", "<3>\n\nc", "<4>d"}, 0},
		{"of two digits", "12 <1>123456789<2>b\n", []string{"<1>123456789", "<2>b"}, 0},
		{"longer than kept", "<1>3456789012345678901\n<2>345678901234567\n<3>4567890123456\n", []string{"<1>3456789012345 (6 cut)", "<2>3456789012345 (2 cut)", "<3>4567890123456"}, 0},
		{"CR where the cut is", "<1>3456789012345\r\n<2>34567890123456\r\n<3>3456789012345\r\r\n", []string{"<1>3456789012345", "<2>3456789012345 (1 cut)", "<3>3456789012345 (1 cut)"}, 0},
		{"a length longer than kept", "21 <1>345678901234567890<2>b\n", []string{"<1>3456789012345 (5 cut)", "<2>b"}, 0},
		{"no digit", "2025-10-01 hello\n4 <1>a", []string{"2025-10-01 hello", "<1>a"}, 1},
		{"only digits", "123\n4 <1>a", []string{"123", "<1>a"}, 1},
		{"as many digits as may be", "123456789 <1>", []string{"<1>"}, 1},
		{"too many digits", "1234567890 <1>a\n", []string{"1234567890 <1>a"}, 1},
		{"lines that begin with unix time", "1732410167 a\n1732410168 b\n", []string{"1732410167 a", "1732410168 b"}, 2},
		{"a zero first", "04 <1>a\n", []string{"04 <1>a"}, 0},
		{"ended in a length", "4 <1>a12", []string{"<1>a", "12"}, 1},
		{"ended behind a length", "4 <1>a12 ", []string{"<1>a"}, 1},
		{"ended too early", "4 <1>a12 <2>bcd", []string{"<1>a", "<2>bcd"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for size := 1; size <= max(1, len(c.stream)); size++ {
				most := 16
				got, invalid := frames(c.stream, size, most)
				if !slices.Equal(got, c.want) || invalid != c.invalid {
					t.Fatalf("in pieces of %d\n got %q, %d invalid\nwant %q, %d", size, got, invalid, c.want, c.invalid)
				}
			}
		})
	}
}

// What logger, rsyslog (omfwd with RSYSLOG_SyslogProtocol23Format) and syslog-ng (its driver syslog) send over TCP.
func TestFramerOfClients(t *testing.T) {
	for _, c := range []struct {
		stream string
		want   []string
	}{
		{
			`98 <13>1 2026-11-24T01:02:47.850786+00:00 vm shop - - [timeQuality tzKnown="1" isSynced="0"] octets a` +
				`90 <13>1 2026-11-24T01:02:47.863860+00:00 vm shop - - [timeQuality tzKnown="1" isSynced="0"] `,
			[]string{
				`<13>1 2026-11-24T01:02:47.850786+00:00 vm shop - - [timeQuality tzKnown="1" isSynced="0"] octets a`,
				`<13>1 2026-11-24T01:02:47.863860+00:00 vm shop - - [timeQuality tzKnown="1" isSynced="0"] `,
			},
		},
		{
			"65 <155>1 2026-11-24T01:03:23.377027+00:00 web-1 shop - - -  one é\n63 <13>1 2026-11-24T01:03:23.379420+00:00 web-1 shop 812 - -  two\n",
			[]string{"<155>1 2026-11-24T01:03:23.377027+00:00 web-1 shop - - -  one é", "<13>1 2026-11-24T01:03:23.379420+00:00 web-1 shop 812 - -  two"},
		},
		{
			`80 <30>1 2026-10-09T08:00:00+00:00 vm app 7 - [meta sequenceId="3"] multi` + "\nline\ttab\n" +
				`73 <30>1 2026-10-09T08:00:00+00:00 vm no - - [meta sequenceId="4"] tag here` + "\n",
			[]string{
				`<30>1 2026-10-09T08:00:00+00:00 vm app 7 - [meta sequenceId="3"] multi` + "\nline\ttab",
				`<30>1 2026-10-09T08:00:00+00:00 vm no - - [meta sequenceId="4"] tag here`,
			},
		},
	} {
		if got, invalid := frames(c.stream, 50, 1<<10); !slices.Equal(got, c.want) || invalid > 0 {
			t.Errorf("%d invalid\n got %q\nwant %q", invalid, got, c.want)
		}
	}
}

func TestFramerMemory(t *testing.T) {
	f := framer{max: 1 << 20, invalid: prometheus.NewCounter(prometheus.CounterOpts{Name: "invalid_total", Help: "Lengths that are none."})}
	piece := []byte(strings.Repeat("x", 1<<16))
	for range 1 << 10 {
		if _, _, _, ok := f.next(piece); ok {
			t.Fatal("a message without an end")
		}
	}
	if cap(f.part) > 2<<20 {
		t.Errorf("%d bytes are kept of a message without an end", cap(f.part))
	}
	message, cut, _, ok := f.next([]byte("\n"))
	if !ok || len(message) != 1<<20 || cut != 1<<26-1<<20 {
		t.Errorf("%v, %d bytes, %d cut", ok, len(message), cut)
	}
	f.next([]byte("<1>a"))
	if cap(f.part) > maxPart {
		t.Errorf("%d bytes are kept for good", cap(f.part))
	}
}

// However the bytes come in pieces, the messages are the same, and nothing of them is missing.
func FuzzFramer(f *testing.F) {
	for _, stream := range []string{"<1>a\n<2>b\r\n", "4 <1>a5 <2>bc\n", "12345678901 x\n1x\n", "99999 <1>a", "20 <1>345678901234567890\r\n"} {
		f.Add(stream, uint8(3), uint8(8))
	}
	f.Fuzz(func(t *testing.T, stream string, size, most uint8) {
		limit := max(int(most), maxDigits)
		want, wantInvalid := frames(stream, max(1, len(stream)), limit)
		got, invalid := frames(stream, max(1, int(size)), limit)
		if !slices.Equal(got, want) || invalid != wantInvalid {
			t.Fatalf("%q in pieces of %d\n got %q, %d invalid\nwant %q, %d", stream, size, got, invalid, want, wantInvalid)
		}
		at := 0
		whole, _ := frames(stream, max(1, len(stream)), max(len(stream), maxDigits))
		for _, message := range whole {
			n := strings.Index(stream[at:], message)
			if n < 0 || strings.Trim(stream[at:at+n], "0123456789 \r\n\x00") != "" {
				t.Fatalf("%q: %q, lost before %q", stream, whole, message)
			}
			at += n + len(message)
		}
	})
}
