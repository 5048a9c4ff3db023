// Package ipcfile keeps record batches in Arrow IPC files, uncompressed, one record batch a file,
// readable by any Arrow tool. A checksum inside the file is verified before a byte of it is parsed,
// and a file appears whole or not at all. A file without one is another program's. Reading maps the
// file into memory and copies nothing (Use, and Open for large files), or copies once (Read); no
// file, damaged or forged, makes it panic or allocate more than a small multiple of the file's
// size. What the columns of a kind are is the matter of package tables.
package ipcfile

import (
	"os"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Write writes one record batch to a new file, or in place of an older one, and returns its bytes.
// The schema metadata names the kind; format, producer and checksum are set here. Columns are not
// checked against the kind: package tables does that.
func Write(path string, rec arrow.Record) (size int64, err error) {
	if err := checkColumns(rec); err != nil {
		return 0, err
	}
	content := compact(fileSchema(rec.Schema()), rec)
	defer content.Release()
	err = replace(path, func(f *os.File) (err error) {
		if err := writeIPC(f, path, content); err != nil {
			return err
		}
		size, err = writeChecksum(f, path)
		return err
	})
	return size, err
}

// fileSchema sets the keys that every file has; the checksum's digits are still zeros.
func fileSchema(schema *arrow.Schema) *arrow.Schema {
	pairs := Pairs(schema.Metadata())
	Stamp(pairs)
	pairs[KeyChecksum] = checksumPrefix + checksumZeros
	metadata := arrow.MetadataFrom(pairs)
	return arrow.NewSchema(schema.Fields(), &metadata)
}

func writeIPC(f *os.File, path string, rec arrow.Record) error {
	w, err := ipc.NewFileWriter(pieces{f}, ipc.WithSchema(rec.Schema()))
	if err != nil {
		return IOFault(path, "write", err)
	}
	if err := w.Write(rec); err != nil {
		return IOFault(path, "write", err)
	}
	if err := w.Close(); err != nil {
		return IOFault(path, "write", err)
	}
	return nil
}

// pieces is a file that is written in pieces, so that the work can be cancelled.
type pieces struct{ *os.File }

func (p pieces) Write(bytes []byte) (int, error) { return inPieces(p.File.Write)(bytes) }

// writeChecksum puts the digits in the two places that hold zeros and returns the size of the file.
func writeChecksum(f *os.File, path string) (size int64, err error) {
	m, err := openMapping(f.Name())
	if err != nil {
		return 0, err
	}
	defer m.close()
	err = guarded(path, func() error {
		at := checksums(m.bytes)
		if len(at) != 2 {
			return fault.New(fault.Value,
				"%s: a name or the data holds the text of an agflow checksum (%q and %d digits); "+
					"rename it", path, checksumPrefix, checksumDigits)
		}
		digits := []byte(digest(m.bytes, at[0], at[1]))
		for _, offset := range at {
			if _, err := f.WriteAt(digits, int64(offset)); err != nil {
				return IOFault(path, "write", err)
			}
		}
		return nil
	})
	return int64(len(m.bytes)), err
}

// Use verifies a file and lends its record batch to a step, without copying: the columns lie in the
// file's own pages, mapped into memory. They are the step's until it returns; it may hand them to
// goroutines that turn faults into panics and recover (debug.SetPanicOnFault), and must copy what
// it keeps. The kind is the one expected, or "" for any.
//
// A file may be replaced by renaming meanwhile. One that is written in place, or cut short, is an
// error (file), and so is what the step returns, with the file's name before it.
func Use(path, kind string, step func(arrow.Record) error) error {
	return withMapping(path, func(m *mapping) error {
		rec, err := m.read(kind, m.buffer, memory.DefaultAllocator)
		if err != nil {
			return err
		}
		defer rec.Release()
		if err := step(rec); err != nil {
			return Named(path, err)
		}
		return nil
	})
}

// Read verifies a file and copies its record batch into memory of alloc, where nothing that happens
// to the file reaches it; the caller releases it. The kind is the one expected, or "" for any.
func Read(path, kind string, alloc memory.Allocator) (rec arrow.Record, err error) {
	err = withMapping(path, func(m *mapping) (err error) {
		rec, err = m.read(kind, copier(alloc), alloc)
		return err
	})
	return released(rec, err)
}

// mappedFrom is the size of a file, in bytes, from which Open does not copy it.
var mappedFrom = int64(64 << 20)

// Open is Read, but a file of 64 MiB or more is not copied: the columns lie in its own pages, read
// by the operating system as they are used, until the caller releases the record batch. Such a file
// may be replaced by renaming meanwhile, as Write does. Whoever writes into it in place changes the
// columns, and whoever cuts it short makes the process that reads them end.
func Open(path, kind string, alloc memory.Allocator) (rec arrow.Record, err error) {
	err = withMapping(path, func(m *mapping) (err error) {
		place := copier(alloc)
		if int64(len(m.bytes)) >= mappedFrom {
			place = m.buffer
		}
		rec, err = m.read(kind, place, alloc)
		return err
	})
	return released(rec, err)
}

// released lets go of a record batch that was read, but is void.
func released(rec arrow.Record, err error) (arrow.Record, error) {
	if err != nil && rec != nil {
		rec.Release()
		rec = nil
	}
	return rec, err
}

func (m *mapping) read(
	kind string, place placer, alloc memory.Allocator,
) (arrow.Record, error) {
	if err := verify(m.path, m.bytes); err != nil {
		return nil, err
	}
	return parse(m.path, kind, m.bytes, place, alloc)
}

// parse reads a file that nothing is known about, although its checksum is right: whoever forges a
// file can forge that. Record batches are joined in memory of alloc where there are several.
func parse(
	path, kind string, file []byte, place placer, alloc memory.Allocator,
) (rec arrow.Record, err error) {
	schema, blocks, err := readFooter(file)
	if err == nil {
		if err := checkHeader(path, kind, schema); err != nil {
			return nil, err
		}
		rec, err = readBlocks(tableSchema(schema), blocks, place, alloc)
	}
	if err != nil {
		return nil, fault.New(fault.File, "%s can't be read: %s; write it with agflow",
			path, fault.Sentence(err))
	}
	return rec, nil
}

// readBlocks reads all record batches as one.
func readBlocks(
	schema *arrow.Schema, blocks []block, place placer, alloc memory.Allocator,
) (arrow.Record, error) {
	var parts []arrow.Record
	defer func() {
		for _, part := range parts {
			part.Release()
		}
	}()
	for _, b := range blocks {
		part, err := readBatch(schema, b.message, b.body, place)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	if len(parts) == 1 {
		parts[0].Retain()
		return parts[0], nil
	}
	rows, columns := int64(0), make([]arrow.Array, 0, schema.NumFields())
	defer func() {
		for _, column := range columns {
			column.Release()
		}
	}()
	for i := range schema.NumFields() {
		chunks := make([]arrow.Array, len(parts))
		for p, part := range parts {
			chunks[p] = part.Column(i)
		}
		column, err := array.Concatenate(chunks, alloc)
		if err != nil {
			return nil, fault.New(fault.File, "column %q can't be joined: %w", schema.Field(i).Name,
				err)
		}
		columns = append(columns, column)
	}
	for _, part := range parts {
		rows += part.NumRows()
	}
	return array.NewRecord(schema, columns, rows), nil
}

// tableSchema drops the checksum, which belongs to the file: a table that was read equals the one
// that was written.
func tableSchema(schema *arrow.Schema) *arrow.Schema {
	pairs := Pairs(schema.Metadata())
	delete(pairs, KeyChecksum)
	metadata := arrow.MetadataFrom(pairs)
	return arrow.NewSchema(schema.Fields(), &metadata)
}

// checkHeader refuses a newer format, and another kind than the one that is expected. A table of
// another program names neither.
func checkHeader(path, kind string, schema *arrow.Schema) error {
	pairs := Pairs(schema.Metadata())
	if _, err := FormatOf(pairs); err != nil {
		return fault.New(fault.File, "%s %s", path, fault.Sentence(err))
	}
	if found := pairs[KeyKind]; kind != "" && found != "" && found != kind {
		return fault.New(fault.File, "%s holds agflow %s, expected %s; name a %s file",
			path, pairs[KeyKind], kind, kind)
	}
	return nil
}
