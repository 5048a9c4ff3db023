package ipcfile

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/endian"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// fileOf writes record batches as another Arrow program would, and gives the file its checksum.
func fileOf(t testing.TB, schema *arrow.Schema, batches ...arrow.Record) []byte {
	return fileWith(t, schema, nil, batches...)
}

func fileWith(
	t testing.TB, schema *arrow.Schema, options []ipc.Option, batches ...arrow.Record,
) []byte {
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := ipc.NewFileWriter(f, append(options, ipc.WithSchema(schema))...)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range batches {
		if err := w.Write(array.NewRecord(schema, rec.Columns(), rec.NumRows())); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !setChecksum(file) {
		t.Fatal("the file has no place for a checksum")
	}
	return file
}

// sampleWith is the sample with one more column, "more".
func sampleWith(values arrow.Array) (*arrow.Schema, arrow.Record) {
	rec := sampleRecord(memory.DefaultAllocator)
	metadata := rec.Schema().Metadata()
	more := arrow.Field{Name: "more", Type: values.DataType(), Nullable: true}
	fields := append(rec.Schema().Fields(), more)
	schema := arrow.NewSchema(fields, &metadata)
	return fileSchema(schema), array.NewRecord(schema, append(rec.Columns(), values), rec.NumRows())
}

// fiveOf fills five rows of any type with zeros.
func fiveOf(dt arrow.DataType) arrow.Array {
	b := array.NewBuilder(memory.DefaultAllocator, dt)
	for range 5 {
		b.AppendEmptyValue()
	}
	return b.NewArray()
}

// TestForeignFilesAreRefusedByName proves that what other programs may write and agflow doesn't is
// said by its name, and that Write says it first, where the table itself has it.
func TestForeignFilesAreRefusedByName(t *testing.T) {
	for says, dt := range map[string]arrow.DataType{
		"dictionaries": &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8,
			ValueType: arrow.BinaryTypes.String},
		`is large utf8`: arrow.BinaryTypes.LargeString,
		`is timestamp`:  arrow.FixedWidthTypes.Timestamp_s,
		`is list`:       arrow.ListOf(arrow.PrimitiveTypes.Float32),
		`is null`:       arrow.Null,
		`is struct`: arrow.StructOf(arrow.Field{Name: "x",
			Type: arrow.PrimitiveTypes.Int32}),
		`"more" is fixed-size list`: arrow.FixedSizeListOf(2,
			arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32)),
	} {
		schema, rec := sampleWith(fiveOf(dt))
		if says == "dictionaries" {
			says = "dictionary-encoded"
		}
		if _, err := parseForged(t, fileOf(t, schema, rec)); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("reading %s: %v", dt, err)
		}
		if _, err := Write(filepath.Join(t.TempDir(), "x.arrow"),
			rec); fault.CodeOf(err) != fault.Dtype ||
			!strings.Contains(err.Error(), `column "more"`) {
			t.Errorf("writing %s: %v", dt, err)
		}
	}
	rec := sampleRecord(memory.DefaultAllocator)
	schema := fileSchema(rec.Schema())
	for says, file := range map[string][]byte{
		"0 record batches": fileOf(t, schema),
		"compressed":       fileWith(t, schema, []ipc.Option{ipc.WithZstd()}, rec),
		"are compressed":   fileWith(t, schema, []ipc.Option{ipc.WithLZ4()}, rec),
		"big-endian": fileOf(t, schema.WithEndianness(endian.BigEndian),
			array.NewRecord(schema.WithEndianness(endian.BigEndian), rec.Columns(), 5)),
		"no columns": fileOf(t, fileSchema(arrow.NewSchema(nil, nil))),
	} {
		if _, err := parseForged(t, file); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// TestFilesOfOtherProgramsAreRead proves that a file without a checksum is read, with integers of
// any width and its record batches joined, and that it is described as another program's.
func TestFilesOfOtherProgramsAreRead(t *testing.T) {
	for _, dt := range []arrow.DataType{arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16,
		arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64} {
		schema, rec := sampleWith(fiveOf(dt))
		file := fileOf(t, schema, rec, rec)
		for _, at := range checksums(file) {
			copy(file[at-len(checksumPrefix):], "another-sha25")
		}
		path := filepath.Join(t.TempDir(), "x.arrow")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if own, err := Verify(path); own || err != nil {
			t.Error(own, err)
		}
		read, err := Read(path, sampleKind, memory.DefaultAllocator)
		if err != nil {
			t.Fatal(err)
		}
		half := read.NewSlice(5, 10)
		if read.NumRows() != 10 || !array.RecordEqual(half, read.NewSlice(0, 5)) ||
			!arrow.TypeEqual(read.Schema().Field(int(read.NumCols())-1).Type, dt) {
			t.Errorf("%s: read %v", dt, read)
		}
		info, err := Inspect(path)
		if err != nil || info.Checksum || info.Rows != 10 ||
			info.Columns[len(info.Columns)-1] != (Column{"more", dt.String()}) {
			t.Errorf("%s: %+v, %v", dt, info, err)
		}
	}
}

// TestNulls proves that validity bitmaps of other programs are read, and that nulls are never
// written.
func TestNulls(t *testing.T) {
	b := array.NewFloat64Builder(memory.DefaultAllocator)
	b.AppendValues([]float64{1, 2, 3, 4, 5}, []bool{true, false, true, true, false})
	schema, rec := sampleWith(b.NewArray())
	read, err := parseForged(t, fileOf(t, schema, rec))
	if err != nil {
		t.Fatal(err)
	}
	wrote, more := rec.Column(3), read.Column(3)
	if more.NullN() != 2 || !more.IsNull(1) || !more.IsValid(3) || !array.Equal(more, wrote) {
		t.Errorf("wrote %v, read %v", wrote, more)
	}
	_, err = Write(filepath.Join(t.TempDir(), "x.arrow"), rec)
	if fault.CodeOf(err) != fault.Value ||
		!strings.Contains(err.Error(), `column "more" has 2 nulls`) {
		t.Error(err)
	}
}

// TestOldMarker proves that a message without the marker 0xffffffff, as programs before Arrow 0.15
// wrote it, is read.
func TestOldMarker(t *testing.T) {
	_, file := writeSample(t)
	want, err := parseForged(t, file)
	if err != nil {
		t.Fatal(err)
	}
	footer, rest, err := openFooter(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := allBatches(footer, rest)
	if err != nil {
		t.Fatal(err)
	}
	message := blocks[0].message
	size := binary.LittleEndian.Uint32(message[4:])
	binary.LittleEndian.PutUint32(message, size)
	copy(message[4:], message[8:])
	got, err := parseForged(t, file)
	if err != nil || !array.RecordEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestSlicesAreWrittenAsTheirRows proves for every type, at every offset and length, that a slice
// becomes the very file that a copy of its rows becomes, and so do texts whose first offset isn't
// 0.
func TestSlicesAreWrittenAsTheirRows(t *testing.T) {
	const rows = 70 // more than one word of bits
	whole := typedColumns(0, rows)
	for _, cut := range [][2]int{{0, rows}, {0, 1}, {1, 2}, {3, 40}, {8, 16}, {63, 66}, {64, 70},
		{69, 70}, {5, 5}} {
		for i, f := range whole.fields {
			slice := array.NewSlice(whole.arrays[i], int64(cut[0]), int64(cut[1]))
			got := fileOfColumn(t, f, slice)
			want := fileOfColumn(t, f, typedColumns(cut[0], cut[1]).arrays[i])
			if string(got) != string(want) {
				t.Errorf("%s [%d:%d]: the files differ", f.Name, cut[0], cut[1])
			}
			rec, err := parseForged(t, got)
			if err != nil {
				t.Fatal(f.Name, cut, err)
			}
			if !array.Equal(rec.Column(0), slice) {
				t.Errorf("%s [%d:%d]: wrote %v, read %v",
					f.Name, cut[0], cut[1], slice, rec.Column(0))
			}
		}
	}
	offsets := arrow.Int32Traits.CastToBytes([]int32{3, 5, 5, 8})
	texts := array.NewData(arrow.BinaryTypes.String, 3,
		[]*memory.Buffer{nil, memory.NewBufferBytes(offsets),
			memory.NewBufferBytes([]byte("no!abcde"))}, nil, 0, 0)
	rec, err := parseForged(t,
		fileOfColumn(t, arrow.Field{Name: "text", Type: arrow.BinaryTypes.String},
			array.MakeFromData(texts)))
	if err != nil {
		t.Fatal(err)
	}
	if column := rec.Column(0).(*array.String); column.Value(0) != "ab" || column.Value(1) != "" ||
		column.Value(2) != "cde" {
		t.Errorf("texts %v", column)
	}
}

// fileOfColumn is the file that Write makes of one column.
func fileOfColumn(t *testing.T, f arrow.Field, values arrow.Array) []byte {
	schema := fileSchema(arrow.NewSchema([]arrow.Field{f}, nil))
	return fileOf(t, schema, compact(schema,
		array.NewRecord(schema, []arrow.Array{values}, int64(values.Len()))))
}
