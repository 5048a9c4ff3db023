// Package samples gives tests a model of two layers, and tensor files of it.
package samples

import (
	"maps"
	"strconv"
	"unsafe"

	"agflow/bridge/ipcfile"
	"agflow/core/statistics"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Model is the model that the samples are of.
var Model = statistics.Model{Name: "tiny ViT é", MACs: 1_000, Params: 100}

// Layers are the layers of Model.
var Layers = []statistics.Layer{
	{
		Name: "blocks.0.mlp", Group: "mlp", Rounds: true, Units: 3, UnitWidth: 1, Parts: 1,
		UnitMACs: 20, UnitParams: 5,
	},
	{
		Name: "blocks.0.attn", Group: "heads", Units: 2, UnitWidth: 4, Parts: 1,
		UnitMACs: 200, UnitParams: 40,
	},
}

// TensorFile collects the columns of a tensor file.
type TensorFile struct {
	Fields []arrow.Field
	Arrays []arrow.Array
	rows   int
}

// Put adds a column; its list array has an offset of one row, as slices from other languages do.
// The role begins with y, g or w.
func Put[T tensor.Element](
	f *TensorFile, l statistics.Layer, role string, axis, rows int, values []T,
) {
	pairs := describe(l, role, axis)
	of := arrowType[T](pairs)
	size := len(values) / rows
	padded := append(make([]T, size), values...)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&padded[0])),
		len(padded)*int(unsafe.Sizeof(padded[0])))
	buffers := []*memory.Buffer{nil, memory.NewBufferBytes(bytes)}
	child := array.NewData(of, len(padded), buffers, nil, 0, 0)
	kind := arrow.FixedSizeListOf(int32(size), of)
	list := array.NewData(kind, rows, []*memory.Buffer{nil}, []arrow.ArrayData{child}, 0, 1)
	f.Fields = append(f.Fields, arrow.Field{
		Name: l.Name + "." + role, Type: list.DataType(), Metadata: arrow.MetadataFrom(pairs),
	})
	f.Arrays = append(f.Arrays, array.MakeFromData(list))
	f.rows = rows
}

// describe makes the metadata of a field.
func describe(l statistics.Layer, role string, axis int) map[string]string {
	return map[string]string{
		"agflow.layer":       l.Name,
		"agflow.group":       l.Group,
		"agflow.role":        role[:min(1, len(role))],
		"agflow.units":       strconv.Itoa(l.Units),
		"agflow.unit_width":  strconv.Itoa(l.UnitWidth),
		"agflow.parts":       strconv.Itoa(l.Parts),
		"agflow.unit_macs":   strconv.FormatInt(l.UnitMACs, 10),
		"agflow.unit_params": strconv.FormatInt(l.UnitParams, 10),
		"agflow.unit_axis":   strconv.Itoa(axis),
	}
}

// arrowType is the Arrow type of T; bfloat16, which Arrow lacks, is said in the metadata.
func arrowType[T tensor.Element](pairs map[string]string) arrow.DataType {
	var zero T
	switch any(zero).(type) {
	case float32:
		return arrow.PrimitiveTypes.Float32
	case float64:
		return arrow.PrimitiveTypes.Float64
	case tensor.Float16:
		return arrow.FixedWidthTypes.Float16
	}
	pairs["agflow.dtype"] = "bfloat16"
	return arrow.PrimitiveTypes.Uint16
}

// Record makes the record batch of a kind and a model, with more metadata.
func (f *TensorFile) Record(kind string, m statistics.Model, more map[string]string) arrow.Record {
	pairs := map[string]string{
		ipcfile.KeyKind:       kind,
		"agflow.model":        m.Name,
		"agflow.model_macs":   strconv.FormatInt(m.MACs, 10),
		"agflow.model_params": strconv.FormatInt(m.Params, 10),
	}
	maps.Copy(pairs, more)
	metadata := arrow.MetadataFrom(pairs)
	return array.NewRecord(arrow.NewSchema(f.Fields, &metadata), f.Arrays, int64(f.rows))
}

// Tensor has two images of two tokens; its elements are numbered from 0 in units of their smallest
// number.
func Tensor[T tensor.Element]() arrow.Record {
	var f TensorFile
	l := Layers[0]
	values := make([]T, 4*l.Channels())
	for i := range values {
		values[i] = T(i)
	}
	Put(&f, l, "y", 0, 2, values)
	Put(&f, l, "g", 0, 2, values)
	return f.Record("tensor", Model, nil)
}
