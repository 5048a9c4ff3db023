package routing

import (
	"agflow/core/fault"
	"agflow/core/tensor"
)

// Decisions has a router's decisions for images that the light expert has processed, one entry an
// image.
type Decisions struct {
	Prediction []int64 // the light expert's class; from Answer, the cascade's
	Prior      []float32
	Escalate   []bool
}

// Decide returns the decisions for logits [samples, classes] of the light expert.
//
// Errors: value (a prior that logits don't give), and those of [Priors].
func (r Router) Decide(light tensor.View) (Decisions, error) {
	predictions, values, err := r.Rule().ofLogits(light)
	if err != nil {
		return Decisions{}, err
	}
	d := Decisions{make([]int64, len(values)), values, make([]bool, len(values))}
	for i, prior := range values {
		d.Prediction[i] = int64(predictions[i])
		d.Escalate[i] = escalates(prior, r.Threshold.Threshold)
	}
	return d, nil
}

// Answer returns the decisions with the cascade's answer to every image, from the light expert's
// logits [samples, classes] and the heavy expert's [escalated, classes] for the images that
// escalate, in their order.
//
// Errors: those of Decide, and shape and nonfinite of the heavy expert's logits.
func (r Router) Answer(light, heavy tensor.View) (Decisions, error) {
	d, err := r.Decide(light)
	if err != nil {
		return Decisions{}, err
	}
	escalated := d.Escalated()
	if heavy.Rows() != len(escalated) || heavy.Channels() != light.Channels() {
		return Decisions{}, fault.New(fault.Shape,
			"the heavy expert's logits are [%d, %d], expected [%d, %d]: "+
				"one row for each image that escalates, in their order",
			heavy.Rows(), heavy.Channels(), len(escalated), light.Channels())
	}
	if err := checkFinite("logits", HeavyExpert, heavy); err != nil {
		return Decisions{}, err
	}
	answers := heavy
	if r.Answers == EnsembleAnswers {
		if answers, err = r.combined(light, heavy, escalated); err != nil {
			return Decisions{}, err
		}
	}
	predictions, _, err := Priors(answers, 1, HeavyExpert)
	for k, i := range escalated {
		d.Prediction[i] = int64(predictions[k])
	}
	return d, err
}

// combined returns the ensemble's answers to the images that escalate.
func (r Router) combined(light, heavy tensor.View, escalated []int64) (tensor.View, error) {
	var rows []float64
	for _, i := range escalated {
		rows = append(rows, light.Row(int(i), nil)...)
	}
	lightRows, err := tensor.NewView(rows, len(escalated), light.Channels())
	if err != nil {
		return tensor.View{}, err
	}
	values, err := Combine(lightRows, heavy, r.LightWeight)
	if err != nil {
		return tensor.View{}, err
	}
	return tensor.NewView(values, len(escalated), light.Channels())
}

// Escalated returns the indices of the images that escalate, ascending.
func (d Decisions) Escalated() []int64 {
	escalated := []int64{}
	for i, escalates := range d.Escalate {
		if escalates {
			escalated = append(escalated, int64(i))
		}
	}
	return escalated
}
