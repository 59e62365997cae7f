package check

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/modfile"
)

// root is the top of the repository, seen from here.
const root = "../.."

func path(elem ...string) string {
	return filepath.Join(append([]string{root}, elem...)...)
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(path(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// goVersion returns what the go.mod of the product asks for, as "go1.2.3".
func goVersion(t *testing.T) string {
	t.Helper()
	f, err := modfile.ParseLax("go.mod", []byte(read(t, "go.mod")), nil)
	if err != nil {
		t.Fatal(err)
	}
	return "go" + f.Go.Version
}

// required returns the version of a module that a go.mod of the repository requires.
func required(t *testing.T, module string, gomod ...string) string {
	t.Helper()
	f, err := modfile.ParseLax("go.mod", []byte(read(t, gomod...)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range f.Require {
		if r.Mod.Path == module {
			return r.Mod.Version
		}
	}
	t.Fatalf("%s does not require %s", filepath.Join(gomod...), module)
	return ""
}
