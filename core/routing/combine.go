package routing

import (
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// The answers to an image that escalates: those of the heavy expert alone, or of the ensemble of
// both experts, by [Combine].
const (
	HeavyAnswers    = "heavy"
	EnsembleAnswers = "ensemble"
)

// Combine returns the answers of the ensemble of both experts (log-probability averaging), row by
// row:
//
//	w·log softmax(light) + (1-w)·log softmax(heavy)
//
// for logits [samples, classes] of each and the light expert's weight w from 0, the heavy expert's
// answers alone, to 1. They are computed in float64 and rounded to float32: log-probabilities up to
// a constant of each row, a product of experts (Hinton 2002, Neural Computation 14, 1771-1800).
//
// Errors: shape, nonfinite, value (weight).
func Combine(light, heavy tensor.View, weight float64) ([]float32, error) {
	if err := checkPair(light, heavy); err != nil {
		return nil, err
	}
	if err := checkLightWeight(weight); err != nil {
		return nil, err
	}
	values := make([]float32, 0, light.Rows()*light.Channels())
	var a, b []float64
	for i := range light.Rows() {
		a, b = logSoftmax(light.Row(i, a)), logSoftmax(heavy.Row(i, b))
		for c := range a {
			values = append(values, combined(a[c], b[c], weight))
		}
	}
	return values, nil
}

// combined is the ensemble's log-probability of a class.
func combined(light, heavy, weight float64) float32 {
	return float32(weight*light + (1-weight)*heavy)
}

// FitLightWeight returns the weight at which the ensemble gives the labels the greatest likelihood,
// on the samples that [Chooses] selects only, so that a threshold can be calibrated on the others.
//
// The negative log-likelihood is convex in the weight; bisection finds the root of its derivative.
//
// Errors: shape, empty, nonfinite, value (a label that is no class).
func FitLightWeight(light, heavy tensor.View, labels []int64) (float64, error) {
	if err := checkPair(light, heavy); err != nil {
		return 0, err
	}
	if err := checkFitting(light, labels, "a weight"); err != nil {
		return 0, err
	}
	low, high := 0.0, 1.0
	switch {
	case weightSlope(light, heavy, labels, low) >= 0:
		return low, nil
	case weightSlope(light, heavy, labels, high) <= 0:
		return high, nil
	}
	for range 40 {
		if middle := (low + high) / 2; weightSlope(light, heavy, labels, middle) < 0 {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2, nil
}

// weightSlope is the derivative of the negative log-likelihood by the weight: with d the
// log-probabilities of the light expert minus those of the heavy one, and p the combined
// probabilities, Σ (Σ p·d - d of the label).
func weightSlope(light, heavy tensor.View, labels []int64, weight float64) float64 {
	var a, b []float64
	sum := 0.0
	for i, label := range labels {
		if !Chooses(i) {
			continue
		}
		a, b = logSoftmax(light.Row(i, a)), logSoftmax(heavy.Row(i, b))
		best := math.Inf(-1)
		for c := range a {
			best = max(best, weight*a[c]+(1-weight)*b[c])
		}
		total, weighted := 0.0, 0.0
		for c := range a {
			e := math.Exp(weight*a[c] + (1-weight)*b[c] - best)
			total += e
			weighted += e * (a[c] - b[c])
		}
		sum += weighted/total - (a[label] - b[label])
	}
	return sum
}

// logSoftmax turns logits into log-probabilities in place. None is below the least float32, so that
// their weighted sums are finite.
func logSoftmax(logits []float64) []float64 {
	best := math.Inf(-1)
	for _, v := range logits {
		best = max(best, v)
	}
	total := 0.0
	for _, v := range logits {
		total += math.Exp(v - best)
	}
	logTotal := math.Log(total)
	for c, v := range logits {
		logits[c] = max(v-best-logTotal, -math.MaxFloat32)
	}
	return logits
}

func checkPair(light, heavy tensor.View) error {
	if light.Rows() != heavy.Rows() || light.Channels() != heavy.Channels() {
		return fault.New(fault.Shape,
			"logits [%d, %d] of the light expert and [%d, %d] of the heavy one were given; "+
				"both need the same images and classes",
			light.Rows(), light.Channels(), heavy.Rows(), heavy.Channels())
	}
	if err := checkLogits(light, LightExpert); err != nil {
		return err
	}
	return checkFinite("logits", HeavyExpert, heavy)
}

func checkLightWeight(weight float64) error {
	if !(weight >= 0 && weight <= 1) {
		return fault.New(fault.Value,
			"the light expert's weight is %v; it must be from 0, the heavy expert alone, to 1",
			weight)
	}
	return nil
}
