package routing

import "agflow/core/fault"

// Router is a calibrated cascade: the threshold, its guarantee, and its cost on the calibration
// samples. Its JSON, with a checksum, is the content of router.json.
type Router struct {
	Format      int     `json:"format"`
	Prior       string  `json:"prior"`
	Temperature float64 `json:"temperature"` // of a prior named *_scaled, else 1
	// to escalated images: HeavyAnswers or EnsembleAnswers
	Answers     string  `json:"answers"`
	LightWeight float64 `json:"light_weight"` // with EnsembleAnswers, for Combine, else 0
	Threshold
	Point Point `json:"point"` // the threshold on the calibration samples, with intervals
	// of the calibration samples; the cost of the prior is in the light expert's
	Ledger Ledger    `json:"ledger"`
	Priors []Quality `json:"priors"` // of every prior, on all samples
}

// AutoPrior requests the prior of the greatest AUROC among those without a cost.
const AutoPrior = "auto"

// Request has the parameters of [NewRouter]. Exactly one of Tolerance, Charged and Escalation is
// set.
type Request struct {
	Prior string `json:"prior"` // a name, AutoPrior, or "" for the first
	// HeavyAnswers, which is the meaning of "" too, or EnsembleAnswers
	Answers    string   `json:"answers"`
	Tolerance  *float64 `json:"tolerance"`  // accuracy(cascade) >= accuracy(heavy) - tolerance
	Charged    *float64 `json:"charged"`    // charged cost <= charged
	Escalation *float64 `json:"escalation"` // escalation <= escalation
	Confidence float64  `json:"confidence"`
}

// NewRouter calibrates a router. Where the data chose the prior or fitted its temperature, or the
// weight of the ensemble, the threshold is calibrated on the three quarters of the samples that
// [Chooses] does not select, because the others would bias it. This needs a third more samples. The
// alternative, k priors on all samples at confidence 1-(1-confidence)/k, needs about half as many
// more for five priors, and more for ten.
//
// Unless the verdict is Pass, the answers are those of the heavy expert alone, whatever was
// requested.
//
// Errors: value (no limit or several, an unknown prior, answers that were not recorded, images that
// tuned an expert, a heavy expert at chance), and those of Calibrate, CalibrateEscalation,
// CalibrateCharged.
func NewRouter(s Samples, r Request) (Router, error) {
	if len(s.Priors) == 0 {
		return Router{}, fault.New(fault.Empty, "the samples have no prior; give at least one")
	}
	if err := checkHeldOut(s.Images, s.Tuning); err != nil {
		return Router{}, err
	}
	if err := checkAboveChance(s.Labels, s.Heavy); err != nil {
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
		o = o.only(BitsOf(len(o.Prior), func(i int) bool { return !Chooses(i) }))
	}
	cost := s.CostOf(name)
	found, err := r.calibrate(o, cost)
	if err != nil {
		return Router{}, err
	}
	router := Router{
		Format: RouterFormat, Prior: name, Temperature: s.temperatureOf(name),
		Answers: HeavyAnswers, Threshold: found, Priors: priors,
	}
	if o.combined() && found.Verdict == Pass {
		router.Answers, router.LightWeight = EnsembleAnswers, s.LightWeight
	} else {
		o.EscalatedCorrect = Bits{}
	}
	router.Point, _, _ = o.at(found.Threshold, cost)
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
	return Threshold{}, fault.New(fault.Value,
		"a router is calibrated for one limit: give tolerance, charged or escalation, and only one")
}

// choose returns the name of the requested prior. For AutoPrior it is, of the priors without a
// cost, the one of the greatest AUROC on the samples that [Chooses] selects, the first of equals.
func (s Samples) choose(asked string) (string, error) {
	if asked == "" {
		return s.Priors[0].Name, nil
	}
	if asked != AutoPrior {
		return asked, nil
	}
	best, chooses := Quality{AUROC: -1}, BitsOf(s.LightCorrect.Len(), Chooses)
	for _, p := range s.Priors {
		if p.Cost > 0 {
			continue
		}
		choosing := Outcomes{
			Prior: p.Values, LightCorrect: s.LightCorrect, HeavyCorrect: s.HeavyCorrect,
		}.only(chooses)
		if choosing.samples() == 0 {
			return "", fault.New(fault.Empty,
				"of %d samples none is left to choose the prior by; give more, or name a prior",
				len(p.Values))
		}
		if q := choosing.quality(p.Name); q.AUROC > best.AUROC {
			best = q
		}
	}
	return best.Prior, nil
}

// Rule returns the router's rule.
func (r Router) Rule() Rule { return Rule{r.Prior, r.Temperature, r.Threshold.Threshold} }
