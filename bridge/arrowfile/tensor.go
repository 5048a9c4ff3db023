package arrowfile

import (
	"strconv"

	"agflow/core/fault"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// A tensor file holds one batch: one row an image, the columns "<layer>.y" and "<layer>.g" of
// FixedSizeList<float32>[tokens*channels] for the activation and its gradient. The file weights.arrow has one row and
// the columns "<layer>.w0", "<layer>.w1", … of FixedSizeList<float32>[rows*columns]. Every field is an
// arrow.fixed_shape_tensor by its metadata, and has the keys agflow.layer, agflow.group, agflow.role (y, g or w),
// agflow.units, agflow.unit_width, agflow.unit_macs, agflow.unit_params and, for weights, agflow.unit_axis (0: the
// rows of the weight belong to units, 1: its columns).
type tensorColumn struct {
	layer    statistics.Layer
	role     string
	unitAxis int
	view     tensor.View
	name     string
}

// tensorColumns reads all columns of a tensor file; the views live as long as the record batch.
func tensorColumns(rec arrow.Record) ([]tensorColumn, error) {
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
		return tensor.View{}, fault.New(fault.Dtype, "tensor column %q is %s, expected a fixed-size list of float32", f.Name, f.Type)
	}
	floats, ok := list.ListValues().(*array.Float32)
	if !ok {
		return tensor.View{}, fault.New(fault.Dtype, "tensor column %q is %s, expected a fixed-size list of float32", f.Name, f.Type)
	}
	if list.NullN() > 0 || floats.NullN() > 0 {
		return tensor.View{}, fault.New(fault.Value, "tensor column %q has nulls, expected none", f.Name)
	}
	size := int(list.DataType().(*arrow.FixedSizeListType).Len())
	data := floats.Float32Values()[list.Offset()*size:][:list.Len()*size]
	channels := c.layer.Channels()
	if c.role == "w" && c.unitAxis == 0 {
		channels = size / max(1, c.layer.Channels())
	}
	if channels == 0 || size%channels != 0 || c.role == "w" && list.Len() != 1 {
		return tensor.View{}, fault.New(fault.Shape, "tensor column %q has %d rows of %d values, which don't make a matrix for %d units of width %d", f.Name, list.Len(), size, c.layer.Units, c.layer.UnitWidth)
	}
	return tensor.NewView(data, len(data)/channels, channels)
}
