package tables

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"agflow/bridge/ipcfile"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Other programs write the columns of agflow's tables in types of their own: every integer as
// int64, every float as float64, texts as large utf8. They are read as the types of the kind.

var (
	textType, boolType     = arrow.BinaryTypes.String, arrow.FixedWidthTypes.Boolean
	int32Type, int64Type   = arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64
	float32Type, wideFloat = arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64
)

// namedTypes are the types of columns by kind; in "" those of the same type in every kind.
var namedTypes = map[string]map[string]arrow.DataType{
	"": {
		"layer": textType, "group": textType, "unit": int32Type, "unit_width": int32Type,
		"parts": int32Type, "unit_macs": int64Type, "unit_params": int64Type,
	},
	KindStatistics: {
		"rows": int64Type, "samples": int64Type, "batches": int64Type, "weights": int64Type,
		"reader_weights": int64Type, "weight_gradients": int64Type, "max_abs_yg": wideFloat,
	},
	KindScores: {"score": wideFloat},
	KindPlan:   {"score": wideFloat, "keep": boolType},
	KindPredictions: {
		"label": int64Type, "light_prediction": int64Type, "light_prior": float32Type,
		"heavy_prediction": int64Type, ensembleColumn: int64Type,
	},
	KindCurve: {"threshold": wideFloat, "escalated": int64Type},
	KindLatency: {
		"kind": textType, "rows": int64Type, "shape": textType, "inputs": int64Type,
		"outputs": int64Type, "heads": int64Type, "ms": wideFloat,
	},
	KindFrontier: frontierTypes(),
	KindDecisions: {
		"index": int64Type, "prediction": int64Type, "prior": float32Type, "escalate": boolType,
	},
}

func frontierTypes() map[string]arrow.DataType {
	types := map[string]arrow.DataType{}
	for _, field := range frontierColumns {
		types[field.Name] = field.Type
	}
	return types
}

// typeOf is the type that a column of a kind has; nil for one that the kind doesn't know.
func typeOf(kind, name string) arrow.DataType {
	if dt, known := namedTypes[kind][name]; known {
		return dt
	}
	switch {
	case kind == KindPredictions && strings.HasPrefix(name, priorPrefix):
		return float32Type
	case kind == KindStatistics && strings.HasPrefix(name, "sum_"):
		return wideFloat
	case kind == KindCurve && isMeasure(name):
		return wideFloat
	case kind == KindStatistics || kind == KindScores || kind == KindPlan:
		return namedTypes[""][name]
	}
	return nil
}

func isMeasure(name string) bool {
	name = strings.TrimSuffix(strings.TrimSuffix(name, "_low"), "_high")
	return slices.ContainsFunc(measures, func(m measure) bool { return m.name == name })
}

// conform returns a record batch whose columns have the types of a kind where their values allow
// it; the reader of the kind refuses the others. The caller releases it.
func conform(kind string, rec arrow.Record, alloc memory.Allocator) arrow.Record {
	fields, arrays := slices.Clone(rec.Schema().Fields()), slices.Clone(rec.Columns())
	changed := false
	for i, field := range fields {
		want := typeOf(kind, field.Name)
		if want == nil || arrow.TypeEqual(want, field.Type) {
			continue
		}
		if converted := convert(arrays[i], want, alloc); converted != nil {
			defer converted.Release()
			fields[i].Type, arrays[i], changed = want, converted, true
		}
	}
	if !changed {
		rec.Retain()
		return rec
	}
	metadata := rec.Schema().Metadata()
	return array.NewRecord(arrow.NewSchema(fields, &metadata), arrays, rec.NumRows())
}

// convert returns the values of a column without nulls in another type, nil where one has no place
// in it.
func convert(values arrow.Array, want arrow.DataType, alloc memory.Allocator) arrow.Array {
	if values.NullN() > 0 {
		return nil
	}
	switch want {
	case int32Type:
		b := array.NewInt32Builder(alloc)
		defer b.Release()
		return whole(values, math.MinInt32, math.MaxInt32, b, func(n int64) { b.Append(int32(n)) })
	case int64Type:
		b := array.NewInt64Builder(alloc)
		defer b.Release()
		return whole(values, math.MinInt64, math.MaxInt64, b, b.Append)
	case float32Type:
		b := array.NewFloat32Builder(alloc)
		defer b.Release()
		return floats(values, b, func(x float64) { b.Append(float32(x)) })
	case wideFloat:
		b := array.NewFloat64Builder(alloc)
		defer b.Release()
		return floats(values, b, b.Append)
	}
	return nil
}

// whole appends integers, or floats that are whole numbers, between two bounds.
func whole(
	values arrow.Array, least, greatest int64, b array.Builder, put func(int64),
) arrow.Array {
	at := integerAt(values)
	if at == nil {
		number := floatAt(values)
		if number == nil {
			return nil
		}
		at = func(i int) (int64, bool) {
			x := number(i)
			return int64(x), x == math.Trunc(x) && math.Abs(x) < 1<<53
		}
	}
	b.Reserve(values.Len())
	for i := range values.Len() {
		n, fits := at(i)
		if !fits || n < least || n > greatest {
			return nil
		}
		put(n)
	}
	return b.NewArray()
}

func floats(values arrow.Array, b array.Builder, put func(float64)) arrow.Array {
	at := floatAt(values)
	if at == nil {
		integer := integerAt(values)
		if integer == nil {
			return nil
		}
		at = func(i int) float64 { n, _ := integer(i); return float64(n) }
	}
	b.Reserve(values.Len())
	for i := range values.Len() {
		put(at(i))
	}
	return b.NewArray()
}

// integerAt is a column of integers of any width, nil for another one.
func integerAt(values arrow.Array) func(i int) (n int64, fits bool) {
	switch a := values.(type) {
	case *array.Int8:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Int16:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Int32:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Int64:
		return func(i int) (int64, bool) { return a.Value(i), true }
	case *array.Uint8:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Uint16:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Uint32:
		return func(i int) (int64, bool) { return int64(a.Value(i)), true }
	case *array.Uint64:
		return func(i int) (int64, bool) { return int64(a.Value(i)), a.Value(i) <= math.MaxInt64 }
	}
	return nil
}

// floatAt is a column of floats of any width, nil for another one.
func floatAt(values arrow.Array) func(i int) float64 {
	switch a := values.(type) {
	case *array.Float32:
		return func(i int) float64 { return float64(a.Value(i)) }
	case *array.Float64:
		return func(i int) float64 { return a.Value(i) }
	case *array.Float16:
		return func(i int) float64 { return float64(a.Value(i).Float32()) }
	}
	return nil
}

// current returns a record batch of a kind, of any format and any types that the values allow, as
// this version has it. The caller releases it.
//
// Errors: those of Upgrade.
func current(kind string, rec arrow.Record, alloc memory.Allocator) (arrow.Record, error) {
	upgraded, err := Upgrade(rec)
	if err != nil {
		return nil, err
	}
	defer upgraded.Release()
	if kind == KindLogits {
		return conformLogits(upgraded, alloc), nil
	}
	return conform(kind, upgraded, alloc), nil
}

// conformLogits makes one column of logits out of columns of floats, one a class, as other programs
// write them.
func conformLogits(rec arrow.Record, alloc memory.Allocator) arrow.Record {
	var at []func(int) float64
	for _, values := range rec.Columns() {
		number := floatAt(values)
		if number == nil || values.NullN() > 0 {
			rec.Retain()
			return rec
		}
		at = append(at, number)
	}
	b := array.NewFloat64Builder(alloc)
	defer b.Release()
	rows := int(rec.NumRows())
	b.Reserve(rows * len(at))
	for i := range rows {
		for _, number := range at {
			b.Append(number(i))
		}
	}
	values := b.NewArray()
	defer values.Release()
	list := arrow.FixedSizeListOf(int32(len(at)), wideFloat)
	data := array.NewData(list, rows, []*memory.Buffer{nil}, []arrow.ArrayData{values.Data()}, 0, 0)
	defer data.Release()
	logits := array.NewFixedSizeListData(data)
	defer logits.Release()
	metadata := rec.Schema().Metadata()
	schema := arrow.NewSchema([]arrow.Field{{Name: "logits", Type: list}}, &metadata)
	return array.NewRecord(schema, []arrow.Array{logits}, int64(rows))
}

// predictionColumns are those without which routing knows nothing.
var predictionColumns = []string{"label", "light_prediction", "light_prior", "heavy_prediction"}

// pythonForms are the beginnings of files of other forms that Python reads.
var pythonForms = []string{"PAR1", "PK", "\x93NUMPY", "\xff\xff\xff\xff", "ARROW1"}

var textForms = []string{".csv", ".tsv", ".txt"}

// ReadsPredictions reports whether a file is read as predictions here: one with a checksum, another
// program's Arrow file of plain columns with the names of predictions, and what is no table at all,
// which the reader refuses. Python reads the others.
func ReadsPredictions(path string) bool {
	head := make([]byte, 8)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return true
	}
	file, err := os.Open(path)
	if err != nil {
		return true
	}
	count, err := file.Read(head)
	_ = file.Close()
	begins := func(form string) bool { return strings.HasPrefix(string(head[:count]), form) }
	isText := slices.Contains(textForms, strings.ToLower(filepath.Ext(path)))
	if err != nil || !isText && !slices.ContainsFunc(pythonForms, begins) {
		return true
	}
	if own, _ := ipcfile.Verify(path); own {
		return true
	}
	reads := false
	err = ipcfile.Use(path, KindPredictions, func(rec arrow.Record) error {
		reads = !slices.ContainsFunc(predictionColumns, func(name string) bool {
			return !rec.Schema().HasField(name)
		})
		return nil
	})
	return err == nil && reads
}
