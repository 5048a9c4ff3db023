// Package kernel makes all per-channel sums of activations y and gradients g in one pass.
//
// Every sum is one float64 chain per channel in row order, and workers share out channels, never rows. So nothing is
// ever combined, and the bits are the same for any number of workers, any split of the rows over calls, any
// instruction set, and numpy in float64. A faster path must keep these bits.
//
// Compare, for the choice of the greatest scores, is here for its assembly.
//
// There are two paths: portable Go, and AVX2 (amd64 without the tag purego, chosen at run time), whose assembly the
// module in asm writes. The assembly keeps subnormal numbers even in a thread that flushes them to zero, as one does after
// torch.set_flush_denormal(True); portable Go cannot.
//
// It may not check what it adds: non-finite elements show in the sums of their own channel, and the caller looks.
package kernel

import "agflow/core/tensor"

// Sums are the running sums of the channels of one layer: each slice has one entry a channel. They come from NewSums.
type Sums struct {
	AbsYG, YG, YG2 []float64 // Σ|y·g|, Σ y·g, Σ (y·g)²
	AbsY, Y, Y2    []float64 // Σ|y|, Σ y, Σ y²
	G2             []float64 // Σ g²
	MaxAbsYG       []float64 // max |y·g|

	pitch int // elements from the beginning of a column to that of the next
}

// columns is the number of sums a channel has.
const columns = 8

// NewSums returns zeroed sums.
func NewSums(channels int) Sums { return sumsIn(make([]float64, columns*pitch(channels)), channels) }

// pitch leaves a cache line between columns: columns a multiple of 4 KiB apart, as those of 512 channels are, would
// push each other out of the cache. A vector at the end of a column reaches into it, too.
func pitch(channels int) int { return channels + 8 }

// sumsIn lays the columns out in a block of columns*pitch(channels) elements.
func sumsIn(block []float64, channels int) Sums {
	s := Sums{pitch: pitch(channels)}
	for k, column := range s.columns() {
		*column = block[k*s.pitch:][:channels:channels]
	}
	return s
}

// CopyFrom overwrites s with the values of src, which has as many channels.
func (s Sums) CopyFrom(src Sums) {
	from := src.Columns()
	for k, to := range s.Columns() {
		copy(to, from[k])
	}
}

// Channels returns the number of channels.
func (s Sums) Channels() int { return len(s.AbsYG) }

// Columns returns the slices in the order of the struct; they share memory with s.
func (s Sums) Columns() [columns][]float64 {
	return [columns][]float64{s.AbsYG, s.YG, s.YG2, s.AbsY, s.Y, s.Y2, s.G2, s.MaxAbsYG}
}

// columns has the order of the struct, which the assembly relies on.
func (s *Sums) columns() [columns]*[]float64 {
	return [columns]*[]float64{&s.AbsYG, &s.YG, &s.YG2, &s.AbsY, &s.Y, &s.Y2, &s.G2, &s.MaxAbsYG}
}

// between returns the sums of channels lo to hi; they share memory with s.
func (s Sums) between(lo, hi int) Sums {
	for _, column := range s.columns() {
		*column = (*column)[lo:hi:hi]
	}
	return s
}

// Add adds all rows to the sums, with at most the given number of workers. y and g are of the same dtype and have as
// many channels as s, and equal rows.
func (s Sums) Add(y, g tensor.View, workers int) error {
	switch y.Dtype() {
	case tensor.Float64Type:
		return addView[float64](s, y, g, workers)
	case tensor.Float16Type:
		return addView[tensor.Float16](s, y, g, workers)
	case tensor.BFloat16Type:
		return addView[tensor.BFloat16](s, y, g, workers)
	}
	return addView[float32](s, y, g, workers)
}

func addView[T tensor.Element](s Sums, y, g tensor.View, workers int) error {
	if y.Rows() == 0 {
		return nil
	}
	yRows, gRows := matrixOf[T](y), matrixOf[T](g)
	return split(s.Channels(), workers, func(lo, hi int) {
		add(s.between(lo, hi), yRows.channelsFrom(lo), gRows.channelsFrom(lo), y.Rows())
	})
}

func add[T tensor.Element](s Sums, y, g matrix[T], rows int) {
	if !addVectors(s, y, g, rows) {
		addPortable(s, y, g, rows)
	}
}
