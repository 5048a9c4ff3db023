package routing

import "math"

// Quality measures how well a prior separates the light expert's correct answers from its errors.
type Quality struct {
	Prior string `json:"prior"`
	// P(prior of a correct answer > prior of an error), equal priors counting half
	AUROC  float64 `json:"auroc"`
	Low    float64 `json:"low"` // the 95 % confidence interval
	High   float64 `json:"high"`
	Errors int64   `json:"errors"` // of the light expert
}

// Rank returns the quality of every prior, in the order of the samples' priors.
//
// Errors: shape, empty, nonfinite.
func Rank(s Samples) ([]Quality, error) {
	qualities := make([]Quality, len(s.Priors))
	for i, p := range s.Priors {
		o := Outcomes{Prior: p.Values, LightCorrect: s.LightCorrect, HeavyCorrect: s.HeavyCorrect}
		if err := o.validate(); err != nil {
			return nil, err
		}
		qualities[i] = o.quality(p.Name)
	}
	return qualities, nil
}

// quality counts pairs of an error and a correct answer exactly, each pair twice, so that a pair of
// equal priors counts a whole number.
func (o Outcomes) quality(prior string) Quality {
	var errors, right, twice int64
	for r := range o.ascending() {
		errorsHere := r.samples - r.light
		twice += r.light * (2*errors + errorsHere)
		errors, right = errors+errorsHere, right+r.light
	}
	// without errors or correct answers
	q := Quality{Prior: prior, AUROC: 0.5, Low: 0, High: 1, Errors: errors}
	if errors > 0 && right > 0 {
		q.AUROC = float64(twice) / 2 / (float64(errors) * float64(right))
		q.Low = aurocLimit(q.AUROC, float64(errors), float64(right), 0)
		q.High = aurocLimit(q.AUROC, float64(errors), float64(right), 1)
	}
	return q
}

// aurocLimit is one end of the score interval of Newcombe (2006, Statistics in Medicine 25,
// 559-573, method 5): the value towards end whose distance to the observed value is its own
// standard error times the normal quantile. It stays within [0, 1], also when every error has a
// lower prior than every correct answer.
func aurocLimit(observed, errors, right, end float64) float64 {
	within := func(a float64) bool {
		n := (errors+right)/2 - 1
		variance := a * (1 - a) * (1 + n*(1-a)/(2-a) + n*a/(1+a)) / (errors * right)
		return math.Abs(a-observed) <= intervalZ*math.Sqrt(variance)
	}
	inside, outside := observed, end
	for range 60 {
		if middle := (inside + outside) / 2; within(middle) {
			inside = middle
		} else {
			outside = middle
		}
	}
	return inside
}
