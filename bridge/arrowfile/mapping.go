package arrowfile

import (
	"os"
	"syscall"

	"agflow/core/fault"
)

// mapping is a file seen as bytes, read by the operating system as they are used.
type mapping struct {
	path  string
	bytes []byte
}

func openMapping(path string) (*mapping, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, ioFault(path, "read", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, ioFault(path, "read", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.IO, "%s is not a regular file; name an Arrow file", path)
	}
	if info.Size() == 0 {
		return nil, fault.New(fault.File, "%s is empty; write it again", path)
	}
	bytes, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, ioFault(path, "read", err)
	}
	return &mapping{path: path, bytes: bytes}, nil
}

func (m *mapping) close() { _ = syscall.Munmap(m.bytes) }
