package carrow

import (
	"unsafe"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// Matrix borrows a FixedSizeList[channels] array of rows lists as a matrix over the same memory.
// The values are float32, float64, float16, or uint16 with the schema metadata
// agflow.dtype=bfloat16. With agflow.row_stride=N row r begins at value r*N: its list is the values
// r*N to r*N+channels.
func (in *Input) Matrix() (view tensor.View, err error) {
	err = in.guarded(func() (err error) {
		view, err = in.matrix()
		return err
	})
	return view, err
}

func (in *Input) matrix() (view tensor.View, err error) {
	kind, err := readMatrixType(in.name, in.schema)
	if err != nil {
		return view, err
	}
	rows := in.array.length
	if err := checkArray(in.name, in.array, 1, 0, rows); err != nil {
		return view, err
	}
	item, err := onlyChild[cArray](in.name, "array", in.array.children, in.array.nChildren)
	if err != nil {
		return view, err
	}
	if last := in.array.offset + rows; last > maxRows/kind.stride {
		return view, fault.New(fault.Value,
			"%s: %d rows that begin every %d values are more than agflow reads",
			in.name, last, kind.stride)
	}
	switch kind.dtype {
	case tensor.Float32Type:
		return borrow[float32](in, kind, item)
	case tensor.Float64Type:
		return borrow[float64](in, kind, item)
	case tensor.Float16Type:
		return borrow[tensor.Float16](in, kind, item)
	}
	return borrow[tensor.BFloat16](in, kind, item)
}

// borrow views the values of a matrix whose lists and type are sound.
func borrow[T tensor.Element](
	in *Input, kind matrixType, item *cArray,
) (view tensor.View, err error) {
	rows, n := in.array.length, int64(0)
	if rows > 0 {
		n = (rows-1)*kind.stride + kind.channels
	}
	from := in.array.offset * kind.stride
	if err := checkLeaf(in.name, item, 2, from, n); err != nil {
		return view, err
	}
	if rows == 0 {
		return tensor.NewStridedView[T](nil, 0, int(kind.channels), int(kind.stride))
	}
	width, first := int64(unsafe.Sizeof(*new(T))), item.offset+from
	content, err := item.bytes(in.name, 1, width, (first+n)*width)
	if err != nil {
		return view, err
	}
	values := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(content))), first+n)
	return tensor.NewStridedView(values[first:], int(rows), int(kind.channels), int(kind.stride))
}
