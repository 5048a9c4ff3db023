//go:build linux || darwin

package ipcfile

import (
	"errors"
	"os"
	"syscall"
)

// openTemporary opens a temporary of this user's, a link never.
func openTemporary(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		err = syscall.EPERM
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// canLock locks a file until it is closed, or fails at once.
func canLock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// lock is canLock, but true on file systems that know no locks, where nothing is collected.
func lock(f *os.File) bool {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return !errors.Is(err, syscall.EWOULDBLOCK)
}
