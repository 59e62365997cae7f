package command

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"github.com/casteloig/logthra/command/answer"
)

type seriesCommand struct {
	span        `embed:""`
	Selector    []string `arg:"" optional:"" help:"Which streams, as {app=\"api\"}; those of any of several; none: all."`
	Cardinality bool     `help:"Not the streams, but how many values each label has, and how many streams have the label."`
	JSON        bool     `name:"json" help:"As JSON."`

	reading `embed:"" group:"Gateway:"`
}

// Validate is called by the command line's parser.
func (c *seriesCommand) Validate() error { return c.span.Validate() }

// Run lists label sets, a line each.
func (c *seriesCommand) Run(env *environment) error {
	parameters := c.parameters()
	parameters["match[]"] = c.Selector
	sets, err := list[answer.Labels](env, &c.reading, "series", parameters)
	if err != nil {
		return fmt.Errorf("series: %w", marked(strings.Join(c.Selector, " "), err))
	}
	if c.Cardinality {
		return printCardinality(os.Stdout, cardinality(sets), c.JSON)
	}
	if c.JSON {
		return printJSON(os.Stdout, sets)
	}
	lines := make([]string, len(sets))
	for i, set := range sets {
		lines[i] = set.String()
	}
	slices.Sort(lines)
	for _, line := range lines {
		if _, err := fmt.Println(line); err != nil {
			return err
		}
	}
	if len(lines) == 0 {
		fmt.Fprintln(notes(), "no streams")
	}
	return nil
}

// labelUse is how much a label divides streams.
type labelUse struct {
	Label   string `json:"label"`
	Values  int    `json:"values"`
	Streams int    `json:"streams"`
}

// cardinality counts the values of each label; those with the most come first.
func cardinality(sets []answer.Labels) []labelUse {
	values, streams := map[string]map[string]bool{}, map[string]int{}
	for _, set := range sets {
		for _, label := range set {
			if values[label.Name] == nil {
				values[label.Name] = map[string]bool{}
			}
			values[label.Name][label.Value] = true
			streams[label.Name]++
		}
	}
	uses := []labelUse{}
	for name, n := range streams {
		uses = append(uses, labelUse{name, len(values[name]), n})
	}
	slices.SortFunc(uses, func(a, b labelUse) int { return cmp.Or(b.Values-a.Values, cmp.Compare(a.Label, b.Label)) })
	return uses
}

func printCardinality(to io.Writer, uses []labelUse, asJSON bool) error {
	if asJSON {
		return printJSON(to, uses)
	}
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "LABEL\tVALUES\tSTREAMS")
	for _, use := range uses {
		_, _ = fmt.Fprintf(out, "%s\t%s\t%s\n", use.Label, humanize.Comma(int64(use.Values)), humanize.Comma(int64(use.Streams)))
	}
	return out.Flush()
}
