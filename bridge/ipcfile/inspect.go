package ipcfile

import (
	"encoding/binary"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Info describes a file for people.
type Info struct {
	Path     string            `json:"path"`
	Kind     string            `json:"kind"`
	Bytes    int64             `json:"bytes"`
	Rows     int64             `json:"rows"`
	Columns  []Column          `json:"columns"`
	Metadata map[string]string `json:"metadata"`
	// false for a file of another program, which has no checksum
	Checksum bool `json:"checksum"`
}

// Column is one column of a file.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Inspect verifies a file of any kind and says what it holds. Of a file of another program, which
// may hold types that are not read here, only the description is looked at.
func Inspect(path string) (info Info, err error) {
	err = withMapping(path, func(m *mapping) error {
		info = Info{Path: path, Bytes: int64(len(m.bytes))}
		if err := verify(path, m.bytes); err != nil {
			return err
		}
		if info.Checksum = len(checksums(m.bytes)) > 0; !info.Checksum {
			return info.describe(path, m.bytes)
		}
		rec, err := m.read("", m.buffer, memory.DefaultAllocator)
		if err != nil {
			return err
		}
		defer rec.Release()
		info.Metadata = Pairs(rec.Schema().Metadata())
		info.Kind, info.Rows = info.Metadata[KeyKind], rec.NumRows()
		for _, f := range rec.Schema().Fields() {
			info.Columns = append(info.Columns, Column{f.Name, f.Type.String()})
		}
		return nil
	})
	return info, err
}

// describe fills in what the footer and the record batches of another program's file say of it.
func (info *Info) describe(path string, file []byte) error {
	footer, rest, err := openFooter(file)
	if err != nil {
		return fault.New(fault.File, "%s can't be read: %s", path, fault.Sentence(err))
	}
	schema := footer.child(1)
	for child := range schema.children(1) {
		info.Columns = append(info.Columns, Column{child.text(0), describedType(child)})
	}
	info.Metadata = Pairs(readMetadata(schema, 2))
	info.Kind = info.Metadata[KeyKind]
	blocks, _ := footer.vector(3, blockBytes)
	for ; len(blocks) > 0 && footer.in.err == nil; blocks = blocks[blockBytes:] {
		offset := binary.LittleEndian.Uint64(blocks)
		described := uint64(binary.LittleEndian.Uint32(blocks[8:]))
		if offset > uint64(len(rest)) || described > uint64(len(rest))-offset {
			footer.in.fail("a record batch stands outside of it")
			break
		}
		message := openHeader(rest[offset:][:described])
		info.Rows += int64(min(message.number(0, 8), maxValues))
		if message.in.err != nil {
			return fault.New(fault.File, "%s can't be read: %s", path,
				fault.Sentence(message.in.err))
		}
	}
	if err := footer.in.err; err != nil {
		return fault.New(fault.File, "%s can't be read: %s", path, fault.Sentence(err))
	}
	return nil
}

// describedType is the type of a column in words, whether it can be read or not.
func describedType(field object) string {
	name := typeKeyOf(field).String()
	if field.has(4) {
		return "dictionary of " + name
	}
	return name
}
