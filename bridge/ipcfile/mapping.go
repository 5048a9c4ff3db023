package ipcfile

import (
	"io/fs"
	"os"
	"sync/atomic"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// mapping is a file seen as bytes, read by the operating system as they are used. It is unmapped
// when its last holder, the opener or a buffer over it, lets go.
type mapping struct {
	path    string
	bytes   []byte
	file    *os.File
	opened  fs.FileInfo
	holders atomic.Int64
}

// openMapping maps a file for its caller, who closes and releases it.
func openMapping(path string) (m *mapping, err error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if info.Size() == 0 {
		return nil, fault.New(fault.File, "%s is empty; write it again", path)
	}
	bytes, err := mapFile(f, info.Size())
	if err != nil {
		return nil, IOFault(path, "read", err)
	}
	m = &mapping{path: path, bytes: bytes, file: f, opened: info}
	m.holders.Store(1)
	return m, nil
}

// close ends the opener's hold.
func (m *mapping) close() {
	_ = m.file.Close()
	m.release()
}

func (m *mapping) release() {
	if m.holders.Add(-1) == 0 {
		unmapFile(m.bytes)
	}
}

// buffer is a placer: the buffer is a part of the mapping and a holder of it.
func (m *mapping) buffer(bytes []byte) *memory.Buffer {
	m.holders.Add(1)
	return memory.NewBufferWithAllocator(bytes, mapped{m})
}

// mapped is the allocator of buffers over a mapping. Such buffers are freed, and never grow.
type mapped struct{ *mapping }

func (m mapped) Free([]byte) { m.release() }

func (mapped) Allocate(int) []byte           { panic("a mapped buffer can't grow") }
func (mapped) Reallocate(int, []byte) []byte { panic("a mapped buffer can't grow") }

// withMapping lends the bytes of a file to a step. Where the file was changed in place meanwhile,
// what the step saw is void, even if it noticed nothing: past the end of a file the rest of a page
// reads as zeros.
func withMapping(path string, step func(*mapping) error) error {
	m, err := openMapping(path)
	if err != nil {
		return err
	}
	defer m.close()
	err = guarded(path, func() error { return step(m) })
	if changed := m.changed(); changed != nil {
		return changed
	}
	return err
}

// changed compares the file with what it was when it was opened. Another file of the same name is
// no change.
func (m *mapping) changed() error {
	now, err := m.file.Stat()
	if err != nil {
		return IOFault(m.path, "read", err)
	}
	if now.Size() != m.opened.Size() || !now.ModTime().Equal(m.opened.ModTime()) {
		return fault.New(fault.File,
			"%s was changed while it was read; read it again when no program writes to it", m.path)
	}
	return nil
}
