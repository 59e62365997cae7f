package embedded_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/casteloig/logthra/shared/embedded"
)

func TestLockDataDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	lock, err := embedded.LockDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v: want mode 0700", info, err)
	}
	_, err = embedded.LockDataDir(dir)
	wantError(t, err, dir, "in use by another Logthra", "pid "+strconv.Itoa(os.Getpid()), "--data-dir")
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if lock, err = embedded.LockDataDir(dir); err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	_ = lock.Close()
}

func TestLockDataDirOfKilledProcess(t *testing.T) {
	dir := t.TempDir()
	holder, said := startHelper(t, "lock", dir)
	if said != "" {
		t.Fatal(said)
	}
	_, err := embedded.LockDataDir(dir)
	wantError(t, err, dir, "pid "+strconv.Itoa(holder.Process.Pid), "--data-dir")

	_ = holder.Process.Kill()
	_ = holder.Wait()
	lock, err := embedded.LockDataDir(dir)
	if err != nil {
		t.Fatalf("after its holder was killed: %v", err)
	}
	_ = lock.Close()
}

// unwritable are directories that not even root can write to.
func unwritable(t *testing.T) map[string]string {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"a file": file, "under a file": filepath.Join(file, "dir"), "read-only": "/proc/self"}
}

func TestLockDataDirUnwritable(t *testing.T) {
	for name, dir := range unwritable(t) {
		t.Run(name, func(t *testing.T) {
			_, err := embedded.LockDataDir(dir)
			wantError(t, err, "data directory "+dir, "choose another with --data-dir")
		})
	}
}
