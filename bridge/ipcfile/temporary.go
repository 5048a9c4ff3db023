package ipcfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
)

// temporaryName is that of every temporary of agflow, in Go and in Python. Its owner locks it for
// as long as it needs it, so that a lock that can be had tells of a dead owner.
var temporaryName = regexp.MustCompile(`^\.agflow-[0-9a-f]{16}$`)

// asideFolder lies in a temporary folder of Python from which the older folder must be put back.
const asideFolder = "old"

// temporaries are the paths of this process's own.
var temporaries sync.Map

// RemoveTemporaries removes what this process is writing. The process must end afterwards.
func RemoveTemporaries() {
	temporaries.Range(func(path, _ any) bool {
		_ = os.Remove(path.(string))
		return true
	})
}

// newTemporary makes a file, locked until it is closed, and puts it among the temporaries.
func newTemporary(folder string) (*os.File, error) {
	for {
		var name [8]byte
		rand.Read(name[:]) // from the system: Go's own numbers are equal in forks of one process
		path := filepath.Join(folder, fmt.Sprintf(".agflow-%x", name))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if lock(f) && sameFile(f, path) {
			temporaries.Store(path, nil)
			return f, nil
		}
		_ = f.Close() // collected by another writer before it was locked
	}
}

// collect removes the temporaries of dead owners in a folder. What can't be removed stays.
func collect(folder string) {
	directory, err := os.Open(folder)
	if err != nil {
		return
	}
	defer directory.Close()
	names, _ := directory.Readdirnames(-1)
	for _, name := range names {
		if temporaryName.MatchString(name) {
			collectOne(filepath.Join(folder, name))
		}
	}
}

func collectOne(path string) {
	f, err := openTemporary(path)
	if err != nil {
		return
	}
	defer f.Close()
	if _, err := os.Lstat(filepath.Join(path, asideFolder)); err == nil {
		return // Python puts that back
	}
	if canLock(f) {
		_ = os.RemoveAll(path)
	}
}

func sameFile(f *os.File, path string) bool {
	var there fs.FileInfo
	opened, err := f.Stat()
	if err == nil {
		there, err = os.Lstat(path)
	}
	return err == nil && os.SameFile(opened, there)
}
