package config

import (
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// grammar is a command line with a flag of each kind.
type grammar struct {
	Text  string
	Count int
	Size  Bytes `default:"1MiB"`
	Wait  time.Duration
	Yes   bool
	Label map[string]string `mapsep:"none"`

	Do struct {
		Deep string `default:"shallow"`
	} `cmd:"" default:"withargs"`
	Other struct {
		Elsewhere string
	} `cmd:""`
}

// read parses arguments with a file.
func read(t *testing.T, yaml string, args ...string) (grammar, error) {
	t.Helper()
	resolver, err := YAML(strings.NewReader(yaml))
	if err != nil {
		return grammar{}, err
	}
	var g grammar
	parser, err := kong.New(&g, kong.Resolvers(resolver), kong.DefaultEnvars("TEST"), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	return g, err
}

func TestYAML(t *testing.T) {
	got, err := read(t, `
# a comment
text: "a: b"
count: 3
size: 10KiB
wait: 90s
yes: true
label: {app: api, replica: 3, up: true, note: "a=b, c"}
deep: water
elsewhere: ignored, as it is another command's
`)
	if err != nil {
		t.Fatal(err)
	}
	want := grammar{
		Text: "a: b", Count: 3, Size: 10 << 10, Wait: 90 * time.Second, Yes: true,
		Label: map[string]string{"app": "api", "replica": "3", "up": "true", "note": "a=b, c"},
	}
	want.Do.Deep = "water"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v\nwant %+v", got, want)
	}
	// A plain number is one of bytes, and 0 a time.
	if got, err = read(t, "size: 4096\nwait: 0\ntext: 1\n"); err != nil || got.Size != 4096 || got.Wait != 0 || got.Text != "1" {
		t.Errorf("read %+v (%v)", got, err)
	}
	for _, yaml := range []string{"", "# nothing\n", "{}", "text:\n"} {
		if got, err = read(t, yaml); err != nil || got.Text != "" || got.Size != 1<<20 || got.Do.Deep != "shallow" {
			t.Errorf("%q: read %+v (%v)", yaml, got, err)
		}
	}
}

func TestYAMLErrors(t *testing.T) {
	for yaml, want := range map[string]string{
		"- text\n":                        "not a YAML mapping",
		"text":                            "not a YAML mapping",
		"text: [\n":                       "not a YAML mapping",
		"text: a\ntext: b\n":              "already defined",
		"count: many\n":                   "--count",
		"size: many\n":                    "--size",
		"wait: 5\n":                       "--wait",
		"tekst: a\ntext: b\nlabels: {}\n": "no such flag: labels, tekst",
	} {
		if _, err := read(t, yaml); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: the error is %v, want %q in it", yaml, err, want)
		}
	}
}

func TestYAMLPrecedence(t *testing.T) {
	t.Setenv("TEST_COUNT", "5")
	t.Setenv("TEST_TEXT", "environment")
	t.Setenv("TEST_WAIT", "1s")
	got, err := read(t, "text: file\ncount: 4\nsize: 2MiB\n", "--text", "flag")
	if err != nil {
		t.Fatal(err)
	}
	if got.Text != "flag" || got.Count != 5 || got.Size != 2<<20 || got.Wait != time.Second {
		t.Errorf("read %+v", got)
	}
	t.Setenv("TEST_TEXT", "") // is set, too
	if got, err = read(t, "text: file\n"); err != nil || got.Text != "" {
		t.Errorf("read %+v (%v)", got, err)
	}
}
