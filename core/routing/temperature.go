package routing

import (
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// Temperatures are sought in this range; experts that are always right, or never, have none of their own.
const (
	lowestTemperature  = 1.0 / 64
	highestTemperature = 64.0
)

// FitTemperature returns the temperature at which logits [samples, classes] give their labels the greatest likelihood,
// from the samples alone that [Chooses] leaves to choosing: a threshold may then be calibrated on the others.
//
// The negative log-likelihood is convex in 1/temperature, and the root of its derivative is found by bisection.
//
// Errors: shape, empty, nonfinite, value (a label that is no class).
func FitTemperature(logits tensor.View, labels []int64) (float64, error) {
	if err := checkLogits(logits); err != nil {
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

// checkFitting refuses labels that are no classes of the logits, and too few to fit anything on.
func checkFitting(logits tensor.View, labels []int64, what string) error {
	if len(labels) != logits.Rows() {
		return fault.New(fault.Shape, "%d labels were given for %d rows of logits; give one a row", len(labels), logits.Rows())
	}
	chosen := 0
	for i, label := range labels {
		if label < 0 || label >= int64(logits.Channels()) {
			return fault.New(fault.Value, "label %d of sample %d is no class of the %d that logits have", label, i, logits.Channels())
		}
		if Chooses(i) {
			chosen++
		}
	}
	if chosen == 0 {
		return fault.New(fault.Empty, "of %d samples none is left to fit %s on; give more", len(labels), what)
	}
	return nil
}

// slope is the derivative of the negative log-likelihood by the inverse temperature: Σ (Σ p·z - z of the label).
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

// Chooses tells whether sample i of a table may choose the prior and fit the temperature: about a quarter of them, drawn
// by the number of the sample alone, so that what is left for calibration is a fair sample too. The table's order
// does not matter, and any prefix of it is split alike.
func Chooses(i int) bool {
	x := uint64(i) + 0x9e3779b97f4a7c15 // splitmix64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return (x^x>>31)>>62 == 0
}
