package arrowfile

import (
	"strconv"
	"unsafe"

	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// A tensor file holds one batch: one row an image, the columns "<layer>.y" and "<layer>.g" of
// FixedSizeList<T>[tokens*channels] for the activation and its gradient. The file weights.arrow has one row and the
// columns "<layer>.w0", "<layer>.w1", … of FixedSizeList<T>[rows*columns]. T is float32, float64, float16, or uint16
// with the key agflow.dtype=bfloat16. Every field is an arrow.fixed_shape_tensor by its metadata, and has the keys
// agflow.layer, agflow.group, agflow.role (y, g or w), agflow.units, agflow.unit_width, agflow.parts,
// agflow.unit_macs, agflow.unit_params and, for weights, agflow.unit_axis (0: the rows of the weight belong to units, 1: its columns).
type tensorColumn struct {
	layer    statistics.Layer
	role     string
	unitAxis int
	view     tensor.View
	name     string
}

// tensorColumns reads all columns of a tensor file; the views live as long as the record batch.
func tensorColumns(rec arrow.Record) ([]tensorColumn, error) {
	if rec.NumCols() == 0 {
		return nil, fault.New(fault.Empty, "the tensor table has no columns, expected one at least")
	}
	columns := make([]tensorColumn, rec.NumCols())
	for i, f := range rec.Schema().Fields() {
		c, err := describeColumn(f)
		if err != nil {
			return nil, err
		}
		if c.view, err = columnView(f, rec.Column(i), c); err != nil {
			return nil, err
		}
		columns[i] = c
	}
	return columns, nil
}

// describeColumn reads the metadata of a field.
func describeColumn(f arrow.Field) (c tensorColumn, err error) {
	pairs := toMap(f.Metadata)
	integer := func(key string) (n int) {
		if err == nil {
			n, err = strconv.Atoi(pairs[key])
		}
		return n
	}
	c = tensorColumn{name: f.Name, role: pairs["agflow.role"]}
	c.layer = statistics.Layer{
		Name:       pairs["agflow.layer"],
		Group:      pairs["agflow.group"],
		Units:      integer("agflow.units"),
		UnitWidth:  integer("agflow.unit_width"),
		Parts:      integer("agflow.parts"),
		UnitMACs:   int64(integer("agflow.unit_macs")),
		UnitParams: int64(integer("agflow.unit_params")),
	}
	switch c.role {
	case "y", "g":
	case "w":
		c.unitAxis = integer("agflow.unit_axis")
	default:
		return c, fault.New(fault.Value, "tensor column %q has the role %q, expected y, g or w; write it with agflow", f.Name, c.role)
	}
	if err != nil {
		return c, fault.New(fault.Value, "tensor column %q: a size in its metadata is not a whole number (%w); write it with agflow", f.Name, err)
	}
	return c, statistics.ValidateLayers([]statistics.Layer{c.layer})
}

// columnView sees the values of a column as a matrix: for y and g one row a token, for w the weight itself.
func columnView(f arrow.Field, values arrow.Array, c tensorColumn) (tensor.View, error) {
	list, ok := values.(*array.FixedSizeList)
	if !ok {
		return tensor.View{}, notATensor(f)
	}
	if list.NullN() > 0 || list.ListValues().NullN() > 0 {
		return tensor.View{}, fault.New(fault.Value, "tensor column %q has nulls, expected none", f.Name)
	}
	size := rowSize(list)
	channels := c.layer.Channels()
	if c.role == "w" && c.unitAxis == 0 {
		channels = size / max(1, c.layer.Channels())
	}
	if channels == 0 || size%channels != 0 || c.role == "w" && list.Len() != 1 {
		return tensor.View{}, fault.New(fault.Shape, "tensor column %q has %d rows of %d values, which don't make a matrix for %d units of width %d", f.Name, list.Len(), size, c.layer.Units, c.layer.UnitWidth)
	}
	return listView(f, list, channels)
}

func rowSize(list *array.FixedSizeList) int {
	return int(list.DataType().(*arrow.FixedSizeListType).Len())
}

// listView sees the values of lists without nulls as a matrix of so many channels.
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
		if toMap(f.Metadata)["agflow.dtype"] == tensor.BFloat16Type.String() {
			return view[tensor.BFloat16](f, data, channels)
		}
	}
	return tensor.View{}, notATensor(f)
}

func notATensor(f arrow.Field) error {
	return fault.New(fault.Dtype, "tensor column %q is %s, expected a fixed-size list of float32, float64, float16, or of uint16 with the metadata agflow.dtype=bfloat16", f.Name, f.Type)
}

// view borrows the values of arrow data, whose width is that of T.
func view[T tensor.Element](f arrow.Field, data arrow.ArrayData, channels int) (tensor.View, error) {
	if data.Len() == 0 {
		return tensor.NewView[T](nil, 0, channels)
	}
	first := unsafe.Pointer(unsafe.SliceData(data.Buffers()[1].Bytes()))
	var element T
	if uintptr(first)%unsafe.Alignof(element) != 0 {
		return tensor.View{}, fault.New(fault.Value, "the values of tensor column %q are not aligned to their %d bytes; pass a plain copy", f.Name, unsafe.Sizeof(element))
	}
	values := unsafe.Slice((*T)(first), data.Offset()+data.Len())[data.Offset():]
	return tensor.NewView(values, len(values)/channels, channels)
}
