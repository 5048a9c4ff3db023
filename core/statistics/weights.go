package statistics

import (
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// weightSums has one float64 chain a channel over the elements of all weights, each weight along
// its other axis in order.
type weightSums struct {
	// elements seen per channel: of all weights, of readers, of weights with gradients
	count, readers, gradients int64
	abs, squares              []float64 // Σ|w|, Σ w²
	readerAbs, readerSquares  []float64 // the same over the weights that read the channel
	readerRelative            []float64 // Σ_i |w_ic| / Σ_j |w_ij|
	timesGradient             []float64 // Σ w·∂L/∂w
}

func newWeightSums(channels int) weightSums {
	var s weightSums
	for _, column := range []*[]float64{
		&s.abs, &s.squares, &s.readerAbs, &s.readerSquares, &s.readerRelative, &s.timesGradient,
	} {
		*column = make([]float64, channels)
	}
	return s
}

// AddWeight sums a weight matrix attached to a layer's units. With unitAxis 0 its rows are the unit
// channels (a weight that produces them, like fc1); with 1 its columns are (a weight that reads
// them, like fc2), and it counts as a reader too. The sums of several matrices of a layer are
// added.
//
// Errors: layer, value (unitAxis), shape, nonfinite; after an error the sums are unchanged.
func (a *Accumulator) AddWeight(layer int, unitAxis int, w tensor.View) error {
	l, state, err := a.at(layer)
	if err != nil {
		return err
	}
	if err := checkWeight("weight", l, unitAxis, w); err != nil {
		return err
	}
	if unitAxis == 0 {
		state.weights.addMaker(w)
	} else {
		state.weights.addReader(w)
	}
	return nil
}

// AddWeightGradient sums a weight matrix times its gradient ∂L/∂w, element by element; see
// [Accumulator.AddWeight]. The gradient is the sum over the images that the accumulator has seen.
//
// Errors: those of AddWeight, for either matrix; shape when they differ.
func (a *Accumulator) AddWeightGradient(layer int, unitAxis int, w, dw tensor.View) error {
	l, state, err := a.at(layer)
	if err != nil {
		return err
	}
	if err := checkWeight("weight", l, unitAxis, w); err != nil {
		return err
	}
	if w.Rows() != dw.Rows() || w.Channels() != dw.Channels() {
		return fault.New(fault.Shape,
			"a weight [%d, %d] of layer %q came with a gradient [%d, %d]; "+
				"pass the gradient of this weight",
			w.Rows(), w.Channels(), l.Name, dw.Rows(), dw.Channels())
	}
	if err := checkWeight("weight gradient", l, unitAxis, dw); err != nil {
		return err
	}
	state.weights.addGradient(unitAxis, w, dw)
	return nil
}

// checkWeight refuses a weight, or the gradient of one, that does not fit its layer or is not
// finite.
func checkWeight(what string, l Layer, unitAxis int, w tensor.View) error {
	if unitAxis != 0 && unitAxis != 1 {
		return fault.New(fault.Value,
			"unit axis %d was given for a %s of layer %q; "+
				"use 0 when its rows are the units, 1 when its columns are",
			unitAxis, what, l.Name)
	}
	unitSide := [2]int{w.Rows(), w.Channels()}[unitAxis]
	if unitSide != l.Channels() {
		return fault.New(fault.Shape,
			"a %s [%d, %d] of layer %q has %d entries on unit axis %d; "+
				"it must have %d (%d units of width %d)",
			what, w.Rows(), w.Channels(), l.Name, unitSide, unitAxis,
			l.Channels(), l.Units, l.UnitWidth)
	}
	if bad := findNonFinite(w); bad.count > 0 {
		return fault.New(fault.Nonfinite,
			"a %s of layer %q has %d non-finite elements, the first %v at row %d, channel %d; "+
				"load sound weights",
			what, l.Name, bad.count, bad.first, bad.row, bad.channel)
	}
	return nil
}

// addMaker adds a weight whose row c produces channel c.
func (s *weightSums) addMaker(w tensor.View) {
	var row []float64
	for c := range w.Rows() {
		row = w.Row(c, row)
		for _, v := range row {
			s.abs[c] += math.Abs(v)
			s.squares[c] += float64(v * v)
		}
	}
	s.count += int64(w.Channels())
}

// addReader adds a weight whose column c reads channel c.
func (s *weightSums) addReader(w tensor.View) {
	var row []float64
	for r := range w.Rows() {
		row = w.Row(r, row)
		total := 0.0
		for _, v := range row {
			total += math.Abs(v)
		}
		for c, v := range row {
			magnitude, square := math.Abs(v), float64(v*v)
			s.abs[c] += magnitude
			s.squares[c] += square
			s.readerAbs[c] += magnitude
			s.readerSquares[c] += square
			if total > 0 {
				s.readerRelative[c] += magnitude / total
			}
		}
	}
	s.count += int64(w.Rows())
	s.readers += int64(w.Rows())
}

func (s *weightSums) addGradient(unitAxis int, w, dw tensor.View) {
	var row, gradient []float64
	for r := range w.Rows() {
		row, gradient = w.Row(r, row), dw.Row(r, gradient)
		for c, v := range row {
			unit := c
			if unitAxis == 0 {
				unit = r
			}
			s.timesGradient[unit] += float64(v * gradient[c])
		}
	}
	s.gradients += int64([2]int{w.Channels(), w.Rows()}[unitAxis])
}

// sumUnit writes the sums over one unit, the channels lo to hi, to an entry of the table.
func (s *weightSums) sumUnit(t *Table, entry, lo, hi int) {
	width := int64(hi - lo)
	t.Weights[entry], t.ReaderWeights[entry] = s.count*width, s.readers*width
	t.WeightGradients[entry] = s.gradients * width
	t.SumAbsW[entry], t.SumW2[entry] = sum(s.abs[lo:hi]), sum(s.squares[lo:hi])
	t.SumAbsReader[entry] = sum(s.readerAbs[lo:hi])
	t.SumReader2[entry] = sum(s.readerSquares[lo:hi])
	t.SumRelativeReader[entry] = sum(s.readerRelative[lo:hi])
	t.SumWG[entry] = sum(s.timesGradient[lo:hi])
}
