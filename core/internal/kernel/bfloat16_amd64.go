//go:build amd64 && !purego

package kernel

import "agflow/core/tensor"

// absYGBFloat16s tries products in float32 for all whole sixteens of channels, and does a block of rows again in float64
// where one was not exact.
func absYGBFloat16s(sum_C []float64, y, g matrix[tensor.BFloat16], rows int) {
	n, sixteens := len(sum_C), len(sum_C)&^15
	before := make([]float64, sixteens)
	yStride, gStride := 2*y.stride, 2*g.stride
	for r := 0; r < rows; r += rowsPerCall {
		rows, done := min(rowsPerCall, rows-r), 0
		y, g := y.block(r, rows, n), g.block(r, rows, n)
		if sixteens > 0 {
			copy(before, sum_C)
			if absYGInFloat32((*uint16)(&y[0]), (*uint16)(&g[0]), yStride, gStride, rows, sixteens, &sum_C[0]) {
				done = sixteens
			} else {
				copy(sum_C, before)
			}
		}
		if done < n {
			absYGBFloat16((*uint16)(&y[done]), (*uint16)(&g[done]), yStride, gStride, rows, n-done, &sum_C[done])
		}
	}
}
