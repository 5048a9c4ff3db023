package routing

import (
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// pairOf draws samples whose second prior separates the light expert's errors, while the first and
// the last are noise.
func pairOf(n int) Samples {
	r := rand.New(rand.NewPCG(31, 32))
	s := Samples{
		LightCorrect: NewBits(n), HeavyCorrect: NewBits(n), Temperature: 2, Cost: Cost{
			Light: 300, Heavy: 1000, Unit: MACs,
		},
		Priors: []Prior{
			{Name: MaxProbability, Values: make([]float32, n)}, {
				Name: Margin, Values: make([]float32, n),
			}, {Name: Entropy + Scaled, Values: make([]float32, n)},
		},
	}
	for i := range n {
		u := r.Float64()
		s.LightCorrect.Set(i, u > 0.2)
		s.HeavyCorrect.Set(i, true)
		s.Priors[0].Values[i], s.Priors[1].Values[i] = r.Float32(), float32(u)
		s.Priors[2].Values[i] = r.Float32()
	}
	return s
}

func number(x float64) *float64 { return &x }

// A named prior is calibrated on all samples; one that the data chose, or whose temperature they
// fitted, on the samples that were not used for that.
func TestRouterCalibratesOnWhatDidNotChoose(t *testing.T) {
	s := pairOf(4000)
	rest := 0
	for i := range 4000 {
		if !Chooses(i) {
			rest++
		}
	}
	for _, c := range []struct {
		asked, prior string
		temperature  float64
		samples      int
	}{
		{"", MaxProbability, 1, 4000}, {Margin, Margin, 1, 4000}, {AutoPrior, Margin, 1, rest}, {
			Entropy + Scaled, Entropy + Scaled, 2, rest,
		},
	} {
		router, err := NewRouter(s, Request{
			Prior: c.asked, Tolerance: number(0.01), Confidence: 0.95,
		})
		if err != nil || router.Prior != c.prior || router.Temperature != c.temperature ||
			router.Samples != int64(c.samples) || router.Verdict != Pass {
			t.Fatalf("%q: got %+v, %v", c.asked, router, err)
		}
		o, _ := s.Outcomes(c.prior, HeavyAnswers)
		if c.samples == rest {
			o = copyOf(o, func(i int) bool { return !Chooses(i) })
		}
		if want, _ := Calibrate(o, 0.01, 0.95); router.Threshold != want {
			t.Errorf("%q: got %+v, want %+v", c.asked, router.Threshold, want)
		}
		if router.Ledger.Samples != router.Samples ||
			router.Ledger.Escalation != router.Escalation {
			t.Errorf("%q: ledger %+v", c.asked, router.Ledger)
		}
		if len(router.Priors) != 3 || router.Priors[1].AUROC != 1 || router.Priors[0].Low > 0.5 ||
			router.Priors[0].High < 0.5 {
			t.Errorf("%q: priors %+v", c.asked, router.Priors)
		}
	}
}

// The router is calibrated for the requested limit, and for exactly one.
func TestRouterTargets(t *testing.T) {
	s := pairOf(2000)
	for target, r := range map[string]Request{
		AccuracyTarget: {Tolerance: number(0.01)}, EscalationTarget: {
			Escalation: number(0.01),
		}, ChargedTarget: {Charged: number(0.31)},
	} {
		r.Confidence = 0.9
		if router, err := NewRouter(s, r); err != nil || router.Target != target ||
			router.Bound > router.Limit {
			t.Errorf("%s: got %+v, %v", target, router, err)
		}
	}
	for _, r := range []Request{
		{}, {Tolerance: number(0.1), Charged: number(0.5)},
		{Charged: number(0.5), Escalation: number(0.5)},
	} {
		r.Confidence = 0.9
		_, err := NewRouter(s, r)
		requireCode(t, err, fault.Value)
	}
	_, err := NewRouter(s, Request{Prior: "agreement", Tolerance: number(0.1), Confidence: 0.9})
	requireCode(t, err, fault.Value)
	_, err = NewRouter(Samples{}, Request{Tolerance: number(0.1), Confidence: 0.9})
	requireCode(t, err, fault.Empty)
}

// withEnsemble adds the ensemble's answers: correct wherever one of the two experts is, or correct
// at random.
func withEnsemble(s Samples, good bool) Samples {
	r := rand.New(rand.NewPCG(33, 34))
	s.LightWeight = 0.25
	s.EnsembleCorrect = BitsOf(s.LightCorrect.Len(), func(i int) bool {
		return good && (s.LightCorrect.At(i) || s.HeavyCorrect.At(i)) || !good && r.IntN(2) == 0
	})
	return s
}

// With the ensemble, the samples that fitted its weight are not used for the threshold; the
// accuracy is compared with the heavy expert alone.
func TestRouterOfTheEnsemble(t *testing.T) {
	s := pairOf(4000)
	for i := range s.HeavyCorrect.Len() {
		// where it is wrong, the ensemble is correct where the light expert is
		s.HeavyCorrect.Set(i, i%10 != 0)
	}
	s = withEnsemble(s, true)
	router, err := NewRouter(s, Request{
		Prior: Margin, Answers: EnsembleAnswers, Tolerance: number(0.01), Confidence: 0.95,
	})
	if err != nil || router.Verdict != Pass || router.Answers != EnsembleAnswers ||
		router.LightWeight != 0.25 {
		t.Fatalf("got %+v, %v", router, err)
	}
	o, err := s.Outcomes(Margin, EnsembleAnswers)
	if err != nil {
		t.Fatal(err)
	}
	o = copyOf(o, func(i int) bool { return !Chooses(i) })
	if want, _ := Calibrate(o, 0.01, 0.95); router.Threshold != want ||
		router.Samples != int64(len(o.Prior)) {
		t.Errorf("got %+v, want %+v", router.Threshold, want)
	}
	if want := at(o, s.Cost, router.Threshold.Threshold); router.Point != want ||
		router.Point.Accuracy != router.AccuracyCascade {
		t.Errorf("got %+v, want %+v", router.Point, want)
	}
	if router.AccuracyHeavy != o.share(o.HeavyCorrect) {
		t.Errorf("the heavy expert's accuracy is %v, want %v", router.AccuracyHeavy,
			o.share(o.HeavyCorrect))
	}
	heavy, err := NewRouter(s, Request{Prior: Margin, Tolerance: number(0.01), Confidence: 0.95})
	if err != nil || heavy.Answers != HeavyAnswers || heavy.LightWeight != 0 ||
		heavy.Samples != 4000 {
		t.Errorf("got %+v, %v", heavy, err)
	}
}

// Where no threshold passes, the heavy expert answers alone, and the router describes that.
func TestRouterFallsBackToTheHeavyExpert(t *testing.T) {
	s := withEnsemble(pairOf(4000), false)
	router, err := NewRouter(s, Request{
		Prior: Margin, Answers: EnsembleAnswers, Tolerance: number(0.01), Confidence: 0.95,
	})
	if err != nil || router.Verdict != Fail || router.Answers != HeavyAnswers ||
		router.LightWeight != 0 || router.Threshold.Threshold != EscalateAll {
		t.Fatalf("got %+v, %v", router, err)
	}
	// the heavy expert is always correct
	if router.Point.Accuracy != 1 || router.AccuracyCascade != 1 || router.Escalation != 1 {
		t.Errorf("got %+v", router)
	}
	few := withEnsemble(pairOf(60), true)
	router, err = NewRouter(few, Request{
		Prior: Margin, Answers: EnsembleAnswers, Tolerance: number(0.01), Confidence: 0.95,
	})
	if err != nil || router.Verdict != InsufficientData || router.Answers != HeavyAnswers ||
		router.NeededSamples < 100 {
		t.Errorf("got %+v, %v", router, err)
	}
	for _, answers := range []string{EnsembleAnswers, "light"} {
		_, err = NewRouter(pairOf(100), Request{
			Answers: answers, Tolerance: number(0.01), Confidence: 0.95,
		})
		requireCode(t, err, fault.Value)
	}
	s.LightWeight = 1.5
	_, err = NewRouter(s, Request{
		Answers: EnsembleAnswers, Tolerance: number(0.01), Confidence: 0.95,
	})
	requireCode(t, err, fault.Value)
}

// labelled has the logits of both experts for the same images, and the labels.
type labelled struct {
	light, heavy tensor.View
	labels       []int64
}

// drawLabelled draws images: the logits are noise, and 1 more at the label.
func drawLabelled(t *testing.T, r *rand.Rand, n, classes int) labelled {
	labels := make([]int64, n)
	for i := range labels {
		labels[i] = r.Int64N(int64(classes))
	}
	noisy := func(noise float64) tensor.View {
		logits := make([]float64, n*classes)
		for i := range logits {
			logits[i] = noise * r.NormFloat64()
			if int64(i%classes) == labels[i/classes] {
				logits[i]++
			}
		}
		return viewOf(t, logits, classes)
	}
	return labelled{noisy(0.8), noisy(0.7), labels}
}

// samples has the outcomes with an ensemble of a weight, under the first prior.
func (l labelled) samples(t *testing.T, weight float64) Samples {
	combined, err := Combine(l.light, l.heavy, weight)
	if err != nil {
		t.Fatal(err)
	}
	ensemble := logitsOf(t, l.light.Channels(), combined...)
	s := Samples{LightWeight: weight, Cost: Cost{Light: 1, Heavy: 3, Unit: MACs}}
	for i, logits := range []tensor.View{l.light, l.heavy, ensemble} {
		classes, priors, err := Priors(logits, 1, LightExpert)
		if err != nil {
			t.Fatal(err)
		}
		right := BitsOf(len(l.labels), func(k int) bool {
			return int64(classes[k]) == l.labels[k]
		})
		*[]*Bits{&s.LightCorrect, &s.HeavyCorrect, &s.EnsembleCorrect}[i] = right
		if i == 0 {
			s.Priors = priors[:1]
		}
	}
	return s
}

// The guarantee holds for the whole pipeline with a fitted weight: over many draws of images, the
// weight is fitted on a quarter, the threshold calibrated on the rest, and the true accuracy
// measured on many other images.
func TestTheGuaranteeHoldsForAFittedWeight(t *testing.T) {
	skipSlow(t)
	const draws, n, many, classes, tolerance, confidence = 200, 800, 6000, 3, 0.02, 0.8
	r := rand.New(rand.NewPCG(61, 62))
	others := drawLabelled(t, r, many, classes)
	violations, passes, weights := 0, 0, 0.0
	for range draws {
		images := drawLabelled(t, r, n, classes)
		weight, err := FitLightWeight(images.light, images.heavy, images.labels)
		if err != nil {
			t.Fatal(err)
		}
		weights += weight
		router, err := NewRouter(images.samples(t, weight), Request{
			Answers: EnsembleAnswers, Tolerance: number(tolerance), Confidence: confidence,
		})
		if err != nil {
			t.Fatal(err)
		}
		if router.Verdict != Pass {
			continue
		}
		passes++
		truth := others.samples(t, weight)
		o, err := truth.Outcomes(MaxProbability, EnsembleAnswers)
		if err != nil {
			t.Fatal(err)
		}
		point, _, _ := o.at(router.Threshold.Threshold, truth.Cost)
		if point.Accuracy < o.share(o.HeavyCorrect)-tolerance {
			violations++
		}
	}
	allowed := draws * (1 - confidence)
	t.Logf("%d violations of %.0f allowed, %d passes, mean weight %.2f", violations, allowed,
		passes, weights/draws)
	if float64(violations) > allowed+3*math.Sqrt(allowed*confidence) || passes < draws/2 {
		t.Errorf("%d of %d draws break the tolerance, %.0f are allowed; %d passed", violations,
			draws, allowed, passes)
	}
}

// The cost of a prior is charged, and AutoPrior never chooses a prior with a cost.
func TestAPriorThatCosts(t *testing.T) {
	s := pairOf(4000)
	s.Priors = append(s.Priors, Prior{Name: Agreement, Values: s.Priors[1].Values, Cost: 200})
	for i := range s.LightCorrect.Len() {
		s.Priors[1].Values[i] = float32(i % 7)
		s.Priors[3].Values = append([]float32{}, s.Priors[3].Values...)
		s.Priors[3].Values[i] = map[bool]float32{true: 1, false: 0.5}[s.LightCorrect.At(i)]
	}
	auto, err := NewRouter(s, Request{Prior: AutoPrior, Escalation: number(0.5), Confidence: 0.95})
	if err != nil || auto.Prior == Agreement || auto.Ledger.LightCost != 300 {
		t.Errorf("got %+v, %v", auto, err)
	}
	named, err := NewRouter(s, Request{Prior: Agreement, Tolerance: number(0.01), Confidence: 0.95})
	if err != nil || named.Prior != Agreement || named.Ledger.LightCost != 500 ||
		named.Point.Charged != 0.5+named.Escalation {
		t.Errorf("got %+v, %v", named, err)
	}
	curve, err := s.Curve(Agreement, HeavyAnswers, 10)
	if err != nil || curve[0].Charged != 0.5 {
		t.Errorf("got %+v, %v", curve, err)
	}
	_, err = NewRouter(s, Request{Prior: Agreement, Charged: number(0.4), Confidence: 0.95})
	requireCode(t, err, fault.Budget)
}
