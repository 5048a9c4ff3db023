package kernel

import "agflow/core/tensor"

// AbsYG adds Σ|y·g| alone to sumC [channels], with the bits of Sums.AbsYG: for rows r and channels
// c,
//
//	sumC[c] += math.Abs(float64(y[r][c]) * float64(g[r][c]))
//
// y and g are of the same dtype and have as many channels as sumC, and equal rows.
func AbsYG(sumC []float64, y, g tensor.View, workers int) error {
	switch y.Dtype() {
	case tensor.Float64Type:
		return absYGView[float64](sumC, y, g, workers)
	case tensor.Float16Type:
		return absYGView[tensor.Float16](sumC, y, g, workers)
	case tensor.BFloat16Type:
		return absYGView[tensor.BFloat16](sumC, y, g, workers)
	}
	return absYGView[float32](sumC, y, g, workers)
}

func absYGView[T tensor.Element](sumC []float64, y, g tensor.View, workers int) error {
	if y.Rows() == 0 {
		return nil
	}
	workers = useful(workers, share.absYGs, y, g)
	if isMaps(y) || isMaps(g) {
		return split(len(sumC), workers, func(lo, hi int) { absYGMaps[T](sumC, y, g, lo, hi) })
	}
	yRows, gRows := matrixOf[T](y), matrixOf[T](g)
	return split(len(sumC), workers, func(lo, hi int) {
		absYG(sumC[lo:hi], yRows.channelsFrom(lo), gRows.channelsFrom(lo), y.Rows())
	})
}

// absYGMaps adds channels lo to hi where y, g or both are maps.
func absYGMaps[T tensor.Element](sumC []float64, y, g tensor.View, lo, hi int) {
	if absYGMapsVectors(sumC[lo:hi], y, g, lo) {
		return
	}
	inTiles(y, g, lo, hi, func(lo, hi int, y, g matrix[T], rows int) {
		absYG(sumC[lo:hi], y, g, rows)
	})
}

func absYG[T tensor.Element](sumC []float64, y, g matrix[T], rows int) {
	if !absYGVectors(sumC, y, g, rows) {
		absYGPortable(sumC, y, g, rows)
	}
}
