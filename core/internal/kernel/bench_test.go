package kernel

import (
	"fmt"
	"testing"
	"time"

	"agflow/core/tensor"
)

// BenchmarkKernels times reading, Σ|y·g| and all eight sums in turn on the same matrices, and
// reports the least time of each and its ratio to that of reading: ViT-Base's MLP at batch 64,
// ViT-Tiny's at 16.
func BenchmarkKernels(b *testing.B) {
	onEachKernel(b, func(b *testing.B) {
		for _, shape := range [][2]int{{64 * 197, 3072}, {16 * 197, 768}} {
			benchmarkDtype[float32](b, shape[0], shape[1])
			benchmarkDtype[float64](b, shape[0], shape[1])
			benchmarkDtype[tensor.Float16](b, shape[0], shape[1])
			benchmarkDtype[tensor.BFloat16](b, shape[0], shape[1])
		}
	})
}

// BenchmarkMaps does the same with the maps of two stages of a ResNet-50 at batch 64, in both
// layouts.
func BenchmarkMaps(b *testing.B) {
	onEachKernel(b, func(b *testing.B) {
		for _, shape := range []struct{ images, channels, positions int }{
			{64, 256, 56 * 56}, {64, 512, 14 * 14},
		} {
			n := shape.images * shape.positions * shape.channels
			y, g := repeated[float32](1, n), repeated[float32](2, n)
			rows, channels := shape.images*shape.positions, shape.channels
			benchmarkViews(b, "channels_last", viewOf(b, y, rows, channels, channels),
				viewOf(b, g, rows, channels, channels))
			benchmarkViews(b, "contiguous",
				mapsOf(b, y, shape.images, channels, shape.positions),
				mapsOf(b, g, shape.images, channels, shape.positions))
		}
	})
}

func benchmarkDtype[T tensor.Element](b *testing.B, rows, channels int) {
	y := viewOf(b, repeated[T](1, rows*channels), rows, channels, channels)
	g := viewOf(b, repeated[T](2, rows*channels), rows, channels, channels)
	benchmarkViews(b, y.Dtype().String(), y, g)
}

func benchmarkViews(b *testing.B, name string, y, g tensor.View) {
	s, sumC := NewSums(y.Channels()), make([]float64, y.Channels())
	for _, workers := range []int{1, 2} {
		name := fmt.Sprintf("%dx%d/%s/workers=%d", y.Rows(), y.Channels(), name, workers)
		b.Run(name, func(b *testing.B) {
			var read, absYG, sums time.Duration
			for b.Loop() {
				least(b, &read, func() error {
					Read(y, workers)
					Read(g, workers)
					return nil
				})
				least(b, &absYG, func() error { return AbsYG(sumC, y, g, workers) })
				least(b, &sums, func() error { return s.Add(y, g, workers) })
			}
			b.ReportMetric(read.Seconds()*1e3, "ms-read")
			b.ReportMetric(absYG.Seconds()*1e3, "ms-absYG")
			b.ReportMetric(sums.Seconds()*1e3, "ms-sums")
			b.ReportMetric(absYG.Seconds()/read.Seconds(), "absYG/read")
			b.ReportMetric(sums.Seconds()/read.Seconds(), "sums/read")
		})
	}
}

// least lowers shortest to the time that work takes.
func least(b *testing.B, shortest *time.Duration, work func() error) {
	b.Helper()
	start := time.Now()
	requireNoError(b, work())
	if took := time.Since(start); *shortest == 0 || took < *shortest {
		*shortest = took
	}
}

// repeated returns the same few thousand deviates again and again, which is fast.
func repeated[T tensor.Element](seed uint64, n int) []T {
	few := deviates[T](seed, 4099)
	v := make([]T, n)
	for lo := 0; lo < n; lo += len(few) {
		copy(v[lo:], few)
	}
	return v
}
