package ipcfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"

	"agflow/core/cancel"
	"agflow/core/fault"
)

// WriteBytes writes a file that is no Arrow file, such as JSON, whole or not at all.
func WriteBytes(path string, content []byte) error {
	return replace(path, func(f *os.File) error {
		if _, err := f.Write(content); err != nil {
			return IOFault(path, "write", err)
		}
		return nil
	})
}

// replace writes a temporary file in the same folder and renames it when it is complete and on the
// disk, so that no reader ever sees half a file. A link is followed; what is no regular file stays.
// On failure nothing is left behind and an older file stays as it was; what a killed writer left is
// collected.
func replace(path string, write func(*os.File) error) (err error) {
	target, mode, err := destination(path)
	if err != nil {
		return err
	}
	folder := filepath.Dir(target)
	collect(folder)
	f, err := newTemporary(folder)
	if err != nil {
		return IOFault(path, "write", err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
		temporaries.Delete(f.Name())
	}()
	defer fault.Recover(&err)
	if err := write(f); err != nil {
		return err
	}
	if mode != 0 {
		if err := f.Chmod(mode); err != nil {
			return IOFault(path, "write", err)
		}
	}
	if err := f.Sync(); err != nil {
		return IOFault(path, "write", err)
	}
	cancel.Check()                 // for the last time: from here on the new file is there
	if runtime.GOOS == "windows" { // it renames no open file; elsewhere its owner's lock keeps it
		_ = f.Close()
	}
	if err := os.Rename(f.Name(), target); err != nil {
		return IOFault(path, "write", err)
	}
	return syncFolder(folder)
}

// destination is the name behind all links, and the rights of a file that is there, else 0.
func destination(path string) (target string, mode fs.FileMode, err error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Mode().IsRegular():
		mode = info.Mode().Perm()
	case err == nil:
		return "", 0, notReplaced(path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", 0, IOFault(path, "write", err)
	}
	target = path
	for range maxLinks {
		folder, err := filepath.EvalSymlinks(filepath.Dir(target))
		if err != nil {
			return "", 0, IOFault(path, "write", err)
		}
		// What is found there is open, such as /dev/stdout, and others write to it.
		if openFiles.MatchString(folder) {
			return "", 0, notReplaced(path)
		}
		target = filepath.Join(folder, filepath.Base(target))
		next, err := os.Readlink(target)
		if err != nil {
			return target, mode, nil
		}
		if !filepath.IsAbs(next) {
			next = filepath.Join(folder, next)
		}
		target = next
	}
	return "", 0, IOFault(path, "write", syscall.ELOOP)
}

func notReplaced(path string) error {
	return fault.New(fault.IO,
		"%s is no regular file, so it is not replaced; give the name of a file", path)
}

var openFiles = regexp.MustCompile(`^/proc/[^/]+(/task/[^/]+)?/fd$`)

const maxLinks = 40

// syncFolder makes the new name itself durable. Some network file systems can't do it; their names
// are as durable as they get.
func syncFolder(folder string) error {
	if runtime.GOOS == "windows" { // it flushes no folder
		return nil
	}
	f, err := os.Open(folder)
	if err != nil {
		return IOFault(folder, "write", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return IOFault(folder, "write", err)
	}
	return nil
}
