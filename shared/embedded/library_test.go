package embedded

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const fakeLibrary = "this is the library"

// fakePackage returns what npm would bring, and the release that expects it.
func fakePackage(t *testing.T) ([]byte, release) {
	t.Helper()
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	files := tar.NewWriter(gz)
	for _, file := range [][2]string{{"package/package.json", "{}"}, {"package/libchdb.so", fakeLibrary}, {"package/after", "more"}} {
		if err := files.WriteHeader(&tar.Header{Name: file[0], Size: int64(len(file[1])), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(file[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(files.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(packed.Bytes())
	return packed.Bytes(), release{
		platform: "linux-x64-gnu", integrity: "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
		packed: int64(packed.Len()), unpacked: int64(len(fakeLibrary)),
	}
}

// fakeNPM puts a shell script in npm's place; nothing else of the PATH goes.
func fakeNPM(t *testing.T, script string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "npm"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// wantFetchError fetches into an empty cache and fails t unless the error is
// one line with every part and nothing is left behind.
func wantFetchError(t *testing.T, r release, parts ...string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	_, err := r.cached(t.Context(), dir, nil)
	wantOneLine(t, err, parts...)
	wantOnlyLock(t, dir)
}

func wantOneLine(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	t.Log(err)
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q is not one line", err)
	}
}

func wantOnlyLock(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "LOCK" {
		t.Errorf("left behind: %v", entries)
	}
}

func TestLibraryOfEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lib.so")
	t.Setenv(libraryEnv, file)
	_, err := Library(t.Context(), nil)
	wantOneLine(t, err, libraryEnv, file, "not a file")

	t.Setenv(libraryEnv, filepath.Dir(file))
	_, err = Library(t.Context(), nil)
	wantOneLine(t, err, libraryEnv, "not a file")

	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(libraryEnv, file)
	if got, err := Library(t.Context(), nil); got != file || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestLibraryOfUnknownPlatform(t *testing.T) {
	t.Setenv(libraryEnv, "")
	known := releases
	releases = nil
	defer func() { releases = known }()
	_, err := Library(t.Context(), nil)
	wantOneLine(t, err, "no verified ClickHouse library for", libraryEnv, "--clickhouse-dsn")
}

// However many want the library, one fetches it and all get it.
func TestLibraryIsFetchedOnce(t *testing.T) {
	packed, r := fakePackage(t)
	dir, source, calls := t.TempDir(), filepath.Join(t.TempDir(), "p"), filepath.Join(t.TempDir(), "calls")
	if err := os.WriteFile(source, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	leftover := filepath.Join(dir, "fetch-of-a-killed-process")
	if err := os.MkdirAll(filepath.Join(leftover, "npm"), 0o700); err != nil {
		t.Fatal(err)
	}
	fakeNPM(t, `echo "$@" >> `+calls+`; sleep 0.2; cp `+source+` lib.tgz`)

	var progress [4]bytes.Buffer
	var all sync.WaitGroup
	for i := range progress {
		all.Go(func() {
			path, err := r.cached(t.Context(), dir, &progress[i])
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := os.ReadFile(path); string(got) != fakeLibrary || err != nil {
				t.Errorf("the library is %q (%v)", got, err)
			}
		})
	}
	all.Wait()
	called, _ := os.ReadFile(calls)
	if got := strings.Count(string(called), "\n"); got != 1 {
		t.Errorf("npm ran %d times: %s", got, called)
	}
	if !strings.HasPrefix(string(called), "pack @chdb/lib-linux-x64-gnu@"+libraryVersion+" ") {
		t.Errorf("npm was called with %s", called)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 { // LOCK, libchdb.so
		t.Errorf("left behind: %v", entries)
	}
	said := progress[0].String() + progress[1].String() + progress[2].String() + progress[3].String()
	for _, part := range []string{"fetching ClickHouse: ", "unpacking ClickHouse: ", "waiting for another process"} {
		if !strings.Contains(said, part) {
			t.Errorf("progress lacks %q: %s", part, said)
		}
	}
}

func TestLibraryErrors(t *testing.T) {
	_, r := fakePackage(t)
	t.Run("wrong checksum", func(t *testing.T) {
		fakeNPM(t, `echo something else > lib.tgz`)
		wantFetchError(t, r, "wrong checksum", "deleted", "expected "+r.integrity, "got sha512-", libraryEnv)
	})
	t.Run("npm fails", func(t *testing.T) {
		fakeNPM(t, `echo "npm error network request failed" >&2; echo "npm error A complete log of this run can be found in: /x" >&2; exit 1`)
		wantFetchError(t, r, "npm could not fetch", "(network request failed)", "try again", libraryEnv)
	})
	t.Run("npm fails silently", func(t *testing.T) {
		fakeNPM(t, `exit 3`)
		wantFetchError(t, r, "npm could not fetch", "exit status 3")
	})
	t.Run("npm brings nothing", func(t *testing.T) {
		fakeNPM(t, ``)
		wantFetchError(t, r, "left no package", libraryEnv)
	})
	t.Run("disk full", func(t *testing.T) {
		fakeNPM(t, `echo "npm error code ENOSPC" >&2; exit 1`)
		wantFetchError(t, r, "no space", "XDG_CACHE_HOME")
	})
	t.Run("no npm", func(t *testing.T) {
		t.Setenv("PATH", "")
		wantFetchError(t, r, "npm", "not on the PATH", "--clickhouse-dsn")
	})
	t.Run("unwritable cache", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{filepath.Join(file, "cache"), "/proc/self"} {
			_, err := r.cached(t.Context(), dir, nil)
			wantOneLine(t, err, "cannot cache", dir, "XDG_CACHE_HOME", libraryEnv)
		}
	})
}

// Canceling ends npm, and what it started, and leaves nothing behind.
func TestLibraryFetchCanceled(t *testing.T) {
	_, r := fakePackage(t)
	started := filepath.Join(t.TempDir(), "started")
	fakeNPM(t, `sleep 600 & echo > `+started+`; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for _, err := os.Stat(started); err != nil && t.Context().Err() == nil; _, err = os.Stat(started) {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	dir := t.TempDir()
	_, err := r.cached(ctx, dir, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantOnlyLock(t, dir)
}
