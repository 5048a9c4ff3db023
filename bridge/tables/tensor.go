package tables

import (
	"strconv"
	"unsafe"

	"agflow/bridge/ipcfile"
	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// Tensor is one column of a tensor file. The file of a batch has one row an image, and the columns
// "<layer>.y" and "<layer>.g" of FixedSizeList<T>[tokens*channels] for the activation and its
// gradient. The file of the weights has one row and the columns "<layer>.w0", "<layer>.w1", … of
// FixedSizeList<T>[rows*columns]. T is float32, float64, float16, or uint16 with the key
// agflow.dtype=bfloat16. By its metadata every field is an arrow.fixed_shape_tensor.
type Tensor struct {
	Column   string
	Layer    statistics.Layer
	Role     string      // y, g or w
	UnitAxis int         // of w: 0 where its rows belong to the units, 1 where its columns do
	View     tensor.View // of y and g one row a token, of w the weight itself
}

// Tensors reads all columns of a tensor file; the views live as long as the record batch.
func Tensors(of arrow.Record) ([]Tensor, error) {
	rec, err := Upgrade(of)
	if err != nil {
		return nil, err
	}
	defer rec.Release() // its columns are those of the record batch that was given
	if rec.NumCols() == 0 {
		return nil, fault.New(fault.Empty, "the tensor table has no columns, expected one at least")
	}
	groups, err := getChannelGroups(ipcfile.Pairs(rec.Schema().Metadata()))
	if err != nil {
		return nil, err
	}
	tensors := make([]Tensor, rec.NumCols())
	for i, f := range rec.Schema().Fields() {
		t, err := describeTensor(f, groups)
		if err != nil {
			return nil, err
		}
		if t.View, err = t.view(f, rec.Column(i)); err != nil {
			return nil, err
		}
		tensors[i] = t
	}
	return tensors, nil
}

// TensorMetadata returns the model and the table's own metadata of a tensor file.
func TensorMetadata(rec arrow.Record) (statistics.Model, map[string]string, error) {
	pairs := ipcfile.Pairs(rec.Schema().Metadata())
	model, err := getModel(pairs)
	return model, tableMetadata(pairs), err
}

// describeTensor reads the metadata of a field of a file with these channel groups.
func describeTensor(f arrow.Field, groups channelGroups) (t Tensor, err error) {
	pairs := ipcfile.Pairs(f.Metadata)
	integer := func(key string) (n int) {
		if err == nil {
			n, err = strconv.Atoi(pairs[key])
		}
		return n
	}
	t = Tensor{Column: f.Name, Role: pairs[keyRole]}
	t.Layer = statistics.Layer{
		Name:       pairs[keyLayer],
		Group:      pairs[keyGroup],
		Units:      integer(keyUnits),
		UnitWidth:  integer(keyUnitWidth),
		Parts:      integer(keyParts),
		UnitMACs:   int64(integer(keyUnitMACs)),
		UnitParams: int64(integer(keyUnitParams)),
	}
	switch t.Role {
	case "y", "g":
	case "w":
		t.UnitAxis = integer(keyUnitAxis)
	default:
		return t, fault.New(fault.Value, "tensor column %q has the role %q, expected y, g or w; "+
			"write it with agflow", f.Name, t.Role)
	}
	if err != nil {
		return t, fault.New(fault.Value, "tensor column %q: a size in its metadata is not a whole "+
			"number (%w); write it with agflow", f.Name, err)
	}
	if err := groups.complete(&t.Layer); err != nil {
		return t, err
	}
	return t, statistics.ValidateLayers([]statistics.Layer{t.Layer})
}

// view shows the values of a column as a matrix.
func (t Tensor) view(f arrow.Field, values arrow.Array) (tensor.View, error) {
	list, ok := values.(*array.FixedSizeList)
	if !ok {
		return tensor.View{}, notATensor(f)
	}
	if list.NullN() > 0 || list.ListValues().NullN() > 0 {
		return tensor.View{}, fault.New(fault.Value, "tensor column %q has nulls, expected none",
			f.Name)
	}
	size := rowSize(list)
	channels := t.Layer.Channels()
	if t.Role == "w" && t.UnitAxis == 0 {
		channels = size / max(1, t.Layer.Channels())
	}
	if channels == 0 || size%channels != 0 || t.Role == "w" && list.Len() != 1 {
		return tensor.View{}, fault.New(fault.Shape, "tensor column %q has %d rows of %d values, "+
			"which don't make a matrix for %d units of width %d",
			f.Name, list.Len(), size, t.Layer.Units, t.Layer.UnitWidth)
	}
	return listView(f, list, channels)
}

func rowSize(list *array.FixedSizeList) int {
	return int(list.DataType().(*arrow.FixedSizeListType).Len())
}

// listView shows the values of lists without nulls as a matrix of so many channels.
func listView(f arrow.Field, list *array.FixedSizeList, channels int) (tensor.View, error) {
	size := rowSize(list)
	first := int64(list.Offset() * size)
	data := array.NewSliceData(list.ListValues().Data(), first, first+int64(list.Len()*size))
	defer data.Release()
	switch data.DataType().ID() {
	case arrow.FLOAT32:
		return view[float32](f, data, channels)
	case arrow.FLOAT64:
		return view[float64](f, data, channels)
	case arrow.FLOAT16:
		return view[tensor.Float16](f, data, channels)
	case arrow.UINT16:
		if ipcfile.Pairs(f.Metadata)[keyDtype] == tensor.BFloat16Type.String() {
			return view[tensor.BFloat16](f, data, channels)
		}
	}
	return tensor.View{}, notATensor(f)
}

func notATensor(f arrow.Field) error {
	return fault.New(fault.Dtype, "tensor column %q is %s, expected a fixed-size list of float32, "+
		"float64, float16, or of uint16 with the metadata agflow.dtype=bfloat16", f.Name, f.Type)
}

// view borrows the values of arrow data, whose width is that of T.
func view[T tensor.Element](
	f arrow.Field, data arrow.ArrayData, channels int,
) (tensor.View, error) {
	if data.Len() == 0 {
		return tensor.NewView[T](nil, 0, channels)
	}
	first := unsafe.Pointer(unsafe.SliceData(data.Buffers()[1].Bytes()))
	var element T
	if uintptr(first)%unsafe.Alignof(element) != 0 {
		return tensor.View{}, fault.New(fault.Value,
			"the values of tensor column %q are not aligned "+
				"to their %d bytes; pass a plain copy", f.Name, unsafe.Sizeof(element))
	}
	values := unsafe.Slice((*T)(first), data.Offset()+data.Len())[data.Offset():]
	return tensor.NewView(values, len(values)/channels, channels)
}
