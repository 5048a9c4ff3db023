package kernel

import (
	"math"
	"testing"

	"agflow/core/tensor"
)

// bfloat16Pairs are factors whose product float32 holds or does not hold, in all ways, of either
// sign.
func bfloat16Pairs() (pairs [][2]tensor.BFloat16) {
	few := []float64{
		0, 1.5, 0x1p-133, 0x1.02p-126, 0x1p-126, 0x1p-80, 0x1.02p-80, 0x1p-69, 0x1.fep-67,
		0x1.02p-60, 0x1p-60, 0x1p60, 0x1.fep63, 0x1p64,
		0x1.02p67, 0x1.fep127, math.Inf(1), math.NaN(),
	}
	for _, y := range few {
		for i, g := range few {
			sign := float64(1 - 2*(i&1))
			pairs = append(pairs, [2]tensor.BFloat16{
				fromFloat64[tensor.BFloat16](y), fromFloat64[tensor.BFloat16](sign * g),
			})
		}
	}
	return pairs
}

// exactInFloat32 reports whether rounding to float32 keeps the product.
func exactInFloat32(pair [2]tensor.BFloat16) bool {
	y, g := float64(pair[0].Float32()), float64(pair[1].Float32())
	if p := y * g; p-p == 0 {
		return float64(float32(p)) == p
	}
	return true // from NaN or an infinity, which both types have
}

// A product that float32 does not hold does not change the bits of the sum, in any channel and
// block of rows.
func TestBFloat16ProductsBeyondFloat32(t *testing.T) {
	const rows, channels = 130, 43
	y, g := deviates[tensor.BFloat16](1, rows*channels), deviates[tensor.BFloat16](2, rows*channels)
	onEachKernel(t, func(t *testing.T) {
		for i, pair := range bfloat16Pairs() {
			place := (i * 1009) % (rows * channels)
			oldY, oldG := y[place], g[place]
			y[place], g[place] = pair[0], pair[1]
			yView := viewOf(t, y, rows, channels, channels)
			gView := viewOf(t, g, rows, channels, channels)
			sumC := make([]float64, channels)
			requireNoError(t, AbsYG(sumC, yView, gView, 1+i%2))
			requireEqualColumn(t, 0, sumC, reference(yView, gView).AbsYG)
			y[place], g[place] = oldY, oldG
		}
	})
}
