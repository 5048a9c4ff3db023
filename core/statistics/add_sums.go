package statistics

import (
	"agflow/core/fault"
	"agflow/core/tensor"
)

// sumNames are the names of the rows of AddSums.
var sumNames = [...]string{"abs_yg", "yg", "yg2", "abs_y", "y", "y2", "g2", "max_abs_yg"}

// AddSums adds the sums that a device has computed over one batch of a layer: float64 [8,
// units*unit_width], the rows being Σ|y·g|, Σ y·g, Σ (y·g)², Σ|y|, Σ y, Σ y², Σ g² and max |y·g|
// over the given number of token rows and images. A batch counts whole or not at all, as in
// [Accumulator.Add].
//
// Errors: layer (no such layer), shape, dtype (not float64), value (samples, a sum that cannot be
// negative), nonfinite (names layer, batch, sum and channel).
func (a *Accumulator) AddSums(layer, samples, rows int, sums tensor.View) error {
	l, state, err := a.at(layer)
	if err != nil {
		return err
	}
	if sums.Rows() != len(sumNames) || sums.Channels() != l.Channels() {
		return fault.New(
			fault.Shape, "layer %q got sums [%d, %d]; they must be [%d, %d] (%d units of width %d)",
			l.Name, sums.Rows(), sums.Channels(), len(sumNames), l.Channels(), l.Units, l.UnitWidth)
	}
	if sums.Dtype() != tensor.Float64Type {
		return fault.New(fault.Dtype, "layer %q got sums of %s; make them in float64", l.Name,
			sums.Dtype())
	}
	if err := checkSamples(l, samples, rows); err != nil || rows <= 0 {
		return err
	}
	if err := checkSums(l, state.batches, sums); err != nil {
		return err
	}
	state.backup.CopyFrom(state.sums)
	state.addSums(sums)
	if !finite(state.sums.Columns()) {
		err = overflow(l, state.batches)
	}
	return state.finish(samples, rows, err)
}

func checkSums(l Layer, batch int64, sums tensor.View) error {
	var sumC []float64
	for k, name := range sumNames {
		sumC = sums.Row(k, sumC)
		for c, v := range sumC {
			if v-v != 0 { // true for NaN and infinities alone
				return fault.New(fault.Nonfinite,
					"layer %q, batch %d: the sum %s is %v at channel %d; "+
						"look for an overflow in the model or its input, or leave this batch out",
					l.Name, batch, name, v, c)
			}
			if v < 0 && name != "yg" && name != "y" {
				return fault.New(fault.Value,
					"layer %q, batch %d: the sum %s is %v at channel %d and can't be negative; "+
						"pass the sums in the order abs_yg, yg, yg2, abs_y, y, y2, g2, max_abs_yg",
					l.Name, batch, name, v, c)
			}
		}
	}
	return nil
}

func (s *layerState) addSums(sums tensor.View) {
	var sumC []float64
	for k, column := range s.sums.Columns() {
		sumC = sums.Row(k, sumC)
		for c, v := range sumC {
			if sumNames[k] == "max_abs_yg" {
				column[c] = max(column[c], v)
			} else {
				column[c] += v
			}
		}
	}
}
