package arrowfile

import (
	"errors"
	"io/fs"
	"runtime/debug"
	"syscall"

	"agflow/core/fault"
)

// guarded runs a step that reads foreign bytes: a panic of the Arrow reader, or a file that shrinks while it is
// mapped, becomes an error.
func guarded(path string, read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if found := recover(); found != nil {
			err = fault.New(fault.File, "%s can't be read as an Arrow file (%v); write it again", path, found)
		}
	}()
	return read()
}

// ioFault says what the operating system refused, and the cure where there is a plain one.
func ioFault(path, action string, cause error) error {
	reason := cause
	var pathError *fs.PathError
	if errors.As(cause, &pathError) {
		reason = pathError.Err
	}
	cure := "check the path"
	switch {
	case errors.Is(cause, syscall.ENOSPC), errors.Is(cause, syscall.EDQUOT), errors.Is(cause, syscall.EFBIG):
		cure = "make room on the disk, or choose another folder"
	case errors.Is(cause, fs.ErrPermission), errors.Is(cause, syscall.EROFS):
		cure = "choose a path that you may " + action
	}
	return fault.New(fault.IO, "can't %s %s: %w; %s", action, path, reason, cure)
}
