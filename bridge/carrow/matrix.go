package carrow

import (
	"unsafe"

	"agflow/core/fault"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
)

// Matrix borrows a FixedSizeList<float32>[channels] array of rows lists as a row-major matrix over the same memory.
func (in *Input) Matrix() (view tensor.View, err error) {
	err = in.guarded(func() (err error) {
		view, err = in.matrix()
		return err
	})
	return view, err
}

func (in *Input) matrix() (view tensor.View, err error) {
	f, err := field(in.name, in.schema)
	if err != nil {
		return view, err
	}
	list, ok := f.Type.(*arrow.FixedSizeListType)
	if !ok || list.Elem().ID() != arrow.FLOAT32 {
		return view, fault.New(fault.Dtype, "%s: expected a fixed-size list of float32, one list a row, found %s", in.name, f.Type)
	}
	rows := in.array.length
	data, err := column(in.name, in.array, f.Type, 0, rows)
	if err != nil {
		return view, err
	}
	defer data.Release()
	return tensor.NewView(float32s(data.Children()[0]), int(rows), int(list.Len()))
}

// float32s views the values of borrowed float32 data.
func float32s(data arrow.ArrayData) []float32 {
	buffer := data.Buffers()[1]
	if buffer == nil {
		return nil
	}
	first := (*float32)(unsafe.Pointer(unsafe.SliceData(buffer.Bytes())))
	return unsafe.Slice(first, data.Offset()+data.Len())[data.Offset():]
}
