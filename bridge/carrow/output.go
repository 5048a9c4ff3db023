package carrow

import (
	"unsafe"

	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/cdata"
)

// Output is a pair of zeroed C structs that the caller allocated, to be filled with one Arrow
// value.
type Output struct {
	array  *cArray
	schema *cSchema
}

// Fill checks that the addresses lead to zeroed structs.
func Fill(array, schema int64) (Output, error) {
	out := Output{array: structAt[cArray](array), schema: structAt[cSchema](schema)}
	switch {
	case out.array == nil || out.schema == nil:
		return out, fault.New(fault.Value,
			"result: the addresses don't lead to Arrow C structs; pass two zeroed structs")
	case !probe(func() bool { return *out.array == cArray{} && *out.schema == cSchema{} }):
		return out, fault.New(fault.Value,
			"result: the Arrow structs to fill are not zeroed; allocate new ones for each call")
	}
	return out, nil
}

// Record exports a record batch as a struct array with its metadata. Its buffers must not lie in
// Go's heap: the consumer keeps them after the call, until it releases the structs.
func (out Output) Record(record arrow.Record) {
	cdata.ExportArrowRecordBatch(record, (*cdata.CArrowArray)(unsafe.Pointer(out.array)),
		(*cdata.CArrowSchema)(unsafe.Pointer(out.schema)))
}

// Array exports one array; the same rule holds for its buffers.
func (out Output) Array(values arrow.Array) {
	cdata.ExportArrowArray(values, (*cdata.CArrowArray)(unsafe.Pointer(out.array)),
		(*cdata.CArrowSchema)(unsafe.Pointer(out.schema)))
}
