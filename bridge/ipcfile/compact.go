package ipcfile

import (
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// compact makes a record batch whose columns begin and end where their buffers do, so that a slice
// of a table becomes the same file as a copy of its rows. The Arrow writer alone would fill up a
// slice with its neighbours, and would write texts whose first offset isn't 0 wrongly. Only texts
// are copied.
func compact(schema *arrow.Schema, rec arrow.Record) arrow.Record {
	columns := make([]arrow.Array, rec.NumCols())
	for i := range columns {
		data := compactData(rec.Column(i).Data())
		columns[i] = array.MakeFromData(data)
		data.Release()
		defer columns[i].Release()
	}
	return array.NewRecord(schema, columns, rec.NumRows())
}

// compactData knows the types that checkType lets pass; there are no nulls.
func compactData(data arrow.ArrayData) arrow.ArrayData {
	n := data.Len()
	switch dt := data.DataType().(type) {
	case *arrow.FixedSizeListType:
		first := int64(data.Offset()) * int64(dt.Len())
		slice := array.NewSliceData(data.Children()[0], first, first+int64(n)*int64(dt.Len()))
		defer slice.Release()
		values := compactData(slice)
		defer values.Release()
		return array.NewData(dt, n, []*memory.Buffer{nil}, []arrow.ArrayData{values}, 0, 0)
	case *arrow.StringType:
		texts := array.NewStringData(data)
		defer texts.Release()
		b := array.NewStringBuilder(memory.DefaultAllocator)
		defer b.Release()
		for i := range n {
			b.Append(texts.Value(i))
		}
		return builtData(b)
	case *arrow.BooleanType:
		bits := array.NewBooleanData(data)
		defer bits.Release()
		b := array.NewBooleanBuilder(memory.DefaultAllocator)
		defer b.Release()
		for i := range n {
			b.Append(bits.Value(i))
		}
		return builtData(b)
	default:
		if n == 0 {
			return array.NewData(dt, 0, []*memory.Buffer{nil, nil}, nil, 0, 0)
		}
		width := dt.(arrow.FixedWidthDataType).Bytes()
		values := memory.SliceBuffer(data.Buffers()[1], data.Offset()*width, n*width)
		defer values.Release()
		return array.NewData(dt, n, []*memory.Buffer{nil, values}, nil, 0, 0)
	}
}

func builtData(b array.Builder) arrow.ArrayData {
	values := b.NewArray()
	defer values.Release()
	values.Data().Retain()
	return values.Data()
}
