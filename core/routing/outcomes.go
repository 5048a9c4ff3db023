package routing

import (
	"slices"
	"strings"

	"agflow/core/fault"
)

// Outcomes are what both experts made of the same held-out samples; Prior is the light expert's.
type Outcomes struct {
	Prior                      []float32
	LightCorrect, HeavyCorrect []bool
}

func (o Outcomes) validate() error {
	if len(o.Prior) != len(o.LightCorrect) || len(o.Prior) != len(o.HeavyCorrect) {
		return fault.New(fault.Shape, "%d priors, %d light and %d heavy outcomes were given; give one of each a sample",
			len(o.Prior), len(o.LightCorrect), len(o.HeavyCorrect))
	}
	if len(o.Prior) == 0 {
		return fault.New(fault.Empty, "no samples were given; predict on held-out data first")
	}
	for i, p := range o.Prior {
		if p-p != 0 {
			return fault.New(fault.Nonfinite, "the prior of sample %d is %v; priors are finite numbers", i, p)
		}
	}
	return nil
}

// where keeps the samples for which a test of their number holds.
func (o Outcomes) where(keep func(int) bool) (kept Outcomes) {
	for i := range o.Prior {
		if keep(i) {
			kept.Prior = append(kept.Prior, o.Prior[i])
			kept.LightCorrect = append(kept.LightCorrect, o.LightCorrect[i])
			kept.HeavyCorrect = append(kept.HeavyCorrect, o.HeavyCorrect[i])
		}
	}
	return kept
}

// Samples are held-out samples under every prior that was recorded, the first being the usual one, and the costs of
// the experts.
type Samples struct {
	Priors                     []Prior
	LightCorrect, HeavyCorrect []bool
	Temperature                float64 // of the priors named *_scaled
	Cost                       Cost
	Images, Tuning             string // sketches of the images of these samples and of those that tuned the experts: see checkHeldOut
}

// Outcomes are the samples under one prior.
//
// Errors: value (a prior that was not recorded).
func (s Samples) Outcomes(prior string) (Outcomes, error) {
	at := slices.IndexFunc(s.Priors, func(p Prior) bool { return p.Name == prior })
	if at < 0 {
		return Outcomes{}, fault.New(fault.Value, "the predictions have no prior %q; they have %s", prior, strings.Join(s.names(), ", "))
	}
	return Outcomes{s.Priors[at].Values, s.LightCorrect, s.HeavyCorrect}, nil
}

// temperatureOf is that of the logits of a prior.
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

func share(correct []bool) float64 {
	n := 0
	for _, c := range correct {
		if c {
			n++
		}
	}
	return float64(n) / float64(len(correct))
}
