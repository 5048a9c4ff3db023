package kernel

import (
	"math"

	"agflow/core/tensor"
)

// addPortable computes, with float16 and bfloat16 through exact float32 copies,
//
//	for r := range rows {
//		for c := range s.Channels() {
//			y, g := float64(y[r][c]), float64(g[r][c])
//			s.AbsYG[c] += math.Abs(y * g)
//			s.YG[c] += y * g
//			s.YG2[c] += float64((y * g) * (y * g))
//			s.AbsY[c] += math.Abs(y)
//			s.Y[c] += y
//			s.Y2[c] += y * y
//			s.G2[c] += g * g
//			s.MaxAbsYG[c] = max(s.MaxAbsYG[c], math.Abs(y * g)), where a NaN changes nothing
//		}
//	}
//
// Products of two float32 are exact in float64; only (y·g)² and products of float64 round. The
// float64 conversions around products forbid fused multiply-adds, which would change bits on some
// machines.
func addPortable[T tensor.Element](s Sums, y, g matrix[T], rows int) {
	switch yFloats := any(y).(type) {
	case matrix[float32]:
		addFloats(s, yFloats, any(g).(matrix[float32]), rows)
	case matrix[float64]:
		addFloats(s, yFloats, any(g).(matrix[float64]), rows)
	default:
		inFloat32(y, g, rows, s.Channels(), func(lo, hi int, y, g matrix[float32], rows int) {
			addFloats(s.between(lo, hi), y, g, rows)
		})
	}
}

// addFloats adds four rows per load of the sums.
func addFloats[T float32 | float64](s Sums, y, g matrix[T], rows int) {
	r := 0
	for ; r+4 <= rows; r += 4 {
		addFour(s, y, g, r)
	}
	for ; r < rows; r++ {
		addOne(s, y.row(r, s.Channels()), g.row(r, s.Channels()))
	}
}

func addFour[T float32 | float64](s Sums, y, g matrix[T], r int) {
	n := s.Channels()
	y0, y1, y2, y3 := y.row(r, n), y.row(r+1, n), y.row(r+2, n), y.row(r+3, n)
	g0, g1, g2, g3 := g.row(r, n), g.row(r+1, n), g.row(r+2, n), g.row(r+3, n)
	absYG, yg, yg2, maxAbsYG := s.AbsYG[:n], s.YG[:n], s.YG2[:n], s.MaxAbsYG[:n]
	absY, sumY, sumY2, sumG2 := s.AbsY[:n], s.Y[:n], s.Y2[:n], s.G2[:n]
	for c := range n {
		a, b, d, e := float64(y0[c]), float64(y1[c]), float64(y2[c]), float64(y3[c])
		p, q, u, v := float64(g0[c]), float64(g1[c]), float64(g2[c]), float64(g3[c])
		absY[c] = absY[c] + math.Abs(a) + math.Abs(b) + math.Abs(d) + math.Abs(e)
		sumY[c] = sumY[c] + a + b + d + e
		sumY2[c] = sumY2[c] + float64(a*a) + float64(b*b) + float64(d*d) + float64(e*e)
		sumG2[c] = sumG2[c] + float64(p*p) + float64(q*q) + float64(u*u) + float64(v*v)
		a, b, d, e = float64(a*p), float64(b*q), float64(d*u), float64(e*v)
		yg[c] = yg[c] + a + b + d + e
		yg2[c] = yg2[c] + float64(a*a) + float64(b*b) + float64(d*d) + float64(e*e)
		a, b, d, e = math.Abs(a), math.Abs(b), math.Abs(d), math.Abs(e)
		absYG[c] = absYG[c] + a + b + d + e
		m := maxAbsYG[c]
		if a > m {
			m = a
		}
		if b > m {
			m = b
		}
		if d > m {
			m = d
		}
		if e > m {
			m = e
		}
		maxAbsYG[c] = m
	}
}

func addOne[T float32 | float64](s Sums, y, g []T) {
	for c := range s.Channels() {
		a, p := float64(y[c]), float64(g[c])
		s.AbsY[c] += math.Abs(a)
		s.Y[c] += a
		s.Y2[c] += float64(a * a)
		s.G2[c] += float64(p * p)
		a = float64(a * p)
		s.YG[c] += a
		s.YG2[c] += float64(a * a)
		a = math.Abs(a)
		s.AbsYG[c] += a
		if a > s.MaxAbsYG[c] {
			s.MaxAbsYG[c] = a
		}
	}
}
