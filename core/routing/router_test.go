package routing

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"agflow/core/fault"
)

// pairOf draws samples whose second prior tells the light expert's errors, while the first and the last are noise.
func pairOf(n int) Samples {
	r := rand.New(rand.NewPCG(31, 32))
	s := Samples{
		LightCorrect: make([]bool, n), HeavyCorrect: make([]bool, n), Temperature: 2, Cost: Cost{Light: 300, Heavy: 1000},
		Priors: []Prior{
			{Name: MaxProbability, Values: make([]float32, n)}, {Name: Margin, Values: make([]float32, n)}, {Name: Entropy + Scaled, Values: make([]float32, n)},
		},
	}
	for i := range n {
		u := r.Float64()
		s.LightCorrect[i], s.HeavyCorrect[i] = u > 0.2, true
		s.Priors[0].Values[i], s.Priors[1].Values[i], s.Priors[2].Values[i] = r.Float32(), float32(u), r.Float32()
	}
	return s
}

func number(x float64) *float64 { return &x }

// A prior that was named gets all samples; one that the data chose, or whose temperature it fitted, those that did not
// choose.
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
		{"", MaxProbability, 1, 4000}, {Margin, Margin, 1, 4000}, {AutoPrior, Margin, 1, rest}, {Entropy + Scaled, Entropy + Scaled, 2, rest},
	} {
		router, err := NewRouter(s, Request{Prior: c.asked, Tolerance: number(0.01), Confidence: 0.95})
		if err != nil || router.Prior != c.prior || router.Temperature != c.temperature || router.Samples != int64(c.samples) || router.Verdict != Pass {
			t.Fatalf("%q: got %+v, %v", c.asked, router, err)
		}
		o, _ := s.Outcomes(c.prior, HeavyAnswers)
		if c.samples == rest {
			o = o.where(func(i int) bool { return !Chooses(i) })
		}
		if want, _ := Calibrate(o, 0.01, 0.95); router.Threshold != want {
			t.Errorf("%q: got %+v, want %+v", c.asked, router.Threshold, want)
		}
		if router.Ledger.Samples != router.Samples || router.Ledger.Escalation != router.Escalation {
			t.Errorf("%q: ledger %+v", c.asked, router.Ledger)
		}
		if len(router.Priors) != 3 || router.Priors[1].AUROC != 1 || router.Priors[0].Low > 0.5 || router.Priors[0].High < 0.5 {
			t.Errorf("%q: priors %+v", c.asked, router.Priors)
		}
	}
}

// What was asked is what is calibrated for, and one thing only.
func TestRouterTargets(t *testing.T) {
	s := pairOf(2000)
	for target, r := range map[string]Request{
		AccuracyTarget: {Tolerance: number(0.01)}, EscalationTarget: {Escalation: number(0.01)}, ChargedTarget: {Charged: number(0.31)},
	} {
		r.Confidence = 0.9
		if router, err := NewRouter(s, r); err != nil || router.Target != target || router.Bound > router.Limit {
			t.Errorf("%s: got %+v, %v", target, router, err)
		}
	}
	for _, r := range []Request{{}, {Tolerance: number(0.1), Charged: number(0.5)}, {Charged: number(0.5), Escalation: number(0.5)}} {
		r.Confidence = 0.9
		_, err := NewRouter(s, r)
		requireCode(t, err, fault.Value)
	}
	_, err := NewRouter(s, Request{Prior: "agreement", Tolerance: number(0.1), Confidence: 0.9})
	requireCode(t, err, fault.Value)
	_, err = NewRouter(Samples{}, Request{Tolerance: number(0.1), Confidence: 0.9})
	requireCode(t, err, fault.Empty)
}

func TestRouterRoundTrip(t *testing.T) {
	router, err := NewRouter(pairOf(500), Request{Tolerance: number(0.05), Confidence: 0.9})
	if err != nil {
		t.Fatal(err)
	}
	content, err := router.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseRouter(content)
	if err != nil || !reflect.DeepEqual(back, router) {
		t.Fatalf("got %+v, %v; want %+v", back, err, router)
	}
	for _, broken := range [][]byte{
		nil, content[:40], bytes.Replace(content, []byte(`"format": 3`), []byte(`"format": 1`), 1),
		bytes.Replace(content, []byte(`"temperature": 1`), []byte(`"temperature": 0`), 1), bytes.Replace(content, []byte(`max_`), []byte(`min_`), 1)[:60],
	} {
		_, err := ParseRouter(broken)
		requireCode(t, err, fault.File)
	}
}
