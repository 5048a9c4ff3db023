package ipcfile

import (
	"os"
	"runtime"
	"unsafe"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Parts is a file that is being written: its columns are of fixed width, and its rows come a part
// at a time, so that no more than a part is in memory.
type Parts struct {
	path     string
	file     *os.File
	columns  []int64 // where the values of each begin in the file
	rows     int
	rowsDone int
}

// WriteParts is Write for rows that a step puts into the file in parts. An error of the step leaves
// no file behind, and an older one as it was.
func WriteParts(path string, step func(*Parts) error) (size int64, err error) {
	err = replace(path, func(f *os.File) (err error) {
		p := &Parts{path: path, file: f}
		if err := step(p); err != nil {
			return err
		}
		if p.columns == nil || p.rowsDone != p.rows {
			return fault.New(fault.Internal, "%d of %d rows were written to %s", p.rowsDone, p.rows,
				path)
		}
		size, err = writeChecksum(f, path)
		return err
	})
	return size, err
}

// Begin lays the file out for so many rows of a schema, whose metadata names the kind.
func (p *Parts) Begin(schema *arrow.Schema, rows int) error {
	p.rows = rows
	if err := p.writeBlank(schema); err != nil {
		return err
	}
	runtime.GC() // the blank record let the heap grow, and would go on to allow as much garbage
	m, err := openMapping(p.file.Name())
	if err != nil {
		return err
	}
	defer m.close()
	return guarded(p.path, func() error {
		laidOut, err := parse(p.path, "", m.bytes, m.buffer, memory.DefaultAllocator)
		if err != nil {
			return err
		}
		defer laidOut.Release()
		begin := uintptr(unsafe.Pointer(unsafe.SliceData(m.bytes)))
		for _, column := range laidOut.Columns() {
			offset := int64(0)
			if rows > 0 {
				values := column.Data().Buffers()[1].Bytes()
				offset = int64(uintptr(unsafe.Pointer(unsafe.SliceData(values))) - begin)
			}
			p.columns = append(p.columns, offset)
		}
		return nil
	})
}

func (p *Parts) writeBlank(schema *arrow.Schema) error {
	blank := blankRecord(fileSchema(schema), p.rows)
	defer blank.Release()
	if err := checkColumns(blank); err != nil {
		return err
	}
	return writeIPC(p.file, p.path, blank)
}

// blankRecord has rows of zeros, which all columns share: memory that is only read takes no room.
func blankRecord(schema *arrow.Schema, rows int) arrow.Record {
	bytes := func(f arrow.Field) int64 {
		width := f.Type.(arrow.FixedWidthDataType).BitWidth()
		return bitutil.BytesForBits(int64(rows) * int64(width))
	}
	widest := int64(0)
	for _, f := range schema.Fields() {
		widest = max(widest, bytes(f))
	}
	zeros := make([]byte, widest)
	columns := make([]arrow.Array, schema.NumFields())
	for i, f := range schema.Fields() {
		values := memory.NewBufferBytes(zeros[:bytes(f)])
		data := array.NewData(f.Type, rows, []*memory.Buffer{nil, values}, nil, 0, 0)
		columns[i] = array.MakeFromData(data)
		data.Release()
		defer columns[i].Release()
	}
	return array.NewRecord(schema, columns, int64(rows))
}

// Put writes the next rows. All parts but the last have a multiple of 8 rows, since eight values of
// bool share a byte.
func (p *Parts) Put(rec arrow.Record) error {
	rows := int(rec.NumRows())
	if rows > p.rows-p.rowsDone || p.rowsDone%8 != 0 || int(rec.NumCols()) != len(p.columns) {
		return fault.New(fault.Internal, "a part of %d rows can't follow %d of %d rows of %s", rows,
			p.rowsDone, p.rows, p.path)
	}
	part := compact(rec.Schema(), rec)
	defer part.Release()
	for i, column := range part.Columns() {
		if rows == 0 {
			continue
		}
		width := int64(column.DataType().(arrow.FixedWidthDataType).BitWidth())
		values := column.Data().Buffers()[1].Bytes()[:bitutil.BytesForBits(int64(rows)*width)]
		if _, err := p.file.WriteAt(values, p.columns[i]+int64(p.rowsDone)*width/8); err != nil {
			return IOFault(p.path, "write", err)
		}
	}
	p.rowsDone += rows
	return nil
}
