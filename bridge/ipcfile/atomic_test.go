package ipcfile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"agflow/core/fault"
)

// TestLinksAreFollowed proves that the file behind a link is written, there or not yet there.
func TestLinksAreFollowed(t *testing.T) {
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "deep", "deeper"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "deep", "there"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	links := map[string]string{
		"near": "deep/there", "far": "deep/deeper/up", "deep/deeper/up": "../missing",
		"loop": "loop",
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"near": "deep/there", "far": "deep/missing"} {
		if err := WriteBytes(filepath.Join(folder, name), []byte(name)); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(folder, target))
		if err != nil || string(content) != name {
			t.Errorf("%s: %q, %v", name, content, err)
		}
		if link, _ := os.Readlink(filepath.Join(folder, name)); link != links[name] {
			t.Errorf("%s is a link to %q", name, link)
		}
	}
	err := WriteBytes(filepath.Join(folder, "loop"), nil)
	if fault.CodeOf(err) != fault.IO || !strings.Contains(err.Error(), "symbolic links") {
		t.Errorf("a loop: %v", err)
	}
	info, err := os.Stat(filepath.Join(folder, "deep", "there"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the rights became %v, %v", info.Mode(), err)
	}
}

// TestDevicesPipesAndFoldersStay proves that only a regular file is replaced.
func TestDevicesPipesAndFoldersStay(t *testing.T) {
	folder := t.TempDir()
	pipe, link := filepath.Join(folder, "pipe"), filepath.Join(folder, "link")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	deleted, err := os.Create(filepath.Join(folder, "deleted"))
	if err != nil {
		t.Fatal(err)
	}
	defer deleted.Close()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := os.Remove(deleted.Name()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		pipe, link, folder, "/dev/null", "/dev/full", ".", "/",
		fmt.Sprintf("/dev/fd/%d", deleted.Fd()), fmt.Sprintf("/proc/self/fd/%d", log.Fd()),
	} {
		err := WriteBytes(path, []byte("new"))
		if fault.CodeOf(err) != fault.IO || !strings.Contains(err.Error(), "is no regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, mode := range map[string]os.FileMode{
		"/dev/null": os.ModeDevice | os.ModeCharDevice, pipe: os.ModeNamedPipe,
	} {
		if info, err := os.Lstat(path); err != nil || info.Mode().Type() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if names := namesIn(t, folder); strings.Join(names, " ") != "link pipe" {
		t.Errorf("%q are there", names)
	}
}

// TestTheTemporariesOfDeadWritersAreCollected proves it for a killed process, and that those of a
// living one, of other names and with something to put back stay.
func TestTheTemporariesOfDeadWritersAreCollected(t *testing.T) {
	if path := os.Getenv(inItsOwnProcess); path != "" {
		_ = replace(path, func(f *os.File) error {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		})
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "file")
	child := exec.Command(os.Args[0],
		"-test.run=^TestTheTemporariesOfDeadWritersAreCollected$")
	child.Env = append(os.Environ(), inItsOwnProcess+"="+path)
	if err := child.Run(); err == nil {
		t.Fatal("the writer was not killed")
	}
	if left := namesIn(t, folder); len(left) != 1 || !temporaryName.MatchString(left[0]) {
		t.Fatalf("the killed writer left %q", left)
	}
	stays := []string{".agflow-0000", ".agflow-00000000000000aa/old/expert"}
	for _, name := range append(stays, ".agflow-00000000000000bb/new/expert") {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	err := replace(path, func(*os.File) error { return WriteBytes(path, []byte("inner")) })
	if err != nil {
		t.Fatal(err)
	}
	if names := namesIn(t, folder); strings.Join(names, " ") !=
		".agflow-0000 .agflow-00000000000000aa file" {
		t.Errorf("%q are there", names)
	}
}

// TestWritersOfOneNameNeverFail proves that the last one wins, and that nobody reads half a file.
func TestWritersOfOneNameNeverFail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var writers sync.WaitGroup
	for number := range 4 {
		writers.Go(func() {
			content := []byte(strings.Repeat(string(rune('a'+number)), 10_000))
			for range 20 {
				if err := WriteBytes(path, content); err != nil {
					t.Error(err)
				}
				found, err := os.ReadFile(path)
				if err != nil || string(found) != strings.Repeat(string(found[:1]), 10_000) {
					t.Errorf("%d bytes, %v", len(found), err)
				}
			}
		})
	}
	writers.Wait()
	if names := namesIn(t, filepath.Dir(path)); len(names) != 1 {
		t.Errorf("%q are there", names)
	}
}

func namesIn(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names
}
