package kernel

import (
	"math"
	"sync/atomic"

	"agflow/core/tensor"
)

// Read returns the bitwise or of the bits of all elements. It is the least work that reads
// everything, and so a lower bound for the time of any pass over v. Runs of neighbours are
// distributed over workers.
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

func read[T tensor.Element](v tensor.View, workers, size int) (bits uint64) {
	if v.Rows() == 0 {
		return 0
	}
	m, positions, step := matrixOf[T](v), v.Positions(), v.ChannelStride()
	switch {
	case positions == 0:
		return readRuns(m, v.Rows(), v.Channels(), workers, size)
	case step == positions: // the channels of an image are one run
		return readRuns(m, v.Rows()/positions, v.Channels()*positions, workers, size)
	}
	for image := range v.Rows() / positions {
		channels := matrix[T]{m.data[image*v.Stride():], step}
		bits |= readRuns(channels, v.Channels(), positions, workers, size)
	}
	return bits
}

// readRuns reads runs of elements, which are the rows of m.
func readRuns[T tensor.Element](m matrix[T], runs, width, workers, size int) uint64 {
	var bits atomic.Uint64
	// A View is valid, so no worker can fail.
	_ = split(runs, workers, func(lo, hi int) {
		if m.stride == width {
			bits.Or(or(m.block(lo, hi-lo, width), size))
			return
		}
		for r := lo; r < hi; r++ {
			bits.Or(or(m.row(r, width), size))
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
