package routing

import (
	"encoding/json"

	"agflow/core/fault"
)

// RouterFormat is the number of the layout of router.json.
const RouterFormat = 2

// Router is a calibrated cascade: the threshold, the promise behind it, and what it cost on the samples of the
// calibration. As JSON it is the content of router.json.
type Router struct {
	Format      int     `json:"format"`
	Prior       string  `json:"prior"`
	Temperature float64 `json:"temperature"` // of a prior named *_scaled, else 1
	Threshold
	Point  Point     `json:"point"`  // the threshold on the calibration samples, with intervals
	Ledger Ledger    `json:"ledger"` // of the calibration samples
	Priors []Quality `json:"priors"` // of every prior, on all samples
}

// AutoPrior asks for the prior of the greatest AUROC.
const AutoPrior = "auto"

// Request is what a router is calibrated for: exactly one of the three limits.
type Request struct {
	Prior      string   `json:"prior"`      // a name, AutoPrior, or "" for the first
	Tolerance  *float64 `json:"tolerance"`  // accuracy(cascade) >= accuracy(heavy) - tolerance
	Charged    *float64 `json:"charged"`    // charged cost <= charged
	Escalation *float64 `json:"escalation"` // escalation <= escalation
	Confidence float64  `json:"confidence"`
}

// NewRouter calibrates. A prior that was chosen by the data, and one whose temperature was fitted on it, gets its
// threshold from the three quarters of the samples that [Chooses] leaves, since those that chose would flatter it:
// that costs a third more samples. To try k priors on all samples at confidence 1-(1-confidence)/k would cost about
// half as much again for five priors, and more for ten.
//
// Errors: value (no limit or several, an unknown prior, images that tuned an expert), and those of Calibrate, CalibrateEscalation, CalibrateCharged.
func NewRouter(s Samples, r Request) (Router, error) {
	if len(s.Priors) == 0 {
		return Router{}, fault.New(fault.Empty, "the samples have no prior; give at least one")
	}
	if err := checkHeldOut(s.Images, s.Tuning); err != nil {
		return Router{}, err
	}
	priors, err := Rank(s)
	if err != nil {
		return Router{}, err
	}
	name, err := s.choose(r.Prior)
	if err != nil {
		return Router{}, err
	}
	o, err := s.Outcomes(name)
	if err != nil {
		return Router{}, err
	}
	if r.Prior == AutoPrior || isScaled(name) {
		o = o.where(func(i int) bool { return !Chooses(i) })
	}
	found, err := r.calibrate(o, s.Cost)
	if err != nil {
		return Router{}, err
	}
	point := o.at(found.Threshold, s.Cost)
	ledger, err := NewLedger(s.Cost, found.Samples, point.Escalated)
	if err != nil {
		return Router{}, err
	}
	return Router{RouterFormat, name, s.temperatureOf(name), found, point, ledger, priors}, nil
}

func (r Request) calibrate(o Outcomes, c Cost) (Threshold, error) {
	switch {
	case r.Tolerance != nil && r.Charged == nil && r.Escalation == nil:
		return Calibrate(o, *r.Tolerance, r.Confidence)
	case r.Tolerance == nil && r.Charged != nil && r.Escalation == nil:
		return CalibrateCharged(o, c, *r.Charged, r.Confidence)
	case r.Tolerance == nil && r.Charged == nil && r.Escalation != nil:
		return CalibrateEscalation(o, *r.Escalation, r.Confidence)
	}
	return Threshold{}, fault.New(fault.Value, "a router is calibrated for one limit: give tolerance, charged or escalation, and only one")
}

// choose returns the prior asked for: for AutoPrior the one of the greatest AUROC, the first of equals, on the samples
// that choose.
func (s Samples) choose(asked string) (string, error) {
	if asked == "" {
		return s.Priors[0].Name, nil
	}
	if asked != AutoPrior {
		return asked, nil
	}
	best := Quality{AUROC: -1}
	for _, p := range s.Priors {
		choosing := Outcomes{p.Values, s.LightCorrect, s.HeavyCorrect}.where(Chooses)
		if len(choosing.Prior) == 0 {
			return "", fault.New(fault.Empty, "of %d samples none is left to choose the prior by; give more, or name a prior", len(p.Values))
		}
		if q := choosing.quality(p.Name); q.AUROC > best.AUROC {
			best = q
		}
	}
	return best.Prior, nil
}

// Rule is what routing needs of the router.
func (r Router) Rule() Rule { return Rule{r.Prior, r.Temperature, r.Threshold.Threshold} }

// ParseRouter reads the content of router.json.
//
// Errors: file (not JSON, another format, a threshold or temperature that is no number).
func ParseRouter(content []byte) (Router, error) {
	var r Router
	if err := json.Unmarshal(content, &r); err != nil {
		return Router{}, fault.New(fault.File, "the router is not the JSON expected here (%w): calibrate it again", err)
	}
	if r.Format != RouterFormat {
		return Router{}, fault.New(fault.File, "the router has format %d, this version reads %d: calibrate it again", r.Format, RouterFormat)
	}
	if r.Prior == "" || checkTemperature(r.Temperature) != nil {
		return Router{}, fault.New(fault.File, "the router names prior %q and temperature %v, expected a name and a number above 0: calibrate it again", r.Prior, r.Temperature)
	}
	return r, nil
}

// Encode writes the content of router.json.
func (r Router) Encode() ([]byte, error) {
	content, err := json.MarshalIndent(r, "", "  ")
	return append(content, '\n'), err
}
