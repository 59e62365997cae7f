package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// restartAfter is how long a process that ended by itself stays down, as under a service manager.
const restartAfter = time.Second

// What a process says that matters here, wherever in its log it stands.
var (
	fencedLine  = regexp.MustCompile(`another ingester has taken th(e|is) shard over`)
	crashedLine = regexp.MustCompile(`^(panic: |fatal error: )|DATA RACE|panic while`)
)

// process is a place for one role: at most one instance of it runs at a time, and it can be replaced.
type process struct {
	name    string
	binary  string
	args    []string
	log     *os.File
	isReady func(line []byte) (at map[string]string, ok bool)
	ready   func(at map[string]string) // told what each instance says once it is ready
	noticed func(format string, args ...any)

	replacing sync.Mutex // held by whoever ends an instance and starts the next

	mu      sync.Mutex // guards what follows
	current *instance  // the last that was started
	tally
}

// tally is what is counted over all instances of a process.
type tally struct {
	kills   int
	ended   int   // instances that ended by themselves
	fenced  int   // lines that say so
	memory  int64 // bytes; the most of any instance
	crashes []string
}

// instance is one life of a process.
type instance struct {
	cmd     *exec.Cmd
	isReady chan struct{}
	at      map[string]string // what its ready line says; set before isReady is closed
	exited  chan struct{}
	wanted  bool // its end was asked for; guarded by the process's mu
}

func newProcess(binary, dir, name string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &process{name: name, binary: binary, args: args, log: log, isReady: isRoleReady}, nil
}

// isRoleReady reads the line with which a role of this program says that it is ready, and under which addresses.
func isRoleReady(line []byte) (at map[string]string, ok bool) {
	if !bytes.Contains(line, []byte(`"msg":"ready"`)) {
		return nil, false
	}
	var attrs map[string]any
	if json.Unmarshal(line, &attrs) != nil {
		return nil, false
	}
	at = map[string]string{}
	for name, value := range attrs {
		if text, ok := value.(string); ok {
			at[name] = text
		}
	}
	return at, true
}

// start starts an instance, with more arguments than usual if some are given. The one before must have ended.
func (p *process) start(more ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.launch(more...)
}

// launch needs mu.
func (p *process) launch(more ...string) error {
	cmd := exec.Command(p.binary, append(slices.Clone(p.args), more...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LOGTHRA_") && !strings.HasPrefix(v, "LOGTHRA_CHDB_LIB=")
	})
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = time.Second
	in := &instance{cmd: cmd, isReady: make(chan struct{}), exited: make(chan struct{})}
	out := &lineWriter{line: func(line []byte) { p.says(in, line) }}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	p.current = in
	go p.wait(in)
	return nil
}

// wait waits for the end of an instance, and replaces one that ended by itself.
func (p *process) wait(in *instance) {
	_ = in.cmd.Wait() // the state tells
	close(in.exited)
	p.mu.Lock()
	wanted := in.wanted
	if !wanted {
		p.ended++
	}
	p.mu.Unlock()
	if wanted {
		return
	}
	p.noticed("%s ended by itself: %s", p.name, in.cmd.ProcessState)
	time.Sleep(restartAfter)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == in && !in.wanted {
		if err := p.launch(); err != nil {
			p.noticed("%s", err)
		}
	}
}

// says takes a line of an instance's output.
func (p *process) says(in *instance, line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = p.log.Write(line)
	if fencedLine.Match(line) {
		p.fenced++
	}
	if crashedLine.Match(line) {
		p.crashes = append(p.crashes, string(bytes.TrimSpace(line)))
	}
	if in.at != nil {
		return
	}
	at, ok := p.isReady(line)
	if !ok {
		return
	}
	in.at = at
	p.ready(at)
	close(in.isReady)
}

// address is one of those that the current instance is reached under; empty while it is not ready.
func (p *process) address(name string) string {
	in := p.instance()
	select {
	case <-in.isReady:
		return in.at[name]
	default:
		return ""
	}
}

func (p *process) instance() *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// awaitReady returns once the process, in whatever instance, is ready.
func (p *process) awaitReady(ctx context.Context) error {
	for {
		in := p.instance()
		select {
		case <-in.isReady:
			return nil
		case <-in.exited:
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.name, ctx.Err())
		}
		select {
		case <-time.After(restartAfter):
		case <-ctx.Done():
			return fmt.Errorf("%s is down: %w", p.name, ctx.Err())
		}
	}
}

// finish takes the current instance out of the care of wait: whatever ends it now was asked for.
func (p *process) finish() *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current.wanted = true
	return p.current
}

// kill ends the process as a power cut does, all that it has started included.
func (p *process) kill() {
	in := p.finish()
	started := children(in.cmd.Process.Pid)
	_ = in.cmd.Process.Kill() // an error means that it is gone
	for _, pid := range started {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-in.exited
	p.mu.Lock()
	p.kills++
	p.mu.Unlock()
}

// killChildren kills what the process has started, and leaves the process itself to deal with it.
func (p *process) killChildren() {
	for _, pid := range children(p.instance().cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		p.mu.Lock()
		p.kills++
		p.mu.Unlock()
	}
}

// freeze stops the process in the middle of whatever it is doing, until thaw. thaw returns false where it has ended
// meanwhile.
func (p *process) freeze() (thaw func() bool) {
	in := p.instance()
	all := children(in.cmd.Process.Pid)
	signal := func(s syscall.Signal) bool {
		for _, pid := range all {
			_ = syscall.Kill(pid, s)
		}
		return in.cmd.Process.Signal(s) == nil
	}
	signal(syscall.SIGSTOP)
	return func() bool { return signal(syscall.SIGCONT) }
}

// terminate ends the process as a service manager does: SIGTERM, and SIGKILL where that takes longer than the
// limit. It returns the exit code, -1 after a signal.
func (p *process) terminate(limit time.Duration) int {
	in := p.finish()
	_ = in.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-in.exited:
		return in.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.kill()
		return -1
	}
}

// counts is the tally so far.
func (p *process) counts() tally {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tally
	t.crashes = slices.Clone(t.crashes)
	return t
}

// sample keeps how much memory the current instance has needed.
func (p *process) sample() {
	memory := peakMemory(p.instance().cmd.Process.Pid)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memory = max(p.memory, memory)
}

// lineWriter hands on what is written to it line by line.
type lineWriter struct {
	line func([]byte)
	rest []byte
}

func (w *lineWriter) Write(text []byte) (int, error) {
	w.rest = append(w.rest, text...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			return len(text), nil
		}
		w.line(w.rest[:len(line)+1])
		w.rest = rest
	}
}
