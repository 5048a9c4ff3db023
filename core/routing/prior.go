package routing

import (
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// The priors that are computed from logits z of K classes, with p = softmax(z).
const (
	MaxProbability = "max_probability" // max p
	Margin         = "margin"          // the greatest p minus the second greatest
	// Σ p·log p, which is minus the entropy, so that higher is more confident
	Entropy = "entropy"
	// log Σ exp z (Liu et al. 2020, arXiv 2010.03759), minus the energy
	Energy = "energy"
)

// L1Norm is the prior Σ|x| of a row of features, such as those of the light expert's last hidden
// layer.
const L1Norm = "l1_norm"

// Utility is the prior -Σ|Y·∂L/∂Y| of an image's own loss: its AGF utility (arXiv 2603.12354),
// negated, with the light expert's answer as the label. It has a cost, the backward pass: see
// Samples.CostOf.
const Utility = "agf"

// Scaled is the suffix of the name of a prior whose logits were divided by a temperature (Guo et
// al. 2017); the scaled energy is temperature · log Σ exp(z/temperature).
const Scaled = "_scaled"

// LogitPriors are the names of the priors that are computed from logits.
var LogitPriors = []string{MaxProbability, Margin, Entropy, Energy}

// Prior is a named number a sample, higher where the light expert is more confident. The name is
// one of the constants, or any other that was recorded.
type Prior struct {
	Name   string
	Values []float32
	// of one image, in addition to the light expert's pass, in the unit of the experts' costs; 0
	// for priors from its logits and features
	Cost float64
}

// The experts, and the views of one, as errors name them.
const (
	LightExpert = "light expert"
	HeavyExpert = "heavy expert"
)

// Priors returns, for each row of an expert's logits [samples, classes], the class of the greatest
// logit (ties: the lowest class) and every prior of [LogitPriors], computed in float64 from logits
// of any dtype and rounded to float32. Errors name the expert.
//
// Errors: shape (no classes), nonfinite (with the count, first row and class), value (temperature).
func Priors(
	logits tensor.View, temperature float64, expert string,
) (prediction []int32, priors []Prior, err error) {
	if err := checkLogits(logits, expert); err != nil {
		return nil, nil, err
	}
	if err := checkTemperature(temperature); err != nil {
		return nil, nil, err
	}
	prediction = make([]int32, logits.Rows())
	for _, name := range LogitPriors {
		priors = append(priors, Prior{Name: name, Values: make([]float32, logits.Rows())})
	}
	var row []float64
	for i := range prediction {
		row = logits.Row(i, row)
		best, values := readRow(row, temperature)
		prediction[i] = int32(best)
		for k, v := range values {
			priors[k].Values[i] = v
		}
	}
	return prediction, priors, nil
}

// readRow returns the class of the greatest logit and the priors in the order of LogitPriors.
func readRow(logits []float64, temperature float64) (best int, values [4]float32) {
	best = greatest(logits)
	total, weighted, second := 0.0, 0.0, 0.0
	for c, v := range logits {
		below := (v - logits[best]) / temperature
		e := math.Exp(below)
		total += e
		if e > 0 { // 0 times an infinity is NaN
			weighted += e * below
		}
		if c != best && e > second {
			second = e
		}
	}
	logTotal := math.Log(total)
	return best, [4]float32{
		float32(1 / total), float32((1 - second) / total), float32(min(0, weighted/total-logTotal)),
		float32(logits[best] + temperature*logTotal),
	}
}

// greatest returns the class of the greatest logit, the lowest of equals.
func greatest(logits []float64) (best int) {
	for c, v := range logits {
		if v > logits[best] {
			best = c
		}
	}
	return best
}

// L1Norms returns Σ|x| of each row of features [samples, channels], summed in float64.
//
// Errors: nonfinite.
func L1Norms(features tensor.View) ([]float32, error) {
	if err := checkFinite("features", LightExpert, features); err != nil {
		return nil, err
	}
	norms := make([]float32, features.Rows())
	var row []float64
	for i := range norms {
		row = features.Row(i, row)
		total := 0.0
		for _, v := range row {
			total += math.Abs(v)
		}
		norms[i] = float32(total)
	}
	return norms, nil
}

func checkLogits(logits tensor.View, expert string) error {
	if logits.Channels() < 1 {
		return fault.New(fault.Shape, "logits [%d, %d] have no classes; pass [samples, classes]",
			logits.Rows(), logits.Channels())
	}
	return checkFinite("logits", expert, logits)
}

func checkTemperature(temperature float64) error {
	if !(temperature > 0) || math.IsInf(temperature, 1) {
		return fault.New(fault.Value,
			"the temperature is %v; it must be above 0 and finite, and 1 leaves logits as they are",
			temperature)
	}
	return nil
}

// checkFinite refuses non-finite values. Name and expert describe the values in the error text.
func checkFinite(name, expert string, values tensor.View) error {
	var row []float64
	count, firstRow, firstClass, first := 0, 0, 0, 0.0
	for i := range values.Rows() {
		row = values.Row(i, row)
		for c, v := range row {
			if v-v == 0 { // false for NaN and infinities alone
				continue
			}
			if count == 0 {
				firstRow, firstClass, first = i, c, v
			}
			count++
		}
	}
	if count > 0 {
		return fault.New(fault.Nonfinite,
			"%d %s of the %.40s are not finite, the first %v at row %d, column %d; "+
				"look for an overflow in it or its input",
			count, name, expert, first, firstRow, firstClass)
	}
	return nil
}
