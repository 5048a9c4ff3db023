//go:build !unix

package ipcfile

import (
	"io"
	"os"
)

// mapFile reads a file: Windows lets no mapped file be replaced, and our writers replace files.
func mapFile(f *os.File, size int64) ([]byte, error) {
	bytes := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), bytes); err != nil {
		return nil, err
	}
	return bytes, nil
}

func unmapFile([]byte) {}
