package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Process is one whose use of the machine is measured.
type Process struct {
	Name string
	PID  int
}

// ParseProcess reads a process that is given as PID or NAME=PID.
func ParseProcess(text string) (Process, error) {
	name, number, named := strings.Cut(text, "=")
	if !named {
		number = name
	}
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 0 || name == "" {
		return Process{}, fmt.Errorf("%q is not PID or NAME=PID", text)
	}
	if !named {
		name = ""
	}
	return Process{name, pid}, nil
}

// Usage is what a process used.
type Usage struct {
	Name       string  `json:"name"`
	PID        int     `json:"pid"`
	CPUSeconds float64 `json:"cpu_seconds"` // user and system, until all was merged
	RSSBytes   int64   `json:"rss_bytes"`   // the most that was seen

	proc  procfs.Proc
	began float64
}

// watch finds the processes, and those that they have started: an embedded ClickHouse is one.
func watch(processes []Process) ([]*Usage, error) {
	if len(processes) == 0 {
		return nil, nil
	}
	all, err := procfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("--pid needs /proc, as Linux has it: %w", err)
	}
	var watched []*Usage
	var add func(name string, pid int) error
	add = func(name string, pid int) error {
		proc, err := procfs.NewProc(pid)
		if err != nil {
			return fmt.Errorf("--pid %d: there is no such process", pid)
		}
		stat, err := proc.Stat()
		if err != nil {
			return fmt.Errorf("--pid %d: %w", pid, err)
		}
		if name == "" {
			name = stat.Comm
		}
		watched = append(watched, &Usage{Name: name, PID: pid, proc: proc})
		for _, other := range all {
			if s, err := other.Stat(); err == nil && s.PPID == pid {
				if err := add(name+"/"+childName(other, s.Comm), other.PID); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, p := range processes {
		if err := add(p.Name, p.PID); err != nil {
			return nil, err
		}
	}
	return watched, nil
}

// childName tells what a process is that Logthra has started: it is itself, in another role.
func childName(proc procfs.Proc, command string) string {
	line, err := proc.CmdLine()
	if err == nil && strings.Contains(strings.Join(line, " "), "clickhouse") {
		return "clickhouse"
	}
	return command
}

// start begins to count CPU.
func start(watched []*Usage) {
	for _, u := range watched {
		if stat, err := u.proc.Stat(); err == nil {
			u.began = stat.CPUTime()
		}
	}
}

// sample looks how much memory the processes hold and how much they have worked. What has ended stays as it was seen last.
func sample(watched []*Usage) {
	for _, u := range watched {
		if stat, err := u.proc.Stat(); err == nil {
			u.CPUSeconds, u.RSSBytes = stat.CPUTime()-u.began, max(u.RSSBytes, int64(stat.ResidentMemory()))
		}
	}
}

// own is the CPU time that this process has used, 0 where that can't be told.
func own() time.Duration {
	proc, err := procfs.NewProc(os.Getpid())
	if err != nil {
		return 0
	}
	stat, err := proc.Stat()
	if err != nil {
		return 0
	}
	return time.Duration(stat.CPUTime() * float64(time.Second))
}
