package routing

import (
	"math"
	"math/rand/v2"
	"testing"

	"agflow/core/fault"
	"agflow/core/tensor"
)

func logitsOf(t *testing.T, classes int, values ...float32) tensor.View {
	t.Helper()
	v, err := tensor.NewView(values, len(values)/classes, classes)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func requireCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if err == nil || fault.CodeOf(err) != code {
		t.Fatalf("got %v, want an error of code %s", err, code)
	}
}

// population is a pair of experts whose outcomes depend on a uniform draw u alone. The prior rises
// with u.
type population struct {
	prior      func(u float64) float64
	loss, gain func(u float64) float64 // P(heavy correct, light wrong), P(the reverse)
	// P(ensemble wrong | heavy correct), P(ensemble correct | heavy wrong); nil: heavy answers
	spoils, mends func(u float64) float64
}

// draw draws n samples; where the experts agree, both are correct or wrong with equal chance.
func (p population) draw(r *rand.Rand, n int) Outcomes {
	o := Outcomes{
		Prior: make([]float32, n), LightCorrect: NewBits(n), HeavyCorrect: NewBits(n),
	}
	for i := range n {
		u, v := r.Float64(), r.Float64()
		o.Prior[i] = float32(p.prior(u))
		switch {
		case v < p.loss(u):
			o.HeavyCorrect.Set(i, true)
		case v < p.loss(u)+p.gain(u):
			o.LightCorrect.Set(i, true)
		case r.Float64() < 0.5:
			o.LightCorrect.Set(i, true)
			o.HeavyCorrect.Set(i, true)
		}
		if p.spoils != nil {
			flip := p.mends(u)
			if o.HeavyCorrect.At(i) {
				flip = p.spoils(u)
			}
			if i == 0 {
				o.EscalatedCorrect = NewBits(n)
			}
			o.EscalatedCorrect.Set(i, o.HeavyCorrect.At(i) != (r.Float64() < flip))
		}
	}
	return o
}

// excess returns the true accuracy(heavy) - accuracy(cascade) at a threshold, by the midpoint rule.
func (p population) excess(threshold float64) float64 {
	const steps = 4_000
	total := 0.0
	for k := range steps {
		u := (float64(k) + 0.5) / steps
		switch {
		case !escalates(float32(p.prior(u)), threshold):
			total += p.loss(u) - p.gain(u)
		case p.spoils != nil:
			heavy := p.loss(u) + (1-p.loss(u)-p.gain(u))/2
			total += heavy*p.spoils(u) - (1-heavy)*p.mends(u)
		}
	}
	return total / steps
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// combinedOutcomes are randomOutcomes whose escalated samples the ensemble answers.
func combinedOutcomes(r *rand.Rand, n, distinct int) Outcomes {
	o := randomOutcomes(r, n, distinct)
	o.EscalatedCorrect = BitsOf(n, func(int) bool { return r.Float32() < 0.8 })
	return o
}

// randomOutcomes draws priors from few or many distinct values.
func randomOutcomes(r *rand.Rand, n, distinct int) Outcomes {
	o := Outcomes{
		Prior: make([]float32, n), LightCorrect: NewBits(n), HeavyCorrect: NewBits(n),
	}
	for i := range n {
		p := float32(r.IntN(distinct)+1) / float32(distinct)
		o.Prior[i] = p
		o.LightCorrect.Set(i, r.Float32() < p)
		o.HeavyCorrect.Set(i, r.Float32() < 0.9)
	}
	return o
}

func bitsOf(values ...bool) Bits {
	return BitsOf(len(values), func(i int) bool { return values[i] })
}

// copyOf copies the samples whose index passes a test.
func copyOf(o Outcomes, keep func(int) bool) Outcomes {
	var at []int
	for i := range o.Prior {
		if keep(i) {
			at = append(at, i)
		}
	}
	kept := Outcomes{Prior: make([]float32, len(at))}
	for k, i := range at {
		kept.Prior[k] = o.Prior[i]
	}
	pick := func(b Bits) Bits { return BitsOf(len(at), func(k int) bool { return b.At(at[k]) }) }
	kept.LightCorrect, kept.HeavyCorrect = pick(o.LightCorrect), pick(o.HeavyCorrect)
	if o.combined() {
		kept.EscalatedCorrect = pick(o.EscalatedCorrect)
	}
	return kept
}

// joined has the samples of both.
func joined(a, b Outcomes) Outcomes {
	join := func(x, y Bits) Bits {
		return BitsOf(x.Len()+y.Len(), func(i int) bool {
			if i < x.Len() {
				return x.At(i)
			}
			return y.At(i - x.Len())
		})
	}
	return Outcomes{
		Prior:        append(a.Prior, b.Prior...),
		LightCorrect: join(a.LightCorrect, b.LightCorrect),
		HeavyCorrect: join(a.HeavyCorrect, b.HeavyCorrect),
	}
}

// skipSlow leaves a test of many seconds to make test-all.
func skipSlow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes many seconds: make test-all runs it")
	}
}
