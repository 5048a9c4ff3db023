package routing

import "agflow/core/fault"

// RouterEvaluation has the results of a router on test samples, which were not used for its
// calibration.
type RouterEvaluation struct {
	LightAccuracy float64    `json:"light_accuracy"`
	LightInterval Interval   `json:"light_interval"`
	HeavyAccuracy float64    `json:"heavy_accuracy"`
	HeavyInterval Interval   `json:"heavy_interval"`
	Lost          int64      `json:"lost"`   // the heavy expert is correct, the cascade is not
	Gained        int64      `json:"gained"` // the cascade is correct, the heavy expert is not
	Difference    Difference `json:"difference"`
	Point         Point      `json:"point"`
	Ledger        Ledger     `json:"ledger"`
	Counts        Verdict    `json:"counts"`
}

// EvaluateRouter evaluates a calibrated router on samples. The cost of the router's prior is
// included.
//
// Errors: value (a prior or answers that were not recorded, or were recorded at another temperature
// or weight than the router's; images that tuned an expert; costs, or their unit), shape, empty,
// nonfinite (outcomes).
func EvaluateRouter(s Samples, r Router) (RouterEvaluation, error) {
	if err := checkHeldOut(s.Images, s.Tuning); err != nil {
		return RouterEvaluation{}, err
	}
	o, err := r.Outcomes(s)
	if err != nil {
		return RouterEvaluation{}, err
	}
	err = sameUnit(s.Cost.Unit, r.Ledger.CostUnit, "the predictions", "the router")
	if err != nil {
		return RouterEvaluation{}, err
	}
	cost := s.CostOf(r.Prior)
	point, lost, gained := o.at(r.Threshold.Threshold, cost)
	ledger, err := NewLedger(cost, int64(len(o.Prior)), point.Escalated)
	if err != nil {
		return RouterEvaluation{}, err
	}
	samples := float64(len(o.Prior))
	light, heavy := o.share(o.LightCorrect), o.share(o.HeavyCorrect)
	difference := Difference{
		float64(gained-lost) / samples,
		pairedInterval(float64(lost), float64(gained), samples),
	}
	return RouterEvaluation{
		LightAccuracy: light, LightInterval: Wilson(light, samples),
		HeavyAccuracy: heavy, HeavyInterval: Wilson(heavy, samples),
		Lost: lost, Gained: gained, Difference: difference, Point: point, Ledger: ledger,
		Counts: NewVerdict(r.Threshold, Evidence{Ledger: ledger, Difference: &difference}),
	}, nil
}

// Outcomes returns the outcomes of samples under a router's prior and answers.
//
// Errors: value (a prior or answers that were not recorded, or were recorded at another temperature
// or weight than the router's), shape, empty, nonfinite (outcomes).
func (r Router) Outcomes(s Samples) (Outcomes, error) {
	o, err := s.Outcomes(r.Prior, r.Answers)
	if err != nil {
		return Outcomes{}, err
	}
	if err := o.validate(); err != nil {
		return Outcomes{}, err
	}
	if recorded := s.temperatureOf(r.Prior); recorded != r.Temperature {
		return Outcomes{}, fault.New(fault.Value,
			"the predictions have %s at temperature %v, the router at %v: "+
				"predict again with the router's temperature",
			r.Prior, recorded, r.Temperature)
	}
	if o.combined() && s.LightWeight != r.LightWeight {
		return Outcomes{}, fault.New(fault.Value,
			"the predictions combine both answers at a light weight of %v, the router at %v: "+
				"predict again with the router's light_weight",
			s.LightWeight, r.LightWeight)
	}
	return o, nil
}
