package statistics

import (
	"slices"

	"agflow/core/fault"
	"agflow/core/internal/kernel"
	"agflow/core/tensor"
)

// Accumulator sums batches of a model's layers. It is not for use by several goroutines at once; with more than one
// worker it shares the channels of a batch out itself.
type Accumulator struct {
	model   Model
	layers  []Layer
	workers int
	states  []layerState
}

// layerState is what one layer has summed so far, per channel.
type layerState struct {
	rows, samples, batches int64
	sums, backup           kernel.Sums
	weights                weightSums
}

// NewAccumulator starts at zero. One worker is best inside a backward hook, where torch's own threads spin.
func NewAccumulator(model Model, layers []Layer, workers int) (*Accumulator, error) {
	if err := ValidateLayers(layers); err != nil {
		return nil, err
	}
	if workers < 1 {
		return nil, fault.New(fault.Value, "%d workers were asked for; use at least 1", workers)
	}
	a := &Accumulator{model: model, layers: slices.Clone(layers), workers: workers, states: make([]layerState, len(layers))}
	for i, l := range layers {
		a.states[i] = layerState{
			sums:    kernel.NewSums(l.Channels()),
			backup:  kernel.NewSums(l.Channels()),
			weights: newWeightSums(l.Channels()),
		}
	}
	return a, nil
}

// Add sums one batch of a layer: activations y and gradients g, both [rows, units*unit_width] with one row a token, of
// the given number of images. A batch counts whole or not at all: after an error the sums are what they were.
// A batch without rows changes nothing.
//
// Errors: layer (no such layer), shape, value (samples), nonfinite (names layer, batch, count, first row and channel).
func (a *Accumulator) Add(layer, samples int, y, g tensor.View) error {
	l, state, err := a.at(layer)
	if err != nil {
		return err
	}
	if y.Rows() != g.Rows() || y.Channels() != l.Channels() || g.Channels() != l.Channels() {
		return fault.New(fault.Shape, "layer %q got y [%d, %d] and g [%d, %d]; both must be [rows, %d] with equal rows (%d units of width %d)",
			l.Name, y.Rows(), y.Channels(), g.Rows(), g.Channels(), l.Channels(), l.Units, l.UnitWidth)
	}
	if samples < min(y.Rows(), 1) || samples > y.Rows() {
		return fault.New(fault.Value, "layer %q got %d samples in %d rows; pass the number of images, each of at least one row", l.Name, samples, y.Rows())
	}
	if y.Rows() == 0 {
		return nil
	}
	state.backup.CopyFrom(state.sums)
	if err := state.sums.Add(y.Data(), g.Data(), y.Rows(), a.workers); err != nil {
		state.sums.CopyFrom(state.backup)
		return err
	}
	if !finite(state.sums.AbsY) || !finite(state.sums.G2) {
		state.sums.CopyFrom(state.backup)
		return nonFiniteBatch(l, state.batches, y, g)
	}
	state.rows += int64(y.Rows())
	state.samples += int64(samples)
	state.batches++
	return nil
}

// AddWeight sums a weight matrix attached to a layer's units. unitAxis 0: its rows are the unit channels (a weight that
// makes them, like fc1); 1: its columns are (a weight that reads them, like fc2). Several matrices of a layer add up.
//
// Errors: layer, value (unitAxis), shape, nonfinite; after an error the sums are what they were.
func (a *Accumulator) AddWeight(layer int, unitAxis int, w tensor.View) error {
	l, state, err := a.at(layer)
	if err != nil {
		return err
	}
	if unitAxis != 0 && unitAxis != 1 {
		return fault.New(fault.Value, "unit axis %d was given for a weight of layer %q; use 0 when its rows are the units, 1 when its columns are", unitAxis, l.Name)
	}
	unitSide := [2]int{w.Rows(), w.Channels()}[unitAxis]
	if unitSide != l.Channels() {
		return fault.New(fault.Shape, "a weight [%d, %d] of layer %q has %d entries on unit axis %d; it must have %d (%d units of width %d)",
			w.Rows(), w.Channels(), l.Name, unitSide, unitAxis, l.Channels(), l.Units, l.UnitWidth)
	}
	if bad := findNonFinite(w); bad.count > 0 {
		return fault.New(fault.Nonfinite, "a weight of layer %q has %d non-finite elements, the first %v at row %d, channel %d; load sound weights",
			l.Name, bad.count, bad.first, bad.row, bad.channel)
	}
	state.weights.add(unitAxis, w)
	return nil
}

// Table returns the sums so far, channels folded into units: sums of the channels in their order, the greatest maximum.
func (a *Accumulator) Table() Table {
	t := newTable(a.model, slices.Clone(a.layers))
	offsets := Offsets(t.Layers)
	for i, l := range t.Layers {
		state := &a.states[i]
		for u := range l.Units {
			at := offsets[i] + u
			t.Rows[at], t.Samples[at], t.Batches[at] = state.rows, state.samples, state.batches
			t.Weights[at] = state.weights.count * int64(l.UnitWidth)
			lo, hi := u*l.UnitWidth, (u+1)*l.UnitWidth
			t.SumAbsYG[at] = sum(state.sums.AbsYG[lo:hi])
			t.SumYG[at] = sum(state.sums.YG[lo:hi])
			t.SumYG2[at] = sum(state.sums.YG2[lo:hi])
			t.SumAbsY[at] = sum(state.sums.AbsY[lo:hi])
			t.SumY[at] = sum(state.sums.Y[lo:hi])
			t.SumY2[at] = sum(state.sums.Y2[lo:hi])
			t.SumG2[at] = sum(state.sums.G2[lo:hi])
			t.MaxAbsYG[at] = slices.Max(state.sums.MaxAbsYG[lo:hi])
			t.SumAbsW[at] = sum(state.weights.abs[lo:hi])
			t.SumW2[at] = sum(state.weights.squares[lo:hi])
		}
	}
	return t
}

// at returns a layer and its state.
func (a *Accumulator) at(layer int) (Layer, *layerState, error) {
	if layer < 0 || layer >= len(a.layers) {
		return Layer{}, nil, fault.New(fault.Layer, "layer number %d was given; this model has the layers 0 to %d", layer, len(a.layers)-1)
	}
	return a.layers[layer], &a.states[layer], nil
}

// sum adds in order.
func sum(values []float64) float64 {
	total := 0.0
	for _, v := range values {
		total += v
	}
	return total
}
