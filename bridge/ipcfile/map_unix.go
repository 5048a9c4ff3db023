//go:build unix

package ipcfile

import (
	"os"
	"syscall"
)

// mapFile shows a file as bytes, which the operating system reads as they are used.
func mapFile(f *os.File, size int64) ([]byte, error) {
	return syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
}

func unmapFile(bytes []byte) { _ = syscall.Munmap(bytes) }
