// Package abi is the list of calls that cross into Go: addresses, scalars and texts, nothing else. Both doors, the
// extension module (bridge/native) and the hosting process (bridge/host), lead to it, and no other Go code is called
// from Python.
//
// Addresses are those of struct ArrowArray and struct ArrowSchema; a record batch is a struct array. Inputs belong to
// the call: it releases them before it returns, whether it succeeds or not, and keeps no pointer into them. Results
// are written into two zeroed structs of the caller, over memory of C's allocator, which the caller releases. An error
// leaves the result structs as they were, and its text begins with a code (package fault). No panic leaves a call.
package abi

import (
	"encoding/json"
	"fmt"
	"strings"

	"agflow/bridge/arrowfile"
	"agflow/bridge/carrow"
	"agflow/core/fault"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory/mallocator"
)

// Number marks the shape of this list; a caller built for another number must not call.
const Number = 5

// resultMemory holds every result: memory of C's allocator may be kept by other languages.
var resultMemory = mallocator.NewMallocator()

// Version returns the version of agflow and of this list.
func Version() (string, error) { return fmt.Sprintf("%s abi %d", arrowfile.Version, Number), nil }

// LiveBytes returns the bytes of results that callers have not released yet.
func LiveBytes() (int64, error) { return resultMemory.AllocatedBytes(), nil }

// ReleaseAddress returns the address of a release callback, for arrays and schemas, that only marks them released: for
// a caller that fills the structs itself over memory which it keeps alive for the call.
func ReleaseAddress() (int64, error) { return int64(carrow.MarkReleased), nil }

// decode reads a request in JSON; a misspelt key is an error, not a silent default.
func decode(request string, into any) error {
	d := json.NewDecoder(strings.NewReader(request))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fault.New(fault.Value, "the request is not the JSON expected here: %w", err)
	}
	return nil
}

// encode writes a result as JSON.
func encode(result any) (string, error) {
	text, err := json.Marshal(result)
	if err != nil {
		return "", fault.New(fault.Internal, "the result can't be written as JSON: %w", err)
	}
	return string(text), nil
}

// maxWorkers is beyond any machine; what shares work out needs no care for numbers near the end of int64 then.
const maxWorkers = 1 << 12

func checkWorkers(workers int64) error {
	if workers < 1 || workers > maxWorkers {
		return fault.New(fault.Value, "%d workers were asked for; use 1 to %d", workers, maxWorkers)
	}
	return nil
}

// read borrows a record batch for as long as use runs.
func read(in *carrow.Input, use func(arrow.Record) error) error {
	rec, err := in.Record()
	if err != nil {
		return err
	}
	defer rec.Release()
	return use(rec)
}

// give exports a record batch and lets go of it.
func give(out carrow.Output, rec arrow.Record) int64 {
	defer rec.Release()
	out.Record(rec)
	return rec.NumRows()
}

// giveArray exports an array and lets go of it.
func giveArray(out carrow.Output, values arrow.Array) {
	defer values.Release()
	out.Array(values)
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
