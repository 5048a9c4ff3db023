package routing

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

// Decisions equal those of the rule, and answers those of the expert, or the ensemble, that answers
// the image.
func TestDecisionsAndAnswers(t *testing.T) {
	const n, classes = 300, 4
	a, b, _ := pairOfLogits(rand.New(rand.NewPCG(51, 52)), n, classes, 0.5)
	light := viewOf(t, a, classes)
	for _, prior := range []string{MaxProbability, Energy, Entropy + Scaled} {
		_, all, err := Priors(light, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, threshold := range []float64{
			EscalateNone, float64(all[slices.Index(LogitPriors, Energy)].Values[7]), 0.6, -0.5,
			EscalateAll,
		} {
			router := Router{
				Prior: prior, Temperature: 1.5, Answers: HeavyAnswers,
				Threshold: Threshold{Threshold: threshold},
			}
			d, err := router.Decide(light)
			if err != nil {
				t.Fatal(err)
			}
			escalated, err := router.Rule().Route(light)
			if err != nil || !slices.Equal(d.Escalated(), escalated) {
				t.Fatalf("%s < %v: %v escalate, the rule says %v, %v", prior, threshold,
					d.Escalated(), escalated, err)
			}
			var seen, rows []float64
			for _, i := range escalated {
				seen = append(seen, a[int(i)*classes:int(i+1)*classes]...)
				rows = append(rows, b[int(i)*classes:int(i+1)*classes]...)
			}
			heavy := viewOf(t, rows, classes)
			for _, router.Answers = range []string{HeavyAnswers, EnsembleAnswers} {
				router.LightWeight = 0.4
				answered, err := router.Answer(light, heavy)
				if err != nil {
					t.Fatal(err)
				}
				want := rows
				if router.Answers == EnsembleAnswers {
					combined, err := Combine(viewOf(t, seen, classes), heavy, 0.4)
					if err != nil {
						t.Fatal(err)
					}
					want = nil
					for _, v := range combined {
						want = append(want, float64(v))
					}
				}
				k := 0
				for i := range n {
					row := a[i*classes : (i+1)*classes]
					if d.Escalate[i] {
						row, k = want[k*classes:(k+1)*classes], k+1
					}
					if best := slices.Index(row,
						slices.Max(row)); answered.Prediction[i] != int64(best) {
						t.Fatalf("%s: image %d is answered %d, want %d", router.Answers, i,
							answered.Prediction[i], best)
					}
				}
				if !slices.Equal(answered.Prior, d.Prior) ||
					!slices.Equal(answered.Escalate, d.Escalate) {
					t.Fatal("the answers changed the decisions")
				}
			}
		}
	}
}

func TestDecideRefusals(t *testing.T) {
	light, nan := logitsOf(t, 2, 0, 0, 5, 0), logitsOf(t, 2, 0, float32(math.NaN()))
	// the first escalates
	router := Router{
		Prior: MaxProbability, Temperature: 1, Answers: EnsembleAnswers,
		Threshold: Threshold{Threshold: 0.9},
	}
	for name, c := range map[string]struct {
		prior        string
		light, heavy tensor.View
		code         fault.Code
	}{
		"features":      {L1Norm, light, logitsOf(t, 2, 1, 2), fault.Value},
		"a second view": {Agreement, light, logitsOf(t, 2, 1, 2), fault.Value},
		"light NaN":     {MaxProbability, nan, logitsOf(t, 2, 1, 2), fault.Nonfinite},
		"heavy NaN":     {MaxProbability, light, nan, fault.Nonfinite},
		"no rows":       {MaxProbability, light, logitsOf(t, 2), fault.Shape},
		"all rows":      {MaxProbability, light, light, fault.Shape},
		"classes":       {MaxProbability, light, logitsOf(t, 3, 1, 2, 3), fault.Shape},
	} {
		router.Prior = c.prior
		if _, err := router.Answer(c.light, c.heavy); err == nil || fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
