package routing

import (
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// Agreement is the prior of a second look: Σ min(p, q) over the classes, of the probabilities p that the light expert gives an image
// and q that a second look gives, at the image mirrored or through another light expert. It is 1 less the
// total variation distance of the two. Unlike the priors of [LogitPriors] the look must be paid for: see Samples.CostOf.
const Agreement = "agreement"

// Agreements returns, for each row of two matrices of logits [samples, classes], the prior [Agreement], made in float64 and
// rounded to float32.
//
// Errors: shape, nonfinite.
func Agreements(first, second tensor.View) ([]float32, error) {
	if first.Rows() != second.Rows() || first.Channels() != second.Channels() {
		return nil, fault.New(fault.Shape, "logits [%d, %d] and [%d, %d] of two looks were given; both need the same images and classes",
			first.Rows(), first.Channels(), second.Rows(), second.Channels())
	}
	for _, look := range []tensor.View{first, second} {
		if err := checkLogits(look); err != nil {
			return nil, err
		}
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
