package routing

import (
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/fault"
)

// Of all choices of the samples that escalate, tried one by one, none is correct more often, and
// none as often at less cost.
func TestNoChoiceBeatsTheOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	cost := Cost{Light: 300, Heavy: 1000, Unit: MACs}
	for range 50 {
		const n = 9
		o := randomOutcomes(r, n, 4)
		best, err := Oracle(o, cost)
		if err != nil {
			t.Fatal(err)
		}
		correct, escalated := -1, 0
		for choice := range 1 << n {
			right, sent := 0, 0
			for i := range n {
				escalates := choice>>i&1 == 1
				if escalates {
					sent++
				}
				if escalates && o.HeavyCorrect.At(i) || !escalates && o.LightCorrect.At(i) {
					right++
				}
			}
			if right > correct || right == correct && sent < escalated {
				correct, escalated = right, sent
			}
		}
		if best.Accuracy != float64(correct)/n || best.Escalated != int64(escalated) ||
			math.Abs(best.Charged-0.3-float64(escalated)/n) > 1e-12 {
			t.Fatalf("got %+v, want %d right and %d escalated of %d", best, correct, escalated, n)
		}
	}
}

// No threshold of a prior beats the oracle either.
func TestTheCurveStaysBelowTheOracle(t *testing.T) {
	o := randomOutcomes(rand.New(rand.NewPCG(33, 34)), 2000, 500)
	cost := Cost{Light: 300, Heavy: 1000, Unit: MACs}
	best, err := Oracle(o, cost)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := Curve(o, cost, 3000)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range curve {
		if p.Accuracy > best.Accuracy || p.Accuracy == best.Accuracy && p.Charged < best.Charged {
			t.Fatalf("at %v: %v right for %v, the oracle %v for %v", p.Threshold, p.Accuracy,
				p.Charged, best.Accuracy, best.Charged)
		}
	}
	_, err = Oracle(Outcomes{}, cost)
	requireCode(t, err, fault.Empty)
	_, err = Oracle(o, Cost{})
	requireCode(t, err, fault.Value)
}
