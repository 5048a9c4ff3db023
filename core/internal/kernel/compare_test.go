package kernel

import (
	"encoding/binary"
	"math"
	"math/bits"
	"testing"

	"agflow/core/fuzzing"
)

// FuzzCompare compares Compare with comparing one score after the other, for any bits of scores and
// bounds: equal scores, zeros of either sign, subnormal numbers, infinities and NaN.
func FuzzCompare(f *testing.F) {
	fuzzing.Begin(f)
	var special []byte
	for _, v := range []float64{
		0, math.Copysign(0, -1), 1, -1, 5e-324, -5e-324, math.Inf(1), math.Inf(-1), math.NaN(), 3,
	} {
		special = binary.LittleEndian.AppendUint64(special, math.Float64bits(v))
	}
	for _, bounds := range [][2]float64{
		{-1, 1}, {0, 0}, {1, -1}, {math.Inf(-1), math.Inf(1)}, {math.NaN(), 0}, {0, math.NaN()},
	} {
		f.Add(bounds[0], bounds[1], special)
	}
	f.Fuzz(func(t *testing.T, low, high float64, scores []byte) {
		var block [64]float64
		var wantAbove, wantBelow uint64
		scores = append(scores, make([]byte, 8)...)
		for i := range block {
			block[i] = math.Float64frombits(binary.LittleEndian.Uint64(
				scores[8*i%(len(scores)-7):]))
			if block[i] > high {
				wantAbove |= 1 << i
			}
			if block[i] < low {
				wantBelow |= 1 << i
			}
		}
		onEachKernel(t, func(t *testing.T) {
			if above, below := Compare(&block, low, high); above != wantAbove ||
				below != wantBelow {
				t.Fatalf("got %x above, %x below; want %x, %x", above, below, wantAbove, wantBelow)
			}
		})
	})
}

// Every score has its own bit.
func TestCompareHasOneBitAScore(t *testing.T) {
	onEachKernel(t, func(t *testing.T) {
		for i := range 64 {
			var block [64]float64
			block[i], block[63-i] = 2, -2
			above, below := Compare(&block, -1, 1)
			if above != 1<<i || below != bits.Reverse64(1<<i) {
				t.Fatalf("score %d: got %x above, %x below", i, above, below)
			}
		}
	})
}
