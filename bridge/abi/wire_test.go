package abi

import (
	"testing"
	"unsafe"

	"agflow/bridge/carrow"
	"agflow/bridge/internal/cstruct"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/cdata"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// caller plays the part of another language: its values lie in memory of C, and all of it must come
// back.
type caller struct {
	t      testing.TB
	blocks *cstruct.Memory
	memory *memory.CheckedAllocator
}

// wire is one Arrow value on its way: the addresses of its two C structs.
type wire struct{ array, schema int64 }

func newCaller(t testing.TB) *caller {
	c := &caller{t: t, blocks: &cstruct.Memory{},
		memory: memory.NewCheckedAllocator(mallocator.NewMallocator())}
	t.Cleanup(func() {
		c.memory.AssertSize(t, 0)
		if live, _ := LiveBytes(); live != 0 {
			t.Errorf("%d bytes of results are still held", live)
		}
		if open, _ := Sessions(); open != 0 {
			t.Errorf("%d sessions are still open", open)
		}
		c.blocks.Free()
	})
	return c
}

// empty is two zeroed structs for a result.
func (c *caller) empty() wire {
	const arrayBytes, schemaBytes = 80, 72
	return wire{int64(uintptr(c.blocks.Bytes(arrayBytes))),
		int64(uintptr(c.blocks.Bytes(schemaBytes)))}
}

// matrix exports rows of channels float32 values.
func (c *caller) matrix(channels int, values ...float32) wire {
	b := array.NewFloat32Builder(c.memory)
	defer b.Release()
	b.AppendValues(values, nil)
	return c.lists(channels, b.NewArray())
}

// matrix64 exports rows of channels float64 values.
func (c *caller) matrix64(channels int, values ...float64) wire {
	b := array.NewFloat64Builder(c.memory)
	defer b.Release()
	b.AppendValues(values, nil)
	return c.lists(channels, b.NewArray())
}

// lists exports values as fixed-size lists and lets go of them.
func (c *caller) lists(channels int, values arrow.Array) wire {
	defer values.Release()
	kind := arrow.FixedSizeListOf(int32(channels), values.DataType())
	data := array.NewData(kind, values.Len()/channels, []*memory.Buffer{nil},
		[]arrow.ArrayData{values.Data()}, 0, 0)
	defer data.Release()
	lists := array.NewFixedSizeListData(data)
	defer lists.Release()
	w := c.empty()
	cdata.ExportArrowArray(lists, cdata.ArrayFromPtr(uintptr(w.array)),
		cdata.SchemaFromPtr(uintptr(w.schema)))
	return w
}

// record exports a record batch and lets go of it.
func (c *caller) record(rec arrow.Record) wire {
	defer rec.Release()
	w := c.empty()
	cdata.ExportArrowRecordBatch(rec, cdata.ArrayFromPtr(uintptr(w.array)),
		cdata.SchemaFromPtr(uintptr(w.schema)))
	return w
}

// result reads a record batch that a call made, then frees it.
func (c *caller) result(w wire, check func(arrow.Record)) {
	c.t.Helper()
	in := carrow.Take("result", w.array, w.schema)
	defer in.Release()
	rec, err := in.Record()
	if err != nil {
		c.t.Fatal(err)
	}
	defer rec.Release()
	check(rec)
}

// resultArray reads an array that a call made, then frees it.
func (c *caller) resultArray(w wire, check func(arrow.Array)) {
	c.t.Helper()
	_, values, err := cdata.ImportCArray(cdata.ArrayFromPtr(uintptr(w.array)),
		cdata.SchemaFromPtr(uintptr(w.schema)))
	if err != nil {
		c.t.Fatal(err)
	}
	defer values.Release()
	check(values)
}

// free releases a value that nobody reads.
func free(w wire) { carrow.Take("value", w.array, w.schema).Release() }

// untouched reports whether result structs are still zeroed.
func untouched(w wire) bool {
	_, err := carrow.Fill(w.array, w.schema)
	return err == nil
}

// released reports whether both structs of an input were given back.
func released(w wire) bool {
	return *releaseOf(w.array, arrayRelease) == 0 && *releaseOf(w.schema, schemaRelease) == 0
}

// The word of a struct that holds its release callback.
const arrayRelease, schemaRelease = 8, 7

func releaseOf(structs int64, word uintptr) *uintptr {
	return (*uintptr)(unsafe.Add(unsafe.Pointer(cdata.ArrayFromPtr(uintptr(structs))), 8*word))
}
