package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/casteloig/logthra/gateway/engine/pipeline"
	"github.com/casteloig/logthra/shared/logs"
)

// levelLines are lines of which some have a level, in one way or another.
func levelLines(n int) []line {
	rnd := rand.New(rand.NewPCG(3, 4))
	pieces := []string{
		"level", "LEVEL", "lvl", "severity", "Severity", "log_level", "loglevel", "levelname", "level_", "xlevel", "level2",
		"info", "INFO", "information", "inf", "warn", "Warning", "err", "ERROR", "errors", "critical", "crit", "fatal", "panic", "debug", "trace", "notice", "alert", "ınfo", "infoK",
		"=", "=", ":", ":", "==", "\"", "\"", "'", `\"`, `\'`, `\`, " ", " ", "\t", "\n", "\v", "\f", "\r", "_", "-", ".", ",", "[", "]", "{", "é", "\u212a", "\u017f", "\xff", "\xc3", "\x00", "1", "msg",
	}
	some := func(most int) string {
		var text strings.Builder
		for range rnd.IntN(most + 1) {
			text.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		return text.String()
	}
	values := []string{"info", "WARN", "Error", "bogus", "information!", "", "critical", "emergency", "K", "İnfo", "\xff"}
	var lines []line
	for i := range n {
		labels := `app="api"`
		if rnd.IntN(5) == 0 {
			labels += fmt.Sprintf(",%s=%q", pipeline.LevelNames[rnd.IntN(len(pipeline.LevelNames))], values[rnd.IntN(len(values)-1)])
		}
		if rnd.IntN(20) == 0 {
			labels = `app="api",lvl="trace",level="debug",x="y"`
		}
		var metadata []logs.Label
		for range rnd.IntN(3) * rnd.IntN(2) {
			names := append([]string{"level ", "Lvl", "trace_id"}, pipeline.LevelNames...)
			metadata = append(metadata, logs.Label{Name: names[rnd.IntN(len(names))], Value: values[rnd.IntN(len(values))]})
		}
		text := some(12)
		if i%7 == 0 {
			text = "ts=1 " + pieces[rnd.IntN(10)] + []string{"=", ":", " = ", `": "`, `\":\"`}[rnd.IntN(5)] + pieces[11+rnd.IntN(18)] + some(4)
		}
		lines = append(lines, line{labels, second(i % 3000), text, metadata})
	}
	return lines
}

func TestLevelInClickHouse(t *testing.T) {
	f := start(t)
	const n = 20_000
	f.push(t, "acme", levelLines(n)...)
	f.landAll(t)
	// Of streams that all have a level, of which none has, and of which some have.
	levels := map[string]int{}
	rows := 0
	for _, selector := range []string{`{level=~".+"}`, `{app="api",level="",LEVEL="",Level="",log_level="",severity="",SEVERITY="",Severity="",severity_text="",lvl="",loglevel=""}`, `{app="api"}`} {
		s := scope(t, selector)
		c, err := f.unflushed(t.Context(), s)
		must(t, err)
		streams, err := f.streams(t.Context(), s, c, &Stats{})
		must(t, err)
		q := f.rowsOf("acme", streams, c, s.Start, s.End)
		block := newRows()
		var level proto.ColStr
		q.columns = append(slices.Clone(rowColumns), q.level(streams)+" AS level")
		var labels pipeline.Labels
		must(t, f.read(t.Context(), q, Limits{}, &Stats{}, append(block.result(), proto.ResultColumn{Name: "level", Data: &level}), func(n int) error {
			for i := range n {
				of, metadata := streams[block.stream[i]], block.metadataOf(i)
				labels.Reset(of.labels, metadata)
				want := pipeline.DetectLevel(&labels, block.line.RowBytes(i))
				if got := level.Row(i); got != want {
					t.Errorf("%s %q %q: ClickHouse says %s, not %s", of.canonical, metadata, block.line.Row(i), got, want)
				}
				levels[want]++
				rows++
			}
			return nil
		}))
	}
	if rows < n*3/2 || len(levels) != 8 || levels[pipeline.UnknownLevel] > rows*2/3 {
		t.Errorf("%d rows, of the levels %v", rows, levels)
	}
}
