package ipcfile

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
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

// replace writes a file under a temporary name in the same folder and renames it when it is
// complete and on the disk, so that no reader ever sees half a file. On failure nothing is left
// behind and an older file stays as it was.
func replace(path string, write func(*os.File) error) (err error) {
	folder, name := filepath.Split(path)
	if folder == "" {
		folder = "."
	}
	temporary := filepath.Join(folder, "."+name+"."+strconv.FormatUint(rand.Uint64(), 36)+".tmp")
	f, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return IOFault(path, "write", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary)
		}
	}()
	if err := fill(f, write); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return IOFault(path, "write", err)
	}
	return syncFolder(folder)
}

// fill writes, flushes to the disk and closes. Afterwards the work can't be cancelled any more.
func fill(f *os.File, write func(*os.File) error) (err error) {
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	defer fault.Recover(&err)
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return IOFault(f.Name(), "write", err)
	}
	cancel.Check()
	if err := f.Close(); err != nil {
		return IOFault(f.Name(), "write", err)
	}
	return nil
}

// syncFolder makes the new name itself durable. Some network file systems can't do it; their names
// are as durable as they get.
func syncFolder(folder string) error {
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
