package statistics

import (
	"math"

	"agflow/core/cancel"
	"agflow/core/fault"
)

// Model identifies the dense model that the layers belong to; MACs are those of one image.
type Model struct {
	Name   string `json:"name"`
	MACs   int64  `json:"macs"`
	Params int64  `json:"params"`
}

// Table holds the sums of every unit, layers in their given order, units ascending: each column has
// one entry a unit ([Offsets] has where each layer begins). y is the activation and g = ∂L/∂y the
// gradient of one row and channel.
type Table struct {
	Model  Model
	Layers []Layer

	Rows    []int64 // rows seen: token rows, whatever the width of the unit
	Samples []int64 // images seen
	Batches []int64 // batches seen

	SumAbsYG []float64 // Σ|y·g|
	SumYG    []float64 // Σ y·g
	SumYG2   []float64 // Σ (y·g)²
	SumAbsY  []float64 // Σ|y|
	SumY     []float64 // Σ y
	SumY2    []float64 // Σ y²
	SumG2    []float64 // Σ g²
	MaxAbsYG []float64 // max |y·g|

	Weights []int64   // elements of the attached weights, 0 when none were given
	SumAbsW []float64 // Σ|w| over them
	SumW2   []float64 // Σ w² over them

	// elements of the weights that read the unit (fc2, proj), 0 when none were given
	ReaderWeights []int64
	SumAbsReader  []float64 // Σ|w| over them
	SumReader2    []float64 // Σ w² over them
	// Σ |w| over them, each divided by its row's Σ|w| over the whole layer
	SumRelativeReader []float64

	// elements of the attached weights that came with gradients, 0 when none did
	WeightGradients []int64
	SumWG           []float64 // Σ w·∂L/∂w over them, L summed over the images seen

	Metadata map[string]string // keys begin with "agflow."
}

// column is a named column of a table.
type column[T int64 | float64] struct {
	name   string
	values *[]T
}

// activationCounts are the counts that grow with every batch.
func (t *Table) activationCounts() []column[int64] {
	return []column[int64]{{"rows", &t.Rows}, {"samples", &t.Samples}, {"batches", &t.Batches}}
}

// activationSums are the sums that grow with every batch.
func (t *Table) activationSums() []column[float64] {
	return []column[float64]{
		{"sum_abs_yg", &t.SumAbsYG}, {"sum_yg", &t.SumYG}, {"sum_yg2", &t.SumYG2},
		{"sum_abs_y", &t.SumAbsY}, {"sum_y", &t.SumY}, {"sum_y2", &t.SumY2}, {"sum_g2", &t.SumG2}, {
			"sum_wg", &t.SumWG,
		},
	}
}

// weightCounts are the counts that belong to the weights and not to the batches.
func (t *Table) weightCounts() []column[int64] {
	return []column[int64]{
		{"weights", &t.Weights}, {"reader_weights", &t.ReaderWeights},
		{"weight_gradients", &t.WeightGradients},
	}
}

// weightFloats are the sums over weights alone.
func (t *Table) weightFloats() []column[float64] {
	return []column[float64]{
		{"sum_abs_w", &t.SumAbsW}, {"sum_w2", &t.SumW2},
		{"sum_abs_reader", &t.SumAbsReader}, {"sum_reader2", &t.SumReader2}, {
			"sum_relative_reader", &t.SumRelativeReader,
		},
	}
}

// counts are all int64 columns.
func (t *Table) counts() []column[int64] {
	return append(t.activationCounts(), t.weightCounts()...)
}

// floats are all float64 columns.
func (t *Table) floats() []column[float64] {
	return append(append(t.activationSums(), column[float64]{"max_abs_yg", &t.MaxAbsYG}),
		t.weightFloats()...)
}

// newTable returns a table of zeros.
func newTable(model Model, layers []Layer) Table {
	t := Table{Model: model, Layers: layers, Metadata: map[string]string{}}
	for _, c := range t.counts() {
		*c.values = make([]int64, Units(layers))
	}
	for _, c := range t.floats() {
		*c.values = make([]float64, Units(layers))
	}
	return t
}

// Validate checks what every reader of a table relies on: valid layers, one entry a unit in every
// column, counts that are not negative, finite sums.
//
// Errors: those of [ValidateLayers], shape, value (a negative count), nonfinite.
func (t Table) Validate() error {
	if err := ValidateLayers(t.Layers); err != nil {
		return err
	}
	for _, c := range t.counts() {
		if err := checkColumn(t.Layers, c, fault.Value, func(n int64) bool { return n >= 0 },
			"at least 0"); err != nil {
			return err
		}
	}
	isFinite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	for _, c := range t.floats() {
		if err := checkColumn(t.Layers, c, fault.Nonfinite, isFinite, "finite"); err != nil {
			return err
		}
	}
	return nil
}

// checkColumn refuses a column whose length is not the number of units, and invalid entries.
func checkColumn[T int64 | float64](
	layers []Layer, c column[T], code fault.Code, valid func(T) bool, expected string,
) error {
	cancel.Check()
	if units := Units(layers); len(*c.values) != units {
		return fault.New(fault.Shape,
			"column %s has %d entries for %d units; give one entry a unit", c.name, len(*c.values),
			units)
	}
	for i, v := range *c.values {
		if !valid(v) {
			return fault.New(code,
				"column %s is %v at %s and must be %s; make the statistics again", c.name, v,
				UnitName(layers, i), expected)
		}
	}
	return nil
}
