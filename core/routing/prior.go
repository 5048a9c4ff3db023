package routing

import (
	"math"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// MaxProbability returns, for each row of logits [samples, classes], the class of the greatest logit (ties: the lowest
// class) and its softmax probability, made in float64 from logits of any dtype and rounded to float32.
//
// Errors: shape (no classes), nonfinite (names count, first row and class).
func MaxProbability(logits tensor.View) (prediction []int32, prior []float32, err error) {
	if logits.Channels() < 1 {
		return nil, nil, fault.New(fault.Shape, "logits [%d, %d] have no classes; pass [samples, classes]", logits.Rows(), logits.Channels())
	}
	if err := checkFinite(logits); err != nil {
		return nil, nil, err
	}
	prediction = make([]int32, logits.Rows())
	prior = make([]float32, logits.Rows())
	var row []float64
	for i := range prior {
		row = logits.Row(i, row)
		prediction[i], prior[i] = maxProbability(row)
	}
	return prediction, prior, nil
}

func maxProbability(logits []float64) (int32, float32) {
	best := 0
	for c, v := range logits {
		if v > logits[best] {
			best = c
		}
	}
	total := 0.0
	for _, v := range logits {
		total += math.Exp(v - logits[best])
	}
	return int32(best), float32(1 / total)
}

func checkFinite(logits tensor.View) error {
	var row []float64
	count, firstRow, firstClass, first := 0, 0, 0, 0.0
	for i := range logits.Rows() {
		row = logits.Row(i, row)
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
		return fault.New(fault.Nonfinite, "%d logits are not finite, the first %v at row %d, class %d; look for an overflow in the light expert or its input",
			count, first, firstRow, firstClass)
	}
	return nil
}

// Route returns the rows whose prior is below the threshold, ascending: those that escalate. 0 escalates none,
// [EscalateAll] all.
//
// Errors: value (a threshold that is no number), and those of [MaxProbability].
func Route(logits tensor.View, threshold float64) (escalated []int64, err error) {
	if math.IsNaN(threshold) {
		return nil, fault.New(fault.Value, "the threshold is NaN; calibrate the router again")
	}
	_, prior, err := MaxProbability(logits)
	if err != nil {
		return nil, err
	}
	escalated = []int64{}
	for i, p := range prior {
		if escalates(p, threshold) {
			escalated = append(escalated, int64(i))
		}
	}
	return escalated, nil
}

func escalates(prior float32, threshold float64) bool { return float64(prior) < threshold }
