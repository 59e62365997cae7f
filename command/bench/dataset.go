package bench

import (
	"fmt"
	"time"
)

// DataSet is lines that queries are measured on: which they are follows from their number and Config.Seed alone. Each stream has
// as many as any other, spread evenly over the time.
type DataSet struct {
	Begin time.Time // of the first line
	Span  time.Duration
}

// Needle stands in one line of a DataSet, in its middle.
const Needle = "needle-5f0c1e7a2b"

// JSONApp is the label app of a tenth of the lines of a DataSet, which are JSON objects with a status.
const JSONApp = "orders"

// apps are the values of the label app. A generator makes those of JSONApp objects.
var apps = [...]string{"web", "catalog", JSONApp, "ledger", "bastion", "edge", "billing", "checkout", "archive", "vpn"}

var environments = [...]string{"prod", "prod", "prod", "staging", "dev"}

// labels are those of a stream: within the streams of an app, environments and then levels take turns.
func (*DataSet) labels(run string, stream int) map[string]string {
	of := stream / len(apps)
	return map[string]string{
		labelRun: run,
		"app":    apps[stream%len(apps)],
		"env":    environments[of%len(environments)],
		"level":  levels[of/len(environments)%len(levels)],
		"host":   fmt.Sprintf("node-%02d", stream%40),
		"pod":    fmt.Sprintf("%s-%d", apps[stream%len(apps)], of),
	}
}

// dataSet makes the lines of a DataSet in order of time, but for those of pushes that go side by side: push n has lines of a group of
// streams, and as many pushes as there are groups cover the same time.
type dataSet struct {
	*DataSet

	cfg       Config
	run       string
	generator *generator
	line      []byte
}

func (d *dataSet) streams(n, lines int) (streams []stream, size int) {
	most := min(d.cfg.StreamsPerPush, d.cfg.Streams)
	groups := (d.cfg.Streams + most - 1) / most
	group, round := n%groups, int64(n/groups)
	aRound := int64(groups) * int64(d.cfg.LinesPerPush)
	rounds := (d.cfg.Lines + aRound - 1) / aRound
	apart := float64(d.Span) / float64(rounds*aRound)
	needle := d.cfg.Lines/2 - int64(n)*int64(d.cfg.LinesPerPush)
	for first, i := group*most, group*most; i < min(first+most, d.cfg.Streams); i++ {
		streams = append(streams, stream{labels: d.labels(d.run, i)})
	}
	for i := range lines {
		s := &streams[i%len(streams)]
		number := group*most + i%len(streams)
		now := d.Begin.Add(time.Duration(float64(round*aRound+int64(i*groups+group)) * apart))
		d.generator.level = s.labels["level"]
		d.line = d.generator.append(d.line[:0], number, now)
		if int64(i) == needle {
			d.line = append(append(d.line, ' '), Needle...)
		}
		s.entries = append(s.entries, entry{now, string(d.line)})
		size += len(d.line)
	}
	return streams, size
}
