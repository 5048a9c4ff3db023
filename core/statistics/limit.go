package statistics

import (
	"agflow/core/internal/kernel"
	"agflow/core/tensor"
)

// KernelName returns the kernel that sums on this machine: "avx2" or "portable". The sums have the same bits.
func KernelName() string { return kernel.Name() }

// ReadLimit reads all of v, or-ing the bits of its elements, which it returns. It is for benchmarks: sums over v can
// hardly take less time.
func ReadLimit(v tensor.View, workers int) uint64 { return kernel.Read(v, workers) }
