package abi

import (
	"encoding/binary"

	"agflow/bridge/carrow"
	"agflow/core/fault"
	"agflow/core/planning"
	"agflow/core/tensor"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// TopK exports the bool array of which of the scores, float64 [n, 1] one after another, are among the k greatest, ties
// to the lower index, and returns how many.
func TopK(k, workers, scoresArray, scoresSchema, outArray, outSchema int64) (kept int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("scores", scoresArray, scoresSchema)
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	if err := checkWorkers(workers); err != nil {
		return 0, err
	}
	view, err := input.Matrix()
	if err != nil {
		return 0, err
	}
	scores, ok := tensor.Elements[float64](view)
	if !ok || view.Channels() != 1 || view.Stride() != 1 {
		return 0, fault.New(fault.Shape, "scores: expected float64 [n, 1], one score after another, got %s [%d, %d], %d values from row to row",
			view.Dtype(), view.Rows(), view.Channels(), view.Stride())
	}
	chosen, err := planning.TopK(scores, int(k), int(workers))
	if err != nil {
		return 0, err
	}
	giveArray(out, bools(chosen, len(scores)))
	return k, nil
}

// bools builds an array of the first n bits in result memory: Arrow numbers bits as Bitset does, lowest first.
func bools(bits planning.Bitset, n int) arrow.Array {
	buffer := memory.NewResizableBuffer(resultMemory)
	defer buffer.Release()
	buffer.Resize(8 * len(bits))
	for i, word := range bits {
		binary.LittleEndian.PutUint64(buffer.Bytes()[8*i:], word)
	}
	data := array.NewData(arrow.FixedWidthTypes.Boolean, n, []*memory.Buffer{nil, buffer}, nil, 0, 0)
	defer data.Release()
	return array.NewBooleanData(data)
}
