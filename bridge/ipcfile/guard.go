package ipcfile

import (
	"errors"
	"io/fs"
	"runtime/debug"
	"syscall"

	"agflow/core/fault"
)

// guarded runs a step that reads a mapping. A page that can't be read (the file was cut short, the
// disk failed) becomes an error, not the end of the process; so does any other panic.
func guarded(path string, step func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch found := recover().(type) {
		case nil:
		case *fault.Error: // the work was cancelled
			err = found
		case interface{ Addr() uintptr }:
			err = fault.New(fault.IO,
				"a part of %s can't be read: it was cut short, or the disk failed; write it again",
				path)
		default:
			err = fault.New(fault.Internal,
				"a defect in agflow stopped reading %s: %v; please report it with the file",
				path, found)
		}
	}()
	return step()
}

// Named puts the name of a file before the sentence of an error, which keeps its code.
func Named(path string, err error) error {
	return fault.New(fault.CodeOf(err), "%s: %s", path, fault.Sentence(err))
}

// IOFault says what the operating system refused, and the cure where there is a plain one. The
// action is "read" or "write".
func IOFault(path, action string, cause error) error {
	reason := cause
	var pathError *fs.PathError
	if errors.As(cause, &pathError) {
		reason = pathError.Err
	}
	cure := "check the path"
	switch {
	case errors.Is(cause, syscall.ENOSPC), errors.Is(cause, syscall.EDQUOT),
		errors.Is(cause, syscall.EFBIG):
		cure = "make room on the disk, or choose another folder"
	case errors.Is(cause, fs.ErrPermission), errors.Is(cause, syscall.EROFS):
		cure = "choose a path that you may " + action
	}
	return fault.New(fault.IO, "can't %s %s: %w; %s", action, path, reason, cure)
}
