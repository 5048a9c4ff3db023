package abi

import (
	"agflow/core/fault"
	"agflow/core/planning"
	"agflow/core/statistics"
	"agflow/core/tensor"
)

// Kernel returns the name of the statistics kernel that this machine runs, "avx2" or "portable".
func Kernel() (name string, err error) {
	defer fault.Recover(&err)
	return statistics.KernelName(), nil
}

// AbsYG exports the float64 array [channels] of Σ|y·g| over the rows of y and g, and returns the
// number of rows.
func AbsYG(
	workers, yArray, ySchema, gArray, gSchema, outArray, outSchema int64,
) (rows int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	yInput, gInput := c.take("y", yArray, ySchema), c.take("g", gArray, gSchema)
	out, goroutines := c.fill(outArray, outSchema), c.workers(workers)
	y, g := c.matrix(yInput), c.matrix(gInput)
	if c.err != nil {
		return 0, c.err
	}
	sumC := make([]float64, y.Channels())
	if err := statistics.AddAbsYG(sumC, y, g, goroutines); err != nil {
		return 0, err
	}
	giveArray(out, float64s(sumC))
	return int64(y.Rows()), nil
}

// ReadLimit reads every word of a matrix once, as fast as this machine does, and returns the bits
// that any of them has set: the lower bound for the time of a pass over the matrix.
func ReadLimit(workers, mArray, mSchema int64) (bits int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("matrix", mArray, mSchema)
	goroutines := c.workers(workers)
	m := c.matrix(input)
	if c.err != nil {
		return 0, c.err
	}
	return int64(statistics.ReadLimit(m, goroutines)), nil
}

// TopK exports the bool array of which of the scores, float64 [n, 1] one after another, are among
// the k greatest, ties to the lower index, and returns how many.
func TopK(
	k, workers, scoresArray, scoresSchema, outArray, outSchema int64,
) (kept int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("scores", scoresArray, scoresSchema)
	out, goroutines := c.fill(outArray, outSchema), c.workers(workers)
	view := c.matrix(input)
	if c.err != nil {
		return 0, c.err
	}
	scores, ok := tensor.Elements[float64](view)
	if !ok || view.Channels() != 1 || len(scores) != view.Rows() {
		return 0, fault.New(fault.Shape,
			"scores: expected float64 [n, 1], one score after another, got %s [%d, %d], %d values "+
				"from row to row",
			view.Dtype(), view.Rows(), view.Channels(), view.Stride())
	}
	chosen, err := planning.TopK(scores, int(k), goroutines)
	if err != nil {
		return 0, err
	}
	giveArray(out, bools(chosen, len(scores)))
	return k, nil
}
