package routing

import (
	"slices"
	"strings"

	"agflow/core/fault"
)

// Outcomes has the results of both experts on the same held-out samples; Prior is the light
// expert's. EscalatedCorrect has the correctness of the cascade's answers to escalated samples,
// where these are not the heavy expert's; nil stands for HeavyCorrect.
type Outcomes struct {
	Prior                                        []float32
	LightCorrect, HeavyCorrect, EscalatedCorrect []bool
}

// combined reports whether escalated samples are answered by the ensemble of both experts.
func (o Outcomes) combined() bool { return o.EscalatedCorrect != nil }

// escalatedCorrect has the correctness of the cascade's answers when all samples escalate.
func (o Outcomes) escalatedCorrect() []bool {
	if o.combined() {
		return o.EscalatedCorrect
	}
	return o.HeavyCorrect
}

func (o Outcomes) validate() error {
	if n := len(o.Prior); n != len(o.LightCorrect) || n != len(o.HeavyCorrect) ||
		n != len(o.escalatedCorrect()) {
		return fault.New(fault.Shape,
			"%d priors, %d light, %d heavy and %d escalated outcomes were given; "+
				"give one of each a sample",
			n, len(o.LightCorrect), len(o.HeavyCorrect), len(o.escalatedCorrect()))
	}
	if len(o.Prior) == 0 {
		return fault.New(fault.Empty, "no samples were given; predict on held-out data first")
	}
	for i, p := range o.Prior {
		if p-p != 0 {
			return fault.New(fault.Nonfinite,
				"the prior of sample %d is %v; priors are finite numbers", i, p)
		}
	}
	return nil
}

// where returns the samples whose index passes a test.
func (o Outcomes) where(keep func(int) bool) (kept Outcomes) {
	for i := range o.Prior {
		if keep(i) {
			kept.Prior = append(kept.Prior, o.Prior[i])
			kept.LightCorrect = append(kept.LightCorrect, o.LightCorrect[i])
			kept.HeavyCorrect = append(kept.HeavyCorrect, o.HeavyCorrect[i])
			if o.combined() {
				kept.EscalatedCorrect = append(kept.EscalatedCorrect, o.EscalatedCorrect[i])
			}
		}
	}
	return kept
}

// Samples has held-out samples with every recorded prior, the first being the default, and the
// costs of the experts.
type Samples struct {
	Priors                     []Prior
	LightCorrect, HeavyCorrect []bool
	EnsembleCorrect            []bool  // of the ensemble's answers, where they were recorded
	LightWeight                float64 // of the ensemble
	Temperature                float64 // of the priors named *_scaled
	Cost                       Cost
	// sketches of the images of these samples and of the images that tuned the experts: see
	// checkHeldOut
	Images, Tuning string
}

// Outcomes returns the outcomes under one prior, with escalated samples answered by HeavyAnswers,
// which is the meaning of "" too, or by EnsembleAnswers.
//
// Errors: value (a prior or answers that were not recorded).
func (s Samples) Outcomes(prior, answers string) (Outcomes, error) {
	at := slices.IndexFunc(s.Priors, func(p Prior) bool { return p.Name == prior })
	if at < 0 {
		return Outcomes{}, fault.New(fault.Value, "the predictions have no prior %q; they have %s",
			prior, strings.Join(s.names(), ", "))
	}
	o := Outcomes{
		Prior: s.Priors[at].Values, LightCorrect: s.LightCorrect, HeavyCorrect: s.HeavyCorrect,
	}
	switch answers {
	case "", HeavyAnswers:
	case EnsembleAnswers:
		if s.EnsembleCorrect == nil {
			return Outcomes{}, fault.New(fault.Value,
				"the predictions have no answers of the ensemble of both experts; "+
					"record ensemble_prediction with them: predict again")
		}
		if err := checkLightWeight(s.LightWeight); err != nil {
			return Outcomes{}, err
		}
		o.EscalatedCorrect = s.EnsembleCorrect
	default:
		return Outcomes{}, fault.New(fault.Value, "answers are %q; they are %s or %s", answers,
			HeavyAnswers, EnsembleAnswers)
	}
	return o, nil
}

// CostOf returns the cost of a cascade that routes by a prior. The cost of the prior is added to
// the light expert's.
func (s Samples) CostOf(prior string) Cost {
	cost := s.Cost
	for _, p := range s.Priors {
		if p.Name == prior {
			cost.Light += p.Cost
		}
	}
	return cost
}

// temperatureOf returns the temperature of the logits that a prior was computed from.
func (s Samples) temperatureOf(prior string) float64 {
	if isScaled(prior) {
		return s.Temperature
	}
	return 1
}

func isScaled(prior string) bool { return strings.HasSuffix(prior, Scaled) }

func (s Samples) names() (names []string) {
	for _, p := range s.Priors {
		names = append(names, p.Name)
	}
	return names
}

func count(correct []bool) (n int64) {
	for _, c := range correct {
		if c {
			n++
		}
	}
	return n
}

func share(correct []bool) float64 { return float64(count(correct)) / float64(len(correct)) }
