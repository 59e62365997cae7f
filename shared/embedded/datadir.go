package embedded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
)

// LockDataDir creates dir (mode 0700) if it is missing and takes it for this
// process alone, until the returned Closer is closed or the process ends,
// however it ends. The lock is the file LOCK in dir, which holds the owner's
// process id. It fails, without waiting, when another process has the lock
// and when dir is not a directory that can be written to.
func LockDataDir(dir string) (io.Closer, error) {
	if err := makeWritable(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "LOCK")
	lock := flock.New(path)
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if !locked {
		pid, _ := os.ReadFile(path)
		return nil, fmt.Errorf("data directory %s is in use by another Logthra (pid %s); stop it or choose another with --data-dir",
			dir, strings.TrimSpace(string(pid)))
	}
	if err := os.WriteFile(path, fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), lock.Close())
	}
	return lock, nil
}

// makeWritable creates dir if it is missing and proves by a temporary file
// that it can be written to: permission bits alone don't tell, for root, on
// read-only mounts or on a full disk.
func makeWritable(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(dir, ".probe-*"); err == nil {
			return errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	reason := err
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		reason = pathErr.Err
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("data directory %s is, or is under, a file, not a directory; choose another with --data-dir: %w", dir, reason)
	}
	return fmt.Errorf("data directory %s cannot be written to; make it writable or choose another with --data-dir: %w", dir, reason)
}
