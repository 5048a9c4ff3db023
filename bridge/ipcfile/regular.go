package ipcfile

import (
	"io"
	"io/fs"
	"os"
	"syscall"

	"agflow/core/fault"
)

// openRegular opens a regular file for reading. Anything else (a pipe, which would wait for a
// writer, or a device, which may never end) is refused without being read.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, IOFault(path, "read", err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, notRegular(path, info.Mode())
	}
	// without waiting: the path may lead to a pipe by now
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, IOFault(path, "read", err)
	}
	if info, err = f.Stat(); err != nil {
		_ = f.Close()
		return nil, nil, IOFault(path, "read", err)
	}
	if !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, nil, notRegular(path, info.Mode())
	}
	return f, info, nil
}

func notRegular(path string, mode fs.FileMode) error {
	what := "special file"
	switch {
	case mode.IsDir():
		what = "folder"
	case mode&fs.ModeNamedPipe != 0:
		what = "pipe"
	case mode&fs.ModeSocket != 0:
		what = "socket"
	case mode&fs.ModeDevice != 0:
		what = "device"
	}
	return fault.New(fault.IO, "%s is a %s, expected a regular file", path, what)
}

// ReadBytes reads a regular file that is no Arrow file, such as JSON, of at most limit bytes.
func ReadBytes(path string, limit int64) ([]byte, error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size() <= limit {
		content, err := io.ReadAll(io.LimitReader(f, limit+1))
		switch {
		case err != nil:
			return nil, IOFault(path, "read", err)
		case int64(len(content)) <= limit:
			return content, nil
		}
	}
	return nil, fault.New(fault.File, "%s has more than %d bytes, the most that such a file may "+
		"have; name a file that agflow wrote", path, limit)
}
