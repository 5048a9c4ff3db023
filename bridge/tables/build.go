package tables

import (
	"agflow/bridge/ipcfile"
	"agflow/core/statistics"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// columns collects the columns of a record batch in the order they are put. Whoever makes it
// releases it, deferred, so that nothing is lost where memory runs out in the middle.
type columns struct {
	alloc  memory.Allocator
	fields []arrow.Field
	arrays []arrow.Array
}

// appender is an Arrow builder of values of one Go type.
type appender[T any] interface {
	array.Builder
	AppendValues(values []T, valid []bool)
}

// add puts a column of values, none of them null.
func add[T any](c *columns, name string, b appender[T], values []T) {
	defer b.Release()
	b.AppendValues(values, nil)
	column := b.NewArray()
	c.fields = append(c.fields, arrow.Field{Name: name, Type: column.DataType()})
	c.arrays = append(c.arrays, column)
}

func (c *columns) texts(name string, values []string) {
	add(c, name, array.NewStringBuilder(c.alloc), values)
}

func (c *columns) int32s(name string, values []int32) {
	add(c, name, array.NewInt32Builder(c.alloc), values)
}

func (c *columns) int64s(name string, values []int64) {
	add(c, name, array.NewInt64Builder(c.alloc), values)
}

func (c *columns) float32s(name string, values []float32) {
	add(c, name, array.NewFloat32Builder(c.alloc), values)
}

func (c *columns) float64s(name string, values []float64) {
	add(c, name, array.NewFloat64Builder(c.alloc), values)
}

func (c *columns) bools(name string, values []bool) {
	add(c, name, array.NewBooleanBuilder(c.alloc), values)
}

// units puts the columns that name a unit: one row a unit, layers in their order, units ascending.
func (c *columns) units(layers []statistics.Layer) {
	var names, groups []string
	var units, widths, parts []int32
	var macs, params []int64
	for _, l := range layers {
		for u := range l.Units {
			names, groups = append(names, l.Name), append(groups, l.Group)
			units, widths, parts = append(units, int32(u)), append(widths, int32(l.UnitWidth)),
				append(parts, int32(l.Parts))
			macs, params = append(macs, l.UnitMACs), append(params, l.UnitParams)
		}
	}
	c.texts("layer", names)
	c.texts("group", groups)
	c.int32s("unit", units)
	c.int32s("unit_width", widths)
	c.int32s("parts", parts)
	c.int64s("unit_macs", macs)
	c.int64s("unit_params", params)
}

// record makes the record batch of a kind.
func (c *columns) record(kind string, pairs map[string]string) arrow.Record {
	pairs[ipcfile.KeyKind] = kind
	ipcfile.Stamp(pairs)
	metadata := arrow.MetadataFrom(pairs)
	return array.NewRecord(arrow.NewSchema(c.fields, &metadata), c.arrays, int64(c.arrays[0].Len()))
}

func (c *columns) release() {
	for _, values := range c.arrays {
		values.Release()
	}
}
