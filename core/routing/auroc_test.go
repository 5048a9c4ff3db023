package routing

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The AUROC equals its definition, over all pairs, with many equal priors and with none; negating
// the prior reverses it.
func TestAUROCIsTheShareOfPairs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, distinct := range []int{2, 3, 20, 1 << 20} {
		o := randomOutcomes(r, 300, distinct)
		pairs, won := 0.0, 0.0
		for i := range o.Prior {
			for j := range o.Prior {
				if o.LightCorrect.At(i) && !o.LightCorrect.At(j) {
					pairs++
					if o.Prior[i] > o.Prior[j] {
						won++
					} else if o.Prior[i] == o.Prior[j] {
						won += 0.5
					}
				}
			}
		}
		q := o.quality("p")
		if q.AUROC != won/pairs || q.Low > q.AUROC || q.High < q.AUROC || q.Low < 0 || q.High > 1 {
			t.Errorf("%d distinct priors: got %+v, want %v", distinct, q, won/pairs)
		}
		for i := range o.Prior {
			o.Prior[i] = -o.Prior[i]
		}
		if negated := o.quality("p"); math.Abs(negated.AUROC-(1-q.AUROC)) > 1e-15 ||
			math.Abs(negated.Low-(1-q.High)) > 1e-9 {
			t.Errorf("negated: %+v after %+v", negated, q)
		}
	}
}

// The interval covers the true value about as often as it claims, also where the prior is nearly
// perfect.
func TestAUROCIntervalCovers(t *testing.T) {
	for name, shift := range map[string]float64{"useless": 0, "fair": 1, "nearly perfect": 3} {
		r := rand.New(rand.NewPCG(3, 4))
		truth := 0.5 * math.Erfc(-shift/2) // P(N(shift,1) > N(0,1)) = Phi(shift/sqrt 2)
		const draws, n = 1000, 400
		covered := 0
		for range draws {
			o := Outcomes{
				Prior: make([]float32, n), LightCorrect: NewBits(n),
				HeavyCorrect: NewBits(n),
			}
			for i := range n {
				o.LightCorrect.Set(i, i%8 != 0)
				o.Prior[i] = float32(r.NormFloat64())
				if o.LightCorrect.At(i) {
					o.Prior[i] += float32(shift)
				}
			}
			if q := o.quality("p"); q.Low <= truth && truth <= q.High {
				covered++
			}
		}
		t.Logf("%s: %d of %d", name, covered, draws)
		if covered < draws*92/100 {
			t.Errorf("%s: the interval of 95 %% covers %d of %d", name, covered, draws)
		}
	}
}

// Without errors, or with errors only, every prior has the same quality.
func TestAUROCWithoutErrors(t *testing.T) {
	for _, right := range []bool{true, false} {
		o := Outcomes{
			Prior: []float32{1, 2}, LightCorrect: bitsOf(right, right),
			HeavyCorrect: bitsOf(true, true),
		}
		if q := o.quality("p"); q.AUROC != 0.5 || q.Low != 0 || q.High != 1 {
			t.Errorf("got %+v", q)
		}
	}
}
