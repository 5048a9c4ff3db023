//go:build amd64 && !purego

package kernel

import "agflow/core/tensor"

// absYGBFloat16s computes products in float32 for all whole groups of sixteen channels, and repeats
// a block of rows in float64 where a product was not exact.
func absYGBFloat16s(sumC []float64, y, g matrix[tensor.BFloat16], rows int) {
	n, sixteens := len(sumC), len(sumC)&^15
	before := make([]float64, sixteens)
	yStride, gStride := 2*y.stride, 2*g.stride
	for r := 0; r < rows; r += rowsPerCall {
		rows, done := min(rowsPerCall, rows-r), 0
		y, g := y.block(r, rows, n), g.block(r, rows, n)
		if sixteens > 0 {
			copy(before, sumC)
			if absYGInFloat32((*uint16)(&y[0]), (*uint16)(&g[0]), yStride, gStride, rows, sixteens,
				&sumC[0]) {
				done = sixteens
			} else {
				copy(sumC, before)
			}
		}
		if done < n {
			absYGBFloat16((*uint16)(&y[done]), (*uint16)(&g[done]), yStride, gStride, rows, n-done,
				&sumC[done])
		}
	}
}
