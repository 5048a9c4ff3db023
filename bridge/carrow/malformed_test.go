package carrow

import (
	"strings"
	"testing"
	"unsafe"

	"agflow/bridge/internal/cstruct"
	"agflow/core/fault"
)

// malformed is one way in which structs can be wrong, and the code of the error that must say so.
type malformed struct {
	name  string
	code  fault.Code
	spoil func(r *raw)
}

// unmapped leads to memory that no process has.
const unmapped = 0x7ead_beef_0000

var malformedMatrices = []malformed{
	{"array released before", fault.Value, func(r *raw) { r.array.release = 0 }},
	{"schema released before", fault.Value, func(r *raw) { r.schema.release = 0 }},
	{"child array released before", fault.Value, func(r *raw) { child(r.array, 0).release = 0 }},
	{"child schema released before", fault.Value,
		func(r *raw) { childSchema(r.schema, 0).release = 0 }},
	{"no format", fault.Value, func(r *raw) { r.schema.format = 0 }},
	{"empty format", fault.Value, func(r *raw) { r.schema.format = r.text("") }},
	{"format leads nowhere", fault.Value, func(r *raw) { r.schema.format = unmapped }},
	{"format is a small number", fault.Value, func(r *raw) { r.schema.format = 5 }},
	{"metadata is a small number", fault.Value, func(r *raw) { r.schema.metadata = 5 }},
	{"children are a small number", fault.Value, func(r *raw) { r.array.children = 8 }},
	{"buffers are a small number", fault.Value, func(r *raw) { r.array.buffers = 8 }},
	{"values are a small number", fault.Value,
		func(r *raw) { *bufferOf(child(r.array, 0), 1) = 8 }},
	{"endless format", fault.Value,
		func(r *raw) { r.schema.format = r.text(strings.Repeat("w", maxText+1)) }},
	{"list of no size", fault.Dtype, func(r *raw) { r.schema.format = r.text("+w:") }},
	{"list of size 0", fault.Dtype, func(r *raw) { r.schema.format = r.text("+w:0") }},
	{"list of negative size", fault.Dtype, func(r *raw) { r.schema.format = r.text("+w:-4") }},
	{"list of absurd size", fault.Dtype,
		func(r *raw) { r.schema.format = r.text("+w:99999999999") }},
	{"unknown format", fault.Dtype, func(r *raw) { r.schema.format = r.text("tsu:UTC") }},
	{"list of other type", fault.Dtype,
		func(r *raw) { childSchema(r.schema, 0).format = r.text("i") }},
	{"uint16 that says no dtype", fault.Dtype,
		func(r *raw) { childSchema(r.schema, 0).format = r.text("S") }},
	{"uint16 of another dtype", fault.Dtype, func(r *raw) {
		childSchema(r.schema, 0).format = r.text("S")
		r.schema.metadata = rawMetadata(r, "agflow.dtype", "float8")
	}},
	{"float32 that says bfloat16", fault.Dtype,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.dtype", "bfloat16") }},
	{"float32 claimed to be float64", fault.Shape, func(r *raw) { // the values end in the middle
		childSchema(r.schema, 0).format = r.text("g")
		child(r.array, 0).length = 3
	}},
	{"rows that overlap", fault.Shape,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.row_stride", "1") }},
	{"row stride 0", fault.Shape,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.row_stride", "0") }},
	{"negative row stride", fault.Shape,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.row_stride", "-2") }},
	{"row stride of no number", fault.Shape,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.row_stride", "3 ") }},
	{"row stride of 64 bits and more", fault.Shape, func(r *raw) {
		r.schema.metadata = rawMetadata(r, "agflow.row_stride", "18446744073709551618")
	}},
	{"absurd row stride", fault.Shape,
		func(r *raw) {
			r.schema.metadata = rawMetadata(r, "agflow.row_stride",
				"4611686018427387904")
		}},
	{"row stride past the values", fault.Shape,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.row_stride", "3") }},
	{"row stride and offset past the values", fault.Shape, func(r *raw) {
		r.schema.metadata = rawMetadata(r, "agflow.row_stride", "4")
		r.array.length, r.array.offset = 1, 2
	}},
	{"rows and stride over 64 bits", fault.Value, func(r *raw) {
		r.schema.metadata = rawMetadata(r, "agflow.row_stride", "1099511627776")
		r.array.length = 1 << 39
	}},
	{"no positions", fault.Shape,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.positions", "0") }},
	{"negative positions", fault.Shape,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.positions", "-1") }},
	{"positions that do not divide", fault.Shape,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.positions", "3") }},
	{"positions of 64 bits and more", fault.Shape, func(r *raw) {
		r.schema.metadata = rawMetadata(r, "agflow.positions", "18446744073709551617")
	}},
	{"positions of no number", fault.Shape,
		func(r *raw) { r.schema.metadata = rawMetadata(r, "agflow.positions", "two") }},
	{"list of lists", fault.Dtype,
		func(r *raw) { childSchema(r.schema, 0).format = r.text("+w:2") }},
	{"plain values", fault.Dtype,
		func(r *raw) { r.schema.format = r.text("f"); r.schema.nChildren = 0 }},
	{"schema without children", fault.Value, func(r *raw) { r.schema.nChildren = 0 }},
	{"schema with negative children", fault.Value, func(r *raw) { r.schema.nChildren = -1 }},
	{"schema children missing", fault.Value, func(r *raw) { r.schema.children = 0 }},
	{"schema child missing", fault.Value, func(r *raw) { *at[uintptr](r.schema.children) = 0 }},
	{"schema child leads nowhere", fault.Value,
		func(r *raw) { *at[uintptr](r.schema.children) = unmapped }},
	{"schema with dictionary", fault.Dtype,
		func(r *raw) { r.schema.dictionary = number(unsafe.Pointer(r.schema)) }},
	{"metadata of negative count", fault.Value,
		func(r *raw) { r.schema.metadata = numbers[byte](r, 255, 255, 255, 255) }},
	{"metadata of absurd count", fault.Value,
		func(r *raw) { r.schema.metadata = numbers[byte](r, 255, 255, 255, 127) }},
	{"metadata of absurd length", fault.Value, func(r *raw) {
		r.schema.metadata = numbers[byte](r, 1, 0, 0, 0, 255, 255, 255, 127)
	}},
	{"array without children", fault.Value, func(r *raw) { r.array.nChildren = 0 }},
	{"array of absurd children", fault.Value, func(r *raw) { r.array.nChildren = 1 << 60 }},
	{"array children missing", fault.Value, func(r *raw) { r.array.children = 0 }},
	{"array child missing", fault.Value, func(r *raw) { *at[uintptr](r.array.children) = 0 }},
	{"array child at odd address", fault.Value,
		func(r *raw) { *at[uintptr](r.array.children) += 3 }},
	{"array child leads nowhere", fault.Value,
		func(r *raw) { *at[uintptr](r.array.children) = unmapped }},
	{"array with dictionary", fault.Dtype,
		func(r *raw) { r.array.dictionary = number(unsafe.Pointer(r.array)) }},
	{"negative length", fault.Value, func(r *raw) { r.array.length = -1 }},
	{"absurd length", fault.Value, func(r *raw) { r.array.length = 1 << 62 }},
	{"negative offset", fault.Value, func(r *raw) { r.array.offset = -1 }},
	{"absurd offset", fault.Value, func(r *raw) { r.array.offset = 1 << 62 }},
	{"product over 64 bits", fault.Value,
		func(r *raw) { r.schema.format = r.text("+w:2147483647"); r.array.length = 1 << 39 }},
	{"more rows than values", fault.Shape, func(r *raw) { r.array.length = 4 }},
	{"offset beyond values", fault.Shape, func(r *raw) { r.array.offset = 1 }},
	{"short child", fault.Shape, func(r *raw) { child(r.array, 0).length = 5 }},
	{"child of negative length", fault.Value, func(r *raw) { child(r.array, 0).length = -6 }},
	{"child with children", fault.Value, func(r *raw) { child(r.array, 0).nChildren = 1 }},
	{"child with one buffer", fault.Value, func(r *raw) { child(r.array, 0).nBuffers = 1 }},
	{"child without buffers", fault.Value, func(r *raw) { child(r.array, 0).buffers = 0 }},
	{"child without values", fault.Value, func(r *raw) { *bufferOf(child(r.array, 0), 1) = 0 }},
	{"values at odd address", fault.Value, func(r *raw) { *bufferOf(child(r.array, 0), 1)++ }},
	{"list with two buffers", fault.Value, func(r *raw) { r.array.nBuffers = 2 }},
	{"nulls without bitmap", fault.Value, func(r *raw) { child(r.array, 0).nullCount = 2 }},
	{"null values", fault.Value, func(r *raw) {
		child(r.array, 0).nullCount = -1
		*bufferOf(child(r.array, 0), 0) = number(pointer(cstruct.Slice[byte](r.Memory, 0b111011)))
	}},
	{"null rows", fault.Value, func(r *raw) {
		r.array.nullCount = 1
		*bufferOf(r.array, 0) = number(pointer(cstruct.Slice[byte](r.Memory, 0b101)))
	}},
	{"bitmap leads nowhere", fault.Value,
		func(r *raw) { r.array.nullCount = 1; *bufferOf(r.array, 0) = unmapped }},
}

var malformedRecords = []malformed{
	{"not a struct array", fault.Dtype, func(r *raw) { r.schema.format = r.text("f") }},
	{"no columns", fault.Value, func(r *raw) { r.schema.nChildren, r.array.nChildren = 0, 0 }},
	{"absurd columns", fault.Value,
		func(r *raw) { r.schema.nChildren, r.array.nChildren = 1<<40, 1<<40 }},
	{"fewer arrays than fields", fault.Value, func(r *raw) { r.array.nChildren = 3 }},
	{"short column", fault.Shape, func(r *raw) { child(r.array, 1).length = 2 }},
	{"struct offset beyond columns", fault.Shape, func(r *raw) { r.array.offset = 1 }},
	{"text with two buffers", fault.Value, func(r *raw) { child(r.array, 0).nBuffers = 2 }},
	{"text without offsets", fault.Value, func(r *raw) { *bufferOf(child(r.array, 0), 1) = 0 }},
	{"text without letters", fault.Value, func(r *raw) { *bufferOf(child(r.array, 0), 2) = 0 }},
	{"falling text offsets", fault.Value, func(r *raw) {
		*bufferOf(child(r.array, 0), 1) = numbers[int32](r, 0, 5, 3, 6)
	}},
	{"negative text offset", fault.Value, func(r *raw) {
		*bufferOf(child(r.array, 0), 1) = numbers[int32](r, -1, 1, 3, 6)
	}},
	{"offsets lead nowhere", fault.Value,
		func(r *raw) { *bufferOf(child(r.array, 0), 1) = unmapped }},
	{"categorical column", fault.Dtype,
		func(r *raw) { childSchema(r.schema, 0).dictionary = number(unsafe.Pointer(r.schema)) }},
	{"large text column", fault.Dtype,
		func(r *raw) { childSchema(r.schema, 0).format = r.text("U") }},
	{"null rows", fault.Value, func(r *raw) {
		r.array.nullCount = 1
		*bufferOf(r.array, 0) = number(pointer(cstruct.Slice[byte](r.Memory, 0b110)))
	}},
	{"null texts", fault.Value, func(r *raw) {
		child(r.array, 0).nullCount = -1
		*bufferOf(child(r.array, 0), 0) = number(pointer(cstruct.Slice[byte](r.Memory, 0b011)))
	}},
	{"leaf with schema children", fault.Value,
		func(r *raw) { childSchema(r.schema, 1).nChildren = 1 }},
	{"bits missing", fault.Value, func(r *raw) { *bufferOf(child(r.array, 2), 1) = 0 }},
}

// checkRefused proves: one error with the right code, and each struct that was alive released
// exactly once, however often the input is released.
func checkRefused(t *testing.T, m malformed, r *raw, read func(*Input) error) {
	m.spoil(r)
	wantArrays, wantSchemas := int64(1), int64(1)
	if r.array.release == 0 {
		wantArrays = 0
	}
	if r.schema.release == 0 {
		wantSchemas = 0
	}
	in := r.take("y")
	err := read(in)
	in.Release()
	in.Release()
	switch {
	case err == nil:
		t.Fatal("no error")
	case fault.CodeOf(err) != m.code:
		t.Errorf("code %q, expected %q: %v", fault.CodeOf(err), m.code, err)
	case !strings.Contains(err.Error(), "y"):
		t.Errorf("the error doesn't name the value: %v", err)
	}
	if *r.arraysReleased != wantArrays || *r.schemasReleased != wantSchemas {
		t.Errorf("array released %d times, schema %d times", *r.arraysReleased, *r.schemasReleased)
	}
}

func TestMalformedMatrixIsRefusedAndReleasedOnce(t *testing.T) {
	for _, m := range malformedMatrices {
		t.Run(m.name, func(t *testing.T) {
			checkRefused(t, m, rawMatrix(t, "2", 3, 1, 2, 3, 4, 5, 6), func(in *Input) error {
				_, err := in.Matrix()
				return err
			})
		})
	}
}

func TestMalformedRecordIsRefusedAndReleasedOnce(t *testing.T) {
	for _, m := range malformedRecords {
		t.Run(m.name, func(t *testing.T) {
			checkRefused(t, m, rawRecord(t), func(in *Input) error {
				_, err := in.Record()
				return err
			})
		})
	}
}

// TestBadAddresses proves that addresses which lead to no struct are an error, and that the other
// struct is released.
func TestBadAddresses(t *testing.T) {
	for name, address := range map[string]int64{
		"zero": 0, "zero page": 8, "odd": 0x7fff_0000_0001, "negative": -8, "unmapped": unmapped,
	} {
		t.Run(name, func(t *testing.T) {
			r := rawMatrix(t, "2", 1, 1, 2)
			in := Take("y", address, int64(uintptr(unsafe.Pointer(r.schema))))
			if _, err := in.Matrix(); fault.CodeOf(err) != fault.Value {
				t.Errorf("error %v", err)
			}
			in.Release()
			if *r.schemasReleased != 1 {
				t.Errorf("schema released %d times", *r.schemasReleased)
			}
			if _, err := Fill(address, address); fault.CodeOf(err) != fault.Value {
				t.Errorf("Fill: error %v", err)
			}
		})
	}
}

// TestForgetfulCallback proves that a producer which doesn't mark its array released is still
// called only once.
func TestForgetfulCallback(t *testing.T) {
	r := rawMatrix(t, "2", 1, 1, 2)
	r.array.release = number(cstruct.ForgetfulRelease())
	for range 2 {
		r.take("y").Release()
	}
	if *r.arraysReleased != 1 || *r.schemasReleased != 1 {
		t.Errorf("array released %d times, schema %d times", *r.arraysReleased, *r.schemasReleased)
	}
}

// TestFillRefusesUsedStructs proves that a result never overwrites a value that is still alive.
func TestFillRefusesUsedStructs(t *testing.T) {
	r := rawMatrix(t, "2", 1, 1, 2)
	_, err := Fill(int64(uintptr(unsafe.Pointer(r.array))),
		int64(uintptr(unsafe.Pointer(r.schema))))
	if fault.CodeOf(err) != fault.Value {
		t.Errorf("error %v", err)
	}
}
