package kernel

import (
	"encoding/binary"
	"math"
	"testing"

	"agflow/core/fuzzing"
	"agflow/core/tensor"
)

// FuzzKernels compares every kernel with the reference, bit for bit, for any shape, gaps between
// rows, workers and bits of elements: subnormal numbers, zeros of either sign, huge ones, NaN and
// infinities.
func FuzzKernels(f *testing.F) {
	fuzzing.Begin(f)
	// the upper halves are special bfloat16 numbers, and float64 ones with what follows
	var special []byte
	for _, v := range []float64{
		0, math.Copysign(0, -1), 1e-45, -1e-40, math.MaxFloat32, math.Inf(1), math.NaN(), 1.5, -3,
		1e-20, -3e-21, 1e20, 0x1p-70,
	} {
		special = binary.LittleEndian.AppendUint32(special, math.Float32bits(float32(v)))
		special = binary.LittleEndian.AppendUint32(special, uint32(math.Float64bits(v)>>32))
		special = binary.LittleEndian.AppendUint32(special, uint32(toFloat16(v)))
	}
	for dtype := range byte(4) {
		f.Add(dtype, byte(9), byte(17), byte(0), byte(0), byte(1), special)
		f.Add(dtype, byte(70), byte(8), byte(3), byte(16), byte(2), special[:24])
		f.Add(dtype, byte(4), byte(43), byte(1), byte(0), byte(3), []byte{
			0x01, 0x80, 0xff, 0x7f, 0x00, 0xfc, 0x12,
		})
	}
	f.Fuzz(func(t *testing.T, dtype, rows, channels, yGap, gGap, workers byte, bits []byte) {
		shape := fuzzShape{int(rows), max(int(channels), 1), int(yGap), int(gGap), int(workers % 4)}
		switch dtype % 4 {
		case 0:
			fuzzKernels(t, shape, bits, func(b uint64) float32 {
				return math.Float32frombits(uint32(b))
			})
		case 1:
			fuzzKernels(t, shape, bits, math.Float64frombits)
		case 2:
			fuzzKernels(t, shape, bits, func(b uint64) tensor.Float16 { return tensor.Float16(b) })
		case 3:
			fuzzKernels(t, shape, bits, func(b uint64) tensor.BFloat16 {
				return tensor.BFloat16(b >> 16)
			})
		}
	})
}

type fuzzShape struct{ rows, channels, yGap, gGap, workers int }

func fuzzKernels[T tensor.Element](
	t *testing.T, shape fuzzShape, bits []byte, fromBits func(uint64) T,
) {
	shareTheLeast(t)
	elements := make([]T, shape.rows*shape.channels+7)
	bits = append(bits, make([]byte, 8)...)
	for i := range elements {
		elements[i] = fromBits(binary.LittleEndian.Uint64(bits[4*i%(len(bits)-7):]))
	}
	n := shape.rows * shape.channels
	y, checkY := spread(t, elements[:n], shape.rows, shape.channels, shape.channels+shape.yGap)
	g, checkG := spread(t, elements[7:], shape.rows, shape.channels, shape.channels+shape.gGap)
	want := reference(y, g)
	onEachKernel(t, func(t *testing.T) {
		got, sumC := NewSums(shape.channels), make([]float64, shape.channels)
		requireNoError(t, got.Add(y, g, shape.workers))
		requireNoError(t, AbsYG(sumC, y, g, shape.workers))
		requireEqual(t, got, want)
		requireEqualColumn(t, 0, sumC, want.AbsYG)
	})
	checkY()
	checkG()
	fuzzMaps(t, shape, elements[:n], elements[7:], want)
}

// fuzzMaps compares the same rows as maps, in as many images as their number allows.
func fuzzMaps[T tensor.Element](t *testing.T, shape fuzzShape, y, g []T, want Sums) {
	of := mapShape{1, shape.channels, max(shape.rows, 1), shape.yGap, shape.gGap}
	if shape.rows == 0 {
		of.images = 0
	}
	for images := 2; images <= 5; images++ {
		if shape.rows > 0 && shape.rows%images == 0 {
			of.images, of.positions = images, shape.rows/images
		}
	}
	yMaps, checkY := maps(t, y, of)
	gMaps, checkG := maps(t, g, of)
	onEachKernel(t, func(t *testing.T) {
		got, sumC := NewSums(shape.channels), make([]float64, shape.channels)
		requireNoError(t, got.Add(yMaps, gMaps, shape.workers))
		requireNoError(t, AbsYG(sumC, yMaps, gMaps, shape.workers))
		requireEqual(t, got, want)
		requireEqualColumn(t, 0, sumC, want.AbsYG)
	})
	checkY()
	checkG()
}
