package tables

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"agflow/core/fault"
	"agflow/core/routing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// otherWidths writes every number of a record batch in the widest type of its kind, or in a narrow
// one, as other programs do.
func otherWidths(rec arrow.Record, narrow bool) arrow.Record {
	fields, arrays := slices.Clone(rec.Schema().Fields()), slices.Clone(rec.Columns())
	types := map[arrow.Type]arrow.DataType{arrow.INT32: int64Type, arrow.FLOAT32: wideFloat}
	if narrow {
		types = map[arrow.Type]arrow.DataType{arrow.INT64: int32Type, arrow.FLOAT64: float32Type}
	}
	for i, field := range fields {
		if want, changes := types[field.Type.ID()]; changes {
			if values := convert(arrays[i], want, memory.DefaultAllocator); values != nil {
				fields[i].Type, arrays[i] = want, values
			}
		}
	}
	metadata := rec.Schema().Metadata()
	return array.NewRecord(arrow.NewSchema(fields, &metadata), arrays, rec.NumRows())
}

// TestColumnsOfOtherWidthsAreRead proves that every kind is read from the types that other programs
// write, and becomes what agflow wrote where no value was rounded.
func TestColumnsOfOtherWidthsAreRead(t *testing.T) {
	for kind, rec := range sampleRecords(t, memory.DefaultAllocator) {
		if kind == KindTensor || kind == KindLogits {
			continue
		}
		for _, narrow := range []bool{false, true} {
			other := otherWidths(rec, narrow)
			if err := checks[kind](other); err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			back, err := Checked(kind, other, memory.DefaultAllocator)
			if err != nil {
				t.Fatal(kind, err)
			}
			if back == nil {
				back = other
			}
			for i, field := range rec.Schema().Fields() {
				if !arrow.TypeEqual(back.Schema().Field(i).Type, field.Type) {
					t.Errorf("%s: %s is %s", kind, field.Name, back.Schema().Field(i).Type)
				}
			}
			if !narrow && !array.RecordEqual(back, rec) {
				t.Errorf("%s: read %v, expected %v", kind, back, rec)
			}
		}
	}
}

// TestValuesWithoutAPlaceAreRefused proves that no number is cut to fit a column.
func TestValuesWithoutAPlaceAreRefused(t *testing.T) {
	big := array.NewInt64Builder(memory.DefaultAllocator)
	big.AppendValues([]int64{1, 1 << 40}, nil)
	half := array.NewFloat64Builder(memory.DefaultAllocator)
	half.AppendValues([]float64{1, 0.5}, nil)
	unsigned := array.NewUint64Builder(memory.DefaultAllocator)
	unsigned.AppendValues([]uint64{1, 1 << 63}, nil)
	for _, c := range []struct {
		values arrow.Array
		want   arrow.DataType
	}{{big.NewArray(), int32Type}, {half.NewArray(), int64Type}, {unsigned.NewArray(), int64Type},
		{fiveTexts(), int64Type}, {fiveTexts(), wideFloat}} {
		if got := convert(c.values, c.want, memory.DefaultAllocator); got != nil {
			t.Errorf("%v as %s: %v", c.values, c.want, got)
		}
	}
}

func fiveTexts() arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	b.AppendValues([]string{"1", "2", "3", "4", "5"}, nil)
	return b.NewArray()
}

// foreignFile writes a record batch without metadata, as another program would.
func foreignFile(t *testing.T, rec arrow.Record, options ...ipc.Option) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "foreign.arrow")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	schema := arrow.NewSchema(rec.Schema().Fields(), nil)
	w, err := ipc.NewFileWriter(f, append(options, ipc.WithSchema(schema))...)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(array.NewRecord(schema, rec.Columns(), rec.NumRows())); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPredictionsOfOtherPrograms proves that predictions without metadata are read with the costs
// that are given, and that what is missing is said with its cure.
func TestPredictionsOfOtherPrograms(t *testing.T) {
	rec := sampleRecords(t, memory.DefaultAllocator)[KindPredictions]
	path := foreignFile(t, otherWidths(rec, false))
	if !ReadsPredictions(path) || ReadsPredictions(foreignFile(t, rec, ipc.WithZstd())) {
		t.Error("plain columns are read here, compressed ones by Python")
	}
	want, err := LentSamples(rec)
	if err != nil {
		t.Fatal(err)
	}
	paid := &routing.Cost{Light: 1, Heavy: 4, Unit: "ms"}
	err = Lend(path, KindPredictions, SamplesAt(paid), func(s Samples) error {
		if s.Cost != *paid || s.Priors[0].Name != "light_prior" ||
			len(s.Priors) != len(want.Priors) || s.Priors[0].Values[0] != want.Priors[0].Values[0] {
			t.Errorf("read %+v, expected %+v", s, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	nothing := func(Samples) error { return nil }
	if err := Lend(path, KindPredictions, SamplesAt(nil), nothing); fault.CodeOf(err) !=
		fault.Value || !strings.Contains(err.Error(), "--cost 0.25") {
		t.Error(err)
	}
}

// TestLogitsInColumns proves that logits of one column a class are those of a column of lists.
func TestLogitsInColumns(t *testing.T) {
	b := array.NewFloat32Builder(memory.DefaultAllocator)
	b.AppendValues([]float32{1, 2, 3}, nil)
	first := b.NewArray()
	b.AppendValues([]float32{4, 5, 6}, nil)
	second := b.NewArray()
	schema := arrow.NewSchema([]arrow.Field{{Name: "cat", Type: float32Type},
		{Name: "dog", Type: float32Type}}, nil)
	view, err := LogitsFromRecord(array.NewRecord(schema, []arrow.Array{first, second}, 3))
	if err != nil || view.Rows() != 3 || view.Channels() != 2 {
		t.Fatal(view, err)
	}
	if row := view.Row(1, nil); row[0] != 2 || row[1] != 5 {
		t.Error(row)
	}
}
