package syslog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/shared/logs"
)

type row = decodetest.Row

const testPeer = "192.0.2.7"

// testNow is 2025-10-09T08:53:20.123456789Z.
const testNow = decodetest.Now

// at is a moment in unix nanoseconds.
func at(t testing.TB, text string) int64 {
	t.Helper()
	moment, err := time.Parse(time.RFC3339Nano, text)
	decodetest.Must(t, err)
	return moment.UnixNano()
}

// one decodes a single message.
func one(t testing.TB, message string, now int64, lim decode.Limits) (row, *logs.Batch) {
	t.Helper()
	var p Parser
	var b logs.Batch
	p.Append(&b, []byte(message), now, lim, testPeer)
	rows := decodetest.Rows(t, &b)
	if len(rows) != 1 {
		t.Fatalf("%d entries", len(rows))
	}
	return rows[0], &b
}

// severity is the metadata of a message for its PRI: the word that the level does not tell.
func severity(message string) []string {
	var pri int
	if n, _ := fmt.Sscanf(message, "<%d>", &pri); n == 0 || pri > 191 {
		return nil
	}
	for number, word := range map[int]string{0: "emerg", 1: "alert", 2: "crit", 5: "notice"} {
		if pri%8 == number {
			return []string{"severity_text=" + word}
		}
	}
	return nil
}

func TestAppend(t *testing.T) {
	for _, c := range []struct {
		name, message string
		labels        string
		time          string // RFC 3339; empty for now
		line          string
		metadata      []string
	}{
		// RFC 5424, section 6.5.
		{
			"no structured data", "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed for lonvick on /dev/pts/8",
			`{"app":"su","facility":"auth","host":"mymachine.example.com","level":"fatal"}`, "2003-10-11T22:14:15.003Z",
			"'su root' failed for lonvick on /dev/pts/8", []string{"msg_id=ID47"},
		},
		{
			"offset, process id, no BOM", "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
			`{"app":"myproc","facility":"local4","host":"192.0.2.1","level":"info"}`, "2003-08-24T12:14:15.000003Z",
			"%% It's time to make the do-nuts.", []string{"proc_id=8710"},
		},
		{
			"structured data", `<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"] ` +
				"\ufeffAn application event log entry...",
			`{"app":"evntslog","facility":"local4","host":"mymachine.example.com","level":"info"}`, "2003-10-11T22:14:15.003Z",
			"An application event log entry...",
			[]string{"exampleSDID@32473.eventID=1011", "exampleSDID@32473.eventSource=Application", "exampleSDID@32473.iut=3", "msg_id=ID47"},
		},
		{
			"structured data only", `<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 ` +
				`[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"][examplePriority@32473 class="high"]`,
			`{"app":"evntslog","facility":"local4","host":"mymachine.example.com","level":"info"}`, "2003-10-11T22:14:15.003Z", "",
			[]string{
				"examplePriority@32473.class=high",
				"exampleSDID@32473.eventID=1011", "exampleSDID@32473.eventSource=Application", "exampleSDID@32473.iut=3", "msg_id=ID47",
			},
		},
		// The same, section 6.3.5.
		{
			"no parameters", `<14>1 - - - - - [a@1][b@1 c=""] x`,
			`{"facility":"user","host":"192.0.2.7","level":"info"}`, "", "x", []string{"a@1=", "b@1.c="},
		},
		{
			"a space between elements", `<14>1 - - - - - [a b="c"] [d e="f"] x`,
			`{"facility":"user","host":"192.0.2.7","level":"info"}`, "", `[d e="f"] x`, []string{"a.b=c"},
		},
		{
			"escapes", `<14>1 - - - - - [a q="\"" b="\\" c="\]" n="\n" r="x]y" d="\\\"\\" e="[é" f="a\] b"] x`,
			`{"facility":"user","host":"192.0.2.7","level":"info"}`, "", "x",
			[]string{`a.b=\`, "a.c=]", `a.d=\"\`, "a.e=[é", "a.f=a] b", `a.n=\n`, `a.q="`, "a.r=x]y"},
		},
		{
			"a parameter twice", `<14>1 - - - - - [a b="1" b="2"] x`,
			`{"facility":"user","host":"192.0.2.7","level":"info"}`, "", "x", []string{"a.b=1", "a.b=2"},
		},
		{"nothing at all", "<0>1 - - - - - -", `{"facility":"kern","host":"192.0.2.7","level":"fatal"}`, "", "", nil},
		{"an empty message", "<0>1 - - - - - - ", `{"facility":"kern","host":"192.0.2.7","level":"fatal"}`, "", "", nil},
		{"only a BOM", "<0>1 - - - - - - \ufeff", `{"facility":"kern","host":"192.0.2.7","level":"fatal"}`, "", "", nil},
		{
			"any bytes", "<15>1 - - - - - -  \t\xff\x00\r\n\ufeff ",
			`{"facility":"user","host":"192.0.2.7","level":"debug"}`, "", " \t\xff\x00\r\n\ufeff ", nil,
		},
		{
			"UTF-8 in the header", "<14>1 - hôte äpp 1\xff \xfe - x",
			`{"app":"äpp","facility":"user","host":"hôte","level":"info"}`, "", "x", []string{"msg_id=\xfe", "proc_id=1\xff"},
		},

		// RFC 3164, section 5.4.
		{
			"RFC 3164", "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
			`{"app":"su","facility":"auth","host":"mymachine","level":"fatal"}`, "2025-10-11T22:14:15Z",
			"'su root' failed for lonvick on /dev/pts/8", nil,
		},
		{
			"no PRI", "Use the BFG!", `{"host":"192.0.2.7"}`, "", "Use the BFG!", []string{"syslog_error=it does not begin with a PRI of 0 to 191"},
		},
		{
			"a zone and a year", "<165>Aug 24 05:34:00 CST 1987 mymachine myproc[10]: %% It's time to make the do-nuts.  %%  Ingredients: Mix=OK, Jelly=OK #",
			`{"facility":"local4","host":"CST","level":"info"}`, "2025-08-24T05:34:00Z",
			"1987 mymachine myproc[10]: %% It's time to make the do-nuts.  %%  Ingredients: Mix=OK, Jelly=OK #", nil,
		},
		{
			"the year first", "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
			`{"facility":"kern","host":"192.0.2.7","level":"fatal"}`, "",
			"<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
			[]string{"syslog_error=after the PRI there is neither the version of RFC 5424 nor the timestamp of RFC 3164"},
		},

		// As it is really sent.
		{
			"a process id", "<86>Oct  1 08:00:00 web-1 sshd[42]: Accepted publickey",
			`{"app":"sshd","facility":"authpriv","host":"web-1","level":"info"}`, "2025-10-01T08:00:00Z", "Accepted publickey", []string{"proc_id=42"},
		},
		{
			"a day of one digit", "<86>Oct 1 08:00:00 web-1 a: x",
			`{"app":"a","facility":"authpriv","host":"web-1","level":"info"}`, "2025-10-01T08:00:00Z", "x", nil,
		},
		{
			"a day with a zero", "<86>Oct 01 08:00:00 web-1 a: x",
			`{"app":"a","facility":"authpriv","host":"web-1","level":"info"}`, "2025-10-01T08:00:00Z", "x", nil,
		},
		{
			"a fraction", "<86>Oct  1 08:00:00.123456 web-1 a: x",
			`{"app":"a","facility":"authpriv","host":"web-1","level":"info"}`, "2025-10-01T08:00:00.123456Z", "x", nil,
		},
		{
			"more digits than nanoseconds", "<86>Oct  1 08:00:00.1234567899999999999999 web-1 a: x",
			`{"app":"a","facility":"authpriv","host":"web-1","level":"info"}`, "2025-10-01T08:00:00.123456789Z", "x", nil,
		},
		{
			"RFC 3339", "<30>2025-10-01T10:00:00.123456+02:00 web-1 systemd[1]: Started x.",
			`{"app":"systemd","facility":"daemon","host":"web-1","level":"info"}`, "2025-10-01T08:00:00.123456Z", "Started x.", []string{"proc_id=1"},
		},
		{
			"no host", "<13>Oct  9 08:00:00 root[7]: hello world",
			`{"app":"root","facility":"user","host":"192.0.2.7","level":"info"}`, "2025-10-09T08:00:00Z", "hello world", []string{"proc_id=7"},
		},
		{
			"no host, RFC 3339", "<13>2025-10-09T08:00:00Z root: hello",
			`{"app":"root","facility":"user","host":"192.0.2.7","level":"info"}`, "2025-10-09T08:00:00Z", "hello", nil,
		},
		{
			"a host that is none", "<13>Oct  9 08:00:00 - a: x",
			`{"app":"a","facility":"user","host":"192.0.2.7","level":"info"}`, "2025-10-09T08:00:00Z", "x", nil,
		},
		{
			"an IPv6 host", "<13>Oct  9 08:00:00 2001:db8::7 a: x",
			`{"app":"a","facility":"user","host":"2001:db8::7","level":"info"}`, "2025-10-09T08:00:00Z", "x", nil,
		},
		{
			"no tag", "<12>Oct  9 08:00:00 web-1 disk is nearly full: 97 %",
			`{"facility":"user","host":"web-1","level":"warn"}`, "2025-10-09T08:00:00Z", "disk is nearly full: 97 %", nil,
		},
		{
			"JSON is no tag", `<11>Oct  9 08:00:00 web-1 {"a": 1}`,
			`{"facility":"user","host":"web-1","level":"error"}`, "2025-10-09T08:00:00Z", `{"a": 1}`, nil,
		},
		{
			"tags of all kinds", "<22>Oct  9 08:00:00 web-1 postfix/smtpd[3]:  x ",
			`{"app":"postfix/smtpd","facility":"mail","host":"web-1","level":"info"}`, "2025-10-09T08:00:00Z", " x ", []string{"proc_id=3"},
		},
		{
			"a tag in brackets", "<22>Oct  9 08:00:00 web-1 (sd-pam)[3]: x",
			`{"app":"(sd-pam)","facility":"mail","host":"web-1","level":"info"}`, "2025-10-09T08:00:00Z", "x", []string{"proc_id=3"},
		},
		{
			"an empty process id", "<22>Oct  9 08:00:00 web-1 a[]: x",
			`{"app":"a","facility":"mail","host":"web-1","level":"info"}`, "2025-10-09T08:00:00Z", "x", nil,
		},
		{
			"brackets without a name", "<22>Oct  9 08:00:00 web-1 [3]: x",
			`{"facility":"mail","host":"web-1","level":"info"}`, "2025-10-09T08:00:00Z", "[3]: x", nil,
		},
		{
			"nothing behind the tag", "<22>Oct  9 08:00:00 web-1 a:",
			`{"app":"a","facility":"mail","host":"web-1","level":"info"}`, "2025-10-09T08:00:00Z", "", nil,
		},
		{
			"nothing behind the host's place", "<22>Oct  9 08:00:00 word",
			`{"facility":"mail","host":"192.0.2.7","level":"info"}`, "2025-10-09T08:00:00Z", "word", nil,
		},
		{
			"nothing behind the time", "<22>Oct  9 08:00:00",
			`{"facility":"mail","host":"192.0.2.7","level":"info"}`, "2025-10-09T08:00:00Z", "", nil,
		},
		{
			"logger", `<155>1 2026-11-24T01:02:47.781638+00:00 vm shop - - [timeQuality tzKnown="1" isSynced="0"] rfc5424 --tcp plain`,
			`{"app":"shop","facility":"local3","host":"vm","level":"error"}`, "2026-11-24T01:02:47.781638Z", "rfc5424 --tcp plain",
			[]string{"timeQuality.isSynced=0", "timeQuality.tzKnown=1"},
		},
		{
			"logger --rfc5424=notime,nohost", "<13>1 - - shop - - - nohost --tcp",
			`{"app":"shop","facility":"user","host":"192.0.2.7","level":"info"}`, "", "nohost --tcp", nil,
		},
		{
			"logger --rfc3164", "<156>Oct  9 01:02:47 vm shop[42]: pid --tcp",
			`{"app":"shop","facility":"local3","host":"vm","level":"warn"}`, "2025-10-09T01:02:47Z", "pid --tcp", []string{"proc_id=42"},
		},
		{
			"rsyslog, RSYSLOG_SyslogProtocol23Format", "<13>1 2026-11-24T01:03:23.379420+00:00 web-1 shop 812 - -  two",
			`{"app":"shop","facility":"user","host":"web-1","level":"info"}`, "2026-11-24T01:03:23.37942Z", " two", []string{"proc_id=812"},
		},
		{
			"rsyslog, RSYSLOG_ForwardFormat", "<30>2026-11-24T01:03:23.579083+00:00 web-1 app[7]: multi#012line#011tab",
			`{"app":"app","facility":"daemon","host":"web-1","level":"info"}`, "2026-11-24T01:03:23.579083Z", "multi#012line#011tab", []string{"proc_id=7"},
		},
		{
			"rsyslog, forwarding RFC 5424 as RFC 3164", "<165>2003-10-11T22:14:15.003Z mymachine.example.com evntslog \ufeffAn évent",
			`{"facility":"local4","host":"mymachine.example.com","level":"info"}`, "2003-10-11T22:14:15.003Z", "evntslog \ufeffAn évent", nil,
		},
		{
			"syslog-ng", `<165>1 2003-10-11T22:14:15+00:00 mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" x="a\"b\]c"] An event`,
			`{"app":"evntslog","facility":"local4","host":"mymachine.example.com","level":"info"}`, "2003-10-11T22:14:15Z", "An event",
			[]string{"exampleSDID@32473.iut=3", `exampleSDID@32473.x=a"b]c`, "msg_id=ID47"},
		},
		{
			"syslog-ng, several lines", "<30>1 2026-10-09T08:00:00+00:00 vm app 7 - [meta sequenceId=\"3\"] multi\nline\ttab",
			`{"app":"app","facility":"daemon","host":"vm","level":"info"}`, "2026-10-09T08:00:00Z", "multi\nline\ttab", []string{"meta.sequenceId=3", "proc_id=7"},
		},
		{
			"syslog-ng with frac-digits(3)", "<30>Oct  9 08:00:00.744 vm no tag here",
			`{"facility":"daemon","host":"vm","level":"info"}`, "2025-10-09T08:00:00.744Z", "no tag here", nil,
		},
		{
			"a BOM stays", "<22>Oct  9 08:00:00 web-1 a: \ufeffx",
			`{"app":"a","facility":"mail","host":"web-1","level":"info"}`, "2025-10-09T08:00:00Z", "\ufeffx", nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := row{Labels: c.labels, Time: testNow, Line: c.line, Metadata: append(severity(c.message), c.metadata...)}
			slices.Sort(want.Metadata)
			if c.time != "" {
				want.Time = at(t, c.time)
			}
			got, b := one(t, c.message, testNow, decodetest.Limits)
			decodetest.SameRows(t, []row{got}, []row{want})
			if b.Stamped != (c.time == "") {
				t.Errorf("stamped: %v", b.Stamped)
			}
		})
	}
}

// What can't be read is kept as it came.
func TestUnparsed(t *testing.T) {
	long := strings.Repeat("x", 256)
	const (
		user    = `{"facility":"user","host":"192.0.2.7","level":"info"}`
		noPRI   = "it does not begin with a PRI of 0 to 191"
		neither = "after the PRI there is neither the version of RFC 5424 nor the timestamp of RFC 3164"
		tooLong = "the host or the app has more than 255 bytes"
	)
	for _, c := range []struct{ message, labels, reason string }{
		{"", `{"host":"192.0.2.7"}`, noPRI},
		{"<", `{"host":"192.0.2.7"}`, noPRI},
		{"<>1 - - - - - - x", `{"host":"192.0.2.7"}`, noPRI},
		{"<-1>1 - - - - - - x", `{"host":"192.0.2.7"}`, noPRI},
		{"<192>1 - - - - - - x", `{"host":"192.0.2.7"}`, noPRI},
		{"<0014>1 - - - - - - x", `{"host":"192.0.2.7"}`, noPRI},
		{" <14>1 - - - - - - x", `{"host":"192.0.2.7"}`, noPRI},
		{"\xff", `{"host":"192.0.2.7"}`, noPRI},
		{"<14>", user, neither},
		{"<14>hello world", user, neither},
		{"<14>2 - - - - - - x", user, neither},
		{"<14>oct  9 08:00:00 h a: x", user, neither},
		{"<14>ctN  9 08:00:00 h a: x", user, neither},
		{"<14>Oct 32 08:00:00 h a: x", user, neither},
		{"<14>Oct  0 08:00:00 h a: x", user, neither},
		{"<14>Oct  9 8:00:00 h a: x", user, neither},
		{"<14>Oct  9 08:00:0 h a: x", user, neither},
		{"<14>Oct  9 24:00:00 h a: x", user, neither},
		{"<14>Oct  9 08:60:00 h a: x", user, neither},
		{"<14>Oct  9 08:00:60 h a: x", user, neither},
		{"<14>Oct  9 08:00:00: x", user, neither},
		{"<14>Feb 30 08:00:00 h a: x", user, neither},
		{"<14>2025-13-01T00:00:00Z h a: x", user, `timestamp "2025-13-01T00:00:00Z" is neither unix time nor RFC 3339 nor a date`},
		{"<14>1 ", user, "the timestamp is missing"},
		{"<14>1  h a p m - x", user, "the timestamp is missing"},
		{"<14>1 -", user, "the timestamp is missing"},
		{"<14>1 - ", user, "the host name is missing"},
		{"<14>1 - h", user, "the host name is missing"},
		{"<14>1 - h a", user, "the app name is missing"},
		{"<14>1 - h a p", user, "the process id is missing"},
		{"<14>1 - h a p m", user, "the message id is missing"},
		{"<14>1 2025-10-01 h a p m - x", user, "the timestamp does not follow RFC 3339"},
		{"<14>1 1760000000 h a p m - x", user, "the timestamp does not follow RFC 3339"},
		{"<14>1 3000-01-01T00:00:00Z h a p m - x", user, `timestamp "3000-01-01T00:00:00Z" is outside of 1900-01-01 to 2262-04-11`},
		{"<14>1 - h a p m ", user, badStructured},
		{"<14>1 - h a p m x", user, badStructured},
		{"<14>1 - h a p m -x", user, badStructured},
		{"<14>1 - h a p m [", user, badStructured},
		{"<14>1 - h a p m []", user, badStructured},
		{"<14>1 - h a p m [a", user, badStructured},
		{"<14>1 - h a p m [a ]", user, badStructured},
		{"<14>1 - h a p m [a b]", user, badStructured},
		{"<14>1 - h a p m [a b=]", user, badStructured},
		{"<14>1 - h a p m [a b=c]", user, badStructured},
		{`<14>1 - h a p m [a b="]`, user, badStructured},
		{`<14>1 - h a p m [a b="c\"]`, user, badStructured},
		{`<14>1 - h a p m [a b="c"`, user, badStructured},
		{`<14>1 - h a p m [a b="c"x]`, user, badStructured},
		{`<14>1 - h a p m [a b="c"  d="e"]`, user, badStructured},
		{`<14>1 - h a p m [a ="c"]`, user, badStructured},
		{`<14>1 - h a p m [a b="c"]x`, user, badStructured},
		{`<14>1 - h a p m [a b="c"][`, user, badStructured},
		{"<14>1 - h\xff a p m - x", user, `the value of label "host" is not valid UTF-8: "h\xff"`},
		{"<14>1 - h a\xff p m - x", user, `the value of label "app" is not valid UTF-8: "a\xff"`},
		{"<14>Oct  9 08:00:00 h\xff a: x", user, `the value of label "host" is not valid UTF-8: "h\xff"`},
		{"<14>1 - " + long + " a p m - x", user, tooLong},
		{"<14>Oct  9 08:00:00 h " + long + ": x", user, tooLong},
	} {
		got, _ := one(t, c.message, testNow, decodetest.Limits)
		decodetest.SameRows(t, []row{got}, []row{{Labels: c.labels, Time: testNow, Line: c.message, Metadata: append(severity(c.message), "syslog_error="+c.reason)}})
	}

	var p Parser
	var b logs.Batch
	p.Append(&b, []byte("x"), testNow, decodetest.Limits, "")
	if got := decodetest.Rows(t, &b)[0].Labels; got != decode.Unlabeled {
		t.Error(got)
	}
}

func TestFacilitiesAndLevels(t *testing.T) {
	const names = "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock local0 local1 local2 local3 local4 local5 local6 local7"
	for facility, name := range strings.Fields(names) {
		for severity, level := range []string{"fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug"} {
			got, _ := one(t, fmt.Sprintf("<%d>1 - h - - - - x", 8*facility+severity), testNow, decodetest.Limits)
			if want := fmt.Sprintf(`{"facility":%q,"host":"h","level":%q}`, name, level); got.Labels != want {
				t.Errorf("%s, want %s", got.Labels, want)
			}
		}
	}
}

// The year of RFC 3164 is the one that puts the time nearest to now.
func TestYear(t *testing.T) {
	for _, c := range []struct{ now, text, want string }{
		{"2025-06-15T12:00:00Z", "Jun 15 12:00:00", "2025-06-15T12:00:00Z"},
		{"2026-01-01T00:00:01Z", "Dec 31 23:59:59", "2025-12-31T23:59:59Z"},
		{"2025-12-31T23:59:59Z", "Jan  1 00:00:01", "2026-01-01T00:00:01Z"},
		{"2026-01-01T12:00:00Z", "Jan  1 00:00:00", "2026-01-01T00:00:00Z"},
		{"2025-12-31T12:00:00Z", "Dec 31 23:00:00", "2025-12-31T23:00:00Z"},
		{"2025-03-01T00:00:00Z", "Dec  1 00:00:00", "2024-12-01T00:00:00Z"},
		{"2025-10-01T00:00:00Z", "Feb  1 00:00:00", "2026-02-01T00:00:00Z"},
		{"2025-01-10T00:00:00Z", "Feb 29 00:00:00", "2024-02-29T00:00:00Z"},
		{"2027-06-01T00:00:00Z", "Feb 29 00:00:00", "2028-02-29T00:00:00Z"},
		{"2024-03-01T00:00:00Z", "Feb 29 23:59:59.5", "2024-02-29T23:59:59.5Z"},
	} {
		got, b := one(t, "<13>"+c.text+" h a: x", at(t, c.now), decodetest.Limits)
		if got.Time != at(t, c.want) || b.Stamped {
			t.Errorf("%s at %s: %s, stamped %v", c.text, c.now, time.Unix(0, got.Time).UTC(), b.Stamped)
		}
	}
}

func TestTruncated(t *testing.T) {
	for _, c := range []struct {
		message  string
		cut, max int
		line     string
		metadata []string
	}{
		{"<14>1 - - - - - - 12345", 0, 5, "12345", nil},
		{"<14>1 - - - - - - 123456", 0, 5, "12345", []string{"truncated_bytes=1"}},
		{"<14>1 - - - - - - 1234é6", 0, 5, "1234", []string{"truncated_bytes=3"}},
		{"<14>1 - - - - - - 12€", 0, 4, "12", []string{"truncated_bytes=3"}},
		{"<14>1 - - - - - - 1😀", 0, 4, "1", []string{"truncated_bytes=4"}},
		{"<14>1 - - - - - - 1😀", 0, 5, "1😀", nil},
		{"<14>1 - - - - - - 1\x80\x80\x80\x80\x80", 0, 5, "1\x80\x80\x80\x80", []string{"truncated_bytes=1"}},
		{"<14>1 - - - - - - 123\xff\xff\xff", 0, 4, "123\xff", []string{"truncated_bytes=2"}},
		{"<14>1 - - - - - - 123", 7, 5, "123", []string{"truncated_bytes=7"}},
		{"<14>1 - - - - - - 123\xc3", 7, 5, "123", []string{"truncated_bytes=8"}},
		{"<14>1 - - - - - - 1234567", 7, 5, "12345", []string{"truncated_bytes=9"}},
	} {
		var p Parser
		var b logs.Batch
		p.AppendCut(&b, []byte(c.message), c.cut, testNow, decode.Limits{MaxLineBytes: c.max}, testPeer)
		decodetest.SameRows(t, decodetest.Rows(t, &b), []row{{Labels: `{"facility":"user","host":"192.0.2.7","level":"info"}`, Time: testNow, Line: c.line, Metadata: c.metadata}})
	}
	got, _ := one(t, "no syslog", testNow, decode.Limits{MaxLineBytes: 4})
	decodetest.SameRows(t, []row{got}, []row{{
		Labels: `{"host":"192.0.2.7"}`, Time: testNow, Line: "no s",
		Metadata: []string{"syslog_error=it does not begin with a PRI of 0 to 191", "truncated_bytes=5"},
	}})
}

// A stream goes on as long as the labels stay the same.
func TestRuns(t *testing.T) {
	var p Parser
	var b logs.Batch
	for range 2 { // the second time the labels come from the cache
		for _, message := range []string{
			"<14>1 - h a - - - 1", "<14>Oct  9 08:00:00 h a: 2", "<11>1 - h a - - - 3", "<14>1 - h a - - - 4", "<14>1 - ha - - - - 5", "6",
		} {
			p.Append(&b, []byte(message), testNow, decodetest.Limits, testPeer)
		}
	}
	want := []logs.Stream{
		{Labels: `{"app":"a","facility":"user","host":"h","level":"info"}`, Entries: 2},
		{Labels: `{"app":"a","facility":"user","host":"h","level":"error"}`, Entries: 1},
		{Labels: `{"app":"a","facility":"user","host":"h","level":"info"}`, Entries: 1},
		{Labels: `{"facility":"user","host":"ha","level":"info"}`, Entries: 1},
		{Labels: `{"host":"192.0.2.7"}`, Entries: 1},
	}
	want = append(want, want...)
	if got := fmt.Sprint(b.Streams); got != fmt.Sprint(want) {
		t.Errorf("\n got %s\nwant %v", got, want)
	}
}

// Names of metadata are bounded, and what they would have held is kept.
func TestNames(t *testing.T) {
	var p Parser
	var b logs.Batch
	for i := range 3 {
		var message strings.Builder
		fmt.Fprintf(&message, "<14>1 - - - p m [x%d", i)
		for j := range 4000 {
			fmt.Fprintf(&message, ` p%d="%d"`, j, j)
		}
		message.WriteString(`][y z="\]"] text`)
		p.Append(&b, []byte(message.String()), testNow, decode.Limits{MaxLineBytes: 1}, testPeer)
	}
	p.Append(&b, []byte("not syslog"), testNow, decodetest.Limits, testPeer)
	if n := len(b.Metadata); n > decode.MaxMetadataNames || n < decode.MaxMetadataNames-ownNames {
		t.Errorf("%d names", n)
	}
	if !slices.ContainsFunc(decodetest.Rows(t, &b)[2].Metadata, func(m string) bool {
		return strings.HasPrefix(m, `structured_data=[x2 p0="0" p1="1"`) && strings.HasSuffix(m, ` p3999="3999"][y z="\]"]`)
	}) {
		t.Error("what has no place is lost")
	}

	id := strings.Repeat("i", 254)
	got, _ := one(t, `<14>1 - - - - - [a b="c"][`+id+`][`+id+` p="1"][d e="f"] x`, testNow, decodetest.Limits)
	decodetest.SameRows(t, []row{got}, []row{{
		Labels: `{"facility":"user","host":"192.0.2.7","level":"info"}`, Time: testNow, Line: "x",
		Metadata: []string{"a.b=c", id + "=", "structured_data=[" + id + ` p="1"][d e="f"]`},
	}})
}

func TestBatchOwnsItsBytes(t *testing.T) {
	var p Parser
	var b logs.Batch
	message := []byte(`<14>1 - host app 7 id [a b="c"] text`)
	p.Append(&b, message, testNow, decodetest.Limits, testPeer)
	for i := range message {
		message[i] = 'X'
	}
	decodetest.SameRows(t, decodetest.Rows(t, &b), []row{{
		Labels: `{"app":"app","facility":"user","host":"host","level":"info"}`, Time: testNow, Line: "text", Metadata: []string{"a.b=c", "msg_id=id", "proc_id=7"},
	}})
}

func TestMemory(t *testing.T) {
	const n = 1 << 20
	for name, message := range map[string]string{
		"tiny parameters": "<14>1 - - - - - [a" + strings.Repeat(` b=""`, n/5) + "]",
		"tiny elements":   "<14>1 - - - - - " + strings.Repeat("[a]", n/3),
		"long id":         "<14>1 - - - - - [" + strings.Repeat("a", n/2) + strings.Repeat(` b=""`, n/10) + "]",
		"escapes":         `<14>1 - - - - - [a b="` + strings.Repeat(`\\`, n/2) + `"]`,
		"long host":       "<14>1 - " + strings.Repeat("h", n) + " - - - -",
		"no end":          "<14>1 - - - - - " + strings.Repeat("[a", n/2),
	} {
		text := []byte(message)
		got := decodetest.MemoryFactor(len(text), func(b *logs.Batch) error {
			new(Parser).Append(b, text, testNow, decodetest.Limits, testPeer)
			return nil
		})
		t.Logf("%s: %.1f bytes a byte", name, got)
		// Columns grow by copying, so that what was allocated in all is some times what is in use at the end.
		if got > 30 {
			t.Errorf("%s: %.1f bytes allocated for each of the message", name, got)
		}
	}
}

func FuzzAppend(f *testing.F) {
	for _, message := range []string{
		"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed",
		`<165>1 - - evntslog 1 ID47 [exampleSDID@32473 iut="3" eventSource="A\"p\]p\\"][x] text`,
		"<34>Oct 11 22:14:15 mymachine su[42]: text", "<34>Feb 29 22:14:15.123 su: text", "<14>2025-10-01T10:00:00.1+02:00 h t: x", "Use the BFG!", "<191>",
	} {
		f.Add([]byte(message), 0, testPeer)
	}
	f.Add([]byte("<1>1 - \xff - - - - é"), 1, "\xff")
	limits := decode.Limits{MaxLineBytes: 100}
	f.Fuzz(func(t *testing.T, message []byte, cut int, peer string) {
		cut = max(0, min(cut, 1<<30))
		var p Parser
		var b logs.Batch
		for range 2 {
			p.AppendCut(&b, message, cut, testNow, limits, peer)
		}
		rows := decodetest.Rows(t, &b)
		decodetest.SameRows(t, rows[:1], rows[1:])
		got := rows[0]
		if !bytes.Contains(message, []byte(got.Line)) || len(got.Line) > limits.MaxLineBytes {
			t.Fatalf("line %q of %q", got.Line, message)
		}
		if !utf8.ValidString(got.Labels) {
			t.Fatalf("labels %q", got.Labels)
		}
		for _, m := range got.Metadata {
			if strings.HasPrefix(m, "syslog_error=") && cut == 0 && len(message) <= limits.MaxLineBytes && got.Line != string(message) {
				t.Fatalf("%s, and the line is %q", m, got.Line)
			}
		}
	})
}
