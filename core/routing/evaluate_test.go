package routing

import (
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/fault"
)

// The evaluation equals counts sample by sample, for random outcomes, thresholds and answers and a
// prior with a cost.
func TestEvaluationIsItsDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 42))
	for trial := range 200 {
		n := 1 + r.IntN(60)
		o := combinedOutcomes(r, n, 1+r.IntN(9))
		s := Samples{
			Priors:       []Prior{{Name: "p", Values: o.Prior, Cost: 7}},
			LightCorrect: o.LightCorrect, HeavyCorrect: o.HeavyCorrect,
			EnsembleCorrect: o.EscalatedCorrect, LightWeight: 0.3, Temperature: 1,
			Cost: Cost{Light: 20, Heavy: 100, Unit: MACs},
		}
		router := Router{
			Ledger: Ledger{CostUnit: MACs},
			Prior:  "p", Temperature: 1, Answers: HeavyAnswers,
			Threshold: Threshold{Threshold: r.Float64()},
		}
		answers := o.HeavyCorrect
		if trial%2 == 1 {
			router.Answers, router.LightWeight, answers = EnsembleAnswers, 0.3, o.EscalatedCorrect
		}
		right, escalated, lost, gained := byDefinition(o, answers, router.Threshold.Threshold)
		found, err := EvaluateRouter(s, router)
		if err != nil {
			t.Fatal(err)
		}
		charged := 0.27 + float64(escalated)/float64(n)
		if found.Point.Accuracy != float64(right)/float64(n) ||
			found.Ledger.Escalated != escalated || found.Lost != lost || found.Gained != gained ||
			math.Abs(found.Ledger.Charged-charged) > 1e-12 ||
			found.Point.Charged != found.Ledger.Charged ||
			found.HeavyAccuracy != o.share(o.HeavyCorrect) {
			t.Fatalf("got %+v; want %d right, %d escalated, %d lost, %d gained of %d at %v", found,
				right, escalated, lost, gained, n, charged)
		}
	}
}

// byDefinition counts the cascade's results by their definition.
func byDefinition(
	o Outcomes, answers Bits, threshold float64,
) (right, escalated, lost, gained int64) {
	for i := range o.Prior {
		answer := o.LightCorrect.At(i)
		if float64(o.Prior[i]) < threshold {
			answer = answers.At(i)
			escalated++
		}
		if answer {
			right++
		}
		if answer && !o.HeavyCorrect.At(i) {
			gained++
		}
		if !answer && o.HeavyCorrect.At(i) {
			lost++
		}
	}
	return right, escalated, lost, gained
}

func TestEvaluationRefusals(t *testing.T) {
	o := combinedOutcomes(rand.New(rand.NewPCG(1, 2)), 10, 4)
	s := func(change func(*Samples, *Router)) error {
		s := Samples{
			Priors: []Prior{
				{Name: "p", Values: o.Prior}, {Name: "p_scaled", Values: o.Prior},
			},
			LightCorrect: o.LightCorrect, HeavyCorrect: o.HeavyCorrect,
			EnsembleCorrect: o.EscalatedCorrect, LightWeight: 0.3, Temperature: 2,
			Cost: Cost{Light: 20, Heavy: 100, Unit: MACs},
		}
		router := Router{Prior: "p", Temperature: 1, Answers: HeavyAnswers,
			Ledger: Ledger{CostUnit: MACs}}
		change(&s, &router)
		_, err := EvaluateRouter(s, router)
		return err
	}
	if err := s(func(*Samples, *Router) {}); err != nil {
		t.Fatal(err)
	}
	requireCode(t, s(func(_ *Samples, r *Router) { r.Prior = "margin" }), fault.Value)
	requireCode(t, s(func(_ *Samples, r *Router) { r.Prior, r.Temperature = "p_scaled", 1.5 }),
		fault.Value)
	requireCode(t,
		s(func(_ *Samples, r *Router) { r.Answers, r.LightWeight = EnsembleAnswers, 0.2 }),
		fault.Value)
	requireCode(t, s(func(s *Samples, _ *Router) { s.Images, s.Tuning = "a b", "b c" }),
		fault.Value)
	requireCode(t, s(func(s *Samples, _ *Router) { s.Cost = Cost{} }), fault.Value)
	requireCode(t, s(func(s *Samples, _ *Router) { s.Cost.Unit = "ms" }), fault.Value)
	requireCode(t, s(func(s *Samples, _ *Router) { s.LightCorrect = NewBits(9) }),
		fault.Shape)
	requireCode(t,
		s(func(s *Samples, _ *Router) {
			s.Priors[0].Values = []float32{float32(math.NaN()), 9: 0}
		}),
		fault.Nonfinite)
}
