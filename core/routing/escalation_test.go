package routing

import (
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/fault"
)

// The guarantee, by simulation: the true share below the threshold is above the limit no more often
// than 1-confidence allows. Here the calibration nearly always uses the whole limit, because
// accuracy rises with escalation.
func TestTheEscalationGuaranteeHolds(t *testing.T) {
	const draws, n, limit, confidence = 2000, 400, 0.2, 0.9
	r := rand.New(rand.NewPCG(21, 22))
	better := population{
		prior: func(u float64) float64 { return u }, loss: func(float64) float64 {
			return 0.3
		}, gain: func(float64) float64 { return 0 },
		spoils: func(float64) float64 { return 0.01 }, mends: func(float64) float64 { return 0.02 },
	}
	violations, used := 0, 0.0
	for range draws {
		found, err := CalibrateEscalation(better.draw(r, n), limit, confidence)
		if err != nil || found.Verdict != Pass {
			t.Fatalf("got %+v, %v", found, err)
		}
		if found.Threshold > limit { // the prior is uniform on [0, 1]
			violations++
		}
		used += found.Threshold
	}
	allowed := draws * (1 - confidence)
	t.Logf("%d violations of %.0f allowed, mean escalation %.3f of %.3f", violations, allowed,
		used/draws, limit)
	if float64(violations) > allowed+3*math.Sqrt(allowed*confidence) || used/draws < 0.8*limit {
		t.Errorf("%d of %d draws break the limit, %.0f are allowed; mean escalation %.3f",
			violations, draws, allowed, used/draws)
	}
}

// Of the thresholds that keep the limit the most accurate one is taken, not the highest.
func TestEscalationTakesTheMostAccurate(t *testing.T) {
	n := 1000
	o := Outcomes{
		Prior: make([]float32, n), LightCorrect: NewBits(n), HeavyCorrect: NewBits(n),
	}
	for i := range n { // the heavy expert helps below 0.1 only, and harms above
		o.Prior[i] = float32(i) / float32(n)
		o.HeavyCorrect.Set(i, i < 100)
		o.LightCorrect.Set(i, i >= 100)
	}
	found, err := CalibrateEscalation(o, 0.5, 0.95)
	if err != nil || found.Verdict != Pass || found.Escalation != 0.1 ||
		found.AccuracyCascade != 1 || found.Threshold != float64(float32(0.1)) {
		t.Fatalf("got %+v, %v", found, err)
	}
	if want := UpperBound(100, 1000, 0.05); math.Abs(found.Bound-want) > 1e-6 {
		t.Errorf("the bound is %v, want %v", found.Bound, want)
	}
	cost := Cost{Light: 300, Heavy: 1000, Unit: MACs}
	charged, err := CalibrateCharged(o, cost, 0.8, 0.95)
	if err != nil || charged.Threshold != found.Threshold || charged.Target != ChargedTarget ||
		charged.Limit != 0.8 || math.Abs(charged.Bound-(0.3+found.Bound)) > 1e-12 {
		t.Errorf("got %+v, %v", charged, err)
	}
}

func TestEscalationAtItsEnds(t *testing.T) {
	o := agreeing(100, 10, 0, 0.5)
	for _, c := range []struct {
		limit, threshold float64
		verdict          string
		needed           int64
	}{
		{0, EscalateNone, Pass, 0}, {0.01, EscalateNone, InsufficientData, 299}, {
			1, EscalateAll, Pass, 0,
		}, {0.04, 0.5, Pass, 0},
	} {
		found, err := CalibrateEscalation(o, c.limit, 0.95)
		if err != nil || found.Threshold != c.threshold || found.Verdict != c.verdict ||
			found.NeededSamples != c.needed {
			t.Errorf("limit %v: got %+v, %v", c.limit, found, err)
		}
	}
	for _, c := range [][2]float64{{-0.1, 0.9}, {1.1, 0.9}, {math.NaN(), 0.9}, {0.5, 0}, {0.5, 1}} {
		_, err := CalibrateEscalation(o, c[0], c[1])
		requireCode(t, err, fault.Value)
	}
	cost := Cost{Light: 300, Heavy: 1000, Unit: MACs}
	_, err := CalibrateCharged(o, cost, 0.29, 0.95)
	requireCode(t, err, fault.Budget)
	_, err = CalibrateCharged(o, cost, math.NaN(), 0.95)
	requireCode(t, err, fault.Budget)
	_, err = CalibrateCharged(o, Cost{}, 0.5, 0.95)
	requireCode(t, err, fault.Value)
	if found, err := CalibrateCharged(o, cost, 5, 0.95); err != nil ||
		found.Threshold != EscalateAll {
		t.Errorf("got %+v, %v", found, err)
	}
}
