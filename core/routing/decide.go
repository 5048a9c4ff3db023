package routing

import (
	"iter"

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
func (r Router) Decide(light tensor.View) (Decisions, error) { return r.whole(light, nil) }

// Answer returns the decisions with the cascade's answer to every image, from the light expert's
// logits [samples, classes] and the heavy expert's [escalated, classes] for the images that
// escalate, in their order.
//
// Errors: those of Decide, and shape and nonfinite of the heavy expert's logits.
func (r Router) Answer(light, heavy tensor.View) (Decisions, error) {
	return r.whole(light, &heavy)
}

func (r Router) whole(light tensor.View, heavy *tensor.View) (d Decisions, err error) {
	for part, err := range r.InParts(light, heavy, max(1, light.Rows())) {
		if err != nil {
			return Decisions{}, err
		}
		d = part
	}
	return d, nil
}

// InParts yields what Answer returns, or Decide where there are no logits of the heavy expert, for
// so many images after the other, of which there is at least one part. An error is the last that is
// yielded, and makes the parts before it void: that the heavy expert's logits are too few or too
// many is known at the end.
func (r Router) InParts(
	light tensor.View, heavy *tensor.View, images int,
) iter.Seq2[Decisions, error] {
	return func(yield func(Decisions, error) bool) {
		d, err := r.decider(light, heavy)
		if err != nil {
			yield(Decisions{}, err)
			return
		}
		for first := 0; first == 0 || first < light.Rows(); first += images {
			if !yield(d.part(first, min(first+images, light.Rows())), nil) {
				return
			}
		}
		if err := d.checkRows(); err != nil {
			yield(Decisions{}, err)
		}
	}
}

// decider makes decisions for images in their order.
type decider struct {
	Router
	light     tensor.View
	heavy     *tensor.View
	read      func(logits []float64) (class int, prior float32)
	escalated int // so far

	lightRow, heavyRow []float64
}

func (r Router) decider(light tensor.View, heavy *tensor.View) (d *decider, err error) {
	d = &decider{Router: r, light: light, heavy: heavy}
	if d.read, err = r.Rule().reader(); err != nil {
		return nil, err
	}
	if err := checkLogits(light, LightExpert); err != nil {
		return nil, err
	}
	if heavy == nil {
		return d, nil
	}
	if err := checkLightWeight(r.LightWeight); err != nil {
		return nil, err
	}
	return d, checkFinite("logits", HeavyExpert, *heavy)
}

// part returns the decisions for the images from first to before last.
func (d *decider) part(first, last int) Decisions {
	n := last - first
	part := Decisions{make([]int64, n), make([]float32, n), make([]bool, n)}
	for k := range n {
		d.lightRow = d.light.Row(first+k, d.lightRow)
		class, prior := d.read(d.lightRow)
		if part.Escalate[k] = escalates(prior, d.Threshold.Threshold); part.Escalate[k] {
			if d.fits() && d.escalated < d.heavy.Rows() {
				class = d.answer()
			}
			d.escalated++
		}
		part.Prediction[k], part.Prior[k] = int64(class), prior
	}
	return part
}

// fits reports whether there are logits of the heavy expert, of the light expert's classes.
func (d *decider) fits() bool {
	return d.heavy != nil && d.heavy.Channels() == d.light.Channels()
}

// answer returns the class of the next image that escalates, which is that of lightRow.
func (d *decider) answer() int {
	d.heavyRow = d.heavy.Row(d.escalated, d.heavyRow)
	if d.Answers == EnsembleAnswers {
		light, heavy := logSoftmax(d.lightRow), logSoftmax(d.heavyRow)
		for c := range heavy {
			heavy[c] = float64(combined(light[c], heavy[c], d.LightWeight))
		}
	}
	return greatest(d.heavyRow)
}

// checkRows compares the heavy expert's logits with the images that escalated.
func (d *decider) checkRows() error {
	if d.heavy == nil || d.fits() && d.heavy.Rows() == d.escalated {
		return nil
	}
	return fault.New(fault.Shape,
		"the heavy expert's logits are [%d, %d], expected [%d, %d]: "+
			"one row for each image that escalates, in their order",
		d.heavy.Rows(), d.heavy.Channels(), d.escalated, d.light.Channels())
}

// Escalated returns how many images escalate.
func (d Decisions) Escalated() (n int) {
	for _, escalates := range d.Escalate {
		if escalates {
			n++
		}
	}
	return n
}
