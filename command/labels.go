package command

import (
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/casteloig/logthra/command/answer"
)

type labelsCommand struct {
	span  `embed:""`
	Name  string `arg:"" optional:"" help:"A label, whose values are listed; none: the names of all labels."`
	Match string `placeholder:"SELECTOR" help:"Only labels of streams that it selects, as {app=\"api\"}."`
	JSON  bool   `name:"json" help:"As JSON."`

	reading `embed:"" group:"Gateway:"`
}

// Validate is called by the command line's parser.
func (c *labelsCommand) Validate() error { return c.span.Validate() }

// Run lists names or values, a line each.
func (c *labelsCommand) Run(env *environment) error {
	path, parameters := "labels", c.parameters()
	if c.Name != "" {
		path = "label/" + url.PathEscape(c.Name) + "/values"
	}
	if c.Match != "" {
		parameters.Set("query", c.Match)
	}
	names, err := list[string](env, &c.reading, path, parameters)
	if err != nil {
		return fmt.Errorf("labels: %w", marked(c.Match, err))
	}
	if c.JSON {
		return printJSON(os.Stdout, names)
	}
	for _, name := range names {
		if _, err := fmt.Println(name); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		fmt.Fprintln(notes(), "no labels")
	}
	return nil
}

// list asks for what is answered with a list, which is never nil.
func list[T any](env *environment, from *reading, path string, parameters url.Values) ([]T, error) {
	r, err := from.open()
	if err != nil {
		return nil, err
	}
	data := []T{}
	err = r.get(env.ctx, path, parameters, func(body io.Reader) error {
		got, warnings, err := answer.ReadData[T](body)
		data = append(data, got...)
		warn(warnings)
		return err
	})
	if env.ctx.Err() != nil {
		return nil, errReported
	}
	return data, err
}
