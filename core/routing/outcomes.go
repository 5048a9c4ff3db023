package routing

import (
	"math"
	"math/bits"
	"slices"
	"strings"

	"agflow/core/fault"
	"agflow/core/words"
)

// Outcomes has the results of both experts on the same held-out samples; Prior is the light
// expert's. EscalatedCorrect has the correctness of the cascade's answers to escalated samples,
// where these are not the heavy expert's; without it they are HeavyCorrect.
type Outcomes struct {
	Prior                                        []float32
	LightCorrect, HeavyCorrect, EscalatedCorrect Bits

	kept Bits // the samples that count; all where it is not given
}

// combined reports whether escalated samples are answered by the ensemble of both experts.
func (o Outcomes) combined() bool { return o.EscalatedCorrect.given() }

// escalatedCorrect has the correctness of the cascade's answers when all samples escalate.
func (o Outcomes) escalatedCorrect() Bits {
	if o.combined() {
		return o.EscalatedCorrect
	}
	return o.HeavyCorrect
}

func (o Outcomes) validate() error {
	if n := len(o.Prior); n != o.LightCorrect.Len() || n != o.HeavyCorrect.Len() ||
		n != o.escalatedCorrect().Len() {
		return fault.New(fault.Shape,
			"%d priors, %d light, %d heavy and %d escalated outcomes were given; "+
				"give one of each a sample",
			n, o.LightCorrect.Len(), o.HeavyCorrect.Len(), o.escalatedCorrect().Len())
	}
	if o.samples() == 0 {
		return fault.New(fault.Empty, "no samples were given; predict on held-out data first")
	}
	if len(o.Prior) > math.MaxUint32 {
		return fault.New(fault.Value, "%d samples were given; at most %d are counted", len(o.Prior),
			uint32(math.MaxUint32))
	}
	for i, p := range o.Prior {
		if p-p != 0 {
			return fault.New(fault.Nonfinite,
				"the prior of sample %d is %v; priors are finite numbers", i, p)
		}
	}
	return nil
}

// only returns the samples of some bits, over the same memory.
func (o Outcomes) only(kept Bits) Outcomes {
	o.kept = kept
	return o
}

// samples returns how many samples count.
func (o Outcomes) samples() int64 {
	if o.kept.given() {
		return o.count(o.kept)
	}
	return int64(len(o.Prior))
}

// count returns how many of the samples that count are correct.
func (o Outcomes) count(correct Bits) (n int64) {
	for w, word := range correct.words {
		n += int64(bits.OnesCount64(o.keptWord(w) & word))
	}
	return n
}

// countBut returns how many of the samples that count are correct in one way, but not in another.
func (o Outcomes) countBut(correct, not Bits) (n int64) {
	for w, word := range correct.words {
		n += int64(bits.OnesCount64(o.keptWord(w) & word &^ not.words[w]))
	}
	return n
}

func (o Outcomes) keptWord(w int) uint64 {
	if o.kept.given() {
		return o.kept.words[w]
	}
	return ^uint64(0)
}

func (o Outcomes) share(correct Bits) float64 {
	return float64(o.count(correct)) / float64(o.samples())
}

// Samples has held-out samples with every recorded prior, the first being the default, and the
// costs of the experts.
type Samples struct {
	Priors                     []Prior
	LightCorrect, HeavyCorrect Bits
	Labels, Heavy              []int64 // and the heavy expert's answers, where they are at hand
	EnsembleCorrect            Bits    // of the ensemble's answers, where they were recorded
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
		return Outcomes{}, fault.New(fault.Value,
			"the predictions have no prior %q; they have %s%s", prior,
			strings.Join(s.names(), ", "), words.DidYouMean(prior, s.names()))
	}
	o := Outcomes{
		Prior: s.Priors[at].Values, LightCorrect: s.LightCorrect, HeavyCorrect: s.HeavyCorrect,
	}
	switch answers {
	case "", HeavyAnswers:
	case EnsembleAnswers:
		if !s.EnsembleCorrect.given() {
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
