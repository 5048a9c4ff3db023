package kernel

import "agflow/core/tensor"

// AbsYG adds Σ|y·g| alone to sum, the bits of Sums.AbsYG: for rows r and channels c,
//
//	sum_C[c] += math.Abs(float64(y[r][c]) * float64(g[r][c]))
//
// y and g are of the same dtype and have as many channels as sum_C, and equal rows.
func AbsYG(sum_C []float64, y, g tensor.View, workers int) error {
	switch y.Dtype() {
	case tensor.Float64Type:
		return absYGView[float64](sum_C, y, g, workers)
	case tensor.Float16Type:
		return absYGView[tensor.Float16](sum_C, y, g, workers)
	case tensor.BFloat16Type:
		return absYGView[tensor.BFloat16](sum_C, y, g, workers)
	}
	return absYGView[float32](sum_C, y, g, workers)
}

func absYGView[T tensor.Element](sum_C []float64, y, g tensor.View, workers int) error {
	if y.Rows() == 0 {
		return nil
	}
	yRows, gRows := matrixOf[T](y), matrixOf[T](g)
	return split(len(sum_C), workers, func(lo, hi int) {
		absYG(sum_C[lo:hi], yRows.channelsFrom(lo), gRows.channelsFrom(lo), y.Rows())
	})
}

func absYG[T tensor.Element](sum_C []float64, y, g matrix[T], rows int) {
	if !absYGVectors(sum_C, y, g, rows) {
		absYGPortable(sum_C, y, g, rows)
	}
}
