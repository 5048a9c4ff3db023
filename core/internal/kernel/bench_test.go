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

func benchmarkDtype[T tensor.Element](b *testing.B, rows, channels int) {
	y := viewOf(b, repeated[T](1, rows*channels), rows, channels, channels)
	g := viewOf(b, repeated[T](2, rows*channels), rows, channels, channels)
	s, sumC := NewSums(channels), make([]float64, channels)
	for _, workers := range []int{1, 2} {
		name := fmt.Sprintf("%dx%d/%v/workers=%d", rows, channels, y.Dtype(), workers)
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
