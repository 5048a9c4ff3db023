package ipcfile

import (
	"encoding/binary"
	"unicode/utf8"

	"agflow/core/cancel"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

const (
	// int64 values, int64 nulls: one a column, and one for the values of a list
	nodeBytes   = 16
	bufferBytes = 16      // int64 offset in the body, int64 bytes
	maxValues   = 1 << 40 // of a column: keeps every count of bytes far from overflow
)

// placer makes a buffer of bytes of a file: over them, or a copy.
type placer func([]byte) *memory.Buffer

// copier places copies in memory of an allocator. A page that can't be read leaves no buffer
// behind.
func copier(alloc memory.Allocator) placer {
	return func(bytes []byte) *memory.Buffer {
		cancel.Check()
		buffer := memory.NewResizableBuffer(alloc)
		defer buffer.Release()
		buffer.Resize(len(bytes))
		copy(buffer.Bytes(), bytes)
		buffer.Retain()
		return buffer
	}
}

// batch cuts the columns of a record batch out of its body.
type batch struct {
	body           []byte
	nodes, buffers []byte // those still to be read
	// bytes of the body up to the end of the last buffer; buffers never overlap
	used   uint64
	place  placer
	placed []*memory.Buffer // all buffers; the columns hold on to them too
}

// readBatch builds the record batch that a message describes.
func readBatch(schema *arrow.Schema, message, body []byte, place placer) (arrow.Record, error) {
	description := openMessage(message)
	rows := int64(description.number(0, 8))
	b := &batch{body: body, place: place}
	b.nodes, _ = description.vector(1, nodeBytes)
	b.buffers, _ = description.vector(2, bufferBytes)
	defer b.release()
	if err := description.in.err; err != nil {
		return nil, err
	}
	if rows < 0 || rows > maxValues {
		return nil, fault.New(fault.File, "its record batch claims %d rows", rows)
	}
	columns := make([]arrow.Array, 0, schema.NumFields())
	defer func() {
		for _, column := range columns {
			column.Release()
		}
	}()
	for _, f := range schema.Fields() {
		data, err := b.column(f.Type, int(rows))
		if err != nil {
			return nil, fault.New(fault.File, "column %q %s", f.Name, fault.Sentence(err))
		}
		columns = append(columns, array.MakeFromData(data))
		data.Release()
	}
	if len(b.nodes) > 0 || len(b.buffers) > 0 {
		return nil, fault.New(fault.File, "its record batch describes more columns than its schema")
	}
	return array.NewRecord(schema, columns, rows), nil
}

func (b *batch) release() {
	for _, buffer := range b.placed {
		buffer.Release()
	}
}

// column reads n values of a type.
func (b *batch) column(dt arrow.DataType, n int) (arrow.ArrayData, error) {
	validity, nulls, err := b.node(n)
	if err != nil {
		return nil, err
	}
	switch dt := dt.(type) {
	case *arrow.FixedSizeListType:
		size := int(dt.Len())
		if n > maxValues/size {
			return nil, fault.New(fault.File, "claims %d lists of %d values", n, size)
		}
		values, err := b.column(dt.Elem(), n*size)
		if err != nil {
			return nil, err
		}
		defer values.Release()
		return array.NewData(dt, n, []*memory.Buffer{validity}, []arrow.ArrayData{values}, nulls,
			0), nil
	case *arrow.StringType:
		offsets, letters, err := b.texts(n)
		if err != nil {
			return nil, err
		}
		return array.NewData(dt, n, []*memory.Buffer{validity, offsets, letters}, nil, nulls, 0),
			nil
	}
	width := dt.(arrow.FixedWidthDataType).BitWidth()
	values, err := b.buffer(bitutil.BytesForBits(int64(n) * int64(width)))
	if err != nil {
		return nil, err
	}
	return array.NewData(dt, n, []*memory.Buffer{validity, values}, nil, nulls, 0), nil
}

// node reads the count of a column's values, which must be n, and its validity bitmap, nil where it
// has no nulls.
func (b *batch) node(n int) (validity *memory.Buffer, nulls int, err error) {
	if len(b.nodes) < nodeBytes {
		return nil, 0, fault.New(fault.File, "is not described by the record batch")
	}
	values, missing := int64(binary.LittleEndian.Uint64(b.nodes)),
		int64(binary.LittleEndian.Uint64(b.nodes[8:]))
	b.nodes = b.nodes[nodeBytes:]
	if values != int64(n) || missing < 0 || missing > values {
		return nil, 0, fault.New(fault.File, "has %d values with %d nulls, expected %d values",
			values, missing, n)
	}
	need := int64(0)
	if missing > 0 {
		need = bitutil.BytesForBits(values)
	}
	validity, err = b.buffer(need)
	return validity, int(missing), err
}

// buffer places the next buffer, of which the first need bytes are used; nil when none are.
func (b *batch) buffer(need int64) (*memory.Buffer, error) {
	if len(b.buffers) < bufferBytes {
		return nil, fault.New(fault.File, "has fewer buffers than its type needs")
	}
	offset, size := binary.LittleEndian.Uint64(b.buffers), binary.LittleEndian.Uint64(b.buffers[8:])
	b.buffers = b.buffers[bufferBytes:]
	if size < uint64(need) {
		return nil, fault.New(fault.File, "has a buffer of %d bytes, expected %d", size, need)
	}
	if size == 0 {
		return nil, nil
	}
	length := uint64(len(b.body))
	if offset < b.used || offset > length || size > length-offset {
		return nil, fault.New(fault.File,
			"has a buffer from byte %d to %d of a body of %d bytes, of which %d belong to buffers "+
				"before it", offset, offset+size, length, b.used)
	}
	if offset%8 != 0 {
		return nil, fault.New(fault.File, "has a buffer at byte %d, which is not a multiple of 8",
			offset)
	}
	b.used = offset + size
	if need == 0 {
		return nil, nil
	}
	buffer := b.place(b.body[offset:][:need:need])
	b.placed = append(b.placed, buffer)
	return buffer, nil
}

// texts places the offsets and the letters of n texts. What was placed is checked, not the file,
// which might change after a copy was made.
func (b *batch) texts(n int) (offsets, letters *memory.Buffer, err error) {
	need := 0
	if n > 0 {
		need = arrow.Int32Traits.BytesRequired(n + 1)
	}
	if offsets, err = b.buffer(int64(need)); err != nil {
		return nil, nil, err
	}
	if n == 0 {
		letters, err = b.buffer(0)
		return offsets, letters, err
	}
	ends := arrow.Int32Traits.CastFromBytes(offsets.Bytes())
	last := ends[n]
	if letters, err = b.buffer(int64(max(last, 0))); err != nil {
		return nil, nil, err
	}
	var bytes []byte
	if letters != nil {
		bytes = letters.Bytes()
	}
	for i, from := range ends[:n] {
		to := ends[i+1]
		if from < 0 || to < from || int(to) > len(bytes) || !utf8.Valid(bytes[from:to]) {
			return nil, nil, fault.New(fault.File, "has a text %d, bytes %d to %d, that is not one",
				i, from, to)
		}
	}
	return offsets, letters, nil
}
