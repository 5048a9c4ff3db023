package routing

import (
	"encoding/json"

	"agflow/core/fault"
)

// RouterFormat is the number of the layout of router.json.
const RouterFormat = 3

// heavyFormat is the layout before both experts could answer: all its routers have HeavyAnswers.
const heavyFormat = 2

// Router is a calibrated cascade: the threshold, the promise behind it, and what it cost on the samples of the
// calibration. As JSON it is the content of router.json.
type Router struct {
	Format      int     `json:"format"`
	Prior       string  `json:"prior"`
	Temperature float64 `json:"temperature"`  // of a prior named *_scaled, else 1
	Answers     string  `json:"answers"`      // what answers an escalated image: HeavyAnswers or EnsembleAnswers
	LightWeight float64 `json:"light_weight"` // with EnsembleAnswers, for Combine, else 0
	Threshold
	Point  Point     `json:"point"`  // the threshold on the calibration samples, with intervals
	Ledger Ledger    `json:"ledger"` // of the calibration samples; what the prior costs is the light expert's
	Priors []Quality `json:"priors"` // of every prior, on all samples
}

// AutoPrior asks for the prior of the greatest AUROC among those that cost nothing.
const AutoPrior = "auto"

// Request is what a router is calibrated for: exactly one of the three limits.
type Request struct {
	Prior      string   `json:"prior"`      // a name, AutoPrior, or "" for the first
	Answers    string   `json:"answers"`    // HeavyAnswers, which "" means too, or EnsembleAnswers
	Tolerance  *float64 `json:"tolerance"`  // accuracy(cascade) >= accuracy(heavy) - tolerance
	Charged    *float64 `json:"charged"`    // charged cost <= charged
	Escalation *float64 `json:"escalation"` // escalation <= escalation
	Confidence float64  `json:"confidence"`
}

// NewRouter calibrates. A prior that was chosen by the data, and one whose temperature was fitted on it, gets its
// threshold from the three quarters of the samples that [Chooses] leaves, since those that chose would flatter it, and so
// do the answers of both experts, whose weight was fitted there: that costs a third more samples. To try k priors on all
// samples at confidence 1-(1-confidence)/k would cost about half as much again for five priors, and more for ten.
//
// Unless the verdict is Pass, the answers are those of the heavy expert alone, whatever was asked for.
//
// Errors: value (no limit or several, an unknown prior, answers that were not recorded, images that tuned an expert), and those of
// Calibrate, CalibrateEscalation, CalibrateCharged.
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
	o, err := s.Outcomes(name, r.Answers)
	if err != nil {
		return Router{}, err
	}
	if r.Prior == AutoPrior || isScaled(name) || o.combined() {
		o = o.where(func(i int) bool { return !Chooses(i) })
	}
	cost := s.CostOf(name)
	found, err := r.calibrate(o, cost)
	if err != nil {
		return Router{}, err
	}
	router := Router{Format: RouterFormat, Prior: name, Temperature: s.temperatureOf(name), Answers: HeavyAnswers, Threshold: found, Priors: priors}
	if o.combined() && found.Verdict == Pass {
		router.Answers, router.LightWeight = EnsembleAnswers, s.LightWeight
	} else {
		o.EscalatedCorrect = nil
	}
	router.Point = o.at(found.Threshold, cost)
	router.Ledger, err = NewLedger(cost, found.Samples, router.Point.Escalated)
	return router, err
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

// choose returns the prior asked for: for AutoPrior, of those that cost nothing, the one of the greatest AUROC, the
// first of equals, on the samples that choose.
func (s Samples) choose(asked string) (string, error) {
	if asked == "" {
		return s.Priors[0].Name, nil
	}
	if asked != AutoPrior {
		return asked, nil
	}
	best := Quality{AUROC: -1}
	for _, p := range s.Priors {
		if p.MACs > 0 {
			continue
		}
		choosing := Outcomes{Prior: p.Values, LightCorrect: s.LightCorrect, HeavyCorrect: s.HeavyCorrect}.where(Chooses)
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

// ParseRouter reads the content of router.json, of format 2 too.
//
// Errors: file (not JSON, another format, a threshold or temperature that is no number, answers or a weight that cannot be).
func ParseRouter(content []byte) (Router, error) {
	var r Router
	if err := json.Unmarshal(content, &r); err != nil {
		return Router{}, fault.New(fault.File, "the router is not the JSON expected here (%w): calibrate it again", err)
	}
	if r.Format == heavyFormat {
		r.Format, r.Answers, r.LightWeight = RouterFormat, HeavyAnswers, 0
	}
	if r.Format != RouterFormat {
		return Router{}, fault.New(fault.File, "the router has format %d, this version reads %d and %d: calibrate it again", r.Format, heavyFormat, RouterFormat)
	}
	if r.Prior == "" || checkTemperature(r.Temperature) != nil {
		return Router{}, fault.New(fault.File, "the router names prior %q and temperature %v, expected a name and a number above 0: calibrate it again", r.Prior, r.Temperature)
	}
	if r.Answers != HeavyAnswers && r.Answers != EnsembleAnswers || checkLightWeight(r.LightWeight) != nil {
		return Router{}, fault.New(fault.File, "the router has answers %q and light weight %v, expected %s or %s and a number from 0 to 1: calibrate it again",
			r.Answers, r.LightWeight, HeavyAnswers, EnsembleAnswers)
	}
	return r, nil
}

// Encode writes the content of router.json.
func (r Router) Encode() ([]byte, error) {
	content, err := json.MarshalIndent(r, "", "  ")
	return append(content, '\n'), err
}
