//go:build !amd64 || purego

package kernel

import "testing"

// onEachKernel runs a test or benchmark with the portable kernel, the only one here.
func onEachKernel[T interface {
	testing.TB
	Run(string, func(T)) bool
}](t T, run func(T)) {
	t.Run("portable", run)
}
