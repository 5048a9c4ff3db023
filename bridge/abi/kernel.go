package abi

import (
	"agflow/bridge/carrow"
	"agflow/core/fault"
	"agflow/core/statistics"
)

// Kernel returns the name of the statistics kernel that this machine runs, "avx2" or "portable".
func Kernel() (string, error) { return statistics.KernelName(), nil }

// AbsYG exports the float64 array [channels] of Σ|y·g| over the rows of y and g, and returns the number of rows.
func AbsYG(workers, yArray, ySchema, gArray, gSchema, outArray, outSchema int64) (rows int64, err error) {
	defer fault.Recover(&err)
	yInput, gInput := carrow.Take("y", yArray, ySchema), carrow.Take("g", gArray, gSchema)
	defer gInput.Release()
	defer yInput.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	if err := checkWorkers(workers); err != nil {
		return 0, err
	}
	y, g, err := matrices(yInput, gInput)
	if err != nil {
		return 0, err
	}
	sumC := make([]float64, y.Channels())
	if err := statistics.AddAbsYG(sumC, y, g, int(workers)); err != nil {
		return 0, err
	}
	giveArray(out, float64s(sumC))
	return int64(y.Rows()), nil
}

// ReadLimit reads every word of a matrix once, as fast as this machine does, and returns the bits that any of them has
// set: the measure that a pass over the matrix is held against.
func ReadLimit(workers, mArray, mSchema int64) (bits int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("matrix", mArray, mSchema)
	defer input.Release()
	if err := checkWorkers(workers); err != nil {
		return 0, err
	}
	m, err := input.Matrix()
	if err != nil {
		return 0, err
	}
	return int64(statistics.ReadLimit(m, int(workers))), nil
}
