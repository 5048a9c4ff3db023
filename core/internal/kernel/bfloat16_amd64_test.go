//go:build amd64 && !purego

package kernel

import (
	"math"
	"testing"

	"agflow/core/tensor"
)

// The faster sum is rejected exactly where float32 does not hold a product, and is wrong there:
// AbsYG is correct for the same factors because it falls back to the slower sum. Where it is
// accepted, it has the bits of the reference.
func TestFlowsInFloat32AreRefusedWhereInexact(t *testing.T) {
	if !avx2 {
		t.Skip("no AVX2")
	}
	const rows, channels = 5, 16
	refused := 0
	for i, pair := range bfloat16Pairs() {
		y, g := make([]tensor.BFloat16, rows*channels), make([]tensor.BFloat16, rows*channels)
		y[i%len(y)], g[i%len(g)] = pair[0], pair[1]
		want := reference(viewOf(t, y, rows, channels, channels),
			viewOf(t, g, rows, channels, channels)).AbsYG
		fast, sumC := make([]float64, channels), make([]float64, channels)
		exact := absYGInFloat32((*uint16)(&y[0]), (*uint16)(&g[0]), 2*channels, 2*channels, rows,
			channels, &fast[0])
		if exact != exactInFloat32(pair) {
			t.Fatalf("%v · %v: exact is %v", pair[0].Float32(), pair[1].Float32(), exact)
		}
		if exact {
			requireEqualColumn(t, 0, fast, want)
			continue
		}
		refused++
		if c := i % channels; math.Float64bits(fast[c]) == math.Float64bits(want[c]) {
			t.Fatalf("%v · %v: refused, but right", pair[0].Float32(), pair[1].Float32())
		}
		requireNoError(t,
			AbsYG(sumC, viewOf(t, y, rows, channels, channels),
				viewOf(t, g, rows, channels, channels), 1))
		requireEqualColumn(t, 0, sumC, want)
	}
	if refused < 20 {
		t.Fatalf("only %d products were beyond float32", refused)
	}
}
