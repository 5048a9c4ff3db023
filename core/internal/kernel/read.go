package kernel

import (
	"math"
	"sync/atomic"

	"agflow/core/tensor"
)

// Read returns the bitwise or of the bits of all elements. It is the least work that reads
// everything, and so a lower bound for the time of any pass over v. Rows are distributed over
// workers.
func Read(v tensor.View, workers int) uint64 {
	switch v.Dtype() {
	case tensor.Float64Type:
		return read[float64](v, workers, 8)
	case tensor.Float16Type:
		return read[tensor.Float16](v, workers, 2)
	case tensor.BFloat16Type:
		return read[tensor.BFloat16](v, workers, 2)
	}
	return read[float32](v, workers, 4)
}

func read[T tensor.Element](v tensor.View, workers, size int) uint64 {
	if v.Rows() == 0 {
		return 0
	}
	m := matrixOf[T](v)
	var bits atomic.Uint64
	// A View is valid, so no worker can fail.
	_ = split(v.Rows(), workers, func(lo, hi int) {
		if v.Stride() == v.Channels() {
			bits.Or(or(m.block(lo, hi-lo, v.Channels()), size))
			return
		}
		for r := lo; r < hi; r++ {
			bits.Or(or(m.row(r, v.Channels()), size))
		}
	})
	return bits.Load()
}

func or[T tensor.Element](data []T, size int) uint64 {
	bits, done := orVectors(data, size)
	for shift := 32; shift >= 8*size; shift /= 2 {
		bits |= bits >> shift
	}
	bits &= 1<<(8*size) - 1
	switch data := any(data[done:]).(type) {
	case []float32:
		for _, v := range data {
			bits |= uint64(math.Float32bits(v))
		}
	case []float64:
		for _, v := range data {
			bits |= math.Float64bits(v)
		}
	case []tensor.Float16:
		for _, v := range data {
			bits |= uint64(v)
		}
	case []tensor.BFloat16:
		for _, v := range data {
			bits |= uint64(v)
		}
	}
	return bits
}
