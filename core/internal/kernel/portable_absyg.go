package kernel

import (
	"math"

	"agflow/core/tensor"
)

// absYGPortable is the loop of [AbsYG], float16 and bfloat16 through exact float32 copies.
func absYGPortable[T tensor.Element](sumC []float64, y, g matrix[T], rows int) {
	switch yFloats := any(y).(type) {
	case matrix[float32]:
		absYGFloats(sumC, yFloats, any(g).(matrix[float32]), rows)
	case matrix[float64]:
		absYGFloats(sumC, yFloats, any(g).(matrix[float64]), rows)
	default:
		inFloat32(y, g, rows, len(sumC), func(lo, hi int, y, g matrix[float32], rows int) {
			absYGFloats(sumC[lo:hi], y, g, rows)
		})
	}
}

// absYGFloats adds four rows per load of the sums.
func absYGFloats[T float32 | float64](sumC []float64, y, g matrix[T], rows int) {
	n, r := len(sumC), 0
	for ; r+4 <= rows; r += 4 {
		y0, y1, y2, y3 := y.row(r, n), y.row(r+1, n), y.row(r+2, n), y.row(r+3, n)
		g0, g1, g2, g3 := g.row(r, n), g.row(r+1, n), g.row(r+2, n), g.row(r+3, n)
		for c, sum := range sumC {
			sum += math.Abs(float64(y0[c]) * float64(g0[c]))
			sum += math.Abs(float64(y1[c]) * float64(g1[c]))
			sum += math.Abs(float64(y2[c]) * float64(g2[c]))
			sum += math.Abs(float64(y3[c]) * float64(g3[c]))
			sumC[c] = sum
		}
	}
	for ; r < rows; r++ {
		y, g := y.row(r, n), g.row(r, n)
		for c := range sumC {
			sumC[c] += math.Abs(float64(y[c]) * float64(g[c]))
		}
	}
}
