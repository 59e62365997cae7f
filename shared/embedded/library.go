package embedded

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/klauspost/compress/gzip"
	"github.com/mattn/go-isatty"
)

// libraryEnv names a libchdb.so to use instead of the cached one.
const libraryEnv = "LOGTHRA_CHDB_LIB"

const libraryVersion = "26.7.3-stable.1" // ClickHouse 26.7.2

// libraryWayOut ends the errors that trying again doesn't mend.
const libraryWayOut = "set " + libraryEnv + " to a libchdb.so of version " + libraryVersion + ", or use an existing ClickHouse with --clickhouse-dsn"

// release is the library for one platform, as an npm package.
type release struct {
	platform  string // the end of the package's name, after @chdb/lib-
	integrity string // of the package, as npm writes it
	packed    int64  // bytes to fetch
	unpacked  int64  // bytes of the library
}

// releases are the platforms that Logthra has a verified library for, by GOOS/GOARCH.
var releases = map[string]release{
	"linux/amd64": {"linux-x64-gnu", "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==", 177_817_999, 566_330_096},
}

// Library returns the path of libchdb.so: the one that LOGTHRA_CHDB_LIB names,
// or else the one in the user's cache directory. If that is missing it is
// fetched, which takes npm, 178 MB from its registry and some 950 MB of disk in
// the meantime; processes that want it at the same time wait for the first.
// What is cached has passed its checksum. progress, if not nil, is told how far
// the fetch is: one rewritten line on a terminal, otherwise a line every few
// seconds. When ctx ends the fetch stops and leaves nothing behind. Every error
// says in a sentence what to do about it.
func Library(ctx context.Context, progress io.Writer) (string, error) {
	if path := os.Getenv(libraryEnv); path != "" {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return "", fmt.Errorf("%s is %s, which is not a file; correct it, or unset it to have the library fetched", libraryEnv, path)
		}
		return path, nil
	}
	r, known := releases[runtime.GOOS+"/"+runtime.GOARCH]
	if !known {
		return "", fmt.Errorf("there is no verified ClickHouse library for %s/%s; %s", runtime.GOOS, runtime.GOARCH, libraryWayOut)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no directory to cache the ClickHouse library in (%w); set HOME or XDG_CACHE_HOME, or %s", err, libraryWayOut)
	}
	dir := "chdb-" + libraryVersion + "-" + strings.TrimSuffix(r.platform, "-gnu")
	return r.cached(ctx, filepath.Join(cache, "logthra", dir), progress)
}

// cached returns the library in dir and fetches it if it isn't there.
func (r release) cached(ctx context.Context, dir string, progress io.Writer) (string, error) {
	path := filepath.Join(dir, "libchdb.so")
	if _, err := os.Stat(path); err == nil {
		return path, nil // it got its name after it had been verified
	}
	lock, err := lockCache(ctx, dir, progress)
	if err != nil {
		return "", r.explain(dir, err)
	}
	defer lock.Close()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	leftovers, _ := filepath.Glob(filepath.Join(dir, "fetch-*")) // of a fetch that was killed
	for _, leftover := range leftovers {
		_ = os.RemoveAll(leftover)
	}
	tmp, err := os.MkdirTemp(dir, "fetch-*")
	if err != nil {
		return "", r.explain(dir, err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := r.fetch(ctx, tmp, path, progress); err != nil {
		return "", r.explain(dir, err)
	}
	return path, nil
}

// lockCache creates dir and takes its lock, for which it waits until ctx ends.
func lockCache(ctx context.Context, dir string, progress io.Writer) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(dir, "LOCK"))
	locked, err := lock.TryLock()
	if locked || err != nil {
		return lock, err
	}
	if progress != nil {
		fmt.Fprintln(progress, "waiting for another process to fetch the ClickHouse library")
	}
	if _, err = lock.TryLockContext(ctx, 100*time.Millisecond); err != nil && ctx.Err() != nil {
		err = fmt.Errorf("wait for another process to fetch the ClickHouse library: %w", err)
	}
	return lock, err
}

// explain adds the way out to the errors of the file system.
func (r release) explain(dir string, err error) error {
	pathErr := (*fs.PathError)(nil)
	switch {
	case errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "ENOSPC"):
		return fmt.Errorf("no space for the ClickHouse library in %s: make %d MB free, or point XDG_CACHE_HOME to another disk",
			dir, (2*r.packed+r.unpacked)/1e6)
	case errors.As(err, &pathErr):
		return fmt.Errorf("cannot cache the ClickHouse library: %w; make %s writable, point XDG_CACHE_HOME elsewhere, or %s", err, dir, libraryWayOut)
	}
	return err
}

// fetch puts the verified library at path, working in tmp.
func (r release) fetch(ctx context.Context, tmp, path string, progress io.Writer) error {
	archive, err := r.pack(ctx, tmp, progress)
	if err != nil {
		return err
	}
	if err := r.verify(archive); err != nil {
		return err
	}
	library, err := r.unpack(ctx, archive, progress)
	if err != nil {
		return err
	}
	return os.Rename(library, path)
}

// pack has npm bring the package and returns its path in tmp.
func (r release) pack(ctx context.Context, tmp string, progress io.Writer) (string, error) {
	name := "@chdb/lib-" + r.platform + "@" + libraryVersion
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("npm, which fetches the ClickHouse library, is not on the PATH; install it, or %s", libraryWayOut)
	}
	npmCache := filepath.Join(tmp, "npm") // its own, so that its growth is our progress
	cmd := exec.CommandContext(ctx, npm, "pack", name, "--cache", npmCache, "--pack-destination", tmp, "--loglevel=error",
		"--no-progress", "--no-update-notifier", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000") // by default no network is told after minutes
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = tmp, &stderr
	// npm is often a wrapper, so what is killed is the group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second

	bar := startMeter(progress, "fetching ClickHouse", r.packed, func() int64 { return treeSize(npmCache) })
	err = cmd.Run()
	bar.stop()
	if ctx.Err() != nil {
		return "", fmt.Errorf("fetch the ClickHouse library: %w", ctx.Err())
	}
	if err != nil {
		return "", fmt.Errorf("npm could not fetch %s (%s); try again, or %s", name, cmp.Or(complaint(stderr.String()), err.Error()), libraryWayOut)
	}
	archives, _ := filepath.Glob(filepath.Join(tmp, "*.tgz"))
	if len(archives) != 1 {
		return "", fmt.Errorf("npm pack %s left no package behind; update npm, or %s", name, libraryWayOut)
	}
	return archives[0], os.RemoveAll(npmCache) // makes room
}

// verify proves that the package is the one that this version was tested with.
func (r release) verify(archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	hash := sha512.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(hash.Sum(nil)); got != r.integrity {
		return fmt.Errorf("the ClickHouse library that npm fetched has a wrong checksum and was deleted: expected %s, got %s; check the registry that npm is configured for, or %s",
			r.integrity, got, libraryWayOut)
	}
	return nil
}

// unpack writes the library beside archive, durably, and returns its path.
func (r release) unpack(ctx context.Context, archive string, progress io.Writer) (path string, err error) {
	packed, err := os.Open(archive)
	if err != nil {
		return "", err
	}
	defer packed.Close()
	gz, err := gzip.NewReader(packed)
	if err != nil {
		return "", err
	}
	files := tar.NewReader(gz)
	for header := new(tar.Header); header.Name != "package/libchdb.so"; {
		if header, err = files.Next(); err != nil {
			return "", fmt.Errorf("find libchdb.so in the package: %w", err)
		}
	}
	library, err := os.OpenFile(filepath.Join(filepath.Dir(archive), "libchdb.so"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, library.Close()) }()

	bar := startMeter(progress, "unpacking ClickHouse", r.unpacked, func() int64 { return fileSize(library.Name()) })
	defer bar.stop()
	if _, err := io.Copy(library, contextReader{ctx, files}); err != nil {
		return "", err
	}
	return library.Name(), library.Sync()
}

// contextReader ends reading when its context does.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, fmt.Errorf("unpack the ClickHouse library: %w", err)
	}
	return r.Reader.Read(p)
}

// complaint returns the head of what npm wrote to stderr, in one line: an error
// code and a sentence. Node's stack trace follows.
func complaint(stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "npm error"))
		if len(lines) == 4 || strings.HasPrefix(line, "at ") || strings.HasPrefix(line, "A complete log") {
			break
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func treeSize(root string) (size int64) {
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			size += fileSize(path)
		}
		return nil // npm moves files while we look
	})
	return size
}

// meter reports how far something is that takes a while.
type meter struct {
	quit, done chan struct{}
}

// startMeter writes what, size() of total and the rate to w until stop. A nil
// w is told nothing.
func startMeter(w io.Writer, what string, total int64, size func() int64) meter {
	m := meter{make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(m.done)
		if w == nil {
			return
		}
		start, every, format := time.Now(), 3*time.Second, "%s: %d of %d MB, %.0f MB/s\n"
		file, isFile := w.(*os.File)
		terminal := isFile && isatty.IsTerminal(file.Fd())
		if terminal {
			every, format = 200*time.Millisecond, "\r%s: %d of %d MB, %.0f MB/s   "
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for running := true; running; {
			select {
			case <-tick.C:
			case <-m.quit:
				running = false
			}
			n := size()
			fmt.Fprintf(w, format, what, n/1e6, total/1e6, float64(n)/1e6/time.Since(start).Seconds())
		}
		if terminal {
			fmt.Fprintln(w)
		}
	}()
	return m
}

func (m meter) stop() {
	close(m.quit)
	<-m.done
}
