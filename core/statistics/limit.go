package statistics

import (
	"agflow/core/internal/kernel"
	"agflow/core/tensor"
)

// KernelName returns the name of the kernel in use on this machine: "avx2" or "portable". Both give
// the same bits.
func KernelName() string { return kernel.Name() }

// ReadLimit reads all elements of v and returns the bitwise or of their bits. It is the lower bound
// for the time of sums over v in benchmarks.
func ReadLimit(v tensor.View, workers int) uint64 { return kernel.Read(v, workers) }
