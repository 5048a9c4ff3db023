package kernel

import (
	"fmt"
	"testing"

	"agflow/core/tensor"
)

// mapShape is a layout of maps: gaps are elements between the channels of an image, and between
// images.
type mapShape struct{ images, channels, positions, channelGap, imageGap int }

// maps lays the rows of a contiguous matrix out as maps, in a larger buffer with NaN everywhere
// else. The check is that no element was written.
func maps[T tensor.Element](
	t testing.TB, contiguous []T, s mapShape,
) (v tensor.View, check func()) {
	t.Helper()
	step := s.positions + s.channelGap
	span := (s.channels-1)*step + s.positions
	stride := span + s.channelGap + s.imageGap
	length := max((s.images-1)*stride+span, 0)
	data, filled := guarded[T](t, length)
	for r := range s.images * s.positions {
		for c := range s.channels {
			at := r/s.positions*stride + c*step + r%s.positions
			data[at] = contiguous[r*s.channels+c]
		}
	}
	v, err := tensor.NewMapView(data, s.images, s.channels, s.positions, stride, step)
	requireNoError(t, err)
	return v, filled()
}

// Maps have the bits of their rows for every kernel, dtype, shape, layout of either side, number of
// workers and split of the images over two calls; nothing beside the maps is read (a NaN would
// show) or written.
func TestMapsHaveTheBitsOfTheReference(t *testing.T) {
	onEachKernel(t, func(t *testing.T) {
		t.Run("float32", testMaps[float32])
		t.Run("float64", testMaps[float64])
		t.Run("float16", testMaps[tensor.Float16])
		t.Run("bfloat16", testMaps[tensor.BFloat16])
	})
}

func testMaps[T tensor.Element](t *testing.T) {
	for _, shape := range []mapShape{
		{0, 8, 4, 0, 0}, {1, 1, 1, 0, 0}, {2, 3, 1, 0, 0}, {3, 8, 4, 0, 0}, {2, 8, 49, 0, 0},
		{3, 19, 7, 2, 5}, {2, 40, 64, 0, 9}, {2, 33, 300, 3, 0}, {1, 8, 9000, 0, 0},
	} {
		rows, channels := shape.images*shape.positions, shape.channels
		y, g := deviates[T](1, rows*channels), deviates[T](2, rows*channels)
		want := reference(viewOf(t, y, rows, channels, channels),
			viewOf(t, g, rows, channels, channels))
		for _, workers := range []int{1, 2, 7} {
			for _, cut := range []int{shape.images / 2, shape.images} {
				for layouts := range 3 {
					name := fmt.Sprintf("%+v/workers=%d/cut=%d/layouts=%d", shape, workers, cut,
						layouts)
					t.Run(name, func(t *testing.T) {
						requireBits(t, want, workers, shape.images, cut,
							func(first, last int) (_, _ tensor.View, check func()) {
								lo, hi := first*shape.positions, last*shape.positions
								some := shape
								some.images = last - first
								side := func(values []T, asRows bool) (tensor.View, func()) {
									if asRows {
										return spread(t, values, hi-lo, channels, channels+3)
									}
									return maps(t, values, some)
								}
								y, checkY := side(y[lo*channels:hi*channels], layouts == 1)
								g, checkG := side(g[lo*channels:hi*channels], layouts == 2)
								return y, g, func() { checkY(); checkG() }
							})
					})
				}
			}
		}
	}
}

// Images may be of different lengths on the two sides, and an image may be split over two calls.
func TestMapsOfAnyRuns(t *testing.T) {
	const rows, channels = 24, 11
	y, g := deviates[float32](1, rows*channels), deviates[float32](2, rows*channels)
	want := reference(viewOf(t, y, rows, channels, channels),
		viewOf(t, g, rows, channels, channels))
	shareTheLeast(t)
	onEachKernel(t, func(t *testing.T) {
		got := NewSums(channels)
		four, _ := maps(t, y, mapShape{4, channels, 6, 0, 0})
		three, _ := maps(t, g, mapShape{3, channels, 8, 1, 0})
		requireNoError(t, got.Add(four, three, 2))
		requireEqual(t, got, want)

		got = NewSums(channels)
		whole, _ := maps(t, y, mapShape{1, channels, rows, 0, 0})
		gradient, _ := maps(t, g, mapShape{1, channels, rows, 0, 0})
		for _, part := range [][2]int{{0, 5}, {5, rows}} {
			requireNoError(t,
				got.Add(positionsOf(t, whole, part), positionsOf(t, gradient, part), 1))
		}
		requireEqual(t, got, want)
	})
}

// positionsOf borrows some positions of a single image.
func positionsOf(t *testing.T, v tensor.View, part [2]int) tensor.View {
	data, _ := tensor.Elements[float32](v)
	step := v.ChannelStride()
	n := part[1] - part[0]
	length := (v.Channels()-1)*step + n
	found, err := tensor.NewMapView(data[part[0]:][:length], 1, v.Channels(), n, length, step)
	requireNoError(t, err)
	return found
}

// Every element of maps is read, and nothing else.
func TestReadOrsAllElementsOfMaps(t *testing.T) {
	onEachKernel(t, func(t *testing.T) {
		two := float32(2)
		want := Read(viewOf(t, []float32{two}, 1, 1, 1), 1)
		for _, shape := range []mapShape{
			{0, 3, 2, 0, 0}, {2, 3, 5, 0, 0}, {2, 3, 5, 0, 4}, {3, 2, 70, 2, 0},
		} {
			n := shape.images * shape.positions * shape.channels
			for i := range n {
				data := make([]float32, n)
				data[i] = two
				v, _ := maps(t, data, shape)
				for _, workers := range []int{1, 2} {
					if got := Read(v, workers); got != want {
						t.Fatalf("%+v, element %d: got %x, want %x", shape, i, got, want)
					}
				}
			}
		}
	})
}
