//go:build amd64 && !purego

package kernel

import "testing"

// onEachKernel runs a test or benchmark with AVX2, where the CPU has it, and with the portable
// kernel.
func onEachKernel[T interface {
	testing.TB
	Run(string, func(T)) bool
}](t T, run func(T)) {
	available := avx2
	t.Cleanup(func() { avx2 = available })
	if available {
		t.Run("avx2", run)
	}
	avx2 = false
	t.Run("portable", run)
	avx2 = available
}
