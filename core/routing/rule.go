package routing

import (
	"math"
	"strings"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// Rule has the part of a calibrated router that routing needs.
type Rule struct {
	Prior       string
	Temperature float64 // of a prior named *_scaled
	Threshold   float64
}

// Route returns the indices of the rows that escalate, because their prior is below the threshold,
// ascending. The matrix holds the logits [samples, classes] of the light expert, or its features
// [samples, channels] for the prior l1_norm.
//
// Errors: value (a threshold of NaN, a prior that is computed neither from logits nor from
// features), and those of [Priors].
func (r Rule) Route(matrix tensor.View) (escalated []int64, err error) {
	if math.IsNaN(r.Threshold) {
		return nil, fault.New(fault.Value, "the threshold is NaN; calibrate the router again")
	}
	values, err := r.values(matrix)
	if err != nil {
		return nil, err
	}
	escalated = []int64{}
	for i, p := range values {
		if escalates(p, r.Threshold) {
			escalated = append(escalated, int64(i))
		}
	}
	return escalated, nil
}

func (r Rule) values(matrix tensor.View) ([]float32, error) {
	if r.Prior == L1Norm {
		return L1Norms(matrix)
	}
	_, values, err := r.ofLogits(matrix)
	return values, err
}

// ofLogits returns the predicted classes and the prior of logits.
func (r Rule) ofLogits(logits tensor.View) (predictions []int32, values []float32, err error) {
	name, scaled := strings.CutSuffix(r.Prior, Scaled)
	temperature := 1.0
	if scaled {
		temperature = r.Temperature
	}
	for k, known := range LogitPriors {
		if known == name {
			predictions, priors, err := Priors(logits, temperature, LightExpert)
			if err != nil {
				return nil, nil, err
			}
			return predictions, priors[k].Values, nil
		}
	}
	return nil, nil, fault.New(fault.Value,
		"the prior %q can't be made of logits; the priors are %s, each also with %s behind it, "+
			"and of features %s",
		r.Prior, strings.Join(LogitPriors, ", "), Scaled, L1Norm)
}
