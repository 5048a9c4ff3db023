//go:build amd64 && !purego

package kernel

import (
	"agflow/core/tensor"

	"golang.org/x/sys/cpu"
)

// avx2 chooses the kernel; only tests change it.
var avx2 = cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C

// Name returns the kernel in use, "avx2" or "portable".
func Name() string {
	if avx2 {
		return "avx2"
	}
	return "portable"
}

const (
	vector      = 8  // channels that the assembly processes at a time
	vectorBytes = 32 // bytes that it ors at a time
	// The work of one call is limited: Go cannot stop a goroutine in assembly, and its garbage
	// collector would wait.
	rowsPerCall     = 64
	elementsPerCall = 1 << 16
)

// addVectors adds all rows with AVX2 and returns true, or returns false without AVX2. Every channel
// goes through the assembly, the last few padded with zeros: in Go, additions obey the caller's
// MXCSR, which may flush subnormal numbers.
func addVectors[T tensor.Element](s Sums, y, g matrix[T], rows int) bool {
	if !avx2 {
		return false
	}
	channels := s.Channels()
	whole := channels &^ (vector - 1)
	if whole > 0 {
		addWhole(s, y, g, rows, whole)
	}
	if whole < channels {
		addLast(s.between(whole, channels), y.channelsFrom(whole), g.channelsFrom(whole), rows)
	}
	return true
}

// addWhole adds the first n channels, a multiple of vector.
func addWhole[T tensor.Element](s Sums, y, g matrix[T], rows, n int) {
	sums, pitch := &s.AbsYG[0], 8*s.pitch
	for r := 0; r < rows; r += rowsPerCall {
		rows := min(rowsPerCall, rows-r)
		y0, g0 := any(&y.block(r, rows, n)[0]), any(&g.block(r, rows, n)[0])
		switch y0 := y0.(type) {
		case *float32:
			sumsFloat32(y0, g0.(*float32), 4*y.stride, 4*g.stride, rows, n, sums, pitch)
		case *float64:
			sumsFloat64(y0, g0.(*float64), 8*y.stride, 8*g.stride, rows, n, sums, pitch)
		case *tensor.Float16:
			sumsFloat16((*uint16)(y0), (*uint16)(g0.(*tensor.Float16)), 2*y.stride, 2*g.stride,
				rows, n, sums, pitch)
		case *tensor.BFloat16:
			sumsBFloat16((*uint16)(y0), (*uint16)(g0.(*tensor.BFloat16)), 2*y.stride, 2*g.stride,
				rows, n, sums, pitch)
		}
	}
}

// addLast adds fewer channels than a vector has; the sums of the padding go to the gaps between
// columns.
func addLast[T tensor.Element](s Sums, y, g matrix[T], rows int) {
	var yPadded, gPadded padded[T]
	for r := 0; r < rows; r += paddedRows {
		rows := min(paddedRows, rows-r)
		addWhole(s, yPadded.of(y, r, rows, s.Channels()), gPadded.of(g, r, rows, s.Channels()),
			rows, vector)
	}
}

// absYGVectors is addVectors for Σ|y·g| alone.
func absYGVectors[T tensor.Element](sumC []float64, y, g matrix[T], rows int) bool {
	if !avx2 {
		return false
	}
	whole := len(sumC) &^ (vector - 1)
	if whole > 0 {
		absYGWhole(sumC[:whole], y, g, rows)
	}
	if whole < len(sumC) {
		absYGLast(sumC[whole:], y.channelsFrom(whole), g.channelsFrom(whole), rows)
	}
	return true
}

// absYGLast adds fewer channels than a vector has.
func absYGLast[T tensor.Element](sumC []float64, y, g matrix[T], rows int) {
	var wide [vector]float64
	copy(wide[:], sumC)
	var yPadded, gPadded padded[T]
	for r := 0; r < rows; r += paddedRows {
		rows := min(paddedRows, rows-r)
		absYGWhole(wide[:], yPadded.of(y, r, rows, len(sumC)), gPadded.of(g, r, rows, len(sumC)),
			rows)
	}
	copy(sumC, wide[:])
}

// absYGWhole adds a number of channels that is a multiple of vector.
func absYGWhole[T tensor.Element](sumC []float64, y, g matrix[T], rows int) {
	if yBFloat16, ok := any(y).(matrix[tensor.BFloat16]); ok {
		absYGBFloat16s(sumC, yBFloat16, any(g).(matrix[tensor.BFloat16]), rows)
		return
	}
	n, sum := len(sumC), &sumC[0]
	for r := 0; r < rows; r += rowsPerCall {
		rows := min(rowsPerCall, rows-r)
		y0, g0 := any(&y.block(r, rows, n)[0]), any(&g.block(r, rows, n)[0])
		switch y0 := y0.(type) {
		case *float32:
			absYGFloat32(y0, g0.(*float32), 4*y.stride, 4*g.stride, rows, n, sum)
		case *float64:
			absYGFloat64(y0, g0.(*float64), 8*y.stride, 8*g.stride, rows, n, sum)
		case *tensor.Float16:
			absYGFloat16((*uint16)(y0), (*uint16)(g0.(*tensor.Float16)), 2*y.stride, 2*g.stride,
				rows, n, sum)
		}
	}
}

// orVectors ors the words of the first elements, which may hold several each, and returns the
// number of these elements: 0 without AVX2. Four quarters are read in parallel, which is faster
// than one run.
func orVectors[T tensor.Element](data []T, size int) (words uint64, elements int) {
	step := vectorBytes / size
	quarter := len(data) / 4 / step * step
	if !avx2 || quarter == 0 {
		return 0, 0
	}
	for lo := 0; lo < quarter; lo += elementsPerCall {
		bytes := size * min(elementsPerCall, quarter-lo)
		switch first := any(&data[lo]).(type) {
		case *float32:
			words |= orFloat32(first, size*quarter, bytes)
		case *float64:
			words |= orFloat64(first, size*quarter, bytes)
		case *tensor.Float16:
			words |= orUint16((*uint16)(first), size*quarter, bytes)
		case *tensor.BFloat16:
			words |= orUint16((*uint16)(first), size*quarter, bytes)
		}
	}
	return words, 4 * quarter
}

// Compare returns which of 64 scores are above high and which below low; a NaN is neither:
//
//	above |= bit(block[i] > high) << i
//	below |= bit(block[i] < low) << i
func Compare(block *[64]float64, low, high float64) (above, below uint64) {
	if avx2 {
		return compare(block, low, high)
	}
	return comparePortable(block, low, high)
}
