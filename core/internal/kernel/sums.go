// Package kernel makes all per-channel sums of activations y and gradients g in one pass.
//
// Every sum is one float64 chain per channel in row order, and workers share out channels, never rows. So nothing is
// ever combined, and the bits are the same for any number of workers, any split of the rows over calls, any
// instruction set, and numpy in float64. A faster path must keep these bits.
//
// It may not check what it adds: non-finite elements show in the sums of their own channel, and the caller looks.
package kernel

import (
	"agflow/core/fault"

	"golang.org/x/sync/errgroup"
)

// Sums are the running sums of the channels of one layer: each slice has one entry a channel.
type Sums struct {
	AbsYG, YG, YG2 []float64 // Σ|y·g|, Σ y·g, Σ (y·g)²
	AbsY, Y, Y2    []float64 // Σ|y|, Σ y, Σ y²
	G2             []float64 // Σ g²
	MaxAbsYG       []float64 // max |y·g|
}

// NewSums returns zeroed sums.
func NewSums(channels int) Sums {
	var s Sums
	for _, column := range s.columns() {
		*column = make([]float64, channels)
	}
	return s
}

// CopyFrom overwrites s with the values of src, which has as many channels.
func (s Sums) CopyFrom(src Sums) {
	to, from := s.columns(), src.columns()
	for k := range to {
		copy(*to[k], *from[k])
	}
}

// Channels returns the number of channels.
func (s Sums) Channels() int { return len(s.AbsYG) }

func (s *Sums) columns() []*[]float64 {
	return []*[]float64{&s.AbsYG, &s.YG, &s.YG2, &s.AbsY, &s.Y, &s.Y2, &s.G2, &s.MaxAbsYG}
}

// between returns the sums of channels lo to hi; they share memory with s.
func (s Sums) between(lo, hi int) Sums {
	for _, column := range s.columns() {
		*column = (*column)[lo:hi:hi]
	}
	return s
}

// Add adds rows to the sums, with at most the given number of workers. y and g hold rows rows of Channels elements each.
func (s Sums) Add(y, g []float32, rows, workers int) error {
	channels := s.Channels()
	if rows == 0 {
		return nil
	}
	return split(channels, workers, func(lo, hi int) {
		add(s.between(lo, hi), y[lo:], g[lo:], rows, channels)
	})
}

// split gives each worker whole channels, 16 at least; one worker runs on the caller's goroutine.
func split(channels, workers int, work func(lo, hi int)) error {
	workers = max(workers, 1)
	step := ((channels+workers-1)/workers + 15) &^ 15
	if step >= channels {
		work(0, channels)
		return nil
	}
	var group errgroup.Group
	for lo := 0; lo < channels; lo += step {
		group.Go(func() (err error) {
			defer fault.Recover(&err)
			work(lo, min(lo+step, channels))
			return nil
		})
	}
	return group.Wait()
}
