package statistics

import (
	"fmt"
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// nonFinite counts the non-finite elements of a matrix and has the place of the first in row order.
type nonFinite struct {
	count, row, channel int
	first               float64
}

func findNonFinite(v tensor.View) nonFinite {
	var found nonFinite
	var row []float64
	for r := range v.Rows() {
		row = v.Row(r, row)
		for c, value := range row {
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

// nonFiniteBatch says what is wrong with a batch of a layer whose sums came out non-finite.
func nonFiniteBatch(l Layer, batch int64, y, g tensor.View) error {
	if elements := nonFiniteElements(y, g); elements != "" {
		return fault.New(fault.Nonfinite, "layer %q, batch %d: %s, or leave this batch out", l.Name, batch, elements)
	}
	return overflow(l, batch)
}

// nonFiniteElements counts those of y and g, places the first and says what to do; it is empty when there are none.
func nonFiniteElements(y, g tensor.View) string {
	inY, inG := findNonFinite(y), findNonFinite(g)
	if inY.count+inG.count == 0 {
		return ""
	}
	first, side := inY, "y"
	if inY.count == 0 || inG.count > 0 && inG.row < inY.row {
		first, side = inG, "g"
	}
	return fmt.Sprintf("%d elements of y and %d of g are not finite, the first %v in %s at row %d, channel %d; look for an overflow in the model or its input",
		inY.count, inG.count, first.first, side, first.row, first.channel)
}

// overflow happens to sums of finite float64 alone: those of narrower elements stay far below the greatest float64.
func overflow(l Layer, batch int64) error {
	return fault.New(fault.Nonfinite, "layer %q, batch %d: its elements are finite, but the sums with them exceed float64; scale the loss down, or leave this batch out", l.Name, batch)
}

// finite reports whether all values of all columns are.
func finite(columns [8][]float64) bool {
	for _, column := range columns {
		if !allFinite(column) {
			return false
		}
	}
	return true
}

// allFinite looks for the greatest magnitude by bits, which order like the numbers; NaN and infinities come last.
func allFinite(values []float64) bool {
	const magnitude, infinity = 1<<63 - 1, 0x7ff << 52
	greatest := uint64(0)
	for _, v := range values {
		greatest = max(greatest, math.Float64bits(v)&magnitude)
	}
	return greatest < infinity
}
