package statistics

import (
	"slices"

	"agflow/core/fault"
	"agflow/core/internal/kernel"
	"agflow/core/tensor"
)

// AddAbsYG adds the gradient flow Σ|y·g| (arXiv 2603.12354) over the rows of activations y and
// gradients g [rows, channels] to sumC [channels], with at most the given number of workers. Each
// channel is one float64 chain in row order, so that the bits do not depend on the workers or on
// how the rows are split over calls. After an error sumC is unchanged.
//
// Errors: shape, dtype (y and g differ), nonfinite (names count, first row and channel).
func AddAbsYG(sumC []float64, y, g tensor.View, workers int) error {
	if y.Rows() != g.Rows() || y.Channels() != len(sumC) || g.Channels() != len(sumC) {
		return fault.New(fault.Shape,
			"y [%d, %d] and g [%d, %d] were given for %d sums; "+
				"both must be [rows, %d] with equal rows",
			y.Rows(), y.Channels(), g.Rows(), g.Channels(), len(sumC), len(sumC))
	}
	if y.Dtype() != g.Dtype() {
		return fault.New(fault.Dtype,
			"y of %s and g of %s were given; convert one of them, both must be of one dtype",
			y.Dtype(), g.Dtype())
	}
	backupC := slices.Clone(sumC)
	err := kernel.AbsYG(sumC, y, g, workers)
	if err == nil && !allFinite(sumC) {
		err = nonFiniteFlow(y, g)
	}
	if err != nil {
		copy(sumC, backupC)
	}
	return err
}

func nonFiniteFlow(y, g tensor.View) error {
	if elements := nonFiniteElements(y, g); elements != "" {
		return fault.New(fault.Nonfinite, "%s", elements)
	}
	return fault.New(fault.Nonfinite,
		"the elements of y and g are finite, but the sums with them exceed float64; "+
			"scale the loss down")
}
