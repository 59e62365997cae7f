package limit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/casteloig/logthra/gateway/tenant"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/telemetry"
)

// fixture is a Limiter and what it tells.
type fixture struct {
	*Limiter

	gateways int
	counter  *telemetry.TenantCounter
	logged   bytes.Buffer
}

func start() *fixture {
	f := &fixture{gateways: 1, counter: telemetry.NewTenantCounter(prometheus.CounterOpts{Name: "limited_total", Help: "Refusals."}, "reason", 1000)}
	f.Limiter = New(func() int { return f.gateways }, f.counter, slog.New(slog.NewTextHandler(&f.logged, nil)))
	return f
}

// count is how many refusals are counted.
func (f *fixture) count(t *testing.T, tenant, reason string) int {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(f.counter)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() { // labels in order: reason, tenant
			if l := m.GetLabel(); l[0].GetValue() == reason && l[1].GetValue() == tenant {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// batch is one entry for each of the labels, a second apart, the last at begin.
func batch(labels ...string) *logs.Batch {
	b := new(logs.Batch)
	for i, l := range labels {
		b.AddStream(l)
		b.Lines = append(b.Lines, strings.Repeat("x", i)...)
		b.EndEntry(begin.Add(time.Duration(i+1-len(labels))*time.Second).UnixNano()+1, true)
	}
	return b
}

// refused is the limit that an error names.
func refused(t *testing.T, err error) *Error {
	t.Helper()
	over, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("the error is %v", err)
	}
	return over
}

// What is let in over a long time is the rate and one burst, and Retry-After is true.
func TestRate(t *testing.T) {
	for _, c := range []struct {
		name     string
		limits   tenant.Limits
		gateways int
		size     int
		want     float64 // pushes in 100 s
	}{
		{"pushes", tenant.Limits{PushesPerSecond: 5}, 1, 0, 505},
		{"pushes with a burst", tenant.Limits{PushesPerSecond: 5, PushesBurst: 100}, 1, 0, 600},
		{"pushes through two gateways", tenant.Limits{PushesPerSecond: 5}, 2, 0, 252.5},
		{"less than one a second", tenant.Limits{PushesPerSecond: 0.1}, 1, 0, 11},
		{"bytes", tenant.Limits{PushBytesPerSecond: 1000}, 1, 100, 1010},
		{"bytes, pushes larger than the burst", tenant.Limits{PushBytesPerSecond: 1000, PushBytesBurst: 1000}, 1, 5000, 20.2},
		{"bytes through four gateways", tenant.Limits{PushBytesPerSecond: 1000}, 4, 100, 252.5},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start()
			f.gateways = c.gateways
			taken, now := 0, begin
			for now.Before(begin.Add(100 * time.Second)) {
				p := f.Of("acme", c.limits)
				err := p.Admit(now)
				if err == nil {
					p.Charge(c.size)
					taken++
					continue
				}
				over := refused(t, err)
				if over.Wait <= 0 {
					t.Fatalf("%v is to be tried again in %s", err, over.Wait)
				}
				if again := p.Admit(now.Add(over.Wait / 2)); again == nil {
					t.Fatal("let in after half the time that was asked for")
				}
				now = now.Add(over.Wait + time.Microsecond)
			}
			if float64(taken) < c.want-1 || float64(taken) > c.want+1+c.want/100 {
				t.Errorf("%d pushes let in, want %g", taken, c.want)
			}
		})
	}
}

func TestTenantsDoNotShare(t *testing.T) {
	f := start()
	limits := tenant.Limits{PushesPerSecond: 1}
	for range 100 {
		_ = f.Of("noisy", limits).Admit(begin)
	}
	if err := f.Of("quiet", limits).Admit(begin); err != nil {
		t.Error(err)
	}
	if err := f.Of("free", tenant.Limits{}).Admit(begin); err != nil {
		t.Error(err)
	}
	if err := (Push{}).Admit(begin); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	const long = `{"a_long_name":"v","b":"a long value"}`
	for _, c := range []struct {
		name   string
		limits tenant.Limits
		labels []string
		reason string // of the refusal
		where  string
		kept   []int // entries, where single ones are refused; nil: the push is
		wait   bool
	}{
		{"nothing", tenant.Limits{MaxLinesPerPush: 3, MaxLineBytes: 2, MaxLabels: 2, MaxStreams: 2}, []string{`{"a":"1"}`, `{"a":"2"}`, `{"a":"1"}`}, "", "", []int{0, 1, 2}, false},
		{"lines", tenant.Limits{MaxLinesPerPush: 2}, []string{`{"a":"1"}`, `{"a":"1"}`, `{"a":"1"}`}, "max_lines_per_push", "", nil, false},
		{"line", tenant.Limits{MaxLineBytes: 1}, []string{`{"a":"1"}`, `{"a":"1"}`, `{"a":"1"}`}, "max_line_bytes", "entry 2", []int{0, 1}, false},
		{"labels", tenant.Limits{MaxLabels: 1}, []string{long, `{"a":"1"}`}, "max_labels", "entry 0", []int{1}, false},
		{"name", tenant.Limits{MaxLabelNameBytes: 10}, []string{`{"a":"1"}`, long}, "max_label_name_bytes", "entry 1", []int{0}, false},
		{"value", tenant.Limits{MaxLabelValueBytes: 11}, []string{long}, "max_label_value_bytes", "entry 0", []int{}, false},
		{"streams", tenant.Limits{MaxStreams: 1}, []string{`{"a":"1"}`, `{"a":"2"}`, `{"a":"1"}`}, "max_streams", "entry 1", []int{0, 2}, true},
		{"age", tenant.Limits{MaxAge: 1500 * time.Millisecond, OutOfWindow: tenant.Reject}, []string{`{"a":"1"}`, `{"a":"1"}`, `{"a":"1"}`}, "max_age", "entry 0", []int{1, 2}, false},
		{"age, not looked at", tenant.Limits{MaxAge: time.Millisecond, MaxFuture: 1, OutOfWindow: tenant.Off}, []string{`{"a":"1"}`, `{"a":"1"}`}, "", "", []int{0, 1}, false},
		{"future", tenant.Limits{MaxFuture: 1, OutOfWindow: tenant.Reject}, []string{`{"a":"1"}`}, "", "", []int{0}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := start().Of("acme", c.limits).Check(batch(c.labels...), begin.UnixNano(), nil)
			if c.reason == "" && err != nil {
				t.Fatal(err)
			}
			if c.reason != "" {
				over := refused(t, err)
				if over.Reason != c.reason || over.Where != c.where || over.Wait > 0 != c.wait || !strings.Contains(over.Text, c.reason) {
					t.Errorf("refused: %+v", over)
				}
			}
			// The same where the protocol can refuse single entries.
			f, b := start(), batch(c.labels...)
			var gone []int
			err = f.Of("acme", c.limits).Check(b, begin.UnixNano(), func(entry int, err *Error) {
				gone = append(gone, entry)
				if err.Reason != c.reason {
					t.Errorf("entry %d: %v", entry, err)
				}
			})
			if c.kept == nil {
				if refused(t, err).Reason != c.reason {
					t.Error(err)
				}
				return
			}
			if err != nil || b.Len() != len(c.kept) || len(gone)+len(c.kept) != len(c.labels) {
				t.Fatalf("%d entries stay, %v are gone (%v)", b.Len(), gone, err)
			}
			for i, entry := range c.kept {
				if int(b.Lengths[i]) != entry || slices.Contains(gone, entry) {
					t.Errorf("entry %d has %d bytes, want those of %d", i, b.Lengths[i], entry)
				}
			}
			if c.reason != "" && f.count(t, "acme", c.reason) != len(gone) {
				t.Error("not counted")
			}
		})
	}
}

func TestClamp(t *testing.T) {
	limits := tenant.Limits{MaxAge: time.Hour, MaxFuture: time.Minute, OutOfWindow: tenant.Clamp}
	b := new(logs.Batch)
	b.AddStream(`{"a":"1"}`)
	for _, at := range []time.Time{begin.Add(-2 * time.Hour), begin.Add(-time.Hour), begin, begin.Add(time.Minute), begin.Add(time.Hour), time.Unix(0, logs.MinTime)} {
		b.EndEntry(at.UnixNano(), true)
	}
	b.Coarse = false
	if err := start().Of("acme", limits).Check(b, begin.UnixNano(), nil); err != nil {
		t.Fatal(err)
	}
	old, soon := begin.Add(-time.Hour).UnixNano(), begin.Add(time.Minute).UnixNano()
	if want := []int64{old, old, begin.UnixNano(), soon, soon, old}; !slices.Equal(b.Timestamps, want) {
		t.Errorf("the times are %v, want %v", b.Timestamps, want)
	}
	if !b.Coarse || !b.Stamped {
		t.Error("the batch looks as if a retry gave the same")
	}
	c := b.Metadata[0]
	want := "2026-01-02T01:04:05Z" + "2026-01-02T04:04:05Z" + "1900-01-01T00:00:00Z"
	if len(b.Metadata) != 1 || c.Name != "original_timestamp" || !slices.Equal(c.Entries, []uint32{0, 4, 5}) || string(c.Values) != want {
		t.Errorf("metadata %+v", b.Metadata)
	}
}

// A stream counts until it got nothing for a while, and one that is used stays.
func TestStreamsAge(t *testing.T) {
	f := start()
	limits := tenant.Limits{MaxStreams: 2}
	check := func(after time.Duration, labels string) error {
		return f.Of("acme", limits).Check(batch(labels), begin.Add(after).UnixNano(), nil)
	}
	for _, c := range []struct {
		after  time.Duration
		labels string
		taken  bool
	}{
		{0, "a", true}, {0, "b", true}, {0, "c", false}, {streamsPeriod - 1, "c", false},
		{streamsPeriod, "a", true}, {streamsPeriod, "c", false}, {2*streamsPeriod - 1, "c", false},
		{2 * streamsPeriod, "c", true}, {2 * streamsPeriod, "b", false}, {2 * streamsPeriod, "a", true},
		{10 * streamsPeriod, "d", true}, {10 * streamsPeriod, "e", true}, {10 * streamsPeriod, "a", false},
	} {
		err := check(c.after, fmt.Sprintf(`{"app":%q}`, c.labels))
		if (err == nil) != c.taken {
			t.Errorf("after %s, stream %s: %v", c.after, c.labels, err)
		}
		if err != nil && refused(t, err).Wait > streamsPeriod {
			t.Errorf("to be tried again in %s", refused(t, err).Wait)
		}
	}
}

func TestBoundedState(t *testing.T) {
	f := start()
	for i := range 2 * maxTenants {
		f.Of(fmt.Sprint("tenant", i), tenant.Limits{})
	}
	if len(f.tenants) > maxTenants {
		t.Errorf("%d tenants are kept", len(f.tenants))
	}
	limits := tenant.Limits{MaxLabels: 5}
	for i := range 3*maxRemembered/1000 + 1 {
		labels := make([]string, 1000)
		for j := range labels {
			labels[j] = fmt.Sprintf(`{"pod":"%d-%d"}`, i, j)
		}
		if err := f.Of("acme", limits).Check(batch(labels...), begin.UnixNano(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if s := &f.state("acme").streams; s.count() > 2*maxRemembered {
		t.Errorf("%d streams are remembered", s.count())
	}
}

// Whoever may name any tenant can't make the metrics grow without end.
func TestBoundedSeries(t *testing.T) {
	f := start()
	const tenants, own = 100_000, 1000
	for i := range tenants {
		err := f.Of(fmt.Sprint("tenant", i), tenant.Limits{MaxLinesPerPush: 1}).Check(batch(`{"a":"1"}`, `{"a":"2"}`), begin.UnixNano(), nil)
		if refused(t, err).Reason != reasonLines {
			t.Fatal(err)
		}
	}
	if n := testutil.CollectAndCount(f.counter); n != own+1 {
		t.Errorf("%d series", n)
	}
	if first, others := f.count(t, "tenant0", reasonLines), f.count(t, telemetry.OtherTenants, reasonLines); first != 1 || others != tenants-own {
		t.Errorf("%d of the first tenant, %d of those without series of their own", first, others)
	}
}

func TestSummary(t *testing.T) {
	f := start()
	for i := range 600 {
		_ = f.Of("acme", tenant.Limits{PushesPerSecond: 0.001}).Admit(begin.Add(time.Duration(i) * 200 * time.Millisecond))
	}
	lines := strings.Split(strings.TrimSpace(f.logged.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "pushes_per_second=1 ") || !strings.Contains(lines[1], "pushes_per_second=300 ") {
		t.Errorf("logged:\n%s", f.logged.String())
	}
}
