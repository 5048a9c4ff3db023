package carrow

import (
	"slices"
	"testing"
	"unsafe"

	"agflow/bridge/internal/cstruct"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// TestMatrixIsTheProducersMemory proves zero-copy by equal addresses, offsets of list and values
// included.
func TestMatrixIsTheProducersMemory(t *testing.T) {
	for _, test := range []struct {
		name                         string
		listOffset, itemOffset, rows int64
		first                        int
	}{
		{"whole", 0, 0, 3, 0},
		{"list sliced", 1, 0, 2, 2},
		{"values sliced", 0, 2, 2, 2},
		{"both sliced", 1, 2, 1, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := rawMatrix(t, "2", test.rows, 1, 2, 3, 4, 5, 6)
			r.array.offset, child(r.array, 0).offset = test.listOffset, test.itemOffset
			child(r.array, 0).length -= test.itemOffset
			in := r.take("y")
			defer in.Release()
			m, err := in.Matrix()
			if err != nil {
				t.Fatal(err)
			}
			values := at[float32](*bufferOf(child(r.array, 0), 1))
			want := unsafe.Pointer(&unsafe.Slice(values, 6)[test.first])
			if got := unsafe.Pointer(unsafe.SliceData(floats(m))); got != want {
				t.Errorf("the matrix begins at %p, the producer's values at %p", got, want)
			}
			if m.Rows() != int(test.rows) || m.Channels() != 2 {
				t.Errorf("%d x %d", m.Rows(), m.Channels())
			}
		})
	}
}

func floats(m tensor.View) []float32 {
	data, _ := tensor.Elements[float32](m)
	return data
}

// TestUncountedNulls proves that null_count -1 is read as "count them": a bitmap without nulls in
// use is fine.
func TestUncountedNulls(t *testing.T) {
	r := rawMatrix(t, "2", 2, 1, 2, 3, 4, 5, 6)
	r.array.offset = 1 // row 0, the null one, is not in use
	r.array.nullCount = -1
	*bufferOf(r.array, 0) = number(pointer(cstruct.Slice[byte](r.Memory, 0b110)))
	child(r.array, 0).nullCount = -1
	in := r.take("y")
	defer in.Release()
	if m, err := in.Matrix(); err != nil || !slices.Equal(floats(m), []float32{3, 4, 5, 6}) {
		t.Errorf("%v, %v", floats(m), err)
	}
}

func TestEmptyMatrix(t *testing.T) {
	r := rawMatrix(t, "2", 0)
	*bufferOf(child(r.array, 0), 1) = 0
	in := r.take("y")
	defer in.Release()
	if m, err := in.Matrix(); err != nil || m.Rows() != 0 || m.Channels() != 2 {
		t.Errorf("%v, %v", m, err)
	}
}

// TestRecordKeepsValuesAndMetadata proves that every column type, the metadata and the slice of a
// struct arrive.
func TestRecordKeepsValuesAndMetadata(t *testing.T) {
	for offset := range int64(3) {
		r := rawRecord(t)
		r.array.offset, r.array.length = offset, 3-offset
		in := r.take("table")
		rec, err := in.Record()
		if err != nil {
			t.Fatal(err)
		}
		if kind, _ := rec.Schema().Metadata().GetValue("agflow.kind"); kind != "test" {
			t.Errorf("metadata %v", rec.Schema().Metadata())
		}
		texts, floats := rec.Column(0).(*array.String), rec.Column(1).(*array.Float64)
		bits, ints := rec.Column(2).(*array.Boolean), rec.Column(3).(*array.Int32)
		halves, brains := rec.Column(4).(*array.Float16), rec.Column(5).(*array.Uint16)
		for i := range texts.Len() {
			row := i + int(offset)
			if texts.Value(i) != []string{"a", "bb", "ccc"}[row] ||
				floats.Value(i) != float64(row)+0.5 ||
				bits.Value(i) != (row != 1) || ints.Value(i) != int32(row+7) ||
				halves.Value(i).Uint16() != []uint16{0x0001, 0x3c00, 0xffff}[row] ||
				brains.Value(i) != halves.Value(i).Uint16() {
				t.Errorf("offset %d, row %d: %v", offset, i, rec)
			}
		}
		first := number(unsafe.Pointer(&floats.Float64Values()[0]))
		if first != *bufferOf(child(r.array, 1), 1)+uintptr(8*offset) {
			t.Error("the float64 column was copied")
		}
		rec.Release()
		in.Release()
		if *r.arraysReleased != 1 || *r.schemasReleased != 1 {
			t.Errorf("array released %d times, schema %d times",
				*r.arraysReleased, *r.schemasReleased)
		}
	}
}

// TestExportGivesMemoryBack proves the way out: what is exported can be borrowed again, with
// metadata of schema and field, and the last release frees every byte.
func TestExportGivesMemoryBack(t *testing.T) {
	alloc := memory.NewCheckedAllocator(mallocator.NewMallocator())
	defer alloc.AssertSize(t, 0)
	b := array.NewFixedSizeListBuilder(alloc, 2, arrow.PrimitiveTypes.Float32)
	for i := range 3 {
		b.Append(true)
		b.ValueBuilder().(*array.Float32Builder).AppendValues([]float32{float32(i), float32(-i)},
			nil)
	}
	list := b.NewArray()
	b.Release()
	schemaMetadata := arrow.NewMetadata([]string{"agflow.kind"}, []string{"tensor"})
	fieldMetadata := arrow.NewMetadata([]string{"agflow.role"}, []string{"y"})
	schema := arrow.NewSchema([]arrow.Field{{Name: "a.y", Type: list.DataType(),
		Metadata: fieldMetadata}}, &schemaMetadata)
	rec := array.NewRecord(schema, []arrow.Array{list}, 3)
	list.Release()

	m := &cstruct.Memory{}
	defer m.Free()
	arrayAddress, schemaAddress := int64(uintptr(unsafe.Pointer(cstruct.New[cArray](m)))),
		int64(uintptr(unsafe.Pointer(cstruct.New[cSchema](m))))
	out, err := Fill(arrayAddress, schemaAddress)
	if err != nil {
		t.Fatal(err)
	}
	out.Record(rec)

	in := Take("table", arrayAddress, schemaAddress)
	back, err := in.Record()
	if err != nil {
		t.Fatal(err)
	}
	if !array.RecordEqual(rec, back) || !back.Schema().Metadata().Equal(schemaMetadata) ||
		!back.Schema().Field(0).Metadata.Equal(fieldMetadata) {
		t.Errorf("exported %v, got back %v", rec, back)
	}
	back.Release()
	rec.Release()
	in.Release()
}
