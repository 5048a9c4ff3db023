package statistics

import (
	"fmt"
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// nonFinite has the number of non-finite elements of a matrix and the position of the first in row
// order.
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

// nonFiniteBatch is the error of a batch of a layer whose sums are not finite.
func nonFiniteBatch(l Layer, batch int64, y, g tensor.View) error {
	if elements := nonFiniteElements(y, g); elements != "" {
		return fault.New(fault.Nonfinite, "layer %q, batch %d: %s, or leave this batch out", l.Name,
			batch, elements)
	}
	return overflow(l, batch)
}

// nonFiniteElements describes the non-finite elements of y and g: their number, the position of the
// first and the cure. It is empty when there are none.
func nonFiniteElements(y, g tensor.View) string {
	inY, inG := findNonFinite(y), findNonFinite(g)
	if inY.count+inG.count == 0 {
		return ""
	}
	first, side, of := inY, "y", y
	if inY.count == 0 || inG.count > 0 && inG.row < inY.row {
		first, side, of = inG, "g", g
	}
	return fmt.Sprintf(
		"%d elements of y and %d of g are not finite, the first %v in %s at %s, channel %d; "+
			"look for an overflow in the model or its input",
		inY.count, inG.count, first.first, side, place(of, first.row), first.channel)
}

// place names a row, of maps by its image.
func place(v tensor.View, row int) string {
	if positions := v.Positions(); positions > 0 {
		return fmt.Sprintf("position %d of image %d", row%positions, row/positions)
	}
	return fmt.Sprintf("row %d", row)
}

// overflow is the error of sums that exceed float64. It occurs with float64 elements alone: sums of
// narrower elements stay far below the greatest float64.
func overflow(l Layer, batch int64) error {
	return fault.New(fault.Nonfinite,
		"layer %q, batch %d: its elements are finite, but the sums with them exceed float64; "+
			"scale the loss down, or leave this batch out",
		l.Name, batch)
}

// finite reports whether all values of all columns are finite.
func finite(columns [8][]float64) bool {
	for _, column := range columns {
		if !allFinite(column) {
			return false
		}
	}
	return true
}

// allFinite finds the greatest magnitude by bits, which order like the numbers; NaN and infinities
// come last.
func allFinite(values []float64) bool {
	const magnitude, infinity = 1<<63 - 1, 0x7ff << 52
	greatest := uint64(0)
	for _, v := range values {
		greatest = max(greatest, math.Float64bits(v)&magnitude)
	}
	return greatest < infinity
}
