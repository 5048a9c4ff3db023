package monitor

import (
	"agflow/core/fault"
	"agflow/core/routing"
)

// Calibration is what the predictions that calibrated a router say beyond the router: nil where
// they are not at hand.
type Calibration struct {
	Priors []float32 // of the calibration images
	// images of which the cascade's answer is not the heavy expert's
	Disagreements int64
}

// NewCalibration takes the predictions that a router was calibrated with: an entry an image, of
// the router's prior and of the classes of both experts, and of the ensemble where that answers the
// images that escalate.
//
// Errors: shape, value (predictions that did not calibrate this router).
func NewCalibration(
	router routing.Router, priors []float32, light, heavy, ensemble []int64,
) (*Calibration, error) {
	escalated := heavy
	if router.Answers == routing.EnsembleAnswers {
		escalated = ensemble
	}
	n := len(priors)
	if len(light) != n || len(heavy) != n || len(escalated) != n {
		return nil, fault.New(fault.Shape, "%d priors, %d light, %d heavy and %d escalated answers"+
			" were given; give one of each an image", n, len(light), len(heavy), len(escalated))
	}
	// where the data chose more than the threshold, a part of them was kept out of its calibration
	part := int64(n) != router.Threshold.Samples
	c, below := &Calibration{}, int64(0)
	for i, prior := range priors {
		if part && routing.Chooses(i) {
			continue
		}
		answer := light[i]
		if router.Escalates(prior) {
			below++
			answer = escalated[i]
		}
		c.Priors = append(c.Priors, prior)
		if answer != heavy[i] {
			c.Disagreements++
		}
	}
	if found := int64(len(c.Priors)); found != router.Threshold.Samples ||
		below != router.Ledger.Escalated {
		return nil, fault.New(fault.Value, "of %d images in the predictions %d would have "+
			"calibrated the router and %d of these escalate, but it says %d and %d: give the "+
			"predictions that the router was calibrated with", n, found, below,
			router.Threshold.Samples, router.Ledger.Escalated)
	}
	return c, nil
}
