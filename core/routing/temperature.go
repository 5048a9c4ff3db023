package routing

import (
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// The range of fitted temperatures. For an expert that is always correct, or never, the likelihood
// has no maximum inside any range.
const (
	lowestTemperature  = 1.0 / 64
	highestTemperature = 64.0
)

// FitTemperature returns the temperature at which logits [samples, classes] give their labels the
// greatest likelihood, on the samples that [Chooses] selects only, so that a threshold can be
// calibrated on the others.
//
// The negative log-likelihood is convex in 1/temperature; bisection finds the root of its
// derivative.
//
// Errors: shape, empty, nonfinite, value (a label that is no class).
func FitTemperature(logits tensor.View, labels []int64) (float64, error) {
	if err := checkLogits(logits, LightExpert); err != nil {
		return 0, err
	}
	if err := checkFitting(logits, labels, "a temperature"); err != nil {
		return 0, err
	}
	low, high := math.Log(1/highestTemperature), math.Log(1/lowestTemperature) // of 1/temperature
	for range 40 {
		middle := (low + high) / 2
		if slope(logits, labels, math.Exp(middle)) < 0 {
			low = middle
		} else {
			high = middle
		}
	}
	return math.Exp(-(low + high) / 2), nil
}

// checkFitting refuses labels that are no classes of the logits, and samples of which [Chooses]
// selects none.
func checkFitting(logits tensor.View, labels []int64, what string) error {
	if len(labels) != logits.Rows() {
		return fault.New(fault.Shape, "%d labels were given for %d rows of logits; give one a row",
			len(labels), logits.Rows())
	}
	chosen := 0
	for i, label := range labels {
		if label < 0 || label >= int64(logits.Channels()) {
			return fault.New(fault.Value,
				"label %d of sample %d is no class of the %d that logits have", label, i,
				logits.Channels())
		}
		if Chooses(i) {
			chosen++
		}
	}
	if chosen == 0 {
		return fault.New(fault.Empty, "of %d samples none is left to fit %s on; give more",
			len(labels), what)
	}
	return nil
}

// slope is the derivative of the negative log-likelihood by the inverse temperature: Σ (Σ p·z - z
// of the label).
func slope(logits tensor.View, labels []int64, inverse float64) float64 {
	var row []float64
	sum := 0.0
	for i, label := range labels {
		if !Chooses(i) {
			continue
		}
		row = logits.Row(i, row)
		best := row[0]
		for _, v := range row {
			best = max(best, v)
		}
		total, weighted := 0.0, 0.0
		for _, v := range row {
			if e := math.Exp(inverse * (v - best)); e > 0 {
				total += e
				weighted += e * (v - best)
			}
		}
		sum += weighted/total - (row[label] - best)
	}
	return sum
}

// Chooses reports whether sample i of a table is used to choose the prior and to fit temperature
// and weight, and not to calibrate the threshold. About a quarter is selected, by a hash of the
// sample's index alone, so that the rest is a random sample of the population too. Any prefix of a
// table is split in the same way.
func Chooses(i int) bool {
	x := uint64(i) + 0x9e3779b97f4a7c15 // splitmix64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return (x^x>>31)>>62 == 0
}
