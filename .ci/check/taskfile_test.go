package check

import (
	"testing"

	"github.com/go-task/task/v3/taskfile/ast"
	"go.yaml.in/yaml/v3"
)

// Every task says what it is for, since task --list hides those that don't.
func TestTaskfile(t *testing.T) {
	var f ast.Taskfile
	if err := yaml.Unmarshal([]byte(read(t, "Taskfile.yml")), &f); err != nil {
		t.Fatal(err)
	}
	for name, task := range f.Tasks.All(nil) {
		if task.Desc == "" {
			t.Errorf("task %s has no desc", name)
		}
		if len(task.Cmds)+len(task.Deps) == 0 {
			t.Errorf("task %s does nothing", name)
		}
	}
	for _, name := range []string{"run", "test", "race", "lint", "generate", "fuzz", "bench", "ci"} {
		if _, ok := f.Tasks.Get(name); !ok {
			t.Errorf("there is no task %s", name)
		}
	}
}
