package terminal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casteloig/logthra/command/answer"
	"github.com/casteloig/logthra/shared/logs"
)

// Series writes the series of a metric query.
type Series struct {
	Out    io.Writer
	Format Format
	Kind   answer.Kind
	Color  bool
	Notes  io.Writer // is told the labels that all series of a chart have in common

	// Of a chart.
	Width      int   // of the terminal
	Start, End int64 // that were asked for, unix nanoseconds
	Step       int64 // nanoseconds between points
}

// grid is where the points of a chart can be.
type grid struct {
	start, step int64
	points      int
}

// grid is that of series. Who computes them may have moved the times to whole steps: the first point tells.
func (s *Series) grid(series []answer.Series) grid {
	g := grid{start: s.Start, step: s.Step}
	last := s.End
	for i := range series {
		for j, point := range series[i].Points {
			if i == 0 && j == 0 {
				g.start -= ((s.Start-point.Time)%s.Step + s.Step) % s.Step
			}
			last = max(last, point.Time)
		}
	}
	g.points = int((last-g.start)/s.Step) + 1
	return g
}

// Write writes series in the order in which they are given. Those of a chart or a table have to be given all at once.
func (s *Series) Write(series []answer.Series) error {
	var text buffer
	switch {
	case s.Format == Raw:
		s.addRaw(&text, series)
	case s.Format == JSON:
		if err := addJSON(&text, series); err != nil {
			return err
		}
	case s.Format == Text && s.Kind == answer.Matrix && s.Step > 0:
		s.addChart(&text, series)
	default:
		s.addTable(&text, series)
	}
	_, err := s.Out.Write(text)
	return err
}

// Sort brings series into the order of their last values, the greatest first; those without one last.
func Sort(series []answer.Series) {
	slices.SortStableFunc(series, func(a, b answer.Series) int { return cmp.Compare(b.Last(), a.Last()) }) // NaN is less than any other
}

// addRaw adds a line a point: the time if there are several, the value, and the labels if there are any.
func (s *Series) addRaw(text *buffer, series []answer.Series) {
	for i := range series {
		labels := ""
		if len(series[i].Labels) > 0 {
			labels = "\t" + series[i].Labels.String()
		}
		for _, point := range series[i].Points {
			if s.Kind == answer.Matrix {
				text.add(time.Unix(0, point.Time).UTC().Format(exactLayout), "\t")
			}
			text.add(exact(point.Value), labels, "\n")
		}
	}
}

// exact is a number with all its digits.
func exact(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// addJSON adds an object a point. JSON has no NaN and no infinity: they are strings.
func addJSON(text *buffer, series []answer.Series) error {
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	for i := range series {
		for _, point := range series[i].Points {
			row := struct {
				Timestamp string        `json:"timestamp"`
				Labels    answer.Labels `json:"labels"`
				Value     any           `json:"value"`
			}{time.Unix(0, point.Time).UTC().Format(exactLayout), series[i].Labels, point.Value}
			if math.IsNaN(point.Value) || math.IsInf(point.Value, 0) {
				row.Value = exact(point.Value)
			}
			if err := encoder.Encode(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// addTable adds a table of labels and values.
func (s *Series) addTable(text *buffer, series []answer.Series) {
	var names []string
	for i := range series {
		for _, label := range series[i].Labels {
			if at, found := slices.BinarySearch(names, label.Name); !found {
				names = slices.Insert(names, at, label.Name)
			}
		}
	}
	heading := slices.Clone(names)
	if s.Kind == answer.Matrix {
		heading = append(heading, "TIME")
	}
	rows := [][]string{append(heading, "VALUE")}
	for i := range series {
		for _, point := range series[i].Points {
			var row []string
			for _, name := range names {
				row = append(row, string(appendPrintable(nil, series[i].Labels.Get(name), false, false)))
			}
			if s.Kind == answer.Matrix {
				row = append(row, local(point.Time))
			}
			rows = append(rows, append(row, number(point.Value)))
		}
	}
	addRows(text, rows, s.Color)
}

// addRows adds rows, the first of which is the heading, in columns. The last one is aligned to the right.
func addRows(text *buffer, rows [][]string, color bool) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for i, row := range rows {
		var line buffer
		for j, cell := range row {
			if j > 0 {
				line.add("  ")
			}
			begin := len(line)
			if j == len(row)-1 {
				line.pad(begin, widths[j]-utf8.RuneCountInString(cell))
			}
			line.add(cell)
			line.pad(begin, widths[j])
		}
		text.add(paint(color && i == 0, bold, string(line)), "\n")
	}
}

// addChart adds a line a series: what tells it from the others, its course, and its least, greatest and last value.
func (s *Series) addChart(text *buffer, series []answer.Series) {
	if len(series) == 0 {
		return
	}
	g, names := s.grid(series), distinct(series, s.Notes)
	words := [...]string{"min", "max", "last"}
	values := make([][len(words)]string, len(series))
	var widths [len(words)]int
	nameWidth, left := 0, s.Width
	for i := range series {
		least, greatest := bounds(series[i].Points)
		values[i] = [...]string{number(least), number(greatest), number(series[i].Last())}
		for j := range words {
			widths[j] = max(widths[j], len(values[i][j]))
		}
		nameWidth = max(nameWidth, utf8.RuneCountInString(names[i]))
	}
	for j, word := range words {
		left -= 2 + len(word) + 1 + widths[j]
	}
	if nameWidth > 0 {
		left -= 2
	}
	// Half of what is left is for the names, and more where the course does not need its half.
	nameWidth = min(nameWidth, max(left/2, left-g.points, narrowest))
	courseWidth := min(max(left-nameWidth, narrowest), g.points)
	for i := range series {
		if nameWidth > 0 {
			name := clip(names[i], nameWidth)
			text.add(paint(s.Color, cyan, name), strings.Repeat(" ", nameWidth-utf8.RuneCountInString(name)+2))
		}
		text.add(g.course(series[i].Points, courseWidth))
		for j, word := range words {
			text.add("  ", paint(s.Color, dim, word), " ", fmt.Sprintf("%*s", widths[j], values[i][j]))
		}
		text.add("\n")
	}
	if nameWidth > 0 {
		nameWidth += 2
	}
	if axis := g.axis(courseWidth); axis != "" {
		text.add(strings.Repeat(" ", nameWidth), paint(s.Color, dim, axis), "\n")
	}
}

// axis is the times of the first and the last column of a course, where the reader is; empty if it is too narrow.
func (g *grid) axis(width int) string {
	layout := "15:04:05"
	switch span := time.Duration(g.step * int64(g.points-1)); {
	case span >= 24*time.Hour:
		layout = "01-02 15:04"
	case span >= 10*time.Minute:
		layout = "15:04"
	}
	first := time.Unix(0, g.start).Format(layout)
	last := time.Unix(0, g.start+g.step*int64(g.points-1)).Format(layout)
	if width < len(first)+1+len(last) {
		return ""
	}
	return first + strings.Repeat(" ", width-len(first)-len(last)) + last
}

// narrowest is the least width of a name and of a course, however narrow the terminal.
const narrowest = 8

// distinct is what tells each series from the others: its labels without those that all have in common.
func distinct(series []answer.Series, notes io.Writer) []string {
	var common answer.Labels
	if len(series) > 1 {
		common = slices.Clone(series[0].Labels)
	}
	for i := range series {
		labels := series[i].Labels
		common = slices.DeleteFunc(common, func(label logs.Label) bool { return labels.Get(label.Name) != label.Value })
	}
	if len(common) > 0 {
		fmt.Fprintln(notes, "common labels:", common)
	}
	names := make([]string, len(series))
	for i := range series {
		var pairs []string
		for _, label := range series[i].Labels {
			if common.Get(label.Name) != label.Value {
				pairs = append(pairs, label.Name+"="+valueOf(label))
			}
		}
		names[i] = strings.Join(pairs, " ")
	}
	return names
}

// course draws points as blocks, from zero to the greatest, or from the least to zero. Where there are more points than columns, a
// column is the greatest of its points: a peak is what is looked for.
func (g *grid) course(points []answer.Point, width int) string {
	blocks := []rune("▁▂▃▄▅▆▇█")
	columns := make([]float64, width)
	for i := range columns {
		columns[i] = math.NaN()
	}
	for _, point := range points {
		at := int((point.Time - g.start + g.step/2) / g.step)
		if at < 0 || at >= g.points || math.IsNaN(point.Value) {
			continue
		}
		if g.points > width {
			at = at * width / g.points
		}
		if !(columns[at] > point.Value) {
			columns[at] = point.Value
		}
	}
	least, greatest := bounds(points)
	least, greatest = min(least, 0), max(greatest, 0)
	row := make([]rune, width)
	for i, value := range columns {
		switch share := (value - least) / (greatest - least); {
		case math.IsNaN(value):
			row[i] = ' '
		case math.IsNaN(share): // all are zero, or infinite
			row[i] = blocks[0]
		default:
			row[i] = blocks[int(math.Round(share*float64(len(blocks)-1)))]
		}
	}
	return string(row)
}

// bounds are the least and the greatest value; NaN where there is none.
func bounds(points []answer.Point) (least, greatest float64) {
	least, greatest = math.NaN(), math.NaN()
	for _, point := range points {
		if math.IsNaN(point.Value) {
			continue
		}
		if !(least <= point.Value) {
			least = point.Value
		}
		if !(greatest >= point.Value) {
			greatest = point.Value
		}
	}
	return least, greatest
}

// number is a number for people: whole ones with all their digits, others with four.
func number(v float64) string {
	switch size := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case v == math.Trunc(v) && size < 1e15:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case size >= 1000 && size < 1e15:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// clip shortens a text to a width.
func clip(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

func paint(wanted bool, color, text string) string {
	if !wanted {
		return text
	}
	return color + text + reset
}
