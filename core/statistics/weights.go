package statistics

import (
	"math"

	"agflow/core/tensor"
)

// weightSums has one float64 chain a channel over the elements of all weights given, each along the other axis in order.
type weightSums struct {
	count        int64 // elements seen per channel
	abs, squares []float64
}

func newWeightSums(channels int) weightSums {
	return weightSums{abs: make([]float64, channels), squares: make([]float64, channels)}
}

func (s *weightSums) add(unitAxis int, w tensor.View) {
	for r := range w.Rows() {
		for c, value := range w.Row(r) {
			unit := c
			if unitAxis == 0 {
				unit = r
			}
			v := float64(value)
			s.abs[unit] += math.Abs(v)
			s.squares[unit] += float64(v * v)
		}
	}
	if unitAxis == 0 {
		s.count += int64(w.Channels())
	} else {
		s.count += int64(w.Rows())
	}
}
