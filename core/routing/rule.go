package routing

import (
	"math"
	"slices"
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
	read, err := r.reader()
	if err != nil {
		return nil, err
	}
	if err := checkLogits(matrix, LightExpert); err != nil {
		return nil, err
	}
	values := make([]float32, matrix.Rows())
	var row []float64
	for i := range values {
		row = matrix.Row(i, row)
		_, values[i] = read(row)
	}
	return values, nil
}

// reader returns the function that reads the predicted class and the prior of the logits of one
// image.
func (r Rule) reader() (read func(logits []float64) (class int, prior float32), err error) {
	name, scaled := strings.CutSuffix(r.Prior, Scaled)
	k := slices.Index(LogitPriors, name)
	if k < 0 {
		return nil, fault.New(fault.Value,
			"the prior %q can't be made of logits; the priors are %s, each also with %s behind "+
				"it, and of features %s",
			r.Prior, strings.Join(LogitPriors, ", "), Scaled, L1Norm)
	}
	temperature := 1.0
	if scaled {
		temperature = r.Temperature
	}
	return func(logits []float64) (int, float32) {
		class, priors := readRow(logits, temperature)
		return class, priors[k]
	}, checkTemperature(temperature)
}
