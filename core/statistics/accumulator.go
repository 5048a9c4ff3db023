package statistics

import (
	"slices"

	"agflow/core/fault"
	"agflow/core/internal/kernel"
	"agflow/core/tensor"
)

// Accumulator sums batches of a model's layers. It must not be used by several goroutines at once;
// with more than one worker it distributes the channels of a batch itself.
type Accumulator struct {
	model   Model
	layers  []Layer
	workers int
	states  []layerState
}

// layerState has the sums of one layer so far, per channel.
type layerState struct {
	rows, samples, batches int64
	sums, backup           kernel.Sums
	weights                weightSums
}

// NewAccumulator returns an accumulator of zeros. One worker is best inside a backward hook, where
// torch's own threads spin.
func NewAccumulator(model Model, layers []Layer, workers int) (*Accumulator, error) {
	if err := ValidateLayers(layers); err != nil {
		return nil, err
	}
	if workers < 1 {
		return nil, fault.New(fault.Value, "%d workers were asked for; use at least 1", workers)
	}
	a := &Accumulator{
		model: model, layers: slices.Clone(layers), workers: workers,
		states: make([]layerState, len(layers)),
	}
	for i, l := range layers {
		a.states[i] = layerState{
			sums:    kernel.NewSums(l.Channels()),
			backup:  kernel.NewSums(l.Channels()),
			weights: newWeightSums(l.Channels()),
		}
	}
	return a, nil
}

// Add sums one batch of a layer: activations y and gradients g, both [rows, units*unit_width] with
// one row a token, of the given number of images. A batch counts whole or not at all: after an
// error the sums are unchanged. A batch without rows changes nothing.
//
// Errors: layer (no such layer), shape, dtype (y and g differ), value (samples), nonfinite (names
// layer, batch, count, first row and channel).
func (a *Accumulator) Add(layer, samples int, y, g tensor.View) error {
	l, state, err := a.at(layer)
	if err != nil {
		return err
	}
	if y.Rows() != g.Rows() || y.Channels() != l.Channels() || g.Channels() != l.Channels() {
		return fault.New(fault.Shape,
			"layer %q got y [%d, %d] and g [%d, %d]; "+
				"both must be [rows, %d] with equal rows (%d units of width %d)",
			l.Name, y.Rows(), y.Channels(), g.Rows(), g.Channels(),
			l.Channels(), l.Units, l.UnitWidth)
	}
	if y.Dtype() != g.Dtype() {
		return fault.New(fault.Dtype,
			"layer %q got y of %s and g of %s; convert one of them, both must be of one dtype",
			l.Name, y.Dtype(), g.Dtype())
	}
	if err := checkSamples(l, samples, y.Rows()); err != nil || y.Rows() == 0 {
		return err
	}
	state.backup.CopyFrom(state.sums)
	err = state.sums.Add(y, g, a.workers)
	if err == nil && !finite(state.sums.Columns()) {
		err = nonFiniteBatch(l, state.batches, y, g)
	}
	return state.finish(samples, y.Rows(), err)
}

func checkSamples(l Layer, samples, rows int) error {
	if samples < 0 || samples < min(rows, 1) || samples > rows {
		return fault.New(fault.Value,
			"layer %q got %d samples in %d rows; pass the number of images, "+
				"each of at least one row",
			l.Name, samples, rows)
	}
	return nil
}

// finish counts a batch that was added after a backup, or restores the backup after an error.
func (s *layerState) finish(samples, rows int, err error) error {
	if err != nil {
		s.sums.CopyFrom(s.backup)
		return err
	}
	s.rows += int64(rows)
	s.samples += int64(samples)
	s.batches++
	return nil
}

// Table returns the sums so far, per unit: sums over the unit's channels in their order, and the
// greatest maximum.
func (a *Accumulator) Table() Table {
	t := newTable(a.model, slices.Clone(a.layers))
	offsets := Offsets(t.Layers)
	for i, l := range t.Layers {
		state := &a.states[i]
		for u := range l.Units {
			at := offsets[i] + u
			t.Rows[at], t.Samples[at], t.Batches[at] = state.rows, state.samples, state.batches
			lo, hi := u*l.UnitWidth, (u+1)*l.UnitWidth
			t.SumAbsYG[at] = sum(state.sums.AbsYG[lo:hi])
			t.SumYG[at] = sum(state.sums.YG[lo:hi])
			t.SumYG2[at] = sum(state.sums.YG2[lo:hi])
			t.SumAbsY[at] = sum(state.sums.AbsY[lo:hi])
			t.SumY[at] = sum(state.sums.Y[lo:hi])
			t.SumY2[at] = sum(state.sums.Y2[lo:hi])
			t.SumG2[at] = sum(state.sums.G2[lo:hi])
			t.MaxAbsYG[at] = slices.Max(state.sums.MaxAbsYG[lo:hi])
			state.weights.sumUnit(&t, at, lo, hi)
		}
	}
	return t
}

// at returns a layer and its state.
func (a *Accumulator) at(layer int) (Layer, *layerState, error) {
	if layer < 0 || layer >= len(a.layers) {
		return Layer{}, nil, fault.New(fault.Layer,
			"layer number %d was given; this model has the layers 0 to %d", layer, len(a.layers)-1)
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
