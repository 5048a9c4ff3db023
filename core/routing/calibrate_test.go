package routing

import (
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/fault"
)

// The guarantee, by simulation: over 2,000 draws, the true accuracy of the calibrated cascade is
// below that of the heavy expert by more than the tolerance no more often than 1-confidence allows.
// The populations are chosen to be hard: the true excess crosses the tolerance slowly, jumps over
// it, or stays just above it; with the ensemble's answers it may do so where all samples escalate,
// and fall below it where fewer do.
//
// The function is long because of its table of populations.
func TestTheGuaranteeHolds(t *testing.T) {
	const draws, n, tolerance, confidence = 2000, 1500, 0.02, 0.9
	rising := func(u float64) float64 { return logistic(12*u - 4) }
	none := func(float64) float64 { return 0 }
	always := func(p float64) func(float64) float64 { return func(float64) float64 { return p } }
	for name, p := range map[string]population{
		"crosses slowly": {prior: rising,
			loss: func(u float64) float64 { return 0.08 * (1 - u) }, gain: none},
		"losses and gains": {prior: rising,
			loss: func(u float64) float64 { return 0.25 * (1 - u) },
			gain: func(u float64) float64 { return 0.15 * (1 - u) }},
		"jumps": {prior: func(u float64) float64 { return 0.1 + 0.8*math.Floor(4*u)/4 },
			loss: func(u float64) float64 { return 0.03 * (4 - math.Floor(4*u)) / 2 }, gain: none},
		"just above throughout": {prior: always(0.9), loss: always(0.0201), gain: none},
		"dips below and comes back": {prior: rising,
			loss: func(u float64) float64 {
				return map[bool]float64{true: 0.07}[u > 0.7] + map[bool]float64{true: 0.05}[u < 0.4]
			},
			gain: func(u float64) float64 {
				return map[bool]float64{true: 0.06}[u > 0.4 && u < 0.7]
			}},
		"ensemble, just above where all escalate": {
			prior: rising, loss: none, gain: none, spoils: always(0.0405), mends: none,
		},
		"ensemble gains, light loses": {prior: rising,
			loss: func(u float64) float64 { return 0.2 * (1 - u) }, gain: none,
			spoils: always(0.02), mends: always(0.06)},
		"ensemble loses where the light expert is confident": {prior: rising,
			loss: func(u float64) float64 { return 0.06 * (1 - u) }, gain: none,
			spoils: func(u float64) float64 { return 0.06 * u }, mends: none},
		"ensemble, just above throughout": {
			prior: rising, loss: always(0.06), gain: always(0.0399), spoils: always(0.06),
			mends: always(0.0199),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(11, 12))
			// it keeps its results from draw to draw
			test := newPairedTest(n, tolerance, 1-confidence)
			violations, passes := 0, 0
			for range draws {
				passed, _ := p.draw(r, n).descend(test)
				if passed.answered == 0 {
					continue
				}
				passes++
				if p.excess(passed.threshold) > tolerance {
					violations++
				}
			}
			allowed := draws * (1 - confidence)
			t.Logf("%d violations of %.0f allowed, %d passes", violations, allowed, passes)
			// the allowance for chance
			if float64(violations) > allowed+3*math.Sqrt(allowed*confidence) {
				t.Errorf("%d of %d draws break the tolerance, %.0f are allowed", violations, draws,
					allowed)
			}
		})
	}
}

// The guarantee does not come from never passing: a light expert that errs only where it has low
// confidence passes in nearly every draw, and answers most images alone.
func TestAGoodPairPasses(t *testing.T) {
	good := population{
		prior: func(u float64) float64 { return logistic(12*u - 2) },
		loss:  func(u float64) float64 { return 0.3 * logistic(-20*(u-0.3)) },
		gain:  func(float64) float64 { return 0.004 },
	}
	r := rand.New(rand.NewPCG(13, 14))
	test := newPairedTest(4000, 0.01, 0.05)
	passes, escalation := 0, 0.0
	const draws = 200
	for range draws {
		if passed, _ := good.draw(r, 4000).descend(test); passed.answered > 0 {
			passes++
			escalation += 1 - float64(passed.answered)/4000
		}
	}
	t.Logf("%d of %d pass, mean escalation %.3f", passes, draws, escalation/float64(passes))
	if passes < draws*99/100 || escalation/float64(passes) > 0.5 {
		t.Fatalf("%d of %d pass, mean escalation %.3f", passes, draws, escalation/float64(passes))
	}
}

// agreeing returns n samples of equal outcomes, losses and gains aside, all of one prior.
func agreeing(n, losses, gains int, prior float32) Outcomes {
	o := Outcomes{
		Prior: make([]float32, n), LightCorrect: NewBits(n), HeavyCorrect: NewBits(n),
	}
	for i := range n {
		o.Prior[i] = prior
		o.LightCorrect.Set(i, i >= losses)
		o.HeavyCorrect.Set(i, i < losses || i >= losses+gains)
	}
	return o
}

// Every figure of a passing calibration by hand: all agree, so every threshold holds and nothing
// escalates.
func TestPassByHand(t *testing.T) {
	got, err := Calibrate(agreeing(1000, 0, 0, 0.7), 0.005, 0.95)
	want := Threshold{
		Threshold: EscalateNone, Verdict: Pass, Target: AccuracyTarget, Limit: 0.005,
		Confidence: 0.95,
		Samples:    1000, AccuracyLight: 1, AccuracyHeavy: 1, AccuracyCascade: 1,
	}
	if exact := 1 - math.Pow(0.05, 1.0/1000); err != nil || got.Bound < exact ||
		got.Bound > 1.002*exact {
		t.Fatalf("got %+v, %v", got, err)
	}
	got.Bound = 0
	if got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

// The cascade's accuracy is that of its two halves: the confident half loses nothing, the uncertain
// half would violate the tolerance.
func TestPassOnTheConfidentHalf(t *testing.T) {
	confident, uncertain := agreeing(2000, 2, 4, 0.99), agreeing(2000, 500, 0, 0.3)
	o := joined(confident, uncertain)
	got, err := Calibrate(o, 0.005, 0.95)
	if err != nil || got.Verdict != Pass || got.Threshold <= 0.3 || got.Threshold > 0.99 ||
		got.Escalation != 0.5 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got.AccuracyHeavy != 3996.0/4000 || got.AccuracyLight != 3498.0/4000 ||
		math.Abs(got.AccuracyCascade-3998.0/4000) > 1e-12 {
		t.Fatalf("accuracies %+v", got)
	}
	// the lowest float32 that keeps the uncertain half out
	if want := float64(math.Nextafter32(0.3, 1)); got.Threshold != want {
		t.Fatalf("the threshold is %v, want %v", got.Threshold, want)
	}
}

// Too few samples: the verdict has a number that is enough, and hardly more than that.
func TestInsufficientData(t *testing.T) {
	for name, c := range map[string]struct{ n, losses, gains int }{
		"all agree": {100, 0, 0}, "few losses": {1000, 3, 0}, "more gains": {300, 2, 5},
	} {
		o := agreeing(c.n, c.losses, c.gains, 1)
		got, err := Calibrate(o, 0.005, 0.95)
		if err != nil || got.Verdict != InsufficientData || got.Threshold != EscalateAll ||
			got.Escalation != 1 || got.AccuracyCascade != got.AccuracyHeavy || got.Bound <= 0.005 {
			t.Fatalf("%s: got %+v, %v", name, got, err)
		}
		holds := func(m int64) bool {
			scale := float64(m) / float64(c.n)
			return newPairedTest(m, 0.005, 1-got.Confidence).shown(
				math.Ceil(float64(c.losses)*scale), math.Floor(float64(c.gains)*scale))
		}
		if m := got.NeededSamples; m <= int64(c.n) || !holds(m) || holds(m*99/100) {
			t.Errorf("%s: %d samples are said to be needed", name, m)
		}
	}
	got, err := Calibrate(agreeing(100, 0, 0, 1), 0.005, 0.95)
	if want := int64(math.Ceil(math.Log(0.05) / math.Log(1-0.005))); err != nil ||
		got.NeededSamples != want {
		t.Fatalf("without any loss %d samples are needed, got %d", want, got.NeededSamples)
	}
}

// Rates that violate the tolerance themselves fail, for any number of samples.
func TestFail(t *testing.T) {
	got, err := Calibrate(agreeing(1000, 50, 10, 0.9), 0.01, 0.95)
	if err != nil || got.Verdict != Fail || got.Threshold != EscalateAll ||
		got.NeededSamples != 0 || got.Escalation != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
}

// A light expert that is better passes although it is wrong on some images that the heavy one
// answers correctly.
func TestGainsOutweighLosses(t *testing.T) {
	if got, err := Calibrate(agreeing(1000, 40, 100, 0.9), 0.005, 0.95); err != nil ||
		got.Verdict != Pass || got.Threshold != EscalateNone || got.Bound > 1e-5 {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestCalibrateRefusals(t *testing.T) {
	o := agreeing(10, 0, 0, 0.5)
	for _, c := range [][2]float64{
		{0, 0.95}, {-0.1, 0.95}, {1, 0.95}, {math.NaN(), 0.95}, {0.01, 0}, {0.01, 1},
		{0.01, math.NaN()},
	} {
		_, err := Calibrate(o, c[0], c[1])
		requireCode(t, err, fault.Value)
	}
	// Extreme but possible requests end in a verdict.
	for _, c := range [][2]float64{{1e-9, 1e-12}, {0.999, 1 - 1e-16}, {1e-300, 0.5}} {
		if got, err := Calibrate(o, c[0], c[1]); err != nil || got.Verdict == "" {
			t.Fatalf("%v: got %+v, %v", c, got, err)
		}
	}
}
