package carrow

import (
	"unsafe"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// maxRows keeps every byte count far from overflow: values are at most 8 bytes, list sizes are
// int32 and checked.
const maxRows = 1 << 40

// column borrows the rows [from, from+rows) of one array as arrow data over the same memory.
func column(path string, a *cArray, dt arrow.DataType, from, rows int64) (arrow.ArrayData, error) {
	list, isList := dt.(*arrow.FixedSizeListType)
	if !isList {
		return leaf(path, a, dt, from, rows)
	}
	if err := checkArray(path, a, 1, from, rows); err != nil {
		return nil, err
	}
	item, err := onlyChild[cArray](path, "array", a.children, a.nChildren)
	if err != nil {
		return nil, err
	}
	size := int64(list.Len())
	first := a.offset + from
	if first+rows > maxRows/size {
		return nil, fault.New(fault.Value, "%s: %d lists of %d values are more than agflow reads",
			path, first+rows, size)
	}
	values, err := leaf(path+" item", item, list.Elem(), first*size, rows*size)
	if err != nil {
		return nil, err
	}
	defer values.Release()
	return array.NewData(dt, int(rows), []*memory.Buffer{nil}, []arrow.ArrayData{values}, 0, 0), nil
}

// leaf borrows the elements [from, from+n) of an array without children.
func leaf(path string, a *cArray, dt arrow.DataType, from, n int64) (arrow.ArrayData, error) {
	buffers := int64(2)
	if dt.ID() == arrow.STRING {
		buffers = 3
	}
	if err := checkLeaf(path, a, buffers, from, n); err != nil {
		return nil, err
	}
	first := a.offset + from
	switch dt.ID() {
	case arrow.STRING:
		return utf8(path, a, first, n)
	case arrow.BOOL:
		bits, err := a.buffer(path, 1, 1, bitutil.BytesForBits(first+n))
		return array.NewData(dt, int(n), []*memory.Buffer{nil, bits}, nil, 0, int(first)), err
	}
	width := int64(dt.(arrow.FixedWidthDataType).Bytes())
	values, err := a.buffer(path, 1, width, (first+n)*width)
	return array.NewData(dt, int(n), []*memory.Buffer{nil, values}, nil, 0, int(first)), err
}

// utf8 borrows texts; every offset is checked, since a wrong one would read foreign memory.
func utf8(path string, a *cArray, first, n int64) (arrow.ArrayData, error) {
	dt := arrow.BinaryTypes.String
	if n == 0 { // an empty array may come without an offsets buffer
		return array.NewData(dt, 0, []*memory.Buffer{nil, nil, nil}, nil, 0, 0), nil
	}
	raw, err := a.buffer(path, 1, 4, (first+n+1)*4)
	if err != nil {
		return nil, err
	}
	offsets := arrow.Int32Traits.CastFromBytes(raw.Bytes())[first:]
	for i := range n {
		if offsets[i] < 0 || offsets[i+1] < offsets[i] {
			return nil, fault.New(fault.Value,
				"%s: text %d has the offsets %d to %d; offsets must not fall",
				path, i, offsets[i], offsets[i+1])
		}
	}
	letters, err := a.buffer(path, 2, 1, int64(offsets[n]))
	return array.NewData(dt, int(n), []*memory.Buffer{nil, raw, letters}, nil, 0, int(first)), err
}

// checkLeaf checks an array that has no children (see checkArray).
func checkLeaf(path string, a *cArray, buffers, from, n int64) error {
	if err := checkArray(path, a, buffers, from, n); err != nil {
		return err
	}
	if a.nChildren != 0 {
		return fault.New(fault.Value, "%s: the array has %d children, its type has none",
			path, a.nChildren)
	}
	return nil
}

// checkArray checks the fields that every array has, and that the elements [from, from+n) exist and
// are not null.
func checkArray(path string, a *cArray, buffers, from, n int64) error {
	switch {
	case a.release == 0:
		return fault.New(fault.Value, "%s: the array was released before", path)
	case a.dictionary != 0:
		return fault.New(fault.Dtype,
			"%s: dictionary (categorical) arrays are not read; cast the column to plain values",
			path)
	case a.length < 0 || a.offset < 0 || a.length > maxRows || a.offset > maxRows:
		return fault.New(fault.Value, "%s: the array claims length %d and offset %d",
			path, a.length, a.offset)
	case from+n > a.length:
		return fault.New(fault.Shape, "%s: the array holds %d values, %d are needed",
			path, a.length, from+n)
	case a.nBuffers != buffers || !plausible(a.buffers, 8):
		return fault.New(fault.Value, "%s: the array has %d buffers, its type needs %d",
			path, a.nBuffers, buffers)
	}
	return checkNulls(path, a, from, n)
}

// checkNulls counts the nulls among the elements in use; null_count itself may be -1, "not
// counted".
func checkNulls(path string, a *cArray, from, n int64) error {
	bitmap := *at[uintptr](a.buffers)
	if a.nullCount == 0 || n == 0 || bitmap == 0 && a.nullCount == -1 {
		return nil
	}
	if !plausible(bitmap, 1) {
		return fault.New(fault.Value, "%s: the array claims %d nulls but has no validity bitmap",
			path, a.nullCount)
	}
	first := a.offset + from
	bits := unsafe.Slice(at[byte](bitmap), bitutil.BytesForBits(first+n))
	if nulls := n - int64(bitutil.CountSetBits(bits, int(first), int(n))); nulls > 0 {
		return fault.New(fault.Value, "%s: %d of %d values are null; fill or drop them first",
			path, nulls, n)
	}
	return nil
}

// buffer borrows the first size bytes of buffer i, aligned to its values' width.
func (a *cArray) buffer(path string, i int, width, size int64) (*memory.Buffer, error) {
	content, err := a.bytes(path, i, width, size)
	if content == nil {
		return nil, err
	}
	return memory.NewBufferBytes(content), nil
}

// bytes borrows what buffer makes a buffer of; nil for no bytes.
func (a *cArray) bytes(path string, i int, width, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	address := unsafe.Slice(at[uintptr](a.buffers), a.nBuffers)[i]
	if !plausible(address, uintptr(width)) {
		return nil, fault.New(fault.Value,
			"%s: buffer %d is missing or not aligned to its %d-byte values; export a plain copy "+
				"of the array", path, i, width)
	}
	return unsafe.Slice(at[byte](address), size), nil
}
