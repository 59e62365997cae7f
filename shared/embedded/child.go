package embedded

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// childEnv marks the process that is to become ClickHouse; its value is the
// path of the library, and the process's arguments are ClickHouse's.
const childEnv = "LOGTHRA_CLICKHOUSE_CHILD"

// orphanGrace is how long ClickHouse may take to end by itself once its parent
// has let go of it. It waits for running queries, which may take for ever.
const orphanGrace = 2 * time.Second

// niceness is how far an embedded ClickHouse stands back where the machine has not enough for all. Whoever pushes waits for an answer;
// what ClickHouse works on is on disk already. At half of what two cores can take, the p99 of pushes falls to less than half
// (docs/performance.md).
const niceness = 10

// RunChild becomes ClickHouse, and does not return, when this process was
// started by [StartClickHouse] as its child. Otherwise it returns at once. Call
// it first in main and in TestMain, before flags are parsed and files opened.
func RunChild() {
	library := os.Getenv(childEnv)
	if library == "" {
		return
	}
	if err := runClickHouse(library, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runClickHouse blocks until ClickHouse has ended.
func runClickHouse(library string, args []string) error {
	runtime.LockOSThread()
	// The parent decides when ClickHouse ends, by closing stdin: a service
	// manager's SIGTERM to the whole group must not end it before the drain.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go dieWithParent()
	// On Linux it is this thread's, and that of those that ClickHouse starts from here. Where it is refused, nothing is lost.
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, niceness)

	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return fmt.Errorf("load ClickHouse: %w", err)
	}
	symbol, err := purego.Dlsym(handle, "query_stable_v2")
	if err != nil {
		return fmt.Errorf("load ClickHouse from %s: %w", library, err)
	}
	var query func(argc int32, argv **byte) *queryResult
	purego.RegisterFunc(&query, symbol)

	argv := make([]*byte, 0, len(args)+2)
	for _, arg := range append([]string{"clickhouse"}, args...) {
		c, err := unix.BytePtrFromString(arg)
		if err != nil {
			return err
		}
		argv = append(argv, c)
	}
	argc := len(argv)
	argv = append(argv, nil)
	result := query(int32(argc), &argv[0])
	runtime.KeepAlive(argv)
	if result != nil && result.errorMessage != nil {
		return fmt.Errorf("ClickHouse: %s", unix.BytePtrToString(result.errorMessage))
	}
	return nil
}

// queryResult is local_result_v2 of chdb.h.
type queryResult struct {
	_            [6]uint64 // buf, len, _vec, elapsed, rows_read, bytes_read
	errorMessage *byte
}

// dieWithParent kills this process when the other end of stdin has been closed
// for orphanGrace, which also happens when the parent is killed.
func dieWithParent() {
	stdin := []unix.PollFd{{Fd: 0}} // no events asked for: a hang-up is always told, and nothing is read
	for stdin[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) == 0 {
		if _, err := unix.Poll(stdin, -1); err != nil && err != unix.EINTR {
			break
		}
	}
	time.Sleep(orphanGrace)
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
}
