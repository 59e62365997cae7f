package check

import (
	"debug/elf"
	"go/version"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

func stages(t *testing.T) []instructions.Stage {
	t.Helper()
	ast, err := parser.Parse(strings.NewReader(read(t, "Dockerfile")))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ast.Warnings {
		t.Errorf("Dockerfile: %s", w.Short)
	}
	stages, _, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

func TestDockerfile(t *testing.T) {
	all := stages(t)
	final := all[len(all)-1]
	var user string
	var entrypoint []string
	for _, c := range final.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			entrypoint = c.CmdLine
		}
	}
	if !regexp.MustCompile(`^[1-9][0-9]*(:[1-9][0-9]*)?$`).MatchString(user) {
		t.Errorf("the image runs as %q, want a number that isn't root's", user)
	}
	if !slices.Equal(entrypoint, []string{"/logthra"}) {
		t.Errorf("the entry point is %q", entrypoint)
	}
	// The image brings the Go that compiles: it must not be older than what go.mod asks for.
	name, _, _ := strings.Cut(strings.TrimPrefix(all[0].BaseName, "golang:"), "-")
	if least := goVersion(t); version.Compare("go"+name, least) < 0 {
		t.Errorf("the image compiles with %s, go.mod asks for %s", all[0].BaseName, least)
	}
}

// dockerContext copies what .dockerignore lets through to dir, as docker build would.
func dockerContext(t *testing.T, dir string) {
	t.Helper()
	patterns, err := ignorefile.ReadAll(strings.NewReader(read(t, ".dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	ignore, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" || d.Name() == "logthra-data" {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil // of a linked working tree
		}
		rel, err := filepath.Rel(root, name)
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if ignored, err := ignore.MatchesOrParentMatches(rel); ignored || err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

const buildVersion = "v0.0.0-check"

// built is the program as the image holds it, once for all tests.
var built struct {
	sync.Once
	program string
	err     string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.program != "" {
		os.RemoveAll(filepath.Dir(built.program))
	}
	os.Exit(code)
}

// build runs the go build of the Dockerfile, word for word, on the context that .dockerignore leaves.
func build(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		var line string
		for _, c := range stages(t)[0].Commands {
			if run, ok := c.(*instructions.RunCommand); ok && strings.Contains(run.CmdLine[0], "go build") {
				line = run.CmdLine[0]
			}
		}
		if !strings.Contains(line, "CGO_ENABLED=0") || !strings.Contains(line, " -o /out/logthra ") {
			built.err = "the Dockerfile has no static go build -o /out/logthra: " + line
			return
		}
		out, err := os.MkdirTemp("", "logthra-check-") //nolint:usetesting // it outlives the test that needs it first
		if err != nil {
			built.err = err.Error()
			return
		}
		src := t.TempDir()
		dockerContext(t, src)
		cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(line, "/out/", out+"/"))
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "TARGETOS="+runtime.GOOS, "TARGETARCH="+runtime.GOARCH, "VERSION="+buildVersion)
		if b, err := cmd.CombinedOutput(); err != nil {
			built.err = line + ": " + err.Error() + "\n" + string(b)
		}
		built.program = filepath.Join(out, "logthra")
	})
	if built.err != "" {
		t.Fatal(built.err)
	}
	return built.program
}

func TestDockerBuild(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), build(t), "version").CombinedOutput()
	if err != nil {
		t.Fatalf("logthra version: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), buildVersion) {
		t.Errorf("logthra version says %q: main.version is not what -X sets", out)
	}
}

// The program is a dynamic one even without cgo, for the sake of the embedded ClickHouse: it starts only
// where the libc is that the image's Go linked it for.
func TestDockerLibc(t *testing.T) {
	program, err := elf.Open(build(t))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if program.Section(".interp") == nil {
		return
	}
	all := stages(t)
	if base := all[0].BaseName; strings.Contains(base, "alpine") {
		t.Errorf("%s links for musl, but the program wants the GNU libc", base)
	}
	if base := all[len(all)-1].BaseName; !strings.HasPrefix(base, "debian:") {
		t.Errorf("the program wants a dynamic linker, and %s is not known to have one", base)
	}
}
