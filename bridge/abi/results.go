package abi

import (
	"encoding/binary"

	"agflow/bridge/carrow"
	"agflow/core/planning"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// results counts the bytes of results: they lie in memory of C's allocator, which other languages
// may keep.
var results = mallocator.NewMallocator()

// resultMemory holds every result; tests make it scarce.
var resultMemory memory.Allocator = results

// give exports a record batch, releases it and returns its rows.
func give(out carrow.Output, rec arrow.Record) int64 {
	defer rec.Release()
	out.Record(rec)
	return rec.NumRows()
}

// giveArray exports an array, releases it and returns its length.
func giveArray(out carrow.Output, values arrow.Array) int64 {
	defer values.Release()
	out.Array(values)
	return int64(values.Len())
}

// int64s builds an array in result memory.
func int64s(values []int64) arrow.Array {
	b := array.NewInt64Builder(resultMemory)
	defer b.Release()
	b.AppendValues(values, nil)
	return b.NewArray()
}

// float32s builds an array in result memory.
func float32s(values []float32) arrow.Array {
	b := array.NewFloat32Builder(resultMemory)
	defer b.Release()
	b.AppendValues(values, nil)
	return b.NewArray()
}

// float64s builds an array in result memory.
func float64s(values []float64) arrow.Array {
	b := array.NewFloat64Builder(resultMemory)
	defer b.Release()
	b.AppendValues(values, nil)
	return b.NewArray()
}

// bools builds an array of the first n bits in result memory: Arrow numbers bits as Bitset does,
// lowest first.
func bools(bits planning.Bitset, n int) arrow.Array {
	buffer := memory.NewResizableBuffer(resultMemory)
	defer buffer.Release()
	buffer.Resize(8 * len(bits))
	for i, word := range bits {
		binary.LittleEndian.PutUint64(buffer.Bytes()[8*i:], word)
	}
	data := array.NewData(arrow.FixedWidthTypes.Boolean, n, []*memory.Buffer{nil, buffer}, nil, 0,
		0)
	defer data.Release()
	return array.NewBooleanData(data)
}
