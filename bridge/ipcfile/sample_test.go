package ipcfile

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/float16"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// The kinds of the samples: the package knows none of its own.
const (
	sampleKind = "sample"
	otherKind  = "other"
)

// builtColumns collects columns.
type builtColumns struct {
	fields []arrow.Field
	arrays []arrow.Array
}

func (c *builtColumns) put(name string, b array.Builder) {
	values := b.NewArray()
	b.Release()
	c.fields = append(c.fields, arrow.Field{Name: name, Type: values.DataType()})
	c.arrays = append(c.arrays, values)
}

func (c *builtColumns) floats(alloc memory.Allocator, name string, values []float64) {
	b := array.NewFloat64Builder(alloc)
	b.AppendValues(values, nil)
	c.put(name, b)
}

// record makes a record batch of a kind and lets go of the columns.
func (c *builtColumns) record(kind string) arrow.Record {
	pairs := map[string]string{KeyKind: kind, "agflow.model": "tiny ViT é"}
	Stamp(pairs)
	metadata := arrow.MetadataFrom(pairs)
	schema := arrow.NewSchema(c.fields, &metadata)
	rec := array.NewRecord(schema, c.arrays, int64(c.arrays[0].Len()))
	for _, values := range c.arrays {
		values.Release()
	}
	return rec
}

// sampleRecord has five rows of texts and numbers.
func sampleRecord(alloc memory.Allocator) arrow.Record {
	var c builtColumns
	texts := array.NewStringBuilder(alloc)
	texts.AppendValues([]string{"mlp", "mlp", "é", "", "heads"}, nil)
	c.put("layer", texts)
	units := array.NewInt32Builder(alloc)
	units.AppendValues([]int32{0, 1, 2, 0, 1}, nil)
	c.put("unit", units)
	c.floats(alloc, "score", []float64{0.5, 0.25, 0.125, 3, 4})
	return c.record(sampleKind)
}

// typedColumns has the rows from to to of a column of every type that files hold, and of lists of
// each.
func typedColumns(from, to int) (c builtColumns) {
	leaves := slices.SortedFunc(maps.Values(leafTypes), func(a, b arrow.DataType) int {
		return strings.Compare(a.String(), b.String())
	})
	for _, leaf := range leaves {
		for _, dt := range []arrow.DataType{leaf, arrow.FixedSizeListOf(3, leaf)} {
			b := array.NewBuilder(memory.DefaultAllocator, dt)
			for row := from; row < to; row++ {
				if list, ok := b.(*array.FixedSizeListBuilder); ok {
					list.Append(true)
					for k := range 3 {
						appendNumber(list.ValueBuilder(), 3*row+k)
					}
				} else {
					appendNumber(b, row)
				}
			}
			c.put(dt.String(), b)
		}
	}
	return c
}

func appendNumber(b array.Builder, n int) {
	switch b := b.(type) {
	case *array.StringBuilder:
		b.Append(strings.Repeat("é", n%5))
	case *array.BooleanBuilder:
		b.Append(n%3 == 0)
	case *array.Float16Builder:
		b.Append(float16.New(float32(n)))
	default:
		if err := b.AppendValueFromString(strings.Repeat("1", n%3+1)); err != nil {
			panic(err)
		}
	}
}

// sampleFiles has the bytes of files of several shapes.
func sampleFiles(t testing.TB) map[string][]byte {
	typed, none := typedColumns(0, 9), typedColumns(0, 0)
	files := map[string][]byte{}
	for name, rec := range map[string]arrow.Record{
		"texts and numbers": sampleRecord(memory.DefaultAllocator),
		"every type":        typed.record(sampleKind),
		"no rows":           none.record(sampleKind),
	} {
		path := filepath.Join(t.TempDir(), "sample.arrow")
		if _, err := Write(path, rec); err != nil {
			t.Fatal(name, err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	return files
}

// writeSample writes a small file and returns its path and bytes.
func writeSample(t testing.TB) (string, []byte) {
	path := filepath.Join(t.TempDir(), "sample.arrow")
	if _, err := Write(path, sampleRecord(memory.DefaultAllocator)); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, file
}
