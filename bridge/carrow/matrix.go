package carrow

import (
	"unsafe"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// Matrix borrows a FixedSizeList[channels] array of rows lists as a matrix over the same memory.
// The values are float32, float64, float16, or uint16 with the schema metadata
// agflow.dtype=bfloat16. With agflow.row_stride=N list r begins at value r*N. With
// agflow.positions=P a list is not a row but an image of P rows, [channels, P]: the values of a
// channel at all positions, then those of the next.
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
	lists := in.array.length
	if err := checkArray(in.name, in.array, 1, 0, lists); err != nil {
		return view, err
	}
	item, err := onlyChild[cArray](in.name, "array", in.array.children, in.array.nChildren)
	if err != nil {
		return view, err
	}
	if last := in.array.offset + lists; last > maxRows/kind.stride {
		return view, fault.New(fault.Value,
			"%s: %d lists that begin every %d values are more than agflow reads",
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
	lists, n := in.array.length, int64(0)
	if lists > 0 {
		n = (lists-1)*kind.stride + kind.width()
	}
	from := in.array.offset * kind.stride
	if err := checkLeaf(in.name, item, 2, from, n); err != nil {
		return view, err
	}
	var values []T
	if lists > 0 {
		width, first := int64(unsafe.Sizeof(*new(T))), item.offset+from
		content, err := item.bytes(in.name, 1, width, (first+n)*width)
		if err != nil {
			return view, err
		}
		all := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(content))), first+n)
		values = all[first:]
	}
	channels, stride := int(kind.channels), int(kind.stride)
	if kind.positions > 0 {
		positions := int(kind.positions)
		return tensor.NewMapView(values, int(lists), channels, positions, stride, positions)
	}
	return tensor.NewStridedView(values, int(lists), channels, stride)
}
