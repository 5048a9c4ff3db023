// Package arrowfile keeps agflow's tables in Arrow IPC files, uncompressed, one record batch a file, readable by any
// Arrow tool. A checksum inside the file is verified before a byte of it is parsed, and a file appears whole or not
// at all. The layouts of the kinds stand in statistics.go, scores.go, plan.go, predictions.go, curve.go and tensor.go.
package arrowfile

import (
	"bytes"
	"os"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Write writes one record batch to a new file, or in place of an older one, and returns its bytes. The schema metadata
// must name a known agflow.kind and the columns must be those of that kind; format, producer and checksum are set here.
func Write(path string, rec arrow.Record) (size int64, err error) {
	if err := checkKind(rec); err != nil {
		return 0, err
	}
	sealed := array.NewRecord(sealedSchema(rec.Schema()), rec.Columns(), rec.NumRows())
	defer sealed.Release()
	err = replace(path, func(f *os.File) (err error) {
		if err := writeIPC(f, path, sealed); err != nil {
			return err
		}
		size, err = seal(f, path)
		return err
	})
	return size, err
}

// sealedSchema sets the keys that every file has; the checksum's digits are still zeros.
func sealedSchema(schema *arrow.Schema) *arrow.Schema {
	pairs := toMap(schema.Metadata())
	pairs[keyFormat] = Format
	pairs[keyProducer] = "agflow " + Version
	pairs[keyChecksum] = sealPrefix + sealZeros
	metadata := fromMap(pairs)
	return arrow.NewSchema(schema.Fields(), &metadata)
}

func writeIPC(f *os.File, path string, rec arrow.Record) error {
	w, err := ipc.NewFileWriter(f, ipc.WithSchema(rec.Schema()))
	if err != nil {
		return ioFault(path, "write", err)
	}
	if err := w.Write(rec); err != nil {
		return ioFault(path, "write", err)
	}
	if err := w.Close(); err != nil {
		return ioFault(path, "write", err)
	}
	return nil
}

// seal puts the checksum in the two places that hold its zeros and returns the size of the file.
func seal(f *os.File, path string) (size int64, err error) {
	m, err := openMapping(f.Name())
	if err != nil {
		return 0, err
	}
	defer m.close()
	err = guarded(path, func() error {
		at := seals(m.bytes)
		if len(at) != 2 {
			return fault.New(fault.Value, "%s: a name or the data holds the text of an agflow checksum (%q and %d digits); rename it", path, sealPrefix, sealDigits)
		}
		digits := []byte(digest(m.bytes, at[0], at[1]))
		for _, offset := range at {
			if _, err := f.WriteAt(digits, int64(offset)); err != nil {
				return ioFault(path, "write", err)
			}
		}
		return nil
	})
	return int64(len(m.bytes)), err
}

// Read verifies a file and reads its record batch into memory of alloc; the caller releases it. The kind is the one
// expected, or "" for any.
func Read(path, kind string, alloc memory.Allocator) (rec arrow.Record, err error) {
	m, err := openMapping(path)
	if err != nil {
		return nil, err
	}
	defer m.close()
	err = guarded(path, func() (err error) {
		if err := verify(path, m.bytes); err != nil {
			return err
		}
		rec, err = parse(path, kind, m.bytes, alloc)
		return err
	})
	return rec, err
}

func parse(path, kind string, file []byte, alloc memory.Allocator) (arrow.Record, error) {
	r, err := ipc.NewFileReader(bytes.NewReader(file), ipc.WithAllocator(alloc))
	if err != nil {
		return nil, fault.New(fault.File, "%s is not an Arrow file: %w; write it again", path, err)
	}
	defer r.Close()
	if err := checkHeader(path, kind, r.Schema()); err != nil {
		return nil, err
	}
	if r.NumRecords() != 1 {
		return nil, fault.New(fault.File, "%s holds %d record batches, expected 1; write it with agflow", path, r.NumRecords())
	}
	rec, err := r.RecordAt(0)
	if err != nil {
		return nil, fault.New(fault.File, "%s: the record batch can't be read: %w; write it again", path, err)
	}
	defer rec.Release()
	if err := checkLayout(rec); err != nil {
		return nil, fault.New(fault.File, "%s: %s; write it again", path, sentence(err))
	}
	return array.NewRecord(unsealedSchema(rec.Schema()), rec.Columns(), rec.NumRows()), nil
}

// unsealedSchema drops the checksum, which belongs to the file: a table that was read equals the one that was written.
func unsealedSchema(schema *arrow.Schema) *arrow.Schema {
	pairs := toMap(schema.Metadata())
	delete(pairs, keyChecksum)
	metadata := fromMap(pairs)
	return arrow.NewSchema(schema.Fields(), &metadata)
}

// checkHeader compares format and kind with what is expected.
func checkHeader(path, kind string, schema *arrow.Schema) error {
	pairs := toMap(schema.Metadata())
	if pairs[keyFormat] != Format {
		return fault.New(fault.File, "%s has agflow format %q, this version reads %q; use the agflow version that wrote it (%s)", path, pairs[keyFormat], Format, pairs[keyProducer])
	}
	if kind != "" && pairs[keyKind] != kind {
		return fault.New(fault.File, "%s holds agflow %s, expected %s; name a %s file", path, pairs[keyKind], kind, kind)
	}
	return nil
}
