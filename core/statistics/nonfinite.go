package statistics

import (
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// nonFinite counts the non-finite elements of a matrix and has the place of the first in row order.
type nonFinite struct {
	count, row, channel int
	first               float32
}

func findNonFinite(v tensor.View) nonFinite {
	var found nonFinite
	for r := range v.Rows() {
		for c, value := range v.Row(r) {
			if value-value == 0 { // false for NaN and infinities alone
				continue
			}
			if found.count == 0 {
				found = nonFinite{row: r, channel: c, first: value}
			}
			found.count++
		}
	}
	return found
}

// nonFiniteBatch says what is wrong with a batch whose sums came out non-finite.
func nonFiniteBatch(l Layer, batch int64, y, g tensor.View) error {
	inY, inG := findNonFinite(y), findNonFinite(g)
	first, side := inY, "y"
	if inY.count == 0 || inG.count > 0 && inG.row < inY.row {
		first, side = inG, "g"
	}
	return fault.New(fault.Nonfinite, "layer %q, batch %d: %d elements of y and %d of g are not finite, the first %v in %s at row %d, channel %d; look for an overflow in the model or its input, or leave this batch out",
		l.Name, batch, inY.count, inG.count, first.first, side, first.row, first.channel)
}

// finite reports whether all values are.
func finite(values []float64) bool {
	for _, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}
