package config

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// file is a YAML file whose keys are names of flags.
type file map[string]any

// YAML reads a configuration file for kong.
func YAML(r io.Reader) (kong.Resolver, error) {
	f := file{}
	decoder := yaml.NewDecoder(r)
	if err := decoder.Decode(&f); err != nil && err != io.EOF { //nolint:errorlint // the decoder returns it bare
		return nil, fmt.Errorf("not a YAML mapping of flags to values: %w", err)
	}
	return f, nil
}

// Validate implements kong.Resolver: a key that is no flag of any role or tool is an error.
func (f file) Validate(app *kong.Application) error {
	known := map[string]bool{}
	var walk func(*kong.Node)
	walk = func(node *kong.Node) {
		for _, flag := range node.Flags {
			known[flag.Name] = true
		}
		for _, child := range node.Children {
			walk(child)
		}
	}
	walk(app.Node)
	var unknown []string
	for key := range f {
		if !known[key] {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("configuration file: no such flag: %s", strings.Join(unknown, ", "))
	}
	return nil
}

// Resolve implements kong.Resolver.
func (f file) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, ok := f[flag.Name]
	if !ok || slices.ContainsFunc(flag.Envs, func(name string) bool { _, set := os.LookupEnv(name); return set }) {
		return nil, nil //nolint:nilnil // kong's way to say that there is none
	}
	switch v := value.(type) {
	case string, []any:
		return v, nil
	case file: // what the decoder makes of a mapping in a mapping
		values := make(map[string]any, len(v))
		for name, value := range v {
			values[name] = fmt.Sprint(value)
		}
		return values, nil
	case nil:
		return "", nil
	default:
		return fmt.Sprint(v), nil
	}
}
