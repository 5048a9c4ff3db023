package routing

import (
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// Agreement is the prior of a second view (test-time augmentation): Σ min(p, q) over the classes,
// with the light expert's probabilities p of an image and q of a second view, which is the mirrored
// image or the same image through another light expert. It is 1 minus the total variation distance
// of the two. Unlike the priors of [LogitPriors] it has a cost, the second pass: see
// Samples.CostOf.
const Agreement = "agreement"

// Agreements returns the prior [Agreement] for each row of two matrices of logits [samples,
// classes], computed in float64 and rounded to float32.
//
// Errors: shape, nonfinite.
func Agreements(first, second tensor.View) ([]float32, error) {
	if first.Rows() != second.Rows() || first.Channels() != second.Channels() {
		return nil, fault.New(fault.Shape,
			"logits [%d, %d] and [%d, %d] of two views were given; "+
				"both need the same images and classes",
			first.Rows(), first.Channels(), second.Rows(), second.Channels())
	}
	if err := checkLogits(first, LightExpert); err != nil {
		return nil, err
	}
	if err := checkLogits(second, "second view"); err != nil {
		return nil, err
	}
	agreements := make([]float32, first.Rows())
	var p, q []float64
	for i := range agreements {
		p, q = logSoftmax(first.Row(i, p)), logSoftmax(second.Row(i, q))
		total := 0.0
		for c := range p {
			total += math.Exp(min(p[c], q[c]))
		}
		agreements[i] = float32(min(1, total))
	}
	return agreements, nil
}
